//! Hashes by which results name the content of their model.

use purlin_artifacts::Hasher;

/// The SHA-256 of a model's bytes as 64 hexadecimal digits, for [`ModelHandler::model_hash`](crate::ModelHandler::model_hash).
///
/// ```
/// assert_eq!(&purlin_inference::hash_bytes(b"a model")[..8], "97ff8a35");
/// ```
pub fn hash_bytes(bytes: &[u8]) -> String {
    let mut hash = Hasher::new();
    hash.update(bytes);
    hash.finish()
}
