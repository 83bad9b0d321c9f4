//! What can be wrong with a model file, and with rows.

use std::{fmt, io};

use purlin_json::Fault;
use thiserror::Error;

/// A part of a model file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What is outside of the trees.
    Learner,
    /// A tree, counted from 0 as in the file.
    Tree(usize),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Learner => f.write_str("the learner"),
            Part::Tree(tree) => write!(f, "tree {tree}"),
        }
    }
}

/// Why a file is not a model that can be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Nothing to read.
    #[error("the file is empty: expected a model of XGBoost as JSON or UBJSON")]
    Empty,
    /// Something else.
    #[error(
        "the file begins with {found}: expected a model of XGBoost as JSON or UBJSON, as `save_model` writes it to `model.json` or `model.ubj`"
    )]
    NotAModel {
        /// Its first bytes.
        found: String,
    },
    /// No JSON, or not all of it.
    #[error("{part}: {fault}")]
    Broken {
        /// Where.
        part: Part,
        /// What is wrong.
        fault: Fault,
    },
    /// A key that is not there.
    #[error("{part} has no `{key}`")]
    Missing {
        /// Where.
        part: Part,
        /// The key, with those that it is in.
        key: &'static str,
    },
    /// A value that cannot be.
    #[error("{part}: a value of `{key}` is `{found}`: expected {expected}")]
    Value {
        /// Where.
        part: Part,
        /// The key.
        key: &'static str,
        /// The value.
        found: String,
        /// What may stand there.
        expected: String,
    },
    /// Too few or too many values.
    #[error("{part}: `{key}` has {found} values: expected {expected}, {why}")]
    Count {
        /// Where.
        part: Part,
        /// The key.
        key: &'static str,
        /// The values there.
        found: usize,
        /// The values that belong there.
        expected: usize,
        /// Why so many.
        why: &'static str,
    },
    /// Children that make no tree.
    #[error(
        "tree {tree}: `left_children` and `right_children` lead to node {node} more than once: expected a tree"
    )]
    Twice {
        /// The tree.
        tree: usize,
        /// The node.
        node: usize,
    },
    /// Trees that give several values at once.
    #[error(
        "tree {tree} has leaves of {values} values (`size_leaf_vector`), which are not supported: train with `multi_strategy=\"one_output_per_tree\"`"
    )]
    VectorLeaves {
        /// The tree.
        tree: usize,
        /// The values of a leaf.
        values: usize,
    },
    /// More than can be counted.
    #[error("tree {tree}: the model has more than {limit} nodes, or words of sets of categories")]
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
    /// Iterations that the model does not have.
    #[error(
        "iterations {from} to {to} are asked for: expected some of the model's {iterations}, counted from 0, without the last"
    )]
    Iterations {
        /// The first one.
        from: usize,
        /// The one behind the last one.
        to: usize,
        /// The model's.
        iterations: usize,
    },
    /// A linear model has no trees.
    #[error("{what} are asked for, but the model's booster is `gblinear`: it has no trees")]
    Linear {
        /// What was asked for.
        what: &'static str,
    },
}
