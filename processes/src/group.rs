//! One command with all that it starts, as its program sees it.

use std::collections::VecDeque;
use std::io;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::watch;

use crate::supervisor::{Limits, supervised};

/// Lines of output that are kept for the report of its end.
const LINES: usize = 20;
/// A longer line is cut.
const LINE_BYTES: usize = 2000;
/// How long it may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);
/// How long a supervisor may take beyond that.
const SUPERVISOR: Duration = Duration::from_secs(3);
/// How long reading what it has written may take after its end, on a busy machine.
const OUTPUT: Duration = Duration::from_secs(3);

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessEnd {
    /// Its exit status or signal, in words.
    pub status: String,
    /// Its last lines of output.
    pub lines: Vec<String>,
    /// Whether it had been asked to end.
    pub asked: bool,
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

type Lines = Arc<Mutex<VecDeque<String>>>;
type OnLine = Arc<dyn Fn(&str) + Send + Sync>;

/// A running command. Dropping this ends it.
pub struct ProcessGroup {
    /// How long it may take to end by itself, once it is to end.
    stop: watch::Sender<Option<Duration>>,
    end: watch::Receiver<Option<ProcessEnd>>,
    lines: Lines,
    pid: Option<u32>,
}

impl ProcessGroup {
    /// Starts a command (program, arguments, environment and folder of it count, not its streams). Each line of its
    /// output is given to `on_line`. Must be called in a tokio runtime.
    pub fn start(
        command: &Command,
        limits: &Limits,
        on_line: impl Fn(&str) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let program = command.get_program();
        if let Some(path) = program.to_str().filter(|path| path.contains('/'))
            && command.get_current_dir().is_none()
        {
            // Known here, it is this call's error; the supervisor's would come later.
            std::fs::metadata(path)?;
        }
        let supervisor = supervised(command, limits, GRACE);
        let piped = supervisor.is_some();
        let mut started = supervisor.unwrap_or_else(|| {
            let mut plain = Command::new(program);
            plain.args(command.get_args());
            plain
        });
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => started.env(name, value),
                None => started.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            started.current_dir(folder);
        }
        let mut child = tokio::process::Command::from(started);
        child
            .stdin(if piped { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = child.spawn()?;
        let pid = child.id();
        let group = pid.and_then(|id| Pid::from_raw(id as i32));
        let lines = Lines::default();
        let on_line: OnLine = Arc::new(on_line);
        let readers = [
            child
                .stdout
                .take()
                .map(|out| tokio::spawn(read(out, on_line.clone(), lines.clone()))),
            child
                .stderr
                .take()
                .map(|err| tokio::spawn(read(err, on_line, lines.clone()))),
        ];
        let mut leash = child.stdin.take();
        let (stop, mut stopped) = watch::channel(None);
        let (ended, end) = watch::channel(None);
        let kept = lines.clone();
        tokio::spawn(async move {
            let asked = async {
                match stopped.wait_for(Option::is_some).await.as_deref() {
                    Ok(Some(linger)) => *linger,
                    _ => Duration::ZERO,
                }
            };
            let (status, asked) = tokio::select! {
                status = child.wait() => (status, false),
                linger = asked => {
                    let mut status = within(linger, &mut child).await;
                    if status.is_none() {
                        match leash.take() {
                            // The supervisor ends the command, with the same grace.
                            Some(leash) => drop(leash),
                            None => signal(group, Signal::TERM),
                        }
                        let grace = if piped { GRACE + SUPERVISOR } else { GRACE };
                        status = within(grace, &mut child).await;
                    }
                    let status = match status {
                        Some(status) => status,
                        None => {
                            signal(group, Signal::KILL);
                            child.wait().await
                        }
                    };
                    (status, true)
                }
            };
            // What it started and left behind ends with it.
            signal(group, Signal::KILL);
            let read = async {
                for reader in readers.into_iter().flatten() {
                    let _ = reader.await;
                }
            };
            // Something outside the group may hold the pipe open.
            let _ = tokio::time::timeout(OUTPUT, read).await;
            drop(leash);
            let status = status.map_or_else(|e| e.to_string(), describe);
            let lines = last(&kept);
            ended.send_replace(Some(ProcessEnd { status, lines, asked }));
        });
        Ok(Self {
            stop,
            end,
            lines,
            pid,
        })
    }

    /// Process id of the command's supervisor, or of the command where there is none; none if it has ended already.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Ends it and waits for its end: it may end by itself for as long as `linger`, then gets SIGTERM, then SIGKILL.
    pub async fn stop(&self, linger: Duration) {
        self.stop.send_replace(Some(linger));
        self.ended().await;
    }

    /// Resolves when it has ended. The future does not keep it from being dropped.
    pub fn ended(&self) -> impl Future<Output = ProcessEnd> + Send + 'static {
        let mut end = self.end.clone();
        async move {
            let ended = end.wait_for(Option::is_some).await;
            ended.ok().and_then(|end| end.clone()).unwrap_or(ProcessEnd {
                status: "unknown".into(),
                lines: Vec::new(),
                asked: true,
            })
        }
    }

    /// Its last lines of output so far.
    pub fn lines(&self) -> Vec<String> {
        last(&self.lines)
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.stop
            .send_if_modified(|stop| stop.is_none() && stop.replace(Duration::ZERO).is_none());
    }
}

async fn within(time: Duration, child: &mut tokio::process::Child) -> Option<io::Result<ExitStatus>> {
    tokio::time::timeout(time, child.wait()).await.ok()
}

fn last(lines: &Lines) -> Vec<String> {
    let lines = lines.lock();
    lines.iter().cloned().collect()
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // It fails if nothing is left in the group, which is what is wanted.
        let _ = kill_process_group(group, signal);
    }
}

async fn read(stream: impl AsyncRead + Unpin, on_line: OnLine, lines: Lines) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).await.is_ok_and(|n| n > 0) {
        let mut text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if text.is_empty() {
            continue;
        }
        on_line(&text);
        if let Some((end, _)) = text.char_indices().find(|(at, _)| *at >= LINE_BYTES) {
            text.truncate(end);
        }
        let mut lines = lines.lock();
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(text);
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status.signal() {
        Some(9) => "signal 9: it was killed, by someone or for want of memory".into(),
        Some(signal) => format!("signal {signal}"),
        None => format!("exit status {}", status.code().unwrap_or_default()),
    }
}
