//! The transform and its settings.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use purlin::prelude::*;

use crate::infer::Handlers;
use crate::models::Limits;
use crate::shadow::{Shadow, ShadowOf};
use crate::shape::{Keyed, Shape, Unkeyed};
use crate::steps::{Chain, NoSteps, Steps, step};
use crate::update::Updates;
use crate::{Batching, MemoryPlan, ModelHandler, ModelMetadata};

/// Applies a model to each element; see the [crate](crate).
///
/// Output: a [`PredictionResult`](crate::PredictionResult) for each element. Metrics, in the namespace `RunInference`, are Beam's:
/// `num_inferences`,
/// `failed_batches_counter`, `inference_request_batch_size`, `inference_request_batch_byte_size`,
/// `inference_batch_latency_micro_secs`, `load_model_latency_milli_secs` and `model_byte_size`. Where the time goes besides, by
/// thread, is told by `preprocess_micro_secs` of each element, `postprocess_micro_secs` of each batch, and `wait_micro_secs`, for
/// which the model waited for each batch of a bundle.
///
/// A bundle that is tried again holds the same elements. Batches of [one size](Batching::of_size) are then the same, too, and so
/// is what the model gives, bit by bit if it gives the same for the same batch. Sizes that adapt may differ, and with them what
/// models round.
pub struct RunInference<H: ModelHandler, S: Shape = Unkeyed, Dead = FailBundle, Pre = NoSteps, Post = NoSteps>
{
    pub(crate) settings: Settings<H, S>,
    pub(crate) preprocess: Pre,
    pub(crate) postprocess: Post,
    dead: PhantomData<Dead>,
}

/// An example that fails fails its bundle, and the pipeline after some tries.
#[derive(Debug, Clone, Copy)]
pub struct FailBundle;

/// An example that the model fails on goes to a second output.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetters;

/// An example that fails goes to an output for failures of its kind.
#[derive(Debug, Clone, Copy)]
pub struct AllDeadLetters;

/// What has no type of its own.
pub(crate) struct Settings<H: ModelHandler, S: Shape> {
    pub handlers: Handlers<H, S::Key>,
    pub batching: Option<Batching>,
    pub namespace: Option<String>,
    pub rate: Option<(f64, u64)>,
    pub limits: Limits,
    pub inference_timeout: Option<Duration>,
    pub memory_limit: Option<u64>,
    pub updates: Option<Updates>,
    pub shadow: Option<Arc<dyn Shadow<H::Example, H::Inference>>>,
    pub gate: Option<(f64, u64)>,
    pub problems: Vec<String>,
}

impl<H: ModelHandler, S: Shape> Clone for Settings<H, S> {
    fn clone(&self) -> Self {
        Settings {
            handlers: self.handlers.clone(),
            batching: self.batching.clone(),
            namespace: self.namespace.clone(),
            rate: self.rate,
            limits: self.limits,
            inference_timeout: self.inference_timeout,
            memory_limit: self.memory_limit,
            updates: self.updates.clone(),
            shadow: self.shadow.clone(),
            gate: self.gate,
            problems: self.problems.clone(),
        }
    }
}

impl<H: ModelHandler, S: Shape, Dead, Pre: Clone, Post: Clone> Clone for RunInference<H, S, Dead, Pre, Post> {
    fn clone(&self) -> Self {
        RunInference {
            settings: self.settings.clone(),
            preprocess: self.preprocess.clone(),
            postprocess: self.postprocess.clone(),
            dead: PhantomData,
        }
    }
}

impl<H: ModelHandler, S: Shape, Dead, Pre, Post> fmt::Debug for RunInference<H, S, Dead, Pre, Post> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let models: Vec<String> = self
            .settings
            .handlers
            .all
            .iter()
            .map(ModelHandler::model_id)
            .collect();
        f.debug_struct("RunInference")
            .field("models", &models)
            .finish_non_exhaustive()
    }
}

impl<H: ModelHandler, S: Shape> RunInference<H, S> {
    fn of(handlers: Handlers<H, S::Key>) -> RunInference<H, S> {
        RunInference {
            settings: Settings {
                handlers,
                batching: None,
                namespace: None,
                rate: None,
                limits: Limits {
                    models: usize::MAX,
                    bytes: u64::MAX,
                    load_timeout: None,
                },
                inference_timeout: None,
                memory_limit: None,
                updates: None,
                shadow: None,
                gate: None,
                problems: Vec::new(),
            },
            preprocess: NoSteps,
            postprocess: NoSteps,
            dead: PhantomData,
        }
    }
}

