//! The service as a whole: its ports, and its end.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use purlin_net::{
    Acceptor, BindError, HostNames, Limits, MAX_CONNECTIONS, MAX_MESSAGE_BYTES, Rule, Side, Silence,
    check_hosts, grpc_server, limit_messages, listen,
};
use purlin_proto::expansion::expansion_service_server::ExpansionServiceServer;
use purlin_proto::job_management::artifact_retrieval_service_server::ArtifactRetrievalServiceServer;
use purlin_proto::job_management::artifact_staging_service_server::ArtifactStagingServiceServer;
use purlin_proto::job_management::job_service_server::JobServiceServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;

use crate::artifacts::{Retrieval, Staging, Store, StoreError};
use crate::backends::{Backends, Flink, FlinkSettingError, Local, LocalSettings};
use crate::expansion::Expansion;
use crate::jobs::{JobApi, JobLog, JobTable, Jobs};
use crate::limits;
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
    /// A cluster that cannot be used.
    #[error(transparent)]
    Flink(#[from] FlinkSettingError),
}

/// A running service.
pub struct JobService {
    jobs: Arc<Jobs>,
    store: Arc<Store>,
    job_url: String,
    artifact_url: String,
    expansion_url: String,
    web_url: Option<String>,
    /// What listens, and where.
    listening: Vec<String>,
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
        let line = |what: &str, listener: &TcpListener| {
            line(&options, what, listener.local_addr().ok(), &url(listener))
        };
        let mut listening = vec![
            line("Job service listens on ", &job),
            line("Artifact service listens on ", &artifact),
            line("Expansion service listens on ", &expansion),
        ];
        let page_line = page.as_ref().map(|page| line("Web page at http://", page));

