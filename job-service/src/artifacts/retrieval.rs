//! Gives staged artifacts to workers.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use purlin_artifacts::{Described, Hasher, Source};
use purlin_proto::job_management as api;
use purlin_proto::job_management::artifact_retrieval_service_server::ArtifactRetrievalService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::store::{CHUNK, Store};

/// The retrieval service. It gives what is in the store, and no other file of the machine.
#[derive(Clone)]
pub(crate) struct Retrieval {
    pub(crate) store: Arc<Store>,
}

type Chunks = mpsc::Sender<Result<api::GetArtifactResponse, Status>>;

#[tonic::async_trait]
impl ArtifactRetrievalService for Retrieval {
    type GetArtifactStream = ReceiverStream<Result<api::GetArtifactResponse, Status>>;

    async fn resolve_artifacts(
        &self,
        request: Request<api::ResolveArtifactsRequest>,
    ) -> Result<Response<api::ResolveArtifactsResponse>, Status> {
        // Staging has resolved all that can be: they are files of the store, or packages of an index.
        let replacements = request.into_inner().artifacts;
        Ok(Response::new(api::ResolveArtifactsResponse { replacements }))
    }

    async fn get_artifact(
        &self,
        request: Request<api::GetArtifactRequest>,
    ) -> Result<Response<Self::GetArtifactStream>, Status> {
        let artifact = request.into_inner().artifact.unwrap_or_default();
        let described = Described::read(&artifact);
        let described = described.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (chunks, rx) = mpsc::channel(2);
        match described.source {
            Source::File { path, .. } => {
                let Some(sha256) = self.store.known(&path) else {
                    return Err(Status::not_found(format!(
                        "{path:?} is no staged artifact of a job of this service"
                    )));
                };
                let store = self.store.clone();
                tokio::spawn(async move {
                    if let Err(status) = send_file(&store, &sha256, &chunks).await {
                        tracing::error!("artifact {sha256}: {}", status.message());
                        // The worker has gone if this fails.
                        let _ = chunks.send(Err(status)).await;
                    }
                });
            }
            Source::Embedded(data) => {
                tokio::spawn(async move { send(&chunks, data).await });
            }
            Source::Package(package) => {
                return Err(Status::failed_precondition(format!(
                    "this service keeps files, and does not fetch {package}: install it where the worker runs, or let the                      pipeline stage it as a file"
                )));
            }
            Source::Url { .. } | Source::Other(_) => {
                return Err(Status::failed_precondition(format!(
                    "artifacts of type {:?} are not given by this service; let the pipeline stage them as files",
                    artifact.type_urn
                )));
            }
        }
        Ok(Response::new(ReceiverStream::new(rx)))
    }
}

async fn send(chunks: &Chunks, data: Bytes) -> Result<(), Status> {
    for start in (0..data.len()).step_by(CHUNK) {
        let data = data.slice(start..data.len().min(start + CHUNK));
        let sent = chunks.send(Ok(api::GetArtifactResponse { data })).await;
        sent.map_err(|_| Status::cancelled("the worker has gone"))?;
    }
    Ok(())
}

async fn send_file(store: &Store, sha256: &str, chunks: &Chunks) -> Result<(), Status> {
    let failed = |e: std::io::Error| Status::data_loss(format!("cannot read the staged file: {e}"));
    let mut pieces = store.open(sha256).await.map_err(failed)?;
    let mut hash = Hasher::new();
    while let Some(piece) = pieces.try_next().await.map_err(failed)? {
        hash.update(&piece);
        send(chunks, piece).await?;
    }
    if hash.finish() != sha256 {
        store.distrust(sha256);
        return Err(Status::data_loss(
            "the staged file has changed since it was staged; submit the job again",
        ));
    }
    Ok(())
}
