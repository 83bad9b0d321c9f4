//! A scripted SDK harness over real gRPC against the server.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use purlin_proto::fn_execution::beam_fn_control_client::BeamFnControlClient;
use purlin_proto::fn_execution::beam_fn_data_client::BeamFnDataClient;
use purlin_proto::fn_execution::beam_fn_logging_client::BeamFnLoggingClient;
use purlin_proto::fn_execution::beam_fn_state_client::BeamFnStateClient;
use purlin_proto::fn_execution::beam_fn_worker_status_client::BeamFnWorkerStatusClient;
use purlin_proto::fn_execution::provision_service_client::ProvisionServiceClient;
use purlin_proto::fn_execution::{self as fnapi, instruction_request, instruction_response};
use purlin_proto::{pipeline, urns};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Streaming};

use super::collector::{data_entry, timer_entry};
use super::{FnApiServer, FnApiSettings, GrpcWorker};
use crate::worker::{BundleWork, StartWorker, StateHandler, WorkInput, Worker, WorkerError};

struct NoState;

impl StateHandler for NoState {
    fn handle(&self, request: fnapi::StateRequest) -> fnapi::StateResponse {
        let data = Bytes::from(format!("state of {}", request.instruction_id));
        let get = fnapi::StateGetResponse {
            data,
            continuation_token: Bytes::new(),
        };
        fnapi::StateResponse {
            response: Some(fnapi::state_response::Response::Get(get)),
            ..Default::default()
        }
    }
}

fn start(id: &str, capabilities: &[&str]) -> StartWorker {
    StartWorker {
        worker_id: id.into(),
        environment_id: "env".into(),
        environment: pipeline::Environment {
            capabilities: capabilities.iter().map(|c| (*c).to_owned()).collect(),
            ..Default::default()
        },
        pipeline_options: Default::default(),
        job_id: "job".into(),
        retrieval_token: "token".into(),
        had_one: false,
    }
}

fn work(instruction: &str, input: Vec<WorkInput>) -> BundleWork {
    BundleWork {
        instruction: instruction.into(),
        descriptor: Arc::new(fnapi::ProcessBundleDescriptor {
            id: "d".into(),
            ..Default::default()
        }),
        input,
        timer_families: vec![("t".into(), "f".into())],
        source: "source".into(),
        sinks: vec!["sink".into()],
        cache_tokens: vec![],
        state: Arc::new(NoState),
    }
}

async fn server() -> FnApiServer {
    FnApiServer::bind(FnApiSettings::default()).await.unwrap()
}

