//! What one side writes the other reads, and no bytes make a reader panic.

use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::SizeRange;
use purlin_model::schema::{Field, FieldKind, FieldType, LogicalType, Schema};
use purlin_model::spec::no_schemas;
use purlin_model::window::{WindowCoder, Windows};
use purlin_model::{
    Coder, Element, Header, PaneInfo, Serde, Timer, TimerCoder, TimerFiring, Timestamp, Timing, Value,
    Walker, Window, walk, wire,
};
use serde::{Deserialize, Serialize};

fn timestamp() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        Just(Timestamp::MIN),
        Just(Timestamp::MAX),
        Just(Timestamp::END_OF_GLOBAL_WINDOW),
        (Timestamp::MIN.0..=Timestamp::MAX.0).prop_map(Timestamp),
        (-100_000i64..100_000).prop_map(Timestamp),
    ]
}

/// Panes as SDKs make them: what the one-part form leaves out has its only possible value.
fn pane() -> impl Strategy<Value = PaneInfo> {
    let firing = (any::<bool>(), any::<bool>(), 1i64..1 << 40, 0i64..1 << 40);
    let timing = prop_oneof![Just(Timing::Early), Just(Timing::OnTime), Just(Timing::Late)];
    let fired = (firing, timing).prop_map(|((is_first, is_last, index, nonspeculative), timing)| PaneInfo {
        is_first,
        is_last,
        timing,
        index: if is_first { 0 } else { index },
        nonspeculative_index: match timing {
            Timing::Early => -1,
            _ if is_first => 0,
            _ => nonspeculative.min(index),
        },
    });
    prop_oneof![Just(PaneInfo::NO_FIRING), Just(PaneInfo::ON_TIME_AND_ONLY), fired]
}

fn bytes(size: impl Into<SizeRange>) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), size).prop_map(Bytes::from)
}

fn window_coder() -> impl Strategy<Value = WindowCoder> {
    prop_oneof![
        Just(WindowCoder::Global),
        Just(WindowCoder::Interval),
        Just(WindowCoder::Custom(Box::new(Coder::Utf8))),
        Just(WindowCoder::Custom(Box::new(Coder::length_prefix(
            Coder::unknown("user:window")
        )))),
        Just(WindowCoder::Opaque(Box::new(Coder::length_prefix(
            Coder::unknown("user:window")
        )))),
    ]
}

fn length_prefixed(string: String) -> Bytes {
    let mut out = Vec::new();
    wire::write_bytes(string.as_bytes(), &mut out, true);
    out.into()
}

fn window(coder: &WindowCoder) -> BoxedStrategy<Window> {
    match coder {
        WindowCoder::Global => Just(Window::Global).boxed(),
        WindowCoder::Interval => (timestamp(), 0i64..1 << 41)
            .prop_map(|(end, span)| Window::Interval {
                start: Timestamp(end.0 - span),
                end,
            })
            .boxed(),
        WindowCoder::Custom(_) => (timestamp(), any::<String>())
            .prop_map(|(max_timestamp, string)| Window::Custom {
                max_timestamp,
                encoded: length_prefixed(string),
            })
            .boxed(),
        WindowCoder::Opaque(_) => any::<String>()
            .prop_map(|string| Window::Opaque {
                encoded: length_prefixed(string),
            })
            .boxed(),
    }
}

fn windows(coder: &WindowCoder) -> impl Strategy<Value = Windows> + use<> {
    vec(window(coder), 0..4).prop_map(Windows::from_iter)
}

fn header(coder: &WindowCoder) -> impl Strategy<Value = Header> + use<> {
    (timestamp(), windows(coder), pane()).prop_map(|(timestamp, windows, pane)| Header {
        timestamp,
        windows,
        pane,
    })
}

fn logical(urn: &str, representation: FieldType) -> FieldKind {
    FieldKind::Logical(Box::new(LogicalType {
        urn: urn.into(),
        payload: Bytes::new(),
        representation,
        argument: None,
    }))
}

