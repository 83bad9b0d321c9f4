//! LOOPBACK: a worker pool whose workers are threads of the launching process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use purlin_proto::fn_execution::beam_fn_external_worker_pool_server::{
    BeamFnExternalWorkerPool, BeamFnExternalWorkerPoolServer,
};
use purlin_proto::fn_execution::{
    StartWorkerRequest, StartWorkerResponse, StopWorkerRequest, StopWorkerResponse,
};
use purlin_proto::pipeline::ApiServiceDescriptor;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::control::Harness;
use super::{HarnessSettings, provision};
use crate::harness::Registry;

/// How long a worker may take to end when it is to stop.
const STOP: Duration = Duration::from_secs(15);

/// A pool at a free port of localhost.
pub(crate) struct LoopbackPool {
    address: String,
    workers: Workers,
    server: JoinHandle<()>,
}

/// Workers by id, until they have ended: a process that ends while user code runs in it takes down what that code uses.
type Workers = Arc<Mutex<HashMap<String, Worker>>>;

/// Its task keeps a receiver until the end.
#[derive(Clone)]
struct Worker {
    stop: watch::Sender<bool>,
}

impl LoopbackPool {
    /// Listens. Workers execute this pipeline's code.
    pub async fn start(registry: Arc<Registry>) -> std::io::Result<LoopbackPool> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = format!("localhost:{}", listener.local_addr()?.port());
        let workers = Workers::default();
        let service = Service {
            registry,
            workers: workers.clone(),
        };
        let serve = tonic::transport::Server::builder()
            .add_service(BeamFnExternalWorkerPoolServer::new(service))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        let server = tokio::spawn(async move {
            if let Err(error) = serve.await {
                tracing::error!("the LOOPBACK worker pool ended: {error}");
            }
        });
        Ok(LoopbackPool {
            address,
            workers,
            server,
        })
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Stops all workers and the pool.
    pub async fn stop(self) {
        let workers: Vec<Worker> = self.workers.lock().values().cloned().collect();
        for worker in workers {
            // A worker that does not end in time has said so.
            let _ = worker.end().await;
        }
        self.server.abort();
    }
}

impl Worker {
    async fn end(self) -> Result<(), String> {
        self.stop.send_replace(true);
        match tokio::time::timeout(STOP, self.stop.closed()).await {
            Ok(()) => Ok(()),
            Err(_) => Err(format!("the worker did not end within {} s", STOP.as_secs())),
        }
    }
}

struct Service {
    registry: Arc<Registry>,
    workers: Workers,
}

fn address(descriptor: Option<ApiServiceDescriptor>) -> Option<String> {
    descriptor.map(|d| d.url).filter(|url| !url.is_empty())
}

impl Service {
    async fn start(&self, request: StartWorkerRequest) -> Result<(), String> {
        let worker_id = request.worker_id;
        // Runners need not have a provision service; what it tells is all optional here.
        let info = match address(request.provision_endpoint) {
            Some(provision) => match provision::fetch(&provision, &worker_id).await {
                Ok(info) => info,
                Err(error) => {
                    tracing::debug!("{error}");
                    Default::default()
                }
            },
            None => Default::default(),
        };
        let control = address(request.control_endpoint).or(address(info.control_endpoint));
        let settings = HarnessSettings {
            worker_id: worker_id.clone(),
            control: control.ok_or("the request names no control endpoint")?,
            logging: address(request.logging_endpoint).or(address(info.logging_endpoint)),
            status: address(info.status_endpoint),
            runner_capabilities: info.runner_capabilities,
            registry: self.registry.clone(),
        };
        let harness = Harness::connect(settings).await.map_err(|e| e.to_string())?;

        let mut workers = self.workers.lock();
        if workers.contains_key(&worker_id) {
            let name = purlin_net::without_token(&worker_id);
            return Err(format!("there is a worker {name:?} already"));
        }
        let (stop, mut stopped) = watch::channel(false);
        let (all, id, alive) = (self.workers.clone(), worker_id.clone(), stopped.clone());
        tokio::spawn(async move {
            let stop = async move { drop(stopped.wait_for(|stop| *stop).await) };
            if let Err(error) = harness.serve(stop).await {
                tracing::error!("{error}");
            }
            all.lock().remove(&id);
            drop(alive);
        });
        workers.insert(worker_id, Worker { stop });
        Ok(())
    }
}

#[tonic::async_trait]
impl BeamFnExternalWorkerPool for Service {
    async fn start_worker(
        &self,
        request: Request<StartWorkerRequest>,
    ) -> Result<Response<StartWorkerResponse>, Status> {
        let error = self.start(request.into_inner()).await.err().unwrap_or_default();
        Ok(Response::new(StartWorkerResponse { error }))
    }

    async fn stop_worker(
        &self,
        request: Request<StopWorkerRequest>,
    ) -> Result<Response<StopWorkerResponse>, Status> {
        let worker = self.workers.lock().get(&request.into_inner().worker_id).cloned();
        let error = match worker {
            // It may have ended by itself: its control stream was closed.
            None => String::new(),
            Some(worker) => worker.end().await.err().unwrap_or_default(),
        };
        Ok(Response::new(StopWorkerResponse { error }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_pool_waits_for_workers_that_were_told_to_end_already() {
        let workers = Workers::default();
        let (stop, mut task) = watch::channel(false);
        workers.lock().insert("w1".into(), Worker { stop });
        let service = Service {
            registry: Arc::default(),
            workers: workers.clone(),
        };
        let request = StopWorkerRequest {
            worker_id: "w1".into(),
        };
        tokio::spawn(async move { service.stop_worker(Request::new(request)).await });
        assert!(task.wait_for(|stop| *stop).await.is_ok());

        let pool = LoopbackPool {
            address: String::new(),
            workers,
            server: tokio::spawn(std::future::pending()),
        };
        let ended = tokio::spawn(pool.stop());
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!ended.is_finished(), "its bundle is not over");
        drop(task);
        ended.await.unwrap();
    }
}
