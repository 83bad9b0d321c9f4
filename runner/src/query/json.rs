//! Values as JSON, and keys from it: numbers, booleans and text as they are, bytes in hexadecimal, pairs and lists as arrays, rows as
//! objects.

use std::fmt::Write as _;

use bytes::Bytes;
use purlin_model::schema::{FieldKind, FieldType};
use purlin_model::{Coder, Schema, Value};
use serde_json::{Map, Value as Json, json};

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn from_hex(text: &str) -> Option<Bytes> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect())
}

/// JSON has no number that is not finite.
fn float(value: f64) -> Json {
    serde_json::Number::from_f64(value).map_or_else(|| Json::String(value.to_string()), Json::Number)
}

/// A value as JSON.
pub(super) fn shown(coder: &Coder, value: &Value) -> Json {
    match (coder, value) {
        (Coder::Unknown { urn, .. }, Value::Bytes(bytes)) => json!({ "coder": urn, "hex": hex(bytes) }),
        (Coder::LengthPrefix(inner) | Coder::Nullable(inner), value) => shown(inner, value),
        (Coder::Kv(coders), Value::Kv(kv)) => json!([shown(&coders.0, &kv.0), shown(&coders.1, &kv.1)]),
        (Coder::Iterable(element), Value::Iterable(all)) => {
            all.iter().map(|value| shown(element, value)).collect()
        }
        (Coder::Row(schema), Value::Row(fields)) => row(schema, fields),
        (Coder::ShardedKey(coder), Value::ShardedKey { shard_id, key }) => {
            json!({ "shard": hex(shard_id), "key": shown(coder, key) })
        }
        (_, value) => plain(value),
    }
}

fn row(schema: &Schema, fields: &[Value]) -> Json {
    let fields = schema.fields().iter().zip(fields);
    let fields = fields.map(|(field, value)| (field.name.clone(), field_shown(&field.field_type, value)));
    Json::Object(fields.collect())
}

fn field_shown(field: &FieldType, value: &Value) -> Json {
    match (&field.kind, value) {
        (FieldKind::Array(element) | FieldKind::Iterable(element), Value::Iterable(all)) => {
            all.iter().map(|value| field_shown(element, value)).collect()
        }
        (FieldKind::Map(key, value), Value::Map(all)) => {
            let entry = |(k, v): &(Value, Value)| json!([field_shown(key, k), field_shown(value, v)]);
            all.iter().map(entry).collect()
        }
        (FieldKind::Row(schema), Value::Row(fields)) => row(schema, fields),
        (FieldKind::Logical(logical), value) => field_shown(&logical.representation, value),
        (_, value) => plain(value),
    }
}

fn plain(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::Float(value) => float(f64::from(*value)),
        Value::Double(value) => float(*value),
        Value::Bytes(bytes) => Json::String(hex(bytes)),
        Value::String(text) => json!(text),
        Value::Window(window) => json!(window.to_string()),
        Value::Timestamp(at) => json!(at.to_string()),
        Value::Decimal { scale, unscaled } => json!({ "scale": scale, "unscaled": hex(unscaled) }),
        other => json!({ "kind": other.kind() }),
    }
}

/// The key that a query names.
pub(super) fn key(coder: &Coder, text: &str) -> Result<Value, String> {
    match coder {
        Coder::LengthPrefix(inner) => key(inner, text),
        Coder::Utf8 => Ok(Value::String(text.to_owned())),
        Coder::VarInt => integer(text).ok_or_else(|| format!("\"{text}\" is no integer of 64 bits")),
        Coder::Bytes => from_hex(text)
            .map(Value::Bytes)
            .ok_or_else(|| format!("\"{text}\" is not hexadecimal, as which bytes are given")),
        coder => {
            let json: Json = serde_json::from_str(text).map_err(|error| {
                format!("\"{text}\" is not JSON, as which a key of {coder} is given: {error}")
            })?;
            value(coder, &json)
        }
    }
}

/// Integers without a sign have the same encoding.
fn integer(text: &str) -> Option<Value> {
    let number = text.parse::<i64>().ok();
    number
        .or_else(|| text.parse::<u64>().ok().map(|number| number as i64))
        .map(Value::Int)
}

