//! Threads that process bundles: one each, with executors that are kept for the next bundle of their stage.

use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use purlin_proto::fn_execution::ProcessBundleDescriptor;
use rustc_hash::FxHashMap;

use super::executor::Executor;
use crate::stage::failure::Failure;
use crate::stage::node::Registry;
use crate::stage::state_cache::WorkerShared;

/// Deep chains of steps are deep chains of calls. The memory is reserved, not used.
const STACK: usize = 64 << 20;

/// What the threads do with bundles.
pub(super) trait Bundles: Send + Sync + 'static {
    /// A bundle that has come.
    type Task: Send + 'static;
    /// A bundle that has ended.
    type Ended;

    /// The stage of a bundle.
    fn descriptor(task: &Self::Task) -> &Arc<ProcessBundleDescriptor>;
    /// Processes a bundle to its end.
    fn run(&self, executors: &mut Executors, task: Self::Task) -> Self::Ended;
    /// Tells of the end, once the thread is idle: whoever answers with a bundle finds it so.
    fn tell(&self, ended: Self::Ended);
}

/// The executors of one thread, by descriptor id.
#[derive(Default)]
pub(super) struct Executors {
    ready: FxHashMap<String, Ready>,
}

struct Ready {
    descriptor: Arc<ProcessBundleDescriptor>,
    executor: Executor,
    used: Instant,
}

impl Executors {
    /// An executor that is ready for the stage, else a new one. It is put back unless it failed.
    pub fn take(
        &mut self,
        descriptor: &Arc<ProcessBundleDescriptor>,
        registry: &Arc<Registry>,
        shared: &Arc<WorkerShared>,
    ) -> Result<Executor, Failure> {
        let ready = self.ready.remove(&descriptor.id);
        match ready.filter(|ready| Arc::ptr_eq(&ready.descriptor, descriptor)) {
            Some(ready) => Ok(ready.executor),
            None => Executor::new(descriptor, registry, shared),
        }
    }

    pub fn put(&mut self, descriptor: Arc<ProcessBundleDescriptor>, executor: Executor) {
        let ready = Ready {
            descriptor: descriptor.clone(),
            executor,
            used: Instant::now(),
        };
        self.ready.insert(descriptor.id.clone(), ready);
    }

    fn drop_unused(&mut self, keep: Duration) {
        self.ready.retain(|_, ready| ready.used.elapsed() < keep);
    }
}

/// As many threads as there were bundles at the same time.
pub(super) struct Threads<T> {
    state: Mutex<State<T>>,
    /// An executor without bundles for so long is torn down.
    keep: Duration,
}

struct State<T> {
    threads: Vec<Thread<T>>,
    /// Threads without a bundle; the one that had one last is at the back.
    idle: Vec<usize>,
    stopped: bool,
}

struct Thread<T> {
    tasks: mpsc::Sender<T>,
    /// Descriptors for which it has, or had, executors.
    knows: Vec<String>,
    handle: JoinHandle<()>,
}

impl<T: Send + 'static> Threads<T> {
    /// None yet.
    pub fn new(keep: Duration) -> Self {
        let state = State {
            threads: Vec::new(),
            idle: Vec::new(),
            stopped: false,
        };
        Threads {
            state: Mutex::new(state),
            keep,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock()
    }

    /// Gives a bundle to a thread, or says why that cannot be.
    pub fn submit<B: Bundles<Task = T>>(self: &Arc<Self>, bundles: &Arc<B>, task: T) -> Result<(), String> {
        let mut state = self.lock();
        if state.stopped {
            return Err("the worker is stopping".into());
        }
        let descriptor = B::descriptor(&task).id.clone();
        // A thread that has the stage ready, else the one whose memory is warmest, else a new one.
        let ready = state
            .idle
            .iter()
            .rposition(|index| state.threads[*index].knows.contains(&descriptor));
        let index = match ready {
            Some(at) => Some(state.idle.remove(at)),
            None => state.idle.pop(),
        };
        let index = match index {
            Some(index) => index,
            None => match self.spawn(&mut state, bundles) {
                Ok(index) => index,
                Err(e) => return Err(format!("cannot start a thread for the bundle: {e}")),
            },
        };
        let thread = &mut state.threads[index];
        if !thread.knows.contains(&descriptor) {
            thread.knows.push(descriptor);
        }
        thread
            .tasks
            .send(task)
            .map_err(|_| "a thread of the worker has ended".into())
    }

    fn spawn<B: Bundles<Task = T>>(
        self: &Arc<Self>,
        state: &mut State<T>,
        bundles: &Arc<B>,
    ) -> std::io::Result<usize> {
        let index = state.threads.len();
        let (tasks, queue) = mpsc::channel();
        let (threads, bundles) = (self.clone(), bundles.clone());
        let handle = std::thread::Builder::new()
            .name(format!("purlin-bundles-{index}"))
            .stack_size(STACK)
            .spawn(move || threads.serve(index, &queue, &*bundles))?;
        state.threads.push(Thread {
            tasks,
            knows: Vec::new(),
            handle,
        });
        Ok(index)
    }

    /// The life of a thread. Executors are dropped, and user code torn down, when it ends.
    fn serve<B: Bundles<Task = T>>(&self, index: usize, queue: &mpsc::Receiver<T>, bundles: &B) {
        let mut executors = Executors::default();
        loop {
            match queue.recv_timeout(self.keep) {
                Ok(task) => {
                    let ended = bundles.run(&mut executors, task);
                    let mut state = self.lock();
                    if !state.stopped {
                        state.idle.push(index);
                    }
                    drop(state);
                    bundles.tell(ended);
                }
                Err(RecvTimeoutError::Timeout) => executors.drop_unused(self.keep),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// How many threads there are, and how many have no bundle.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.threads.len(), state.idle.len())
    }

    /// Takes no more bundles. To be awaited: the threads end after the bundle that they are at.
    pub fn stop(&self) -> impl Future<Output = ()> + Send + 'static + use<T> {
        let mut state = self.lock();
        state.stopped = true;
        state.idle.clear();
        // Without their senders the threads end.
        let handles: Vec<_> = state.threads.drain(..).map(|thread| thread.handle).collect();
        drop(state);
        async move {
            let joined = tokio::task::spawn_blocking(move || {
                for handle in handles {
                    if handle.join().is_err() {
                        tracing::error!("a thread of the worker panicked");
                    }
                }
            });
            if joined.await.is_err() {
                tracing::error!("the worker's threads could not be awaited");
            }
        }
    }
}
