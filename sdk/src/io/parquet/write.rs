//! Writing Parquet files.

use std::io::{self, Write};
use std::marker::PhantomData;
use std::sync::Arc;

use parking_lot::Mutex;
use parquet::basic::{Compression as ParquetCompression, ZstdLevel};
use parquet::data_type::{
    BoolType, ByteArrayType, DoubleType, FixedLenByteArrayType, FloatType, Int32Type, Int64Type,
};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use purlin_model::Coder;

use super::shred::{self, Column, Values};
use crate::error::BoxError;
use crate::io::rows;
use crate::io::write::{FileSink, WriteFiles};
use crate::schema::{RowSchema, Schema};

/// Writes rows as Parquet files: see [`WriteFiles`]. The columns are the fields of the rows, nested ones too.
///
/// BYTE and INT16 are `INT_8` and `INT_16`, `Timestamp` and `MicrosInstant`
/// are `TIMESTAMP_MILLIS` and `TIMESTAMP_MICROS`, a `Decimal` has 38 digits, 9 of them behind the point.
///
/// Parquet files cannot be put together: unless the number of files is given, there is one for each bundle.
///
/// ```
/// use purlin::prelude::*;
///
/// #[derive(Clone, Debug, PartialEq, Schema)]
/// struct User {
///     id: i64,
///     names: Vec<Option<String>>,
/// }
///
/// # let folder = tempfile::tempdir()?;
/// # let output = format!("{}/users.parquet", folder.path().display());
/// let p = TestPipeline::new();
/// let users = [User { id: 1, names: vec![Some("Ann".into()), None] }, User { id: 2, names: vec![] }];
/// let written = p.apply(Create::new(users.clone())).apply(WriteParquet::<User>::to(&output).without_sharding());
/// PAssert::that(&written.apply(ReadParquet::<User>::all())).contains_in_any_order(users);
/// p.run();
/// # Ok::<(), std::io::Error>(())
/// ```
pub type WriteParquet<T> = WriteFiles<ParquetSink<T>>;

/// How the pages of Parquet files are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ParquetCodec {
    /// Not at all.
    Uncompressed,
    /// By Snappy.
    #[default]
    Snappy,
    /// By Zstandard.
    Zstd,
}

/// The format of [`WriteParquet`].
pub struct ParquetSink<T> {
    schema: Arc<RowSchema>,
    coder: Coder,
    codec: ParquetCodec,
    group_rows: usize,
    open: Option<Open>,
    row: PhantomData<fn(T)>,
}

/// A file that is being written.
struct Open {
    writer: SerializedFileWriter<SharedBuffer>,
    written: SharedBuffer,
    columns: Vec<Column>,
    rows: usize,
}

/// What the writer has written and the file has not yet got.
#[derive(Clone, Default)]
struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

impl SharedBuffer {
    fn drain(&self, out: &mut Vec<u8>) {
        out.append(&mut self.0.lock());
    }
}

impl Write for SharedBuffer {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(data);
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<T> Clone for ParquetSink<T> {
    fn clone(&self) -> Self {
        // A clone writes a file of its own.
        ParquetSink {
            schema: self.schema.clone(),
            coder: self.coder.clone(),
            codec: self.codec,
            group_rows: self.group_rows,
            open: None,
            row: PhantomData,
        }
    }
}

impl<T> std::fmt::Debug for ParquetSink<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ParquetSink({}, {:?})", self.schema, self.codec)
    }
}

impl<T: Schema> WriteFiles<ParquetSink<T>> {
    /// Files whose paths start with this.
    pub fn to(prefix: &str) -> WriteParquet<T> {
        let schema = T::schema();
        WriteFiles::with(
            prefix,
            ParquetSink {
                coder: rows::coder(&schema),
                schema,
                codec: ParquetCodec::default(),
                group_rows: 100_000,
                open: None,
                row: PhantomData,
            },
        )
    }
}

impl<T, D> WriteFiles<ParquetSink<T>, D> {
    /// How pages are compressed: by Snappy, unless told otherwise.
    #[must_use]
    pub fn codec(mut self, codec: ParquetCodec) -> Self {
        self.sink_mut().codec = codec;
        self
    }

    /// So many rows make a row group, which is kept in memory until it is whole: 100,000, unless told otherwise.
    #[must_use]
    pub fn row_group_rows(mut self, rows: usize) -> Self {
        self.sink_mut().group_rows = rows.max(1);
        self
    }
}

impl<T: Schema> FileSink<T> for ParquetSink<T> {
    const NAME: &'static str = "WriteParquet";
    const CONCATENATES: bool = false;

    fn check(&self) -> Vec<String> {
        match shred::parquet_schema(&self.schema) {
            Ok(_) => Vec::new(),
            Err(error) => vec![format!(
                "the schema {} has no equal in Parquet: {error}",
                self.schema
            )],
        }
    }

    fn start(&mut self, out: &mut Vec<u8>) -> Result<(), BoxError> {
        let codec = match self.codec {
            ParquetCodec::Uncompressed => ParquetCompression::UNCOMPRESSED,
            ParquetCodec::Snappy => ParquetCompression::SNAPPY,
            ParquetCodec::Zstd => ParquetCompression::ZSTD(ZstdLevel::default()),
        };
        let properties = WriterProperties::builder().set_compression(codec).build();
        let written = SharedBuffer::default();
        let writer = SerializedFileWriter::new(
            written.clone(),
            shred::parquet_schema(&self.schema)?,
            Arc::new(properties),
        )?;
        written.drain(out);
        self.open = Some(Open {
            writer,
            written,
            columns: shred::columns(&self.schema),
            rows: 0,
        });
        Ok(())
    }

    fn write(&mut self, element: T, out: &mut Vec<u8>) -> Result<(), BoxError> {
        let open = self.open.as_mut().ok_or("the file was not started")?;
        let values = rows::to_values(&self.coder, &element)?;
        shred::row(&self.schema, &values, &mut open.columns)?;
        open.rows += 1;
        if open.rows >= self.group_rows {
            open.flush(&self.schema, out)?;
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), BoxError> {
        let mut open = self.open.take().ok_or("the file was not started")?;
        open.flush(&self.schema, out)?;
        open.writer.close()?;
        open.written.drain(out);
        Ok(())
    }
}

impl Open {
    /// Writes the rows so far as a row group.
    fn flush(&mut self, schema: &RowSchema, out: &mut Vec<u8>) -> Result<(), BoxError> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for column in std::mem::replace(&mut self.columns, shred::columns(schema)) {
            let mut writer = group
                .next_column()?
                .ok_or("there are more columns than in the schema")?;
            let (definition, repetition) = (Some(&column.definition[..]), Some(&column.repetition[..]));
            macro_rules! write {
                ($type:ty, $values:expr) => {
                    writer
                        .typed::<$type>()
                        .write_batch(&$values, definition, repetition)?
                };
            }
            match column.values {
                Values::Bool(values) => write!(BoolType, values),
                Values::Int32(values) => write!(Int32Type, values),
                Values::Int64(values) => write!(Int64Type, values),
                Values::Float(values) => write!(FloatType, values),
                Values::Double(values) => write!(DoubleType, values),
                Values::Bytes(values) => write!(ByteArrayType, values),
                Values::Fixed(values) => write!(FixedLenByteArrayType, values),
            };
            writer.close()?;
        }
        group.close()?;
        self.rows = 0;
        self.written.drain(out);
        Ok(())
    }
}
