//! What workers log, on its way to the service's log and to the job's messages.

use std::sync::{Arc, Weak};

use purlin_proto::fn_execution as fnapi;
use purlin_proto::fn_execution::log_entry::severity::Enum as Severity;
use purlin_runner::fnapi::{CONTAINER_OUTPUT, RUNNER_NOTE, TracingLog, WorkerIdentity, WorkerLog};
use purlin_runner::job::Importance;

use super::JobTable;

/// Workers' log entries go to the service's log, and on to the job's messages from the level on that its client asks for:
/// from warnings, if for none.
pub(crate) struct JobLog(Weak<JobTable>);

impl JobLog {
    /// Adds to the messages of these jobs.
    pub(crate) fn new(jobs: &Arc<JobTable>) -> Self {
        Self(Arc::downgrade(jobs))
    }
}

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
        if let Some(job) = job.job() {
            let space = if entry.trace.is_empty() { "" } else { "\n" };
            let text = format!("{}{space}{}", entry.message, entry.trace);
            if severity >= Severity::Error {
                job.worker_error(&entry.instruction_id, text);
            } else {
                job.log().tell(importance, text);
            }
        }
    }
}
