//! How bundles are put together of keys' elements and timers, and taken apart again.
//!
//! Of one key a bundle takes either due timers or waiting elements first, in the order in which they became due or came:
//! elements that came before the watermark moved past a timer are processed before it fires.
//!
//! Timers of several timestamps go together, in order. A timer that fires may set or clear one that should fire after it,
//! and a worker that has both does not look at that. So when such a bundle ends, what it set is looked at: if that would have
//! changed what fired after, nothing of the bundle is taken, and from then on the stage fires timers one timestamp at a time.

use alloc::string::String;
use alloc::vec::Vec;

use crate::hash::FxHashMap;
use bytes::Bytes;
use purlin_model::{PaneInfo, Timer, TimerFiring, Timestamp, Window, Windows};

use super::ending::Ending;
use super::entry::{Entry, Fired, RUN_BYTES, Run, Span, TimerId, is_due};
use super::{KeyedQueue, StageHolds, held};
use crate::bundle::Work;
use crate::chunk::{ChunkError, CollectionFormat};
use crate::graph::TimeDomain;

/// A bundle takes no more than so many timers of a key, unless more are of one timestamp.
const MAX_TIMERS: u64 = 10_000;

/// A bundle in the making.
struct Making {
    work: Work,
    /// Small runs, which go together in one chunk.
    buffer: Run,
    /// Timers in the order in which they fire, those of one family after each other in one piece.
    timers: Vec<(usize, Vec<u8>)>,
    /// Number of elements and timers.
    taken: u64,
    bytes: u64,
}

/// What decides which timers of a key go.
struct Moment {
    watermark: Timestamp,
    now: Timestamp,
    /// How far that is ahead of the clock of SDKs, in milliseconds.
    ahead_ms: i64,
    ending: Ending,
    /// Timers of several timestamps may go together.
    several: bool,
    most_timers: u64,
    allowed_lateness_ms: i64,
    on_window_expiration: Option<usize>,
}

impl Making {
    /// Takes the timers of a timestamp, and those of later ones where they may go with them.
    fn timers_of(
        &mut self,
        key: &Bytes,
        entry: &mut Entry,
        domain: TimeDomain,
        first: Timestamp,
        moment: &Moment,
    ) {
        // Where elements follow in the same bundle, what they set could not be told from what the timers set.
        let several = moment.several && (entry.runs.is_empty() || !entry.elements_next);
        let most = self.taken.saturating_add(moment.most_timers);
        let mut last = first;
        while let Some(next) = entry.first_timer(domain) {
            let due = next.1;
            let follows = several
                && self.taken < most
                && is_due(domain, due, moment.watermark, moment.now)
                && !entry.waits_before(domain, due);
            if due != last && !follows {
                break;
            }
            last = due;
            let next = next.clone();
            entry.order.remove(&next);
            let (_, _, id) = next;
            let Some(armed) = entry.timers.remove(&id) else {
                continue;
            };
            let ends = moment.ending.includes(domain, armed.due, &id.window);
            let last = ends && {
                let fired = entry.last.entry(id.window.clone()).or_default();
                fired.insert(id.clone())
            };
            let mut told = armed.firing;
            if domain == TimeDomain::ProcessingTime {
                told.fire_timestamp = armed.due.plus_millis(-moment.ahead_ms);
            }
            self.timer(key, &id, told);
            self.work.timer_holds.push(held(armed.firing.hold_timestamp));
            self.work.fired.push(Fired {
                key: key.clone(),
                id,
                domain,
                armed,
                last,
            });
        }
        if last != first {
            let key = key.clone();
            self.work.spans.push(Span {
                key,
                domain,
                first,
                last,
            });
        }
    }

