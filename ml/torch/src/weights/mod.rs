//! Weights files: safetensors, `torch.save` of a state dict (of any PyTorch since 0.1.10), TorchScript and AOTInductor's packages, told
//! apart by content.
//!
//! Nothing in a file of tensors is executed and nothing is allocated on its say-so alone: tensors are located first, checked against
//! the network's names and shapes, and only then read. A TorchScript archive and a package are programs: they are not read here, and
//! libtorch runs what they say. Take one from those alone whose programs you would run.

mod legacy;
mod pickle;
mod safetensors;
mod state_dict;
mod torch_zip;

use std::path::{Path, PathBuf};

use thiserror::Error;

pub use legacy::LegacyError;
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
    /// A network that PyTorch compiled ahead of time, which libtorch loads from the file itself.
    Package,
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
    /// PyTorch's tar format of before 0.1.10.
    #[error(
        "{} is in PyTorch's tar format (before 0.1.10, of 2017): save it again with \
         torch.save(torch.load(path, map_location=\"cpu\"), new_path) in a PyTorch that still reads it",
        path.display()
    )]
    Tar {
        /// The file.
        path: PathBuf,
    },
    /// A broken file in PyTorch's format of before 1.6.
    #[error("cannot read {} in PyTorch's format of before 1.6: {source}", path.display())]
    Legacy {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: LegacyError,
    },
    /// A key was asked for in a format that has none.
    #[error("{} is a {format} file, which has no keys: leave --model_state_dict_key={key} out", path.display())]
    NoKeys {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: &'static str,
        /// What was asked for.
        key: String,
    },
    /// Some other format.
    #[error(
        "{} is no weights file that is known (it starts with {start}): known are .safetensors, torch.save(model.state_dict(), path), \
         TorchScript and packages of AOTInductor (.pt2)",
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

impl WeightsFile {
    /// Reads a file of any known format.
    ///
    /// `key` names the state dict in a checkpoint that holds more than that, `a.b` for one in another; without it the one under a
    /// usual key is taken.
    pub fn open(path: &Path, key: Option<&str>) -> Result<WeightsFile, OpenWeightsError> {
        WeightsFile::parse(WeightsFile::read(path)?, path, key)
    }

    /// A file's content.
    pub(crate) fn read(path: &Path) -> Result<Vec<u8>, OpenWeightsError> {
        let io = |source| OpenWeightsError::Io {
            path: path.to_owned(),
            source,
        };
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(OpenWeightsError::NotAFile {
                path: path.to_owned(),
            });
        }
        std::fs::read(path).map_err(io)
    }

    /// Takes a file's content; `path` is for messages.
    pub fn parse(bytes: Vec<u8>, path: &Path, key: Option<&str>) -> Result<WeightsFile, OpenWeightsError> {
        let path = || path.to_owned();
        let no_keys = |format| match key {
            None => Ok(()),
            Some(key) => Err(OpenWeightsError::NoKeys {
                path: path(),
                format,
                key: key.to_owned(),
            }),
        };
        if bytes.starts_with(b"PK\x03\x04") {
            let opened = torch_zip::open(bytes, key)
                .map_err(|source| OpenWeightsError::TorchZip { path: path(), source })?;
            match opened {
                WeightsFile::TorchScript(_) => no_keys("TorchScript")?,
                WeightsFile::Package => no_keys("AOTInductor")?,
                WeightsFile::StateDict(_) => {}
            }
            return Ok(opened);
        }
        // A safetensors file is a length (its upper bytes are zero in any real file) and a JSON object.
        if bytes.get(8) == Some(&b'{') {
            no_keys("safetensors")?;
            return match safetensors::open(bytes) {
                Ok(weights) => Ok(WeightsFile::StateDict(weights)),
                Err(reason) => Err(OpenWeightsError::SafeTensors { path: path(), reason }),
            };
        }
        if legacy::is_legacy(&bytes) {
            return legacy::open(bytes, key)
                .map(WeightsFile::StateDict)
                .map_err(|source| OpenWeightsError::Legacy { path: path(), source });
        }
        if bytes.get(257..262) == Some(b"ustar") {
            return Err(OpenWeightsError::Tar { path: path() });
        }
        let start = match bytes.get(..8.min(bytes.len())) {
            None | Some([]) => "nothing: it is empty".to_owned(),
            Some(start) => format!("{:?}", String::from_utf8_lossy(start)),
        };
        Err(OpenWeightsError::UnknownFormat { path: path(), start })
    }
}
