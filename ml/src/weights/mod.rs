//! Weights files: safetensors, `torch.save` of a state dict, and TorchScript, told apart by content.
//!
//! Nothing in a file is executed and nothing is allocated on a file's say-so alone: tensors are located first, checked against the
//! network's names and shapes, and only then read.

mod pickle;
mod safetensors;
mod state_dict;
mod torch_zip;

use std::path::{Path, PathBuf};

use thiserror::Error;

pub use pickle::PickleError;
pub use state_dict::{Mismatch, ReadTensorError, StateDict};
pub use torch_zip::TorchZipError;

/// A weights file, opened.
#[derive(Debug)]
pub enum WeightsFile {
    /// Tensors by name.
    StateDict(StateDict),
    /// A TorchScript archive, as it lies in the file.
    TorchScript(Vec<u8>),
}

/// Why a file is not taken as weights.
#[derive(Debug, Error)]
pub enum OpenWeightsError {
    /// The file cannot be read.
    #[error("cannot read the weights file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Not a regular file.
    #[error("the weights file {} is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// PyTorch's format of before 1.6.
    #[error(
        "{} is in PyTorch's old format (before 1.6, or saved with _use_new_zipfile_serialization=False): save it again with \
         torch.save(torch.load(path, map_location=\"cpu\"), new_path) in a current PyTorch",
        path.display()
    )]
    Legacy {
        /// The file.
        path: PathBuf,
    },
    /// Some other format.
    #[error(
        "{} is no weights file that is known (it starts with {start}): known are .safetensors, torch.save(model.state_dict(), path), \
         and TorchScript",
        path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Its first bytes.
        start: String,
    },
    /// A broken safetensors file.
    #[error("{} is not a sound safetensors file: {reason}", path.display())]
    SafeTensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A broken or unusual `torch.save` archive.
    #[error("cannot read {} as a torch.save archive: {source}", path.display())]
    TorchZip {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: TorchZipError,
    },
}

/// How `torch.save` began before version 1.6: a pickled number that spells "this is a PyTorch file".
const LEGACY_MAGIC: &[u8] = &[
    0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e,
];

impl WeightsFile {
    /// Reads a file of any known format.
    pub fn open(path: &Path) -> Result<WeightsFile, OpenWeightsError> {
        let io = |source| OpenWeightsError::Io {
            path: path.to_owned(),
            source,
        };
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(OpenWeightsError::NotAFile {
                path: path.to_owned(),
            });
        }
        WeightsFile::parse(std::fs::read(path).map_err(io)?, path)
    }

    /// Takes a file's content; `path` is for messages.
    pub fn parse(bytes: Vec<u8>, path: &Path) -> Result<WeightsFile, OpenWeightsError> {
        let path = || path.to_owned();
        if bytes.starts_with(b"PK\x03\x04") {
            return torch_zip::open(bytes)
                .map_err(|source| OpenWeightsError::TorchZip { path: path(), source });
        }
        // A safetensors file is a length (its upper bytes are zero in any real file) and a JSON object.
        if bytes.get(8) == Some(&b'{') {
            return match safetensors::open(bytes) {
                Ok(weights) => Ok(WeightsFile::StateDict(weights)),
                Err(reason) => Err(OpenWeightsError::SafeTensors { path: path(), reason }),
            };
        }
        let legacy_tar = bytes.get(257..262) == Some(b"ustar");
        if bytes.starts_with(LEGACY_MAGIC) || legacy_tar {
            return Err(OpenWeightsError::Legacy { path: path() });
        }
        let start = match bytes.get(..8.min(bytes.len())) {
            None | Some([]) => "nothing: it is empty".to_owned(),
            Some(start) => format!("{:?}", String::from_utf8_lossy(start)),
        };
        Err(OpenWeightsError::UnknownFormat { path: path(), start })
    }
}
