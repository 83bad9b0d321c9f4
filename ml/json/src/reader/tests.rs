use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A document as UBJSON, as XGBoost writes it: lengths of 64 bits, and the kind of a list's items once if it is one.
fn ubjson(value: &Value) -> Vec<u8> {
    fn length(out: &mut Vec<u8>, length: usize) {
        out.push(b'L');
        out.extend((length as i64).to_be_bytes());
    }
    fn put(out: &mut Vec<u8>, value: &Value) {
        match value {
            Value::Null => out.push(b'Z'),
            Value::Bool(flag) => out.push(if *flag { b'T' } else { b'F' }),
            Value::Number(number) => match number.as_i64() {
                Some(whole) => {
                    out.push(b'L');
                    out.extend(whole.to_be_bytes());
                }
                None => {
                    out.push(b'D');
                    out.extend(number.as_f64().unwrap().to_be_bytes());
                }
            },
            Value::String(text) => {
                out.push(b'S');
                length(out, text.len());
                out.extend(text.as_bytes());
            }
            Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_f64) => {
                out.extend(b"[$d#");
                length(out, items.len());
                for item in items {
                    out.extend((item.as_f64().unwrap() as f32).to_be_bytes());
                }
            }
            Value::Array(items) => {
                out.extend(b"[#");
                length(out, items.len());
                items.iter().for_each(|item| put(out, item));
            }
            Value::Object(members) => {
                out.push(b'{');
                for (key, value) in members {
                    length(out, key.len());
                    out.extend(key.as_bytes());
                    put(out, value);
                }
                out.push(b'}');
            }
        }
    }
    let mut out = Vec::new();
    put(&mut out, value);
    out
}

/// What a document holds, but for the kinds of its numbers.
fn value(reader: &mut Reader<'_>) -> Result<Value, Fault> {
    Ok(match reader.peek()? {
        b'{' => {
            let mut members = serde_json::Map::new();
            reader.object::<Fault>(&mut |key, reader| {
                members.insert(key.to_owned(), value(reader)?);
                Ok(())
            })?;
            Value::Object(members)
        }
        b'[' => {
            let mut items = Vec::new();
            reader.list::<Fault>(&mut |reader| {
                items.push(value(reader)?);
                Ok(())
            })?;
            Value::Array(items)
        }
        b'"' | b'S' => Value::String(reader.text()?.into_owned()),
        b't' | b'f' | b'n' | b'T' | b'F' | b'Z' => {
            reader.skip()?;
            Value::Null
        }
        _ => json!(reader.number::<f32>()?),
    })
}

fn read(bytes: &[u8]) -> Result<Value, Fault> {
    let mut reader = Reader::new(bytes);
    let value = value(&mut reader)?;
    reader.end()?;
    Ok(value)
}

fn skip(bytes: &[u8]) -> Result<(), Fault> {
    let mut reader = Reader::new(bytes);
    reader.skip()?;
    reader.end()
}

fn document() -> Value {
    json!({
        "learner": {"a \"b\"\n\u{1f600}": "x\\y", "empty": {}, "nothing": [], "flag": true, "none": null},
        "numbers": [0.5, -1.25, 3.5e10],
        "mixed": [1, 2.5, "three", [4], {"five": 5}],
        "version": [3, 2, 0],
    })
}

/// As [`value`] gives it.
fn plain(document: &Value) -> Value {
    match document {
        Value::Bool(_) | Value::Null => Value::Null,
        Value::Number(number) => json!(number.as_f64().unwrap() as f32),
        Value::String(text) => json!(text),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| (key.clone(), plain(value)))
            .collect(),
    }
}

#[test]
fn both_formats_give_the_same() {
    let document = document();
    let expected = plain(&document);
    for bytes in [
        serde_json::to_vec(&document).unwrap(),
        serde_json::to_vec_pretty(&document).unwrap(),
        ubjson(&document),
    ] {
        assert_eq!(read(&bytes), Ok(expected.clone()));
        assert_eq!(skip(&bytes), Ok(()));
    }
}

#[test]
fn what_is_cut_off_is_told_as_that() {
    for bytes in [serde_json::to_vec(&document()).unwrap(), ubjson(&document())] {
        for length in 0..bytes.len() {
            // Of one byte no format is told.
            let fault = read(&bytes[..length]).unwrap_err();
            assert!(fault.is_cut_off(), "{length}: {fault}");
            let fault = skip(&bytes[..length]).unwrap_err();
            assert!(fault.is_cut_off(), "{length}: {fault}");
        }
    }
}

