//! Panes on their way out: which one it is, and its bytes.

use alloc::vec::Vec;

use purlin_model::{PaneInfo, Timestamp, Timing, Window, wire};

use crate::chunk::Chunk;

/// Output is cut into chunks of about this size; an element stays whole.
pub(super) const CHUNK_BYTES: usize = 1 << 20;

/// Tells the pane that fires next for a key and window.
///
/// `previous` is the last pane that was emitted. Timings follow EARLY* ON_TIME? LATE*: once the output watermark is
/// past the window, or a pane has fired that was not early, a pane can only be late.
pub(super) fn next_pane(
    previous: Option<PaneInfo>,
    is_last: bool,
    window_end: Timestamp,
    input_watermark: Timestamp,
    output_watermark: Timestamp,
) -> PaneInfo {
    let only_early_so_far = previous.is_none_or(|pane| pane.timing == Timing::Early);
    let timing = if window_end < output_watermark || !only_early_so_far {
        Timing::Late
    } else if input_watermark <= window_end {
        Timing::Early
    } else {
        Timing::OnTime
    };
    PaneInfo {
        is_first: previous.is_none(),
        is_last,
        timing,
        index: previous.map_or(0, |pane| pane.index + 1),
        nonspeculative_index: match timing {
            Timing::Early => -1,
            _ => previous.map_or(0, |pane| pane.nonspeculative_index + 1),
        },
    }
}

/// Writes grouped elements into chunks.
#[derive(Debug)]
pub(super) struct Emitter<'o> {
    out: &'o mut Vec<Chunk>,
    buffer: Vec<u8>,
    count: u64,
    min_timestamp: Timestamp,
    flushed: bool,
}

impl<'o> Emitter<'o> {
    pub(super) fn new(out: &'o mut Vec<Chunk>) -> Self {
        Emitter {
            out,
            buffer: Vec::new(),
            count: 0,
            min_timestamp: Timestamp::MAX,
            flushed: false,
        }
    }

    /// Writes one element: a key with an iterable of `count` values.
    ///
    /// `header` is the encoded timestamp, windows and pane of the element.
    pub(super) fn element(
        &mut self,
        timestamp: Timestamp,
        header: &[u8],
        key: &[u8],
        count: u64,
        values: &[u8],
    ) {
        let size = header.len() + key.len() + values.len() + 4;
        if !self.buffer.is_empty() && self.buffer.len() + size > CHUNK_BYTES {
            self.flush();
        }
        if self.buffer.is_empty() {
            // What filled one chunk will fill another.
            self.buffer
                .reserve_exact(if self.flushed { size.max(CHUNK_BYTES) } else { size });
        }
        self.buffer.extend_from_slice(header);
        self.buffer.extend_from_slice(key);
        match i32::try_from(count) {
            Ok(count) => {
                self.buffer.extend_from_slice(&count.to_be_bytes());
                self.buffer.extend_from_slice(values);
            }
            Err(_) => {
                // More than the count can tell: the form of unknown length, in one block.
                self.buffer.extend_from_slice(&(-1i32).to_be_bytes());
                wire::write_varint(count, &mut self.buffer);
                self.buffer.extend_from_slice(values);
                wire::write_varint(0, &mut self.buffer);
            }
        }
        self.count += 1;
        self.min_timestamp = self.min_timestamp.min(timestamp);
    }

    /// Writes one large element in the memory that its bytes are in already: `data` is the key, of `key_len` bytes,
    /// and the values.
    pub(super) fn large_element(
        &mut self,
        timestamp: Timestamp,
        header: &[u8],
        key_len: usize,
        count: u64,
        mut data: Vec<u8>,
    ) {
        let Ok(short_count) = i32::try_from(count) else {
            let (key, values) = data.split_at(key_len);
            return self.element(timestamp, header, key, count, values);
        };
        self.flush();
        let (old, extra) = (data.len(), header.len() + 4);
        data.reserve_exact(extra);
        data.resize(old + extra, 0);
        data.copy_within(key_len..old, key_len + extra);
        data.copy_within(..key_len, header.len());
        data[..header.len()].copy_from_slice(header);
        data[header.len() + key_len..][..4].copy_from_slice(&short_count.to_be_bytes());
        self.out.push(Chunk {
            data: data.into(),
            count: 1,
            min_timestamp: timestamp,
        });
    }

    fn flush(&mut self) {
        if self.count == 0 {
            return;
        }
        let mut data = core::mem::take(&mut self.buffer);
        if data.capacity() / 4 > data.len() / 3 {
            data.shrink_to_fit();
        }
        self.out.push(Chunk {
            data: data.into(),
            count: self.count,
            min_timestamp: self.min_timestamp,
        });
        self.count = 0;
        self.min_timestamp = Timestamp::MAX;
        self.flushed = true;
    }

    /// Hands over what is not full.
    pub(super) fn finish(mut self) {
        self.flush();
    }
}

/// Encodes what comes before an element's value.
pub(super) fn encode_header(timestamp: Timestamp, window: &Window, pane: PaneInfo, header: &mut Vec<u8>) {
    header.clear();
    timestamp.encode(header);
    header.extend_from_slice(&1u32.to_be_bytes());
    window.encode(header);
    pane.encode(header);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_follow_early_on_time_late() {
        let end = Timestamp(9);
        let first = next_pane(None, false, end, Timestamp(9), Timestamp(9));
        assert_eq!(
            (first.timing, first.index, first.nonspeculative_index),
            (Timing::Early, 0, -1)
        );
        let second = next_pane(Some(first), false, end, Timestamp(10), Timestamp(9));
        assert_eq!(
            (second.timing, second.index, second.nonspeculative_index),
            (Timing::OnTime, 1, 0)
        );
        let third = next_pane(Some(second), true, end, Timestamp(10), Timestamp(9));
        assert_eq!(
            (third.timing, third.index, third.nonspeculative_index),
            (Timing::Late, 2, 1)
        );
        assert!(first.is_first && !second.is_first && third.is_last);
        // What comes first after the output watermark has passed is late.
        assert_eq!(
            next_pane(None, false, end, Timestamp(10), Timestamp(10)).timing,
            Timing::Late
        );
    }

    #[test]
    fn chunks_are_cut_between_elements() {
        let mut out = Vec::new();
        let mut emitter = Emitter::new(&mut out);
        let values = vec![7; CHUNK_BYTES / 3];
        for index in 0..4 {
            emitter.element(Timestamp(10 - index), b"h", b"k", 1, &values);
        }
        emitter.element(Timestamp(0), b"h", b"k", 1 << 40, &vec![0; 3 * CHUNK_BYTES]);
        emitter.finish();
        let shape: Vec<_> = out
            .iter()
            .map(|chunk| (chunk.count, chunk.min_timestamp.millis()))
            .collect();
        assert_eq!(shape, [(2, 9), (2, 7), (1, 0)]);
        assert_eq!(out[0].data.len(), 2 * (6 + CHUNK_BYTES / 3));
    }

    #[test]
    fn a_large_element_is_the_same_as_a_small_one() {
        let (mut small, mut large) = (Vec::new(), Vec::new());
        let mut emitter = Emitter::new(&mut small);
        emitter.element(Timestamp(1), b"header", b"key", 3, b"values");
        emitter.finish();
        let mut emitter = Emitter::new(&mut large);
        emitter.large_element(Timestamp(1), b"header", 3, 3, b"keyvalues".to_vec());
        emitter.finish();
        assert_eq!(large[0].data, small[0].data);
        assert_eq!((large[0].count, large[0].min_timestamp), (1, Timestamp(1)));
    }
}