async fn channel(server: &FnApiServer) -> Channel {
    Endpoint::from_shared(format!("http://{}", server.url()))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

fn tagged<T>(id: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("worker_id", id.parse().unwrap());
    request
}

/// The SDK's side of one worker.
struct Sdk {
    id: String,
    channel: Channel,
    answers: mpsc::UnboundedSender<fnapi::InstructionResponse>,
    requests: Streaming<fnapi::InstructionRequest>,
}

struct Data {
    out: mpsc::UnboundedSender<fnapi::Elements>,
    input: Streaming<fnapi::Elements>,
}

impl Sdk {
    async fn connect(server: &FnApiServer, id: &str) -> Self {
        let channel = channel(server).await;
        let (answers, rx) = mpsc::unbounded_channel();
        let mut control = BeamFnControlClient::new(channel.clone());
        let requests = control
            .control(tagged(id, UnboundedReceiverStream::new(rx)))
            .await
            .unwrap()
            .into_inner();
        Self {
            id: id.into(),
            channel,
            answers,
            requests,
        }
    }

    async fn data(&self) -> Data {
        let (out, rx) = mpsc::unbounded_channel();
        let mut client = BeamFnDataClient::new(self.channel.clone())
            .max_decoding_message_size(purlin_net::MAX_MESSAGE_BYTES);
        let input = client
            .data(tagged(&self.id, UnboundedReceiverStream::new(rx)))
            .await
            .unwrap()
            .into_inner();
        Data { out, input }
    }

    async fn request(&mut self) -> (String, instruction_request::Request) {
        let request = self.requests.message().await.unwrap().unwrap();
        (request.instruction_id, request.request.unwrap())
    }

    fn respond(&self, id: &str, error: &str, response: Option<instruction_response::Response>) {
        let response = fnapi::InstructionResponse {
            instruction_id: id.into(),
            error: error.into(),
            response,
        };
        self.answers.send(response).unwrap();
    }

    fn done(&self, id: &str) {
        let response = fnapi::ProcessBundleResponse::default();
        self.respond(
            id,
            "",
            Some(instruction_response::Response::ProcessBundle(response)),
        );
    }
}

async fn worker(server: &FnApiServer, id: &str, capabilities: &[&str]) -> (GrpcWorker, Sdk) {
    let worker = server.expect(&start(id, capabilities)).unwrap();
    let sdk = Sdk::connect(server, id).await;
    worker.connected().await.unwrap();
    (worker, sdk)
}

fn closes(instruction: &str) -> fnapi::Elements {
    fnapi::Elements {
        data: vec![data_entry(instruction, "sink", Bytes::new(), true)],
        timers: vec![timer_entry(instruction, "t", "f", Bytes::new(), true)],
    }
}

#[tokio::test]
async fn a_bundle_goes_out_and_comes_back() {
    let server = server().await;
    let (worker, mut sdk) = worker(&server, "w", &[]).await;
    let bundle =
        tokio::spawn(worker.process(work("b1", vec![WorkInput::Elements(Bytes::from_static(b"abc"))])));

    let (id, request) = sdk.request().await;
    let instruction_request::Request::ProcessBundle(request) = request else {
        panic!("{request:?}")
    };
    assert_eq!((id.as_str(), request.elements), ("b1", None));
    let mut control = BeamFnControlClient::new(sdk.channel.clone());
    let ask = fnapi::GetProcessBundleDescriptorRequest {
        process_bundle_descriptor_id: "d".into(),
    };
    let descriptor = control
        .get_process_bundle_descriptor(tagged("w", ask))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(descriptor.state_api_service_descriptor.unwrap().url, server.url());

    let mut data = sdk.data().await;
    let input = data.input.message().await.unwrap().unwrap();
    assert_eq!(input.data[0].data, "abc");
    assert!(input.data[1].is_last && input.timers[0].is_last);

    let (asks, rx) = mpsc::unbounded_channel();
    let mut state = BeamFnStateClient::new(sdk.channel.clone());
    let mut states = state
        .state(tagged("w", UnboundedReceiverStream::new(rx)))
        .await
        .unwrap()
        .into_inner();
    for (id, instruction) in [("1", "b1"), ("2", "nobody")] {
        asks.send(fnapi::StateRequest {
            id: id.into(),
            instruction_id: instruction.into(),
            ..Default::default()
        })
        .unwrap();
    }
    let mut answers = [
        states.message().await.unwrap().unwrap(),
        states.message().await.unwrap().unwrap(),
    ];
    answers.sort_by(|a, b| a.id.cmp(&b.id));
    assert!(
        matches!(&answers[0].response, Some(fnapi::state_response::Response::Get(get)) if get.data == "state of b1")
    );
    assert!(
        answers[1].error.contains("no bundle \"nobody\""),
        "{}",
        answers[1].error
    );

    let out = fnapi::Elements {
        data: vec![data_entry("b1", "sink", Bytes::from_static(b"xyz"), false)],
        timers: vec![],
    };
    data.out.send(out).unwrap();
    sdk.done("b1");
    data.out.send(closes("b1")).unwrap();
    let outcome = bundle.await.unwrap().unwrap();
    assert_eq!(outcome.outputs, [("sink".to_owned(), Bytes::from_static(b"xyz"))]);
}

/// Answers a bundle, and tells what it was called, what its descriptor is called, and its tokens.
async fn answer(sdk: &mut Sdk, error: &str) -> (String, String, Vec<Bytes>) {
    let (id, request) = sdk.request().await;
    let instruction_request::Request::ProcessBundle(request) = request else {
        panic!("{request:?}")
    };
    let response = fnapi::ProcessBundleResponse {
        elements: Some(closes(&id)),
        ..Default::default()
    };
    let response = Some(instruction_response::Response::ProcessBundle(response));
    sdk.respond(&id, error, response);
    let tokens = request.cache_tokens.into_iter().map(|token| token.token);
    (id, request.process_bundle_descriptor_id, tokens.collect())
}

#[tokio::test]
async fn a_worker_does_not_mix_up_its_jobs() {
    let embedding = [urns::protocols::CONTROL_REQUEST_ELEMENTS_EMBEDDING];
    let server = server().await;
    let (worker, mut sdk) = worker(&server, "w", &embedding).await;
    // Each job calls its first bundle, its descriptor and its token the same.
    let first = || {
        let mut work = work("b1", vec![]);
        work.cache_tokens.push(fnapi::process_bundle_request::CacheToken {
            token: Bytes::from_static(b"t"),
            ..Default::default()
        });
        work
    };
    let mut seen = Vec::new();
    for job in ["job", "job2", "job3"] {
        if job != "job" {
            assert!(worker.is_reusable());
            worker.adopt("env", job);
        }
        assert_eq!(worker.connection().identity().job_id, job);
        let (outcome, called) = tokio::join!(worker.process(first()), answer(&mut sdk, ""));
        outcome.unwrap();
        let mut control = BeamFnControlClient::new(sdk.channel.clone());
        let ask = fnapi::GetProcessBundleDescriptorRequest {
            process_bundle_descriptor_id: called.1.clone(),
        };
        let descriptor = control
            .get_process_bundle_descriptor(tagged("w", ask))
            .await
            .unwrap();
        assert_eq!(descriptor.into_inner().id, called.1);
        assert!(!seen.contains(&called), "{called:?}");
        seen.push(called);

        let finalize = worker.finalize("b1".into());
        let asked = async {
            let (id, request) = sdk.request().await;
            let response = instruction_response::Response::FinalizeBundle(Default::default());
            sdk.respond(&id, "", Some(response));
            request
        };
        let (finalized, request) = tokio::join!(finalize, asked);
        finalized.unwrap();
        let instruction_request::Request::FinalizeBundle(request) = request else {
            panic!("{request:?}")
        };
        assert_eq!(Some(&request.instruction_id), seen.last().map(|(id, ..)| id));
    }
    assert_eq!(
        seen[0],
        ("b1".to_owned(), "d".to_owned(), vec![Bytes::from_static(b"t")])
    );
    assert!(seen[0].2 != seen[1].2 && seen[1].2 != seen[2].2);

    // After a failure, or amid a bundle that nobody wants any more, it is nobody else's.
    let (outcome, _) = tokio::join!(worker.process(first()), answer(&mut sdk, "no"));
    assert!(outcome.is_err() && !worker.is_reusable());
    let (worker, mut sdk) = self::worker(&server, "w2", &embedding).await;
    assert!(worker.is_reusable());
    let abandoned = tokio::spawn(worker.process(first()));
    sdk.request().await;
    assert!(!worker.is_reusable());
    abandoned.abort();
    assert!(abandoned.await.is_err() && !worker.is_reusable());
}

#[tokio::test]
async fn an_sdk_that_takes_embedded_elements_gets_and_gives_them() {
    let server = server().await;
    let (worker, mut sdk) = worker(
        &server,
        "w",
        &[urns::protocols::CONTROL_REQUEST_ELEMENTS_EMBEDDING],
    )
    .await;
    let bundle =
        tokio::spawn(worker.process(work("b1", vec![WorkInput::Elements(Bytes::from_static(b"abc"))])));
    let (id, request) = sdk.request().await;
    let instruction_request::Request::ProcessBundle(request) = request else {
        panic!("{request:?}")
    };
    let elements = request.elements.unwrap();
    assert_eq!(elements.data[0].data, "abc");
    assert!(elements.data[1].is_last && elements.timers[0].is_last);
    let response = fnapi::ProcessBundleResponse {
        elements: Some(closes(&id)),
        ..Default::default()
    };
    sdk.respond(
        &id,
        "",
        Some(instruction_response::Response::ProcessBundle(response)),
    );
    assert!(bundle.await.unwrap().unwrap().outputs.is_empty());
}

#[tokio::test]
async fn an_error_comes_whole_and_ends_the_sending() {
    let server = server().await;
    let (worker, mut sdk) = worker(&server, "w", &[]).await;
    // The worker never opens its data stream, so the input is still to be sent.
    let bundle =
        tokio::spawn(worker.process(work("b1", vec![WorkInput::Elements(Bytes::from_static(b"abc"))])));
    let (id, _) = sdk.request().await;
    sdk.respond(&id, "Traceback\n  line 1\nValueError: user's own", None);
    let error = bundle.await.unwrap().unwrap_err();
    assert!(
        matches!(&error, WorkerError::Failed(text) if text == "Traceback\n  line 1\nValueError: user's own")
    );
}

#[tokio::test]
async fn a_vanished_worker_fails_all_it_had() {
    let server = server().await;
    let (worker, mut sdk) = worker(&server, "w", &[]).await;
    let bundles: Vec<_> = ["b1", "b2"]
        .map(|b| tokio::spawn(worker.process(work(b, vec![]))))
        .into();
    let finalize = tokio::spawn(worker.finalize("b0".into()));
    for _ in 0..3 {
        sdk.request().await;
    }
    drop(sdk);
    for bundle in bundles {
        assert!(matches!(bundle.await.unwrap(), Err(WorkerError::Lost { .. })));
    }
    assert!(matches!(finalize.await.unwrap(), Err(WorkerError::Lost { .. })));
    assert!(worker.lost().await.contains("control stream"));
    assert!(matches!(
        worker.process(work("b3", vec![])).await,
        Err(WorkerError::Lost { .. })
    ));
}

#[tokio::test]
async fn hostile_workers_get_errors() {
    let server = server().await;
    let (worker, mut sdk) = worker(&server, "w", &[]).await;
    let mut control = BeamFnControlClient::new(sdk.channel.clone());
    let code = async |control: &mut BeamFnControlClient<Channel>, request| {
        control.control(request).await.unwrap_err().code()
    };
    let nothing = || tokio_stream::pending::<fnapi::InstructionResponse>();
    assert_eq!(
        code(&mut control, Request::new(nothing())).await,
        Code::InvalidArgument
    );
    assert_eq!(
        code(&mut control, tagged("stranger", nothing())).await,
        Code::NotFound
    );
    assert_eq!(
        code(&mut control, tagged("w", nothing())).await,
        Code::AlreadyExists
    );
    let ask = fnapi::GetProcessBundleDescriptorRequest {
        process_bundle_descriptor_id: "x".into(),
    };
    let error = control
        .get_process_bundle_descriptor(tagged("w", ask))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::NotFound);

    let data = sdk.data().await;
    sdk.respond("never asked", "", None);
    let unknown = fnapi::Elements {
        data: vec![data_entry("never", "sink", Bytes::new(), true)],
        timers: vec![],
    };
    data.out.send(unknown).unwrap();
    let cases = [
        (closes("b1"), "after it had closed"),
        (
            fnapi::Elements {
                data: vec![data_entry("b2", "elsewhere", Bytes::new(), false)],
                timers: vec![],
            },
            "no data sink",
        ),
    ];
    for (i, (elements, expected)) in cases.into_iter().enumerate() {
        let id = format!("b{}", i + 1);
        let bundle = tokio::spawn(worker.process(work(&id, vec![])));
        sdk.request().await;
        data.out.send(elements.clone()).unwrap();
        data.out.send(elements).unwrap();
        let error = bundle.await.unwrap().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    // The worker is none the worse for it.
    let bundle = tokio::spawn(worker.process(work("b3", vec![])));
    sdk.request().await;
    data.out.send(closes("b3")).unwrap();
    sdk.done("b3");
    bundle.await.unwrap().unwrap();
}

#[tokio::test]
async fn progress_of_an_unknown_bundle_is_none() {
    let server = server().await;
    let (worker, mut sdk) = worker(&server, "w", &[]).await;
    for answer in ["", "no such bundle"] {
        let progress = tokio::spawn(worker.progress("b9".into()));
        let (id, _) = sdk.request().await;
        let empty = fnapi::ProcessBundleProgressResponse::default();
        let response = instruction_response::Response::ProcessBundleProgress(empty);
        sdk.respond(&id, answer, answer.is_empty().then_some(response));
        assert_eq!(progress.await.unwrap().unwrap(), None);
    }
}

#[tokio::test]
async fn a_stopped_worker_sees_its_streams_end_well() {
    let server = server().await;
    let (worker, mut sdk) = worker(&server, "w", &[]).await;
    let mut data = sdk.data().await;
    worker.stop().await;
    assert!(sdk.requests.message().await.unwrap().is_none());
    assert!(data.input.message().await.unwrap().is_none());
    let lost = tokio::time::timeout(Duration::from_millis(20), worker.lost()).await;
    assert!(lost.is_err(), "a stopped worker is not lost");
    server.shutdown().await;
}

#[tokio::test]
async fn the_logging_stream_ends_with_the_workers() {
    let server = server().await;
    let _worker = server.expect(&start("w", &[])).unwrap();
    let mut client = BeamFnLoggingClient::new(channel(&server).await);
    let entry = fnapi::LogEntry {
        message: "hello".into(),
        ..Default::default()
    };
    let lists = tokio_stream::once(fnapi::log_entry::List {
        log_entries: vec![entry],
    });
    let mut controls = client.logging(tagged("w", lists)).await.unwrap().into_inner();
    // A harness awaits this before its process exits.
    let end = tokio::time::timeout(Duration::from_secs(60), controls.message()).await;
    assert!(end.expect("the stream stays open").unwrap().is_none());
}

#[tokio::test]
async fn a_workers_streams_and_words_are_bounded() {
    let told = Arc::new(Told::default());
    let settings = FnApiSettings {
        log: told.clone(),
        ..Default::default()
    };
    let server = FnApiServer::bind(settings).await.unwrap();
    let _worker = server.expect(&start("w", &[])).unwrap();
    let channel = channel(&server).await;
    let mut state = BeamFnStateClient::new(channel.clone());
    let mut open = async || {
        // The stream ends when its sender is dropped.
        let (sender, nothing) = mpsc::unbounded_channel::<fnapi::StateRequest>();
        let stream = state.state(tagged("w", UnboundedReceiverStream::new(nothing)));
        stream.await.map(|stream| (sender, stream))
    };
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(open().await.unwrap());
    }
    let refused = open().await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("\"w\" has 64 streams"), "{refused}");
    // One that ends makes room.
    streams.pop();
    let again = async { while open().await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(60), again)
        .await
        .expect("no room comes");

    drop(streams);
    let mut log = BeamFnLoggingClient::new(channel);
    let message = "m".repeat(65 << 20);
    let list = || fnapi::log_entry::List {
        log_entries: vec![fnapi::LogEntry {
            message: message.clone(),
            ..Default::default()
        }],
    };
    let mut text = String::new();
    while !text.contains("what worker w logs is not taken: a message of") {
        // There is no room until the streams have ended.
        if let Ok(answer) = log.logging(tagged("w", tokio_stream::once(list()))).await {
            let _ = answer.into_inner().message().await;
        }
        text = told.0.lock().join("\n");
    }
}

