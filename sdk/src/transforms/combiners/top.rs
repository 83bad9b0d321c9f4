//! The first elements in an order.

use std::cmp::Ordering;
use std::marker::PhantomData;

use purlin_model::Element;

use super::{Globally, PerKey};
use crate::combine::CombineFn;

/// The few first elements in an order, as one vector that starts with the first.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let numbers = p.apply(Create::new([3i64, 1, 4, 1, 5]));
/// PAssert::that(&numbers.apply(Top::largest(2))).equals(vec![5, 4]);
/// PAssert::that(&numbers.apply(Top::smallest(2))).equals(vec![1, 1]);
/// PAssert::that(&numbers.apply(Top::of(1, |a: &i64, b: &i64| (a % 5).cmp(&(b % 5))))).equals(vec![4]);
/// p.run();
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Top {}

impl Top {
    /// The `n` elements that the closure calls the greatest.
    pub fn of<T: Element, F>(n: usize, compare: F) -> Globally<TopFn<T, F>>
    where
        F: Fn(&T, &T) -> Ordering + Clone + Send + 'static,
    {
        Globally::new("Top", TopFn::by(n, compare))
    }

    /// The `n` largest elements.
    pub fn largest<T: Element + Ord>(n: usize) -> Globally<TopFn<T>> {
        Globally::new("Top", TopFn::largest(n))
    }

    /// The `n` smallest elements.
    pub fn smallest<T: Element + Ord>(n: usize) -> Globally<TopFn<T>> {
        Globally::new("Top", TopFn::smallest(n))
    }

    /// The `n` values of each key that the closure calls the greatest.
    pub fn per_key<T: Element, F>(n: usize, compare: F) -> PerKey<TopFn<T, F>>
    where
        F: Fn(&T, &T) -> Ordering + Clone + Send + 'static,
    {
        PerKey::new("Top", TopFn::by(n, compare))
    }

    /// The `n` largest values of each key.
    pub fn largest_per_key<T: Element + Ord>(n: usize) -> PerKey<TopFn<T>> {
        PerKey::new("Top", TopFn::largest(n))
    }

    /// The `n` smallest values of each key.
    pub fn smallest_per_key<T: Element + Ord>(n: usize) -> PerKey<TopFn<T>> {
        PerKey::new("Top", TopFn::smallest(n))
    }
}

/// The combiner behind [`Top`].
pub struct TopFn<T, F = fn(&T, &T) -> Ordering> {
    n: usize,
    compare: F,
    element: PhantomData<fn(T)>,
}

impl<T, F: Clone> Clone for TopFn<T, F> {
    fn clone(&self) -> Self {
        TopFn {
            n: self.n,
            compare: self.compare.clone(),
            element: PhantomData,
        }
    }
}

impl<T, F> std::fmt::Debug for TopFn<T, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TopFn({})", self.n)
    }
}

impl<T: Ord> TopFn<T> {
    /// The `n` largest.
    pub fn largest(n: usize) -> TopFn<T> {
        TopFn::by(n, T::cmp)
    }

    /// The `n` smallest.
    pub fn smallest(n: usize) -> TopFn<T> {
        TopFn::by(n, |a, b| b.cmp(a))
    }
}

impl<T, F: Fn(&T, &T) -> Ordering> TopFn<T, F> {
    /// The `n` that the closure calls the greatest.
    pub fn by(n: usize, compare: F) -> TopFn<T, F> {
        TopFn {
            n,
            compare,
            element: PhantomData,
        }
    }

    /// Drops what cannot be among the first, once there is as much again.
    fn trim(&self, elements: &mut Vec<T>, limit: usize) {
        if self.n == 0 {
            elements.clear();
        } else if elements.len() > limit.max(self.n) {
            elements.select_nth_unstable_by(self.n - 1, |a, b| (self.compare)(b, a));
            elements.truncate(self.n);
        }
    }
}

impl<T: Element, F> CombineFn for TopFn<T, F>
where
    F: Fn(&T, &T) -> Ordering + Clone + Send + 'static,
{
    type In = T;
    type Accumulator = Vec<T>;
    type Out = Vec<T>;

    fn create_accumulator(&self) -> Vec<T> {
        Vec::new()
    }

    fn add_input(&self, accumulator: &mut Vec<T>, input: T) {
        accumulator.push(input);
        self.trim(accumulator, self.n.saturating_mul(2));
    }

    fn merge_accumulators(&self, into: &mut Vec<T>, mut other: Vec<T>) {
        into.append(&mut other);
        self.trim(into, self.n.saturating_mul(2));
    }

    fn extract_output(&self, mut accumulator: Vec<T>) -> Vec<T> {
        self.trim(&mut accumulator, self.n);
        accumulator.sort_by(|a, b| (self.compare)(b, a));
        accumulator
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top(f: &TopFn<i64>, parts: &[&[i64]]) -> Vec<i64> {
        let mut all = f.create_accumulator();
        for part in parts {
            let mut accumulator = f.create_accumulator();
            part.iter().for_each(|n| f.add_input(&mut accumulator, *n));
            f.merge_accumulators(&mut all, accumulator);
        }
        f.extract_output(all)
    }

    #[test]
    fn parts_make_no_difference() {
        let numbers: Vec<i64> = (0..1000).map(|i| i * 7919 % 1009).collect();
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        for n in [0, 1, 3, 999, 1000, 2000] {
            let smallest: Vec<i64> = sorted.iter().copied().take(n).collect();
            let largest: Vec<i64> = sorted.iter().rev().copied().take(n).collect();
            let parts: [&[i64]; 3] = [&numbers[..10], &numbers[10..500], &numbers[500..]];
            assert_eq!(top(&TopFn::smallest(n), &parts), smallest);
            assert_eq!(top(&TopFn::largest(n), &[&numbers]), largest);
        }
    }
}
