//! Takes a job's artifacts from the client that submits it.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;
use purlin_proto::job_management::artifact_request_wrapper::Request as Ask;
use purlin_proto::job_management::artifact_response_wrapper::Response as Answer;
use purlin_proto::job_management::artifact_staging_service_server::ArtifactStagingService;
use purlin_proto::{job_management as api, pipeline, urns};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::store::{Store, safe_name};

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
        let message = client.next().await?;
        if self.jobs.heard_of(job) {
            Ok(message)
        } else {
            Err(Status::failed_precondition(format!(
                "job {job:?} has been run, cancelled or forgotten while its artifacts were staged"
            )))
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
        let described = Described::read(&artifact)?;
        if described.stays {
            return Ok(artifact);
        }
        if let Some(path) = self.store.claim(&described.sha256, job).await {
            return Ok(stored(&artifact, path, described.sha256));
        }
        let file = self.store.begin(&described.name, &described.sha256).await;
        let mut file = file.map_err(status)?;
        if let Some(data) = described.embedded {
            file.write(data).await.map_err(status)?;
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
        Ok(stored(&artifact, path, sha256))
    }
}

fn status(error: super::ArtifactError) -> Status {
    use super::ArtifactError as E;
    let message = error.to_string();
    match error {
        E::Mismatch { .. } => Status::data_loss(message),
        E::UnsafeName { .. } | E::Malformed { .. } => Status::invalid_argument(message),
        E::Io { .. } => Status::resource_exhausted(message),
    }
}

/// The artifact as a file of the store, in its old role.
fn stored(
    artifact: &pipeline::ArtifactInformation,
    path: String,
    sha256: String,
) -> pipeline::ArtifactInformation {
    let payload = pipeline::ArtifactFilePayload { path, sha256 };
    pipeline::ArtifactInformation {
        type_urn: urns::artifact_types::FILE.into(),
        type_payload: payload.encode_to_vec().into(),
        role_urn: artifact.role_urn.clone(),
        role_payload: artifact.role_payload.clone(),
    }
}

/// What an artifact says of itself.
struct Described {
    /// For messages only: no path is ever made of it.
    name: String,
    sha256: String,
    embedded: Option<bytes::Bytes>,
    /// A package of an index, which workers install themselves.
    stays: bool,
}

impl Described {
    fn read(artifact: &pipeline::ArtifactInformation) -> Result<Self, Status> {
        let mut name = String::new();
        if artifact.role_urn == urns::artifact_roles::STAGING_TO {
            let role =
                decode::<pipeline::ArtifactStagingToRolePayload>(&artifact.role_payload, "role payload")?;
            safe_name(&role.staged_name).map_err(status)?;
            name = role.staged_name;
        }
        let payload = &artifact.type_payload;
        let mut described = Self {
            name,
            sha256: String::new(),
            embedded: None,
            stays: false,
        };
        let mut fallback = artifact.type_urn.clone();
        match artifact.type_urn.as_str() {
            urns::artifact_types::FILE => {
                let file = decode::<pipeline::ArtifactFilePayload>(payload, "type payload")?;
                (fallback, described.sha256) = (file.path, file.sha256.to_lowercase());
            }
            urns::artifact_types::URL => {
                let url = decode::<pipeline::ArtifactUrlPayload>(payload, "type payload")?;
                (fallback, described.sha256) = (url.url, url.sha256.to_lowercase());
            }
            urns::artifact_types::EMBEDDED => {
                described.embedded =
                    Some(decode::<pipeline::EmbeddedFilePayload>(payload, "type payload")?.data);
            }
            // They pass as they are: neither Beam's SDKs nor its runners fetch them for a worker.
            urns::artifact_types::PYPI | urns::artifact_types::MAVEN => {
                described.stays = true;
                fallback = package(artifact)
                    .map_err(|e| malformed("type payload", &e))?
                    .unwrap_or_default();
                tracing::warn!(
                    "{fallback} is left to the workers: their environment must have it, or get it itself"
                );
            }
            // What a client leaves as it is, it can give: deferred ones and types of its own.
            _ => {}
        }
        if described.name.is_empty() {
            described.name = fallback;
        }
        Ok(described)
    }
}

fn decode<T: Message + Default>(payload: &bytes::Bytes, what: &'static str) -> Result<T, Status> {
    T::decode(payload.clone()).map_err(|e| malformed(what, &e))
}

fn malformed(what: &'static str, error: &prost::DecodeError) -> Status {
    status(super::ArtifactError::Malformed {
        name: "of the pipeline".into(),
        what,
        reason: error.to_string(),
    })
}

/// The package of an index that an artifact is, in words; none if it is none.
pub(super) fn package(
    artifact: &pipeline::ArtifactInformation,
) -> Result<Option<String>, prost::DecodeError> {
    let payload = artifact.type_payload.clone();
    Ok(match artifact.type_urn.as_str() {
        urns::artifact_types::PYPI => {
            let package = pipeline::PyPiPayload::decode(payload)?;
            let equals = if package.version.is_empty() { "" } else { "==" };
            Some(format!(
                "Python package {}{equals}{}",
                package.artifact_id, package.version
            ))
        }
        urns::artifact_types::MAVEN => {
            let package = pipeline::MavenPayload::decode(payload)?;
            let from = match package.repository_url.as_str() {
                "" => "Maven Central",
                url => url,
            };
            Some(format!("Java package {} of {from}", package.artifact))
        }
        _ => None,
    })
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
