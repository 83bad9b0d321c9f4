//! What a step says of its states and timers.

use std::sync::Arc;

use purlin_model::CoderSpec;

/// Which time a timer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimeDomain {
    /// The input's watermark.
    EventTime,
    /// The clock.
    ProcessingTime,
}

/// What a field is.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq)]
pub struct FieldSpec {
    pub(crate) id: u64,
    pub(crate) name: Arc<str>,
    /// Whether others can read it while the job runs.
    pub(crate) queryable: bool,
    pub(crate) kind: FieldKind,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum FieldKind {
    Value(CoderSpec),
    Bag(CoderSpec),
    Set(CoderSpec),
    Combining(CoderSpec),
    Map(CoderSpec, CoderSpec),
    Multimap(CoderSpec, CoderSpec),
    OrderedList(CoderSpec),
    Timer(TimeDomain),
}