fn value(coder: &Coder, json: &Json) -> Result<Value, String> {
    let wrong = || format!("{json} is no value of {coder}");
    Ok(match (coder, json) {
        (Coder::LengthPrefix(inner), json) => value(inner, json)?,
        (Coder::Nullable(_), Json::Null) => Value::Null,
        (Coder::Nullable(inner), json) => value(inner, json)?,
        (Coder::Kv(coders), Json::Array(pair)) => match pair.as_slice() {
            [first, second] => Value::Kv(Box::new((value(&coders.0, first)?, value(&coders.1, second)?))),
            _ => return Err(wrong()),
        },
        (Coder::Iterable(element), Json::Array(all)) => Value::Iterable(
            all.iter()
                .map(|json| value(element, json))
                .collect::<Result<_, _>>()?,
        ),
        (Coder::Row(schema), Json::Object(fields)) => row_value(schema, fields)?,
        (Coder::Bool, Json::Bool(value)) => Value::Bool(*value),
        (Coder::Double, Json::Number(number)) => Value::Double(number.as_f64().ok_or_else(wrong)?),
        (Coder::VarInt, Json::Number(number)) => integer(&number.to_string()).ok_or_else(wrong)?,
        (Coder::Utf8, Json::String(text)) => Value::String(text.clone()),
        (Coder::Bytes, Json::String(text)) => Value::Bytes(from_hex(text).ok_or_else(wrong)?),
        (Coder::Unknown { urn, .. }, _) => {
            return Err(format!(
                "keys of coder {urn} are written by their SDK alone; give the transform's input keys of a standard coder"
            ));
        }
        _ => return Err(wrong()),
    })
}

fn row_value(schema: &Schema, given: &Map<String, Json>) -> Result<Value, String> {
    if let Some(name) = given
        .keys()
        .find(|name| schema.fields().iter().all(|field| field.name != **name))
    {
        return Err(format!("the key's row ({schema}) has no field \"{name}\""));
    }
    let fields = schema.fields().iter().map(|field| {
        let json = given.get(&field.name).unwrap_or(&Json::Null);
        field_value(&field.field_type, json).map_err(|error| format!("field \"{}\": {error}", field.name))
    });
    Ok(Value::Row(fields.collect::<Result<_, _>>()?))
}

fn field_value(field: &FieldType, json: &Json) -> Result<Value, String> {
    let wrong = || format!("{json} is no {field}");
    Ok(match (&field.kind, json) {
        (_, Json::Null) if field.nullable => Value::Null,
        (FieldKind::Byte | FieldKind::Int16 | FieldKind::Int32 | FieldKind::Int64, Json::Number(number)) => {
            Value::Int(number.as_i64().ok_or_else(wrong)?)
        }
        (FieldKind::Float, Json::Number(number)) => Value::Float(number.as_f64().ok_or_else(wrong)? as f32),
        (FieldKind::Double, Json::Number(number)) => Value::Double(number.as_f64().ok_or_else(wrong)?),
        (FieldKind::String, Json::String(text)) => Value::String(text.clone()),
        (FieldKind::Boolean, Json::Bool(value)) => Value::Bool(*value),
        (FieldKind::Bytes, Json::String(text)) => Value::Bytes(from_hex(text).ok_or_else(wrong)?),
        (FieldKind::Array(element) | FieldKind::Iterable(element), Json::Array(all)) => Value::Iterable(
            all.iter()
                .map(|json| field_value(element, json))
                .collect::<Result<_, _>>()?,
        ),
        (FieldKind::Row(schema), Json::Object(fields)) => row_value(schema, fields)?,
        _ => return Err(wrong()),
    })
}

#[cfg(test)]
mod tests {
    use purlin_model::schema::Field;

    use super::*;

    #[test]
    fn keys_are_text_integers_or_json() {
        let row = Schema::new(vec![
            Field::new("name", FieldKind::String.required()),
            Field::new("size", FieldKind::Int64.nullable()),
        ]);
        let row = Coder::length_prefix(Coder::Row(row.unwrap().into()));
        for (coder, text, again) in [
            (Coder::Utf8, "5 \"x\"", json!("5 \"x\"")),
            (Coder::VarInt, "-7", json!(-7)),
            (Coder::Bytes, "00Ff", json!("00ff")),
            (Coder::Bool, "true", json!(true)),
            (
                Coder::kv(Coder::Utf8, Coder::VarInt),
                "[\"a\", 1]",
                json!(["a", 1]),
            ),
            (
                row.clone(),
                "{\"name\": \"x\"}",
                json!({ "name": "x", "size": null }),
            ),
        ] {
            let value = key(&coder, text).unwrap();
            let mut out = Vec::new();
            value.encode(&coder, &mut out, true).unwrap();
            assert_eq!(Value::decode(&coder, &mut &out[..], true).unwrap(), value);
            assert_eq!(shown(&coder, &value), again);
        }
        for (coder, text, words) in [
            (Coder::VarInt, "x", "no integer"),
            (Coder::Bytes, "0", "hexadecimal"),
            (Coder::Bool, "maybe", "not JSON"),
            (Coder::Bool, "1", "no value"),
            (row.clone(), "{\"nam\": 1}", "no field \"nam\""),
            (row, "{\"name\": 1}", "field \"name\": 1 is no string"),
            (
                Coder::length_prefix(Coder::unknown("x:y")),
                "1",
                "keys of coder x:y",
            ),
        ] {
            let error = key(&coder, text).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
