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
    #[error(
        "cannot store artifact {name} in {folder}: {error}; is the disk full? --artifacts_dir names another folder"
    )]
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
    folder: Folder,
    /// Whether files go with the last job that needs them.
    clean: bool,
    users: Mutex<HashMap<String, HashSet<String>>>,
}

/// Where a store is.
enum Folder {
    /// Removed with it.
    Own(TempDir),
    /// The user's.
    Given(PathBuf),
}

impl Store {
    /// Makes a store in a folder, or an empty one in the system's folder for temporary files, which is removed with this
    /// value. Without `clean`, files stay when their job has ended, so that the next one need not stage them again.
    pub fn new(folder: Option<&Path>, clean: bool) -> io::Result<Self> {
        let folder = match folder {
            Some(folder) => {
                std::fs::create_dir_all(folder)?;
                // Paths given to workers' services are compared with it.
                Folder::Given(folder.canonicalize()?)
            }
            None => Folder::Own(tempfile::Builder::new().prefix("purlin-artifacts-").tempdir()?),
        };
        let store = Self {
            folder,
            clean,
            users: Mutex::default(),
        };
        // What an earlier service left: files are named by their hashes.
        if let Folder::Given(folder) = &store.folder {
            let names = std::fs::read_dir(folder)?
                .flatten()
                .filter_map(|e| e.file_name().into_string().ok());
            let mut users = store.users();
            for name in names.filter(|name| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())) {
                users.entry(name).or_default();
            }
        }
        Ok(store)
    }

    /// The store's folder.
    pub fn folder(&self) -> &Path {
        match &self.folder {
            Folder::Own(folder) => folder.path(),
            Folder::Given(folder) => folder,
        }
    }

    /// Removes the folder, if it is the store's own.
    pub(crate) fn remove(&self) {
        if let Folder::Own(folder) = &self.folder {
            // Gone already is gone.
            let _ = std::fs::remove_dir_all(folder.path());
        }
    }

    fn users(&self) -> MutexGuard<'_, HashMap<String, HashSet<String>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, sha256: &str) -> PathBuf {
        self.folder().join(sha256)
    }

    /// Notes that `job` needs the file, and tells whether the store has it, unchanged.
    pub(crate) async fn claim(&self, sha256: &str, job: &str) -> Option<PathBuf> {
        self.users().get_mut(sha256)?.insert(job.to_owned());
        let (path, wanted) = (self.file(sha256), sha256.to_owned());
        let read = path.clone();
        let same = tokio::task::spawn_blocking(move || hash_of(&read).is_ok_and(|found| found == wanted));
        match same.await {
            Ok(true) => Some(path),
            // It is staged anew, in place of the file that someone has changed.
            _ => None,
        }
    }

    /// The hash of the file that the store has under `path`, if it is one of the store's.
    pub(crate) fn known(&self, path: &str) -> Option<String> {
        let path = Path::new(path);
        if path.parent() != Some(self.folder()) {
            return None;
        }
        let name = path.file_name()?.to_str()?;
        self.users().contains_key(name).then(|| name.to_owned())
    }

    /// Begins a file whose hash is known only at its end.
    pub(crate) async fn begin(&self, name: &str) -> Result<Incoming<'_>, ArtifactError> {
        let partial = tempfile::Builder::new()
            .prefix("partial-")
            .tempfile_in(self.folder());
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
            let keep = !jobs.is_empty() || !self.clean;
            if !keep {
                // Gone already is gone.
                let _ = std::fs::remove_file(self.file(sha256));
            }
            keep
        });
    }

    fn error(&self, name: &str, error: io::Error) -> ArtifactError {
        ArtifactError::Io {
            name: name.into(),
            folder: self.folder().display().to_string(),
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

fn hash_of(path: &Path) -> io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash)?;
    Ok(hex(&hash.finalize()))
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
        let store = Store::new(None, true).unwrap();
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
    async fn files_of_a_given_folder_stay_and_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("new");
        let store = Store::new(Some(&folder), false).unwrap();
        let mut file = store.begin("x").await.unwrap();
        file.write(b"kept").await.unwrap();
        let (path, sha256) = file.finish("", "a").await.unwrap();
        store.release("a");
        drop(store);
        let store = Store::new(Some(&folder), true).unwrap();
        assert_eq!(store.claim(&sha256, "b").await.as_ref(), Some(&path));
        std::fs::write(&path, "changed").unwrap();
        assert_eq!(store.claim(&sha256, "b").await, None);
        store.release("b");
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_wrong_hash_leaves_nothing() {
        let store = Store::new(None, true).unwrap();
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
        let store = Store::new(None, true).unwrap();
        assert_eq!(store.known("/etc/passwd"), None);
        assert_eq!(
            store.known(&store.folder().join("../x").display().to_string()),
            None
        );
    }
}
