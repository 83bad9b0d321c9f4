//! A job on Flink: its submission, and what is asked of the cluster while it runs.

mod submit;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use purlin_artifacts::Hasher;
use purlin_proto::job_management::GetJobMetricsResponse;
use purlin_runner::job::{EventLog, Importance, JobMetrics, JobState};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tonic::async_trait;

pub(super) use self::submit::Submission;
use super::json::from_json;
use super::rest::{Cluster, Failure, RestError, Savepoint};
use super::trace::root_cause;
use crate::backends::RunningJob;
use crate::jobs::JobError;

/// Flink is asked for a job's state so often: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(1000);
/// A job whose tasks have no slots for so long is told of.
const NO_SLOTS: Duration = Duration::from_secs(10);
/// Metrics are fetched so often while the job runs, and failures looked for.
const OFTEN: Duration = Duration::from_secs(10);
/// How long details of a job may be older than its state.
const STALE: Duration = Duration::from_secs(20);
/// How often they are asked for then.
const STALE_PAUSE: Duration = Duration::from_millis(200);
/// A cluster that does not answer for so long is told of, and is waited for.
const SILENT: Duration = Duration::from_secs(5);
/// A job that Flink does not know so long after it was started is lost.
const UNKNOWN: Duration = Duration::from_secs(30);
/// The accumulator in which Beam's runner keeps metrics.
const METRICS: &str = "__metricscontainers";

/// What a user wants of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Run,
    Drain,
    Cancel,
}

/// A job on a cluster.
pub(super) struct FlinkJob {
    log: Arc<EventLog>,
    cluster: Arc<Cluster>,
    /// Its id in Flink.
    id: String,
    wish: watch::Sender<Wish>,
    metrics: Mutex<JobMetrics>,
    ended: watch::Sender<bool>,
    /// None of a job that an earlier service started: it is not known.
    streaming: Option<bool>,
    savepoint_folder: Option<String>,
    loopback: bool,
    /// Whether it is on the cluster.
    submitted: AtomicBool,
}

/// The id that a job of ours has in Flink, by which it is not started twice when an answer is lost.
pub(super) fn flink_id(id: &str) -> String {
    let mut hash = Hasher::new();
    hash.update(id);
    let mut hash = hash.finish();
    hash.truncate(32);
    hash
}

impl FlinkJob {
    /// Starts a job.
    pub(super) fn start(id: &str, cluster: Arc<Cluster>, submission: Submission) -> Arc<Self> {
        let job = Self {
            streaming: Some(submission.options.streaming),
            savepoint_folder: submission.options.savepoint_folder.clone(),
            loopback: submission.loopback,
            submitted: AtomicBool::new(false),
            ..Self::on(cluster, flink_id(id))
        };
        job.spawn(|job| async move { job.course(submission).await })
    }

    /// Follows a job that an earlier service started.
    pub(super) fn follow_again(id: String, cluster: Arc<Cluster>) -> Arc<Self> {
        Self::on(cluster, id).spawn(|job| async move {
            job.follow().await;
            match job.cluster.jar_named(&job.jar_name()).await {
                Ok(Some(jar)) => job.delete(&jar).await,
                Ok(None) => {}
                Err(error) => tracing::warn!("the jar of a job may stay on the Flink cluster: {error}"),
            }
        })
    }

    /// A job that is on a cluster already, and of which nothing else is known.
    fn on(cluster: Arc<Cluster>, id: String) -> Self {
        Self {
            log: Arc::new(EventLog::new()),
            cluster,
            id,
            wish: watch::Sender::new(Wish::Run),
            metrics: Mutex::default(),
            ended: watch::Sender::new(false),
            streaming: None,
            savepoint_folder: None,
            loopback: false,
            submitted: AtomicBool::new(true),
        }
    }

