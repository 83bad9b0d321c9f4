//! Values of fields, and their types.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use crate::error::{EvaluateError, ParseError};
use crate::xml::Element;

/// A value of a field.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// There is none.
    #[default]
    Missing,
    /// A whole number.
    Integer(i64),
    /// Any number. As a value of a row, NaN is a missing one.
    Double(f64),
    /// Yes or no.
    Boolean(bool),
    /// A text: a category, mostly.
    Text(Arc<str>),
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Double(number)
    }
}

impl From<f32> for Value {
    fn from(number: f32) -> Value {
        Value::Double(number.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Integer(number)
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Value {
        Value::Integer(number.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Boolean(value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text.into())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Missing, Into::into)
    }
}

/// Nothing of a missing value.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Missing => Ok(()),
            Value::Integer(number) => write!(f, "{number}"),
            Value::Double(number) if number.is_infinite() => {
                f.write_str(if *number > 0.0 { "Infinity" } else { "-Infinity" })
            }
            Value::Double(number) => write!(f, "{number:?}"),
            Value::Boolean(value) => write!(f, "{value}"),
            Value::Text(text) => f.write_str(text),
        }
    }
}

impl Value {
    /// Whether there is no value.
    pub fn is_missing(&self) -> bool {
        matches!(self, Value::Missing)
    }

    /// The number, of a number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Integer(number) => Some(*number as f64),
            Value::Double(number) => Some(*number),
            _ => None,
        }
    }

    /// The text, of a text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether two values are equal: numbers by their value, whichever kind they are.
    pub(crate) fn same(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Text(left), Value::Text(right)) => left == right,
            (Value::Boolean(left), Value::Boolean(right)) => left == right,
            (Value::Integer(left), Value::Integer(right)) => left == right,
            _ => match (self.as_f64(), other.as_f64()) {
                (Some(left), Some(right)) => left == right,
                _ => false,
            },
        }
    }

    /// Which of two values is less, where that can be told.
    pub(crate) fn order(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
            (Value::Boolean(left), Value::Boolean(right)) => Some(left.cmp(right)),
            (Value::Integer(left), Value::Integer(right)) => Some(left.cmp(right)),
            _ => self.as_f64()?.partial_cmp(&other.as_f64()?),
        }
    }
}

/// What values a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    Text,
    Integer,
    /// Numbers in single precision.
    Float,
    Double,
    Boolean,
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DataType::Text => "string",
            DataType::Integer => "integer",
            DataType::Float => "float",
            DataType::Double => "double",
            DataType::Boolean => "boolean",
        })
    }
}

const DATA_TYPES: &[(&str, DataType)] = &[
    ("string", DataType::Text),
    ("integer", DataType::Integer),
    ("float", DataType::Float),
    ("double", DataType::Double),
    ("boolean", DataType::Boolean),
];

impl DataType {
    /// The attribute `dataType`.
    pub fn of(element: Element<'_>) -> Result<Option<DataType>, ParseError> {
        element.one_of("dataType", DATA_TYPES)
    }

    /// A text as a value of the type.
    pub fn parse(self, text: &str) -> Option<Value> {
        let trimmed = text.trim();
        match self {
            DataType::Text => Some(text.into()),
            DataType::Integer => match trimmed.parse() {
                Ok(number) => Some(Value::Integer(number)),
                Err(_) => integer(number(trimmed)?),
            },
            DataType::Float => Some(Value::Double(single(number(trimmed)?))),
            DataType::Double => number(trimmed).map(Value::Double),
            DataType::Boolean => match trimmed {
                "true" | "TRUE" | "True" => Some(Value::Boolean(true)),
                "false" | "FALSE" | "False" => Some(Value::Boolean(false)),
                text => match number(text)? {
                    1.0 => Some(Value::Boolean(true)),
                    0.0 => Some(Value::Boolean(false)),
                    _ => None,
                },
            },
        }
    }

    /// A value as one of the type. A missing one stays so.
    pub fn cast(self, value: &Value) -> Option<Value> {
        match (self, value) {
            (_, Value::Missing) => Some(Value::Missing),
            (DataType::Text, Value::Text(_))
            | (DataType::Integer, Value::Integer(_))
            | (DataType::Double, Value::Double(_))
            | (DataType::Boolean, Value::Boolean(_)) => Some(value.clone()),
            (DataType::Text, value) => Some(value.to_string().into()),
            (_, Value::Text(text)) => self.parse(text),
            (DataType::Integer, Value::Boolean(value)) => Some(Value::Integer((*value).into())),
            (DataType::Integer, Value::Double(number)) => integer(*number),
            (DataType::Double | DataType::Float, Value::Boolean(value)) => {
                Some(Value::Double(f64::from(u8::from(*value))))
            }
            (DataType::Double, Value::Integer(number)) => Some(Value::Double(*number as f64)),
            (DataType::Float, number) => number.as_f64().map(|number| Value::Double(single(number))),
            (DataType::Boolean, number) => match number.as_f64()? {
                1.0 => Some(Value::Boolean(true)),
                0.0 => Some(Value::Boolean(false)),
                _ => None,
            },
        }
    }

    /// As [`DataType::cast`], with the error of a value of another type.
    pub fn need(self, value: &Value, field: &str) -> Result<Value, EvaluateError> {
        self.cast(value).ok_or_else(|| EvaluateError::Type {
            found: crate::error::begin(&value.to_string()),
            expected: self.to_string(),
            field: field.to_owned(),
        })
    }

    /// A text of the document as a value of the type.
    pub fn read(self, element: Element<'_>, what: &str, text: &str) -> Result<Value, ParseError> {
        self.parse(text)
            .ok_or_else(|| element.value(what, text, format!("a value of the type {self}")))
    }
}

/// A number in single precision.
pub fn single(number: f64) -> f64 {
    f64::from(number as f32)
}

/// A text as a number, which NaN is not.
fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| !number.is_nan())
}

fn integer(number: f64) -> Option<Value> {
    let whole = number as i64;
    (whole as f64 == number).then_some(Value::Integer(whole))
}

/// A text without a type: a number if it is one.
pub fn guess(text: &str) -> Value {
    match text.parse() {
        Ok(number) => Value::Integer(number),
        Err(_) => number(text).map_or_else(|| text.into(), Value::Double),
    }
}

/// How values of a field are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpType {
    Categorical,
    Ordinal,
    Continuous,
}

impl OpType {
    /// The attribute `optype`.
    pub fn of(element: Element<'_>) -> Result<Option<OpType>, ParseError> {
        let words = [
            ("categorical", OpType::Categorical),
            ("ordinal", OpType::Ordinal),
            ("continuous", OpType::Continuous),
        ];
        element.one_of("optype", &words)
    }
}

/// What is known of a field.
#[derive(Debug, Clone)]
pub struct FieldType {
    pub data: DataType,
    pub op: OpType,
    /// The valid values, in their order, where the document lists them.
    pub values: Arc<[Value]>,
}

impl FieldType {
    pub fn new(data: DataType, op: OpType) -> FieldType {
        FieldType {
            data,
            op,
            values: Arc::new([]),
        }
    }
}
