//! A worker that says what it likes, over gRPC, to a running job.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use prost::Message as _;
use purlin_coders::spec::no_schemas;
use purlin_coders::{Coder, PaneInfo, Timer, TimerFiring, Timestamp, Windows, wire};
use purlin_proto::fn_execution::beam_fn_control_client::BeamFnControlClient;
use purlin_proto::fn_execution::beam_fn_data_client::BeamFnDataClient;
use purlin_proto::fn_execution::beam_fn_logging_client::BeamFnLoggingClient;
use purlin_proto::fn_execution::beam_fn_state_client::BeamFnStateClient;
use purlin_proto::fn_execution::{
    self as fnapi, RemoteGrpcPort, instruction_request::Request as Ask,
    instruction_response::Response as Answer,
};
use purlin_proto::pipeline::{self, MonitoringInfo, ParDoPayload, Pipeline};
use purlin_proto::urns::{metric_types, metrics, runner_transforms};
use purlin_runner::fnapi::{FnApiServer, FnApiSettings, WorkerIdentity, WorkerLog};
use purlin_runner::job::{Job, JobSettings, JobState};
use purlin_runner::translate::{PlanOptions, plan};
use purlin_runner::worker::{StartWorker, Worker, WorkerError, WorkerFactory};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::PIPELINES;
use crate::input::Input;

/// A job that has not ended so long after it was cancelled hangs.
const HANG: Duration = Duration::from_secs(60);
/// How long a worker waits for a request that may never come.
const PATIENCE: Duration = Duration::from_millis(1);

static NEXT_JOB: AtomicU64 = AtomicU64::new(0);

/// What all inputs share: a runtime, the server under test, and a connection to it.
struct World {
    runtime: Runtime,
    server: Arc<FnApiServer>,
    channel: Channel,
}

struct Mute;

impl WorkerLog for Mute {
    fn log(&self, _: &WorkerIdentity, _: &fnapi::LogEntry) {}
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let (server, channel) = runtime.block_on(async {
            let settings = FnApiSettings {
                log: Arc::new(Mute),
                ..FnApiSettings::default()
            };
            let server = FnApiServer::bind(settings).await.expect("a free port");
            let endpoint = Endpoint::from_shared(format!("http://{}", server.url())).expect("an address");
            let channel = endpoint.connect().await.expect("the server");
            (Arc::new(server), channel)
        });
        World {
            runtime,
            server,
            channel,
        }
    })
}

/// Runs a pipeline on workers that do what the bytes say. When the bytes end, the worker vanishes and there is no
/// other. Whatever happens, a job can be cancelled and ends. Returns how
/// many requests the workers got, and one more if the job was done.
///
/// # Panics
/// Where the runner does, and when the job hangs.
pub fn fn_api(data: &[u8]) -> usize {
    let world = world();
    world.runtime.block_on(run(world, data))
}

async fn run(world: &'static World, data: &[u8]) -> usize {
    let mut input = Input(data);
    let Some(&pipeline) = input.pick(PIPELINES) else {
        return 0;
    };
    let pipeline = Pipeline::decode(pipeline).expect("a fixture");
    let options = PlanOptions {
        slots_per_worker: 1 + input.below(3) as u32,
        ..PlanOptions::default()
    };
    let plan = plan(&pipeline, &options).expect("fixtures are sound");
    let (over, mut is_over) = watch::channel(false);
    let requests = Arc::new(AtomicUsize::new(0));
    let factory = Factory {
        world,
        requests: requests.clone(),
        script: Arc::new(Mutex::new(input.0.to_vec())),
        over,
    };
    let settings = JobSettings {
        job_id: format!("job-{}", NEXT_JOB.fetch_add(1, Ordering::Relaxed)),
        ..JobSettings::default()
    };
    let job = Job::start(plan, Arc::new(factory), settings);
    let ended = job.wait();
    tokio::select! {
        _ = ended => {}
        _ = is_over.wait_for(|over| *over) => {}
        // Nothing more is asked of a worker that waits: a long delay, say.
        () = tokio::time::sleep(Duration::from_secs(5)) => {}
    }
    let _ = (job.metrics(), job.error(), job.history());
    job.cancel();
    let ended = tokio::time::timeout(HANG, job.wait()).await;
    let state = ended.unwrap_or_else(|_| panic!("the job hangs after cancel, in state {:?}", job.state()));
    assert!(state.is_terminal());
    let _ = job.metrics();
    requests.load(Ordering::Relaxed) + usize::from(state == JobState::Done)
}

