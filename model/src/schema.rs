//! Row schemas, and what `beam:coder:row:v1` makes of them.
//!
//! A row is the number of its fields (varint), a bitmap of the null ones (length-prefixed, least significant bit
//! first, empty when none is null), and the fields that are not null, all in the order of their encoding positions.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::coder::skip_iterable;
use crate::error::{DecodeError, SchemaError};
use crate::{urns, wire};

type Result<T> = core::result::Result<T, DecodeError>;

/// The fields of a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Schema {
    fields: Vec<Field>,
    /// Encoding position to index of the field; empty when the two are the same.
    order: Vec<usize>,
    payload: Bytes,
}

/// A field of a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    /// Its name, unique in the schema.
    pub name: String,
    /// Its type.
    pub field_type: FieldType,
    /// Its place in the encoding, where the schema sets places. All fields have one or none has.
    pub encoding_position: Option<u32>,
}

/// The type of a field, or of an element of one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldType {
    /// Whether it may be null.
    pub nullable: bool,
    /// What it is otherwise.
    pub kind: FieldKind,
}

/// The types of fields.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FieldKind {
    /// A signed integer of one byte.
    Byte,
    /// A signed integer of two bytes, big endian.
    Int16,
    /// A signed integer of 32 bits: a varint of its two's complement of 32 bits.
    Int32,
    /// A signed integer of 64 bits: a varint.
    Int64,
    /// A float of 32 bits, big endian.
    Float,
    /// A float of 64 bits, big endian.
    Double,
    /// A UTF-8 string.
    String,
    /// A boolean.
    Boolean,
    /// A byte string.
    Bytes,
    /// An array.
    Array(Box<FieldType>),
    /// An iterable, encoded as an array is.
    Iterable(Box<FieldType>),
    /// A map of key and value.
    Map(Box<FieldType>, Box<FieldType>),
    /// A row in a row.
    Row(Arc<Schema>),
    /// A type that is encoded as another.
    Logical(Box<LogicalType>),
}

/// A type known by URN, and the type that it is encoded as.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogicalType {
    /// The URN.
    pub urn: String,
    /// The payload.
    pub payload: Bytes,
    /// The type that stands for it.
    pub representation: FieldType,
    /// Type and value of its argument, where it has one, such as a length.
    pub argument: Option<LogicalArgument>,
}

/// The argument of a logical type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogicalArgument {
    /// Its type.
    pub field_type: FieldType,
    /// A serialized `FieldValue` message.
    pub value: Bytes,
}

/// How a logical type is encoded.
pub(crate) enum LogicalForm<'a> {
    /// As its representation.
    Representation(&'a FieldType),
    /// As a timestamp of eight bytes.
    MillisInstant,
    /// As scale (varint) and unscaled value (length-prefixed two's complement, big endian).
    Decimal,
    /// By a coder of an SDK's own.
    Unknown,
}

impl LogicalType {
    pub(crate) fn form(&self) -> LogicalForm<'_> {
        match self.urn.as_str() {
            urns::LOGICAL_MILLIS_INSTANT => LogicalForm::MillisInstant,
            urns::LOGICAL_DECIMAL => LogicalForm::Decimal,
            urns::LOGICAL_PYTHON_ANY => LogicalForm::Unknown,
            _ => LogicalForm::Representation(&self.representation),
        }
    }
}

impl Field {
    /// A field without an encoding position of its own.
    pub fn new(name: impl Into<String>, field_type: FieldType) -> Field {
        Field {
            name: name.into(),
            field_type,
            encoding_position: None,
        }
    }
}

impl FieldKind {
    /// The type that is never null.
    pub fn required(self) -> FieldType {
        FieldType {
            nullable: false,
            kind: self,
        }
    }

    /// The type that may be null.
    pub fn nullable(self) -> FieldType {
        FieldType {
            nullable: true,
            kind: self,
        }
    }
}

impl Schema {
    /// A schema of fields.
    ///
    /// # Errors
    /// When encoding positions are set and are not each of 0..n once.
    pub fn new(fields: Vec<Field>) -> core::result::Result<Schema, SchemaError> {
        let order = encoding_order(&fields)?;
        Ok(Schema {
            fields,
            order,
            payload: Bytes::new(),
        })
    }

