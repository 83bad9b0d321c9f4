//! What is in a jar: the names in its directory, without unpacking anything.
//!
//! A zip file ends with a record that says where its directory lies. The directory has an entry for each file, 46 bytes and
//! then the name, an extra field and a comment, whose lengths are at 28, 30 and 32.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

const END: &[u8] = b"PK\x05\x06";
const END_BYTES: usize = 22;
const ENTRY: &[u8] = b"PK\x01\x02";
const ENTRY_BYTES: usize = 46;
/// The end record has a comment of up to 64 KiB behind it.
const LONGEST_END: u64 = END_BYTES as u64 + 65_535;
/// In place of a number that did not fit.
const ELSEWHERE: u64 = u32::MAX as u64;

/// Which of `names` the jar has; none of them if it is no zip file, all of them if its directory is too large to be said where.
pub(super) fn has<const N: usize>(jar: &Path, names: [&str; N]) -> io::Result<[bool; N]> {
    let mut file = File::open(jar)?;
    let size = file.metadata()?.len();
    let tail = read(&mut file, size.saturating_sub(LONGEST_END), size.min(LONGEST_END))?;
    let end = tail
        .windows(END_BYTES)
        .rev()
        .find(|window| window.starts_with(END));
    let Some(end) = end else { return Ok([false; N]) };
    let (length, offset) = (number(end, 12, 4), number(end, 16, 4));
    if length == ELSEWHERE || offset == ELSEWHERE {
        return Ok([true; N]);
    }
    if offset + length > size {
        return Ok([false; N]);
    }
    let directory = read(&mut file, offset, length)?;
    let mut found = [false; N];
    let mut rest = directory.as_slice();
    while rest.starts_with(ENTRY) && rest.len() >= ENTRY_BYTES {
        let lengths = [28, 30, 32].map(|at| number(rest, at, 2) as usize);
        let name = rest
            .get(ENTRY_BYTES..ENTRY_BYTES + lengths[0])
            .unwrap_or_default();
        for (found, wanted) in found.iter_mut().zip(names) {
            *found |= name == wanted.as_bytes();
        }
        rest = rest
            .get(ENTRY_BYTES + lengths.iter().sum::<usize>()..)
            .unwrap_or_default();
    }
    Ok(found)
}

fn read(file: &mut File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A little-endian number; what is not there counts as zero.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let bytes = bytes.get(at..at + length).unwrap_or_default();
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}
