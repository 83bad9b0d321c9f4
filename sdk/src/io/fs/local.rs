//! Local files.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::time::UNIX_EPOCH;

use super::FileWriter;
use crate::io::files::{FileMetadata, MatchError};

impl FileWriter for File {
    fn finish(self: Box<Self>) -> io::Result<()> {
        Ok(())
    }
}

fn metadata(path: String) -> Result<Option<FileMetadata>, MatchError> {
    let found = match fs::metadata(&path) {
        Ok(found) => found,
        // A link to nowhere, or a file that has just gone.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(MatchError::Unreadable { path, source }),
    };
    let modified = found
        .modified()
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    Ok((!found.is_dir()).then(|| FileMetadata {
        path,
        size: found.len(),
        last_modified_millis: modified.map_or(0, |since| since.as_millis() as i64),
    }))
}

pub fn find(pattern: &str) -> Result<Vec<FileMetadata>, MatchError> {
    // A name that looks like a pattern may well be a file's.
    if let Ok(Some(file)) = metadata(pattern.to_owned()) {
        return Ok(vec![file]);
    }
    let mut files = Vec::new();
    if !pattern.contains(['*', '?', '[']) {
        return Ok(files);
    }
    let paths = glob::glob(pattern).map_err(|error| MatchError::pattern(pattern, &error))?;
    for path in paths {
        let path = path.map_err(|error| MatchError::Unreadable {
            path: error.path().display().to_string(),
            source: error.into(),
        })?;
        let Some(path) = path.to_str() else {
            return Err(MatchError::Unreadable {
                path: path.display().to_string(),
                source: io::Error::new(io::ErrorKind::InvalidData, "its name is not UTF-8"),
            });
        };
        files.extend(metadata(path.to_owned())?);
    }
    Ok(files)
}

pub fn open(path: &str, offset: u64) -> io::Result<Box<dyn Read + Send>> {
    let mut file = File::open(path)?;
    if offset > 0 {
        file.seek(SeekFrom::Start(offset))?;
    }
    Ok(Box::new(file))
}

pub fn create(path: &str) -> io::Result<Box<dyn FileWriter>> {
    Ok(Box::new(File::create_new(path)?))
}

pub fn size(path: &str) -> io::Result<u64> {
    fs::metadata(path).map(|found| found.len())
}

pub fn rename(from: &str, to: &str) -> io::Result<()> {
    fs::rename(from, to)
}

pub fn link(from: &str, to: &str) -> bool {
    fs::hard_link(from, to).is_ok()
}

pub fn create_folder(folder: &str) -> io::Result<()> {
    fs::create_dir_all(folder)
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub fn remove_file(path: &str) -> io::Result<()> {
    gone_is_fine(fs::remove_file(path))
}

pub fn remove_folder(folder: &str) -> io::Result<()> {
    gone_is_fine(fs::remove_dir_all(folder))
}
