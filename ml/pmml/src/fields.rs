//! The fields of rows: what the data dictionary calls valid, and what models make of values that are missing, invalid or far out.

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::{EvaluateError, ParseError, begin};
use crate::value::{DataType, FieldType, OpType, Value};
use crate::xml::Element;

/// A range of numbers.
#[derive(Debug, Clone, Copy)]
pub struct Interval {
    low: f64,
    high: f64,
    /// Whether the ends belong to it.
    closed: (bool, bool),
}

impl Interval {
    pub fn parse(element: Element<'_>) -> Result<Interval, ParseError> {
        element.check(&["closure", "leftMargin", "rightMargin"], &[])?;
        let closures = [
            ("openOpen", (false, false)),
            ("openClosed", (false, true)),
            ("closedOpen", (true, false)),
            ("closedClosed", (true, true)),
        ];
        element.need("closure")?;
        Ok(Interval {
            low: element.number_of("leftMargin")?.unwrap_or(f64::NEG_INFINITY),
            high: element.number_of("rightMargin")?.unwrap_or(f64::INFINITY),
            closed: element.one_of("closure", &closures)?.unwrap_or((true, true)),
        })
    }

    pub fn contains(&self, number: f64) -> bool {
        let (low, high) = self.closed;
        let above = number > self.low || (low && number == self.low);
        let below = number < self.high || (high && number == self.high);
        above && below
    }
}

/// A set of values.
#[derive(Debug, Clone, Default)]
pub struct Values {
    texts: HashSet<Arc<str>>,
    others: Vec<Value>,
}

impl Values {
    pub fn new(values: impl IntoIterator<Item = Value>) -> Values {
        let mut found = Values::default();
        for value in values {
            match value {
                Value::Text(text) => {
                    found.texts.insert(text);
                }
                other => found.others.push(other),
            }
        }
        found
    }

    pub fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.others.is_empty()
    }

    pub fn contains(&self, value: &Value) -> bool {
        match value {
            Value::Text(text) => self.texts.contains(text),
            other => self.others.iter().any(|value| value.same(other)),
        }
    }
}

/// A field of the data dictionary.
#[derive(Debug, Clone)]
pub struct DataField {
    pub kind: FieldType,
    missing: Arc<Values>,
    invalid: Arc<Values>,
    valid: Arc<Values>,
    intervals: Arc<[Interval]>,
    /// What is shown of a value, where it is another text.
    pub shown: Vec<(Value, Value)>,
}

impl DataField {
    pub fn parse(element: Element<'_>) -> Result<DataField, ParseError> {
        element.check(
            &[
                "name",
                "displayName",
                "optype",
                "dataType",
                "isCyclic",
                "taxonomy",
            ],
            &["Interval", "Value"],
        )?;
        element.need("optype")?;
        element.need("dataType")?;
        let data = DataType::of(element)?.unwrap_or(DataType::Text);
        let op = OpType::of(element)?.unwrap_or(OpType::Categorical);
        let (mut valid, mut invalid, mut missing, mut shown) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for entry in element.all("Value") {
            entry.check(&["value", "displayValue", "property"], &[])?;
            let text = entry.need("value")?;
            #[derive(Clone, Copy)]
            enum Property {
                Valid,
                Invalid,
                Missing,
            }
            let properties = [
                ("valid", Property::Valid),
                ("invalid", Property::Invalid),
                ("missing", Property::Missing),
            ];
            match entry.one_of("property", &properties)?.unwrap_or(Property::Valid) {
                Property::Valid => {
                    let value = data.read(entry, "value", text)?;
                    if let Some(text) = entry.get("displayValue") {
                        shown.push((value.clone(), text.into()));
                    }
                    valid.push(value);
                }
                // These may be of any type, and of the field's.
                Property::Invalid => {
                    invalid.extend([Some(text.into()), data.parse(text)].into_iter().flatten())
                }
                Property::Missing => {
                    missing.extend([Some(text.into()), data.parse(text)].into_iter().flatten())
                }
            }
        }
        let intervals = element.all("Interval").map(Interval::parse);
        Ok(DataField {
            kind: FieldType {
                data,
                op,
                values: valid.clone().into(),
            },
            missing: Arc::new(Values::new(missing)),
            invalid: Arc::new(Values::new(invalid)),
            valid: Arc::new(Values::new(valid)),
            intervals: intervals.collect::<Result<Vec<_>, _>>()?.into(),
            shown,
        })
    }
}

#[derive(Debug, Clone)]
enum Invalid {
    Error,
    AsIs,
    AsMissing,
    AsValue(Value),
}

#[derive(Debug, Clone, Copy)]
enum Outliers {
    AsIs,
    Missing { low: f64, high: f64 },
    Extreme { low: f64, high: f64 },
}

/// What a model makes of a field's values before it uses them.
#[derive(Debug, Clone)]
pub struct Treatment {
    name: Arc<str>,
    data: DataType,
    missing: Arc<Values>,
    invalid: Arc<Values>,
    valid: Arc<Values>,
    intervals: Arc<[Interval]>,
    on_invalid: Invalid,
    outliers: Outliers,
    replacement: Value,
    /// A missing value is an error.
    needed: bool,
}

/// The attributes of a `MiningField` that ask for a treatment.
const TREATMENTS: &[&str] = &[
    "outliers",
    "lowValue",
    "highValue",
    "missingValueReplacement",
    "missingValueTreatment",
    "invalidValueTreatment",
    "invalidValueReplacement",
];

