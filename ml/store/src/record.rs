//! What a store tells of a model: `model.json`.

use std::fs::File;
use std::io;
use std::path::Path;

use purlin_artifacts::Hasher;
use serde::{Deserialize, Serialize};

use crate::kind::{Input, Kind};

/// What is in `model.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The model's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The name of its file, beside this one.
    pub file: String,
    /// The file's length.
    pub bytes: u64,
    /// The file's SHA-256, in 64 hexadecimal digits.
    pub sha256: String,
    /// Its kind.
    pub kind: Kind,
    /// Its inputs; none where the file does not tell.
    pub inputs: Vec<Input>,
}

/// Length and SHA-256 of a file.
pub(crate) fn measure(path: &Path) -> io::Result<(u64, String)> {
    let mut hash = Hasher::new();
    let bytes = io::copy(&mut File::open(path)?, &mut hash)?;
    Ok((bytes, hash.finish()))
}