    /// Takes the windows of a key that expired.
    fn expirations_of(&mut self, key: &Bytes, entry: &mut Entry, moment: &Moment) {
        let Some(family) = moment.on_window_expiration else {
            return;
        };
        let expired = entry.expired(moment.watermark, moment.allowed_lateness_ms);
        let expired: Vec<Window> = expired.cloned().collect();
        for window in expired {
            entry.windows.insert(window.clone(), true);
            let at = window.max_timestamp();
            let firing = TimerFiring {
                fire_timestamp: at,
                hold_timestamp: at,
                pane: PaneInfo::NO_FIRING,
            };
            let id = TimerId {
                family,
                window: window.clone(),
                tag: String::new(),
            };
            self.timer(key, &id, firing);
            self.work.expired.push((key.clone(), window));
        }
    }

    fn timer(&mut self, key: &Bytes, id: &TimerId, firing: TimerFiring) {
        let timer = Timer {
            user_key: key.clone(),
            dynamic_tag: id.tag.clone(),
            windows: Windows::One(id.window.clone()),
            firing: Some(firing),
        };
        match self.timers.last_mut() {
            Some((family, data)) if *family == id.family => timer.encode(data),
            _ => {
                let mut data = Vec::new();
                timer.encode(&mut data);
                self.timers.push((id.family, data));
            }
        }
        self.taken += 1;
    }

    fn run(&mut self, run: Run) {
        self.taken += run.count;
        self.bytes += run.data.len() as u64;
        self.work.elements_count += run.count;
        self.work.holds.push(run.min_timestamp);
        if run.data.len() >= RUN_BYTES / 4 {
            self.buffer.flush(&mut self.work.elements);
            self.work.elements.push(run.into_chunk());
        } else {
            self.buffer.data.extend_from_slice(&run.data);
            self.buffer.count += run.count;
            self.buffer.min_timestamp = self.buffer.min_timestamp.min(run.min_timestamp);
        }
    }
}

impl KeyedQueue {
    /// Puts a bundle together.
    pub fn compose(&mut self, max_elements: u64, max_bytes: u64) -> Option<Work> {
        let mut making = Making {
            work: Work::default(),
            buffer: Run::empty(),
            timers: Vec::new(),
            taken: 0,
            bytes: 0,
        };
        let moment = Moment {
            watermark: self.watermark,
            now: self.now,
            ahead_ms: self.ahead_ms,
            ending: self.ending(),
            several: !self.one_by_one,
            most_timers: MAX_TIMERS.min(self.spec.max_bundle_elements),
            allowed_lateness_ms: self.spec.allowed_lateness_ms,
            on_window_expiration: self.spec.on_window_expiration,
        };
        while making.taken < max_elements && making.bytes < max_bytes {
            let Some(key) = self.ready.pop_front() else { break };
            let Some(entry) = self.keys.get_mut(&key) else {
                continue;
            };
            entry.queued = false;
            let before = making.taken;
            let due = entry.due_timers(moment.watermark, moment.now);
            let overtaken = due.filter(|&(domain, at)| entry.waits_before(domain, at));
            if let (Some((domain, at)), None) = (due, overtaken) {
                making.timers_of(&key, entry, domain, at, &moment);
            }
            let fires = making.taken > before;
            let only_timers = fires && !core::mem::replace(&mut entry.elements_next, true);
            if !only_timers {
                entry.elements_next = false;
                // However many timers there are, some elements come: timers that set themselves again would keep them waiting
                // for ever.
                let mut first = true;
                while core::mem::take(&mut first) || (making.taken < max_elements && making.bytes < max_bytes)
                {
                    if overtaken.is_some_and(|(domain, at)| !entry.waits_before(domain, at)) {
                        break;
                    }
                    let Some(run) = entry.runs.pop_front() else { break };
                    self.elements -= run.count;
                    self.bytes -= run.data.len() as u64;
                    making.run(run);
                }
            }
            if making.taken == before {
                making.expirations_of(&key, entry, &moment);
            }
            if making.taken > before {
                entry.busy = true;
                making.work.keys.push(key);
            }
        }
        let Making {
            mut work,
            mut buffer,
            timers,
            ..
        } = making;
        buffer.flush(&mut work.elements);
        for (family, data) in timers {
            let Some((name, _)) = self.spec.families.get(family) else {
                continue;
            };
            work.timers.push((self.spec.transform, name.clone(), data.into()));
        }
        (!work.keys.is_empty()).then_some(work)
    }

