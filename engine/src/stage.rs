//! What the engine keeps of a stage while the job runs.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use purlin_model::{Timer, TimerCoder, Timestamp, Window, Windows};

use crate::bundle::{Retry, Work};
use crate::chunk::{Chunk, ChunkError, CollectionFormat};
use crate::config::EngineConfig;
use crate::event::{Residual, StageId};
use crate::fuse::Stage;
use crate::graph::{CollectionId, EnvironmentId, Graph, TransformKind};
use crate::keyed::{KeyedQueue, KeyedSpec, StageHolds};
use crate::side_input::{Blocked, SideView};
use crate::stage_queue::PlainQueue;
use crate::state::{Overlay, StateTable};
use crate::watermark::{Holds, Watermark};

/// Windows of side inputs are kept for a day of event time after main-input elements of theirs would be late: a ParDo
/// without state processes those too.
const SIDE_INPUT_GRACE_MS: i64 = 86_400_000;

#[derive(Debug)]
enum Queue {
    Plain(PlainQueue),
    Keyed(Box<KeyedQueue>),
}

/// What an environment has to run bundles in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Of all workers, at least one.
    pub slots: u64,
    /// Slots without a bundle, at least one.
    pub free: u64,
    /// Workers without a bundle.
    pub idle_workers: u64,
}

#[derive(Debug)]
pub(crate) struct StageState {
    pub name: String,
    pub environment: EnvironmentId,
    pub input: CollectionId,
    format: CollectionFormat,
    queue: Queue,
    /// Elements that wait or are processed: hold the input watermark.
    pending: Holds,
    /// Timers, expirations, elements to be sorted: hold the output watermark.
    holds: Holds,
    pub input_watermark: Watermark,
    pub output_watermark: Watermark,
    retries: VecDeque<Retry>,
    in_flight: usize,
    /// Elements of this stage are slow: so many keep a worker busy for as long as a bundle is worth. `None` as long as
    /// no bundle of it was asked to split, or since one of so many was quick.
    slow: Option<u64>,
    state: StateTable,
    /// Token of the worker that had the last bundle, unless it failed.
    state_token: Option<(u32, u64)>,
    pub sides: Vec<SideView>,
    blocked: Blocked,
    allowed_lateness_ms: i64,
    pub splittable: bool,
    /// A worker answered a split in a way that could not be used: none is asked for any more, save in a drain.
    splits_stopped: bool,
    /// A splittable transform whose output never ends.
    pub unbounded: bool,
    /// A splittable transform that has left work for later of its own accord.
    self_resumes: bool,
    /// Of a splittable transform: the stages that process what it makes.
    pub downstream: Vec<StageId>,
    /// The stage that truncates restrictions for this one.
    pub truncate: Option<StageId>,
    /// The stage whose restrictions this one truncates.
    pub truncates: Option<StageId>,
}

impl StageState {
    pub fn new(graph: &Graph, stage: &Stage, config: &EngineConfig) -> StageState {
        let collection = &graph.collections[stage.input];
        let format = CollectionFormat::from(collection);
        let mut sides = Vec::new();
        let scripted = graph.is_scripted();
        for &(id, index) in &stage.side_inputs {
            if let TransformKind::User(user) = &graph.transforms[id].kind {
                let side = &user.side_inputs[index];
                sides.push(SideView::new(
                    id,
                    index,
                    side,
                    &graph.collections[side.collection],
                    scripted,
                ));
            }
        }
        let keyed = stage.stateful.and_then(|id| keyed_spec(graph, stage, config, id));
        let output = stage
            .splittable
            .and_then(|id| graph.transforms[id].outputs.first());
        StageState {
            name: stage.name.clone(),
            environment: stage.environment.unwrap_or(EnvironmentId(0)),
            input: stage.input,
            format,
            queue: match keyed {
                Some(spec) => Queue::Keyed(Box::new(KeyedQueue::new(spec))),
                None => Queue::Plain(PlainQueue::default()),
            },
            pending: Holds::default(),
            holds: Holds::default(),
            input_watermark: Watermark::START,
            output_watermark: Watermark::START,
            retries: VecDeque::new(),
            in_flight: 0,
            slow: None,
            state: StateTable::default(),
            state_token: None,
            sides,
            blocked: Blocked::default(),
            allowed_lateness_ms: collection.windowing.allowed_lateness_ms.max(0),
            splittable: stage.splittable.is_some(),
            splits_stopped: false,
            unbounded: output.is_some_and(|id| !graph.collections[*id].bounded),
            self_resumes: false,
            downstream: Vec::new(),
            truncate: None,
            truncates: None,
        }
    }

