//! Avro files.

mod read;
mod write;

pub use read::{AvroSource, ReadAvro};
pub use write::{AvroCodec, AvroSink, WriteAvro};
