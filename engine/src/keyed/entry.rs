//! What the queue keeps of one key.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use purlin_model::{TimerFiring, Timestamp, Window};

use super::{expiration_of, has_passed};
use crate::chunk::Chunk;
use crate::graph::TimeDomain;
use crate::watermark::Holds;

/// A key's elements are kept in buffers of about this many elements (or fewer, where bundles are) or bytes.
const RUN_ELEMENTS: u64 = 1_000;
pub(super) const RUN_BYTES: usize = 256 << 10;

/// What makes a timer of a key the same timer: one that is set replaces the one before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TimerId {
    pub family: usize,
    pub window: Window,
    pub tag: String,
}

/// A timer that is set.
#[derive(Clone, Debug)]
pub(crate) struct Armed {
    /// When it is due, in its domain: its timestamp, but no later than its window's collection.
    pub due: Timestamp,
    pub firing: TimerFiring,
    /// How many timers may come after it, if it was set when nothing but timers was left to come: see [`super::ending`].
    pub followers: Option<usize>,
}

/// A timer that a bundle fires.
#[derive(Clone, Debug)]
pub(crate) struct Fired {
    pub key: Bytes,
    pub id: TimerId,
    pub domain: TimeDomain,
    pub armed: Armed,
    /// It was noted as one that is not set again: see [`Entry::last`].
    pub last: bool,
}

/// A key of which a bundle fires timers of several timestamps.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub key: Bytes,
    pub domain: TimeDomain,
    pub first: Timestamp,
    pub last: Timestamp,
}

/// Elements of a key that came one after another.
#[derive(Debug)]
pub(super) struct Run {
    pub data: Vec<u8>,
    pub count: u64,
    pub min_timestamp: Timestamp,
    /// The stage's input watermark when they came. Timers that were due later than that do not overtake them.
    pub since: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Entry {
    pub runs: VecDeque<Run>,
    pub timers: BTreeMap<TimerId, Armed>,
    /// The same timers in the order in which they are due.
    pub order: BTreeSet<(TimeDomain, Timestamp, TimerId)>,
    /// Windows that have state, or whose expiration is to be told. The value: whether its expiration is in a bundle.
    pub windows: BTreeMap<Window, bool>,
    pub sorted: BTreeMap<(Timestamp, u64), Bytes>,
    /// A bundle has the key.
    pub busy: bool,
    /// It is in the ready list.
    pub queued: bool,
    /// The last bundle took timers and left elements waiting.
    pub elements_next: bool,
    /// By window, timers that fired when nothing but timers was left to come. They are not set again: see
    /// [`super::ending::Ending::includes`].
    pub last: BTreeMap<Window, BTreeSet<TimerId>>,
}

impl Entry {
    /// Adds an element that came when the stage's input watermark was at `since`.
    pub fn push(
        &mut self,
        data: &[u8],
        timestamp: Timestamp,
        since: Timestamp,
        max_elements: u64,
        pending: &mut Holds,
    ) {
        if let Some(run) = self.runs.back_mut()
            && run.since == since
            && run.count < RUN_ELEMENTS.min(max_elements)
            && run.data.len() < RUN_BYTES
        {
            if timestamp < run.min_timestamp {
                pending.add(timestamp);
                pending.remove(run.min_timestamp);
                run.min_timestamp = timestamp;
            }
            run.data.extend_from_slice(data);
            run.count += 1;
            return;
        }
        pending.add(timestamp);
        self.runs.push_back(Run {
            data: data.to_vec(),
            count: 1,
            min_timestamp: timestamp,
            since,
        });
    }

    /// Whether elements wait that came before the watermark moved past a timer of this timestamp.
    pub fn waits_before(&self, domain: TimeDomain, due: Timestamp) -> bool {
        let came_before = |run: &Run| !has_passed(run.since, due);
        domain == TimeDomain::EventTime && self.runs.front().is_some_and(came_before)
    }

    pub fn first_timer(&self, domain: TimeDomain) -> Option<&(TimeDomain, Timestamp, TimerId)> {
        match domain {
            TimeDomain::EventTime => self.order.first().filter(|first| first.0 == domain),
            TimeDomain::ProcessingTime => {
                let window = Window::Global;
                let start = TimerId {
                    family: 0,
                    window,
                    tag: String::new(),
                };
                self.order.range((domain, Timestamp(i64::MIN), start)..).next()
            }
        }
    }

    /// Whether a timer fired when nothing but timers was left to come of its window.
    pub fn fired_last(&self, id: &TimerId) -> bool {
        self.last.get(&id.window).is_some_and(|fired| fired.contains(id))
    }

    /// The domain and timestamp of the timers that are to fire first.
    pub fn due_timers(&self, watermark: Timestamp, now: Timestamp) -> Option<(TimeDomain, Timestamp)> {
        let due = |domain: TimeDomain| {
            let first = self.first_timer(domain)?;
            is_due(domain, first.1, watermark, now).then_some((domain, first.1))
        };
        due(TimeDomain::EventTime).or_else(|| due(TimeDomain::ProcessingTime))
    }

    /// Windows whose expiration can be told: nothing else of them is left.
    pub fn expired(&self, watermark: Timestamp, lateness: i64) -> impl Iterator<Item = &Window> {
        let windows = self.windows.iter().filter(move |(window, told)| {
            !**told
                && expiration_of(window, lateness) < watermark
                && !self.timers.keys().any(|id| id.window == **window)
        });
        windows.map(|(window, _)| window).filter(|_| self.runs.is_empty())
    }
}

/// Whether a timer of this timestamp fires now.
pub(super) fn is_due(domain: TimeDomain, due: Timestamp, watermark: Timestamp, now: Timestamp) -> bool {
    match domain {
        TimeDomain::EventTime => has_passed(watermark, due),
        TimeDomain::ProcessingTime => due <= now,
    }
}

impl Run {
    pub fn empty() -> Run {
        Run {
            data: Vec::new(),
            count: 0,
            min_timestamp: Timestamp::MAX,
            since: Timestamp::MIN,
        }
    }

    pub fn into_chunk(self) -> Chunk {
        Chunk {
            data: self.data.into(),
            count: self.count,
            min_timestamp: self.min_timestamp,
        }
    }

    pub fn flush(&mut self, out: &mut Vec<Chunk>) {
        if self.count > 0 {
            out.push(core::mem::replace(self, Run::empty()).into_chunk());
        }
    }
}