fn field_type() -> impl Strategy<Value = FieldType> {
    let leaf = prop_oneof![
        Just(FieldKind::Byte),
        Just(FieldKind::Int16),
        Just(FieldKind::Int32),
        Just(FieldKind::Int64),
        Just(FieldKind::Float),
        Just(FieldKind::Double),
        Just(FieldKind::String),
        Just(FieldKind::Boolean),
        Just(FieldKind::Bytes),
        Just(logical(
            "beam:logical_type:millis_instant:v1",
            FieldKind::Int64.required()
        )),
        Just(logical(
            "beam:logical_type:decimal:v1",
            FieldKind::Bytes.required()
        )),
        Just(logical(
            "beam:logical_type:var_char:v1",
            FieldKind::String.required()
        )),
    ];
    let nullable = |kind| (any::<bool>(), kind).prop_map(|(nullable, kind)| FieldType { nullable, kind });
    nullable(leaf.boxed()).prop_recursive(3, 24, 4, move |inner| {
        let kind = prop_oneof![
            inner
                .clone()
                .prop_map(|element| FieldKind::Array(Box::new(element))),
            inner
                .clone()
                .prop_map(|element| FieldKind::Iterable(Box::new(element))),
            (inner.clone(), inner.clone()).prop_map(|(k, v)| FieldKind::Map(Box::new(k), Box::new(v))),
            schema(inner).prop_map(|schema| FieldKind::Row(Arc::new(schema))),
        ];
        nullable(kind.boxed())
    })
}

/// Schemas with and without encoding positions, of more fields than a byte of the null bitmap holds.
fn schema(field_type: impl Strategy<Value = FieldType> + 'static) -> impl Strategy<Value = Schema> {
    vec(field_type, 0..11).prop_flat_map(|types| {
        let positions: Vec<u32> = (0..types.len() as u32).collect();
        (Just(types), Just(positions).prop_shuffle(), any::<bool>()).prop_map(|(types, positions, set)| {
            let fields = types
                .into_iter()
                .zip(positions)
                .enumerate()
                .map(|(i, (field_type, position))| {
                    let encoding_position = set.then_some(position);
                    Field {
                        name: format!("f{i}"),
                        field_type,
                        encoding_position,
                    }
                });
            Schema::new(fields.collect()).expect("a permutation of positions")
        })
    })
}

fn field_value(field: &FieldType) -> BoxedStrategy<Value> {
    let present = match &field.kind {
        FieldKind::Byte => any::<i8>().prop_map(|v| Value::Int(v.into())).boxed(),
        FieldKind::Int16 => any::<i16>().prop_map(|v| Value::Int(v.into())).boxed(),
        FieldKind::Int32 => any::<i32>().prop_map(|v| Value::Int(v.into())).boxed(),
        FieldKind::Int64 => any::<i64>().prop_map(Value::Int).boxed(),
        FieldKind::Float => any::<f32>().prop_map(Value::Float).boxed(),
        FieldKind::Double => any::<f64>().prop_map(Value::Double).boxed(),
        FieldKind::String => any::<String>().prop_map(Value::String).boxed(),
        FieldKind::Boolean => any::<bool>().prop_map(Value::Bool).boxed(),
        FieldKind::Bytes => bytes(0..200).prop_map(Value::Bytes).boxed(),
        FieldKind::Array(element) | FieldKind::Iterable(element) => {
            vec(field_value(element), 0..4).prop_map(Value::Iterable).boxed()
        }
        FieldKind::Map(key, value) => vec((field_value(key), field_value(value)), 0..4)
            .prop_map(Value::Map)
            .boxed(),
        FieldKind::Row(schema) => row_value(schema),
        FieldKind::Logical(logical) => match logical.urn.as_str() {
            "beam:logical_type:millis_instant:v1" => timestamp().prop_map(Value::Timestamp).boxed(),
            "beam:logical_type:decimal:v1" => (any::<i64>(), bytes(1..10))
                .prop_map(|(scale, unscaled)| Value::Decimal { scale, unscaled })
                .boxed(),
            _ => field_value(&logical.representation),
        },
    };
    if field.nullable {
        prop_oneof![Just(Value::Null), present].boxed()
    } else {
        present
    }
}

