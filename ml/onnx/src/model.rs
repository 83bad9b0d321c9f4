//! A model that is ready to run.

use std::any::type_name;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::engine::{Engine, Failure, Ready, Source};
use crate::error::{LoadError, ParseError, RunError, TypeError};
use crate::file::File;
use crate::port::Port;
use crate::rows::{self, Fitted, Rows};
use crate::tensor::{Tensor, TensorRow};

/// An ONNX model; see the [crate](crate).
pub struct Model {
    ready: Box<dyn Ready>,
    rows: Rows,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// The chosen outputs, by their places.
    chosen: Vec<usize>,
    opset: i64,
    sha256: String,
}

/// How a model is loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelOptions {
    /// What runs it. tract, unless told.
    pub engine: Engine,
    /// The outputs that are wanted, in this order. All, in the file's order, unless told.
    pub outputs: Option<Vec<String>>,
}

impl Model {
    /// Reads a model file and makes it ready for tract.
    ///
    /// # Errors
    /// Each names the file, and what is wrong with it: of most errors, at which node.
    pub fn load(path: impl AsRef<Path>) -> Result<Model, LoadError> {
        Model::load_with(path, &ModelOptions::default())
    }

    /// Reads a model file and makes it ready.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_with(path: impl AsRef<Path>, options: &ModelOptions) -> Result<Model, LoadError> {
        let path = path.as_ref();
        let shown = || path.display().to_string();
        let bytes = std::fs::read(path).map_err(|source| LoadError::Read {
            path: shown(),
            source,
        })?;
        read(&bytes, Some(path), options).map_err(|source| LoadError::Parse {
            path: shown(),
            source: Box::new(source),
        })
    }

    /// Makes a model ready for tract that is in a file's bytes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Model, ParseError> {
        Model::from_bytes_with(bytes, &ModelOptions::default())
    }

    /// Makes a model ready that is in a file's bytes.
    ///
    /// # Errors
    /// What is wrong with it. Of one whose weights are in files of their own: these are not found.
    pub fn from_bytes_with(bytes: &[u8], options: &ModelOptions) -> Result<Model, ParseError> {
        read(bytes, None, options)
    }

    /// The SHA-256 of the bytes that it was read from, as 64 hexadecimal digits. Of a model whose weights are in files of their own: that
    /// of the digits of all files, the model's first, the others by their names.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// What it takes.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// What it gives: the outputs that were chosen, in that order.
    pub fn outputs(&self) -> Vec<&Port> {
        self.chosen
            .iter()
            .filter_map(|place| self.outputs.get(*place))
            .collect()
    }

    /// How it takes rows.
    pub fn rows(&self) -> Rows {
        self.rows
    }

    /// The version of ONNX's own operators that it asks for. 0 where its file does not say.
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// A result for each row, in the same order.
    ///
    /// # Errors
    /// When the model does not take a row, or fails on some.
    pub fn run<I: TensorRow, O: TensorRow>(&self, rows: &[I]) -> Result<Vec<O>, RunError> {
        self.run_each(rows)?.into_iter().collect()
    }

    /// As [`Model::run`], but a row that the model does not take costs its own result alone.
    ///
    /// # Errors
    /// When the model fails on rows that it seemed to take.
    pub fn run_each<I: TensorRow, O: TensorRow>(
        &self,
        rows: &[I],
    ) -> Result<Vec<Result<O, RunError>>, RunError> {
        self.run_all(rows.iter().map(TensorRow::tensors).collect())
    }

    /// As [`Model::run_each`].
    pub(crate) fn run_all<O: TensorRow>(
        &self,
        tensors: Vec<Cow<'_, [Tensor]>>,
    ) -> Result<Vec<Result<O, RunError>>, RunError> {
        let mut results: Vec<Option<Result<O, RunError>>> = tensors.iter().map(|_| None).collect();
        let mut fitted: Vec<Option<Fitted>> = Vec::with_capacity(tensors.len());
        for (row, tensors) in tensors.iter().enumerate() {
            match rows::fit(tensors, &self.inputs, self.rows) {
                Ok(found) => fitted.push(Some(found)),
                Err(source) => {
                    fitted.push(None);
                    results[row] = Some(Err(RunError::Row { row, source }));
                }
            }
        }
        for group in self.groups(&fitted) {
            let of_row = |row: &usize| Some((&*tensors[*row], fitted[*row].as_ref()?));
            let group_rows: Vec<(&[Tensor], &Fitted)> = group.iter().filter_map(of_row).collect();
            match self.run_group(&group_rows) {
                Ok(outputs) => {
                    for (row, output) in group.into_iter().zip(outputs) {
                        results[row] = Some(O::from_tensors(output).map_err(RunError::Result));
                    }
                }
                Err(error) => match &group[..] {
                    [row] => results[*row] = Some(Err(error)),
                    _ => return Err(error),
                },
            }
        }
        // Each row is in a group or has an error.
        Ok(results.into_iter().flatten().collect())
    }

    /// The rows that go into the model together.
    fn groups(&self, fitted: &[Option<Fitted>]) -> Vec<Vec<usize>> {
        let good = fitted
            .iter()
            .enumerate()
            .filter_map(|(row, fitted)| Some((row, fitted.as_ref()?)));
        match self.rows {
            Rows::OneByOne | Rows::Whole => good.map(|(row, _)| vec![row]).collect(),
            Rows::Stacked => {
                let mut groups: BTreeMap<&[Vec<usize>], Vec<usize>> = BTreeMap::new();
                for (row, fitted) in good {
                    groups.entry(&fitted.shapes).or_default().push(row);
                }
                groups.into_values().collect()
            }
        }
    }

    fn run_group(&self, rows: &[(&[Tensor], &Fitted)]) -> Result<Vec<Vec<Tensor>>, RunError> {
        let outputs = self.outputs();
        let inputs = rows::stack(rows, &self.inputs, self.rows);
        let stacks = self.ready.run(inputs).map_err(|failure| match failure {
            Failure::Problem(problem) => RunError::Engine {
                engine: self.ready.name(),
                rows: rows.len(),
                problem,
            },
            Failure::OutputType { output, found } => RunError::OutputType {
                output: outputs
                    .get(output)
                    .map_or_else(String::new, |port| port.name.clone()),
                found,
            },
        })?;
        rows::split(stacks, &outputs, rows.len(), self.rows)
    }

    /// Whether a pipeline's types are the model's.
    pub(crate) fn check_types<I: TensorRow, O: TensorRow>(&self) -> Result<(), TypeError> {
        let inputs: Vec<&Port> = self.inputs.iter().collect();
        let error = |what, ports: &[&Port], wanted, problem| TypeError {
            what,
            ports: ports.iter().map(ToString::to_string).collect(),
            wanted,
            problem,
        };
        I::fits(&inputs).map_err(|problem| error("inputs", &inputs, type_name::<I>(), problem))?;
        let outputs = self.outputs();
        O::fits(&outputs).map_err(|problem| error("outputs", &outputs, type_name::<O>(), problem))
    }
}

