//! The process between a program and a command that it runs.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio, exit};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::tree::{descendants, resident, signal_all};

const FLAG: &str = "--purlin-supervise";
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long what is killed may take to vanish from the process table.
const REAP: Duration = Duration::from_secs(2);

static AVAILABLE: AtomicBool = AtomicBool::new(false);

/// What a process, with all that it starts, may use. (The default is: anything.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, not counting mapped files. Looked at five times a second: one that exceeds it is killed, and says so
    /// in its last line. Enforced on Linux.
    pub memory: Option<u64>,
    /// The machine's CPUs that it runs on, by number. Enforced on Linux.
    pub cpus: Vec<usize>,
}

/// The numbers of the CPUs that this process may use: a container may have 4 to 7. At least one.
pub fn allowed_cpus() -> Vec<usize> {
    let allowed = sched_getaffinity(None);
    let allowed = allowed.map(|set| (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect());
    match allowed {
        Ok(cpus) => cpus,
        Err(_) => (0..std::thread::available_parallelism().map_or(1, |n| n.get())).collect(),
    }
}

/// Makes this process a supervisor, if it was started as one; then it does not return. Call it first in `main`: what
/// this program starts with [`crate::ProcessGroup`] is then supervised.
pub fn supervise_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() == Some(OsStr::new(FLAG)) {
        exit(supervise(arguments));
    }
    AVAILABLE.store(cfg!(target_os = "linux"), Ordering::Relaxed);
}

/// The command under a supervisor, where there can be one. Its stdin is then to be a pipe.
pub(crate) fn supervised(command: &Command, limits: &Limits, grace: Duration) -> Option<Command> {
    if !AVAILABLE.load(Ordering::Relaxed) {
        return None;
    }
    // This very program, even if its file has been replaced since.
    let mut supervisor = Command::new("/proc/self/exe");
    let cpus: Vec<String> = limits.cpus.iter().map(usize::to_string).collect();
    supervisor
        .arg(FLAG)
        .arg(grace.as_millis().to_string())
        .arg(limits.memory.unwrap_or(0).to_string())
        .arg(cpus.join(","))
        .arg(command.get_program())
        .args(command.get_args());
    Some(supervisor)
}

enum Event {
    /// The program wants the command to end, or is gone.
    Stop,
    /// The command has ended.
    Ended(std::io::Result<ExitStatus>),
    /// It uses so much memory.
    Memory(u64),
}

/// Runs the command to its end. Returns the exit status; a signal's is this process's own.
#[expect(
    clippy::print_stderr,
    reason = "who started the process reads what it says there"
)]
fn supervise(mut arguments: impl Iterator<Item = OsString>) -> i32 {
    let mut text = || {
        arguments
            .next()
            .and_then(|a| a.into_string().ok())
            .unwrap_or_default()
    };
    let grace = Duration::from_millis(text().parse().unwrap_or(0));
    let memory: u64 = text().parse().unwrap_or(0);
    let cpus = text();
    let Some(program) = arguments.next() else { return 2 };

    let own = getpid();
    if let Err(error) = set_child_subreaper(Some(own)) {
        eprintln!("cannot adopt orphans: {error}");
    }
    if !cpus.is_empty()
        && let Err(error) = bind(&cpus)
    {
        eprintln!("cannot keep to CPUs {cpus}: {error}");
    }
    let spawned = Command::new(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            eprintln!("cannot run {}: {error}", program.display());
            return 127;
        }
    };
    let (events, next) = mpsc::channel();
    // Whoever listens has ended the process if sending fails.
    let stop = events.clone();
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        while stdin.read(&mut [0; 64]).is_ok_and(|n| n > 0) {}
        let _ = stop.send(Event::Stop);
    });
    if memory > 0 {
        let events = events.clone();
        std::thread::spawn(move || {
            loop {
                let used = resident(&descendants(own.as_raw_nonzero().get()));
                if used > memory {
                    let _ = events.send(Event::Memory(used));
                    return;
                }
                std::thread::sleep(LOOK);
            }
        });
    }
    std::thread::spawn(move || {
        let _ = events.send(Event::Ended(child.wait()));
    });

    let below = || descendants(own.as_raw_nonzero().get());
    let mut deadline: Option<Instant> = None;
    loop {
        let wait = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        match next.recv_timeout(wait) {
            Ok(Event::Stop) => {
                signal_all(&below(), Signal::TERM);
                deadline = Some(Instant::now() + grace);
            }
            Ok(Event::Memory(used)) => {
                let mib = |bytes: u64| bytes >> 20;
                eprintln!(
                    "it used {} MiB of memory and {} MiB are allowed, so it was killed",
                    mib(used),
                    mib(memory)
                );
                signal_all(&below(), Signal::KILL);
            }
            Err(RecvTimeoutError::Timeout) => {
                signal_all(&below(), Signal::KILL);
                // Asked again until it is gone: it may have started more.
                deadline = Some(Instant::now() + LOOK);
            }
            Ok(Event::Ended(status)) => {
                bury(own);
                return end_as(own, status);
            }
            Err(RecvTimeoutError::Disconnected) => return 1,
        }
    }
}

/// Kills what the command left behind, until nothing is left.
fn bury(own: Pid) {
    let until = Instant::now() + REAP;
    loop {
        signal_all(&descendants(own.as_raw_nonzero().get()), Signal::KILL);
        match waitpid(None, WaitOptions::NOHANG) {
            Err(_) => return,
            Ok(Some(_)) => {}
            Ok(None) if Instant::now() > until => return,
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn end_as(own: Pid, status: std::io::Result<ExitStatus>) -> i32 {
    let Ok(status) = status else { return 1 };
    if let Some(number) = status.signal() {
        if let Some(signal) = Signal::from_named_raw(number) {
            let _ = kill_process(own, signal);
        }
        // One that does not end this process.
        return 128 + number;
    }
    status.code().unwrap_or(1)
}

/// Keeps this process, and what it starts, to some of the CPUs that it may use.
fn bind(cpus: &str) -> std::io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let mut set = CpuSet::new();
    for cpu in cpus.split(',').filter_map(|cpu| cpu.parse::<usize>().ok()) {
        if cpu < CpuSet::MAX_CPU && allowed.is_set(cpu) {
            set.set(cpu);
        }
    }
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cpus_that_may_be_used_are_named() {
        let last = *allowed_cpus().last().unwrap();
        let mut set = CpuSet::new();
        set.set(last);
        // Of this test's thread alone.
        sched_setaffinity(None, &set).unwrap();
        assert_eq!(allowed_cpus(), [last]);
    }
}
