//! Workers of an external pool. The LOOPBACK environment of Beam's SDKs is a pool in the launcher's process.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use purlin_net::{Purpose, endpoint, root_cause, without_token};
use purlin_proto::fn_execution::beam_fn_external_worker_pool_client::BeamFnExternalWorkerPoolClient;
use purlin_proto::{fn_execution as fnapi, pipeline};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::transport::Channel;

use super::Environments;
use super::process::start_error;
use crate::options::in_launcher;
use crate::worker::{StartWorker, Worker, WorkerError};

const CONNECT: Duration = Duration::from_secs(5);
/// A pool may fetch what the worker needs before it answers.
const START: Duration = Duration::from_secs(300);
const STOP: Duration = Duration::from_secs(5);
/// How long it is waited after a connection to a pool has ended until it is looked whether the pool has.
const LOOK: Duration = Duration::from_millis(100);

impl Environments {
    pub(super) async fn external(
        self,
        request: StartWorker,
        payload: pipeline::ExternalPayload,
    ) -> Result<Arc<dyn Worker>, WorkerError> {
        let addresses = payload.endpoint.map(|e| e.url).unwrap_or_default();
        let addresses: Vec<&str> = addresses.split(',').map(str::trim).collect();
        let loopback = in_launcher(&request.pipeline_options);
        let worker = self.server.expect(&request)?;
        // Pools take turns; one that does not start the worker leaves it to the next.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (mut reasons, mut known) = (Vec::new(), false);
        for at in 0..addresses.len() {
            let address = addresses[turn.wrapping_add(at) % addresses.len()];
            match self.start_at(address, &request, &payload.params).await {
                Ok(pool) => {
                    if !reasons.is_empty() {
                        tracing::warn!("{}", reasons.join("; "));
                    }
                    if !loopback {
                        // A pool tells the end of a worker's process. In the launcher there is none but the launcher's.
                        worker.connection().watch();
                    }
                    worker.on_stop(Box::pin(stop(pool, request.worker_id.clone())));
                    let from = match loopback {
                        true => format!("in the program that submitted the job, at {address}"),
                        false => format!("started by the worker pool at {address}"),
                    };
                    let Err(error) = self.connection(&worker, &from, gone(address, loopback)).await else {
                        return Ok(Arc::new(worker));
                    };
                    worker.stop().await;
                    if loopback && is_closed(address).await {
                        return Err(submitter_gone(address));
                    }
                    return Err(error.error(&request, |reason| format!("{reason} ({from})")));
                }
                Err(NoStart::Unreachable(_)) if loopback && request.had_one => {
                    return Err(submitter_gone(address));
                }
                Err(NoStart::Unreachable(_)) if loopback => {
                    return Err(start_error(&request, submitter_silent(address)));
                }
                Err(NoStart::Unreachable(reason)) => {
                    known |= request.had_one;
                    reasons.push(reason);
                }
                Err(NoStart::Refused(reason)) => {
                    known = true;
                    reasons.push(reason);
                }
                Err(NoStart::Broken(reason)) => {
                    known = true;
                    // Its end within the call is a broken connection, which says little.
                    match closes(address).await {
                        true if loopback => return Err(submitter_gone(address)),
                        true => reasons.push(pool_ended(address)),
                        false => reasons.push(reason),
                    }
                }
                Err(NoStart::NoAddress(reason)) => reasons.push(reason),
            }
        }
        let (environment, reason) = (request.environment_id, reasons.join("; "));
        // A pool that is there, or was, may do better at another time; an address where none ever was will not.
        Err(match known {
            true => WorkerError::Died { environment, reason },
            false => WorkerError::Start { environment, reason },
        })
    }

