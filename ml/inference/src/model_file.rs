//! Where a handler's model is.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use purlin::prelude::*;
use thiserror::Error;

use crate::hash_bytes;

/// Where a handler's model is, for handlers of models that are one file.
#[derive(Debug, Clone)]
pub struct ModelFile(Place);

#[derive(Debug, Clone)]
enum Place {
    Path(PathBuf),
    Bytes {
        name: String,
        key: String,
        bytes: Arc<[u8]>,
    },
}

/// Bytes that are not a model.
#[derive(Debug, Error)]
#[error("cannot use the model {name}: {source}")]
struct BytesError {
    name: String,
    source: BoxError,
}

impl ModelFile {
    /// A file that all workers can read; it is read there.
    pub fn at(path: impl AsRef<Path>) -> ModelFile {
        ModelFile(Place::Path(path.as_ref().to_owned()))
    }

    /// What a file held, by a name for results and errors. It travels with the program.
    pub fn held(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> ModelFile {
        let (name, bytes) = (name.into(), bytes.into());
        let key = format!("{name} {}", hash_bytes(&bytes));
        ModelFile(Place::Bytes { name, key, bytes })
    }

    /// The name of a model of some kind, for [`ModelHandler::model_id`](crate::ModelHandler::model_id).
    pub fn id(&self, kind: &str) -> String {
        match &self.0 {
            Place::Path(path) => {
                let name = path.file_name().unwrap_or(path.as_os_str());
                format!("{kind} {}", name.to_string_lossy())
            }
            Place::Bytes { name, .. } => format!("{kind} {name}"),
        }
    }

    /// What tells models apart, for [`ModelHandler::model_key`](crate::ModelHandler::model_key).
    pub fn key(&self) -> String {
        match &self.0 {
            Place::Path(path) => format!("path {}", path.display()),
            Place::Bytes { key, .. } => format!("bytes {key}"),
        }
    }

    /// The model: `load` reads a file, `parse` what a file held.
    ///
    /// # Errors
    /// Those of `load`, which names the file, and of `parse`, with the model's name.
    pub fn load<M, L, P>(
        &self,
        load: impl FnOnce(&Path) -> Result<M, L>,
        parse: impl FnOnce(&[u8]) -> Result<M, P>,
    ) -> Result<M, BoxError>
    where
        L: Error + Send + Sync + 'static,
        P: Error + Send + Sync + 'static,
    {
        match &self.0 {
            Place::Path(path) => Ok(load(path)?),
            Place::Bytes { name, bytes, .. } => Ok(parse(bytes).map_err(|source| BytesError {
                name: name.clone(),
                source: source.into(),
            })?),
        }
    }
}
