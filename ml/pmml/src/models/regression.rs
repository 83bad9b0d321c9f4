//! `RegressionModel`.

use super::links::{Link, simplemax, softmax};
use super::{Context, Function, Precision, check};
use crate::compiler::Compiler;
use crate::error::{EvaluateError, ParseError};
use crate::frame::{Frame, Slot};
use crate::outcome::Outcome;
use crate::value::{OpType, Value};
use crate::xml::Element;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Normalization {
    None,
    Softmax,
    Simplemax,
    /// `exp` of the document is the inverse of the logarithm.
    Of(Link),
}

/// A linear function of fields.
#[derive(Debug)]
struct Table {
    intercept: f64,
    numeric: Vec<Numeric>,
    categorical: Vec<(Slot, Value, f64)>,
    terms: Vec<(f64, Vec<Slot>)>,
}

#[derive(Debug)]
struct Numeric {
    slot: Slot,
    exponent: f64,
    coefficient: f64,
}

/// A regression, or a classification by some.
#[derive(Debug)]
pub struct Regression {
    tables: Vec<Table>,
    normalization: Normalization,
    /// The classes, of a classification.
    classes: Vec<Value>,
    ordinal: bool,
    precision: Precision,
}

/// Compiles a `RegressionModel`; its classes are those of its tables.
pub fn parse<'d>(
    compiler: &mut Compiler<'d>,
    element: Element<'d>,
    context: &Context,
) -> Result<(Regression, Vec<Value>), ParseError> {
    check(
        element,
        &["modelType", "targetFieldName", "normalizationMethod"],
        &["RegressionTable"],
    )?;
    let normalizations = [
        ("none", Normalization::None),
        ("simplemax", Normalization::Simplemax),
        ("softmax", Normalization::Softmax),
        ("logit", Normalization::Of(Link::Logit)),
        ("probit", Normalization::Of(Link::Probit)),
        ("cloglog", Normalization::Of(Link::Cloglog)),
        ("exp", Normalization::Of(Link::Log)),
        ("loglog", Normalization::Of(Link::Loglog)),
        ("cauchit", Normalization::Of(Link::Cauchit)),
    ];
    let normalization = element.one_of("normalizationMethod", &normalizations)?;
    let (mut tables, mut classes) = (Vec::new(), Vec::new());
    for table in element.all("RegressionTable") {
        table.check(
            &["intercept", "targetCategory"],
            &["NumericPredictor", "CategoricalPredictor", "PredictorTerm"],
        )?;
        if context.function == Function::Classification {
            classes.push(context.class(table, "targetCategory", table.need("targetCategory")?)?);
        }
        tables.push(self::table(compiler, table, context)?);
    }
    let fewest = match context.function {
        Function::Regression => 1,
        Function::Classification => 2,
    };
    if tables.len() < fewest || (fewest == 1 && tables.len() > 1) {
        return Err(element.wrong(format!(
            "has {} elements `RegressionTable`: expected {fewest}",
            tables.len()
        )));
    }
    let normalization = normalization.unwrap_or(Normalization::None);
    if fewest == 1 && matches!(normalization, Normalization::Simplemax) {
        return Err(element.value(
            "normalizationMethod",
            "simplemax",
            "a method for one number, as it is a regression",
        ));
    }
    let regression = Regression {
        tables,
        normalization,
        classes: classes.clone(),
        ordinal: context.op == OpType::Ordinal && fewest == 2,
        precision: context.precision,
    };
    Ok((regression, classes))
}

