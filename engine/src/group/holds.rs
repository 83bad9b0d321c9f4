//! Watermark holds and timers of many panes, found by their smallest.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use purlin_model::Timestamp;

/// A pane of the keyed store: a place and which of its successive tenants is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PaneRef {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// Counts of holds.
#[derive(Debug, Default)]
pub(super) struct Holds {
    counts: BTreeMap<Timestamp, u64>,
}

impl Holds {
    /// Moves one hold; [`Timestamp::MAX`] is none.
    pub(super) fn replace(&mut self, old: &mut Timestamp, new: Timestamp) {
        if *old == new {
            return;
        }
        if let Some(count) = self.counts.get_mut(old) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(old);
            }
        }
        if new != Timestamp::MAX {
            *self.counts.entry(new).or_default() += 1;
        }
        *old = new;
    }

    pub(super) fn min(&self) -> Timestamp {
        self.counts
            .first_key_value()
            .map_or(Timestamp::MAX, |(&time, _)| time)
    }
}

/// Timers of panes. Each pane remembers the one timer that counts; others that are still in here are not valid.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeMap<Timestamp, Vec<PaneRef>>,
}

impl Timers {
    /// Sets a pane's timer; [`Timestamp::MAX`] is none.
    pub(super) fn set(&mut self, timer: &mut Timestamp, time: Timestamp, pane: PaneRef) {
        if *timer == time {
            return;
        }
        *timer = time;
        if time != Timestamp::MAX {
            self.due.entry(time).or_default().push(pane);
        }
    }

    /// Takes the panes of the earliest time, if that is before `limit`.
    pub(super) fn pop_before(&mut self, limit: Timestamp) -> Option<(Timestamp, Vec<PaneRef>)> {
        let first = self.due.first_entry()?;
        if *first.key() < limit {
            Some(first.remove_entry())
        } else {
            None
        }
    }

    /// Forgets timers at the front that do not count, so that [`Timers::next`] is exact.
    pub(super) fn prune(&mut self, counts: impl Fn(PaneRef, Timestamp) -> bool) {
        while let Some(mut first) = self.due.first_entry() {
            let time = *first.key();
            first.get_mut().retain(|&pane| counts(pane, time));
            if !first.get().is_empty() {
                break;
            }
            first.remove();
        }
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.due.first_key_value().map(|(&time, _)| time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_hold_counts_until_its_last_holder_lets_go() {
        let mut holds = Holds::default();
        let (mut a, mut b, mut c) = (Timestamp::MAX, Timestamp::MAX, Timestamp::MAX);
        holds.replace(&mut a, Timestamp(1));
        holds.replace(&mut b, Timestamp(1));
        holds.replace(&mut c, Timestamp(5));
        holds.replace(&mut a, Timestamp(9));
        assert_eq!(holds.min(), Timestamp(1));
        holds.replace(&mut b, Timestamp::MAX);
        assert_eq!(holds.min(), Timestamp(5));
        holds.replace(&mut c, Timestamp::MAX);
        holds.replace(&mut a, Timestamp::MAX);
        assert_eq!(holds.min(), Timestamp::MAX);
    }

    #[test]
    fn timers_that_were_moved_are_pruned() {
        let pane = PaneRef {
            index: 0,
            generation: 0,
        };
        let mut timers = Timers::default();
        let mut timer = Timestamp::MAX;
        timers.set(&mut timer, Timestamp(3), pane);
        timers.set(&mut timer, Timestamp(7), pane);
        timers.prune(|_, time| time == timer);
        assert_eq!(timers.next(), Some(Timestamp(7)));
        assert_eq!(timers.pop_before(Timestamp(7)), None);
        assert_eq!(timers.pop_before(Timestamp(8)), Some((Timestamp(7), vec![pane])));
    }
}
