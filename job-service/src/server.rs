//! The service as a whole: its ports, and its end.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use purlin_proto::expansion::expansion_service_server::ExpansionServiceServer;
use purlin_proto::job_management::artifact_retrieval_service_server::ArtifactRetrievalServiceServer;
use purlin_proto::job_management::artifact_staging_service_server::ArtifactStagingServiceServer;
use purlin_proto::job_management::job_service_server::JobServiceServer;
use purlin_runner::environments::{EnvironmentSettings, Environments, KeptWorkers};
use purlin_runner::fnapi::{BindError, FnApiServer, FnApiSettings, MAX_MESSAGE_BYTES, grpc_server, listen};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

use crate::artifacts::{Retrieval, Staging, Store, StoreError};
use crate::expansion::Expansion;
use crate::jobs::{JobApi, JobLog, Jobs};
use crate::options::Options;
use crate::web;

/// How long jobs may take to end when the service does.
const JOBS_END: Duration = Duration::from_secs(10);
/// How long connections may take to close after that.
const SERVERS_END: Duration = Duration::from_millis(500);

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port could not be had.
    #[error("{option}: {error}")]
    Bind {
        /// The option that chooses the port.
        option: &'static str,
        /// Why.
        #[source]
        error: BindError,
    },
    /// No place for artifacts.
    #[error(transparent)]
    Artifacts(#[from] StoreError),
}

/// A running service.
pub struct JobService {
    jobs: Arc<Jobs>,
    fnapi: Arc<FnApiServer>,
    kept: Option<KeptWorkers>,
    store: Arc<Store>,
    job_url: String,
    artifact_url: String,
    expansion_url: String,
    web_url: Option<String>,
    idle_shutdown: Option<Duration>,
    stop: watch::Sender<bool>,
    servers: Mutex<JoinSet<()>>,
}

impl JobService {
    /// Listens on every port, then serves.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let job = bind("--job_port", &options.host, options.job_port).await?;
        let artifact = bind("--artifact_port", &options.host, options.artifact_port).await?;
        let expansion = bind("--expansion_port", &options.host, options.expansion_port).await?;
        let page = match options.web_port {
            Some(port) => Some(bind("--web_port", &options.host, port).await?),
            None => None,
        };
        let url = |listener: &TcpListener| {
            let port = listener.local_addr().map_or(0, |address| address.port());
            format!("{}:{port}", host_for_others(&options))
        };
        let (job_url, artifact_url, expansion_url) = (url(&job), url(&artifact), url(&expansion));
        let web_url = page.as_ref().map(url);

