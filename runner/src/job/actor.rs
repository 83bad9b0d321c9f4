//! The task that owns the course of a job.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use purlin_engine::{Action, BundleId, Event, Outcome, RequestId, Split, StageId};
use purlin_model::{Timestamp, Window};
use purlin_proto::pipeline::MonitoringInfo;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::bundle::{self, End, Metrics};
use super::failures::last_line;
use super::log::{EventLog, Importance, JobState};
use super::metrics::elements_begun;
use super::workers::JobWorker;
use super::{Shared, test_stream, window_questions};
use crate::translate::RemoteStream;
use crate::worker::WorkerError;

/// How long after its begin a bundle is asked how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// A bundle is asked again when it has taken twice as long, and after so long at most: each answer costs a worker
/// more than many elements do.
const MAX_PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// How long a worker that has finished a bundle may leave a request to split it unanswered. Until then it is not known
/// how much of the work it did.
const SPLIT_TIMEOUT: Duration = Duration::from_secs(10);
/// So many things that are to be done after bundles may wait for workers at a time.
const MAX_LAST: usize = 10_000;
/// How long what is to be done after bundles may hold up the end of a job.
const LAST_TIMEOUT: Duration = Duration::from_secs(30);

/// What the job's task is told.
pub(super) enum Input {
    /// The engine is to hear this.
    Event(Event),
    /// A bundle has a worker now.
    Started {
        bundle: BundleId,
        worker: Arc<JobWorker>,
    },
    /// A bundle ended.
    Ended { bundle: BundleId, end: End },
    /// A worker told how far a bundle is.
    Progress {
        bundle: BundleId,
        infos: Option<Vec<MonitoringInfo>>,
    },
    /// A worker answered to a split.
    Split {
        bundle: BundleId,
        split: Result<Split, String>,
    },
    /// The program that submitted the job has ended, and the workers that it ran.
    SubmitterGone(String),
    /// The job cannot go on.
    Fail(String),
    /// See [`super::JobHandle::drain`].
    Drain,
    /// See [`super::JobHandle::cancel`].
    Cancel,
}

/// A bundle that a worker processes.
struct BundleInFlight {
    stage: StageId,
    /// Index of its worker within the environment.
    slot: u32,
    attempt: u32,
    worker: Option<Arc<JobWorker>>,
    /// Whether a progress request is under way.
    asked: bool,
    started: Instant,
    /// When the next one is due.
    ask_at: Instant,
    /// The request to split it that is under way.
    splitting: Option<AbortHandle>,
    task: AbortHandle,
}

/// A bundle that a worker has finished, and of which the engine has yet to say whether it counts.
struct Undecided {
    stage: StageId,
    attempt: u32,
    worker: Arc<JobWorker>,
    metrics: Metrics,
}

/// A bundle whose failure is told.
struct Failing {
    stage: StageId,
    /// To be said if the job does not fail of it.
    again: Option<String>,
}

/// Milliseconds since the epoch that never go back, and stand still when tokio's time does.
#[derive(Clone, Copy)]
struct Clock {
    base: i64,
    since: Instant,
}

impl Clock {
    fn start() -> Self {
        let base = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        Clock {
            base: i64::try_from(base).unwrap_or(i64::MAX),
            since: Instant::now(),
        }
    }

    fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(self.base.saturating_add(elapsed))
    }

    /// The instant of a timestamp; an hour from now for all that is later.
    fn instant(&self, at: Timestamp) -> Instant {
        let ahead = u64::try_from(at.millis_since(self.now())).unwrap_or(0);
        Instant::now() + Duration::from_millis(ahead.min(3_600_000))
    }
}

/// The job's task.
pub(super) struct Actor {
    shared: Arc<Shared>,
    log: Arc<EventLog>,
    inputs: mpsc::UnboundedSender<Input>,
    clock: Clock,
    running: HashMap<BundleId, BundleInFlight>,
    undecided: HashMap<BundleId, Undecided>,
    /// Bundles, splits, progress requests, questions: ended with the job.
    tasks: JoinSet<()>,
    /// What the job's end awaits: finalizers of committed bundles, and what their metrics mean.
    last: JoinSet<()>,
    finalizers_given_up: bool,
    wake: Option<Timestamp>,
    /// When some bundle is to be asked how far it is.
    ask_at: Option<Instant>,
    /// The job fails for a reason that the engine does not know.
    failure: Option<String>,
    finished: Option<Outcome>,
    failing: Option<Failing>,
    /// Workers of the program that submitted the job whose end is awaited.
    watched: HashSet<String>,
}

