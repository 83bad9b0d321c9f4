//! One worker of the pool, from StartWorker to its end.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use purlin_net::{reads_worker_id, without_token};
use purlin_processes::{Limits, ProcessGroup};
use purlin_proto::fn_execution as api;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::artifacts::Staged;
use crate::launch::{Harness, STAGED};
use crate::pool::Shared;
use crate::provision::{self, Endpoints, url};
use crate::runner_log::RunnerLog;
use crate::web::count;

/// A harness that cannot even start ends within this time, and the runner is told why.
const EARLY_END: Duration = Duration::from_millis(100);
/// How often it is seen whether the runner is there.
const LOOK: Duration = Duration::from_secs(5);

/// A worker that starts or runs. Dropping it ends it.
pub(crate) struct Worker {
    begun: Instant,
    /// It is to end: the end of its harness follows.
    stop: watch::Sender<bool>,
    group: OnceLock<ProcessGroup>,
    /// Its own files, removed with it.
    folder: Mutex<Option<tempfile::TempDir>>,
}

impl Worker {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            stop: watch::Sender::new(false),
            group: OnceLock::new(),
            folder: Mutex::default(),
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.group.get().and_then(ProcessGroup::pid)
    }

    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Ends it, and waits for that.
    pub(crate) async fn stop(&self) {
        self.stop.send_replace(true);
        if let Some(group) = self.group.get() {
            group.stop(Duration::ZERO).await;
        }
    }

    async fn asked_to_stop(&self) {
        let mut stop = self.stop.subscribe();
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// Starts the harness. Its end is watched from then on.
    pub(crate) async fn start(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        request: api::StartWorkerRequest,
        cpus: Vec<usize>,
    ) -> Result<(), String> {
        let id = request.worker_id;
        let address = |endpoint: Option<_>| endpoint.as_ref().map(url).unwrap_or_default();
        let mut endpoints = Endpoints {
            control: address(request.control_endpoint),
            logging: address(request.logging_endpoint),
            artifact: address(request.artifact_endpoint),
            provision: address(request.provision_endpoint),
        };
        let folder = tempfile::Builder::new()
            .prefix("worker-")
            .tempdir_in(shared.own.path())
            .map_err(|e| {
                let folder = shared.settings.folder.display();
                format!("cannot make a folder in {folder}: {e}; --artifacts_dir names another")
            })?;
        let preparing = async {
            let given = prepare(shared, &id, &mut endpoints, folder.path()).await?;
            command(shared, &id, &endpoints, given, folder.path()).await
        };
        let mut command = tokio::select! {
            command = preparing => command?,
            () = self.asked_to_stop() => return Err("the worker was stopped before it had started".into()),
        };
        if !request.params.is_empty() {
            let params = serde_json::to_string(&request.params).unwrap_or_default();
            command.env("PURLIN_WORKER_PARAMS", params);
        }
        let limits = Limits {
            memory: shared.settings.worker_memory,
            cpus,
        };
        let log = RunnerLog::open(&endpoints.logging, &id);
        let (lines, name) = (log.clone(), without_token(&id).to_owned());
        let program = command.get_program().display().to_string();
        let group = ProcessGroup::start(&command, &limits, move |line| {
            tracing::info!(target: "sdk_worker", worker = %name, "{line}");
            lines.output(line);
        });
        let group =
            group.map_err(|e| format!("cannot run {program:?}: {e}; see --harness_command and --python"))?;
        *self.folder.lock() = Some(folder);
        let group = self.group.get_or_init(|| group);
        if *self.stop.borrow() {
            group.stop(Duration::ZERO).await;
        }
        if let Ok(end) = tokio::time::timeout(EARLY_END, group.ended()).await {
            return Err(format!("{program:?} gave no worker: {end}"));
        }
        count(&shared.counters.started);
        tracing::info!(worker = without_token(&id), "started {program}");
        tokio::spawn(watch(self.clone(), shared.clone(), id, endpoints.control, log));
        Ok(())
    }
}

/// What the runner told of a worker, and the files that the job staged for it.
struct Given {
    info: api::ProvisionInfo,
    staged: Staged,
}

