//! Iterables as they come over the wire: all of their values, or the first of them and a token for the others, which
//! stay with the runner (`beam:coder:state_backed_iterable:v1`).
//!
//! Nothing here can ask the runner. A type that holds all values, such as `Vec`, answers an iterable with a token by
//! [`DecodeError::StateBacked`]; who can read the rest puts it in the token's place and decodes again.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::coder::Chunks;
use crate::error::DecodeError;
use crate::typed::Element;

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
