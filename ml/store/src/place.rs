//! Where models are kept.

use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::record::Record;

/// The file that tells of a version.
pub(crate) const RECORD: &str = "model.json";

/// What became of an addition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Added {
    Done,
    /// The version is there already.
    Exists,
}

/// A folder or an object store.
pub(crate) trait Place: Send + Sync {
    /// All names, in no order.
    fn names(&self) -> Result<Vec<String>, StoreError>;

    /// All versions of a name that are there whole, in no order.
    fn versions(&self, name: &str) -> Result<Vec<String>, StoreError>;

    /// What is told of a version, and where; `None` if it is not there.
    fn record(&self, name: &str, version: &str) -> Result<Option<(String, Vec<u8>)>, StoreError>;

    /// Adds a version with this file: all at once, or not at all.
    fn add(&self, record: &Record, file: &Path) -> Result<Added, StoreError>;

    /// The version's file on this machine, and where it is in the store. It may not be what was added.
    fn local(&self, record: &Record, cache: &Path) -> Result<(PathBuf, String), StoreError>;

    /// Removes a version: whether it was there.
    fn remove(&self, name: &str, version: &str) -> Result<bool, StoreError>;
}
