//! A document as a whole.

use std::path::Path;
use std::sync::Arc;

use purlin_inference::hash_bytes;

use crate::compiler::Compiler;
use crate::error::{EvaluateError, LoadError, ParseError};
use crate::frame::{Frame, Program};
use crate::models;
use crate::record::{Prediction, Record};
use crate::value::Value;
use crate::xml::{Document, Element};

/// A PMML model; see the [crate](crate).
#[derive(Debug)]
pub struct Model {
    program: Program,
    inputs: Vec<Arc<str>>,
    model: models::Model,
    outputs: Vec<Arc<str>>,
    version: String,
    sha256: String,
}

impl Model {
    /// Reads a document from a file.
    ///
    /// # Errors
    /// Each names the file, and what is wrong with it at which line.
    pub fn load(path: impl AsRef<Path>) -> Result<Model, LoadError> {
        let path = path.as_ref();
        let shown = || path.display().to_string();
        let bytes = std::fs::read(path).map_err(|source| LoadError::Read {
            path: shown(),
            source,
        })?;
        Model::parse(&bytes).map_err(|source| LoadError::Parse {
            path: shown(),
            source: Box::new(source),
        })
    }

    /// Reads a document from a file's bytes.
    ///
    /// # Errors
    /// The first thing that is wrong or not known, with its line.
    pub fn parse(bytes: &[u8]) -> Result<Model, ParseError> {
        if bytes.is_empty() {
            return Err(ParseError::Empty);
        }
        let text = std::str::from_utf8(bytes).map_err(|error| ParseError::NotText {
            line: bytes[..error.valid_up_to()]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count()
                + 1,
        })?;
        let document = Document::parse(text)?;
        let root = document.root();
        let version = check_root(root)?;
        let mut compiler = Compiler::new(root)?;
        let element = models::find(root).ok_or_else(|| root.missing("model"))?;
        let model = models::Model::parse(&mut compiler, element, None)?;
        let outputs = model.output_names().into_iter();
        Ok(Model {
            inputs: compiler.inputs,
            program: compiler.program,
            outputs: outputs
                .filter(|(_, is_final)| *is_final)
                .map(|(name, _)| name)
                .collect(),
            model,
            version: version.to_owned(),
            sha256: hash_bytes(bytes),
        })
    }

    /// The SHA-256 of the bytes that it was read from, as 64 hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The fields of a row that the model asks for, in the order of its mining schema.
    pub fn inputs(&self) -> &[Arc<str>] {
        &self.inputs
    }

    /// The field that it predicts, where the document names it.
    pub fn target(&self) -> Option<&str> {
        self.model.target_name.as_deref()
    }

    /// The classes that it tells apart; none of a regression.
    pub fn classes(&self) -> &[Value] {
        &self.model.classes
    }

    /// The names of its output fields.
    pub fn outputs(&self) -> &[Arc<str>] {
        &self.outputs
    }

    /// The version of PMML, such as `4.4`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What the model gives for a row. Fields that it does not ask for say nothing; those that the row lacks are missing.
    ///
    /// # Errors
    /// A value that the document calls invalid, or that one of its functions does not take.
    pub fn evaluate(&self, record: &Record) -> Result<Prediction, EvaluateError> {
        self.evaluate_values(&self.values(record))
    }

    /// The values of a row in the order of [`Model::inputs`].
    pub fn values(&self, record: &Record) -> Vec<Value> {
        // Rows that have the fields in the model's order, as most have, are gone through once.
        let mut next = 0;
        let value = |name: &Arc<str>| match record.find(name, next) {
            Some((place, value)) => {
                next = place + 1;
                value.clone()
            }
            None => Value::Missing,
        };
        self.inputs.iter().map(value).collect()
    }

    /// As [`Model::evaluate`], of values in the order of [`Model::inputs`]: no name is looked up.
    ///
    /// # Errors
    /// As those of [`Model::evaluate`], and too few or too many values.
    pub fn evaluate_values(&self, values: &[Value]) -> Result<Prediction, EvaluateError> {
        if values.len() != self.inputs.len() {
            return Err(EvaluateError::Width {
                found: values.len(),
                expected: self.inputs.len(),
            });
        }
        let mut frame = Frame::new(&self.program, values);
        let answer = self.model.run(&mut frame)?;
        let classes = self.model.classes.iter().cloned();
        Ok(Prediction {
            value: answer.outcome.value,
            probabilities: classes.zip(answer.outcome.probabilities).collect(),
            outputs: answer.outputs,
        })
    }
}

/// The version of a document whose outermost element is as it must be.
fn check_root(root: Element<'_>) -> Result<&str, ParseError> {
    if root.name() != "PMML" {
        return Err(ParseError::NotPmml {
            line: root.line(),
            found: crate::error::begin(root.name()),
        });
    }
    let known = [
        "Header",
        "MiningBuildTask",
        "DataDictionary",
        "TransformationDictionary",
    ];
    let version = root.need("version")?;
    if !["4.0", "4.1", "4.2", "4.2.1", "4.3", "4.4", "4.4.1"].contains(&version) {
        return Err(ParseError::Version {
            line: root.line(),
            found: crate::error::begin(version),
        });
    }
    root.check(
        &["version", "x-baseVersion"],
        &[&known[..], &models::KINDS[..]].concat(),
    )?;
    let mut models = root
        .children()
        .filter(|child| models::KINDS.contains(&child.name()));
    match models.nth(1) {
        Some(second) => Err(second.wrong("is a second model: expected one")),
        None => Ok(version),
    }
}
