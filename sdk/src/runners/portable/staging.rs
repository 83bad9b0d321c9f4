//! Offers the files of a job to a staging service, which asks for those that it lacks.

use prost::Message;
use purlin_net::MAX_MESSAGE_BYTES;
use purlin_proto::job_management as api;
use purlin_proto::job_management::artifact_request_wrapper::Request as Ask;
use purlin_proto::job_management::artifact_response_wrapper::Response as Answer;
use purlin_proto::job_management::artifact_staging_service_client::ArtifactStagingServiceClient;
use purlin_proto::pipeline as beam;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::connect::{connect, explain};
use crate::error::RunError;

/// Bytes of a file in one message.
const CHUNK: usize = 1 << 20;

/// Answers the staging service until it has all it wants.
pub(super) async fn offer(
    address: &str,
    token: &str,
    artifacts: &[beam::ArtifactInformation],
) -> Result<(), RunError> {
    let failed = |reason: String| RunError::Runner(format!("staging at {address} failed: {reason}"));
    let channel = connect(address).await?;
    let mut client = ArtifactStagingServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let (responses, outbound) = mpsc::channel(4);
    let first = api::ArtifactResponseWrapper {
        staging_token: token.to_owned(),
        ..Default::default()
    };
    // There is room for it: nothing else is on its way.
    let _ = responses.send(first).await;
    let requests = client
        .reverse_artifact_retrieval_service(ReceiverStream::new(outbound))
        .await;
    let mut requests = requests
        .map_err(|status| explain("Staging", address, &status))?
        .into_inner();
    loop {
        let request = requests
            .message()
            .await
            .map_err(|status| failed(status.message().to_owned()))?;
        let Some(request) = request else { return Ok(()) };
        match request.request {
            Some(Ask::ResolveArtifact(resolve)) => {
                // Files are what they are; there is nothing to resolve.
                let resolved = api::ResolveArtifactsResponse {
                    replacements: resolve.artifacts,
                };
                let response = Some(Answer::ResolveArtifactResponse(resolved));
                let answer = api::ArtifactResponseWrapper {
                    response,
                    ..Default::default()
                };
                if responses.send(answer).await.is_err() {
                    return Err(failed(refusal(&mut requests).await));
                }
            }
            Some(Ask::GetArtifact(get)) => {
                let wanted = get.artifact.unwrap_or_default();
                // The service may have what is offered, and no other file of this machine.
                let offered = artifacts
                    .iter()
                    .any(|a| a.type_urn == wanted.type_urn && a.type_payload == wanted.type_payload);
                if !offered {
                    return Err(failed(
                        "the service asks for a file that was not offered".to_owned(),
                    ));
                }
                let file = beam::ArtifactFilePayload::decode(wanted.type_payload)
                    .map_err(|e| failed(format!("the service asks for a file that cannot be read: {e}")))?;
                send(&file.path, &responses, &mut requests)
                    .await
                    .map_err(failed)?;
            }
            None => {
                return Err(failed(
                    "the service sent a request that this client does not know".to_owned(),
                ));
            }
        }
    }
}

/// Why the service takes no more.
async fn refusal(requests: &mut Streaming<api::ArtifactRequestWrapper>) -> String {
    match requests.message().await {
        Err(status) => status.message().to_owned(),
        Ok(Some(_)) => "the service asks for more before it has what it asked for".to_owned(),
        Ok(None) => "the service closed the stream".to_owned(),
    }
}

async fn send(
    path: &str,
    responses: &mpsc::Sender<api::ArtifactResponseWrapper>,
    requests: &mut Streaming<api::ArtifactRequestWrapper>,
) -> Result<(), String> {
    let mut file = tokio::fs::File::open(path)
        .await
        .map_err(|e| format!("cannot read {path}: {e}"))?;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = (&mut file).take(CHUNK as u64).read_to_end(&mut chunk).await;
        let is_last = read.map_err(|e| format!("cannot read {path}: {e}"))? == 0;
        let response = Some(Answer::GetArtifactResponse(api::GetArtifactResponse {
            data: chunk.into(),
        }));
        let answer = api::ArtifactResponseWrapper {
            is_last,
            response,
            ..Default::default()
        };
        // A service whose disk is full, say, does not wait for the rest.
        let sent = tokio::select! {
            biased;
            refused = refusal(requests) => return Err(refused),
            sent = responses.send(answer) => sent,
        };
        if sent.is_err() {
            return Err(refusal(requests).await);
        }
        if is_last {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use purlin_proto::job_management::artifact_staging_service_server::{
        ArtifactStagingService, ArtifactStagingServiceServer,
    };
    use purlin_proto::urns::artifact_types;
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Request, Response, Status};

    use super::*;

    /// Asks for a file, and refuses it after so many messages.
    struct Full {
        artifact: beam::ArtifactInformation,
        after: usize,
    }

    #[tonic::async_trait]
    impl ArtifactStagingService for Full {
        type ReverseArtifactRetrievalServiceStream =
            ReceiverStream<Result<api::ArtifactRequestWrapper, Status>>;

        async fn reverse_artifact_retrieval_service(
            &self,
            request: Request<Streaming<api::ArtifactResponseWrapper>>,
        ) -> Result<Response<Self::ReverseArtifactRetrievalServiceStream>, Status> {
            let mut inbound = request.into_inner();
            let (requests, rx) = mpsc::channel(1);
            let (artifact, after) = (self.artifact.clone(), self.after);
            tokio::spawn(async move {
                inbound.message().await.unwrap();
                let get = api::GetArtifactRequest {
                    artifact: Some(artifact),
                };
                let request = Some(Ask::GetArtifact(get));
                requests
                    .send(Ok(api::ArtifactRequestWrapper { request }))
                    .await
                    .unwrap();
                for _ in 0..after {
                    inbound.message().await.unwrap();
                }
                let full = Status::resource_exhausted("no space left for artifact big; is the disk full?");
                requests.send(Err(full)).await.unwrap();
            });
            Ok(Response::new(ReceiverStream::new(rx)))
        }
    }

    #[tokio::test]
    async fn a_service_that_takes_no_more_says_why() {
        let mut big = tempfile::NamedTempFile::new().unwrap();
        // More than travels ahead of a reader.
        big.write_all(&vec![7; 24 << 20]).unwrap();
        let payload = beam::ArtifactFilePayload {
            path: big.path().display().to_string(),
            sha256: String::new(),
        };
        let artifact = beam::ArtifactInformation {
            type_urn: artifact_types::FILE.to_owned(),
            type_payload: payload.encode_to_vec().into(),
            ..Default::default()
        };
        for after in [0, 1, 3] {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let full = Full {
                artifact: artifact.clone(),
                after,
            };
            let service =
                ArtifactStagingServiceServer::new(full).max_decoding_message_size(MAX_MESSAGE_BYTES);
            let server = tonic::transport::Server::builder().add_service(service);
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
            let error = offer(&address, "token", std::slice::from_ref(&artifact))
                .await
                .unwrap_err()
                .to_string();
            assert!(error.contains("is the disk full?"), "{error}");
        }
    }
}
