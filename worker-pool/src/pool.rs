//! The pool's service.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use purlin_proto::fn_execution as api;
use purlin_proto::fn_execution::beam_fn_external_worker_pool_server::{
    BeamFnExternalWorkerPool, BeamFnExternalWorkerPoolServer,
};
use purlin_proto::fn_execution::provision_service_client::ProvisionServiceClient;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

use crate::harness::Harness;

/// How long the runner's provision service may take to answer.
const PROVISION: Duration = Duration::from_secs(10);
/// A harness that cannot even start ends within this time, and the runner is told why.
const EARLY_END: Duration = Duration::from_millis(100);

/// Why a pool did not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {host}:{port}: {error}; --port chooses another port (0 takes a free one)")]
pub struct PoolError {
    host: String,
    port: u16,
    error: std::io::Error,
}

/// A running pool.
pub struct WorkerPool {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

struct Shared {
    /// Program and arguments of the harness.
    command: Vec<String>,
    workers: Mutex<HashMap<String, Arc<Harness>>>,
}

impl Shared {
    fn workers(&self) -> MutexGuard<'_, HashMap<String, Arc<Harness>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WorkerPool {
    /// Listens and serves. `command` is the harness's program with its first arguments; empty if the pool has none.
    pub async fn start(host: &str, port: u16, command: Vec<String>) -> Result<Self, PoolError> {
        let failed = |error| PoolError {
            host: host.to_owned(),
            port,
            error,
        };
        let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
            .await
            .map_err(failed)?
            .collect();
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let listener = TcpListener::bind(addresses.as_slice()).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            command,
            workers: Mutex::default(),
        });
        let (stop, mut stopped) = watch::channel(false);
        let serve = Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .add_service(BeamFnExternalWorkerPoolServer::new(Pool(shared.clone())))
            .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async move {
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
        let workers: Vec<Arc<Harness>> = self.shared.workers().drain().map(|(_, worker)| worker).collect();
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
            None => format!("no worker {id:?} runs in this pool"),
        };
        Ok(Response::new(api::StopWorkerResponse { error }))
    }
}

impl Pool {
    async fn start(&self, request: api::StartWorkerRequest) -> Result<(), String> {
        let Some((program, arguments)) = self.0.command.split_first() else {
            return Err("this pool was started without --harness_command, so it cannot start workers".into());
        };
        let url = |endpoint: Option<purlin_proto::pipeline::ApiServiceDescriptor>| endpoint.map(|e| e.url);
        let id = request.worker_id;
        let provision = url(request.provision_endpoint).filter(|url| !url.is_empty());
        let mut control = url(request.control_endpoint).unwrap_or_default();
        let mut logging = url(request.logging_endpoint).unwrap_or_default();
        let mut artifact = url(request.artifact_endpoint).unwrap_or_default();
        if let Some(provision) = &provision {
            let info = provision_info(provision, &id).await?;
            for (given, known) in [
                (&mut control, info.control_endpoint),
                (&mut logging, info.logging_endpoint),
                (&mut artifact, info.artifact_endpoint),
            ] {
                if given.is_empty() {
                    *given = url(known).unwrap_or_default();
                }
            }
        }
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg(format!("--id={id}"))
            .arg(format!("--logging_endpoint={logging}"))
            .arg(format!("--artifact_endpoint={artifact}"))
            .arg(format!("--provision_endpoint={}", provision.unwrap_or_default()))
            .arg(format!("--control_endpoint={control}"));
        let harness = {
            let mut workers = self.0.workers();
            if workers.contains_key(&id) {
                return Err(format!("worker {id:?} runs in this pool already"));
            }
            let harness = Harness::start(id.clone(), command);
            let harness =
                Arc::new(harness.map_err(|e| format!("cannot run {program:?}: {e}; see --harness_command"))?);
            workers.insert(id.clone(), harness.clone());
            harness
        };
        tracing::info!(worker = %id, "started");
        if let Ok(end) = tokio::time::timeout(EARLY_END, harness.ended()).await {
            self.0.workers().remove(&id);
            return Err(format!("{program:?} ended at once ({end})"));
        }
        let (shared, watched) = (self.0.clone(), Arc::downgrade(&harness));
        let mut end = harness.end();
        tokio::spawn(async move {
            let _ = end.wait_for(Option::is_some).await;
            let mut workers = shared.workers();
            // Another worker may have the id by now.
            if workers
                .get(&id)
                .is_some_and(|now| std::ptr::eq(Arc::as_ptr(now), watched.as_ptr()))
            {
                workers.remove(&id);
            }
        });
        Ok(())
    }
}

