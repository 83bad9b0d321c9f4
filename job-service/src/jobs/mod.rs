//! The jobs of this service, from Prepare to their end.

mod error;
mod pipeline_options;
mod service;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::SystemTime;

use purlin_proto::fn_execution::log_entry::severity::Enum as Severity;
use purlin_proto::{fn_execution as fnapi, job_management as api, pipeline};
use purlin_runner::fnapi::{CONTAINER_OUTPUT, RUNNER_NOTE, TracingLog, WorkerIdentity, WorkerLog};
use purlin_runner::job::{Importance, Job, JobHandle, JobSettings, JobState};
use purlin_runner::translate::{Plan, plan};
use purlin_runner::worker::WorkerFactory;
use tokio::sync::watch;
use tonic::Status;

use crate::artifacts::{StagingJobs, Store};
pub(crate) use error::JobError;
use pipeline_options::PipelineOptions;
pub(crate) use service::JobApi;

/// How many ended jobs are remembered.
const REMEMBERED: usize = 200;

/// All jobs, by id.
pub(crate) struct Jobs {
    table: Mutex<BTreeMap<u64, Arc<JobRecord>>>,
    next: AtomicU64,
    salt: u64,
    factory: OnceLock<Arc<dyn WorkerFactory>>,
    store: Arc<Store>,
    /// How many jobs run, for the idle shutdown.
    running: watch::Sender<usize>,
}

/// One job.
pub(crate) struct JobRecord {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) options: PipelineOptions,
    pub(crate) prepared_at: SystemTime,
    stage: Mutex<Stage>,
}

/// How far a job is.
#[expect(clippy::large_enum_variant, reason = "one for each job")]
enum Stage {
    Prepared {
        pipeline: pipeline::Pipeline,
        plan: Option<Plan>,
    },
    Cancelled {
        pipeline: pipeline::Pipeline,
        at: SystemTime,
    },
    Started {
        pipeline: pipeline::Pipeline,
        handle: JobHandle,
    },
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Jobs {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self {
            table: Mutex::default(),
            next: AtomicU64::new(1),
            // Ids do not repeat after a restart of the service.
            salt: RandomState::new().hash_one(SystemTime::now()),
            factory: OnceLock::new(),
            store,
            running: watch::Sender::new(0),
        }
    }

    /// Says how workers are started; once, before the first job runs.
    pub(crate) fn set_factory(&self, factory: Arc<dyn WorkerFactory>) {
        let _ = self.factory.set(factory);
    }

    /// How many jobs run.
    pub(crate) fn running(&self) -> watch::Receiver<usize> {
        self.running.subscribe()
    }

    pub(crate) fn all(&self) -> Vec<Arc<JobRecord>> {
        lock(&self.table).values().cloned().collect()
    }

    pub(crate) fn get(&self, id: &str) -> Result<Arc<JobRecord>, JobError> {
        let found = lock(&self.table).values().find(|job| job.id == id).cloned();
        found.ok_or_else(|| JobError::Unknown { id: id.to_owned() })
    }

    /// Checks a pipeline and takes it.
    pub(crate) fn prepare(&self, request: api::PrepareJobRequest) -> Result<Arc<JobRecord>, JobError> {
        let pipeline = request.pipeline.unwrap_or_default();
        let options = PipelineOptions::read(request.pipeline_options.unwrap_or_default())?;
        let plan = plan(&pipeline, &options.plan_options()).map_err(JobError::invalid)?;
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let name = match options.job_name() {
            Some(name) => name.to_owned(),
            None if request.job_name.is_empty() => "job".to_owned(),
            None => request.job_name,
        };
        let short: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(60)
            .collect();
        let record = Arc::new(JobRecord {
            id: format!("{short}-{n}-{:08x}", self.salt as u32),
            name,
            options,
            prepared_at: SystemTime::now(),
            stage: Mutex::new(Stage::Prepared {
                pipeline,
                plan: Some(plan),
            }),
        });
        let mut table = lock(&self.table);
        let over = table.len().saturating_sub(REMEMBERED);
        let ended: Vec<u64> = table
            .iter()
            .filter(|(_, job)| job.is_over())
            .map(|(n, _)| *n)
            .take(over)
            .collect();
        for n in ended {
            table.remove(&n);
        }
        table.insert(n, record.clone());
        tracing::info!(job = %record.id, "prepared");
        Ok(record)
    }

    /// Starts a prepared job.
    pub(crate) fn run(self: &Arc<Self>, id: &str) -> Result<Arc<JobRecord>, JobError> {
        let record = self.get(id)?;
        let factory = self.factory.get().cloned().ok_or(JobError::Ending)?;
        let handle = {
            let mut stage = lock(&record.stage);
            let Stage::Prepared { pipeline, plan } = &mut *stage else {
                return Err(JobError::RunTwice { id: id.to_owned() });
            };
            let Some(plan) = plan.take() else {
                return Err(JobError::RunTwice { id: id.to_owned() });
            };
            let settings = JobSettings {
                job_id: record.id.clone(),
                job_name: record.name.clone(),
                pipeline_options: record.options.proto().clone(),
                retrieval_token: record.id.clone(),
            };
            let handle = Job::start(plan, factory, settings);
            *stage = Stage::Started {
                pipeline: std::mem::take(pipeline),
                handle: handle.clone(),
            };
            handle
        };
        self.running.send_modify(|n| *n += 1);
        let jobs = self.clone();
        let job = record.id.clone();
        tokio::spawn(async move {
            let state = handle.wait().await;
            jobs.store.release(&job);
            jobs.running.send_modify(|n| *n -= 1);
            match handle.error() {
                Some(error) => tracing::error!(job = %job, "{state:?}: {error}"),
                None => tracing::info!(job = %job, "{state:?}"),
            }
        });
        tracing::info!(job = %record.id, "running");
        Ok(record)
    }

