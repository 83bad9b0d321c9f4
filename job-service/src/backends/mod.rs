//! Back ends: what runs the jobs of this service.
//!
//! ```text
//! Prepare ──▶ Backends::choose ──▶ Backend::prepare ──▶ Prepared        what is wrong with the pipeline is an error here
//! Stage   ──▶                      Backend::prepare ──▶ Prepared        once more, with the artifacts that were staged
//! Run     ──▶                      Prepared::run    ──▶ RunningJob      states, messages, metrics; cancel, drain
//! ```
//!
//! [`Local`] runs jobs in this process and is what runs a job that asks for nothing else. [`Flink`] runs them on a Flink cluster.
//!
//! States and messages are added to the [`EventLog`] of each job, which the Job API and the web pages read. CONTRIBUTING.md says how a
//! back end is added.

mod flink;
mod local;

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use purlin_proto::fn_execution::SampleDataResponse;
use purlin_proto::job_management::PipelineOptionDescriptor;
use purlin_proto::pipeline::Pipeline;
use purlin_runner::job::{EventLog, Importance, JobMetrics, JobSettings, WorkerStatus};
use purlin_runner::query::{QueryError, StateQuery};
use tonic::async_trait;

use crate::jobs::JobError;
use crate::pipeline_options::PipelineOptions;
pub(crate) use flink::Flink;
pub use flink::FlinkSettingError;
pub(crate) use local::{Local, LocalSettings};

/// A job that a client submits, as a back end is given it.
pub(crate) struct Submission {
    /// The pipeline. Its dependencies are what was staged, once that is done: files of the store, and packages of an index.
    pub(crate) pipeline: Pipeline,
    /// The job's options.
    pub(crate) options: PipelineOptions,
    /// Whether the client is on another machine, or may be.
    pub(crate) from_elsewhere: bool,
}

/// Runs jobs in one way: in this process, or on a cluster.
#[async_trait]
pub(crate) trait Backend: Send + Sync + 'static {
    /// What it is called in logs.
    fn name(&self) -> &'static str;

    /// Whether a job with these options is to be run by this back end.
    fn takes(&self, options: &PipelineOptions) -> bool;

    /// The pipeline options that it reads beside those that the service does.
    fn options(&self) -> Vec<PipelineOptionDescriptor>;

    /// Checks a pipeline, and gets ready to run it. All that is wrong with it is told at once. May be called several times for a job: in
    /// Prepare, when its artifacts have been staged, and in Run. Nothing is started yet, and a value that is dropped leaves nothing.
    async fn prepare(&self, job: Submission) -> Result<Box<dyn Prepared>, JobError>;

    /// The jobs that an earlier service left running and that this one goes on with. Called once, before the first job is prepared.
    async fn recover(&self) -> Vec<Recovered> {
        Vec::new()
    }

    /// The service ends: stops what the back end has started beside its jobs. Those have ended, or been left, before.
    async fn shutdown(&self) {}
}

/// A job that can be run.
pub(crate) trait Prepared: Send {
    /// Starts the job and returns at once: what takes long is done while the job's state is `STARTING`, and a job that cannot start
    /// comes to the state `FAILED` with the reason as its last error. Called within a tokio runtime.
    fn run(self: Box<Self>, settings: JobSettings) -> Arc<dyn RunningJob>;
}

/// A job that runs, or has ended.
#[async_trait]
pub(crate) trait RunningJob: Send + Sync + 'static {
    /// Its states and messages.
    fn log(&self) -> &Arc<EventLog>;

    /// Its metrics so far, or, when it has ended, its last ones.
    async fn metrics(&self) -> JobMetrics;

    /// Begins to stop it and returns at once. It ends in the state `CANCELLED`.
    fn cancel(&self);

    /// Lets it finish what it has, while its sources stop. It ends in the state `DRAINED`. An error says why it cannot be drained.
    async fn drain(&self) -> Result<(), JobError>;

    /// Waits until it has ended, and nothing that was started for it is left.
    async fn wait(&self);

    /// Bytes, about, that stay in memory for it when it has ended.
    fn kept_bytes(&self) -> usize {
        self.log().bytes()
    }

    /// Its fused plan, for people: a stage, or what the runner does itself, with what it reads and makes, in each line or group of
    /// lines. None where another system makes the plan.
    fn plan(&self) -> Option<&str> {
        None
    }

    /// Samples of elements by PCollection id, where the back end knows some.
    async fn samples(&self) -> SampleDataResponse {
        SampleDataResponse::default()
    }

    /// What its workers tell of themselves, where the back end knows them.
    async fn worker_statuses(&self) -> Vec<WorkerStatus> {
        Vec::new()
    }

    /// State that its pipeline made queryable, as JSON, where the back end can read it.
    fn state_of(&self, _query: &StateQuery) -> Result<serde_json::Value, QueryError> {
        Err(QueryError::NotFound(
            "the job runs on another system, whose state is not read here".to_owned(),
        ))
    }

    /// Tells the user of an error that a worker logged while it followed an instruction (empty: not known). It is a warning: clients
    /// take a job's last error as the reason of its failure.
    fn worker_error(&self, _instruction: &str, text: String) {
        self.log().tell(Importance::Warning, text);
    }

    /// Whether it goes on when the service ends, for [`Backend::recover`] to find it again.
    fn outlives_service(&self) -> bool {
        false
    }

    /// Stops it for a reason that is not its user's, who is told.
    fn cancel_because(&self, reason: &str) {
        self.log().tell(Importance::Error, reason.to_owned());
        self.cancel();
    }
}

/// A job of an earlier service.
pub(crate) struct Recovered {
    /// Its id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// Its options.
    pub(crate) options: PipelineOptions,
    /// Its pipeline, encoded, if it is still known.
    pub(crate) pipeline: Option<Bytes>,
    /// When it was prepared.
    pub(crate) prepared_at: SystemTime,
    /// The job.
    pub(crate) job: Arc<dyn RunningJob>,
}

/// The back ends of a service.
#[derive(Clone)]
pub(crate) struct Backends {
    /// Where a job's options choose one of these, the first that takes it runs it,
    chosen: Vec<Arc<dyn Backend>>,
    /// and this one all others.
    default: Arc<dyn Backend>,
}

impl Backends {
    /// `default` runs what none of `chosen` takes.
    pub(crate) fn new(default: Arc<dyn Backend>, chosen: Vec<Arc<dyn Backend>>) -> Self {
        Self { chosen, default }
    }

    /// The back end that runs a job with these options.
    pub(crate) fn choose(&self, options: &PipelineOptions) -> Arc<dyn Backend> {
        let chosen = self.chosen.iter().find(|backend| backend.takes(options));
        chosen.unwrap_or(&self.default).clone()
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<dyn Backend>> {
        self.chosen.iter().chain([&self.default])
    }
}
