//! Bytes that may be held at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of bytes that many share, within those of its parent. Clones are the same budget.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    used: AtomicUsize,
    parent: Option<Budget>,
}

impl Budget {
    pub(crate) fn new(limit: usize, parent: Option<Budget>) -> Self {
        let used = AtomicUsize::new(0);
        Self(Arc::new(Inner { limit, used, parent }))
    }

    /// Nothing of it, to begin with.
    pub(crate) fn none(&self) -> Taken {
        Taken {
            budget: self.clone(),
            bytes: 0,
        }
    }

    fn take(&self, bytes: usize) -> bool {
        let inner = &self.0;
        if inner
            .used
            .fetch_add(bytes, Ordering::Relaxed)
            .saturating_add(bytes)
            > inner.limit
        {
            inner.used.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        if inner.parent.as_ref().is_some_and(|parent| !parent.take(bytes)) {
            inner.used.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        true
    }

    fn give(&self, bytes: usize) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(parent) = &self.0.parent {
            parent.give(bytes);
        }
    }

    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }
}

/// Bytes of a budget, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    budget: Budget,
    bytes: usize,
}

impl Taken {
    /// Takes so many more; false if there are not so many left.
    pub(crate) fn more(&mut self, bytes: usize) -> bool {
        let taken = self.budget.take(bytes);
        if taken {
            self.bytes += bytes;
        }
        taken
    }

    /// Gives all back.
    pub(crate) fn clear(&mut self) {
        self.budget.give(std::mem::take(&mut self.bytes));
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_bounded_by_itself_and_by_the_whole() {
        let whole = Budget::new(10, None);
        let (one, other) = (
            Budget::new(8, Some(whole.clone())),
            Budget::new(8, Some(whole.clone())),
        );
        let (mut first, mut second) = (one.none(), other.none());
        assert!(first.more(7) && !first.more(2));
        assert!(second.more(3) && !second.more(1));
        drop(first);
        assert!(second.more(5));
        assert_eq!((whole.used(), one.used(), other.used()), (8, 0, 8));
    }
}
