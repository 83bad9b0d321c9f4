//! Logical types: known by URN and encoded as another type.

use purlin_model::schema::{Field, FieldKind, LogicalArgument, LogicalType};
use purlin_model::{DecodeError, Timestamp, urns, wire};
use purlin_proto::pipeline as beam;

use super::decimal::Decimal;
use super::row::{self, RowReader};
use super::{RowSchema, SchemaType};

type Result<T> = std::result::Result<T, DecodeError>;

/// URN of enumerations: an INT32, with the numbers of the names as a map in the argument.
pub const ENUMERATION: &str = "purlin:logical_type:enumeration:v1";
/// URN of one-ofs: a row of which one field is not null, with the numbers of the fields as a map in the argument.
pub const ONE_OF: &str = "purlin:logical_type:one_of:v1";
/// URN of byte strings of one length, which is the argument.
pub const FIXED_BYTES: &str = "beam:logical_type:fixed_bytes:v1";
const MICROS_INSTANT: &str = "beam:logical_type:micros_instant:v1";
const DATE: &str = "beam:logical_type:date:v1";

fn logical(urn: &str, representation: FieldKind, argument: Option<LogicalArgument>) -> FieldKind {
    FieldKind::Logical(Box::new(LogicalType {
        urn: urn.to_owned(),
        payload: bytes::Bytes::new(),
        representation: representation.required(),
        argument,
    }))
}

fn int32(value: i32) -> beam::FieldValue {
    atomic(beam::atomic_type_value::Value::Int32(value))
}

fn atomic(value: beam::atomic_type_value::Value) -> beam::FieldValue {
    let value = beam::AtomicTypeValue { value: Some(value) };
    beam::FieldValue {
        field_value: Some(beam::field_value::FieldValue::AtomicValue(value)),
    }
}

/// The argument of enumerations and one-ofs: names and their numbers.
fn names(numbers: &[(&str, i32)]) -> LogicalArgument {
    let entries = numbers.iter().map(|(name, number)| beam::MapTypeEntry {
        key: Some(atomic(beam::atomic_type_value::Value::String((*name).to_owned()))),
        value: Some(int32(*number)),
    });
    let map = beam::MapTypeValue {
        entries: entries.collect(),
    };
    let value = beam::FieldValue {
        field_value: Some(beam::field_value::FieldValue::MapValue(map)),
    };
    LogicalArgument {
        field_type: FieldKind::Map(
            Box::new(FieldKind::String.required()),
            Box::new(FieldKind::Int32.required()),
        )
        .required(),
        value: prost::Message::encode_to_vec(&value).into(),
    }
}

/// An enumeration of these names and numbers.
pub(super) fn enumeration(numbers: &[(&str, i32)]) -> FieldKind {
    logical(ENUMERATION, FieldKind::Int32, Some(names(numbers)))
}

/// A one-of of these cases.
pub(super) fn one_of(schema: std::sync::Arc<RowSchema>) -> FieldKind {
    let numbers: Vec<(&str, i32)> = schema.fields().iter().map(|f| &f.name[..]).zip(0..).collect();
    let argument = names(&numbers);
    logical(ONE_OF, FieldKind::Row(schema), Some(argument))
}

impl SchemaType for Timestamp {
    fn kind() -> FieldKind {
        logical(urns::LOGICAL_MILLIS_INSTANT, FieldKind::Int64, None)
    }
    fn write(&self, out: &mut Vec<u8>) {
        self.encode(out);
    }
    fn read(input: &mut &[u8]) -> Result<Self> {
        Timestamp::decode(input)
    }
}

impl<const N: usize> SchemaType for [u8; N] {
    fn kind() -> FieldKind {
        let argument = LogicalArgument {
            field_type: FieldKind::Int32.required(),
            value: prost::Message::encode_to_vec(&int32(i32::try_from(N).unwrap_or(i32::MAX))).into(),
        };
        logical(FIXED_BYTES, FieldKind::Bytes, Some(argument))
    }
    fn write(&self, out: &mut Vec<u8>) {
        wire::write_bytes(self, out, true);
    }
    fn read(input: &mut &[u8]) -> Result<Self> {
        let bytes = wire::read_bytes(input, true)?;
        bytes.try_into().map_err(|_| DecodeError::OutOfRange {
            what: "the length of a fixed_bytes field",
            value: bytes.len() as i64,
        })
    }
}

/// An instant in microseconds since 1970: `beam:logical_type:micros_instant:v1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MicrosInstant(pub i64);

const MICROS: i64 = 1_000_000;

impl SchemaType for MicrosInstant {
    fn kind() -> FieldKind {
        let field = |name| Field::new(name, FieldKind::Int64.required());
        let schema = row::schema("MicrosInstant", || vec![field("seconds"), field("micros")]);
        logical(MICROS_INSTANT, FieldKind::Row(schema), None)
    }
    fn write(&self, out: &mut Vec<u8>) {
        row::write_header(out, &[false; 2]);
        self.0.div_euclid(MICROS).write(out);
        self.0.rem_euclid(MICROS).write(out);
    }
    fn read(input: &mut &[u8]) -> Result<Self> {
        let mut row = RowReader::start(input, 2)?;
        let (seconds, micros): (i64, i64) = (row.field("seconds")?, row.field("micros")?);
        seconds
            .checked_mul(MICROS)
            .and_then(|all| all.checked_add(micros))
            .map(MicrosInstant)
            .ok_or(DecodeError::OutOfRange {
                what: "the seconds of a micros_instant field",
                value: seconds,
            })
    }
}

impl From<Timestamp> for MicrosInstant {
    fn from(timestamp: Timestamp) -> Self {
        MicrosInstant(timestamp.millis().saturating_mul(1000))
    }
}

impl From<MicrosInstant> for Timestamp {
    fn from(instant: MicrosInstant) -> Self {
        Timestamp::from_millis(instant.0.div_euclid(1000))
    }
}

/// A day, counted from 1970-01-01: `beam:logical_type:date:v1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(pub i64);

impl SchemaType for Date {
    fn kind() -> FieldKind {
        logical(DATE, FieldKind::Int64, None)
    }
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }
    fn read(input: &mut &[u8]) -> Result<Self> {
        i64::read(input).map(Date)
    }
}

impl SchemaType for Decimal {
    fn kind() -> FieldKind {
        logical(urns::LOGICAL_DECIMAL, FieldKind::Bytes, None)
    }
    fn write(&self, out: &mut Vec<u8>) {
        wire::write_varint(i64::from(self.scale()) as u64, out);
        wire::write_bytes(self.unscaled_bytes().as_ref(), out, true);
    }
    fn read(input: &mut &[u8]) -> Result<Self> {
        let scale = wire::read_varint(input)? as i64;
        let scale = i32::try_from(scale).map_err(|_| DecodeError::OutOfRange {
            what: "the scale of a decimal field",
            value: scale,
        })?;
        let bytes = wire::read_bytes(input, true)?;
        Decimal::from_unscaled_bytes(bytes, scale).ok_or(DecodeError::OutOfRange {
            what: "the number of bytes of a decimal field, which is read up to 128 bits,",
            value: bytes.len() as i64,
        })
    }
}
