//! The client against job services that misbehave, and one that behaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use expect_test::expect;
use purlin_proto::job_management as api;
use purlin_proto::job_management::job_messages_response::Response as Event;
use purlin_proto::job_management::job_service_server::{JobService, JobServiceServer};
use purlin_proto::job_management::job_state::Enum as State;
use purlin_proto::urns;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::options::{EnvironmentType, PipelineOptions, RunnerKind};
use crate::prelude::*;

/// How the service is to behave.
#[derive(Clone, Default)]
struct Script {
    /// What Prepare answers, if it does not take the pipeline.
    refuse: Option<Status>,
    /// How jobs end; `Running`: when they are cancelled.
    end: Option<State>,
    /// State streams break off this early, always.
    breaks: bool,
    /// The options that it says it has: names and types.
    describes: Option<Vec<(&'static str, api::pipeline_option_type::Enum)>>,
}

struct Fake {
    script: Script,
    cancelled: Notify,
    was_cancelled: AtomicBool,
    prepared: parking_lot::Mutex<Option<api::PrepareJobRequest>>,
}

type Stream<T> = std::pin::Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

fn event(state: State) -> api::JobStateEvent {
    api::JobStateEvent {
        state: state as i32,
        timestamp: None,
    }
}

#[derive(Clone)]
struct Service(Arc<Fake>);

#[tonic::async_trait]
impl JobService for Service {
    type GetStateStreamStream = Stream<api::JobStateEvent>;
    type GetMessageStreamStream = Stream<api::JobMessagesResponse>;

    async fn prepare(
        &self,
        request: Request<api::PrepareJobRequest>,
    ) -> Result<Response<api::PrepareJobResponse>, Status> {
        *self.0.prepared.lock() = Some(request.into_inner());
        match &self.0.script.refuse {
            Some(status) => Err(status.clone()),
            None => Ok(Response::new(api::PrepareJobResponse {
                preparation_id: "p".into(),
                ..Default::default()
            })),
        }
    }

    async fn run(&self, _: Request<api::RunJobRequest>) -> Result<Response<api::RunJobResponse>, Status> {
        Ok(Response::new(api::RunJobResponse { job_id: "j".into() }))
    }

    async fn get_state_stream(
        &self,
        _: Request<api::GetJobStateRequest>,
    ) -> Result<Response<Self::GetStateStreamStream>, Status> {
        let fake = self.0.clone();
        let running = futures::stream::iter([Ok(event(State::Running))]);
        if fake.script.breaks {
            return Ok(Response::new(Box::pin(running)));
        }
        let end = futures::stream::once(async move {
            match fake.script.end {
                Some(end) => Ok(event(end)),
                None => {
                    fake.cancelled.notified().await;
                    Ok(event(State::Cancelled))
                }
            }
        });
        Ok(Response::new(Box::pin(futures::StreamExt::chain(running, end))))
    }

    async fn get_message_stream(
        &self,
        _: Request<api::JobMessagesRequest>,
    ) -> Result<Response<Self::GetMessageStreamStream>, Status> {
        use api::job_message::MessageImportance as Importance;
        let message = |importance: Importance, text: &str| {
            let message = api::JobMessage {
                importance: importance as i32,
                message_text: text.into(),
                ..Default::default()
            };
            Ok(api::JobMessagesResponse {
                response: Some(Event::MessageResponse(message)),
            })
        };
        let messages = [
            message(Importance::JobMessageError, "first trouble"),
            message(Importance::JobMessageBasic, "by the way"),
            message(
                Importance::JobMessageError,
                "transform \"Map\": the user's own error",
            ),
        ];
        Ok(Response::new(Box::pin(futures::stream::iter(messages))))
    }