    pub fn is_keyed(&self) -> bool {
        matches!(self.queue, Queue::Keyed(_))
    }

    /// Elements dropped because their window had expired.
    pub fn dropped(&self) -> u64 {
        match &self.queue {
            Queue::Plain(_) => 0,
            Queue::Keyed(queue) => queue.dropped,
        }
    }

    /// How elements of the main input are encoded.
    pub fn format(&self) -> &CollectionFormat {
        &self.format
    }

    /// A bundle was started.
    pub fn started(&mut self) {
        self.in_flight += 1;
    }

    /// A bundle was committed, failed or was undone.
    pub fn ended(&mut self) {
        self.in_flight -= 1;
    }

    /// Work that failed, to be tried again before anything else.
    pub fn next_retry(&mut self) -> Option<Retry> {
        self.retries.pop_front()
    }

    /// Takes back the work of a bundle that failed or was abandoned. What its worker's cache of user state holds may be that
    /// attempt's.
    pub fn retry(&mut self, retry: Retry) {
        self.state_token = None;
        self.retries.push_back(retry);
    }

    /// The worker that had the last bundle, whose cache of user state is warm.
    pub fn last_worker(&self) -> Option<u32> {
        self.state_token.map(|(worker, _)| worker)
    }

    /// The token of a worker's cache of user state, which is good as long as all of the stage's bundles succeed on that worker;
    /// `fresh` gives one that was not given before.
    pub fn cache_token(&mut self, worker: u32, fresh: impl FnOnce() -> u64) -> u64 {
        match self.state_token {
            Some((last, token)) if last == worker => token,
            _ => {
                let token = fresh();
                self.state_token = Some((worker, token));
                token
            }
        }
    }

    /// User state as it is committed, overlaid by what a bundle changes.
    pub fn state(&self) -> &StateTable {
        &self.state
    }

    /// Elements of the stage are slow: `share` of them keep a worker busy for as long as a bundle is worth.
    pub fn note_slow(&mut self, share: u64) {
        self.slow = Some(share);
    }

    /// A bundle of so many elements was through before it was asked how far it is: if the stage was slow, it is so no more.
    pub fn note_quick(&mut self, elements: u64) {
        if self.slow.is_some_and(|share| elements >= share) {
            self.slow = None;
        }
    }

    /// Whether its bundles may be asked to split.
    pub fn splits(&self) -> bool {
        !self.splits_stopped
    }

    /// A worker answered a split in a way that cannot be used: none is asked for any more, save in a drain. False: it was so
    /// before.
    pub fn stop_splits(&mut self) -> bool {
        !core::mem::replace(&mut self.splits_stopped, true)
    }

    /// A bundle has left restrictions for later.
    pub fn note_residuals(&mut self) {
        self.self_resumes = true;
    }

    /// The clock of a TestStream is so many milliseconds ahead of the SDKs' own.
    pub fn set_ahead(&mut self, ahead_ms: i64) {
        if let Queue::Keyed(queue) = &mut self.queue {
            queue.ahead_ms = ahead_ms;
        }
    }

    /// The job drains: timers of endless lines fire for the last time.
    pub fn drain(&mut self) {
        if let Queue::Keyed(queue) = &mut self.queue {
            queue.drain();
        }
    }

