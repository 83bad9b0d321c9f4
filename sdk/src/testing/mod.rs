//! Testing pipelines: [`TestPipeline`], [`PAssert`], [`TestStream`], and [`purlin::test`](crate::test) for tests that
//! run on several runners.

#![allow(clippy::panic, reason = "so a test fails")]

mod passert;
mod pipeline;
mod runners;
mod scope;
mod test_stream;

pub use passert::{PAssert, Verdict};
pub use pipeline::TestPipeline;
#[doc(hidden)]
pub use runners::on_each_runner;
pub use test_stream::TestStream;
