//! Reading and writing of the primitives that all coders are made of.
//!
//! Readers take `&mut &[u8]`, advance it past what they read, and leave it anywhere after an error.

use alloc::vec::Vec;

use crate::error::DecodeError;

type Result<T> = core::result::Result<T, DecodeError>;

/// Takes the next `count` bytes.
#[inline]
pub fn take<'a>(input: &mut &'a [u8], count: usize, what: &'static str) -> Result<&'a [u8]> {
    match input.split_at_checked(count) {
        Some((head, tail)) => {
            *input = tail;
            Ok(head)
        }
        None => Err(DecodeError::UnexpectedEnd {
            what,
            missing: count - input.len(),
        }),
    }
}

/// Takes the next `N` bytes.
#[inline]
pub fn take_array<const N: usize>(input: &mut &[u8], what: &'static str) -> Result<[u8; N]> {
    match input.split_first_chunk::<N>() {
        Some((head, tail)) => {
            *input = tail;
            Ok(*head)
        }
        None => Err(DecodeError::UnexpectedEnd {
            what,
            missing: N - input.len(),
        }),
    }
}

/// Takes all that is left.
#[inline]
pub fn take_rest<'a>(input: &mut &'a [u8]) -> &'a [u8] {
    core::mem::take(input)
}

/// Takes one byte.
#[inline]
pub fn read_u8(input: &mut &[u8], what: &'static str) -> Result<u8> {
    match input.split_first() {
        Some((first, tail)) => {
            *input = tail;
            Ok(*first)
        }
        None => Err(DecodeError::UnexpectedEnd { what, missing: 1 }),
    }
}

/// Reads a big-endian 32-bit signed integer.
#[inline]
pub fn read_i32_be(input: &mut &[u8], what: &'static str) -> Result<i32> {
    Ok(i32::from_be_bytes(take_array(input, what)?))
}

/// Reads a varint of up to 64 bits.
///
/// # Errors
/// When the input ends inside it, or it needs more than 64 bits.
#[inline]
pub fn read_varint(input: &mut &[u8]) -> Result<u64> {
    if let Some((&first, tail)) = input.split_first()
        && first < 0x80
    {
        *input = tail;
        return Ok(u64::from(first));
    }
    read_varint_slow(input)
}

fn read_varint_slow(input: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for (index, &byte) in input.iter().enumerate() {
        // The tenth byte holds the 64th bit alone.
        if index == 9 && byte > 1 {
            return Err(DecodeError::VarIntOverflow);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *input = &input[index + 1..];
            return Ok(value);
        }
    }
    Err(DecodeError::UnexpectedEnd {
        what: "a varint",
        missing: 1,
    })
}

/// Moves past a varint.
#[inline]
pub fn skip_varint(input: &mut &[u8]) -> Result<()> {
    read_varint(input).map(|_| ())
}

/// Reads a varint that is the length or count of something.
#[inline]
pub fn read_length(input: &mut &[u8], what: &'static str) -> Result<usize> {
    let value = read_varint(input)?;
    // A length beyond i64 is a negative number of the writer's.
    if value > i64::MAX as u64 {
        return Err(DecodeError::OutOfRange {
            what,
            value: value as i64,
        });
    }
    usize::try_from(value).map_err(|_| DecodeError::OutOfRange {
        what,
        value: value as i64,
    })
}

/// Values of no bytes that one count may announce. No pipeline has so many global windows in one place.
const MAX_EMPTY_VALUES: usize = 1 << 16;

/// A count of values that the bytes left can hold.
pub(crate) fn checked_count(count: i64, min_size: usize, left: usize, what: &'static str) -> Result<usize> {
    let limit = left.checked_div(min_size).unwrap_or(MAX_EMPTY_VALUES);
    match usize::try_from(count) {
        Ok(count) if count <= limit => Ok(count),
        _ => Err(DecodeError::OutOfRange { what, value: count }),
    }
}

/// Takes a byte string: length-prefixed when nested, else all that is left.
#[inline]
pub fn read_bytes<'a>(input: &mut &'a [u8], nested: bool) -> Result<&'a [u8]> {
    if nested {
        let length = read_length(input, "the length of a byte string")?;
        take(input, length, "a byte string")
    } else {
        Ok(take_rest(input))
    }
}

/// Takes a UTF-8 string: length-prefixed when nested, else all that is left.
#[inline]
pub fn read_str<'a>(input: &mut &'a [u8], nested: bool) -> Result<&'a str> {
    core::str::from_utf8(read_bytes(input, nested)?).map_err(|_| DecodeError::InvalidUtf8)
}

/// Reads a byte that is 0 or 1.
#[inline]
pub fn read_bool(input: &mut &[u8], what: &'static str) -> Result<bool> {
    match read_u8(input, what)? {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(DecodeError::InvalidByte { what, value }),
    }
}

/// Errors when bytes are left.
#[inline]
pub fn expect_end(input: &[u8]) -> Result<()> {
    if input.is_empty() {
        Ok(())
    } else {
        Err(DecodeError::TrailingBytes { count: input.len() })
    }
}

/// Writes a varint.
#[inline]
pub fn write_varint(value: u64, out: &mut Vec<u8>) {
    if value < 0x80 {
        out.push(value as u8);
    } else {
        write_varint_slow(value, out);
    }
}

fn write_varint_slow(mut value: u64, out: &mut Vec<u8>) {
    let mut buffer = [0u8; 10];
    let mut length = 0;
    while value >= 0x80 {
        buffer[length] = value as u8 | 0x80;
        value >>= 7;
        length += 1;
    }
    buffer[length] = value as u8;
    out.extend_from_slice(&buffer[..=length]);
}

/// Writes a byte string: length-prefixed when nested.
#[inline]
pub fn write_bytes(bytes: &[u8], out: &mut Vec<u8>, nested: bool) {
    if nested {
        write_varint(bytes.len() as u64, out);
    }
    out.extend_from_slice(bytes);
}

/// Writes what `write` appends, preceded by its length as a varint.
#[inline]
pub fn write_length_prefixed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    // One byte is reserved, which is right for all short values; the bytes of longer ones move up.
    let at = out.len();
    out.push(0);
    write(out);
    let length = out.len() - at - 1;
    if length < 0x80 {
        out[at] = length as u8;
    } else {
        let mut prefix = Vec::with_capacity(10);
        write_varint(length as u64, &mut prefix);
        out.splice(at..=at, prefix);
    }
}
