//! Workers that are processes of this machine.

use std::collections::HashMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use purlin_net::{Contract, reads_worker_id, without_token};
use purlin_processes::{Limits, ProcessGroup, command_words, options_json};
use purlin_proto::pipeline;

use super::Environments;
use crate::worker::{StartWorker, Worker, WorkerError};

/// How long a process may take to end after its streams are closed, before it is told to.
const LINGER: Duration = Duration::from_secs(2);

/// What the command may be.
const COMMANDS: &str = "give --environment_config='{\"command\": \"/path/to/purlin-boot --python=/venv/bin/python\"}', or \
                        any program with the flags of Beam's container contract";

impl Environments {
    pub(super) async fn process(
        self,
        request: StartWorker,
        payload: pipeline::ProcessPayload,
    ) -> Result<Arc<dyn Worker>, WorkerError> {
        let failed = |reason: String| start_error(&request, reason);
        let words = command_words(&payload.command)
            .map_err(|error| failed(format!("{error}; check the command of --environment_config")))?;
        let Some((program, arguments)) = words.split_first() else {
            return Err(failed(format!("it names no command; {COMMANDS}")));
        };
        check("operating system", &payload.os, &[std::env::consts::OS]).map_err(failed)?;
        check("architecture", &payload.arch, &architectures()).map_err(failed)?;
        let contract = Contract {
            worker_id: &request.worker_id,
            logging: self.server.url(),
            artifact: self.server.artifact_url(),
            provision: self.server.url(),
            control: self.server.url(),
        };
        let (flags, variable) = contract.told(request.reads_worker_id() || reads_worker_id(program));
        let mut command = Command::new(program);
        command
            .args(arguments)
            .args(flags)
            .envs(&payload.env)
            .envs(variable);
        self.spawn(request, command, payload.command).await
    }

    /// The payload is a shell command; addresses and options go in its environment variables, as text protos.
    pub(super) async fn python_subprocess(
        self,
        request: StartWorker,
    ) -> Result<Arc<dyn Worker>, WorkerError> {
        let line = String::from_utf8(request.environment.payload.to_vec())
            .map_err(|_| start_error(&request, "its command is no UTF-8 text".into()))?;
        let endpoint = format!("url: {:?}", self.server.url());
        let options = options_json(&request.pipeline_options).to_string();
        let mut command = Command::new("sh");
        command.arg("-c").arg(&line).envs(HashMap::from([
            ("CONTROL_API_SERVICE_DESCRIPTOR", endpoint.as_str()),
            ("LOGGING_API_SERVICE_DESCRIPTOR", endpoint.as_str()),
            ("STATUS_API_SERVICE_DESCRIPTOR", endpoint.as_str()),
            ("PIPELINE_OPTIONS", options.as_str()),
            ("WORKER_ID", request.worker_id.as_str()),
        ]));
        self.spawn(request, command, line).await
    }

    async fn spawn(
        self,
        request: StartWorker,
        command: Command,
        shown: String,
    ) -> Result<Arc<dyn Worker>, WorkerError> {
        let worker = self.server.expect(&request)?;
        let (connection, name) = (worker.connection(), without_token(&request.worker_id).to_owned());
        let group = ProcessGroup::start(&command, &Limits::default(), move |line| {
            tracing::info!(target: "sdk_worker", worker = %name, "{line}");
            connection.note(line);
        });
        let group = group.map_err(|e| {
            start_error(
                &request,
                format!("cannot run {shown:?}: {e}; check the command of --environment_config: {COMMANDS}"),
            )
        })?;
        let (connection, ended) = (worker.connection(), group.ended());
        connection.watch();
        tokio::spawn(async move {
            let end = ended.await;
            match end.asked {
                true => connection.lose(&end.to_string()),
                false => connection.ended(&end.to_string()),
            }
        });
        let ended = group.ended();
        let gone = async { ended.await.to_string() };
        let from = format!("the process {shown:?}");
        // Dropped without being stopped, the worker drops the group with this, and the group ends its process.
        worker.on_stop(Box::pin(async move { group.stop(LINGER).await }));
        if let Err(error) = self.connection(&worker, &from, gone).await {
            worker.stop().await;
            return Err(error.error(&request, |reason| format!("{shown:?} gave no worker: {reason}")));
        }
        Ok(Arc::new(worker))
    }
}

pub(super) fn start_error(request: &StartWorker, reason: String) -> WorkerError {
    WorkerError::Start {
        environment: request.environment_id.clone(),
        reason,
    }
}

fn check(what: &str, wanted: &str, here: &[&str]) -> Result<(), String> {
    match wanted.is_empty() || here.iter().any(|name| name.eq_ignore_ascii_case(wanted)) {
        true => Ok(()),
        false => Err(format!(
            "it wants {what} {wanted:?}, and this machine has {:?}",
            here[0]
        )),
    }
}

/// The names that this machine's architecture goes by.
fn architectures() -> Vec<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => vec!["x86_64", "amd64"],
        "aarch64" => vec!["aarch64", "arm64"],
        other => vec![other],
    }
}