    /// Cancels every job and waits until they have ended.
    pub(crate) async fn cancel_all(&self) {
        for job in self.all() {
            job.cancel();
        }
        let mut running = self.running();
        let _ = running.wait_for(|n| *n == 0).await;
    }
}

impl JobRecord {
    /// The running, or ended, job; none before Run.
    pub(crate) fn handle(&self) -> Option<JobHandle> {
        match &*lock(&self.stage) {
            Stage::Started { handle, .. } => Some(handle.clone()),
            _ => None,
        }
    }

    /// Its state, and since when.
    pub(crate) fn state(&self) -> (api::job_state::Enum, SystemTime) {
        match &*lock(&self.stage) {
            Stage::Prepared { .. } => (api::job_state::Enum::Stopped, self.prepared_at),
            Stage::Cancelled { at, .. } => (api::job_state::Enum::Cancelled, *at),
            Stage::Started { handle, .. } => {
                let now = *handle.watch().borrow();
                (state_to_proto(now.state), now.at)
            }
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        match &*lock(&self.stage) {
            Stage::Prepared { .. } => false,
            Stage::Cancelled { .. } => true,
            Stage::Started { handle, .. } => handle.state().is_terminal(),
        }
    }

    pub(crate) fn pipeline(&self) -> pipeline::Pipeline {
        match &*lock(&self.stage) {
            Stage::Prepared { pipeline, .. }
            | Stage::Cancelled { pipeline, .. }
            | Stage::Started { pipeline, .. } => pipeline.clone(),
        }
    }

    pub(crate) fn cancel(&self) {
        let mut stage = lock(&self.stage);
        match &mut *stage {
            Stage::Started { handle, .. } => handle.cancel(),
            Stage::Prepared { pipeline, .. } => {
                *stage = Stage::Cancelled {
                    pipeline: std::mem::take(pipeline),
                    at: SystemTime::now(),
                };
            }
            Stage::Cancelled { .. } => {}
        }
    }
}

impl StagingJobs for Jobs {
    fn dependencies(&self, token: &str) -> Option<HashMap<String, Vec<pipeline::ArtifactInformation>>> {
        let job = self.get(token).ok()?;
        let stage = lock(&job.stage);
        let Stage::Prepared { pipeline, .. } = &*stage else {
            return None;
        };
        let environments = pipeline.components.iter().flat_map(|c| &c.environments);
        Some(
            environments
                .map(|(id, environment)| (id.clone(), environment.dependencies.clone()))
                .collect(),
        )
    }

    fn staged(
        &self,
        token: &str,
        mut dependencies: HashMap<String, Vec<pipeline::ArtifactInformation>>,
    ) -> Result<(), Status> {
        let job = self.get(token)?;
        let mut stage = lock(&job.stage);
        let Stage::Prepared {
            pipeline,
            plan: planned,
        } = &mut *stage
        else {
            self.store.release(token);
            return Err(JobError::RunTwice { id: token.to_owned() }.into());
        };
        if dependencies.values().all(Vec::is_empty) {
            return Ok(());
        }
        for (id, environment) in pipeline.components.iter_mut().flat_map(|c| &mut c.environments) {
            if let Some(staged) = dependencies.remove(id) {
                environment.dependencies = staged;
            }
        }
        *planned = Some(plan(pipeline, &job.options.plan_options()).map_err(JobError::invalid)?);
        Ok(())
    }
}

pub(crate) fn state_to_proto(state: JobState) -> api::job_state::Enum {
    use api::job_state::Enum;
    match state {
        JobState::Starting => Enum::Starting,
        JobState::Running => Enum::Running,
        JobState::Draining => Enum::Draining,
        JobState::Cancelling => Enum::Cancelling,
        JobState::Done => Enum::Done,
        JobState::Failed => Enum::Failed,
        JobState::Cancelled => Enum::Cancelled,
        JobState::Drained => Enum::Drained,
    }
}

/// Workers' log entries go to the service's log, and on to the job's messages from the level on that its client asks for:
/// from warnings, if for none.
pub(crate) struct JobLog(pub(crate) Weak<Jobs>);

impl WorkerLog for JobLog {
    fn log(&self, worker: &WorkerIdentity, entry: &fnapi::LogEntry) {
        TracingLog.log(worker, entry);
        let jobs = self.0.upgrade();
        let Some(job) = jobs.and_then(|jobs| jobs.get(&worker.job_id).ok()) else {
            return;
        };
        let severity = match entry.severity() {
            // Who does not say how much an entry matters does not say that it is a detail.
            Severity::Unspecified => Severity::Info,
            severity => severity,
        };
        let importance = match (entry.log_location.as_str(), severity) {
            // Not as errors: a client takes a job's last error message as the reason of its failure.
            (_, Severity::Warn | Severity::Error | Severity::Critical) => Importance::Warning,
            (RUNNER_NOTE, _) => Importance::Basic,
            (CONTAINER_OUTPUT, _) => Importance::Detailed,
            (_, severity) if severity < job.options.worker_log() => return,
            (_, Severity::Info | Severity::Notice) => Importance::Basic,
            (_, Severity::Debug) => Importance::Detailed,
            _ => Importance::Debug,
        };
        if let Some(handle) = job.handle() {
            let space = if entry.trace.is_empty() { "" } else { "\n" };
            handle.message(importance, format!("{}{space}{}", entry.message, entry.trace));
        }
    }
}
