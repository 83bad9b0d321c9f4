//! The service over real gRPC, on free ports.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use purlin_job_service::{JobService, options::Options};
use purlin_proto::expansion::{self, expansion_service_client::ExpansionServiceClient};
use purlin_proto::fn_execution as fnapi;
use purlin_proto::fn_execution::beam_fn_external_worker_pool_server as pool;
use purlin_proto::job_management::artifact_retrieval_service_client::ArtifactRetrievalServiceClient;
use purlin_proto::job_management::artifact_staging_service_client::ArtifactStagingServiceClient;
use purlin_proto::job_management::job_service_client::JobServiceClient;
use purlin_proto::job_management::{self as api, job_state::Enum as State};
use purlin_proto::job_management::{artifact_request_wrapper as ask, artifact_response_wrapper as answer};
use purlin_proto::{pipeline, urns};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

type Client = JobServiceClient<Channel>;

async fn service() -> (JobService, Client) {
    let service = JobService::start(Options::default()).await.unwrap();
    let client = Client::connect(format!("http://{}", service.job_url()))
        .await
        .unwrap();
    (service, client)
}

fn collection(environment: &str) -> pipeline::Components {
    let global = pipeline::FunctionSpec {
        urn: urns::window_fns::GLOBAL_WINDOWS.into(),
        payload: Bytes::new(),
    };
    let default = pipeline::trigger::Trigger::Default(pipeline::trigger::Default {});
    let strategy = pipeline::WindowingStrategy {
        window_fn: Some(global),
        merge_status: pipeline::merge_status::Enum::NonMerging as i32,
        window_coder_id: "window".into(),
        trigger: Some(pipeline::Trigger {
            trigger: Some(default),
        }),
        accumulation_mode: pipeline::accumulation_mode::Enum::Discarding as i32,
        output_time: pipeline::output_time::Enum::EndOfWindow as i32,
        closing_behavior: pipeline::closing_behavior::Enum::EmitIfNonempty as i32,
        on_time_behavior: pipeline::on_time_behavior::Enum::FireAlways as i32,
        environment_id: environment.into(),
        ..Default::default()
    };
    let coder = |urn: &str| pipeline::Coder {
        spec: Some(pipeline::FunctionSpec {
            urn: urn.into(),
            payload: Bytes::new(),
        }),
        component_coder_ids: vec![],
    };
    let impulse = pipeline::PTransform {
        unique_name: "Start".into(),
        spec: Some(pipeline::FunctionSpec {
            urn: urns::transforms::IMPULSE.into(),
            payload: Bytes::new(),
        }),
        outputs: [("out".to_owned(), "start".to_owned())].into(),
        ..Default::default()
    };
    pipeline::Components {
        transforms: [("start".to_owned(), impulse)].into(),
        pcollections: [(
            "start".to_owned(),
            pipeline::PCollection {
                unique_name: "Start.out".into(),
                coder_id: "bytes".into(),
                is_bounded: pipeline::is_bounded::Enum::Bounded as i32,
                windowing_strategy_id: "global".into(),
                ..Default::default()
            },
        )]
        .into(),
        windowing_strategies: [("global".to_owned(), strategy)].into(),
        coders: [
            ("bytes".to_owned(), coder(urns::coders::BYTES)),
            ("window".to_owned(), coder(urns::coders::GLOBAL_WINDOW)),
        ]
        .into(),
        ..Default::default()
    }
}

/// A pipeline that needs no worker.
fn impulse() -> pipeline::Pipeline {
    pipeline::Pipeline {
        components: Some(collection("")),
        root_transform_ids: vec!["start".into()],
        ..Default::default()
    }
}

/// Impulse and a ParDo of this environment.
fn pardo(environment: pipeline::Environment) -> pipeline::Pipeline {
    let payload = pipeline::ParDoPayload {
        do_fn: Some(pipeline::FunctionSpec {
            urn: "test:dofn:v1".into(),
            payload: Bytes::new(),
        }),
        ..Default::default()
    };
    let pardo = pipeline::PTransform {
        unique_name: "Work".into(),
        spec: Some(pipeline::FunctionSpec {
            urn: urns::transforms::PAR_DO.into(),
            payload: payload.encode_to_vec().into(),
        }),
        inputs: [("in".to_owned(), "start".to_owned())].into(),
        environment_id: "env".into(),
        ..Default::default()
    };
    let mut components = collection("env");
    components.transforms.insert("work".into(), pardo);
    components.environments.insert("env".into(), environment);
    pipeline::Pipeline {
        components: Some(components),
        root_transform_ids: vec!["start".into(), "work".into()],
        ..Default::default()
    }
}

