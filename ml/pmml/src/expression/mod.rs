//! Expressions: how derived fields are made of others.

mod functions;
mod norm;
mod parse;

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::EvaluateError;
use crate::fields::Interval;
use crate::frame::{Frame, Slot};
use crate::value::{DataType, Value};
pub use functions::{Call, median, standard_normal_cdf};
pub use norm::Norm;
pub use parse::{KINDS, find, parse};

/// An expression.
#[derive(Debug)]
pub enum Expression {
    Constant(Value),
    Field {
        slot: Slot,
        when_missing: Value,
    },
    /// An argument of the function around, as its type where it has one.
    Argument {
        number: usize,
        data: Option<DataType>,
        when_missing: Value,
    },
    Continuous {
        field: Box<Expression>,
        norm: Norm,
        when_missing: Value,
    },
    Discrete {
        field: Box<Expression>,
        value: Value,
        when_missing: Value,
    },
    Bins {
        field: Box<Expression>,
        bins: Vec<(Interval, Value)>,
        otherwise: Value,
        when_missing: Value,
    },
    Table {
        columns: Vec<Expression>,
        rows: HashMap<Vec<Key>, Value>,
        otherwise: Value,
        when_missing: Value,
    },
    /// A function that is built in.
    Apply {
        call: Call,
        arguments: Vec<Expression>,
        otherwise: Value,
        when_missing: Value,
    },
    /// A function that the document defines.
    Defined {
        function: usize,
        arguments: Vec<Expression>,
        otherwise: Value,
        when_missing: Value,
    },
    /// A value as one of a type.
    Cast {
        inside: Box<Expression>,
        data: DataType,
        name: Arc<str>,
    },
}

/// A value in a table: numbers are equal whichever kind they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    Number(u64),
    Boolean(bool),
    Text(Arc<str>),
}

impl Key {
    pub fn of(value: &Value) -> Option<Key> {
        match value {
            Value::Missing => None,
            Value::Boolean(value) => Some(Key::Boolean(*value)),
            Value::Text(text) => Some(Key::Text(Arc::clone(text))),
            // 0 and -0 are one key.
            number => number
                .as_f64()
                .map(|number| Key::Number((number + 0.0).to_bits())),
        }
    }
}

impl Expression {
    pub fn cast(inside: Expression, data: DataType, name: &str) -> Expression {
        Expression::Cast {
            inside: Box::new(inside),
            data,
            name: name.into(),
        }
    }

    pub fn evaluate(&self, frame: &mut Frame<'_>) -> Result<Value, EvaluateError> {
        match self {
            Expression::Constant(value) => Ok(value.clone()),
            Expression::Field { slot, when_missing } => Ok(or(frame.get(*slot)?, when_missing)),
            Expression::Argument {
                number,
                data,
                when_missing,
            } => {
                let value = &frame.arguments[frame.base + number];
                let value = match data {
                    Some(data) => data.need(value, "")?,
                    None => value.clone(),
                };
                Ok(or(value, when_missing))
            }
            Expression::Continuous {
                field,
                norm,
                when_missing,
            } => match number(&field.evaluate(frame)?)? {
                None => Ok(when_missing.clone()),
                Some(number) => Ok(norm.apply(number).into()),
            },
            Expression::Discrete {
                field,
                value,
                when_missing,
            } => match field.evaluate(frame)? {
                Value::Missing => Ok(when_missing.clone()),
                found => Ok(Value::Double(f64::from(u8::from(found.same(value))))),
            },
            Expression::Bins {
                field,
                bins,
                otherwise,
                when_missing,
            } => match number(&field.evaluate(frame)?)? {
                None => Ok(when_missing.clone()),
                Some(number) => {
                    let bin = bins.iter().find(|(interval, _)| interval.contains(number));
                    Ok(bin.map_or(otherwise, |(_, value)| value).clone())
                }
            },
            Expression::Table {
                columns,
                rows,
                otherwise,
                when_missing,
            } => {
                let mut keys = Vec::with_capacity(columns.len());
                for column in columns {
                    match Key::of(&column.evaluate(frame)?) {
                        Some(key) => keys.push(key),
                        None => return Ok(when_missing.clone()),
                    }
                }
                Ok(rows.get(&keys).unwrap_or(otherwise).clone())
            }
            Expression::Apply {
                call,
                arguments,
                otherwise,
                when_missing,
            } => match call.evaluate(arguments, frame) {
                Ok(None) => Ok(or(when_missing.clone(), otherwise)),
                Ok(Some(value)) => Ok(or(value, otherwise)),
                Err(failure) => call.failed(failure, otherwise),
            },
            Expression::Defined {
                function,
                arguments,
                otherwise,
                when_missing,
            } => {
                let first = frame.arguments.len();
                let mut missing = false;
                for argument in arguments {
                    let value = argument.evaluate(frame)?;
                    missing |= value.is_missing();
                    frame.arguments.push(value);
                }
                if missing && !when_missing.is_missing() {
                    frame.arguments.truncate(first);
                    return Ok(when_missing.clone());
                }
                let before = std::mem::replace(&mut frame.base, first);
                let value = frame.function(*function).evaluate(frame);
                frame.base = before;
                frame.arguments.truncate(first);
                Ok(or(value?, otherwise))
            }
            Expression::Cast { inside, data, name } => data.need(&inside.evaluate(frame)?, name),
        }
    }
}

fn or(value: Value, when_missing: &Value) -> Value {
    match value {
        Value::Missing => when_missing.clone(),
        value => value,
    }
}

/// A value as a number.
fn number(value: &Value) -> Result<Option<f64>, EvaluateError> {
    match value {
        Value::Missing => Ok(None),
        value => Ok(DataType::Double.need(value, "")?.as_f64()),
    }
}
