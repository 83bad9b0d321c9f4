//! Pipeline options as the JSON that SDK harnesses read.

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use serde_json::Value as Json;

/// The largest number up to which each whole one has an exact `f64`: 2 to the 53rd.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Pipeline options as the JSON that SDK harnesses are given, whole numbers without a fraction. (Decoding the options has bounded
/// how deep they nest.)
pub fn options_json(options: &Struct) -> Json {
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
        Some(Kind::StructValue(s)) => options_json(s),
        Some(Kind::ListValue(list)) => list.values.iter().map(value_json).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_have_no_fraction_and_those_beyond_the_exact_ones_stay_doubles() {
        let mut options = Struct::default();
        for (name, number) in [
            ("large", 1e300),
            ("exact", -9e15),
            ("half", 0.5),
            ("nan", f64::NAN),
        ] {
            let value = Value {
                kind: Some(Kind::NumberValue(number)),
            };
            options.fields.insert(name.into(), value);
        }
        let json = options_json(&options).to_string();
        assert_eq!(
            json,
            r#"{"exact":-9000000000000000,"half":0.5,"large":1e+300,"nan":null}"#
        );
    }
}