    /// Whether a bundle's timers would have fired otherwise, had each timestamp had a bundle of its own.
    pub fn disturbs(&self, work: &Work, timers: &[(usize, Vec<Timer>)]) -> bool {
        matches!(&self.queue, Queue::Keyed(queue) if queue.disturbs(work, timers))
    }

    /// Takes back the work of a bundle of which nothing is taken: it waits as before. What its worker's cache of user state
    /// holds is not taken either.
    pub fn undo(&mut self, work: Work) -> Result<(), ChunkError> {
        self.state_token = None;
        let Queue::Keyed(queue) = &mut self.queue else {
            return Ok(());
        };
        let mut holds = StageHolds {
            pending: &mut self.pending,
            output: &mut self.holds,
        };
        queue.undo(work, &self.format, &mut holds)
    }

    /// Sets the timers of a bundle that is committed; its work is let go by [`StageState::release`] later.
    pub fn set_timers(&mut self, work: &Work, timers: Vec<(usize, Vec<Timer>)>) {
        if let Queue::Keyed(queue) = &mut self.queue {
            let mut holds = StageHolds {
                pending: &mut self.pending,
                output: &mut self.holds,
            };
            queue.set_timers(work, timers, &mut holds);
        }
    }

    /// Commits what a bundle changed of user state, which is collected when its windows have expired.
    pub fn commit_state(&mut self, overlay: Overlay) {
        let touched = self.state.commit(overlay);
        self.register(touched);
    }

    /// The earliest of all elements that wait or are processed.
    pub fn earliest(&self) -> Timestamp {
        self.pending.min()
    }

    /// Holds the input watermark at each of these.
    pub fn hold(&mut self, at: &[Timestamp]) {
        at.iter().for_each(|at| self.pending.add(*at));
    }

    /// Lets go what [`StageState::hold`] held.
    pub fn let_go(&mut self, at: &[Timestamp]) {
        at.iter().for_each(|at| self.pending.remove(*at));
    }

    /// Takes in elements of the main input.
    pub fn enqueue(
        &mut self,
        chunk: Chunk,
        side_watermark: impl Fn(CollectionId) -> Timestamp,
    ) -> Result<(), ChunkError> {
        if chunk.count == 0 {
            return Ok(());
        }
        let all_ready = self
            .sides
            .iter()
            .all(|side| side.is_ready_for_all(side_watermark(side.collection)));
        if all_ready {
            return self.enqueue_ready(chunk);
        }
        let StageState {
            sides,
            format,
            blocked,
            pending,
            ..
        } = self;
        let mut ready = Vec::new();
        let mut ready_count = 0;
        let mut ready_min = Timestamp::MAX;
        let mut last: Option<(Windows, bool)> = None;
        for (index, element) in (0..).zip(format.walk(&chunk.data)) {
            let element = element.map_err(|source| format.error(index, chunk.data.len(), source))?;
            let go = match &last {
                Some((windows, go)) if *windows == element.windows => *go,
                _ => {
                    let go = windows_ready(sides, &element.windows, &side_watermark);
                    last = Some((element.windows.clone(), go));
                    go
                }
            };
            let bytes = &chunk.data[element.whole()];
            if go {
                ready.extend_from_slice(bytes);
                ready_count += 1;
                ready_min = ready_min.min(element.timestamp);
            } else {
                let (hold, release) = blocked.push(element.windows, bytes, element.timestamp);
                hold.into_iter().for_each(|at| pending.add(at));
                release.into_iter().for_each(|at| pending.remove(at));
            }
        }
        if ready_count > 0 {
            let chunk = Chunk {
                data: ready.into(),
                count: ready_count,
                min_timestamp: ready_min,
            };
            self.enqueue_ready(chunk)?;
        }
        Ok(())
    }

