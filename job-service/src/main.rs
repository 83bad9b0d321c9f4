//! `purlin-job-service`: Beam's Job Service as a program.
#![forbid(unsafe_code)]
// What a client, a worker or a file says is answered with an error, never with a panic; and programs say what they have to say in
// their logs.
#![cfg_attr(
    not(test),
    warn(
        clippy::expect_used,
        clippy::panic,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

use std::io::Write;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::Context;
use purlin_job_service::{JobService, logging, options::Options};
use purlin_processes::SIGXFSZ;
use tokio::signal::unix::{SignalKind, signal};

/// Gives memory back to the system when a job has ended, where the C library's allocator keeps most of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::print_stderr, reason = "the last words of a program that ends")]
fn main() -> ExitCode {
    purlin_processes::supervise_if_asked();
    give_memory_back();
    let options = match Options::from_args(std::env::args_os()) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("purlin-job-service: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Lets the allocator give back what is freed at once: by itself it waits for the next work, which may not come. It reads its
/// settings before `main`, so the program begins anew, as the same process; where it cannot, it goes on as it is.
#[expect(clippy::print_stderr, reason = "no log is there yet")]
fn give_memory_back() {
    const DELAY: &str = "MIMALLOC_PURGE_DELAY";
    if std::env::var_os(DELAY).is_some() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let again = Command::new(program)
            .args(std::env::args_os().skip(1))
            .env(DELAY, "0")
            .exec();
        eprintln!("purlin-job-service: cannot set {DELAY}: {again}");
    }
}

fn run(options: Options) -> anyhow::Result<()> {
    logging::init(&options.log_level, options.log_kind)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(serve(options));
    // Threads that still answer a worker's state request do not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}

async fn serve(options: Options) -> anyhow::Result<()> {
    // A file that grows beyond the process's limit is an error where it is written, not the end of the program.
    let _too_large = signal(SignalKind::from_raw(SIGXFSZ)).context("watch for SIGXFSZ")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let service = JobService::start(options).await?;
    for line in service.listening() {
        // Nobody may read it; the service serves all the same.
        let _ = writeln!(std::io::stdout(), "{line}");
    }
    let reason = tokio::select! {
        _ = interrupt.recv() => "interrupted",
        _ = terminate.recv() => "terminated",
        () = service.idle() => "idle for as long as --idle_shutdown_timeout says",
    };
    tracing::info!("ending: {reason}");
    tokio::select! {
        () = service.shutdown() => {}
        // A second signal does not wait for jobs and workers.
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
