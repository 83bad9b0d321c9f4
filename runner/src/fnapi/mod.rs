//! The Fn API: one server for all workers of the process.
//!
//! ```text
//! FnApiServer::bind ──▶ expect(worker) ──▶ GrpcWorker        the worker's streams, told apart by `worker_id`:
//!                                          │ process()        control  requests out, answers in
//!                                          ▼                  data     elements and timers, both ways
//!                                   WorkerConnection: bundles state    requests in, answers out
//!                                   by instruction id         logging, provision, status
//! ```
//! A worker's data stream is always read: outputs are gathered as they come. Pressure is the number of bundles that
//! the engine gives out, and the few bytes that may wait for a worker's data stream (`window`).

mod collector;
mod connection;
mod last_words;
mod presence;
mod send;
mod server;
mod services;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod window;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use server::{FnApiServer, FnApiSettings};

pub use worker::GrpcWorker;

pub(crate) use connection::WorkerConnection;
use parking_lot::Mutex;
use purlin_proto::fn_execution as fnapi;

/// Whose a worker is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerIdentity {
    /// The worker: its id without its token, as this is shown.
    pub worker_id: String,
    /// Its environment in the pipeline.
    pub environment_id: String,
    /// Its job.
    pub job_id: String,
}

/// Takes what workers log.
pub trait WorkerLog: Send + Sync + 'static {
    /// Takes one entry. Called on an async thread: must not block.
    fn log(&self, worker: &WorkerIdentity, entry: &fnapi::LogEntry);
}

/// Where an entry of a worker's log says that it is the runner's own word on how the worker runs.
pub const RUNNER_NOTE: &str = "purlin:runner";
/// Where an entry of a worker's log says that it is a line of its container's output.
pub const CONTAINER_OUTPUT: &str = "purlin:container_output";

/// Passes workers' log entries to `tracing`, at their own severity.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingLog;

impl WorkerLog for TracingLog {
    fn log(&self, worker: &WorkerIdentity, entry: &fnapi::LogEntry) {
        use fnapi::log_entry::severity::Enum as Severity;
        macro_rules! event {
            ($level:ident) => {
                tracing::event!(
                    target: "sdk_worker",
                    tracing::Level::$level,
                    worker = %worker.worker_id,
                    job = %worker.job_id,
                    transform = %entry.transform_id,
                    location = %entry.log_location,
                    "{}{}{}",
                    entry.message,
                    if entry.trace.is_empty() { "" } else { "\n" },
                    entry.trace
                )
            };
        }
        match entry.severity() {
            Severity::Trace => event!(TRACE),
            Severity::Debug => event!(DEBUG),
            Severity::Unspecified | Severity::Info | Severity::Notice => event!(INFO),
            Severity::Warn => event!(WARN),
            Severity::Error | Severity::Critical => event!(ERROR),
        }
    }
}

/// What the server's services share.
pub(crate) struct Connections {
    workers: Mutex<HashMap<String, Arc<WorkerConnection>>>,
    log: Arc<dyn WorkerLog>,
    hang_timeout: Option<Duration>,
}

impl Connections {
    /// Tells the user of a worker's job what is wrong with the worker, or may be.
    fn warn(&self, worker: &WorkerIdentity, text: String) {
        let entry = fnapi::LogEntry {
            severity: fnapi::log_entry::severity::Enum::Warn as i32,
            timestamp: Some(SystemTime::now().into()),
            message: text,
            log_location: RUNNER_NOTE.to_owned(),
            ..Default::default()
        };
        self.log.log(worker, &entry);
    }
}
