//! Approximate quantiles.

use std::marker::PhantomData;

use purlin_model::Element;

use super::{Globally, PerKey};
use crate::combine::CombineFn;

/// So many elements are kept on each level. The rank of an answer is off by about `levels / (2 * KEPT)` of all elements
/// at worst: half a percent for a billion of them.
const KEPT: usize = 2048;

/// The elements that cut the sorted collection into equal parts: the smallest, `n - 2` between, and the largest, in
/// order. Up to some thousand elements the answer is exact; beyond, an answer's rank is off by half a percent or less.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let quartiles = p.apply(Create::new(0i64..=100)).apply(ApproximateQuantiles::globally(5));
/// PAssert::that(&quartiles).equals(vec![0, 25, 50, 75, 100]);
/// p.run();
/// ```
pub struct ApproximateQuantiles<T> {
    n: usize,
    element: PhantomData<fn(T)>,
}

impl<T> ApproximateQuantiles<T> {
    /// The combiner, for `n` quantiles.
    ///
    /// # Panics
    /// When `n` is less than 2: the smallest and the largest are always among them.
    pub fn new(n: usize) -> ApproximateQuantiles<T> {
        assert!(
            n >= 2,
            "there are at least 2 quantiles, the smallest and the largest element, but {n} were asked for"
        );
        ApproximateQuantiles {
            n,
            element: PhantomData,
        }
    }

    /// Of a whole collection.
    pub fn globally(n: usize) -> Globally<ApproximateQuantiles<T>> {
        Globally::new("ApproximateQuantiles", ApproximateQuantiles::new(n))
    }

    /// Of the values of each key.
    pub fn per_key(n: usize) -> PerKey<ApproximateQuantiles<T>> {
        PerKey::new("ApproximateQuantiles", ApproximateQuantiles::new(n))
    }
}

impl<T> Clone for ApproximateQuantiles<T> {
    fn clone(&self) -> Self {
        ApproximateQuantiles {
            n: self.n,
            element: PhantomData,
        }
    }
}

impl<T> std::fmt::Debug for ApproximateQuantiles<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApproximateQuantiles({})", self.n)
    }
}

/// Halves each level that is full: every other of its sorted elements stands for two on the next level.
fn compact<T: Element + Ord>(levels: &mut Vec<Vec<T>>) {
    let mut level = 0;
    while level < levels.len() {
        if levels[level].len() >= KEPT {
            let mut full = std::mem::take(&mut levels[level]);
            full.sort_unstable();
            // An odd one out stays, so that the weights add up.
            if full.len() % 2 == 1 {
                levels[level].extend(full.pop());
            }
            if levels.len() == level + 1 {
                levels.push(Vec::new());
            }
            // Taking the first and the second of the pairs in turn lets the errors cancel out.
            let offset = levels[level + 1].len() / (KEPT / 2) % 2;
            levels[level + 1].extend(full.into_iter().skip(offset).step_by(2));
        }
        level += 1;
    }
}

/// Smallest and largest, and elements by level: one on level `i` stands for `2^i`.
impl<T: Element + Ord> CombineFn for ApproximateQuantiles<T> {
    type In = T;
    type Accumulator = (Option<(T, T)>, Vec<Vec<T>>);
    type Out = Vec<T>;

    fn create_accumulator(&self) -> Self::Accumulator {
        (None, Vec::new())
    }

    fn add_input(&self, (ends, levels): &mut Self::Accumulator, input: T) {
        widen(ends, &input, &input);
        match levels.first_mut() {
            Some(level) => level.push(input),
            None => levels.push(vec![input]),
        }
        if levels[0].len() >= KEPT {
            compact(levels);
        }
    }

    fn merge_accumulators(
        &self,
        (ends, levels): &mut Self::Accumulator,
        (other_ends, other): Self::Accumulator,
    ) {
        if let Some((low, high)) = &other_ends {
            widen(ends, low, high);
        }
        for (i, mut level) in other.into_iter().enumerate() {
            match levels.get_mut(i) {
                Some(into) => into.append(&mut level),
                None => levels.push(level),
            }
        }
        compact(levels);
    }

    fn extract_output(&self, (ends, levels): Self::Accumulator) -> Vec<T> {
        let Some((low, high)) = ends else {
            return Vec::new();
        };
        let mut weighted: Vec<(T, u64)> = Vec::new();
        for (i, level) in levels.into_iter().enumerate() {
            let weight = 1u64.checked_shl(i as u32).unwrap_or(u64::MAX);
            weighted.extend(level.into_iter().map(|element| (element, weight)));
        }
        weighted.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let total: u64 = weighted
            .iter()
            .fold(0, |sum, (_, weight)| sum.saturating_add(*weight));
        let mut answers = vec![low];
        let mut upto = 0u64;
        let mut rest = weighted.into_iter();
        let mut current = answers[0].clone();
        for i in 1..self.n - 1 {
            let rank = (total.saturating_sub(1)) as f64 * i as f64 / (self.n - 1) as f64;
            while (upto as f64) <= rank {
                let Some((element, weight)) = rest.next() else {
                    break;
                };
                upto = upto.saturating_add(weight);
                current = element;
            }
            answers.push(current.clone());
        }
        answers.push(high);
        answers
    }
}

fn widen<T: Clone + Ord>(ends: &mut Option<(T, T)>, low: &T, high: &T) {
    match ends {
        None => *ends = Some((low.clone(), high.clone())),
        Some((lowest, highest)) => {
            if low < lowest {
                *lowest = low.clone();
            }
            if high > highest {
                *highest = high.clone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_near() {
        let quantiles = ApproximateQuantiles::new(11);
        let total = 300_000u64;
        let mut all = quantiles.create_accumulator();
        for part in 0..3 {
            let mut accumulator = quantiles.create_accumulator();
            // A permutation of 0..total in some order.
            (part * 100_000..(part + 1) * 100_000)
                .for_each(|i| quantiles.add_input(&mut accumulator, i * 7_919 % total));
            quantiles.merge_accumulators(&mut all, accumulator);
        }
        let answers = quantiles.extract_output(all);
        assert_eq!((answers[0], answers[10]), (0, total - 1));
        for (i, answer) in answers.iter().enumerate() {
            let exact = (total - 1) as f64 * i as f64 / 10.0;
            assert!(
                (*answer as f64 - exact).abs() < total as f64 * 0.005,
                "quantile {i}: {answer}, not {exact}"
            );
        }
    }

    #[test]
    fn of_nothing_there_are_none() {
        let quantiles = ApproximateQuantiles::<i64>::new(3);
        assert_eq!(
            quantiles.extract_output(quantiles.create_accumulator()),
            Vec::<i64>::new()
        );
    }
}
