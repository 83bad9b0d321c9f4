//! What can be wrong with a model, and with rows.

use std::fmt;
use std::io;

use thiserror::Error;

use crate::datatype::Datatype;
use crate::port::listed;

/// A node of a model's graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name; that of its first output, if it has none.
    pub name: String,
    /// Its operator, with the domain if that is not ONNX's own.
    pub operator: String,
    /// The version of the domain's operators that the model asks for; 0 where it does not say.
    pub opset: i64,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (operator {}, opset {})",
            self.name, self.operator, self.opset
        )
    }
}

/// Why bytes are not a model that can be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Nothing to read.
    #[error("it has 0 bytes: expected ONNX")]
    Empty,
    /// Something else.
    #[error("it is not ONNX: {0}")]
    NotOnnx(String),
    /// The file was cut off.
    #[error("it is ONNX that was cut off: {0}")]
    CutOff(String),
    /// A tensor is in a file of its own, which is not there.
    #[error("the tensor {tensor} is in the file {file}: {problem}")]
    ExternalData {
        /// The tensor.
        tensor: String,
        /// The file, as the model names it.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Operators that the engine does not have.
    #[error("{engine} does not have what these nodes ask for: {}; {advice}", listed(.nodes))]
    Operators {
        /// The engine.
        engine: &'static str,
        /// The nodes: the first one of each operator.
        nodes: Vec<Node>,
        /// What to do.
        advice: &'static str,
    },
    /// An input of a type that rows cannot have.
    #[error(
        "the input {name} is {found}, which rows cannot have: export the model with an input of another type"
    )]
    InputType {
        /// The input.
        name: String,
        /// Its type.
        found: String,
    },
    /// No such output.
    #[error("there is no output {name}: the model has {}", listed(.outputs))]
    Output {
        /// What was asked for.
        name: String,
        /// The model's outputs.
        outputs: Vec<String>,
    },
    /// A graph that has no inputs or no outputs.
    #[error("its graph has no {0}")]
    Missing(&'static str),
    /// The engine cannot use the graph.
    #[error("{engine} cannot use its graph, of opset {opset}: {problem}")]
    Graph {
        /// The engine.
        engine: &'static str,
        /// The version of ONNX's operators that the model asks for.
        opset: i64,
        /// What the engine says; of most errors with the node.
        problem: String,
    },
    /// The engine itself is not there.
    #[error("{engine} cannot be had: {problem}")]
    Engine {
        /// The engine.
        engine: &'static str,
        /// Why, and what to do.
        problem: String,
    },
}

/// Why a model file cannot be loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the model file {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// The system's error.
        source: io::Error,
    },
    /// What it holds is not a model that can be used.
    #[error("cannot use the model file {path}: {source}")]
    Parse {
        /// The file.
        path: String,
        /// What is wrong.
        source: Box<ParseError>,
    },
}

/// What is wrong with one row.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RowError {
    /// A tensor for an input that is not there.
    #[error("there is no input {name}: the model has {}", listed(.inputs))]
    NoInput {
        /// The tensor's name, or its place among the row's tensors if it has none.
        name: String,
        /// The model's inputs.
        inputs: Vec<String>,
    },
    /// An input without a tensor.
    #[error("the input {input} has no tensor")]
    Missing {
        /// The input, with its type and shape.
        input: String,
    },
    /// Two tensors for an input.
    #[error("the input {input} has two tensors")]
    Twice {
        /// The input.
        input: String,
    },
    /// Values of another type.
    #[error("the input {input} is {expected}, the row has {found}")]
    Datatype {
        /// The input.
        input: String,
        /// Its type.
        expected: Datatype,
        /// The type of the row's values.
        found: Datatype,
    },
    /// Another shape.
    #[error("the input {input} has the shape {expected}, the row has {found}")]
    Shape {
        /// The input.
        input: String,
        /// Its shape, without the dimension of the rows.
        expected: String,
        /// The shape of the row's tensor.
        found: String,
    },
    /// A tensor whose values do not fill its shape.
    #[error("the tensor for the input {input} has {found} values, its shape {shape} has {expected}")]
    Count {
        /// The input.
        input: String,
        /// The tensor's values.
        found: usize,
        /// The tensor's shape.
        shape: String,
        /// The values of that shape.
        expected: usize,
    },
}

/// Why there are no results.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RunError {
    /// A row that the model does not take.
    #[error("row {row}: {source}")]
    Row {
        /// The row, counted from 0 within the batch.
        row: usize,
        /// What is wrong with it.
        source: RowError,
    },
    /// The engine failed.
    #[error("{engine} failed on {rows} rows: {problem}")]
    Engine {
        /// The engine.
        engine: &'static str,
        /// How many rows it was given.
        rows: usize,
        /// What it says; of most errors with the node.
        problem: String,
    },
    /// An output that is not one part for each row.
    #[error(
        "the output {output} has the shape {shape} for {rows} rows: expected {rows} as its first dimension"
    )]
    Rows {
        /// The output.
        output: String,
        /// Its shape.
        shape: String,
        /// How many rows the model was given.
        rows: usize,
    },
    /// An output of a type that has none here.
    #[error(
        "the output {output} is {found}, which has no type here: choose other outputs, or export the model with another type"
    )]
    OutputType {
        /// The output.
        output: String,
        /// Its type.
        found: String,
    },
    /// Outputs that do not make a result of the pipeline's type.
    #[error("{0}")]
    Result(String),
}

/// Why a model does not fit the types of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the model's {what} are {}, the pipeline's type is {wanted}: {problem}", listed(.ports))]
pub(crate) struct TypeError {
    pub what: &'static str,
    pub ports: Vec<String>,
    pub wanted: &'static str,
    pub problem: String,
}
