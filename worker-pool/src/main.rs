//! `purlin-worker-pool`: Beam's external worker pool as a program.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};

use anyhow::Context;
use clap::Parser;
use purlin_worker_pool::WorkerPool;
use tokio::signal::unix::{SignalKind, signal};

/// Hosts SDK harnesses for any Beam runner (environment EXTERNAL).
#[derive(Debug, Parser)]
#[command(name = "purlin-worker-pool", version)]
struct Args {
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 5000)]
    port: u16,
    /// Host or address to listen on; 0.0.0.0 for all
    #[arg(long, default_value = "localhost")]
    host: String,
    /// The SDK harness's program, with its first arguments, split at spaces; it is run with the flags of Beam's
    /// container contract (--id, --provision_endpoint, --control_endpoint, ...)
    #[arg(
        long = "harness_command",
        alias = "harness-command",
        value_name = "COMMAND",
        default_value = ""
    )]
    harness_command: String,
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
    let args = Args::parse();
    let filter = tracing_subscriber::EnvFilter::try_new(&args.log_level).context("--log_level")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let command = args
        .harness_command
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let pool = WorkerPool::start(&args.host, args.port, command).await?;
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
