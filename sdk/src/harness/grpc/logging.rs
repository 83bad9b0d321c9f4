//! What user code logs by `tracing` goes to the runner.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use purlin_net::MAX_MESSAGE_BYTES;
use purlin_proto::fn_execution::LogEntry;
use purlin_proto::fn_execution::beam_fn_logging_client::BeamFnLoggingClient;
use purlin_proto::fn_execution::log_entry::{self, severity};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::connect::{WorkerChannel, while_reading};
use crate::harness::BundleMonitor;
use crate::metrics::STEP;

/// Entries that may wait to be sent; more are dropped, and their number is told.
const WAITING: usize = 10_000;
/// Entries in one message.
const BATCH: usize = 512;
/// How long the last entries may take.
const FLUSH: Duration = Duration::from_secs(2);

/// Sends log entries of one worker. Never blocks.
#[derive(Clone)]
pub(crate) struct LogSender {
    messages: mpsc::Sender<Message>,
    dropped: Arc<AtomicU64>,
}

enum Message {
    Entry(Box<LogEntry>),
    /// Everything before this has been given to the stream.
    Flush(oneshot::Sender<()>),
}

impl LogSender {
    /// Sends an entry, if there is room.
    pub fn send(&self, entry: LogEntry) {
        if self.messages.try_send(Message::Entry(Box::new(entry))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was sent is on its way, a short while at most.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        let flush = async {
            if self.messages.send(Message::Flush(done)).await.is_ok() {
                // It fails when the stream has ended, and nobody reads.
                let _ = flushed.await;
            }
        };
        let _ = tokio::time::timeout(FLUSH, flush).await;
    }
}

/// Opens a logging stream.
pub(super) fn open(address: &str, channel: WorkerChannel) -> LogSender {
    let (messages, mut queue) = mpsc::channel(WAITING);
    let dropped = Arc::<AtomicU64>::default();
    let sender = LogSender {
        messages,
        dropped: dropped.clone(),
    };
    // One message at a time: when it is taken, the one before has gone to the connection.
    let (lists, outbound) = mpsc::channel::<log_entry::List>(1);
    tokio::spawn(async move {
        let mut batch = Vec::new();
        while queue.recv_many(&mut batch, BATCH).await > 0 {
            let mut list = log_entry::List::default();
            let mut flushes = Vec::new();
            for message in batch.drain(..) {
                match message {
                    Message::Entry(entry) => list.log_entries.push(*entry),
                    Message::Flush(done) => flushes.push(done),
                }
            }
            let lost = dropped.swap(0, Ordering::Relaxed);
            if lost > 0 {
                let text =
                    format!("{lost} log entries were dropped: they came faster than the runner takes them");
                list.log_entries.push(entry(severity::Enum::Warn, text));
            }
            if !list.log_entries.is_empty() && lists.send(list).await.is_err() {
                return;
            }
            if !flushes.is_empty() {
                // The channel has room again once the stream has taken the last list.
                let Ok(_) = lists.reserve().await else { return };
                for done in flushes {
                    // Whoever waits may have given up.
                    let _ = done.send(());
                }
            }
        }
    });
    let address = address.to_owned();
    tokio::spawn(async move {
        let mut client = BeamFnLoggingClient::new(channel).max_encoding_message_size(MAX_MESSAGE_BYTES);
        let (outbound, _reading) = while_reading(ReceiverStream::new(outbound));
        let ended = match client.logging(outbound).await {
            Err(status) => Err(status),
            Ok(response) => {
                let mut control = response.into_inner();
                loop {
                    match control.message().await {
                        // The runner's settings of levels are not part of the contract yet: the message is empty.
                        Ok(Some(_)) => {}
                        Ok(None) => break Ok(()),
                        Err(status) => break Err(status),
                    }
                }
            }
        };
        if let Err(status) = ended {
            tracing::debug!("the logging stream to {address} ended: {}", status.message());
        }
    });
    sender
}

fn entry(severity: severity::Enum, message: String) -> LogEntry {
    LogEntry {
        severity: severity as i32,
        timestamp: Some(SystemTime::now().into()),
        message,
        thread: std::thread::current().name().unwrap_or_default().to_owned(),
        ..Default::default()
    }
}

/// An entry that is not of a bundle.
pub(crate) fn error_entry(message: String) -> LogEntry {
    entry(severity::Enum::Error, message)
}

/// The bundle that this thread processes.
struct Bundle {
    log: LogSender,
    instruction: String,
    monitor: Arc<BundleMonitor>,
}

thread_local! {
    static BUNDLE: RefCell<Option<Bundle>> = const { RefCell::new(None) };
}

/// Where entries of other threads go, in a process that is one worker.
static PROCESS: OnceLock<LogSender> = OnceLock::new();

pub(super) fn enter_bundle(log: Option<&LogSender>, instruction: &str, monitor: &Arc<BundleMonitor>) {
    let bundle = log.map(|log| Bundle {
        log: log.clone(),
        instruction: instruction.to_owned(),
        monitor: monitor.clone(),
    });
    BUNDLE.set(bundle);
}

pub(super) fn leave_bundle() {
    BUNDLE.take();
}

/// This process is one worker: what any of its threads logs is the worker's.
pub(super) fn whole_process(log: LogSender) {
    // A second worker in this process keeps to its own threads.
    let _ = PROCESS.set(log);
}

/// What `RUST_LOG` lets through, as `info` or `my_crate=debug`.
fn asked_for() -> Option<Targets> {
    std::env::var("RUST_LOG").ok()?.parse().ok()
}

/// Target of the messages of jobs.
pub(crate) const JOB: &str = "purlin::job";

/// Shows what job services say of a job to whoever launched it, on the standard error. What user code logs in a LOOPBACK
/// worker goes to the runner, and comes back among the job's messages.
pub(crate) fn of_launcher() {
    let shown = asked_for().unwrap_or_else(|| {
        Targets::new()
            .with_target("purlin", LevelFilter::WARN)
            .with_target(JOB, LevelFilter::INFO)
    });
    let show = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    // A program that has its own subscriber keeps it.
    let _ = tracing_subscriber::registry()
        .with(LogLayer.with_filter(LevelFilter::INFO))
        .with(show.with_filter(shown))
        .try_init();
}

/// Sends what is logged in a worker's own process to the runner, and shows it on the standard error too: the end of that
/// is told when the process dies.
pub(super) fn of_worker() {
    let told = asked_for().unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    // A program that has its own subscriber keeps it.
    let _ = tracing_subscriber::registry()
        .with(told)
        .with(LogLayer)
        .with(tracing_subscriber::fmt::layer().with_writer(io::stderr))
        .try_init();
}

/// A layer for `tracing-subscriber` that sends what user code logs in a bundle to the runner, with the transform that
/// logged it.
///
/// Programs without a subscriber of their own have it already. One that sets its own adds it:
/// `registry().with(fmt::layer()).with(LogLayer)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogLayer;

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        // What the connections themselves say would make them say more.
        if ["h2", "hyper", "tonic", "tower"]
            .iter()
            .any(|c| metadata.target().split("::").next() == Some(*c))
        {
            return;
        }
        let make = || {
            let mut text = Text::default();
            event.record(&mut text);
            let mut entry = entry(severity_of(metadata.level()), text.message + &text.fields);
            entry.log_location = match (metadata.file(), metadata.line()) {
                (Some(file), Some(line)) => format!("{file}:{line}"),
                _ => metadata.target().to_owned(),
            };
            entry
        };
        BUNDLE.with_borrow(|bundle| match bundle {
            Some(bundle) => {
                let mut entry = make();
                entry.instruction_id.clone_from(&bundle.instruction);
                entry.transform_id = transform_id(&bundle.monitor);
                bundle.log.send(entry);
            }
            None => {
                if let Some(log) = PROCESS.get() {
                    log.send(make());
                }
            }
        });
    }
}

/// The transform whose code runs on this thread.
fn transform_id(monitor: &BundleMonitor) -> String {
    monitor
        .steps
        .get(STEP.get() as usize)
        .map(|step| step.transform_id.clone())
        .unwrap_or_default()
}

fn severity_of(level: &Level) -> severity::Enum {
    match *level {
        Level::ERROR => severity::Enum::Error,
        Level::WARN => severity::Enum::Warn,
        Level::INFO => severity::Enum::Info,
        Level::DEBUG => severity::Enum::Debug,
        Level::TRACE => severity::Enum::Trace,
    }
}

/// An event in words: the message, then the fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
