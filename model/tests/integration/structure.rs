//! What a runner is told of coders: unknown parts, errors, and forged counts.

use std::sync::Arc;

use bytes::Bytes;
use purlin_model::schema::{Field, FieldKind, LogicalType, Schema};
use purlin_model::spec::no_schemas;
use purlin_model::{
    Coder, CoderError, DecodeError, Element, EncodeError, SchemaError, Serde, Timestamp, Value, Walker,
    Window, WindowCoder,
};

#[test]
fn unknown_parts_get_a_length_prefix_and_nothing_else_does() {
    let unknown = || Coder::unknown("user:coder");
    let prefixed = || Coder::length_prefix(unknown());
    let window = WindowCoder::Custom(Box::new(unknown()));
    let coder = Coder::windowed_value(Coder::kv(unknown(), Coder::iterable(unknown())), window);
    assert!(!coder.knows_boundary());
    let window = WindowCoder::Custom(Box::new(prefixed()));
    let expected = Coder::windowed_value(Coder::kv(prefixed(), Coder::iterable(prefixed())), window);
    assert_eq!(coder.length_prefix_unknown(), expected);
    assert!(expected.knows_boundary());
    assert_eq!(expected.length_prefix_unknown(), expected, "once is enough");
}

#[test]
fn a_row_with_a_python_object_is_prefixed_as_a_whole() {
    let any = LogicalType {
        urn: "beam:logical:pythonsdk_any:v1".into(),
        payload: Bytes::new(),
        representation: FieldKind::Bytes.required(),
        argument: None,
    };
    let any = Field::new("object", FieldKind::Logical(Box::new(any)).nullable());
    let row = Coder::Row(Arc::new(Schema::new(vec![any]).unwrap()));
    assert!(!row.knows_boundary());
    assert_eq!(row.length_prefix_unknown(), Coder::length_prefix(row.clone()));
    // Null takes no bytes, so this row's end is known; the other's is not.
    assert_eq!(row.skip(&mut &b"\x01\x01\x01"[..], true), Ok(()));
    let error = row.skip(&mut &b"\x01\x00abc"[..], true).unwrap_err();
    assert!(matches!(error, DecodeError::UnknownCoder { .. }), "{error}");
}

#[test]
fn an_unknown_coder_is_named_in_the_error() {
    let coder = Coder::kv(Coder::Utf8, Coder::iterable(Coder::unknown("user:coder:v1")));
    let error = coder.skip(&mut &b"\x01a\0\0\0\x01bcd"[..], true).unwrap_err();
    assert_eq!(
        error,
        DecodeError::UnknownCoder {
            urn: "user:coder:v1".into()
        }
    );
    assert!(error.to_string().contains("user:coder:v1"), "{error}");
    // In the outer context the value runs to the end, and that is known.
    assert_eq!(
        Coder::kv(Coder::Utf8, Coder::unknown("u")).skip(&mut &b"\x01abcd"[..], false),
        Ok(())
    );
}

#[test]
fn wrong_components_and_payloads_are_errors() {
    let error = Coder::from_parts("beam:coder:kv:v1", &Bytes::new(), vec![Coder::Bytes], &no_schemas);
    let urn = "beam:coder:kv:v1".to_string();
    assert_eq!(
        error,
        Err(CoderError::ComponentCount {
            urn,
            expected: 2,
            got: 1
        })
    );
    let error = Coder::from_parts(
        "beam:coder:bytes:v1",
        &Bytes::new(),
        vec![Coder::Bytes],
        &no_schemas,
    );
    assert!(
        matches!(
            error,
            Err(CoderError::ComponentCount {
                expected: 0,
                got: 1,
                ..
            })
        ),
        "{error:?}"
    );
    let error = Coder::from_parts("beam:coder:row:v1", &Bytes::new(), vec![], &no_schemas);
    assert!(matches!(error, Err(CoderError::Payload { .. })), "{error:?}");
    let components = vec![Coder::VarInt, Coder::GlobalWindow];
    let payload = Bytes::from_static(b"short");
    let error = Coder::from_parts(
        "beam:coder:param_windowed_value:v1",
        &payload,
        components,
        &no_schemas,
    );
    assert!(matches!(error, Err(CoderError::Payload { .. })), "{error:?}");
}

#[test]
fn coders_that_would_fill_memory_or_stack_are_errors() {
    let none = Bytes::new();
    // Each is a pair of the one before, twice: a hundred lines of proto for more coders than there are atoms.
    let wide = (0..100).try_fold(Coder::VarInt, |coder, _| {
        Coder::from_parts("beam:coder:kv:v1", &none, vec![coder.clone(), coder], &no_schemas)
    });
    assert!(matches!(wide, Err(CoderError::TooLarge { .. })), "{wide:?}");
    let deep = |depth: usize| {
        (0..depth).try_fold(Coder::VarInt, |coder, _| {
            Coder::from_parts("user:coder", &none, vec![coder], &no_schemas)
        })
    };
    assert!(deep(50).is_ok());
    assert!(matches!(deep(100_000), Err(CoderError::TooLarge { .. })));
}

