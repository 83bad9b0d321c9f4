//! The queue of a stage with state or timers: elements and timers by key, one bundle at a time for each.
//!
//! A timer that fires can set, reset or clear what would follow it, and looping timers work: see [`compose`].

mod compose;
mod ending;
mod entry;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::hash::FxHashMap;
use bytes::Bytes;
use purlin_model::windowed::encode_header;
use purlin_model::{
    Coder, DecodeError, Timer, TimerCoder, TimerFiring, Timestamp, WalkedElement, Window, Windows,
};

use crate::bundle::Work;
use crate::chunk::{Chunk, ChunkError, CollectionFormat};
use crate::graph::{TimeDomain, TransformId};
use crate::watermark::Holds;
use ending::{Ending, Lines};
use entry::{Armed, Entry};
pub(crate) use entry::{Fired, Span, TimerId};

/// What the queue must know of its stage.
#[derive(Clone, Debug)]
pub(crate) struct KeyedSpec {
    pub transform: TransformId,
    pub key: Coder,
    pub timer_coder: TimerCoder,
    pub families: Vec<(String, TimeDomain)>,
    pub on_window_expiration: Option<usize>,
    pub time_sorted: bool,
    pub allowed_lateness_ms: i64,
    /// A bundle has no more elements than this.
    pub max_bundle_elements: u64,
}

/// What a timer with this output timestamp holds the output watermark at. One "without output timestamp" has the end of time;
/// yet nobody downstream may take the input for complete before it has fired.
fn held(output_timestamp: Timestamp) -> Timestamp {
    output_timestamp.min(Timestamp::END_OF_GLOBAL_WINDOW)
}

/// The two kinds of holds of a stage.
pub(crate) struct StageHolds<'a> {
    /// Elements: hold the input watermark.
    pub pending: &'a mut Holds,
    /// Timers and the like: hold the output watermark.
    pub output: &'a mut Holds,
}

#[derive(Debug)]
pub(crate) struct KeyedQueue {
    pub spec: KeyedSpec,
    keys: FxHashMap<Bytes, Entry>,
    ready: VecDeque<Bytes>,
    event_timers: BTreeSet<(Timestamp, Bytes)>,
    processing_timers: BTreeSet<(Timestamp, Bytes)>,
    expirations: BTreeSet<(Timestamp, Bytes)>,
    sorting: BTreeSet<(Timestamp, Bytes)>,
    /// Elements that a bundle can take, and their bytes.
    pub elements: u64,
    pub bytes: u64,
    /// Timers fire one timestamp at a time: what they set changed what was to fire after them.
    one_by_one: bool,
    /// Elements dropped because their window had expired.
    pub dropped: u64,
    /// State that nobody will read again.
    pub collected: Vec<(Bytes, Window)>,
    /// Residuals that are not due, with what they hold.
    delayed: BTreeMap<(Timestamp, u64), (Chunk, Timestamp)>,
    sequence: u64,
    watermark: Timestamp,
    now: Timestamp,
    /// Milliseconds that `now` is ahead of the SDK's clock, by which it sets processing-time timers and reads when they
    /// fire: a TestStream moves the time of a job.
    pub ahead_ms: i64,
    draining: bool,
}

/// When nothing more of a window is processed: its state goes. The input watermark must be beyond.
pub(crate) fn expiration_of(window: &Window, allowed_lateness_ms: i64) -> Timestamp {
    let last = Timestamp::MAX.plus_millis(-2);
    window
        .max_timestamp()
        .plus_millis(allowed_lateness_ms.max(0))
        .min(last)
}

impl KeyedQueue {
    pub fn new(spec: KeyedSpec) -> KeyedQueue {
        KeyedQueue {
            spec,
            keys: FxHashMap::default(),
            ready: VecDeque::new(),
            event_timers: BTreeSet::new(),
            processing_timers: BTreeSet::new(),
            expirations: BTreeSet::new(),
            sorting: BTreeSet::new(),
            elements: 0,
            bytes: 0,
            one_by_one: false,
            dropped: 0,
            collected: Vec::new(),
            delayed: BTreeMap::new(),
            sequence: 0,
            watermark: Timestamp::MIN,
            now: Timestamp::MIN,
            ahead_ms: 0,
            draining: false,
        }
    }