impl Treatment {
    /// Whether a `MiningField` says nothing of treatment.
    pub fn is_default(element: Element<'_>) -> bool {
        TREATMENTS.iter().all(|name| element.get(name).is_none())
    }

    /// The treatment that a `MiningField` tells of a field, of which the dictionary may know more.
    pub fn parse(
        element: Element<'_>,
        kind: &FieldType,
        field: Option<&DataField>,
    ) -> Result<Treatment, ParseError> {
        let read = |name: &str| {
            let value = element.get(name).map(|text| kind.data.read(element, name, text));
            value.transpose()
        };
        #[derive(Clone, Copy)]
        enum Word {
            Error,
            AsIs,
            AsMissing,
            AsValue,
        }
        let words = [
            ("returnInvalid", Word::Error),
            ("asIs", Word::AsIs),
            ("asMissing", Word::AsMissing),
            ("asValue", Word::AsValue),
        ];
        let given = read("invalidValueReplacement")?;
        let on_invalid = match element
            .one_of("invalidValueTreatment", &words)?
            .unwrap_or(Word::Error)
        {
            Word::Error => Invalid::Error,
            Word::AsMissing => Invalid::AsMissing,
            // As PMML 4.3 had it, with a replacement.
            Word::AsIs => given.map_or(Invalid::AsIs, Invalid::AsValue),
            Word::AsValue => match given {
                Some(value) => Invalid::AsValue(value),
                None => return Err(element.missing("attribute `invalidValueReplacement`")),
            },
        };
        let missing = [
            ("asIs", false),
            ("asMean", false),
            ("asMode", false),
            ("asMedian", false),
            ("asValue", false),
            ("returnInvalid", true),
        ];
        Ok(Treatment {
            name: element.need("name")?.into(),
            data: kind.data,
            missing: field.map_or_else(Arc::default, |field| Arc::clone(&field.missing)),
            invalid: field.map_or_else(Arc::default, |field| Arc::clone(&field.invalid)),
            valid: field.map_or_else(Arc::default, |field| Arc::clone(&field.valid)),
            intervals: field.map_or_else(|| Vec::new().into(), |field| Arc::clone(&field.intervals)),
            on_invalid,
            outliers: outliers(element)?,
            replacement: read("missingValueReplacement")?.unwrap_or_default(),
            needed: element
                .one_of("missingValueTreatment", &missing)?
                .unwrap_or(false),
        })
    }

    /// What the model sees of a value.
    pub fn apply(&self, raw: &Value) -> Result<Value, EvaluateError> {
        let nan = matches!(raw, Value::Double(number) if number.is_nan());
        if raw.is_missing() || nan || self.missing.contains(raw) {
            return self.missing();
        }
        let cast = self.data.cast(raw);
        let valid = cast.as_ref().filter(|value| self.is_valid(raw, value));
        let value = match (valid, &self.on_invalid) {
            (Some(value), _) => value.clone(),
            (None, Invalid::AsMissing) => return self.missing(),
            (None, Invalid::AsValue(value)) => return Ok(value.clone()),
            (None, Invalid::AsIs) if cast.is_some() => cast.unwrap_or_default(),
            (None, Invalid::AsIs | Invalid::Error) => return Err(self.error(raw)),
        };
        match (value.as_f64(), self.outliers) {
            (Some(number), Outliers::Missing { low, high }) if number < low || number > high => {
                self.missing()
            }
            (Some(number), Outliers::Extreme { low, high }) if number < low || number > high => {
                let nearest = Value::Double(if number < low { low } else { high });
                Ok(self.data.cast(&nearest).unwrap_or(nearest))
            }
            _ => Ok(value),
        }
    }

    fn is_valid(&self, raw: &Value, value: &Value) -> bool {
        if self.invalid.contains(raw) || self.invalid.contains(value) {
            return false;
        }
        if !self.valid.is_empty() {
            return self.valid.contains(value);
        }
        let number = value.as_f64().unwrap_or(f64::NAN);
        self.intervals.is_empty() || self.intervals.iter().any(|interval| interval.contains(number))
    }

    fn missing(&self) -> Result<Value, EvaluateError> {
        match self.needed {
            true => Err(EvaluateError::Missing {
                field: self.name.to_string(),
            }),
            false => Ok(self.replacement.clone()),
        }
    }

    fn error(&self, raw: &Value) -> EvaluateError {
        EvaluateError::Invalid {
            field: self.name.to_string(),
            found: begin(&raw.to_string()),
            expected: match (
                self.data.cast(raw),
                self.valid.is_empty() && !self.intervals.is_empty(),
            ) {
                (None, _) => format!("a value of the type {}", self.data),
                (Some(_), true) => "a number within the intervals of its DataField".to_owned(),
                (Some(_), false) => "one of the values of its DataField".to_owned(),
            },
        }
    }
}

fn outliers(element: Element<'_>) -> Result<Outliers, ParseError> {
    let low = element.number_of("lowValue")?.unwrap_or(f64::NEG_INFINITY);
    let high = element.number_of("highValue")?.unwrap_or(f64::INFINITY);
    let kinds = [
        ("asIs", Outliers::AsIs),
        ("asMissingValues", Outliers::Missing { low, high }),
        ("asExtremeValues", Outliers::Extreme { low, high }),
    ];
    Ok(element.one_of("outliers", &kinds)?.unwrap_or(Outliers::AsIs))
}
