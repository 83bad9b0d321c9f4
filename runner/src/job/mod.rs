//! A running job: the loop that feeds the engine and does what it decides.
//!
//! One task owns the course of a job: it hands events to the engine and performs the actions. Every bundle, split,
//! progress request and question to an SDK is a task of its own that reports back; state requests of running bundles
//! go to the engine directly.

mod actor;
mod bundle;
mod failures;
mod log;
mod merge;
mod metrics;
mod samples;
mod test_stream;
mod window_questions;
mod workers;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use parking_lot::{Mutex, MutexGuard};
use prost::Message as _;
use purlin_engine::{CollectionId, Engine, StageId, TransformId};
use purlin_model::Coder;
use purlin_proto::fn_execution::{SampleDataRequest, SampleDataResponse};
use tokio::sync::{mpsc, watch};
use typed_index_collections::TiVec;

pub use log::{EventLog, Importance, JobEvent, JobState, Message, StateChange};
pub use metrics::JobMetrics;

use crate::query::{self, QueryError, StateQuery};
use crate::translate::{Plan, QueryableState, StagePlan, WindowPlan};
use crate::worker::WorkerFactory;
use actor::{Actor, Input};
use bundle::StageIo;
use failures::Failures;
use metrics::MetricsStore;
use workers::Workers;

/// How long workers may take to tell their samples when a job ends.
const SAMPLES_TIMEOUT: Duration = Duration::from_secs(2);

/// What a job is called and what its workers are told.
#[derive(Clone, Debug, Default)]
pub struct JobSettings {
    /// Unique in this process.
    pub job_id: String,
    /// As the user named it.
    pub job_name: String,
    /// For the workers' provision.
    pub pipeline_options: prost_types::Struct,
    /// Token under which workers retrieve the job's artifacts; empty where there are none.
    pub retrieval_token: String,
}

/// Starts jobs.
#[derive(Clone, Copy, Debug)]
pub struct Job;

impl Job {
    /// Starts a job. Must be called inside of a tokio runtime, which it runs on. The job goes on when all handles are
    /// dropped.
    pub fn start(plan: Plan, factory: Arc<dyn WorkerFactory>, settings: JobSettings) -> JobHandle {
        let log = Arc::new(EventLog::new());
        let (inputs, inbox) = mpsc::unbounded_channel();
        let text: Arc<str> = plan.to_string().into();
        tracing::debug!(job = settings.job_id, "the fused plan:\n{text}");
        let Plan {
            fused,
            stages,
            environments,
            transforms,
            numbers,
            merges,
            mappings,
            map_states,
            states,
            queryable,
            remote_streams,
        } = plan;
        let engine = Engine::new(fused);
        let counts: Vec<u32> = engine.graph().environments.iter().map(|e| e.workers).collect();
        let workers = Workers::new(
            factory,
            settings.clone(),
            environments,
            counts.into_iter(),
            Arc::clone(&log),
        );
        let io = stages.iter().map(|stage| StageIo::new(stage, &engine)).collect();
        let shared = Arc::new(Shared {
            job_id: settings.job_id.clone(),
            engine: Mutex::new(engine),
            stages,
            io,
            transforms,
            numbers,
            merges,
            mappings,
            map_states,
            states,
            queryable,
            workers,
            metrics: Mutex::default(),
            failures: Mutex::default(),
            samples: Mutex::default(),
        });
        tokio::spawn(Workers::retire_idle(Arc::downgrade(&shared)));
        let (ended, end) = watch::channel(false);
        let actor = Actor::new(Arc::clone(&shared), Arc::clone(&log), inputs.clone());
        let course = Arc::new(Mutex::new(Course::Running(shared)));
        let own = Arc::clone(&course);
        tokio::spawn(async move {
            actor.run(inbox, remote_streams).await;
            end_of(&own);
            ended.send_replace(true);
        });
        JobHandle {
            id: settings.job_id.into(),
            name: settings.job_name.into(),
            plan: text,
            course,
            log,
            inputs,
            end,
        }
    }
}

/// What all tasks of a job share.
pub(crate) struct Shared {
    job_id: String,
    engine: Mutex<Engine>,
    stages: TiVec<StageId, StagePlan>,
    io: TiVec<StageId, StageIo>,
    /// Id and unique name by number.
    transforms: TiVec<TransformId, (String, String)>,
    numbers: HashMap<String, TransformId>,
    merges: HashMap<CollectionId, WindowPlan>,
    mappings: HashMap<(TransformId, usize), WindowPlan>,
    map_states: HashMap<(String, String), Coder>,
    states: HashSet<(String, String)>,
    queryable: Vec<QueryableState>,
    workers: Workers,
    metrics: Mutex<MetricsStore>,
    failures: Mutex<Failures>,
    /// Samples that the workers gave, the last ones of each PCollection.
    samples: Mutex<SampleDataResponse>,
}

