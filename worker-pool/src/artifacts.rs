//! Staged files: fetched, checked, kept by their sha256, laid out for a worker.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use purlin_artifacts::{DescribeError, Described, Hasher, Source, is_hash};
use purlin_net::{MAX_MESSAGE_BYTES, Purpose, endpoint, root_cause};
use purlin_processes::OwnFolder;
use purlin_proto::job_management as api;
use purlin_proto::job_management::artifact_retrieval_service_client::ArtifactRetrievalServiceClient;
use purlin_proto::pipeline;
use tokio::io::AsyncWriteExt;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use crate::provision::metadata;

const CONNECT: Duration = Duration::from_secs(20);
const RESOLVE: Duration = Duration::from_secs(300);

/// Why staged files were not had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The artifact service does not answer, or refuses.
    #[error("the artifact service at {address} failed: {reason}")]
    Service {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// What came is not what was announced.
    #[error("artifact {name}: its sha256 is {found}, and {expected} was announced; submit the job again")]
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
    /// A folder cannot be used.
    #[error(
        "cannot write artifact {name} in {folder}: {error}; is the disk full? --artifacts_dir names another folder"
    )]
    Io {
        /// What it is called.
        name: String,
        /// Where.
        folder: String,
        /// Why.
        error: io::Error,
    },
}

/// A worker's files.
#[derive(Debug, Default)]
pub struct Staged {
    /// The pipeline's own program, if it was staged.
    pub worker_binary: Option<PathBuf>,
    /// All files, by the names that they were staged to, in the job's order.
    pub files: Vec<PathBuf>,
    /// Packages of the Python index that are wanted besides, as pip takes them.
    pub packages: Vec<String>,
}

/// Files by their sha256.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    /// For what is being fetched: it goes when this process has been killed.
    partial: Arc<OwnFolder>,
    /// Its files are one worker's, which may have them rather than copies.
    given_away: bool,
    fetched: AtomicU64,
    bytes: AtomicU64,
    hits: AtomicU64,
}

impl Cache {
    /// Keeps files in `folder`; `partial`, on the same file system, is for those that are being fetched.
    pub fn new(folder: PathBuf, partial: Arc<OwnFolder>) -> Self {
        Self {
            folder,
            partial,
            given_away: false,
            fetched: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            hits: AtomicU64::new(0),
        }
    }

    /// Keeps the files of one worker, in a folder of its own.
    pub fn of_one_worker(own: Arc<OwnFolder>) -> Self {
        Self {
            given_away: true,
            ..Self::new(own.path().to_owned(), own)
        }
    }

    /// Files fetched, their bytes, and files that were here already.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.fetched), read(&self.bytes), read(&self.hits))
    }

    fn error(&self, name: &str, error: io::Error) -> FetchError {
        FetchError::Io {
            name: name.into(),
            folder: self.folder.display().to_string(),
            error,
        }
    }

    /// Fetches a worker's files, those that are not here yet, and links them into `folder` by their names.
    pub async fn stage(
        &self,
        address: &str,
        worker_id: &str,
        dependencies: Vec<pipeline::ArtifactInformation>,
        folder: &Path,
    ) -> Result<Staged, FetchError> {
        let mut staged = Staged::default();
        if dependencies.is_empty() {
            return Ok(staged);
        }
        let mut service = Service::connect(address, worker_id).await?;
        for artifact in service.resolve(dependencies).await? {
            let described = Described::read(&artifact)?;
            if let Source::Package(package) = &described.source {
                staged.packages.extend(package.pip());
                continue;
            }
            let name = described.file_name().map_err(DescribeError::from)?;
            let kept = self.keep(&mut service, artifact, &described, &name).await?;
            let target = folder.join(&name);
            link(&kept, &target, described.is_program, self.given_away)
                .await
                .map_err(|error| FetchError::Io {
                    name,
                    folder: folder.display().to_string(),
                    error,
                })?;
            if described.is_program {
                staged.worker_binary = Some(target.clone());
            }
            staged.files.push(target);
        }
        Ok(staged)
    }

    /// The file in the cache, fetched where it is not there or no longer what it was.
    async fn keep(
        &self,
        service: &mut Service,
        artifact: pipeline::ArtifactInformation,
        described: &Described,
        name: &str,
    ) -> Result<PathBuf, FetchError> {
        let failed = |e| self.error(name, e);
        let announced = described.sha256();
        if is_hash(announced) {
            let kept = self.folder.join(announced);
            if hash_of(kept.clone())
                .await
                .is_some_and(|found| found == announced)
            {
                self.hits.fetch_add(1, Ordering::Relaxed);
                return Ok(kept);
            }
        }
        let partial = tempfile::Builder::new()
            .prefix("partial-")
            .tempfile_in(self.partial.path());
        let (file, path) = partial.map_err(failed)?.into_parts();
        let mut file = tokio::fs::File::from_std(file);
        let mut hash = Hasher::new();
        let mut size = 0;
        if let Source::Embedded(data) = &described.source {
            hash.update(data);
            size += data.len() as u64;
            file.write_all(data).await.map_err(failed)?;
        } else {
            let mut chunks = service.get(artifact).await?;
            while let Some(chunk) = chunks.message().await.map_err(|s| service.refused(&s))? {
                hash.update(&chunk.data);
                size += chunk.data.len() as u64;
                file.write_all(&chunk.data).await.map_err(failed)?;
            }
        }
        file.flush().await.map_err(failed)?;
        drop(file);
        let found = hash.finish();
        if !announced.is_empty() && announced != found {
            return Err(FetchError::Mismatch {
                name: name.to_owned(),
                expected: announced.to_owned(),
                found,
            });
        }
        let kept = self.folder.join(&found);
        let mode = std::fs::Permissions::from_mode(0o555);
        std::fs::set_permissions(&path, mode).map_err(failed)?;
        path.persist(&kept).map_err(|e| failed(e.error))?;
        self.fetched.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(size, Ordering::Relaxed);
        Ok(kept)
    }
}

