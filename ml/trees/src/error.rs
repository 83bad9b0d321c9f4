//! What can be wrong with a model file, and with rows.

use std::fmt;
use std::io;

use thiserror::Error;

/// A part of a model file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The lines before the first tree.
    Header,
    /// A tree, counted from 0 as in the file.
    Tree(usize),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Header => f.write_str("the header"),
            Part::Tree(tree) => write!(f, "tree {tree}"),
        }
    }
}

/// Why a file is not a model that can be used. Lines are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Nothing to read.
    #[error("the file is empty: expected a LightGBM text model, which begins with the line `tree`")]
    Empty,
    /// Bytes that are no text.
    #[error("line {line} is not text (UTF-8): expected a LightGBM text model, as `save_model` writes it")]
    NotText {
        /// The first such line.
        line: usize,
    },
    /// Text, but not a model.
    #[error("line 1 is `{found}`: a LightGBM text model begins with the line `tree`")]
    NotAModel {
        /// The begin of the line.
        found: String,
    },
    /// A format that is not known.
    #[error("line {line}: the format is version `{found}`: expected `v3` or `v4`")]
    Version {
        /// The line.
        line: usize,
        /// What it says.
        found: String,
    },
    /// A line that is not there.
    #[error("{part}, lines {first} to {last}, has no line `{key}=`")]
    Missing {
        /// Where.
        part: Part,
        /// The first line of the part.
        first: usize,
        /// The last line of the part.
        last: usize,
        /// The line's key.
        key: &'static str,
    },
    /// A value that cannot be.
    #[error("{part}, line {line}: a value of `{key}` is `{found}`: expected {expected}")]
    Value {
        /// Where.
        part: Part,
        /// The line.
        line: usize,
        /// The line's key.
        key: &'static str,
        /// The begin of the value.
        found: String,
        /// What may stand there.
        expected: String,
    },
    /// Too few or too many values.
    #[error("{part}, line {line}: `{key}` has {found} values: expected {expected}, {why}")]
    Count {
        /// Where.
        part: Part,
        /// The line.
        line: usize,
        /// The line's key.
        key: &'static str,
        /// The values on the line.
        found: usize,
        /// The values that belong there.
        expected: usize,
        /// Why so many.
        why: &'static str,
    },
    /// A line that belongs elsewhere.
    #[error("line {line} is `{found}`: expected {expected}")]
    Line {
        /// The line.
        line: usize,
        /// Its begin.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// Children that make no tree.
    #[error(
        "tree {tree}, lines {first} and {second}: `left_child` and `right_child` lead to {what} more than once: expected a tree"
    )]
    Twice {
        /// The tree.
        tree: usize,
        /// The line of the left children.
        first: usize,
        /// The line of the right children.
        second: usize,
        /// The node or the leaf.
        what: String,
    },
    /// Nodes outside the tree.
    #[error(
        "tree {tree}, lines {first} and {second}: `left_child` and `right_child` lead to {reached} of the {nodes} splits from the first one: expected all of them"
    )]
    Unreached {
        /// The tree.
        tree: usize,
        /// The line of the left children.
        first: usize,
        /// The line of the right children.
        second: usize,
        /// The splits that are reached.
        reached: usize,
        /// All splits.
        nodes: usize,
    },
    /// The file was cut off.
    #[error("the file ends at line {line} without `end of trees` (trees so far: {trees}): it was cut off")]
    CutOff {
        /// The last line.
        line: usize,
        /// The trees before.
        trees: usize,
    },
    /// Not as many trees as the header tells.
    #[error("there are {found} trees: {expected}")]
    Trees {
        /// The trees in the file.
        found: usize,
        /// What the header tells.
        expected: String,
    },
    /// More nodes than can be counted.
    #[error("tree {tree}: the model has more than {limit} splits and leaves")]
    TooLarge {
        /// The first tree that is too much.
        tree: usize,
        /// The limit.
        limit: usize,
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
    /// What it holds is not a model.
    #[error("cannot use the model file {path}: {source}")]
    Parse {
        /// The file.
        path: String,
        /// What is wrong.
        source: ParseError,
    },
}

/// Why there are no predictions.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PredictError {
    /// A row of another model.
    #[error("row {row} has {found} features, the model has {expected}")]
    Features {
        /// The row, counted from 0 within the batch.
        row: usize,
        /// Its features.
        found: usize,
        /// The model's features.
        expected: usize,
    },
    /// Contributions are not defined for trees with linear leaves.
    #[error("tree {tree} has linear leaves: contributions are there for trees with constant leaves only")]
    LinearContributions {
        /// The tree.
        tree: usize,
    },
    /// Contributions are shares of the training rows, which the file does not tell.
    #[error("tree {tree} has no lines `leaf_count=` and `internal_count=`: contributions need them")]
    NoCounts {
        /// The tree.
        tree: usize,
    },
    /// Contributions take memory by the square of the depth.
    #[error("tree {tree} is {depth} splits deep: contributions are there up to {limit}")]
    TooDeep {
        /// The tree.
        tree: usize,
        /// Its depth.
        depth: usize,
        /// The limit.
        limit: usize,
    },
    /// The output has another size.
    #[error("the output has place for {found} values, the predictions are {expected}")]
    OutputSize {
        /// The length of the output.
        found: usize,
        /// The rows times the values of a row.
        expected: usize,
    },
}
