//! The restriction of a partition: offsets, of which the end may not be known.

use purlin::coders::{CoderSpec, DecodeError};
use purlin::prelude::*;
use purlin::splittable::Progress;

/// The end of a range that has none.
pub(crate) const NO_END: i64 = i64::MAX;

/// The offsets from `start` to before `end`, and how many records there were when it was looked last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartitionRange {
    pub start: i64,
    /// [`NO_END`] where it goes on for ever.
    pub end: i64,
    /// The offset after the last record that was there.
    pub known_end: i64,
}

impl PartitionRange {
    /// Records that are to be read, as far as is known.
    fn backlog(&self, from: i64) -> i64 {
        self.end.min(self.known_end).saturating_sub(from).max(0)
    }
}

impl Element for PartitionRange {
    fn coder() -> CoderSpec {
        <((i64, i64), i64)>::coder()
    }
    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        ((self.start, self.end), self.known_end).encode(out, nested);
    }
    fn decode(input: &mut &[u8], nested: bool) -> Result<Self, DecodeError> {
        let ((start, end), known_end) = <((i64, i64), i64)>::decode(input, nested)?;
        Ok(PartitionRange {
            start,
            end,
            known_end,
        })
    }
}

/// Claims the offsets of a [`PartitionRange`] in ascending order. Some may be missing: those of transactions, and of records that were
/// compacted away.
///
/// A range without an end can be put off, and not be shared: what is not there yet cannot be given away, and records of one partition
/// stay in order. A range with an end is shared as any range is.
#[derive(Debug)]
pub(crate) struct PartitionTracker {
    range: PartitionRange,
    /// The first offset that is not claimed.
    next: i64,
    /// Nothing is left, though not all was claimed.
    ended: bool,
}

impl PartitionTracker {
    pub fn new(range: PartitionRange) -> PartitionTracker {
        PartitionTracker {
            range,
            next: range.start,
            ended: false,
        }
    }

    /// More records are there than was known.
    pub fn grow(&mut self, known_end: i64) {
        self.range.known_end = self.range.known_end.max(known_end);
    }

    /// There is nothing at the offsets that are left: they count as claimed.
    pub fn finish(&mut self) {
        self.ended = true;
    }
}

impl RestrictionTracker for PartitionTracker {
    type Restriction = PartitionRange;
    type Position = i64;

    fn size(range: &PartitionRange) -> f64 {
        range.backlog(range.start) as f64
    }

    fn restriction(&self) -> PartitionRange {
        self.range
    }

    fn try_claim(&mut self, offset: i64) -> bool {
        if offset >= self.range.end {
            // What was claimed before is all there is.
            self.ended = true;
            return false;
        }
        self.next = self.next.max(offset.saturating_add(1));
        true
    }

    fn try_split(&mut self, fraction_of_remainder: f64) -> Option<PartitionRange> {
        if self.ended || self.next >= self.range.end {
            return None;
        }
        let at = if self.range.end == NO_END {
            if fraction_of_remainder > 0.0 {
                return None;
            }
            self.next
        } else {
            let left = self.range.end - self.next;
            // What is kept is rounded up: a claim that is being made has a place to go to.
            let keep = (left as f64 * fraction_of_remainder.clamp(0.0, 1.0)).ceil() as i64;
            self.next.saturating_add(keep)
        };
        if at >= self.range.end {
            return None;
        }
        let residual = PartitionRange {
            start: at,
            ..self.range
        };
        self.range.end = at;
        Some(residual)
    }

    fn progress(&self) -> Progress {
        Progress {
            completed: self.next.saturating_sub(self.range.start) as f64,
            remaining: if self.ended {
                0.0
            } else {
                self.range.backlog(self.next) as f64
            },
        }
    }

    fn check_done(&self) -> Result<(), BoxError> {
        if self.ended || self.next >= self.range.end {
            return Ok(());
        }
        Err(format!("offsets from {} on were not read", self.next).into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: i64, end: i64) -> PartitionTracker {
        PartitionTracker::new(PartitionRange {
            start,
            end,
            known_end: 100,
        })
    }

    #[test]
    fn a_range_without_an_end_can_be_put_off_but_not_shared() {
        let mut tracker = range(10, NO_END);
        assert!(tracker.try_claim(10) && tracker.try_claim(14));
        assert!(tracker.try_split(0.5).is_none());
        let residual = tracker.try_split(0.0).unwrap();
        assert_eq!((residual.start, residual.end), (15, NO_END));
        assert!(!tracker.try_claim(15));
        tracker.check_done().unwrap();
        assert!(tracker.try_split(0.0).is_none(), "there is nothing left to give");
    }

    #[test]
    fn the_size_is_the_backlog_as_far_as_it_is_known() {
        assert_eq!(PartitionTracker::size(&range(10, NO_END).restriction()), 90.0);
        assert_eq!(PartitionTracker::size(&range(10, 30).restriction()), 20.0);
        assert_eq!(PartitionTracker::size(&range(200, NO_END).restriction()), 0.0);
        let mut tracker = range(10, NO_END);
        tracker.grow(300);
        assert!(tracker.try_claim(99));
        assert_eq!(
            (tracker.progress().completed, tracker.progress().remaining),
            (90.0, 200.0)
        );
    }

    #[test]
    fn what_is_not_there_counts_as_claimed_once_the_end_is_seen() {
        let mut tracker = range(0, 5);
        assert!(tracker.try_claim(2));
        assert!(
            tracker
                .check_done()
                .unwrap_err()
                .to_string()
                .contains("offsets from 3 on")
        );
        tracker.finish();
        tracker.check_done().unwrap();
    }

    proptest! {
        /// However a range is split, each offset that is there is claimed once.
        #[test]
        fn splits_lose_and_double_nothing(
            splits in proptest::collection::vec((0usize..20, 0.0f64..1.0), 0..8),
            missing in proptest::collection::btree_set(0i64..50, 0..20),
        ) {
            let there: Vec<i64> = (0..50).filter(|offset| !missing.contains(offset)).collect();
            let mut todo = vec![PartitionRange { start: 0, end: 50, known_end: 50 }];
            let (mut claimed, mut splits) = (Vec::new(), splits.into_iter());
            while let Some(next) = todo.pop() {
                let mut tracker = PartitionTracker::new(next);
                let mut split = splits.next();
                let offsets = there.iter().copied().filter(|offset| *offset >= next.start);
                for (count, offset) in offsets.enumerate() {
                    if let Some((after, fraction)) = split && count == after {
                        todo.extend(tracker.try_split(fraction));
                        split = None;
                    }
                    if !tracker.try_claim(offset) {
                        break;
                    }
                    claimed.push(offset);
                }
                tracker.finish();
                prop_assert!(tracker.check_done().is_ok());
            }
            claimed.sort_unstable();
            prop_assert_eq!(claimed, there);
        }
    }
}
