//! The pool's service.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use purlin_net::{
    Acceptor, BindError, HostNames, Limit, Limits, MAX_CONNECTIONS, Side, Silence, check_hosts, grpc_server,
    limit_messages, listen, without_token,
};
use purlin_processes::{OwnFolder, allowed_cpus};
use purlin_proto::fn_execution as api;
use purlin_proto::fn_execution::beam_fn_external_worker_pool_server::{
    BeamFnExternalWorkerPool, BeamFnExternalWorkerPoolServer,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::artifacts::Cache;
use crate::launch::Programs;
use crate::web::{self, Counters, count};
use crate::worker::Worker;

/// How many ended workers are remembered, for StopWorker to tell how.
const REMEMBERED: usize = 100;

/// Bytes of a request to start a worker, at most.
const MAX_REQUEST_BYTES: usize = 4 << 20;
/// Bytes of requests that are on their way, at most.
const MAX_BYTES_HELD: usize = 64 << 20;

/// Why a pool did not start.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// No port.
    #[error("--port: {0}")]
    Bind(#[from] BindError),
    /// No folder.
    #[error("cannot use the folder {folder} for staged files: {error}; --artifacts_dir names another")]
    Folder {
        /// Where.
        folder: String,
        /// Why.
        error: std::io::Error,
    },
}

/// How a pool works.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// Host or address to listen on.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Further names under which `/health` and `/metrics` may be asked.
    pub allowed_hosts: Vec<String>,
    /// The harness's program with its first arguments; empty if there is none but what jobs stage.
    pub command: Vec<String>,
    /// The harnesses of Beam's Java and Python SDKs, for jobs that stage no program of their own; without a command only.
    pub programs: Programs,
    /// For staged files (kept by their hash) and workers' own folders.
    pub folder: PathBuf,
    /// So many workers at a time, at most.
    pub max_workers: usize,
    /// Bytes of memory that a worker, with all it starts, may use.
    pub worker_memory: Option<u64>,
    /// CPUs that each worker is kept to, the workers taking turns; all if none.
    pub worker_cpus: Option<usize>,
    /// How long a runner may be unreachable until its workers are ended; none: for ever.
    pub runner_timeout: Option<Duration>,
}

/// A running pool.
pub struct WorkerPool {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

/// What the pool's services share.
pub(crate) struct Shared {
    pub(crate) settings: PoolSettings,
    pub(crate) cache: Cache,
    /// For workers' folders, on the cache's file system.
    pub(crate) own: Arc<OwnFolder>,
    pub(crate) counters: Counters,
    workers: Mutex<HashMap<String, Arc<Worker>>>,
    /// How the last that ended unasked did.
    ended: Mutex<VecDeque<(String, String)>>,
    /// The one of the CPUs that the next worker begins at.
    next_cpu: Mutex<usize>,
}

impl Shared {
    pub(crate) fn workers(&self) -> MutexGuard<'_, HashMap<String, Arc<Worker>>> {
        self.workers.lock()
    }

    pub(crate) fn remember(&self, id: &str, end: String) {
        let mut ended = self.ended.lock();
        if ended.len() == REMEMBERED {
            ended.pop_front();
        }
        ended.push_back((id.to_owned(), end));
    }

    /// The worker has ended. Another may have its id by now.
    pub(crate) fn forget(&self, id: &str, worker: &Arc<Worker>) {
        let mut workers = self.workers();
        if workers.get(id).is_some_and(|now| Arc::ptr_eq(now, worker)) {
            workers.remove(id);
        }
    }

    fn cpus(&self) -> Vec<usize> {
        let Some(count) = self.settings.worker_cpus else {
            return Vec::new();
        };
        take_turns(&allowed_cpus(), count, &mut self.next_cpu.lock())
    }
}

/// So many of the CPUs, from the one on whose turn it is.
fn take_turns(allowed: &[usize], count: usize, next: &mut usize) -> Vec<usize> {
    let begin = *next;
    *next = (begin + count) % allowed.len().max(1);
    let from = allowed.iter().cycle().skip(begin);
    from.take(count.min(allowed.len())).copied().collect()
}

