//! What the runner tells of a worker before it starts.

use std::process::Command;
use std::time::Duration;

use purlin_net::{Contract, MAX_MESSAGE_BYTES, Purpose, endpoint, root_cause};
use purlin_proto::fn_execution as api;
use purlin_proto::fn_execution::provision_service_client::ProvisionServiceClient;
use purlin_proto::pipeline::ApiServiceDescriptor;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

/// How long the runner's provision service may take to answer.
const PROVISION: Duration = Duration::from_secs(30);

/// The addresses that a harness is told, empty where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Where bundles come from.
    pub control: String,
    /// Where log entries go.
    pub logging: String,
    /// Where staged files are had.
    pub artifact: String,
    /// Where this was told.
    pub provision: String,
}

impl Endpoints {
    /// Fills in what provision info knows and a request did not say.
    pub fn complete(&mut self, info: &api::ProvisionInfo) {
        for (given, known) in [
            (&mut self.control, &info.control_endpoint),
            (&mut self.logging, &info.logging_endpoint),
            (&mut self.artifact, &info.artifact_endpoint),
        ] {
            if given.is_empty() {
                *given = known.as_ref().map(url).unwrap_or_default();
            }
        }
    }

    /// Adds to the command what its program, a worker's, is to be told.
    pub fn tell(&self, command: &mut Command, worker_id: &str, reads_worker_id: bool) {
        let contract = Contract {
            worker_id,
            logging: &self.logging,
            artifact: &self.artifact,
            provision: &self.provision,
            control: &self.control,
        };
        let (flags, variable) = contract.told(reads_worker_id);
        command.args(flags).envs(variable);
    }
}

/// The address in a descriptor.
pub(crate) fn url(endpoint: &ApiServiceDescriptor) -> String {
    endpoint.url.clone()
}

/// A worker's id, as calls bear it.
pub(crate) fn metadata(worker_id: &str) -> Result<MetadataValue<Ascii>, String> {
    worker_id
        .parse()
        .map_err(|_| format!("worker id {worker_id:?} is no plain text"))
}

/// Asks for a worker's provision info. The error is in words, with what to do.
pub async fn fetch(address: &str, worker_id: &str) -> Result<api::ProvisionInfo, String> {
    let endpoint = endpoint(address, Purpose::Calls, PROVISION);
    let endpoint = endpoint.map_err(|e| format!("the runner's provision service: {e}"))?;
    let channel = endpoint.connect().await.map_err(|e| {
        format!(
            "the runner's provision service at {address} cannot be reached from here ({}); the runner must tell an \
             address that can be (of purlin-job-service: --advertised_host)",
            root_cause(&e)
        )
    })?;
    let mut request = Request::new(api::GetProvisionInfoRequest {});
    request.set_timeout(PROVISION);
    request.metadata_mut().insert("worker_id", metadata(worker_id)?);
    let mut client = ProvisionServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let info = client.get_provision_info(request).await;
    let info =
        info.map_err(|status| format!("the provision service at {address} refused: {}", status.message()))?;
    Ok(info.into_inner().info.unwrap_or_default())
}
