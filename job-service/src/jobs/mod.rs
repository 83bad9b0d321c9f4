//! The jobs of this service, from Prepare to their end.

mod error;
mod own_machine;
mod pipeline_options;
mod record;
mod service;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message as _;
use purlin_proto::fn_execution::log_entry::severity::Enum as Severity;
use purlin_proto::{fn_execution as fnapi, job_management as api, pipeline};
use purlin_runner::fnapi::{CONTAINER_OUTPUT, RUNNER_NOTE, TracingLog, WorkerIdentity, WorkerLog};
use purlin_runner::job::{Importance, Job, JobSettings, JobState};
use purlin_runner::translate::plan;
use purlin_runner::worker::WorkerFactory;
use tokio::sync::watch;
use tonic::Status;

use crate::artifacts::{StagingJobs, Store};
pub(crate) use error::JobError;
use pipeline_options::PipelineOptions;
pub(crate) use record::JobRecord;
pub(crate) use service::JobApi;

/// How many ended jobs are remembered,
const MOST_ENDED: usize = 200;
/// and of how many bytes, all together: their pipelines, options, messages, metrics and samples.
const MOST_ENDED_BYTES: usize = 32 << 20;
/// How many jobs may be prepared and not run yet,
const MOST_PREPARED: usize = 1000;
/// and of how many bytes, all together: their pipelines and options.
const MOST_PREPARED_BYTES: usize = 256 << 20;
/// A prepared job of which nothing was heard for so long makes room for others when there is none.
const MAKES_ROOM_AFTER: Duration = Duration::from_secs(60);
/// The plan of a pipeline of so many bytes, encoded, is kept from Prepare to Run: it is several times as large. Those of
/// larger ones are made again.
const MOST_PLANNED_BYTES: usize = 128 << 10;

/// All jobs, by id.
pub(crate) struct Jobs {
    table: Mutex<BTreeMap<u64, Arc<JobRecord>>>,
    next: AtomicU64,
    salt: u64,
    factory: OnceLock<Arc<dyn WorkerFactory>>,
    store: Arc<Store>,
    /// How many jobs run, for the idle shutdown.
    running: watch::Sender<usize>,
    /// No job is run any more.
    ending: AtomicBool,
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
            ending: AtomicBool::new(false),
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

    /// Checks a pipeline and takes it. Takes long where the pipeline is large.
    pub(crate) fn prepare(&self, request: api::PrepareJobRequest) -> Result<Arc<JobRecord>, JobError> {
        let pipeline = request.pipeline.unwrap_or_default();
        let options = PipelineOptions::read(request.pipeline_options.unwrap_or_default())?;
        let encoded = Bytes::from(pipeline.encode_to_vec());
        // The payloads in a plan are slices of what the pipeline was decoded from. That is to be the bytes that are kept, not
        // the whole message, with its options.
        drop(pipeline);
        let pipeline = pipeline::Pipeline::decode(encoded.clone()).unwrap_or_default();
        let bytes = encoded.len() + options.bytes();
        if bytes > MOST_PREPARED_BYTES {
            return Err(JobError::Full { bytes });
        }
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
        let id = format!("{short}-{n}-{:08x}", self.salt as u32);
        let record = Arc::new(JobRecord::new(id, name, options, encoded, plan));
        let mut table = lock(&self.table);
        self.forget_ended(&mut table);
        self.make_room(&mut table, bytes)?;
        table.insert(n, record.clone());
        tracing::info!(job = %record.id, "prepared");
        Ok(record)
    }

    /// Forgets the oldest of the ended jobs, where they are too many or too large. The last one always stays, if without
    /// its pipeline: its client may still ask for its state.
    fn forget_ended(&self, table: &mut BTreeMap<u64, Arc<JobRecord>>) {
        let (mut count, mut bytes) = (0, 0);
        let mut over = Vec::new();
        for (n, job) in table.iter().rev().filter(|(_, job)| job.is_over()) {
            if count == 0 && job.bytes() > MOST_ENDED_BYTES {
                job.forget_pipeline();
            }
            count += 1;
            bytes += job.bytes();
            if count > 1 && (count > MOST_ENDED || bytes > MOST_ENDED_BYTES) {
                over.push(*n);
            }
        }
        for n in over {
            table.remove(&n);
        }
    }

    /// Makes room for another prepared job, which takes so many bytes.
    fn make_room(&self, table: &mut BTreeMap<u64, Arc<JobRecord>>, bytes: usize) -> Result<(), JobError> {
        let prepared = table.iter().filter(|(_, job)| job.is_prepared());
        let prepared: Vec<(u64, usize)> = prepared.map(|(n, job)| (*n, job.bytes())).collect();
        let mut count = prepared.len();
        let mut all = bytes + prepared.iter().map(|(_, bytes)| bytes).sum::<usize>();
        for (n, own) in prepared {
            if count < MOST_PREPARED && all <= MOST_PREPARED_BYTES {
                break;
            }
            if table.get(&n).is_some_and(|job| job.expire(MAKES_ROOM_AFTER)) {
                self.expired(table.remove(&n));
                (count, all) = (count - 1, all - own);
            }
        }
        if count < MOST_PREPARED && all <= MOST_PREPARED_BYTES {
            Ok(())
        } else {
            Err(JobError::Full { bytes })
        }
    }

