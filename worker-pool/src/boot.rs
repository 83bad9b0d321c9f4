//! `purlin-boot`: what workers start with, by Beam's container contract.
//!
//! It asks the runner for the worker's provision info and fetches the staged files. Then it becomes the staged program, or the
//! one of its image (`--worker_binary`); where the job staged none, it runs Beam's Java or Python harness to its end.
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

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Parser;
use clap::builder::{OsStringValueParser, TypedValueParser};
use purlin_artifacts::WORKER_BINARY_ROLE;
use purlin_net::{whole_worker_id, without_token};
use purlin_processes::{Limits, OwnFolder, ProcessGroup};
use purlin_proto::fn_execution::ProvisionInfo;
use purlin_worker_pool::artifacts::Cache;
use purlin_worker_pool::launch::{Harness, Programs, STAGED};
use purlin_worker_pool::provision::{self, Endpoints};
use tokio::signal::unix::{SignalKind, signal};

/// Starts a worker of the Rust SDK, or of Beam's Java or Python SDK, by Beam's container contract: in containers, as the command
/// of PROCESS environments, and as the --harness_command of purlin-worker-pool.
///
/// A job that staged its own program (the Rust SDK) gets that as its worker; one that staged jars gets Beam's Java harness,
/// with the jars as its class path; any other gets Beam's Python harness.
#[derive(Debug, Parser)]
#[command(name = "purlin-boot", version)]
struct Args {
    /// The worker's id; its secret part may come by the environment variable PURLIN_WORKER_ID instead
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
    /// Folder for staged files; a Java or Python worker has one of its own in it, which ends with it [default: TMPDIR, or
    /// /tmp]
    #[arg(long = "semi_persist_dir", value_name = "FOLDER", default_value_os_t = std::env::temp_dir(), hide_default_value = true)]
    semi_persist_dir: PathBuf,
    /// The program to run when the job staged none
    #[arg(long = "worker_binary", env = "PURLIN_WORKER_BINARY", value_name = "FILE", value_parser = any_path())]
    worker_binary: Option<PathBuf>,
    /// Java's folder, whose bin/java runs Java workers; by default the PATH's java does. Java reads its own options from
    /// JDK_JAVA_OPTIONS, such as -Xmx2g
    #[arg(long = "java_home", env = "JAVA_HOME", value_name = "FOLDER", value_parser = any_path())]
    java_home: Option<PathBuf>,
    /// Jars behind the staged ones on the class path of Java workers, with colons between them
    #[arg(
        long = "java_class_path",
        env = "PURLIN_JAVA_CLASS_PATH",
        value_name = "JARS",
        value_parser = any_path(),
        value_delimiter = ':'
    )]
    java_class_path: Vec<PathBuf>,
    /// A Python that has apache_beam, for Python workers, such as /venv/bin/python; jobs that staged jars get it too. By
    /// default the PATH's python3 is taken. Packages that a job needs are installed beside it, for the worker alone
    #[arg(long = "python", env = "PURLIN_PYTHON", value_name = "FILE", value_parser = any_path())]
    python: Option<PathBuf>,
}

/// Takes an empty path, too: a variable may be set to nothing, as Flink's scripts do with `JAVA_HOME`. It is as if it were not given.
fn any_path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

impl Args {
    fn forget_empty(&mut self) {
        let given = |path: &PathBuf| !path.as_os_str().is_empty();
        for path in [&mut self.worker_binary, &mut self.java_home, &mut self.python] {
            path.take_if(|path| !given(path));
        }
        self.java_class_path.retain(given);
    }
}

