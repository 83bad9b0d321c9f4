//! Binds and serves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use purlin_net::{
    Acceptor, BindError, Limit, Limits, MAX_MESSAGE_BYTES, Side, Silence, grpc_server, limit_messages,
    listen, without_token,
};
use purlin_proto::fn_execution::beam_fn_control_server::BeamFnControlServer;
use purlin_proto::fn_execution::beam_fn_data_server::BeamFnDataServer;
use purlin_proto::fn_execution::beam_fn_logging_server::BeamFnLoggingServer;
use purlin_proto::fn_execution::beam_fn_state_server::BeamFnStateServer;
use purlin_proto::fn_execution::beam_fn_worker_status_server::BeamFnWorkerStatusServer;
use purlin_proto::fn_execution::provision_service_server::ProvisionServiceServer;
use purlin_proto::{fn_execution as fnapi, pipeline, urns};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::codegen::http::HeaderMap;
use tonic::service::Routes;

use super::services::Services;
use super::{Connections, GrpcWorker, TracingLog, WorkerConnection, WorkerIdentity, WorkerLog};
use crate::worker::{StartWorker, WorkerError};

/// Bytes of a message of an expected worker's logs or of its status, at most.
const WORDS_BYTES: usize = 64 << 20;
/// Bytes of a call of someone who is no worker that is expected here, at most: it is refused.
const STRANGERS_BYTES: usize = 64 << 10;
/// What the paths of the Fn API's methods begin with.
const FN_API: &str = "/org.apache.beam.model.fn_execution.";
/// What the paths of those end with whose messages hold elements, of whatever size.
const BULK: [&str; 3] = ["/Control", "/Data", "/State"];
/// Connections at a time: of workers and their threads.
const MAX_CONNECTIONS: usize = 16_384;

/// How the server is reached.
pub struct FnApiSettings {
    /// Host or address to listen on.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// The host that workers are told; `host` if none, or `localhost` if that stands for all addresses.
    pub advertised_host: Option<String>,
    /// Further services on the same port, such as artifact retrieval.
    pub routes: Option<Routes>,
    /// Where workers retrieve artifacts, as `host:port`; this server if none.
    pub artifact_endpoint: Option<String>,
    /// Takes what workers log.
    pub log: Arc<dyn WorkerLog>,
    /// A worker that leaves a progress request unanswered for so long is lost; none: never.
    pub hang_timeout: Option<Duration>,
    /// What all servers of the process may hold.
    pub limits: Limits,
    /// What is taken of messages to the further services.
    pub routes_limit: Limit,
}

impl Default for FnApiSettings {
    fn default() -> Self {
        Self {
            host: "localhost".into(),
            port: 0,
            advertised_host: None,
            routes: None,
            artifact_endpoint: None,
            log: Arc::new(TracingLog),
            hang_timeout: Some(Duration::from_secs(300)),
            limits: Limits::new(256 << 20),
            routes_limit: Limit::of(64 << 20),
        }
    }
}

/// The Fn API server of this process.
pub struct FnApiServer {
    connections: Arc<Connections>,
    local: SocketAddr,
    url: String,
    artifact_endpoint: String,
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl FnApiServer {
    /// Listens, and serves until [`FnApiServer::shutdown`] or the end of this value.
    pub async fn bind(settings: FnApiSettings) -> Result<Self, BindError> {
        let listener = listen(&settings.host, settings.port).await?;
        let local = listener
            .local_addr()
            .map_err(|e| BindError::new(&settings.host, settings.port, &e))?;
        let host = settings
            .advertised_host
            .unwrap_or_else(|| match settings.host.as_str() {
                "0.0.0.0" | "::" | "[::]" => "localhost".into(),
                host => host.to_owned(),
            });
        let host = if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]")
        } else {
            host
        };
        let url = format!("{host}:{}", local.port());
        let connections = Arc::new(Connections {
            workers: Mutex::default(),
            log: settings.log,
            hang_timeout: settings.hang_timeout,
        });

