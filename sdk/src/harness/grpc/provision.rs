//! What the runner tells a worker at its start.

use std::time::Duration;

use purlin_net::MAX_MESSAGE_BYTES;
use purlin_proto::fn_execution::provision_service_client::ProvisionServiceClient;
use purlin_proto::fn_execution::{GetProvisionInfoRequest, ProvisionInfo};

use super::HarnessError;
use super::connect::{WorkerId, connect};

/// Asks for a worker's provision info.
pub(super) async fn fetch(address: &str, worker_id: &str) -> Result<ProvisionInfo, HarnessError> {
    let id = WorkerId::new(worker_id)?;
    let channel = connect("provision", address, &id).await?;
    let mut client = ProvisionServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let mut request = tonic::Request::new(GetProvisionInfoRequest {});
    request.set_timeout(Duration::from_secs(30));
    let response = client
        .get_provision_info(request)
        .await
        .map_err(|status| HarnessError::Connect {
            service: "provision",
            address: address.to_owned(),
            reason: status.message().to_owned(),
        })?;
    Ok(response.into_inner().info.unwrap_or_default())
}