#[expect(clippy::print_stderr, reason = "the last words of a program that ends")]
fn main() -> ExitCode {
    purlin_processes::supervise_if_asked();
    let mut args = Args::parse();
    args.forget_empty();
    let id = args.id;
    args.id = whole_worker_id(&id);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime
        .context("start the runtime")
        .and_then(|runtime| runtime.block_on(run(args)));
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("worker {}: {error:#}", without_token(&id));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut endpoints = Endpoints {
        control: args.control_endpoint.clone(),
        logging: args.logging_endpoint.clone(),
        artifact: args.artifact_endpoint.clone(),
        provision: args.provision_endpoint.clone(),
    };
    let info = provision::fetch(&endpoints.provision, &args.id).await?;
    endpoints.complete(&info);
    let staged_program = info
        .dependencies
        .iter()
        .any(|artifact| artifact.role_urn == WORKER_BINARY_ROLE);
    match staged_program || args.worker_binary.is_some() {
        true => Err(become_program(args, endpoints, info).await),
        false => run_harness(args, endpoints, info).await,
    }
}

/// Becomes the staged program, or that of the image. Returns only if that fails.
async fn become_program(args: Args, endpoints: Endpoints, info: ProvisionInfo) -> anyhow::Error {
    let folder = args.semi_persist_dir.join(STAGED);
    let fetched = async {
        let cache = args.semi_persist_dir.join("cache");
        std::fs::create_dir_all(&cache)
            .with_context(|| format!("make a folder in {}", args.semi_persist_dir.display()))?;
        let cache = Cache::new(cache, Arc::new(own_folder(&args, ".boot-")?));
        let staged = cache.stage(&endpoints.artifact, &args.id, info.dependencies, &folder);
        let staged = staged.await?;
        staged
            .worker_binary
            .or(args.worker_binary.clone())
            .context("the runner's artifact service has not got the program that the job staged")
    };
    match fetched.await {
        Ok(program) => {
            let mut command = Command::new(program);
            endpoints.tell(&mut command, &args.id, true);
            let error = command.exec();
            anyhow!(error).context("cannot run the worker's program")
        }
        Err(error) => error,
    }
}

/// Runs Beam's Java or Python harness to its end.
#[expect(
    clippy::print_stderr,
    reason = "what the harness prints goes where our own output does"
)]
async fn run_harness(args: Args, endpoints: Endpoints, info: ProvisionInfo) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    // Workers of a machine share the folder that it is made in.
    let own = Arc::new(own_folder(&args, "purlin-boot-")?);
    let staged = Cache::of_one_worker(own.clone())
        .stage(
            &endpoints.artifact,
            &args.id,
            info.dependencies.clone(),
            &own.path().join(STAGED),
        )
        .await?;
    let harness = Harness {
        worker_id: &args.id,
        endpoints: &endpoints,
        info: &info,
        staged: &staged,
        folder: own.path(),
    };
    let command = harness.command(&Programs {
        java_home: args.java_home,
        java_class_path: args.java_class_path,
        python: args.python,
    })?;
    // Supervised, it ends with this process, also when that is killed; and this process removes its files.
    let group = ProcessGroup::start(&command, &Limits::default(), |line| eprintln!("{line}"))
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let end = tokio::select! {
        end = group.ended() => end,
        _ = interrupt.recv() => stopped(&group).await,
        _ = terminate.recv() => stopped(&group).await,
    };
    if end.asked || end.status == "exit status 0" {
        return Ok(ExitCode::SUCCESS);
    }
    Err(anyhow!(
        "{} ended ({})",
        command.get_program().display(),
        end.status
    ))
}

async fn stopped(group: &ProcessGroup) -> purlin_processes::ProcessEnd {
    group.stop(Duration::ZERO).await;
    group.ended().await
}

fn own_folder(args: &Args, prefix: &str) -> anyhow::Result<OwnFolder> {
    OwnFolder::new(&args.semi_persist_dir, prefix)
        .with_context(|| format!("make a folder in {}", args.semi_persist_dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_to_nothing_is_not_given() {
        let empty = [
            "--worker_binary=",
            "--java_home=",
            "--java_class_path=",
            "--python=",
        ];
        let given = ["purlin-boot", "--id=1", "--provision_endpoint=localhost:1"];
        let mut args = Args::try_parse_from(given.into_iter().chain(empty)).unwrap();
        args.forget_empty();
        assert!(args.worker_binary.is_none() && args.java_home.is_none() && args.python.is_none());
        assert!(args.java_class_path.is_empty());
    }
}