        let store = Store::new(options.artifacts_dir.as_deref(), options.clean_artifacts_per_job).await?;
        let store = Arc::new(store);
        let jobs = Arc::new(Jobs::new(store.clone()));
        let staging = Staging {
            store: store.clone(),
            jobs: jobs.clone(),
        };
        let retrieval = Retrieval { store: store.clone() };
        macro_rules! sized {
            ($service:expr) => {
                $service
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_MESSAGE_BYTES)
            };
        }
        let artifacts = Routes::new(sized!(ArtifactStagingServiceServer::new(staging)))
            .add_service(sized!(ArtifactRetrievalServiceServer::new(retrieval.clone())));

        let fnapi = FnApiServer::bind(FnApiSettings {
            host: options.host.clone(),
            port: options.worker_port,
            advertised_host: Some(host_for_others(&options)),
            routes: Some(Routes::new(sized!(ArtifactRetrievalServiceServer::new(
                retrieval
            )))),
            artifact_endpoint: None,
            log: Arc::new(JobLog(Arc::downgrade(&jobs))),
            hang_timeout: options.worker_hang_timeout,
        });
        let fnapi = Arc::new(fnapi.await.map_err(|error| StartError::Bind {
            option: "--worker_port",
            error,
        })?);
        let settings = EnvironmentSettings {
            connect_timeout: options.worker_connect_timeout,
        };
        let environments = Arc::new(Environments::new(fnapi.clone(), settings));
        let kept = options
            .worker_idle_timeout
            .map(|timeout| KeptWorkers::new(environments.clone(), timeout));
        match &kept {
            Some(kept) => jobs.set_factory(Arc::new(kept.clone())),
            None => jobs.set_factory(environments),
        }

        let (stop, _) = watch::channel(false);
        let mut servers = JoinSet::new();
        let api = JobApi {
            jobs: jobs.clone(),
            artifact_url: artifact_url.clone(),
        };
        // Clients that know one address only find the artifact services on the job port too.
        let job_routes = artifacts.clone().add_service(sized!(JobServiceServer::new(api)));
        serve(&mut servers, job, job_routes, &stop);
        serve(&mut servers, artifact, artifacts, &stop);
        serve(
            &mut servers,
            expansion,
            Routes::new(sized!(ExpansionServiceServer::new(Expansion))),
            &stop,
        );
        if let Some(page) = page {
            let router = web::router(jobs.clone());
            let stopped = stopped(&stop);
            servers.spawn(async move {
                if let Err(error) = axum::serve(page, router).with_graceful_shutdown(stopped).await {
                    tracing::error!("the web server ended: {error}");
                }
            });
        }
        Ok(Self {
            jobs,
            fnapi,
            kept,
            store,
            job_url,
            artifact_url,
            expansion_url,
            web_url,
            idle_shutdown: options.idle_shutdown,
            stop,
            servers: Mutex::new(servers),
        })
    }

    /// Where the Job API listens, as `host:port`.
    pub fn job_url(&self) -> &str {
        &self.job_url
    }

    /// Where the artifact services listen, as `host:port`.
    pub fn artifact_url(&self) -> &str {
        &self.artifact_url
    }

    /// Where the expansion service listens, as `host:port`.
    pub fn expansion_url(&self) -> &str {
        &self.expansion_url
    }

    /// Where the web page is, as `host:port`, if it is served.
    pub fn web_url(&self) -> Option<&str> {
        self.web_url.as_deref()
    }

    /// The folder of staged artifacts; none if they are in an object store.
    pub fn artifact_folder(&self) -> Option<&Path> {
        self.store.folder()
    }

    /// A line for each port, saying where it listens.
    pub fn listening(&self) -> Vec<String> {
        let mut lines = vec![
            format!("Job service listens on {}", self.job_url),
            format!("Artifact service listens on {}", self.artifact_url),
            format!("Expansion service listens on {}", self.expansion_url),
            format!("Fn API for workers listens on {}", self.fnapi.url()),
        ];
        lines.extend(
            self.web_url
                .as_ref()
                .map(|url| format!("Web page at http://{url}")),
        );
        lines
    }

    /// Resolves when no job has run for as long as the options say; never, if they do not.
    pub async fn idle(&self) {
        let Some(timeout) = self.idle_shutdown else {
            return std::future::pending().await;
        };
        let mut running = self.jobs.running();
        loop {
            let busy = *running.borrow_and_update() > 0;
            let changed = tokio::select! {
                changed = running.changed() => changed,
                () = tokio::time::sleep(timeout), if !busy => return,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Cancels the jobs, stops their workers, closes the ports and removes the artifacts.
    pub async fn shutdown(&self) {
        if tokio::time::timeout(JOBS_END, self.jobs.cancel_all())
            .await
            .is_err()
        {
            tracing::warn!("some jobs did not end within {} s", JOBS_END.as_secs());
        }
        if let Some(kept) = &self.kept {
            kept.shutdown().await;
        }
        self.fnapi.shutdown().await;
        self.stop.send_replace(true);
        let mut servers = std::mem::take(&mut *self.servers.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while servers.join_next().await.is_some() {} };
        // Clients may keep their connections for as long as they like.
        let _ = tokio::time::timeout(SERVERS_END, all).await;
        servers.shutdown().await;
        // The folder goes with the store, but some task may still hold that.
        self.store.close().await;
    }
}

fn host_for_others(options: &Options) -> String {
    match (&options.advertised_host, options.host.as_str()) {
        (Some(host), _) => host.clone(),
        (None, "0.0.0.0" | "::" | "[::]") => "localhost".into(),
        (None, host) if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
        (None, host) => host.to_owned(),
    }
}

async fn bind(option: &'static str, host: &str, port: u16) -> Result<TcpListener, StartError> {
    listen(host, port)
        .await
        .map_err(|error| StartError::Bind { option, error })
}

fn stopped(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut stop = stop.subscribe();
    async move {
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

fn serve(servers: &mut JoinSet<()>, listener: TcpListener, routes: Routes, stop: &watch::Sender<bool>) {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serve = grpc_server()
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stopped(stop));
    servers.spawn(async move {
        if let Err(error) = serve.await {
            tracing::error!("a gRPC server ended: {error}");
        }
    });
}
