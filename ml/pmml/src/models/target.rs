//! `Targets`: what is made of a model's prediction before anyone sees it.

use super::{Context, Function, Precision};
use crate::compiler::Compiler;
use crate::error::ParseError;
use crate::outcome::Outcome;
use crate::value::{DataType, Value};
use crate::xml::Element;

#[derive(Debug, Clone, Copy)]
enum Whole {
    Round,
    Ceiling,
    Floor,
}

/// What is made of a prediction.
#[derive(Debug)]
pub struct Target {
    regression: bool,
    precision: Precision,
    data: DataType,
    min: f64,
    max: f64,
    factor: f64,
    constant: f64,
    whole: Option<Whole>,
    /// Instead of a missing number.
    otherwise: Option<f64>,
    /// The probabilities of classes where the model has none.
    priors: Vec<(Value, f64)>,
    /// What is shown of classes.
    pub shown: Vec<(Value, Value)>,
}

impl Target {
    pub fn parse(
        model: Element<'_>,
        name: Option<&str>,
        context: &Context,
        compiler: &Compiler<'_>,
    ) -> Result<Target, ParseError> {
        let field = name.and_then(|name| compiler.data_field(name));
        let mut target = Target {
            regression: context.function == Function::Regression,
            precision: context.precision,
            data: context.data,
            min: f64::NEG_INFINITY,
            max: f64::INFINITY,
            factor: 1.0,
            constant: 0.0,
            whole: None,
            otherwise: None,
            priors: Vec::new(),
            shown: field.map_or_else(Vec::new, |field| field.shown.clone()),
        };
        let Some(targets) = model.child("Targets") else {
            return Ok(target);
        };
        targets.check(&[], &["Target"])?;
        let of = |target: &Element<'_>| target.get("field").is_none() || target.get("field") == name;
        let Some(element) = targets.all("Target").find(of) else {
            return Ok(target);
        };
        let attributes = [
            "field",
            "optype",
            "castInteger",
            "min",
            "max",
            "rescaleFactor",
            "rescaleConstant",
        ];
        element.check(&attributes, &["TargetValue"])?;
        let whole = [
            ("round", Whole::Round),
            ("ceiling", Whole::Ceiling),
            ("floor", Whole::Floor),
        ];
        target.min = element.number_of("min")?.unwrap_or(target.min);
        target.max = element.number_of("max")?.unwrap_or(target.max);
        target.factor = target
            .precision
            .round(element.number_of("rescaleFactor")?.unwrap_or(1.0));
        target.constant = target
            .precision
            .round(element.number_of("rescaleConstant")?.unwrap_or(0.0));
        target.whole = element.one_of("castInteger", &whole)?;
        for entry in element.all("TargetValue") {
            entry.check(
                &["value", "displayValue", "priorProbability", "defaultValue"],
                &[],
            )?;
            target.entry(entry, context)?;
        }
        Ok(target)
    }

    fn entry(&mut self, entry: Element<'_>, context: &Context) -> Result<(), ParseError> {
        self.otherwise = entry.number_of("defaultValue")?.or(self.otherwise);
        let Some(text) = entry.get("value") else {
            return Ok(());
        };
        let value = context.class(entry, "value", text)?;
        if let Some(prior) = entry.number_of("priorProbability")? {
            self.priors.push((value.clone(), prior));
        }
        if let Some(text) = entry.get("displayValue") {
            self.shown.retain(|(known, _)| !known.same(&value));
            self.shown.push((value, text.into()));
        }
        Ok(())
    }

    pub fn apply(&self, outcome: Outcome, classes: &[Value]) -> Outcome {
        match self.regression {
            true => self.number(outcome),
            false if outcome.value.is_missing() && !self.priors.is_empty() => self.prior(classes),
            false => outcome,
        }
    }

    fn number(&self, mut outcome: Outcome) -> Outcome {
        let Some(number) = outcome.value.as_f64().or(self.otherwise) else {
            return outcome;
        };
        // Not `clamp`: the ends may be the wrong way round.
        let number = number.max(self.min).min(self.max);
        let number = self.precision.round(number * self.factor);
        let number = self.precision.round(number + self.constant);
        let number = Value::Double(match self.whole {
            None => number,
            Some(Whole::Round) => (number + 0.5).floor(),
            Some(Whole::Ceiling) => number.ceil(),
            Some(Whole::Floor) => number.floor(),
        });
        let data = match (self.whole, self.data) {
            (Some(_), _) => DataType::Integer,
            (None, data) => data,
        };
        outcome.value = data.cast(&number).unwrap_or(number);
        outcome
    }

    fn prior(&self, classes: &[Value]) -> Outcome {
        let prior = |class: &Value| self.priors.iter().find(|(value, _)| value.same(class));
        let probabilities = classes
            .iter()
            .map(|class| prior(class).map_or(0.0, |(_, prior)| *prior));
        Outcome::most_probable(classes, probabilities.collect())
    }
}
