//! The folder of staged files, named by what they hold.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

/// Why an artifact was not taken or given.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// What came is not what was announced.
    #[error(
        "artifact {name}: its sha256 is {found}, and {expected} was announced; it changed while it was staged"
    )]
    Mismatch {
        /// What it is called.
        name: String,
        /// Announced hash.
        expected: String,
        /// Hash of what came.
        found: String,
    },
    /// Its name points out of a worker's staging folder.
    #[error("artifact name {name:?} is not a plain relative path, so it is not staged; rename it")]
    UnsafeName {
        /// The name.
        name: String,
    },
    /// A message that cannot be read.
    #[error("artifact {name}: its {what} is no valid message: {reason}")]
    Malformed {
        /// What it is called, or its type.
        name: String,
        /// Which part.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The folder cannot be used.
    #[error("cannot store artifact {name} in {folder}: {error}; is the disk full?")]
    Io {
        /// What it is called.
        name: String,
        /// Where.
        folder: String,
        /// Why.
        error: io::Error,
    },
}

/// Staged files, each named by its sha256 and kept while a job refers to it.
pub struct Store {
    folder: TempDir,
    users: Mutex<HashMap<String, HashSet<String>>>,
}

impl Store {
    /// Makes an empty store in the system's folder for temporary files. It is removed with this value.
    pub fn new() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("purlin-artifacts-").tempdir()?;
        Ok(Self {
            folder,
            users: Mutex::default(),
        })
    }

    /// The store's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn users(&self) -> MutexGuard<'_, HashMap<String, HashSet<String>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, sha256: &str) -> PathBuf {
        self.folder.path().join(sha256)
    }

    /// Notes that `job` needs the file, and tells whether the store has it.
    pub(crate) fn claim(&self, sha256: &str, job: &str) -> Option<PathBuf> {
        let mut users = self.users();
        users.get_mut(sha256)?.insert(job.to_owned());
        Some(self.file(sha256))
    }

    /// The hash of the file that the store has under `path`, if it is one of the store's.
    pub(crate) fn known(&self, path: &str) -> Option<String> {
        let path = Path::new(path);
        if path.parent() != Some(self.folder.path()) {
            return None;
        }
        let name = path.file_name()?.to_str()?;
        self.users().contains_key(name).then(|| name.to_owned())
    }

    /// Begins a file whose hash is known only at its end.
    pub(crate) async fn begin(&self, name: &str) -> Result<Incoming<'_>, ArtifactError> {
        let partial = tempfile::Builder::new()
            .prefix("partial-")
            .tempfile_in(self.folder.path());
        let partial = partial.map_err(|e| self.error(name, e))?;
        let (file, path) = partial.into_parts();
        Ok(Incoming {
            store: self,
            name: name.to_owned(),
            file: File::from_std(file),
            path,
            hash: Sha256::new(),
            size: 0,
        })
    }

    /// The job has ended: files that no other job needs go.
    pub(crate) fn release(&self, job: &str) {
        let mut users = self.users();
        users.retain(|sha256, jobs| {
            jobs.remove(job);
            if jobs.is_empty() {
                // Gone already is gone.
                let _ = std::fs::remove_file(self.file(sha256));
            }
            !jobs.is_empty()
        });
    }

    fn error(&self, name: &str, error: io::Error) -> ArtifactError {
        ArtifactError::Io {
            name: name.into(),
            folder: self.folder.path().display().to_string(),
            error,
        }
    }
}

/// A file that is being received. Dropped before its end, it leaves nothing.
pub(crate) struct Incoming<'a> {
    store: &'a Store,
    name: String,
    file: File,
    path: tempfile::TempPath,
    hash: Sha256,
    size: u64,
}

impl Incoming<'_> {
    pub(crate) async fn write(&mut self, data: &[u8]) -> Result<(), ArtifactError> {
        self.hash.update(data);
        self.size += data.len() as u64;
        self.file
            .write_all(data)
            .await
            .map_err(|e| self.store.error(&self.name, e))
    }

    /// Checks the hash and keeps the file for `job`. Returns its path and hash.
    pub(crate) async fn finish(
        mut self,
        expected: &str,
        job: &str,
    ) -> Result<(PathBuf, String), ArtifactError> {
        self.file
            .flush()
            .await
            .map_err(|e| self.store.error(&self.name, e))?;
        let found = hex(&self.hash.finalize());
        if !expected.is_empty() && !expected.eq_ignore_ascii_case(&found) {
            return Err(ArtifactError::Mismatch {
                name: self.name,
                expected: expected.into(),
                found,
            });
        }
        let path = self.store.file(&found);
        // One lock around both, so that a job that ends does not remove what this one has just claimed.
        let mut users = self.store.users();
        self.path
            .persist(&path)
            .map_err(|e| self.store.error(&self.name, e.error))?;
        users.entry(found.clone()).or_default().insert(job.to_owned());
        tracing::debug!(job, bytes = self.size, "staged artifact {}", self.name);
        Ok((path, found))
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Whether a worker may write a file of this name below its staging folder.
pub(crate) fn safe_name(name: &str) -> Result<(), ArtifactError> {
    let plain = !name.is_empty()
        && !name.contains(['\\', '\0'])
        && Path::new(name)
            .components()
            .all(|c| matches!(c, std::path::Component::Normal(_)));
    if plain {
        Ok(())
    } else {
        Err(ArtifactError::UnsafeName {
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_kept_once_and_go_with_their_last_job() {
        let store = Store::new().unwrap();
        let mut hashes = Vec::new();
        for job in ["a", "b"] {
            let mut file = store.begin("x").await.unwrap();
            file.write(b"same").await.unwrap();
            hashes.push(file.finish("", job).await.unwrap().1);
        }
        assert_eq!(hashes[0], hashes[1]);
        let count = || std::fs::read_dir(store.folder()).unwrap().count();
        assert_eq!(count(), 1);
        store.release("a");
        assert_eq!(count(), 1);
        store.release("b");
        assert_eq!(count(), 0);
    }

    #[tokio::test]
    async fn a_wrong_hash_leaves_nothing() {
        let store = Store::new().unwrap();
        let mut file = store.begin("x.jar").await.unwrap();
        file.write(b"changed").await.unwrap();
        let error = file.finish("00ff", "job").await.unwrap_err().to_string();
        assert!(error.contains("x.jar") && error.contains("00ff"), "{error}");
        assert_eq!(std::fs::read_dir(store.folder()).unwrap().count(), 0);
    }

    #[test]
    fn names_stay_below_the_folder() {
        for good in ["a", "a/b.txt", "submission_environment_dependencies.txt"] {
            assert!(safe_name(good).is_ok(), "{good}");
        }
        for bad in ["", "/etc/passwd", "../x", "a/../../x", "..", "a\0b", "..\\x"] {
            assert!(safe_name(bad).is_err(), "{bad}");
        }
        let store = Store::new().unwrap();
        assert_eq!(store.known("/etc/passwd"), None);
        assert_eq!(
            store.known(&store.folder().join("../x").display().to_string()),
            None
        );
    }
}
