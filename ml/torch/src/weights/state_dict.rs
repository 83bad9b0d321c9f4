//! Tensors by name, located in a file's bytes and read when asked for.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::ops::Range;

use tch::{Kind, TchError, Tensor};
use thiserror::Error;

use crate::models::TensorSpec;

/// Listed in full up to this many of each kind; the rest is counted.
const LISTED: usize = 12;

/// A tensor may be larger than the file that holds it (expanded tensors repeat elements), but not by more than this many bytes.
const EXPANSION_ALLOWANCE: usize = 64 << 20;

/// A deflated storage gives no more bytes than this.
const MAX_UNPACKED: usize = 4 << 30;

/// Where a tensor lies: a strided view on a range of the file's bytes.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub kind: Kind,
    pub shape: Vec<i64>,
    /// Elements to step for each dimension.
    pub strides: Vec<i64>,
    /// The first element, in elements from the storage's start.
    pub offset: i64,
    /// The storage's bytes.
    pub storage: Stored,
    /// The numbers stand for their negatives.
    pub negated: bool,
}

/// Where a storage's bytes lie in the file.
#[derive(Debug, Clone)]
pub(super) enum Stored {
    /// As they are.
    Plain(Range<usize>),
    /// Deflated, as programs for zip archives store them.
    Deflated {
        /// The deflated bytes.
        packed: Range<usize>,
        /// How many they give.
        size: usize,
    },
}

/// A file's tensors by name.
///
/// Names come without the `module.` and `_orig_mod.` that data-parallel training and `torch.compile` put before them; `num_batches_tracked` counts are left out, as
/// inference does not use them.
pub struct StateDict {
    bytes: Vec<u8>,
    entries: BTreeMap<String, Entry>,
    /// Names that hold something else than a tensor that is read, with what they hold.
    others: BTreeMap<String, String>,
}

/// Why a tensor's data cannot be read.
#[derive(Debug, Error)]
pub enum ReadTensorError {
    /// No such name.
    #[error("there is no tensor {name}")]
    Missing {
        /// The tensor.
        name: String,
    },
    /// Its shape and strides reach outside its storage.
    #[error(
        "tensor {name} of shape {shape:?} reaches outside its storage of {bytes} bytes: the file is damaged"
    )]
    OutOfBounds {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<i64>,
        /// The storage's size.
        bytes: usize,
    },
    /// It would take far more memory than the file.
    #[error("tensor {name} of shape {shape:?} repeats the elements of a much smaller storage: it is refused")]
    TooLarge {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<i64>,
    },
    /// Its compressed bytes are damaged.
    #[error("tensor {name} cannot be unpacked: the file is damaged")]
    Packed {
        /// The tensor.
        name: String,
    },
    /// libtorch refused it.
    #[error("libtorch does not take tensor {name}: {source}")]
    Torch {
        /// The tensor.
        name: String,
        /// libtorch's answer.
        source: TchError,
    },
}

/// The tensors that keep a file from fitting a network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mismatch {
    /// What the network needs and the file lacks.
    pub missing: Vec<TensorSpec>,
    /// What the file holds and the network does not know.
    pub unexpected: Vec<TensorSpec>,
    /// Names that hold no tensor that is read, and what they hold. They alone are no mismatch, unless the network needs them.
    pub not_tensors: Vec<(String, String)>,
    /// What the network needs, and the shape that the file holds.
    pub misshaped: Vec<(TensorSpec, Vec<i64>)>,
}

impl StateDict {
    /// `others` are names that hold no tensor.
    pub(super) fn new(
        bytes: Vec<u8>,
        entries: Vec<(String, Entry)>,
        others: Vec<(String, String)>,
    ) -> StateDict {
        let prefix = common_prefix(&entries);
        let bare = |name: String| match name.strip_prefix(&prefix) {
            Some(rest) => rest.to_owned(),
            None => name,
        };
        let entries = entries
            .into_iter()
            .filter(|(name, _)| !name.ends_with(".num_batches_tracked"))
            .map(|(name, entry)| (bare(name), entry))
            .collect();
        StateDict {
            bytes,
            entries,
            others: others
                .into_iter()
                .map(|(name, what)| (bare(name), what))
                .collect(),
        }
    }

