//! Connections to a runner's services.

use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use purlin_net::{Purpose, endpoint, root_cause};
use tokio::sync::oneshot;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::HarnessError;

/// How long a service may take to accept a connection.
pub(crate) const CONNECT: Duration = Duration::from_secs(20);

/// A channel whose calls bear the worker's id.
pub(super) type WorkerChannel = InterceptedService<Channel, WorkerId>;

/// Puts `worker_id` into the metadata of every call.
#[derive(Clone)]
pub(super) struct WorkerId(MetadataValue<Ascii>);

impl WorkerId {
    pub(super) fn new(id: &str) -> Result<WorkerId, HarnessError> {
        MetadataValue::try_from(id)
            .map(WorkerId)
            .map_err(|_| HarnessError::WorkerId(id.to_owned()))
    }
}

impl Interceptor for WorkerId {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("worker_id", self.0.clone());
        Ok(request)
    }
}

/// Connects to a service of the runner.
pub(super) async fn connect(
    service: &'static str,
    address: &str,
    id: &WorkerId,
) -> Result<WorkerChannel, HarnessError> {
    let failed = |reason: String| HarnessError::Connect {
        service,
        address: address.to_owned(),
        reason,
    };
    let endpoint = endpoint(address, Purpose::Streams, CONNECT).map_err(|e| failed(e.to_string()))?;
    let channel = endpoint.connect().await.map_err(|e| failed(root_cause(&e)))?;
    Ok(InterceptedService::new(channel, id.clone()))
}

/// Held while the answers of a call are read.
pub(super) struct Reading(#[expect(dead_code, reason = "its end is what counts")] oneshot::Sender<()>);

/// What is sent on a call ends when its answers do: a runner that has closed its half of a stream waits for ours.
pub(super) fn while_reading<S: Stream>(messages: S) -> (impl Stream<Item = S::Item>, Reading) {
    let (reading, ended) = oneshot::channel();
    (messages.take_until(ended.map(drop)), Reading(reading))
}
