//! Starts workers by the URN of their environment.
//!
//! | URN | how |
//! |---|---|
//! | `beam:env:external:v1` | a worker pool is asked; LOOPBACK of Beam's SDKs is this |
//! | `beam:env:process:v1` | a command is run with the flags of Beam's container contract |
//! | `beam:env:harness_subprocess_python:v1` | the SDK's own command is run, addresses in its environment variables |
//! | `beam:env:docker:v1` | a container of the Docker engine is run (feature `docker`) |
//! | `beam:env:anyof:v1` | the first of several that works here |
//!
//! [`KeptWorkers`] gives the workers of jobs that have ended to jobs for which they were made as well.

#[cfg(feature = "docker")]
mod docker;
mod external;
mod idle_workers;
mod process;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use prost::Message;
use purlin_net::without_token;
use purlin_proto::{pipeline, urns};

pub use idle_workers::KeptWorkers;

use crate::fnapi::{FnApiServer, GrpcWorker};
use crate::worker::{StartWorker, Worker, WorkerError, WorkerFactory};

/// Beam's Python SDK names a shell command that runs its harness by this URN (`SUBPROCESS_SDK`).
pub const PYTHON_SUBPROCESS: &str = "beam:env:harness_subprocess_python:v1";

/// How long a worker is waited for without a word to the user.
const PATIENCE: Duration = Duration::from_secs(5);

/// How workers are started.
#[derive(Clone, Debug)]
pub struct EnvironmentSettings {
    /// How long a worker may take from its start to its connection.
    pub connect_timeout: Duration,
}

impl Default for EnvironmentSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(120),
        }
    }
}

/// Starts workers that connect to the Fn API server of this process.
#[derive(Clone)]
pub struct Environments {
    server: Arc<FnApiServer>,
    settings: EnvironmentSettings,
    /// Which of several pools is next.
    turn: Arc<AtomicUsize>,
    #[cfg(feature = "docker")]
    docker: Arc<docker::DockerShared>,
}

impl Environments {
    /// Workers will be told the address of `server`.
    pub fn new(server: Arc<FnApiServer>, settings: EnvironmentSettings) -> Self {
        Self {
            server,
            settings,
            turn: Arc::default(),
            #[cfg(feature = "docker")]
            docker: Arc::default(),
        }
    }

    async fn start_one(self, request: StartWorker) -> Result<Arc<dyn Worker>, WorkerError> {
        let environment = request.environment_id.clone();
        let failed = |reason: String| WorkerError::Start {
            environment: environment.clone(),
            reason,
        };
        match request.environment.urn.as_str() {
            urns::environments::EXTERNAL => {
                let payload = decode::<pipeline::ExternalPayload>(&request).map_err(failed)?;
                self.external(request, payload).await
            }
            urns::environments::PROCESS => {
                let payload = decode::<pipeline::ProcessPayload>(&request).map_err(failed)?;
                self.process(request, payload).await
            }
            PYTHON_SUBPROCESS => self.python_subprocess(request).await,
            urns::environments::ANYOF => {
                let payload = decode::<pipeline::AnyOfEnvironmentPayload>(&request).map_err(failed)?;
                self.any_of(request, payload).await
            }
            urns::environments::DOCKER => {
                let payload = decode::<pipeline::DockerPayload>(&request).map_err(failed)?;
                #[cfg(feature = "docker")]
                return self.docker(request, payload).await;
                #[cfg(not(feature = "docker"))]
                Err(failed(format!(
                    "this build starts no Docker containers (the pipeline asks for image {:?}); use \
                     --environment_type=LOOPBACK, EXTERNAL (with a worker pool's address as --environment_config) or \
                     PROCESS (with {{\"command\": ...}} as --environment_config)",
                    payload.container_image
                )))
            }
            "" => Err(failed("the pipeline gives this environment no URN".into())),
            other => Err(failed(format!(
                "unknown environment {other:?}; use --environment_type=LOOPBACK, EXTERNAL, PROCESS or DOCKER"
            ))),
        }
    }

