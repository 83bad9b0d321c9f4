//! Dynamic data of any standard coder: for tests, for tools, and for rows whose type no Rust type stands for.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::coder::{Chunks, Coder};
use crate::error::{DecodeError, EncodeError};
use crate::schema::{FieldKind, FieldType, LogicalForm, Schema, is_null, read_map_size};
use crate::time::Timestamp;
use crate::timer::Timer;
use crate::window::{Window, WindowCoder};
use crate::windowed::Header;
use crate::wire;

type Result<T> = core::result::Result<T, DecodeError>;

/// A value of some coder. Equality is that of the parts, so a NaN is unequal to itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Null.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer of any width.
    Int(i64),
    /// A row's float of 32 bits.
    Float(f32),
    /// A float of 64 bits.
    Double(f64),
    /// A byte string, or the bytes of a value whose coder is not known.
    Bytes(Bytes),
    /// A string.
    String(String),
    /// A pair.
    Kv(Box<(Value, Value)>),
    /// An iterable or array.
    Iterable(Vec<Value>),
    /// An iterable whose rest is in the runner's state.
    StateBacked {
        /// Its first elements.
        prefix: Vec<Value>,
        /// The token of the rest.
        token: Bytes,
    },
    /// A map of a row.
    Map(Vec<(Value, Value)>),
    /// A row; fields in the order of the schema.
    Row(Vec<Value>),
    /// A key with its shard.
    ShardedKey {
        /// The shard.
        shard_id: Bytes,
        /// The key.
        key: Box<Value>,
    },
    /// A timer.
    Timer(Box<Timer>),
    /// A window.
    Window(Window),
    /// A value with timestamp, windows and pane.
    Windowed(Box<(Header, Value)>),
    /// A row's millis_instant.
    Timestamp(Timestamp),
    /// A row's decimal: the unscaled value, divided by ten to the power of the scale.
    Decimal {
        /// The scale.
        scale: i64,
        /// The unscaled value: two's complement, big endian.
        unscaled: Bytes,
    },
}

