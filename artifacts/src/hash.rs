//! Hashes: a file is known by the sha256 of its content, in lower-case hexadecimal digits.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

/// Hashes what is read or written, piece by piece.
#[derive(Clone, Debug, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.update(bytes);
    }

    /// The hash, as 64 hexadecimal digits.
    pub fn finish(self) -> String {
        let mut hex = String::with_capacity(64);
        for byte in self.0.finalize() {
            // A string can always be written to.
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The hash of a file's content. Reads all of it.
pub fn hash_of(path: &Path) -> io::Result<String> {
    let mut hash = Hasher::new();
    io::copy(&mut std::fs::File::open(path)?, &mut hash)?;
    Ok(hash.finish())
}

/// Whether a text can be a hash: nothing else may be made a part of a path.
pub fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Of the standard that defines it.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn files_and_pieces_have_one_hash() {
        let mut hash = Hasher::new();
        hash.update(b"a");
        hash.update("bc");
        assert_eq!(hash.finish(), ABC);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"abc").unwrap();
        assert_eq!(hash_of(file.path()).unwrap(), ABC);
        assert!(hash_of(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn only_a_hash_is_taken_for_one() {
        assert!(is_hash(ABC) && is_hash(&ABC.to_uppercase()));
        for other in ["", "00ff", &ABC[1..], &format!("../{}", &ABC[3..])] {
            assert!(!is_hash(other), "{other}");
        }
    }
}