impl<H: ModelHandler> RunInference<H> {
    /// Applies the handler's model to a collection of examples.
    pub fn new(handler: H) -> RunInference<H> {
        RunInference::of(Handlers {
            all: vec![handler],
            find: None,
        })
    }

    /// Applies it to a collection of pairs of a key and an example; the key stays with the result.
    pub fn keyed<K: Element>(handler: H) -> RunInference<H, Keyed<K>> {
        RunInference::of(Handlers {
            all: vec![handler],
            find: None,
        })
    }

    /// Applies to each example of a collection of pairs the model of its key. Models are loaded when the first element of one of
    /// their keys comes, and stay, within [limits](RunInference::max_models_per_worker). A batch holds examples of one model; keys whose
    /// handlers have one [`model_key`](ModelHandler::model_key) share it. Models of several kinds are a handler that is an enum.
    ///
    /// An example whose key has no handler fails. Metrics are in Beam's namespace for this, `BeamML_KeyedModels`.
    ///
    /// ```
    /// use purlin::prelude::*;
    /// use purlin_inference::{ModelHandler, RunInference};
    ///
    /// #[derive(Clone)]
    /// struct Times(i64);
    ///
    /// impl ModelHandler for Times {
    ///     type Example = i64;
    ///     type Inference = i64;
    ///     type Model = i64;
    ///     fn model_id(&self) -> String {
    ///         format!("times {}", self.0)
    ///     }
    ///     fn load(&self) -> Result<i64, BoxError> {
    ///         Ok(self.0)
    ///     }
    ///     fn run(&self, batch: &[&i64], model: &i64) -> Result<Vec<i64>, BoxError> {
    ///         Ok(batch.iter().map(|example| *example * model).collect())
    ///     }
    /// }
    ///
    /// let p = TestPipeline::new();
    /// let pairs = p.apply(Create::new([("de".to_string(), 1i64), ("fr".to_string(), 1)]));
    /// let handlers = [("de".to_string(), Times(2)), ("fr".to_string(), Times(3))];
    /// let results = pairs.apply(RunInference::per_key(handlers).max_models_per_worker(1));
    /// PAssert::that(&results.map("Inference", |(key, result)| (key, result.inference)))
    ///     .contains_in_any_order([("de".to_string(), 2), ("fr".to_string(), 3)]);
    /// p.run();
    /// ```
    pub fn per_key<K>(handlers: impl IntoIterator<Item = (K, H)>) -> RunInference<H, Keyed<K>>
    where
        K: Element + Sync + Eq + Hash,
    {
        let (mut all, mut models) = (Vec::<H>::new(), HashMap::<String, usize>::new());
        let (mut numbers, mut problems) = (HashMap::<K, usize>::new(), Vec::new());
        for (key, handler) in handlers {
            let model = handler.model_id();
            let number = *models.entry(handler.model_key()).or_insert_with(|| {
                all.push(handler);
                all.len() - 1
            });
            if numbers.insert(key, number).is_some_and(|other| other != number) {
                problems.push(format!(
                    "a key has two model handlers, one of them {model}: give it one"
                ));
            }
        }
        if all.is_empty() {
            problems.push("it has no model handler: give RunInference::per_key at least one".to_owned());
        }
        let find = Some(Arc::new(move |key: &K| numbers.get(key).copied()) as _);
        let mut transform = RunInference::of(Handlers { all, find });
        transform.settings.problems = problems;
        transform
    }
}

impl<H: ModelHandler, S: Shape, Dead, Pre, Post> RunInference<H, S, Dead, Pre, Post> {
    fn with<NewDead, NewPre, NewPost>(
        self,
        preprocess: impl FnOnce(Pre) -> NewPre,
        postprocess: impl FnOnce(Post) -> NewPost,
    ) -> RunInference<H, S, NewDead, NewPre, NewPost> {
        RunInference {
            settings: self.settings,
            preprocess: preprocess(self.preprocess),
            postprocess: postprocess(self.postprocess),
            dead: PhantomData,
        }
    }

