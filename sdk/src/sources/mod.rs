//! Reading from sources, and sequences of numbers and times: splittable DoFns that are there already.

mod bounded;
mod impulses;
mod sequence;
mod unbounded;

pub use bounded::{BoundedSource, ReadBounded};
pub use impulses::PeriodicImpulse;
pub use sequence::GenerateSequence;
pub use unbounded::{Next, ReadUnbounded, UnboundedReader, UnboundedSource};

pub use crate::clock::now;
