//! Whole collections as one element.

use std::hash::Hash;
use std::marker::PhantomData;

use purlin_model::{CoderSpec, DecodeError, Element, typed, urns, wire};
use rustc_hash::FxHashSet;

use super::numbers::unit_combiner;
use super::{Globally, PerKey};
use crate::combine::CombineFn;

/// All elements in one vector, in no order.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let list = p.apply(Create::new([7i64])).apply(ToList::globally());
/// PAssert::that(&list).equals(vec![7]);
/// p.run();
/// ```
pub struct ToList<T>(PhantomData<fn(T)>);

unit_combiner!(ToList);

impl<T: Element> CombineFn for ToList<T> {
    type In = T;
    type Accumulator = Vec<T>;
    type Out = Vec<T>;

    fn create_accumulator(&self) -> Vec<T> {
        Vec::new()
    }

    fn add_input(&self, accumulator: &mut Vec<T>, input: T) {
        accumulator.push(input);
    }

    fn merge_accumulators(&self, into: &mut Vec<T>, mut other: Vec<T>) {
        into.append(&mut other);
    }

    fn extract_output(&self, accumulator: Vec<T>) -> Vec<T> {
        accumulator
    }
}

/// The different elements in one vector, in no order.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let set = p.apply(Create::new([7i64, 7, 7])).apply(ToSet::globally());
/// PAssert::that(&set).equals(vec![7]);
/// p.run();
/// ```
pub struct ToSet<T>(PhantomData<fn(T)>);

unit_combiner!(ToSet);

/// What [`ToSet`] has collected: `beam:coder:iterable:v1` on the wire.
#[derive(Clone, Debug)]
pub struct SetAccumulator<T>(FxHashSet<T>);

impl<T: Element + Eq + Hash> Element for SetAccumulator<T> {
    fn coder() -> CoderSpec {
        CoderSpec::of(urns::ITERABLE, vec![T::coder()])
    }

    fn encode(&self, out: &mut Vec<u8>, _nested: bool) {
        typed::encode_iterable(self.0.iter(), out);
    }

    fn decode(input: &mut &[u8], _nested: bool) -> Result<Self, DecodeError> {
        let count = wire::read_i32_be(input, "the size of a set")?;
        // Room is made as elements come: the count alone proves nothing.
        let mut set = FxHashSet::default();
        for _ in 0..count {
            set.insert(T::decode(input, true)?);
        }
        Ok(SetAccumulator(set))
    }
}

impl<T: Element + Eq + Hash> CombineFn for ToSet<T> {
    type In = T;
    type Accumulator = SetAccumulator<T>;
    type Out = Vec<T>;

    fn create_accumulator(&self) -> SetAccumulator<T> {
        SetAccumulator(FxHashSet::default())
    }

    fn add_input(&self, accumulator: &mut SetAccumulator<T>, input: T) {
        accumulator.0.insert(input);
    }

    fn merge_accumulators(&self, into: &mut SetAccumulator<T>, other: SetAccumulator<T>) {
        into.0.extend(other.0);
    }

    fn extract_output(&self, accumulator: SetAccumulator<T>) -> Vec<T> {
        accumulator.0.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_round_trip() {
        let set = SetAccumulator((0u8..200).collect());
        assert_eq!(
            SetAccumulator::<u8>::from_bytes(&set.to_bytes()).unwrap().0,
            set.0
        );
        assert!(SetAccumulator::<u8>::from_bytes(&[0, 0, 0, 9, 1]).is_err());
    }
}
