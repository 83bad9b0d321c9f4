//! Worker status: what the harness is doing, in words, when the runner asks.

use std::fmt::Write as _;
use std::sync::Weak;

use purlin_proto::fn_execution::WorkerStatusResponse;
use purlin_proto::fn_execution::beam_fn_worker_status_client::BeamFnWorkerStatusClient;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use super::connect::{WorkerId, connect, while_reading};
use super::control::Shared;

/// Serves the runner's status service. A service that cannot be reached is no reason not to work.
pub(super) async fn open(address: &str, id: &WorkerId, shared: Weak<Shared>) -> Option<JoinHandle<()>> {
    let channel = match connect("worker status", address, id).await {
        Ok(channel) => channel,
        Err(error) => {
            tracing::warn!("{error}");
            return None;
        }
    };
    Some(tokio::spawn(async move {
        let (responses, outbound) = mpsc::channel(4);
        let mut client = BeamFnWorkerStatusClient::new(channel);
        let (outbound, _reading) = while_reading(ReceiverStream::new(outbound));
        let Ok(requests) = client.worker_status(outbound).await else {
            return;
        };
        let mut requests = requests.into_inner();
        while let Ok(Some(request)) = requests.message().await {
            let Some(shared) = shared.upgrade() else { return };
            let response = WorkerStatusResponse {
                id: request.id,
                error: String::new(),
                status_info: describe(&shared),
            };
            if responses.send(response).await.is_err() {
                return;
            }
        }
    }))
}

fn describe(shared: &Shared) -> String {
    let (threads, idle) = shared.threads.counts();
    let active = shared.active();
    let mut text = format!(
        "purlin {}: {} bundles, {threads} threads, {idle} idle\n",
        env!("CARGO_PKG_VERSION"),
        active.len()
    );
    for (instruction, descriptor, age) in active {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "bundle {instruction} of {descriptor}: {:.1} s",
            age.as_secs_f64()
        );
    }
    text
}