    async fn get_job_metrics(
        &self,
        _: Request<api::GetJobMetricsRequest>,
    ) -> Result<Response<api::GetJobMetricsResponse>, Status> {
        let labels = [("PTRANSFORM", "t1"), ("NAMESPACE", "ns"), ("NAME", "n")];
        let info = purlin_proto::pipeline::MonitoringInfo {
            urn: urns::metrics::USER_SUM_INT64.into(),
            labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            payload: vec![42].into(),
            ..Default::default()
        };
        let metrics = Some(api::MetricResults {
            attempted: vec![info],
            committed: vec![],
        });
        Ok(Response::new(api::GetJobMetricsResponse { metrics }))
    }

    async fn cancel(
        &self,
        _: Request<api::CancelJobRequest>,
    ) -> Result<Response<api::CancelJobResponse>, Status> {
        self.0.was_cancelled.store(true, Ordering::SeqCst);
        self.0.cancelled.notify_one();
        Ok(Response::new(api::CancelJobResponse::default()))
    }

    async fn drain(
        &self,
        _: Request<api::DrainJobRequest>,
    ) -> Result<Response<api::DrainJobResponse>, Status> {
        Err(Status::unimplemented("no drain"))
    }
    async fn get_jobs(
        &self,
        _: Request<api::GetJobsRequest>,
    ) -> Result<Response<api::GetJobsResponse>, Status> {
        Err(Status::unimplemented("no list"))
    }
    async fn get_state(
        &self,
        _: Request<api::GetJobStateRequest>,
    ) -> Result<Response<api::JobStateEvent>, Status> {
        Err(Status::unimplemented("no state"))
    }
    async fn get_pipeline(
        &self,
        _: Request<api::GetJobPipelineRequest>,
    ) -> Result<Response<api::GetJobPipelineResponse>, Status> {
        Err(Status::unimplemented("no pipeline"))
    }
    async fn describe_pipeline_options(
        &self,
        _: Request<api::DescribePipelineOptionsRequest>,
    ) -> Result<Response<api::DescribePipelineOptionsResponse>, Status> {
        let Some(options) = &self.0.script.describes else {
            return Err(Status::unimplemented("no options"));
        };
        let options = options.iter().map(|&(name, of)| api::PipelineOptionDescriptor {
            name: name.to_owned(),
            r#type: of.into(),
            ..Default::default()
        });
        Ok(Response::new(api::DescribePipelineOptionsResponse {
            options: options.collect(),
        }))
    }
}

async fn serve(script: Script) -> (String, Arc<Fake>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let fake = Arc::new(Fake {
        script,
        cancelled: Notify::new(),
        was_cancelled: AtomicBool::new(false),
        prepared: Default::default(),
    });
    let server =
        tonic::transport::Server::builder().add_service(JobServiceServer::new(Service(fake.clone())));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, fake)
}

fn pipeline() -> Pipeline {
    let p = Pipeline::new();
    p.apply(Create::new([1i64])).map("Map", |n: i64| n);
    p
}

fn at(endpoint: &str) -> PipelineOptions {
    PipelineOptions {
        runner: RunnerKind::Portable,
        job_endpoint: Some(endpoint.to_owned()),
        ..PipelineOptions::default()
    }
}

/// What running says, and that it does not wait forever.
async fn said(options: PipelineOptions) -> String {
    let run = tokio::task::spawn_blocking(move || pipeline().run(&options));
    let result = tokio::time::timeout(Duration::from_secs(60), run).await;
    result
        .expect("it waits forever")
        .unwrap()
        .unwrap_err()
        .to_string()
}

