//! `RunInference`: a model of any kind applied to the elements of a collection, in batches.
//!
//! A [`ModelHandler`] says how a model is loaded and run; the transform batches the elements, loads the model once per process, shares
//! it between all threads, measures, and keeps bad elements apart from good ones.
//!
//! ```
//! use purlin::prelude::*;
//! use purlin_inference::{ModelHandler, RunInference};
//!
//! /// A "model" that multiplies.
//! #[derive(Clone)]
//! struct Times(i64);
//!
//! impl ModelHandler for Times {
//!     type Example = i64;
//!     type Inference = i64;
//!     type Model = i64;
//!
//!     fn model_id(&self) -> String {
//!         format!("times {}", self.0)
//!     }
//!
//!     fn load(&self) -> Result<i64, BoxError> {
//!         Ok(self.0)
//!     }
//!
//!     fn run(&self, batch: &[&i64], model: &i64) -> Result<Vec<i64>, BoxError> {
//!         Ok(batch.iter().map(|example| *example * model).collect())
//!     }
//! }
//!
//! let p = Pipeline::new();
//! let results = p.apply(Create::new([1i64, 2, 3])).apply(RunInference::new(Times(10)));
//! results.map("Show", |result| println!("{} gives {}", result.example, result.inference));
//! p.run(&PipelineOptions::default())?;
//! # Ok::<(), RunError>(())
//! ```

#![forbid(unsafe_code)]
// What a client, a worker or a file says is answered with an error, never with a panic; and programs say what they have to say in
// their logs.
#![cfg_attr(
    not(test),
    warn(
        clippy::expect_used,
        clippy::panic,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod bisect;
mod infer;
mod result;
mod shared;

use std::marker::PhantomData;

use purlin::prelude::*;
use purlin::transforms::BatchElements;
use thiserror::Error;

pub use bisect::bisect;
use infer::{Infer, Keyed, Shape, Unkeyed};
pub use result::{FailedExample, PredictionResult};
pub use shared::shared_model;

/// How a model is loaded and run.
///
/// The handler travels to the workers with the pipeline; the model does not, it is loaded there.
pub trait ModelHandler: Clone + Send + Sync + 'static {
    /// What the model is given.
    type Example: Element;
    /// What the model gives for one example.
    type Inference: Element;
    /// The loaded model, which all threads share.
    type Model: Send + Sync + 'static;

    /// Names the model in results and errors.
    fn model_id(&self) -> String;

    /// Holds all that the loaded model depends on: handlers of one type that give the same key share one model in a process. The
    /// model's name, unless told.
    fn model_key(&self) -> String {
        self.model_id()
    }

    /// Loads the model. Called once per process and model, from a worker's set-up.
    ///
    /// # Errors
    /// Any error fails the bundle, with the model's name.
    fn load(&self) -> Result<Self::Model, BoxError>;

    /// Applies the model to a batch: one inference for each example, in the same order.
    ///
    /// # Errors
    /// An error concerns the whole batch; the transform then runs parts of it to find the examples at fault, if dead letters are
    /// kept, and fails the bundle otherwise.
    fn run(&self, batch: &[&Self::Example], model: &Self::Model) -> Result<Vec<Self::Inference>, BoxError>;

    /// The smallest and largest batch. Sizes between them adapt to what the model's time is best spent on.
    fn batch_sizes(&self) -> BatchSizes {
        BatchSizes::default()
    }
}

/// How large batches are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSizes {
    /// At least this, if the bundle has as many.
    pub min: usize,
    /// At most this.
    pub max: usize,
}

impl Default for BatchSizes {
    /// Between 1 and 64.
    fn default() -> Self {
        BatchSizes { min: 1, max: 64 }
    }
}

/// A model that cannot be loaded.
#[derive(Debug, Error)]
#[error("cannot load the model {model}: {source}")]
pub struct LoadError {
    /// The model's name.
    pub model: String,
    /// The handler's error.
    pub source: BoxError,
}

/// Applies a model to each element; see the [crate](self).
///
/// Output: a [`PredictionResult`] for each element. Metrics, in the namespace `RunInference`, are Beam's: `num_inferences`,
/// `inference_batch_size`, `inference_batch_latency_micro_secs`, `load_model_latency_milli_secs` and `failed_batches_counter`.
#[derive(Debug, Clone)]
pub struct RunInference<H, S = Unkeyed, Dead = FailBundle> {
    handler: H,
    shape: PhantomData<S>,
    dead: PhantomData<Dead>,
}

/// An example that fails fails its bundle, and the pipeline after some tries.
#[derive(Debug, Clone, Copy)]
pub struct FailBundle;

/// An example that fails goes to a second output.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetters;

impl<H: ModelHandler> RunInference<H> {
    /// Applies the handler's model to a collection of examples.
    pub fn new(handler: H) -> RunInference<H> {
        RunInference {
            handler,
            shape: PhantomData,
            dead: PhantomData,
        }
    }

    /// Applies it to a collection of pairs of a key and an example; the key stays with the result.
    pub fn keyed<K: Element>(handler: H) -> RunInference<H, Keyed<K>> {
        RunInference {
            handler,
            shape: PhantomData,
            dead: PhantomData,
        }
    }
}

impl<H: ModelHandler, S> RunInference<H, S> {
    /// Adds a second output, of [`FailedExample`]s: the examples that the model fails on, each with its error. When a batch fails, it
    /// is halved until the examples at fault stand alone; the rest goes on.
    #[must_use]
    pub fn with_dead_letters(self) -> RunInference<H, S, DeadLetters> {
        RunInference {
            handler: self.handler,
            shape: PhantomData,
            dead: PhantomData,
        }
    }
}

impl<H: ModelHandler, S: Shape<H>> PTransform<PCollection<S::In>> for RunInference<H, S, FailBundle> {
    type Output = PCollection<S::Out>;

    fn name(&self) -> String {
        "RunInference".into()
    }

    fn expand(self, input: PCollection<S::In>) -> Self::Output {
        let BatchSizes { min, max } = self.handler.batch_sizes();
        input
            .apply(BatchElements::new(min, max))
            .apply(ParDo::new("Infer", Infer::<H, S>::new(self.handler, None)))
    }
}

impl<H: ModelHandler, S: Shape<H>> PTransform<PCollection<S::In>> for RunInference<H, S, DeadLetters> {
    type Output = (PCollection<S::Out>, PCollection<FailedExample<S::In>>);

    fn name(&self) -> String {
        "RunInference".into()
    }

    fn expand(self, input: PCollection<S::In>) -> Self::Output {
        let BatchSizes { min, max } = self.handler.batch_sizes();
        let failed = OutputTag::new("failed");
        let infer = Infer::<H, S>::new(self.handler, Some(failed.clone()));
        input
            .apply(BatchElements::new(min, max))
            .apply(ParDo::new("Infer", infer).with_outputs(&failed))
    }
}