struct Factory {
    world: &'static World,
    requests: Arc<AtomicUsize>,
    /// What is left of the bytes.
    script: Arc<Mutex<Vec<u8>>>,
    over: watch::Sender<bool>,
}

impl WorkerFactory for Factory {
    fn start(&self, request: StartWorker) -> BoxFuture<'static, Result<Arc<dyn Worker>, WorkerError>> {
        let script = std::mem::take(&mut *self.script.lock().unwrap_or_else(PoisonError::into_inner));
        let (world, rest, over) = (self.world, self.script.clone(), self.over.clone());
        let requests = self.requests.clone();
        async move {
            let refused = |reason: String| WorkerError::Start {
                environment: request.environment_id.clone(),
                reason,
            };
            if script.is_empty() {
                return Err(refused("the script is over".into()));
            }
            let worker = world.server.expect(&request)?;
            let hostile = Hostile::connect(&world.channel, &request.worker_id).await;
            let mut hostile = hostile.map_err(|status| refused(status.message().to_owned()))?;
            worker.connected().await.map_err(refused)?;
            tokio::spawn(async move {
                let mut input = Input(&script);
                hostile.perform(&mut input).await;
                requests.fetch_add(hostile.asked, Ordering::Relaxed);
                *rest.lock().unwrap_or_else(PoisonError::into_inner) = input.0.to_vec();
                over.send_replace(input.is_empty());
            });
            Ok(Arc::new(worker) as Arc<dyn Worker>)
        }
        .boxed()
    }
}

fn tagged<T>(id: &str, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Ok(id) = id.parse() {
        request.metadata_mut().insert("worker_id", id);
    }
    request
}

fn stream<T>() -> (mpsc::UnboundedSender<T>, UnboundedReceiverStream<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, UnboundedReceiverStream::new(receiver))
}

/// A stage as the worker knows it.
#[derive(Clone, Default)]
struct Stage {
    /// Sinks with the coders of their values.
    sinks: Vec<(String, Coder)>,
    /// Transform, family and coder of the timers.
    timers: Vec<(String, String, Coder)>,
    transforms: Vec<String>,
    states: Vec<(String, String)>,
}

/// A request that has come.
struct Seen {
    id: String,
    ask: Ask,
    stage: Stage,
}

struct Hostile {
    id: String,
    channel: Channel,
    answers: mpsc::UnboundedSender<fnapi::InstructionResponse>,
    requests: tonic::Streaming<fnapi::InstructionRequest>,
    data: mpsc::UnboundedSender<fnapi::Elements>,
    data_in: tonic::Streaming<fnapi::Elements>,
    state: mpsc::UnboundedSender<fnapi::StateRequest>,
    state_in: tonic::Streaming<fnapi::StateResponse>,
    seen: Vec<Seen>,
    /// Requests so far.
    asked: usize,
    /// The last continuation token given.
    token: Bytes,
}

impl Hostile {
    async fn connect(channel: &Channel, id: &str) -> Result<Self, tonic::Status> {
        let (answers, given) = stream();
        let requests = BeamFnControlClient::new(channel.clone())
            .control(tagged(id, given))
            .await?;
        let (data, given) = stream();
        let data_in = BeamFnDataClient::new(channel.clone())
            .data(tagged(id, given))
            .await?;
        let (state, given) = stream();
        let state_in = BeamFnStateClient::new(channel.clone())
            .state(tagged(id, given))
            .await?;
        Ok(Self {
            id: id.to_owned(),
            channel: channel.clone(),
            answers,
            requests: requests.into_inner(),
            data,
            data_in: data_in.into_inner(),
            state,
            state_in: state_in.into_inner(),
            seen: Vec::new(),
            asked: 0,
            token: Bytes::new(),
        })
    }

