//! The worker that is this process: bundles run on threads of its own, without gRPC.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
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
use super::failure::Failure;
use super::monitor::BundleMonitor;
use super::node::Registry;
use super::state_cache::WorkerShared;

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
    pool: Arc<Pool>,
}

struct Pool {
    registry: Arc<Registry>,
    shared: Arc<WorkerShared>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    threads: Vec<Thread>,
    /// Threads without a bundle; the one that had one last is at the back.
    idle: VecDeque<usize>,
    running: FxHashMap<String, Arc<BundleMonitor>>,
    stopped: bool,
}

struct Thread {
    tasks: mpsc::Sender<Task>,
    /// Descriptors for which it has executors.
    knows: Vec<String>,
    handle: Option<JoinHandle<()>>,
}

struct Task {
    work: BundleWork,
    done: oneshot::Sender<Result<BundleOutcome, WorkerError>>,
}

/// Deep chains of steps are deep chains of calls. The memory is reserved, not used.
const STACK: usize = 64 << 20;

impl EmbeddedWorker {
    /// A worker for this pipeline's code.
    pub fn new(registry: Arc<Registry>) -> EmbeddedWorker {
        EmbeddedWorker {
            pool: Arc::new(Pool {
                registry,
                shared: Arc::default(),
                state: Mutex::default(),
            }),
        }
    }
}

fn failed(failure: Failure) -> WorkerError {
    WorkerError::Failed(failure.to_string())
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(self: &Arc<Self>, task: Task) {
        let mut state = self.lock();
        if state.stopped {
            let error = WorkerError::Failed("the worker was stopped".into());
            // Whoever asked may have gone.
            let _ = task.done.send(Err(error));
            return;
        }
        let descriptor = &task.work.descriptor.id;
        // A thread that has the stage ready, else the one whose memory is warmest, else a new one.
        let knows = |index: &usize| {
            state
                .threads
                .get(*index)
                .is_some_and(|t| t.knows.contains(descriptor))
        };
        let index = match state.idle.iter().rposition(knows) {
            Some(at) => state.idle.remove(at),
            None => state.idle.pop_back(),
        };
        let index = match index {
            Some(index) => index,
            None => match self.spawn(&mut state) {
                Ok(index) => index,
                Err(e) => {
                    let error = WorkerError::Failed(format!("cannot start a thread for a bundle: {e}"));
                    let _ = task.done.send(Err(error));
                    return;
                }
            },
        };
        let thread = &mut state.threads[index];
        if !thread.knows.contains(descriptor) {
            thread.knows.push(descriptor.clone());
        }
        if let Err(mpsc::SendError(task)) = thread.tasks.send(task) {
            let _ = task.done.send(Err(WorkerError::Failed(
                "a thread of the worker has ended".into(),
            )));
        }
    }

    fn spawn(self: &Arc<Self>, state: &mut State) -> std::io::Result<usize> {
        let index = state.threads.len();
        let (tasks, queue) = mpsc::channel();
        let pool = self.clone();
        let handle = std::thread::Builder::new()
            .name(format!("purlin-bundles-{index}"))
            .stack_size(STACK)
            .spawn(move || pool.serve(index, &queue))?;
        state.threads.push(Thread {
            tasks,
            knows: Vec::new(),
            handle: Some(handle),
        });
        Ok(index)
    }

    /// The life of a thread. Executors are dropped, and user code torn down, when it ends.
    fn serve(&self, index: usize, queue: &mpsc::Receiver<Task>) {
        let mut executors: FxHashMap<String, (Arc<ProcessBundleDescriptor>, Executor)> = FxHashMap::default();
        while let Ok(Task { work, done }) = queue.recv() {
            let instruction = work.instruction.clone();
            let descriptor = work.descriptor.clone();
            // An executor that failed is not used again.
            let ready = executors
                .remove(&descriptor.id)
                .filter(|(known, _)| Arc::ptr_eq(known, &descriptor));
            let executor = match ready {
                Some((_, executor)) => Ok(executor),
                None => Executor::new(&descriptor, &self.registry, &self.shared),
            };
            let result = executor.and_then(|mut executor| {
                self.lock()
                    .running
                    .insert(instruction.clone(), executor.monitor());
                let outcome = process(&mut executor, work)?;
                executors.insert(descriptor.id.clone(), (descriptor, executor));
                Ok(outcome)
            });
            let mut state = self.lock();
            state.running.remove(&instruction);
            state.idle.push_back(index);
            drop(state);
            // Whoever asked may have gone: the job ended.
            let _ = done.send(result.map_err(failed));
        }
    }

    fn monitor(&self, instruction: &str) -> Option<Arc<BundleMonitor>> {
        self.lock().running.get(instruction).cloned()
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
        self.pool.submit(Task { work, done });
        async move {
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
            .pool
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
        let monitor = self.pool.monitor(&request.instruction_id);
        ready(Ok(monitor
            .map(|monitor| monitor.split(&request))
            .unwrap_or_default()))
        .boxed()
    }

    fn finalize(&self, instruction: String) -> BoxFuture<'static, Result<(), WorkerError>> {
        let shared = self.pool.shared.clone();
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
        let handles: Vec<JoinHandle<()>> = {
            let mut state = self.pool.lock();
            state.stopped = true;
            state.idle.clear();
            // Without their senders the threads end after the bundle that they are at.
            state
                .threads
                .drain(..)
                .filter_map(|mut thread| thread.handle.take())
                .collect()
        };
        async move {
            let joined = tokio::task::spawn_blocking(move || {
                for handle in handles {
                    if handle.join().is_err() {
                        tracing::error!("a thread of the embedded worker panicked");
                    }
                }
            });
            if joined.await.is_err() {
                tracing::error!("the embedded worker's threads could not be awaited");
            }
        }
        .boxed()
    }

    fn lost(&self) -> BoxFuture<'static, String> {
        futures::future::pending().boxed()
    }
}
