//! One SDK harness: a process and all that it starts.

use std::collections::VecDeque;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::watch;

/// Lines of output that are kept for the report of a harness's end.
const LINES: usize = 20;
/// How long a harness may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);

/// A harness that has been started. Dropping it ends it.
pub(crate) struct Harness {
    stop: watch::Sender<bool>,
    end: watch::Receiver<Option<String>>,
}

impl Harness {
    /// Starts a command in a process group of its own.
    pub(crate) fn start(worker_id: String, mut command: Command) -> io::Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(id as i32));
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let readers = [
            child
                .stdout
                .take()
                .map(|out| tokio::spawn(read(out, worker_id.clone(), lines.clone()))),
            child
                .stderr
                .take()
                .map(|err| tokio::spawn(read(err, worker_id.clone(), lines.clone()))),
        ];
        let (stop, mut stopped) = watch::channel(false);
        let (ended, end) = watch::channel(None);
        tokio::spawn(async move {
            let asked = async { drop(stopped.wait_for(|stop| *stop).await) };
            let (status, expected) = tokio::select! {
                status = child.wait() => (status, false),
                () = asked => {
                    signal(group, Signal::TERM);
                    let status = match tokio::time::timeout(GRACE, child.wait()).await {
                        Ok(status) => status,
                        Err(_) => {
                            signal(group, Signal::KILL);
                            child.wait().await
                        }
                    };
                    (status, true)
                }
            };
            // What it started and left behind ends with it.
            signal(group, Signal::KILL);
            for reader in readers.into_iter().flatten() {
                // Something outside the group may hold the pipe open.
                let _ = tokio::time::timeout(Duration::from_millis(200), reader).await;
            }
            let status = status.map_or_else(|e| e.to_string(), describe);
            let lines: Vec<String> = lines
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .cloned()
                .collect();
            if expected {
                tracing::info!(worker = %worker_id, "ended ({status})");
            } else {
                tracing::error!(worker = %worker_id, "the harness died ({status}); its last output:\n{}", lines.join("\n"));
            }
            ended.send_replace(Some(format!("{status}; its last output: {}", lines.join("\n"))));
        });
        Ok(Self { stop, end })
    }

    /// Ends it and waits until it has ended.
    pub(crate) async fn stop(&self) {
        self.stop.send_replace(true);
        self.ended().await;
    }

    /// Becomes its status and last lines when it has ended.
    pub(crate) fn end(&self) -> watch::Receiver<Option<String>> {
        self.end.clone()
    }

    /// Resolves when it has ended, with its status and last lines.
    pub(crate) async fn ended(&self) -> String {
        let mut end = self.end();
        let end = end.wait_for(Option::is_some).await;
        end.ok().and_then(|end| end.clone()).unwrap_or_default()
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // It fails if nothing is left in the group, which is what is wanted.
        let _ = kill_process_group(group, signal);
    }
}

async fn read(stream: impl AsyncRead + Unpin, worker: String, lines: Arc<Mutex<VecDeque<String>>>) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).await.is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        tracing::info!(target: "sdk_worker", worker = %worker, "{text}");
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(text);
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status.signal() {
        Some(signal) => format!("signal {signal}"),
        None => format!("exit status {}", status.code().unwrap_or_default()),
    }
}
