//! Workers in Docker containers of this service's engine.

mod engine;
mod network;
mod options;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::models::{ContainerCreateBody, DeviceRequest, HostConfig, Mount, MountType};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, LogsOptions, StartContainerOptions, WaitContainerOptions,
};
use futures::StreamExt;
use purlin_net::Contract;
use purlin_proto::{fn_execution as fnapi, pipeline};
use tokio::sync::watch;

use self::engine::reason;
use self::network::Door;
use self::options::DockerOptions;
use super::Environments;
use super::process::start_error;
use crate::fnapi::{CONTAINER_OUTPUT, RUNNER_NOTE, WorkerConnection, WorkerIdentity, WorkerLog};
use crate::worker::{StartWorker, Worker, WorkerError};

/// How long a container may take to end once its streams are closed.
const LINGER: Duration = Duration::from_secs(2);
/// How long the last lines of a container may take.
const LAST_LINES: Duration = Duration::from_millis(300);

/// What containers of this service share.
#[derive(Default)]
pub(crate) struct DockerShared {
    engine: tokio::sync::OnceCell<Docker>,
    /// By network.
    doors: tokio::sync::Mutex<HashMap<String, Arc<Door>>>,
}

impl DockerShared {
    /// The engine. At first use, what services that crashed left there is removed.
    async fn engine(&self) -> Result<&Docker, String> {
        let connect = || async {
            let docker = engine::connect().await?;
            engine::sweep(&docker).await;
            Ok(docker)
        };
        self.engine.get_or_try_init(connect).await
    }

    async fn door(&self, docker: &Docker, network: &str, to: &str) -> Result<Arc<Door>, String> {
        let mut doors = self.doors.lock().await;
        if let Some(door) = doors.get(network) {
            return Ok(door.clone());
        }
        let door = Arc::new(Door::open(docker, network, to).await?);
        doors.insert(network.to_owned(), door.clone());
        Ok(door)
    }
}

impl Environments {
    pub(super) async fn docker(
        self,
        request: StartWorker,
        payload: pipeline::DockerPayload,
    ) -> Result<Arc<dyn Worker>, WorkerError> {
        let failed = |reason: String| start_error(&request, reason);
        let image = payload.container_image;
        if image.is_empty() {
            return Err(failed(
                "it names no image; give --environment_config=IMAGE".into(),
            ));
        }
        let options = DockerOptions::read(&request.pipeline_options, &request.environment).map_err(failed)?;
        let docker = self.docker.engine().await.map_err(failed)?.clone();
        engine::image(&docker, &image, options.pull)
            .await
            .map_err(failed)?;
        check_machine(&docker, &options).await.map_err(failed)?;

        let network = options.network.clone().unwrap_or_else(|| "host".to_owned());
        let (url, artifact_url) = match network.as_str() {
            "host" => (
                self.server.url().to_owned(),
                self.server.artifact_url().to_owned(),
            ),
            network => {
                let to = self.server.url();
                if self.server.artifact_url() != to {
                    return Err(failed(
                        "artifacts are served elsewhere, so only --docker_network=host reaches them".into(),
                    ));
                }
                let door = self.docker.door(&docker, network, to).await.map_err(failed)?;
                (door.url.clone(), door.url.clone())
            }
        };
        let worker = self.server.expect_at(&request, &url, &artifact_url)?;
        let connection = worker.connection();
        let log = self.server.log();
        note(
            &*log,
            &connection.identity(),
            &describe(&image, &network, &options),
        );

        let contract = Contract {
            worker_id: &request.worker_id,
            logging: &url,
            artifact: &artifact_url,
            provision: &url,
            control: &url,
        };
        let (flags, variable) = contract.told(request.reads_worker_id());
        let labels = HashMap::from([
            (engine::OWNER.to_owned(), engine::owner()),
            (engine::WORKER.to_owned(), connection.name().to_owned()),
            (engine::JOB.to_owned(), request.job_id.clone()),
        ]);
        let mut body = body(&image, &network, &options, flags, labels);
        let variable = variable.map(|(name, value)| format!("{name}={value}"));
        body.env.get_or_insert_default().extend(variable);
        let created = docker
            .create_container(None::<CreateContainerOptions>, body)
            .await;
        let id = created
            .map_err(|e| {
                failed(format!(
                    "the Docker engine makes no container of {image:?}: {}",
                    reason(&e)
                ))
            })?
            .id;
        if let Err(e) = docker.start_container(&id, None::<StartContainerOptions>).await {
            engine::remove(&docker, &id).await;
            return Err(failed(format!(
                "the container of {image:?} does not start: {}",
                reason(&e)
            )));
        }
        connection.watch();
        let (stop, stopped) = watch::channel(false);
        let limit = options.memory;
        let watcher = tokio::spawn(attend(docker, id, connection.clone(), log, stopped, limit));
        let guard = StopOnDrop(stop);
        worker.on_stop(Box::pin(async move {
            drop(guard);
            let _ = watcher.await;
        }));
        // Its end is the connection's: `attend` tells it.
        let from = format!("a container of {image:?}");
        if let Err(error) = self.connection(&worker, &from, std::future::pending()).await {
            worker.stop().await;
            return Err(error.error(&request, |reason| {
                format!("the container of {image:?} gave no worker: {reason}")
            }));
        }
        Ok(Arc::new(worker))
    }
}

