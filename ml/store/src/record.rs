//! What a store tells of a model: `model.json`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

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
    let mut file = File::open(path)?;
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => {
                hash.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
    let mut text = String::with_capacity(64);
    for byte in hash.finalize() {
        // Writing to a string never fails.
        let _ = write!(text, "{byte:02x}");
    }
    Ok((bytes, text))
}