impl Value {
    /// The kind, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Double(_) => "a double",
            Value::Bytes(_) => "a byte string",
            Value::String(_) => "a string",
            Value::Kv(_) => "a pair",
            Value::Iterable(_) => "an iterable",
            Value::StateBacked { .. } => "a state-backed iterable",
            Value::Map(_) => "a map",
            Value::Row(_) => "a row",
            Value::ShardedKey { .. } => "a sharded key",
            Value::Timer(_) => "a timer",
            Value::Window(_) => "a window",
            Value::Windowed(_) => "a windowed value",
            Value::Timestamp(_) => "a timestamp",
            Value::Decimal { .. } => "a decimal",
        }
    }

    /// Reads a value.
    ///
    /// # Errors
    /// When the bytes are not of the coder, or an unknown coder is met in the nested context.
    pub fn decode(coder: &Coder, input: &mut &[u8], nested: bool) -> Result<Value> {
        Ok(match coder {
            Coder::Bytes => Value::Bytes(Bytes::copy_from_slice(wire::read_bytes(input, nested)?)),
            Coder::Utf8 => Value::String(wire::read_str(input, nested)?.to_owned()),
            Coder::Bool => Value::Bool(wire::read_bool(input, "a boolean")?),
            Coder::VarInt => Value::Int(wire::read_varint(input)? as i64),
            Coder::Double => Value::Double(f64::from_be_bytes(wire::take_array(input, "a double")?)),
            Coder::Kv(kv) => {
                let key = Value::decode(&kv.0, input, true)?;
                Value::Kv(Box::new((key, Value::decode(&kv.1, input, nested)?)))
            }
            Coder::Iterable(element) | Coder::StateBackedIterable(element) => {
                decode_iterable(input, element.min_size(), |input| {
                    Value::decode(element, input, true)
                })?
            }
            Coder::LengthPrefix(inner) => {
                let mut bytes = wire::read_bytes(input, true)?;
                let value = Value::decode(inner, &mut bytes, false)?;
                wire::expect_end(bytes)?;
                value
            }
            Coder::Nullable(inner) => match wire::read_bool(input, "the mark of a nullable value")? {
                true => Value::decode(inner, input, nested)?,
                false => Value::Null,
            },
            Coder::Row(schema) => Value::decode_row(schema, input)?,
            Coder::ShardedKey(key) => {
                let shard_id = Bytes::copy_from_slice(wire::read_bytes(input, true)?);
                Value::ShardedKey {
                    shard_id,
                    key: Box::new(Value::decode(key, input, true)?),
                }
            }
            Coder::Timer(timer) => Value::Timer(Box::new(timer.decode(input)?)),
            Coder::GlobalWindow => Value::Window(Window::Global),
            Coder::IntervalWindow => Value::Window(WindowCoder::Interval.decode(input, nested)?),
            Coder::CustomWindow(inner) => {
                Value::Window(WindowCoder::Custom(inner.clone()).decode(input, nested)?)
            }
            Coder::WindowedValue(coder) => {
                let header = Header::decode(&coder.window, input)?;
                Value::Windowed(Box::new((header, Value::decode(&coder.value, input, nested)?)))
            }
            Coder::ParamWindowedValue(coder) => {
                let value = Value::decode(&coder.value, input, nested)?;
                Value::Windowed(Box::new((coder.header().clone(), value)))
            }
            Coder::Unknown { urn, .. } => {
                if nested {
                    return Err(DecodeError::UnknownCoder {
                        urn: urn.as_str().into(),
                    });
                }
                Value::Bytes(Bytes::copy_from_slice(wire::take_rest(input)))
            }
        })
    }

    /// Appends the value.
    ///
    /// # Errors
    /// When the value is not of the coder's kind.
    pub fn encode(
        &self,
        coder: &Coder,
        out: &mut Vec<u8>,
        nested: bool,
    ) -> core::result::Result<(), EncodeError> {
        match (coder, self) {
            (Coder::Bytes, Value::Bytes(bytes)) => wire::write_bytes(bytes, out, nested),
            (Coder::Utf8, Value::String(string)) => wire::write_bytes(string.as_bytes(), out, nested),
            (Coder::Bool, Value::Bool(value)) => out.push(u8::from(*value)),
            (Coder::VarInt, Value::Int(value)) => wire::write_varint(*value as u64, out),
            (Coder::Double, Value::Double(value)) => out.extend_from_slice(&value.to_be_bytes()),
            (Coder::Kv(coders), Value::Kv(kv)) => {
                kv.0.encode(&coders.0, out, true)?;
                kv.1.encode(&coders.1, out, nested)?;
            }
            (Coder::Iterable(element) | Coder::StateBackedIterable(element), Value::Iterable(values)) => {
                write_count(values.len(), out)?;
                for value in values {
                    value.encode(element, out, true)?;
                }
            }
            (Coder::StateBackedIterable(element), Value::StateBacked { prefix, token }) => {
                out.extend_from_slice(&(-1i32).to_be_bytes());
                if !prefix.is_empty() {
                    wire::write_varint(prefix.len() as u64, out);
                }
                for value in prefix {
                    value.encode(element, out, true)?;
                }
                wire::write_varint(-1i64 as u64, out);
                wire::write_bytes(token, out, true);
            }
            (Coder::LengthPrefix(inner), value) => {
                let mut bytes = Vec::new();
                value.encode(inner, &mut bytes, false)?;
                wire::write_bytes(&bytes, out, true);
            }
            (Coder::Nullable(_), Value::Null) => out.push(0),
            (Coder::Nullable(inner), value) => {
                out.push(1);
                value.encode(inner, out, nested)?;
            }
            (Coder::Row(schema), Value::Row(values)) => encode_row(schema, values, out)?,
            (Coder::ShardedKey(coder), Value::ShardedKey { shard_id, key }) => {
                wire::write_bytes(shard_id, out, true);
                key.encode(coder, out, true)?;
            }
            (Coder::Timer(_), Value::Timer(timer)) => timer.encode(out),
            (Coder::GlobalWindow, Value::Window(window @ Window::Global))
            | (Coder::IntervalWindow, Value::Window(window @ Window::Interval { .. }))
            | (Coder::CustomWindow(_), Value::Window(window @ Window::Custom { .. })) => window.encode(out),
            (Coder::WindowedValue(coder), Value::Windowed(windowed)) => {
                windowed.0.encode(out);
                windowed.1.encode(&coder.value, out, nested)?;
            }
            (Coder::ParamWindowedValue(coder), Value::Windowed(windowed)) => {
                windowed.1.encode(&coder.value, out, nested)?;
            }
            (Coder::Unknown { .. }, Value::Bytes(bytes)) if !nested => out.extend_from_slice(bytes),
            (coder, value) => return Err(mismatch(coder, value)),
        }
        Ok(())
    }

    fn decode_row(schema: &Schema, input: &mut &[u8]) -> Result<Value> {
        let (count, nulls) = schema.read_header(input)?;
        let mut values = vec![Value::Null; schema.fields().len()];
        for position in 0..count {
            if !is_null(nulls, position) {
                let index = schema.at_position(position);
                values[index] = decode_present(&schema.fields()[index].field_type, input)?;
            }
        }
        Ok(Value::Row(values))
    }
}

