//! A store in a folder.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::name::is_safe;
use crate::place::{Added, Place, RECORD};
use crate::record::Record;

/// `FOLDER/NAME/VERSION/{file, model.json}`. What is being added or removed is in `FOLDER/.NUMBER`, and moved in one step.
pub(crate) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub fn new(root: PathBuf) -> Folder {
        Folder { root }
    }

    fn version(&self, name: &str, version: &str) -> PathBuf {
        self.root.join(name).join(version)
    }

    /// A folder of this process's own.
    fn aside(&self) -> PathBuf {
        self.root.join(format!(".{:016x}", fastrand::u64(..)))
    }
}

/// Names of folders in a folder, if it is there, that may be names of models or versions.
fn folders(path: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::files("list", path)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::files("list", path))?;
        if let Ok(name) = entry.file_name().into_string()
            && is_safe(&name)
            && entry.path().is_dir()
        {
            names.push(name);
        }
    }
    Ok(names)
}

impl Place for Folder {
    fn names(&self) -> Result<Vec<String>, StoreError> {
        let mut names = folders(&self.root)?;
        let mut error = None;
        names.retain(|name| match self.versions(name) {
            Ok(versions) => !versions.is_empty(),
            Err(failed) => {
                error = Some(failed);
                false
            }
        });
        error.map_or(Ok(names), Err)
    }

    fn versions(&self, name: &str) -> Result<Vec<String>, StoreError> {
        let mut versions = folders(&self.root.join(name))?;
        versions.retain(|version| self.version(name, version).join(RECORD).is_file());
        Ok(versions)
    }

    fn record(&self, name: &str, version: &str) -> Result<Option<(String, Vec<u8>)>, StoreError> {
        let path = self.version(name, version).join(RECORD);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some((path.display().to_string(), bytes))),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(StoreError::files("read", &path)(error)),
        }
    }

    fn add(&self, record: &Record, file: &Path) -> Result<Added, StoreError> {
        let aside = self.aside();
        let added = self.add_by(&aside, record, file);
        // Where it was moved, nothing is there.
        if !matches!(added, Ok(Added::Done)) {
            let _ = fs::remove_dir_all(&aside);
        }
        added
    }

    fn local(&self, record: &Record, _: &Path) -> Result<(PathBuf, String), StoreError> {
        let path = self.version(&record.name, &record.version).join(&record.file);
        let shown = path.display().to_string();
        Ok((path, shown))
    }

    fn remove(&self, name: &str, version: &str) -> Result<bool, StoreError> {
        let (path, aside) = (self.version(name, version), self.aside());
        match fs::rename(&path, &aside) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(StoreError::files("remove", &path)(error)),
        }
        fs::remove_dir_all(&aside).map_err(StoreError::files("remove", &aside))?;
        // The last version's name goes, too; where there are others, it stays.
        let _ = fs::remove_dir(self.root.join(name));
        Ok(true)
    }
}

impl Folder {
    fn add_by(&self, aside: &Path, record: &Record, file: &Path) -> Result<Added, StoreError> {
        fs::create_dir_all(aside).map_err(StoreError::files("create", aside))?;
        let path = aside.join(&record.file);
        fs::copy(file, &path).map_err(StoreError::files("copy to", &path))?;
        let path = aside.join(RECORD);
        let text = serde_json::to_vec_pretty(record).map_err(|error| StoreError::Record {
            path: path.display().to_string(),
            reason: error.to_string(),
        })?;
        fs::write(&path, text).map_err(StoreError::files("write", &path))?;
        for name in [record.file.as_str(), RECORD] {
            let path = aside.join(name);
            let synced = fs::File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(StoreError::files("write", &path))?;
        }
        let version = self.version(&record.name, &record.version);
        loop {
            let name = self.root.join(&record.name);
            fs::create_dir_all(&name).map_err(StoreError::files("create", &name))?;
            // Onto a folder that holds something nothing is moved.
            return match fs::rename(aside, &version) {
                Ok(()) => Ok(Added::Done),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty | ErrorKind::NotADirectory
                    ) =>
                {
                    Ok(Added::Exists)
                }
                // The name's last version was removed meanwhile, and the name with it.
                Err(error) if error.kind() == ErrorKind::NotFound && aside.is_dir() => continue,
                Err(error) => Err(StoreError::files("create", &version)(error)),
            };
        }
    }
}
