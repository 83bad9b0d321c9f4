//! The format of `torch.save` before PyTorch 1.6, or with `_use_new_zipfile_serialization=False`.
//!
//! Five pickles, one after the other: a magic number, the version of the format, the sizes of the writer's numbers, the object, and
//! the list of its storages. Then the storages in that order: each the count of its numbers (8 bytes) and the numbers.

use std::collections::HashMap;
use std::ops::Range;

use thiserror::Error;

use super::pickle::{Machine, PickleError, Value};
use super::state_dict::{Entry, StateDict, Stored};

/// The magic number as the pickles of protocol 2 and above hold it, little-endian.
const MAGIC: &[u8] = &[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];

/// The same as protocols 0 and 1 write it.
const TEXT_MAGIC: &[u8] = b"L119547037146038801333356L\n.";

/// The only version of the format that there is.
const VERSION: i64 = 1001;

/// What is wrong with a file of that format.
#[derive(Debug, Error)]
pub enum LegacyError {
    /// One of its pickles.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// Another version.
    #[error("it is of a version of that format that is not known")]
    Version,
    /// Written on a big-endian machine.
    #[error("its numbers are big-endian: save it again on a little-endian machine")]
    BigEndian,
    /// Its list of storages is none.
    #[error("its list of storages is damaged")]
    Keys,
    /// A storage that is cut off, or whose numbers are of a size that is not known.
    #[error("its storage {key} is cut off, or of {numbers} numbers, which are not known")]
    Storage {
        /// The storage's key.
        key: String,
        /// What its numbers are.
        numbers: String,
    },
    /// A tensor whose storage is not in the list.
    #[error("tensor {tensor} has its data in storage {key}, which is missing")]
    Missing {
        /// The tensor.
        tensor: String,
        /// The storage's key.
        key: String,
    },
}

pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    let start = bytes.get(..bytes.len().min(32)).unwrap_or_default();
    let binary = start.first() == Some(&0x80) && start.windows(MAGIC.len()).any(|window| window == MAGIC);
    binary || start.starts_with(TEXT_MAGIC)
}

pub(super) fn open(bytes: Vec<u8>, key: Option<&str>) -> Result<StateDict, LegacyError> {
    let mut at = 0;
    let mut next = || -> Result<_, PickleError> {
        let mut machine = Machine::new(bytes.get(at..).unwrap_or_default());
        let top = machine.run()?;
        at += machine.position();
        Ok((machine, top))
    };
    next()?;
    let (version, top) = next()?;
    if !matches!(version.value(top), Value::Int(VERSION)) {
        return Err(LegacyError::Version);
    }
    let (system, top) = next()?;
    let little_endian = |&(name, value): &(usize, usize)| {
        matches!(system.value(name), Value::Str(name) if &**name == "little_endian")
            && matches!(system.value(value), Value::Bool(false))
    };
    if system
        .value(top)
        .items()
        .unwrap_or_default()
        .iter()
        .any(little_endian)
    {
        return Err(LegacyError::BigEndian);
    }
    let (object, top) = next()?;
    let saved = object.state_dict(top, key)?;
    let (keys, list) = next()?;
    let Value::List(list) = keys.value(list) else {
        return Err(LegacyError::Keys);
    };
    let mut storages: HashMap<&str, Range<usize>> = HashMap::new();
    for &key in list {
        let Value::Str(key) = keys.value(key) else {
            return Err(LegacyError::Keys);
        };
        let numbers = object.storage_type(key);
        let range = numbers
            .and_then(|numbers| numbers.size)
            .and_then(|size| storage(&bytes, at, size));
        let Some(range) = range else {
            return Err(LegacyError::Storage {
                key: key.to_string(),
                numbers: numbers.map_or("other".to_owned(), |numbers| numbers.name.to_string()),
            });
        };
        at = range.end;
        storages.insert(key, range);
    }
    let mut entries = Vec::with_capacity(saved.tensors.len());
    for (name, tensor, kind) in saved.tensors {
        let Some(range) = storages.get(&*tensor.storage.key) else {
            return Err(LegacyError::Missing {
                tensor: name,
                key: tensor.storage.key.to_string(),
            });
        };
        let entry = Entry {
            kind,
            shape: tensor.shape,
            strides: tensor.strides,
            offset: tensor.offset,
            storage: Stored::Plain(range.clone()),
            negated: tensor.negated,
        };
        entries.push((name, entry));
    }
    drop((keys, object, system, version));
    Ok(StateDict::new(bytes, entries, saved.others))
}

/// The bytes of a storage whose count stands at `at`.
fn storage(bytes: &[u8], at: usize, size: usize) -> Option<Range<usize>> {
    let start = at.checked_add(8)?;
    let count = bytes.get(at..start)?.try_into().ok().map(i64::from_le_bytes)?;
    let end = usize::try_from(count)
        .ok()?
        .checked_mul(size)?
        .checked_add(start)?;
    (end <= bytes.len()).then_some(start..end)
}
