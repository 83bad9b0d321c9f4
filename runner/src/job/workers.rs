//! The workers of a job: started when first needed, again when lost, all stopped at the end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message as _;
use prost_types::value::Kind;
use purlin_proto::pipeline::MonitoringInfo;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::JobSettings;
use super::log::{EventLog, Importance};
use crate::options::{in_launcher, samples_data};
use crate::translate::PlanEnvironment;
use crate::worker::{StartWorker, Worker, WorkerError, WorkerFactory};

/// Counts the workers of this process.
static NEXT_WORKER: AtomicU64 = AtomicU64::new(1);

/// How long a worker may take to tell what short ids of metrics mean.
const SHORT_IDS: Duration = Duration::from_secs(10);

/// Bytes of short ids and their meanings that are remembered of a worker: some 400,000.
const MAX_IDS_BYTES: usize = 64 << 20;

/// A worker of the job, with what is known of it.
pub(super) struct JobWorker {
    /// Without its token.
    pub id: String,
    /// Id of its environment.
    pub environment: String,
    pub worker: Arc<dyn Worker>,
    /// Its short ids of metrics, as far as they are resolved.
    pub short_ids: Mutex<HashMap<String, MonitoringInfo>>,
    /// It did not tell what short ids mean: it is not asked again.
    keeps_ids_secret: AtomicBool,
    /// Bytes of the short ids and what they mean.
    ids_bytes: AtomicUsize,
    /// When a bundle last asked for it.
    used: Mutex<Instant>,
}

impl JobWorker {
    fn use_now(&self) {
        *self.used.lock() = Instant::now();
    }

    fn idle(&self) -> Duration {
        self.used.lock().elapsed()
    }

    /// Remembers what short ids mean. Gives why it does not.
    fn learn(&self, found: Vec<(String, MonitoringInfo)>) -> Option<String> {
        let mut known = self.short_ids.lock();
        let size = |id: &str, info: &MonitoringInfo| id.len() + info.encoded_len();
        for (id, info) in found {
            // Counted for good: one that comes again is rare.
            let bytes = size(&id, &info);
            if self.ids_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > MAX_IDS_BYTES {
                return Some(format!("it has more than {} MiB of them", MAX_IDS_BYTES >> 20));
            }
            known.insert(id, info);
        }
        None
    }

    /// The infos of a response, short ids resolved; `None` where some id is new.
    pub(super) fn known_infos(
        &self,
        infos: &[MonitoringInfo],
        data: &HashMap<String, bytes::Bytes>,
    ) -> Option<Vec<MonitoringInfo>> {
        let known = self.short_ids.lock();
        super::metrics::resolve(infos, data, &known).ok()
    }

    /// The infos of a response, short ids resolved (asking the worker for those that are new).
    pub(super) async fn infos(
        &self,
        infos: &[MonitoringInfo],
        data: &HashMap<String, bytes::Bytes>,
    ) -> Vec<MonitoringInfo> {
        let missing = {
            let known = self.short_ids.lock();
            match super::metrics::resolve(infos, data, &known) {
                Ok(infos) => return infos,
                Err(missing) => missing,
            }
        };
        if !self.keeps_ids_secret.load(Ordering::Relaxed) {
            // Metrics matter less than the job, whose end waits for this.
            let asked = tokio::time::timeout(SHORT_IDS, self.worker.monitoring_infos(missing)).await;
            let reason = match asked {
                Ok(Ok(found)) => self.learn(found),
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no answer within {} s", SHORT_IDS.as_secs())),
            };
            if let Some(reason) = reason {
                self.keeps_ids_secret.store(true, Ordering::Relaxed);
                tracing::warn!(worker = %self.id, "it did not tell what its metrics' short ids mean: {reason}");
            }
        }
        let known = self.short_ids.lock().clone();
        let data = data.iter().filter(|(id, _)| known.contains_key(*id));
        let data: HashMap<String, bytes::Bytes> =
            data.map(|(id, payload)| (id.clone(), payload.clone())).collect();
        super::metrics::resolve(infos, &data, &known).unwrap_or_default()
    }
}

/// A worker that ends before it can take a bundle is started again, so many times in all,
const MAX_STARTS: u32 = 4;
/// at first after this time, then after twice as long each time.
const START_AGAIN: Duration = Duration::from_millis(250);