#[test]
fn numbers_are_the_nearest_to_what_is_written() {
    // Between two numbers of 32 bits: by way of 64 bits the text would become the tie, and that the smaller one.
    let tie = "1.00000005960464477539062500000000000001";
    let text = format!(r#"{{"list": [{tie}, 1e-45, 3.4028235E38, -0, NaN, Infinity, 1e99]}}"#);
    let mut list: Vec<f32> = Vec::new();
    let mut reader = Reader::new(text.as_bytes());
    reader
        .object::<Fault>(&mut |_, reader| {
            list = reader.numbers()?;
            Ok(())
        })
        .unwrap();
    assert_eq!(tie.parse::<f64>().unwrap() as f32, 1.0);
    assert_eq!(list[..3], [1.0_f32.next_up(), f32::from_bits(1), f32::MAX]);
    assert!(list[3] == 0.0 && list[3].is_sign_negative() && list[4].is_nan());
    assert_eq!(list[5..], [f32::INFINITY, f32::INFINITY]);
}

#[test]
fn faults_say_where_and_what() {
    let told = |text: &str| read(text.as_bytes()).unwrap_err().to_string();
    for (text, expected) in [
        ("[1]", ""),
        (
            r#"{"a": 1;}"#,
            "at byte 7 of its JSON is `;}`: expected `,` or `}`",
        ),
        (
            r#"{"a": 1 "b": 2}"#,
            "at byte 8 of its JSON is `\\\"b\\\": 2}`: expected `,` or `}`",
        ),
        (
            r#"{"a": twelve}"#,
            "at byte 6 of its JSON is `twelve}`: expected a value",
        ),
        (
            r#"{"a": 1.2.3}"#,
            "at byte 6 of its JSON is `1.2.3}`: expected a number",
        ),
        (
            r#"{"a": "\q"}"#,
            "at byte 7 of its JSON is `\\\\q\\\"}`: expected a text with escapes of JSON",
        ),
        (r#"{a: 1}"#, "at byte 1 of its JSON is `a: 1}`: expected a text"),
        (
            r#"{} {}"#,
            "at byte 3 of its JSON is `{}`: expected the end of the file",
        ),
        (
            "{U\x01aX}",
            "at byte 4 of its UBJSON is the mark 0x58: expected a number",
        ),
        (
            "{U\x01a[$ZU\x02]}",
            "at byte 7 of its UBJSON is the mark 0x55: expected `#` and the number of items, as their kind is told",
        ),
        (
            "{U\x01a[$Z#U\x02]}",
            "at byte 9 of its UBJSON is the mark 0x5a: expected a kind of items that have bytes",
        ),
        (
            "{U\x01ai\x01}i",
            "at byte 7 of its UBJSON is 1 bytes more: expected the end of the file",
        ),
    ] {
        match expected.is_empty() {
            true => assert_eq!(read(text.as_bytes()), Ok(json!([1.0]))),
            false => assert_eq!(told(text), expected),
        }
    }
    for begin in ["{\"a\":", "{U\x01a"] {
        let fault = skip(begin.repeat(100_000).as_bytes()).unwrap_err();
        assert!(matches!(fault, Fault::TooDeep { limit: 64, .. }), "{fault}");
    }
    // Lists that would be huge take no memory.
    let huge = b"{U\x01a[$l#L\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0}";
    let mut reader = Reader::new(huge);
    let fault = reader.object(&mut |_, reader| reader.numbers::<i64>().map(drop));
    assert!(fault.unwrap_err().is_cut_off());
    assert!(skip(huge).unwrap_err().is_cut_off());
}

fn documents() -> impl Strategy<Value = Value> {
    let simple = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        (-1e30_f32..1e30).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    let inside = simple.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((".{0,6}", inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    });
    prop::collection::vec((".{0,6}", inside), 0..6)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}

proptest! {
    #[test]
    fn any_document_is_read_as_it_was_written(document in documents()) {
        let expected = plain(&document);
        for bytes in [serde_json::to_vec(&document).unwrap(), ubjson(&document)] {
            prop_assert_eq!(read(&bytes), Ok(expected.clone()));
            prop_assert_eq!(skip(&bytes), Ok(()));
        }
    }

    #[test]
    fn any_bytes_are_read_or_told_what_is_wrong(
        document in documents(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        for mut bytes in [serde_json::to_vec(&document).unwrap(), ubjson(&document)] {
            for (place, byte) in &changes {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
            let (found, skipped) = (read(&bytes), skip(&bytes));
            prop_assert!(found.is_err() || skipped.is_ok(), "{:?}", skipped);
        }
    }
}