    /// The fields.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The serialized `Schema` message that this was read from, or that was set.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Sets the serialized `Schema` message, which is the payload of this schema's row coder.
    pub fn set_payload(&mut self, payload: Bytes) {
        self.payload = payload;
    }

    /// Index of the field at an encoding position.
    pub(crate) fn at_position(&self, position: usize) -> usize {
        self.order.get(position).copied().unwrap_or(position)
    }

    pub(crate) fn knows_boundary(&self) -> bool {
        self.fields.iter().all(|field| field.field_type.knows_boundary())
    }

    /// Reads a row's number of fields and null bitmap.
    ///
    /// # Errors
    /// When the input ends, or there are more fields than the schema has.
    pub fn read_header<'a>(&self, input: &mut &'a [u8]) -> Result<(usize, &'a [u8])> {
        const WHAT: &str = "the number of fields of a row";
        let count = wire::read_length(input, WHAT)?;
        if count > self.fields.len() {
            // The fields this schema does not know cannot be moved past.
            return Err(DecodeError::OutOfRange {
                what: WHAT,
                value: count as i64,
            });
        }
        Ok((count, wire::read_bytes(input, true)?))
    }

    /// Takes a row apart: the bytes of each field, in the order of the schema; `None` where it is null.
    ///
    /// # Errors
    /// When the bytes are not a row of this schema.
    pub fn split<'a>(&self, input: &mut &'a [u8]) -> Result<Vec<Option<&'a [u8]>>> {
        let (count, nulls) = self.read_header(input)?;
        let mut fields = vec![None; self.fields.len()];
        for position in 0..count {
            if !is_null(nulls, position) {
                let index = self.at_position(position);
                let start = *input;
                self.fields[index].field_type.skip_present(input)?;
                fields[index] = Some(&start[..start.len() - input.len()]);
            }
        }
        Ok(fields)
    }

    /// Moves past a row.
    pub(crate) fn skip(&self, input: &mut &[u8]) -> Result<()> {
        let (count, nulls) = self.read_header(input)?;
        for position in 0..count {
            if !is_null(nulls, position) {
                self.fields[self.at_position(position)]
                    .field_type
                    .skip_present(input)?;
            }
        }
        Ok(())
    }
}

/// Whether the bitmap says null. It may be shorter than the row, when its last bytes are zero.
#[inline]
pub fn is_null(nulls: &[u8], position: usize) -> bool {
    nulls
        .get(position / 8)
        .is_some_and(|byte| byte >> (position % 8) & 1 != 0)
}

fn encoding_order(fields: &[Field]) -> core::result::Result<Vec<usize>, SchemaError> {
    if fields.iter().all(|field| field.encoding_position.is_none()) {
        return Ok(Vec::new());
    }
    let mut order = vec![None; fields.len()];
    for (index, field) in fields.iter().enumerate() {
        let name = || field.name.clone();
        let Some(position) = field.encoding_position else {
            return Err(SchemaError::MissingPosition { field: name() });
        };
        match order.get_mut(position as usize) {
            Some(place @ None) => *place = Some(index),
            _ => {
                return Err(SchemaError::BadPosition {
                    field: name(),
                    position,
                    count: fields.len(),
                });
            }
        }
    }
    let order: Vec<usize> = order.into_iter().flatten().collect();
    let trivial = order
        .iter()
        .enumerate()
        .all(|(position, &index)| position == index);
    Ok(if trivial { Vec::new() } else { order })
}

impl FieldType {
    fn knows_boundary(&self) -> bool {
        match &self.kind {
            FieldKind::Array(element) | FieldKind::Iterable(element) => element.knows_boundary(),
            FieldKind::Map(key, value) => key.knows_boundary() && value.knows_boundary(),
            FieldKind::Row(schema) => schema.knows_boundary(),
            FieldKind::Logical(logical) => match logical.form() {
                LogicalForm::Representation(representation) => representation.knows_boundary(),
                LogicalForm::MillisInstant | LogicalForm::Decimal => true,
                LogicalForm::Unknown => false,
            },
            _ => true,
        }
    }

    /// The fewest bytes of an element of this type in an array or map.
    pub(crate) fn min_size(&self) -> usize {
        if self.nullable { 1 } else { self.min_size_present() }
    }