    /// The job drains. Once all input is processed, processing-time timers need not be waited for: they fire at once, as on
    /// Beam's Flink runner, and event-time timers fire as the watermark is at the end of time. See [`Ending`] for loops.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Takes out all elements and residuals, with the holds that they had.
    pub fn take_all(&mut self, holds: &mut StageHolds<'_>) -> Vec<Chunk> {
        let mut all = Vec::new();
        for entry in self.keys.values_mut() {
            entry.queued = false;
            for run in entry.runs.drain(..) {
                holds.pending.remove(run.min_timestamp);
                all.push(run.into_chunk());
            }
        }
        self.elements = 0;
        self.bytes = 0;
        for key in core::mem::take(&mut self.ready) {
            self.settle(&key);
        }
        for (chunk, hold) in core::mem::take(&mut self.delayed).into_values() {
            holds.pending.remove(hold);
            all.push(chunk);
        }
        all
    }

    /// All input is processed, and the job drains.
    fn at_drains_end(&self) -> bool {
        self.draining && self.watermark == Timestamp::MAX
    }

    fn ending(&self) -> Ending {
        Ending {
            drains: self.at_drains_end(),
            watermark: self.watermark,
            allowed_lateness_ms: self.spec.allowed_lateness_ms,
        }
    }

    fn expiration(&self, window: &Window) -> Timestamp {
        expiration_of(window, self.spec.allowed_lateness_ms)
    }

    /// Takes elements in. Those whose windows have expired are dropped.
    pub fn ingest(
        &mut self,
        chunk: &Chunk,
        format: &CollectionFormat,
        holds: &mut StageHolds<'_>,
    ) -> Result<(), ChunkError> {
        for (index, element) in (0..).zip(format.walk(&chunk.data)) {
            let error = |source| format.error(index, chunk.data.len(), source);
            let element = element.map_err(error)?;
            let hold = element.timestamp;
            self.ingest_one(&chunk.data, element, hold, holds)
                .map_err(error)?;
        }
        Ok(())
    }

    /// Queues a residual, not before `at`, which holds the watermark at `hold` instead of at its own timestamp.
    pub fn push_residual(
        &mut self,
        at: Option<Timestamp>,
        chunk: &Chunk,
        hold: Option<Timestamp>,
        format: &CollectionFormat,
        holds: &mut StageHolds<'_>,
    ) -> Result<(), ChunkError> {
        let hold = hold.unwrap_or(chunk.min_timestamp);
        if let Some(at) = at {
            holds.pending.add(hold);
            self.sequence += 1;
            self.delayed.insert((at, self.sequence), (chunk.clone(), hold));
            return Ok(());
        }
        for element in format.walk(&chunk.data) {
            let error = |source| format.error(0, chunk.data.len(), source);
            self.ingest_one(&chunk.data, element.map_err(error)?, hold, holds)
                .map_err(error)?;
        }
        Ok(())
    }

    /// Lets residuals go whose time has come.
    pub fn release_delayed(
        &mut self,
        now: Timestamp,
        format: &CollectionFormat,
        holds: &mut StageHolds<'_>,
    ) -> Result<(), ChunkError> {
        while let Some(first) = self.delayed.first_entry() {
            if first.key().0 > now {
                break;
            }
            let (chunk, hold) = first.remove();
            self.push_residual(None, &chunk, Some(hold), format, holds)?;
            holds.pending.remove(hold);
        }
        Ok(())
    }

    fn ingest_one(
        &mut self,
        data: &Bytes,
        element: WalkedElement,
        hold: Timestamp,
        holds: &mut StageHolds<'_>,
    ) -> Result<(), DecodeError> {
        // In every nesting of pairs the outermost key comes first.
        let mut value = &data[element.value()];
        let key = self.spec.key.take(&mut value, true)?;
        let lateness = self.spec.allowed_lateness_ms;
        let late = |window: &Window| expiration_of(window, lateness) < self.watermark;
        let too_late = self.spec.time_sorted && element.timestamp.plus_millis(lateness) < self.watermark;
        let mut rewritten = None;
        if too_late {
            self.dropped += 1;
            return Ok(());
        }
        if element.windows.iter().any(late) {
            let left: Windows = element
                .windows
                .iter()
                .filter(|window| !late(window))
                .cloned()
                .collect();
            if left.is_empty() {
                self.dropped += 1;
                return Ok(());
            }
            let mut out = Vec::new();
            encode_header(element.timestamp, &left, element.pane, &mut out);
            out.extend_from_slice(&data[element.value()]);
            rewritten = Some(out);
        }
        let bytes = rewritten.as_deref().unwrap_or(&data[element.whole()]);
        let owned_key = match self.keys.get_key_value(key) {
            Some((key, _)) => key.clone(),
            None => Bytes::copy_from_slice(key),
        };
        if self.spec.on_window_expiration.is_some() {
            let watermark = self.watermark;
            for window in element
                .windows
                .iter()
                .filter(|window| expiration_of(window, lateness) >= watermark)
            {
                self.register(&owned_key, window, holds);
            }
        }
        let sequence = self.sequence;
        self.sequence += 1;
        let entry = self.keys.entry(owned_key.clone()).or_default();
        if self.spec.time_sorted {
            entry
                .sorted
                .insert((element.timestamp, sequence), Bytes::copy_from_slice(bytes));
            holds.output.add(element.timestamp);
            self.sorting.insert((element.timestamp, owned_key));
            return Ok(());
        }
        entry.push(
            bytes,
            hold,
            self.watermark,
            self.spec.max_bundle_elements,
            holds.pending,
        );
        self.elements += 1;
        self.bytes += bytes.len() as u64;
        if !entry.busy && !entry.queued {
            entry.queued = true;
            self.ready.push_back(owned_key);
        }
        Ok(())
    }

