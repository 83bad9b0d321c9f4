//! A store in S3, Google Cloud Storage or Azure.

use std::fs;
use std::future::Future;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

use bytes::Bytes;
use futures::TryStreamExt;
use purlin_objects::object_store::path::Path as Key;
use purlin_objects::object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, WriteMultipart};
use purlin_objects::{Location, explain};
use tokio::runtime::{Builder, Runtime};

use crate::error::StoreError;
use crate::name::is_safe;
use crate::place::{Added, Place, RECORD};
use crate::record::Record;

/// Files are sent by pieces of so many bytes.
const PIECE: usize = 8 << 20;

/// `URL/NAME/VERSION/{SHA256-FILE, model.json}`. A version is there once its `model.json` is, which is written last and once.
pub(crate) struct Objects {
    url: String,
    store: Arc<dyn ObjectStore>,
    root: String,
    runtime: Runtime,
}

impl Objects {
    pub fn open(url: &str) -> Result<Objects, StoreError> {
        let wrong = |reason: String| StoreError::Url {
            url: url.to_owned(),
            reason,
        };
        let location = Location::parse(url).map_err(|error| wrong(error.to_string()))?;
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Ok(Objects {
            url: url.trim_end_matches('/').to_owned(),
            store: location.store,
            root: location.key.trim_matches('/').to_owned(),
            runtime: runtime.map_err(|error| wrong(error.to_string()))?,
        })
    }

    /// Waits for work. It may be called from any thread, one of another runtime, too.
    fn wait<T: Send + 'static>(
        &self,
        what: &'static str,
        key: &Key,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.wait_for(work)
            .map_err(|error| self.failed(what, key, &error))
    }

    fn wait_for<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = channel();
        self.runtime.spawn(async move {
            // Who asked waits.
            let _ = sender.send(work.await);
        });
        receiver.recv().unwrap_or(Err(Error::NotImplemented {
            operation: "a request that was given up".to_owned(),
            implementer: "purlin-models".to_owned(),
        }))
    }

    fn failed(&self, what: &'static str, key: &Key, error: &Error) -> StoreError {
        StoreError::Objects {
            what,
            url: self.shown(key),
            reason: explain(&self.url, error),
        }
    }

    fn shown(&self, key: &Key) -> String {
        let below = key.as_ref().strip_prefix(&self.root).unwrap_or(key.as_ref());
        format!("{}/{}", self.url, below.trim_start_matches('/'))
    }

    fn key(&self, parts: &[&str]) -> Key {
        let root = self.root.split('/').filter(|part| !part.is_empty());
        Key::from_iter(root.chain(parts.iter().copied()))
    }

    fn file_key(&self, record: &Record) -> Key {
        let file = format!("{}-{}", record.sha256, record.file);
        self.key(&[&record.name, &record.version, &file])
    }

    /// The last parts of the common prefixes below a key.
    fn below(&self, key: Key) -> Result<Vec<String>, StoreError> {
        let (store, prefix) = (self.store.clone(), key.clone());
        let found = self.wait("list", &key, async move {
            store.list_with_delimiter(Some(&prefix)).await
        })?;
        let names = found
            .common_prefixes
            .iter()
            .filter_map(|prefix| prefix.filename());
        Ok(names.filter(|name| is_safe(name)).map(str::to_owned).collect())
    }
}

