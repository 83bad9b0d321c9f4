//! How a model is loaded and run.

use std::fmt;
use std::marker::PhantomData;

use purlin::prelude::*;

use crate::{BatchSizes, Batching, InferenceError, MemoryEstimate};

/// How a model is loaded and run.
///
/// The handler travels to the workers with the pipeline; the model does not, it is loaded there. Five items are needed; the others
/// say more of the model, and have answers that fit most.
pub trait ModelHandler: Clone + Send + Sync + 'static {
    /// What the model is given.
    type Example: Element;
    /// What the model gives for one example.
    type Inference: Element;
    /// The loaded model, which all threads share.
    type Model: Send + Sync + 'static;

    /// Names the model in results and errors.
    fn model_id(&self) -> String;

    /// Holds all that the loaded model depends on: handlers of one type that give the same key share one model in a process. A model
    /// on another device is another model, so the device belongs into it. The model's name, unless told.
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
    /// kept, and fails the bundle otherwise. Of [`InferenceError::OutOfMemory`] the transform runs smaller batches from then on;
    /// [`InferenceError::Unavailable`] fails the bundle in any case.
    fn run(&self, batch: &[&Self::Example], model: &Self::Model) -> Result<Vec<Self::Inference>, BoxError>;

    /// As [`run`](ModelHandler::run), but an example that the model fails on costs its own result alone. Called in the place of `run`
    /// where failures have outputs. Unless told, a batch fails as a whole, and the transform finds the examples at fault; a handler
    /// whose examples are costly, such as requests to a server, spares those that went well.
    ///
    /// # Errors
    /// As [`run`](ModelHandler::run).
    fn run_each(
        &self,
        batch: &[&Self::Example],
        model: &Self::Model,
    ) -> Result<Vec<Result<Self::Inference, BoxError>>, BoxError> {
        Ok(self.run(batch, model)?.into_iter().map(Ok).collect())
    }

    /// The smallest and largest batch. Sizes between them adapt to what the model's time is best spent on.
    fn batch_sizes(&self) -> BatchSizes {
        BatchSizes::default()
    }

    /// Which elements make a batch. Of the [sizes](ModelHandler::batch_sizes), unless told.
    fn batching(&self) -> Batching {
        self.batch_sizes().into()
    }

    /// How much an example adds to the [weight of a batch](Batching::max_weight). 1 unless told.
    fn element_size(&self, _example: &Self::Example) -> usize {
        1
    }

    /// How long an example is, where batches are [by length](Batching::buckets). Its encoding's length unless told.
    fn element_length(&self, example: &Self::Example) -> usize {
        example.to_bytes().len()
    }

    /// What fills a batch that is [padded](crate::LastBatch::Pad). Its last example again, unless told.
    fn padding(&self) -> Option<Self::Example> {
        None
    }

    /// Bytes of a batch, for the metric `inference_request_batch_byte_size`. The lengths of the examples' encodings, unless told.
    fn num_bytes(&self, batch: &[&Self::Example]) -> u64 {
        let mut bytes = Vec::new();
        let mut length = |example: &Self::Example| {
            bytes.clear();
            example.encode(&mut bytes, false);
            bytes.len() as u64
        };
        batch.iter().map(|example| length(example)).sum()
    }

    /// Bytes of memory that the loaded model takes, for the metric `model_byte_size` and for limits. `None`: by how much the process
    /// grew while it was loaded.
    fn model_bytes(&self, _model: &Self::Model) -> Option<u64> {
        None
    }

    /// The version of the loaded model, told with each result.
    fn model_version(&self, _model: &Self::Model) -> Option<String> {
        None
    }

    /// A hash of the loaded model's content, told with each result.
    fn model_hash(&self, _model: &Self::Model) -> Option<String> {
        None
    }

    /// The handler of the model at another path, where [models change](crate::RunInference::with_model_updates) while the job runs:
    /// its [`model_key`](ModelHandler::model_key) must differ.
    ///
    /// # Errors
    /// When there is no such model, or the handler's model cannot be another, which is the case unless told.
    fn update_model_path(&self, _path: &str) -> Result<Self, BoxError> {
        Err("its handler takes no other model: write ModelHandler::update_model_path for it".into())
    }

    /// Whether an error of [`run`](ModelHandler::run) says that memory did not suffice for the batch.
    fn is_out_of_memory(&self, error: &BoxError) -> bool {
        matches!(
            error.downcast_ref::<InferenceError>(),
            Some(InferenceError::OutOfMemory(_))
        )
    }

    /// What memory the model will take, known before it is loaded: see [`RunInference::memory_limit`](crate::RunInference::memory_limit).
    fn estimate(&self) -> Option<MemoryEstimate> {
        None
    }

    /// The namespace of the transform's metrics.
    fn metrics_namespace(&self) -> String {
        "RunInference".to_owned()
    }
}

/// A handler made of two closures: one loads the model, the other runs it. The name tells models apart.
///
/// ```
/// use purlin::prelude::*;
/// use purlin_inference::{ModelFn, RunInference};
///
/// let twice = ModelFn::new("twice", || Ok(2), |batch: &[&i64], by: &i64| Ok(batch.iter().map(|n| *n * by).collect()));
/// let p = TestPipeline::new();
/// let results = p.apply(Create::new([1i64, 2])).apply(RunInference::new(twice));
/// PAssert::that(&results.map("Inference", |result| result.inference)).contains_in_any_order([2, 4]);
/// p.run();
/// ```
pub struct ModelFn<L, R, E, M, I> {
    name: String,
    load: L,
    run: R,
    types: PhantomData<fn(E, M) -> I>,
}

