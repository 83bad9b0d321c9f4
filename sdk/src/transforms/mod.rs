//! Transforms made of the primitives, under Beam's names.
//!
//! | for | transforms |
//! |---|---|
//! | keys and values | [`Keys`], [`Values`], [`KvSwap`], [`WithKeys`], [`CoGroupByKey`] |
//! | totals | [`Count`], [`Sum`], [`Mean`], [`Min`], [`Max`], [`Top`], [`Latest`], [`ApproximateQuantiles`] |
//! | whole collections | [`ToList`], [`ToSet`], [`Sample`], [`Distinct`] |
//! | fields of rows | [`Select`], [`GroupByFields`], [`GroupByRow`], [`Join`] |
//! | batches | [`BatchElements`], [`GroupIntoBatches`] |
//! | other | [`Partition`], [`ToString`] |
//!
//! The combiners are [`CombineFn`](crate::CombineFn)s, for `combine_globally` and `combine_per_key`, and have transforms
//! of their own: `Sum::globally()`, `Sum::per_key()`.

mod batch;
mod co_group_by_key;
mod combiners;
mod distinct;
mod keys;
mod partition;
mod schemas;
mod to_string;

pub use batch::{
    BatchElements, ElementGroup, ElementSize, GroupFn, GroupIntoBatches, OneEach, OneGroup, SizeFn,
};
pub use co_group_by_key::CoGroupByKey;
pub use combiners::{
    ApproximateQuantiles, Count, Globally, GloballyIfAny, Latest, LatestGlobally, LatestPerKey, Max, Mean,
    Min, Number, PerElement, PerKey, Sample, SampleFn, SetAccumulator, Sum, ToList, ToSet, Top, TopFn,
};
pub use distinct::Distinct;
pub use keys::{Keys, KvSwap, Values, WithKeys};
pub use partition::Partition;
pub use schemas::{
    AggregateValue, Aggregates, BroadcastJoin, ByFields, ByFn, FieldAggregate, FnAggregate, Full,
    GroupByFields, GroupByRow, Inner, Join, JoinKeys, JoinMode, KeepsLeft, Left, Right, Select,
};
pub use to_string::{ElementToString, IterableToString, KvToString, ToString};
