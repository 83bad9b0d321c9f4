//! PyTorch's zip archives: `torch.save` since 1.6, and TorchScript.
//!
//! `<name>/data.pkl` describes the tensors; `<name>/data/<key>` are the storages, stored without compression; an archive that was
//! unpacked and packed again is often deflated. A TorchScript archive has `<name>/constants.pkl` and code besides. A package of
//! AOTInductor has a library in `<name>/data/aotinductor/model`; what `torch.export.save` writes has the graph alone.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Cursor;

use thiserror::Error;
use zip::{CompressionMethod, ZipArchive};

use super::WeightsFile;
use super::pickle::{self, PickleError, Saved};
use super::state_dict::{Entry, StateDict, Stored, inflate};

/// What is wrong with an archive.
#[derive(Debug, Error)]
pub enum TorchZipError {
    /// Not a sound zip archive.
    #[error("the zip archive is damaged: {0}")]
    Zip(String),
    /// A zip archive of something else.
    #[error("it is a zip archive, but not PyTorch's: it holds no data.pkl")]
    NotTorch,
    /// A graph that is not compiled.
    #[error(
        "it is a program of torch.export, which is not compiled: \
         torch._inductor.aoti_compile_and_package(torch.export.load(path), package_path=\"model.pt2\") compiles it"
    )]
    NotCompiled,
    /// A package without a part that it is run by.
    #[error(
        "it is a package of AOTInductor without its member *{ending}: compile it again, with PyTorch 2.11"
    )]
    Incomplete {
        /// How the member's name ends.
        ending: &'static str,
    },
    /// TorchScript of PyTorch 1.0 to 1.3.
    #[error("it is TorchScript of PyTorch 1.3 or before: load and save it with a current PyTorch")]
    OldTorchScript,
    /// A member that is not there whole.
    #[error("its member {name} is damaged, cut off, encrypted or compressed by another way than deflate")]
    Member {
        /// The member's name.
        name: String,
    },
    /// Written on a big-endian machine.
    #[error("its numbers are big-endian: save it again on a little-endian machine")]
    BigEndian,
    /// The description of the tensors.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// A tensor whose storage is not there, or cut off.
    #[error("tensor {tensor} has its data in member {member}, which is missing or cut off")]
    Storage {
        /// The tensor.
        tensor: String,
        /// The member.
        member: String,
    },
}

/// A compressed description is at most this much longer than the file.
const MAX_DESCRIPTION: usize = 16 << 20;

pub(super) fn open(bytes: Vec<u8>, key: Option<&str>) -> Result<WeightsFile, TorchZipError> {
    let members = members(&bytes)?;
    if members.keys().any(|name| name.contains(PACKAGE)) {
        return package(&members).map(|()| WeightsFile::Package);
    }
    if members.keys().any(|name| name.ends_with("/models/model.json")) {
        return Err(TorchZipError::NotCompiled);
    }
    // All members lie in one folder, named after the file; packed again, they may lie in none.
    let folder_with = |file: &str| {
        members
            .keys()
            .filter_map(|name| name.strip_suffix(file))
            .find(|f| f.is_empty() || f.ends_with('/') && f.matches('/').count() == 1)
    };
    if folder_with("constants.pkl").is_some() && folder_with("data.pkl").is_some() {
        return Ok(WeightsFile::TorchScript(bytes));
    }
    let Some(folder) = folder_with("data.pkl") else {
        let old = folder_with("model.json").is_some();
        return Err(if old {
            TorchZipError::OldTorchScript
        } else {
            TorchZipError::NotTorch
        });
    };
    // No description of tensors is longer than this, in any real file.
    let longest = bytes.len().saturating_add(MAX_DESCRIPTION);
    let member = |name: &str| -> Option<Cow<'_, [u8]>> {
        match members.get(name)?.as_ref()? {
            Stored::Plain(range) => bytes.get(range.clone()).map(Cow::Borrowed),
            Stored::Deflated { packed, size } if *size <= longest => {
                inflate(bytes.get(packed.clone())?, *size).map(Cow::Owned)
            }
            Stored::Deflated { .. } => None,
        }
    };
    if member(&format!("{folder}byteorder")).as_deref() == Some(b"big") {
        return Err(TorchZipError::BigEndian);
    }
    let description = format!("{folder}data.pkl");
    let description = member(&description).ok_or(TorchZipError::Member {
        name: description.clone(),
    })?;
    let Saved { tensors, others } = pickle::read_state_dict(&description, key)?;
    let mut entries = Vec::with_capacity(tensors.len());
    for (name, tensor, kind) in tensors {
        let key = format!("{folder}data/{}", tensor.storage.key);
        let storage = members.get(&key).cloned().flatten().filter(|stored| {
            let size = match stored {
                Stored::Plain(range) => range.len(),
                Stored::Deflated { size, .. } => *size,
            };
            let needed = usize::try_from(tensor.storage.elements).ok();
            needed
                .and_then(|n| n.checked_mul(kind.elt_size_in_bytes()))
                .is_some_and(|n| n <= size)
        });
        let Some(storage) = storage else {
            return Err(TorchZipError::Storage {
                tensor: name,
                member: key,
            });
        };
        let entry = Entry {
            kind,
            shape: tensor.shape,
            strides: tensor.strides,
            offset: tensor.offset,
            storage,
            negated: tensor.negated,
        };
        entries.push((name, entry));
    }
    Ok(WeightsFile::StateDict(StateDict::new(bytes, entries, others)))
}

/// The folder of a package's model, below the archive's name.
const PACKAGE: &str = "/data/aotinductor/model/";

/// Whether a package is whole. libtorch takes that for granted.
fn package(members: &HashMap<String, Option<Stored>>) -> Result<(), TorchZipError> {
    for ending in [".wrapper.cpp", ".wrapper_metadata.json", ".so"] {
        let mut found = members
            .iter()
            .filter(|(name, _)| name.contains(PACKAGE) && name.ends_with(ending));
        match found.next() {
            Some((_, Some(_))) => {}
            Some((name, None)) => return Err(TorchZipError::Member { name: name.clone() }),
            None => return Err(TorchZipError::Incomplete { ending }),
        }
    }
    Ok(())
}

/// Members by name with their place in the file; `None` where they cannot be read or reach beyond the end.
fn members(bytes: &[u8]) -> Result<HashMap<String, Option<Stored>>, TorchZipError> {
    let damaged = |error: zip::result::ZipError| TorchZipError::Zip(error.to_string());
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
    let mut members = HashMap::new();
    for index in 0..archive.len() {
        let file = archive.by_index_raw(index).map_err(damaged)?;
        let stored = file.data_start().and_then(|start| {
            let start = usize::try_from(start).ok()?;
            let end = start.checked_add(usize::try_from(file.compressed_size()).ok()?)?;
            let size = usize::try_from(file.size()).ok()?;
            if file.encrypted() || end > bytes.len() {
                return None;
            }
            match file.compression() {
                CompressionMethod::Stored => (size == end - start).then_some(Stored::Plain(start..end)),
                CompressionMethod::DEFLATE => Some(Stored::Deflated {
                    packed: start..end,
                    size,
                }),
                _ => None,
            }
        });
        members.insert(file.name().map_err(damaged)?.into_owned(), stored);
    }
    Ok(members)
}
