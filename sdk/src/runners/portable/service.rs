//! The job service that PrismRunner and FlinkRunner start for a pipeline.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::connect::probe;
use crate::error::RunError;
use crate::options::{PipelineOptions, RunnerKind};

const PROGRAM: &str = "purlin-job-service";
/// How long the service may take until it listens.
const START: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// How long it may take to end.
const STOP: Duration = Duration::from_secs(5);
/// How many of its last lines are kept for its error.
const LINES: usize = 20;

/// A running job service.
pub(super) struct JobService {
    endpoint: String,
    child: Child,
}

impl JobService {
    /// Starts one at free ports, and waits until it listens.
    pub async fn start(options: &PipelineOptions) -> Result<JobService, RunError> {
        let program = find(options.prism_location.as_deref())?;
        let failed =
            |reason: String| RunError::Runner(format!("cannot start {}: {reason}", program.display()));
        // Prism takes no port 0 to mean any, so one is chosen here.
        let port = free_port().map_err(|e| failed(format!("no port is free: {e}")))?;
        let mut command = Command::new(&program);
        command
            .arg(format!("--job_port={port}"))
            .arg("--serve_http=false")
            // In case this process ends without stopping it.
            .arg("--idle_shutdown_timeout=2m");
        // Which cluster is an option of the job; with another runner, the service may be Beam's prism.
        if options.runner == RunnerKind::Flink
            && let Some(jar) = &options.flink_job_server_jar
        {
            command.arg("--flink_job_server_jar").arg(jar);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is for this process, which cancels the job first.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| failed(e.to_string()))?;
        let lines = Arc::<Mutex<VecDeque<String>>>::default();
        if let Some(stderr) = child.stderr.take() {
            let lines = lines.clone();
            tokio::spawn(async move {
                let mut reader = BufReader::new(stderr).lines();
                while let Ok(Some(line)) = reader.next_line().await {
                    tracing::debug!(target: "purlin::job_service", "{line}");
                    let mut lines = lines.lock();
                    if lines.len() == LINES {
                        lines.pop_front();
                    }
                    lines.push_back(line);
                }
            });
        }

        let endpoint = format!("localhost:{port}");
        let deadline = Instant::now() + START;
        loop {
            if probe(&endpoint).await.is_ok() {
                return Ok(JobService { endpoint, child });
            }
            let said = || {
                lines
                    .lock()
                    .iter()
                    .map(|line| format!("\n  {line}"))
                    .collect::<String>()
            };
            match child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => {
                    // Its last lines may be on their way.
                    tokio::time::sleep(POLL).await;
                    return Err(failed(format!("it ended ({status}){}", said())));
                }
                Err(e) => return Err(failed(e.to_string())),
            }
            if Instant::now() > deadline {
                let seconds = START.as_secs();
                return Err(failed(format!(
                    "it does not listen at {endpoint} after {seconds} s{}",
                    said()
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// `host:port` of its job service.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Asks it to end, and waits for that.
    pub async fn stop(mut self) {
        if let Some(pid) = self
            .child
            .id()
            .and_then(|id| rustix::process::Pid::from_raw(id as i32))
        {
            // It fails if the process has ended, which is what is wanted.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(STOP, self.child.wait()).await.is_err()
            && let Err(error) = self.child.kill().await
        {
            tracing::warn!("the job service does not end: {error}");
        }
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port())
}

/// The service's program: as given, next to this program, or on the PATH.
fn find(given: Option<&Path>) -> Result<PathBuf, RunError> {
    if let Some(given) = given {
        return match given.is_file() {
            true => Ok(given.to_owned()),
            false => Err(RunError::Runner(format!(
                "--prism_location: there is no file {}; give the path of purlin-job-service, or of Beam's prism",
                given.display()
            ))),
        };
    }
    let here = std::env::current_exe().unwrap_or_default();
    // Tests and examples lie one folder below the binaries.
    let near = here.ancestors().skip(1).take(2).map(Path::to_owned);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = near
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(PROGRAM));
    found.find(|program| program.is_file()).ok_or_else(|| {
        RunError::Runner(format!(
            "the runner finds no {PROGRAM}, neither next to this program nor on the PATH; build it with `cargo build -p \
             {PROGRAM}`, give its path as --prism_location=FILE, or the address of a running one as \
             --job_endpoint=HOST:PORT"
        ))
    })
}