/// What there is of a job: all of it while it runs, and then only what is shown of it. Its data, its plan and its pipeline
/// options are dropped at its end, however long handles are kept.
enum Course {
    Running(Arc<Shared>),
    Ended(Box<Ended>),
}

/// What is kept of a job that has ended, beside its states and messages.
struct Ended {
    metrics: JobMetrics,
    samples: SampleDataResponse,
}

impl Course {
    fn shared(&self) -> Option<Arc<Shared>> {
        match self {
            Course::Running(shared) => Some(Arc::clone(shared)),
            Course::Ended(_) => None,
        }
    }
}

/// Keeps of a job that has ended what is shown of it.
fn end_of(course: &Mutex<Course>) {
    let Some(shared) = course.lock().shared() else {
        return;
    };
    let ended = Ended {
        metrics: shared.all_metrics(),
        samples: std::mem::take(&mut *shared.samples.lock()),
    };
    *course.lock() = Course::Ended(Box::new(ended));
}

/// What a worker tells of itself.
#[derive(Clone, Debug)]
pub struct WorkerStatus {
    /// The worker, without its token.
    pub worker_id: String,
    /// Its environment in the pipeline.
    pub environment_id: String,
    /// Text for people, or why there is none.
    pub status: Result<String, String>,
}

impl Shared {
    /// Samples of all workers, with those that they gave before: an SDK tells a sample once.
    async fn samples(&self, pcollection_ids: Vec<String>) -> SampleDataResponse {
        for worker in self.workers.running() {
            match worker.worker.samples(SampleDataRequest::default()).await {
                Ok(response) => self.add_samples(response),
                Err(error) => tracing::debug!(%error, "a worker gave no samples"),
            }
        }
        samples::chosen(&self.samples.lock(), &pcollection_ids)
    }

    fn add_samples(&self, more: SampleDataResponse) {
        samples::add(&mut self.samples.lock(), more);
    }

    fn all_metrics(&self) -> JobMetrics {
        self.metrics().query(|id| self.name(id))
    }

    /// Keeps what samples there are, before the workers end.
    async fn keep_samples(&self) {
        if !self.workers.sample() {
            return;
        }
        // A worker that does not answer in time has none.
        let _ = tokio::time::timeout(SAMPLES_TIMEOUT, self.samples(Vec::new())).await;
    }

    /// The engine. Every use is short; no user code runs under the lock.
    pub(crate) fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock()
    }

    fn metrics(&self) -> MutexGuard<'_, MetricsStore> {
        self.metrics.lock()
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock()
    }

    /// The number of a transform that a worker names by id.
    pub(crate) fn transform(&self, id: &str) -> Option<TransformId> {
        self.numbers.get(id).copied()
    }

    /// The coder of a map state's values.
    pub(crate) fn map_values(&self, transform: &str, state: &str) -> Option<&Coder> {
        self.map_states.get(&(transform.to_owned(), state.to_owned()))
    }

    /// Whether a transform declares a state.
    pub(crate) fn has_state(&self, transform: &str, state: &str) -> bool {
        self.states.contains(&(transform.to_owned(), state.to_owned()))
    }

    /// The states that the pipeline made queryable.
    pub(crate) fn queryable(&self) -> &[QueryableState] {
        &self.queryable
    }

    fn name(&self, id: &str) -> String {
        let found = self
            .numbers
            .get(id)
            .and_then(|number| self.transforms.get(*number));
        found.map_or_else(|| id.to_owned(), |(_, name)| name.clone())
    }
}

/// A job, as others see it. Cheap to clone.
#[derive(Clone)]
pub struct JobHandle {
    id: Arc<str>,
    name: Arc<str>,
    plan: Arc<str>,
    course: Arc<Mutex<Course>>,
    log: Arc<EventLog>,
    inputs: mpsc::UnboundedSender<Input>,
    end: watch::Receiver<bool>,
}

impl std::fmt::Debug for JobHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state();
        f.debug_struct("JobHandle")
            .field("id", &self.id())
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

impl JobHandle {
    /// The job's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The name that the user gave.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The job's states and messages.
    pub fn log(&self) -> &Arc<EventLog> {
        &self.log
    }

    /// The fused plan, for people: a stage, or what the runner does itself, and what it reads and makes, in each line or group
    /// of lines.
    pub fn plan(&self) -> &str {
        &self.plan
    }

    /// The current state.
    pub fn state(&self) -> JobState {
        self.log.current().state
    }

    /// All states so far, the first one first.
    pub fn history(&self) -> Vec<StateChange> {
        self.log.history()
    }

