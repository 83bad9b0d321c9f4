//! LightGBM's models for `RunInference`.

use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use purlin::prelude::*;
use purlin_inference::{BatchSizes, ModelFile, ModelHandler};

use crate::model::Model;
use crate::predict::{Output, PredictOptions, Value};

/// Applies a LightGBM model to rows of features; see the [crate](crate).
///
/// An example is a row, `Vec<f64>` or (by [`LightGbm::with_f32_rows`]) `Vec<f32>`; NaN is a missing value. An inference is a
/// `Vec<f64>`, which [`Output`] tells of. A row with another number of features than the model's is an error.
#[derive(Debug, Clone)]
pub struct LightGbm<V = f64> {
    file: ModelFile,
    options: PredictOptions,
    sizes: BatchSizes,
    values: PhantomData<fn() -> V>,
}

impl LightGbm {
    /// The model in a file, which is read where the rows are: all workers must have it.
    pub fn from_path(path: impl AsRef<Path>) -> LightGbm {
        LightGbm::of(ModelFile::at(path))
    }

    /// A model that the program holds, by a name for results and errors. It travels with the program.
    pub fn from_bytes(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> LightGbm {
        LightGbm::of(ModelFile::held(name, bytes))
    }

    fn of(file: ModelFile) -> LightGbm {
        LightGbm {
            file,
            options: PredictOptions::default(),
            sizes: BatchSizes { min: 1, max: 1024 },
            values: PhantomData,
        }
    }

    /// Takes rows of `f32`.
    #[must_use]
    pub fn with_f32_rows(self) -> LightGbm<f32> {
        LightGbm {
            file: self.file,
            options: self.options,
            sizes: self.sizes,
            values: PhantomData,
        }
    }
}

impl<V> LightGbm<V> {
    /// What is wanted for each row. Predictions, unless told.
    #[must_use]
    pub fn with_output(mut self, output: Output) -> Self {
        self.options.output = output;
        self
    }

    /// The first iteration that counts, from 0.
    #[must_use]
    pub fn with_start_iteration(mut self, start: usize) -> Self {
        self.options.start_iteration = start;
        self
    }

    /// How many iterations count. All, unless told.
    #[must_use]
    pub fn with_num_iteration(mut self, count: NonZeroUsize) -> Self {
        self.options.num_iteration = Some(count);
        self
    }

    /// Takes rows of any width: features too few are 0, features too many are ignored.
    #[must_use]
    pub fn with_any_width(mut self) -> Self {
        self.options.any_width = true;
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

impl<V: Value> ModelHandler for LightGbm<V> {
    type Example = Vec<V>;
    type Inference = Vec<f64>;
    type Model = Model;

    fn model_id(&self) -> String {
        self.file.id("LightGBM")
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

    fn run(&self, batch: &[&Vec<V>], model: &Model) -> Result<Vec<Vec<f64>>, BoxError> {
        let width = model.width(&self.options);
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
