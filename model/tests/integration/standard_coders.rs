//! Every example of Beam's `standard_coders.yaml`, byte for byte.
//!
//! The file comes with the Python SDK. `BEAM_STANDARD_CODERS` names it; without that it is looked for in the
//! workspace's virtual environment.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use purlin_model::schema::{Field, FieldKind, FieldType, LogicalType, Schema};
use purlin_model::{
    Coder, CoderError, DecodeError, Header, PaneInfo, Timer, TimerFiring, Timestamp, Timing, Value, Walker,
    Window, WindowCoder, Windows,
};
use purlin_proto::pipeline as proto;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

#[derive(Deserialize)]
struct Section {
    coder: CoderYaml,
    nested: Option<bool>,
    examples: Map<String, Json>,
}

#[derive(Deserialize)]
struct CoderYaml {
    urn: String,
    #[serde(default)]
    payload: String,
    #[serde(default)]
    components: Vec<CoderYaml>,
    #[serde(default)]
    non_deterministic: bool,
    #[serde(default)]
    state: HashMap<String, String>,
}

/// The bytes of a string whose characters each stand for one.
fn latin1(string: &str) -> Vec<u8> {
    string
        .chars()
        .map(|c| u8::try_from(u32::from(c)).expect("a character of one byte"))
        .collect()
}

