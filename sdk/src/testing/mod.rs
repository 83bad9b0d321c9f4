//! Testing pipelines: [`TestPipeline`] and [`PAssert`].

mod passert;
mod pipeline;

pub use passert::{PAssert, Verdict};
pub use pipeline::TestPipeline;