type Slot = tokio::sync::Mutex<Option<Arc<JobWorker>>>;

/// The workers by environment and index.
pub(super) struct Workers {
    factory: Arc<dyn WorkerFactory>,
    settings: JobSettings,
    environments: Vec<PlanEnvironment>,
    slots: Vec<Vec<Slot>>,
    stopped: AtomicBool,
    /// Whether an environment has had a worker.
    had_one: Vec<AtomicBool>,
    log: Arc<EventLog>,
}

impl Workers {
    pub(super) fn new(
        factory: Arc<dyn WorkerFactory>,
        settings: JobSettings,
        environments: Vec<PlanEnvironment>,
        counts: impl Iterator<Item = u32>,
        log: Arc<EventLog>,
    ) -> Self {
        let slots = counts
            .map(|count| (0..count.max(1)).map(|_| Slot::default()).collect())
            .collect();
        Workers {
            had_one: environments.iter().map(|_| AtomicBool::new(false)).collect(),
            factory,
            settings,
            environments,
            slots,
            stopped: AtomicBool::new(false),
            log,
        }
    }

    fn slot(&self, environment: usize, index: u32) -> Result<(&PlanEnvironment, &Slot), WorkerError> {
        let found = self
            .environments
            .get(environment)
            .zip(self.slots.get(environment));
        let (own, slots) = found.ok_or_else(|| WorkerError::Start {
            environment: environment.to_string(),
            reason: "the plan has no such environment".to_owned(),
        })?;
        let count = slots.len();
        let slot = slots
            .get(index as usize % count.max(1))
            .ok_or_else(|| WorkerError::Start {
                environment: own.id.clone(),
                reason: "it has no workers".to_owned(),
            })?;
        Ok((own, slot))
    }

    /// The worker of an environment; starts it where it does not run.
    pub(super) async fn get(&self, environment: usize, index: u32) -> Result<Arc<JobWorker>, WorkerError> {
        let (own, slot) = self.slot(environment, index)?;
        let mut slot = slot.lock().await;
        if let Some(worker) = &*slot {
            worker.use_now();
            return Ok(Arc::clone(worker));
        }
        let worker = self.start(environment, own).await?;
        *slot = Some(Arc::clone(&worker));
        Ok(worker)
    }