fn external(url: &str) -> pipeline::Environment {
    let endpoint = Some(pipeline::ApiServiceDescriptor {
        url: url.into(),
        authentication: None,
    });
    let payload = pipeline::ExternalPayload {
        endpoint,
        ..Default::default()
    };
    pipeline::Environment {
        urn: urns::environments::EXTERNAL.into(),
        payload: payload.encode_to_vec().into(),
        ..Default::default()
    }
}

async fn prepare(
    client: &mut Client,
    pipeline: pipeline::Pipeline,
) -> Result<api::PrepareJobResponse, Status> {
    let request = api::PrepareJobRequest {
        pipeline: Some(pipeline),
        pipeline_options: None,
        job_name: "te st".into(),
    };
    Ok(client.prepare(request).await?.into_inner())
}

async fn run(client: &mut Client, id: &str) -> Result<String, Status> {
    let request = api::RunJobRequest {
        preparation_id: id.into(),
        retrieval_token: String::new(),
    };
    Ok(client.run(request).await?.into_inner().job_id)
}

fn state_request(id: &str) -> api::GetJobStateRequest {
    api::GetJobStateRequest { job_id: id.into() }
}

/// Every event of the message stream to its end: states in brackets, error messages as they are.
async fn events(client: &mut Client, id: &str) -> Vec<String> {
    let request = api::JobMessagesRequest { job_id: id.into() };
    let mut stream = client.get_message_stream(request).await.unwrap().into_inner();
    let mut events = Vec::new();
    while let Some(event) = stream.message().await.unwrap() {
        match event.response.unwrap() {
            api::job_messages_response::Response::StateResponse(s) => {
                events.push(format!("[{}]", s.state().as_str_name()))
            }
            api::job_messages_response::Response::MessageResponse(m)
                if m.importance() == api::job_message::MessageImportance::JobMessageError =>
            {
                events.push(m.message_text);
            }
            api::job_messages_response::Response::MessageResponse(_) => {}
        }
    }
    events
}

#[tokio::test]
async fn a_job_goes_through_its_states() {
    let (service, mut client) = service().await;
    let prepared = prepare(&mut client, impulse()).await.unwrap();
    assert_eq!(
        prepared.artifact_staging_endpoint.unwrap().url,
        service.artifact_url()
    );
    let id = prepared.preparation_id;
    assert!(id.starts_with("te-st-"), "{id}");

    // Beam's Python client asks for the streams before Run, with a deadline that would be the job's.
    let early = client.get_state_stream(state_request(&id)).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition);
    let early = client
        .get_message_stream(api::JobMessagesRequest { job_id: id.clone() })
        .await
        .unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition);
    let state = client.get_state(state_request(&id)).await.unwrap().into_inner();
    assert_eq!(state.state(), State::Stopped);

    assert_eq!(run(&mut client, &id).await.unwrap(), id);
    let states = client
        .get_state_stream(state_request(&id))
        .await
        .unwrap()
        .into_inner();
    let states: Vec<State> = states.map(|s| s.unwrap().state()).collect().await;
    assert_eq!(
        (states.first(), states.last()),
        (Some(&State::Starting), Some(&State::Done))
    );
    assert_eq!(events(&mut client, &id).await.last().unwrap(), "[DONE]");
    assert_eq!(
        client
            .get_state(state_request(&id))
            .await
            .unwrap()
            .into_inner()
            .state(),
        State::Done
    );

    assert_eq!(
        run(&mut client, &id).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    let jobs = client
        .get_jobs(api::GetJobsRequest {})
        .await
        .unwrap()
        .into_inner()
        .job_info;
    assert_eq!(
        (jobs.len(), jobs[0].state(), jobs[0].job_name.as_str()),
        (1, State::Done, "te st")
    );
    let request = api::GetJobPipelineRequest { job_id: id.clone() };
    assert_eq!(
        client.get_pipeline(request).await.unwrap().into_inner().pipeline,
        Some(impulse())
    );
    let metrics = client
        .get_job_metrics(api::GetJobMetricsRequest { job_id: id })
        .await
        .unwrap()
        .into_inner();
    assert!(metrics.metrics.is_some());
}

