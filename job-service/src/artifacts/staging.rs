//! Takes a job's artifacts from the client that submits it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use purlin_artifacts::{Described, Source};
use purlin_proto::job_management::artifact_request_wrapper::Request as Ask;
use purlin_proto::job_management::artifact_response_wrapper::Response as Answer;
use purlin_proto::job_management::artifact_staging_service_server::ArtifactStagingService;
use purlin_proto::{job_management as api, pipeline};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::store::Store;

/// How often it is seen whether a job still waits for its client.
const LOOK: Duration = Duration::from_secs(1);

/// What staging needs of the jobs.
#[async_trait]
pub(crate) trait StagingJobs: Send + Sync + 'static {
    /// Dependencies by environment id of the job prepared with this token; none if there is no such job.
    async fn dependencies(
        &self,
        token: &str,
    ) -> Result<Option<HashMap<String, Vec<pipeline::ArtifactInformation>>>, Status>;
    /// Notes that the client still stages. False: its job has been run, cancelled or forgotten in the meantime.
    fn heard_of(&self, token: &str) -> bool;
    /// Whether its job waits for its client to stage and to run it.
    fn is_prepared(&self, token: &str) -> bool;
    /// Staging ended early: what it brought goes, unless the job may still need it.
    fn abandoned(&self, token: &str);
    /// Replaces them by what was staged.
    async fn staged(
        &self,
        token: &str,
        dependencies: HashMap<String, Vec<pipeline::ArtifactInformation>>,
    ) -> Result<(), Status>;
}

/// The staging service.
#[derive(Clone)]
pub(crate) struct Staging {
    pub(crate) store: Arc<Store>,
    pub(crate) jobs: Arc<dyn StagingJobs>,
}

type Requests = mpsc::Sender<Result<api::ArtifactRequestWrapper, Status>>;

#[tonic::async_trait]
impl ArtifactStagingService for Staging {
    type ReverseArtifactRetrievalServiceStream = ReceiverStream<Result<api::ArtifactRequestWrapper, Status>>;

    async fn reverse_artifact_retrieval_service(
        &self,
        request: Request<Streaming<api::ArtifactResponseWrapper>>,
    ) -> Result<Response<Self::ReverseArtifactRetrievalServiceStream>, Status> {
        let inbound = request.into_inner();
        let (requests, rx) = mpsc::channel(1);
        let staging = self.clone();
        // The first message names the job, and a client may send it only once this call has been answered.
        tokio::spawn(async move {
            let mut client = Client {
                requests: requests.clone(),
                inbound,
            };
            if let Err(status) = staging.stage(&mut client).await {
                tracing::warn!("staging failed: {}", status.message());
                // The client has gone if this fails.
                let _ = requests.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(rx)))
    }
}

impl Staging {
    async fn stage(&self, client: &mut Client) -> Result<(), Status> {
        let token = client.next().await?.staging_token;
        let end = self.stage_job(client, &token).await;
        if end.is_err() {
            self.jobs.abandoned(&token);
        }
        end
    }

    async fn stage_job(&self, client: &mut Client, token: &str) -> Result<(), Status> {
        let Some(environments) = self.jobs.dependencies(token).await? else {
            return Err(Status::not_found(format!(
                "no prepared job has the staging token {token:?}"
            )));
        };
        let mut staged = HashMap::new();
        for (environment, artifacts) in environments {
            staged.insert(environment, self.environment(client, token, artifacts).await?);
        }
        self.jobs.staged(token, staged).await
    }

    /// The client's next message, while its job waits for it.
    async fn next(&self, client: &mut Client, job: &str) -> Result<api::ArtifactResponseWrapper, Status> {
        let message = tokio::select! {
            message = client.next() => message?,
            () = self.forgotten(job) => return Err(over(job)),
        };
        if self.jobs.heard_of(job) {
            Ok(message)
        } else {
            Err(over(job))
        }
    }