    async fn any_of(
        self,
        request: StartWorker,
        payload: pipeline::AnyOfEnvironmentPayload,
    ) -> Result<Arc<dyn Worker>, WorkerError> {
        let (mut reasons, mut died) = (Vec::new(), false);
        for choice in payload.environments {
            if choice.urn == urns::environments::ANYOF {
                reasons.push("a choice among choices is not supported".to_owned());
                continue;
            }
            let urn = choice.urn.clone();
            let mut one = request.clone();
            // What the choice itself does not say, the outer environment does.
            let outer = std::mem::replace(&mut one.environment, choice);
            if one.environment.capabilities.is_empty() {
                one.environment.capabilities = outer.capabilities;
            }
            if one.environment.dependencies.is_empty() {
                one.environment.dependencies = outer.dependencies;
            }
            match Box::pin(self.clone().start_one(one)).await {
                Ok(worker) => return Ok(worker),
                Err(WorkerError::Died { reason, .. }) => {
                    died = true;
                    reasons.push(format!("{urn}: {reason}"));
                }
                Err(WorkerError::Start { reason, .. }) => reasons.push(format!("{urn}: {reason}")),
                Err(other) => reasons.push(format!("{urn}: {other}")),
            }
        }
        let reason = match reasons.is_empty() {
            true => "it offers no environment to choose from".to_owned(),
            false => format!("none of its environments works here: {}", reasons.join("; ")),
        };
        let environment = request.environment_id;
        Err(match died {
            true => WorkerError::Died { environment, reason },
            false => WorkerError::Start { environment, reason },
        })
    }

    /// Waits for the worker's control stream, and says so where it lets itself be waited for. `from` says whence the
    /// worker comes; `gone` resolves if it is known that it will not.
    async fn connection(
        &self,
        worker: &GrpcWorker,
        from: &str,
        gone: impl Future<Output = String>,
    ) -> Result<(), NoConnection> {
        let limit = self.settings.connect_timeout;
        let seconds = limit.as_secs_f64();
        let (id, url) = (worker.id(), self.server.url());
        let said = || worker.connection().last_words();
        let waiting = async {
            tokio::time::sleep(PATIENCE).await;
            let text = format!(
                "waiting for worker {id} ({from}), which has not connected to {url} for {} s and has {seconds} s to do so \
                 (--worker_connect_timeout); {}",
                PATIENCE.as_secs(),
                said()
            );
            self.server.warn(&worker.connection().identity(), text);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            connected = worker.connected() => connected.map_err(NoConnection::Died),
            reason = gone => Err(NoConnection::Died(reason)),
            () = tokio::time::sleep(limit) => Err(NoConnection::Late(format!(
                "worker {id} did not connect to {url} within {seconds} s (--worker_connect_timeout); see whether it can \
                 reach that address; {}",
                said()
            ))),
            () = waiting => Err(NoConnection::Late(String::new())),
        }
    }
}

/// Why a worker that was started gave no control stream.
enum NoConnection {
    /// It has ended.
    Died(String),
    /// It has not ended, nor come in time.
    Late(String),
}

impl NoConnection {
    /// The error of the start, its reason put into words by `tell`.
    fn error(self, request: &StartWorker, tell: impl FnOnce(String) -> String) -> WorkerError {
        let environment = request.environment_id.clone();
        match self {
            NoConnection::Died(reason) => WorkerError::Died {
                environment,
                reason: tell(reason),
            },
            NoConnection::Late(reason) => WorkerError::Start {
                environment,
                reason: tell(reason),
            },
        }
    }
}

impl WorkerFactory for Environments {
    fn start(&self, request: StartWorker) -> BoxFuture<'static, Result<Arc<dyn Worker>, WorkerError>> {
        let begun = Instant::now();
        let (environments, worker) = (self.clone(), without_token(&request.worker_id).to_owned());
        async move {
            let started = environments.start_one(request).await;
            let worker_ready_ms = begun.elapsed().as_millis() as u64;
            started.inspect(|_| tracing::info!(%worker, worker_ready_ms, "the worker is ready"))
        }
        .boxed()
    }
}

fn decode<T: Message + Default>(request: &StartWorker) -> Result<T, String> {
    T::decode(request.environment.payload.clone())
        .map_err(|e| format!("its payload is no valid {} message: {e}", request.environment.urn))
}
