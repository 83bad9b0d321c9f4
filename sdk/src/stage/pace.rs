//! How many elements travel together.

use std::time::{Duration, Instant};

/// So long a batch is to take, all steps behind it included: little beside the times at which bundles are asked for
/// their progress or split, much beside what a batch costs itself.
const TARGET: Duration = Duration::from_millis(1);

/// So many elements a batch has at most: by then the cost of the batch is shared by enough.
const MOST: usize = 256;

/// So many bytes a batch has at most, what its elements point to left out: it is to stay in the nearest cache.
const BYTES: usize = 16 << 10;

/// How many elements make a batch: one at first, then as many as go in [`TARGET`].
#[derive(Debug)]
pub(crate) struct Pace {
    limit: usize,
    most: usize,
    last: Option<Instant>,
}

impl Pace {
    /// For elements of a type.
    pub fn of<T>() -> Pace {
        Pace {
            limit: 1,
            most: (BYTES / size_of::<T>().max(1)).clamp(1, MOST),
            last: None,
        }
    }

    /// The length of a full batch.
    #[inline(always)]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// A bundle starts. Its elements may be slower than those before, and what was begun is not given away.
    pub fn start(&mut self) {
        self.limit = 1;
        self.last = None;
    }

    /// The time up to this does not count: a batch begins.
    pub fn begin(&mut self) {
        self.last = None;
    }

    /// A full batch was gathered and sent.
    pub fn sent(&mut self) {
        let now = Instant::now();
        if let Some(last) = self.last {
            self.took(now.duration_since(last));
        }
        self.last = Some(now);
    }

    fn took(&mut self, time: Duration) {
        let fits = self.limit as u128 * TARGET.as_nanos() / time.as_nanos().max(1);
        let most = self.most.min(2 * self.limit);
        self.limit = usize::try_from(fits).unwrap_or(most).clamp(1, most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_elements_travel_together_and_slow_ones_alone() {
        let mut pace = Pace::of::<u64>();
        assert_eq!(pace.limit(), 1);
        pace.took(Duration::from_micros(1));
        assert_eq!(pace.limit(), 2, "it only doubles");
        for _ in 0..20 {
            pace.took(Duration::from_micros(100));
        }
        assert_eq!(pace.limit(), MOST);
        pace.took(Duration::from_millis(4));
        assert_eq!(pace.limit(), MOST / 4);
        pace.took(Duration::from_secs(60));
        assert_eq!(pace.limit(), 1);
        pace.took(Duration::from_micros(1));
        pace.start();
        assert_eq!(pace.limit(), 1, "a bundle knows nothing of the one before");
    }

    #[test]
    fn batches_of_large_elements_are_short() {
        let mut pace = Pace::of::<[u8; BYTES / 4]>();
        for _ in 0..20 {
            pace.took(Duration::ZERO);
        }
        assert_eq!(pace.limit(), 4);
        let mut pace = Pace::of::<[u8; 2 * BYTES]>();
        pace.took(Duration::ZERO);
        assert_eq!(pace.limit(), 1);
    }
}
