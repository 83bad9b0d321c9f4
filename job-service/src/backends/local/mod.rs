//! The back end that runs jobs in this process, on workers that connect to its Fn API server.

mod options;
mod own_machine;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use purlin_net::{BindError, Limit, Limits};
use purlin_proto::fn_execution::SampleDataResponse;
use purlin_proto::job_management::PipelineOptionDescriptor;
use purlin_runner::environments::{EnvironmentSettings, Environments, KeptWorkers};
use purlin_runner::fnapi::{FnApiServer, FnApiSettings, WorkerLog};
use purlin_runner::job::{EventLog, Job, JobHandle, JobMetrics, JobSettings, WorkerStatus};
use purlin_runner::query::{QueryError, StateQuery};
use purlin_runner::translate::{Plan, plan};
use purlin_runner::worker::WorkerFactory;
use tonic::async_trait;
use tonic::service::Routes;

use super::{Backend, Prepared, RunningJob, Submission};
use crate::aside::aside;
use crate::jobs::JobError;
use crate::options::OwnMachine;
use crate::pipeline_options::PipelineOptions;

/// How the local back end runs jobs.
pub(crate) struct LocalSettings {
    /// Host or address on which workers are served.
    pub(crate) host: String,
    /// Port for workers; 0 takes a free one.
    pub(crate) port: u16,
    /// Host that workers are told.
    pub(crate) advertised_host: String,
    /// What workers are served beside the Fn API: their artifacts.
    pub(crate) routes: Routes,
    /// How large the messages to `routes` may be.
    pub(crate) routes_limit: Limit,
    /// Takes what workers log.
    pub(crate) log: Arc<dyn WorkerLog>,
    /// Bounds of what is received at a time.
    pub(crate) limits: Limits,
    /// How long a worker may take to connect.
    pub(crate) connect_timeout: Duration,
    /// How long a worker may leave a progress request unanswered; none: for ever.
    pub(crate) hang_timeout: Option<Duration>,
    /// How long workers are kept for a next job; none: they end with their job.
    pub(crate) idle_timeout: Option<Duration>,
    /// What jobs of clients on other machines may run on this one.
    pub(crate) allow_environments: Arc<[OwnMachine]>,
}

/// Runs jobs in this process.
pub(crate) struct Local {
    fnapi: Arc<FnApiServer>,
    factory: Arc<dyn WorkerFactory>,
    kept: Option<KeptWorkers>,
    allow_environments: Arc<[OwnMachine]>,
}

impl Local {
    /// Listens for workers.
    pub(crate) async fn bind(settings: LocalSettings) -> Result<Self, BindError> {
        let fnapi = FnApiServer::bind(FnApiSettings {
            host: settings.host,
            port: settings.port,
            advertised_host: Some(settings.advertised_host),
            routes: Some(settings.routes),
            artifact_endpoint: None,
            log: settings.log,
            hang_timeout: settings.hang_timeout,
            limits: settings.limits,
            routes_limit: settings.routes_limit,
        });
        let fnapi = Arc::new(fnapi.await?);
        let environments = EnvironmentSettings {
            connect_timeout: settings.connect_timeout,
        };
        let environments = Arc::new(Environments::new(fnapi.clone(), environments));
        let kept = settings
            .idle_timeout
            .map(|timeout| KeptWorkers::new(environments.clone(), timeout));
        let factory: Arc<dyn WorkerFactory> = match &kept {
            Some(kept) => Arc::new(kept.clone()),
            None => environments,
        };
        Ok(Self {
            fnapi,
            factory,
            kept,
            allow_environments: settings.allow_environments,
        })
    }

    /// Where workers are served.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.fnapi.local_addr()
    }

    /// Where workers are told to connect, as `host:port`.
    pub(crate) fn url(&self) -> &str {
        self.fnapi.url()
    }
}

#[async_trait]
impl Backend for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn takes(&self, _: &PipelineOptions) -> bool {
        true
    }

    fn options(&self) -> Vec<PipelineOptionDescriptor> {
        options::describe_all()
    }

    async fn prepare(&self, job: Submission) -> Result<Box<dyn Prepared>, JobError> {
        let factory = self.factory.clone();
        let allowed = job.from_elsewhere.then(|| self.allow_environments.clone());
        let plan = aside(move || {
            if let Some(allowed) = allowed {
                own_machine::check(&job.pipeline, &allowed)?;
            }
            let options = options::plan_options(&job.options.values())?;
            plan(&job.pipeline, &options).map_err(JobError::invalid)
        });
        let plan = plan.await??;
        Ok(Box::new(Planned { plan, factory }))
    }

    async fn shutdown(&self) {
        if let Some(kept) = &self.kept {
            kept.shutdown().await;
        }
        self.fnapi.shutdown().await;
    }
}

/// A job whose plan is made.
struct Planned {
    plan: Plan,
    factory: Arc<dyn WorkerFactory>,
}

impl Prepared for Planned {
    fn run(self: Box<Self>, settings: JobSettings) -> Arc<dyn RunningJob> {
        Arc::new(Job::start(self.plan, self.factory, settings))
    }
}

#[async_trait]
impl RunningJob for JobHandle {
    fn log(&self) -> &Arc<EventLog> {
        JobHandle::log(self)
    }

    async fn metrics(&self) -> JobMetrics {
        JobHandle::metrics(self)
    }

    fn cancel(&self) {
        JobHandle::cancel(self);
    }

    async fn drain(&self) -> Result<(), JobError> {
        JobHandle::drain(self);
        Ok(())
    }

    async fn wait(&self) {
        JobHandle::wait(self).await;
    }

    fn kept_bytes(&self) -> usize {
        JobHandle::kept_bytes(self)
    }

    fn plan(&self) -> Option<&str> {
        Some(JobHandle::plan(self))
    }

    async fn samples(&self) -> SampleDataResponse {
        JobHandle::samples(self, Vec::new()).await
    }

    async fn worker_statuses(&self) -> Vec<WorkerStatus> {
        JobHandle::worker_statuses(self).await
    }

    fn state_of(&self, query: &StateQuery) -> Result<serde_json::Value, QueryError> {
        JobHandle::state_of(self, query)
    }

    fn worker_error(&self, instruction: &str, text: String) {
        JobHandle::worker_error(self, instruction, text);
    }
}
