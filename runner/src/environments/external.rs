//! Workers of an external pool. The LOOPBACK environment of Beam's SDKs is a pool in the launcher's process.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use purlin_proto::fn_execution::beam_fn_external_worker_pool_client::BeamFnExternalWorkerPoolClient;
use purlin_proto::{fn_execution as fnapi, pipeline};
use tonic::transport::{Channel, Endpoint};

use super::Environments;
use crate::worker::{StartWorker, Worker, WorkerError};

const CONNECT: Duration = Duration::from_secs(5);
/// A pool may fetch what the worker needs before it answers.
const START: Duration = Duration::from_secs(300);
const STOP: Duration = Duration::from_secs(5);

impl Environments {
    pub(super) async fn external(
        self,
        request: StartWorker,
        payload: pipeline::ExternalPayload,
    ) -> Result<Arc<dyn Worker>, WorkerError> {
        let environment = request.environment_id.clone();
        let failed = |reason: String| WorkerError::Start {
            environment: environment.clone(),
            reason,
        };
        let addresses = payload.endpoint.map(|e| e.url).unwrap_or_default();
        let addresses: Vec<&str> = addresses.split(',').map(str::trim).collect();
        let worker = self.server.expect(&request)?;
        // Pools take turns; one that does not start the worker leaves it to the next.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut reasons = Vec::new();
        for at in 0..addresses.len() {
            let address = addresses[turn.wrapping_add(at) % addresses.len()];
            match self.start_at(address, &request, &payload.params).await {
                Ok(pool) => {
                    if !reasons.is_empty() {
                        tracing::warn!("{}", reasons.join("; "));
                    }
                    worker.link().watch();
                    worker.on_stop(Box::pin(stop(pool, request.worker_id.clone())));
                    if let Err(reason) = self.connection(&worker, std::future::pending()).await {
                        worker.stop().await;
                        return Err(failed(format!(
                            "{reason} (started by the worker pool at {address})"
                        )));
                    }
                    return Ok(Arc::new(worker));
                }
                Err(reason) => reasons.push(reason),
            }
        }
        Err(failed(reasons.join("; ")))
    }

    /// Asks one pool.
    async fn start_at(
        &self,
        address: &str,
        request: &StartWorker,
        params: &HashMap<String, String>,
    ) -> Result<BeamFnExternalWorkerPoolClient<Channel>, String> {
        let mut pool = connect(address).await?;
        let descriptor = |url: &str| {
            Some(pipeline::ApiServiceDescriptor {
                url: url.into(),
                authentication: None,
            })
        };
        let started = pool.start_worker(timed(
            fnapi::StartWorkerRequest {
                worker_id: request.worker_id.clone(),
                control_endpoint: descriptor(self.server.url()),
                logging_endpoint: descriptor(self.server.url()),
                artifact_endpoint: descriptor(self.server.artifact_url()),
                provision_endpoint: descriptor(self.server.url()),
                params: params.clone(),
            },
            START,
        ));
        let error = match started.await {
            Ok(response) => response.into_inner().error,
            Err(status) => status.message().to_owned(),
        };
        match error.is_empty() {
            true => Ok(pool),
            false => Err(format!(
                "the worker pool at {address} could not start a worker: {error}"
            )),
        }
    }
}

async fn stop(mut pool: BeamFnExternalWorkerPoolClient<Channel>, worker_id: String) {
    let request = timed(
        fnapi::StopWorkerRequest {
            worker_id: worker_id.clone(),
        },
        STOP,
    );
    // A LOOPBACK pool may have ended with its launcher; the worker's streams are closed in any case.
    match pool.stop_worker(request).await {
        Ok(response) if response.get_ref().error.is_empty() => {}
        Ok(response) => {
            tracing::warn!(worker = %worker_id, "the pool could not stop it: {}", response.get_ref().error)
        }
        Err(status) => tracing::debug!(worker = %worker_id, "the pool did not answer: {}", status.message()),
    }
}

fn timed<T>(message: T, timeout: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}

async fn connect(address: &str) -> Result<BeamFnExternalWorkerPoolClient<Channel>, String> {
    let bare = address.trim().trim_start_matches("http://");
    if bare.is_empty() {
        return Err("it names no worker pool; give its address as --environment_config=HOST:PORT".into());
    }
    let endpoint = Endpoint::from_shared(format!("http://{bare}"))
        .map_err(|e| format!("{address:?} is no address of a worker pool ({e}); give HOST:PORT"))?;
    let channel = endpoint.connect_timeout(CONNECT).tcp_nodelay(true).connect().await.map_err(|e| {
        format!(
            "no worker pool answers at {address} ({}); start one, for example `purlin-worker-pool --port=PORT`, or use \
             --environment_type=LOOPBACK",
            root_cause(&e)
        )
    })?;
    Ok(BeamFnExternalWorkerPoolClient::new(channel))
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
