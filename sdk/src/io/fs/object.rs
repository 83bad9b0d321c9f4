//! Objects of S3, Google Cloud Storage and Azure.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::TryStreamExt;
use purlin_objects::object_store::buffered::BufWriter;
use purlin_objects::object_store::path::Path;
use purlin_objects::object_store::{self, ObjectMeta, ObjectStore, ObjectStoreExt};
use purlin_objects::{Location, explain};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;

use super::FileWriter;
use crate::io::files::{FileMetadata, MatchError};

/// Objects are read and written by pieces of so many bytes.
const PIECE: usize = 8 << 20;

/// An object, or a pattern of objects.
#[derive(Clone)]
struct Object(Location);

impl std::ops::Deref for Object {
    type Target = Location;

    fn deref(&self) -> &Location {
        &self.0
    }
}

fn runtime() -> io::Result<&'static Runtime> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("purlin-objects")
            .enable_all()
            .build()
            .map_err(|error| error.to_string())
    });
    made.as_ref().map_err(|error| io::Error::other(error.clone()))
}

/// Starts work on the runtime; the receiver gets what it gives.
fn start<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> io::Result<Receiver<T>> {
    let (sender, receiver) = channel();
    runtime()?.spawn(async move {
        // Nobody waits for it any more, if this fails.
        let _ = sender.send(work.await);
    });
    Ok(receiver)
}

/// Waits for work. It may be called from any thread, one of another runtime, too.
fn wait<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
    let receiver = start(work)?;
    receiver
        .recv()
        .map_err(|_| io::Error::other("the request was given up"))
}

impl Object {
    fn new(url: &str) -> Result<Object, MatchError> {
        Location::parse(url)
            .map(Object)
            .map_err(|error| MatchError::Store {
                url: url.to_owned(),
                reason: error.to_string(),
            })
    }

    fn open(url: &str) -> io::Result<(Object, Path)> {
        let object = Object::new(url).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let path = Path::parse(&object.key)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("\"{url}\": {error}")))?;
        Ok((object, path))
    }

    fn file(&self, meta: &ObjectMeta) -> FileMetadata {
        FileMetadata {
            path: format!("{}/{}", self.root, meta.location),
            size: meta.size,
            last_modified_millis: meta.last_modified.timestamp_millis(),
        }
    }
}

/// An error of a store, with the URL and the settings it may come from.
fn failed(url: &str, error: object_store::Error) -> io::Error {
    let kind = match &error {
        object_store::Error::NotFound { .. } => io::ErrorKind::NotFound,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("\"{url}\": {}", explain(url, &error)))
}

pub fn check(path: &str) -> Result<(), MatchError> {
    Object::new(path).map(|_| ())
}

pub fn find(pattern: &str) -> Result<Vec<FileMetadata>, MatchError> {
    let object = Object::new(pattern)?;
    let unreadable = |source| MatchError::Unreadable {
        path: pattern.to_owned(),
        source,
    };
    let bad_key = |error: object_store::path::Error| unreadable(io::Error::other(error));
    if let Some(wildcard) = object.key.find(['*', '?', '[']) {
        let glob = glob::Pattern::new(&object.key).map_err(|error| MatchError::pattern(pattern, &error))?;
        let options = glob::MatchOptions {
            require_literal_separator: true,
            ..Default::default()
        };
        let folder = object.key[..wildcard]
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        let folder = Path::parse(folder).map_err(bad_key)?;
        let store = object.store.clone();
        let listed = wait(async move { store.list(Some(&folder)).try_collect::<Vec<_>>().await });
        let listed = listed.and_then(|listed| listed.map_err(|error| failed(pattern, error)));
        let mut files: Vec<FileMetadata> = listed
            .map_err(unreadable)?
            .iter()
            .filter(|meta| glob.matches_with(meta.location.as_ref(), options))
            .map(|meta| object.file(meta))
            .collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        return Ok(files);
    }
    let path = Path::parse(&object.key).map_err(bad_key)?;
    let store = object.store.clone();
    match wait(async move { store.head(&path).await }).map_err(unreadable)? {
        Ok(meta) => Ok(vec![object.file(&meta)]),
        Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
        Err(error) => Err(unreadable(failed(pattern, error))),
    }
}