fn row_value(schema: &Schema) -> BoxedStrategy<Value> {
    let fields: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| field_value(&field.field_type))
        .collect();
    fields.prop_map(Value::Row).boxed()
}

fn coder() -> impl Strategy<Value = Coder> {
    let leaf = prop_oneof![
        Just(Coder::Bytes),
        Just(Coder::Utf8),
        Just(Coder::Bool),
        Just(Coder::VarInt),
        Just(Coder::Double),
        Just(Coder::GlobalWindow),
        Just(Coder::IntervalWindow),
        Just(Coder::CustomWindow(Box::new(Coder::Utf8))),
        Just(Coder::length_prefix(Coder::unknown("user:coder"))),
        schema(field_type()).prop_map(|schema| Coder::Row(Arc::new(schema))),
    ];
    leaf.prop_recursive(3, 16, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(key, value)| Coder::kv(key, value)),
            inner.clone().prop_map(Coder::iterable),
            inner
                .clone()
                .prop_map(|element| Coder::StateBackedIterable(Box::new(element))),
            inner.clone().prop_map(Coder::length_prefix),
            inner.clone().prop_map(|key| Coder::ShardedKey(Box::new(key))),
            inner.clone().prop_map(Coder::nullable),
            (inner.clone(), window_coder()).prop_map(|(value, window)| Coder::windowed_value(value, window)),
            (inner, window_coder())
                .prop_map(|(key, window)| Coder::Timer(Box::new(TimerCoder { key, window }))),
        ]
    })
}

fn value(coder: &Coder) -> BoxedStrategy<Value> {
    match coder {
        Coder::Bytes | Coder::Unknown { .. } => bytes(0..200).prop_map(Value::Bytes).boxed(),
        Coder::Utf8 => any::<String>().prop_map(Value::String).boxed(),
        Coder::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Coder::VarInt => any::<i64>().prop_map(Value::Int).boxed(),
        Coder::Double => any::<f64>().prop_map(Value::Double).boxed(),
        Coder::Kv(kv) => (value(&kv.0), value(&kv.1))
            .prop_map(|kv| Value::Kv(Box::new(kv)))
            .boxed(),
        Coder::Iterable(element) => vec(value(element), 0..4).prop_map(Value::Iterable).boxed(),
        Coder::StateBackedIterable(element) => {
            let backed = (vec(value(element), 0..4), bytes(0..9));
            prop_oneof![
                vec(value(element), 0..4).prop_map(Value::Iterable),
                backed.prop_map(|(prefix, token)| Value::StateBacked { prefix, token }),
            ]
            .boxed()
        }
        Coder::LengthPrefix(inner) => value(inner),
        // A nullable of a nullable cannot tell its two nulls apart as a `Value`.
        Coder::Nullable(inner) => {
            let inner = value(inner).prop_filter("null is the outer one", |inner| *inner != Value::Null);
            prop_oneof![Just(Value::Null), inner].boxed()
        }
        Coder::Row(schema) => row_value(schema),
        Coder::ShardedKey(key) => (bytes(0..9), value(key))
            .prop_map(|(shard_id, key)| Value::ShardedKey {
                shard_id,
                key: Box::new(key),
            })
            .boxed(),
        Coder::Timer(coder) => {
            let key = coder.key.clone();
            let firing = (timestamp(), timestamp(), pane()).prop_map(|(fire, hold, pane)| TimerFiring {
                fire_timestamp: fire,
                hold_timestamp: hold,
                pane,
            });
            (
                value(&coder.key),
                any::<String>(),
                windows(&coder.window),
                proptest::option::of(firing),
            )
                .prop_map(move |(user_key, dynamic_tag, windows, firing)| {
                    let user_key = encoded(&key, &user_key, true).into();
                    Value::Timer(Box::new(Timer {
                        user_key,
                        dynamic_tag,
                        windows,
                        firing,
                    }))
                })
                .boxed()
        }
        Coder::GlobalWindow | Coder::IntervalWindow | Coder::CustomWindow(_) => {
            window(&WindowCoder::from_coder(coder.clone()))
                .prop_map(Value::Window)
                .boxed()
        }
        Coder::WindowedValue(coder) => (header(&coder.window), value(&coder.value))
            .prop_map(|windowed| Value::Windowed(Box::new(windowed)))
            .boxed(),
        Coder::ParamWindowedValue(coder) => (Just(coder.header().clone()), value(&coder.value))
            .prop_map(|windowed| Value::Windowed(Box::new(windowed)))
            .boxed(),
    }
}

