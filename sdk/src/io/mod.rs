//! Reading and writing files.
//!
//! | for | transforms |
//! |---|---|
//! | text, line by line | [`ReadText`], [`ReadAllText`], [`WriteText`] |
//! | rows as serde types | [`ReadCsv`], [`WriteCsv`]; [`ReadJson`], [`ReadAllJson`], [`WriteJson`] (JSON lines) |
//! | rows with a schema | `ReadAvro`, `WriteAvro` (feature `avro`); `ReadParquet`, `WriteParquet` (feature `parquet`) |
//! | byte strings | [`ReadTfRecord`], [`WriteTfRecord`] |
//! | whole files | [`MatchFiles`], [`MatchAll`], [`MatchContinuously`], [`ReadFiles`] |
//! | formats of your own | [`ReadRecords`] with a [`FileSource`], [`WriteFiles`] with a [`FileSink`] |
//!
//! Files are those of the machine that a worker runs on. Patterns are globs: `*` and `?` match within a name, `[ab]` one of
//! several characters, `**` folders of any depth; a file whose name is the pattern itself is always found.

#[cfg(feature = "avro")]
mod avro;
mod compression;
mod csv;
mod files;
mod fs;
mod json;
mod lines;
mod match_continuously;
#[cfg(feature = "parquet")]
mod parquet;
mod read_files;
mod read_records;
mod read_text;
#[cfg(any(feature = "avro", feature = "parquet"))]
mod rows;
mod tfrecord;
mod write;

#[cfg(feature = "avro")]
pub use avro::{AvroCodec, AvroSink, AvroSource, ReadAvro, WriteAvro};
pub use compression::Compression;
pub use csv::{CsvSink, CsvSource, ReadCsv, WriteCsv};
pub use files::{EmptyMatch, FileMetadata, MatchError, match_files, read_file};
pub use json::{JsonLine, JsonSink, ReadAllJson, ReadJson, WriteJson};
pub use match_continuously::MatchContinuously;
#[cfg(feature = "parquet")]
pub use parquet::{ParquetCodec, ParquetSink, ParquetSource, ReadParquet, WriteParquet};
pub use read_files::{MatchAll, MatchFiles, ReadFiles};
pub use read_records::{FileSource, ReadRecords, SourceFile};
pub use read_text::{LineFormat, Plain, ReadAllLines, ReadAllText, ReadLines, ReadText, ReadTextError};
pub use tfrecord::{ReadTfRecord, TfRecordError, TfRecordSink, TfRecordSource, WriteTfRecord};
pub use write::{
    DestinationFn, FileSink, KeyedBy, OneDestination, TextSink, WriteError, WriteFiles, WriteText,
};
