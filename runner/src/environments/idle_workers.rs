//! Workers that outlive their job, for the next one with the same environment.
//!
//! A worker is made for its environment, with the artifacts staged for it, and is told the job's options when it starts.
//! Only a job that has all of these the same may have it. Bundle and descriptor ids, and cache tokens, are unique within a
//! job: [`Worker::adopt`] keeps those of one apart from those of the next.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use prost_types::Struct;
use purlin_proto::{fn_execution as fnapi, pipeline};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::options::{in_launcher, samples_data};
use crate::worker::{BundleOutcome, BundleWork, StartWorker, Worker, WorkerError, WorkerFactory};

/// Options that differ from job to job without a difference to its workers.
const NAMES: &[&str] = &["job_name", "jobName", "options_id", "optionsId"];

/// Keeps the workers of jobs that have ended for as long as it is told, and gives them to the next jobs.
#[derive(Clone)]
pub struct KeptWorkers {
    factory: Arc<dyn WorkerFactory>,
    shared: Arc<IdleState>,
}

struct IdleState {
    timeout: Duration,
    table: Mutex<Table>,
    closed: watch::Sender<bool>,
}

#[derive(Default)]
struct Table {
    idle: Vec<Idle>,
    next: u64,
    /// One for each idle worker, and for each that is being stopped.
    tasks: JoinSet<()>,
}

/// A worker that no job has.
struct Idle {
    number: u64,
    made_for: MadeFor,
    worker: Arc<dyn Worker>,
    /// Waits for its end, or for the time when it is no longer kept.
    watcher: AbortHandle,
}

/// What a worker's jobs have in common.
#[derive(Clone, Debug, PartialEq)]
struct MadeFor {
    environment: pipeline::Environment,
    options: Struct,
}

impl MadeFor {
    fn read(request: &StartWorker) -> Self {
        let mut options = request.pipeline_options.clone();
        for name in NAMES {
            options.fields.remove(*name);
            options.fields.remove(&format!("beam:option:{name}:v1"));
        }
        Self {
            environment: request.environment.clone(),
            options,
        }
    }

    /// Workers in the launcher's own process end with it, and what samples data keeps some of its job.
    fn may_be_kept(&self) -> bool {
        !in_launcher(&self.options) && !samples_data(&self.options)
    }
}

impl KeptWorkers {
    /// Workers are started by `factory`, and stopped when no job has had them for `timeout`.
    pub fn new(factory: Arc<dyn WorkerFactory>, timeout: Duration) -> Self {
        let shared = IdleState {
            timeout,
            table: Mutex::default(),
            closed: watch::Sender::new(false),
        };
        Self {
            factory,
            shared: Arc::new(shared),
        }
    }

    /// Stops the workers that no job has, and waits for their end. From now on none is kept.
    pub async fn shutdown(&self) {
        self.shared.closed.send_replace(true);
        let mut tasks = std::mem::take(&mut self.shared.table.lock().tasks);
        while tasks.join_next().await.is_some() {}
    }

    async fn start_or_take(self, request: StartWorker) -> Result<Arc<dyn Worker>, WorkerError> {
        let made_for = MadeFor::read(&request);
        let taken = self.shared.take(&made_for);
        let worker = match taken {
            Some(worker) => {
                worker.adopt(&request.environment_id, &request.job_id);
                worker
            }
            None => match self.factory.start(request.clone()).await {
                // The idle ones may have what a new one lacks: a place in a pool of few, memory.
                Err(WorkerError::Start { reason, .. } | WorkerError::Died { reason, .. })
                    if self.shared.stop_idle().await > 0 =>
                {
                    tracing::info!(
                        "no worker started beside those that were kept ({reason}); once more without them"
                    );
                    self.factory.start(request).await?
                }
                started => started?,
            },
        };
        if !made_for.may_be_kept() {
            return Ok(worker);
        }
        Ok(Arc::new(Lent {
            worker,
            made_for,
            shared: self.shared,
        }))
    }
}

impl WorkerFactory for KeptWorkers {
    fn start(&self, request: StartWorker) -> BoxFuture<'static, Result<Arc<dyn Worker>, WorkerError>> {
        self.clone().start_or_take(request).boxed()
    }
}

