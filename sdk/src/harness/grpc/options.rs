//! The options of a job that a worker reads, and how they are written.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as Proto};

/// Holds the command line, for a worker to read it again.
pub(crate) const ARGUMENTS: &str = "purlin_arguments";

/// The name under which an option travels.
pub(crate) fn key(option: &str) -> String {
    format!("beam:option:{option}:v1")
}

/// A text value.
pub(crate) fn string(text: impl Into<String>) -> Proto {
    Proto {
        kind: Some(Kind::StringValue(text.into())),
    }
}

/// A list of texts.
pub(crate) fn strings(texts: impl IntoIterator<Item = String>) -> Proto {
    let values = texts.into_iter().map(string).collect();
    Proto {
        kind: Some(Kind::ListValue(ListValue { values })),
    }
}

/// The texts of a list.
pub(crate) fn read_strings(value: &Proto) -> Option<Vec<String>> {
    let Some(Kind::ListValue(list)) = &value.kind else {
        return None;
    };
    let texts = list.values.iter().map(|value| match &value.kind {
        Some(Kind::StringValue(text)) => Some(text.clone()),
        _ => None,
    });
    texts.collect()
}

/// The command line of a launcher, from the options of its job.
pub(crate) fn launched_with(options: &Struct) -> Option<Vec<String>> {
    read_strings(options.fields.get(&key(ARGUMENTS))?)
}
