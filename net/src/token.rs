//! Names that only those know who are told.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;

/// Hexadecimal digits of a token: 128 bits.
const DIGITS: usize = 32;

/// The name with a token at its end, which nobody can guess.
pub fn with_token(name: &str) -> String {
    let mut bytes = [0; DIGITS / 2];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    if read.is_err() {
        // The keys of the standard library's hashing are the system's random numbers too.
        for (half, place) in bytes.chunks_mut(8).enumerate() {
            place.copy_from_slice(&RandomState::new().hash_one(half).to_ne_bytes());
        }
    }
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name}.{token}")
}

/// The name without the token that it may have, to be shown.
pub fn without_token(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((own, token)) if token.len() == DIGITS && token.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            own
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_are_not_shown() {
        let (one, other) = (with_token("worker-1"), with_token("worker-1"));
        assert_ne!(one, other);
        assert_eq!(without_token(&one), "worker-1");
        assert_eq!(without_token("worker-1"), "worker-1");
        assert_eq!(without_token("a.b"), "a.b");
    }
}
