//! The harness against a runner that is a handful of channels, over real gRPC.

mod state;
mod streams;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use purlin_model::{Element, Header};
use purlin_proto::fn_execution::{self as fnapi, elements, instruction_request, instruction_response};
use purlin_proto::fn_execution::{
    beam_fn_control_server, beam_fn_data_server, beam_fn_logging_server, beam_fn_state_server,
};
use purlin_proto::{pipeline as beam, urns};
use purlin_runner::translate::{PlanOptions, plan, with_endpoints};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::control::Harness;
use super::{HarnessError, HarnessSettings, LogLayer};
use crate::prelude::*;

type Sent<T> = mpsc::UnboundedSender<Result<T, Status>>;
type ToSend<T> = Mutex<Option<mpsc::UnboundedReceiver<Result<T, Status>>>>;

/// The runner's services.
#[derive(Clone)]
struct Services(Arc<Ends>);

struct Ends {
    control: ToSend<fnapi::InstructionRequest>,
    data: ToSend<fnapi::Elements>,
    answers: mpsc::UnboundedSender<fnapi::InstructionResponse>,
    outputs: mpsc::UnboundedSender<fnapi::Elements>,
    logs: mpsc::UnboundedSender<fnapi::LogEntry>,
    descriptor: Mutex<fnapi::ProcessBundleDescriptor>,
    /// Pages of the side input, and of every state.
    side: Vec<Bytes>,
    /// State requests are answered when so many wait.
    together: AtomicUsize,
    /// State requests that have come.
    asked: AtomicUsize,
    callers: Mutex<Vec<String>>,
    /// Held while the logging stream's answers are open.
    log_controls: Mutex<Option<Sent<fnapi::LogControl>>>,
    /// Which streams the worker has ended.
    ended: mpsc::UnboundedSender<&'static str>,
}

impl Services {
    /// Passes on what comes by a stream, and tells of its end.
    fn pump<T: Send + 'static>(
        &self,
        stream: &'static str,
        mut from: Streaming<T>,
        to: mpsc::UnboundedSender<T>,
    ) {
        let ended = self.0.ended.clone();
        tokio::spawn(async move {
            while let Ok(Some(message)) = from.message().await {
                if to.send(message).is_err() {
                    return;
                }
            }
            // The test may be over.
            let _ = ended.send(stream);
        });
    }

    fn call<T>(&self, request: &Request<T>) {
        let id = request
            .metadata()
            .get("worker_id")
            .map_or("", |v| v.to_str().unwrap());
        self.0.callers.lock().push(id.to_owned());
    }
}

#[tonic::async_trait]
impl beam_fn_control_server::BeamFnControl for Services {
    type ControlStream = UnboundedReceiverStream<Result<fnapi::InstructionRequest, Status>>;

    async fn control(
        &self,
        request: Request<Streaming<fnapi::InstructionResponse>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        self.call(&request);
        self.pump("control", request.into_inner(), self.0.answers.clone());
        Ok(Response::new(UnboundedReceiverStream::new(
            self.0.control.lock().take().unwrap(),
        )))
    }

    async fn get_process_bundle_descriptor(
        &self,
        request: Request<fnapi::GetProcessBundleDescriptorRequest>,
    ) -> Result<Response<fnapi::ProcessBundleDescriptor>, Status> {
        self.call(&request);
        let descriptor = self.0.descriptor.lock().clone();
        match descriptor.id == request.get_ref().process_bundle_descriptor_id {
            true => Ok(Response::new(descriptor)),
            false => Err(Status::not_found("no such descriptor")),
        }
    }
}

#[tonic::async_trait]
impl beam_fn_data_server::BeamFnData for Services {
    type DataStream = UnboundedReceiverStream<Result<fnapi::Elements, Status>>;

    async fn data(
        &self,
        request: Request<Streaming<fnapi::Elements>>,
    ) -> Result<Response<Self::DataStream>, Status> {
        self.call(&request);
        self.pump("data", request.into_inner(), self.0.outputs.clone());
        Ok(Response::new(UnboundedReceiverStream::new(
            self.0.data.lock().take().unwrap(),
        )))
    }
}

#[tonic::async_trait]
impl beam_fn_state_server::BeamFnState for Services {
    type StateStream = UnboundedReceiverStream<Result<fnapi::StateResponse, Status>>;