#[tokio::test]
async fn unknown_jobs_and_broken_pipelines_are_refused() {
    let (_service, mut client) = service().await;
    assert_eq!(
        client.get_state(state_request("none")).await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(run(&mut client, "none").await.unwrap_err().code(), Code::NotFound);

    let mut broken = impulse();
    let components = broken.components.as_mut().unwrap();
    for (id, input) in [("one", "nowhere"), ("two", "neither")] {
        let transform = pipeline::PTransform {
            unique_name: format!("Broken {id}"),
            spec: Some(pipeline::FunctionSpec {
                urn: urns::transforms::FLATTEN.into(),
                payload: Bytes::new(),
            }),
            inputs: [("in".to_owned(), input.to_owned())].into(),
            outputs: [("out".to_owned(), format!("{id}-out"))].into(),
            ..Default::default()
        };
        components.transforms.insert(id.into(), transform);
        broken.root_transform_ids.push(id.into());
    }
    let error = prepare(&mut client, broken).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    for name in ["Broken one", "Broken two"] {
        assert!(error.message().contains(name), "{}", error.message());
    }
    let options = prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue("many".into())),
    };
    let request = api::PrepareJobRequest {
        pipeline: Some(impulse()),
        pipeline_options: Some(prost_types::Struct {
            fields: [("beam:option:sdk_worker_parallelism:v1".to_owned(), options)].into(),
        }),
        job_name: String::new(),
    };
    let error = client.prepare(request).await.unwrap_err();
    assert!(
        error.message().contains("sdk_worker_parallelism"),
        "{}",
        error.message()
    );
}

/// A pool whose workers never connect.
struct Mute(mpsc::UnboundedSender<String>);

#[tonic::async_trait]
impl pool::BeamFnExternalWorkerPool for Mute {
    async fn start_worker(
        &self,
        request: Request<fnapi::StartWorkerRequest>,
    ) -> Result<Response<fnapi::StartWorkerResponse>, Status> {
        let _ = self.0.send(request.into_inner().worker_id);
        Ok(Response::new(fnapi::StartWorkerResponse::default()))
    }

    async fn stop_worker(
        &self,
        _: Request<fnapi::StopWorkerRequest>,
    ) -> Result<Response<fnapi::StopWorkerResponse>, Status> {
        Ok(Response::new(fnapi::StopWorkerResponse::default()))
    }
}