    /// Does what the script says, until it or the runner is done.
    async fn perform(&mut self, input: &mut Input<'_>) {
        while !input.is_empty() {
            if !self.listen().await {
                return;
            }
            match input.below(20) {
                0..=6 => self.serve(input),
                7 => self.respond(input, String::new(), None),
                8 => {
                    let error = String::from_utf8_lossy(&input.bytes(12)).into_owned();
                    self.respond(input, error, None);
                }
                9 | 10 => {
                    let answer = any_answer(input, self.latest(0).map(|seen| seen.stage.clone()));
                    self.respond(input, String::new(), Some(answer));
                }
                11 => {
                    // A whole message out of bytes.
                    if let Ok(response) = fnapi::InstructionResponse::decode(input.bytes(64)) {
                        let _ = self.answers.send(response);
                    }
                }
                12 | 13 => self.elements(input),
                14 => {
                    if let Ok(elements) = fnapi::Elements::decode(input.bytes(64)) {
                        let _ = self.data.send(elements);
                    }
                }
                15..=17 => self.ask_state(input).await,
                18 => {
                    let request = fnapi::GetProcessBundleDescriptorRequest {
                        process_bundle_descriptor_id: String::from_utf8_lossy(&input.bytes(8)).into_owned(),
                    };
                    let mut client = BeamFnControlClient::new(self.channel.clone());
                    let _ = client
                        .get_process_bundle_descriptor(tagged(&self.id, request))
                        .await;
                }
                _ => {
                    if self.strange(input).await {
                        return;
                    }
                }
            }
        }
        self.listen().await;
    }

    /// Takes what has come. False: the runner has closed the control stream.
    async fn listen(&mut self) -> bool {
        while let Some(Ok(Some(elements))) = self.data_in.message().now_or_never() {
            drop(elements);
        }
        while let Some(Ok(Some(answer))) = self.state_in.message().now_or_never() {
            if let Some(fnapi::state_response::Response::Get(got)) = answer.response {
                self.token = got.continuation_token;
            }
        }
        loop {
            match tokio::time::timeout(PATIENCE, self.requests.message()).await {
                Err(_) => return true,
                Ok(Ok(Some(request))) => {
                    self.asked += 1;
                    if let Some(ask) = request.request {
                        let stage = match &ask {
                            Ask::ProcessBundle(bundle) => self
                                .stage(&bundle.process_bundle_descriptor_id)
                                .await
                                .unwrap_or_default(),
                            _ => Stage::default(),
                        };
                        let id = request.instruction_id;
                        self.seen.push(Seen { id, ask, stage });
                    }
                    if self.seen.len() > 3 {
                        return true;
                    }
                }
                Ok(_) => return false,
            }
        }
    }

    async fn stage(&self, id: &str) -> Option<Stage> {
        let request = fnapi::GetProcessBundleDescriptorRequest {
            process_bundle_descriptor_id: id.to_owned(),
        };
        let mut client = BeamFnControlClient::new(self.channel.clone());
        let descriptor = client
            .get_process_bundle_descriptor(tagged(&self.id, request))
            .await
            .ok()?;
        Some(read_stage(&descriptor.into_inner()))
    }

    fn latest(&self, back: usize) -> Option<&Seen> {
        self.seen
            .len()
            .checked_sub(1 + back)
            .and_then(|at| self.seen.get(at))
    }

