//! Staged files in a folder of this machine.

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use purlin_artifacts::{hash_of, is_hash};
use purlin_processes::OwnFolder;
use tempfile::TempPath;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::store::CHUNK;

/// Where files are, each under its sha256.
pub(super) struct Folder {
    /// Compared with the paths that workers give.
    files: PathBuf,
    /// For what is being received, on the same file system; by default, for all.
    own: OwnFolder,
}

impl Folder {
    /// The user's folder, or one among the temporary files that ends with this value.
    pub(super) fn new(given: Option<&Path>) -> io::Result<Self> {
        let Some(given) = given else {
            let own = OwnFolder::new(&std::env::temp_dir(), "purlin-artifacts-")?;
            let files = own.path().to_owned();
            return Ok(Self { files, own });
        };
        std::fs::create_dir_all(given)?;
        let own = OwnFolder::new(given, ".partial-")?;
        let files = given.canonicalize()?;
        Ok(Self { files, own })
    }

    pub(super) fn path(&self) -> &Path {
        &self.files
    }

    /// The hashes of what an earlier service left.
    pub(super) fn kept(&self) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(&self.files)?.flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter(|name| is_hash(name)).collect())
    }

    pub(super) fn file(&self, sha256: &str) -> PathBuf {
        self.files.join(sha256)
    }

    /// Whether the file is there, and holds what it held.
    pub(super) async fn has(&self, sha256: &str) -> bool {
        let (path, wanted) = (self.file(sha256), sha256.to_owned());
        let same = tokio::task::spawn_blocking(move || hash_of(&path).is_ok_and(|found| found == wanted));
        same.await.unwrap_or(false)
    }

    pub(super) fn remove(&self, sha256: &str) {
        // Gone already is gone.
        let _ = std::fs::remove_file(self.file(sha256));
    }

    pub(super) fn close(&self) {
        self.own.remove();
    }

    pub(super) fn begin(&self) -> io::Result<PartialFile> {
        let (file, path) = tempfile::NamedTempFile::new_in(self.own.path())?.into_parts();
        Ok(PartialFile {
            file: File::from_std(file),
            path,
        })
    }

    pub(super) async fn open(&self, sha256: &str) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
        let file = File::open(self.file(sha256)).await?;
        let chunks = stream::try_unfold(file, |mut file| async move {
            let mut chunk = BytesMut::with_capacity(CHUNK);
            while chunk.len() < CHUNK && file.read_buf(&mut chunk).await? > 0 {}
            Ok((!chunk.is_empty()).then(|| (chunk.freeze(), file)))
        });
        Ok(chunks.boxed())
    }
}

/// A file that is being received. Dropped before its end, it leaves nothing.
pub(super) struct PartialFile {
    file: File,
    path: TempPath,
}

impl PartialFile {
    pub(super) async fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all(data).await
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.file.flush().await
    }

    pub(super) fn keep(self, path: &Path) -> io::Result<()> {
        self.path.persist(path).map_err(|e| e.error)
    }
}