#[tokio::test]
async fn provision_info_is_the_workers_own() {
    let server = server().await;
    let _worker = server.expect(&start("w", &[])).unwrap();
    let mut client = ProvisionServiceClient::new(channel(&server).await);
    let info = client
        .get_provision_info(tagged("w", fnapi::GetProvisionInfoRequest {}))
        .await
        .unwrap();
    let info = info.into_inner().info.unwrap();
    assert_eq!(info.retrieval_token, "token");
    assert_eq!(info.control_endpoint.unwrap().url, server.url());
    assert_eq!(info.status_endpoint.unwrap().url, server.url());
    assert!(
        info.runner_capabilities
            .iter()
            .any(|c| c == urns::runner_protocols::CONTROL_RESPONSE_ELEMENTS_EMBEDDING)
    );
    assert!(server.expect(&start("w", &[])).is_err(), "ids are unique");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let server = server().await;
    let port = server.url().rsplit(':').next().unwrap().parse().unwrap();
    let error = FnApiServer::bind(FnApiSettings {
        port,
        ..Default::default()
    })
    .await
    .err()
    .unwrap()
    .to_string();
    assert!(
        error.contains(&port.to_string()) && error.contains("choose another port"),
        "{error}"
    );
}

#[tokio::test]
async fn a_worker_is_asked_how_it_is() {
    let server = server().await;
    let (worker, sdk) = worker(&server, "w", &[]).await;
    let none = worker.status().await.unwrap_err();
    assert!(none.contains("no status stream"), "{none}");
    let (answers, rx) = mpsc::unbounded_channel();
    let mut client = BeamFnWorkerStatusClient::new(sdk.channel.clone());
    let mut questions = client
        .worker_status(tagged("w", UnboundedReceiverStream::new(rx)))
        .await
        .unwrap()
        .into_inner();
    for (error, info) in [("", "all is well"), ("cannot tell", "")] {
        let asked = tokio::spawn(worker.status());
        let question = questions.message().await.unwrap().unwrap();
        let answer = |id: String| fnapi::WorkerStatusResponse {
            id,
            error: error.into(),
            status_info: info.into(),
        };
        // An answer to nothing is no harm.
        answers.send(answer("nobody".into())).unwrap();
        answers.send(answer(question.id)).unwrap();
        let expected = if error.is_empty() {
            Ok(info.to_owned())
        } else {
            Err(error.to_owned())
        };
        assert_eq!(asked.await.unwrap(), expected);
    }
    let asked = tokio::spawn(worker.status());
    questions.message().await.unwrap().unwrap();
    worker.lose("gone");
    assert_eq!(asked.await.unwrap(), Err("it has gone".to_owned()));
}