    /// Asks one pool.
    async fn start_at(
        &self,
        address: &str,
        request: &StartWorker,
        params: &HashMap<String, String>,
    ) -> Result<BeamFnExternalWorkerPoolClient<Channel>, NoStart> {
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
        let told = |error: &str| format!("the worker pool at {address} could not start a worker: {error}");
        match started.await {
            Ok(response) if response.get_ref().error.is_empty() => Ok(pool),
            Ok(response) => Err(NoStart::Refused(told(&response.get_ref().error))),
            Err(status) => Err(NoStart::Broken(told(status.message()))),
        }
    }
}

async fn stop(mut pool: BeamFnExternalWorkerPoolClient<Channel>, worker_id: String) {
    let name = without_token(&worker_id).to_owned();
    let request = timed(fnapi::StopWorkerRequest { worker_id }, STOP);
    // A LOOPBACK pool may have ended with its launcher; the worker's streams are closed in any case.
    match pool.stop_worker(request).await {
        Ok(response) if response.get_ref().error.is_empty() => {}
        Ok(response) => {
            tracing::warn!(worker = %name, "the pool could not stop it: {}", response.get_ref().error)
        }
        Err(status) => tracing::debug!(worker = %name, "the pool did not answer: {}", status.message()),
    }
}

fn timed<T>(message: T, timeout: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Why a pool did not start a worker.
enum NoStart {
    /// It cannot be asked there at all.
    NoAddress(String),
    /// It does not answer.
    Unreachable(String),
    /// It answered with an error.
    Refused(String),
    /// It did not answer the call.
    Broken(String),
}

fn bare(address: &str) -> &str {
    address.trim().trim_start_matches("http://")
}

fn submitter_gone(address: &str) -> WorkerError {
    WorkerError::SubmitterGone(format!(
        "the program that submitted the job is gone (it ran the job's workers, and nothing answers at {address} any more)"
    ))
}

fn submitter_silent(address: &str) -> String {
    format!(
        "the program that submitted the job is to run its workers (LOOPBACK), and does not answer at {address}: it has \
         ended, or runs on another machine than this service; there use --environment_type=EXTERNAL, PROCESS or DOCKER"
    )
}

/// Resolves when nothing listens any more where a pool was.
///
/// A connection on which nothing is said is held: it ends with the pool. A pool that closes it and goes on takes another.
async fn gone(address: &str, loopback: bool) -> String {
    while let Ok(mut connection) = TcpStream::connect(bare(address)).await {
        let mut buffer = [0; 256];
        while matches!(connection.read(&mut buffer).await, Ok(1..)) {}
        tokio::time::sleep(LOOK).await;
    }
    match loopback {
        true => "the program that submitted the job ended while its worker started".to_owned(),
        false => pool_ended(address),
    }
}

fn pool_ended(address: &str) -> String {
    format!("the worker pool at {address} ended while the worker started")
}

/// Whether nothing listens there.
async fn is_closed(address: &str) -> bool {
    TcpStream::connect(bare(address)).await.is_err()
}

/// As [`is_closed`], or soon will be: what ends closes its connections before the address, or after it.
async fn closes(address: &str) -> bool {
    for _ in 0..10 {
        if is_closed(address).await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    false
}

async fn connect(address: &str) -> Result<BeamFnExternalWorkerPoolClient<Channel>, NoStart> {
    let bare = bare(address);
    if bare.is_empty() {
        return Err(NoStart::NoAddress(
            "it names no worker pool; give its address as --environment_config=HOST:PORT".into(),
        ));
    }
    let endpoint = endpoint(bare, Purpose::Calls, CONNECT);
    let endpoint = endpoint.map_err(|e| NoStart::NoAddress(format!("the worker pool's address: {e}")))?;
    let channel = endpoint.connect().await.map_err(|e| {
        NoStart::Unreachable(format!(
            "no worker pool answers at {address} ({}); start one, for example `purlin-worker-pool --port=PORT`, or use \
             --environment_type=LOOPBACK",
            root_cause(&e)
        ))
    })?;
    Ok(BeamFnExternalWorkerPoolClient::new(channel))
}
