//! The models: how each element of a kind is compiled and run.

mod general;
mod links;
mod mining;
mod neural;
mod output;
mod regression;
mod target;
mod tree;

use std::sync::Arc;

use crate::compiler::{Compiler, ScopeId};
use crate::error::{EvaluateError, ParseError};
use crate::frame::{Frame, Slot};
use crate::outcome::Outcome;
use crate::value::{DataType, OpType, Value};
use crate::xml::Element;
use output::Output;
use target::Target;

/// The elements that are models.
pub const KINDS: [&str; 5] = [
    "RegressionModel",
    "GeneralRegressionModel",
    "TreeModel",
    "MiningModel",
    "NeuralNetwork",
];

/// What stands in every model.
const COMMON: [&str; 7] = [
    "MiningSchema",
    "Output",
    "ModelStats",
    "ModelExplanation",
    "Targets",
    "LocalTransformations",
    "ModelVerification",
];

/// What every model has said of it.
const ATTRIBUTES: [&str; 5] = [
    "modelName",
    "functionName",
    "algorithmName",
    "isScorable",
    "x-mathContext",
];

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    Regression,
    Classification,
}

/// How exactly a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    Single,
    Double,
}

impl Precision {
    /// The number as the model keeps it.
    pub fn round(self, number: f64) -> f64 {
        match self {
            Precision::Single => crate::value::single(number),
            Precision::Double => number,
        }
    }
}

/// A model that runs.
#[derive(Debug)]
pub struct Model {
    kind: Kind,
    pub function: Function,
    /// What probabilities are of.
    pub classes: Arc<[Value]>,
    /// The field that it predicts.
    pub target_name: Option<Arc<str>>,
    target: Target,
    pub outputs: Vec<Output>,
}

#[derive(Debug)]
enum Kind {
    Regression(regression::Regression),
    General(general::General),
    Tree(tree::Tree),
    Mining(Box<mining::Mining>),
    Neural(neural::Network),
}

/// What all models are compiled with.
#[derive(Debug, Clone)]
pub struct Context {
    pub scope: ScopeId,
    pub function: Function,
    pub precision: Precision,
    /// The type of the target's values.
    pub data: DataType,
    pub op: OpType,
    /// The valid values of the target, in their order.
    pub values: Arc<[Value]>,
}

impl Context {
    /// A class, which a document names.
    pub fn class(&self, element: Element<'_>, what: &str, text: &str) -> Result<Value, ParseError> {
        self.data.read(element, what, text)
    }
}

/// Checks a model's attributes and children: those of all models, and its own.
pub fn check(element: Element<'_>, attributes: &[&str], children: &[&str]) -> Result<(), ParseError> {
    let attributes = [&ATTRIBUTES[..], attributes].concat();
    let children = [&COMMON[..], children].concat();
    element.check(&attributes, &children).map(|_| ())
}

/// What a row's frame and earlier models say, of a model in an ensemble.
#[derive(Debug)]
pub struct Answer {
    pub outcome: Outcome,
    /// What its output fields give, those of inner models first.
    pub outputs: Vec<(Arc<str>, Value)>,
}