fn mismatch(coder: impl ToString, value: &Value) -> EncodeError {
    EncodeError::Mismatch {
        coder: coder.to_string(),
        value: value.kind(),
    }
}

fn write_count(count: usize, out: &mut Vec<u8>) -> core::result::Result<(), EncodeError> {
    let what = "the number of elements of an iterable";
    let count = i32::try_from(count).map_err(|_| EncodeError::OutOfRange {
        what,
        value: count as i64,
    })?;
    out.extend_from_slice(&count.to_be_bytes());
    Ok(())
}

fn decode_iterable(
    input: &mut &[u8],
    min_size: usize,
    mut decode: impl FnMut(&mut &[u8]) -> Result<Value>,
) -> Result<Value> {
    let mut chunks = Chunks::start(input)?;
    let mut values = Vec::new();
    while let Some(count) = chunks.next(input, min_size)? {
        for _ in 0..count {
            values.push(decode(input)?);
        }
    }
    Ok(match chunks.token {
        None => Value::Iterable(values),
        Some(token) => Value::StateBacked {
            prefix: values,
            token: Bytes::copy_from_slice(token),
        },
    })
}

/// Reads an element of an array or map, where null is marked by a byte.
fn decode_field(field: &FieldType, input: &mut &[u8]) -> Result<Value> {
    if field.nullable && !wire::read_bool(input, "the mark of a nullable value")? {
        return Ok(Value::Null);
    }
    decode_present(field, input)
}

fn decode_present(field: &FieldType, input: &mut &[u8]) -> Result<Value> {
    Ok(match &field.kind {
        FieldKind::Byte => Value::Int(i64::from(wire::read_u8(input, "a byte field")? as i8)),
        FieldKind::Int16 => Value::Int(i64::from(i16::from_be_bytes(wire::take_array(
            input,
            "an int16 field",
        )?))),
        // Writers differ in whether a negative number is extended to 64 bits.
        FieldKind::Int32 => Value::Int(i64::from(wire::read_varint(input)? as i32)),
        FieldKind::Int64 => Value::Int(wire::read_varint(input)? as i64),
        FieldKind::Float => Value::Float(f32::from_be_bytes(wire::take_array(input, "a float field")?)),
        FieldKind::Double => Value::Double(f64::from_be_bytes(wire::take_array(input, "a double field")?)),
        FieldKind::String => Value::String(wire::read_str(input, true)?.to_owned()),
        FieldKind::Boolean => Value::Bool(wire::read_bool(input, "a boolean field")?),
        FieldKind::Bytes => Value::Bytes(Bytes::copy_from_slice(wire::read_bytes(input, true)?)),
        FieldKind::Array(element) | FieldKind::Iterable(element) => {
            decode_iterable(input, element.min_size(), |input| decode_field(element, input))?
        }
        FieldKind::Map(key, value) => {
            let count = read_map_size(input, key, value)?;
            let entry = |_| Ok((decode_field(key, input)?, decode_field(value, input)?));
            Value::Map((0..count).map(entry).collect::<Result<_>>()?)
        }
        FieldKind::Row(schema) => Value::decode_row(schema, input)?,
        FieldKind::Logical(logical) => match logical.form() {
            LogicalForm::Representation(representation) => decode_field(representation, input)?,
            LogicalForm::MillisInstant => Value::Timestamp(Timestamp::decode(input)?),
            LogicalForm::Decimal => {
                let scale = wire::read_varint(input)? as i64;
                let unscaled = Bytes::copy_from_slice(wire::read_bytes(input, true)?);
                Value::Decimal { scale, unscaled }
            }
            LogicalForm::Unknown => {
                return Err(DecodeError::UnknownCoder {
                    urn: logical.urn.as_str().into(),
                });
            }
        },
    })
}