fn read(bytes: &[u8], path: Option<&Path>, options: &ModelOptions) -> Result<Model, ParseError> {
    let folder = path.map(|path| path.parent().unwrap_or(Path::new("")));
    let file = File::read(bytes, folder)?;
    let (inputs, outputs) = (file.inputs.clone(), file.outputs.clone());
    let chosen = match &options.outputs {
        None => (0..outputs.len()).collect(),
        Some(names) => choose(names, &outputs)?,
    };
    let (opset, sha256) = (file.opset(), file.sha256.clone());
    let source = Source {
        file,
        bytes,
        path,
        outputs: &chosen,
    };
    let (ready, rows) = options.engine.load(source, Rows::of(&inputs, &outputs))?;
    Ok(Model {
        ready,
        rows,
        inputs,
        outputs,
        chosen,
        opset,
        sha256,
    })
}

fn choose(names: &[String], outputs: &[Port]) -> Result<Vec<usize>, ParseError> {
    let place = |name: &String| {
        let found = outputs.iter().position(|output| output.name == *name);
        found.ok_or_else(|| ParseError::Output {
            name: name.clone(),
            outputs: outputs.iter().map(Port::to_string).collect(),
        })
    };
    match names {
        [] => Err(ParseError::Missing(
            "outputs that were chosen: with_outputs got an empty list",
        )),
        names => names.iter().map(place).collect(),
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("engine", &self.ready.name())
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs())
            .field("rows", &self.rows)
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}
