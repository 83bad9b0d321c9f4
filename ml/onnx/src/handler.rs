//! ONNX models for `RunInference`.

use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use purlin::prelude::*;
use purlin_inference::{BatchSizes, ModelFile, ModelHandler};

use crate::engine::Engine;
use crate::model::{Model, ModelOptions};
use crate::tensor::{Tensor, TensorRow};

/// Applies an ONNX model to rows; see the [crate](crate).
///
/// `I` is a row, and `O` what the model gives for it: lists, numbers, texts, [`Tensor`]s by name, or pairs of them, as [`TensorRow`]
/// tells. Types that are not the model's fail the pipeline when the model is loaded; a row that the model does not take is an error of
/// its own.
#[derive(Debug)]
pub struct Onnx<I = Vec<f32>, O = Vec<Tensor>> {
    file: ModelFile,
    options: ModelOptions,
    sizes: BatchSizes,
    types: PhantomData<fn(I) -> O>,
}

impl<I, O> Clone for Onnx<I, O> {
    fn clone(&self) -> Self {
        Onnx {
            file: self.file.clone(),
            options: self.options.clone(),
            sizes: self.sizes,
            types: PhantomData,
        }
    }
}

impl<I: TensorRow, O: TensorRow> Onnx<I, O> {
    /// The model in a file, which is read where the rows are: all workers must have it, and the files of its weights beside it.
    pub fn from_path(path: impl AsRef<Path>) -> Self {
        Onnx::of(ModelFile::at(path))
    }

    /// A model that the program holds, by a name for results and errors. It travels with the program.
    pub fn from_bytes(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Self {
        Onnx::of(ModelFile::held(name, bytes))
    }

    fn of(file: ModelFile) -> Self {
        Onnx {
            file,
            options: ModelOptions::default(),
            sizes: BatchSizes { min: 1, max: 256 },
            types: PhantomData,
        }
    }

    /// What runs the model. tract, unless told.
    #[must_use]
    pub fn with_engine(mut self, engine: Engine) -> Self {
        self.options.engine = engine;
        self
    }

    /// The outputs that are wanted, in this order. All, in the file's order, unless told. What serves only others is not computed.
    #[must_use]
    pub fn with_outputs(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.options.outputs = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// The smallest and the largest batch. 1 and 256, unless told.
    #[must_use]
    pub fn with_batch_sizes(mut self, sizes: BatchSizes) -> Self {
        self.sizes = sizes;
        self
    }

    fn checked(model: Model) -> Result<Model, BoxError> {
        model.check_types::<I, O>()?;
        Ok(model)
    }
}

impl<I: TensorRow, O: TensorRow> ModelHandler for Onnx<I, O> {
    type Example = I;
    type Inference = O;
    type Model = Model;

    fn model_id(&self) -> String {
        self.file.id("ONNX")
    }

    fn model_key(&self) -> String {
        format!("{} {:?}", self.file.key(), self.options)
    }

    fn model_hash(&self, model: &Model) -> Option<String> {
        Some(model.sha256().to_owned())
    }

    fn load(&self) -> Result<Model, BoxError> {
        let load = |path: &Path| Model::load_with(path, &self.options);
        let parse = |bytes: &[u8]| Model::from_bytes_with(bytes, &self.options);
        Self::checked(self.file.load(load, parse)?)
    }

    fn run(&self, batch: &[&I], model: &Model) -> Result<Vec<O>, BoxError> {
        self.run_each(batch, model)?.into_iter().collect()
    }

    fn run_each(&self, batch: &[&I], model: &Model) -> Result<Vec<Result<O, BoxError>>, BoxError> {
        let rows = batch.iter().map(|row| row.tensors()).collect();
        let results = model.run_all::<O>(rows)?;
        Ok(results.into_iter().map(|result| Ok(result?)).collect())
    }

    fn batch_sizes(&self) -> BatchSizes {
        self.sizes
    }

    fn update_model_path(&self, path: &str) -> Result<Self, BoxError> {
        Ok(Onnx {
            file: ModelFile::at(path),
            ..self.clone()
        })
    }
}
