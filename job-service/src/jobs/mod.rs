//! The jobs of this service, from Prepare to their end.

mod error;
mod record;
mod service;
mod table;
mod worker_log;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use purlin_proto::{job_management as api, pipeline};
use purlin_runner::job::{JobSettings, JobState};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::{Status, async_trait};

use crate::artifacts::{StagingJobs, Store};
use crate::aside::aside;
use crate::backends::{Backends, RunningJob};
use crate::pipeline_options::PipelineOptions;
pub(crate) use error::JobError;
pub(crate) use record::JobRecord;
use record::NewJob;
pub(crate) use service::JobApi;
pub(crate) use table::JobTable;
use table::MAX_PREPARED_BYTES;
pub(crate) use worker_log::JobLog;

/// What clients are told whose jobs run when the service ends.
const ENDED: &str = "the job service ended before the job did; submit the job again when it runs";

/// The jobs, and what is done with them.
pub(crate) struct Jobs {
    table: Arc<JobTable>,
    backends: Backends,
    store: Arc<Store>,
    next: AtomicU64,
    salt: u64,
    /// How many jobs run, for the idle shutdown.
    running: watch::Sender<usize>,
    /// No job is run any more.
    ending: AtomicBool,
    /// One for each running job that ends with the service: what is to be done at its end.
    ends: Mutex<JoinSet<()>>,
}

impl Jobs {
    pub(crate) fn new(table: Arc<JobTable>, backends: Backends, store: Arc<Store>) -> Self {
        Self {
            table,
            backends,
            store,
            next: AtomicU64::new(1),
            // Ids do not repeat after a restart of the service.
            salt: RandomState::new().hash_one(SystemTime::now()),
            running: watch::Sender::new(0),
            ending: AtomicBool::new(false),
            ends: Mutex::default(),
        }
    }

    /// Goes on with the jobs that an earlier service left running.
    pub(crate) async fn recover(self: &Arc<Self>) {
        for backend in self.backends.all() {
            for found in backend.recover().await {
                let job = found.job.clone();
                let record = Arc::new(JobRecord::recovered(found, backend.clone()));
                tracing::info!(job = %record.id, backend = backend.name(), "found again");
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                self.table.insert(number, record.clone());
                self.follow(&record, job);
            }
        }
    }

    /// How many jobs run.
    pub(crate) fn running(&self) -> watch::Receiver<usize> {
        self.running.subscribe()
    }

    pub(crate) fn all(&self) -> Vec<Arc<JobRecord>> {
        self.table.all()
    }

    pub(crate) fn get(&self, id: &str) -> Result<Arc<JobRecord>, JobError> {
        self.table.get(id)
    }

    /// The pipeline options that are read, for clients.
    pub(crate) fn describe_options(&self) -> Vec<api::PipelineOptionDescriptor> {
        let of_backends = self.backends.all().flat_map(|backend| backend.options());
        PipelineOptions::describe()
            .into_iter()
            .chain(of_backends)
            .collect()
    }

    /// Checks a pipeline and takes it. `from_elsewhere`: the client is on another machine, or may be.
    pub(crate) async fn prepare(
        &self,
        request: api::PrepareJobRequest,
        from_elsewhere: bool,
    ) -> Result<Arc<JobRecord>, JobError> {
        let (new, pipeline) = aside({
            let backends = self.backends.clone();
            move || read(request, from_elsewhere, &backends)
        })
        .await??;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = self.id(&new.name, number);
        let record = Arc::new(JobRecord::prepare(id, new, pipeline).await?);
        self.table
            .insert_prepared(number, record.clone(), |job| self.expired(job))?;
        tracing::info!(job = %record.id, backend = record.backend().name(), "prepared");
        Ok(record)
    }

    fn id(&self, name: &str, number: u64) -> String {
        let short: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(60)
            .collect();
        format!("{short}-{number}-{:08x}", self.salt as u32)
    }

    /// Forgets the jobs that were prepared and of which nothing was heard for so long, with their artifacts.
    pub(crate) fn expire(&self, timeout: Duration) {
        for job in self.table.expire(timeout) {
            self.expired(&job);
        }
    }

    fn expired(&self, job: &JobRecord) {
        tracing::info!(job = %job.id, "prepared, and never run: forgotten");
        self.store.release(&job.id);
    }

