//! PMML models for `RunInference`.

use std::path::Path;
use std::sync::Arc;

use purlin::prelude::*;
use purlin_inference::{BatchSizes, ModelFile, ModelHandler};
use thiserror::Error;

use crate::error::EvaluateError;
use crate::model::Model;
use crate::record::{Prediction, Record};

/// Applies a PMML model to rows; see the [crate](crate).
///
/// An example is a [`Record`], an inference a [`Prediction`]. A row with a value that the document calls invalid is an error.
#[derive(Debug, Clone)]
pub struct Pmml {
    file: ModelFile,
    sizes: BatchSizes,
}

/// A row without a prediction.
#[derive(Debug, Error)]
#[error("row {row}: {source}")]
struct RowError {
    row: usize,
    source: EvaluateError,
}

impl Pmml {
    /// The model in a file, which is read where the rows are: all workers must have it.
    pub fn from_path(path: impl AsRef<Path>) -> Pmml {
        Pmml::of(ModelFile::at(path))
    }

    /// A model that the program holds, by a name for results and errors. It travels with the program.
    pub fn from_bytes(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Pmml {
        Pmml::of(ModelFile::held(name, bytes))
    }

    fn of(file: ModelFile) -> Pmml {
        Pmml {
            file,
            sizes: BatchSizes { min: 1, max: 1024 },
        }
    }

    /// The smallest and the largest batch. 1 and 1024, unless told.
    #[must_use]
    pub fn with_batch_sizes(mut self, sizes: BatchSizes) -> Pmml {
        self.sizes = sizes;
        self
    }
}

impl ModelHandler for Pmml {
    type Example = Record;
    type Inference = Prediction;
    type Model = Model;

    fn model_id(&self) -> String {
        self.file.id("PMML")
    }

    fn model_key(&self) -> String {
        self.file.key()
    }

    fn model_hash(&self, model: &Model) -> Option<String> {
        Some(model.sha256().to_owned())
    }

    fn load(&self) -> Result<Model, BoxError> {
        self.file.load(|path| Model::load(path), Model::parse)
    }

    fn run(&self, batch: &[&Record], model: &Model) -> Result<Vec<Prediction>, BoxError> {
        let predictions = batch.iter().enumerate().map(|(row, record)| {
            let prediction = model.evaluate(record);
            prediction.map_err(|source| BoxError::from(RowError { row, source }))
        });
        predictions.collect()
    }

    fn batch_sizes(&self) -> BatchSizes {
        self.sizes
    }

    fn update_model_path(&self, path: &str) -> Result<Pmml, BoxError> {
        Ok(Pmml::from_path(path).with_batch_sizes(self.sizes))
    }
}
