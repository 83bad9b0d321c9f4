//! CSV files.

use std::marker::PhantomData;

use purlin_model::Element;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::read_records::{FileSource, ReadRecords, SourceFile};
use super::write::{FileSink, WriteFiles};
use crate::error::BoxError;

/// The rows of CSV files, as values of a serde type: a struct takes the columns of the names of its fields, in any order; a tuple
/// or a `Vec<String>` takes them as they come, with [`headerless`](ReadRecords::headerless).
///
/// Values may be quoted, and hold the delimiter and line ends then. One worker reads a file from its beginning, since a line end
/// may or may not be the end of a row.
///
/// ```
/// use purlin::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Debug, PartialEq, Deserialize, Serialize, Schema)]
/// struct Purchase {
///     user: String,
///     cents: Option<i64>,
/// }
///
/// # let folder = tempfile::tempdir()?;
/// # let input = format!("{}/in.csv", folder.path().display());
/// # let output = format!("{}/out.csv", folder.path().display());
/// std::fs::write(&input, "cents,user\n5,\"Ann, or\nBob\"\n,Cat\n")?;
/// let p = TestPipeline::new();
/// let purchases = p.apply(ReadCsv::<Purchase>::from(&input));
/// let costly = purchases.filter("Known", |p: &Purchase| p.cents.is_some());
/// costly.apply(WriteCsv::to(&output).without_sharding());
/// p.run();
/// assert_eq!(std::fs::read_to_string(&output)?, "user,cents\n\"Ann, or\nBob\",5\n");
/// # Ok::<(), std::io::Error>(())
/// ```
pub type ReadCsv<T> = ReadRecords<CsvSource<T>>;

/// How CSV files are read.
#[derive(Clone, Debug)]
pub struct CsvSource<T> {
    delimiter: u8,
    quote: Option<u8>,
    escape: Option<u8>,
    comment: Option<u8>,
    header: bool,
    row: PhantomData<fn() -> T>,
}

impl<T> Default for CsvSource<T> {
    fn default() -> Self {
        CsvSource {
            delimiter: b',',
            quote: Some(b'"'),
            escape: None,
            comment: None,
            header: true,
            row: PhantomData,
        }
    }
}

// The bounds are those of the calls, where the compiler says which of them a type lacks.
impl<T> ReadRecords<CsvSource<T>> {
    /// The rows of the files that match this pattern.
    pub fn from(pattern: &str) -> Self
    where
        T: Element + DeserializeOwned,
    {
        ReadRecords::with(pattern, CsvSource::default())
    }

    /// The rows of the files that match the patterns of a collection.
    pub fn all() -> Self
    where
        T: Element + DeserializeOwned,
    {
        ReadRecords::all_with(CsvSource::default())
    }
}

impl<T: Element + DeserializeOwned> ReadRecords<CsvSource<T>> {
    /// What stands between values: a comma, unless told otherwise.
    #[must_use]
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.source_mut().delimiter = delimiter;
        self
    }

    /// What stands around values that hold the delimiter: `"`, unless told otherwise. `None`: nothing.
    #[must_use]
    pub fn quote(mut self, quote: Option<u8>) -> Self {
        self.source_mut().quote = quote;
        self
    }

    /// What stands before a quote that is part of a value. Unless told otherwise, such quotes are doubled.
    #[must_use]
    pub fn escape(mut self, escape: u8) -> Self {
        self.source_mut().escape = Some(escape);
        self
    }

    /// What lines start with that are left out.
    #[must_use]
    pub fn comment(mut self, comment: u8) -> Self {
        self.source_mut().comment = Some(comment);
        self
    }

    /// Files have no line of names at their beginning.
    #[must_use]
    pub fn headerless(mut self) -> Self {
        self.source_mut().header = false;
        self
    }
}

impl<T: Element + DeserializeOwned> FileSource for CsvSource<T> {
    type Record = T;
    const NAME: &'static str = "ReadCsv";

    fn read(&self, file: &SourceFile, give: &mut dyn FnMut(T)) -> Result<(), BoxError> {
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(self.delimiter)
            .quoting(self.quote.is_some())
            .quote(self.quote.unwrap_or(b'"'))
            .escape(self.escape)
            .double_quote(self.escape.is_none())
            .comment(self.comment)
            .has_headers(self.header)
            .buffer_capacity(128 << 10)
            .from_reader(file.reader()?);
        if self.header {
            // Some programs write a byte order mark, which would be part of the first name.
            let headers = reader.headers()?;
            if let Some(first) = headers.get(0).and_then(|name| name.strip_prefix('\u{feff}')) {
                let names = std::iter::once(first).chain(headers.iter().skip(1)).collect();
                reader.set_headers(names);
            }
        }
        for row in reader.deserialize() {
            give(row?);
        }
        Ok(())
    }
}

/// Writes values of a serde type as the rows of CSV files: see [`WriteFiles`]. Values are quoted where they need it.
///
/// The first line holds the names of the fields of a struct, unless [`headerless`](WriteFiles::headerless); tuples have no names.
/// A file without any element is empty.
pub type WriteCsv = WriteFiles<CsvSink>;

/// How CSV files are written.
#[derive(Clone, Debug)]
pub struct CsvSink {
    delimiter: u8,
    headerless: bool,
    always_quote: bool,
    header: Option<Vec<u8>>,
}

impl WriteFiles<CsvSink> {
    /// Files whose paths start with this.
    pub fn to(prefix: &str) -> WriteCsv {
        WriteFiles::with(
            prefix,
            CsvSink {
                delimiter: b',',
                headerless: false,
                always_quote: false,
                header: None,
            },
        )
    }
}

impl<D> WriteFiles<CsvSink, D> {
    /// What stands between values: a comma, unless told otherwise.
    #[must_use]
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.sink_mut().delimiter = delimiter;
        self
    }

    /// No line of names at the beginning.
    #[must_use]
    pub fn headerless(mut self) -> Self {
        self.sink_mut().headerless = true;
        self
    }

    /// Quotes all values.
    #[must_use]
    pub fn always_quote(mut self) -> Self {
        self.sink_mut().always_quote = true;
        self
    }
}

impl CsvSink {
    fn writer<W: std::io::Write>(&self, header: bool, out: W) -> csv::Writer<W> {
        let quotes = if self.always_quote {
            csv::QuoteStyle::Always
        } else {
            csv::QuoteStyle::Necessary
        };
        csv::WriterBuilder::new()
            .delimiter(self.delimiter)
            .quote_style(quotes)
            .has_headers(header)
            .buffer_capacity(1 << 10)
            .from_writer(out)
    }
}

impl<T: Element + Serialize> FileSink<T> for CsvSink {
    const NAME: &'static str = "WriteCsv";
    const CONCATENATES: bool = true;

    fn write(&mut self, element: T, out: &mut Vec<u8>) -> Result<(), BoxError> {
        let start = out.len();
        let mut writer = self.writer(false, &mut *out);
        writer.serialize(&element)?;
        writer.flush()?;
        drop(writer);
        if self.header.is_none() {
            // The names come before the first row, which is known without them.
            let mut both = Vec::new();
            if !self.headerless {
                let mut writer = self.writer(true, &mut both);
                writer.serialize(&element)?;
                writer.flush()?;
                drop(writer);
                both.truncate(both.len().saturating_sub(out.len() - start));
            }
            self.header = Some(both);
        }
        Ok(())
    }

    fn header(&self) -> Vec<u8> {
        self.header.clone().unwrap_or_default()
    }
}