    /// Lets elements go whose side inputs are ready now.
    pub fn unblock(&mut self, side_watermark: impl Fn(CollectionId) -> Timestamp) -> Result<(), ChunkError> {
        if self.blocked.is_empty() {
            return Ok(());
        }
        let StageState { sides, blocked, .. } = self;
        let released = blocked.release(|windows| windows_ready(sides, windows, &side_watermark));
        for chunk in released {
            let hold = chunk.min_timestamp;
            self.enqueue_ready(chunk)?;
            self.pending.remove(hold);
        }
        Ok(())
    }

    fn enqueue_ready(&mut self, chunk: Chunk) -> Result<(), ChunkError> {
        match &mut self.queue {
            Queue::Plain(queue) => {
                queue.push(chunk, &mut self.pending);
                Ok(())
            }
            Queue::Keyed(queue) => {
                let mut holds = StageHolds {
                    pending: &mut self.pending,
                    output: &mut self.holds,
                };
                queue.ingest(&chunk, &self.format, &mut holds)
            }
        }
    }

    /// Whether it may have work for ever.
    pub fn is_endless(&self) -> bool {
        self.splittable && (self.unbounded || self.self_resumes)
    }

    /// Elements that a worker gave back unbegun. They are the oldest, and had no turn yet: they go before all that waits.
    pub fn give_back(&mut self, chunk: Chunk) -> Result<(), ChunkError> {
        match &mut self.queue {
            Queue::Plain(queue) => {
                queue.push_front(chunk, &mut self.pending);
                Ok(())
            }
            Queue::Keyed(_) => self.enqueue_ready(chunk),
        }
    }

    /// Takes out all that waits, residuals that are not due and what waits for side inputs too.
    pub fn take_all(&mut self) -> Vec<Chunk> {
        let mut all = self.blocked.release(|_| true);
        all.iter()
            .for_each(|chunk| self.pending.remove(chunk.min_timestamp));
        all.extend(match &mut self.queue {
            Queue::Plain(queue) => queue.take_all(&mut self.pending),
            Queue::Keyed(queue) => queue.take_all(&mut StageHolds {
                pending: &mut self.pending,
                output: &mut self.holds,
            }),
        });
        all
    }

    /// Queues what is left of a restriction that had its turn: behind all that waits.
    pub fn push_residual(&mut self, residual: &Residual, now: Timestamp) -> Result<(), ChunkError> {
        let mut chunk = Chunk::scan(residual.element.clone(), &self.format)?;
        match &mut self.queue {
            Queue::Plain(queue) => {
                if let Some(watermark) = residual.watermark {
                    chunk.min_timestamp = watermark;
                }
                if residual.delay_ms > 0 {
                    queue.push_delayed(now.plus_millis(residual.delay_ms), chunk, &mut self.pending);
                } else {
                    queue.push(chunk, &mut self.pending);
                }
                Ok(())
            }
            Queue::Keyed(queue) => {
                let mut holds = StageHolds {
                    pending: &mut self.pending,
                    output: &mut self.holds,
                };
                let at = (residual.delay_ms > 0).then(|| now.plus_millis(residual.delay_ms));
                queue.push_residual(at, &chunk, residual.watermark, &self.format, &mut holds)
            }
        }
    }