impl IdleState {
    fn take(&self, made_for: &MadeFor) -> Option<Arc<dyn Worker>> {
        let mut table = self.table.lock();
        let fits = |idle: &Idle| idle.made_for == *made_for && idle.worker.is_reusable();
        // The one that was used last: the others may end.
        let at = table.idle.iter().rposition(fits)?;
        let idle = table.idle.remove(at);
        idle.watcher.abort();
        Some(idle.worker)
    }

    fn remove(&self, number: u64) -> Option<Arc<dyn Worker>> {
        let mut table = self.table.lock();
        let at = table.idle.iter().position(|idle| idle.number == number)?;
        Some(table.idle.remove(at).worker)
    }

    /// Keeps a worker, unless the service ends.
    fn keep(self: &Arc<Self>, worker: &Arc<dyn Worker>, made_for: &MadeFor) -> bool {
        let mut closed = self.closed.subscribe();
        let mut table = self.table.lock();
        if *closed.borrow_and_update() {
            return false;
        }
        table.next += 1;
        let number = table.next;
        let (shared, lost) = (self.clone(), worker.lost());
        // Those that have ended.
        while table.tasks.try_join_next().is_some() {}
        let watcher = table.tasks.spawn(async move {
            tokio::select! {
                biased;
                _ = closed.wait_for(|closed| *closed) => {}
                reason = lost => tracing::info!("a worker that was kept has ended: {reason}"),
                () = tokio::time::sleep(shared.timeout) => {
                    tracing::info!("stopping a worker that no job has had for {:?} (--worker_idle_timeout)", shared.timeout);
                }
            }
            if let Some(worker) = shared.remove(number) {
                worker.stop().await;
            }
        });
        table.idle.push(Idle {
            number,
            made_for: made_for.clone(),
            worker: worker.clone(),
            watcher,
        });
        true
    }

    /// Stops all idle workers; tells how many.
    async fn stop_idle(&self) -> usize {
        let idle = std::mem::take(&mut self.table.lock().idle);
        let stopping = idle.iter().map(|idle| {
            idle.watcher.abort();
            idle.worker.stop()
        });
        futures::future::join_all(stopping).await;
        idle.len()
    }
}

/// A worker that a job has, and that is kept when the job ends.
struct Lent {
    worker: Arc<dyn Worker>,
    made_for: MadeFor,
    shared: Arc<IdleState>,
}