    /// Has the job take its course, whose end is told.
    fn spawn<F: Future<Output = ()> + Send + 'static>(
        self,
        course: impl FnOnce(Arc<Self>) -> F,
    ) -> Arc<Self> {
        let job = Arc::new(self);
        let course = course(job.clone());
        let own = job.clone();
        tokio::spawn(async move {
            course.await;
            own.ended.send_replace(true);
        });
        job
    }

    fn tell(&self, importance: Importance, text: impl Into<String>) {
        self.log.tell(importance, text.into());
    }

    fn fail(&self, reason: impl Into<String>) {
        self.tell(Importance::Error, reason);
        self.log.set(JobState::Failed);
    }

    /// Follows the job on the cluster to its end.
    async fn follow(&self) {
        let mut seen = Seen::default();
        let mut silent = Silence::default();
        let mut wish = self.wish.subscribe();
        let mut asked = Wish::Run;
        let mut pause = FIRST_PAUSE;
        let mut often = Instant::now() + OFTEN;
        let begun = Instant::now();
        loop {
            asked = self.ask(asked).await;
            match self.cluster.status(&self.id).await {
                Ok(Some(status)) => {
                    silent = Silence::default();
                    if self.is_over(&status, &mut seen).await {
                        return;
                    }
                    if matches!(&*status, "FAILING" | "RESTARTING") {
                        self.tell_failures(&mut seen).await;
                    }
                    if Instant::now() >= often {
                        often = Instant::now() + OFTEN;
                        self.tell_failures(&mut seen).await;
                        self.fetch_metrics().await;
                    }
                    self.watch_slots(&status, &mut seen).await;
                }
                Ok(None) if begun.elapsed() < UNKNOWN && seen.status.is_empty() => {}
                Ok(None) => {
                    return self.fail(format!(
                        "Flink at {} does not know the job any more: the cluster was started anew, or ended; submit the job again",
                        self.cluster.masters()
                    ));
                }
                Err(error) if error.is_transient() => silent.heard(self, &error),
                Err(error) => return self.fail(error.to_string()),
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 3 / 2).min(PAUSE),
                _ = wish.changed() => pause = FIRST_PAUSE,
            }
        }
    }

    /// Tells Flink of what is wanted, if it has not been told yet; what it has been told.
    async fn ask(&self, asked: Wish) -> Wish {
        let wish = *self.wish.borrow();
        if wish == asked {
            return asked;
        }
        let told = match wish {
            Wish::Run => Ok(()),
            Wish::Cancel => {
                self.log.set(JobState::Cancelling);
                self.cluster.cancel(&self.id).await
            }
            Wish::Drain => {
                self.log.set(JobState::Draining);
                match self
                    .cluster
                    .stop(&self.id, self.savepoint_folder.as_deref())
                    .await
                {
                    Ok(trigger) => {
                        self.drained(trigger);
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
        };
        match told {
            Ok(()) => wish,
            // Asked once more when it answers.
            Err(error) if error.is_transient() => asked,
            Err(error) => {
                // A job that has ended in the meantime cannot be told anything; its end is seen next.
                if wish == Wish::Drain {
                    self.tell(Importance::Warning, format!("the job cannot be drained: {error}"));
                    self.log.set(JobState::Running);
                    self.wish.send_replace(Wish::Run);
                    return Wish::Run;
                }
                tracing::debug!("{error}");
                wish
            }
        }
    }

    /// Tells of the savepoint that a drained job leaves, when it is there.
    fn drained(&self, trigger: String) {
        let (cluster, id, log, wish) = (
            self.cluster.clone(),
            self.id.clone(),
            self.log.clone(),
            self.wish.clone(),
        );
        tokio::spawn(async move {
            loop {
                match cluster.savepoint(&id, &trigger).await {
                    Ok(Savepoint::Done(place)) => {
                        return log.tell(
                            Importance::Basic,
                            format!("the drained job left a savepoint in {place}"),
                        );
                    }
                    Ok(Savepoint::Failed(trace)) => {
                        let reason = root_cause(&trace);
                        log.tell(
                            Importance::Warning,
                            format!("the job cannot be drained, and goes on: {reason}"),
                        );
                        log.set(JobState::Running);
                        wish.send_if_modified(|wish| std::mem::replace(wish, Wish::Run) == Wish::Drain);
                        return;
                    }
                    Ok(Savepoint::InProgress) => {}
                    Err(error) if error.is_transient() => {}
                    Err(error) => return tracing::debug!("{error}"),
                }
                sleep(PAUSE).await;
            }
        });
    }

    /// Takes over a state of Flink's. True: it was the last one.
    async fn is_over(&self, status: &str, seen: &mut Seen) -> bool {
        if seen.status != status {
            tracing::debug!(job = %self.id, "Flink: {status}");
            seen.status = status.to_owned();
        }
        let end = match status {
            "FINISHED" if self.log.current().state == JobState::Draining => JobState::Drained,
            "FINISHED" => JobState::Done,
            "CANCELED" => JobState::Cancelled,
            "FAILED" => JobState::Failed,
            "CANCELLING" => {
                self.log.set(JobState::Cancelling);
                return false;
            }
            "INITIALIZING" | "CREATED" => return false,
            _ => {
                if self.log.current().state == JobState::Starting {
                    self.log.set(JobState::Running);
                }
                return false;
            }
        };
        if end == JobState::Failed {
            self.settle(status).await;
            // The last one failed the job; those before were mended by a restart.
            let failures = self.new_failures(seen).await;
            let last = failures.last().or(seen.last.as_ref());
            match last {
                Some(failure) => {
                    self.tell(Importance::Detailed, failure.stacktrace.clone());
                    self.tell(Importance::Error, told(failure));
                }
                None => self.tell(
                    Importance::Error,
                    "the job failed; Flink does not say why, its logs may",
                ),
            }
        }
        self.log.set(end);
        // Whoever asks for metrics waits for these.
        self.settle(status).await;
        self.fetch_metrics().await;
        true
    }

    /// Waits until what Flink tells of the job is not older than its state.
    async fn settle(&self, status: &str) {
        let begun = Instant::now();
        while begun.elapsed() < STALE {
            match self.cluster.details(&self.id).await {
                Ok(details) if details.state == status => return,
                Ok(_) => sleep(STALE_PAUSE).await,
                Err(error) => return tracing::debug!("{error}"),
            }
        }
    }

    /// Failures that were not seen yet.
    async fn new_failures(&self, seen: &mut Seen) -> Vec<Failure> {
        let failures = match self.cluster.failures(&self.id).await {
            Ok(failures) => failures,
            Err(error) => {
                tracing::debug!("{error}");
                return Vec::new();
            }
        };
        let after = seen.last.as_ref().map_or(i64::MIN, |last| last.timestamp);
        let new: Vec<Failure> = failures
            .into_iter()
            .filter(|failure| failure.timestamp > after)
            .collect();
        if let Some(last) = new.last() {
            seen.last = Some(last.clone());
        }
        new
    }

    /// Tells of failures that Flink mends by a restart.
    async fn tell_failures(&self, seen: &mut Seen) {
        for failure in self.new_failures(seen).await {
            self.tell(Importance::Detailed, failure.stacktrace.clone());
            self.tell(
                Importance::Warning,
                format!("Flink restarts the job, or fails it, after: {}", told(&failure)),
            );
        }
    }

    /// Says what is missing when no task gets a slot.
    async fn watch_slots(&self, status: &str, seen: &mut Seen) {
        if status != "RUNNING" || seen.tasks_ran || seen.slots_asked.elapsed() < NO_SLOTS {
            return;
        }
        seen.slots_asked = Instant::now();
        let waits = |state: &str| matches!(state, "CREATED" | "SCHEDULED");
        let waiting = match self.cluster.details(&self.id).await {
            Ok(details) => details
                .tasks
                .iter()
                .all(|(state, count)| *count == 0 || waits(state)),
            Err(error) => return tracing::debug!("{error}"),
        };
        if !waiting {
            seen.tasks_ran = true;
            return;
        }
        let Ok(overview) = self.cluster.overview().await else {
            return;
        };
        let reason = match overview.taskmanagers {
            0 => "the cluster has no TaskManager; start one".to_owned(),
            n => format!(
                "{} of the {} slots of {n} TaskManager(s) are free, and it needs more; let another job end, start a TaskManager, or give a \
                 lower --parallelism",
                overview.free_slots, overview.slots
            ),
        };
        self.tell(Importance::Warning, format!("the job waits for slots: {reason}"));
    }

    async fn fetch_metrics(&self) {
        let found = match self.cluster.accumulator(&self.id, METRICS).await {
            Ok(Some(json)) => from_json::<GetJobMetricsResponse>(&json),
            Ok(None) => return,
            Err(error) => return tracing::debug!("{error}"),
        };
        match found {
            Ok(response) => {
                let results = response.metrics.unwrap_or_default();
                let metrics = JobMetrics {
                    attempted: results.attempted,
                    committed: results.committed,
                };
                *self.metrics.lock() = metrics;
            }
            Err(error) => tracing::warn!("metrics of a job on Flink cannot be read: {error}"),
        }
    }
}

/// What of a job was seen already.
struct Seen {
    status: String,
    last: Option<Failure>,
    tasks_ran: bool,
    slots_asked: Instant,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            status: String::new(),
            last: None,
            tasks_ran: false,
            slots_asked: Instant::now(),
        }
    }
}

