//! What can be wrong with a document, and with rows.

use std::io;

use thiserror::Error;

/// Why a document is not a model that can be used. Lines are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Nothing to read.
    #[error("the file is empty: expected a PMML document")]
    Empty,
    /// Bytes that are no text.
    #[error("line {line} is not text (UTF-8): expected a PMML document")]
    NotText {
        /// The first such line.
        line: usize,
    },
    /// Not well-formed.
    #[error("line {line}: the XML is broken: {problem}")]
    Xml {
        /// Where reading ended.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// XML, but no PMML.
    #[error("line {line}: the document is a `{found}`: expected `PMML`")]
    NotPmml {
        /// The line.
        line: usize,
        /// The outermost element.
        found: String,
    },
    /// A version that is not known.
    #[error("line {line}: the document is of PMML version `{found}`: expected 4.0 to 4.4")]
    Version {
        /// The line.
        line: usize,
        /// What it says.
        found: String,
    },
    /// An element that is not known, or not there.
    #[error("line {line}: the element `{element}` in `{parent}` is not known")]
    UnknownElement {
        /// The line.
        line: usize,
        /// The element.
        element: String,
        /// What it stands in.
        parent: String,
    },
    /// An attribute that is not known.
    #[error("line {line}: the attribute `{attribute}` of `{element}` is not known")]
    UnknownAttribute {
        /// The line.
        line: usize,
        /// The element.
        element: String,
        /// The attribute.
        attribute: String,
    },
    /// Something that must be there.
    #[error("line {line}: `{element}` has no {what}")]
    Missing {
        /// The line.
        line: usize,
        /// The element.
        element: String,
        /// The attribute or the element.
        what: String,
    },
    /// A value that cannot be.
    #[error("line {line}: {what} of `{element}` is `{found}`: expected {expected}")]
    Value {
        /// The line.
        line: usize,
        /// The element.
        element: String,
        /// The attribute, or what else it is.
        what: String,
        /// The begin of the value.
        found: String,
        /// What may stand there.
        expected: String,
    },
    /// A field that is not there.
    #[error(
        "line {line}: `{element}` asks for the field `{field}`, which is neither in the MiningSchema nor derived here"
    )]
    Field {
        /// The line.
        line: usize,
        /// The element.
        element: String,
        /// The field.
        field: String,
    },
    /// A function that is neither built in nor defined.
    #[error("line {line}: the function `{function}` is neither built in nor defined in the document")]
    Function {
        /// The line.
        line: usize,
        /// The function.
        function: String,
    },
    /// Parts that do not fit together.
    #[error("line {line}: `{element}` {problem}")]
    Structure {
        /// The line.
        line: usize,
        /// The element.
        element: String,
        /// What is wrong.
        problem: String,
    },
}

/// Why a model file cannot be loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the model file {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// The system's error.
        source: io::Error,
    },
    /// What it holds is not a model.
    #[error("cannot use the model file {path}: {source}")]
    Parse {
        /// The file.
        path: String,
        /// What is wrong.
        source: Box<ParseError>,
    },
}

/// Why there is no prediction for a row.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// Values for another model.
    #[error("there are {found} values, the model has {expected} fields")]
    Width {
        /// The values of the row.
        found: usize,
        /// The fields of the model.
        expected: usize,
    },
    /// A value that the document calls invalid.
    #[error("the field `{field}` has the invalid value `{found}`: expected {expected}")]
    Invalid {
        /// The field.
        field: String,
        /// Its value.
        found: String,
        /// What the document takes.
        expected: String,
    },
    /// A field that must have a value.
    #[error("the field `{field}` has no value: its missingValueTreatment is returnInvalid")]
    Missing {
        /// The field.
        field: String,
    },
    /// A value of another type than a derived or output field's.
    #[error("`{found}` cannot be a value of the type {expected}{}", within(.field))]
    Type {
        /// The value.
        found: String,
        /// The type.
        expected: String,
        /// The field, where it is known.
        field: String,
    },
    /// Arguments that a function does not take.
    #[error("line {line}: the function `{function}` {problem}")]
    Function {
        /// The line.
        line: usize,
        /// The function.
        function: String,
        /// What is wrong.
        problem: String,
    },
}

fn within(field: &str) -> String {
    match field {
        "" => String::new(),
        field => format!(" of the field `{field}`"),
    }
}

/// The begin of a text that may be long.
pub fn begin(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut begin: String = text
        .chars()
        .take(SHOWN)
        .collect::<String>()
        .escape_debug()
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        begin.push_str("...");
    }
    begin
}