impl WorkerPool {
    /// Listens and serves.
    pub async fn start(settings: PoolSettings) -> Result<Self, PoolError> {
        let unfit = |error| PoolError::Folder {
            folder: settings.folder.display().to_string(),
            error,
        };
        let cache = settings.folder.join("cache");
        std::fs::create_dir_all(&cache).map_err(unfit)?;
        let own = Arc::new(OwnFolder::new(&settings.folder, ".pool-").map_err(unfit)?);
        let cache = Cache::new(cache, own.clone());
        let listener = listen(&settings.host, settings.port).await?;
        let address = listener
            .local_addr()
            .map_err(|error| BindError::new(&settings.host, settings.port, &error))?;
        let names = settings.allowed_hosts.iter().chain([&settings.host]);
        let names = HostNames::new(names.cloned());
        let shared = Arc::new(Shared {
            settings,
            cache,
            own,
            counters: Counters::default(),
            workers: Mutex::default(),
            ended: Mutex::default(),
            next_cpu: Mutex::default(),
        });
        let (stop, mut stopped) = watch::channel(false);
        let routes = Routes::from(web::router(shared.clone()))
            .add_service(BeamFnExternalWorkerPoolServer::new(Pool(shared.clone())));
        let limits = Limits::new(MAX_BYTES_HELD);
        let router = limit_messages(
            routes.into_axum_router(),
            limits,
            Arc::new(|_, _| Limit::of(MAX_REQUEST_BYTES)),
        );
        let incoming = Acceptor::new(listener, Silence::AtFirst, MAX_CONNECTIONS).incoming();
        let serve = grpc_server(Side::Clients)
            // For /health and /metrics.
            .accept_http1(true)
            .add_routes(Routes::from(check_hosts(router, names)))
            .serve_with_incoming_shutdown(incoming, async move {
                let _ = stopped.wait_for(|stop| *stop).await;
            });
        let server = tokio::spawn(async move {
            if let Err(error) = serve.await {
                tracing::error!("the server ended: {error}");
            }
        });
        Ok(Self {
            address,
            shared,
            stop,
            server,
        })
    }

    /// Where the pool listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every worker, then the server.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        let workers: Vec<Arc<Worker>> = self.shared.workers().drain().map(|(_, worker)| worker).collect();
        // All are asked before any is awaited.
        let stops: Vec<JoinHandle<()>> = workers
            .into_iter()
            .map(|worker| tokio::spawn(async move { worker.stop().await }))
            .collect();
        for stop in stops {
            let _ = stop.await;
        }
        // Runners may keep their connections.
        if tokio::time::timeout(Duration::from_millis(200), &mut self.server)
            .await
            .is_err()
        {
            self.server.abort();
        }
        // Tasks that end a little later may hold it still.
        self.shared.own.remove();
    }
}

struct Pool(Arc<Shared>);

#[tonic::async_trait]
impl BeamFnExternalWorkerPool for Pool {
    async fn start_worker(
        &self,
        request: Request<api::StartWorkerRequest>,
    ) -> Result<Response<api::StartWorkerResponse>, Status> {
        let error = self.start(request.into_inner()).await.err().unwrap_or_default();
        if !error.is_empty() {
            count(&self.0.counters.refused);
            tracing::warn!("StartWorker: {error}");
        }
        Ok(Response::new(api::StartWorkerResponse { error }))
    }

    async fn stop_worker(
        &self,
        request: Request<api::StopWorkerRequest>,
    ) -> Result<Response<api::StopWorkerResponse>, Status> {
        let id = request.into_inner().worker_id;
        let worker = self.0.workers().remove(&id);
        let error = match worker {
            Some(worker) => {
                worker.stop().await;
                String::new()
            }
            None => {
                let name = without_token(&id);
                let ended = self.0.ended.lock();
                let end = ended.iter().rev().find(|(ended, _)| *ended == id);
                match end {
                    // As it should: its control stream was closed.
                    Some((_, end)) if end.contains("(exit status 0)") => String::new(),
                    Some((_, end)) => format!("worker {name:?} had ended before: {end}"),
                    None => format!("no worker {name:?} runs in this pool"),
                }
            }
        };
        Ok(Response::new(api::StopWorkerResponse { error }))
    }
}

impl Pool {
    async fn start(&self, request: api::StartWorkerRequest) -> Result<(), String> {
        let id = request.worker_id.clone();
        let worker = Arc::new(Worker::new());
        {
            let mut workers = self.0.workers();
            if workers.contains_key(&id) {
                let name = without_token(&id);
                return Err(format!("worker {name:?} runs in this pool already"));
            }
            let most = self.0.settings.max_workers;
            if workers.len() >= most {
                return Err(format!(
                    "this pool runs {most} workers already, and no more are allowed (--max_workers); start another \
                     pool, or lower --sdk_worker_parallelism"
                ));
            }
            workers.insert(id.clone(), worker.clone());
        }
        let started = worker.start(&self.0, request, self.0.cpus()).await;
        if started.is_err() {
            worker.stop().await;
            self.0.forget(&id, &worker);
        }
        started
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_take_turns_on_the_cpus_that_the_pool_may_use() {
        let (allowed, mut next) = ([4, 5, 6, 7], 0);
        assert_eq!(take_turns(&allowed, 3, &mut next), [4, 5, 6]);
        assert_eq!(take_turns(&allowed, 3, &mut next), [7, 4, 5]);
        assert_eq!(take_turns(&allowed, 9, &mut next), [6, 7, 4, 5]);
        // It may use fewer than before.
        assert_eq!(take_turns(&[1], 1, &mut next), [1]);
    }
}
