//! Connections to a runner's services.

use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::oneshot;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::HarnessError;

/// The largest gRPC message sent or taken: a little under 2 GiB, which other gRPC libraries cannot pass.
pub(crate) const MAX_MESSAGE_BYTES: usize = i32::MAX as usize;

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

/// An endpoint for jobs of days, large messages and fast bulk data.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, String> {
    let address = address.trim();
    let bare = address.strip_prefix("http://").unwrap_or(address);
    if bare.starts_with("https://") {
        return Err("TLS is not supported; give HOST:PORT of a plain endpoint".into());
    }
    let endpoint = Endpoint::from_shared(format!("http://{bare}"))
        .map_err(|e| format!("{address:?} is no address ({e}); give HOST:PORT"))?;
    Ok(endpoint
        .connect_timeout(Duration::from_secs(20))
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(60)))
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(60))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(32 << 20))
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
    let endpoint = endpoint(address).map_err(failed)?;
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

/// What is at the bottom of an error: layers above it say little.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