/// Asks `attend` to end the container, also when the worker is dropped without being stopped.
struct StopOnDrop(watch::Sender<bool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// Whether the engine's machine has what the resource hints want.
async fn check_machine(docker: &Docker, options: &DockerOptions) -> Result<(), String> {
    if options.min_ram.is_none() && options.cpu_count.is_none() {
        return Ok(());
    }
    let machine = docker.info().await.map_err(|e| reason(&e))?;
    if let (Some(wanted), Some(has)) = (options.min_ram, machine.mem_total)
        && wanted > has
    {
        return Err(format!(
            "the resource hint min_ram wants {wanted} bytes of memory, and the Docker engine's machine has {has}"
        ));
    }
    if let (Some(wanted), Some(has)) = (options.cpu_count, machine.ncpu)
        && wanted > has
    {
        return Err(format!(
            "the resource hint cpu_count wants {wanted} CPUs, and the Docker engine's machine has {has}"
        ));
    }
    Ok(())
}

fn body(
    image: &str,
    network: &str,
    options: &DockerOptions,
    flags: Vec<String>,
    labels: HashMap<String, String>,
) -> ContainerCreateBody {
    let mounts = options.mounts.iter().map(|mount| Mount {
        source: Some(mount.source.clone()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        typ: Some(MountType::BIND),
        ..Default::default()
    });
    let gpus = options.gpus.map(|count| {
        vec![DeviceRequest {
            count: Some(count),
            capabilities: Some(vec![vec!["gpu".to_owned()]]),
            ..Default::default()
        }]
    });
    let host = HostConfig {
        network_mode: Some(network.to_owned()),
        mounts: Some(mounts.collect()),
        memory: options.memory,
        // No swap beyond it: a worker that swaps is slower than one that fails and says why.
        memory_swap: options.memory,
        memory_reservation: options
            .min_ram
            .filter(|wanted| options.memory.is_none_or(|limit| *wanted < limit)),
        nano_cpus: options.nano_cpus,
        // 1024 is one container's ordinary share.
        cpu_shares: options.cpu_count.map(|count| count.clamp(1, 256) * 1024),
        device_requests: gpus,
        ..Default::default()
    };
    ContainerCreateBody {
        image: Some(image.to_owned()),
        user: options.user.clone(),
        working_dir: options.working_dir.clone(),
        env: Some(options.env.clone()),
        cmd: Some(flags),
        labels: Some(labels),
        host_config: Some(host),
        ..Default::default()
    }
}

fn describe(image: &str, network: &str, options: &DockerOptions) -> String {
    let mut text = format!("starting a container of {image} on network {network}");
    if let Some(user) = &options.user {
        text += &format!(", as user {user}");
    }
    let mounts: Vec<String> = options.mounts.iter().map(ToString::to_string).collect();
    match mounts.is_empty() {
        true => text += ", with no folder of this machine (--docker_mounts gives it some)",
        false => text += &format!(", with {}", mounts.join(", ")),
    }
    text
}

fn note(log: &dyn WorkerLog, worker: &WorkerIdentity, text: &str) {
    log.log(worker, &entry(RUNNER_NOTE, text));
}

fn entry(location: &str, text: &str) -> fnapi::LogEntry {
    fnapi::LogEntry {
        severity: fnapi::log_entry::severity::Enum::Info as i32,
        timestamp: Some(SystemTime::now().into()),
        message: text.to_owned(),
        log_location: location.to_owned(),
        ..Default::default()
    }
}

/// Passes on what a container says, tells its end, and removes it.
async fn attend(
    docker: Docker,
    id: String,
    connection: Arc<WorkerConnection>,
    log: Arc<dyn WorkerLog>,
    mut stopped: watch::Receiver<bool>,
    limit: Option<i64>,
) {
    let reader = tokio::spawn(read(docker.clone(), id.clone(), connection.clone(), log));
    let mut wait = docker.wait_container(&id, None::<WaitContainerOptions>).boxed();
    let asked = async { drop(stopped.wait_for(|stop| *stop).await) };
    tokio::select! {
        ended = wait.next() => {
            let lost = matches!(&ended, Some(Err(e)) if !matches!(e, bollard::errors::Error::DockerContainerWaitError { .. }));
            let reason = match lost {
                true => "the connection to the Docker engine was lost".to_owned(),
                false => how(&docker, &id, limit).await,
            };
            let _ = tokio::time::timeout(LAST_LINES, reader).await;
            let mut said = connection.said().join("\n");
            if !said.is_empty() {
                said.insert_str(0, ", its last output was:\n");
            }
            connection.ended(&format!("{reason}{said}"));
        }
        () = asked => {
            // Its control stream has been closed: it ends by itself, or is made to.
            let _ = tokio::time::timeout(LINGER, wait.next()).await;
        }
    }
    engine::remove(&docker, &id).await;
}

/// How a container ended.
async fn how(docker: &Docker, id: &str, limit: Option<i64>) -> String {
    let state = docker
        .inspect_container(id, None::<InspectContainerOptions>)
        .await;
    let state = state.ok().and_then(|container| container.state);
    let Some(state) = state else {
        return "its container was removed".into();
    };
    let code = state.exit_code.unwrap_or_default();
    if state.oom_killed == Some(true) {
        let limit = limit.map_or_else(
            || "the engine's machine has".to_owned(),
            |limit| format!("the {} MiB that --docker_memory allows", limit >> 20),
        );
        return format!("its container ran out of memory: it wanted more than {limit} (exit status {code})");
    }
    match code {
        137 => "its container was killed (exit status 137)".into(),
        code if code > 128 => format!("its container was ended by signal {}", code - 128),
        code => format!("its container ended (exit status {code})"),
    }
}

async fn read(docker: Docker, id: String, connection: Arc<WorkerConnection>, log: Arc<dyn WorkerLog>) {
    let options = LogsOptions {
        follow: true,
        stdout: true,
        stderr: true,
        tail: "all".into(),
        ..Default::default()
    };
    let mut output = docker.logs(&id, Some(options)).boxed();
    let mut rest = Vec::new();
    while let Some(Ok(piece)) = output.next().await {
        let piece = match piece {
            LogOutput::StdErr { message }
            | LogOutput::StdOut { message }
            | LogOutput::Console { message } => message,
            LogOutput::StdIn { .. } => continue,
        };
        rest.extend_from_slice(&piece);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            if !line.is_empty() {
                connection.note(line);
                log.log(&connection.identity(), &entry(CONTAINER_OUTPUT, line));
            }
        }
    }
}
