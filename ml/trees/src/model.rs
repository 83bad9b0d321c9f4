//! A model that is ready to predict.

use std::path::Path;

use purlin_inference::hash_bytes;

use crate::error::{LoadError, ParseError};
use crate::forest::{Forest, TooLarge};
use crate::parse::{self, Objective};

/// A LightGBM model; see the [crate](crate).
#[derive(Debug, Clone)]
pub struct Model {
    pub(crate) forest: Forest,
    pub(crate) objective: Objective,
    pub(crate) average: bool,
    scores: usize,
    feature_names: Vec<String>,
    version: &'static str,
    sha256: String,
}

impl Model {
    /// Reads a model file, which `save_model` of LightGBM wrote.
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
            source,
        })
    }

    /// Reads a model from a file's bytes, or from what `model_to_string` gives.
    ///
    /// # Errors
    /// The first thing that is wrong: what is read without an error predicts without one, too.
    pub fn parse(bytes: &[u8]) -> Result<Model, ParseError> {
        let parsed = parse::parse(bytes)?;
        let features = parsed.feature_names.len();
        Ok(Model {
            forest: Forest::new(&parsed.trees, features)
                .map_err(|TooLarge { tree, limit }| ParseError::TooLarge { tree, limit })?,
            objective: parsed.objective,
            average: parsed.average,
            scores: parsed.trees_per_iteration,
            feature_names: parsed.feature_names,
            version: parsed.version,
            sha256: hash_bytes(bytes),
        })
    }

    /// The SHA-256 of the bytes that it was read from, as 64 hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The features of a row.
    pub fn num_features(&self) -> usize {
        self.feature_names.len()
    }

    /// Their names, in the order of a row.
    pub fn feature_names(&self) -> &[String] {
        &self.feature_names
    }

    /// The raw scores of a row: one for each class when there are more than two, else one.
    pub fn num_scores(&self) -> usize {
        self.scores
    }

    /// All trees.
    pub fn num_trees(&self) -> usize {
        self.forest.trees.len()
    }

    /// The rounds of training; each made a tree for each score.
    pub fn num_iterations(&self) -> usize {
        self.num_trees() / self.scores
    }

    /// The version of the file's format: `v3` or `v4`.
    pub fn version(&self) -> &'static str {
        self.version
    }
}
