//! Staged files in an object store.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use purlin_artifacts::is_hash;
use purlin_objects::object_store::buffered::BufWriter;
use purlin_objects::object_store::path::Path;
use purlin_objects::object_store::{Error, ObjectStore, ObjectStoreExt, PutPayload};
use purlin_objects::{Location, explain};
use tokio::io::AsyncWriteExt;
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinSet;

/// How long the store may take to answer when the service starts.
const ANSWER: Duration = Duration::from_secs(30);
/// How long removals may take when the service ends.
const REMOVE: Duration = Duration::from_secs(10);

/// Where objects are, each under its sha256.
pub(super) struct Objects {
    url: String,
    store: Arc<dyn ObjectStore>,
    folder: Path,
    /// Whether all in the folder goes with the service.
    own: bool,
    /// Whoever has it makes an object visible, or removes one. Between the two, who needs what may change.
    turn: Arc<tokio::sync::Mutex<()>>,
    removals: Mutex<JoinSet<()>>,
}

impl Objects {
    /// Objects below a URL such as `s3://bucket/folder`. With `own`, in a folder there that is of this value alone: other
    /// services may use the same URL, and know nothing of which job needs what here.
    pub(super) async fn new(url: &str, own: bool) -> Result<Self, String> {
        let mut url = url.trim_end_matches('/').to_owned();
        let unique = unique();
        if own {
            url = format!("{url}/service-{unique}");
        }
        let location = Location::parse(&url).map_err(|error| error.to_string())?;
        let folder = Path::parse(&location.key).map_err(|error| error.to_string())?;
        let objects = Self {
            url,
            store: location.store,
            folder,
            own,
            turn: Arc::default(),
            removals: Mutex::default(),
        };
        // What is not allowed, or wrong in the settings, is better heard now than by the first job.
        let probe = objects.folder.clone().join(format!("probe-{unique}"));
        let tried = async {
            objects
                .store
                .put(&probe, PutPayload::from_static(b"probe"))
                .await?;
            objects.store.delete(&probe).await
        };
        match tokio::time::timeout(ANSWER, tried).await {
            Ok(Ok(())) => {}
            Ok(Err(Error::NotFound { .. })) => {
                return Err(format!(
                    "there is no {}; make it, or correct its name",
                    location.root
                ));
            }
            Ok(Err(error)) => return Err(objects.explain(&error)),
            Err(_) => return Err(format!("it does not answer within {} s", ANSWER.as_secs())),
        }
        Ok(objects)
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Whether objects of services before this one may be there.
    pub(super) fn is_shared(&self) -> bool {
        !self.own
    }

    pub(super) fn file(&self, sha256: &str) -> String {
        format!("{}/{sha256}", self.url)
    }

    fn path(&self, name: &str) -> Path {
        self.folder.clone().join(name)
    }

    fn explain(&self, error: &Error) -> String {
        explain(&self.url, error)
    }

    fn error(&self, error: Error) -> io::Error {
        io::Error::other(self.explain(&error))
    }

    /// Whether the object is there. (That it is what it was is seen when it is read: its hash is.)
    pub(super) async fn has(&self, sha256: &str) -> bool {
        match self.store.head(&self.path(sha256)).await {
            Ok(_) => true,
            Err(Error::NotFound { .. }) => false,
            Err(error) => {
                tracing::warn!("cannot look for {}: {}", self.file(sha256), self.explain(&error));
                false
            }
        }
    }

    /// Whoever waits for this removes nothing that is being made visible.
    pub(super) async fn turn(&self) -> OwnedMutexGuard<()> {
        self.turn.clone().lock_owned().await
    }

    /// Removes an object, unless `needed` says that it is needed again by the time that it is this one's turn.
    pub(super) fn remove(&self, sha256: &str, needed: impl Fn() -> bool + Send + 'static) {
        let (store, turn, path) = (self.store.clone(), self.turn.clone(), self.path(sha256));
        let url = self.file(sha256);
        let mut removals = self.removals.lock();
        while removals.try_join_next().is_some() {}
        removals.spawn(async move {
            let _turn = turn.lock().await;
            if needed() {
                return;
            }
            match store.delete(&path).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => tracing::warn!("cannot remove {url}: {}", explain(&url, &error)),
            }
        });
    }

    /// Awaits removals, and removes the rest of what is this value's own.
    pub(super) async fn close(&self) {
        let mut removals = std::mem::take(&mut *self.removals.lock());
        let all = async {
            while removals.join_next().await.is_some() {}
            if self.own {
                let found = self.store.list(Some(&self.folder)).map_ok(|meta| meta.location);
                let found: Vec<Path> = found.try_collect().await?;
                for path in found {
                    self.store.delete(&path).await?;
                }
            }
            Ok(())
        };
        match tokio::time::timeout(REMOVE, all).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!("{} keeps what is there: {}", self.url, self.explain(&error));
            }
            Err(_) => tracing::warn!("{} keeps what is there: it does not answer", self.url),
        }
    }

    /// Begins an object, directly under its hash if that is known.
    pub(super) fn begin(&self, sha256: &str) -> Upload {
        let path = match is_hash(sha256) {
            true => self.path(sha256),
            false => self.path(&format!("partial-{}", unique())),
        };
        Upload {
            writer: Some(BufWriter::new(self.store.clone(), path.clone())),
            path,
        }
    }

    /// Makes what was received visible under its hash.
    pub(super) async fn finish(&self, mut upload: Upload, sha256: &str) -> io::Result<()> {
        if let Some(mut writer) = upload.writer.take() {
            // One that fails here cannot be aborted any more.
            writer.shutdown().await.map_err(|error| self.explained(error))?;
        }
        let path = self.path(sha256);
        if upload.path != path {
            let copied = self.store.copy(&upload.path, &path).await;
            let removed = self.store.delete(&upload.path).await;
            copied.and(removed).map_err(|error| self.error(error))?;
        }
        Ok(())
    }

    fn explained(&self, error: io::Error) -> io::Error {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        let text = match inner {
            Some(inner) => self.explain(inner),
            None => explain(&self.url, &error),
        };
        io::Error::new(error.kind(), text)
    }

    pub(super) async fn write(&self, upload: &mut Upload, data: Bytes) -> io::Result<()> {
        let Some(writer) = &mut upload.writer else {
            return Err(io::Error::other("the upload has ended"));
        };
        let put = writer.put(data).await;
        put.map_err(|error| self.error(error))
    }

    pub(super) async fn open(&self, sha256: &str) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
        let got = self.store.get(&self.path(sha256)).await;
        let url = self.url.clone();
        let chunks = got.map_err(|error| self.error(error))?.into_stream();
        Ok(chunks
            .map_err(move |error| io::Error::other(explain(&url, &error)))
            .boxed())
    }
}

/// An object that is being received. Dropped before its end, it leaves nothing.
pub(super) struct Upload {
    writer: Option<BufWriter>,
    path: Path,
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Parts of an upload that is not finished would be kept, and paid for.
        if let Some(mut writer) = self.writer.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { drop(writer.abort().await) });
        }
    }
}

/// A name that no other service, and no other upload of this one, takes.
fn unique() -> String {
    let random = || RandomState::new().hash_one((SystemTime::now(), std::process::id()));
    format!("{:016x}{:016x}", random(), random())
}
