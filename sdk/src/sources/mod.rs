//! Reading from sources, and sequences of numbers and times: splittable DoFns that are there already.

mod bounded;
mod impulses;
mod sequence;
mod unbounded;

pub use bounded::{BoundedSource, ReadBounded};
pub use impulses::PeriodicImpulse;
pub use sequence::GenerateSequence;
pub use unbounded::{Next, ReadUnbounded, UnboundedReader, UnboundedSource};

use std::time::{SystemTime, UNIX_EPOCH};

use purlin_model::Timestamp;

/// The time by this machine's clock.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