    /// All names with their shapes, in the order of the names.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[i64])> {
        self.entries
            .iter()
            .map(|(name, entry)| (name.as_str(), entry.shape.as_slice()))
    }

    /// A tensor's shape.
    pub fn shape(&self, name: &str) -> Option<&[i64]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Compares names and shapes with what a network needs.
    pub fn check(&self, needed: &[TensorSpec]) -> Result<(), Mismatch> {
        self.check_without(needed, |_| false)
    }

    /// As [`StateDict::check`]; the file may hold tensors of `unused` names besides.
    pub(crate) fn check_without(
        &self,
        needed: &[TensorSpec],
        unused: impl Fn(&str) -> bool,
    ) -> Result<(), Mismatch> {
        let mut mismatch = Mismatch::default();
        let mut unreadable = false;
        let names: BTreeSet<&str> = needed.iter().map(|spec| spec.name.as_str()).collect();
        for spec in needed {
            match self.shape(&spec.name) {
                // Told with what it is, below.
                None if self.others.contains_key(&spec.name) => unreadable = true,
                None => mismatch.missing.push(spec.clone()),
                Some(shape) if shape != spec.shape => mismatch.misshaped.push((spec.clone(), shape.to_vec())),
                Some(_) => {}
            }
        }
        for (name, shape) in self.tensors() {
            if !names.contains(name) && !unused(name) {
                mismatch.unexpected.push(TensorSpec {
                    name: name.to_owned(),
                    shape: shape.to_vec(),
                });
            }
        }
        if !unreadable && mismatch == Mismatch::default() {
            return Ok(());
        }
        mismatch.not_tensors = self
            .others
            .iter()
            .map(|(name, what)| (name.clone(), what.clone()))
            .collect();
        // What the network needs comes first: only so many are listed.
        mismatch
            .not_tensors
            .sort_by_key(|(name, _)| !names.contains(name.as_str()));
        Err(mismatch)
    }

    /// Reads a tensor onto the processor, in the number format it was saved in.
    pub fn tensor(&self, name: &str) -> Result<Tensor, ReadTensorError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(ReadTensorError::Missing {
                name: name.to_owned(),
            });
        };
        let storage = self.storage(name, &entry.storage)?;
        let storage = &*storage;
        let out_of_bounds = || ReadTensorError::OutOfBounds {
            name: name.to_owned(),
            shape: entry.shape.clone(),
            bytes: storage.len(),
        };
        let size = entry.kind.elt_size_in_bytes();
        let count = entry.elements().ok_or_else(out_of_bounds)?;
        let span = entry.span(storage.len() / size).ok_or_else(out_of_bounds)?;
        if count
            .checked_mul(size)
            .is_none_or(|bytes| bytes > self.bytes.len() + EXPANSION_ALLOWANCE)
        {
            return Err(ReadTensorError::TooLarge {
                name: name.to_owned(),
                shape: entry.shape.clone(),
            });
        }
        let gathered;
        let data = if entry.is_contiguous() {
            storage
                .get(span.start * size..(span.start + count) * size)
                .ok_or_else(out_of_bounds)?
        } else {
            gathered = entry.gather(storage, count, size);
            &gathered
        };
        Tensor::f_from_data_size(data, &entry.shape, entry.kind)
            .and_then(|tensor| if entry.negated { tensor.f_neg() } else { Ok(tensor) })
            .map_err(|source| ReadTensorError::Torch {
                name: name.to_owned(),
                source,
            })
    }

    /// A storage's bytes, unpacked.
    fn storage(&self, name: &str, stored: &Stored) -> Result<Cow<'_, [u8]>, ReadTensorError> {
        match stored {
            Stored::Plain(range) => Ok(self.bytes.get(range.clone()).unwrap_or_default().into()),
            Stored::Deflated { packed, size } => {
                let packed = self.bytes.get(packed.clone()).unwrap_or_default();
                inflate(packed, *size)
                    .map(Cow::Owned)
                    .ok_or_else(|| ReadTensorError::Packed {
                        name: name.to_owned(),
                    })
            }
        }
    }
}