    async fn state(
        &self,
        request: Request<Streaming<fnapi::StateRequest>>,
    ) -> Result<Response<Self::StateStream>, Status> {
        self.call(&request);
        let (to, from) = mpsc::unbounded_channel();
        let mut requests = request.into_inner();
        let ends = self.0.clone();
        tokio::spawn(async move {
            let mut waiting = Vec::new();
            loop {
                // Beyond the wait of any machine, so that a test that hangs fails.
                let next = tokio::time::timeout(std::time::Duration::from_secs(60), requests.message()).await;
                let error = match next {
                    Ok(Ok(Some(request))) => {
                        ends.asked.fetch_add(1, Ordering::SeqCst);
                        waiting.push(request);
                        ""
                    }
                    Err(_) if !waiting.is_empty() => "no other request came along",
                    Err(_) => continue,
                    Ok(_) => return,
                };
                if error.is_empty() && waiting.len() < ends.together.load(Ordering::SeqCst) {
                    continue;
                }
                for request in waiting.drain(..) {
                    let Some(fnapi::state_request::Request::Get(get)) = request.request else {
                        continue;
                    };
                    let page = usize::from(get.continuation_token.first().copied().unwrap_or(0));
                    let more = page + 1 < ends.side.len();
                    let got = fnapi::StateGetResponse {
                        continuation_token: if more {
                            Bytes::from(vec![page as u8 + 1])
                        } else {
                            Bytes::new()
                        },
                        data: ends.side.get(page).cloned().unwrap_or_default(),
                    };
                    let response = Some(fnapi::state_response::Response::Get(got));
                    to.send(Ok(fnapi::StateResponse {
                        id: request.id,
                        error: error.to_owned(),
                        response,
                    }))
                    .unwrap();
                }
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(from)))
    }
}

#[tonic::async_trait]
impl beam_fn_logging_server::BeamFnLogging for Services {
    type LoggingStream = UnboundedReceiverStream<Result<fnapi::LogControl, Status>>;

