//! Rows as values of no particular type, for formats with schemas of their own.

use std::sync::Arc;

use purlin_model::schema::FieldKind;
use purlin_model::{Coder, Value};

use crate::error::BoxError;
use crate::schema::{RowSchema, Schema};

/// The values of the fields of a row, in the order of the schema.
pub(super) fn to_values<T: Schema>(coder: &Coder, row: &T) -> Result<Vec<Value>, BoxError> {
    let bytes = row.to_row();
    match Value::decode(coder, &mut &bytes[..], false)? {
        Value::Row(values) => Ok(values),
        other => Err(format!("a row was expected, not {}", other.kind()).into()),
    }
}

/// The row of such values.
pub(super) fn from_values<T: Schema>(coder: &Coder, values: Vec<Value>) -> Result<T, BoxError> {
    let mut bytes = Vec::new();
    Value::Row(values).encode(coder, &mut bytes, false)?;
    Ok(T::from_row(&bytes)?)
}

pub(super) fn coder(schema: &Arc<RowSchema>) -> Coder {
    Coder::Row(schema.clone())
}

/// What formats make of a field's type: logical types that they know, and the representation of others.
pub(super) enum Form<'a> {
    Plain(&'a FieldKind),
    MillisInstant,
    MicrosInstant,
    Date,
    Decimal,
    /// Byte strings of one length.
    Fixed(usize),
}

pub(super) fn form(kind: &FieldKind) -> Form<'_> {
    let FieldKind::Logical(logical) = kind else {
        return Form::Plain(kind);
    };
    match &logical.urn[..] {
        "beam:logical_type:millis_instant:v1" => Form::MillisInstant,
        "beam:logical_type:micros_instant:v1" => Form::MicrosInstant,
        "beam:logical_type:date:v1" => Form::Date,
        "beam:logical_type:decimal:v1" => Form::Decimal,
        crate::schema::FIXED_BYTES => match logical.argument.as_ref().and_then(|a| length(&a.value)) {
            Some(length) => Form::Fixed(length),
            None => form(&logical.representation.kind),
        },
        _ => form(&logical.representation.kind),
    }
}

fn length(value: &bytes::Bytes) -> Option<usize> {
    use purlin_proto::pipeline::{FieldValue, atomic_type_value::Value, field_value};
    let value: FieldValue = prost::Message::decode(value.clone()).ok()?;
    match value.field_value? {
        field_value::FieldValue::AtomicValue(atomic) => match atomic.value? {
            Value::Int32(length) => usize::try_from(length).ok(),
            _ => None,
        },
        _ => None,
    }
}

const MICROS: i64 = 1_000_000;

/// Microseconds of a micros_instant's row.
pub(super) fn micros(value: &Value) -> Option<i64> {
    match value {
        Value::Row(parts) => match parts[..] {
            [Value::Int(seconds), Value::Int(micros)] => seconds.checked_mul(MICROS)?.checked_add(micros),
            _ => None,
        },
        _ => None,
    }
}

/// A micros_instant's row of microseconds.
pub(super) fn of_micros(micros: i64) -> Value {
    Value::Row(vec![
        Value::Int(micros.div_euclid(MICROS)),
        Value::Int(micros.rem_euclid(MICROS)),
    ])
}

/// Decimals have one precision and scale in files: 38 digits, 9 of them behind the point.
pub(super) const PRECISION: usize = 38;
/// See [`PRECISION`].
pub(super) const SCALE: u32 = 9;

/// The unscaled value of a decimal at the scale of files.
pub(super) fn decimal(scale: i64, unscaled: &[u8]) -> Result<i128, BoxError> {
    let too_exact = || {
        format!(
            "a decimal has more than {SCALE} digits behind the point, or {PRECISION} in all: round it first"
        )
    };
    if unscaled.len() > 16 {
        return Err(too_exact().into());
    }
    let mut value = of_bytes(unscaled);
    let mut scale = scale;
    while scale > i64::from(SCALE) && value % 10 == 0 && value != 0 {
        value /= 10;
        scale -= 1;
    }
    if value == 0 {
        return Ok(0);
    }
    let up = u32::try_from(i64::from(SCALE) - scale).map_err(|_| too_exact())?;
    let value = 10i128
        .checked_pow(up)
        .and_then(|factor| value.checked_mul(factor))
        .ok_or_else(too_exact)?;
    if value.unsigned_abs() >= 10u128.pow(PRECISION as u32) {
        return Err(too_exact().into());
    }
    Ok(value)
}

/// Two's complement, big endian, of up to 16 bytes.
pub(super) fn of_bytes(bytes: &[u8]) -> i128 {
    let sign = if bytes.first().is_some_and(|byte| *byte >= 0x80) {
        0xff
    } else {
        0
    };
    let mut all = [sign; 16];
    let rest = &bytes[bytes.len().saturating_sub(16)..];
    all[16 - rest.len()..].copy_from_slice(rest);
    i128::from_be_bytes(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_have_one_scale() {
        let of = |unscaled: i128, scale| decimal(scale, &unscaled.to_be_bytes()).ok();
        assert_eq!(of(1250, 2), Some(12_500_000_000));
        assert_eq!(of(-5, -2), Some(-500_000_000_000));
        assert_eq!(of(10, 10), Some(1));
        assert_eq!(of(1, 10), None);
        assert_eq!(of(0, 1000), Some(0));
        assert_eq!(of(i128::MAX, 0), None);
    }
}
