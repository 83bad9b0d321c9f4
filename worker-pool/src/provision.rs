//! What the runner tells of a worker before it starts.

use std::process::Command;
use std::time::Duration;

use purlin_net::{AddressError, Contract, MAX_MESSAGE_BYTES, Purpose, endpoint, root_cause};
use purlin_proto::fn_execution as api;
use purlin_proto::fn_execution::provision_service_client::ProvisionServiceClient;
use purlin_proto::pipeline::ApiServiceDescriptor;
use thiserror::Error;
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

/// Why a worker's provision info was not had.
#[derive(Debug, Error)]
pub enum ProvisionError {
    /// The worker's id cannot be sent.
    #[error(transparent)]
    WorkerId(#[from] WorkerIdError),
    /// The address is none.
    #[error("the runner's provision service: {0}")]
    Address(AddressError),
    /// Nothing answers there.
    #[error(
        "the runner's provision service at {address} cannot be reached from here ({reason}); the runner must tell an \
         address that can be (of purlin-job-service: --advertised_host)"
    )]
    Unreachable {
        /// Where it was told to be.
        address: String,
        /// Why.
        reason: String,
    },
    /// It answers with an error.
    #[error("the provision service at {address} refused: {reason}")]
    Refused {
        /// Where it is.
        address: String,
        /// Its words.
        reason: String,
    },
}

/// A worker's id that calls cannot bear.
#[derive(Debug, Error)]
#[error("worker id {0:?} is no plain text")]
pub struct WorkerIdError(String);

/// A worker's id, as calls bear it.
pub(crate) fn metadata(worker_id: &str) -> Result<MetadataValue<Ascii>, WorkerIdError> {
    worker_id.parse().map_err(|_| WorkerIdError(worker_id.to_owned()))
}

/// Asks for a worker's provision info.
pub async fn fetch(address: &str, worker_id: &str) -> Result<api::ProvisionInfo, ProvisionError> {
    let endpoint = endpoint(address, Purpose::Calls, PROVISION).map_err(ProvisionError::Address)?;
    let channel = endpoint
        .connect()
        .await
        .map_err(|e| ProvisionError::Unreachable {
            address: address.to_owned(),
            reason: root_cause(&e),
        })?;
    let mut request = Request::new(api::GetProvisionInfoRequest {});
    request.set_timeout(PROVISION);
    request.metadata_mut().insert("worker_id", metadata(worker_id)?);
    let mut client = ProvisionServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let info = client.get_provision_info(request).await;
    let info = info.map_err(|status| ProvisionError::Refused {
        address: address.to_owned(),
        reason: status.message().to_owned(),
    })?;
    Ok(info.into_inner().info.unwrap_or_default())
}
