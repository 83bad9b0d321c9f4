//! What a harness prints, and how it ends, told to the runner's logging service.

use std::time::{Duration, SystemTime};

use purlin_net::{Purpose, endpoint};
use purlin_proto::fn_execution::LogEntry;
use purlin_proto::fn_execution::beam_fn_logging_client::BeamFnLoggingClient;
use purlin_proto::fn_execution::log_entry::{self, severity};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use crate::provision::metadata;

/// Lines that may wait to be sent; more are dropped.
const WAITING: usize = 1000;
const CONNECT: Duration = Duration::from_secs(5);
/// How long the last words may take.
const FLUSH: Duration = Duration::from_secs(2);
/// Says that the pool's word is that the harness has ended: a runner need not wait for it.
pub(crate) const ENDED: &str = "worker_pool:harness_ended";
const OUTPUT: &str = "worker_pool:output";

/// Sends entries in a worker's name. Never blocks.
#[derive(Clone)]
pub(crate) struct RunnerLog {
    entries: mpsc::Sender<LogEntry>,
}

impl RunnerLog {
    /// Entries for the logging service at this address; nowhere if it is empty or cannot be reached.
    pub(crate) fn open(address: &str, worker_id: &str) -> Self {
        let (entries, mut queue) = mpsc::channel::<LogEntry>(WAITING);
        let (address, worker_id) = (address.to_owned(), worker_id.to_owned());
        tokio::spawn(async move {
            // Not before there is something to say.
            let Some(first) = queue.recv().await else { return };
            let (lists, outbound) = mpsc::channel(1);
            let list = |entry| log_entry::List {
                log_entries: vec![entry],
            };
            let stream = connect(&address, &worker_id, ReceiverStream::new(outbound));
            let send = async {
                let mut next = Some(first);
                while let Some(entry) = next {
                    if lists.send(list(entry)).await.is_err() {
                        return;
                    }
                    next = queue.recv().await;
                }
                drop(lists);
            };
            let (stream, ()) = tokio::join!(stream, send);
            if let Some(mut stream) = stream {
                // The runner ends it when it has read all.
                let _ =
                    tokio::time::timeout(FLUSH, async { while let Ok(Some(_)) = stream.message().await {} })
                        .await;
            }
        });
        Self { entries }
    }

    /// A line of the harness's output. The harness has its own log for what matters: this is for those that never get so far.
    pub(crate) fn output(&self, line: &str) {
        self.send(severity::Enum::Debug, OUTPUT, line);
    }

    /// The harness has ended by itself.
    pub(crate) fn ended(&self, end: &str) {
        self.send(severity::Enum::Critical, ENDED, end);
    }

    fn send(&self, severity: severity::Enum, location: &str, text: &str) {
        let entry = LogEntry {
            severity: severity as i32,
            timestamp: Some(SystemTime::now().into()),
            message: text.to_owned(),
            log_location: location.to_owned(),
            ..Default::default()
        };
        // A runner that does not read its log misses lines.
        let _ = self.entries.try_send(entry);
    }
}

type Controls = tonic::Streaming<purlin_proto::fn_execution::LogControl>;

async fn connect(address: &str, worker_id: &str, lists: ReceiverStream<log_entry::List>) -> Option<Controls> {
    if address.is_empty() {
        return None;
    }
    let endpoint = endpoint(address, Purpose::Calls, CONNECT).ok()?;
    let channel = endpoint.connect().await.ok()?;
    let mut request = Request::new(lists);
    request
        .metadata_mut()
        .insert("worker_id", metadata(worker_id).ok()?);
    let opened = BeamFnLoggingClient::new(channel).logging(request).await;
    opened.ok().map(tonic::Response::into_inner)
}
