//! Brings a pipeline to a job service and starts it there.

use std::sync::Arc;

use parking_lot::Mutex;
use prost::Message;
use purlin_artifacts::worker_binary;
use purlin_net::{MAX_MESSAGE_BYTES, READS_WORKER_ID};
use purlin_proto::job_management as api;
use purlin_proto::job_management::job_service_client::JobServiceClient;
use purlin_proto::pipeline as beam;
use purlin_proto::urns::environments;
use tokio::sync::watch;
use tonic::transport::Channel;

use super::connect::{connect, explain};
use super::follow::{self, Started};
use super::service::JobService;
use super::shipped;
use super::{Job, docker, staging};
use crate::error::RunError;
use crate::harness::grpc::logging::JOB;
use crate::harness::grpc::{self, LoopbackPool};
use crate::metrics::MetricResults;
use crate::options::proto::{key, string, strings};
use crate::options::runner_options;
use crate::options::{DEFAULT_JOB_ENDPOINT, EnvironmentChoice, OptionError, PipelineOptions, RunnerKind};
use crate::pipeline::BuiltPipeline;
use crate::result::PipelineState;

/// The name under which the program is staged.
const WORKER_BINARY: &str = "purlin-worker";

impl From<OptionError> for RunError {
    fn from(error: OptionError) -> Self {
        RunError::Runner(error.to_string())
    }
}

/// Starts a pipeline as these options say.
pub(super) async fn launch(built: BuiltPipeline, options: &PipelineOptions) -> Result<Arc<Job>, RunError> {
    // Before anything is started.
    let choice = options.environment()?;
    let given = options
        .job_endpoint
        .as_deref()
        .map(str::trim)
        .filter(|endpoint| !endpoint.is_empty());
    let mut started = Started::default();
    let endpoint = match (options.runner, given) {
        (_, Some(endpoint)) => endpoint.to_owned(),
        (RunnerKind::Flink, None) if wants_a_cluster(options) => {
            return Err(RunError::Runner(
                "FlinkRunner wants a cluster: give --flink_master=HOST:PORT, the address of Flink's REST API (8081 by default)".into(),
            ));
        }
        (RunnerKind::Prism | RunnerKind::Flink, None) => {
            let service = JobService::start(options).await?;
            let endpoint = service.endpoint().to_owned();
            started.service = Some(service);
            endpoint
        }
        (_, None) => DEFAULT_JOB_ENDPOINT.to_owned(),
    };
    match submit(built, options, choice, &endpoint, &mut started).await {
        Ok(job) => {
            tokio::spawn(follow::follow(job.clone(), started));
            Ok(job)
        }
        Err(error) => {
            started.stop().await;
            Err(error)
        }
    }
}

/// Whether the job is to run on a Flink cluster that is not named. One that is written to a file needs none.
fn wants_a_cluster(options: &PipelineOptions) -> bool {
    let master = options.flink_master.as_deref().unwrap_or_default();
    let to_a_file = |option: &String| {
        let name = option.split('=').next().unwrap_or_default();
        name.replace('-', "_") == "output_executable_path"
    };
    master.trim().is_empty() && !options.runner_options.iter().any(to_a_file)
}

async fn submit(
    mut built: BuiltPipeline,
    options: &PipelineOptions,
    choice: EnvironmentChoice,
    endpoint: &str,
    started: &mut Started,
) -> Result<Arc<Job>, RunError> {
    let channel = connect(endpoint).await?;
    let mut client = JobServiceClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let timeout = options.request_timeout();

    let mut pipeline_options = options.to_struct();
    let in_containers = matches!(choice, EnvironmentChoice::Docker(_));
    let described = match in_containers || !options.runner_options.is_empty() {
        true => describe(&client, options, endpoint).await?,
        false => None,
    };
    let for_the_runner = runner_options(described.as_deref(), options, endpoint)?;
    pipeline_options.fields.extend(for_the_runner.fields);
    let artifacts = environment(
        &mut built,
        choice,
        &mut pipeline_options,
        options.experiment(shipped::DEBUG_INFO).is_some(),
        started,
    )
    .await?;
    if in_containers && let Some(warning) = docker::unmounted(&pipeline_options, described.as_deref()) {
        tracing::warn!(target: JOB, "{warning}");
    }
    // Not every runner does it, and none does it twice. Workers build the pipeline without: what is compared with theirs
    // has been made.
    purlin_runner::translate::lift(&mut built.proto);
    let names = built.proto.components.iter().flat_map(|c| &c.transforms);
    let names = names
        .map(|(id, transform)| (id.clone(), transform.unique_name.clone()))
        .collect();

    let mut prepare = tonic::Request::new(api::PrepareJobRequest {
        pipeline: Some(built.proto),
        pipeline_options: Some(pipeline_options),
        job_name: options.job_name(),
    });
    prepare.set_timeout(timeout);
    let prepared = client
        .prepare(prepare)
        .await
        .map_err(|s| refused("Prepare", endpoint, &s))?
        .into_inner();

    let staging = options.artifact_endpoint.clone().filter(|e| !e.is_empty());
    let staging = staging.or(prepared
        .artifact_staging_endpoint
        .map(|d| d.url)
        .filter(|url| !url.is_empty()));
    match staging {
        Some(staging) => staging::offer(&staging, &prepared.staging_session_token, &artifacts).await?,
        None if artifacts.is_empty() => {}
        None => {
            return Err(RunError::Runner(format!(
                "the job service at {endpoint} names no address to stage artifacts at; give it by \
                 --artifact_endpoint=HOST:PORT"
            )));
        }
    }

    let mut run = tonic::Request::new(api::RunJobRequest {
        preparation_id: prepared.preparation_id,
        retrieval_token: String::new(),
    });
    run.set_timeout(timeout);
    let job_id = client
        .run(run)
        .await
        .map_err(|s| refused("Run", endpoint, &s))?
        .into_inner()
        .job_id;
    tracing::info!(target: JOB, job = job_id, "runs at {endpoint}");
    Ok(Arc::new(Job {
        id: job_id,
        endpoint: endpoint.to_owned(),
        client,
        timeout,
        state: watch::Sender::new(PipelineState::Starting),
        over: watch::Sender::new(false),
        error: Mutex::default(),
        metrics: Mutex::new(MetricResults::default()),
        names,
    }))
}

