//! Pipeline options as the JSON that harnesses read.

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use serde_json::Value as Json;

/// The largest number up to which each whole one has an exact `f64`: 2 to the 53rd.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// (Decoding the options has bounded how deep they nest.)
pub(super) fn json(options: &Struct) -> Json {
    let field = |(name, value): (&String, &Value)| (name.clone(), value_json(value));
    Json::Object(options.fields.iter().map(field).collect())
}

fn value_json(value: &Value) -> Json {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        // All numbers are doubles here, and SDKs want options that count things without a fraction.
        Some(Kind::NumberValue(n)) if n.fract() == 0.0 && n.abs() < EXACT => Json::from(*n as i64),
        Some(Kind::NumberValue(n)) => Json::from(*n),
        Some(Kind::StringValue(s)) => Json::from(s.as_str()),
        Some(Kind::BoolValue(b)) => Json::from(*b),
        Some(Kind::StructValue(s)) => json(s),
        Some(Kind::ListValue(list)) => list.values.iter().map(value_json).collect(),
    }
}

/// The texts of a list option, by the part of its name between `beam:option:` and `:v1`.
pub(super) fn texts<'a>(options: Option<&'a Struct>, name: &str) -> impl Iterator<Item = &'a str> {
    let value = options.and_then(|options| options.fields.get(&format!("beam:option:{name}:v1")));
    let list = value.and_then(|value| match &value.kind {
        Some(Kind::ListValue(list)) => Some(list.values.as_slice()),
        _ => None,
    });
    list.unwrap_or_default()
        .iter()
        .filter_map(|value| match &value.kind {
            Some(Kind::StringValue(text)) => Some(text.as_str()),
            _ => None,
        })
}