impl Model {
    /// Compiles a model, which stands in another one or alone.
    pub fn parse<'d>(
        compiler: &mut Compiler<'d>,
        element: Element<'d>,
        parent: Option<&Context>,
    ) -> Result<Model, ParseError> {
        if element.flag("isScorable")? == Some(false) {
            return Err(element.wrong("is not scorable, as it says itself"));
        }
        let scope = compiler.open(element, parent.map(|parent| parent.scope))?;
        element.need("functionName")?;
        let functions = [
            ("regression", Function::Regression),
            ("classification", Function::Classification),
        ];
        let function = element
            .one_of("functionName", &functions)?
            .unwrap_or(Function::Regression);
        let precisions = [("float", Precision::Single), ("double", Precision::Double)];
        let name = target_name(element)?;
        let field = name.and_then(|name| compiler.data_field(name));
        let precision = element
            .one_of("x-mathContext", &precisions)?
            .unwrap_or(Precision::Double);
        let context = match (field, parent) {
            // A model of an ensemble may leave it to the ensemble to say what the classes are.
            (None, Some(parent)) if name.is_none() && parent.function == function => Context {
                scope,
                precision,
                ..parent.clone()
            },
            _ => Context {
                scope,
                function,
                precision,
                data: match (field, function) {
                    (Some(field), _) => field.kind.data,
                    (None, Function::Regression) => DataType::Double,
                    (None, Function::Classification) => DataType::Text,
                },
                op: field.map_or(OpType::Categorical, |field| field.kind.op),
                values: field.map_or_else(|| Vec::new().into(), |field| Arc::clone(&field.kind.values)),
            },
        };
        let (kind, classes) = match element.name() {
            "RegressionModel" => {
                let (kind, classes) = regression::parse(compiler, element, &context)?;
                (Kind::Regression(kind), classes)
            }
            "GeneralRegressionModel" => {
                let (kind, classes) = general::parse(compiler, element, &context)?;
                (Kind::General(kind), classes)
            }
            "TreeModel" => {
                let (kind, classes) = tree::parse(compiler, element, &context)?;
                (Kind::Tree(kind), classes)
            }
            "NeuralNetwork" => {
                let (kind, classes) = neural::parse(compiler, element, &context)?;
                (Kind::Neural(kind), classes)
            }
            "MiningModel" => {
                let (kind, classes) = mining::parse(compiler, element, &context)?;
                (Kind::Mining(Box::new(kind)), classes)
            }
            _ => return Err(element.wrong("is no model that is known")),
        };
        let classes: Arc<[Value]> = classes.into();
        let target = Target::parse(element, name, &context, compiler)?;
        let segments = match &kind {
            Kind::Mining(mining) => mining.segments(),
            _ => &[],
        };
        let outputs = output::parse(compiler, element, &context, &classes, &target.shown, segments)?;
        Ok(Model {
            kind,
            function,
            classes,
            target_name: name.map(Into::into),
            target,
            outputs,
        })
    }

    /// The output fields that rows get: of a chain also those of its models.
    pub fn output_names(&self) -> Vec<(Arc<str>, bool)> {
        let mut names = match &self.kind {
            Kind::Mining(mining) => mining.output_names(),
            _ => Vec::new(),
        };
        names.extend(
            self.outputs
                .iter()
                .map(|output| (Arc::clone(&output.name), output.is_final)),
        );
        names
    }

    /// Where a model in a chain puts its outputs.
    pub fn output_slots(&self) -> impl Iterator<Item = (&Arc<str>, Slot)> {
        self.outputs.iter().map(|output| (&output.name, output.slot))
    }

    /// Runs the model for a row.
    pub fn run(&self, frame: &mut Frame<'_>) -> Result<Answer, EvaluateError> {
        let (raw, segments, mut outputs) = match &self.kind {
            Kind::Regression(model) => (model.run(frame)?, Vec::new(), Vec::new()),
            Kind::General(model) => (model.run(frame)?, Vec::new(), Vec::new()),
            Kind::Tree(model) => (model.run(frame)?, Vec::new(), Vec::new()),
            Kind::Neural(model) => (model.run(frame)?, Vec::new(), Vec::new()),
            Kind::Mining(model) => {
                let run = model.run(frame)?;
                (run.outcome, run.answers, run.outputs)
            }
        };
        let outcome = self.target.apply(raw, &self.classes);
        for output in &self.outputs {
            let value = output.evaluate(frame, &outcome, &segments)?;
            frame.set(output.slot, value.clone());
            if output.is_final {
                outputs.push((Arc::clone(&output.name), value));
            }
        }
        Ok(Answer { outcome, outputs })
    }
}

/// The field that a model predicts: the first that its mining schema calls so.
fn target_name(element: Element<'_>) -> Result<Option<&str>, ParseError> {
    let schema = element.need_child("MiningSchema")?;
    let mut fields = schema.all("MiningField");
    let target = fields.find(|field| matches!(field.get("usageType"), Some("target" | "predicted")));
    target.map(|field| field.need("name")).transpose()
}

/// The first of an element's children that is a model.
pub fn find(element: Element<'_>) -> Option<Element<'_>> {
    element.children().find(|child| KINDS.contains(&child.name()))
}