/// Unpacks to exactly `size` bytes; a file's word for it takes no memory before the bytes are there.
pub(super) fn inflate(packed: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    let read = flate2::read::DeflateDecoder::new(packed)
        .take(size as u64)
        .read_to_end(&mut unpacked);
    (size <= MAX_UNPACKED && read.ok()? == size).then_some(unpacked)
}

/// What training in parallel (`module.`) and compiling (`_orig_mod.`) put before all names.
fn common_prefix(entries: &[(String, Entry)]) -> String {
    let mut prefix = String::new();
    while let Some(more) = ["module.", "_orig_mod."].into_iter().find(|more| {
        let longer = |name: &str| {
            name.strip_prefix(&prefix)
                .is_some_and(|rest| rest.starts_with(more))
        };
        !entries.is_empty() && entries.iter().all(|(name, _)| longer(name))
    }) {
        prefix.push_str(more);
    }
    prefix
}

impl Entry {
    /// The number of elements, where that is a number.
    fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |count, &dim| {
            count.checked_mul(usize::try_from(dim).ok()?)
        })
    }

    /// The range of elements between the first and the last that the view reaches, where all lie in a storage of `available`.
    fn span(&self, available: usize) -> Option<Range<usize>> {
        let start = usize::try_from(self.offset).ok()?;
        if self.shape.contains(&0) {
            return Some(0..0);
        }
        let mut last = start;
        for (&dim, &stride) in self.shape.iter().zip(&self.strides) {
            let steps = usize::try_from(dim.checked_sub(1)?).ok()?;
            last = last.checked_add(steps.checked_mul(usize::try_from(stride).ok()?)?)?;
        }
        (last < available && self.strides.len() == self.shape.len()).then_some(start..last + 1)
    }

    fn is_contiguous(&self) -> bool {
        let mut step = 1i64;
        for (&dim, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if dim != 1 && stride != step {
                return false;
            }
            step = step.saturating_mul(dim);
        }
        true
    }

    /// Copies the view's elements in row-major order; bounds and strides have been checked.
    fn gather(&self, storage: &[u8], count: usize, size: usize) -> Vec<u8> {
        let mut data = Vec::with_capacity(count * size);
        let mut index = vec![0i64; self.shape.len()];
        let mut at = self.offset;
        for _ in 0..count {
            let start = at as usize * size;
            data.extend_from_slice(&storage[start..start + size]);
            for dim in (0..index.len()).rev() {
                index[dim] += 1;
                at += self.strides[dim];
                if index[dim] < self.shape[dim] {
                    break;
                }
                at -= self.strides[dim] * self.shape[dim];
                index[dim] = 0;
            }
        }
        data
    }
}

impl fmt::Debug for StateDict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.tensors()).finish()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spec = |spec: &TensorSpec| format!("{} {:?}", spec.name, spec.shape);
        let groups: [(&str, Vec<String>); 4] = [
            ("missing", self.missing.iter().map(spec).collect()),
            ("unexpected", self.unexpected.iter().map(spec).collect()),
            (
                "not tensors",
                self.not_tensors
                    .iter()
                    .map(|(name, what)| format!("{name} ({what})"))
                    .collect(),
            ),
            (
                "of another shape",
                self.misshaped
                    .iter()
                    .map(|(needed, found)| format!("{}, the file has {found:?}", spec(needed)))
                    .collect(),
            ),
        ];
        let mut first = true;
        for (title, names) in groups.iter().filter(|(_, names)| !names.is_empty()) {
            if !std::mem::take(&mut first) {
                writeln!(f)?;
            }
            write!(
                f,
                "  {} {title}: {}",
                names.len(),
                names[..names.len().min(LISTED)].join(", ")
            )?;
            if names.len() > LISTED {
                write!(f, " and {} more", names.len() - LISTED)?;
            }
        }
        Ok(())
    }
}
