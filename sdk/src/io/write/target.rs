//! Where files go, and what they are called.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::WriteError;
use crate::io::{Compression, fs};
use parking_lot::Mutex;

/// What to write.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub prefix: String,
    pub suffix: String,
    /// `None`: as the size wants it, unless `single`.
    pub shards: Option<usize>,
    pub single: bool,
    pub compression: Compression,
    /// Whether all elements go to the same files.
    pub one_destination: bool,
}

impl Target {
    pub fn new(prefix: &str) -> Target {
        Target {
            prefix: prefix.to_owned(),
            suffix: String::new(),
            shards: None,
            single: false,
            compression: Compression::Auto,
            one_destination: true,
        }
    }

    /// How many files there are to be of each destination; `None`: as many as suits them.
    pub fn shard_count(&self) -> Option<usize> {
        if self.single {
            Some(1)
        } else {
            self.shards.map(|shards| shards.max(1))
        }
    }

    /// Path of a shard of a destination, by its number and how many there are. `None`: as it is called without sharding.
    pub fn file_name(&self, destination: &str, shard: Option<(usize, usize)>) -> String {
        let Target { prefix, suffix, .. } = self;
        match shard {
            None => format!("{prefix}{destination}{suffix}"),
            Some((shard, shards)) => format!("{prefix}{destination}-{shard:05}-of-{shards:05}{suffix}"),
        }
    }

    /// The folder that the files are in.
    pub fn folder(&self) -> &str {
        match self.prefix.rsplit_once('/') {
            Some(("", _)) => "/",
            Some((folder, _)) => folder,
            None => ".",
        }
    }

    /// What can be known to be wrong before anything runs, on whatever machine.
    pub fn check(&self) -> Result<(), String> {
        let output = self.file_name("", None);
        if self.prefix.is_empty() || (self.single && self.one_destination && output.ends_with('/')) {
            return Err(format!("cannot write \"{output}\": name a file"));
        }
        if self.shards == Some(0) {
            return Err(format!(
                "cannot write \"{output}\" as 0 files: ask for at least one"
            ));
        }
        let Some(local) = fs::as_local(self.folder()) else {
            return Ok(());
        };
        if self.single && self.one_destination && Path::new(fs::as_local(&output).unwrap_or(&output)).is_dir()
        {
            return Err(format!(
                "cannot write \"{output}\": it is a folder; name a file in it"
            ));
        }
        for folder in Path::new(local).ancestors() {
            if folder.is_file() {
                let folder = folder.display();
                return Err(format!(
                    "cannot write \"{output}\": \"{folder}\" is a file, not a folder; choose another output"
                ));
            }
        }
        Ok(())
    }

    pub fn error(&self, action: &'static str, path: &str, source: io::Error) -> WriteError {
        WriteError::Io {
            output: self.file_name("", None),
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// Where temporary files lie: beside the files to come, where renaming does not copy. An output that is a device has no files beside
    /// it.
    fn temp_parent(&self) -> io::Result<String> {
        let output = self.file_name("", None);
        match fs::as_local(&output) {
            Some(local) if self.single && self.one_destination => {
                let folder = fs::local::folder_of(local)?.unwrap_or_else(std::env::temp_dir);
                folder.into_os_string().into_string().map_err(|folder| {
                    let message = format!("the name of its folder {folder:?} is not UTF-8");
                    io::Error::new(io::ErrorKind::InvalidData, message)
                })
            }
            _ => Ok(self.folder().to_owned()),
        }
    }

    /// Makes a folder that no other run uses.
    pub fn create_temp_folder(&self) -> Result<String, WriteError> {
        let folder = self
            .temp_parent()
            .map_err(|source| self.error("cannot look at", &self.file_name("", None), source))?;
        let create = || {
            let temp = format!("{folder}/.purlin-temp-{:016x}", unique());
            fs::create_folder(&temp)?;
            Ok(temp)
        };
        create().map_err(|source| WriteError::Folder {
            output: self.file_name("", None),
            folder: folder.clone(),
            source,
        })
    }
}

/// Folders that this process made. What is still there at the end belongs to a run that failed.
#[derive(Clone, Debug, Default)]
pub(super) struct TempFolders(Arc<Mutex<Vec<String>>>);

impl TempFolders {
    pub fn add(&self, folder: &str) {
        self.0.lock().push(folder.to_owned());
    }

    pub fn remove(&self) {
        let folders = std::mem::take(&mut *self.0.lock());
        folders.iter().for_each(|folder| remove_temp_folder(folder));
    }
}

/// A number that no other call gives, in this process or another.
pub(super) fn unique() -> u64 {
    RandomState::new().hash_one((std::process::id(), SystemTime::now()))
}

/// Removes a temporary folder with all that is in it. That it is gone already, or stays, fails nobody: the files are there.
pub(super) fn remove_temp_folder(folder: &str) {
    if let Err(error) = fs::remove_folder(folder) {
        tracing::warn!(folder, %error, "cannot remove the folder of temporary files; remove it by hand");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_are_numbered() {
        let mut target = Target::new("out/counts");
        target.suffix = ".txt".to_owned();
        assert_eq!(
            target.file_name("", Some((1, 3))),
            "out/counts-00001-of-00003.txt"
        );
        assert_eq!(target.file_name("", None), "out/counts.txt");
        assert_eq!(target.folder(), "out");
        assert_eq!(Target::new("/x").folder(), "/");
        assert_eq!(Target::new("x").folder(), ".");
    }

    #[test]
    fn what_cannot_be_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("{}/{name}", folder.path().display());
        fs::write(at("file"), "").unwrap();
        let mut target = Target::new(&at("file/x"));
        assert!(target.check().unwrap_err().contains("is a file, not a folder"));
        target.prefix = folder.path().display().to_string();
        assert!(target.check().is_ok());
        target.single = true;
        assert!(target.check().unwrap_err().contains("it is a folder"));
        target.shards = Some(0);
        assert!(target.check().unwrap_err().contains("0 files"));
    }
}
