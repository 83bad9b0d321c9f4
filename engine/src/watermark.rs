//! Watermarks and what holds them.
//!
//! A node's input watermark is the smallest of its producers' output watermarks and of the timestamps of elements
//! that wait or are being processed. Its output watermark is the smallest of that and of its holds. Both only advance.

use alloc::collections::BTreeMap;

use purlin_model::Timestamp;

/// A multiset of timestamps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holds(BTreeMap<Timestamp, u64>);

impl Holds {
    pub fn add(&mut self, at: Timestamp) {
        *self.0.entry(at).or_default() += 1;
    }

    pub fn remove(&mut self, at: Timestamp) {
        match self.0.get_mut(&at) {
            Some(1) => {
                self.0.remove(&at);
            }
            Some(count) => *count -= 1,
            None => debug_assert!(false, "a hold at {at} was released twice"),
        }
    }

    /// The smallest, or [`Timestamp::MAX`].
    pub fn min(&self) -> Timestamp {
        self.0.first_key_value().map_or(Timestamp::MAX, |(at, _)| *at)
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A watermark: advances, never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watermark(Timestamp);

impl Watermark {
    pub const START: Watermark = Watermark(Timestamp::MIN);

    pub fn get(self) -> Timestamp {
        self.0
    }

    /// Moves to `to` unless that is earlier. Tells whether it moved.
    pub fn advance(&mut self, to: Timestamp) -> bool {
        let moved = to > self.0;
        if moved {
            self.0 = to;
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_count() {
        let mut holds = Holds::default();
        assert_eq!(holds.min(), Timestamp::MAX);
        holds.add(Timestamp(5));
        holds.add(Timestamp(3));
        holds.add(Timestamp(3));
        holds.remove(Timestamp(3));
        assert_eq!(holds.min(), Timestamp(3));
        holds.remove(Timestamp(3));
        assert_eq!(holds.min(), Timestamp(5));
        holds.remove(Timestamp(5));
        assert!(holds.is_empty());
    }

    #[test]
    fn watermarks_only_advance() {
        let mut watermark = Watermark::START;
        assert!(watermark.advance(Timestamp(4)));
        assert!(!watermark.advance(Timestamp(2)));
        assert_eq!(watermark.get(), Timestamp(4));
    }
}
