//! What can go wrong.

use std::time::Duration;

use purlin::BoxError;
use thiserror::Error;

/// A model that cannot be loaded.
#[derive(Debug, Error)]
#[error("cannot load the model {model}: {source}")]
pub struct LoadError {
    /// The model's name.
    pub model: String,
    /// The handler's error.
    pub source: BoxError,
}

/// A batch that a model does not run.
#[derive(Debug, Error)]
pub enum InferenceError {
    /// Memory does not suffice for the batch: a handler says so by this, and smaller batches are run from then on.
    #[error("out of memory: {0}")]
    OutOfMemory(BoxError),
    /// The model cannot be asked at present, whatever the examples: a handler says so by this, and the bundle fails, so that it is
    /// tried again later, also where failures have outputs.
    #[error("the model is not available: {0}")]
    Unavailable(BoxError),
    /// The model gave more or fewer inferences than examples.
    #[error("model {model} gave {found} inferences for {wanted} examples")]
    Count {
        /// The model's name.
        model: String,
        /// Inferences.
        found: usize,
        /// Examples.
        wanted: usize,
    },
    /// The model did not answer in time.
    #[error(
        "model {model} has not answered for a batch of {examples} within {limit:?}, its inference timeout; the thread it runs on \
         cannot be stopped and goes on"
    )]
    Timeout {
        /// The model's name.
        model: String,
        /// Examples in the batch.
        examples: usize,
        /// The limit.
        limit: Duration,
    },
    /// No handler is there for a key.
    #[error("no model handler is given for the element's key: give RunInference::per_key one for each")]
    NoHandler,
    /// A batch failed, and its elements are not kept apart.
    #[error("model {model} failed on a batch of {examples}: {source}")]
    Batch {
        /// The model's name.
        model: String,
        /// Examples in the batch.
        examples: usize,
        /// The handler's error.
        source: BoxError,
    },
}

/// A model that was not loaded in time.
#[derive(Debug, Error)]
#[error(
    "it is not there after {limit:?}, its load timeout; the thread that loads it cannot be stopped and goes on"
)]
pub(crate) struct LoadTimeout {
    pub limit: Duration,
}

/// A step before or behind the model that failed.
#[derive(Debug, Error)]
#[error("{step}: {source}")]
pub struct StepError {
    /// The step's name.
    pub step: String,
    /// Its error.
    pub source: BoxError,
}
