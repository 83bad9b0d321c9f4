//! What goes into the engine and what comes out: closed enums, matched in one place.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use purlin_model::{Timestamp, Window};

use crate::chunk::Chunk;
use crate::graph::{CollectionId, TestStreamEvent, TransformId};
use crate::index::index;

/// Names a bundle for the life of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BundleId(pub u64);

index! {
    /// Index of a stage in [`crate::Engine::stages`].
    pub StageId
}

/// Names a question to an SDK (merging or mapping of custom windows).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

impl fmt::Display for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}", self.0)
    }
}

/// What happened, told to [`crate::Engine::handle`].
#[derive(Debug)]
pub enum Event {
    /// The job starts.
    Start,
    /// Time passed (an answer to [`Action::WakeAt`], or nothing else).
    Tick,
    /// A worker finished a bundle. What becomes of it is told by [`Action::Committed`], [`Action::Refused`],
    /// [`Action::Undone`] or [`Action::Abandon`]: at once, or when the answer to a split of it has come.
    BundleFinished {
        /// Which.
        bundle: BundleId,
        /// What it did.
        result: BundleResult,
    },
    /// A bundle failed: nothing it did stays.
    BundleFailed {
        /// Which.
        bundle: BundleId,
        /// Why, in the user's terms.
        error: String,
        /// Whether the worker vanished (counted apart from failures of user code).
        worker_lost: bool,
    },
    /// A worker accepted a split of its bundle. An empty answer is told too, with nothing in it.
    BundleSplit {
        /// Which.
        bundle: BundleId,
        /// What the worker gave back.
        split: Split,
    },
    /// A worker answered a split in a way that tells not what it gave up: what it still does is not all of the bundle.
    SplitUnusable {
        /// Which.
        bundle: BundleId,
        /// What is wrong with the answer.
        error: String,
    },
    /// A worker told how far a bundle is.
    BundleProgress {
        /// Which.
        bundle: BundleId,
        /// Main-input elements that it has begun, or finished, of those sent.
        elements_done: u64,
    },
    /// An SDK merged windows.
    WindowsMerged {
        /// Answers this request.
        request: RequestId,
        /// Each merged window with those that became it; windows not named are unchanged.
        merged: Vec<(Window, Vec<Window>)>,
    },
    /// An SDK mapped main-input windows to side-input windows.
    WindowsMapped {
        /// Answers this request.
        request: RequestId,
        /// In the order of the request.
        windows: Vec<Window>,
    },
    /// An SDK could not answer a request.
    RequestFailed {
        /// Which.
        request: RequestId,
        /// Why.
        error: String,
    },
    /// Events of a TestStream that an endpoint serves; `done` with the last ones.
    TestStreamEvents {
        /// Whose.
        transform: TransformId,
        /// In order.
        events: Vec<TestStreamEvent>,
        /// Whether none follow.
        done: bool,
    },
    /// Finish what is there: sources stop, watermarks go to the end.
    Drain,
    /// Stop at once.
    Cancel,
}

/// What is to be done, told by [`crate::Engine::handle`]. Order matters.
#[derive(Debug)]
pub enum Action {
    /// Process a bundle on the worker it names.
    StartBundle(Bundle),
    /// Ask a running bundle to give up what it has not begun.
    SplitBundle {
        /// Which.
        bundle: BundleId,
        /// How much of the rest the worker keeps, 0 to 1.
        fraction: f64,
        /// How many main-input elements were sent to it.
        estimated_input_elements: u64,
    },
    /// All that a finished bundle did counts. That may be decided later than it finished: see [`Event::BundleSplit`].
    Committed {
        /// Which.
        bundle: BundleId,
        /// Whether its finalizers are to be called.
        finalize: bool,
    },
    /// The result of a finished bundle cannot be taken, which is a failure of the bundle: it runs again, or the job fails.
    Refused {
        /// Which.
        bundle: BundleId,
        /// What is wrong with the result.
        error: String,
    },
    /// The result of a bundle is no longer wanted, be it there or not (the job ends, or the bundle is to run again).
    Abandon(BundleId),
    /// An answer to a split could not be used, so the bundle runs again, and no bundle of the stage is split from now
    /// on. Told once for each stage.
    SplitsStopped {
        /// Whose bundles.
        stage: StageId,
        /// What was wrong with the answer.
        error: String,
    },
    /// Nothing of a finished bundle is taken; other bundles do its work again.
    Undone(BundleId),
    /// Tell [`Event::Tick`] at this processing time, or earlier. Replaces an earlier wake-up.
    WakeAt(Timestamp),
    /// Ask an SDK to merge custom windows; answered by [`Event::WindowsMerged`].
    MergeWindows {
        /// To answer.
        request: RequestId,
        /// The collection whose windowing strategy it is.
        collection: CollectionId,
        /// All windows of one key.
        windows: Vec<Window>,
    },
    /// Ask an SDK to map main-input windows for a side input; answered by [`Event::WindowsMapped`].
    MapWindows {
        /// To answer.
        request: RequestId,
        /// Whose side input.
        transform: TransformId,
        /// Index into its side inputs.
        side_input: usize,
        /// Main-input windows.
        windows: Vec<Window>,
    },
    /// A bundle failed for good or the graph cannot go on: the job fails. `Finished` follows.
    Failed {
        /// The user's own error, with transform and attempts.
        error: String,
    },
    /// Nothing more will happen.
    Finished(Outcome),
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All watermarks are at the end and nothing is left.
    Done,
    /// [`Action::Failed`] said why.
    Failed,
    /// [`Event::Cancel`].
    Cancelled,
    /// [`Event::Drain`], and all is processed.
    Drained,
}

