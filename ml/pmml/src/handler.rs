//! PMML models for `RunInference`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use purlin::prelude::*;
use purlin_inference::{BatchSizes, ModelHandler, hash_bytes};
use thiserror::Error;

use crate::error::{EvaluateError, ParseError};
use crate::model::Model;
use crate::record::{Prediction, Record};

/// Applies a PMML model to rows; see the [crate](crate).
///
/// An example is a [`Record`], an inference a [`Prediction`]. A row with a value that the document calls invalid is an error.
#[derive(Debug, Clone)]
pub struct Pmml {
    source: Source,
    sizes: BatchSizes,
}

#[derive(Debug, Clone)]
enum Source {
    /// A file that all workers can read.
    Path(PathBuf),
    /// What a file held.
    Bytes {
        name: String,
        key: String,
        bytes: Arc<[u8]>,
    },
}

/// Bytes that are not a model.
#[derive(Debug, Error)]
#[error("cannot use the model {name}: {source}")]
struct BytesError {
    name: String,
    source: ParseError,
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
        Pmml::of(Source::Path(path.as_ref().to_owned()))
    }

    /// A model that the program holds, by a name for results and errors. It travels with the program.
    pub fn from_bytes(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Pmml {
        let (name, bytes) = (name.into(), bytes.into());
        let key = format!("{name} {}", hash_bytes(&bytes));
        Pmml::of(Source::Bytes { name, key, bytes })
    }

    fn of(source: Source) -> Pmml {
        Pmml {
            source,
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
        match &self.source {
            Source::Path(path) => {
                let name = path.file_name().unwrap_or(path.as_os_str());
                format!("PMML {}", name.to_string_lossy())
            }
            Source::Bytes { name, .. } => format!("PMML {name}"),
        }
    }

    fn model_key(&self) -> String {
        match &self.source {
            Source::Path(path) => format!("path {}", path.display()),
            Source::Bytes { key, .. } => format!("bytes {key}"),
        }
    }

    fn model_hash(&self, model: &Model) -> Option<String> {
        Some(model.sha256().to_owned())
    }

    fn load(&self) -> Result<Model, BoxError> {
        match &self.source {
            Source::Path(path) => Ok(Model::load(path)?),
            Source::Bytes { name, bytes, .. } => Ok(Model::parse(bytes).map_err(|source| BytesError {
                name: name.clone(),
                source,
            })?),
        }
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
        let mut handler = Pmml::from_path(path);
        handler.sizes = self.sizes;
        Ok(handler)
    }
}
