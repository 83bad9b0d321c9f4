//! A model that is ready to predict.

use std::path::Path;

use purlin_inference::hash_bytes;

use super::error::{LoadError, ParseError};
use super::objective::Objective;
use super::parse::{self, Parsed};
use crate::forest::{Forest, TooLarge};

/// An XGBoost model; see the [module](crate::xgboost).
#[derive(Debug, Clone)]
pub struct Model {
    pub(super) booster: Booster,
    pub(super) objective: Objective,
    /// What each row's margins begin with.
    pub(super) base: Vec<f32>,
    features: usize,
    feature_names: Vec<String>,
    best_iteration: Option<usize>,
    version: String,
    sha256: String,
}

#[derive(Debug, Clone)]
pub(super) enum Booster {
    Trees(Box<Trees>),
    Linear(Vec<f32>),
}

#[derive(Debug, Clone)]
pub(super) struct Trees {
    pub forest: Forest,
    pub groups: Vec<u32>,
    pub weights: Option<Vec<f32>>,
    pub iterations: Vec<usize>,
}

impl Model {
    /// Reads a model file, which `save_model` of XGBoost wrote.
    ///
    /// # Errors
    /// Each names the file, and what is wrong with it at which tree and key.
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

    /// Reads a model from a file's bytes, or from what `save_raw("json")` or `save_raw("ubj")` gives.
    ///
    /// # Errors
    /// The first thing that is wrong: what is read without an error predicts without one, too.
    pub fn parse(bytes: &[u8]) -> Result<Model, ParseError> {
        let Parsed {
            version,
            objective,
            features,
            feature_names,
            booster,
            base,
            best_iteration,
        } = parse::parse(bytes)?;
        let booster = match booster {
            parse::Booster::Linear { weights } => Booster::Linear(weights),
            parse::Booster::Trees {
                trees,
                groups,
                weights,
                iterations,
            } => {
                let forest = Forest::new(&trees, features)
                    .map_err(|TooLarge { tree, limit }| ParseError::TooLarge { tree, limit })?;
                Booster::Trees(Box::new(Trees {
                    forest: forest.with_categories_from_zero(),
                    groups,
                    weights,
                    iterations,
                }))
            }
        };
        Ok(Model {
            booster,
            objective,
            base,
            features,
            feature_names,
            best_iteration,
            version,
            sha256: hash_bytes(bytes),
        })
    }

    /// The SHA-256 of the bytes that it was read from, as 64 hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The features of a row.
    pub fn num_features(&self) -> usize {
        self.features
    }

    /// Their names, in the order of a row; none where the model was trained without.
    pub fn feature_names(&self) -> &[String] {
        &self.feature_names
    }

    /// The margins of a row: one for each class or target.
    pub fn num_margins(&self) -> usize {
        self.base.len()
    }

    /// All trees.
    pub fn num_trees(&self) -> usize {
        match &self.booster {
            Booster::Trees(trees) => trees.groups.len(),
            Booster::Linear(_) => 0,
        }
    }

    /// The rounds of training; of a linear model none.
    pub fn num_iterations(&self) -> usize {
        match &self.booster {
            Booster::Trees(trees) => trees.iterations.len() - 1,
            Booster::Linear(_) => 0,
        }
    }

    /// The best round, from 0, where training stopped early.
    pub fn best_iteration(&self) -> Option<usize> {
        self.best_iteration
    }

    /// The version of XGBoost that wrote it, such as `3.2.0`.
    pub fn version(&self) -> &str {
        &self.version
    }
}