/// A worker that does not read its input but writes its output is read to the end; what waits for it is bounded.
#[tokio::test]
async fn a_worker_that_does_not_read_is_still_read() {
    let server = server().await;
    let (worker, mut sdk) = worker(&server, "w", &[]).await;
    let mut data = sdk.data().await;
    let input = (0..48)
        .map(|n| WorkInput::Elements(Bytes::from(vec![n; 2 << 20])))
        .collect();
    let mut stuck = tokio::spawn(worker.process(work("stuck", input)));
    let free = tokio::spawn(worker.process(work("free", vec![])));
    for _ in 0..2 {
        sdk.request().await;
    }
    for n in 0..64 {
        let piece = Bytes::from(vec![n; 1 << 20]);
        let out = fnapi::Elements {
            data: ["stuck", "free"]
                .map(|id| data_entry(id, "sink", piece.clone(), false))
                .into(),
            timers: vec![],
        };
        data.out.send(out).unwrap();
    }
    sdk.done("free");
    // The free bundle has no input but its end, which waits in line; its outputs do not.
    data.out.send(closes("free")).unwrap();
    let outcome = free.await.unwrap().unwrap();
    assert_eq!(outcome.outputs.len(), 64);
    assert!(
        tokio::time::timeout(Duration::from_millis(50), &mut stuck)
            .await
            .is_err()
    );
    // It reads at last, and all of it comes, in order.
    let mut read = 0;
    while read < 48 {
        let message = data.input.message().await.unwrap().unwrap();
        for entry in message.data.iter().filter(|entry| !entry.data.is_empty()) {
            assert!(entry.data.iter().all(|&byte| byte == read), "piece {read}");
            read += 1;
        }
    }
    sdk.done("stuck");
    data.out.send(closes("stuck")).unwrap();
    assert_eq!(stuck.await.unwrap().unwrap().outputs.len(), 64);
}

