//! Why a document cannot be read.

use std::fmt;

use thiserror::Error;

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As text.
    Json,
    /// As bytes.
    Ubjson,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Json => "JSON",
            Format::Ubjson => "UBJSON",
        })
    }
}

/// Why a document cannot be read. Bytes are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// It ends too early.
    #[error("its {format} ends at byte {at}, in the middle of a value: it was cut off")]
    CutOff {
        /// Its format.
        format: Format,
        /// Where it ends.
        at: usize,
    },
    /// Something else stands there.
    #[error("at byte {at} of its {format} is {found}: expected {expected}")]
    Unexpected {
        /// Its format.
        format: Format,
        /// Where.
        at: usize,
        /// What stands there.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// Lists in lists without end.
    #[error("at byte {at} of its {format} are more than {limit} lists and objects in one another")]
    TooDeep {
        /// Its format.
        format: Format,
        /// Where.
        at: usize,
        /// The limit.
        limit: usize,
    },
}

impl Fault {
    /// Whether the document was cut off.
    pub fn is_cut_off(&self) -> bool {
        matches!(self, Fault::CutOff { .. })
    }
}
