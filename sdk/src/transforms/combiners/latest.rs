//! The element with the latest timestamp.

use std::hash::Hash;
use std::marker::PhantomData;

use purlin_model::{Element, Timestamp};

use super::numbers::unit_traits;
use crate::combine::CombineFn;
use crate::dofn::Context;
use crate::pipeline::{PCollection, PTransform};
use crate::primitives::{CombineGlobally, Pair};

/// The element with the latest timestamp; of several with the same one, any.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let timed = p.apply(Create::new([("a".to_string(), 3i64), ("a".to_string(), 9), ("b".to_string(), 5)])).par_do_with(
///     "Timestamps",
///     |pair: (String, i64), ctx: &mut Context<'_, (String, i64)>| {
///         let at = Timestamp::from_millis(pair.1);
///         ctx.output_with_timestamp(pair, at);
///         Ok(())
///     },
/// );
/// PAssert::that(&timed.apply(Latest::per_key()))
///     .contains_in_any_order([("a".to_string(), 9), ("b".to_string(), 5)]);
/// PAssert::that(&timed.values().apply(Latest::globally())).equals(9);
/// p.run();
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Latest {}

impl Latest {
    /// Of all elements; of none, none.
    pub fn globally() -> LatestGlobally {
        LatestGlobally
    }

    /// Of the values of each key.
    pub fn per_key() -> LatestPerKey {
        LatestPerKey
    }
}

struct LatestFn<T>(PhantomData<fn(T)>);

unit_traits!(LatestFn);

impl<T: Element> CombineFn for LatestFn<T> {
    type In = (Timestamp, T);
    type Accumulator = Option<(Timestamp, T)>;
    type Out = Option<T>;

    fn create_accumulator(&self) -> Self::Accumulator {
        None
    }

    fn add_input(&self, accumulator: &mut Self::Accumulator, input: (Timestamp, T)) {
        if accumulator.as_ref().is_none_or(|(at, _)| *at <= input.0) {
            *accumulator = Some(input);
        }
    }

    fn merge_accumulators(&self, into: &mut Self::Accumulator, other: Self::Accumulator) {
        if let Some(other) = other {
            self.add_input(into, other);
        }
    }

    fn extract_output(&self, accumulator: Self::Accumulator) -> Option<T> {
        accumulator.map(|(_, element)| element)
    }
}

/// See [`Latest::globally`].
#[derive(Clone, Copy, Debug)]
pub struct LatestGlobally;

impl<T: Element> PTransform<PCollection<T>> for LatestGlobally {
    type Output = PCollection<T>;

    fn name(&self) -> String {
        "Latest.Globally".into()
    }

    fn expand(self, input: PCollection<T>) -> PCollection<T> {
        input
            .par_do_with("Reify", |element: T, ctx: &mut Context<'_, (Timestamp, T)>| {
                let at = ctx.timestamp();
                ctx.output((at, element));
                Ok(())
            })
            .apply(CombineGlobally::new("Combine", LatestFn::default()).without_defaults())
            .flat_map("Value", |latest: Option<T>| latest)
    }
}

/// See [`Latest::per_key`].
#[derive(Clone, Copy, Debug)]
pub struct LatestPerKey;

impl<T, K, V> PTransform<PCollection<T>> for LatestPerKey
where
    T: Pair<Key = K, Value = V>,
    K: Element + Eq + Hash,
    V: Element,
{
    type Output = PCollection<(K, V)>;

    fn name(&self) -> String {
        "Latest.PerKey".into()
    }

    fn expand(self, input: PCollection<T>) -> Self::Output {
        T::pairs(&input)
            .par_do_with(
                "Reify",
                |(key, value): (K, V), ctx: &mut Context<'_, (K, (Timestamp, V))>| {
                    let at = ctx.timestamp();
                    ctx.output((key, (at, value)));
                    Ok(())
                },
            )
            .combine_per_key("Combine", LatestFn::default())
            .flat_map("Value", |(key, latest): (K, Option<V>)| {
                latest.map(|value| (key, value))
            })
    }
}
