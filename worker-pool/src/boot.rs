//! `purlin-boot`: what a container of Rust workers starts with, by Beam's container contract.
//!
//! It asks the runner for the worker's provision info, fetches the staged files, and becomes the staged program, or the
//! one of the image (`--worker_binary`).
#![forbid(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::Parser;
use purlin_processes::OwnFolder;
use purlin_worker_pool::artifacts::Cache;
use purlin_worker_pool::provision::{self, Endpoints};

/// Starts the worker of a container (Beam's container contract).
#[derive(Debug, Parser)]
#[command(name = "purlin-boot", version)]
struct Args {
    /// The worker's id
    #[arg(long)]
    id: String,
    /// Where the runner tells what else is needed
    #[arg(long = "provision_endpoint")]
    provision_endpoint: String,
    /// Where log entries go; by default as provisioned
    #[arg(long = "logging_endpoint", default_value = "")]
    logging_endpoint: String,
    /// Where staged files are had; by default as provisioned
    #[arg(long = "artifact_endpoint", default_value = "")]
    artifact_endpoint: String,
    /// Where bundles come from; by default as provisioned
    #[arg(long = "control_endpoint", default_value = "")]
    control_endpoint: String,
    /// Folder for staged files
    #[arg(long = "semi_persist_dir", default_value = "/tmp")]
    semi_persist_dir: PathBuf,
    /// The program to run when the job staged none
    #[arg(long = "worker_binary", env = "PURLIN_WORKER_BINARY", value_name = "FILE")]
    worker_binary: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let id = args.id.clone();
    // It returns only if it failed.
    let error = match start(args) {
        Ok(error) => anyhow!(error).context("cannot run the worker's program"),
        Err(error) => error,
    };
    eprintln!("worker {id}: {error:#}");
    ExitCode::FAILURE
}

fn start(args: Args) -> anyhow::Result<std::io::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let mut endpoints = Endpoints {
        control: args.control_endpoint,
        logging: args.logging_endpoint,
        artifact: args.artifact_endpoint,
        provision: args.provision_endpoint,
    };
    let folder = args.semi_persist_dir.join("staged");
    let staged = runtime.block_on(async {
        let info = provision::fetch(&endpoints.provision, &args.id)
            .await
            .map_err(|e| anyhow!(e))?;
        endpoints.complete(&info);
        let cache = args.semi_persist_dir.join("cache");
        let partial = std::fs::create_dir_all(&cache)
            .and_then(|()| OwnFolder::new(&args.semi_persist_dir, ".boot-"))
            .with_context(|| format!("make a folder in {}", args.semi_persist_dir.display()))?;
        let cache = Cache::new(cache, Arc::new(partial));
        let staged = cache.stage(&endpoints.artifact, &args.id, info.dependencies, &folder);
        anyhow::Ok(staged.await?)
    })?;
    drop(runtime);
    let Some(program) = staged.worker_binary.or(args.worker_binary) else {
        bail!(
            "the job staged no Rust worker binary, and --worker_binary names none of this image; launch the pipeline \
             with the Rust SDK"
        );
    };
    Ok(Command::new(program).args(endpoints.flags(&args.id)).exec())
}
