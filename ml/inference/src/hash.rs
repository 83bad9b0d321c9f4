//! Hashes by which results name the content of their model.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

/// The SHA-256 of a model's bytes as 64 hexadecimal digits, for [`ModelHandler::model_hash`](crate::ModelHandler::model_hash).
///
/// ```
/// assert_eq!(&purlin_inference::hash_bytes(b"a model")[..8], "97ff8a35");
/// ```
pub fn hash_bytes(bytes: &[u8]) -> String {
    digits(&Sha256::digest(bytes))
}

/// As [`hash_bytes`], of a file's bytes.
///
/// # Errors
/// When the file cannot be read.
pub fn hash_file(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(digits(&hash.finalize()))
}

fn digits(hash: &[u8]) -> String {
    hash.iter().fold(String::with_capacity(64), |mut digits, byte| {
        // Writing to a string never fails.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}