fn find_file() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("BEAM_STANDARD_CODERS") {
        return Some(path.into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let lib = root.join("third_party/venv/lib");
    let file = "site-packages/apache_beam/portability/api/standard_coders.yaml";
    let versions = std::fs::read_dir(lib).ok()?;
    versions
        .filter_map(|entry| Some(entry.ok()?.path().join(file)))
        .find(|path| path.exists())
}

#[test]
fn standard_coders() {
    let Some(path) = find_file() else {
        let message = "standard_coders.yaml is not there: set BEAM_STANDARD_CODERS, or run `make setup`";
        assert!(std::env::var_os("CI").is_none(), "{message}");
        println!("skipped: {message}");
        return;
    };
    let text = std::fs::read_to_string(&path).expect("read standard_coders.yaml");
    let mut checked: HashMap<String, usize> = HashMap::new();
    let sections: Vec<Section> = serde_saphyr::from_multiple(&text).expect("read the sections");
    for section in &sections {
        let coder = parse_coder(&section.coder);
        assert_eq!(parse_spec(&coder), coder, "the spec of a coder gives the coder");
        let contexts = section.nested.map_or(vec![true, false], |nested| vec![nested]);
        for (encoded, json) in &section.examples {
            let encoded = latin1(encoded);
            for &nested in &contexts {
                check_example(&section.coder, &coder, &encoded, json, nested);
                *checked.entry(section.coder.urn.clone()).or_default() += 1;
            }
        }
    }
    assert_eq!(checked.len(), 17, "coders of the file: {checked:?}");
    let total: usize = checked.values().sum();
    assert!(total >= 140, "only {total} examples were checked: {checked:?}");
    println!("{total} examples in their contexts: {checked:?}");
}

fn check_example(yaml: &CoderYaml, coder: &Coder, encoded: &[u8], json: &Json, nested: bool) {
    let context = format!("{coder}, nested {nested}, {}", encoded.escape_ascii());
    let expected = expected_value(coder, json);

    let mut input = encoded;
    let decoded = Value::decode(coder, &mut input, nested).unwrap_or_else(|e| panic!("{context}: {e}"));
    assert!(input.is_empty(), "{context}: {} bytes are left", input.len());
    let resolved = resolve_state(yaml, coder, decoded.clone());
    assert!(
        same(&resolved, &expected),
        "{context}: {resolved:?} is not {expected:?}"
    );

    let mut out = Vec::new();
    let to_encode = if yaml.non_deterministic {
        &decoded
    } else {
        &expected
    };
    to_encode
        .encode(coder, &mut out, nested)
        .unwrap_or_else(|e| panic!("{context}: {e}"));
    if yaml.non_deterministic {
        let again = Value::decode(coder, &mut &out[..], nested).unwrap_or_else(|e| panic!("{context}: {e}"));
        assert!(same(&again, &decoded), "{context}: {again:?} is not {decoded:?}");
    } else {
        assert_eq!(out, encoded, "{context}");
    }

    let mut input = encoded;
    coder
        .skip(&mut input, nested)
        .unwrap_or_else(|e| panic!("{context}: {e}"));
    assert!(
        input.is_empty(),
        "{context}: {} bytes are left by skip",
        input.len()
    );
    if nested {
        check_walk(coder, encoded, &context);
    }
}

/// Three times the example as values of a data buffer: the walker finds each, and an early end is an error.
fn check_walk(coder: &Coder, encoded: &[u8], context: &str) {
    let mut data = Vec::new();
    for _ in 0..3 {
        Header::IMPULSE.encode(&mut data);
        data.extend_from_slice(encoded);
    }
    let found: Result<Vec<_>, DecodeError> = Walker::new(&WindowCoder::Global, coder, &data)
        .map(|element| element.map(|e| &data[e.value()] == encoded && e.timestamp == Timestamp::MIN))
        .collect();
    assert_eq!(found, Ok(vec![true; 3]), "{context}");
    for end in 0..encoded.len() {
        let mut input = &encoded[..end];
        assert!(coder.skip(&mut input, true).is_err(), "{context}: cut at {end}");
        assert!(
            Value::decode(coder, &mut &encoded[..end], true).is_err(),
            "{context}: cut at {end}"
        );
    }
}

fn parse_coder(yaml: &CoderYaml) -> Coder {
    let components = yaml.components.iter().map(parse_coder).collect();
    let payload = Bytes::from(latin1(&yaml.payload));
    Coder::from_parts(&yaml.urn, &payload, components, &parse_schema).expect("make the coder")
}

fn parse_spec(coder: &Coder) -> Coder {
    Coder::from_spec(&coder.to_spec(), &parse_schema).expect("make the coder of its spec")
}

fn parse_schema(payload: &Bytes) -> Result<Schema, CoderError> {
    let schema = proto::Schema::decode(payload.clone()).map_err(CoderError::schema)?;
    schema_of(schema).map_err(CoderError::schema)
}

fn schema_of(schema: proto::Schema) -> Result<Schema, String> {
    let positions = schema.encoding_positions_set;
    let field = |field: proto::Field| {
        Ok(Field {
            field_type: type_of(field.r#type.ok_or("a field without a type")?)?,
            name: field.name,
            encoding_position: if positions {
                Some(u32::try_from(field.encoding_position).map_err(|e| e.to_string())?)
            } else {
                None
            },
        })
    };
    let fields: Result<Vec<_>, String> = schema.fields.into_iter().map(field).collect();
    Schema::new(fields?).map_err(|e| e.to_string())
}

fn type_of(field: proto::FieldType) -> Result<FieldType, String> {
    use proto::field_type::TypeInfo;
    let boxed = |inner: Option<Box<proto::FieldType>>| match inner {
        Some(inner) => type_of(*inner).map(Box::new),
        None => Err("a type without its parts".to_string()),
    };
    let kind = match field.type_info.ok_or("a type that says nothing")? {
        TypeInfo::AtomicType(atomic) => {
            match proto::AtomicType::try_from(atomic).map_err(|e| e.to_string())? {
                proto::AtomicType::Byte => FieldKind::Byte,
                proto::AtomicType::Int16 => FieldKind::Int16,
                proto::AtomicType::Int32 => FieldKind::Int32,
                proto::AtomicType::Int64 => FieldKind::Int64,
                proto::AtomicType::Float => FieldKind::Float,
                proto::AtomicType::Double => FieldKind::Double,
                proto::AtomicType::String => FieldKind::String,
                proto::AtomicType::Boolean => FieldKind::Boolean,
                proto::AtomicType::Bytes => FieldKind::Bytes,
                proto::AtomicType::Unspecified => return Err("an atomic type that says nothing".into()),
            }
        }
        TypeInfo::ArrayType(array) => FieldKind::Array(boxed(array.element_type)?),
        TypeInfo::IterableType(iterable) => FieldKind::Iterable(boxed(iterable.element_type)?),
        TypeInfo::MapType(map) => FieldKind::Map(boxed(map.key_type)?, boxed(map.value_type)?),
        TypeInfo::RowType(row) => FieldKind::Row(Arc::new(schema_of(
            row.schema.ok_or("a row type without a schema")?,
        )?)),
        TypeInfo::LogicalType(logical) => FieldKind::Logical(Box::new(LogicalType {
            urn: logical.urn,
            payload: logical.payload,
            representation: *boxed(logical.representation)?,
            argument: None,
        })),
    };
    Ok(FieldType {
        nullable: field.nullable,
        kind,
    })
}

/// A state-backed iterable with the elements that the section's state holds.
fn resolve_state(yaml: &CoderYaml, coder: &Coder, value: Value) -> Value {
    let Value::StateBacked { prefix, token } = value else {
        return value;
    };
    let element = coder.as_iterable().expect("an iterable");
    let token = String::from_utf8(token.to_vec()).expect("a token");
    let state = latin1(&yaml.state[&token]);
    let mut input = &state[..];
    let mut values = prefix;
    while !input.is_empty() {
        values.push(Value::decode(element, &mut input, true).expect("an element of the state"));
    }
    Value::Iterable(values)
}

/// Equality in which NaN is NaN, and maps have no order.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.to_bits() == b.to_bits(),
        (Value::Row(a), Value::Row(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Map(a), Value::Map(b)) => a.len() == b.len() && a.iter().all(|entry| b.contains(entry)),
        (a, b) => a == b,
    }
}

fn text(json: &Json) -> &str {
    json.as_str().expect("a string")
}

fn int(json: &Json) -> i64 {
    json.as_i64().expect("an integer")
}

fn bytes(json: &Json) -> Bytes {
    Bytes::copy_from_slice(text(json).as_bytes())
}

/// The value that an example's right side describes.
fn expected_value(coder: &Coder, json: &Json) -> Value {
    match coder {
        Coder::Bytes => Value::Bytes(bytes(json)),
        Coder::Utf8 => Value::String(text(json).to_owned()),
        Coder::Bool => Value::Bool(json.as_bool().expect("a boolean")),
        Coder::VarInt => Value::Int(int(json)),
        Coder::Double => Value::Double(text(json).parse().expect("a double")),
        Coder::Kv(kv) => Value::Kv(Box::new((
            expected_value(&kv.0, &json["key"]),
            expected_value(&kv.1, &json["value"]),
        ))),
        Coder::Iterable(element) | Coder::StateBackedIterable(element) => {
            let values = json.as_array().expect("a sequence");
            Value::Iterable(
                values
                    .iter()
                    .map(|value| expected_value(element, value))
                    .collect(),
            )
        }
        Coder::Nullable(_) if json.is_null() => Value::Null,
        Coder::Nullable(inner) => expected_value(inner, json),
        Coder::ShardedKey(key) => Value::ShardedKey {
            shard_id: bytes(&json["shardId"]),
            key: Box::new(expected_value(key, &json["key"])),
        },
        Coder::GlobalWindow | Coder::IntervalWindow | Coder::CustomWindow(_) => {
            Value::Window(window(&WindowCoder::from_coder(coder.clone()), json))
        }
        Coder::WindowedValue(coder) => {
            let header = header(&coder.window, json);
            Value::Windowed(Box::new((header, expected_value(&coder.value, &json["value"]))))
        }
        Coder::ParamWindowedValue(coder) => {
            let header = header(&coder.window, json);
            Value::Windowed(Box::new((header, expected_value(&coder.value, &json["value"]))))
        }
        Coder::Timer(coder) => {
            let mut user_key = Vec::new();
            expected_value(&coder.key, &json["userKey"])
                .encode(&coder.key, &mut user_key, true)
                .unwrap();
            let firing = (!json["clearBit"].as_bool().expect("a boolean")).then(|| TimerFiring {
                fire_timestamp: Timestamp(int(&json["fireTimestamp"])),
                hold_timestamp: Timestamp(int(&json["holdTimestamp"])),
                pane: pane(&json["pane"]),
            });
            Value::Timer(Box::new(Timer {
                user_key: user_key.into(),
                dynamic_tag: text(&json["dynamicTimerTag"]).to_owned(),
                windows: windows(&coder.window, &json["windows"]),
                firing,
            }))
        }
        Coder::Row(schema) => expected_row(schema, json),
        Coder::LengthPrefix(_) | Coder::Unknown { .. } => panic!("no example is of {coder}"),
    }
}

fn window(coder: &WindowCoder, json: &Json) -> Window {
    match coder {
        WindowCoder::Global => Window::Global,
        WindowCoder::Interval => {
            let end = int(&json["end"]);
            Window::Interval {
                start: Timestamp(end - int(&json["span"])),
                end: Timestamp(end),
            }
        }
        WindowCoder::Custom(inner) => {
            let inner = window(&WindowCoder::from_coder((**inner).clone()), &json["window"]);
            Window::Custom {
                max_timestamp: inner.max_timestamp(),
                encoded: inner.to_bytes(),
            }
        }
        WindowCoder::Opaque(coder) => panic!("no example has windows of {coder}"),
    }
}

fn windows(coder: &WindowCoder, json: &Json) -> Windows {
    json.as_array()
        .expect("windows")
        .iter()
        .map(|json| window(coder, json))
        .collect()
}

fn header(coder: &WindowCoder, json: &Json) -> Header {
    Header {
        timestamp: Timestamp(int(&json["timestamp"])),
        windows: windows(coder, &json["windows"]),
        pane: pane(&json["pane"]),
    }
}

fn pane(json: &Json) -> PaneInfo {
    PaneInfo {
        is_first: json["is_first"].as_bool().expect("a boolean"),
        is_last: json["is_last"].as_bool().expect("a boolean"),
        timing: match text(&json["timing"]) {
            "EARLY" => Timing::Early,
            "ON_TIME" => Timing::OnTime,
            "LATE" => Timing::Late,
            "UNKNOWN" => Timing::Unknown,
            other => panic!("timing {other}"),
        },
        index: int(&json["index"]),
        nonspeculative_index: int(&json["on_time_index"]),
    }
}

fn expected_row(schema: &Schema, json: &Json) -> Value {
    let field = |field: &Field| expected_field(&field.field_type, &json[field.name.as_str()]);
    Value::Row(schema.fields().iter().map(field).collect())
}

fn expected_field(field: &FieldType, json: &Json) -> Value {
    if json.is_null() {
        return Value::Null;
    }
    match &field.kind {
        FieldKind::Byte | FieldKind::Int16 | FieldKind::Int32 | FieldKind::Int64 => Value::Int(int(json)),
        FieldKind::Float => Value::Float(text(json).parse().expect("a float")),
        FieldKind::Double => Value::Double(text(json).parse().expect("a double")),
        FieldKind::String => Value::String(text(json).to_owned()),
        FieldKind::Boolean => Value::Bool(json.as_bool().expect("a boolean")),
        FieldKind::Bytes => Value::Bytes(bytes(json)),
        FieldKind::Array(element) | FieldKind::Iterable(element) => {
            let values = json.as_array().expect("a sequence");
            Value::Iterable(values.iter().map(|json| expected_field(element, json)).collect())
        }
        FieldKind::Map(key, value) => {
            let entries = json.as_object().expect("a map");
            Value::Map(
                entries
                    .iter()
                    .map(|(k, v)| (expected_field(key, &k.as_str().into()), expected_field(value, v)))
                    .collect(),
            )
        }
        FieldKind::Row(schema) => expected_row(schema, json),
        FieldKind::Logical(logical) => match logical.urn.as_str() {
            // The file gives the eight bytes as a number.
            "beam:logical_type:millis_instant:v1" => {
                Value::Timestamp(Timestamp::from_bytes(int(json).to_be_bytes()))
            }
            "beam:logical_type:decimal:v1" => decimal(text(json)),
            _ => expected_field(&logical.representation, json),
        },
    }
}

fn decimal(text: &str) -> Value {
    let (whole, fraction) = text.split_once('.').expect("a decimal point");
    let unscaled: i64 = format!("{whole}{fraction}").parse().expect("a decimal");
    let bytes = unscaled.to_be_bytes();
    // The shortest two's complement: drop bytes that repeat the sign.
    let sign = if unscaled < 0 { 0xff } else { 0 };
    let redundant = (0..7)
        .take_while(|&i| bytes[i] == sign && (bytes[i + 1] ^ sign) < 0x80)
        .count();
    Value::Decimal {
        scale: fraction.len() as i64,
        unscaled: Bytes::copy_from_slice(&bytes[redundant..]),
    }
}