/// A name for the kept file in the worker's folder.
async fn link(kept: &Path, target: &Path, is_program: bool, given_away: bool) -> io::Result<()> {
    if let Some(parent) = target.parent() {
        tokio::fs::create_dir_all(parent).await?;
    }
    match tokio::fs::remove_file(target).await {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    // A program may be large and is only read; other files are the worker's own, to change as it likes.
    let linked = (is_program || given_away) && tokio::fs::hard_link(kept, target).await.is_ok();
    if linked && is_program {
        return Ok(());
    }
    if !linked {
        tokio::fs::copy(kept, target).await?;
    }
    let mode = if is_program { 0o755 } else { 0o644 };
    tokio::fs::set_permissions(target, std::fs::Permissions::from_mode(mode)).await
}

/// The file's sha256; none if it is not there.
async fn hash_of(path: PathBuf) -> Option<String> {
    let hash = tokio::task::spawn_blocking(move || purlin_artifacts::hash_of(&path)).await;
    hash.ok()?.ok()
}

/// The runner's artifact service.
struct Service {
    address: String,
    client: ArtifactRetrievalServiceClient<Channel>,
    worker_id: MetadataValue<Ascii>,
}

impl Service {
    async fn connect(address: &str, worker_id: &str) -> Result<Self, FetchError> {
        let failed = |reason: String| FetchError::Service {
            address: address.to_owned(),
            reason,
        };
        if address.is_empty() {
            return Err(failed(
                "the runner names none, and the worker has artifacts".into(),
            ));
        }
        let worker_id = metadata(worker_id).map_err(|e| failed(e.to_string()))?;
        let endpoint = endpoint(address, Purpose::Calls, CONNECT).map_err(|e| failed(e.to_string()))?;
        let channel = endpoint.connect().await.map_err(|e| failed(root_cause(&e)))?;
        Ok(Self {
            address: address.to_owned(),
            client: ArtifactRetrievalServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES),
            worker_id,
        })
    }

    fn refused(&self, status: &tonic::Status) -> FetchError {
        FetchError::Service {
            address: self.address.clone(),
            reason: status.message().to_owned(),
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("worker_id", self.worker_id.clone());
        request
    }

    async fn resolve(
        &mut self,
        artifacts: Vec<pipeline::ArtifactInformation>,
    ) -> Result<Vec<pipeline::ArtifactInformation>, FetchError> {
        let mut request = self.request(api::ResolveArtifactsRequest {
            artifacts,
            preferred_urns: Vec::new(),
        });
        request.set_timeout(RESOLVE);
        let resolved = self.client.resolve_artifacts(request).await;
        Ok(resolved.map_err(|s| self.refused(&s))?.into_inner().replacements)
    }

    async fn get(
        &mut self,
        artifact: pipeline::ArtifactInformation,
    ) -> Result<tonic::Streaming<api::GetArtifactResponse>, FetchError> {
        let request = self.request(api::GetArtifactRequest {
            artifact: Some(artifact),
        });
        let chunks = self.client.get_artifact(request).await;
        Ok(chunks.map_err(|s| self.refused(&s))?.into_inner())
    }
}