impl Actor {
    pub(super) fn new(shared: Arc<Shared>, log: Arc<EventLog>, inputs: mpsc::UnboundedSender<Input>) -> Self {
        Actor {
            shared,
            log,
            inputs,
            clock: Clock::start(),
            running: HashMap::new(),
            undecided: HashMap::new(),
            tasks: JoinSet::new(),
            last: JoinSet::new(),
            finalizers_given_up: false,
            wake: None,
            ask_at: None,
            failure: None,
            finished: None,
            failing: None,
            watched: HashSet::new(),
        }
    }

    /// Runs the job to its end, and stops its workers.
    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Input>, streams: Vec<RemoteStream>) {
        for stream in streams {
            self.tasks.spawn(test_stream::serve(stream, self.inputs.clone()));
        }
        self.log.set(JobState::Running);
        self.feed(Event::Start);
        while self.finished.is_none() {
            let wake = self.wake.map(|at| self.clock.instant(at));
            tokio::select! {
                biased;
                input = inbox.recv() => match input {
                    Some(input) => self.take(input),
                    // The handle's senders and this task's own cannot all be gone.
                    None => self.fail("the job lost its inputs".to_owned()),
                },
                () = sleep_until(wake), if wake.is_some() => self.woken(),
                () = sleep_until(self.ask_at), if self.ask_at.is_some() => self.ask_progress(),
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => {}
                Some(_) = self.last.join_next(), if !self.last.is_empty() => {}
            }
        }
        self.end().await;
    }

    async fn end(mut self) {
        self.tasks.abort_all();
        let last = async { while self.last.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_TIMEOUT, last).await.is_err() {
            self.log.tell(
                Importance::Warning,
                "workers did not end the finalizers of bundles, or did not explain their metrics, in 30 seconds".to_owned(),
            );
        }
        let (told, failed) = self.shared.failures().end();
        self.warn(told);
        if failed > 0 && self.failure.is_none() {
            let times = if failed == 1 {
                "an attempt".to_owned()
            } else {
                format!("{failed} attempts")
            };
            self.warn([format!(
                "{times} to process a bundle failed, and was made good by another"
            )]);
        }
        let state = match (&self.failure, self.finished) {
            (Some(error), _) => {
                self.log.tell(Importance::Error, error.clone());
                JobState::Failed
            }
            (None, Some(Outcome::Done)) => JobState::Done,
            (None, Some(Outcome::Drained)) => JobState::Drained,
            (None, Some(Outcome::Cancelled)) => JobState::Cancelled,
            (None, Some(Outcome::Failed) | None) => JobState::Failed,
        };
        self.shared.keep_samples().await;
        if matches!(state, JobState::Done | JobState::Drained) && self.running.is_empty() {
            // Before the client hears of the end, and submits the next job.
            self.shared.workers.keep().await;
        }
        self.log.set(state);
        self.shared.workers.stop().await;
        while self.tasks.join_next().await.is_some() {}
    }

    fn woken(&mut self) {
        match self.wake {
            Some(at) if at <= self.clock.now() => {
                self.wake = None;
                self.feed(Event::Tick);
            }
            // Later than the hour that was slept.
            _ => {}
        }
    }

    /// Tells the engine, and does what it says.
    fn feed(&mut self, event: Event) {
        let now = self.clock.now();
        let actions = self.shared.engine().handle(now, event);
        for action in actions {
            self.perform(action);
        }
        if let Some(again) = self.failing.take().and_then(|failing| failing.again)
            && self.failure.is_none()
        {
            self.warn([again]);
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.feed(event),
            Input::Started { bundle, worker } => {
                if let Some(running) = self.running.get_mut(&bundle) {
                    let place = (running.stage, running.slot);
                    running.started = Instant::now();
                    running.ask_at = running.started + PROGRESS_INTERVAL;
                    running.worker = Some(Arc::clone(&worker));
                    self.ask_at = earlier(self.ask_at, running.ask_at);
                    self.watch_submitter(place, &worker);
                }
            }
            Input::Ended { bundle, end } => self.ended(bundle, end),
            Input::Progress { bundle, infos } => self.progress(bundle, infos),
            Input::Split { bundle, split } => self.split_answer(bundle, split),
            Input::SubmitterGone(reason) => self.submitter_gone(&reason),
            Input::Fail(error) => self.fail(error),
            Input::Drain => {
                if self.log.current().state == JobState::Running {
                    self.log.set(JobState::Draining);
                    self.feed(Event::Drain);
                }
            }
            Input::Cancel => {
                if self.log.current().state != JobState::Cancelling {
                    self.log.set(JobState::Cancelling);
                    self.feed(Event::Cancel);
                }
            }
        }
    }

    /// Learns of the end of the program that submitted the job also while no bundle waits for its workers: when a worker
    /// is lost, its place is filled again, if that can be.
    fn watch_submitter(&mut self, (stage, slot): (StageId, u32), worker: &Arc<JobWorker>) {
        let stage = self.shared.stages.get(stage);
        let Some(environment) = stage.map(|stage| stage.environment) else {
            return;
        };
        if !self.shared.workers.in_launcher() || !self.watched.insert(worker.id.clone()) {
            return;
        }
        let (shared, inputs) = (Arc::clone(&self.shared), self.inputs.clone());
        // Held weakly: whoever holds a worker uses it.
        let (lost, worker) = (worker.worker.lost(), Arc::downgrade(worker));
        self.tasks.spawn(async move {
            lost.await;
            if let Some(worker) = worker.upgrade() {
                shared.workers.forget(environment, slot, &worker).await;
            }
            if let Err(WorkerError::SubmitterGone(reason)) = shared.workers.get(environment, slot).await {
                let _ = inputs.send(Input::SubmitterGone(reason));
            }
        });
    }

    fn submitter_gone(&mut self, reason: &str) {
        if !matches!(self.log.current().state, JobState::Running | JobState::Draining) {
            return;
        }
        let text = format!("the job is cancelled: {reason}");
        // Who would read the job's messages is gone, most likely.
        tracing::warn!(job = self.shared.workers.job_id(), "{text}");
        self.log.tell(Importance::Warning, text);
        self.take(Input::Cancel);
    }

    fn fail(&mut self, error: String) {
        if self.failure.is_none() {
            self.failure = Some(error);
            self.feed(Event::Cancel);
            // The engine may have nothing left to say.
            self.finished.get_or_insert(Outcome::Failed);
        }
    }

    fn ended(&mut self, bundle: BundleId, end: End) {
        let Some(running) = self.running.remove(&bundle) else {
            return;
        };
        match end {
            End::Finished {
                result,
                metrics,
                worker,
            } => {
                if let Some(request) = running.splitting {
                    self.limit_split(bundle, request);
                }
                let undecided = Undecided {
                    stage: running.stage,
                    attempt: running.attempt,
                    worker,
                    metrics,
                };
                self.undecided.insert(bundle, undecided);
                self.feed(Event::BundleFinished { bundle, result });
            }
            End::Failed { error, worker_lost } => {
                self.shared.metrics().failed(bundle);
                self.failed(bundle, running.stage, running.attempt, &error, worker_lost);
                self.feed(Event::BundleFailed {
                    bundle,
                    error,
                    worker_lost,
                });
            }
            End::NoWorker(error) => self.fail(error),
            End::SubmitterGone(reason) => self.submitter_gone(&reason),
        }
    }

    fn committed(&mut self, bundle: BundleId, finalize: bool) {
        let Some(decided) = self.undecided.remove(&bundle) else {
            return;
        };
        self.succeeded(bundle);
        self.count(bundle, decided.metrics, true, &decided.worker);
        if finalize {
            self.finalize(bundle, decided.worker);
        }
    }

    fn undone(&mut self, bundle: BundleId) {
        if let Some(decided) = self.undecided.remove(&bundle) {
            self.succeeded(bundle);
            self.count(bundle, decided.metrics, false, &decided.worker);
        }
    }

    fn refused(&mut self, bundle: BundleId, error: &str) {
        if let Some(decided) = self.undecided.remove(&bundle) {
            self.count(bundle, decided.metrics, false, &decided.worker);
            self.failed(bundle, decided.stage, decided.attempt, error, false);
        }
    }

    fn abandoned(&mut self, bundle: BundleId) {
        if let Some(running) = self.running.remove(&bundle) {
            running.task.abort();
            self.shared.metrics().failed(bundle);
            self.succeeded(bundle);
        } else {
            self.undone(bundle);
        }
    }

    /// A bundle has ended, and not by an error.
    fn succeeded(&self, bundle: BundleId) {
        let told = self.shared.failures().finished(&bundle::instruction(bundle));
        self.warn(told);
    }

    /// Counts what a bundle told of its metrics, as soon as it is known what that means.
    fn count(&mut self, bundle: BundleId, metrics: Metrics, committed: bool, worker: &Arc<JobWorker>) {
        let shared = Arc::clone(&self.shared);
        let log = Arc::clone(&self.log);
        let count = move |infos: &[MonitoringInfo]| {
            let mut metrics = shared.metrics();
            match committed {
                true => metrics.committed(bundle, infos),
                false => metrics.undone(bundle, infos),
            }
            if let Some(text) = metrics.told_full() {
                log.tell(Importance::Warning, text);
            }
        };
        match metrics {
            Metrics::Known(infos) => count(&infos),
            Metrics::Short(data) => {
                let worker = Arc::clone(worker);
                self.last
                    .spawn(async move { count(&worker.infos(&[], &data).await) });
            }
        }
    }

    /// A bundle failed. Its error is told when the job fails of it; before, one line says that it is tried again.
    fn failed(&mut self, bundle: BundleId, id: StageId, attempt: u32, error: &str, worker_lost: bool) {
        let stage = self.shared.stages.get(id);
        let stage = stage.map_or("", |stage| &stage.name);
        let text = format!(
            "attempt {attempt} of a bundle of \"{stage}\" failed: {}",
            last_line(error)
        );
        let again = format!("a bundle of \"{stage}\" failed and is tried again; the log has its error");
        tracing::info!(job = %self.shared.job_id, "{text}\n{error}");
        let instruction = bundle::instruction(bundle);
        let (told, failed) = self.shared.failures().failed(&instruction, id, error);
        self.warn(told);
        // What ends a worker is no error of the user's, and no other message tells of it.
        let importance = if worker_lost {
            Importance::Warning
        } else {
            Importance::Detailed
        };
        self.log.tell(importance, text);
        self.failing = Some(Failing {
            stage: id,
            again: (failed == 1 && !worker_lost).then_some(again),
        });
    }

    fn warn(&self, texts: impl IntoIterator<Item = String>) {
        for text in texts {
            self.log.tell(Importance::Warning, text);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::StartBundle(bundle) => self.start(bundle),
            Action::SplitBundle {
                bundle,
                fraction,
                estimated_input_elements,
            } => {
                self.split(bundle, fraction, estimated_input_elements);
            }
            Action::Committed { bundle, finalize } => self.committed(bundle, finalize),
            Action::Refused { bundle, error } => self.refused(bundle, &error),
            Action::Undone(bundle) => self.undone(bundle),
            Action::Abandon(bundle) => self.abandoned(bundle),
            Action::SplitsStopped { stage, error } => self.splits_stopped(stage, &error),
            Action::WakeAt(at) => self.wake = Some(at),
            Action::MergeWindows {
                request,
                collection,
                windows,
            } => {
                let plan = self.shared.merges.get(&collection).cloned();
                let shared = Arc::clone(&self.shared);
                self.question(request, async move {
                    let plan = plan.ok_or("no SDK is known that merges these windows")?;
                    let merged =
                        window_questions::merge(&shared, &plan, question_name(request), &windows).await?;
                    Ok(Event::WindowsMerged { request, merged })
                });
            }
            Action::MapWindows {
                request,
                transform,
                side_input,
                windows,
            } => {
                let plan = self.shared.mappings.get(&(transform, side_input)).cloned();
                let shared = Arc::clone(&self.shared);
                self.question(request, async move {
                    let plan = plan.ok_or("no SDK is known that maps windows for this side input")?;
                    let windows: Vec<Window> =
                        window_questions::map(&shared, &plan, question_name(request), &windows).await?;
                    Ok(Event::WindowsMapped { request, windows })
                });
            }
            Action::Failed { error } => {
                let error = self.with_transforms(error);
                self.failure.get_or_insert(error);
            }
            Action::Finished(outcome) => self.finished = Some(outcome),
        }
    }

    /// The error of a bundle that failed for good. Where the SDK's own text names no transform of the stage, all of
    /// them are named; where it names one, the others would only mislead.
    fn with_transforms(&self, error: String) -> String {
        let stage = self
            .failing
            .as_ref()
            .and_then(|failing| self.shared.stages.get(failing.stage));
        let Some(stage) = stage else { return error };
        let mut names = stage
            .descriptor
            .transforms
            .values()
            .map(|transform| &transform.unique_name);
        if names.any(|name| error.contains(name.as_str())) {
            error
        } else {
            format!("{error} (in stage \"{}\")", stage.name)
        }
    }

    fn start(&mut self, bundle: purlin_engine::Bundle) {
        let (id, stage, slot, attempt) = (bundle.id, bundle.stage, bundle.worker, bundle.attempt);
        let (shared, inputs) = (Arc::clone(&self.shared), self.inputs.clone());
        let task = self.tasks.spawn(async move {
            let started = |worker| {
                let _ = inputs.send(Input::Started { bundle: id, worker });
            };
            let end = bundle::process(&shared, bundle, started).await;
            let _ = inputs.send(Input::Ended { bundle: id, end });
        });
        let running = BundleInFlight {
            stage,
            slot,
            attempt,
            worker: None,
            asked: false,
            started: Instant::now(),
            ask_at: Instant::now() + PROGRESS_INTERVAL,
            splitting: None,
            task,
        };
        self.running.insert(id, running);
        self.shared.failures().started(bundle::instruction(id));
    }

    fn split(&mut self, bundle: BundleId, fraction: f64, estimated: u64) {
        let found = self.running.get(&bundle).and_then(|running| {
            let stage = self.shared.stages.get(running.stage)?;
            let worker = running.worker.clone()?;
            let request = bundle::split_request(stage, bundle, fraction, estimated);
            Some((running.stage, request, worker))
        });
        let Some((stage, request, worker)) = found else {
            // It has ended, or has not begun: the engine wants an answer all the same.
            let split = Ok(bundle::declined());
            let _ = self.inputs.send(Input::Split { bundle, split });
            return;
        };
        let (shared, inputs) = (Arc::clone(&self.shared), self.inputs.clone());
        let request = self.tasks.spawn(async move {
            let response = worker.worker.split(request).await;
            let split = match (response, shared.stages.get(stage)) {
                (Ok(response), Some(stage)) => bundle::split(stage, response),
                // No answer. The bundle fails with its worker, unless it has finished before.
                (Err(WorkerError::Lost { .. }), _) => return,
                // A split is a wish.
                (Err(error), _) => {
                    tracing::debug!(%bundle, "the worker did not split the bundle: {error}");
                    Ok(bundle::declined())
                }
                (Ok(_), None) => Ok(bundle::declined()),
            };
            let _ = inputs.send(Input::Split { bundle, split });
        });
        if let Some(running) = self.running.get_mut(&bundle) {
            running.splitting = Some(request);
        }
    }

    /// A worker that gave up a part of a bundle says so in its answer. Without one nobody knows what a finished bundle has
    /// left, so that it counts no more than with an answer that cannot be used. (Once the engine has decided about the
    /// bundle, this tells it nothing.)
    fn limit_split(&mut self, bundle: BundleId, request: AbortHandle) {
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            tokio::time::sleep(SPLIT_TIMEOUT).await;
            // It holds the worker.
            request.abort();
            let seconds = SPLIT_TIMEOUT.as_secs();
            let error = format!("there is none, {seconds} s after the end of the bundle");
            let split = Err(error);
            let _ = inputs.send(Input::Split { bundle, split });
        });
    }

    fn split_answer(&mut self, bundle: BundleId, split: Result<Split, String>) {
        if let Some(running) = self.running.get_mut(&bundle) {
            running.splitting = None;
        }
        self.feed(match split {
            Ok(split) => Event::BundleSplit { bundle, split },
            Err(error) => Event::SplitUnusable { bundle, error },
        });
    }

    fn splits_stopped(&self, stage: StageId, error: &str) {
        let stage = self.shared.stages.get(stage);
        let name = stage.map_or("", |stage| &stage.name);
        self.log.tell(
            Importance::Warning,
            format!(
                "a worker's answer to a request to split a bundle of \"{name}\" cannot be used: {error}. The bundle runs \
                 again, and bundles of this stage are not split any more"
            ),
        );
    }

    /// Asks the bundles whose turn it is. One that is asked has its next turn when it has answered.
    fn ask_progress(&mut self) {
        self.ask_at = None;
        for (&bundle, running) in &mut self.running {
            let Some(worker) = running.worker.clone() else {
                continue;
            };
            let now = Instant::now();
            if running.asked {
                continue;
            }
            if now < running.ask_at {
                self.ask_at = earlier(self.ask_at, running.ask_at);
                continue;
            }
            running.asked = true;
            let interval = now - running.started;
            running.ask_at = now + interval.clamp(PROGRESS_INTERVAL, MAX_PROGRESS_INTERVAL);
            let inputs = self.inputs.clone();
            self.tasks.spawn(async move {
                let infos = match worker.worker.progress(bundle::instruction(bundle)).await {
                    Ok(Some(response)) => Some(
                        worker
                            .infos(&response.monitoring_infos, &response.monitoring_data)
                            .await,
                    ),
                    Ok(None) | Err(_) => None,
                };
                let _ = inputs.send(Input::Progress { bundle, infos });
            });
        }
    }

    fn progress(&mut self, bundle: BundleId, infos: Option<Vec<MonitoringInfo>>) {
        let Some(running) = self.running.get_mut(&bundle) else {
            return;
        };
        running.asked = false;
        self.ask_at = earlier(self.ask_at, running.ask_at);
        let Some(infos) = infos else { return };
        let elements_done = elements_begun(&infos).unwrap_or(0);
        self.shared.metrics().progress(bundle, infos);
        self.feed(Event::BundleProgress {
            bundle,
            elements_done,
        });
    }

    fn finalize(&mut self, bundle: BundleId, worker: Arc<JobWorker>) {
        let log = Arc::clone(&self.log);
        if self.last.len() >= MAX_LAST {
            // They are called at best.
            if !std::mem::replace(&mut self.finalizers_given_up, true) {
                let text = format!(
                    "workers leave {MAX_LAST} calls of finalizers unanswered, so not all finalizers are called"
                );
                log.tell(Importance::Warning, text);
            }
            return;
        }
        self.last.spawn(async move {
            if let Err(error) = worker.worker.finalize(bundle::instruction(bundle)).await {
                log.tell(
                    Importance::Warning,
                    format!("the finalizers of bundle {bundle} failed: {error}"),
                );
            }
        });
    }

    /// Tells the engine an SDK's answer.
    fn question(
        &mut self,
        request: RequestId,
        answer: impl Future<Output = Result<Event, String>> + Send + 'static,
    ) {
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            let event = answer
                .await
                .unwrap_or_else(|error| Event::RequestFailed { request, error });
            let _ = inputs.send(Input::Event(event));
        });
    }
}

fn earlier(one: Option<Instant>, other: Instant) -> Option<Instant> {
    Some(one.map_or(other, |one| one.min(other)))
}

fn question_name(request: RequestId) -> String {
    format!("windows-{}", request.0)
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}