/// A bundle for a worker.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Its name; new for each attempt.
    pub id: BundleId,
    /// Which stage processes it.
    pub stage: StageId,
    /// Index of the worker in the stage's environment.
    pub worker: u32,
    /// 1 for the first.
    pub attempt: u32,
    /// What to send, in order: main input and timers interleaved as they must be processed.
    pub input: Vec<BundleInput>,
    /// Number of main-input elements in all.
    pub elements: u64,
    /// Token under which the worker may cache user state.
    pub state_token: u64,
    /// Tokens under which the worker may cache side inputs: transform, side input's tag, token.
    pub side_input_tokens: Vec<(TransformId, String, u64)>,
}

/// A piece of a bundle's input.
#[derive(Clone, Debug)]
pub enum BundleInput {
    /// Main-input elements: concatenated windowed values.
    Elements(Bytes),
    /// Timers that fire: concatenated, encoded as `beam:coder:timer:v1`.
    Timers {
        /// Whose.
        transform: TransformId,
        /// Local name of the family.
        family: String,
        /// Encoded.
        data: Bytes,
    },
}

/// What a bundle did.
#[derive(Debug, Default)]
pub struct BundleResult {
    /// Elements for the stage's outputs.
    pub outputs: Vec<(CollectionId, Chunk)>,
    /// Timers set or cleared: concatenated, encoded as `beam:coder:timer:v1`, in the order they came.
    pub timers: Vec<(TransformId, String, Bytes)>,
    /// What a splittable DoFn left of its own accord.
    pub residuals: Vec<Residual>,
    /// Whether its finalizers are to be called once it is committed.
    pub finalize: bool,
}

/// What a worker gave back of a running bundle.
#[derive(Debug, Default)]
pub struct Split {
    /// Main-input elements from this index on were not begun and are given back (channel split). `None`: no channel split.
    pub first_residual: Option<u64>,
    /// Index of the last element that stays whole in the primary, -1 for none.
    pub last_primary: i64,
    /// The primary part of the element that was split, for a retry: encoded windowed value.
    pub primary_roots: Vec<Bytes>,
    /// What is to be processed by others.
    pub residuals: Vec<Residual>,
}

/// An element and restriction for later.
#[derive(Clone, Debug)]
pub struct Residual {
    /// Encoded windowed value, in the coder of the stage's main input.
    pub element: Bytes,
    /// Not before this many milliseconds from now.
    pub delay_ms: i64,
    /// The output watermark that it holds; `None`: the element's own timestamp.
    pub watermark: Option<Timestamp>,
}

/// User state of a bundle's key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateKey {
    /// Whose state.
    pub transform: TransformId,
    /// Local name of the state.
    pub state: String,
    /// The window, encoded as the worker sends it.
    pub window: Bytes,
    /// The key, encoded as the worker sends it.
    pub key: Bytes,
    /// What kind of state, and which part of it.
    pub part: StatePart,
}

/// Which part of a state is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StatePart {
    /// A bag (value and combining state are bags of one).
    Bag,
    /// Values of one key of a multimap.
    MultimapValues(Bytes),
    /// All keys of a multimap (append is not allowed; clear clears the whole).
    MultimapKeys,
    /// All keys and values of a multimap (read only).
    MultimapEntries,
    /// A range [start, end) of an ordered list, by sort key. Appended data carry their own sort keys.
    OrderedList(i64, i64),
}

/// What a worker reads of a side input.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SideInputKey {
    /// Whose side input.
    pub transform: TransformId,
    /// Local name of the side input.
    pub side_input: String,
    /// The side-input window, encoded as the worker sends it.
    pub window: Bytes,
    /// Which part.
    pub part: SideInputPart,
}

/// Which part of a side input is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SideInputPart {
    /// All elements.
    Iterable,
    /// Values of one encoded key.
    MultimapValues(Bytes),
    /// All keys.
    MultimapKeys,
    /// All keys with their values.
    MultimapEntries,
}
