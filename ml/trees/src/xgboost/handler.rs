//! XGBoost's models for `RunInference`.

use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use purlin::prelude::*;
use purlin_inference::{BatchSizes, ModelFile, ModelHandler};

use super::model::Model;
use super::predict::{Iterations, Output, PredictOptions, Value};

/// Applies an XGBoost model to rows of features; see the [module](crate::xgboost).
///
/// An example is a row, `Vec<f32>` or (by [`XgBoost::with_f64_rows`]) `Vec<f64>`, which is rounded to `f32` as XGBoost does; NaN is a
/// missing value. A category is its number. An inference is a `Vec<f32>`, which [`Output`] tells of. A row with another number of
/// features than the model's is an error.
#[derive(Debug, Clone)]
pub struct XgBoost<V = f32> {
    file: ModelFile,
    options: PredictOptions,
    sizes: BatchSizes,
    values: PhantomData<fn() -> V>,
}

impl XgBoost {
    /// The model in a file, which is read where the rows are: all workers must have it.
    pub fn from_path(path: impl AsRef<Path>) -> XgBoost {
        XgBoost::of(ModelFile::at(path))
    }

    /// A model that the program holds, by a name for results and errors. It travels with the program.
    pub fn from_bytes(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> XgBoost {
        XgBoost::of(ModelFile::held(name, bytes))
    }

    fn of(file: ModelFile) -> XgBoost {
        XgBoost {
            file,
            options: PredictOptions::default(),
            sizes: BatchSizes { min: 1, max: 1024 },
            values: PhantomData,
        }
    }

    /// Takes rows of `f64`.
    #[must_use]
    pub fn with_f64_rows(self) -> XgBoost<f64> {
        XgBoost {
            file: self.file,
            options: self.options,
            sizes: self.sizes,
            values: PhantomData,
        }
    }
}

impl<V> XgBoost<V> {
    /// What is wanted for each row. Predictions, unless told.
    #[must_use]
    pub fn with_output(mut self, output: Output) -> Self {
        self.options.output = output;
        self
    }

    /// Which rounds of training count. All, unless told.
    #[must_use]
    pub fn with_iterations(mut self, iterations: Iterations) -> Self {
        self.options.iterations = iterations;
        self
    }

    /// This value is missing, too. NaN alone, unless told.
    #[must_use]
    pub fn with_missing(mut self, missing: f32) -> Self {
        self.options.missing = missing;
        self
    }

    /// So many threads share a large batch. One, unless told: bundles run side by side.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.options.threads = threads;
        self
    }

    /// The smallest and the largest batch. 1 and 1024, unless told.
    #[must_use]
    pub fn with_batch_sizes(mut self, sizes: BatchSizes) -> Self {
        self.sizes = sizes;
        self
    }
}

impl<V: Value> ModelHandler for XgBoost<V> {
    type Example = Vec<V>;
    type Inference = Vec<f32>;
    type Model = Model;

    fn model_id(&self) -> String {
        self.file.id("XGBoost")
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

    fn run(&self, batch: &[&Vec<V>], model: &Model) -> Result<Vec<Vec<f32>>, BoxError> {
        let width = model.width(&self.options)?;
        let values = model.predict(batch, &self.options)?;
        Ok((0..batch.len())
            .map(|row| values[row * width..(row + 1) * width].to_vec())
            .collect())
    }

    fn batch_sizes(&self) -> BatchSizes {
        self.sizes
    }

    fn update_model_path(&self, path: &str) -> Result<Self, BoxError> {
        let mut other = self.clone();
        other.file = ModelFile::at(path);
        Ok(other)
    }
}
