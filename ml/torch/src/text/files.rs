//! Where a text model's files are: a folder, or a zip file of one.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::result::ZipError;

use super::config::TextModelError;

/// A model's files by their names within its folder.
pub(super) struct ModelFiles {
    path: PathBuf,
    zipped: Option<Zipped>,
}

struct Zipped {
    archive: ZipArchive<File>,
    /// The folder within the archive, with a slash at its end, or nothing.
    folder: String,
}

impl ModelFiles {
    /// Opens the folder, or the zip file, at a path.
    pub(super) fn open(path: &Path) -> Result<ModelFiles, TextModelError> {
        let cannot_read = |source: io::Error| TextModelError::Read {
            path: path.to_owned(),
            source,
        };
        let zipped = if std::fs::metadata(path).map_err(cannot_read)?.is_dir() {
            None
        } else {
            let file = File::open(path).map_err(cannot_read)?;
            let archive = ZipArchive::new(file).map_err(|error| match error {
                ZipError::Io(source) => cannot_read(source),
                error => TextModelError::Malformed {
                    path: path.to_owned(),
                    reason: format!("expected the folder of a text model, or a zip file of it ({error})"),
                },
            })?;
            let folder = folder(&archive).ok_or_else(|| TextModelError::Malformed {
                path: path.to_owned(),
                reason: "a zip file without config.json is no text model".to_owned(),
            })?;
            Some(Zipped { archive, folder })
        };
        Ok(ModelFiles {
            path: path.to_owned(),
            zipped,
        })
    }

    /// How errors name a file.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// All of a file; `None` where there is none of this name.
    pub(super) fn find(&mut self, name: &str) -> Result<Option<Vec<u8>>, TextModelError> {
        let read = match &mut self.zipped {
            None => std::fs::read(self.path.join(name)),
            Some(zipped) => zipped.read(name),
        };
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(TextModelError::Read {
                path: self.path(name),
                source,
            }),
        }
    }

    /// All of a file that must be there.
    pub(super) fn read(&mut self, name: &str) -> Result<Vec<u8>, TextModelError> {
        let found = self.find(name)?;
        found.ok_or_else(|| TextModelError::Read {
            path: self.path(name),
            source: io::ErrorKind::NotFound.into(),
        })
    }
}

impl Zipped {
    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        let mut file = match self.archive.by_name(&format!("{}{name}", self.folder)) {
            Err(ZipError::FileNotFound) => return Err(io::ErrorKind::NotFound.into()),
            other => other?,
        };
        // What the archive says of the length is a promise only.
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Where in an archive the model is: it may hold the folder, or what is in it.
fn folder(archive: &ZipArchive<File>) -> Option<String> {
    let configs = archive.file_names().filter_map(|name| {
        let name = name.ok()?;
        let folder = name.strip_suffix("config.json")?;
        (folder.is_empty() || folder.ends_with('/')).then(|| folder.to_owned())
    });
    // Each module may have one, deeper down.
    configs.min_by_key(String::len)
}