/// Gets what the harness needs; nothing, where the pool's command does that itself, by Beam's contract.
async fn prepare(
    shared: &Shared,
    id: &str,
    endpoints: &mut Endpoints,
    folder: &Path,
) -> Result<Option<Given>, String> {
    if endpoints.provision.is_empty() {
        return Ok(None);
    }
    let info = provision::fetch(&endpoints.provision, id)
        .await
        .map_err(|e| e.to_string())?;
    endpoints.complete(&info);
    let is_program = |artifact: &purlin_proto::pipeline::ArtifactInformation| {
        artifact.role_urn == purlin_artifacts::WORKER_BINARY_ROLE
    };
    if !shared.settings.command.is_empty() && !info.dependencies.iter().any(is_program) {
        return Ok(None);
    }
    let staged = shared
        .cache
        .stage(
            &endpoints.artifact,
            id,
            info.dependencies.clone(),
            &folder.join(STAGED),
        )
        .await
        .map_err(|e| e.to_string())?;
    Ok(Some(Given { info, staged }))
}

/// The worker's command: the pipeline's own program, if it was staged; else the pool's; else Beam's harness.
async fn command(
    shared: &Shared,
    id: &str,
    endpoints: &Endpoints,
    given: Option<Given>,
    folder: &Path,
) -> Result<Command, String> {
    if let Some(program) = given
        .as_ref()
        .and_then(|given| given.staged.worker_binary.as_ref())
    {
        let mut command = Command::new(program);
        // A program of the Rust SDK.
        endpoints.tell(&mut command, id, true);
        return Ok(command);
    }
    if let Some((program, arguments)) = shared.settings.command.split_first() {
        let mut command = Command::new(program);
        command.args(arguments);
        endpoints.tell(&mut command, id, reads_worker_id(program));
        // Boot programs stage there what they fetch.
        command.arg(format!("--semi_persist_dir={}", folder.display()));
        return Ok(command);
    }
    let Some(Given { info, staged }) = given else {
        return Err(
            "the runner names no provision service, so a job's files cannot be had, and this pool was started without \
             --harness_command, so it cannot start workers"
                .into(),
        );
    };
    let (id, endpoints, folder) = (id.to_owned(), endpoints.clone(), folder.to_owned());
    let programs = shared.settings.programs.clone();
    // Packages that the job needs are installed first, which takes its time.
    let command = tokio::task::spawn_blocking(move || {
        let harness = Harness {
            worker_id: &id,
            endpoints: &endpoints,
            info: &info,
            staged: &staged,
            folder: &folder,
        };
        harness.command(&programs)
    });
    let command = command.await.map_err(|e| e.to_string())?;
    command.map_err(|e| e.to_string())
}

/// Awaits the harness's end, and brings it about when the runner is gone.
async fn watch(worker: Arc<Worker>, shared: Arc<Shared>, id: String, control: String, log: RunnerLog) {
    let Some(group) = worker.group.get() else { return };
    let name = without_token(&id);
    let end = tokio::select! {
        end = group.ended() => end,
        () = gone(&control, shared.settings.runner_timeout) => {
            tracing::warn!(worker = name, "the runner at {control} is gone, so its worker is ended");
            group.stop(Duration::ZERO).await;
            group.ended().await
        }
    };
    if end.asked {
        count(&shared.counters.stopped);
        tracing::info!(worker = name, "ended ({})", end.status);
    } else {
        if end.status != "exit status 0" {
            count(&shared.counters.died);
            tracing::error!(worker = name, "the harness died: {end}");
            log.ended(&format!("worker {name}: {end}"));
        }
        shared.remember(&id, end.to_string());
    }
    shared.forget(&id, &worker);
    let folder = worker.folder.lock().take();
    drop(folder);
}

/// Resolves when the runner has not been reachable for as long as `timeout`; never for none.
async fn gone(control: &str, timeout: Option<Duration>) {
    let Some(timeout) = timeout.filter(|_| !control.is_empty()) else {
        return std::future::pending().await;
    };
    let address = control.trim_start_matches("http://");
    let mut seen = Instant::now();
    let look = LOOK.min(timeout / 2).max(Duration::from_millis(50));
    loop {
        tokio::time::sleep(look).await;
        if let Ok(Ok(_)) = tokio::time::timeout(look, TcpStream::connect(address)).await {
            seen = Instant::now();
        } else if seen.elapsed() >= timeout {
            return;
        }
    }
}
