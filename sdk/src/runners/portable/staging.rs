//! Offers the files of a job to a staging service, which asks for those that it lacks.

use prost::Message;
use purlin_proto::job_management as api;
use purlin_proto::job_management::artifact_request_wrapper::Request as Ask;
use purlin_proto::job_management::artifact_response_wrapper::Response as Answer;
use purlin_proto::job_management::artifact_staging_service_client::ArtifactStagingServiceClient;
use purlin_proto::pipeline as beam;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::connect::{connect, explain};
use crate::error::RunError;
use crate::harness::grpc::MAX_MESSAGE_BYTES;

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
    let gone = |_| failed("the service closed the stream".to_owned());
    responses.send(first).await.map_err(gone)?;
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
                responses.send(answer).await.map_err(gone)?;
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
                send(&file.path, &responses).await.map_err(failed)?;
            }
            None => {
                return Err(failed(
                    "the service sent a request that this client does not know".to_owned(),
                ));
            }
        }
    }
}

async fn send(path: &str, responses: &mpsc::Sender<api::ArtifactResponseWrapper>) -> Result<(), String> {
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
        if responses.send(answer).await.is_err() {
            return Err("the service closed the stream".to_owned());
        }
        if is_last {
            return Ok(());
        }
    }
}