    /// Resolves when the job does not wait for its client any more, which may have fallen silent: what it brought is not kept.
    async fn forgotten(&self, job: &str) {
        while self.jobs.is_prepared(job) {
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn environment(
        &self,
        client: &mut Client,
        job: &str,
        artifacts: Vec<pipeline::ArtifactInformation>,
    ) -> Result<Vec<pipeline::ArtifactInformation>, Status> {
        if artifacts.is_empty() {
            return Ok(artifacts);
        }
        let ask = api::ResolveArtifactsRequest {
            artifacts,
            preferred_urns: Vec::new(),
        };
        client.ask(Ask::ResolveArtifact(ask)).await?;
        let answer = self.next(client, job).await?;
        let Some(Answer::ResolveArtifactResponse(resolved)) = answer.response else {
            return Err(Status::invalid_argument(
                "the client answered a resolve request with something else",
            ));
        };
        let mut staged = Vec::with_capacity(resolved.replacements.len());
        for artifact in resolved.replacements {
            staged.push(self.artifact(client, job, artifact).await?);
        }
        Ok(staged)
    }

    async fn artifact(
        &self,
        client: &mut Client,
        job: &str,
        artifact: pipeline::ArtifactInformation,
    ) -> Result<pipeline::ArtifactInformation, Status> {
        let described = Described::read(&artifact).map_err(|error| status(error.into()))?;
        if let Source::Package(package) = &described.source {
            // It passes as it is: neither Beam's SDKs nor its runners fetch packages for a worker.
            tracing::warn!(
                "{package} is left to the workers: their environment must have it, or get it itself"
            );
            return Ok(artifact);
        }
        let announced = described.sha256();
        if let Some(path) = self.store.claim(announced, job).await {
            return Ok(stored(artifact, &path, announced));
        }
        let file = self.store.begin(&described.to_string(), announced).await;
        let mut file = file.map_err(status)?;
        // What a client leaves as it is, it can give: deferred files and types of its own.
        if let Source::Embedded(data) = &described.source {
            file.write(data.clone()).await.map_err(status)?;
        } else {
            client
                .ask(Ask::GetArtifact(api::GetArtifactRequest {
                    artifact: Some(artifact.clone()),
                }))
                .await?;
            loop {
                let answer = self.next(client, job).await?;
                match answer.response {
                    Some(Answer::GetArtifactResponse(chunk)) => {
                        file.write(chunk.data).await.map_err(status)?
                    }
                    None if answer.is_last => {}
                    _ => {
                        return Err(Status::invalid_argument(
                            "the client answered a get request with something else",
                        ));
                    }
                }
                if answer.is_last {
                    break;
                }
            }
        }
        let (path, sha256) = file.finish(job).await.map_err(status)?;
        Ok(stored(artifact, &path, &sha256))
    }
}

fn over(job: &str) -> Status {
    Status::failed_precondition(format!(
        "job {job:?} has been run, cancelled or forgotten while its artifacts were staged"
    ))
}

fn status(error: super::ArtifactError) -> Status {
    use super::ArtifactError as E;
    let message = error.to_string();
    match error {
        E::Mismatch { .. } => Status::data_loss(message),
        E::Description(_) => Status::invalid_argument(message),
        E::Io { .. } => Status::resource_exhausted(message),
    }
}

/// The artifact as a file of the store, in its old role.
fn stored(
    artifact: pipeline::ArtifactInformation,
    path: &str,
    sha256: &str,
) -> pipeline::ArtifactInformation {
    pipeline::ArtifactInformation {
        role_urn: artifact.role_urn,
        role_payload: artifact.role_payload,
        ..purlin_artifacts::file(path, sha256, "")
    }
}

/// The client's end of the stream.
struct Client {
    requests: Requests,
    inbound: Streaming<api::ArtifactResponseWrapper>,
}

impl Client {
    async fn ask(&self, request: Ask) -> Result<(), Status> {
        let request = api::ArtifactRequestWrapper {
            request: Some(request),
        };
        self.requests
            .send(Ok(request))
            .await
            .map_err(|_| Status::cancelled("the client has gone"))
    }

    async fn next(&mut self) -> Result<api::ArtifactResponseWrapper, Status> {
        let message = self.inbound.message().await?;
        message.ok_or_else(|| Status::cancelled("the client ended before all artifacts were staged"))
    }
}
