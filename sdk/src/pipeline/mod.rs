//! Pipelines, PCollections and the transforms between them.

mod apply;
mod graph;
mod proto;
mod value;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use purlin_model::{CoderSpec, Element};
use purlin_proto::pipeline as beam;

pub use apply::{Apply, PTransform};
pub(crate) use graph::{AtEnd, CollectionId, Graph};
pub use proto::BuiltPipeline;
pub(crate) use proto::ENVIRONMENT;
pub use value::{CollectionRef, PBegin, PValue};

use crate::error::BuildError;
use crate::stage::Node;
use crate::windowing::{CustomFn, Windowing};

/// A pipeline: a graph of transforms that is built first and run afterwards.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = Pipeline::new();
/// p.apply(Create::new(["to be or not to be".to_string()]))
///     .flat_map("Split", |line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
///     .map("PairWithOne", |word| (word, 1u64))
///     .combine_per_key("Sum", Sum::new());
/// let result = p.run(&PipelineOptions::default())?;
/// assert_eq!(result.state(), PipelineState::Done);
/// # Ok::<(), RunError>(())
/// ```
#[derive(Clone)]
pub struct Pipeline {
    graph: Arc<Mutex<Graph>>,
}

impl Pipeline {
    /// A pipeline without transforms.
    pub fn new() -> Pipeline {
        Pipeline {
            graph: Arc::new(Mutex::new(Graph::new())),
        }
    }

    /// Applies a root transform, under its own name.
    pub fn apply<T: PTransform<PBegin>>(&self, transform: T) -> T::Output {
        PBegin(self.clone()).apply(transform)
    }

    /// Applies a root transform under this name.
    pub fn apply_named<T: PTransform<PBegin>>(&self, name: &str, transform: T) -> T::Output {
        PBegin(self.clone()).apply_named(name, transform)
    }

    /// The pipeline as a proto, with what is needed to execute it in this process.
    ///
    /// # Errors
    /// All problems of the pipeline, each with the transform's name.
    pub fn build(&self) -> Result<BuiltPipeline, BuildError> {
        proto::build(&self.lock())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Graph> {
        // A panic of user code inside `expand` leaves a graph that is whole, if unfinished.
        self.graph.lock()
    }

    /// Full name of the transform that is being expanded. It is the same whenever the same program builds the pipeline.
    pub fn current_name(&self) -> String {
        self.lock().current_name().to_owned()
    }

    /// Records a problem of the transform that is being expanded; [`Pipeline::build`] reports it.
    pub fn problem(&self, problem: impl fmt::Display) {
        let mut graph = self.lock();
        let name = graph.current_name().to_owned();
        graph.problems.push(format!("transform \"{name}\": {problem}"));
    }

    /// Gives the transform that is being expanded a URN and payload: it is a primitive, or a composite that runners know.
    pub fn set_spec(&self, urn: &str, payload: impl Into<bytes::Bytes>) {
        let payload = payload.into();
        self.lock().set_spec(urn, payload);
    }

    /// Annotates the transform that is being expanded: runners that do not know the annotation pass over it.
    pub(crate) fn annotate(&self, key: String) {
        self.lock().annotate(key);
    }

    /// A new output of the transform that is being expanded.
    pub fn new_collection<T: Element>(
        &self,
        tag: &str,
        windowing: Windowing,
        bounded: bool,
    ) -> PCollection<T> {
        let id = self.lock().add_collection(tag, T::coder(), windowing, bounded);
        PCollection {
            pipeline: self.clone(),
            id,
            element: PhantomData,
        }
    }

    /// The id of a coder in the pipeline's proto.
    pub(crate) fn coder_id(&self, coder: &CoderSpec) -> String {
        self.lock().coders.id(coder)
    }

    /// Makes user code findable by the current transform's name, which is returned.
    pub(crate) fn register(&self, node: Arc<dyn Node>) -> String {
        self.lock().register(node)
    }

    /// Makes a window function of the user's own findable by its name.
    pub(crate) fn register_window_fn(&self, window_fn: &CustomFn) {
        let known = self
            .lock()
            .window_fns
            .entry(window_fn.name().to_owned())
            .or_insert_with(|| window_fn.clone())
            .clone();
        if known != *window_fn {
            self.problem(format!(
                "two window functions of different types have the name \"{}\"",
                window_fn.name()
            ));
        }
    }

    /// Marks the transform that is being expanded as one that runs in the SDK's environment.
    pub(crate) fn in_environment(&self) {
        self.lock().in_environment();
    }

    /// Adds an input that is not the main one.
    pub(crate) fn add_side_input(&self, tag: &str, id: CollectionId) {
        self.lock().add_input(tag, id);
    }

    /// Calls this in the launching process whenever a run has ended and no worker is left, however it ended.
    pub(crate) fn at_end(&self, tidy: impl Fn() + Send + Sync + 'static) {
        self.lock().at_end.push(Arc::new(tidy));
    }

    pub(crate) fn next_view_id(&self) -> u64 {
        let mut graph = self.lock();
        graph.views += 1;
        graph.views
    }

    /// Tells pipelines of this process apart.
    pub(crate) fn id(&self) -> u64 {
        self.lock().id
    }
}

impl Default for Pipeline {
    fn default() -> Self {
        Pipeline::new()
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let graph = self.lock();
        write!(
            f,
            "Pipeline({} transforms, {} collections)",
            graph.transforms.len(),
            graph.collections.len()
        )
    }
}

/// A collection of elements of one type, bounded or not. A handle: clones are the same collection.
pub struct PCollection<T> {
    pipeline: Pipeline,
    id: CollectionId,
    element: PhantomData<fn() -> T>,
}

impl<T> Clone for PCollection<T> {
    fn clone(&self) -> Self {
        PCollection {
            pipeline: self.pipeline.clone(),
            id: self.id,
            element: PhantomData,
        }
    }
}

impl<T> fmt::Debug for PCollection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PCollection<{}>({:?})",
            std::any::type_name::<T>(),
            self.name()
        )
    }
}

impl<T> PCollection<T> {
    /// The pipeline that it belongs to.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Its windowing strategy.
    pub fn windowing(&self) -> Windowing {
        self.pipeline.lock().collection(self.id).windowing.clone()
    }

    /// Whether all of its elements are known to arrive in finite time.
    pub fn is_bounded(&self) -> bool {
        self.pipeline.lock().collection(self.id).bounded
    }

    /// Its unique name.
    pub fn name(&self) -> String {
        self.pipeline.lock().collection(self.id).name.clone()
    }

    pub(crate) fn id(&self) -> CollectionId {
        self.id
    }
}

impl<T: Element> PCollection<T> {
    /// Applies a transform under its own name.
    pub fn apply<U: PTransform<PCollection<T>>>(&self, transform: U) -> U::Output {
        Apply::apply(self, transform)
    }

    /// Applies a transform under this name.
    pub fn apply_named<U: PTransform<PCollection<T>>>(&self, name: &str, transform: U) -> U::Output {
        Apply::apply_named(self, name, transform)
    }
}

/// The environment that stands in a built pipeline until a runner puts its own there.
pub(crate) fn default_environment() -> beam::Environment {
    beam::Environment {
        urn: purlin_proto::urns::environments::DEFAULT.into(),
        capabilities: proto::capabilities(),
        ..Default::default()
    }
}
