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
            let read = async {
                let stream = connect(&address, &worker_id, ReceiverStream::new(outbound)).await;
                if let Some(mut stream) = stream {
                    while let Ok(Some(_)) = stream.message().await {}
                }
            };
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
            tokio::pin!(read);
            tokio::select! {
                // A runner that has ended its half of the stream waits for ours, which ends here. Or it cannot be reached.
                () = &mut read => {}
                () = send => {
                    // It ends its half when it has read all.
                    let _ = tokio::time::timeout(FLUSH, read).await;
                }
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

#[cfg(test)]
mod tests {
    use purlin_proto::fn_execution::LogControl;
    use purlin_proto::fn_execution::beam_fn_logging_server::{BeamFnLogging, BeamFnLoggingServer};
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Response, Status, Streaming};

    use super::*;

    /// How long what must happen may take.
    const SOON: Duration = Duration::from_secs(60);

    /// A runner that ends its half of the stream after the first entry, and tells when the other half ends.
    struct Brief(mpsc::UnboundedSender<&'static str>);

    #[tonic::async_trait]
    impl BeamFnLogging for Brief {
        type LoggingStream = ReceiverStream<Result<LogControl, Status>>;

        async fn logging(
            &self,
            request: Request<Streaming<log_entry::List>>,
        ) -> Result<Response<Self::LoggingStream>, Status> {
            let (mut inbound, told) = (request.into_inner(), self.0.clone());
            let (open, controls) = mpsc::channel(1);
            tokio::spawn(async move {
                inbound.message().await.unwrap().unwrap();
                told.send("first").unwrap();
                drop(open);
                while let Ok(Some(_)) = inbound.message().await {}
                told.send("end").unwrap();
            });
            Ok(Response::new(ReceiverStream::new(controls)))
        }
    }

    #[tokio::test]
    async fn the_stream_ends_when_the_runner_ends_its_half() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (told, mut heard) = mpsc::unbounded_channel();
        let server = tonic::transport::Server::builder().add_service(BeamFnLoggingServer::new(Brief(told)));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

        let log = RunnerLog::open(&address, "worker");
        log.output("a line");
        for expected in ["first", "end"] {
            let next = tokio::time::timeout(SOON, heard.recv()).await;
            assert_eq!(next.expect(expected), Some(expected));
        }
        // The worker goes on, and so may its log.
        log.output("another line");
    }
}
