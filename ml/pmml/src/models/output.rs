//! `Output`: what else rows get.

use std::sync::Arc;

use super::{Answer, Context, Function, Precision};
use crate::compiler::Compiler;
use crate::error::{EvaluateError, ParseError};
use crate::expression::{self, Expression};
use crate::frame::{Definition, Frame, Slot};
use crate::models::mining::Segment;
use crate::outcome::Outcome;
use crate::value::{DataType, FieldType, OpType, Value};
use crate::xml::Element;

/// An output field.
#[derive(Debug)]
pub struct Output {
    pub name: Arc<str>,
    pub slot: Slot,
    /// Rows get it; others are for other output fields and models.
    pub is_final: bool,
    feature: Feature,
    /// The segment that it tells of, where it is not the model itself.
    segment: Option<usize>,
    data: Option<DataType>,
}

#[derive(Debug)]
enum Feature {
    Value,
    /// Another text for some classes.
    Display(Vec<(Value, Value)>),
    /// Of the class at this place, or of the predicted one.
    Probability {
        place: Option<usize>,
        classes: Arc<[Value]>,
    },
    Confidence {
        place: Option<usize>,
        classes: Arc<[Value]>,
    },
    Entity,
    Expression(Expression),
}

#[derive(Debug, Clone, Copy)]
enum Word {
    Value,
    Display,
    Probability,
    Confidence,
    Entity,
    Expression,
}

const FEATURES: &[(&str, Word)] = &[
    ("predictedValue", Word::Value),
    ("predictedDisplayValue", Word::Display),
    ("probability", Word::Probability),
    ("confidence", Word::Confidence),
    ("entityId", Word::Entity),
    ("transformedValue", Word::Expression),
    ("decision", Word::Expression),
];

const ATTRIBUTES: &[&str] = &[
    "name",
    "displayName",
    "optype",
    "dataType",
    "targetField",
    "feature",
    "value",
    "rank",
    "rankOrder",
    "isMultiValued",
    "segmentId",
    "isFinalResult",
];

/// Compiles a model's output fields, in their order: each may ask for those before it.
pub fn parse<'d>(
    compiler: &mut Compiler<'d>,
    model: Element<'d>,
    context: &Context,
    classes: &[Value],
    shown: &[(Value, Value)],
    segments: &[Segment],
) -> Result<Vec<Output>, ParseError> {
    let Some(element) = model.child("Output") else {
        return Ok(Vec::new());
    };
    element.check(&[], &["OutputField"])?;
    let mut outputs = Vec::new();
    for field in element.all("OutputField") {
        let mut children = vec!["Decisions"];
        children.extend(expression::KINDS);
        field.check(ATTRIBUTES, &children)?;
        let output = one(compiler, field, context, classes, shown, segments)?;
        compiler.name(context.scope, field.need("name")?, output.slot);
        outputs.push(output);
    }
    Ok(outputs)
}

fn one<'d>(
    compiler: &mut Compiler<'d>,
    field: Element<'d>,
    context: &Context,
    classes: &[Value],
    shown: &[(Value, Value)],
    segments: &[Segment],
) -> Result<Output, ParseError> {
    for (attribute, only) in [("rank", "1"), ("isMultiValued", "0")] {
        if let Some(other) = field.get(attribute).filter(|value| *value != only) {
            return Err(field.value(attribute, other, format!("`{only}`")));
        }
    }
    let segment = match field.get("segmentId") {
        None => None,
        Some(id) => match segments.iter().position(|segment| *segment.id == *id) {
            None => return Err(field.value("segmentId", id, "the id of a segment of the model")),
            found => found,
        },
    };
    let classes: Arc<[Value]> = match segment {
        None => classes.into(),
        Some(number) => Arc::clone(&segments[number].model.classes),
    };
    let word = field.one_of("feature", FEATURES)?.unwrap_or(Word::Value);
    let data = DataType::of(field)?;
    let place = match field.get("value") {
        None => None,
        Some(text) => {
            let value = context.class(field, "value", text)?;
            match classes.iter().position(|class| class.same(&value)) {
                None => {
                    return Err(field.value(
                        "value",
                        text,
                        format!("a class of the model, {}", listed(&classes)),
                    ));
                }
                found => found,
            }
        }
    };
    let mut natural = match (context.function, context.precision) {
        (Function::Regression, Precision::Single) => DataType::Float,
        _ => context.data,
    };
    let feature = match word {
        Word::Value => Feature::Value,
        Word::Display => {
            natural = DataType::Text;
            Feature::Display(shown.to_vec())
        }
        Word::Probability => {
            natural = DataType::Double;
            Feature::Probability { place, classes }
        }
        Word::Confidence => {
            natural = DataType::Double;
            Feature::Confidence { place, classes }
        }
        Word::Entity => {
            natural = DataType::Text;
            Feature::Entity
        }
        Word::Expression => {
            let inside = expression::find(field)?;
            natural = data.unwrap_or(DataType::Double);
            Feature::Expression(expression::parse(compiler, context.scope, inside, natural, &[])?)
        }
    };
    let op = match data.unwrap_or(natural) {
        DataType::Text | DataType::Boolean => OpType::Categorical,
        _ => OpType::Continuous,
    };
    let kind = FieldType::new(data.unwrap_or(natural), OpType::of(field)?.unwrap_or(op));
    Ok(Output {
        name: field.need("name")?.into(),
        slot: compiler.add(Definition::Given, kind),
        is_final: field.flag("isFinalResult")?.unwrap_or(true),
        feature,
        segment,
        data,
    })
}

fn listed(classes: &[Value]) -> String {
    let classes: Vec<String> = classes.iter().map(|class| format!("`{class}`")).collect();
    classes.join(", ")
}

impl Output {
    /// The value for a row, of the model's outcome or that of a segment.
    pub fn evaluate(
        &self,
        frame: &mut Frame<'_>,
        outcome: &Outcome,
        segments: &[Option<Answer>],
    ) -> Result<Value, EvaluateError> {
        let outcome = match self.segment {
            None => outcome,
            Some(number) => match segments.get(number) {
                Some(Some(answer)) => &answer.outcome,
                _ => return Ok(Value::Missing),
            },
        };
        let value = match &self.feature {
            Feature::Value => outcome.value.clone(),
            Feature::Display(shown) => {
                let shown = shown.iter().find(|(value, _)| value.same(&outcome.value));
                shown.map_or(&outcome.value, |(_, text)| text).clone()
            }
            Feature::Probability { place, classes } => {
                share(*place, classes, &outcome.probabilities, outcome)
            }
            Feature::Confidence { place, classes } => {
                let shares = match outcome.confidences.is_empty() {
                    true => &outcome.probabilities,
                    false => &outcome.confidences,
                };
                share(*place, classes, shares, outcome)
            }
            Feature::Entity => outcome.entity.as_deref().map(Value::from).unwrap_or_default(),
            Feature::Expression(expression) => expression.evaluate(frame)?,
        };
        match self.data {
            Some(data) => data.need(&value, &self.name),
            None => Ok(value),
        }
    }
}

fn share(place: Option<usize>, classes: &[Value], shares: &[f64], outcome: &Outcome) -> Value {
    let place = place.or_else(|| classes.iter().position(|class| class.same(&outcome.value)));
    place.and_then(|place| shares.get(place)).copied().into()
}
