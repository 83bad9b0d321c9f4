//! Beam's primitive transforms, and the composites that every runner knows.

mod async_par_do;
mod combine;
mod create;
mod elementwise;
mod ends;
mod flatten;
mod group;
mod impulse;
mod pair;
mod par_do;
mod reshuffle;
mod side_input;
mod splittable;
mod stateful;
mod tags;
mod window_into;

pub use async_par_do::AsyncParDo;
pub use combine::{CombineGlobally, CombinePerKey};
pub use create::Create;
pub use elementwise::{Filter, FlatMap, Map, TryFlatMap, TryMap};
pub use ends::SomeTags;
pub use flatten::Flatten;
pub use group::{GroupAsIterables, GroupByKey};
pub use impulse::Impulse;
pub use pair::Pair;
pub use par_do::ParDo;
pub use reshuffle::Reshuffle;
pub use splittable::SplittableParDo;
pub use stateful::StatefulParDo;
pub use tags::OutputTags;
pub use window_into::WindowInto;
