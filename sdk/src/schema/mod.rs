//! Schemas: elements whose fields every SDK can read.
//!
//! `#[derive(Schema)]` on a struct makes its values rows. As elements they travel as `beam:coder:row:v1`, so Beam's other
//! SDKs read them by the names of their fields, and transforms [select, rename, group and join](crate::transforms) by them.
//!
//! ```
//! use purlin::prelude::*;
//!
//! #[derive(Clone, Debug, PartialEq, Schema)]
//! struct Purchase {
//!     user: String,
//!     item: i64,
//!     #[schema(name = "priceInCents")]
//!     price: Option<i64>,
//!     tags: Vec<String>,
//! }
//!
//! assert_eq!(
//!     Purchase::schema().to_string(),
//!     "user: string, item: int64, priceInCents: int64?, tags: array<string>"
//! );
//! ```
//!
//! | Rust | field |
//! |---|---|
//! | `i8`, `i16`, `i32`, `i64` | BYTE, INT16, INT32, INT64 |
//! | `f32`, `f64`, `bool`, `String` | FLOAT, DOUBLE, BOOLEAN, STRING |
//! | `Vec<u8>`, `Bytes` | BYTES |
//! | `Option<T>` | that of `T`, nullable |
//! | `Vec<T>` | an array |
//! | `BTreeMap<K, V>`, `HashMap<K, V>` | a map |
//! | a struct with this derive | a row |
//! | [`Timestamp`](crate::Timestamp) | `beam:logical_type:millis_instant:v1` |
//! | [`MicrosInstant`] | `beam:logical_type:micros_instant:v1` |
//! | [`Date`] | `beam:logical_type:date:v1` |
//! | [`Decimal`] | `beam:logical_type:decimal:v1` |
//! | `[u8; N]` | `beam:logical_type:fixed_bytes:v1` |
//! | an enum without data, with this derive | [`ENUMERATION`], which is its number |
//! | an enum with data, with this derive | [`ONE_OF`], which is a row in which one field is not null |
//!
//! Beam has no URN for the last two; their form is that of the Java SDK's types of these names. A Python pipeline reads them
//! when it registers a logical type for the URN.
//!
//! As elements, rows and one-ofs stand in a length prefix, which spares runners the reading of schemas.

mod decimal;
pub(crate) mod fields;
mod logical;
mod proto;
#[doc(hidden)]
pub mod row;
mod types;

use std::sync::Arc;

pub use decimal::{Decimal, DecimalError};
pub use fields::{FieldError, FieldPath};
pub use logical::{Date, ENUMERATION, FIXED_BYTES, MicrosInstant, ONE_OF};
pub use purlin_model::schema::{Field, FieldKind, FieldType, LogicalType};
use purlin_model::{DecodeError, Element};
pub use purlin_runner::schemas::{ParseSchemaError, parse_schema};
pub use types::{SchemaItem, SchemaKey};

/// The fields of a row: what [`Schema::schema`] gives.
pub type RowSchema = purlin_model::Schema;

/// A type whose values are rows, or one-ofs. Derive it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no schema",
    label = "a type with `#[derive(Schema)]` is needed here",
    note = "write `#[derive(Clone, Schema)]` above the definition of `{Self}`"
)]
pub trait Schema: SchemaType + Element {
    /// The fields.
    fn schema() -> Arc<RowSchema>;

    /// The value as `beam:coder:row:v1` encodes it.
    fn to_row(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// Reads a value as `beam:coder:row:v1` encodes it.
    ///
    /// # Errors
    /// When the bytes are not a row of this schema.
    fn from_row(mut row: &[u8]) -> Result<Self, DecodeError> {
        let value = Self::read(&mut row)?;
        purlin_model::wire::expect_end(row)?;
        Ok(value)
    }
}

/// A type that fields can have and that is never null.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the type of a schema's field",
    label = "not a type of Beam's schemas",
    note = "fields are i8 to i64 (Beam has no unsigned numbers), f32, f64, bool, String, Vec<u8>, Timestamp, MicrosInstant, \
            Date, Decimal, [u8; N], types with `#[derive(Schema)]`, and Option, Vec, BTreeMap and HashMap of these"
)]
pub trait SchemaType: Sized + Clone + Send + 'static {
    /// What the field is.
    fn kind() -> FieldKind;
    /// Appends the value.
    fn write(&self, out: &mut Vec<u8>);
    /// Reads a value.
    ///
    /// # Errors
    /// When the bytes are not a value of this type.
    fn read(input: &mut &[u8]) -> Result<Self, DecodeError>;
}

/// A type that fields can have: a [`SchemaType`], or an `Option` of one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the type of a schema's field",
    label = "not a type of Beam's schemas",
    note = "fields are i8 to i64 (Beam has no unsigned numbers), f32, f64, bool, String, Vec<u8>, Timestamp, MicrosInstant, \
            Date, Decimal, [u8; N], types with `#[derive(Schema)]`, and Option, Vec, BTreeMap and HashMap of these"
)]
pub trait SchemaField: Sized + Clone + Send + 'static {
    /// What the field is.
    fn field_type() -> FieldType;
    /// Whether this value is null.
    fn is_null(&self) -> bool;
    /// Null, where the type has it.
    fn null() -> Option<Self>;
    /// Appends the value; nothing where it is null.
    fn write_present(&self, out: &mut Vec<u8>);
    /// Reads a value that is not null.
    ///
    /// # Errors
    /// When the bytes are not a value of this type.
    fn read_present(input: &mut &[u8]) -> Result<Self, DecodeError>;
}

impl<T: SchemaType> SchemaField for T {
    fn field_type() -> FieldType {
        T::kind().required()
    }
    #[inline]
    fn is_null(&self) -> bool {
        false
    }
    #[inline]
    fn null() -> Option<Self> {
        None
    }
    #[inline]
    fn write_present(&self, out: &mut Vec<u8>) {
        self.write(out);
    }
    #[inline]
    fn read_present(input: &mut &[u8]) -> Result<Self, DecodeError> {
        T::read(input)
    }
}

impl<T: SchemaType> SchemaField for Option<T> {
    fn field_type() -> FieldType {
        T::kind().nullable()
    }
    #[inline]
    fn is_null(&self) -> bool {
        self.is_none()
    }
    #[inline]
    fn null() -> Option<Self> {
        Some(None)
    }
    #[inline]
    fn write_present(&self, out: &mut Vec<u8>) {
        if let Some(value) = self {
            value.write(out);
        }
    }
    #[inline]
    fn read_present(input: &mut &[u8]) -> Result<Self, DecodeError> {
        T::read(input).map(Some)
    }
}