    /// Answers the latest request as a good worker does, with outputs of the script's.
    fn serve(&mut self, input: &mut Input<'_>) {
        let Some(Seen { id, ask, stage }) = self.seen.pop() else {
            return;
        };
        let answer = match ask {
            Ask::ProcessBundle(_) => {
                let mut elements = fnapi::Elements::default();
                for (transform, coder) in &stage.sinks {
                    let mut data = Vec::new();
                    for _ in 0..input.below(3) {
                        generate(coder, input, &mut data, 0);
                    }
                    elements.data.push(data_entry(&id, transform, data, true));
                }
                for (transform, family, coder) in &stage.timers {
                    let data = timers(coder, input);
                    elements
                        .timers
                        .push(timer_entry(&id, transform, family, data, true));
                }
                let mut response = fnapi::ProcessBundleResponse::default();
                if input.yes() {
                    response.elements = Some(elements);
                } else {
                    let _ = self.data.send(elements);
                }
                response.requires_finalization = input.yes();
                Answer::ProcessBundle(response)
            }
            Ask::ProcessBundleProgress(_) => Answer::ProcessBundleProgress(Default::default()),
            Ask::ProcessBundleSplit(_) => Answer::ProcessBundleSplit(Default::default()),
            Ask::FinalizeBundle(_) => Answer::FinalizeBundle(Default::default()),
            Ask::MonitoringInfos(_) => Answer::MonitoringInfos(Default::default()),
            _ => Answer::SampleData(Default::default()),
        };
        let _ = self.answers.send(fnapi::InstructionResponse {
            instruction_id: id,
            error: String::new(),
            response: Some(answer),
        });
    }

    fn respond(&mut self, input: &mut Input<'_>, error: String, response: Option<Answer>) {
        let id = self.instruction(input);
        let _ = self.answers.send(fnapi::InstructionResponse {
            instruction_id: id,
            error,
            response,
        });
    }

    /// The id of a request that has come, or of none.
    fn instruction(&self, input: &mut Input<'_>) -> String {
        match input.byte() {
            0..=15 => String::from_utf8_lossy(&input.bytes(6)).into_owned(),
            back => self
                .latest(usize::from(back & 1))
                .map(|seen| seen.id.clone())
                .unwrap_or_default(),
        }
    }

    fn elements(&mut self, input: &mut Input<'_>) {
        let id = self.instruction(input);
        let stage = self.latest(0).map(|seen| seen.stage.clone()).unwrap_or_default();
        let mut elements = fnapi::Elements::default();
        for _ in 0..=input.below(3) {
            let is_last = input.yes();
            if input.yes()
                && let Some((transform, family, coder)) = input.pick(&stage.timers)
            {
                let data = if input.yes() {
                    timers(coder, input)
                } else {
                    input.bytes(40).to_vec()
                };
                elements
                    .timers
                    .push(timer_entry(&id, transform, family, data, is_last));
                continue;
            }
            let Some((transform, coder)) = input.pick(&stage.sinks) else {
                continue;
            };
            let mut data = Vec::new();
            if input.yes() {
                generate(coder, input, &mut data, 0);
            } else {
                data = input.bytes(40).to_vec();
            }
            let transform = if input.byte() < 16 { "elsewhere" } else { transform };
            elements.data.push(data_entry(&id, transform, data, is_last));
        }
        let _ = self.data.send(elements);
    }