    /// Forgets the jobs that were prepared and of which nothing was heard for so long, with their artifacts.
    pub(crate) fn expire(&self, timeout: Duration) {
        let mut table = lock(&self.table);
        let over = table.iter().filter(|(_, job)| job.expire(timeout));
        let over: Vec<u64> = over.map(|(n, _)| *n).collect();
        for n in over {
            self.expired(table.remove(&n));
        }
    }

    fn expired(&self, job: Option<Arc<JobRecord>>) {
        if let Some(job) = job {
            tracing::info!(job = %job.id, "prepared, and never run: forgotten");
            self.store.release(&job.id);
        }
    }

    /// Starts a prepared job. Takes long where the pipeline is large.
    pub(crate) fn run(self: &Arc<Self>, id: &str) -> Result<Arc<JobRecord>, JobError> {
        let record = self.get(id)?;
        let factory = self.factory.get().cloned().ok_or(JobError::Ending)?;
        if self.ending.load(Ordering::Acquire) {
            return Err(JobError::Ending);
        }
        let settings = JobSettings {
            job_id: record.id.clone(),
            job_name: record.name.clone(),
            pipeline_options: record.options.proto(),
            retrieval_token: record.id.clone(),
        };
        let handle = record.start(|plan| Job::start(plan, factory, settings))?;
        self.running.send_modify(|n| *n += 1);
        let jobs = self.clone();
        let job = record.id.clone();
        tokio::spawn(async move {
            let state = handle.wait().await;
            jobs.store.release(&job);
            match handle.error() {
                Some(error) => tracing::error!(job = %job, "{state:?}: {error}"),
                None => tracing::info!(job = %job, "{state:?}"),
            }
            jobs.forget_ended(&mut lock(&jobs.table));
            jobs.running.send_modify(|n| *n -= 1);
        });
        tracing::info!(job = %record.id, "running");
        Ok(record)
    }

    /// Cancels a job, whether it runs or waits to be run.
    pub(crate) fn cancel(&self, job: &JobRecord) {
        if job.cancel() {
            self.store.release(&job.id);
        }
    }

    /// Cancels every job, telling why, and waits until they have ended.
    pub(crate) async fn end_all(&self, reason: &str) {
        self.ending.store(true, Ordering::Release);
        for job in self.all() {
            if let Some(handle) = job.handle() {
                handle.cancel_because(reason);
            }
        }
        let mut running = self.running();
        let _ = running.wait_for(|n| *n == 0).await;
    }
}

impl StagingJobs for Jobs {
    fn dependencies(&self, token: &str) -> Option<HashMap<String, Vec<pipeline::ArtifactInformation>>> {
        let job = self.get(token).ok().filter(|job| job.is_prepared())?;
        let environments = job
            .pipeline()?
            .components
            .into_iter()
            .flat_map(|c| c.environments);
        Some(
            environments
                .map(|(id, environment)| (id, environment.dependencies))
                .collect(),
        )
    }

    fn heard_of(&self, token: &str) -> bool {
        self.get(token).is_ok_and(|job| job.heard_of())
    }

    fn staged(
        &self,
        token: &str,
        dependencies: HashMap<String, Vec<pipeline::ArtifactInformation>>,
    ) -> Result<(), Status> {
        Ok(self.get(token)?.staged(dependencies)?)
    }

    fn abandoned(&self, token: &str) {
        if self.get(token).is_ok_and(|job| !job.is_over()) {
            // It may be staged once more, or runs with what it has.
            return;
        }
        self.store.release(token);
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
            let text = format!("{}{space}{}", entry.message, entry.trace);
            if severity >= Severity::Error {
                handle.worker_error(&entry.instruction_id, text);
            } else {
                handle.message(importance, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Beam's Python SDK makes of a word count.
    const WORDCOUNT: &[u8] = include_bytes!("../../../runner/tests/data/wordcount.pb");

    #[tokio::test]
    async fn a_prepared_job_keeps_nothing_of_the_request() {
        let request = api::PrepareJobRequest {
            pipeline: Some(pipeline::Pipeline::decode(WORDCOUNT).unwrap()),
            ..Default::default()
        };
        let message = Bytes::from(request.encode_to_vec());
        let request = api::PrepareJobRequest::decode(message.clone()).unwrap();
        assert!(WORDCOUNT.len() < MOST_PLANNED_BYTES && !message.is_unique());
        let jobs = Jobs::new(Arc::new(Store::new(None, true).await.unwrap()));
        let _job = jobs.prepare(request).unwrap();
        assert!(message.is_unique());
    }
}