/// A port where nothing listens.
fn dead() -> String {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_where_nothing_listens() {
    let address = dead();
    expect![[r#"nothing listens at HERE; start a job service with `purlin-job-service` or `make job-service`, or give the address of one as --job_endpoint=HOST:PORT"#]]
        .assert_eq(&said(at(&address)).await.replace(&address, "HERE"));
    expect!["localhost cannot be reached: it is not HOST:PORT; give the address of a job service as --job_endpoint=HOST:PORT"]
        .assert_eq(&said(at("localhost")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_not_grpc() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for (answer, expected) in [
        (
            Some("HTTP/1.1 400 Bad Request\r\n\r\n"),
            "it answers \"HTTP/1.1 \"",
        ),
        (Some(""), "it closes the connection"),
        (None, "it does not answer"),
    ] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 24]).await.unwrap();
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                None => std::future::pending().await,
            }
        });
        let text = said(at(&address)).await;
        assert!(
            text.contains("does not speak gRPC") && text.contains(expected),
            "{text}"
        );
        server.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_server_of_another_kind() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tonic::transport::Server::builder().add_routes(tonic::service::Routes::default());
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let text = said(at(&address)).await;
    assert!(text.contains("is no Beam job service"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_is_not_taken() {
    let refuse = Some(Status::invalid_argument("transform \"Map\": no"));
    let (address, _) = serve(Script {
        refuse,
        ..Script::default()
    })
    .await;
    assert_eq!(
        said(at(&address)).await,
        "the runner cannot run this pipeline:\ntransform \"Map\": no"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_tells_its_last_error() {
    let (address, _) = serve(Script {
        end: Some(State::Failed),
        ..Script::default()
    })
    .await;
    assert_eq!(
        said(at(&address)).await,
        "the pipeline failed: transform \"Map\": the user's own error"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_goes_away() {
    let (address, _) = serve(Script {
        breaks: true,
        ..Script::default()
    })
    .await;
    let text = said(at(&address)).await;
    assert!(
        text.contains("is gone") && text.contains("before the job's end"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_done_has_metrics_by_name() {
    let (address, fake) = serve(Script {
        end: Some(State::Done),
        ..Script::default()
    })
    .await;
    let options = at(&address);
    let run = move || {
        let p = pipeline();
        let name = p.build().unwrap().proto.components.unwrap().transforms["t1"]
            .unique_name
            .clone();
        (p.run(&options).unwrap(), name)
    };
    let (result, name) = tokio::task::spawn_blocking(run).await.unwrap();
    assert_eq!(
        (result.state(), result.metrics().counter("ns", "n")),
        (PipelineState::Done, 42)
    );
    assert_eq!(result.metrics().query()[0].key.step, name);

    let prepared = fake.prepared.lock().take().unwrap();
    assert!(!prepared.job_name.is_empty());
    let environments = prepared.pipeline.unwrap().components.unwrap().environments;
    let environment = &environments["rust"];
    assert_eq!(environment.urn, urns::environments::EXTERNAL);
    assert!(
        environment
            .capabilities
            .iter()
            .any(|c| c == urns::protocols::CONTROL_REQUEST_ELEMENTS_EMBEDDING)
    );
    assert!(
        prepared
            .pipeline_options
            .unwrap()
            .fields
            .contains_key("beam:option:job_name:v1")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_cancelled_from_async_code_too() {
    let (address, fake) = serve(Script::default()).await;
    // Blocking calls on a thread of a runtime: they must not panic.
    let handle = pipeline().start(&at(&address)).unwrap();
    // The stream of its states tells that it runs, some time after the start.
    while handle.state() == PipelineState::Starting {
        assert!(!handle.wait_for(Duration::from_millis(1)));
    }
    let refused = handle.drain().unwrap_err().to_string();
    assert!(
        refused.contains("does not drain the job") && refused.contains("no drain"),
        "{refused}"
    );
    assert_eq!(handle.state(), PipelineState::Running);
    handle.cancel();
    assert!(matches!(handle.wait(), Err(RunError::Cancelled)));
    assert!(fake.was_cancelled.load(Ordering::SeqCst));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_worker_needs_travels_with_the_job() {
    let (address, fake) = serve(Script {
        end: Some(State::Done),
        ..Script::default()
    })
    .await;
    let options = PipelineOptions {
        environment_type: Some(EnvironmentType::Process),
        ..at(&address)
    };
    tokio::task::spawn_blocking(move || pipeline().run(&options))
        .await
        .unwrap()
        .unwrap();
    let fields = fake
        .prepared
        .lock()
        .take()
        .unwrap()
        .pipeline_options
        .unwrap()
        .fields;
    for option in ["purlin_build", "purlin_graph", "purlin_arguments"] {
        assert!(
            fields.contains_key(&format!("beam:option:{option}:v1")),
            "{option}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_without_a_place_to_stage_them() {
    let (address, _) = serve(Script {
        end: Some(State::Done),
        ..Script::default()
    })
    .await;
    let options = PipelineOptions {
        environment_type: Some(EnvironmentType::External),
        environment_config: Some("localhost:5000".into()),
        ..at(&address)
    };
    assert!(said(options).await.contains("--artifact_endpoint"));
}

#[tokio::test(flavor = "multi_thread")]
async fn combiners_are_lifted_for_runners_that_do_not() {
    let (address, fake) = serve(Script {
        end: Some(State::Done),
        ..Script::default()
    })
    .await;
    let options = at(&address);
    let run = move || {
        let p = Pipeline::new();
        p.apply(Create::new([("a".to_owned(), 1i64)]))
            .combine_per_key("Sum", Sum::new());
        p.run(&options)
    };
    tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    let prepared = fake.prepared.lock().take().unwrap();
    let transforms = prepared.pipeline.unwrap().components.unwrap().transforms;
    let mut below: Vec<&str> = transforms
        .values()
        .filter_map(|transform| transform.unique_name.strip_prefix("Sum/"))
        .collect();
    below.sort_unstable();
    assert_eq!(below, ["ExtractOutputs", "Group", "Merge", "Precombine"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn options_of_the_runner_are_checked_against_what_it_describes() {
    use api::pipeline_option_type::Enum as Type;
    let (address, fake) = serve(Script {
        end: Some(State::Done),
        describes: Some(vec![
            ("parallelism", Type::Integer),
            ("object_reuse", Type::Boolean),
        ]),
        ..Script::default()
    })
    .await;
    let with = |options: &[&str]| PipelineOptions {
        runner_options: options.iter().map(|&option| option.to_owned()).collect(),
        ..at(&address)
    };
    let text = said(with(&["paralelism=2", "parallelism=two"])).await;
    assert_eq!(
        text.replace(&address, "HERE"),
        "--paralelism: neither this program nor the runner at HERE has this option; did you mean --parallelism?\n\
         --parallelism: \"two\" does not do; its type is integer, so the runner at HERE takes a whole number"
    );
    assert!(fake.prepared.lock().is_none());

    let options = with(&["parallelism=2", "object_reuse"]);
    let run = tokio::task::spawn_blocking(move || pipeline().run(&options));
    run.await.unwrap().unwrap();
    let prepared = fake.prepared.lock().take().unwrap();
    let fields = prepared.pipeline_options.unwrap().fields;
    let kind = |name: &str| fields[&format!("beam:option:{name}:v1")].kind.clone().unwrap();
    use prost_types::value::Kind;
    assert_eq!(kind("parallelism"), Kind::StringValue("2".to_owned()));
    assert_eq!(kind("object_reuse"), Kind::BoolValue(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_describes_nothing_gets_options_as_they_are() {
    let (address, fake) = serve(Script {
        end: Some(State::Done),
        ..Script::default()
    })
    .await;
    let options = PipelineOptions {
        runner_options: vec!["parallelism=2".to_owned()],
        ..at(&address)
    };
    tokio::task::spawn_blocking(move || pipeline().run(&options))
        .await
        .unwrap()
        .unwrap();
    let prepared = fake.prepared.lock().take().unwrap();
    assert!(
        prepared
            .pipeline_options
            .unwrap()
            .fields
            .contains_key("beam:option:parallelism:v1")
    );
}