    fn min_size_present(&self) -> usize {
        match &self.kind {
            FieldKind::Byte | FieldKind::Int32 | FieldKind::Int64 => 1,
            FieldKind::String | FieldKind::Boolean | FieldKind::Bytes => 1,
            FieldKind::Int16 | FieldKind::Row(_) => 2,
            FieldKind::Float | FieldKind::Array(_) | FieldKind::Iterable(_) | FieldKind::Map(..) => 4,
            FieldKind::Double => 8,
            FieldKind::Logical(logical) => match logical.form() {
                LogicalForm::Representation(representation) => representation.min_size(),
                LogicalForm::MillisInstant => 8,
                LogicalForm::Decimal => 2,
                LogicalForm::Unknown => 0,
            },
        }
    }

    /// Moves past an element of an array or map, where null is marked by a byte.
    fn skip(&self, input: &mut &[u8]) -> Result<()> {
        if self.nullable && !wire::read_bool(input, "the mark of a nullable value")? {
            return Ok(());
        }
        self.skip_present(input)
    }

    /// Moves past a value that is not null.
    fn skip_present(&self, input: &mut &[u8]) -> Result<()> {
        match &self.kind {
            FieldKind::Byte => wire::read_u8(input, "a byte field").map(|_| ()),
            FieldKind::Boolean => wire::read_bool(input, "a boolean field").map(|_| ()),
            FieldKind::Int16 => wire::take(input, 2, "an int16 field").map(|_| ()),
            FieldKind::Int32 | FieldKind::Int64 => wire::skip_varint(input),
            FieldKind::Float => wire::take(input, 4, "a float field").map(|_| ()),
            FieldKind::Double => wire::take(input, 8, "a double field").map(|_| ()),
            FieldKind::String | FieldKind::Bytes => wire::read_bytes(input, true).map(|_| ()),
            FieldKind::Array(element) | FieldKind::Iterable(element) => {
                skip_iterable(input, element.min_size(), |input| element.skip(input))
            }
            FieldKind::Map(key, value) => {
                for _ in 0..read_map_size(input, key, value)? {
                    key.skip(input)?;
                    value.skip(input)?;
                }
                Ok(())
            }
            FieldKind::Row(schema) => schema.skip(input),
            FieldKind::Logical(logical) => match logical.form() {
                LogicalForm::Representation(representation) => representation.skip(input),
                LogicalForm::MillisInstant => wire::take(input, 8, "a millis_instant field").map(|_| ()),
                LogicalForm::Decimal => {
                    wire::skip_varint(input)?;
                    wire::read_bytes(input, true).map(|_| ())
                }
                LogicalForm::Unknown => Err(DecodeError::UnknownCoder {
                    urn: logical.urn.as_str().into(),
                }),
            },
        }
    }
}

/// Reads the number of entries of a map.
pub(crate) fn read_map_size(input: &mut &[u8], key: &FieldType, value: &FieldType) -> Result<usize> {
    const WHAT: &str = "the number of entries of a map";
    let count = wire::read_i32_be(input, WHAT)?;
    wire::checked_count(
        i64::from(count),
        key.min_size() + value.min_size(),
        input.len(),
        WHAT,
    )
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, field) in self.fields.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{}: {}", field.name, field.field_type)?;
        }
        Ok(())
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            FieldKind::Byte => f.write_str("byte"),
            FieldKind::Int16 => f.write_str("int16"),
            FieldKind::Int32 => f.write_str("int32"),
            FieldKind::Int64 => f.write_str("int64"),
            FieldKind::Float => f.write_str("float"),
            FieldKind::Double => f.write_str("double"),
            FieldKind::String => f.write_str("string"),
            FieldKind::Boolean => f.write_str("boolean"),
            FieldKind::Bytes => f.write_str("bytes"),
            FieldKind::Array(element) => write!(f, "array<{element}>"),
            FieldKind::Iterable(element) => write!(f, "iterable<{element}>"),
            FieldKind::Map(key, value) => write!(f, "map<{key}, {value}>"),
            FieldKind::Row(schema) => write!(f, "row<{schema}>"),
            FieldKind::Logical(logical) => write!(f, "{}", logical.urn),
        }?;
        if self.nullable { f.write_str("?") } else { Ok(()) }
    }
}