fn coder_and_value() -> impl Strategy<Value = (Coder, Value)> {
    coder().prop_flat_map(|coder| {
        let value = value(&coder);
        (Just(coder), value)
    })
}

fn encoded(coder: &Coder, value: &Value, nested: bool) -> Vec<u8> {
    let mut out = Vec::new();
    value
        .encode(coder, &mut out, nested)
        .expect("a value of the coder");
    out
}

proptest! {
    #[test]
    fn values_come_back_and_skip_takes_what_encode_wrote((coder, value) in coder_and_value()) {
        let outer = encoded(&coder, &value, false);
        let mut input = &outer[..];
        prop_assert_eq!(&Value::decode(&coder, &mut input, false).unwrap(), &value);
        prop_assert!(input.is_empty());
        let mut input = &outer[..];
        prop_assert_eq!(coder.skip(&mut input, false), Ok(()));
        prop_assert!(input.is_empty());

        // Nested, with something behind that must stay.
        let mut nested = encoded(&coder, &value, true);
        prop_assert!(nested.len() >= coder.min_size(), "{} < {}", nested.len(), coder.min_size());
        nested.extend_from_slice(b"\xffbehind");
        let mut input = &nested[..];
        prop_assert_eq!(&Value::decode(&coder, &mut input, true).unwrap(), &value);
        prop_assert_eq!(input, b"\xffbehind");
        let mut input = &nested[..];
        prop_assert_eq!(coder.skip(&mut input, true), Ok(()));
        prop_assert_eq!(input, b"\xffbehind");
        prop_assert!(coder.knows_boundary());
    }

    #[test]
    fn the_walker_finds_each_element(
        (coder, window, elements) in (coder(), window_coder()).prop_flat_map(|(coder, window)| {
            let elements = vec((header(&window), value(&coder)), 0..5);
            (Just(coder), Just(window), elements)
        }),
    ) {
        let mut data = Vec::new();
        let mut expected = Vec::new();
        for (header, value) in &elements {
            let start = data.len();
            header.encode(&mut data);
            let value_start = data.len();
            value.encode(&coder, &mut data, true).unwrap();
            expected.push((header.clone(), start, value_start, data.len()));
        }
        let found: Result<Vec<_>, _> = Walker::new(&window, &coder, &data)
            .map(|element| element.map(|e| {
                (Header { timestamp: e.timestamp, windows: e.windows, pane: e.pane }, e.start, e.value_start, e.end)
            }))
            .collect();
        prop_assert_eq!(found, Ok(expected));
        prop_assert_eq!(walk::count_elements(&window, &coder, &data), Ok(elements.len()));
    }

    #[test]
    fn no_bytes_make_a_reader_panic(coder in coder(), data in vec(any::<u8>(), 0..60), nested: bool) {
        let mut skipped = &data[..];
        let skip = coder.skip(&mut skipped, nested);
        let mut decoded = &data[..];
        // Decoding checks more than skipping, and where both work they agree on the end.
        if Value::decode(&coder, &mut decoded, nested).is_ok() {
            prop_assert_eq!(skip, Ok(()));
            prop_assert_eq!(decoded, skipped);
        }
        let _ = coder.split_kv(&data);
        if let Ok(elements) = coder.iterable_elements(&data) {
            elements.for_each(drop);
        }
        for window in [WindowCoder::Global, WindowCoder::Interval, WindowCoder::Opaque(Box::new(coder.clone()))] {
            Walker::new(&window, &coder, &data).for_each(drop);
            let timers = TimerCoder { key: coder.clone(), window };
            timers.decode_all(&data).for_each(drop);
        }
    }

    #[test]
    fn small_counts_and_lengths_make_no_reader_panic(
        coder in coder(),
        data in vec(prop_oneof![Just(0u8), Just(1), Just(2), Just(255), any::<u8>()], 0..60),
    ) {
        let mut skipped = &data[..];
        let skip = coder.skip(&mut skipped, true);
        let mut decoded = &data[..];
        if Value::decode(&coder, &mut decoded, true).is_ok() {
            prop_assert_eq!(skip, Ok(()));
            prop_assert_eq!(decoded, skipped);
        }
        Walker::new(&WindowCoder::Global, &coder, &data).for_each(drop);
    }

    #[test]
    fn panes_come_back(pane in pane()) {
        let mut out = Vec::new();
        pane.encode(&mut out);
        let mut input = &out[..];
        prop_assert_eq!(PaneInfo::decode(&mut input), Ok(pane));
        prop_assert!(input.is_empty());
        let mut input = &out[..];
        prop_assert_eq!(PaneInfo::skip(&mut input), Ok(()));
        prop_assert!(input.is_empty());
    }

    #[test]
    fn bytes_of_timestamps_sort_as_time_does(a in any::<i64>(), b in any::<i64>()) {
        let (a, b) = (Timestamp(a), Timestamp(b));
        prop_assert_eq!(a.to_bytes().cmp(&b.to_bytes()), a.cmp(&b));
        prop_assert_eq!(Timestamp::from_bytes(a.to_bytes()), a);
    }

    #[test]
    fn timestamps_stay_in_range(at in timestamp(), millis: i64) {
        let moved = at.plus_millis(millis);
        prop_assert!((Timestamp::MIN..=Timestamp::MAX).contains(&moved));
    }

    #[test]
    fn varints_come_back(value: u64) {
        let mut out = Vec::new();
        wire::write_varint(value, &mut out);
        let bits = 64 - (value | 1).leading_zeros();
        prop_assert_eq!(out.len(), bits.div_ceil(7) as usize);
        prop_assert_eq!(wire::read_varint(&mut &out[..]), Ok(value));
        prop_assert!(wire::read_varint(&mut &out[..out.len() - 1]).is_err());
    }

    #[test]
    fn chunked_iterables_read_as_known_ones(chunks in vec(vec(any::<i64>(), 1..5), 0..5)) {
        let mut data = (-1i32).to_be_bytes().to_vec();
        for chunk in &chunks {
            wire::write_varint(chunk.len() as u64, &mut data);
            chunk.iter().for_each(|value| value.encode(&mut data, true));
        }
        data.push(0);
        let expected: Vec<i64> = chunks.concat();
        prop_assert_eq!(Vec::<i64>::from_bytes(&data), Ok(expected.clone()));
        let coder = Coder::iterable(Coder::VarInt);
        let mut elements = coder.iterable_elements(&data).unwrap();
        let found: Result<Vec<i64>, _> = elements.by_ref().map(|e| e.and_then(i64::from_bytes)).collect();
        prop_assert_eq!(found, Ok(expected));
        prop_assert!(elements.rest().is_empty());
    }
}

