//! The graph that the engine runs: transforms, collections and environments, already free of protobuf.
//!
//! The runner builds a [`Graph`] from a pipeline; [`crate::FusedGraph::new`] fuses it into stages.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
pub use purlin_model::{Accumulation, PaneEmission, TimestampCombiner, TimestampTransform, Trigger};
use purlin_model::{Coder, CustomWindows, Timestamp, WindowCoder};
use typed_index_collections::TiVec;

use crate::index::index;

index! {
    /// Index of a transform in [`Graph::transforms`].
    pub TransformId
}

index! {
    /// Index of a PCollection in [`Graph::collections`].
    pub CollectionId
}

index! {
    /// Index of an environment in [`Graph::environments`].
    pub EnvironmentId
}

/// A pipeline as the engine sees it.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// All leaf transforms, in any order; the graph must be acyclic.
    pub transforms: TiVec<TransformId, Transform>,
    /// All PCollections.
    pub collections: TiVec<CollectionId, Collection>,
    /// Where user code runs.
    pub environments: TiVec<EnvironmentId, Environment>,
}

impl Graph {
    /// Whether a TestStream moves the time of the job.
    pub(crate) fn is_scripted(&self) -> bool {
        let scripted = |transform: &Transform| matches!(transform.kind, TransformKind::TestStream(_));
        self.transforms.iter().any(scripted)
    }
}

/// A place where user code runs: bundles of its stages go to its workers.
#[derive(Clone, Debug)]
pub struct Environment {
    /// For plans and messages.
    pub name: String,
    /// How many workers there are.
    pub workers: u32,
    /// How many bundles one worker processes at a time.
    pub slots_per_worker: u32,
}

/// A PCollection.
#[derive(Clone, Debug)]
pub struct Collection {
    /// Unique name, for plans and messages.
    pub name: String,
    /// How its elements are encoded between stages.
    pub coder: Coder,
    /// How its windows are encoded between stages.
    pub window_coder: WindowCoder,
    /// Its windowing strategy.
    pub windowing: Windowing,
    /// Whether all of its elements are known to arrive in finite time.
    pub bounded: bool,
}

/// A leaf transform.
#[derive(Clone, Debug)]
pub struct Transform {
    /// Full unique name, as the user sees it.
    pub name: String,
    /// Main inputs, without side inputs.
    pub inputs: Vec<CollectionId>,
    /// Outputs.
    pub outputs: Vec<CollectionId>,
    /// What it does.
    pub kind: TransformKind,
}

/// What a transform does.
#[derive(Clone, Debug)]
pub enum TransformKind {
    /// `beam:transform:impulse:v1`: one empty byte string in the global window at the minimum timestamp.
    Impulse,
    /// `beam:transform:flatten:v1`. Inputs are in the output's coder (the runner adds transcoding where they are not).
    Flatten,
    /// `beam:transform:group_by_key:v1`, by the input's windowing.
    GroupByKey,
    /// `beam:transform:reshuffle:v1` and redistribute: breaks fusion, keeps timestamps, windows and panes.
    Redistribute,
    /// `beam:transform:test_stream:v1`.
    TestStream(TestStream),
    /// User code, executed by a worker.
    User(UserTransform),
}

/// User code that a worker executes.
#[derive(Clone, Debug)]
pub struct UserTransform {
    /// Where it runs. `None`: anywhere (a Flatten or window mapping that any SDK knows): takes its neighbour's.
    pub environment: Option<EnvironmentId>,
    /// Its side inputs.
    pub side_inputs: Vec<SideInput>,
    /// Whether it has state or timers: input is keyed, and one bundle at a time is processed per key.
    pub stateful: bool,
    /// Timer families by local name.
    pub timers: Vec<TimerFamily>,
    /// The timer family that fires when a window expires, if any.
    pub on_window_expiration: Option<String>,
    /// Whether it processes sized elements and restrictions (its elements may be split and leave residuals).
    pub splittable: bool,
    /// `beam:requirement:pardo:time_sorted_input:v1`.
    pub requires_time_sorted_input: bool,
    /// `beam:requirement:pardo:stable_input:v1`.
    pub requires_stable_input: bool,
}

/// A side input of a user transform.
#[derive(Clone, Debug)]
pub struct SideInput {
    /// Local name in the transform.
    pub tag: String,
    /// What it reads.
    pub collection: CollectionId,
    /// How it is accessed.
    pub access: SideInputAccess,
    /// How a main-input window finds its side-input window.
    pub mapping: WindowMapping,
}

/// How a side input is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SideInputAccess {
    /// `beam:side_input:iterable:v1`.
    Iterable,
    /// `beam:side_input:multimap:v1`: elements are KVs.
    Multimap,
}

/// How a main-input window finds its side-input window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WindowMapping {
    /// The side input's window function assigns a window to the main window's maximum timestamp.
    Standard,
    /// The SDK maps (custom window functions): see [`crate::Action::MapWindows`].
    Sdk,
}

/// A timer family of a user transform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimerFamily {
    /// Local name.
    pub name: String,
    /// Event time or processing time.
    pub domain: TimeDomain,
}

/// The clock that a timer follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TimeDomain {
    /// The input watermark.
    EventTime,
    /// Processing time.
    ProcessingTime,
}

/// A PCollection's windowing strategy.
#[derive(Clone, Debug)]
pub struct Windowing {
    /// Its window function.
    pub window_fn: WindowFn,
    /// When panes fire.
    pub trigger: Trigger,
    /// Whether fired panes keep their elements.
    pub accumulation: Accumulation,
    /// How long after its end a window takes data, in milliseconds.
    pub allowed_lateness_ms: i64,
    /// Whether the last pane fires when it is empty.
    pub closing: PaneEmission,
    /// Whether the on-time pane fires when it is empty.
    pub on_time: PaneEmission,
    /// What timestamp a pane's output bears.
    pub timestamp_combiner: TimestampCombiner,
    /// Custom merging windows: the transform whose environment merges them.
    pub environment: Option<EnvironmentId>,
}

impl Windowing {
    /// Whether an SDK is asked how windows merge.
    pub fn merges_in_sdk(&self) -> bool {
        matches!(self.window_fn, WindowFn::Custom(SdkWindows { merging: true }))
    }
}

/// A window function, as far as the engine needs it: merging and side-input mapping.
pub type WindowFn = purlin_model::WindowFn<SdkWindows>;

/// Windows that only an SDK knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SdkWindows {
    /// Whether they merge (by [`crate::Action::MergeWindows`]).
    pub merging: bool,
}

impl CustomWindows for SdkWindows {
    fn merges(&self) -> bool {
        self.merging
    }
}

/// A scripted source that drives watermark and processing time.
#[derive(Clone, Debug, Default)]
pub struct TestStream {
    /// What happens, in order. Empty where an endpoint serves events ([`crate::Event::TestStreamEvents`]).
    pub events: Vec<TestStreamEvent>,
    /// Whether more events come from an endpoint.
    pub remote: bool,
}

/// One step of a [`TestStream`].
#[derive(Clone, Debug, PartialEq)]
pub enum TestStreamEvent {
    /// Elements for an output (an index into the transform's outputs): encoded values (in the output collection's coder) and timestamps.
    Elements {
        /// Index into the transform's outputs.
        output: usize,
        /// Encoded value and timestamp.
        elements: Vec<(Bytes, Timestamp)>,
    },
    /// The watermark of an output advances.
    Watermark {
        /// Index into the transform's outputs; `None`: all.
        output: Option<usize>,
        /// To this.
        to: Timestamp,
    },
    /// Processing time advances by milliseconds.
    ProcessingTime(i64),
}
