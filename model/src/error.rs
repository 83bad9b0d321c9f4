//! What can go wrong with an encoding, one enum per operation.

use alloc::boxed::Box;
use alloc::string::{String, ToString};

use thiserror::Error;

/// How many coders one coder may be made of.
pub const MAX_CODER_PARTS: usize = 10_000;
/// How deep coders may be in each other.
pub const MAX_CODER_DEPTH: usize = 100;

/// Bytes that are not an encoding of the coder they were read with.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The input ended inside a value.
    #[error("the input ends {missing} bytes too early, inside {what}")]
    UnexpectedEnd {
        /// What was being read.
        what: &'static str,
        /// How many bytes more were needed at least.
        missing: usize,
    },
    /// A varint of more than ten bytes, or one that does not fit 64 bits.
    #[error("a varint does not fit 64 bits")]
    VarIntOverflow,
    /// A byte that this place of the encoding cannot hold.
    #[error("byte {value:#04x} cannot be {what}")]
    InvalidByte {
        /// What the byte stands for.
        what: &'static str,
        /// The byte.
        value: u8,
    },
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    InvalidUtf8,
    /// A number outside of what its place allows.
    #[error("{value} is out of range for {what}")]
    OutOfRange {
        /// What the number stands for.
        what: &'static str,
        /// The number.
        value: i64,
    },
    /// Bytes were left over after the value.
    #[error("{count} bytes are left after the value")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// The end of a value cannot be found because its coder is not known here.
    #[error(
        "coder {urn} is not known and not length-prefixed, so the end of its values cannot be found; \
         wrap it in beam:coder:length_prefix:v1"
    )]
    UnknownCoder {
        /// The URN of the coder.
        urn: Box<str>,
    },
    /// An iterable whose rest is in the runner's state, read as a type that holds all values. See [`crate::backed`].
    #[error("the rest of a state-backed iterable is in the runner's state, which cannot be read here")]
    StateBacked,
    /// The rest of an iterable in the runner's state could not be read.
    #[error("the rest of an iterable, which stayed with the runner, cannot be read: {reason}")]
    Rest {
        /// What the runner says.
        reason: Box<str>,
    },
    /// A pair was expected.
    #[error("coder {coder} is not beam:coder:kv:v1: its values have no key")]
    NotKv {
        /// The coder that was there.
        coder: Box<str>,
    },
    /// An iterable was expected.
    #[error("coder {coder} is neither beam:coder:iterable:v1 nor beam:coder:state_backed_iterable:v1")]
    NotIterable {
        /// The coder that was there.
        coder: Box<str>,
    },
    /// A row without a value for a field that is not nullable.
    #[error("row field \"{field}\" is null or missing, but not nullable")]
    NullField {
        /// The name of the field.
        field: Box<str>,
    },
    /// A user type's own deserialization failed.
    #[error("cannot deserialize {type_name}: {reason}")]
    Serde {
        /// The Rust type.
        type_name: &'static str,
        /// Its error.
        reason: Box<str>,
    },
}

/// A [`crate::Value`] that its coder cannot encode.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The value is of another kind than the coder's.
    #[error("coder {coder} cannot encode {value}")]
    Mismatch {
        /// The coder.
        coder: String,
        /// The kind of the value.
        value: &'static str,
    },
    /// A number does not fit the field.
    #[error("{value} does not fit {what}")]
    OutOfRange {
        /// The type of the field.
        what: &'static str,
        /// The number.
        value: i64,
    },
    /// Null in a field that is not nullable.
    #[error("row field \"{field}\" is null but not nullable")]
    NullField {
        /// The name of the field.
        field: String,
    },
    /// A row of another number of fields than its schema's.
    #[error("a row of {got} fields cannot be encoded with a schema of {expected} fields")]
    FieldCount {
        /// Number of fields of the schema.
        expected: usize,
        /// Number of fields of the row.
        got: usize,
    },
}

/// A coder that cannot be made of the URN, payload and components given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CoderError {
    /// Wrong number of components.
    #[error("coder {urn} has {got} components where it needs {expected}")]
    ComponentCount {
        /// The coder.
        urn: String,
        /// How many the coder needs.
        expected: usize,
        /// How many there were.
        got: usize,
    },
    /// A coder of more parts than any pipeline needs: made so by mistake or to fill the runner's memory or stack.
    #[error("coder {urn} is made of more than {MAX_CODER_PARTS} coders or more than {MAX_CODER_DEPTH} deep")]
    TooLarge {
        /// The coder.
        urn: String,
    },
    /// A payload that cannot be read.
    #[error("the payload of coder {urn} cannot be read: {reason}")]
    Payload {
        /// The coder.
        urn: String,
        /// Why.
        reason: String,
    },
}

impl CoderError {
    /// The payload of a row coder is no schema.
    pub fn schema(reason: impl core::fmt::Display) -> CoderError {
        CoderError::Payload {
            urn: crate::urns::ROW.into(),
            reason: reason.to_string(),
        }
    }
}

/// A schema that no row can follow.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SchemaError {
    /// Encoding positions are set for some fields only.
    #[error("field \"{field}\" has no encoding position though other fields of the schema have one")]
    MissingPosition {
        /// The field.
        field: String,
    },
    /// Encoding positions that are not each of 0..n exactly once.
    #[error(
        "field \"{field}\" has encoding position {position}, which is taken or beyond the {count} fields"
    )]
    BadPosition {
        /// The field.
        field: String,
        /// Its position.
        position: u32,
        /// Number of fields in the schema.
        count: usize,
    },
}