    /// Whether timers that a bundle set or cleared would have changed which of its timers fired, or their order, had each
    /// timestamp had a bundle of its own.
    pub fn disturbs(&self, work: &Work, timers: &[(usize, Vec<Timer>)]) -> bool {
        if work.spans.is_empty() {
            return false;
        }
        let spans: FxHashMap<&Bytes, &Span> = work.spans.iter().map(|span| (&span.key, span)).collect();
        let fired: FxHashMap<(&Bytes, &TimerId), Timestamp> = work
            .fired
            .iter()
            .map(|fired| ((&fired.key, &fired.id), fired.armed.due))
            .collect();
        timers.iter().any(|(family, timers)| {
            let domain = self.spec.families.get(*family).map(|family| family.1);
            timers.iter().any(|timer| {
                let Some(span) = spans.get(&timer.user_key) else {
                    return false;
                };
                timer.windows.iter().any(|window| {
                    let id = TimerId {
                        family: *family,
                        window: window.clone(),
                        tag: timer.dynamic_tag.clone(),
                    };
                    // It may have been set by one that fired before it, and then it fired in vain.
                    let again = fired
                        .get(&(&timer.user_key, &id))
                        .is_some_and(|due| *due > span.first);
                    let between = |firing: TimerFiring| {
                        domain == Some(span.domain) && self.due(span.domain, &firing, window) < span.last
                    };
                    again || timer.firing.is_some_and(between)
                })
            })
        })
    }

    /// Puts all that a bundle took back where it was. Timers fire one timestamp at a time from now on.
    pub fn undo(
        &mut self,
        work: Work,
        format: &CollectionFormat,
        holds: &mut StageHolds<'_>,
    ) -> Result<(), ChunkError> {
        self.one_by_one = true;
        let mut later = Vec::new();
        for key in &work.keys {
            if let Some(entry) = self.keys.get_mut(key) {
                later.push((key, core::mem::take(&mut entry.runs)));
            }
        }
        for chunk in &work.elements {
            for (index, element) in (0..).zip(format.walk(&chunk.data)) {
                let error = |source| format.error(index, chunk.data.len(), source);
                let element = element.map_err(error)?;
                let key = self.spec.key.take(&mut &chunk.data[element.value()], true);
                let key = key.map_err(error)?;
                let Some(entry) = self.keys.get_mut(key) else {
                    continue;
                };
                let data = &chunk.data[element.whole()];
                let hold = element.timestamp.min(chunk.min_timestamp);
                let most = self.spec.max_bundle_elements;
                // They came before all that waits.
                entry.push(data, hold, Timestamp::MIN, most, holds.pending);
                self.elements += 1;
                self.bytes += data.len() as u64;
            }
        }
        for (key, runs) in later {
            if let Some(entry) = self.keys.get_mut(key) {
                entry.runs.extend(runs);
            }
        }
        for fired in work.fired {
            let Some(entry) = self.keys.get_mut(&fired.key) else {
                continue;
            };
            if fired.last
                && let Some(last) = entry.last.get_mut(&fired.id.window)
            {
                last.remove(&fired.id);
            }
            entry
                .order
                .insert((fired.domain, fired.armed.due, fired.id.clone()));
            entry.timers.insert(fired.id, fired.armed);
        }
        for (key, window) in work.expired {
            if let Some(entry) = self.keys.get_mut(&key) {
                entry.windows.insert(window, false);
            }
        }
        work.holds.iter().for_each(|at| holds.pending.remove(*at));
        for key in &work.keys {
            if let Some(entry) = self.keys.get_mut(key) {
                entry.busy = false;
            }
            self.settle(key);
        }
        Ok(())
    }
}
