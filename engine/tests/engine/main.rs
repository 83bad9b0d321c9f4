//! The engine's decisions, one at a time.

mod bundles;
#[path = "../common/mod.rs"]
mod common;
mod endings;
mod firings;
mod side_inputs;
mod splittable;
mod test_stream;
mod timers;
mod windows;
