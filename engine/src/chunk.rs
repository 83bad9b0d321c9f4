//! Buffers of encoded elements, and what is known of them without looking again.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use purlin_model::{Coder, DecodeError, Timestamp, Walker, WindowCoder};
use thiserror::Error;

use crate::graph::Collection;

/// Concatenated windowed values of one PCollection.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// The windowed values, one after another.
    pub data: Bytes,
    /// How many.
    pub count: u64,
    /// The smallest timestamp among them ([`Timestamp::MAX`] of an empty chunk).
    pub min_timestamp: Timestamp,
}

/// How the elements of a collection are encoded.
#[derive(Clone, Debug)]
pub struct CollectionFormat {
    /// The values' coder.
    pub coder: Coder,
    /// The windows' coder.
    pub window: WindowCoder,
}

impl From<&Collection> for CollectionFormat {
    fn from(collection: &Collection) -> Self {
        CollectionFormat {
            coder: collection.coder.clone(),
            window: collection.window_coder.clone(),
        }
    }
}

/// Bytes that are not elements of their collection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("element {index} of a buffer of {bytes} bytes cannot be read with coder {coder}: {source}")]
pub struct ChunkError {
    /// Number of whole elements before the bad one.
    pub index: u64,
    /// Size of the buffer.
    pub bytes: usize,
    /// The coder.
    pub coder: String,
    /// What is wrong.
    pub source: DecodeError,
}

impl CollectionFormat {
    /// The elements of a buffer.
    pub fn walk<'a>(&'a self, data: &'a [u8]) -> Walker<'a> {
        Walker::new(&self.window, &self.coder, data)
    }

    pub(crate) fn error(&self, index: u64, bytes: usize, source: DecodeError) -> ChunkError {
        ChunkError {
            index,
            bytes,
            coder: self.coder.to_string(),
            source,
        }
    }
}

impl Chunk {
    /// Finds out what there is to know of a buffer. Elements in no window are left out: sliding windows with gaps between
    /// them assign none to some elements, and what is in no window does not exist for any transform that follows.
    ///
    /// # Errors
    /// When it does not hold whole elements of the format.
    pub fn scan(data: Bytes, format: &CollectionFormat) -> Result<Chunk, ChunkError> {
        let mut count = 0;
        let mut min_timestamp = Timestamp::MAX;
        // The elements that stay, copied from the first one that does not.
        let mut kept: Option<Vec<u8>> = None;
        for (index, element) in (0..).zip(format.walk(&data)) {
            let element = element.map_err(|source| format.error(index, data.len(), source))?;
            if element.windows.is_empty() {
                kept.get_or_insert_with(|| data[..element.start].to_vec());
                continue;
            }
            if let Some(kept) = &mut kept {
                kept.extend_from_slice(&data[element.whole()]);
            }
            count += 1;
            min_timestamp = min_timestamp.min(element.timestamp);
        }
        Ok(Chunk {
            data: kept.map_or(data, Bytes::from),
            count,
            min_timestamp,
        })
    }

    /// A chunk of no elements.
    pub(crate) fn empty() -> Chunk {
        Chunk {
            data: Bytes::new(),
            count: 0,
            min_timestamp: Timestamp::MAX,
        }
    }

    /// Cuts the chunk in two at an element: the first `elements`, or fewer when they would exceed `bytes` (but at
    /// least one), and the rest.
    ///
    /// # Errors
    /// When it does not hold what was scanned.
    pub(crate) fn split_at(
        self,
        elements: u64,
        bytes: u64,
        format: &CollectionFormat,
    ) -> Result<(Chunk, Chunk), ChunkError> {
        if elements >= self.count && self.data.len() as u64 <= bytes {
            return Ok((self, Chunk::empty()));
        }
        let mut head = Chunk::empty();
        let mut at = 0;
        for element in format.walk(&self.data) {
            let element = element.map_err(|source| format.error(head.count, self.data.len(), source))?;
            if head.count >= elements || (head.count > 0 && element.end as u64 > bytes) {
                break;
            }
            head.count += 1;
            head.min_timestamp = head.min_timestamp.min(element.timestamp);
            at = element.end;
        }
        // A residual's chunk may be held at another time than its element's own.
        if head.count == self.count {
            return Ok((self, Chunk::empty()));
        }
        let mut data = self.data;
        head.data = data.split_to(at);
        // Where the buffer ends there is no more, whatever was counted.
        let count = if data.is_empty() {
            0
        } else {
            self.count.saturating_sub(head.count)
        };
        // The rest keeps the whole's smallest timestamp: cheap, and never too late.
        Ok((
            head,
            Chunk {
                data,
                count,
                min_timestamp: self.min_timestamp,
            },
        ))
    }
}
