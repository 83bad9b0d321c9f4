//! `RunInference`: a model of any kind applied to the elements of a collection, in batches.
//!
//! A [`ModelHandler`] says how a model is loaded and run; the transform batches the elements, loads the model once per process, shares
//! it between all threads, measures, and keeps bad elements apart from good ones. The guide's page on inference,
//! `docs/guide/inference.md`, shows all of it.
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

mod batching;
mod bisect;
mod call;
mod error;
mod expand;
mod failures;
mod handler;
mod hash;
mod helper;
mod infer;
mod memory;
mod metrics;
mod model_file;
mod models;
mod result;
mod shadow;
mod shape;
mod share;
mod shared;
mod steps;
mod transform;
mod update;

pub use batching::{BatchSizes, Batching, LastBatch};
pub use bisect::bisect;
pub use error::{InferenceError, LoadError, StepError};
pub use failures::TooManyFailures;
pub use handler::{ModelFn, ModelHandler, TakesArgs, WithArgs};
pub use hash::hash_bytes;
pub use memory::{MemoryEstimate, MemoryPlan};
pub use model_file::ModelFile;
pub use result::{FailedExample, PredictionResult, RunInferenceDlq};
pub use shadow::TooManyDisagreements;
pub use shape::{Keyed, Shape, Unkeyed};
pub use shared::shared_model;
pub use steps::{Chain, NoSteps, Postprocessing, Preprocess, Preprocessing, Steps};
pub use transform::{AllDeadLetters, DeadLetters, FailBundle, RunInference};
pub use update::ModelMetadata;

/// The code in the guide's page is tested with that of the reference.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../../docs/guide/inference.md")]
    mod inference {}
}
