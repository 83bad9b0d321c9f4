//! Predicates, in PMML's three-valued logic: what is missing makes a comparison neither true nor false.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::compiler::{Compiler, ScopeId};
use crate::error::{EvaluateError, ParseError};
use crate::fields::Values;
use crate::frame::{Frame, Slot};
use crate::value::{OpType, Value};
use crate::xml::Element;

/// The elements that are predicates.
pub const KINDS: [&str; 5] = [
    "SimplePredicate",
    "CompoundPredicate",
    "SimpleSetPredicate",
    "True",
    "False",
];

/// A condition on fields.
#[derive(Debug)]
pub enum Predicate {
    Constant(bool),
    IsMissing {
        slot: Slot,
        wanted: bool,
    },
    Equal {
        slot: Slot,
        value: Value,
        wanted: bool,
    },
    /// A number is compared.
    Number {
        slot: Slot,
        comparison: Comparison,
        number: f64,
    },
    /// What is no number is compared, by the order of the valid values where they have one.
    Order {
        slot: Slot,
        comparison: Comparison,
        value: Value,
        order: Arc<[Value]>,
    },
    Among {
        slot: Slot,
        values: Values,
        wanted: bool,
    },
    Compound {
        operator: Operator,
        predicates: Vec<Predicate>,
    },
}

/// An order that is wanted.
#[derive(Debug, Clone, Copy)]
pub enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        }
    }

    fn holds_of(self, left: f64, right: f64) -> bool {
        match self {
            Comparison::Less => left < right,
            Comparison::LessOrEqual => left <= right,
            Comparison::Greater => left > right,
            Comparison::GreaterOrEqual => left >= right,
        }
    }
}

/// How predicates make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    And,
    Or,
    Xor,
    /// The first that is not unknown.
    Surrogate,
}

impl Operator {
    /// What all parts make. Each is looked at, as an invalid value is an error wherever it stands; but surrogates wait for their
    /// turn.
    pub fn of<E>(self, parts: impl IntoIterator<Item = Result<Option<bool>, E>>) -> Result<Option<bool>, E> {
        let (mut some_true, mut some_false, mut unknown, mut odd) = (false, false, false, false);
        for part in parts {
            match part? {
                Some(value) if self == Operator::Surrogate => return Ok(Some(value)),
                Some(true) => {
                    some_true = true;
                    odd = !odd;
                }
                Some(false) => some_false = true,
                None => unknown = true,
            }
        }
        Ok(match self {
            Operator::And if some_false => Some(false),
            Operator::Or if some_true => Some(true),
            _ if unknown => None,
            Operator::And => Some(true),
            Operator::Or => Some(false),
            Operator::Xor => Some(odd),
            Operator::Surrogate => None,
        })
    }
}

impl Predicate {
    /// True, false or unknown.
    pub fn evaluate(&self, frame: &mut Frame<'_>) -> Result<Option<bool>, EvaluateError> {
        Ok(match self {
            Predicate::Constant(value) => Some(*value),
            Predicate::IsMissing { slot, wanted } => Some(frame.get(*slot)?.is_missing() == *wanted),
            Predicate::Number {
                slot,
                comparison,
                number,
            } => {
                let found = frame.number(*slot)?;
                found.map(|found| comparison.holds_of(found, *number))
            }
            Predicate::Equal { slot, value, wanted } => match frame.get(*slot)? {
                Value::Missing => None,
                found => Some(found.same(value) == *wanted),
            },
            Predicate::Order {
                slot,
                comparison,
                value,
                order,
            } => match frame.get(*slot)? {
                Value::Missing => None,
                found => {
                    let place = |value: &Value| order.iter().position(|known| known.same(value));
                    let found = match (place(&found), place(value)) {
                        (Some(left), Some(right)) => Some(left.cmp(&right)),
                        _ => found.order(value),
                    };
                    Some(found.is_some_and(|order| comparison.holds(order)))
                }
            },
            Predicate::Among { slot, values, wanted } => match frame.get(*slot)? {
                Value::Missing => None,
                found => Some(values.contains(&found) == *wanted),
            },
            Predicate::Compound { operator, predicates } => {
                let parts = predicates.iter().map(|predicate| predicate.evaluate(frame));
                operator.of(parts)?
            }
        })
    }