/// The options that the runner has; none if it does not tell.
async fn describe(
    client: &JobServiceClient<Channel>,
    options: &PipelineOptions,
    endpoint: &str,
) -> Result<Option<Vec<api::PipelineOptionDescriptor>>, RunError> {
    let mut describe = tonic::Request::new(api::DescribePipelineOptionsRequest {});
    describe.set_timeout(options.request_timeout());
    match client.clone().describe_pipeline_options(describe).await {
        Ok(described) => Ok(Some(described.into_inner().options)),
        Err(status) if status.code() == tonic::Code::Unimplemented => Ok(None),
        Err(status) => Err(explain("DescribePipelineOptions", endpoint, &status)),
    }
}

/// The options that are the runner's alone, by the names and types that it tells.
fn runner_options(
    described: Option<&[api::PipelineOptionDescriptor]>,
    options: &PipelineOptions,
    endpoint: &str,
) -> Result<prost_types::Struct, RunError> {
    let given = &options.runner_options;
    if given.is_empty() {
        return Ok(prost_types::Struct::default());
    }
    match described {
        Some(described) => {
            runner_options::checked(given, described, options.names(), endpoint).map_err(RunError::Runner)
        }
        None => {
            tracing::warn!(target: JOB, "the runner does not tell which options it has; it gets --{} unchecked", given.join(" --"));
            Ok(runner_options::unchecked(given))
        }
    }
}

/// A pipeline that the service does not take is not the service's failure: its words are the user's.
fn refused(doing: &str, endpoint: &str, status: &tonic::Status) -> RunError {
    match status.code() {
        tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition if !status.message().is_empty() => {
            RunError::Translate(status.message().to_owned())
        }
        _ => explain(doing, endpoint, status),
    }
}

/// Puts the environment into the pipeline, and what its workers need into the options. Returns the files to stage.
async fn environment(
    built: &mut BuiltPipeline,
    choice: EnvironmentChoice,
    options: &mut prost_types::Struct,
    with_debug_info: bool,
    started: &mut Started,
) -> Result<Vec<beam::ArtifactInformation>, RunError> {
    let mut artifacts = Vec::new();
    let mut reads_worker_id = false;
    match choice {
        EnvironmentChoice::Loopback => {
            let pool = LoopbackPool::start(built.registry.clone())
                .await
                .map_err(|e| RunError::Runner(format!("cannot listen for LOOPBACK workers: {e}")))?;
            let endpoint = beam::ApiServiceDescriptor {
                url: pool.address().to_owned(),
                authentication: None,
            };
            let payload = beam::ExternalPayload {
                endpoint: Some(endpoint),
                ..Default::default()
            };
            built.set_environment(environments::EXTERNAL, payload.encode_to_vec());
            started.pool = Some(pool);
        }
        mut choice => {
            let program = std::env::current_exe()
                .map_err(|e| RunError::Runner(format!("cannot tell where this program's file is: {e}")))?;
            let build = tokio::task::spawn_blocking(grpc::build_id).await;
            let unreadable = |e: std::io::Error| {
                RunError::Runner(format!(
                    "cannot read this program's file {}: {e}",
                    program.display()
                ))
            };
            let failed = |_| RunError::Runner("reading this program's file failed".into());
            let build = build.map_err(failed)?.map_err(unreadable)?;
            // Of a command of the user's nobody knows what it passes on to the program.
            reads_worker_id =
                !matches!(&choice, EnvironmentChoice::Process(process) if !process.command.is_empty());
            if let EnvironmentChoice::Process(process) = &mut choice {
                // Without a command, the runner's machine is this one.
                if process.command.is_empty() {
                    process.command = program.display().to_string();
                }
            } else {
                let cache = match with_debug_info {
                    true => Err(format!("--experiments={} asks for it", shipped::DEBUG_INFO)),
                    false => shipped::cache(),
                };
                let (file, of) = (program.clone(), build.clone());
                let shipped = tokio::task::spawn_blocking(move || shipped::ship(&file, &of, cache)).await;
                let shipped = shipped.map_err(failed)?.map_err(unreadable)?;
                let path = shipped.path.display().to_string();
                artifacts.push(worker_binary(&path, &shipped.sha256, WORKER_BINARY));
            }
            if matches!(choice, EnvironmentChoice::Docker(_)) {
                docker::localize(options);
            }
            if let Some((urn, payload)) = choice.to_proto() {
                built.set_environment(urn, payload);
            }
            options.fields.insert(key(grpc::BUILD), string(build.text()));
            options
                .fields
                .insert(key(grpc::GRAPH), strings(grpc::fingerprint(&built.proto)));
        }
    }
    let components = built.proto.components.get_or_insert_default();
    if let Some(environment) = components.environments.get_mut(crate::pipeline::ENVIRONMENT) {
        environment
            .capabilities
            .extend(grpc::CAPABILITIES.iter().map(|urn| (*urn).to_owned()));
        if reads_worker_id {
            environment.capabilities.push(READS_WORKER_ID.to_owned());
        }
        environment.dependencies.clone_from(&artifacts);
    }
    Ok(artifacts)
}