/// LARGE_MIB=1945 passes an element of the 1.9 GiB that gRPC allows, for which this process needs some four times as much.
#[tokio::test]
async fn a_large_element_goes_both_ways() {
    let mebibytes =
        std::env::var("LARGE_MIB").map_or(96, |size| size.parse().expect("LARGE_MIB is a number"));
    let server = server().await;
    let (worker, mut sdk) = worker(&server, "w", &[]).await;
    let mut data = sdk.data().await;
    let element = Bytes::from(vec![3; mebibytes << 20]);
    let bundle = tokio::spawn(worker.process(work("b", vec![WorkInput::Elements(element.clone())])));
    let (id, _) = sdk.request().await;
    let input = data.input.message().await.unwrap().unwrap();
    assert!(input.data[0].data == element && !input.data[0].is_last);
    let out = fnapi::Elements {
        data: vec![data_entry(&id, "sink", element.clone(), false)],
        timers: vec![],
    };
    data.out.send(out).unwrap();
    data.out.send(closes(&id)).unwrap();
    sdk.done(&id);
    assert!(bundle.await.unwrap().unwrap().outputs == [("sink".to_owned(), element)]);
}

/// What the users of jobs are told.
#[derive(Default)]
struct Told(parking_lot::Mutex<Vec<String>>);