        let services = Services {
            connections: connections.clone(),
        };
        macro_rules! service {
            ($server:ident) => {
                $server::new(services.clone())
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_MESSAGE_BYTES)
            };
        }
        let routes = settings.routes.unwrap_or_default();
        let routes = routes
            .add_service(service!(BeamFnControlServer))
            .add_service(service!(BeamFnDataServer))
            .add_service(service!(BeamFnStateServer))
            .add_service(service!(BeamFnLoggingServer))
            .add_service(service!(BeamFnWorkerStatusServer))
            .add_service(service!(ProvisionServiceServer));
        let (stop, mut stopped) = watch::channel(false);
        // Only the streams of workers that are expected are trusted.
        let (known, others) = (connections.clone(), settings.routes_limit);
        let rule = move |path: &str, headers: &HeaderMap| {
            if !path.starts_with(FN_API) {
                return others;
            }
            let worker = headers.get("worker_id").and_then(|id| id.to_str().ok());
            match worker {
                Some(id) if known.workers.lock().contains_key(id) => {
                    match BULK.iter().any(|end| path.ends_with(end)) {
                        true => Limit::trusted(),
                        false => Limit {
                            bytes: WORDS_BYTES,
                            ..Limit::trusted()
                        },
                    }
                }
                _ => Limit::of(STRANGERS_BYTES),
            }
        };
        let router = limit_messages(routes.into_axum_router(), settings.limits, Arc::new(rule));
        let incoming = Acceptor::new(listener, Silence::AtFirst, MAX_CONNECTIONS).incoming();
        let serve = grpc_server(Side::Workers)
            .add_routes(Routes::from(router))
            .serve_with_incoming_shutdown(incoming, async move {
                let _ = stopped.wait_for(|stop| *stop).await;
            });
        let task = tokio::spawn(async move {
            if let Err(error) = serve.await {
                tracing::error!("the Fn API server ended: {error}");
            }
        });
        let artifact_endpoint = settings.artifact_endpoint.unwrap_or_else(|| url.clone());
        Ok(Self {
            connections,
            local,
            url,
            artifact_endpoint,
            stop,
            task: Mutex::new(Some(task)),
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// `host:port` under which workers reach this server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where workers' log entries go.
    #[cfg(feature = "docker")]
    pub(crate) fn log(&self) -> Arc<dyn WorkerLog> {
        self.connections.log.clone()
    }

    /// Tells the user of a worker's job what is wrong with the worker, or may be.
    pub(crate) fn warn(&self, worker: &WorkerIdentity, text: String) {
        self.connections.warn(worker, text);
    }

    /// `host:port` under which workers retrieve artifacts.
    pub fn artifact_url(&self) -> &str {
        &self.artifact_endpoint
    }

    /// Announces a worker, so that its streams are taken when they come.
    pub fn expect(&self, request: &StartWorker) -> Result<GrpcWorker, WorkerError> {
        self.expect_at(request, &self.url, &self.artifact_endpoint)
    }

    /// The same for a worker that reaches this server and its artifacts under other addresses.
    pub fn expect_at(
        &self,
        request: &StartWorker,
        url: &str,
        artifact_url: &str,
    ) -> Result<GrpcWorker, WorkerError> {
        let endpoint = |url: &str| {
            Some(pipeline::ApiServiceDescriptor {
                url: url.to_owned(),
                authentication: None,
            })
        };
        let provision = fnapi::ProvisionInfo {
            pipeline_options: Some(request.pipeline_options.clone()),
            retrieval_token: request.retrieval_token.clone(),
            status_endpoint: endpoint(url),
            logging_endpoint: endpoint(url),
            artifact_endpoint: endpoint(artifact_url),
            control_endpoint: endpoint(url),
            dependencies: request.environment.dependencies.clone(),
            runner_capabilities: vec![
                urns::runner_protocols::MONITORING_INFO_SHORT_IDS.into(),
                urns::runner_protocols::CONTROL_RESPONSE_ELEMENTS_EMBEDDING.into(),
            ],
            metadata: Default::default(),
            sibling_worker_ids: Vec::new(),
        };
        let identity = WorkerIdentity {
            worker_id: without_token(&request.worker_id).to_owned(),
            environment_id: request.environment_id.clone(),
            job_id: request.job_id.clone(),
        };
        let embeds = request
            .environment
            .capabilities
            .iter()
            .any(|c| c == urns::protocols::CONTROL_REQUEST_ELEMENTS_EMBEDDING);
        let connection = Arc::new(WorkerConnection::new(
            request.worker_id.clone(),
            identity,
            provision,
            url.to_owned(),
            embeds,
        ));
        let mut workers = self.connections.workers.lock();
        if workers.contains_key(&request.worker_id) {
            return Err(WorkerError::Start {
                environment: request.environment_id.clone(),
                reason: format!(
                    "there is a worker {:?} already",
                    without_token(&request.worker_id)
                ),
            });
        }
        workers.insert(request.worker_id.clone(), connection.clone());
        Ok(GrpcWorker::new(connection, self.connections.clone()))
    }

    /// Ends every worker's streams and the server.
    pub async fn shutdown(&self) {
        let workers: Vec<Arc<WorkerConnection>> = self
            .connections
            .workers
            .lock()
            .drain()
            .map(|(_, connection)| connection)
            .collect();
        for connection in workers {
            connection.stop();
        }
        self.stop.send_replace(true);
        let task = self.task.lock().take();
        if let Some(mut task) = task {
            // Logging streams end with their workers, which may take their time.
            if tokio::time::timeout(Duration::from_millis(500), &mut task)
                .await
                .is_err()
            {
                task.abort();
            }
        }
    }
}

impl Drop for FnApiServer {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}