#[test]
fn coders_print_their_structure() {
    let coder = Coder::windowed_value(
        Coder::kv(Coder::Utf8, Coder::length_prefix(Coder::unknown("user:coder"))),
        WindowCoder::Interval,
    );
    assert_eq!(
        coder.to_string(),
        "windowed_value<kv<string_utf8, length_prefix<user:coder>>, interval_window>"
    );
}

#[test]
fn keys_and_values_are_slices() {
    let coder = Coder::kv(Coder::kv(Coder::Utf8, Coder::VarInt), Coder::Bytes);
    let (key, value) = coder.split_kv(b"\x02ab\x05xyz").unwrap();
    assert_eq!((key, value), (&b"\x02ab\x05"[..], &b"xyz"[..]));
    let error = Coder::Bytes.split_kv(b"ab").unwrap_err();
    assert_eq!(
        error,
        DecodeError::NotKv {
            coder: "beam:coder:bytes:v1".into()
        }
    );
}

#[test]
fn elements_of_a_state_backed_iterable_end_with_its_token() {
    let coder = Coder::StateBackedIterable(Box::new(Coder::Utf8));
    let mut data = b"\xff\xff\xff\xff\x02\x01a\x01b".to_vec();
    (-1i64).encode(&mut data, true);
    data.extend_from_slice(b"\x05tokenrest");
    let mut elements = coder.iterable_elements(&data).unwrap();
    assert_eq!(elements.state_token(), None);
    let found: Result<Vec<_>, _> = elements.by_ref().collect();
    assert_eq!(found, Ok(vec![&b"\x01a"[..], b"\x01b"]));
    assert_eq!(elements.state_token(), Some(&b"token"[..]));
    assert_eq!(elements.rest(), b"rest");
    let known = Vec::<String>::decode(&mut &data[..], true);
    assert_eq!(known, Err(DecodeError::StateBacked));
    assert!(
        Coder::Bytes.iterable_elements(b"\0\0\0\0").is_err(),
        "a byte string has no elements"
    );
}

#[test]
fn forged_counts_take_neither_memory_nor_time() {
    // Two billion elements announced, of a byte each or of none at all, and nothing there.
    let huge = b"\x7f\xff\xff\xff";
    let chunked = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f";
    for element in [Coder::VarInt, Coder::GlobalWindow, Coder::nullable(Coder::Double)] {
        for data in [&huge[..], &chunked[..]] {
            let coder = Coder::iterable(element.clone());
            assert!(coder.skip(&mut &data[..], true).is_err(), "{coder}");
            assert!(Value::decode(&coder, &mut &data[..], true).is_err(), "{coder}");
        }
    }
    assert!(Vec::<i64>::decode(&mut &huge[..], true).is_err());
    let mut element = Timestamp::MIN.to_bytes().to_vec();
    element.extend_from_slice(huge);
    element.push(0xf);
    let mut walker = Walker::new(&WindowCoder::Global, &Coder::GlobalWindow, &element);
    assert!(walker.next().is_some_and(|element| element.is_err()));
    assert_eq!(walker.next(), None, "nothing comes after an error");
}

#[test]
fn negative_lengths_are_errors() {
    let mut data = Vec::new();
    (-1i64).encode(&mut data, true);
    data.extend_from_slice(b"abc");
    for coder in [Coder::Bytes, Coder::Utf8, Coder::length_prefix(Coder::Bytes)] {
        let error = coder.skip(&mut &data[..], true).unwrap_err();
        assert!(
            matches!(error, DecodeError::OutOfRange { value: -1, .. }),
            "{error}"
        );
    }
    assert!(
        Coder::iterable(Coder::Bytes)
            .skip(&mut &b"\xff\xff\xff\xfe"[..], true)
            .is_err()
    );
}

#[test]
fn interval_windows_end_after_they_start() {
    let window = Window::Interval {
        start: Timestamp(10),
        end: Timestamp(20),
    };
    assert_eq!(window.max_timestamp(), Timestamp(19));
    assert_eq!(
        WindowCoder::Interval.decode(&mut &window.to_bytes()[..], true),
        Ok(window)
    );
    let backwards = Window::Interval {
        start: Timestamp(20),
        end: Timestamp(10),
    };
    let error = WindowCoder::Interval.decode(&mut &backwards.to_bytes()[..], true);
    assert!(
        matches!(error, Err(DecodeError::OutOfRange { value: -10, .. })),
        "{error:?}"
    );
    assert_eq!(Window::Global.max_timestamp(), Timestamp::END_OF_GLOBAL_WINDOW);
}

