//! Any coder, any bytes.

use bytes::Bytes;
use purlin_model::spec::no_schemas;
use purlin_model::{
    Coder, CoderError, CoderSpec, Field, FieldKind, FieldType, PaneInfo, Schema, TimerCoder, Value, Walker,
    WindowCoder, urns, walk,
};

use crate::input::Input;

const URNS: &[&str] = &[
    urns::BYTES,
    urns::STRING_UTF8,
    urns::VARINT,
    urns::BOOL,
    urns::DOUBLE,
    urns::KV,
    urns::ITERABLE,
    urns::STATE_BACKED_ITERABLE,
    urns::LENGTH_PREFIX,
    urns::NULLABLE,
    urns::SHARDED_KEY,
    urns::GLOBAL_WINDOW,
    urns::INTERVAL_WINDOW,
    urns::CUSTOM_WINDOW,
    urns::TIMER,
    urns::WINDOWED_VALUE,
    urns::PARAM_WINDOWED_VALUE,
    urns::ROW,
    "of:no:one:v1",
];

/// Makes a coder of the first bytes and reads the others with it. What could be read can be written, and reads the
/// same again. Returns how many times a value could be read.
///
/// # Panics
/// Where coders do.
pub fn coders(data: &[u8]) -> usize {
    let mut input = Input(data);
    let spec = spec(&mut input, 0);
    let schemas = |payload: &Bytes| schema(&mut Input(payload), 0).ok_or_else(|| CoderError::schema("none"));
    // As the runner does, which reads no rows, and as others might.
    let _ = Coder::from_spec(&spec, &no_schemas);
    let Ok(coder) = Coder::from_spec(&spec, &schemas) else {
        return 0;
    };
    let mut values = 0;
    let _ = (coder.to_string(), coder.min_size(), coder.knows_boundary());
    let wire = coder.clone().length_prefix_unknown();
    for coder in [&coder, &wire] {
        for nested in [true, false] {
            values += usize::from(read(coder, input.0, nested));
        }
        structure(coder, input.0);
    }
    values
}

fn read(coder: &Coder, data: &[u8], nested: bool) -> bool {
    let mut rest = data;
    let skipped = coder.skip(&mut rest, nested).is_ok();
    let end = data.len() - rest.len();
    let mut input = data;
    let Ok(value) = Value::decode(coder, &mut input, nested) else {
        return false;
    };
    if skipped {
        assert_eq!(
            end,
            data.len() - input.len(),
            "{coder}: skip and decode end at different places"
        );
    }
    let mut written = Vec::new();
    if value.encode(coder, &mut written, nested).is_err() {
        return true;
    }
    let again = Value::decode(coder, &mut &written[..], nested);
    // Not compared as values: a double may be no number, which equals nothing.
    let again = again.map(|again| format!("{again:?}"));
    assert_eq!(
        again,
        Ok(format!("{value:?}")),
        "{coder}: what was written reads otherwise"
    );
    true
}

fn structure(coder: &Coder, data: &[u8]) {
    let _ = coder.split_kv(data);
    if let Ok(mut elements) = coder.iterable_elements(data) {
        let _ = elements.by_ref().filter(Result::is_ok).count();
        let _ = (elements.state_token(), elements.rest());
    }
    let window = WindowCoder::from_coder(coder.clone());
    let _ = window.decode(&mut { data }, true);
    let _ = window.decode_windows(&mut { data });
    let _ = PaneInfo::decode(&mut { data });
    let values = Walker::new(&WindowCoder::Global, coder, data);
    let walked = values
        .map(|element| element.map(|e| e.end))
        .collect::<Result<Vec<_>, _>>();
    let counted = walk::count_elements(&WindowCoder::Global, coder, data);
    if let (Ok(walked), Ok(counted)) = (walked, counted) {
        assert_eq!(walked.len(), counted, "{coder}");
    }
    let timers = TimerCoder {
        key: coder.clone(),
        window,
    };
    for timer in timers.decode_all(data) {
        let Ok(timer) = timer else { break };
        timer.encode(&mut Vec::new());
    }
}

fn spec(input: &mut Input<'_>, depth: usize) -> CoderSpec {
    let urn = input.pick(URNS).copied().unwrap_or(urns::BYTES);
    let wanted = match urn {
        urns::KV | urns::TIMER | urns::WINDOWED_VALUE | urns::PARAM_WINDOWED_VALUE => 2,
        urns::ITERABLE
        | urns::STATE_BACKED_ITERABLE
        | urns::LENGTH_PREFIX
        | urns::NULLABLE
        | urns::SHARDED_KEY
        | urns::CUSTOM_WINDOW => 1,
        _ => 0,
    };
    // Mostly the right number.
    let count = match input.byte() {
        0..=7 => input.below(4),
        _ => wanted,
    };
    let count = if depth > 5 { 0 } else { count };
    let payload = match urn {
        urns::ROW | urns::PARAM_WINDOWED_VALUE => input.bytes(24),
        _ => Bytes::new(),
    };
    CoderSpec {
        urn: urn.into(),
        payload,
        components: (0..count).map(|_| spec(input, depth + 1)).collect(),
    }
}

fn schema(input: &mut Input<'_>, depth: usize) -> Option<Schema> {
    let fields = (0..input.below(4)).map(|number| Field::new(format!("f{number}"), field_type(input, depth)));
    Schema::new(fields.collect()).ok()
}

fn field_type(input: &mut Input<'_>, depth: usize) -> FieldType {
    let kind = match input.below(if depth > 2 { 9 } else { 13 }) {
        0 => FieldKind::Byte,
        1 => FieldKind::Int16,
        2 => FieldKind::Int32,
        3 => FieldKind::Int64,
        4 => FieldKind::Float,
        5 => FieldKind::Double,
        6 => FieldKind::String,
        7 => FieldKind::Boolean,
        8 => FieldKind::Bytes,
        9 => FieldKind::Array(Box::new(field_type(input, depth + 1))),
        10 => FieldKind::Iterable(Box::new(field_type(input, depth + 1))),
        11 => FieldKind::Map(
            Box::new(field_type(input, depth + 1)),
            Box::new(field_type(input, depth + 1)),
        ),
        _ => match schema(input, depth + 1) {
            Some(schema) => FieldKind::Row(schema.into()),
            None => FieldKind::Bytes,
        },
    };
    if input.yes() {
        kind.nullable()
    } else {
        kind.required()
    }
}