impl Worker for Lent {
    fn process(&self, work: BundleWork) -> BoxFuture<'static, Result<BundleOutcome, WorkerError>> {
        self.worker.process(work)
    }

    fn progress(
        &self,
        instruction: String,
    ) -> BoxFuture<'static, Result<Option<fnapi::ProcessBundleProgressResponse>, WorkerError>> {
        self.worker.progress(instruction)
    }

    fn split(
        &self,
        request: fnapi::ProcessBundleSplitRequest,
    ) -> BoxFuture<'static, Result<fnapi::ProcessBundleSplitResponse, WorkerError>> {
        self.worker.split(request)
    }

    fn finalize(&self, instruction: String) -> BoxFuture<'static, Result<(), WorkerError>> {
        self.worker.finalize(instruction)
    }

    fn monitoring_infos(
        &self,
        ids: Vec<String>,
    ) -> BoxFuture<'static, Result<Vec<(String, pipeline::MonitoringInfo)>, WorkerError>> {
        self.worker.monitoring_infos(ids)
    }

    fn samples(
        &self,
        request: fnapi::SampleDataRequest,
    ) -> BoxFuture<'static, Result<fnapi::SampleDataResponse, WorkerError>> {
        self.worker.samples(request)
    }

    fn status(&self) -> BoxFuture<'static, Result<String, String>> {
        self.worker.status()
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        self.worker.stop()
    }

    fn lost(&self) -> BoxFuture<'static, String> {
        self.worker.lost()
    }

    fn keep(&self) -> bool {
        self.worker.is_reusable() && self.shared.keep(&self.worker, &self.made_for)
    }

    fn id(&self) -> Option<String> {
        self.worker.id()
    }

    fn is_reusable(&self) -> bool {
        self.worker.is_reusable()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use prost_types::Value;
    use prost_types::value::Kind;

    use super::*;

    /// Counts what becomes of its workers.
    #[derive(Default)]
    struct Fakes {
        started: AtomicUsize,
        stopped: Arc<AtomicUsize>,
        /// Workers that may run at a time.
        most: Option<usize>,
        last: Mutex<Option<Arc<Fake>>>,
    }

    struct Fake {
        reusable: AtomicBool,
        lost: watch::Sender<bool>,
        stopped: Arc<AtomicUsize>,
        jobs: Mutex<Vec<String>>,
    }

    impl WorkerFactory for Arc<Fakes> {
        fn start(&self, request: StartWorker) -> BoxFuture<'static, Result<Arc<dyn Worker>, WorkerError>> {
            let running = self.started.load(Ordering::SeqCst) - self.stopped.load(Ordering::SeqCst);
            if self.most.is_some_and(|most| running >= most) {
                let (environment, reason) = (request.environment_id, "no room".to_owned());
                return async move { Err(WorkerError::Start { environment, reason }) }.boxed();
            }
            self.started.fetch_add(1, Ordering::SeqCst);
            let worker = Arc::new(Fake {
                reusable: AtomicBool::new(true),
                lost: watch::Sender::new(false),
                stopped: self.stopped.clone(),
                jobs: Mutex::new(vec![request.job_id]),
            });
            *self.last.lock() = Some(worker.clone());
            async move { Ok(worker as Arc<dyn Worker>) }.boxed()
        }
    }

    fn refused<T: Send + 'static>() -> BoxFuture<'static, Result<T, WorkerError>> {
        async { Err(WorkerError::Failed("a fake does nothing".into())) }.boxed()
    }

    impl Worker for Fake {
        fn process(&self, _: BundleWork) -> BoxFuture<'static, Result<BundleOutcome, WorkerError>> {
            refused()
        }
        fn progress(
            &self,
            _: String,
        ) -> BoxFuture<'static, Result<Option<fnapi::ProcessBundleProgressResponse>, WorkerError>> {
            refused()
        }
        fn split(
            &self,
            _: fnapi::ProcessBundleSplitRequest,
        ) -> BoxFuture<'static, Result<fnapi::ProcessBundleSplitResponse, WorkerError>> {
            refused()
        }
        fn finalize(&self, _: String) -> BoxFuture<'static, Result<(), WorkerError>> {
            refused()
        }
        fn monitoring_infos(
            &self,
            _: Vec<String>,
        ) -> BoxFuture<'static, Result<Vec<(String, pipeline::MonitoringInfo)>, WorkerError>> {
            refused()
        }
        fn samples(
            &self,
            _: fnapi::SampleDataRequest,
        ) -> BoxFuture<'static, Result<fnapi::SampleDataResponse, WorkerError>> {
            refused()
        }
        fn stop(&self) -> BoxFuture<'static, ()> {
            self.stopped.fetch_add(1, Ordering::SeqCst);
            async {}.boxed()
        }
        fn lost(&self) -> BoxFuture<'static, String> {
            let mut lost = self.lost.subscribe();
            async move {
                let _ = lost.wait_for(|lost| *lost).await;
                "it ended".to_owned()
            }
            .boxed()
        }
        fn is_reusable(&self) -> bool {
            self.reusable.load(Ordering::SeqCst)
        }
        fn adopt(&self, _: &str, job_id: &str) {
            self.jobs.lock().push(job_id.to_owned());
        }
    }

    /// What a job does with a worker at its end.
    trait End {
        async fn end(self);
    }

    impl End for Arc<dyn Worker> {
        async fn end(self) {
            if !self.keep() {
                self.stop().await;
            }
        }
    }

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn pair(most: Option<usize>) -> (Arc<Fakes>, KeptWorkers) {
        let fakes = Arc::new(Fakes {
            most,
            ..Fakes::default()
        });
        (fakes.clone(), KeptWorkers::new(Arc::new(fakes), TIMEOUT))
    }

    fn request(job: &str, artifact: &str, options: &[(&str, &str)]) -> StartWorker {
        let text = |text: &str| Value {
            kind: Some(Kind::StringValue(text.to_owned())),
        };
        let dependency = pipeline::ArtifactInformation {
            type_payload: artifact.to_owned().into_bytes().into(),
            ..Default::default()
        };
        StartWorker {
            worker_id: format!("{job}-worker"),
            environment_id: "env".into(),
            environment: pipeline::Environment {
                urn: "kind".into(),
                dependencies: vec![dependency],
                ..Default::default()
            },
            pipeline_options: Struct {
                fields: options.iter().map(|(k, v)| ((*k).to_owned(), text(v))).collect(),
            },
            job_id: job.into(),
            retrieval_token: job.into(),
            had_one: false,
        }
    }

    impl Fakes {
        fn counts(&self) -> (usize, usize) {
            (
                self.started.load(Ordering::SeqCst),
                self.stopped.load(Ordering::SeqCst),
            )
        }
    }

    /// Lets tasks run without letting time pass.
    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_job_has_the_worker_if_all_is_the_same_but_its_name() {
        let (fakes, kept) = pair(None);
        let name = "beam:option:job_name:v1";
        let first = kept
            .start(request("a", "x", &[(name, "a"), ("output", "o")]))
            .await
            .unwrap();
        first.end().await;
        let second = kept
            .start(request("b", "x", &[(name, "b"), ("output", "o")]))
            .await
            .unwrap();
        assert_eq!(fakes.counts(), (1, 0));
        let worker = fakes.last.lock().clone().unwrap();
        assert_eq!(*worker.jobs.lock(), ["a", "b"]);
        // One that is in use is nobody else's.
        let third = kept.start(request("c", "x", &[("output", "o")])).await.unwrap();
        assert_eq!(fakes.counts(), (2, 0));
        second.end().await;
        third.end().await;
        // Time that it was in use does not count.
        tokio::time::sleep(TIMEOUT - Duration::from_secs(1)).await;
        assert_eq!(fakes.counts(), (2, 0));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(fakes.counts(), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_differs_gets_workers_of_its_own() {
        let (fakes, kept) = pair(None);
        kept.start(request("a", "x", &[("output", "o")]))
            .await
            .unwrap()
            .end()
            .await;
        for (n, other) in [
            request("b", "y", &[("output", "o")]),
            request("c", "x", &[("output", "p")]),
        ]
        .into_iter()
        .enumerate()
        {
            let _worker = kept.start(other).await.unwrap();
            assert_eq!(fakes.counts(), (n + 2, 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_reused_is_stopped() {
        let (fakes, kept) = pair(None);
        let failed = kept.start(request("a", "x", &[])).await.unwrap();
        fakes
            .last
            .lock()
            .as_ref()
            .unwrap()
            .reusable
            .store(false, Ordering::SeqCst);
        failed.end().await;
        assert_eq!(fakes.counts(), (1, 1));
        // It ends while it is kept.
        let dies = kept.start(request("b", "x", &[])).await.unwrap();
        dies.end().await;
        fakes.last.lock().as_ref().unwrap().lost.send_replace(true);
        settle().await;
        assert_eq!(fakes.counts(), (2, 2));
        // Stopped by its job, for whatever reason.
        kept.start(request("c", "x", &[])).await.unwrap().stop().await;
        let _fresh = kept.start(request("d", "x", &[])).await.unwrap();
        assert_eq!(fakes.counts(), (4, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn workers_of_a_launcher_or_with_samples_are_not_kept() {
        let (fakes, kept) = pair(None);
        let options = [
            ("beam:option:environment_type:v1", "LOOPBACK"),
            ("beam:option:experiments:v1", "enable_data_sampling"),
        ];
        for (n, option) in options.into_iter().enumerate() {
            kept.start(request("a", "x", &[option]))
                .await
                .unwrap()
                .end()
                .await;
            assert_eq!(fakes.counts(), (n + 1, n + 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_workers_make_room() {
        let (fakes, kept) = pair(Some(1));
        kept.start(request("a", "x", &[])).await.unwrap().end().await;
        let _second = kept.start(request("b", "y", &[])).await.unwrap();
        assert_eq!(fakes.counts(), (2, 1));
        let error = kept.start(request("c", "y", &[])).await.err().unwrap();
        assert!(error.to_string().contains("no room"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn all_end_with_the_service() {
        let (fakes, kept) = pair(None);
        let (idle, busy) = (
            kept.start(request("a", "x", &[])).await,
            kept.start(request("b", "x", &[])).await,
        );
        idle.unwrap().end().await;
        kept.shutdown().await;
        assert_eq!(fakes.counts(), (2, 1));
        busy.unwrap().end().await;
        assert_eq!(fakes.counts(), (2, 2));
    }
}
