//! Temporary folders that end with their process, or with the next one's start if it was killed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::process::getuid;
use tempfile::{NamedTempFile, TempDir};

/// In each folder: who holds its lock is the process that it belongs to. The kernel frees it whatever ends the process, and
/// tells processes of other containers too, where process ids would mislead.
const LOCK: &str = "lock";
/// In each folder: the user's part.
const FILES: &str = "files";

/// A folder of this process's own, removed when dropped.
#[derive(Debug)]
pub struct OwnFolder {
    files: PathBuf,
    folder: TempDir,
    /// Held as long as the folder is.
    _lock: File,
}

impl OwnFolder {
    /// Makes a folder in `parent`, its name beginning with `prefix`. Folders of that kind that belong to processes of this user
    /// which no longer run are removed before.
    pub fn new(parent: &Path, prefix: &str) -> io::Result<Self> {
        sweep(parent, prefix);
        let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?;
        let files = folder.path().join(FILES);
        fs::create_dir(&files)?;
        // It gets its name once it is locked: until then nobody takes the folder for an abandoned one.
        let lock = NamedTempFile::new_in(folder.path())?;
        flock(lock.as_file(), FlockOperation::NonBlockingLockExclusive)?;
        let lock = lock.persist(folder.path().join(LOCK)).map_err(|e| e.error)?;
        Ok(Self {
            files,
            folder,
            _lock: lock,
        })
    }

    /// Where files go.
    pub fn path(&self) -> &Path {
        &self.files
    }

    /// Removes it at once, with all that is in it.
    pub fn remove(&self) {
        // Gone already is gone.
        let _ = fs::remove_dir_all(self.folder.path());
    }
}

/// Removes what processes of this user left in `parent` that were killed.
fn sweep(parent: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    let ours = |entry: &fs::DirEntry| {
        let named = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(prefix));
        named
            && entry
                .metadata()
                .is_ok_and(|found| found.is_dir() && found.uid() == getuid().as_raw())
    };
    for entry in entries.flatten().filter(ours) {
        let folder = entry.path();
        // Without a lock it is just being made, or removed, or none of ours.
        let Ok(lock) = File::open(folder.join(LOCK)) else {
            continue;
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        match fs::remove_dir_all(&folder) {
            Ok(()) => tracing::info!("removed {}, left by a process that was killed", folder.display()),
            Err(error) => tracing::warn!("cannot remove {}, left behind: {error}", folder.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_left_goes_and_what_the_living_use_stays() {
        let parent = tempfile::tempdir().unwrap();
        let at = |path: &Path| path.parent().unwrap().to_owned();
        let living = OwnFolder::new(parent.path(), "kind-").unwrap();
        fs::write(living.path().join("file"), "used").unwrap();
        // As after SIGKILL: the folder is there, and nobody holds its lock.
        let dead = OwnFolder::new(parent.path(), "kind-").unwrap();
        fs::write(dead.path().join("file"), "left").unwrap();
        let OwnFolder {
            folder,
            files,
            _lock: lock,
        } = dead;
        // By name: a child that another test starts holds it, too, until it runs its program.
        flock(&lock, FlockOperation::Unlock).unwrap();
        drop(lock);
        let left = folder.keep();
        assert!(files.exists());
        // Not of this kind; not locked yet; another's.
        let other = parent.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join(LOCK), "").unwrap();
        let young = parent.path().join("kind-young");
        fs::create_dir(&young).unwrap();

        let next = OwnFolder::new(parent.path(), "kind-").unwrap();
        assert!(!left.exists());
        assert!(living.path().join("file").exists() && other.exists() && young.exists());
        let (living_at, next_at) = (at(living.path()), at(next.path()));
        drop((living, next));
        assert!(!living_at.exists() && !next_at.exists());
    }
}