    /// Adds a second output, of [`FailedExample`](crate::FailedExample)s: the examples that the model fails on, each with its
    /// error. When a batch fails, it
    /// is halved until the examples at fault stand alone; the rest goes on. What fails in steps before and behind the model fails the
    /// bundle: [`RunInference::with_exception_handling`] keeps that, too.
    #[must_use]
    pub fn with_dead_letters(self) -> RunInference<H, S, DeadLetters, Pre, Post> {
        self.with(|pre| pre, |post| post)
    }

    /// Adds outputs for what fails: before the model, in it, and behind it; see [`RunInferenceDlq`](crate::RunInferenceDlq). When
    /// a batch fails, it is halved
    /// until the examples at fault stand alone; the rest goes on.
    #[must_use]
    pub fn with_exception_handling(self) -> RunInference<H, S, AllDeadLetters, Pre, Post> {
        self.with(|pre| pre, |post| post)
    }

    /// Adds a step before the model, for each element; steps come in the order in which they are added, and the last gives the
    /// handler's examples. Of elements with keys the step is given the value.
    #[must_use]
    pub fn with_preprocess<A, B>(
        self,
        name: &str,
        f: impl Fn(A) -> B + Send + Sync + 'static,
    ) -> RunInference<H, S, Dead, Steps<Pre::First, B>, Post>
    where
        Pre: Chain<A>,
    {
        self.try_with_preprocess(name, move |value| Ok::<_, BoxError>(f(value)))
    }

    /// As [`RunInference::with_preprocess`], for a step that may fail.
    #[must_use]
    pub fn try_with_preprocess<A, B, E: Into<BoxError>>(
        self,
        name: &str,
        f: impl Fn(A) -> Result<B, E> + Send + Sync + 'static,
    ) -> RunInference<H, S, Dead, Steps<Pre::First, B>, Post>
    where
        Pre: Chain<A>,
    {
        self.with(|pre| pre.then(step(name, f)), |post| post)
    }

    /// Adds a step behind the model, for each inference; steps come in the order in which they are added, and what the last gives
    /// is the result's inference.
    #[must_use]
    pub fn with_postprocess<A, B>(
        self,
        name: &str,
        f: impl Fn(A) -> B + Send + Sync + 'static,
    ) -> RunInference<H, S, Dead, Pre, Steps<Post::First, B>>
    where
        Post: Chain<A>,
    {
        self.try_with_postprocess(name, move |value| Ok::<_, BoxError>(f(value)))
    }

    /// As [`RunInference::with_postprocess`], for a step that may fail.
    #[must_use]
    pub fn try_with_postprocess<A, B, E: Into<BoxError>>(
        self,
        name: &str,
        f: impl Fn(A) -> Result<B, E> + Send + Sync + 'static,
    ) -> RunInference<H, S, Dead, Pre, Steps<Post::First, B>>
    where
        Post: Chain<A>,
    {
        self.with(|pre| pre, |post| post.then(step(name, f)))
    }

    /// Which elements make a batch, in place of [what the handler says](ModelHandler::batching).
    #[must_use]
    pub fn with_batching(mut self, batching: Batching) -> Self {
        self.settings.batching = Some(batching);
        self
    }

    /// Counts under this namespace.
    #[must_use]
    pub fn metrics_namespace(mut self, namespace: &str) -> Self {
        self.settings.namespace = Some(namespace.to_owned());
        self
    }

    /// Ends the job when more than this share of the examples has failed, from 0 to 1, once there were so many; the error quotes the
    /// first failures. Each process counts on its own, from its start, and counts a bundle that is tried again once more. For outputs of
    /// failures, without which one failure is enough.
    #[must_use]
    pub fn max_failure_rate(mut self, rate: f64, after: u64) -> Self {
        self.settings.rate = Some((rate, after));
        self
    }

    /// A model that is not loaded in this time is an error. The thread that loads it cannot be stopped: it goes on, and the error says
    /// so.
    #[must_use]
    pub fn load_timeout(mut self, limit: Duration) -> Self {
        self.settings.limits.load_timeout = Some(limit);
        self
    }

