//! Threads that process bundles: one each, with executors that are kept for the next bundle of their stage.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::bundle::{self, Task};
use super::control::Shared;
use super::lock;
use crate::harness::Executor;

/// Deep chains of steps are deep chains of calls. The memory is reserved, not used.
const STACK: usize = 64 << 20;
/// An executor without bundles for so long is torn down.
const KEEP: Duration = Duration::from_secs(60);

/// The executors of one thread, by descriptor id.
#[derive(Default)]
pub(super) struct Executors {
    ready: FxHashMap<String, (Executor, Instant)>,
}

impl Executors {
    pub fn take(&mut self, descriptor: &str) -> Option<Executor> {
        self.ready.remove(descriptor).map(|(executor, _)| executor)
    }

    pub fn put(&mut self, descriptor: &str, executor: Executor) {
        self.ready
            .insert(descriptor.to_owned(), (executor, Instant::now()));
    }

    fn drop_unused(&mut self) {
        self.ready.retain(|_, (_, used)| used.elapsed() < KEEP);
    }
}

/// The threads of a harness: as many as there were bundles at the same time.
#[derive(Default)]
pub(super) struct Threads {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    threads: Vec<Thread>,
    /// Threads without a bundle; the one that had one last is at the back.
    idle: Vec<usize>,
    stopped: bool,
}

struct Thread {
    tasks: mpsc::Sender<Task>,
    /// Descriptors for which it has, or had, executors.
    knows: Vec<String>,
    handle: JoinHandle<()>,
}

impl Threads {
    /// Gives a bundle to a thread, or says why that cannot be.
    pub fn submit(self: &Arc<Self>, shared: &Arc<Shared>, task: Task) -> Result<(), String> {
        let mut state = lock(&self.state);
        if state.stopped {
            return Err("the worker is stopping".into());
        }
        let descriptor = task.stage.descriptor.id.clone();
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
            None => match self.spawn(&mut state, shared) {
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

    fn spawn(self: &Arc<Self>, state: &mut State, shared: &Arc<Shared>) -> std::io::Result<usize> {
        let index = state.threads.len();
        let (tasks, queue) = mpsc::channel();
        let (threads, shared) = (self.clone(), shared.clone());
        let handle = std::thread::Builder::new()
            .name(format!("purlin-bundles-{index}"))
            .stack_size(STACK)
            .spawn(move || threads.serve(index, &queue, &shared))?;
        state.threads.push(Thread {
            tasks,
            knows: Vec::new(),
            handle,
        });
        Ok(index)
    }

    /// The life of a thread. Executors are dropped, and user code torn down, when it ends.
    fn serve(&self, index: usize, queue: &mpsc::Receiver<Task>, shared: &Shared) {
        let mut executors = Executors::default();
        loop {
            match queue.recv_timeout(KEEP) {
                Ok(task) => {
                    let end = bundle::run(shared, &mut executors, task);
                    let mut state = lock(&self.state);
                    if !state.stopped {
                        state.idle.push(index);
                    }
                    drop(state);
                    // Only now: whoever answers the response with a bundle finds this thread idle.
                    shared.end_bundle(end);
                }
                Err(RecvTimeoutError::Timeout) => executors.drop_unused(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// How many threads there are, and how many have no bundle.
    pub fn counts(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (state.threads.len(), state.idle.len())
    }

    /// Takes no more bundles, and gives the threads to be awaited: they end after the bundle that they are at.
    pub fn stop(&self) -> Vec<JoinHandle<()>> {
        let mut state = lock(&self.state);
        state.stopped = true;
        state.idle.clear();
        state.threads.drain(..).map(|thread| thread.handle).collect()
    }
}
