//! Random samples.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::marker::PhantomData;

use purlin_model::Element;

use super::{Globally, PerKey};
use crate::combine::CombineFn;

/// A random sample of fixed size, without replacement: each subset of that size is as likely as any other. Of fewer
/// elements, all.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let sample = p.apply(Create::new(0i64..100)).apply(Sample::fixed_size_globally(3));
/// PAssert::that(&sample.map("Size", |sample: Vec<i64>| sample.len())).equals(3);
/// p.run();
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Sample {}

impl Sample {
    /// So many of all elements.
    pub fn fixed_size_globally<T: Element>(size: usize) -> Globally<SampleFn<T>> {
        Globally::new("Sample", SampleFn::new(size))
    }

    /// So many of the values of each key.
    pub fn fixed_size_per_key<T: Element>(size: usize) -> PerKey<SampleFn<T>> {
        PerKey::new("Sample", SampleFn::new(size))
    }
}

/// The combiner behind [`Sample`].
pub struct SampleFn<T> {
    size: usize,
    element: PhantomData<fn(T)>,
}

impl<T> SampleFn<T> {
    /// So many elements.
    pub fn new(size: usize) -> SampleFn<T> {
        SampleFn {
            size,
            element: PhantomData,
        }
    }
}

impl<T> Clone for SampleFn<T> {
    fn clone(&self) -> Self {
        SampleFn::new(self.size)
    }
}

impl<T> std::fmt::Debug for SampleFn<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SampleFn({})", self.size)
    }
}

thread_local! {
    static RANDOM: Cell<u64> = Cell::new(RandomState::new().hash_one(0u64));
}

/// The next number of this thread's sequence (splitmix64), seeded by the system.
fn random() -> u64 {
    let state = RANDOM.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    RANDOM.set(state);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl<T> SampleFn<T> {
    fn trim(&self, drawn: &mut Vec<(u64, T)>, limit: usize) {
        if self.size == 0 {
            drawn.clear();
        } else if drawn.len() > limit.max(self.size) {
            drawn.select_nth_unstable_by_key(self.size - 1, |(lot, _)| *lot);
            drawn.truncate(self.size);
        }
    }
}

/// Each element draws a lot; the smallest are the sample.
impl<T: Element> CombineFn for SampleFn<T> {
    type In = T;
    type Accumulator = Vec<(u64, T)>;
    type Out = Vec<T>;

    fn create_accumulator(&self) -> Vec<(u64, T)> {
        Vec::new()
    }

    fn add_input(&self, accumulator: &mut Vec<(u64, T)>, input: T) {
        accumulator.push((random(), input));
        self.trim(accumulator, self.size.saturating_mul(2));
    }

    fn merge_accumulators(&self, into: &mut Vec<(u64, T)>, mut other: Vec<(u64, T)>) {
        into.append(&mut other);
        self.trim(into, self.size.saturating_mul(2));
    }

    fn extract_output(&self, mut accumulator: Vec<(u64, T)>) -> Vec<T> {
        self.trim(&mut accumulator, self.size);
        accumulator.into_iter().map(|(_, element)| element).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_as_likely() {
        let sample = SampleFn::new(10);
        let mut seen = [0u32; 100];
        for _ in 0..2000 {
            let mut all = sample.create_accumulator();
            for part in [0..7usize, 7..60, 60..100] {
                let mut accumulator = sample.create_accumulator();
                part.for_each(|i| sample.add_input(&mut accumulator, i));
                sample.merge_accumulators(&mut all, accumulator);
            }
            let drawn = sample.extract_output(all);
            assert_eq!(drawn.len(), 10);
            drawn.into_iter().for_each(|i| seen[i] += 1);
        }
        // 200 expected of each, with a standard deviation of 13.4: 10 of them is beyond all chance.
        assert!(seen.iter().all(|n| (66..334).contains(n)), "{seen:?}");
    }
}
