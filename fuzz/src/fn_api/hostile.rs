//! The worker: serves well or badly, as the bytes say.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use prost::Message as _;
use purlin_proto::fn_execution::beam_fn_control_client::BeamFnControlClient;
use purlin_proto::fn_execution::beam_fn_data_client::BeamFnDataClient;
use purlin_proto::fn_execution::beam_fn_logging_client::BeamFnLoggingClient;
use purlin_proto::fn_execution::beam_fn_state_client::BeamFnStateClient;
use purlin_proto::fn_execution::{
    self as fnapi, instruction_request::Request as Ask, instruction_response::Response as Answer,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

use super::messages::{
    Stage, any_answer, data_entry, generate, read_stage, state_key, state_request, timer_entry, timers,
};
use crate::input::Input;

/// How long a worker waits for its first request, which comes: it was started for it.
const FIRST: Duration = Duration::from_secs(60);
/// How long a worker waits for a request that may never come.
const PATIENCE: Duration = Duration::from_millis(1);

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

/// A request that has come.
struct Seen {
    id: String,
    ask: Ask,
    stage: Stage,
}

/// The worker, with its streams.
pub(super) struct Hostile {
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
    asked: Arc<AtomicUsize>,
    /// The last continuation token given.
    token: Bytes,
}

impl Hostile {
    pub async fn connect(
        channel: &Channel,
        id: &str,
        asked: Arc<AtomicUsize>,
    ) -> Result<Self, tonic::Status> {
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
            asked,
            token: Bytes::new(),
        })
    }

    /// Does what the script says, until it or the runner is done.
    pub async fn perform(&mut self, input: &mut Input<'_>) {
        // It is there because something is asked of it.
        let mut patience = FIRST;
        while !input.is_empty() {
            if !self.listen(patience).await {
                return;
            }
            patience = PATIENCE;
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
        self.listen(patience).await;
    }

    /// Takes what has come, or comes soon. False: the runner has closed the control stream.
    async fn listen(&mut self, mut patience: Duration) -> bool {
        while let Some(Ok(Some(elements))) = self.data_in.message().now_or_never() {
            drop(elements);
        }
        while let Some(Ok(Some(answer))) = self.state_in.message().now_or_never() {
            if let Some(fnapi::state_response::Response::Get(got)) = answer.response {
                self.token = got.continuation_token;
            }
        }
        loop {
            match tokio::time::timeout(patience, self.requests.message()).await {
                Err(_) => return true,
                Ok(Ok(Some(request))) => {
                    self.asked.fetch_add(1, Ordering::Relaxed);
                    patience = PATIENCE;
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
        let instruction_id = self.instruction(input);
        let stage = self.latest(0).map(|seen| seen.stage.clone()).unwrap_or_default();
        let key = state_key(input, &stage);
        let request = state_request(input, &self.token);
        let whole = input.byte() > 15;
        let _ = self.state.send(fnapi::StateRequest {
            id: input.byte().to_string(),
            instruction_id,
            state_key: whole.then_some(fnapi::StateKey { r#type: Some(key) }),
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