#[test]
fn the_null_bitmap_follows_encoding_positions_as_in_java() {
    let field = |name: &str, kind: FieldKind, position| Field {
        encoding_position: Some(position),
        ..Field::new(name, kind.nullable())
    };
    let fields = vec![field("a", FieldKind::String, 1), field("b", FieldKind::Int64, 0)];
    let coder = Coder::Row(Arc::new(Schema::new(fields).unwrap()));
    let row = Value::Row(vec![Value::String("x".into()), Value::Null]);
    let mut out = Vec::new();
    row.encode(&coder, &mut out, true).unwrap();
    // b stands first, so its bit is the lowest.
    assert_eq!(out, b"\x02\x01\x01\x01x");
    assert_eq!(Value::decode(&coder, &mut &out[..], true), Ok(row));
}

#[test]
fn rows_of_an_older_schema_have_nulls_for_what_they_lack() {
    let fields = vec![
        Field::new("a", FieldKind::Int64.required()),
        Field::new("b", FieldKind::String.nullable()),
    ];
    let coder = Coder::Row(Arc::new(Schema::new(fields).unwrap()));
    let mut input = &b"\x01\x00\x07next"[..];
    assert_eq!(
        Value::decode(&coder, &mut input, true),
        Ok(Value::Row(vec![Value::Int(7), Value::Null]))
    );
    assert_eq!(input, b"next");
    // The other way the end of the row is not known.
    assert!(coder.skip(&mut &b"\x03\x00\x07\x01ax"[..], true).is_err());
}

#[test]
fn positions_that_cannot_be_are_errors() {
    let field = |name: &str, encoding_position| Field {
        encoding_position,
        ..Field::new(name, FieldKind::Int64.required())
    };
    let error = Schema::new(vec![field("a", Some(0)), field("b", None)]).unwrap_err();
    assert_eq!(error, SchemaError::MissingPosition { field: "b".into() });
    let error = Schema::new(vec![field("a", Some(0)), field("b", Some(0))]).unwrap_err();
    assert!(
        matches!(error, SchemaError::BadPosition { position: 0, .. }),
        "{error}"
    );
    let error = Schema::new(vec![field("a", Some(1))]).unwrap_err();
    assert!(
        matches!(error, SchemaError::BadPosition { position: 1, .. }),
        "{error}"
    );
}

#[test]
fn values_of_another_kind_are_errors() {
    let mut out = Vec::new();
    let error = Value::Bool(true)
        .encode(&Coder::VarInt, &mut out, true)
        .unwrap_err();
    let coder = "varint".to_string();
    assert_eq!(
        error,
        EncodeError::Mismatch {
            coder,
            value: "a boolean"
        }
    );
    let schema = Schema::new(vec![Field::new("n", FieldKind::Int16.required())]).unwrap();
    let coder = Coder::Row(Arc::new(schema));
    let mut encode = |value| Value::Row(value).encode(&coder, &mut out, true);
    assert_eq!(
        encode(vec![Value::Null]),
        Err(EncodeError::NullField { field: "n".into() })
    );
    assert!(matches!(
        encode(vec![Value::Int(40_000)]),
        Err(EncodeError::OutOfRange { value: 40_000, .. })
    ));
    assert_eq!(
        encode(vec![]),
        Err(EncodeError::FieldCount { expected: 1, got: 0 })
    );
}

#[test]
fn integers_that_do_not_fit_are_errors() {
    let error = u8::from_bytes(&300i64.to_bytes()).unwrap_err();
    assert_eq!(
        error,
        DecodeError::OutOfRange {
            what: "an integer of type u8",
            value: 300
        }
    );
    assert!(i32::from_bytes(&i64::MAX.to_bytes()).is_err());
    assert!(u32::from_bytes(&(-1i64).to_bytes()).is_err());
    assert_eq!(
        i64::from_bytes(&[1, 2]),
        Err(DecodeError::TrailingBytes { count: 1 })
    );
}

#[test]
fn serde_types_name_themselves_in_errors() {
    let error = Serde::<Vec<String>>::from_bytes(b"\x02\x05a").unwrap_err();
    assert!(
        error.to_string().contains("Vec<alloc::string::String>"),
        "{error}"
    );
    let error = Serde::<u8>::from_bytes(b"\x02\x01\x01").unwrap_err();
    assert!(
        matches!(error, DecodeError::Serde { .. }),
        "bytes left over: {error}"
    );
}

#[test]
fn long_serde_values_have_long_prefixes() {
    for length in [0, 1, 126, 127, 128, 129, 20_000] {
        let value = Serde("x".repeat(length));
        assert_eq!(Serde::<String>::from_bytes(&value.to_bytes()), Ok(value));
    }
}
