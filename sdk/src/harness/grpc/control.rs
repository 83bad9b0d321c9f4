//! The control stream: what the runner asks, and the answers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use purlin_net::{MAX_MESSAGE_BYTES, without_token};
use purlin_proto::fn_execution::beam_fn_control_client::BeamFnControlClient;
use purlin_proto::fn_execution::{
    self as fnapi, InstructionRequest, InstructionResponse, instruction_request::Request,
    instruction_response::Response,
};
use purlin_proto::urns::runner_protocols;
use purlin_runner::worker::StateHandler;
use tokio::sync::{Mutex as AsyncMutex, OnceCell, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::bundle::{Ended, Task};
use super::connect::{WorkerChannel, WorkerId, connect, while_reading};
use super::data::{self, DataSender, Piece, Router};
use super::logging::{self, LogSender};
use super::short_ids::ShortIds;
use super::stage::Stage;
use super::state::{NoState, StateClient};
use super::{HarnessError, HarnessSettings, status};
use crate::harness::threads::Threads;
use crate::harness::{BundleMonitor, Registry, WorkerShared};

/// So many ended bundles are remembered: a question about one of them is late, not wrong.
const REMEMBERED: usize = 4096;
/// An executor without bundles for so long is torn down.
const KEEP: Duration = Duration::from_secs(60);
/// How long bundles in the works may take to end once the runner is gone.
const GRACE: Duration = Duration::from_secs(10);

/// A harness that is connected.
pub(crate) struct Harness {
    settings: HarnessSettings,
    control: BeamFnControlClient<WorkerChannel>,
    shared: Arc<Shared>,
    responses: mpsc::UnboundedReceiver<InstructionResponse>,
}

/// What the parts of a harness share.
pub(super) struct Shared {
    pub registry: Arc<Registry>,
    pub worker: Arc<WorkerShared>,
    pub short_ids: ShortIds,
    /// The runner takes elements out of responses.
    pub embeds: bool,
    /// The runner knows short ids.
    pub shortens: bool,
    pub log: Option<LogSender>,
    pub threads: Arc<Threads<Task>>,
    id: WorkerId,
    router: Arc<Router>,
    bundles: Mutex<Bundles>,
    answers: mpsc::UnboundedSender<InstructionResponse>,
    stages: Mutex<HashMap<String, Arc<OnceCell<Arc<Stage>>>>>,
    connections: AsyncMutex<Connections>,
}

#[derive(Default)]
struct Bundles {
    active: HashMap<String, Arc<Active>>,
    ended: HashSet<String>,
    ended_order: VecDeque<String>,
}

#[derive(Default)]
struct Connections {
    data: HashMap<String, DataSender>,
    state: HashMap<String, Arc<StateClient>>,
}

/// A bundle in the works.
pub(super) struct Active {
    pub since: Instant,
    pub descriptor: String,
    monitor: Mutex<Option<Arc<BundleMonitor>>>,
}

impl Active {
    /// The bundle has begun.
    pub fn attach(&self, monitor: Arc<BundleMonitor>) {
        *self.monitor.lock() = Some(monitor);
    }

    /// The bundle has ended.
    pub fn detach(&self) {
        *self.monitor.lock() = None;
    }

    /// Asks the running bundle. It cannot end meanwhile.
    fn ask<T>(&self, question: impl FnOnce(Option<&BundleMonitor>) -> T) -> T {
        question(self.monitor.lock().as_deref())
    }
}

impl Shared {
    pub fn end_bundle(&self, ended: Ended) {
        {
            let mut bundles = self.bundles.lock();
            bundles.active.remove(&ended.instruction);
            if bundles.ended.insert(ended.instruction.clone()) {
                bundles.ended_order.push_back(ended.instruction.clone());
            }
            if bundles.ended_order.len() > REMEMBERED
                && let Some(oldest) = bundles.ended_order.pop_front()
            {
                bundles.ended.remove(&oldest);
            }
        }
        self.router.close(&ended.instruction);
        self.answer(ended.response);
    }

    fn answer(&self, response: InstructionResponse) {
        // It fails when the runner is gone, and nobody is to be told.
        let _ = self.answers.send(response);
    }

    /// The bundles in the works: instruction, descriptor, age.
    pub fn active(&self) -> Vec<(String, String, Duration)> {
        let bundles = self.bundles.lock();
        let mut all: Vec<_> = bundles
            .active
            .iter()
            .map(|(id, a)| (id.clone(), a.descriptor.clone(), a.since.elapsed()))
            .collect();
        all.sort();
        all
    }

    fn find(&self, instruction: &str) -> Result<Option<Arc<Active>>, String> {
        let bundles = self.bundles.lock();
        match bundles.active.get(instruction) {
            Some(active) => Ok(Some(active.clone())),
            None if bundles.ended.contains(instruction) => Ok(None),
            None => Err(format!("this worker knows no bundle {instruction:?}")),
        }
    }

    fn fail_bundle(&self, instruction: String, error: String) {
        let response = InstructionResponse {
            instruction_id: instruction.clone(),
            error,
            response: None,
        };
        self.end_bundle(Ended {
            instruction,
            response,
        });
    }

    async fn stage(
        &self,
        id: &str,
        mut control: BeamFnControlClient<WorkerChannel>,
    ) -> Result<Arc<Stage>, String> {
        let cell = self.stages.lock().entry(id.to_owned()).or_default().clone();
        let stage = cell.get_or_try_init(|| async {
            let request = fnapi::GetProcessBundleDescriptorRequest {
                process_bundle_descriptor_id: id.to_owned(),
            };
            let descriptor = control
                .get_process_bundle_descriptor(request)
                .await
                .map_err(|status| {
                    format!(
                        "the runner did not give the bundle descriptor {id:?}: {}",
                        status.message()
                    )
                })?;
            Stage::new(descriptor.into_inner()).map(Arc::new)
        });
        stage.await.cloned()
    }

    async fn senders(&self, stage: &Stage) -> Result<HashMap<String, DataSender>, String> {
        let mut senders = HashMap::new();
        for service in stage.data_services() {
            let mut connections = self.connections.lock().await;
            let sender = match connections.data.get(service) {
                Some(sender) => sender.clone(),
                None => {
                    let channel = connect("data", service, &self.id)
                        .await
                        .map_err(|e| e.to_string())?;
                    let sender = data::open(service, channel, self.router.clone());
                    connections.data.insert(service.to_owned(), sender.clone());
                    sender
                }
            };
            senders.insert(service.to_owned(), sender);
        }
        Ok(senders)
    }

    async fn state(&self, stage: &Stage) -> Result<Arc<dyn StateHandler>, String> {
        let Some(service) = &stage.state else {
            return Ok(Arc::new(NoState));
        };
        let mut connections = self.connections.lock().await;
        if let Some(client) = connections.state.get(service) {
            return Ok(client.clone());
        }
        let channel = connect("state", service, &self.id)
            .await
            .map_err(|e| e.to_string())?;
        let client = Arc::new(StateClient::open(service, channel));
        connections.state.insert(service.clone(), client.clone());
        Ok(client)
    }

    /// A bundle has come.
    fn process(
        self: &Arc<Self>,
        instruction: String,
        request: fnapi::ProcessBundleRequest,
        control: BeamFnControlClient<WorkerChannel>,
    ) {
        let active = Arc::new(Active {
            since: Instant::now(),
            descriptor: request.process_bundle_descriptor_id.clone(),
            monitor: Mutex::default(),
        });
        {
            let mut bundles = self.bundles.lock();
            bundles.ended.remove(&instruction);
            bundles.active.insert(instruction.clone(), active.clone());
        }
        let input = self.router.open(&instruction);
        let embedded = request.elements.is_some();
        if let Some(elements) = request.elements {
            elements
                .data
                .into_iter()
                .for_each(|data| input.push(Piece::Data(data)));
            elements
                .timers
                .into_iter()
                .for_each(|timers| input.push(Piece::Timers(timers)));
        }
        let shared = self.clone();
        tokio::spawn(async move {
            let ready = async {
                let stage = shared
                    .stage(&request.process_bundle_descriptor_id, control)
                    .await?;
                let senders = shared.senders(&stage).await?;
                let state = shared.state(&stage).await?;
                Ok::<_, String>((stage, senders, state))
            };
            let (stage, senders, state) = match ready.await {
                Ok(ready) => ready,
                Err(error) => return shared.fail_bundle(instruction, error),
            };
            let cache_tokens = request.cache_tokens;
            let task = Task {
                instruction: instruction.clone(),
                stage,
                input,
                embedded,
                senders,
                state,
                cache_tokens,
                active,
            };
            if let Err(reason) = shared.threads.submit(&shared, task) {
                shared.fail_bundle(instruction, reason);
            }
        });
    }

    /// Takes one request. All but bundles are answered at once.
    fn take(self: &Arc<Self>, request: InstructionRequest, control: &BeamFnControlClient<WorkerChannel>) {
        let id = request.instruction_id;
        let response = match request.request {
            Some(Request::ProcessBundle(bundle)) => return self.process(id, bundle, control.clone()),
            Some(Request::ProcessBundleSplit(split)) => {
                return match self.find(&split.instruction_id) {
                    // Answered before the bundle can end: the runner learns of a split before it learns of the end.
                    Ok(Some(active)) => active.ask(|monitor| {
                        let response = monitor.map(|monitor| monitor.split(&split)).unwrap_or_default();
                        self.answer(answer(id, Ok(Response::ProcessBundleSplit(response))));
                    }),
                    Ok(None) => self.answer(answer(id, Ok(Response::ProcessBundleSplit(Default::default())))),
                    Err(error) => self.answer(answer(id, Err(error))),
                };
            }
            Some(Request::ProcessBundleProgress(progress)) => {
                self.find(&progress.instruction_id).map(|active| {
                    let infos =
                        active.and_then(|a| a.ask(|monitor| monitor.map(BundleMonitor::monitoring_infos)));
                    let mut response = fnapi::ProcessBundleProgressResponse {
                        consuming_received_data: Some(infos.is_some()),
                        ..Default::default()
                    };
                    match self.shortens {
                        true => response.monitoring_data = self.short_ids.shorten(infos.unwrap_or_default()),
                        false => response.monitoring_infos = infos.unwrap_or_default(),
                    }
                    Response::ProcessBundleProgress(response)
                })
            }
            Some(Request::FinalizeBundle(finalize)) => {
                let shared = self.clone();
                // User code may block.
                tokio::task::spawn_blocking(move || {
                    let called = shared.worker.finalize(&finalize.instruction_id);
                    let response =
                        called.map(|()| Response::FinalizeBundle(fnapi::FinalizeBundleResponse {}));
                    shared.answer(answer(id, response));
                });
                return;
            }
            Some(Request::MonitoringInfos(ids)) => {
                let monitoring_info = self.short_ids.infos(&ids.monitoring_info_id);
                Ok(Response::MonitoringInfos(
                    fnapi::MonitoringInfosMetadataResponse { monitoring_info },
                ))
            }
            // All metrics belong to bundles; no elements are sampled.
            Some(Request::HarnessMonitoringInfos(_)) => {
                Ok(Response::HarnessMonitoringInfos(Default::default()))
            }
            Some(Request::SampleData(_)) => Ok(Response::SampleData(Default::default())),
            Some(Request::Register(register)) => self.register(register),
            None => Err("this harness does not know this kind of request".to_owned()),
        };
        self.answer(answer(id, response));
    }

    fn register(&self, register: fnapi::RegisterRequest) -> Result<Response, String> {
        for descriptor in register.process_bundle_descriptor {
            let id = descriptor.id.clone();
            let stage = Arc::new(Stage::new(descriptor)?);
            self.stages
                .lock()
                .insert(id, Arc::new(OnceCell::new_with(Some(stage))));
        }
        Ok(Response::Register(fnapi::RegisterResponse {}))
    }
}

fn answer(instruction_id: String, response: Result<Response, String>) -> InstructionResponse {
    match response {
        Ok(response) => InstructionResponse {
            instruction_id,
            response: Some(response),
            error: String::new(),
        },
        Err(error) => InstructionResponse {
            instruction_id,
            error,
            response: None,
        },
    }
}

impl Harness {
    /// Connects to the runner's control service.
    pub async fn connect(settings: HarnessSettings) -> Result<Harness, HarnessError> {
        let id = WorkerId::new(&settings.worker_id)?;
        let control = connect("control", &settings.control, &id).await?;
        let control = BeamFnControlClient::new(control)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let log = match &settings.logging {
            Some(address) => Some(logging::open(address, connect("logging", address, &id).await?)),
            None => None,
        };
        let can = |urn: &str| settings.runner_capabilities.iter().any(|c| c == urn);
        let (answers, responses) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            registry: settings.registry.clone(),
            worker: Arc::default(),
            short_ids: ShortIds::default(),
            embeds: can(runner_protocols::CONTROL_RESPONSE_ELEMENTS_EMBEDDING),
            shortens: can(runner_protocols::MONITORING_INFO_SHORT_IDS),
            log,
            threads: Arc::new(Threads::new(KEEP)),
            id,
            router: Arc::default(),
            bundles: Mutex::default(),
            answers,
            stages: Mutex::default(),
            connections: AsyncMutex::default(),
        });
        Ok(Harness {
            settings,
            control,
            shared,
            responses,
        })
    }

    /// The log of this worker, for what is not of a bundle.
    pub fn log(&self) -> Option<LogSender> {
        self.shared.log.clone()
    }

    /// Serves the runner until it closes the control stream, or `stop` resolves.
    ///
    /// # Errors
    /// When the control stream breaks.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), HarnessError> {
        let Harness {
            settings,
            control,
            shared,
            responses,
        } = self;
        let status = match &settings.status {
            Some(address) => status::open(address, &shared.id, Arc::downgrade(&shared)).await,
            None => None,
        };
        let result = follow(&settings, &control, &shared, responses, stop).await;
        if let Some(status) = status {
            status.abort();
        }
        end(&settings, &shared).await;
        result
    }
}

