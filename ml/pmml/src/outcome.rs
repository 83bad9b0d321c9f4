//! What a model gives for a row.

use std::sync::Arc;

use crate::value::Value;

/// What a model gives for a row, before its targets and outputs.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The predicted value: a number, or a class.
    pub value: Value,
    /// The probabilities of the model's classes, in their order; none where it has no such thing.
    pub probabilities: Vec<f64>,
    /// The confidences in the same order, where they are others.
    pub confidences: Vec<f64>,
    /// The tree's node or whatever else gave it.
    pub entity: Option<Arc<str>>,
}

impl Outcome {
    pub fn of(value: Value) -> Outcome {
        Outcome {
            value,
            ..Outcome::default()
        }
    }

    pub fn number(number: Option<f64>) -> Outcome {
        Outcome::of(number.into())
    }

    /// The class of the highest probability, the first of several.
    pub fn most_probable(classes: &[Value], probabilities: Vec<f64>) -> Outcome {
        Outcome {
            value: best(&probabilities)
                .and_then(|best| classes.get(best))
                .cloned()
                .unwrap_or_default(),
            probabilities,
            ..Outcome::default()
        }
    }
}

/// The place of the largest number, the first of several.
pub fn best(numbers: &[f64]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (place, number) in numbers.iter().enumerate() {
        if best.is_none_or(|best| *number > numbers[best]) {
            best = Some(place);
        }
    }
    best
}

/// The place of a class, which is added where it is new.
pub fn class(classes: &mut Vec<Value>, value: Value) -> usize {
    match classes.iter().position(|class| class.same(&value)) {
        Some(place) => place,
        None => {
            classes.push(value);
            classes.len() - 1
        }
    }
}