    /// A model that does not answer for a batch in this time is an error, which fails the bundle also where failures have outputs. The
    /// thread that runs it cannot be stopped: it goes on, and the error says so. Models then run on threads of their own, on which
    /// metrics of a handler's own are not counted.
    #[must_use]
    pub fn inference_timeout(mut self, limit: Duration) -> Self {
        self.settings.inference_timeout = Some(limit);
        self
    }

    /// At most so many models of [`RunInference::per_key`] are kept in memory by a process: the one that was not used for longest makes
    /// room for the next. A batch that runs keeps its model until it is done.
    #[must_use]
    pub fn max_models_per_worker(mut self, models: usize) -> Self {
        if models == 0 {
            self.settings
                .problems
                .push("max_models_per_worker is 0: one model at least is needed".to_owned());
        }
        self.settings.limits.models = models.max(1);
        self
    }

    /// As [`RunInference::max_models_per_worker`], for the sum of [their bytes](ModelHandler::model_bytes). A model that is larger alone
    /// is loaded once the others are gone.
    #[must_use]
    pub fn max_model_bytes_per_worker(mut self, bytes: u64) -> Self {
        self.settings.limits.bytes = bytes;
        self
    }

    /// Refuses the pipeline when its [memory plan](RunInference::memory_plan) needs more than this.
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.settings.memory_limit = Some(bytes);
        self
    }

    /// What memory models and batches take at most in a process, by [what handlers estimate](ModelHandler::estimate): with batches of the
    /// largest size on as many threads as this machine has cores.
    pub fn memory_plan(&self) -> MemoryPlan {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut models: Vec<_> = self
            .settings
            .handlers
            .all
            .iter()
            .map(|handler| (handler.model_id(), handler.estimate()))
            .collect();
        // Those that are in memory at a time may be the largest.
        models.sort_by_key(|(_, estimate)| std::cmp::Reverse(estimate.map(|estimate| estimate.weights)));
        models.truncate(self.settings.limits.models);
        MemoryPlan::new(models, self.settings.batching().sizes.max, threads)
    }

    /// Lets the model change while the job runs: the latest element of this collection, by its timestamp, names the model for all
    /// elements from then on, by [`ModelHandler::update_model_path`]. Elements that come before the first update are given the handler's
    /// own model. Each result says which model it is from.
    ///
    /// A batch is run by one model; both are in memory while the new one is loaded. An update whose model cannot be had is left out, with
    /// a warning in the log and a count in `failed_model_updates`; `model_updates` counts changes. Beam's name for it is
    /// `model_metadata_pcoll`.
    #[must_use]
    pub fn with_model_updates(mut self, updates: &PCollection<ModelMetadata>) -> Self {
        self.settings.updates = Some(Updates::Collection(updates.clone()));
        self
    }

    /// As [`RunInference::with_model_updates`], with the file that was changed last among those that match a pattern, looked for again and
    /// again. A path that is written anew is a new model. Beam's name for it is `watch_model_pattern`. The pipeline does not end while it
    /// looks: [`MatchContinuously::polls`] and [`MatchContinuously::until`] end that.
    #[must_use]
    pub fn watch_model(mut self, files: MatchContinuously) -> Self {
        self.settings.updates = Some(Updates::Files(files));
        self
    }

    /// Runs a second model beside the first, on the examples that go well with that. It serves nobody: what it gives is compared, by a
    /// closure that says whether two inferences agree, and counted as `shadow_agreements` and `shadow_disagreements`, and a failure of its
    /// own as `shadow_failures`. It runs after the first, on the same thread, so it costs time; `shadow_batch_latency_micro_secs` tells
    /// how much.
    #[must_use]
    pub fn with_shadow_model<M>(
        mut self,
        handler: M,
        agrees: impl Fn(&H::Inference, &M::Inference) -> bool + Clone + Send + Sync + 'static,
    ) -> Self
    where
        M: ModelHandler<Example = H::Example>,
    {
        self.settings.shadow = Some(Arc::new(ShadowOf { handler, agrees }));
        self
    }

    /// Ends the job when the shadow model disagrees on more than this share of the examples, from 0 to 1, once so many were compared.
    /// Each process counts on its own.
    #[must_use]
    pub fn max_disagreement(mut self, rate: f64, after: u64) -> Self {
        self.settings.gate = Some((rate, after));
        self
    }
}