impl Place for Objects {
    fn names(&self) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        for name in self.below(self.key(&[]))? {
            if !self.versions(&name)?.is_empty() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn versions(&self, name: &str) -> Result<Vec<String>, StoreError> {
        let (store, prefix) = (self.store.clone(), self.key(&[name]));
        let key = prefix.clone();
        let list = async move { store.list(Some(&prefix)).try_collect::<Vec<_>>().await };
        let found = self.wait("list", &key, list)?;
        let version = |location: &Key| {
            let mut parts = location.prefix_match(&key)?;
            let (version, record) = (parts.next()?, parts.next()?);
            (record.as_ref() == RECORD && is_safe(version.as_ref())).then(|| version.as_ref().to_owned())
        };
        Ok(found
            .iter()
            .filter_map(|object| version(&object.location))
            .collect())
    }

    fn record(&self, name: &str, version: &str) -> Result<Option<(String, Vec<u8>)>, StoreError> {
        let (store, key) = (self.store.clone(), self.key(&[name, version, RECORD]));
        let at = key.clone();
        match self.wait_for(async move { store.get(&at).await?.bytes().await }) {
            Ok(bytes) => Ok(Some((self.shown(&key), bytes.to_vec()))),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", &key, &error)),
        }
    }

    fn add(&self, record: &Record, file: &Path) -> Result<Added, StoreError> {
        if self.record(&record.name, &record.version)?.is_some() {
            return Ok(Added::Exists);
        }
        let key = self.file_key(record);
        self.upload(&key, file)?;
        let at = self.key(&[&record.name, &record.version, RECORD]);
        let text = serde_json::to_vec_pretty(record).map_err(|error| StoreError::Record {
            path: self.shown(&at),
            reason: error.to_string(),
        })?;
        let (store, place) = (self.store.clone(), at.clone());
        let put = async move {
            store
                .put_opts(&place, Bytes::from(text).into(), PutMode::Create.into())
                .await
        };
        match self.wait_for(put) {
            Ok(_) => Ok(Added::Done),
            Err(Error::AlreadyExists { .. }) => {
                // Another was faster. Its file bears another name, unless it is the same.
                let is_same = self
                    .record(&record.name, &record.version)?
                    .and_then(|(_, bytes)| serde_json::from_slice::<Record>(&bytes).ok())
                    .is_none_or(|other| other.sha256 == record.sha256 && other.file == record.file);
                if !is_same {
                    let (store, place) = (self.store.clone(), key.clone());
                    self.wait("remove", &key, async move { store.delete(&place).await })?;
                }
                Ok(Added::Exists)
            }
            Err(error) => Err(self.failed("write", &at, &error)),
        }
    }

    fn local(&self, record: &Record, cache: &Path) -> Result<(PathBuf, String), StoreError> {
        let key = self.file_key(record);
        let folder = cache.join(&record.sha256);
        let path = folder.join(&record.file);
        let shown = self.shown(&key);
        let is_there = crate::record::measure(&path).is_ok_and(|(_, sha256)| sha256 == record.sha256);
        if is_there {
            return Ok((path, shown));
        }
        fs::create_dir_all(&folder).map_err(StoreError::files("create", &folder))?;
        let aside = folder.join(format!(".{:016x}", fastrand::u64(..)));
        let loaded = self.download(&key, &aside);
        let moved =
            loaded.and_then(|()| fs::rename(&aside, &path).map_err(StoreError::files("create", &path)));
        if moved.is_err() {
            let _ = fs::remove_file(&aside);
        }
        moved?;
        Ok((path, shown))
    }

    fn remove(&self, name: &str, version: &str) -> Result<bool, StoreError> {
        let record = self.key(&[name, version, RECORD]);
        let was_there = self.record(name, version)?.is_some();
        // What tells of it goes first: without it there is no such version.
        let mut keys = vec![record.clone()];
        let (store, prefix) = (self.store.clone(), self.key(&[name, version]));
        let at = prefix.clone();
        let list = async move { store.list(Some(&at)).try_collect::<Vec<_>>().await };
        let found = self.wait("list", &prefix, list)?;
        keys.extend(
            found
                .into_iter()
                .map(|object| object.location)
                .filter(|key| *key != record),
        );
        for key in keys {
            let (store, at) = (self.store.clone(), key.clone());
            match self.wait_for(async move { store.delete(&at).await }) {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failed("remove", &key, &error)),
            }
        }
        Ok(was_there)
    }
}

impl Objects {
    fn upload(&self, key: &Key, path: &Path) -> Result<(), StoreError> {
        let mut file = fs::File::open(path).map_err(StoreError::files("read", path))?;
        let (store, at) = (self.store.clone(), key.clone());
        let begun = self.wait("write", key, async move { store.put_multipart(&at).await })?;
        let mut upload = WriteMultipart::new_with_chunk_size(begun, PIECE);
        loop {
            let mut piece = Vec::new();
            let read = Read::by_ref(&mut file).take(PIECE as u64).read_to_end(&mut piece);
            if read.map_err(StoreError::files("read", path))? == 0 {
                break;
            }
            upload = self.wait("write", key, async move {
                upload.wait_for_capacity(4).await?;
                upload.put(piece.into());
                Ok(upload)
            })?;
        }
        self.wait("write", key, async move { upload.finish().await })
            .map(drop)
    }

    fn download(&self, key: &Key, path: &Path) -> Result<(), StoreError> {
        let mut file = fs::File::create(path).map_err(StoreError::files("create", path))?;
        let (store, at) = (self.store.clone(), key.clone());
        let mut pieces = self.wait(
            "read",
            key,
            async move { Ok(store.get(&at).await?.into_stream()) },
        )?;
        loop {
            let (piece, rest) = self.wait("read", key, async move {
                let piece = pieces.try_next().await?;
                Ok((piece, pieces))
            })?;
            pieces = rest;
            let Some(piece) = piece else { return Ok(()) };
            file.write_all(&piece).map_err(StoreError::files("write", path))?;
        }
    }
}