/// How long a cluster has not answered.
#[derive(Default)]
struct Silence {
    since: Option<Instant>,
    told: bool,
}

impl Silence {
    /// Another time. Told once, when it has lasted.
    fn heard(&mut self, job: &FlinkJob, error: &RestError) {
        let since = *self.since.get_or_insert_with(Instant::now);
        if !self.told && since.elapsed() >= SILENT {
            self.told = true;
            job.tell(
                Importance::Warning,
                format!("{error}; the job is asked for again until it answers"),
            );
        }
    }
}

/// A failure as a user is told of it: what was said at its root, and in which task.
fn told(failure: &Failure) -> String {
    let cause = root_cause(&failure.stacktrace);
    match &failure.task_name {
        Some(task) if !task.is_empty() => format!("{cause}\nin Flink's task {}", short(task)),
        _ => cause,
    }
}

/// The beginning of a task's name, which holds all transforms that are fused in it.
fn short(task: &str) -> String {
    const MOST: usize = 200;
    match task.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &task[..end]),
        None => task.to_owned(),
    }
}

#[async_trait]
impl RunningJob for FlinkJob {
    fn log(&self) -> &Arc<EventLog> {
        &self.log
    }

    async fn metrics(&self) -> JobMetrics {
        if !self.log.current().state.is_terminal() {
            self.fetch_metrics().await;
        } else {
            self.wait().await;
        }
        self.metrics.lock().clone()
    }

    fn cancel(&self) {
        if !self.log.current().state.is_terminal() {
            self.log.set(JobState::Cancelling);
        }
        self.wish.send_replace(Wish::Cancel);
    }

    async fn drain(&self) -> Result<(), JobError> {
        if self.streaming == Some(false) {
            return Err(JobError::NoDrain {
                reason: "Flink drains streaming jobs only; cancel it instead".into(),
            });
        }
        self.wish
            .send_if_modified(|wish| *wish == Wish::Run && std::mem::replace(wish, Wish::Drain) == Wish::Run);
        Ok(())
    }

    async fn wait(&self) {
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    fn outlives_service(&self) -> bool {
        // LOOPBACK workers end with the program that submitted the job.
        !self.loopback && self.submitted.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_an_id_of_its_own_in_flink() {
        let id = flink_id("words-1-00000000");
        assert!(
            id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{id}"
        );
        assert_eq!(id, flink_id("words-1-00000000"));
        assert_ne!(id, flink_id("words-2-00000000"));
    }
}