fn encode_row(schema: &Schema, values: &[Value], out: &mut Vec<u8>) -> core::result::Result<(), EncodeError> {
    let fields = schema.fields();
    if fields.len() != values.len() {
        return Err(EncodeError::FieldCount {
            expected: fields.len(),
            got: values.len(),
        });
    }
    wire::write_varint(fields.len() as u64, out);
    if values.contains(&Value::Null) {
        let mut nulls = vec![0u8; fields.len().div_ceil(8)];
        for position in 0..fields.len() {
            let index = schema.at_position(position);
            if values[index] == Value::Null {
                if !fields[index].field_type.nullable {
                    return Err(EncodeError::NullField {
                        field: fields[index].name.clone(),
                    });
                }
                nulls[position / 8] |= 1 << (position % 8);
            }
        }
        wire::write_bytes(&nulls, out, true);
    } else {
        out.push(0);
    }
    for position in 0..fields.len() {
        let index = schema.at_position(position);
        if values[index] != Value::Null {
            encode_present(&fields[index].field_type, &values[index], out)?;
        }
    }
    Ok(())
}

fn encode_field(
    field: &FieldType,
    value: &Value,
    out: &mut Vec<u8>,
) -> core::result::Result<(), EncodeError> {
    if field.nullable {
        out.push(u8::from(*value != Value::Null));
        if *value == Value::Null {
            return Ok(());
        }
    }
    encode_present(field, value, out)
}

fn encode_present(
    field: &FieldType,
    value: &Value,
    out: &mut Vec<u8>,
) -> core::result::Result<(), EncodeError> {
    let out_of_range = |what, value| EncodeError::OutOfRange { what, value };
    match (&field.kind, value) {
        (FieldKind::Byte, &Value::Int(value)) => {
            out.push(i8::try_from(value).map_err(|_| out_of_range("a byte field", value))? as u8);
        }
        (FieldKind::Int16, &Value::Int(value)) => {
            let narrow = i16::try_from(value).map_err(|_| out_of_range("an int16 field", value))?;
            out.extend_from_slice(&narrow.to_be_bytes());
        }
        (FieldKind::Int32, &Value::Int(value)) => {
            let narrow = i32::try_from(value).map_err(|_| out_of_range("an int32 field", value))?;
            wire::write_varint(u64::from(narrow as u32), out);
        }
        (FieldKind::Int64, Value::Int(value)) => wire::write_varint(*value as u64, out),
        (FieldKind::Float, Value::Float(value)) => out.extend_from_slice(&value.to_be_bytes()),
        (FieldKind::Double, Value::Double(value)) => out.extend_from_slice(&value.to_be_bytes()),
        (FieldKind::String, Value::String(value)) => wire::write_bytes(value.as_bytes(), out, true),
        (FieldKind::Boolean, Value::Bool(value)) => out.push(u8::from(*value)),
        (FieldKind::Bytes, Value::Bytes(value)) => wire::write_bytes(value, out, true),
        (FieldKind::Array(element) | FieldKind::Iterable(element), Value::Iterable(values)) => {
            write_count(values.len(), out)?;
            for value in values {
                encode_field(element, value, out)?;
            }
        }
        (FieldKind::Map(key_type, value_type), Value::Map(entries)) => {
            write_count(entries.len(), out)?;
            for (key, value) in entries {
                encode_field(key_type, key, out)?;
                encode_field(value_type, value, out)?;
            }
        }
        (FieldKind::Row(schema), Value::Row(values)) => encode_row(schema, values, out)?,
        (FieldKind::Logical(logical), value) => match (logical.form(), value) {
            (LogicalForm::Representation(representation), value) => encode_field(representation, value, out)?,
            (LogicalForm::MillisInstant, Value::Timestamp(timestamp)) => timestamp.encode(out),
            (LogicalForm::Decimal, Value::Decimal { scale, unscaled }) => {
                wire::write_varint(*scale as u64, out);
                wire::write_bytes(unscaled, out, true);
            }
            _ => return Err(mismatch(field, value)),
        },
        _ => return Err(mismatch(field, value)),
    }
    Ok(())
}
