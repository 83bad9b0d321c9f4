//! JSON lines.

use std::marker::PhantomData;

use purlin_model::Element;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::read_text::{LineFormat, ReadAllLines, ReadLines};
use super::write::{FileSink, WriteFiles};
use crate::error::BoxError;

/// The values of files that hold one JSON value on each line (also called NDJSON), as a serde type. Empty lines are left out.
///
/// ```
/// use purlin::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Debug, PartialEq, Deserialize, Serialize, Schema)]
/// struct Event {
///     name: String,
///     tags: Vec<String>,
/// }
///
/// # let folder = tempfile::tempdir()?;
/// # let input = format!("{}/in.jsonl", folder.path().display());
/// # let output = format!("{}/out.jsonl", folder.path().display());
/// std::fs::write(&input, "{\"name\": \"click\", \"tags\": []}\n\n")?;
/// let p = TestPipeline::new();
/// let events = p.apply(ReadJson::<Event>::from(&input));
/// events.apply(WriteJson::to(&output).without_sharding());
/// p.run();
/// assert_eq!(std::fs::read_to_string(&output)?, "{\"name\":\"click\",\"tags\":[]}\n");
/// # Ok::<(), std::io::Error>(())
/// ```
pub type ReadJson<T> = ReadLines<JsonLine<T>>;

/// The values of the files of JSON lines that match the patterns of a collection.
pub type ReadAllJson<T> = ReadAllLines<JsonLine<T>>;

/// A JSON value on a line.
#[derive(Clone, Debug)]
pub struct JsonLine<T>(PhantomData<fn() -> T>);

impl<T> Default for JsonLine<T> {
    fn default() -> Self {
        JsonLine(PhantomData)
    }
}

impl<T: Element + DeserializeOwned> LineFormat for JsonLine<T> {
    type Record = T;
    const NAME: &'static str = "ReadJson";
    fn parse(&self, line: &str) -> Result<Option<T>, BoxError> {
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(line)?))
    }
}

// The bounds are those of the calls, where the compiler says which of them a type lacks.
impl<T> ReadLines<JsonLine<T>> {
    /// The values of the files that match this pattern.
    pub fn from(pattern: &str) -> Self
    where
        T: Element + DeserializeOwned,
    {
        ReadLines::of(pattern, JsonLine::default())
    }
}

impl<T> ReadAllLines<JsonLine<T>> {
    /// A file that is named without wildcards must be there, unless told otherwise.
    pub fn new() -> Self
    where
        T: Element + DeserializeOwned,
    {
        ReadAllLines::of(JsonLine::default())
    }
}

impl<T: Element + DeserializeOwned> Default for ReadAllLines<JsonLine<T>> {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes values of a serde type, one on each line, as JSON: see [`WriteFiles`].
pub type WriteJson = WriteFiles<JsonSink>;

/// JSON lines.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonSink;

impl WriteFiles<JsonSink> {
    /// Files whose paths start with this.
    pub fn to(prefix: &str) -> WriteJson {
        WriteFiles::with(prefix, JsonSink)
    }
}

impl<T: Element + Serialize> FileSink<T> for JsonSink {
    const NAME: &'static str = "WriteJson";
    const CONCATENATES: bool = true;

    fn write(&mut self, element: T, out: &mut Vec<u8>) -> Result<(), BoxError> {
        serde_json::to_writer(&mut *out, &element)?;
        out.push(b'\n');
        Ok(())
    }
}
