//! The usual combiners.

mod collect;
mod extremes;
mod latest;
mod numbers;
mod quantiles;
mod sample;
mod top;

use std::hash::Hash;

pub use collect::{SetAccumulator, ToList, ToSet};
pub use extremes::{Max, Min};
pub use latest::{Latest, LatestGlobally, LatestPerKey};
pub use numbers::{Count, Mean, Number, PerElement, Sum};
pub use quantiles::ApproximateQuantiles;
pub use sample::{Sample, SampleFn};
pub use top::{Top, TopFn};

use crate::combine::CombineFn;
use crate::pipeline::{PCollection, PTransform};
use crate::primitives::{CombineGlobally, Pair};

/// A combiner over a whole collection: one element per window, for an empty collection in the global window too.
#[derive(Clone, Debug)]
pub struct Globally<F> {
    name: &'static str,
    combine: F,
}

impl<F> Globally<F> {
    fn new(name: &'static str, combine: F) -> Globally<F> {
        Globally { name, combine }
    }
}

impl<F: CombineFn> PTransform<PCollection<F::In>> for Globally<F> {
    type Output = PCollection<F::Out>;

    fn name(&self) -> String {
        format!("{}.Globally", self.name)
    }

    fn expand(self, input: PCollection<F::In>) -> PCollection<F::Out> {
        input.combine_globally("Combine", self.combine)
    }
}

/// A combiner over a whole collection that has no answer for an empty one: then there is no element.
#[derive(Clone, Debug)]
pub struct GloballyIfAny<F> {
    name: &'static str,
    combine: F,
}

impl<F: CombineFn> PTransform<PCollection<F::In>> for GloballyIfAny<F> {
    type Output = PCollection<F::Out>;

    fn name(&self) -> String {
        format!("{}.Globally", self.name)
    }

    fn expand(self, input: PCollection<F::In>) -> PCollection<F::Out> {
        input.apply(CombineGlobally::new("Combine", self.combine).without_defaults())
    }
}

/// A combiner over the values of each key.
#[derive(Clone, Debug)]
pub struct PerKey<F> {
    name: &'static str,
    combine: F,
}

impl<F> PerKey<F> {
    fn new(name: &'static str, combine: F) -> PerKey<F> {
        PerKey { name, combine }
    }
}

impl<T, F> PTransform<PCollection<T>> for PerKey<F>
where
    T: Pair<Key: Eq + Hash, Value = F::In>,
    F: CombineFn,
{
    type Output = PCollection<(T::Key, F::Out)>;

    fn name(&self) -> String {
        format!("{}.PerKey", self.name)
    }

    fn expand(self, input: PCollection<T>) -> Self::Output {
        input.combine_per_key("Combine", self.combine)
    }
}
