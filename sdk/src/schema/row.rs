//! What the code that `#[derive(Schema)]` writes is made of.

use std::cell::RefCell;
use std::sync::Arc;

pub use bytes::Bytes;
use prost::Message;
use purlin_model::schema::{Field, FieldKind, is_null};
use purlin_model::{CoderSpec, DecodeError, urns, wire};

use super::proto::schema_proto;
use super::{RowSchema, SchemaField, SchemaType, logical};

thread_local! {
    /// Types whose schemas are being made.
    static OPEN: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// Makes the schema of a type.
///
/// # Panics
/// When the type contains itself.
#[expect(clippy::panic, reason = "documented: a fault in the type's definition")]
pub fn schema(type_name: &'static str, fields: impl FnOnce() -> Vec<Field>) -> Arc<RowSchema> {
    let fields = open(type_name, fields);
    // Names are unique since Rust's and the derive's are; positions are not set.
    let mut schema = RowSchema::new(fields)
        .unwrap_or_else(|error| panic!("the schema of {type_name} cannot be made: {error}"));
    let payload = schema_proto(&schema).encode_to_vec();
    schema.set_payload(payload.into());
    Arc::new(schema)
}

fn open<T>(type_name: &'static str, make: impl FnOnce() -> T) -> T {
    let seen = OPEN.with_borrow_mut(|open| {
        let seen = open.contains(&type_name);
        open.push(type_name);
        seen
    });
    assert!(
        !seen,
        "the schema of {type_name} contains itself, which no schema of Beam can; take the inner value out, or make it a byte \
         string"
    );
    let made = make();
    OPEN.with_borrow_mut(|open| open.pop());
    made
}

/// A field of a type.
pub fn field<T: SchemaField>(name: &str) -> Field {
    Field::new(name, T::field_type())
}

/// A case of a one-of: null where the value is another case.
pub fn case<T: SchemaType>(name: &str) -> Field {
    Field::new(name, T::kind().nullable())
}

/// A case that is a row of fields of its own.
pub fn row_case(name: &str, schema: Arc<RowSchema>) -> Field {
    Field::new(name, FieldKind::Row(schema).nullable())
}

/// A case without data.
pub fn unit_case(name: &str) -> Field {
    case::<bool>(name)
}

/// A one-of of these cases.
pub fn one_of_kind(schema: Arc<RowSchema>) -> FieldKind {
    logical::one_of(schema)
}

/// An enumeration.
pub fn enumeration_kind(numbers: &[(&str, i32)]) -> FieldKind {
    logical::enumeration(numbers)
}

/// The coder of rows as elements.
pub fn row_coder(schema: &RowSchema) -> CoderSpec {
    let row = CoderSpec {
        urn: urns::ROW.into(),
        payload: schema.payload().clone(),
        components: Vec::new(),
    };
    CoderSpec::of(urns::LENGTH_PREFIX, vec![row])
}

/// A row as an element.
#[inline]
pub fn encode_row<T: SchemaType>(value: &T, out: &mut Vec<u8>) {
    wire::write_length_prefixed(out, |out| value.write(out));
}

/// Reads a row as an element.
///
/// # Errors
/// When the bytes are not one.
#[inline]
pub fn decode_row<T: SchemaType>(input: &mut &[u8]) -> Result<T, DecodeError> {
    let mut row = wire::read_bytes(input, true)?;
    let value = T::read(&mut row)?;
    wire::expect_end(row)?;
    Ok(value)
}

/// Appends the number of fields and the bitmap of the null ones.
#[inline]
pub fn write_header(out: &mut Vec<u8>, nulls: &[bool]) {
    wire::write_varint(nulls.len() as u64, out);
    if !nulls.contains(&true) {
        out.push(0);
        return;
    }
    let mut bits = vec![0u8; nulls.len().div_ceil(8)];
    for (position, _) in nulls.iter().enumerate().filter(|(_, null)| **null) {
        bits[position / 8] |= 1 << (position % 8);
    }
    wire::write_bytes(&bits, out, true);
}

/// Appends the head of a one-of, whose value follows.
pub fn write_case(out: &mut Vec<u8>, case: usize, cases: usize) {
    let nulls: Vec<bool> = (0..cases).map(|i| i != case).collect();
    write_header(out, &nulls);
}

/// Reads the head of a one-of: which case follows.
///
/// # Errors
/// When it is not exactly one.
pub fn read_case(input: &mut &[u8], cases: usize) -> Result<usize, DecodeError> {
    let row = RowReader::start(input, cases)?;
    let set: Vec<usize> = (0..row.count.min(cases))
        .filter(|i| !is_null(row.nulls, *i))
        .collect();
    match set[..] {
        [case] => Ok(case),
        _ => Err(DecodeError::OutOfRange {
            what: "the number of cases of a one-of that are not null",
            value: set.len() as i64,
        }),
    }
}

/// The error of a number that an enumeration does not have.
pub fn no_such_case(number: i32) -> DecodeError {
    DecodeError::OutOfRange {
        what: "the number of a case of an enumeration",
        value: i64::from(number),
    }
}

/// Reads the fields of a row, one after the other.
pub struct RowReader<'r, 'a> {
    input: &'r mut &'a [u8],
    count: usize,
    nulls: &'a [u8],
    position: usize,
}

impl<'r, 'a> RowReader<'r, 'a> {
    /// Reads the number of fields and the bitmap of the null ones.
    ///
    /// # Errors
    /// When the input ends, or there are more fields than these.
    #[inline]
    pub fn start(input: &'r mut &'a [u8], fields: usize) -> Result<Self, DecodeError> {
        const WHAT: &str = "the number of fields of a row";
        let count = wire::read_length(input, WHAT)?;
        if count > fields {
            // What this type does not know cannot be moved past.
            return Err(DecodeError::OutOfRange {
                what: WHAT,
                value: count as i64,
            });
        }
        let nulls = wire::read_bytes(input, true)?;
        Ok(RowReader {
            input,
            count,
            nulls,
            position: 0,
        })
    }

    /// Reads the next field. One that the writer did not know is null.
    ///
    /// # Errors
    /// When the bytes are not of its type, or it is null and may not be.
    #[inline]
    pub fn field<T: SchemaField>(&mut self, name: &str) -> Result<T, DecodeError> {
        let position = self.position;
        self.position += 1;
        if position < self.count && !is_null(self.nulls, position) {
            return T::read_present(self.input);
        }
        T::null().ok_or_else(|| DecodeError::NullField { field: name.into() })
    }
}
