//! `purlin-worker-pool`: Beam's external worker pool as a program.
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

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use purlin_processes::{OwnFolder, SIGXFSZ, command_words};
use purlin_worker_pool::launch::Programs;
use purlin_worker_pool::{PoolSettings, WorkerPool};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Hosts SDK harnesses for any Beam runner (environment EXTERNAL). A job that staged its own program (the Rust SDK) gets
/// that as its worker; any other gets --harness_command, or where none is given, Beam's own harness: Java's for a job that
/// staged jars, else Python's, by --python. /health and /metrics are on the same port.
#[derive(Debug, Parser)]
#[command(name = "purlin-worker-pool", version)]
struct Args {
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 5000)]
    port: u16,
    /// Host or address to listen on; 0.0.0.0 for all
    #[arg(long, default_value = "localhost")]
    host: String,
    /// Further names under which /health and /metrics may be asked, with commas between; addresses, this machine's name and
    /// --host always are. Others are refused: a page from elsewhere could be asking
    #[arg(
        long = "allowed_hosts",
        alias = "allowed-hosts",
        value_name = "NAMES",
        value_delimiter = ','
    )]
    allowed_hosts: Vec<String>,
    /// The SDK harness's program, with its first arguments, split as a shell does (nothing is expanded); it is run with
    /// the flags of Beam's container contract (--id, --provision_endpoint, --control_endpoint, ...), as purlin-boot and
    /// Beam's `boot` are
    #[arg(
        long = "harness_command",
        alias = "harness-command",
        value_name = "COMMAND",
        default_value = ""
    )]
    harness_command: String,
    /// A Python that has apache_beam, such as /venv/bin/python, for jobs of Beam's Python SDK: the pool fetches their files
    /// and starts Beam's harness with it. By default the PATH's python3 is taken
    #[arg(
        long = "python",
        env = "PURLIN_PYTHON",
        value_name = "FILE",
        conflicts_with = "harness_command"
    )]
    python: Option<PathBuf>,
    /// Workers that may run at a time; more are refused, and the runner is told why
    #[arg(
        long = "max_workers",
        alias = "max-workers",
        value_name = "N",
        default_value_t = 64
    )]
    max_workers: usize,
    /// Memory that each worker, with all it starts, may use, such as 512M or 4G. Enforced on Linux by looking at their
    /// resident memory (without mapped files) five times a second: a worker that exceeds it is killed, and the runner
    /// is told. For a hard limit run the pool in a cgroup or container of its own
    #[arg(long = "worker_memory", alias = "worker-memory", value_name = "BYTES", value_parser = purlin_net::bytes_of)]
    worker_memory: Option<u64>,
    /// CPUs that each worker is kept to, workers taking turns. Enforced on Linux by CPU affinity
    #[arg(long = "worker_cpus", alias = "worker-cpus", value_name = "N")]
    worker_cpus: Option<usize>,
    /// Seconds that a runner may be unreachable until its workers are ended; 0: for ever
    #[arg(
        long = "runner_timeout",
        alias = "runner-timeout",
        value_name = "SECONDS",
        default_value_t = 30
    )]
    runner_timeout: u64,
    /// Folder for staged files, which are kept there by their sha256; by default one that ends with the pool
    #[arg(long = "artifacts_dir", alias = "artifacts-dir", value_name = "FOLDER")]
    artifacts_dir: Option<PathBuf>,
    /// debug, info, warn or error
    #[arg(
        long = "log_level",
        alias = "log-level",
        default_value = "info",
        value_name = "LEVEL"
    )]
    log_level: String,
}

fn main() -> anyhow::Result<()> {
    purlin_processes::supervise_if_asked();
    let args = Args::parse();
    let filter: Targets = args.log_level.parse().context("--log_level")?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .init();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<()> {
    // A file that grows beyond the process's limit is an error where it is written, not the end of the program.
    let _too_large = signal(SignalKind::from_raw(SIGXFSZ)).context("watch for SIGXFSZ")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    if let Some(url) = args
        .artifacts_dir
        .as_ref()
        .filter(|folder| folder.to_string_lossy().contains("://"))
    {
        anyhow::bail!(
            "--artifacts_dir={} is a URL, and a pool keeps files in a folder of its machine",
            url.display()
        );
    }
    let own = match &args.artifacts_dir {
        Some(_) => None,
        None => Some(
            OwnFolder::new(&std::env::temp_dir(), "purlin-worker-pool-")
                .context("make a folder for staged files; --artifacts_dir names one")?,
        ),
    };
    let folder = args
        .artifacts_dir
        .or(own.as_ref().map(|own| own.path().to_owned()));
    let pool = WorkerPool::start(PoolSettings {
        host: args.host.clone(),
        port: args.port,
        allowed_hosts: args.allowed_hosts,
        command: command_words(&args.harness_command)
            .map_err(|error| anyhow::anyhow!("--harness_command: {error}"))?,
        programs: Programs {
            python: args.python.filter(|python| !python.as_os_str().is_empty()),
            ..Programs::default()
        },
        folder: folder.unwrap_or_default(),
        max_workers: args.max_workers,
        worker_memory: args.worker_memory,
        worker_cpus: args.worker_cpus.filter(|n| *n > 0),
        runner_timeout: (args.runner_timeout > 0).then_some(Duration::from_secs(args.runner_timeout)),
    })
    .await?;
    if !pool.address().ip().is_loopback() {
        tracing::warn!(
            "--host={} lets other machines reach this pool: whoever does can run code on this machine. Nothing is encrypted, \
             and nobody is asked who they are: listen so in a network that you trust only",
            args.host
        );
    }
    // Nobody may read it; the pool serves all the same.
    let _ = writeln!(
        std::io::stdout(),
        "Worker pool listens on {}:{}",
        args.host,
        pool.address().port()
    );
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    pool.shutdown().await;
    Ok(())
}
