//! Transforms that know the fields of their elements.

mod aggregate;
mod group;
mod join;
mod select;

pub use aggregate::{AggregateValue, Aggregates, FieldAggregate, FnAggregate};
pub use group::{GroupByFields, GroupByRow};
pub use join::{
    BroadcastJoin, ByFields, ByFn, Full, Inner, Join, JoinKeys, JoinMode, KeepsLeft, Left, Right,
};
pub use select::Select;