#[tokio::test]
async fn a_job_can_be_cancelled_while_its_worker_starts() {
    let (service, mut client) = service().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap().to_string();
    let (started, mut starts) = mpsc::unbounded_channel();
    let server = tonic::transport::Server::builder()
        .add_service(pool::BeamFnExternalWorkerPoolServer::new(Mute(started)))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);

    let id = prepare(&mut client, pardo(external(&url)))
        .await
        .unwrap()
        .preparation_id;
    run(&mut client, &id).await.unwrap();
    starts.recv().await.unwrap();
    client
        .cancel(api::CancelJobRequest { job_id: id.clone() })
        .await
        .unwrap();
    assert_eq!(events(&mut client, &id).await.last().unwrap(), "[CANCELLED]");

    // A job that never ran can be cancelled too, and then not be run.
    let id = prepare(&mut client, impulse()).await.unwrap().preparation_id;
    let cancelled = client
        .cancel(api::CancelJobRequest { job_id: id.clone() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(cancelled.state(), State::Cancelled);
    assert_eq!(
        run(&mut client, &id).await.unwrap_err().code(),
        Code::FailedPrecondition
    );

    // Another one runs when the service ends, and hears why it does.
    let id = prepare(&mut client, pardo(external(&url)))
        .await
        .unwrap()
        .preparation_id;
    run(&mut client, &id).await.unwrap();
    starts.recv().await.unwrap();
    let request = api::JobMessagesRequest { job_id: id.clone() };
    let mut messages = client.get_message_stream(request).await.unwrap().into_inner();
    let ended = tokio::time::timeout(Duration::from_secs(60), service.shutdown()).await;
    assert!(ended.is_ok(), "the service does not end");
    let mut told = String::new();
    while let Ok(Some(event)) = messages.message().await {
        told.push_str(&format!("{event:?}"));
    }
    assert!(
        told.contains("the job service ended before the job did"),
        "{told}"
    );
    assert!(!service.artifact_folder().unwrap().exists());
}

#[tokio::test]
async fn a_failed_job_says_why_last() {
    let (_service, mut client) = service().await;
    let id = prepare(&mut client, pardo(external("localhost:1")))
        .await
        .unwrap()
        .preparation_id;
    run(&mut client, &id).await.unwrap();
    let events = events(&mut client, &id).await;
    assert_eq!(events.last().unwrap(), "[FAILED]");
    let error = &events[events.len() - 2];
    assert!(
        error.contains("localhost:1") && error.contains("purlin-worker-pool"),
        "{error}"
    );
}

fn file(path: &str, sha256: &str, name: &str) -> pipeline::ArtifactInformation {
    let payload = pipeline::ArtifactFilePayload {
        path: path.into(),
        sha256: sha256.into(),
    };
    let role = pipeline::ArtifactStagingToRolePayload {
        staged_name: name.into(),
    };
    pipeline::ArtifactInformation {
        type_urn: urns::artifact_types::FILE.into(),
        type_payload: payload.encode_to_vec().into(),
        role_urn: urns::artifact_roles::STAGING_TO.into(),
        role_payload: role.encode_to_vec().into(),
    }
}

/// Stages like a client whose every file holds `content`. Returns how the stream ended.
async fn stage(service: &JobService, token: &str, content: &'static [u8]) -> Result<(), Status> {
    let url = format!("http://{}", service.artifact_url());
    let mut client = ArtifactStagingServiceClient::connect(url).await.unwrap();
    let (tx, rx) = mpsc::unbounded_channel();
    let send = |is_last, response| {
        let _ = tx.send(api::ArtifactResponseWrapper {
            staging_token: token.into(),
            is_last,
            response,
        });
    };
    send(false, None);
    let stream = client
        .reverse_artifact_retrieval_service(UnboundedReceiverStream::new(rx))
        .await?;
    let mut requests = stream.into_inner();
    while let Some(request) = requests.message().await? {
        match request.request.unwrap() {
            ask::Request::ResolveArtifact(ask) => {
                let resolved = api::ResolveArtifactsResponse {
                    replacements: ask.artifacts,
                };
                send(false, Some(answer::Response::ResolveArtifactResponse(resolved)));
            }
            ask::Request::GetArtifact(_) => {
                let chunk = |data: &'static [u8]| {
                    Some(answer::Response::GetArtifactResponse(api::GetArtifactResponse {
                        data: Bytes::from_static(data),
                    }))
                };
                send(false, chunk(content));
                send(true, chunk(b""));
            }
        }
    }
    Ok(())
}

const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

