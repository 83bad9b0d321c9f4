//! Testing pipelines: [`TestPipeline`], [`PAssert`] and [`TestStream`].

mod passert;
mod pipeline;
mod test_stream;

pub use passert::{PAssert, Verdict};
pub use pipeline::TestPipeline;
pub use test_stream::TestStream;
