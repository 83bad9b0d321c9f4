//! Objects of S3, Google Cloud Storage and Azure.
//!
//! Settings come from the environment, under the names that the clouds' own tools use: `AWS_ACCESS_KEY_ID`, `AWS_REGION`,
//! `AWS_ENDPOINT`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME` and others.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::buffered::BufWriter;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;

use super::FileWriter;
use crate::io::files::{FileMetadata, MatchError};

/// Objects are read and written by pieces of so many bytes.
const PIECE: usize = 8 << 20;

/// Schemes, the prefix of the variables of their settings, and what is mostly missing.
const CLOUDS: [(&[&str], &str, &str); 3] = [
    (
        &["s3", "s3a"],
        "AWS_",
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION (AWS_ENDPOINT and AWS_ALLOW_HTTP for other services than \
         Amazon's)",
    ),
    (
        &["gs"],
        "GOOGLE_",
        "GOOGLE_SERVICE_ACCOUNT, the path of a service account's file",
    ),
    (
        &["az", "azure", "abfs", "abfss", "adl"],
        "AZURE_",
        "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    ),
];
/// For tests: objects of this process.
const MEMORY: &str = "memory";

/// An object, or a pattern of objects.
#[derive(Clone)]
struct Object {
    store: Arc<dyn ObjectStore>,
    /// `s3://bucket`.
    root: String,
    /// What is behind it, without a slash before it.
    key: String,
}

fn settings(scheme: &str) -> Option<(&'static str, &'static str)> {
    CLOUDS
        .iter()
        .find(|(schemes, ..)| schemes.contains(&scheme))
        .map(|(_, prefix, needed)| (*prefix, *needed))
}

fn runtime() -> io::Result<&'static Runtime> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        // Where the program has chosen another provider, that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
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
        static STORES: OnceLock<Mutex<HashMap<String, Arc<dyn ObjectStore>>>> = OnceLock::new();
        let failed = |reason: String| MatchError::Store {
            url: url.to_owned(),
            reason,
        };
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if settings(scheme).is_none() && scheme != MEMORY {
            return Err(failed(format!(
                "{scheme}:// is not known; there are s3://, gs://, az:// and abfs://, and paths of local files"
            )));
        }
        if bucket.is_empty() && scheme != MEMORY {
            return Err(failed(format!("name a bucket: {scheme}://BUCKET/NAME")));
        }
        let root = format!("{scheme}://{bucket}");
        let stores = STORES.get_or_init(Mutex::default);
        let mut stores = stores.lock().unwrap_or_else(PoisonError::into_inner);
        let store = match stores.get(&root) {
            Some(store) => store.clone(),
            None => {
                runtime().map_err(|error| failed(error.to_string()))?;
                let store = connect(scheme, &root).map_err(failed)?;
                stores.insert(root.clone(), store.clone());
                store
            }
        };
        Ok(Object {
            store,
            root,
            key: key.to_owned(),
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

fn connect(scheme: &str, root: &str) -> Result<Arc<dyn ObjectStore>, String> {
    let Some((prefix, needed)) = settings(scheme) else {
        return Ok(Arc::new(InMemory::new()));
    };
    let hint = |error: String| format!("{error}; check the environment's {needed}");
    let url = reqwest::Url::parse(root).map_err(|error| error.to_string())?;
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with(prefix));
    let (store, _) =
        object_store::parse_url_opts(&url, variables).map_err(|error| hint(error.to_string()))?;
    Ok(store.into())
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
    let scheme = url.split("://").next().unwrap_or("");
    let text = crate::error::chain(&error);
    let hint = match (kind, settings(scheme)) {
        (io::ErrorKind::NotFound, _) | (_, None) => String::new(),
        (_, Some((_, needed))) => format!("; check the environment's {needed}"),
    };
    io::Error::new(kind, format!("\"{url}\": {text}{hint}"))
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
        store: object.store,
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
                let scheme = self.url.split("://").next().unwrap_or("");
                let hint = settings(scheme).map(|(_, needed)| format!("; check the environment's {needed}"));
                let text = crate::error::chain(&error);
                Err(io::Error::new(
                    error.kind(),
                    format!("\"{}\": {text}{}", self.url, hint.unwrap_or_default()),
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
        upload: Some(BufWriter::new(object.store, path)),
        buffer: Vec::new(),
    }))
}

pub fn rename(from: &str, to: &str) -> io::Result<()> {
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