fn head(url: &str) -> io::Result<(Object, Path, u64)> {
    let (object, path) = Object::open(url)?;
    let (store, of) = (object.store.clone(), path.clone());
    let meta = wait(async move { store.head(&of).await })?.map_err(|error| failed(url, error))?;
    Ok((object, path, meta.size))
}

pub fn size(path: &str) -> io::Result<u64> {
    head(path).map(|(.., size)| size)
}

/// Reads an object piece by piece, and asks for the next piece while one is read.
struct Reader {
    url: String,
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    asked: u64,
    current: Bytes,
    pending: Option<Receiver<object_store::Result<Bytes>>>,
}

impl Reader {
    fn ask(&mut self) -> io::Result<()> {
        if self.asked >= self.size {
            return Ok(());
        }
        let range = self.asked..self.size.min(self.asked + PIECE as u64);
        self.asked = range.end;
        let (store, path) = (self.store.clone(), self.path.clone());
        self.pending = Some(start(async move { store.get_range(&path, range).await })?);
        Ok(())
    }
}

impl Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let Some(pending) = self.pending.take() else {
                return Ok(0);
            };
            let piece = pending
                .recv()
                .map_err(|_| io::Error::other("the request was given up"))?;
            self.current = piece.map_err(|error| failed(&self.url, error))?;
            self.ask()?;
        }
        let count = into.len().min(self.current.len());
        into[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

pub fn open(url: &str, offset: u64) -> io::Result<Box<dyn Read + Send>> {
    let (object, path, size) = head(url)?;
    let mut reader = Reader {
        url: url.to_owned(),
        store: object.0.store,
        path,
        size,
        asked: offset,
        current: Bytes::new(),
        pending: None,
    };
    reader.ask()?;
    Ok(Box::new(reader))
}

/// Writes an object by pieces. It is there when it is finished.
struct Writer {
    url: String,
    upload: Option<BufWriter>,
    buffer: Vec<u8>,
}

impl Writer {
    fn send(&mut self, last: bool) -> io::Result<()> {
        let Some(mut upload) = self.upload.take() else {
            return Err(io::Error::other(format!(
                "\"{}\": the upload has failed before",
                self.url
            )));
        };
        let data = std::mem::take(&mut self.buffer);
        let (upload, result) = wait(async move {
            let mut result = upload.write_all(&data).await;
            if last && result.is_ok() {
                result = upload.shutdown().await;
            }
            (upload, result)
        })?;
        match result {
            Ok(()) => {
                self.upload = (!last).then_some(upload);
                Ok(())
            }
            Err(error) => {
                // One that failed at its end cannot be aborted any more.
                self.upload = (!last).then_some(upload);
                Err(io::Error::new(
                    error.kind(),
                    format!("\"{}\": {}", self.url, explain(&self.url, &error)),
                ))
            }
        }
    }
}

impl Write for Writer {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(data);
        if self.buffer.len() >= PIECE {
            self.send(false)?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Pieces have a least size: what is left goes when the object is finished.
        Ok(())
    }
}

impl FileWriter for Writer {
    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.send(true)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Parts of an upload that is not finished would be kept, and paid for.
        if let Some(mut upload) = self.upload.take() {
            let _ = start(async move { upload.abort().await });
        }
    }
}

pub fn create(url: &str) -> io::Result<Box<dyn FileWriter>> {
    let (object, path) = Object::open(url)?;
    Ok(Box::new(Writer {
        url: url.to_owned(),
        upload: Some(BufWriter::new(object.0.store, path)),
        buffer: Vec::new(),
    }))
}

pub fn put(from: &str, to: &str) -> io::Result<()> {
    let (object, source) = Object::open(from)?;
    let (_, target) = Object::open(to)?;
    // The other one stays, for another try; it goes with its folder.
    wait(async move { object.store.copy(&source, &target).await })?.map_err(|error| failed(to, error))
}

pub fn remove_file(url: &str) -> io::Result<()> {
    let (object, path) = Object::open(url)?;
    match wait(async move { object.store.delete(&path).await })? {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(failed(url, error)),
    }
}

pub fn remove_folder(url: &str) -> io::Result<()> {
    let (object, folder) = Object::open(url)?;
    wait(async move {
        let objects: Vec<ObjectMeta> = object.store.list(Some(&folder)).try_collect().await?;
        for meta in objects {
            match object.store.delete(&meta.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })?
    .map_err(|error| failed(url, error))
}