    /// The predicate in an element.
    pub fn find<'d>(
        compiler: &mut Compiler<'d>,
        scope: ScopeId,
        element: Element<'d>,
    ) -> Result<Predicate, ParseError> {
        let mut found = element.children().filter(|child| KINDS.contains(&child.name()));
        match found.next() {
            Some(predicate) => Predicate::parse(compiler, scope, predicate),
            None => Err(element.missing("predicate")),
        }
    }

    fn parse<'d>(
        compiler: &mut Compiler<'d>,
        scope: ScopeId,
        element: Element<'d>,
    ) -> Result<Predicate, ParseError> {
        match element.name() {
            "True" | "False" => {
                element.check(&[], &[])?;
                Ok(Predicate::Constant(element.name() == "True"))
            }
            "SimplePredicate" => simple(compiler, scope, element),
            "SimpleSetPredicate" => {
                element.check(&["field", "booleanOperator"], &["Array"])?;
                element.need("booleanOperator")?;
                let operators = [("isIn", true), ("isNotIn", false)];
                let slot = compiler.field_of(scope, element, "field")?;
                let data = compiler.kind(slot).data;
                let array = element.need_child("Array")?;
                let values = words(array)?
                    .into_iter()
                    .map(|word| data.read(array, "the text", &word));
                Ok(Predicate::Among {
                    slot,
                    values: Values::new(values.collect::<Result<Vec<_>, _>>()?),
                    wanted: element.one_of("booleanOperator", &operators)?.unwrap_or(true),
                })
            }
            "CompoundPredicate" => {
                element.check(&["booleanOperator"], &KINDS)?;
                element.need("booleanOperator")?;
                let operators = [
                    ("and", Operator::And),
                    ("or", Operator::Or),
                    ("xor", Operator::Xor),
                    ("surrogate", Operator::Surrogate),
                ];
                let operator = element.one_of("booleanOperator", &operators)?;
                let mut predicates = Vec::new();
                for child in element.children() {
                    let inside = |compiler: &mut Compiler<'d>| Predicate::parse(compiler, scope, child);
                    predicates.push(compiler.deeper(child, inside)?);
                }
                if predicates.is_empty() {
                    return Err(element.missing("predicate"));
                }
                Ok(Predicate::Compound {
                    operator: operator.unwrap_or(Operator::And),
                    predicates,
                })
            }
            _ => Err(element.wrong("is no predicate")),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Word {
    Equal(bool),
    Missing(bool),
    Compare(Comparison),
}

fn simple<'d>(
    compiler: &mut Compiler<'d>,
    scope: ScopeId,
    element: Element<'d>,
) -> Result<Predicate, ParseError> {
    element.check(&["field", "operator", "value"], &[])?;
    let operators = [
        ("equal", Word::Equal(true)),
        ("notEqual", Word::Equal(false)),
        ("lessThan", Word::Compare(Comparison::Less)),
        ("lessOrEqual", Word::Compare(Comparison::LessOrEqual)),
        ("greaterThan", Word::Compare(Comparison::Greater)),
        ("greaterOrEqual", Word::Compare(Comparison::GreaterOrEqual)),
        ("isMissing", Word::Missing(true)),
        ("isNotMissing", Word::Missing(false)),
    ];
    element.need("operator")?;
    let slot = compiler.field_of(scope, element, "field")?;
    let operator = element.one_of("operator", &operators)?;
    if let Some(Word::Missing(wanted)) = operator {
        return Ok(Predicate::IsMissing { slot, wanted });
    }
    let kind = compiler.kind(slot);
    let value = kind.data.read(element, "value", element.need("value")?)?;
    Ok(match (operator, &value) {
        (Some(Word::Compare(comparison)), Value::Double(number)) if kind.op != OpType::Ordinal => {
            Predicate::Number {
                slot,
                comparison,
                number: *number,
            }
        }
        (Some(Word::Compare(comparison)), _) => Predicate::Order {
            slot,
            comparison,
            order: match kind.op {
                OpType::Ordinal => Arc::clone(&kind.values),
                _ => Arc::new([]),
            },
            value,
        },
        (operator, _) => Predicate::Equal {
            slot,
            value,
            wanted: !matches!(operator, Some(Word::Equal(false))),
        },
    })
}

/// The words of an `Array`: between spaces, or in quotes, where `\"` is one.
pub fn words(element: Element<'_>) -> Result<Vec<String>, ParseError> {
    element.check(&["n", "type"], &[])?;
    element.one_of("type", &[("int", ()), ("real", ()), ("string", ())])?;
    let mut words = Vec::new();
    let mut characters = element.text().chars().peekable();
    while let Some(first) = characters.next() {
        if first.is_whitespace() {
            continue;
        }
        let mut word = String::new();
        if first == '"' {
            loop {
                match characters.next() {
                    Some('"') => break,
                    Some('\\') if characters.peek() == Some(&'"') => {
                        word.push('"');
                        characters.next();
                    }
                    Some(character) => word.push(character),
                    None => return Err(element.wrong("has a quote that does not end")),
                }
            }
        } else {
            word.push(first);
            while let Some(character) = characters.next_if(|character| !character.is_whitespace()) {
                word.push(character);
            }
        }
        words.push(word);
    }
    let told = element.number_of("n")?;
    if told.is_some_and(|told| told != words.len() as f64) {
        let told = element.get("n").unwrap_or("");
        return Err(element.value("n", told, format!("{}, as it has so many values", words.len())));
    }
    Ok(words)
}
