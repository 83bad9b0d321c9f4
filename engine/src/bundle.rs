//! A bundle from its composition to its commit.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use purlin_model::{Timestamp, Window};

use crate::chunk::{Chunk, ChunkError, CollectionFormat};
use crate::event::StageId;
use crate::event::{BundleInput, BundleResult, Split};
use crate::graph::TransformId;
use crate::keyed::{Fired, Span};
use crate::state::Overlay;

/// What a bundle processes. It stays the same from attempt to attempt, unless a split makes it smaller.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    /// Timers, before the elements.
    pub timers: Vec<(TransformId, String, Bytes)>,
    /// Main input.
    pub elements: Vec<Chunk>,
    /// Number of elements.
    pub elements_count: u64,
    /// What holds the input watermark until the commit.
    pub holds: Vec<Timestamp>,
    /// What holds the output watermark until the commit.
    pub timer_holds: Vec<Timestamp>,
    /// Keys that no other bundle may touch.
    pub keys: Vec<Bytes>,
    /// Windows of keys whose expiration is told.
    pub expired: Vec<(Bytes, Window)>,
    /// Its timers one by one.
    pub fired: Vec<Fired>,
    /// Keys of which it has timers of several timestamps.
    pub spans: Vec<Span>,
    /// Restrictions were truncated before: residuals need it no more.
    pub truncated: bool,
}

/// Work that failed and is to be tried again.
#[derive(Debug)]
pub(crate) struct Retry {
    pub work: Work,
    pub attempt: u32,
    pub losses: u32,
}

/// A bundle on a worker.
#[derive(Debug)]
pub(crate) struct BundleInFlight {
    pub stage: StageId,
    pub worker: u32,
    pub attempt: u32,
    pub losses: u32,
    pub work: Work,
    pub overlay: Overlay,
    /// When a split is worth asking for.
    pub split_at: Timestamp,
    /// Milliseconds to wait before the next one is asked for.
    pub split_pause: i64,
    /// A split was asked for and not answered.
    pub split_asked: bool,
    /// How many elements it has begun; `None` before the first report.
    pub elements_done: Option<u64>,
    /// How many it had begun at the first report that told of any, and when that came.
    pub pace: Option<(u64, Timestamp)>,
    /// It finished before the answer to a split came.
    pub finished: Option<BundleResult>,
}

impl Work {
    pub fn input(&self) -> Vec<BundleInput> {
        let timers = self
            .timers
            .iter()
            .map(|(transform, family, data)| BundleInput::Timers {
                transform: *transform,
                family: family.clone(),
                data: data.clone(),
            });
        let elements = self
            .elements
            .iter()
            .map(|chunk| BundleInput::Elements(chunk.data.clone()));
        timers.chain(elements).collect()
    }

    /// Makes the work what the worker kept. Returns the elements that it gave back unbegun.
    pub fn cut(&mut self, split: &Split, format: &CollectionFormat) -> Result<Vec<Chunk>, ChunkError> {
        let Some(first_residual) = split.first_residual else {
            return Ok(Vec::new());
        };
        let whole = u64::try_from(split.last_primary.saturating_add(1))
            .unwrap_or(0)
            .min(first_residual);
        let mut given_back = Vec::new();
        let mut kept: Vec<Chunk> = Vec::new();
        let mut at = 0;
        for chunk in core::mem::take(&mut self.elements) {
            let count = chunk.count;
            let (head, rest) = chunk.split_at(whole.saturating_sub(at), u64::MAX, format)?;
            // Between the two lies the element that was split itself: its parts come as roots.
            let gap = first_residual.max(at + head.count) - (at + head.count);
            let (_, rest) = rest.split_at(gap, u64::MAX, format)?;
            at += count;
            kept.extend((head.count > 0).then_some(head));
            given_back.extend((rest.count > 0).then_some(rest));
        }
        for root in &split.primary_roots {
            kept.push(Chunk::scan(root.clone(), format)?);
        }
        self.elements = kept;
        self.elements_count = self.elements.iter().map(|chunk| chunk.count).sum();
        Ok(given_back)
    }
}
