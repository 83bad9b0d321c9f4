//! Staged files, named by what they hold, wherever they are.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use purlin_artifacts::{DescribeError, Hasher, is_hash};

use super::folder::{Folder, PartialFile};
#[cfg(feature = "object-store")]
use super::objects::{Objects, Upload};

/// Files are given by pieces of so many bytes.
pub(super) const CHUNK: usize = 1 << 20;

/// Why an artifact was not taken or given.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// What came is not what was announced.
    #[error(
        "artifact {name}: its sha256 is {found}, and {expected} was announced; it changed while it was staged"
    )]
    Mismatch {
        /// What it is called.
        name: String,
        /// Announced hash.
        expected: String,
        /// Hash of what came.
        found: String,
    },
    /// What it says of itself cannot be used.
    #[error(transparent)]
    Description(#[from] DescribeError),
    /// The folder, or the object store, cannot be used.
    #[error(
        "cannot store artifact {name} in {folder}: {error}; {}--artifacts_dir names another folder", .disk.then_some("is the disk full? ").unwrap_or_default()
    )]
    Io {
        /// What it is called.
        name: String,
        /// Where.
        folder: String,
        /// Whether that is a folder of this machine.
        disk: bool,
        /// Why.
        error: io::Error,
    },
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No folder.
    #[error(
        "cannot make a folder for artifacts in {folder}: {error}; --artifacts_dir or TMPDIR names another"
    )]
    Folder {
        /// Where.
        folder: String,
        /// Why.
        error: io::Error,
    },
    /// An object store that cannot be used.
    #[error("--artifacts_dir={url}: artifacts cannot be kept there: {reason}")]
    Objects {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
}

/// Staged files, each named by its sha256 and kept while a job refers to it.
pub struct Store {
    place: Backing,
    /// Whether files go with the last job that needs them.
    clean: bool,
    users: Users,
}

/// The jobs that need a file, by its sha256.
type Users = Arc<Mutex<HashMap<String, HashSet<String>>>>;

enum Backing {
    Folder(Folder),
    #[cfg(feature = "object-store")]
    Objects(Objects),
}

impl Store {
    /// Makes a store in a folder, in an object store where the path is a URL, or an empty one in the system's folder for
    /// temporary files, which is removed with this value. Without `clean`, files stay when their job has ended, so that the
    /// next one need not stage them again.
    pub async fn new(place: Option<&Path>, clean: bool) -> Result<Self, StoreError> {
        let store = |place| Self {
            place,
            clean,
            users: Users::default(),
        };
        if let Some(url) = place.and_then(Path::to_str).filter(|path| path.contains("://")) {
            let failed = |reason| StoreError::Objects {
                url: url.to_owned(),
                reason,
            };
            #[cfg(feature = "object-store")]
            return match Objects::new(url, clean).await {
                Ok(objects) => Ok(store(Backing::Objects(objects))),
                Err(reason) => Err(failed(reason)),
            };
            #[cfg(not(feature = "object-store"))]
            return Err(failed(
                "this service was built without object stores; name a folder, or build it with cargo build --release -p \
                 purlin-job-service --features object-store"
                    .into(),
            ));
        }
        let failed = |error| StoreError::Folder {
            folder: place
                .map_or_else(std::env::temp_dir, Path::to_owned)
                .display()
                .to_string(),
            error,
        };
        let folder = Folder::new(place).map_err(failed)?;
        let kept = folder.kept().map_err(failed)?;
        let store = store(Backing::Folder(folder));
        store
            .users
            .lock()
            .extend(kept.into_iter().map(|sha256| (sha256, HashSet::new())));
        Ok(store)
    }

    /// The store's folder; none if it is in an object store.
    pub fn folder(&self) -> Option<&Path> {
        match &self.place {
            Backing::Folder(folder) => Some(folder.path()),
            #[cfg(feature = "object-store")]
            Backing::Objects(_) => None,
        }
    }

    /// Removes the folder, if it is the store's own, and awaits what else is being removed.
    pub(crate) async fn close(&self) {
        match &self.place {
            Backing::Folder(folder) => folder.close(),
            #[cfg(feature = "object-store")]
            Backing::Objects(objects) => objects.close().await,
        }
    }