async fn follow(
    settings: &HarnessSettings,
    control: &BeamFnControlClient<WorkerChannel>,
    shared: &Arc<Shared>,
    responses: mpsc::UnboundedReceiver<InstructionResponse>,
    stop: impl Future<Output = ()>,
) -> Result<(), HarnessError> {
    let broke = |status: tonic::Status| HarnessError::Control {
        worker: without_token(&settings.worker_id).to_owned(),
        address: settings.control.clone(),
        reason: status.message().to_owned(),
    };
    let mut stop = std::pin::pin!(stop);
    let mut stream = control.clone();
    let (responses, _reading) = while_reading(UnboundedReceiverStream::new(responses));
    let mut requests = tokio::select! {
        biased;
        () = &mut stop => return Ok(()),
        stream = stream.control(responses) => stream.map_err(broke)?.into_inner(),
    };
    loop {
        tokio::select! {
            biased;
            request = requests.message() => match request {
                Ok(Some(request)) => shared.take(request, control),
                Ok(None) => return Ok(()),
                Err(status) => return Err(broke(status)),
            },
            () = &mut stop => return Ok(()),
        }
    }
}

/// Nobody asks for bundles any more: those in the works end, user code is torn down, and the log is sent.
async fn end(settings: &HarnessSettings, shared: &Arc<Shared>) {
    shared.router.fail("the runner has ended its control stream");
    // State streams end, and with them waits for answers.
    *shared.connections.lock().await = Connections::default();
    if tokio::time::timeout(GRACE, shared.threads.stop()).await.is_err() {
        let seconds = GRACE.as_secs();
        tracing::warn!(
            worker = without_token(&settings.worker_id),
            "user code did not end within {seconds} s of the worker's end"
        );
    }
    if let Some(log) = &shared.log {
        log.flush().await;
    }
}
