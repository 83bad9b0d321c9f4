//! Workers that are processes of this machine.

use std::collections::{HashMap, VecDeque};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use purlin_proto::pipeline;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::watch;

use super::Environments;
use crate::fnapi::lock;
use crate::worker::{StartWorker, Worker, WorkerError};

/// How many of a process's last lines are kept for its error.
const LINES: usize = 20;
/// How long a process may take to end after its streams are closed, and again after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

/// How a process ended.
#[derive(Clone, Debug)]
pub struct ProcessEnd {
    /// Its exit status, in words.
    pub status: String,
    /// Its last lines of output.
    pub lines: Vec<String>,
}

impl std::fmt::Display for ProcessEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "its process ended ({})", self.status)?;
        if !self.lines.is_empty() {
            write!(f, ", its last output was:\n{}", self.lines.join("\n"))?;
        }
        Ok(())
    }
}

impl Environments {
    pub(super) async fn process(
        self,
        request: StartWorker,
        payload: pipeline::ProcessPayload,
    ) -> Result<Arc<dyn Worker>, WorkerError> {
        let failed = |reason: String| start_error(&request, reason);
        if payload.command.is_empty() {
            return Err(failed(
                "it names no command; give --environment_config='{\"command\": \"/path/to/boot\"}'".into(),
            ));
        }
        check("operating system", &payload.os, &[std::env::consts::OS]).map_err(failed)?;
        check("architecture", &payload.arch, &architectures()).map_err(failed)?;
        let mut command = Command::new(&payload.command);
        command
            .arg(format!("--id={}", request.worker_id))
            .arg(format!("--logging_endpoint={}", self.server.url()))
            .arg(format!("--artifact_endpoint={}", self.server.artifact_url()))
            .arg(format!("--provision_endpoint={}", self.server.url()))
            .arg(format!("--control_endpoint={}", self.server.url()))
            .envs(&payload.env);
        self.spawn(request, command, payload.command).await
    }

    /// The payload is a shell command; addresses and options go in its environment variables, as text protos.
    pub(super) async fn python_subprocess(
        self,
        request: StartWorker,
    ) -> Result<Arc<dyn Worker>, WorkerError> {
        let line = String::from_utf8(request.environment.payload.to_vec())
            .map_err(|_| start_error(&request, "its command is no UTF-8 text".into()))?;
        let endpoint = format!("url: {:?}", self.server.url());
        let options = struct_json(&request.pipeline_options).to_string();
        let mut command = Command::new("sh");
        command.arg("-c").arg(&line).envs(HashMap::from([
            ("CONTROL_API_SERVICE_DESCRIPTOR", endpoint.as_str()),
            ("LOGGING_API_SERVICE_DESCRIPTOR", endpoint.as_str()),
            ("STATUS_API_SERVICE_DESCRIPTOR", endpoint.as_str()),
            ("PIPELINE_OPTIONS", options.as_str()),
            ("WORKER_ID", request.worker_id.as_str()),
        ]));
        self.spawn(request, command, line).await
    }

    async fn spawn(
        self,
        request: StartWorker,
        mut command: Command,
        shown: String,
    ) -> Result<Arc<dyn Worker>, WorkerError> {
        let worker = self.server.expect(&request)?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| {
            start_error(
                &request,
                format!("cannot run {shown:?}: {e}; check the command of --environment_config"),
            )
        })?;
        let group = child.id().and_then(|id| Pid::from_raw(id as i32));
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let readers = [
            child
                .stdout
                .take()
                .map(|out| tokio::spawn(read(out, request.worker_id.clone(), lines.clone()))),
            child
                .stderr
                .take()
                .map(|err| tokio::spawn(read(err, request.worker_id.clone(), lines.clone()))),
        ];

        let (end, ended) = watch::channel(None);
        let (stop, mut stopped) = watch::channel(false);
        let link = worker.link();
        let watcher = tokio::spawn(async move {
            let status = tokio::select! {
                status = child.wait() => status,
                () = async { drop(stopped.wait_for(|stop| *stop).await) } => {
                    // Its control stream has been closed: it ends by itself, or is made to.
                    match tokio::time::timeout(GRACE, child.wait()).await {
                        Ok(status) => status,
                        Err(_) => {
                            signal(group, Signal::TERM);
                            match tokio::time::timeout(GRACE, child.wait()).await {
                                Ok(status) => status,
                                Err(_) => {
                                    signal(group, Signal::KILL);
                                    child.wait().await
                                }
                            }
                        }
                    }
                }
            };
            // What it started and left behind ends with it.
            signal(group, Signal::KILL);
            for reader in readers.into_iter().flatten() {
                // A grandchild outside the group may hold the pipe open.
                let _ = tokio::time::timeout(Duration::from_millis(200), reader).await;
            }
            let status = status.map_or_else(|e| e.to_string(), describe);
            let lines = lock(&lines).iter().cloned().collect();
            let end_of_it = ProcessEnd { status, lines };
            link.lose(&end_of_it.to_string());
            end.send_replace(Some(end_of_it));
        });
        let guard = StopOnDrop(stop);
        worker.on_stop(Box::pin(async move {
            drop(guard);
            let _ = watcher.await;
        }));

        let mut ended = ended;
        let gone = async {
            match ended.wait_for(Option::is_some).await.as_deref() {
                Ok(Some(end)) => end.to_string(),
                _ => "its process ended".to_owned(),
            }
        };
        if let Err(reason) = self.connection(&worker, gone).await {
            worker.stop().await;
            return Err(start_error(
                &request,
                format!("{shown:?} gave no worker: {reason}"),
            ));
        }
        Ok(Arc::new(worker))
    }
}

/// Asks the watcher to end the process, also when the worker is dropped without being stopped.
struct StopOnDrop(watch::Sender<bool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

fn start_error(request: &StartWorker, reason: String) -> WorkerError {
    WorkerError::Start {
        environment: request.environment_id.clone(),
        reason,
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
        if text.is_empty() {
            continue;
        }
        tracing::info!(target: "sdk_worker", worker = %worker, "{text}");
        let mut lines = lock(&lines);
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

fn check(what: &str, wanted: &str, here: &[&str]) -> Result<(), String> {
    match wanted.is_empty() || here.iter().any(|name| name.eq_ignore_ascii_case(wanted)) {
        true => Ok(()),
        false => Err(format!(
            "it wants {what} {wanted:?}, and this machine has {:?}",
            here[0]
        )),
    }
}

/// The names that this machine's architecture goes by.
fn architectures() -> Vec<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => vec!["x86_64", "amd64"],
        "aarch64" => vec!["aarch64", "arm64"],
        other => vec![other],
    }
}

/// Pipeline options as the JSON that SDKs read. (Decoding bounds the nesting.)
fn struct_json(value: &prost_types::Struct) -> serde_json::Value {
    serde_json::Value::Object(
        value
            .fields
            .iter()
            .map(|(k, v)| (k.clone(), value_json(v)))
            .collect(),
    )
}

fn value_json(value: &prost_types::Value) -> serde_json::Value {
    use prost_types::value::Kind;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::NumberValue(n)) => {
            serde_json::Number::from_f64(*n).map_or(serde_json::Value::Null, Into::into)
        }
        Some(Kind::StringValue(s)) => s.clone().into(),
        Some(Kind::BoolValue(b)) => (*b).into(),
        Some(Kind::StructValue(s)) => struct_json(s),
        Some(Kind::ListValue(l)) => l.values.iter().map(value_json).collect(),
    }
}