    /// How a file is called in this place.
    fn file(&self, sha256: &str) -> String {
        match &self.place {
            Backing::Folder(folder) => folder.file(sha256).display().to_string(),
            #[cfg(feature = "object-store")]
            Backing::Objects(objects) => objects.file(sha256),
        }
    }

    /// Notes that `job` needs the file, and tells where it is if the store has it, unchanged.
    pub(crate) async fn claim(&self, sha256: &str, job: &str) -> Option<String> {
        let noted = {
            let mut users = self.users.lock();
            users.get_mut(sha256).map(|jobs| jobs.insert(job.to_owned()))
        };
        let has = match &self.place {
            Backing::Folder(folder) => noted.is_some() && folder.has(sha256).await,
            #[cfg(feature = "object-store")]
            Backing::Objects(objects) => {
                (noted.is_some() || objects.is_shared() && is_hash(sha256)) && objects.has(sha256).await
            }
        };
        if !has {
            // It is staged anew, in place of the file that someone has changed.
            return None;
        }
        self.users
            .lock()
            .entry(sha256.to_owned())
            .or_default()
            .insert(job.to_owned());
        Some(self.file(sha256))
    }

    /// The hash of the file that the store has under `path`, if it is one of the store's.
    pub(crate) fn known(&self, path: &str) -> Option<String> {
        let name = path.rsplit('/').next()?;
        (is_hash(name) && path == self.file(name) && self.users.lock().contains_key(name))
            .then(|| name.to_owned())
    }

    /// The file's content, by pieces.
    pub(crate) async fn open(&self, sha256: &str) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
        match &self.place {
            Backing::Folder(folder) => folder.open(sha256).await,
            #[cfg(feature = "object-store")]
            Backing::Objects(objects) => objects.open(sha256).await,
        }
    }

    /// A file that is not what it was: the next job that needs it stages it again.
    pub(crate) fn distrust(&self, sha256: &str) {
        tracing::warn!("{} has changed since it was staged", self.file(sha256));
        // In a folder this is seen when it is claimed.
        #[cfg(feature = "object-store")]
        if let Backing::Objects(objects) = &self.place {
            self.users.lock().remove(sha256);
            let (users, hash) = (self.users.clone(), sha256.to_owned());
            objects.remove(sha256, move || users.lock().contains_key(&hash));
        }
    }

    /// Begins a file, whose hash may be announced, and is known at its end.
    pub(crate) async fn begin(&self, name: &str, announced: &str) -> Result<Incoming<'_>, ArtifactError> {
        let part = match &self.place {
            Backing::Folder(folder) => Part::File(folder.begin().map_err(|e| self.error(name, e))?, folder),
            #[cfg(feature = "object-store")]
            Backing::Objects(objects) => Part::Object(objects.begin(announced), objects),
        };
        Ok(Incoming {
            store: self,
            name: name.to_owned(),
            announced: announced.to_owned(),
            part,
            hash: Hasher::new(),
            size: 0,
        })
    }

    /// The job has ended: files that no other job needs go.
    pub(crate) fn release(&self, job: &str) {
        let mut users = self.users.lock();
        users.retain(|sha256, jobs| {
            jobs.remove(job);
            let keep = !jobs.is_empty() || !self.clean;
            if !keep {
                match &self.place {
                    Backing::Folder(folder) => folder.remove(sha256),
                    #[cfg(feature = "object-store")]
                    Backing::Objects(objects) => {
                        let (users, hash) = (self.users.clone(), sha256.clone());
                        objects.remove(sha256, move || users.lock().contains_key(&hash));
                    }
                }
            }
            keep
        });
    }

    fn error(&self, name: &str, error: io::Error) -> ArtifactError {
        let (folder, disk) = match &self.place {
            Backing::Folder(folder) => (folder.path().display().to_string(), true),
            #[cfg(feature = "object-store")]
            Backing::Objects(objects) => (objects.url().to_owned(), false),
        };
        ArtifactError::Io {
            name: name.into(),
            folder,
            disk,
            error,
        }
    }
}

/// A file that is being received. Dropped before its end, it leaves nothing.
pub(crate) struct Incoming<'a> {
    store: &'a Store,
    name: String,
    announced: String,
    part: Part<'a>,
    hash: Hasher,
    size: u64,
}