impl super::WorkerLog for Told {
    fn log(&self, _: &super::WorkerIdentity, entry: &fnapi::LogEntry) {
        self.0.lock().push(entry.message.clone());
    }
}

#[tokio::test]
async fn a_worker_that_never_answers_is_told_of_and_given_up() {
    let told = Arc::new(Told::default());
    let settings = FnApiSettings {
        log: told.clone(),
        hang_timeout: Some(Duration::from_secs(100)),
        ..Default::default()
    };
    let server = FnApiServer::bind(settings).await.unwrap();
    let (worker, mut sdk) = worker(&server, "w", &[]).await;
    let mut bundle = work("b1", vec![WorkInput::Elements(Bytes::from_static(b"abc"))]);
    let mut descriptor = fnapi::ProcessBundleDescriptor::clone(&bundle.descriptor);
    let transform = pipeline::PTransform {
        unique_name: "Count words".into(),
        ..Default::default()
    };
    descriptor.transforms.insert("t".into(), transform);
    bundle.descriptor = Arc::new(descriptor);
    let bundle = tokio::spawn(worker.process(bundle));
    assert_eq!(sdk.request().await.0, "b1");
    // From here on time passes whenever nothing else happens.
    tokio::time::pause();
    let error = bundle.await.unwrap().unwrap_err();
    let WorkerError::Start { environment, reason } = error else {
        panic!("{error:?}")
    };
    assert_eq!(environment, "env");
    assert!(
        reason.contains("worker w") && reason.contains("for 100 s"),
        "{reason}"
    );
    let told = told.0.lock().clone();
    assert_eq!(told.len(), 1, "{told:?}");
    for part in [
        "worker w",
        "bundle b1",
        "Count words",
        "for 10 s",
        "until 100 s",
        "it has said nothing",
    ] {
        assert!(told[0].contains(part), "{part} is missing in {told:?}");
    }
}

#[tokio::test]
async fn a_worker_that_answers_anything_may_take_its_time() {
    let told = Arc::new(Told::default());
    let settings = FnApiSettings {
        log: told.clone(),
        hang_timeout: Some(Duration::from_secs(100)),
        ..Default::default()
    };
    let server = FnApiServer::bind(settings).await.unwrap();
    let (worker, mut sdk) = worker(&server, "w", &[]).await;
    let bundle = tokio::spawn(worker.process(work("b1", Vec::new())));
    assert_eq!(sdk.request().await.0, "b1");
    let progress = tokio::spawn(worker.progress("b1".into()));
    let (id, _) = sdk.request().await;
    let answer = instruction_response::Response::ProcessBundleProgress(Default::default());
    sdk.respond(&id, "", Some(answer));
    assert_eq!(progress.await.unwrap().unwrap(), None);
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(1000)).await;
    tokio::time::resume();
    assert!(!bundle.is_finished());
    assert_eq!(told.0.lock().len(), 0);
    sdk.done("b1");
    let data = sdk.data().await;
    data.out.send(closes("b1")).unwrap();
    bundle.await.unwrap().unwrap();
}
