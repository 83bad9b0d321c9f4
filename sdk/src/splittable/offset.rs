//! Restrictions that are ranges of numbers.

use std::fmt;

use purlin_model::{CoderSpec, DecodeError, Element};

use super::{Progress, RestrictionTracker};
use crate::error::BoxError;

/// The numbers from `start` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OffsetRange {
    /// The first.
    pub start: i64,
    /// The one after the last; never before `start`.
    pub end: i64,
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

impl OffsetRange {
    /// The numbers from `start` to before `end`; none if `end` is not after `start`.
    pub fn new(start: i64, end: i64) -> OffsetRange {
        OffsetRange {
            start,
            end: end.max(start),
        }
    }

    /// How many numbers there are.
    pub fn len(&self) -> u64 {
        self.end.abs_diff(self.start)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// Cuts the range into ranges of about so many numbers; the last is not much smaller than the others.
    pub fn split(&self, desired: u64) -> Vec<OffsetRange> {
        let desired = desired.max(1);
        let pieces = (self.len() / desired).max(1);
        let cut = |piece: u64| {
            let offset = u128::from(self.len()) * u128::from(piece) / u128::from(pieces);
            self.start.wrapping_add(offset as i64)
        };
        (0..pieces)
            .map(|piece| OffsetRange::new(cut(piece), cut(piece + 1)))
            .collect()
    }
}

impl Element for OffsetRange {
    fn coder() -> CoderSpec {
        <(i64, i64)>::coder()
    }
    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        (self.start, self.end).encode(out, nested);
    }
    fn decode(input: &mut &[u8], nested: bool) -> Result<Self, DecodeError> {
        let (start, end) = <(i64, i64)>::decode(input, nested)?;
        Ok(OffsetRange::new(start, end))
    }
}

/// Claims the numbers of an [`OffsetRange`] in ascending order.
#[derive(Clone, Debug)]
pub struct OffsetTracker {
    range: OffsetRange,
    /// The last number for which a claim was made, inside the range or not.
    attempted: Option<i64>,
    /// The last number that was claimed.
    claimed: Option<i64>,
}

impl OffsetTracker {
    /// Nothing is claimed.
    pub fn new(range: OffsetRange) -> OffsetTracker {
        OffsetTracker {
            range,
            attempted: None,
            claimed: None,
        }
    }

    /// There is nothing at the numbers that are left: they count as claimed.
    pub fn finish(&mut self) {
        self.attempted = Some(self.attempted.unwrap_or(i64::MIN).max(self.range.end));
        if !self.range.is_empty() {
            self.claimed = Some(self.range.end - 1);
        }
    }

    /// The first number that is not claimed.
    fn next(&self) -> i64 {
        self.claimed
            .map_or(self.range.start, |claimed| claimed.saturating_add(1))
    }
}

impl RestrictionTracker for OffsetTracker {
    type Restriction = OffsetRange;
    type Position = i64;

    fn size(restriction: &OffsetRange) -> f64 {
        restriction.len() as f64
    }

    fn restriction(&self) -> OffsetRange {
        self.range
    }

    /// # Panics
    /// When numbers are not claimed in ascending order, or lie before the range.
    fn try_claim(&mut self, position: i64) -> bool {
        if let Some(last) = self.attempted {
            assert!(
                position > last,
                "offsets are claimed in ascending order, but {position} comes after {last}"
            );
        }
        assert!(
            position >= self.range.start,
            "offset {position} is claimed, which lies before the restriction {}",
            self.range
        );
        self.attempted = Some(position);
        let inside = position < self.range.end;
        if inside {
            self.claimed = Some(position);
        }
        inside
    }

    fn try_split(&mut self, fraction_of_remainder: f64) -> Option<OffsetRange> {
        let next = self.next();
        let left = u64::try_from(i128::from(self.range.end) - i128::from(next)).ok()?;
        let fraction = fraction_of_remainder.clamp(0.0, 1.0);
        // What is kept is rounded up: a claim that is being made has a place to go to.
        let keep = ((left as f64 * fraction).ceil() as u64).min(left);
        let at = next.saturating_add_unsigned(keep);
        if at >= self.range.end {
            return None;
        }
        let residual = OffsetRange::new(at, self.range.end);
        self.range.end = at;
        Some(residual)
    }

    fn progress(&self) -> Progress {
        let completed = self.next().min(self.range.end).abs_diff(self.range.start) as f64;
        Progress {
            completed,
            remaining: self.range.len() as f64 - completed,
        }
    }

    fn check_done(&self) -> Result<(), BoxError> {
        let last = self.attempted.map_or(i128::MIN, i128::from);
        if self.range.is_empty() || last >= i128::from(self.range.end) - 1 {
            return Ok(());
        }
        let first = self
            .attempted
            .map_or(self.range.start, |last| last.saturating_add(1));
        Err(format!("offsets from {first} of {} were not claimed", self.range).into())
    }
}
