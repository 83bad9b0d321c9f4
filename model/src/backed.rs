//! Iterables as they come over the wire: all of their values, or the first of them and a token for the others, which
//! stay with the runner (`beam:coder:state_backed_iterable:v1`).

use std::cell::Cell;

use bytes::Bytes;

use crate::coder::Chunks;
use crate::error::DecodeError;
use crate::typed::Element;

/// Reads the values behind a token: one after the other, each in the nested context.
pub type ReadRest = fn(token: &[u8]) -> Result<Bytes, String>;

thread_local! {
    static READ: Cell<Option<ReadRest>> = const { Cell::new(None) };
}

/// Says how types that hold all values of an iterable, such as `Vec`, read on this thread what stayed with the runner.
/// Without that, such an iterable is [`DecodeError::StateBacked`].
pub fn read_rests_by(read: ReadRest) {
    READ.set(Some(read));
}

/// The values behind a token.
pub(crate) fn read_rest(token: &[u8]) -> Result<Bytes, DecodeError> {
    let read = READ.get().ok_or(DecodeError::StateBacked)?;
    read(token).map_err(|reason| DecodeError::Rest {
        reason: reason.into(),
    })
}

/// An iterable whose values are not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedIterable {
    /// The values that came, one after the other, each in the nested context.
    pub values: Bytes,
    /// How many they are.
    pub count: u64,
    /// Of the values that follow, where they stayed with the runner.
    pub token: Option<Bytes>,
}

impl EncodedIterable {
    /// Reads an iterable of a type's values.
    ///
    /// # Errors
    /// When the bytes are no iterable of such values.
    pub fn read<T: Element>(input: &mut &[u8]) -> Result<EncodedIterable, DecodeError> {
        let mut chunks = Chunks::start(input)?;
        let (mut values, mut total) = (Vec::new(), 0);
        while let Some(count) = chunks.next(input, 1)? {
            let before = *input;
            for _ in 0..count {
                T::decode(input, true)?;
            }
            values.extend_from_slice(&before[..before.len() - input.len()]);
            total += count as u64;
        }
        Ok(EncodedIterable {
            values: values.into(),
            count: total,
            token: chunks.token.map(Bytes::copy_from_slice),
        })
    }
}
