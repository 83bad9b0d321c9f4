//! Weights in safetensors.

use std::fs::File;
use std::io::Read;

use safetensors::tensor::Metadata;

use super::{BadModel, Inspected, Kind};

/// Of the number of bytes of the header, which comes first.
const LENGTH: usize = 8;
/// Longer headers are none.
const LONGEST: u64 = 100_000_000;

fn header_length(begin: &[u8]) -> Option<u64> {
    let length = u64::from_le_bytes(*begin.first_chunk::<LENGTH>()?);
    let is_object = begin.get(LENGTH) == Some(&b'{');
    (is_object && (2..=LONGEST).contains(&length)).then_some(length)
}

pub(super) fn is_one(begin: &[u8]) -> bool {
    header_length(begin).is_some()
}

pub(super) fn inspect(mut file: File, bytes: u64) -> Result<Inspected, BadModel> {
    let cut = |expected: String| BadModel::CutOff {
        kind: "safetensors",
        expected,
    };
    let unusable = |reason: String| BadModel::Unusable {
        kind: "safetensors",
        reason,
    };
    let mut begin = Vec::new();
    Read::by_ref(&mut file)
        .take(LENGTH as u64 + 1)
        .read_to_end(&mut begin)?;
    let length = header_length(&begin).ok_or(BadModel::Empty)?;
    let end = LENGTH as u64 + length;
    if bytes < end {
        return Err(cut(format!(
            "its header alone takes {end} bytes, but it has {bytes}"
        )));
    }
    Read::by_ref(&mut file)
        .take(end - begin.len() as u64)
        .read_to_end(&mut begin)?;
    let metadata: Metadata = serde_json::from_slice(&begin[LENGTH..])
        .map_err(|error| unusable(format!("its header cannot be read ({error})")))?;
    let all = end + metadata.data_len() as u64;
    if bytes < all {
        return Err(cut(format!(
            "its tensors take {all} bytes with the header, but it has {bytes}"
        )));
    }
    if bytes > all {
        return Err(unusable(format!(
            "expected {all} bytes, as its header says, but it has {bytes}"
        )));
    }
    Ok(Inspected {
        kind: Kind::Safetensors,
        inputs: Vec::new(),
    })
}