#[tokio::test]
async fn artifacts_are_checked_kept_and_given() {
    let (service, mut client) = service().await;
    let environment = pipeline::Environment {
        dependencies: vec![
            file("/home/u/a.jar", HELLO, "a.jar"),
            file("/home/u/b.jar", "", "b.jar"),
        ],
        ..external("localhost:1")
    };
    let job = prepare(&mut client, pardo(environment)).await.unwrap();
    let id = job.preparation_id;
    assert_eq!(
        stage(&service, "no such token", b"hello")
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
    stage(&service, &job.staging_session_token, b"hello")
        .await
        .unwrap();

    // One file, for both hold the same.
    let files = || {
        std::fs::read_dir(service.artifact_folder().unwrap())
            .unwrap()
            .count()
    };
    assert_eq!(files(), 1);
    let request = api::GetJobPipelineRequest { job_id: id.clone() };
    let staged = client
        .get_pipeline(request)
        .await
        .unwrap()
        .into_inner()
        .pipeline
        .unwrap()
        .components
        .unwrap();
    let staged = &staged.environments["env"].dependencies;
    assert_eq!(staged.len(), 2);
    let url = format!("http://{}", service.artifact_url());
    let mut retrieval = ArtifactRetrievalServiceClient::connect(url).await.unwrap();
    let get = |artifact: &pipeline::ArtifactInformation| api::GetArtifactRequest {
        artifact: Some(artifact.clone()),
    };
    let mut chunks = retrieval
        .get_artifact(get(&staged[0]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(chunks.message().await.unwrap().unwrap().data, "hello");
    assert!(chunks.message().await.unwrap().is_none());

    let stranger = retrieval
        .get_artifact(get(&file("/etc/passwd", "", "x")))
        .await
        .unwrap_err();
    assert_eq!(stranger.code(), Code::NotFound);

    let path = pipeline::ArtifactFilePayload::decode(staged[0].type_payload.clone())
        .unwrap()
        .path;
    std::fs::write(&path, "changed").unwrap();
    let mut chunks = retrieval
        .get_artifact(get(&staged[0]))
        .await
        .unwrap()
        .into_inner();
    chunks.message().await.unwrap();
    assert_eq!(chunks.message().await.unwrap_err().code(), Code::DataLoss);

    run(&mut client, &id).await.unwrap();
    events(&mut client, &id).await;
    // The terminal state is told to clients and to the clean-up at the same time.
    let cleaned = async {
        while files() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), cleaned)
        .await
        .expect("a job's files go with it");
}

#[tokio::test]
async fn packages_of_an_index_are_left_to_the_worker() {
    let (service, mut client) = service().await;
    let package = |urn: &str, payload: Vec<u8>| pipeline::ArtifactInformation {
        type_urn: urn.into(),
        type_payload: payload.into(),
        ..Default::default()
    };
    let python = pipeline::PyPiPayload {
        artifact_id: "moonlight".into(),
        version: "1.5".into(),
    };
    let java = pipeline::MavenPayload {
        artifact: "org.moon:light:1.5".into(),
        repository_url: String::new(),
    };
    let dependencies = vec![
        package(urns::artifact_types::PYPI, python.encode_to_vec()),
        package(urns::artifact_types::MAVEN, java.encode_to_vec()),
        file("/home/u/a.jar", HELLO, "a.jar"),
    ];
    let environment = pipeline::Environment {
        dependencies: dependencies.clone(),
        ..external("localhost:1")
    };
    let job = prepare(&mut client, pardo(environment)).await.unwrap();
    stage(&service, &job.staging_session_token, b"hello")
        .await
        .unwrap();
    let request = api::GetJobPipelineRequest {
        job_id: job.preparation_id,
    };
    let staged = client.get_pipeline(request).await.unwrap().into_inner();
    let staged = staged.pipeline.unwrap().components.unwrap();
    let staged = &staged.environments["env"].dependencies;
    assert_eq!(staged[..2], dependencies[..2]);
    assert_ne!(staged[2], dependencies[2]);

    // A worker that asks for them as for files hears what to do.
    let url = format!("http://{}", service.artifact_url());
    let mut retrieval = ArtifactRetrievalServiceClient::connect(url).await.unwrap();
    for (artifact, name) in dependencies
        .iter()
        .zip(["moonlight==1.5", "org.moon:light:1.5 of Maven Central"])
    {
        let artifact = Some(artifact.clone());
        let refused = retrieval
            .get_artifact(api::GetArtifactRequest { artifact })
            .await
            .unwrap_err();
        let text = refused.message();
        assert!(
            text.contains(name) && text.contains("install it where the worker runs"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn wrong_artifacts_are_refused() {
    let (service, mut client) = service().await;
    let cases = [
        (
            file("/a", &HELLO.replace('2', "3"), "a"),
            Code::DataLoss,
            "sha256",
        ),
        (
            file("/a", "", "../../.bashrc"),
            Code::InvalidArgument,
            "../../.bashrc",
        ),
        (
            file("/a", "", "/etc/cron.d/x"),
            Code::InvalidArgument,
            "/etc/cron.d/x",
        ),
        (
            pipeline::ArtifactInformation {
                type_payload: Bytes::from_static(b"\xff"),
                ..file("", "", "x")
            },
            Code::InvalidArgument,
            "no valid message",
        ),
    ];
    for (artifact, code, text) in cases {
        let environment = pipeline::Environment {
            dependencies: vec![artifact],
            ..external("localhost:1")
        };
        let job = prepare(&mut client, pardo(environment)).await.unwrap();
        let error = stage(&service, &job.staging_session_token, b"hello")
            .await
            .unwrap_err();
        assert!(error.code() == code && error.message().contains(text), "{error}");
    }
    assert_eq!(
        std::fs::read_dir(service.artifact_folder().unwrap())
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn the_expansion_service_says_what_it_lacks() {
    let (service, _) = service().await;
    let url = format!("http://{}", service.expansion_url());
    let mut client = ExpansionServiceClient::connect(url).await.unwrap();
    let spec = pipeline::FunctionSpec {
        urn: "my:transform:v1".into(),
        payload: Bytes::new(),
    };
    let transform = pipeline::PTransform {
        unique_name: "Mine".into(),
        spec: Some(spec),
        ..Default::default()
    };
    let request = expansion::ExpansionRequest {
        transform: Some(transform),
        ..Default::default()
    };
    let error = client.expand(request).await.unwrap().into_inner().error;
    assert!(
        error.contains("my:transform:v1") && error.contains("Mine"),
        "{error}"
    );
}

async fn ask(stream: &mut tokio::net::TcpStream, path: &str, host: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_web_port_answers_to_its_own_names_only() {
    let service = JobService::start(Options {
        web_port: Some(0),
        allowed_hosts: vec!["beam.example".into()],
        ..Options::default()
    })
    .await
    .unwrap();
    for (host, status) in [
        ("evil.example:8074", "403"),
        ("beam.example", "200"),
        ("127.0.0.1", "200"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(service.web_url().unwrap())
            .await
            .unwrap();
        let answer = ask(&mut stream, "/jobs", host).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{host}: {answer}"
        );
    }
}

#[tokio::test]
async fn the_web_port_answers() {
    let service = JobService::start(Options {
        web_port: Some(0),
        ..Options::default()
    })
    .await
    .unwrap();
    let mut client = Client::connect(format!("http://{}", service.job_url()))
        .await
        .unwrap();
    let job = prepare(&mut client, impulse()).await.unwrap().preparation_id;
    run(&mut client, &job).await.unwrap();
    events(&mut client, &job).await;
    let waiting = prepare(&mut client, impulse()).await.unwrap().preparation_id;
    let (one, workers, plan, page) = (
        format!("/jobs/{job}"),
        format!("/jobs/{job}/workers"),
        format!("/jobs/{job}/plan"),
        format!("/job/{job}"),
    );
    let (no_plan, unknown) = (format!("/jobs/{waiting}/plan"), "/jobs/none/plan".to_owned());
    for (path, status, expected) in [
        (one.as_str(), 200, "\"pcollections\":{"),
        (&workers, 200, "[]"),
        (&plan, 200, "Impulse Start: nothing -> "),
        (&no_plan, 404, "has not been run yet"),
        (&unknown, 404, "none"),
        (&page, 200, "Fused plan"),
        ("/health", 200, "\"running_jobs\":0"),
        ("/jobs", 200, "\"state\":\"STOPPED\""),
        ("/", 200, "te st"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(service.web_url().unwrap())
            .await
            .unwrap();
        let answer = ask(&mut stream, path, "localhost").await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(expected),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn an_idle_service_ends_if_told_so() {
    let idle = Options {
        idle_shutdown: Some(Duration::from_millis(30)),
        ..Options::default()
    };
    let service = JobService::start(idle).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), service.idle())
        .await
        .expect("nothing runs");
}

#[tokio::test]
async fn messages_are_taken_up_to_the_limit_of_their_method() {
    let options = Options {
        max_message_size: 200_000,
        ..Options::default()
    };
    let service = JobService::start(options).await.unwrap();
    let url = format!("http://{}", service.job_url());
    let mut client = Client::connect(url).await.unwrap();
    let mut large = impulse();
    large.display_data.push(pipeline::DisplayData {
        payload: vec![0; 150_000].into(),
        ..Default::default()
    });
    prepare(&mut client, large.clone()).await.unwrap();
    large.display_data.push(large.display_data[0].clone());
    let error = prepare(&mut client, large).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().contains("--max_message_size"), "{error}");
    // What only names a job is short.
    let error = client
        .get_state(state_request(&"x".repeat(100_000)))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn prepared_jobs_that_are_cancelled_or_never_run_go_with_their_artifacts() {
    let options = Options {
        prepared_job_timeout: Some(Duration::ZERO),
        ..Options::default()
    };
    let service = JobService::start(options).await.unwrap();
    let url = format!("http://{}", service.job_url());
    let mut client = Client::connect(url).await.unwrap();
    let environment = pipeline::Environment {
        dependencies: vec![file("/home/u/a.txt", HELLO, "a.txt")],
        ..external("localhost:1")
    };
    let job = prepare(&mut client, pardo(environment.clone())).await.unwrap();
    let id = job.preparation_id;
    // It may expire before all is staged; then the staging is refused, and nothing stays either.
    let _ = stage(&service, &job.staging_session_token, b"hello").await;
    let gone = async { while client.get_state(state_request(&id)).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap();
    assert_eq!(files(&service), 0);

    let (service, mut client) = self::service().await;
    let job = prepare(&mut client, pardo(environment)).await.unwrap();
    stage(&service, &job.staging_session_token, b"hello")
        .await
        .unwrap();
    assert_eq!(files(&service), 1);
    let job_id = job.preparation_id;
    client.cancel(api::CancelJobRequest { job_id }).await.unwrap();
    assert_eq!(files(&service), 0);
    // Who stages for it all the same leaves nothing.
    stage(&service, &job.staging_session_token, b"hello")
        .await
        .unwrap_err();
    assert_eq!(files(&service), 0);
}

#[tokio::test]
async fn what_a_client_that_falls_silent_has_staged_goes_with_its_job() {
    let (service, mut client) = self::service().await;
    let environment = pipeline::Environment {
        dependencies: vec![file("/home/u/a.txt", HELLO, "a.txt")],
        ..external("localhost:1")
    };
    let job = prepare(&mut client, pardo(environment)).await.unwrap();
    let url = format!("http://{}", service.artifact_url());
    let mut staging = ArtifactStagingServiceClient::connect(url).await.unwrap();
    let (tx, rx) = mpsc::unbounded_channel();
    let send = |response| {
        let answer = api::ArtifactResponseWrapper {
            staging_token: job.staging_session_token.clone(),
            is_last: false,
            response,
        };
        tx.send(answer).unwrap();
    };
    send(None);
    let stream = staging.reverse_artifact_retrieval_service(UnboundedReceiverStream::new(rx));
    let mut requests = stream.await.unwrap().into_inner();
    let Some(ask::Request::ResolveArtifact(ask)) = requests.message().await.unwrap().unwrap().request else {
        panic!("it asks what there is first");
    };
    let replacements = ask.artifacts;
    send(Some(answer::Response::ResolveArtifactResponse(
        api::ResolveArtifactsResponse { replacements },
    )));
    requests.message().await.unwrap().unwrap();
    let data = Bytes::from_static(b"hel");
    send(Some(answer::Response::GetArtifactResponse(
        api::GetArtifactResponse { data },
    )));
    let until = async |count| {
        while files(&service) != count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), until(1))
        .await
        .expect("a part has come");
    // The stream is still open, and nothing comes on it.
    let job_id = job.preparation_id;
    client.cancel(api::CancelJobRequest { job_id }).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), until(0))
        .await
        .expect("the part stays");
    let error = requests.message().await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
}

fn files(service: &JobService) -> usize {
    std::fs::read_dir(service.artifact_folder().unwrap())
        .unwrap()
        .count()
}

#[tokio::test]
async fn ended_jobs_are_remembered_within_bounds_of_bytes() {
    let (_service, mut client) = service().await;
    let mut large = impulse();
    large.display_data.push(pipeline::DisplayData {
        payload: vec![0; 9 << 20].into(),
        ..Default::default()
    });
    let mut last = String::new();
    for _ in 0..6 {
        last = prepare(&mut client, large.clone()).await.unwrap().preparation_id;
        client
            .cancel(api::CancelJobRequest { job_id: last.clone() })
            .await
            .unwrap();
    }
    prepare(&mut client, impulse()).await.unwrap();
    let jobs = client
        .get_jobs(api::GetJobsRequest {})
        .await
        .unwrap()
        .into_inner()
        .job_info;
    let cancelled: Vec<&str> = jobs
        .iter()
        .filter(|job| job.state() == State::Cancelled)
        .map(|job| job.job_id.as_str())
        .collect();
    assert_eq!(cancelled.len(), 3, "{cancelled:?}");
    assert!(cancelled.contains(&last.as_str()));
}