    /// Starts a prepared job.
    pub(crate) async fn run(self: &Arc<Self>, id: &str) -> Result<Arc<JobRecord>, JobError> {
        let record = self.get(id)?;
        if self.ending.load(Ordering::Acquire) {
            return Err(JobError::Ending);
        }
        let settings = JobSettings {
            job_id: record.id.clone(),
            job_name: record.name.clone(),
            pipeline_options: record.options.proto(),
            retrieval_token: record.id.clone(),
        };
        let job = record.start(settings).await?;
        tracing::info!(job = %record.id, "running");
        self.follow(&record, job.clone());
        if self.ending.load(Ordering::Acquire) && !job.outlives_service() {
            // The service has begun to end since then.
            job.cancel_because(ENDED);
        }
        Ok(record)
    }

    /// Waits for the end of a job, and cleans up after it.
    fn follow(self: &Arc<Self>, record: &JobRecord, job: Arc<dyn RunningJob>) {
        self.running.send_modify(|n| *n += 1);
        let outlives_service = job.outlives_service();
        let (jobs, id) = (self.clone(), record.id.clone());
        let end = async move {
            job.wait().await;
            jobs.store.release(&id);
            let state = job.log().current().state;
            match job.log().error() {
                Some(error) => tracing::error!(job = %id, "{state:?}: {error}"),
                None => tracing::info!(job = %id, "{state:?}"),
            }
            jobs.table.forget_ended();
            jobs.running.send_modify(|n| *n -= 1);
        };
        if outlives_service {
            tokio::spawn(end);
            return;
        }
        let mut ends = self.ends.lock();
        while ends.try_join_next().is_some() {}
        ends.spawn(end);
    }

    /// Cancels a job, whether it runs or waits to be run.
    pub(crate) fn cancel(&self, job: &JobRecord) {
        if job.cancel() {
            self.store.release(&job.id);
        }
    }

    /// Cancels every job that ends with the service, telling why, and waits until they have ended.
    pub(crate) async fn end_all(&self) {
        self.ending.store(true, Ordering::Release);
        let jobs = self.all().into_iter().filter_map(|job| job.job());
        for job in jobs.filter(|job| !job.outlives_service()) {
            job.cancel_because(ENDED);
        }
        let mut ends = std::mem::take(&mut *self.ends.lock());
        while ends.join_next().await.is_some() {}
    }

    /// Ends what the back ends have beside their jobs.
    pub(crate) async fn shutdown(&self) {
        for backend in self.backends.all() {
            backend.shutdown().await;
        }
    }
}

/// Reads a request to prepare a job. Takes long where its pipeline is large.
fn read(
    request: api::PrepareJobRequest,
    from_elsewhere: bool,
    backends: &Backends,
) -> Result<(NewJob, pipeline::Pipeline), JobError> {
    let pipeline = request.pipeline.unwrap_or_default();
    let options = PipelineOptions::new(request.pipeline_options.unwrap_or_default());
    let encoded = Bytes::from(pipeline.encode_to_vec());
    // The payloads in what a back end makes are slices of what the pipeline was decoded from. That is to be the bytes that are kept,
    // not the whole message, with its options.
    drop(pipeline);
    let pipeline = pipeline::Pipeline::decode(encoded.clone()).unwrap_or_default();
    let bytes = encoded.len() + options.bytes();
    if bytes > MAX_PREPARED_BYTES {
        return Err(JobError::Full { bytes });
    }
    let name = match options.job_name() {
        Some(name) => name.to_owned(),
        None if request.job_name.is_empty() => "job".to_owned(),
        None => request.job_name,
    };
    let new = NewJob {
        name,
        backend: backends.choose(&options),
        options,
        pipeline: encoded,
        from_elsewhere,
    };
    Ok((new, pipeline))
}

#[async_trait]
impl StagingJobs for Jobs {
    async fn dependencies(
        &self,
        token: &str,
    ) -> Result<Option<HashMap<String, Vec<pipeline::ArtifactInformation>>>, Status> {
        let Some(job) = self.get(token).ok().filter(|job| job.is_prepared()) else {
            return Ok(None);
        };
        let Some(pipeline) = job.pipeline().await? else {
            return Ok(None);
        };
        let environments = pipeline.components.into_iter().flat_map(|c| c.environments);
        let dependencies = environments.map(|(id, environment)| (id, environment.dependencies));
        Ok(Some(dependencies.collect()))
    }

    fn heard_of(&self, token: &str) -> bool {
        self.get(token).is_ok_and(|job| job.heard_of())
    }

    fn is_prepared(&self, token: &str) -> bool {
        self.get(token).is_ok_and(|job| job.is_prepared())
    }

    async fn staged(
        &self,
        token: &str,
        dependencies: HashMap<String, Vec<pipeline::ArtifactInformation>>,
    ) -> Result<(), Status> {
        Ok(self.get(token)?.staged(dependencies).await?)
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
