//! Workers that are processes of their own: the launched program, started again by a runner with the flags of Beam's
//! container contract. It builds the same pipeline again and serves the runner instead of running it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::process::exit;
use std::sync::{Arc, OnceLock};

use prost_types::value::Kind;
use purlin_net::{whole_worker_id, without_token};
use purlin_proto::fn_execution::ProvisionInfo;
use purlin_proto::pipeline::{ApiServiceDescriptor, Pipeline};

use super::control::Harness;
use super::fingerprint::{build_id, difference, fingerprint};
use super::logging;
use super::options::{key, launched_with, read_strings};
use super::{HarnessSettings, provision};
use crate::stage::Registry;

/// Option that holds the [`build_id`] of the launcher, in digits.
pub(crate) const BUILD: &str = "purlin_build";
/// Option that holds the [`fingerprint`] of the launched pipeline.
pub(crate) const GRAPH: &str = "purlin_graph";

/// What the runner told this process, if it is a worker.
static WORKER: OnceLock<WorkerProcess> = OnceLock::new();

#[derive(Debug)]
struct WorkerProcess {
    id: String,
    control: String,
    logging: Option<String>,
    info: ProvisionInfo,
}

/// Whether this process is a worker, which a runner started: running a pipeline means to serve the runner.
pub fn in_worker() -> bool {
    WORKER.get().is_some()
}

/// The flags of the container contract, if that is what these arguments are.
fn contract(arguments: &[OsString]) -> Option<HashMap<&str, String>> {
    let mut flags = HashMap::new();
    let mut arguments = arguments.iter().skip(1).map(|a| a.to_str().unwrap_or_default());
    while let Some(argument) = arguments.next() {
        let name = argument.trim_start_matches('-');
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => (name, arguments.next().unwrap_or_default().to_owned()),
        };
        let known = [
            "id",
            "provision_endpoint",
            "control_endpoint",
            "logging_endpoint",
            "artifact_endpoint",
        ];
        if let Some(known) = known.into_iter().find(|known| *known == name) {
            flags.insert(known, value);
        }
    }
    let worker = flags.contains_key("id") && flags.contains_key("provision_endpoint");
    worker.then_some(flags)
}

/// The command line that the pipeline was launched with, if this process is a worker. A worker that cannot work ends.
pub(crate) fn enter_worker(arguments: &[OsString]) -> Option<Vec<OsString>> {
    let flags = contract(arguments)?;
    let id = whole_worker_id(&flags["id"]);
    let entered = runtime().and_then(|runtime| {
        let info = runtime.block_on(provision::fetch(&flags["provision_endpoint"], &id)).map_err(|e| e.to_string())?;
        let given = |flag: &str, told: &Option<ApiServiceDescriptor>| {
            let told = told.as_ref().map(|d| d.url.clone());
            told.or_else(|| flags.get(flag).cloned()).filter(|url| !url.is_empty())
        };
        let options = info.pipeline_options.clone().unwrap_or_default();
        let launched = launched_with(&options).ok_or(
            "the job's options do not hold the launcher's command line; the pipeline must be launched by this same \
             program, and the program must read its options by purlin::options::parse",
        )?;
        let worker = WorkerProcess {
            id: id.clone(),
            control: given("control_endpoint", &info.control_endpoint).ok_or("the runner names no control endpoint")?,
            logging: given("logging_endpoint", &info.logging_endpoint),
            info,
        };
        // Entered once: by the program's one command line.
        let _ = WORKER.set(worker);
        let program = arguments.first().cloned().into_iter();
        Ok(program.chain(launched.into_iter().map(OsString::from)).collect())
    });
    match entered {
        Ok(arguments) => Some(arguments),
        Err(error) => fail(&id, &error),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("purlin-harness")
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start threads: {e}"))
}

#[expect(clippy::print_stderr, reason = "no log is there yet, or any more")]
fn fail(id: &str, error: &str) -> ! {
    eprintln!("worker {}: {error}", without_token(id));
    exit(1)
}

/// Serves the runner that started this process. Returns only if the process is no worker.
pub(crate) fn serve(pipeline: &Pipeline, registry: &Arc<Registry>) {
    let Some(worker) = WORKER.get() else { return };
    logging::of_worker();
    let served = runtime().and_then(|runtime| {
        let served = runtime.block_on(serve_runner(worker, pipeline, registry));
        runtime.shutdown_background();
        served
    });
    match served {
        Ok(()) => exit(0),
        Err(error) => fail(&worker.id, &error),
    }
}

async fn serve_runner(
    worker: &WorkerProcess,
    pipeline: &Pipeline,
    registry: &Arc<Registry>,
) -> Result<(), String> {
    let settings = HarnessSettings {
        worker_id: worker.id.clone(),
        control: worker.control.clone(),
        logging: worker.logging.clone(),
        status: worker.info.status_endpoint.as_ref().map(|d| d.url.clone()),
        runner_capabilities: worker.info.runner_capabilities.clone(),
        registry: registry.clone(),
    };
    let harness = Harness::connect(settings).await.map_err(|e| e.to_string())?;
    let log = harness.log();
    if let Err(error) = check(worker, pipeline) {
        if let Some(log) = log {
            log.send(logging::error_entry(error.clone()));
            log.flush().await;
        }
        return Err(error);
    }
    if let Some(log) = log {
        logging::whole_process(log);
    }
    harness.serve(interrupted()).await.map_err(|e| e.to_string())
}

/// Whether this is the build and the pipeline that was launched.
fn check(worker: &WorkerProcess, pipeline: &Pipeline) -> Result<(), String> {
    let options = worker.info.pipeline_options.clone().unwrap_or_default();
    if let Some(launched) = options.fields.get(&key(GRAPH)).and_then(read_strings)
        && let Some(difference) = difference(&launched, &fingerprint(pipeline))
    {
        return Err(format!(
            "this worker built another pipeline than was launched: {difference}; worker and launcher must be the same \
             build, and what the program does before it runs the pipeline must be repeatable"
        ));
    }
    let launched = options
        .fields
        .get(&key(BUILD))
        .and_then(|value| value.kind.as_ref());
    if let Some(Kind::StringValue(launched)) = launched {
        let here = build_id().map_err(|e| format!("cannot read this program's own file: {e}"))?;
        let here = here.text();
        if launched != here {
            let program = std::env::current_exe().unwrap_or_default();
            return Err(format!(
                "this worker ({}, build {}) is another build than the launcher (build {}); copy the launcher's \
                 binary here",
                program.display(),
                &here[..here.len().min(12)],
                launched.get(..12).unwrap_or(launched)
            ));
        }
    }
    Ok(())
}

/// SIGTERM or Ctrl-C: the runner, or whoever started this process, wants it to end.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}