enum Part<'a> {
    File(PartialFile, &'a Folder),
    #[cfg(feature = "object-store")]
    Object(Upload, &'a Objects),
}

impl Incoming<'_> {
    pub(crate) async fn write(&mut self, data: Bytes) -> Result<(), ArtifactError> {
        self.hash.update(&data);
        self.size += data.len() as u64;
        let written = match &mut self.part {
            Part::File(file, _) => file.write(&data).await,
            #[cfg(feature = "object-store")]
            Part::Object(upload, objects) => objects.write(upload, data).await,
        };
        written.map_err(|e| self.store.error(&self.name, e))
    }

    /// Checks the hash and keeps the file for `job`. Returns where it is, and its hash.
    pub(crate) async fn finish(self, job: &str) -> Result<(String, String), ArtifactError> {
        let Self {
            store,
            name,
            announced,
            part,
            hash,
            size,
        } = self;
        let found = hash.finish();
        if !announced.is_empty() && !announced.eq_ignore_ascii_case(&found) {
            return Err(ArtifactError::Mismatch {
                name,
                expected: announced,
                found,
            });
        }
        let note = || {
            let mut users = store.users.lock();
            users.entry(found.clone()).or_default().insert(job.to_owned());
            users
        };
        let kept = match part {
            Part::File(mut file, folder) => match file.flush().await {
                Ok(()) => {
                    // One lock around both, so that a job that ends does not remove what this one has just claimed.
                    let _users = note();
                    file.keep(&folder.file(&found))
                }
                Err(error) => Err(error),
            },
            #[cfg(feature = "object-store")]
            Part::Object(upload, objects) => {
                // From its turn on, no earlier user's removal takes it away.
                let _turn = objects.turn().await;
                drop(note());
                objects.finish(upload, &found).await
            }
        };
        if let Err(error) = kept {
            let mut users = store.users.lock();
            if let Some(jobs) = users.get_mut(&found) {
                jobs.remove(job);
                if jobs.is_empty() {
                    users.remove(&found);
                }
            }
            return Err(store.error(&name, error));
        }
        tracing::debug!(job, bytes = size, "staged artifact {name}");
        Ok((store.file(&found), found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn stage(
        store: &Store,
        content: &'static [u8],
        announced: &str,
        job: &str,
    ) -> Result<(String, String), ArtifactError> {
        let mut file = store.begin("x.jar", announced).await?;
        let (first, rest) = content.split_at(content.len() / 2);
        file.write(Bytes::from_static(first)).await?;
        file.write(Bytes::from_static(rest)).await?;
        file.finish(job).await
    }

    #[tokio::test]
    async fn files_are_kept_once_and_go_with_their_last_job() {
        let store = Store::new(None, true).await.unwrap();
        let mut hashes = Vec::new();
        for job in ["a", "b"] {
            hashes.push(stage(&store, b"same", "", job).await.unwrap().1);
        }
        assert_eq!(hashes[0], hashes[1]);
        let path = Path::new(&store.file(&hashes[0])).to_owned();
        assert!(path.exists());
        store.release("a");
        assert!(path.exists());
        store.release("b");
        assert!(!path.exists());
        store.close().await;
        assert!(!path.parent().unwrap().exists());
    }

    #[tokio::test]
    async fn files_of_a_given_folder_stay_and_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("new");
        let store = Store::new(Some(&folder), false).await.unwrap();
        let (path, sha256) = stage(&store, b"kept", "", "a").await.unwrap();
        store.release("a");
        drop(store);
        let store = Store::new(Some(&folder), true).await.unwrap();
        assert_eq!(store.claim(&sha256, "b").await.as_ref(), Some(&path));
        std::fs::write(&path, "changed").unwrap();
        assert_eq!(store.claim(&sha256, "b").await, None);
        store.release("b");
        assert!(!Path::new(&path).exists());
    }

    #[tokio::test]
    async fn a_wrong_hash_leaves_nothing() {
        let store = Store::new(None, true).await.unwrap();
        let error = stage(&store, b"changed", "00ff", "job")
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("x.jar") && error.contains("00ff"), "{error}");
        assert_eq!(std::fs::read_dir(store.folder().unwrap()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn only_files_of_the_store_are_known() {
        let store = Store::new(None, true).await.unwrap();
        assert_eq!(store.known("/etc/passwd"), None);
        assert_eq!(store.known(&store.file("../x")), None);
    }
}

#[cfg(all(test, feature = "object-store"))]
mod object_tests {
    use futures::TryStreamExt;
    use purlin_objects::Location;

    use super::*;

    async fn names(url: &str) -> Vec<String> {
        let at = Location::parse(url).unwrap();
        let found = at.store.list(None).map_ok(|meta| meta.location.to_string());
        let mut names: Vec<String> = found.try_collect().await.unwrap();
        names.sort();
        names
    }

    async fn stage(
        store: &Store,
        content: &[u8],
        announced: &str,
        job: &str,
    ) -> Result<(String, String), ArtifactError> {
        let mut file = store.begin("x.jar", announced).await?;
        for piece in content.chunks(CHUNK) {
            file.write(Bytes::copy_from_slice(piece)).await?;
        }
        file.finish(job).await
    }

    async fn read(store: &Store, sha256: &str) -> Vec<u8> {
        let pieces: Vec<Bytes> = store.open(sha256).await.unwrap().try_collect().await.unwrap();
        pieces.concat()
    }

    #[tokio::test]
    async fn objects_are_kept_once_and_go_with_their_last_job() {
        let store = Store::new(Some(Path::new("memory://cleaned/in/here/")), true)
            .await
            .unwrap();
        // More than one part of an upload.
        let content = vec![7; 21 << 20];
        let (url, sha256) = stage(&store, &content, "", "a").await.unwrap();
        assert_eq!(
            stage(&store, &content, &sha256, "b").await.unwrap(),
            (url.clone(), sha256.clone())
        );
        assert!(
            url.starts_with("memory://cleaned/in/here/service-") && url.ends_with(&sha256),
            "{url}"
        );
        assert_eq!(names("memory://cleaned").await.len(), 1);
        assert_eq!(store.known(&url), Some(sha256.clone()));
        assert_eq!(store.known(&format!("memory://cleaned/{sha256}")), None);
        assert_eq!(store.claim(&sha256, "c").await, Some(url.clone()));
        assert!(read(&store, &sha256).await == content);
        store.release("a");
        store.release("b");
        assert_eq!(store.claim(&sha256, "c").await, Some(url));
        store.release("c");
        assert_eq!(store.claim(&sha256, "d").await, None);
        // The next job stages it again, before or after the removal of the old one.
        stage(&store, &content, &sha256, "d").await.unwrap();
        assert!(read(&store, &sha256).await == content);
        store.close().await;
        assert_eq!(names("memory://cleaned").await, [""; 0]);
    }

    #[tokio::test]
    async fn objects_stay_for_other_services() {
        let at = Some(Path::new("memory://kept/x"));
        let store = Store::new(at, false).await.unwrap();
        let (url, sha256) = stage(&store, b"kept", "", "a").await.unwrap();
        assert_eq!(url, format!("memory://kept/x/{sha256}"));
        store.release("a");
        store.close().await;
        let next = Store::new(at, false).await.unwrap();
        assert_eq!(next.known(&url), None);
        assert_eq!(next.claim(&sha256, "b").await, Some(url));
        // One that someone has changed is not given again.
        next.distrust(&sha256);
        assert_eq!(next.known(&next.file(&sha256)), None);
        next.close().await;
        assert_eq!(next.claim(&sha256, "c").await, None);
    }

    #[tokio::test]
    async fn a_wrong_hash_leaves_no_object() {
        let store = Store::new(Some(Path::new("memory://wrong")), false)
            .await
            .unwrap();
        for announced in ["00ff".to_owned(), "0".repeat(64)] {
            let error = stage(&store, b"changed", &announced, "job")
                .await
                .unwrap_err()
                .to_string();
            assert!(error.contains("x.jar") && error.contains(&announced), "{error}");
        }
        assert_eq!(names("memory://wrong").await, [""; 0]);
    }

    #[tokio::test]
    async fn a_url_that_cannot_be_used_is_named_with_the_remedy() {
        for (url, remedy) in [
            ("ftp://x/y", "s3://"),
            ("s3:///y", "name a bucket"),
            ("az://x/y", "AZURE_STORAGE_ACCOUNT_NAME"),
        ] {
            let error = Store::new(Some(Path::new(url)), true)
                .await
                .err()
                .unwrap()
                .to_string();
            assert!(
                error.contains(&format!("--artifacts_dir={url}")) && error.contains(remedy),
                "{error}"
            );
        }
    }
}