    /// Moves the watermarks and finds what is due.
    pub fn advance(&mut self, upstream: Timestamp, now: Timestamp) -> Result<(), ChunkError> {
        let StageState {
            queue,
            pending,
            holds,
            ..
        } = self;
        let mut limit = upstream;
        match queue {
            Queue::Plain(queue) => queue.advance(now),
            Queue::Keyed(queue) => {
                let mut holds = StageHolds {
                    pending,
                    output: holds,
                };
                queue.release_delayed(now, &self.format, &mut holds)?;
                // What waits for a side input has yet to take its turn.
                let turn = upstream.min(self.blocked.min_timestamp());
                limit = queue.release_sorted(turn, &mut holds);
            }
        }
        self.input_watermark.advance(limit.min(self.pending.min()));
        let input_watermark = self.input_watermark.get();
        if let Queue::Keyed(queue) = &mut self.queue {
            queue.advance(input_watermark, now);
        }
        self.collect();
        // Elements that are later than the input watermark do not hold it, but what they make is late only if the
        // output watermark was beyond already.
        let limit = input_watermark.min(self.holds.min());
        if self.output_watermark.advance(limit) {
            let lateness = self.allowed_lateness_ms.saturating_add(SIDE_INPUT_GRACE_MS);
            let main = limit.plus_millis(-lateness);
            self.sides.iter_mut().for_each(|side| side.collect(main));
        }
        Ok(())
    }

    /// Forgets state of expired windows.
    fn collect(&mut self) {
        if let Queue::Keyed(queue) = &mut self.queue {
            for (key, window) in core::mem::take(&mut queue.collected) {
                self.state.collect(&key, &window.to_bytes());
            }
        }
    }

    /// Elements (and keys with timers) that a bundle could take now.
    pub fn size(&self) -> u64 {
        match &self.queue {
            Queue::Plain(queue) => queue.size(),
            Queue::Keyed(queue) => queue.size(),
        }
    }

    /// Bytes of elements that a bundle could take now.
    pub fn queued_bytes(&self) -> u64 {
        match &self.queue {
            Queue::Plain(queue) => queue.bytes(),
            Queue::Keyed(queue) => queue.bytes,
        }
    }

    /// Whether a bundle could be put together.
    pub fn has_work(&self) -> bool {
        !self.retries.is_empty() || self.size() > 0
    }

    /// Nothing waits for whatever reason, timers aside.
    pub fn is_empty(&self) -> bool {
        self.in_flight == 0
            && self.retries.is_empty()
            && self.blocked.is_empty()
            && match &self.queue {
                Queue::Plain(queue) => queue.is_empty(),
                Queue::Keyed(queue) => queue.is_empty(),
            }
    }

    pub fn compose(&mut self, config: &EngineConfig, room: Room) -> Result<Option<Work>, ChunkError> {
        let (elements, bytes) = self.target(config, room);
        match &mut self.queue {
            Queue::Plain(queue) => queue.compose(elements, bytes, &mut self.pending, &self.format),
            Queue::Keyed(queue) => Ok(queue.compose(elements, bytes)),
        }
    }

    /// How large a bundle should be. Many elements: so that all slots have something to do and none much more than the
    /// others. Few elements: one bundle for each idle worker, as a bundle costs more than few elements do, and as what
    /// user code does once a bundle (a batch, a file) is not to depend on the number of slots. If the elements turn out
    /// to be slow, a split shares them out (`split_stragglers`).
    fn target(&self, config: &EngineConfig, room: Room) -> (u64, u64) {
        let size = self.size().max(1);
        let max = config.max_bundle_elements.max(1);
        let elements = if self.splittable {
            (size / (4 * room.slots)).clamp(1, config.min_bundle_elements.max(1))
        } else if self.is_keyed() && size <= config.min_bundle_elements {
            // A bundle cannot give back elements of a transform with state: they are shared out at once.
            size.div_ceil(room.free)
        } else if self.is_keyed() || size > config.few_elements {
            (size / (2 * room.slots)).max(config.min_bundle_elements)
        } else if let Some(share) = self.slow {
            size.div_ceil(room.free).next_multiple_of(share.max(1))
        } else {
            size.div_ceil(room.idle_workers.max(1))
        };
        (elements.clamp(1, max), config.max_bundle_bytes.max(1))
    }

    /// When something is due by processing time.
    pub fn next_processing_time(&self) -> Option<Timestamp> {
        match &self.queue {
            Queue::Plain(queue) => queue.next_processing_time(),
            Queue::Keyed(queue) => queue.next_processing_time(),
        }
    }

