//! Buffers of encoded elements, and what is known of them without looking again.

use bytes::Bytes;
use purlin_coders::Timestamp;

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
