//! The pure engine: graph, fusion, watermarks, windowing, triggers, timers, state and bundles.

#![forbid(unsafe_code)]

pub mod chunk;
pub mod event;
pub mod graph;

pub use chunk::Chunk;
pub use event::*;
pub use graph::*;
