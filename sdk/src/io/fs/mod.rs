//! Where files are: on local disks, or in an object store where a path has a scheme such as `s3://`.

pub(super) mod local;
#[cfg(feature = "object-store")]
mod object;
#[cfg(not(feature = "object-store"))]
#[path = "no_object.rs"]
mod object;

use std::io::{self, Read, Write};

use super::files::{FileMetadata, MatchError};

/// A file that is being written.
pub(super) trait FileWriter: Write + Send {
    /// All is written: the file is there when this returns.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// Whether a path names a file system, such as `gs://`.
pub(super) fn has_scheme(path: &str) -> bool {
    path.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty()
            && scheme
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    })
}

/// A path in the form that local functions take: `file://` is left out.
fn local_path(path: &str) -> &str {
    path.strip_prefix("file://").unwrap_or(path)
}

fn is_local(path: &str) -> bool {
    !has_scheme(path) || path.starts_with("file://")
}

/// What can be known to be wrong with a path before anything runs.
pub(super) fn check(path: &str) -> Result<(), MatchError> {
    if is_local(path) {
        Ok(())
    } else {
        object::check(path)
    }
}

/// The files that a pattern matches, by name, without a word on there being none.
pub(super) fn find(pattern: &str) -> Result<Vec<FileMetadata>, MatchError> {
    if is_local(pattern) {
        local::find(local_path(pattern))
    } else {
        object::find(pattern)
    }
}

/// Reads a file from a place on.
pub(super) fn open(path: &str, offset: u64) -> io::Result<Box<dyn Read + Send>> {
    if is_local(path) {
        local::open(local_path(path), offset)
    } else {
        object::open(path, offset)
    }
}

/// Writes a file that is not there yet.
pub(super) fn create(path: &str) -> io::Result<Box<dyn FileWriter>> {
    if is_local(path) {
        local::create(local_path(path))
    } else {
        object::create(path)
    }
}

/// The size of a file in bytes.
pub(super) fn size(path: &str) -> io::Result<u64> {
    if is_local(path) {
        local::size(local_path(path))
    } else {
        object::size(path)
    }
}

/// Makes a whole temporary file the output at a path: the one way in which files come to be there. A file is replaced, links are
/// followed, and pipes and devices are written to.
pub(super) fn put(from: &str, to: &str) -> io::Result<()> {
    if is_local(to) {
        local::put(local_path(from), local_path(to))
    } else {
        object::put(from, to)
    }
}

/// Gives a file one name more, where the file system can.
pub(super) fn link(from: &str, to: &str) -> bool {
    is_local(to) && local::link(local_path(from), local_path(to))
}

/// Makes a folder where there is none.
pub(super) fn create_folder(folder: &str) -> io::Result<()> {
    // Object stores have no folders.
    if is_local(folder) {
        local::create_folder(local_path(folder))
    } else {
        Ok(())
    }
}

/// Removes a file, if it is there.
pub(super) fn remove_file(path: &str) -> io::Result<()> {
    if is_local(path) {
        local::remove_file(local_path(path))
    } else {
        object::remove_file(path)
    }
}

/// Removes a folder with all that is in it, if it is there.
pub(super) fn remove_folder(folder: &str) -> io::Result<()> {
    if is_local(folder) {
        local::remove_folder(local_path(folder))
    } else {
        object::remove_folder(folder)
    }
}

/// A path for [`std::fs`], where there is one.
pub(super) fn as_local(path: &str) -> Option<&str> {
    is_local(path).then(|| local_path(path))
}
