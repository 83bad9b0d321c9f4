//! How timers come to an end where nothing but timers is left to come of a window.
//!
//! A timer that is set then is set by another timer that fired, and a loop of them would go on for ever. But what a timer has
//! to tell must not get lost only because there are many of them. So each timer says how many may still come after it, in its
//! line: those that it sets, those that these set, and so on. See [`FOLLOWERS`].

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;
use purlin_model::{Timer, Timestamp, Window};

use super::entry::TimerId;
use super::{KeyedQueue, expiration_of, has_passed};
use crate::bundle::Work;
use crate::graph::TimeDomain;
use crate::hash::FxHashMap;

/// So many timers may come after one that was set when nothing but timers was left to come of its window, and was not set by
/// another one of that kind. A bundle that fires several has the sum of what they may, and shares it out among those that it
/// sets, as nobody tells which timer set which.
const FOLLOWERS: usize = 1_000;

/// What tells whether a timer is among the last ones of its window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// The job drains, and all input is processed.
    pub drains: bool,
    pub watermark: Timestamp,
    pub allowed_lateness_ms: i64,
}

impl Ending {
    /// Whether a timer is due when nothing but timers is left to come of its window. Where it is set then, it is set by
    /// a timer, and a loop of them would never end: in event time no watermark goes beyond, and in a drain time does
    /// not pass.
    pub fn includes(self, domain: TimeDomain, due: Timestamp, window: &Window) -> bool {
        match domain {
            TimeDomain::ProcessingTime => self.drains,
            // Loops come to the end of other windows step by step, and have things to tell on their way; to the end of time
            // they do not come.
            TimeDomain::EventTime if self.drains && *window == Window::Global => true,
            TimeDomain::EventTime => {
                due >= expiration_of(window, self.allowed_lateness_ms) && has_passed(self.watermark, due)
            }
        }
    }
}

/// Of timers that a bundle set: how many may come after each, or `None` where it may not be set. Of others, nothing that fired
/// says so, and they start a line.
#[derive(Debug, Default)]
pub(super) struct Lines(FxHashMap<(Bytes, TimerId), Option<usize>>);

impl Lines {
    pub fn of(&self, key: &Bytes, id: &TimerId) -> Option<usize> {
        let known = self.0.get(&(key.clone(), id.clone()));
        known.copied().unwrap_or(Some(FOLLOWERS))
    }
}

/// Timers of a key and window that a bundle fired and set.
struct Line {
    followers: usize,
    set: BTreeSet<TimerId>,
}

impl KeyedQueue {
    /// Shares out among the last timers that a bundle set how many may come after those that it fired.
    pub(super) fn lines(&self, work: &Work, timers: &[(usize, Vec<Timer>)]) -> Lines {
        if work.fired.iter().all(|fired| fired.armed.followers.is_none()) {
            return Lines::default();
        }
        // None: one of those that fired starts lines.
        let mut lines: BTreeMap<(&Bytes, &Window), Option<Line>> = BTreeMap::new();
        for fired in &work.fired {
            let line = lines.entry((&fired.key, &fired.id.window)).or_insert(Some(Line {
                followers: 0,
                set: BTreeSet::new(),
            }));
            match (line.as_mut(), fired.armed.followers) {
                (Some(line), Some(more)) => line.followers = line.followers.saturating_add(more),
                _ => *line = None,
            }
        }
        let ending = self.ending();
        for (family, timers) in timers {
            let Some(&(_, domain)) = self.spec.families.get(*family) else {
                continue;
            };
            for timer in timers {
                let Some(firing) = timer.firing else { continue };
                for window in timer.windows.iter() {
                    let Some(Some(line)) = lines.get_mut(&(&timer.user_key, window)) else {
                        continue;
                    };
                    let id = TimerId {
                        family: *family,
                        window: window.clone(),
                        tag: timer.dynamic_tag.clone(),
                    };
                    let due = self.due(domain, &firing, window);
                    let entry = self.keys.get(&timer.user_key);
                    let again = entry.is_some_and(|entry| entry.fired_last(&id));
                    if ending.includes(domain, due, window) && !again {
                        line.set.insert(id);
                    }
                }
            }
        }
        let mut shares = Lines::default();
        for ((key, _), line) in lines {
            let Some(Line { followers, set }) = line else {
                continue;
            };
            let each = followers.saturating_sub(set.len()) / set.len().max(1);
            for (index, id) in set.into_iter().enumerate() {
                let share = (index < followers).then_some(each);
                shares.0.insert((key.clone(), id), share);
            }
        }
        shares
    }
}