    /// Starts a worker; again and again where it ends before it can take a bundle.
    async fn start(&self, environment: usize, own: &PlanEnvironment) -> Result<Arc<JobWorker>, WorkerError> {
        let had_one = self.had_one.get(environment);
        let mut pause = START_AGAIN;
        let mut tries = 1;
        loop {
            if self.stopped.load(Ordering::Acquire) {
                let reason = "the job has ended".to_owned();
                return Err(WorkerError::Start {
                    environment: own.id.clone(),
                    reason,
                });
            }
            let had_one_before = had_one.is_some_and(|had| had.load(Ordering::Relaxed));
            match self.start_once(own, had_one_before).await {
                Ok(worker) => {
                    if let Some(had) = had_one {
                        had.store(true, Ordering::Relaxed);
                    }
                    return Ok(worker);
                }
                Err(WorkerError::Died { reason, .. }) if tries < MAX_STARTS => {
                    let text = format!(
                        "try {tries} of {MAX_STARTS} to start a worker of environment {} failed, the next is made in {} \
                         ms: {reason}",
                        own.id,
                        pause.as_millis()
                    );
                    self.log.tell(Importance::Warning, text);
                }
                Err(WorkerError::Died { environment, reason }) => {
                    let reason = format!("no worker started in {MAX_STARTS} tries; the last: {reason}");
                    return Err(WorkerError::Died { environment, reason });
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
            tries += 1;
        }
    }

    async fn start_once(&self, own: &PlanEnvironment, had_one: bool) -> Result<Arc<JobWorker>, WorkerError> {
        let number = NEXT_WORKER.fetch_add(1, Ordering::Relaxed);
        let name = match self.settings.job_id.as_str() {
            "" => format!("worker-{number}"),
            job => format!("{job}-worker-{number}"),
        };
        // Whoever knows a worker's id is told its provision info, and taken for the worker.
        let request = StartWorker {
            worker_id: purlin_net::with_token(&name),
            environment_id: own.id.clone(),
            environment: own.proto.clone(),
            pipeline_options: self.settings.pipeline_options.clone(),
            job_id: self.settings.job_id.clone(),
            retrieval_token: self.settings.retrieval_token.clone(),
            had_one,
        };
        tracing::debug!(worker = name, environment = own.id, "starting a worker");
        let worker = self.factory.start(request).await?;
        Ok(Arc::new(JobWorker {
            id: worker.id().unwrap_or(name),
            environment: own.id.clone(),
            worker,
            short_ids: Mutex::default(),
            keeps_ids_secret: AtomicBool::new(false),
            ids_bytes: AtomicUsize::new(0),
            used: Mutex::new(Instant::now()),
        }))
    }

    /// How long a worker may be idle within the job, where `--environment_cache_millis` says so.
    fn idle_limit(&self) -> Option<Duration> {
        let fields = &self.settings.pipeline_options.fields;
        let value = fields
            .get("beam:option:environment_cache_millis:v1")
            .or_else(|| fields.get("environment_cache_millis"))?;
        let millis = match value.kind.as_ref()? {
            Kind::NumberValue(number) if *number >= 1.0 => *number as u64,
            Kind::StringValue(text) => text.trim().parse().ok()?,
            _ => return None,
        };
        (millis > 0).then(|| Duration::from_millis(millis))
    }

    /// Stops workers that are idle for longer than the job allows, until it ends.
    pub(super) async fn retire_idle(shared: Weak<super::Shared>) {
        let Some(limit) = shared.upgrade().and_then(|shared| shared.workers.idle_limit()) else {
            return;
        };
        loop {
            tokio::time::sleep((limit / 2).max(Duration::from_millis(20))).await;
            let Some(shared) = shared.upgrade() else { return };
            let workers = &shared.workers;
            if workers.stopped.load(Ordering::Acquire) {
                return;
            }
            for slot in workers.slots.iter().flatten() {
                // One that is locked is being started.
                let Ok(mut slot) = slot.try_lock() else { continue };
                // Whoever uses it holds it.
                let idle = slot
                    .as_ref()
                    .is_some_and(|worker| Arc::strong_count(worker) == 1 && worker.idle() > limit);
                let retired = if idle { slot.take() } else { None };
                drop(slot);
                if let Some(retired) = retired {
                    tracing::debug!("stopping a worker that was idle for {limit:?}");
                    retired.worker.stop().await;
                }
            }
        }
    }

    /// Forgets a worker that was lost, so that the next bundle starts another.
    pub(super) async fn forget(&self, environment: usize, index: u32, lost: &Arc<JobWorker>) {
        let Ok((_, slot)) = self.slot(environment, index) else {
            return;
        };
        let mut slot = slot.lock().await;
        if slot.as_ref().is_some_and(|worker| Arc::ptr_eq(worker, lost)) {
            *slot = None;
            drop(slot);
            lost.worker.stop().await;
        }
    }

    /// The workers that run now; those that start are not waited for.
    pub(super) fn running(&self) -> Vec<Arc<JobWorker>> {
        let slots = self.slots.iter().flatten();
        slots.filter_map(|slot| slot.try_lock().ok()?.clone()).collect()
    }

    pub(super) fn job_id(&self) -> &str {
        &self.settings.job_id
    }

    /// Whether the program that submitted the job runs its workers.
    pub(super) fn in_launcher(&self) -> bool {
        in_launcher(&self.settings.pipeline_options)
    }

    /// Whether workers keep samples.
    pub(super) fn sample(&self) -> bool {
        samples_data(&self.settings.pipeline_options)
    }

    /// Gives those workers that are kept for other jobs back; none starts any more.
    pub(super) async fn keep(&self) {
        self.stopped.store(true, Ordering::Release);
        for slot in self.slots.iter().flatten() {
            let mut slot = slot.lock().await;
            if slot.as_ref().is_some_and(|worker| worker.worker.keep()) {
                *slot = None;
            }
        }
    }

    /// Stops all workers and waits for their end; none starts any more.
    pub(super) async fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        let mut stopping = JoinSet::new();
        for slot in self.slots.iter().flatten() {
            let worker = slot.lock().await.take();
            if let Some(worker) = worker {
                stopping.spawn(async move { worker.worker.stop().await });
            }
        }
        while stopping.join_next().await.is_some() {}
    }
}