/// The type's coder finds the end of what the type writes, and the type reads it back.
fn check_element<T: Element + PartialEq + std::fmt::Debug>(value: &T) -> Result<(), TestCaseError> {
    let coder = Coder::from_spec(&T::coder(), &no_schemas).expect("a coder of standard parts");
    prop_assert!(coder.knows_boundary(), "{} is known to every runner", coder);
    prop_assert_eq!(coder.length_prefix_unknown(), coder.clone());
    for nested in [false, true] {
        let mut out = Vec::new();
        value.encode(&mut out, nested);
        let behind: &[u8] = if nested { b"\xffbehind" } else { b"" };
        let length = out.len();
        out.extend_from_slice(behind);

        let mut input = &out[..];
        prop_assert_eq!(&T::decode(&mut input, nested).unwrap(), value);
        prop_assert_eq!(input, behind);
        let mut input = &out[..];
        prop_assert_eq!(coder.skip(&mut input, nested), Ok(()));
        prop_assert_eq!(input, behind);

        // The dynamic view reads and writes the same bytes.
        let dynamic = Value::decode(&coder, &mut &out[..], nested).expect("a value of the coder");
        prop_assert_eq!(encoded(&coder, &dynamic, nested), &out[..length]);
    }
    prop_assert_eq!(
        &T::from_bytes(&value.to_bytes()),
        &Ok(T::from_bytes(&value.to_bytes()).unwrap())
    );
    Ok(())
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Shop {
    name: String,
    prices: Vec<(u32, f32)>,
    kind: Kind,
    parent: Option<Box<Shop>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Market,
    Kiosk { open: bool },
}

fn shop() -> impl Strategy<Value = Shop> {
    let kind = prop_oneof![
        Just(Kind::Market),
        any::<bool>().prop_map(|open| Kind::Kiosk { open })
    ];
    let prices = vec((any::<u32>(), -1e6f32..1e6), 0..40);
    let leaf = (any::<String>(), prices, kind);
    (leaf.clone(), proptest::option::of(leaf)).prop_map(|((name, prices, kind), parent)| Shop {
        name,
        prices,
        kind,
        parent: parent.map(|(name, prices, kind)| {
            Box::new(Shop {
                name,
                prices,
                kind,
                parent: None,
            })
        }),
    })
}

proptest! {
    #[test]
    fn integers(a: (i8, i16, i32, i64, isize), b: (u8, u16, u32, u64, usize)) {
        check_element(&a)?;
        check_element(&b)?;
    }

    #[test]
    fn atoms(string: String, flag: bool, double: f64, float: f32, at in timestamp(), raw: Vec<u8>) {
        check_element(&())?;
        check_element(&string)?;
        check_element(&Arc::<str>::from(string.as_str()))?;
        check_element(&Bytes::from(raw.clone()))?;
        check_element(&raw)?;
        check_element(&flag)?;
        check_element(&double)?;
        check_element(&float)?;
        check_element(&at)?;
    }

    #[test]
    fn composites(
        pair: (String, i64),
        grouped: (String, Vec<(Vec<u8>, Option<bool>)>),
        triple: (String, Option<f64>, Vec<u8>),
        eight: (u8, bool, String, i32, (i64, String), Option<Vec<String>>, u16, String),
    ) {
        check_element(&pair)?;
        check_element(&Box::new(pair))?;
        check_element(&grouped)?;
        check_element(&triple)?;
        check_element(&eight)?;
    }

    #[test]
    fn serde_types(shop in shop(), key: String) {
        check_element(&Serde(shop.clone()))?;
        check_element(&(key, vec![Serde(shop)]))?;
    }

    #[test]
    fn no_bytes_make_an_element_panic(data in vec(any::<u8>(), 0..60), nested: bool) {
        type Everything = (String, Vec<i32>, Option<f32>, Vec<u8>, Serde<Shop>, bool, u16, Timestamp);
        let _ = Everything::decode(&mut &data[..], nested);
        let _ = Serde::<Shop>::decode(&mut &data[..], nested);
        let _ = Vec::<Serde<Shop>>::decode(&mut &data[..], nested);
        let _ = Vec::<String>::decode(&mut &data[..], nested);
    }
}