    /// Watches the state.
    pub fn watch(&self) -> watch::Receiver<StateChange> {
        self.log.watch()
    }

    /// States and messages in order, from the first on, then as they come. Ends after the terminal state.
    pub fn events(&self) -> impl Stream<Item = JobEvent> + Send + 'static + use<> {
        self.log.events()
    }

    /// The messages among [`JobHandle::events`].
    pub fn messages(&self) -> impl Stream<Item = Message> + Send + 'static + use<> {
        self.events().filter_map(|event| async move {
            match event {
                JobEvent::Message(message) => Some(message),
                JobEvent::State(_) => None,
            }
        })
    }

    /// The states among [`JobHandle::events`].
    pub fn states(&self) -> impl Stream<Item = StateChange> + Send + 'static + use<> {
        self.log.states()
    }

    /// Adds an error that a worker logged while it followed an instruction (empty: not known), as a warning: a client takes a job's last
    /// error message as the reason of its failure. One that only repeats the error of a bundle that failed is not added.
    pub fn worker_error(&self, instruction: &str, text: String) {
        let shared = self.course.lock().shared();
        let told = match shared {
            Some(shared) => shared.failures().logged(instruction, text),
            None => vec![text],
        };
        for text in told {
            self.log.tell(Importance::Warning, text);
        }
    }

    /// The metrics so far.
    pub fn metrics(&self) -> JobMetrics {
        let course = self.course.lock();
        match &*course {
            Course::Ended(ended) => ended.metrics.clone(),
            Course::Running(shared) => {
                let shared = Arc::clone(shared);
                drop(course);
                shared.all_metrics()
            }
        }
    }

    /// Bytes, about, that stay in memory with this handle when the job has ended: of its messages, metrics, samples and plan.
    pub fn kept_bytes(&self) -> usize {
        let more = match &*self.course.lock() {
            Course::Running(_) => 0,
            Course::Ended(ended) => {
                let metrics = ended.metrics.attempted.iter().chain(&ended.metrics.committed);
                ended.samples.encoded_len() + metrics.map(|info| info.encoded_len()).sum::<usize>()
            }
        };
        self.log.bytes() + self.plan.len() + more
    }

    /// Why the job failed.
    pub fn error(&self) -> Option<String> {
        self.log.error()
    }

    /// Samples of elements by PCollection id, of all workers that keep some: the last ten, also after the job's end.
    /// No ids: of all PCollections.
    pub async fn samples(&self, pcollection_ids: Vec<String>) -> SampleDataResponse {
        let shared = match &*self.course.lock() {
            Course::Running(shared) => Arc::clone(shared),
            Course::Ended(ended) => return samples::chosen(&ended.samples, &pcollection_ids),
        };
        shared.samples(pcollection_ids).await
    }

    /// What the running workers tell of themselves. None does once the job has ended: those that are still there are
    /// being stopped.
    pub async fn worker_statuses(&self) -> Vec<WorkerStatus> {
        let ask = |worker: Arc<workers::JobWorker>| async move {
            WorkerStatus {
                worker_id: worker.id.clone(),
                environment_id: worker.environment.clone(),
                status: worker.worker.status().await,
            }
        };
        let running = self.course.lock().shared().map(|shared| shared.workers.running());
        let statuses = futures::future::join_all(running.into_iter().flatten().map(ask)).await;
        if self.log.current().state.is_terminal() {
            return Vec::new();
        }
        statuses
    }

    /// Reads state that the pipeline made queryable: what is committed when it is asked, as JSON.
    ///
    /// # Errors
    /// When there is none, the job has ended, the query cannot be understood, or the state is too large.
    pub fn state_of(&self, query: &StateQuery) -> Result<serde_json::Value, QueryError> {
        let shared = self.course.lock().shared();
        let ended = || QueryError::NotFound(format!("job {} has ended, and its state with it", self.id));
        let running = shared.filter(|_| !self.state().is_terminal());
        let running = running.ok_or_else(ended)?;
        query::answer(&running, query)
    }

    /// Stops the job. Returns at once.
    pub fn cancel(&self) {
        // A job that has ended takes no more inputs.
        let _ = self.inputs.send(Input::Cancel);
    }

    /// Lets the job finish what it has: sources stop. Returns at once.
    pub fn drain(&self) {
        let _ = self.inputs.send(Input::Drain);
    }

    /// Waits for the terminal state, and until all workers are stopped.
    pub fn wait(&self) -> impl Future<Output = JobState> + Send + 'static + use<> {
        let mut end = self.end.clone();
        let log = Arc::clone(&self.log);
        async move {
            // An error is the end of the job's task.
            let _ = end.wait_for(|ended| *ended).await;
            log.current().state
        }
    }
}