    async fn ask_state(&mut self, input: &mut Input<'_>) {
        use fnapi::state_key::{self as keys, Type};
        let instruction_id = self.instruction(input);
        let stage = self.latest(0).map(|seen| seen.stage.clone()).unwrap_or_default();
        let (transform_id, user_state_id) = match input.pick(&stage.states) {
            Some((transform, state)) if input.byte() > 15 => (transform.clone(), state.clone()),
            _ => (
                input.pick(&stage.transforms).cloned().unwrap_or_default(),
                "side0".to_owned(),
            ),
        };
        let side_input_id = user_state_id.clone();
        let (window, key) = (input.bytes(3), input.bytes(6));
        let map_key = input.bytes(4);
        let kind = match input.below(10) {
            0 | 1 => Type::BagUserState(keys::BagUserState {
                transform_id,
                user_state_id,
                window,
                key,
            }),
            2 => Type::MultimapUserState(keys::MultimapUserState {
                transform_id,
                user_state_id,
                window,
                key,
                map_key,
            }),
            3 => Type::MultimapKeysUserState(keys::MultimapKeysUserState {
                transform_id,
                user_state_id,
                window,
                key,
            }),
            4 => Type::MultimapEntriesUserState(keys::MultimapEntriesUserState {
                transform_id,
                user_state_id,
                window,
                key,
            }),
            5 => Type::OrderedListUserState(keys::OrderedListUserState {
                transform_id,
                user_state_id,
                window,
                key,
                range: Some(fnapi::OrderedListRange {
                    start: input.number(),
                    end: input.number(),
                }),
            }),
            6 => Type::IterableSideInput(keys::IterableSideInput {
                transform_id,
                side_input_id,
                window,
            }),
            7 => Type::MultimapSideInput(keys::MultimapSideInput {
                transform_id,
                side_input_id,
                window,
                key,
            }),
            8 => Type::MultimapKeysValuesSideInput(keys::MultimapKeysValuesSideInput {
                transform_id,
                side_input_id,
                window,
            }),
            _ => Type::Runner(keys::Runner { key }),
        };
        let request = match input.below(4) {
            0 => fnapi::state_request::Request::Clear(Default::default()),
            1 => fnapi::state_request::Request::Append(fnapi::StateAppendRequest {
                data: input.bytes(24),
            }),
            2 => fnapi::state_request::Request::Get(fnapi::StateGetRequest {
                continuation_token: self.token.clone(),
            }),
            _ => fnapi::state_request::Request::Get(fnapi::StateGetRequest {
                continuation_token: input.bytes(17),
            }),
        };
        let whole = input.byte() > 15;
        let _ = self.state.send(fnapi::StateRequest {
            id: input.byte().to_string(),
            instruction_id,
            state_key: whole.then_some(fnapi::StateKey { r#type: Some(kind) }),
            request: Some(request),
        });
        let _ = tokio::time::timeout(PATIENCE, self.state_in.message()).await;
    }

    /// What workers do not do. True: the worker is gone.
    async fn strange(&mut self, input: &mut Input<'_>) -> bool {
        match input.below(6) {
            0 => return true,
            1 => {
                let (_keep, given) = stream();
                let mut client = BeamFnControlClient::new(self.channel.clone());
                assert!(
                    client.control(tagged(&self.id, given)).await.is_err(),
                    "a second control stream was taken"
                );
            }
            2 => {
                let (_keep, given) = stream();
                let mut client = BeamFnDataClient::new(self.channel.clone());
                let second = client.data(tagged(&self.id, given)).await;
                assert!(second.is_err(), "a second data stream was taken");
            }
            3 => {
                let (entries, given) = stream();
                let mut client = BeamFnLoggingClient::new(self.channel.clone());
                if let Ok(list) = fnapi::log_entry::List::decode(input.bytes(48)) {
                    let _ = entries.send(list);
                }
                drop(entries);
                let _ = client.logging(tagged(&self.id, given)).await;
            }
            4 => {
                // The data stream ends while the worker goes on.
                let (data, given) = stream();
                self.data = data;
                drop(given);
            }
            _ => {
                let (state, given) = stream();
                let mut client = BeamFnStateClient::new(self.channel.clone());
                if let Ok(answers) = client.state(tagged(&self.id, given)).await {
                    (self.state, self.state_in) = (state, answers.into_inner());
                }
            }
        }
        false
    }
}

fn data_entry(instruction: &str, transform: &str, data: Vec<u8>, is_last: bool) -> fnapi::elements::Data {
    fnapi::elements::Data {
        instruction_id: instruction.to_owned(),
        transform_id: transform.to_owned(),
        data: data.into(),
        is_last,
    }
}

fn timer_entry(
    instruction: &str,
    transform: &str,
    family: &str,
    timers: Vec<u8>,
    is_last: bool,
) -> fnapi::elements::Timers {
    fnapi::elements::Timers {
        instruction_id: instruction.to_owned(),
        transform_id: transform.to_owned(),
        timer_family_id: family.to_owned(),
        timers: timers.into(),
        is_last,
    }
}

/// An answer of any kind, with anything in it.
fn any_answer(input: &mut Input<'_>, stage: Option<Stage>) -> Answer {
    let stage = stage.unwrap_or_default();
    match input.below(8) {
        0..=2 => Answer::ProcessBundle(fnapi::ProcessBundleResponse {
            residual_roots: (0..input.below(3)).map(|_| root(input, &stage)).collect(),
            monitoring_infos: infos(input, &stage),
            requires_finalization: input.yes(),
            monitoring_data: short_ids(input),
            elements: fnapi::Elements::decode(input.bytes(32)).ok(),
        }),
        3 => Answer::ProcessBundleProgress(fnapi::ProcessBundleProgressResponse {
            monitoring_infos: infos(input, &stage),
            monitoring_data: short_ids(input),
            consuming_received_data: None,
        }),
        4 | 5 => Answer::ProcessBundleSplit(fnapi::ProcessBundleSplitResponse {
            primary_roots: (0..input.below(2))
                .filter_map(|_| root(input, &stage).application)
                .collect(),
            residual_roots: (0..input.below(3)).map(|_| root(input, &stage)).collect(),
            channel_splits: (0..input.below(3))
                .map(|_| fnapi::process_bundle_split_response::ChannelSplit {
                    transform_id: input.pick(&stage.transforms).cloned().unwrap_or_default(),
                    last_primary_element: input.number(),
                    first_residual_element: input.number(),
                })
                .collect(),
        }),
        6 => Answer::MonitoringInfos(fnapi::MonitoringInfosMetadataResponse {
            monitoring_info: infos(input, &stage)
                .into_iter()
                .map(|info| ("1".to_owned(), info))
                .collect(),
        }),
        _ => Answer::FinalizeBundle(Default::default()),
    }
}

fn short_ids(input: &mut Input<'_>) -> HashMap<String, Bytes> {
    (0..input.below(2))
        .map(|id| (id.to_string(), input.bytes(12)))
        .collect()
}

fn root(input: &mut Input<'_>, stage: &Stage) -> fnapi::DelayedBundleApplication {
    let at = prost_types::Timestamp {
        seconds: input.number(),
        nanos: input.number() as i32,
    };
    let application = fnapi::BundleApplication {
        transform_id: input.pick(&stage.transforms).cloned().unwrap_or_default(),
        input_id: "in".to_owned(),
        element: input.bytes(40),
        output_watermarks: [("out".to_owned(), at)].into(),
        is_bounded: input.number() as i32,
    };
    let delay = prost_types::Duration {
        seconds: input.number(),
        nanos: input.number() as i32,
    };
    fnapi::DelayedBundleApplication {
        application: (input.byte() > 15).then_some(application),
        requested_time_delay: input.yes().then_some(delay),
    }
}

fn infos(input: &mut Input<'_>, stage: &Stage) -> Vec<MonitoringInfo> {
    let info = |input: &mut Input<'_>| MonitoringInfo {
        urn: input.pick(metrics::ALL).copied().unwrap_or_default().to_owned(),
        r#type: input
            .pick(metric_types::ALL)
            .copied()
            .unwrap_or_default()
            .to_owned(),
        payload: input.bytes(24),
        labels: [(
            "PTRANSFORM".to_owned(),
            input.pick(&stage.transforms).cloned().unwrap_or_default(),
        )]
        .into(),
        start_time: None,
    };
    (0..input.below(4)).map(|_| info(input)).collect()
}

fn read_stage(descriptor: &fnapi::ProcessBundleDescriptor) -> Stage {
    let mut stage = Stage::default();
    for (id, transform) in &descriptor.transforms {
        stage.transforms.push(id.clone());
        let Some(spec) = &transform.spec else { continue };
        if spec.urn == runner_transforms::DATA_SINK {
            let port = RemoteGrpcPort::decode(&spec.payload[..]).unwrap_or_default();
            stage
                .sinks
                .extend(coder(&descriptor.coders, &port.coder_id).map(|coder| (id.clone(), coder)));
        } else if let Ok(payload) = ParDoPayload::decode(&spec.payload[..]) {
            for (family, spec) in payload.timer_family_specs {
                let coder = coder(&descriptor.coders, &spec.timer_family_coder_id);
                stage
                    .timers
                    .extend(coder.map(|coder| (id.clone(), family, coder)));
            }
            stage
                .states
                .extend(payload.state_specs.into_keys().map(|state| (id.clone(), state)));
            stage
                .states
                .extend(payload.side_inputs.into_keys().map(|side| (id.clone(), side)));
        }
    }
    stage.sinks.sort_by(|a, b| a.0.cmp(&b.0));
    stage.timers.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    stage.transforms.sort();
    stage.states.sort();
    stage
}

fn coder(coders: &HashMap<String, pipeline::Coder>, id: &str) -> Option<Coder> {
    let proto = coders.get(id)?;
    let spec = proto.spec.as_ref()?;
    let components = proto
        .component_coder_ids
        .iter()
        .map(|id| coder(coders, id))
        .collect::<Option<_>>()?;
    Coder::from_parts(&spec.urn, &spec.payload, components, &no_schemas).ok()
}

/// A value that the coder can read.
fn generate(coder: &Coder, input: &mut Input<'_>, out: &mut Vec<u8>, depth: usize) {
    if depth > 20 {
        return;
    }
    let depth = depth + 1;
    match coder {
        Coder::Bytes | Coder::Utf8 | Coder::LengthPrefix(_) => {
            let text = [b'a' + input.byte() % 3];
            wire::write_bytes(&text, out, true);
        }
        Coder::VarInt => out.push(input.byte() & 0x7f),
        Coder::Bool => out.push(input.byte() & 1),
        Coder::Double => out.extend_from_slice(&f64::from(input.byte()).to_be_bytes()),
        Coder::Kv(kv) => {
            generate(&kv.0, input, out, depth);
            generate(&kv.1, input, out, depth);
        }
        Coder::Iterable(element) | Coder::StateBackedIterable(element) => {
            let count = input.below(3);
            out.extend_from_slice(&(count as i32).to_be_bytes());
            (0..count).for_each(|_| generate(element, input, out, depth));
        }
        Coder::Nullable(inner) => {
            let some = input.yes();
            out.push(u8::from(some));
            if some {
                generate(inner, input, out, depth);
            }
        }
        Coder::ShardedKey(key) => {
            wire::write_bytes(b"shard", out, true);
            generate(key, input, out, depth);
        }
        Coder::WindowedValue(coder) => {
            let at = if input.yes() { 0 } else { input.number() };
            out.extend_from_slice(&Timestamp::from_millis(at).to_bytes());
            out.extend_from_slice(&1i32.to_be_bytes());
            generate(&coder.window.to_coder(), input, out, depth);
            PaneInfo::NO_FIRING.encode(out);
            generate(&coder.value, input, out, depth);
        }
        Coder::IntervalWindow => {
            out.extend_from_slice(&Timestamp(10 * input.number().rem_euclid(1000)).to_bytes());
            out.push(10);
        }
        Coder::CustomWindow(window) => {
            out.extend_from_slice(&Timestamp(input.number().rem_euclid(1000)).to_bytes());
            generate(window, input, out, depth);
        }
        _ => {}
    }
}

fn timers(coder: &Coder, input: &mut Input<'_>) -> Vec<u8> {
    let Coder::Timer(coder) = coder else {
        return Vec::new();
    };
    let mut out = Vec::new();
    for _ in 0..input.below(3) {
        let (mut user_key, mut windows) = (Vec::new(), Vec::new());
        generate(&coder.key, input, &mut user_key, 0);
        generate(&coder.window.to_coder(), input, &mut windows, 0);
        let Ok(window) = coder.window.decode(&mut &windows[..], true) else {
            continue;
        };
        let firing = TimerFiring {
            fire_timestamp: Timestamp::from_millis(input.number()),
            hold_timestamp: Timestamp::from_millis(input.number()),
            pane: PaneInfo::NO_FIRING,
        };
        let timer = Timer {
            user_key: user_key.into(),
            dynamic_tag: String::from_utf8_lossy(&input.bytes(2)).into_owned(),
            windows: Windows::One(window),
            firing: (input.byte() > 31).then_some(firing),
        };
        timer.encode(&mut out);
    }
    out
}
