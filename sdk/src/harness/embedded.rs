//! The worker that is this process: bundles run on threads of its own, without gRPC.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use parking_lot::{Mutex, MutexGuard};
use purlin_proto::fn_execution::{
    ProcessBundleDescriptor, ProcessBundleProgressResponse, ProcessBundleSplitRequest,
    ProcessBundleSplitResponse, SampleDataRequest, SampleDataResponse,
};
use purlin_proto::pipeline::MonitoringInfo;
use purlin_runner::worker::{
    BundleOutcome, BundleWork, StartWorker, WorkInput, Worker, WorkerError, WorkerFactory,
};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use super::executor::{BundleStart, Executor};
use super::threads::{Bundles, Executors, Threads};
use crate::stage::failure::Failure;
use crate::stage::monitor::BundleMonitor;
use crate::stage::node::Registry;
use crate::stage::state_cache::WorkerShared;

/// Starts [`EmbeddedWorker`]s.
pub struct EmbeddedFactory {
    registry: Arc<Registry>,
}

impl EmbeddedFactory {
    /// For this pipeline's code.
    pub fn new(registry: Arc<Registry>) -> EmbeddedFactory {
        EmbeddedFactory { registry }
    }
}

impl WorkerFactory for EmbeddedFactory {
    fn start(&self, _request: StartWorker) -> BoxFuture<'static, Result<Arc<dyn Worker>, WorkerError>> {
        let worker: Arc<dyn Worker> = Arc::new(EmbeddedWorker::new(self.registry.clone()));
        ready(Ok(worker)).boxed()
    }
}

/// A worker in this process. There are as many threads as bundles were ever processed at the same time.
pub struct EmbeddedWorker {
    bundles: Arc<InProcess>,
    threads: Arc<Threads<Task>>,
}

/// Bundles of this process.
struct InProcess {
    registry: Arc<Registry>,
    shared: Arc<WorkerShared>,
    running: Mutex<FxHashMap<String, Arc<BundleMonitor>>>,
}

struct Task {
    work: BundleWork,
    done: oneshot::Sender<Result<BundleOutcome, WorkerError>>,
}

impl EmbeddedWorker {
    /// A worker for this pipeline's code.
    pub fn new(registry: Arc<Registry>) -> EmbeddedWorker {
        EmbeddedWorker {
            bundles: Arc::new(InProcess {
                registry,
                shared: Arc::default(),
                running: Mutex::default(),
            }),
            // Executors stay as long as the job.
            threads: Arc::new(Threads::new(Duration::MAX)),
        }
    }
}

impl InProcess {
    fn running(&self) -> MutexGuard<'_, FxHashMap<String, Arc<BundleMonitor>>> {
        self.running.lock()
    }

    fn monitor(&self, instruction: &str) -> Option<Arc<BundleMonitor>> {
        self.running().get(instruction).cloned()
    }

    fn process(&self, executors: &mut Executors, work: BundleWork) -> Result<BundleOutcome, Failure> {
        let descriptor = work.descriptor.clone();
        let mut executor = executors.take(&descriptor, &self.registry, &self.shared)?;
        self.running()
            .insert(work.instruction.clone(), executor.monitor());
        let outcome = process(&mut executor, work)?;
        executors.put(descriptor, executor);
        Ok(outcome)
    }
}

impl Bundles for InProcess {
    type Task = Task;
    type Ended = (
        oneshot::Sender<Result<BundleOutcome, WorkerError>>,
        Result<BundleOutcome, Failure>,
    );

    fn descriptor(task: &Task) -> &Arc<ProcessBundleDescriptor> {
        &task.work.descriptor
    }

    fn run(&self, executors: &mut Executors, Task { work, done }: Task) -> Self::Ended {
        let instruction = work.instruction.clone();
        let outcome = self.process(executors, work);
        self.running().remove(&instruction);
        (done, outcome)
    }

    fn tell(&self, (done, outcome): Self::Ended) {
        // Whoever asked may have gone: the job ended.
        let _ = done.send(outcome.map_err(|failure| WorkerError::Failed(failure.to_string())));
    }
}

fn process(executor: &mut Executor, work: BundleWork) -> Result<BundleOutcome, Failure> {
    executor.start(BundleStart {
        instruction: work.instruction,
        state: work.state,
        cache_tokens: work.cache_tokens,
    })?;
    for input in work.input {
        match input {
            WorkInput::Elements(data) => executor.elements(&work.source, &data)?,
            WorkInput::Timers {
                transform,
                family,
                data,
            } => executor.timers(&transform, &family, &data)?,
        }
    }
    executor.finish()
}

impl Worker for EmbeddedWorker {
    fn process(&self, work: BundleWork) -> BoxFuture<'static, Result<BundleOutcome, WorkerError>> {
        let (done, outcome) = oneshot::channel();
        let submitted = self.threads.submit(&self.bundles, Task { work, done });
        async move {
            submitted.map_err(WorkerError::Failed)?;
            outcome.await.unwrap_or_else(|_| {
                Err(WorkerError::Failed(
                    "the thread that processed the bundle ended without a result".into(),
                ))
            })
        }
        .boxed()
    }

    fn progress(
        &self,
        instruction: String,
    ) -> BoxFuture<'static, Result<Option<ProcessBundleProgressResponse>, WorkerError>> {
        let response = self
            .bundles
            .monitor(&instruction)
            .map(|monitor| ProcessBundleProgressResponse {
                monitoring_infos: monitor.monitoring_infos(),
                consuming_received_data: Some(true),
                ..ProcessBundleProgressResponse::default()
            });
        ready(Ok(response)).boxed()
    }

    fn split(
        &self,
        request: ProcessBundleSplitRequest,
    ) -> BoxFuture<'static, Result<ProcessBundleSplitResponse, WorkerError>> {
        let monitor = self.bundles.monitor(&request.instruction_id);
        ready(Ok(monitor
            .map(|monitor| monitor.split(&request))
            .unwrap_or_default()))
        .boxed()
    }

    fn finalize(&self, instruction: String) -> BoxFuture<'static, Result<(), WorkerError>> {
        let shared = self.bundles.shared.clone();
        async move {
            // User code may block.
            let called = tokio::task::spawn_blocking(move || shared.finalize(&instruction)).await;
            called
                .unwrap_or_else(|_| Err("a finalizer could not be called".to_owned()))
                .map_err(WorkerError::Failed)
        }
        .boxed()
    }

    fn monitoring_infos(
        &self,
        _ids: Vec<String>,
    ) -> BoxFuture<'static, Result<Vec<(String, MonitoringInfo)>, WorkerError>> {
        // Infos are told whole: there are no short ids.
        ready(Ok(Vec::new())).boxed()
    }

    fn samples(
        &self,
        _request: SampleDataRequest,
    ) -> BoxFuture<'static, Result<SampleDataResponse, WorkerError>> {
        ready(Ok(SampleDataResponse::default())).boxed()
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        self.threads.stop().boxed()
    }

    fn lost(&self) -> BoxFuture<'static, String> {
        futures::future::pending().boxed()
    }
}