    /// A window of a key has state, or its expiration is to be told.
    pub fn register(&mut self, key: &Bytes, window: &Window, holds: &mut StageHolds<'_>) {
        let at = self.expiration(window);
        let entry = self.keys.entry(key.clone()).or_default();
        if entry.windows.contains_key(window) {
            return;
        }
        entry.windows.insert(window.clone(), false);
        if self.spec.on_window_expiration.is_some() {
            holds.output.add(window.max_timestamp());
        }
        self.expirations.insert((at, key.clone()));
    }

    /// Lets elements that wait for their turn in event time go. `upstream`: the producers' watermark. Returns it, or
    /// the timestamp of the first element that still waits: timers do not overtake it.
    pub fn release_sorted(&mut self, upstream: Timestamp, holds: &mut StageHolds<'_>) -> Timestamp {
        let lateness = self.spec.allowed_lateness_ms;
        let due = |at: Timestamp| upstream == Timestamp::MAX || at.plus_millis(lateness) < upstream;
        while let Some((at, key)) = self.sorting.first().cloned() {
            if !due(at) {
                break;
            }
            self.sorting.pop_first();
            let Some(entry) = self.keys.get_mut(&key) else {
                continue;
            };
            while let Some((&(timestamp, sequence), _)) = entry.sorted.first_key_value() {
                if !due(timestamp) {
                    break;
                }
                if let Some(data) = entry.sorted.remove(&(timestamp, sequence)) {
                    entry.push(
                        &data,
                        timestamp,
                        self.watermark,
                        self.spec.max_bundle_elements,
                        holds.pending,
                    );
                    holds.output.remove(timestamp);
                    self.elements += 1;
                    self.bytes += data.len() as u64;
                }
            }
            if !entry.busy && !entry.queued && !entry.runs.is_empty() {
                entry.queued = true;
                self.ready.push_back(key);
            }
        }
        self.sorting.first().map_or(upstream, |(at, _)| upstream.min(*at))
    }

    /// Time passed: finds the keys that have something to do.
    pub fn advance(&mut self, watermark: Timestamp, now: Timestamp) {
        self.watermark = watermark;
        self.now = if self.at_drains_end() { Timestamp::MAX } else { now };
        let now = self.now;
        let mut keys = Vec::new();
        pop_due(&mut self.event_timers, |at| has_passed(watermark, at), &mut keys);
        pop_due(&mut self.processing_timers, |at| at <= now, &mut keys);
        pop_due(&mut self.expirations, |at| at < watermark, &mut keys);
        for key in keys {
            self.settle(&key);
        }
    }

    /// Finds out what an idle key has to do, and forgets a key that has nothing.
    fn settle(&mut self, key: &Bytes) {
        let (watermark, lateness) = (self.watermark, self.spec.allowed_lateness_ms);
        let tells = self.spec.on_window_expiration.is_some();
        let Some(entry) = self.keys.get_mut(key) else {
            return;
        };
        if entry.busy || entry.queued {
            return;
        }
        let timers = &entry.timers;
        entry
            .last
            .retain(|window, _| timers.keys().any(|id| id.window == *window));
        if !tells && entry.runs.is_empty() {
            let collected = &mut self.collected;
            entry.windows.retain(|window, _| {
                let waits = || timers.keys().any(|id| id.window == *window);
                let keep = expiration_of(window, lateness) >= watermark || waits();
                if !keep {
                    collected.push((key.clone(), window.clone()));
                }
                keep
            });
        }
        let has_work = !entry.runs.is_empty()
            || entry.due_timers(watermark, self.now).is_some()
            || (tells && entry.expired(watermark, lateness).next().is_some());
        if has_work {
            entry.queued = true;
            self.ready.push_back(key.clone());
        } else if entry.timers.is_empty() && entry.windows.is_empty() && entry.sorted.is_empty() {
            self.keys.remove(key);
        }
    }

    /// Number of elements and of keys with timers that a bundle could take now.
    pub fn size(&self) -> u64 {
        self.elements.max(self.ready.len() as u64)
    }