impl<L: Clone, R: Clone, E, M, I> Clone for ModelFn<L, R, E, M, I> {
    fn clone(&self) -> Self {
        ModelFn {
            name: self.name.clone(),
            load: self.load.clone(),
            run: self.run.clone(),
            types: PhantomData,
        }
    }
}

impl<L, R, E, M, I> fmt::Debug for ModelFn<L, R, E, M, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelFn({})", self.name)
    }
}

impl<L, R, E, M, I> ModelFn<L, R, E, M, I>
where
    L: Fn() -> Result<M, BoxError>,
    R: Fn(&[&E], &M) -> Result<Vec<I>, BoxError>,
{
    /// A model of this name.
    pub fn new(name: &str, load: L, run: R) -> Self {
        ModelFn {
            name: name.to_owned(),
            load,
            run,
            types: PhantomData,
        }
    }
}

impl<L, R, E, M, I> ModelHandler for ModelFn<L, R, E, M, I>
where
    L: Fn() -> Result<M, BoxError> + Clone + Send + Sync + 'static,
    R: Fn(&[&E], &M) -> Result<Vec<I>, BoxError> + Clone + Send + Sync + 'static,
    E: Element,
    M: Send + Sync + 'static,
    I: Element,
{
    type Example = E;
    type Inference = I;
    type Model = M;

    fn model_id(&self) -> String {
        self.name.clone()
    }
    fn load(&self) -> Result<M, BoxError> {
        (self.load)()
    }
    fn run(&self, batch: &[&E], model: &M) -> Result<Vec<I>, BoxError> {
        (self.run)(batch, model)
    }
}

/// A handler whose model takes arguments with each batch: a temperature, a threshold, a number of classes.
///
/// ```
/// use purlin::prelude::*;
/// use purlin_inference::{ModelHandler, RunInference, TakesArgs};
///
/// #[derive(Clone)]
/// struct Scale;
///
/// impl ModelHandler for Scale {
///     type Example = i64;
///     type Inference = i64;
///     type Model = ();
///
///     fn model_id(&self) -> String {
///         "scale".to_owned()
///     }
///     fn load(&self) -> Result<(), BoxError> {
///         Ok(())
///     }
///     fn run(&self, batch: &[&i64], model: &()) -> Result<Vec<i64>, BoxError> {
///         self.run_with_args(batch, model, &1)
///     }
/// }
///
/// impl TakesArgs<i64> for Scale {
///     fn run_with_args(&self, batch: &[&i64], _: &(), by: &i64) -> Result<Vec<i64>, BoxError> {
///         Ok(batch.iter().map(|example| **example * by).collect())
///     }
/// }
///
/// let p = TestPipeline::new();
/// let results = p.apply(Create::new([1i64, 2])).apply(RunInference::new(Scale.with_args(3)));
/// PAssert::that(&results.map("Scaled", |result| result.inference)).contains_in_any_order([3, 6]);
/// p.run();
/// ```
pub trait TakesArgs<A: Clone + Send + Sync + 'static>: ModelHandler {
    /// As [`ModelHandler::run`], with the arguments.
    ///
    /// # Errors
    /// As [`ModelHandler::run`].
    fn run_with_args(
        &self,
        batch: &[&Self::Example],
        model: &Self::Model,
        args: &A,
    ) -> Result<Vec<Self::Inference>, BoxError>;

    /// The same handler, whose model is given these arguments with each batch.
    fn with_args(self, args: A) -> WithArgs<Self, A> {
        WithArgs { handler: self, args }
    }
}

/// See [`TakesArgs::with_args`].
#[derive(Debug, Clone)]
pub struct WithArgs<H, A> {
    handler: H,
    args: A,
}

impl<A: Clone + Send + Sync + 'static, H: TakesArgs<A>> ModelHandler for WithArgs<H, A> {
    type Example = H::Example;
    type Inference = H::Inference;
    type Model = H::Model;

    fn model_id(&self) -> String {
        self.handler.model_id()
    }
    fn model_key(&self) -> String {
        self.handler.model_key()
    }
    fn load(&self) -> Result<H::Model, BoxError> {
        self.handler.load()
    }
    fn run(&self, batch: &[&H::Example], model: &H::Model) -> Result<Vec<H::Inference>, BoxError> {
        self.handler.run_with_args(batch, model, &self.args)
    }
    fn batch_sizes(&self) -> BatchSizes {
        self.handler.batch_sizes()
    }
    fn batching(&self) -> Batching {
        self.handler.batching()
    }
    fn element_size(&self, example: &H::Example) -> usize {
        self.handler.element_size(example)
    }
    fn element_length(&self, example: &H::Example) -> usize {
        self.handler.element_length(example)
    }
    fn padding(&self) -> Option<H::Example> {
        self.handler.padding()
    }
    fn num_bytes(&self, batch: &[&H::Example]) -> u64 {
        self.handler.num_bytes(batch)
    }
    fn model_bytes(&self, model: &H::Model) -> Option<u64> {
        self.handler.model_bytes(model)
    }
    fn model_version(&self, model: &H::Model) -> Option<String> {
        self.handler.model_version(model)
    }
    fn model_hash(&self, model: &H::Model) -> Option<String> {
        self.handler.model_hash(model)
    }
    fn update_model_path(&self, path: &str) -> Result<Self, BoxError> {
        Ok(WithArgs {
            handler: self.handler.update_model_path(path)?,
            args: self.args.clone(),
        })
    }
    fn is_out_of_memory(&self, error: &BoxError) -> bool {
        self.handler.is_out_of_memory(error)
    }
    fn estimate(&self) -> Option<MemoryEstimate> {
        self.handler.estimate()
    }
    fn metrics_namespace(&self) -> String {
        self.handler.metrics_namespace()
    }
}