    async fn logging(
        &self,
        request: Request<Streaming<fnapi::log_entry::List>>,
    ) -> Result<Response<Self::LoggingStream>, Status> {
        self.call(&request);
        let mut lists = request.into_inner();
        let (logs, ended) = (self.0.logs.clone(), self.0.ended.clone());
        tokio::spawn(async move {
            while let Ok(Some(list)) = lists.message().await {
                list.log_entries
                    .into_iter()
                    .for_each(|entry| drop(logs.send(entry)));
            }
            // The test may be over.
            let _ = ended.send("logging");
        });
        let (controls, open) = mpsc::unbounded_channel();
        *self.0.log_controls.lock() = Some(controls);
        Ok(Response::new(UnboundedReceiverStream::new(open)))
    }
}

/// A runner with one harness.
struct Runner {
    control: Option<Sent<fnapi::InstructionRequest>>,
    data: Sent<fnapi::Elements>,
    answers: mpsc::UnboundedReceiver<fnapi::InstructionResponse>,
    outputs: mpsc::UnboundedReceiver<fnapi::Elements>,
    logs: mpsc::UnboundedReceiver<fnapi::LogEntry>,
    ended: mpsc::UnboundedReceiver<&'static str>,
    services: Services,
    harness: JoinHandle<Result<(), HarnessError>>,
    source: String,
    sink: String,
}

/// Values of the one type that the tests' stages take, as their windowed coder has them.
fn encoded<T: Element>(values: &[T]) -> Bytes {
    let mut out = Vec::new();
    for value in values {
        Header::IMPULSE.encode(&mut out);
        value.encode(&mut out, true);
    }
    out.into()
}

impl Runner {
    /// Makes the stage that has the transform `step`, between two shuffles.
    async fn start(p: &Pipeline, step: &str, capabilities: &[&str], side: Vec<Bytes>) -> Runner {
        // Whichever test is first; the others find it there.
        let _ = tracing_subscriber::registry().with(LogLayer).try_init();
        let built = p.build().unwrap();
        let planned = plan(&built.proto, &PlanOptions::default()).unwrap();
        let has_step =
            |d: &fnapi::ProcessBundleDescriptor| d.transforms.values().any(|t| t.unique_name == step);
        let stage = planned.stages().iter().find(|s| has_step(&s.descriptor)).unwrap();

        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let endpoint = beam::ApiServiceDescriptor {
            url: address.clone(),
            authentication: None,
        };
        let descriptor = with_endpoints(&stage.descriptor, &endpoint, &endpoint);
        let find = |urn: &str| {
            let mut found = descriptor
                .transforms
                .iter()
                .filter(|(_, t)| t.spec.as_ref().is_some_and(|s| s.urn == urn));
            found.next().map(|(id, _)| id.clone()).unwrap_or_default()
        };
        let (source, sink) = (
            find(urns::runner_transforms::DATA_SOURCE),
            find(urns::runner_transforms::DATA_SINK),
        );

        let (control, control_end) = mpsc::unbounded_channel();
        let (data, data_end) = mpsc::unbounded_channel();
        let (answers_end, answers) = mpsc::unbounded_channel();
        let (outputs_end, outputs) = mpsc::unbounded_channel();
        let (logs_end, logs) = mpsc::unbounded_channel();
        let (ended_end, ended) = mpsc::unbounded_channel();
        let services = Services(Arc::new(Ends {
            control: Mutex::new(Some(control_end)),
            data: Mutex::new(Some(data_end)),
            answers: answers_end,
            outputs: outputs_end,
            logs: logs_end,
            descriptor: Mutex::new(descriptor),
            side,
            together: AtomicUsize::new(1),
            asked: AtomicUsize::default(),
            callers: Mutex::default(),
            log_controls: Mutex::default(),
            ended: ended_end,
        }));
        let data_service =
            beam_fn_data_server::BeamFnDataServer::new(services.clone()).max_decoding_message_size(64 << 20);
        let serve = tonic::transport::Server::builder()
            .add_service(beam_fn_control_server::BeamFnControlServer::new(services.clone()))
            .add_service(data_service)
            .add_service(beam_fn_state_server::BeamFnStateServer::new(services.clone()))
            .add_service(beam_fn_logging_server::BeamFnLoggingServer::new(services.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serve);

        let settings = HarnessSettings {
            worker_id: "w1".into(),
            control: address.clone(),
            logging: Some(address),
            status: None,
            runner_capabilities: capabilities.iter().map(|c| (*c).to_owned()).collect(),
            registry: built.registry,
        };
        let harness = Harness::connect(settings).await.unwrap();
        let harness = tokio::spawn(harness.serve(std::future::pending()));
        Runner {
            control: Some(control),
            data,
            answers,
            outputs,
            logs,
            ended,
            services,
            harness,
            source,
            sink,
        }
    }

    fn ask(&self, instruction: &str, request: instruction_request::Request) {
        let request = fnapi::InstructionRequest {
            instruction_id: instruction.into(),
            request: Some(request),
        };
        self.control.as_ref().unwrap().send(Ok(request)).unwrap();
    }

    fn bundle(&self, instruction: &str) {
        let descriptor = self.services.0.descriptor.lock().id.clone();
        self.ask(
            instruction,
            instruction_request::Request::ProcessBundle(fnapi::ProcessBundleRequest {
                process_bundle_descriptor_id: descriptor,
                ..Default::default()
            }),
        );
    }

    fn piece(&self, instruction: &str, data: Bytes, is_last: bool) -> fnapi::Elements {
        let data = elements::Data {
            instruction_id: instruction.into(),
            transform_id: self.source.clone(),
            data,
            is_last,
        };
        fnapi::Elements {
            data: vec![data],
            timers: Vec::new(),
        }
    }

    fn send(&self, instruction: &str, data: Bytes, is_last: bool) {
        self.data
            .send(Ok(self.piece(instruction, data, is_last)))
            .unwrap();
    }

    async fn answer(&mut self) -> fnapi::InstructionResponse {
        self.answers.recv().await.unwrap()
    }

    /// The output of a bundle, up to its `is_last`, and the sizes of the messages.
    async fn output(&mut self, instruction: &str) -> (Vec<u8>, Vec<usize>) {
        let (mut all, mut sizes) = (Vec::new(), Vec::new());
        loop {
            let message = self.outputs.recv().await.unwrap();
            sizes.push(message.data.iter().map(|d| d.data.len()).sum());
            for data in message.data {
                assert_eq!(
                    (data.instruction_id.as_str(), &data.transform_id),
                    (instruction, &self.sink)
                );
                all.extend_from_slice(&data.data);
                if data.is_last {
                    return (all, sizes);
                }
            }
        }
    }
}

fn done(response: fnapi::InstructionResponse) -> fnapi::ProcessBundleResponse {
    match (response.error.as_str(), response.response) {
        ("", Some(instruction_response::Response::ProcessBundle(done))) => done,
        (error, other) => panic!("{error:?} {other:?}"),
    }
}

/// A pipeline with a stage around one step: from numbers to numbers.
fn around(step: impl FnOnce(PCollection<i64>) -> PCollection<i64>) -> Pipeline {
    let p = Pipeline::new();
    step(p.apply(Create::new([0i64])).reshuffle("Before")).reshuffle("After");
    p
}

fn negate() -> Pipeline {
    around(|numbers| numbers.map("Negate", |n: i64| -n))
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_go_through_in_pieces_and_bear_the_workers_id() {
    let mut runner = Runner::start(&negate(), "Negate", &[], vec![]).await;
    for instruction in ["b1", "b2"] {
        runner.bundle(instruction);
        runner.send(instruction, encoded(&[1i64, 2]), false);
        runner.send(instruction, encoded(&[3i64]), true);
        assert_eq!(runner.output(instruction).await.0, encoded(&[-1i64, -2, -3]));
        let response = runner.answer().await;
        assert_eq!(response.instruction_id, instruction);
        let response = done(response);
        assert!(response.elements.is_none() && response.monitoring_data.is_empty());
        let counts = response
            .monitoring_infos
            .iter()
            .filter(|i| i.urn == urns::metrics::ELEMENT_COUNT);
        assert!(counts.map(|i| i.payload.as_ref()).all(|payload| payload == [3]));
    }
    assert!(runner.services.0.callers.lock().iter().all(|id| id == "w1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn data_may_come_before_its_bundle() {
    let mut runner = Runner::start(&negate(), "Negate", &[], vec![]).await;
    // The data stream is there after the first bundle.
    runner.bundle("b0");
    runner.send("b0", Bytes::new(), true);
    done(runner.answer().await);
    runner.output("b0").await;
    runner.send("b1", encoded(&[7i64]), true);
    runner.bundle("b1");
    assert_eq!(runner.output("b1").await.0, encoded(&[-7i64]));
    done(runner.answer().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_bundles_run_at_once() {
    let mut runner = Runner::start(&negate(), "Negate", &[], vec![]).await;
    let bundles = ["b1", "b2", "b3"];
    bundles.iter().for_each(|b| runner.bundle(b));
    for bundle in bundles.iter().rev() {
        runner.send(bundle, encoded(&[5i64]), true);
        assert_eq!(runner.output(bundle).await.0, encoded(&[-5i64]));
        assert_eq!(&runner.answer().await.instruction_id, bundle);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn small_bundles_travel_in_requests_and_responses() {
    let capabilities = [
        urns::runner_protocols::CONTROL_RESPONSE_ELEMENTS_EMBEDDING,
        urns::runner_protocols::MONITORING_INFO_SHORT_IDS,
    ];
    let mut runner = Runner::start(&negate(), "Negate", &capabilities, vec![]).await;
    let descriptor = runner.services.0.descriptor.lock().id.clone();
    let request = |elements| {
        instruction_request::Request::ProcessBundle(fnapi::ProcessBundleRequest {
            process_bundle_descriptor_id: descriptor.clone(),
            elements: Some(elements),
            ..Default::default()
        })
    };
    runner.ask("b1", request(runner.piece("b1", encoded(&[1i64, 2]), true)));
    let response = done(runner.answer().await);
    let data = response.elements.unwrap().data;
    let bytes: Vec<u8> = data.iter().flat_map(|d| d.data.to_vec()).collect();
    assert_eq!(bytes, encoded(&[-1i64, -2]));
    assert!(data.last().unwrap().is_last && data.iter().all(|d| d.transform_id == runner.sink));
    assert!(
        runner.outputs.try_recv().is_err(),
        "nothing goes by the data stream"
    );

    assert!(response.monitoring_infos.is_empty());
    let ids: Vec<String> = response.monitoring_data.keys().cloned().collect();
    let metadata = fnapi::MonitoringInfosMetadataRequest {
        monitoring_info_id: ids.clone(),
    };
    runner.ask("q1", instruction_request::Request::MonitoringInfos(metadata));
    let Some(instruction_response::Response::MonitoringInfos(infos)) = runner.answer().await.response else {
        panic!("no infos")
    };
    assert!(!ids.is_empty() && infos.monitoring_info.len() == ids.len());

    runner.ask("b2", request(runner.piece("b2", encoded(&[1i64]), false)));
    assert!(runner.answer().await.error.contains("lack is_last"));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_and_panics_name_the_transform_and_the_next_bundle_is_well() {
    let p = around(|numbers| {
        numbers.try_map("Picky", |n: i64| match n {
            13 => Err("unlucky"),
            14 => panic!("fourteen"),
            n => Ok(n),
        })
    });
    let mut runner = Runner::start(&p, "Picky", &[], vec![]).await;
    for (bundle, number, error) in [("b1", 13, "unlucky"), ("b2", 14, "fourteen"), ("b3", 15, "")] {
        runner.bundle(bundle);
        runner.send(bundle, encoded::<i64>(&[number]), true);
        let response = runner.answer().await;
        assert_eq!(response.instruction_id, bundle);
        if error.is_empty() {
            done(response);
        } else {
            assert!(
                response.error.contains("Picky") && response.error.contains(error),
                "{}",
                response.error
            );
        }
    }
    assert_eq!(runner.output("b3").await.0, encoded(&[15i64]));
}

#[derive(Clone)]
struct AddAll(SideInput<crate::side_input::List<i64>>);

impl DoFn for AddAll {
    type In = i64;
    type Out = i64;
    fn process(&mut self, n: i64, ctx: &mut Context<'_, i64>) -> crate::DoFnResult {
        let sum: i64 = ctx.side(&self.0)?.iter().sum();
        ctx.output(n + sum);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn side_inputs_come_in_pages_over_the_state_stream() {
    let p = Pipeline::new();
    let side = p.apply_named("Side", Create::new([0i64])).as_list();
    let main = p.apply(Create::new([0i64])).reshuffle("Before");
    main.apply(ParDo::new("AddAll", AddAll(side.clone())).with_side_input(&side))
        .reshuffle("After");
    let page = |values: &[i64]| {
        let mut out = Vec::new();
        values.iter().for_each(|v| v.encode(&mut out, true));
        Bytes::from(out)
    };
    let mut runner = Runner::start(&p, "AddAll", &[], vec![page(&[1, 2]), page(&[30])]).await;
    runner.bundle("b1");
    runner.send("b1", encoded(&[100i64, 200]), true);
    let output = runner.output("b1").await.0;
    assert_eq!(output, encoded(&[133i64, 233]));
    done(runner.answer().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_output_is_sent_as_it_comes_in_bounded_messages() {
    let p = Pipeline::new();
    let numbers = p.apply(Create::new([0i64])).reshuffle("Before");
    numbers
        .map("Blow", |n: i64| "x".repeat(n as usize))
        .reshuffle("After");
    let mut runner = Runner::start(&p, "Blow", &[], vec![]).await;
    runner.bundle("b1");
    for _ in 0..20 {
        runner.send("b1", encoded(&[1_000_000i64]), false);
    }
    // 16 MB have gone before the bundle has ended.
    let mut early = 0;
    while early < 16_000_000 {
        let message = runner.outputs.recv().await.unwrap();
        let size: usize = message.data.iter().map(|d| d.data.len()).sum();
        assert!(size <= 4 << 20, "a message of {size} bytes");
        early += size;
    }
    assert!(runner.answers.try_recv().is_err());
    runner.send("b1", encoded(&[9_000_000i64]), true);
    let (rest, sizes) = runner.output("b1").await;
    assert_eq!(
        early + rest.len(),
        encoded(&["x".repeat(1_000_000)]).len() * 20 + encoded(&["x".repeat(9_000_000)]).len()
    );
    assert!(
        sizes.iter().any(|size| *size > 9_000_000),
        "an element stays whole"
    );
    done(runner.answer().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn splits_and_progress_reach_the_running_bundle_only() {
    let seen = Arc::new(AtomicUsize::new(0));
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let (count, gate) = (seen.clone(), Arc::new(Mutex::new(gate)));
    let p = around(|numbers| {
        numbers.map("Slow", move |n: i64| {
            count.fetch_add(1, Ordering::SeqCst);
            gate.lock().recv().unwrap();
            n
        })
    });
    let mut runner = Runner::start(&p, "Slow", &[], vec![]).await;
    let progress = |of: &str| {
        instruction_request::Request::ProcessBundleProgress(fnapi::ProcessBundleProgressRequest {
            instruction_id: of.into(),
        })
    };
    runner.ask("q0", progress("b1"));
    assert!(runner.answer().await.error.contains("knows no bundle \"b1\""));

    runner.bundle("b1");
    runner.send("b1", encoded(&[0i64, 1, 2, 3, 4, 5, 6, 7]), false);
    while seen.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    runner.ask("q1", progress("b1"));
    let Some(instruction_response::Response::ProcessBundleProgress(now)) = runner.answer().await.response
    else {
        panic!("no progress")
    };
    assert!(
        now.monitoring_infos
            .iter()
            .any(|i| i.urn == urns::metrics::DATA_CHANNEL_READ_INDEX)
    );

    let desired = fnapi::process_bundle_split_request::DesiredSplit {
        fraction_of_remainder: 0.5,
        estimated_input_elements: 8,
        ..Default::default()
    };
    let split = |of: &str| {
        instruction_request::Request::ProcessBundleSplit(fnapi::ProcessBundleSplitRequest {
            instruction_id: of.into(),
            desired_splits: HashMap::from([(runner.source.clone(), desired.clone())]),
        })
    };
    let (first, late) = (split("b1"), split("b1"));
    runner.ask("s1", first);
    let Some(instruction_response::Response::ProcessBundleSplit(got)) = runner.answer().await.response else {
        panic!("no split")
    };
    let channel = got.channel_splits.first().expect("a split of the channel");
    let kept = channel.first_residual_element;
    assert!((2..8).contains(&kept) && channel.last_primary_element == kept - 1);
    (0..8).for_each(|_| go.send(()).unwrap());
    runner.send("b1", encoded(&[8i64]), true);
    assert_eq!(
        runner.output("b1").await.0,
        encoded(&(0..kept).collect::<Vec<i64>>())
    );
    done(runner.answer().await);

    runner.ask("s2", late);
    let Some(instruction_response::Response::ProcessBundleSplit(got)) = runner.answer().await.response else {
        panic!("no split")
    };
    assert!(got.channel_splits.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn user_logs_reach_the_runner_with_their_transform() {
    let p = around(|numbers| {
        numbers.map("Talk", |n: i64| {
            tracing::warn!(n, "seen");
            n
        })
    });
    let mut runner = Runner::start(&p, "Talk", &[], vec![]).await;
    runner.bundle("b1");
    runner.send("b1", encoded(&[4i64]), true);
    let entry = runner.logs.recv().await.unwrap();
    assert_eq!(
        (entry.message.as_str(), entry.instruction_id.as_str()),
        ("seen n=4", "b1")
    );
    assert_eq!(entry.severity(), fnapi::log_entry::severity::Enum::Warn);
    let name = |id: &str| {
        runner.services.0.descriptor.lock().transforms[id]
            .unique_name
            .clone()
    };
    assert!(
        name(&entry.transform_id).contains("Talk"),
        "{}",
        entry.transform_id
    );
    assert!(entry.log_location.contains("tests.rs:"));
}

#[derive(Clone)]
struct CountsTeardown(Arc<AtomicUsize>);

impl DoFn for CountsTeardown {
    type In = i64;
    type Out = i64;
    fn process(&mut self, n: i64, ctx: &mut Context<'_, i64>) -> crate::DoFnResult {
        ctx.output(n);
        Ok(())
    }
    fn teardown(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_control_stream_ends_the_harness_and_tears_down() {
    let torn_down = Arc::new(AtomicUsize::new(0));
    let p = around(|numbers| numbers.apply(ParDo::new("Count", CountsTeardown(torn_down.clone()))));
    let mut runner = Runner::start(&p, "Count", &[], vec![]).await;
    for bundle in ["b1", "b2"] {
        runner.bundle(bundle);
        runner.send(bundle, encoded(&[1i64]), true);
        runner.output(bundle).await;
        done(runner.answer().await);
    }
    assert_eq!(
        torn_down.load(Ordering::SeqCst),
        0,
        "executors are kept for the next bundle"
    );
    // One that will not get its input.
    runner.bundle("b3");
    runner.control = None;
    assert!(runner.harness.await.unwrap().is_ok());
    assert!(torn_down.load(Ordering::SeqCst) >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_met_are_answered() {
    let mut runner = Runner::start(&negate(), "Negate", &[], vec![]).await;
    let request = fnapi::ProcessBundleRequest {
        process_bundle_descriptor_id: "nowhere".into(),
        ..Default::default()
    };
    runner.ask("b1", instruction_request::Request::ProcessBundle(request));
    let error = runner.answer().await.error;
    assert!(
        error.contains("\"nowhere\"") && error.contains("no such descriptor"),
        "{error}"
    );
    let control = runner.control.as_ref().unwrap();
    control
        .send(Ok(fnapi::InstructionRequest {
            instruction_id: "b2".into(),
            request: None,
        }))
        .unwrap();
    assert!(runner.answer().await.error.contains("does not know this kind"));
}
