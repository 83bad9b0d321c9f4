//! Parquet files.

mod read;
mod shred;
mod write;

pub use read::{ParquetSource, ReadParquet};
pub use write::{ParquetCodec, ParquetSink, WriteParquet};
