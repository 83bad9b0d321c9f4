//! What a program says that was built without object stores.

use std::io::{self, Read};

use super::FileWriter;
use crate::io::files::{FileMetadata, MatchError};

fn unsupported(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, MatchError::Scheme(path.to_owned()))
}

pub fn check(path: &str) -> Result<(), MatchError> {
    Err(MatchError::Scheme(path.to_owned()))
}

pub fn find(pattern: &str) -> Result<Vec<FileMetadata>, MatchError> {
    Err(MatchError::Scheme(pattern.to_owned()))
}

pub fn open(path: &str, _offset: u64) -> io::Result<Box<dyn Read + Send>> {
    Err(unsupported(path))
}

pub fn create(path: &str) -> io::Result<Box<dyn FileWriter>> {
    Err(unsupported(path))
}

pub fn size(path: &str) -> io::Result<u64> {
    Err(unsupported(path))
}

pub fn put(_from: &str, to: &str) -> io::Result<()> {
    Err(unsupported(to))
}

pub fn remove_file(path: &str) -> io::Result<()> {
    Err(unsupported(path))
}

pub fn remove_folder(folder: &str) -> io::Result<()> {
    Err(unsupported(folder))
}
