//! What goes into a model and what comes out: rows and predictions.

use std::fmt;
use std::sync::Arc;

use purlin::Element;
use purlin::coders::{CoderSpec, DecodeError};

use crate::value::Value;

/// A row: values by the names of their fields.
///
/// ```
/// use purlin_pmml::{Record, Value};
///
/// let wine = Record::new().with("alcohol", 12.9).with("colour", "red").with("sugar", Value::Missing);
/// assert_eq!(wine.get("colour"), Some(&Value::from("red")));
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    fields: Vec<(Arc<str>, Value)>,
}

impl Record {
    /// A row without fields.
    pub fn new() -> Record {
        Record::default()
    }

    /// With a value of a field.
    #[must_use]
    pub fn with(mut self, name: impl Into<Arc<str>>, value: impl Into<Value>) -> Record {
        self.set(name, value);
        self
    }

    /// Gives a field a value.
    pub fn set(&mut self, name: impl Into<Arc<str>>, value: impl Into<Value>) {
        let (name, value) = (name.into(), value.into());
        match self.fields.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.fields.push((name, value)),
        }
    }

    /// The value of a field. None when the row does not have it.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.find(name, 0).map(|(_, value)| value)
    }

    /// A field with its place, which is looked for from a place on first.
    pub(crate) fn find(&self, name: &str, from: usize) -> Option<(usize, &Value)> {
        let from = from.min(self.fields.len());
        let mut places = (from..self.fields.len()).chain(0..from);
        let place = places.find(|place| *self.fields[*place].0 == *name)?;
        Some((place, &self.fields[place].1))
    }

    /// The fields in the order in which they were added.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.fields.iter().map(|(name, value)| (&**name, value))
    }
}

impl<N: Into<Arc<str>>> FromIterator<(N, Value)> for Record {
    fn from_iter<I: IntoIterator<Item = (N, Value)>>(fields: I) -> Record {
        let mut record = Record::default();
        for (name, value) in fields {
            record.set(name, value);
        }
        record
    }
}

/// What a model gives for a row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Prediction {
    /// The predicted number or class; missing where the model has none for the row.
    pub value: Value,
    /// The probability of each class, in the order of [`Model::classes`](crate::Model::classes); empty where the model has none.
    pub probabilities: Vec<(Value, f64)>,
    /// The values of the model's output fields, in the order of the document.
    pub outputs: Vec<(Arc<str>, Value)>,
}

impl Prediction {
    /// The probability of a class. None where the model has none.
    pub fn probability(&self, class: impl Into<Value>) -> Option<f64> {
        let class = class.into();
        let mut classes = self.probabilities.iter();
        classes
            .find(|(known, _)| known.same(&class))
            .map(|(_, probability)| *probability)
    }

    /// The value of an output field. None where the model has no such field.
    pub fn output(&self, name: &str) -> Option<&Value> {
        let mut outputs = self.outputs.iter();
        outputs
            .find(|(known, _)| **known == *name)
            .map(|(_, value)| value)
    }
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// Travels as bytes: the kind of the value, then the value.
impl Element for Value {
    fn coder() -> CoderSpec {
        Vec::<u8>::coder()
    }

    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        let mut bytes = Vec::new();
        match self {
            Value::Missing => {}
            Value::Integer(number) => {
                bytes.push(1);
                bytes.extend(number.to_be_bytes());
            }
            Value::Double(number) => {
                bytes.push(2);
                bytes.extend(number.to_be_bytes());
            }
            Value::Boolean(value) => bytes.extend([3, (*value).into()]),
            Value::Text(text) => {
                bytes.push(4);
                bytes.extend(text.as_bytes());
            }
        }
        bytes.encode(out, nested);
    }

    fn decode(input: &mut &[u8], nested: bool) -> Result<Value, DecodeError> {
        let bytes = Vec::<u8>::decode(input, nested)?;
        let Some((kind, mut rest)) = bytes.split_first() else {
            return Ok(Value::Missing);
        };
        let number = |rest: &[u8]| {
            <[u8; 8]>::try_from(rest).map_err(|_| DecodeError::OutOfRange {
                what: "the length of a number",
                value: rest.len() as i64,
            })
        };
        Ok(match (kind, rest) {
            (1, rest) => Value::Integer(i64::from_be_bytes(number(rest)?)),
            (2, rest) => Value::Double(f64::from_be_bytes(number(rest)?)),
            (3, [value]) => Value::Boolean(*value != 0),
            (4, _) => Value::Text(Arc::<str>::decode(&mut rest, false)?),
            (kind, _) => {
                return Err(DecodeError::InvalidByte {
                    what: "the kind of a value",
                    value: *kind,
                });
            }
        })
    }
}

impl Element for Record {
    fn coder() -> CoderSpec {
        Vec::<(Arc<str>, Value)>::coder()
    }

    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        self.fields.encode(out, nested);
    }

    fn decode(input: &mut &[u8], nested: bool) -> Result<Record, DecodeError> {
        Ok(Record {
            fields: Vec::decode(input, nested)?,
        })
    }
}

impl Element for Prediction {
    fn coder() -> CoderSpec {
        <(Value, (Vec<(Value, f64)>, Vec<(Arc<str>, Value)>))>::coder()
    }

    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        self.value.encode(out, true);
        self.probabilities.encode(out, true);
        self.outputs.encode(out, nested);
    }

    fn decode(input: &mut &[u8], nested: bool) -> Result<Prediction, DecodeError> {
        let (value, (probabilities, outputs)) = Element::decode(input, nested)?;
        Ok(Prediction {
            value,
            probabilities,
            outputs,
        })
    }
}
