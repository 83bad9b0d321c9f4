//! What the runner asks of a worker, whether it sits behind the Fn API or in this very process.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use purlin_proto::fn_execution as fnapi;
use purlin_proto::pipeline;

/// Starts workers for environments. One call makes one worker.
pub trait WorkerFactory: Send + Sync + 'static {
    /// Starts a worker and returns when it can take bundles.
    fn start(&self, request: StartWorker) -> BoxFuture<'static, Result<Arc<dyn Worker>, WorkerError>>;
}

/// What a worker is to be.
#[derive(Clone, Debug)]
pub struct StartWorker {
    /// Unique in this process; every Fn API stream of the worker bears it as `worker_id`. It ends in a token, so it is shown by
    /// [`purlin_net::without_token`].
    pub worker_id: String,
    /// Id of the environment in the pipeline.
    pub environment_id: String,
    /// Its environment.
    pub environment: pipeline::Environment,
    /// The job's options, for the provision service.
    pub pipeline_options: prost_types::Struct,
    /// The job's id.
    pub job_id: String,
    /// Token under which the job's artifacts are retrieved, empty where it has none.
    pub retrieval_token: String,
    /// Whether the job has had a worker of this environment before.
    pub had_one: bool,
}

impl StartWorker {
    /// Whether the worker's program, by its SDK's word, takes the token of its id from its environment.
    pub(crate) fn reads_worker_id(&self) -> bool {
        let mut capabilities = self.environment.capabilities.iter();
        capabilities.any(|urn| urn == purlin_net::READS_WORKER_ID)
    }
}

/// A worker that processes bundles. All methods may be called at the same time from several tasks.
pub trait Worker: Send + Sync + 'static {
    /// Processes a bundle to its end: data, state, timers and the response have all come.
    fn process(&self, work: BundleWork) -> BoxFuture<'static, Result<BundleOutcome, WorkerError>>;
    /// Asks how far a bundle is. `Ok(None)`: the worker does not know the bundle (it has not begun, or has ended).
    fn progress(
        &self,
        instruction: String,
    ) -> BoxFuture<'static, Result<Option<fnapi::ProcessBundleProgressResponse>, WorkerError>>;
    /// Asks a bundle to split.
    fn split(
        &self,
        request: fnapi::ProcessBundleSplitRequest,
    ) -> BoxFuture<'static, Result<fnapi::ProcessBundleSplitResponse, WorkerError>>;
    /// Calls the finalizers of a committed bundle.
    fn finalize(&self, instruction: String) -> BoxFuture<'static, Result<(), WorkerError>>;
    /// The full monitoring infos behind short ids.
    fn monitoring_infos(
        &self,
        ids: Vec<String>,
    ) -> BoxFuture<'static, Result<Vec<(String, pipeline::MonitoringInfo)>, WorkerError>>;
    /// Samples of elements by PCollection id, where the worker keeps some.
    fn samples(
        &self,
        request: fnapi::SampleDataRequest,
    ) -> BoxFuture<'static, Result<fnapi::SampleDataResponse, WorkerError>>;
    /// The worker's own account of its threads, bundles and caches, or why there is none.
    fn status(&self) -> BoxFuture<'static, Result<String, String>> {
        Box::pin(async { Err("it runs inside of this process and keeps no status".to_owned()) })
    }
    /// Stops the worker and waits for its end.
    fn stop(&self) -> BoxFuture<'static, ()>;
    /// Resolves when the worker is lost (never, for a worker that cannot be).
    fn lost(&self) -> BoxFuture<'static, String>;
    /// Its job has ended well: the worker goes to those that are kept for other jobs. False if it is to be stopped.
    fn keep(&self) -> bool {
        false
    }
    /// The id that its streams bear, if it has any, without the token: not the one that was asked for, where an earlier job
    /// started it.
    fn id(&self) -> Option<String> {
        None
    }
    /// Whether another job can have it: it runs, has done all bundles that it was given, and none has failed.
    fn is_reusable(&self) -> bool {
        false
    }
    /// The worker is this job's from now on.
    fn adopt(&self, _environment_id: &str, _job_id: &str) {}
}

/// One bundle for a worker.
pub struct BundleWork {
    /// Instruction id, unique among the worker's bundles.
    pub instruction: String,
    /// What to execute; its id is the process-bundle-descriptor id.
    pub descriptor: Arc<fnapi::ProcessBundleDescriptor>,
    /// Main input and timers, in the order in which they must be processed.
    pub input: Vec<WorkInput>,
    /// Every (transform id, timer family id) of the stage: each stream is closed by `is_last`, empty ones too.
    pub timer_families: Vec<(String, String)>,
    /// Id of the data source transform of the descriptor.
    pub source: String,
    /// Ids of the data sink transforms of the descriptor.
    pub sinks: Vec<String>,
    /// Tokens for the worker's caches.
    pub cache_tokens: Vec<fnapi::process_bundle_request::CacheToken>,
    /// Answers state requests of this bundle.
    pub state: Arc<dyn StateHandler>,
}

/// A piece of a bundle's input.
#[derive(Clone, Debug)]
pub enum WorkInput {
    /// Concatenated windowed values for the data source.
    Elements(Bytes),
    /// Concatenated timers.
    Timers {
        /// Transform id.
        transform: String,
        /// Timer family id.
        family: String,
        /// Encoded.
        data: Bytes,
    },
}

/// What a worker did with a bundle.
#[derive(Debug, Default)]
pub struct BundleOutcome {
    /// The worker's own response: residual roots, metrics, finalization.
    pub response: fnapi::ProcessBundleResponse,
    /// Elements by sink transform id, in order of arrival. One buffer holds whole elements.
    pub outputs: Vec<(String, Bytes)>,
    /// Timers by transform id and timer family id, in order of arrival.
    pub timers: Vec<(String, String, Bytes)>,
}

/// Answers state requests of one bundle.
pub trait StateHandler: Send + Sync + 'static {
    /// Answers one request; errors are in the response's `error`.
    fn handle(&self, request: fnapi::StateRequest) -> fnapi::StateResponse;

    /// As [`StateHandler::handle`], for an answer that is not needed yet: where the way to it is long, this returns before.
    fn handle_later(&self, request: fnapi::StateRequest) -> StateAnswer {
        let response = self.handle(request);
        Box::new(move || response)
    }
}

/// Gives the answer to a state request, and waits for it where it has not come.
pub type StateAnswer = Box<dyn FnOnce() -> fnapi::StateResponse + Send>;

/// Why a worker did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WorkerError {
    /// User code or the harness failed: the SDK's own message, whole.
    #[error("{0}")]
    Failed(String),
    /// The worker is gone.
    #[error("worker {worker} was lost: {reason}")]
    Lost {
        /// Which.
        worker: String,
        /// What is known of it.
        reason: String,
    },
    /// The worker could not be started, and another try would end alike.
    #[error("environment {environment}: {reason}")]
    Start {
        /// Id or kind of the environment.
        environment: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The worker was started, and ended before it could take a bundle; another may live.
    #[error("environment {environment}: {reason}")]
    Died {
        /// Id or kind of the environment.
        environment: String,
        /// What is known of its end.
        reason: String,
    },
    /// The program that submitted the job, which ran its workers (LOOPBACK), has ended.
    #[error("{0}")]
    SubmitterGone(String),
}