async fn provision_info(url: &str, worker_id: &str) -> Result<api::ProvisionInfo, String> {
    let bare = url.trim_start_matches("http://");
    let endpoint = Endpoint::from_shared(format!("http://{bare}"));
    let endpoint = endpoint.map_err(|e| format!("{url:?} is no address of a provision service: {e}"))?;
    let channel = endpoint.connect_timeout(PROVISION).connect().await.map_err(|e| {
        format!("this pool cannot reach the runner's provision service at {url} ({e}); the runner must tell an address that is reachable from here")
    })?;
    let mut request = Request::new(api::GetProvisionInfoRequest {});
    request.set_timeout(PROVISION);
    let id = worker_id
        .parse()
        .map_err(|_| format!("worker id {worker_id:?} is no plain text"))?;
    request.metadata_mut().insert("worker_id", id);
    let info = ProvisionServiceClient::new(channel)
        .get_provision_info(request)
        .await;
    let info =
        info.map_err(|status| format!("the provision service at {url} refused: {}", status.message()))?;
    Ok(info.into_inner().info.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use purlin_proto::fn_execution::beam_fn_external_worker_pool_client::BeamFnExternalWorkerPoolClient;
    use purlin_proto::pipeline::ApiServiceDescriptor;
    use std::os::unix::fs::PermissionsExt;
    use tonic::transport::Channel;

    fn boot(dir: &tempfile::TempDir, body: &str) -> Vec<String> {
        let path = dir.path().join("boot");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        vec![path.display().to_string()]
    }

    async fn pool(command: Vec<String>) -> (WorkerPool, BeamFnExternalWorkerPoolClient<Channel>) {
        let pool = WorkerPool::start("localhost", 0, command).await.unwrap();
        let url = format!("http://{}", pool.address());
        let client = BeamFnExternalWorkerPoolClient::connect(url).await.unwrap();
        (pool, client)
    }

    fn start(id: &str) -> api::StartWorkerRequest {
        let control = ApiServiceDescriptor {
            url: "runner:1".into(),
            authentication: None,
        };
        api::StartWorkerRequest {
            worker_id: id.into(),
            control_endpoint: Some(control),
            ..Default::default()
        }
    }

    /// Reading the FIFO to its end awaits the end of whoever writes to it.
    fn fifo(dir: &tempfile::TempDir) -> (String, tokio::task::JoinHandle<String>) {
        let path = dir.path().join("fifo");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        let shown = path.display().to_string();
        (
            shown,
            tokio::task::spawn_blocking(move || std::fs::read_to_string(path).unwrap()),
        )
    }

    #[tokio::test]
    async fn a_worker_gets_its_flags_and_ends_with_all_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let (fifo, said) = fifo(&dir);
        let (_pool, mut client) =
            pool(boot(&dir, &format!("(echo $@; exec sleep 100) > {fifo} & wait"))).await;
        assert_eq!(
            client.start_worker(start("w")).await.unwrap().into_inner().error,
            ""
        );
        let again = client.start_worker(start("w")).await.unwrap().into_inner().error;
        assert!(again.contains("already"), "{again}");
        let stop = api::StopWorkerRequest {
            worker_id: "w".into(),
        };
        assert_eq!(
            client.stop_worker(stop.clone()).await.unwrap().into_inner().error,
            ""
        );
        let said = tokio::time::timeout(Duration::from_secs(10), said)
            .await
            .expect("the worker lives on")
            .unwrap();
        assert!(
            said.contains("--id=w") && said.contains("--control_endpoint=runner:1"),
            "{said}"
        );
        let again = client.stop_worker(stop).await.unwrap().into_inner().error;
        assert!(again.contains("no worker \"w\""), "{again}");
    }

    #[tokio::test]
    async fn the_pools_end_is_its_workers_end() {
        let dir = tempfile::tempdir().unwrap();
        let (fifo, said) = fifo(&dir);
        let (pool, mut client) = pool(boot(&dir, &format!("exec sleep 100 > {fifo}"))).await;
        assert_eq!(
            client.start_worker(start("w")).await.unwrap().into_inner().error,
            ""
        );
        pool.shutdown().await;
        tokio::time::timeout(Duration::from_secs(10), said)
            .await
            .expect("the worker lives on")
            .unwrap();
    }

    #[tokio::test]
    async fn what_cannot_start_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let cases = [
            (vec![], "--harness_command"),
            (vec!["/no/such/harness".to_owned()], "/no/such/harness"),
            (
                boot(&dir, "echo no beam here; exit 4"),
                "exit status 4; its last output: no beam here",
            ),
        ];
        for (command, expected) in cases {
            let (_pool, mut client) = pool(command).await;
            let error = client.start_worker(start("w")).await.unwrap().into_inner().error;
            assert!(error.contains(expected), "{expected} is missing in {error}");
        }
        let (_pool, mut client) = pool(vec!["true".into()]).await;
        let provision = Some(ApiServiceDescriptor {
            url: "localhost:1".into(),
            authentication: None,
        });
        let request = api::StartWorkerRequest {
            provision_endpoint: provision,
            ..start("w")
        };
        let error = client.start_worker(request).await.unwrap().into_inner().error;
        assert!(
            error.contains("cannot reach") && error.contains("localhost:1"),
            "{error}"
        );
    }
}
