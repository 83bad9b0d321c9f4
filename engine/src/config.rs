//! What can be chosen about the engine's decisions.

use alloc::vec::Vec;

use crate::graph::TransformId;

/// Settings of an [`crate::Engine`].
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// How often a bundle is tried. [`u32::MAX`]: endlessly.
    pub max_attempts: u32,
    /// How many workers may be lost under one bundle.
    pub max_worker_losses: u32,
    /// A bundle has no more elements than this.
    pub max_bundle_elements: u64,
    /// A bundle of several elements has no more bytes than this.
    pub max_bundle_bytes: u64,
    /// Bundles are not made smaller than this to have more of them.
    pub min_bundle_elements: u64,
    /// So many elements of a stage without state, or fewer, are few: each idle worker gets one bundle.
    pub few_elements: u64,
    /// A bundle that has run for so many milliseconds may be asked to split when slots are idle. One of a source without
    /// end is asked to stop then, and goes on later: what it has read so far is committed, and others have their turn.
    pub split_after_ms: i64,
    /// The same for a bundle whose elements are slow: what it has before it lasts much longer than this. Milliseconds.
    pub split_slow_after_ms: i64,
    /// A source without end starts no bundle while the stages behind it have more than so many bytes that they could
    /// process now (64 MiB by default). What waits for a side input, or in a grouping for its trigger, does not count.
    pub max_queued_bytes: u64,
    /// Splittable transforms (process-sized) with the transform that truncates their restrictions at
    /// [`crate::Event::Drain`]. It reads the same collection, but gets nothing before.
    pub truncates: Vec<(TransformId, TransformId)>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            max_attempts: 4,
            max_worker_losses: 8,
            max_bundle_elements: 100_000,
            max_bundle_bytes: 8 << 20,
            min_bundle_elements: 1_000,
            few_elements: 10_000,
            split_after_ms: 1_000,
            split_slow_after_ms: 200,
            max_queued_bytes: 64 << 20,
            truncates: Vec::new(),
        }
    }
}
