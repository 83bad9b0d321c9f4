//! The queue of a stage without state: chunks in order of arrival.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use purlin_model::Timestamp;

use crate::bundle::Work;
use crate::chunk::{Chunk, ChunkError, CollectionFormat};
use crate::watermark::Holds;

/// Each chunk in it has a hold at its `min_timestamp` in the stage's pending holds.
#[derive(Debug, Default)]
pub(crate) struct PlainQueue {
    ready: VecDeque<Chunk>,
    delayed: BTreeMap<(Timestamp, u64), Chunk>,
    /// What `ready` holds.
    elements: u64,
    bytes: u64,
    sequence: u64,
}

impl PlainQueue {
    pub fn push(&mut self, chunk: Chunk, pending: &mut Holds) {
        pending.add(chunk.min_timestamp);
        self.make_ready(chunk);
    }

    fn make_ready(&mut self, chunk: Chunk) {
        self.elements += chunk.count;
        self.bytes += chunk.data.len() as u64;
        self.ready.push_back(chunk);
    }

    /// Puts a chunk before all others.
    pub fn push_front(&mut self, chunk: Chunk, pending: &mut Holds) {
        pending.add(chunk.min_timestamp);
        self.elements += chunk.count;
        self.bytes += chunk.data.len() as u64;
        self.ready.push_front(chunk);
    }

    /// Not before `at`.
    pub fn push_delayed(&mut self, at: Timestamp, chunk: Chunk, pending: &mut Holds) {
        pending.add(chunk.min_timestamp);
        self.sequence += 1;
        self.delayed.insert((at, self.sequence), chunk);
    }

    pub fn advance(&mut self, now: Timestamp) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let chunk = entry.remove();
            self.make_ready(chunk);
        }
    }

    pub fn next_processing_time(&self) -> Option<Timestamp> {
        self.delayed.first_key_value().map(|(key, _)| key.0)
    }

    pub fn size(&self) -> u64 {
        self.elements
    }

    /// Bytes of the elements that a bundle could take now.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.delayed.is_empty()
    }

    /// Takes all out.
    pub fn take_all(&mut self, pending: &mut Holds) -> Vec<Chunk> {
        self.elements = 0;
        self.bytes = 0;
        let delayed = core::mem::take(&mut self.delayed).into_values();
        let all: Vec<Chunk> = core::mem::take(&mut self.ready)
            .into_iter()
            .chain(delayed)
            .collect();
        all.iter().for_each(|chunk| pending.remove(chunk.min_timestamp));
        all
    }

    /// Puts a bundle together.
    pub fn compose(
        &mut self,
        max_elements: u64,
        max_bytes: u64,
        pending: &mut Holds,
        format: &CollectionFormat,
    ) -> Result<Option<Work>, ChunkError> {
        let mut work = Work::default();
        let mut bytes = 0;
        while work.elements_count < max_elements && (bytes < max_bytes || work.elements_count == 0) {
            let Some(chunk) = self.ready.pop_front() else {
                break;
            };
            let old_hold = chunk.min_timestamp;
            self.elements -= chunk.count;
            self.bytes -= chunk.data.len() as u64;
            let elements_left = max_elements - work.elements_count;
            let (head, rest) = chunk.split_at(elements_left, max_bytes - bytes.min(max_bytes), format)?;
            pending.remove(old_hold);
            pending.add(head.min_timestamp);
            work.holds.push(head.min_timestamp);
            work.elements_count += head.count;
            bytes += head.data.len() as u64;
            work.elements.push(head);
            if rest.count > 0 {
                self.push_front(rest, pending);
                break;
            }
        }
        Ok((!work.elements.is_empty()).then_some(work))
    }
}