fn table<'d>(
    compiler: &mut Compiler<'d>,
    element: Element<'d>,
    context: &Context,
) -> Result<Table, ParseError> {
    let mut table = Table {
        intercept: context.precision.round(element.need_number("intercept")?),
        numeric: Vec::new(),
        categorical: Vec::new(),
        terms: Vec::new(),
    };
    for predictor in element.children() {
        let coefficient = context.precision.round(predictor.need_number("coefficient")?);
        match predictor.name() {
            "NumericPredictor" => {
                predictor.check(&["name", "exponent", "coefficient"], &[])?;
                table.numeric.push(Numeric {
                    slot: compiler.field_of(context.scope, predictor, "name")?,
                    exponent: predictor.number_of("exponent")?.unwrap_or(1.0),
                    coefficient,
                });
            }
            "CategoricalPredictor" => {
                predictor.check(&["name", "value", "coefficient"], &[])?;
                let slot = compiler.field_of(context.scope, predictor, "name")?;
                let data = compiler.kind(slot).data;
                let value = data.read(predictor, "value", predictor.need("value")?)?;
                table.categorical.push((slot, value, coefficient));
            }
            _ => {
                predictor.check(&["name", "coefficient"], &["FieldRef"])?;
                let mut slots = Vec::new();
                for field in predictor.all("FieldRef") {
                    field.check(&["field"], &[])?;
                    slots.push(compiler.field_of(context.scope, field, "field")?);
                }
                table.terms.push((coefficient, slots));
            }
        }
    }
    Ok(table)
}

impl Table {
    /// None when a number is missing.
    fn sum(&self, frame: &mut Frame<'_>, precision: Precision) -> Result<Option<f64>, EvaluateError> {
        let mut sum = self.intercept;
        for predictor in &self.numeric {
            let Some(number) = frame.number(predictor.slot)? else {
                return Ok(None);
            };
            let power = match predictor.exponent == 1.0 {
                true => number,
                false => precision.round(number.powf(predictor.exponent)),
            };
            sum = precision.round(sum + precision.round(predictor.coefficient * power));
        }
        for (slot, value, coefficient) in &self.categorical {
            if frame.get(*slot)?.same(value) {
                sum = precision.round(sum + coefficient);
            }
        }
        for (coefficient, slots) in &self.terms {
            let mut product = *coefficient;
            for slot in slots {
                let Some(number) = frame.number(*slot)? else {
                    return Ok(None);
                };
                product = precision.round(product * number);
            }
            sum = precision.round(sum + product);
        }
        Ok(Some(sum))
    }
}

impl Regression {
    pub fn run(&self, frame: &mut Frame<'_>) -> Result<Outcome, EvaluateError> {
        if self.classes.is_empty() {
            let sum = self.tables[0].sum(frame, self.precision)?;
            let link = match self.normalization {
                // For one number it is the logistic function.
                Normalization::Softmax => Link::Logit,
                Normalization::Of(link) => link,
                Normalization::None | Normalization::Simplemax => Link::Identity,
            };
            return Ok(Outcome::number(sum.map(|sum| link.invert(sum, self.precision))));
        }
        let mut scores = Vec::with_capacity(self.tables.len());
        // The last of two, of an ordinal target or of numbers as they are is what the others leave.
        let left = self.ordinal || self.tables.len() == 2 || self.normalization == Normalization::None;
        let own = !matches!(
            self.normalization,
            Normalization::Softmax | Normalization::Simplemax
        );
        for (number, table) in self.tables.iter().enumerate() {
            if own && left && number + 1 == self.tables.len() {
                continue;
            }
            match table.sum(frame, self.precision)? {
                Some(score) => scores.push(score),
                None => return Ok(Outcome::default()),
            }
        }
        match self.normalization {
            Normalization::Softmax => softmax(&mut scores, self.precision),
            Normalization::Simplemax => simplemax(&mut scores, self.precision),
            Normalization::None => self.complete(&mut scores, Link::Identity),
            Normalization::Of(link) => self.complete(&mut scores, link),
        }
        for score in &mut scores {
            *score = self.precision.round(*score);
        }
        Ok(Outcome::most_probable(&self.classes, scores))
    }

    /// Makes probabilities of scores, one by one, and adds the last one.
    fn complete(&self, scores: &mut Vec<f64>, link: Link) {
        for score in scores.iter_mut() {
            *score = link.invert(*score, self.precision);
        }
        if self.ordinal {
            // So far they are of this class and all before it.
            for number in (1..scores.len()).rev() {
                scores[number] -= scores[number - 1];
            }
        }
        if scores.len() < self.tables.len() {
            if self.normalization == Normalization::None && self.tables.len() == 2 {
                scores[0] = scores[0].clamp(0.0, 1.0);
            }
            scores.push(1.0 - scores.iter().sum::<f64>());
        } else {
            simplemax(scores, self.precision);
        }
    }
}