    /// A bundle was committed: its keys are free.
    pub fn release(&mut self, work: &Work, holds: &mut StageHolds<'_>) {
        for (key, window) in &work.expired {
            if let Some(entry) = self.keys.get_mut(key) {
                entry.windows.remove(window);
            }
            holds.output.remove(window.max_timestamp());
            self.collected.push((key.clone(), window.clone()));
        }
        for key in &work.keys {
            if let Some(entry) = self.keys.get_mut(key) {
                entry.busy = false;
            }
            self.settle(key);
        }
    }

    /// Index of a timer family.
    pub fn family(&self, name: &str) -> Option<usize> {
        self.spec.families.iter().position(|family| family.0 == name)
    }

    /// When a timer is due, in its domain.
    fn due(&self, domain: TimeDomain, firing: &TimerFiring, window: &Window) -> Timestamp {
        match domain {
            // Nothing of a window is processed after it expired.
            TimeDomain::EventTime => firing.fire_timestamp.min(self.expiration(window)),
            TimeDomain::ProcessingTime => firing.fire_timestamp.plus_millis(self.ahead_ms),
        }
    }

    /// Sets and clears the timers of each family that a bundle told of. `work`: what the bundle had.
    pub fn set_timers(&mut self, work: &Work, timers: Vec<(usize, Vec<Timer>)>, holds: &mut StageHolds<'_>) {
        let lines = self.lines(work, &timers);
        for (family, timers) in timers {
            for timer in timers {
                self.set_timer(family, timer, &lines, holds);
            }
        }
    }

    /// Sets or clears a timer. One of the same key, window, family and tag is replaced.
    fn set_timer(&mut self, family: usize, timer: Timer, lines: &Lines, holds: &mut StageHolds<'_>) {
        let Some(&(_, domain)) = self.spec.families.get(family) else {
            return;
        };
        let ending = self.ending();
        let key = match self.keys.get_key_value(&timer.user_key) {
            Some((key, _)) => key.clone(),
            None => timer.user_key.clone(),
        };
        for window in timer.windows.iter() {
            let due = timer.firing.map(|firing| self.due(domain, &firing, window));
            let id = TimerId {
                family,
                window: window.clone(),
                tag: timer.dynamic_tag.clone(),
            };
            let entry = self.keys.entry(key.clone()).or_default();
            if let Some(old) = entry.timers.remove(&id) {
                entry.order.remove(&(domain, old.due, id.clone()));
                holds.output.remove(held(old.firing.hold_timestamp));
            }
            let (Some(firing), Some(due)) = (timer.firing, due) else {
                continue;
            };
            let mut followers = None;
            if ending.includes(domain, due, window) {
                followers = lines.of(&key, &id);
                if followers.is_none() || entry.fired_last(&id) {
                    continue;
                }
            }
            holds.output.add(held(firing.hold_timestamp));
            entry.order.insert((domain, due, id.clone()));
            let armed = Armed {
                due,
                firing,
                followers,
            };
            entry.timers.insert(id, armed);
            match domain {
                TimeDomain::EventTime => self.event_timers.insert((due, key.clone())),
                TimeDomain::ProcessingTime => self.processing_timers.insert((due, key.clone())),
            };
        }
    }

    /// When a processing-time timer is due next.
    pub fn next_processing_time(&self) -> Option<Timestamp> {
        let timer = self.processing_timers.first().map(|(at, _)| *at);
        let residual = self.delayed.first_key_value().map(|(key, _)| key.0);
        timer.into_iter().chain(residual).min()
    }

    /// Whether nothing waits, for whatever reason.
    pub fn is_empty(&self) -> bool {
        self.elements == 0 && self.ready.is_empty() && self.sorting.is_empty() && self.delayed.is_empty()
    }

    /// For diagnoses: keys and timers that are there.
    pub fn describe(&self) -> String {
        let timers: usize = self.keys.values().map(|entry| entry.timers.len()).sum();
        format!(
            "{} elements, {timers} timers and {} windows of state of {} keys",
            self.elements,
            self.expirations.len(),
            self.keys.len()
        )
    }
}

/// Whether the watermark is beyond a timestamp, so that an event-time timer of that timestamp fires: elements of the
/// very timestamp come before it.
fn has_passed(watermark: Timestamp, at: Timestamp) -> bool {
    at < watermark || watermark == Timestamp::MAX
}

fn pop_due(index: &mut BTreeSet<(Timestamp, Bytes)>, due: impl Fn(Timestamp) -> bool, keys: &mut Vec<Bytes>) {
    while let Some((at, _)) = index.first() {
        if !due(*at) {
            break;
        }
        if let Some((_, key)) = index.pop_first() {
            keys.push(key);
        }
    }
}