    /// Decodes timers that a bundle set.
    pub fn decode_timers(&self, family: &str, data: &Bytes) -> Result<(usize, Vec<Timer>), String> {
        let Queue::Keyed(queue) = &self.queue else {
            return Err(format!(
                "timer family \"{family}\" is of a transform without timers"
            ));
        };
        let Some(index) = queue.family(family) else {
            return Err(format!("there is no timer family \"{family}\""));
        };
        let timers = queue
            .spec
            .timer_coder
            .decode_all(data)
            .collect::<Result<Vec<_>, _>>();
        timers
            .map(|timers| (index, timers))
            .map_err(|error| format!("a timer of family \"{family}\": {error}"))
    }

    /// A bundle was committed: what it held is released.
    pub fn release(&mut self, work: &Work) {
        if let Queue::Keyed(queue) = &mut self.queue {
            let mut holds = StageHolds {
                pending: &mut self.pending,
                output: &mut self.holds,
            };
            queue.release(work, &mut holds);
        }
        work.holds.iter().for_each(|at| self.pending.remove(*at));
        work.timer_holds.iter().for_each(|at| self.holds.remove(*at));
        self.collect();
    }

    /// Windows of keys that have state now will have it collected.
    fn register(&mut self, touched: Vec<(Bytes, Bytes)>) {
        let Queue::Keyed(queue) = &mut self.queue else {
            return;
        };
        let mut holds = StageHolds {
            pending: &mut self.pending,
            output: &mut self.holds,
        };
        for (key, window) in touched {
            // A window that cannot be read is the worker's own business; its state stays.
            if let Ok(window) = self.format.window.decode(&mut &window[..], false) {
                queue.register(&key, &window, &mut holds);
            }
        }
    }

    /// For diagnoses.
    pub fn describe(&self) -> String {
        let queue = match &self.queue {
            Queue::Plain(queue) => format!("{} elements wait", queue.size()),
            Queue::Keyed(queue) => queue.describe(),
        };
        let blocked = if self.blocked.is_empty() {
            ""
        } else {
            ", elements wait for a side input"
        };
        format!(
            "stage \"{}\": input watermark {}, output watermark {}, {queue}{blocked}",
            self.name,
            self.input_watermark.get(),
            self.output_watermark.get()
        )
    }
}

fn windows_ready(
    sides: &mut [SideView],
    windows: &[Window],
    watermark: &impl Fn(CollectionId) -> Timestamp,
) -> bool {
    // Every side input is looked at, so that all questions to the SDK are asked at once.
    let mut ready = true;
    for side in sides {
        let at = watermark(side.collection);
        for window in windows {
            ready &= side.is_ready(window, at);
        }
    }
    ready
}

fn keyed_spec(
    graph: &Graph,
    stage: &Stage,
    config: &EngineConfig,
    id: crate::graph::TransformId,
) -> Option<KeyedSpec> {
    let TransformKind::User(user) = &graph.transforms[id].kind else {
        return None;
    };
    let collection = &graph.collections[stage.input];
    let mut key = collection.coder.as_kv()?.0;
    if user.splittable {
        // A sized element and restriction is ((element, restriction), size), and the element is the keyed pair.
        key = key.as_kv()?.0.as_kv()?.0;
    }
    Some(KeyedSpec {
        transform: id,
        key: key.clone(),
        timer_coder: TimerCoder {
            key: key.clone(),
            window: collection.window_coder.clone(),
        },
        families: user
            .timers
            .iter()
            .map(|family| (family.name.clone(), family.domain))
            .collect(),
        on_window_expiration: user
            .on_window_expiration
            .as_ref()
            .and_then(|name| user.timers.iter().position(|family| family.name == *name)),
        time_sorted: user.requires_time_sorted_input,
        allowed_lateness_ms: collection.windowing.allowed_lateness_ms,
        max_bundle_elements: config.max_bundle_elements,
    })
}