        let store = Store::new(options.artifacts_dir.as_deref(), options.clean_artifacts_per_job).await?;
        let store = Arc::new(store);
        let retrieval = Retrieval { store: store.clone() };
        // Room for a few of the largest messages at a time.
        let limits = Limits::new(options.max_message_size.saturating_mul(4));
        macro_rules! sized {
            ($service:expr) => {
                $service
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_MESSAGE_BYTES)
            };
        }

        let table = Arc::new(JobTable::default());
        let local = Local::bind(LocalSettings {
            host: options.host.clone(),
            port: options.worker_port,
            advertised_host: host_for_others(&options),
            routes: Routes::new(sized!(ArtifactRetrievalServiceServer::new(retrieval.clone()))),
            routes_limit: limits::large(options.max_message_size),
            log: Arc::new(JobLog::new(&table)),
            limits: limits.clone(),
            connect_timeout: options.worker_connect_timeout,
            hang_timeout: options.worker_hang_timeout,
            idle_timeout: options.worker_idle_timeout,
            allow_environments: options.allow_environments.clone().into(),
        });
        let local = local.await.map_err(|error| StartError::Bind {
            option: "--worker_port",
            error,
        })?;
        let workers = local.local_addr();
        listening.push(self::line(
            &options,
            "Fn API for workers listens on ",
            Some(workers),
            local.url(),
        ));
        listening.extend(page_line);
        if !workers.ip().is_loopback() {
            warn_of_others(&options.host);
        }
        let flink = Flink::new(
            options.flink_master.as_deref(),
            options.flink_job_server_jar.clone(),
            options.flink_jar_on_cluster.clone(),
            store.clone(),
        )?;
        // The first of the list that takes a job runs it, and the local one what none of them takes.
        let backends = Backends::new(Arc::new(local), vec![Arc::new(flink)]);
        let jobs = Arc::new(Jobs::new(table, backends, store.clone()));
        jobs.recover().await;

        let (stop, _) = watch::channel(false);
        let mut servers = JoinSet::new();
        let api = JobApi {
            jobs: jobs.clone(),
            artifact_url: artifact_url.clone(),
        };
        let staging = Staging {
            store: store.clone(),
            jobs: jobs.clone(),
        };
        let artifacts = Routes::new(sized!(ArtifactStagingServiceServer::new(staging)))
            .add_service(sized!(ArtifactRetrievalServiceServer::new(retrieval)));
        // Clients that know one address only find the artifact services on the job port too.
        let job_routes = artifacts.clone().add_service(sized!(JobServiceServer::new(api)));
        let expansions = Routes::new(sized!(ExpansionServiceServer::new(Expansion)));
        let rule = limits::rule(options.max_message_size);
        for (listener, routes) in [(job, job_routes), (artifact, artifacts), (expansion, expansions)] {
            serve(&mut servers, listener, routes, &limits, &rule, &stop);
        }
        if let Some(page) = page {
            let names = [Some(options.host), options.advertised_host]
                .into_iter()
                .flatten();
            let names = HostNames::new(names.chain(options.allowed_hosts));
            let router = check_hosts(web::router(jobs.clone()), names);
            let page = Acceptor::new(page, Silence::Ever, MAX_CONNECTIONS);
            let stopped = stopped(&stop);
            servers.spawn(async move {
                if let Err(error) = axum::serve(page, router).with_graceful_shutdown(stopped).await {
                    tracing::error!("the web server ended: {error}");
                }
            });
        }
        if let Some(timeout) = options.prepared_job_timeout {
            let (jobs, stopped) = (jobs.clone(), stopped(&stop));
            servers.spawn(async move {
                tokio::select! {
                    () = expire(&jobs, timeout) => {}
                    () = stopped => {}
                }
            });
        }
        Ok(Self {
            jobs,
            store,
            job_url,
            artifact_url,
            expansion_url,
            web_url,
            listening,
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
    pub fn listening(&self) -> &[String] {
        &self.listening
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
        if tokio::time::timeout(JOBS_END, self.jobs.end_all()).await.is_err() {
            tracing::warn!("some jobs did not end within {} s", JOBS_END.as_secs());
        }
        self.jobs.shutdown().await;
        self.stop.send_replace(true);
        let mut servers = std::mem::take(&mut *self.servers.lock());
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
        (None, host) => bracketed(host),
    }
}

/// A host as it stands before a port: IPv6 in brackets.
fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
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

/// Forgets prepared jobs that are never run.
async fn expire(jobs: &Jobs, timeout: Duration) {
    let pause = (timeout / 4).clamp(Duration::from_secs(1), Duration::from_secs(60));
    loop {
        tokio::time::sleep(pause).await;
        jobs.expire(timeout);
    }
}

/// Says where a port listens, and under which address clients find it if that is another.
fn line(options: &Options, what: &str, local: Option<SocketAddr>, url: &str) -> String {
    let host = bracketed(&options.host);
    let real = local.map_or_else(|| url.to_owned(), |local| format!("{host}:{}", local.port()));
    if real == url {
        format!("{what}{real}")
    } else {
        format!("{what}{real} (clients and workers are told {url})")
    }
}

/// Says what it means that others than this machine reach the service.
fn warn_of_others(host: &str) {
    tracing::warn!(
        "--host={host} lets other machines reach this service: whoever does can run jobs, and a job is code that runs in \
         the worker pools that it names, and see and cancel the jobs of others. Nothing is encrypted, and nobody is asked \
         who they are: listen so in a network that you trust only. Jobs of other machines may not use PROCESS and DOCKER, \
         unless --allow_environments names them"
    );
}

fn serve(
    servers: &mut JoinSet<()>,
    listener: TcpListener,
    routes: Routes,
    limits: &Limits,
    rule: &Rule,
    stop: &watch::Sender<bool>,
) {
    let incoming = Acceptor::new(listener, Silence::AtFirst, MAX_CONNECTIONS).incoming();
    let router = limit_messages(routes.into_axum_router(), limits.clone(), rule.clone());
    let serve = grpc_server(Side::Clients)
        .add_routes(Routes::from(router))
        .serve_with_incoming_shutdown(incoming, stopped(stop));
    servers.spawn(async move {
        if let Err(error) = serve.await {
            tracing::error!("a gRPC server ended: {error}");
        }
    });
}
