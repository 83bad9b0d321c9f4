//! Bodies of the fuzz targets, so that tests run the same code.
//!
//! Each takes any bytes and returns how far they went; it panics where the code under test is wrong. See `README.md`.
#![forbid(unsafe_code)]

mod coders;
mod fn_api;
mod input;
mod lines;
mod pipelines;
mod pmml;
mod trees;

pub use coders::coders;
pub use fn_api::fn_api;
pub use input::Random;
pub use pipelines::pipeline;
pub use pmml::pmml;
pub use trees::trees;

/// Pipelines as Beam's Python SDK submits them.
pub(crate) const PIPELINES: &[&[u8]] = &[
    include_bytes!("../../runner/tests/data/wordcount.pb"),
    include_bytes!("../../runner/tests/data/wordcount_plain.pb"),
    include_bytes!("../../runner/tests/data/stateful.pb"),
    include_bytes!("../../runner/tests/data/side_inputs.pb"),
    include_bytes!("../../runner/tests/data/flatten.pb"),
    include_bytes!("../../runner/tests/data/batches.pb"),
    include_bytes!("../../runner/tests/data/packed.pb"),
    include_bytes!("../../runner/tests/data/triggers.pb"),
    include_bytes!("../../runner/tests/data/custom_windows.pb"),
    include_bytes!("../../runner/tests/data/test_stream.pb"),
    include_bytes!("../../runner/tests/data/text_wordcount.pb"),
];
