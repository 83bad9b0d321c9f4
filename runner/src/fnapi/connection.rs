//! One worker as the server sees it: its streams, the instructions it has, the bundles it runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use purlin_net::without_token;
use purlin_proto::fn_execution::{self as fnapi, instruction_request, instruction_response};
use purlin_proto::pipeline;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tonic::Status;

use super::collector::{Collector, ProtocolError};
use super::last_words::LastWords;
use super::presence::{Life, Presence};
use super::state::{Answers, StateQueue};
use super::status::StatusDesk;
use super::window::{self, DataSender, Outbound};
use super::{WorkerIdentity, send};
use crate::translate::with_endpoints;
use crate::worker::{BundleOutcome, BundleWork, WorkerError};

/// Up to this much input travels within the request, where the SDK takes that.
const EMBED_BYTES: usize = 256 << 10;
/// The largest input that goes in one message, 1.9 GiB. It is one element: more of them are cut.
const MAX_BYTES: usize = 2_040_109_465;
/// A worker that has answered a bundle and sends nothing more must close its streams within this time.
const STALL: Duration = Duration::from_secs(60);
/// How long whoever watches a worker's process may take to tell its end, once its streams have ended.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Where an entry of the log says that it is a worker pool's word on the end of the worker's process.
const POOL_ENDED: &str = "worker_pool:harness_ended";

/// Streams for state, logs and status that a worker may have open at a time; SDKs have a few.
const MAX_STREAMS: usize = 64;

/// One worker of this process.
pub(crate) struct WorkerConnection {
    /// The whole id, by which its calls are known: a secret.
    pub(crate) worker_id: String,
    /// Of the job that has it now.
    identity: Mutex<WorkerIdentity>,
    /// How many jobs had it before.
    jobs_before: AtomicU64,
    /// Whether a bundle has failed on it, or was given up: something of it may have stayed behind.
    spoilt: AtomicBool,
    pub(crate) provision: fnapi::ProvisionInfo,
    /// The address of state and data services that descriptors carry.
    url: String,
    embeds: bool,
    instructions: Mutex<Instructions>,
    life: Life,
    data: watch::Sender<Option<DataSender>>,
    pub(crate) status: StatusDesk,
    streams: Arc<Semaphore>,
    next: AtomicU64,
    said: LastWords,
    /// Whether the worker has answered anything at all, or asked.
    heard: watch::Sender<bool>,
    /// Whether its silence has been told.
    silence_told: AtomicBool,
    /// Whether someone watches the worker's process and knows better than its streams why they ended.
    watched: AtomicBool,
}

#[derive(Default)]
struct Instructions {
    control: Option<mpsc::UnboundedSender<Result<fnapi::InstructionRequest, Status>>>,
    pending: HashMap<String, oneshot::Sender<Result<fnapi::InstructionResponse, WorkerError>>>,
    bundles: HashMap<String, Arc<BundleInFlight>>,
    descriptors: HashMap<String, Registered>,
}

struct Registered {
    given: Arc<fnapi::ProcessBundleDescriptor>,
    served: Arc<fnapi::ProcessBundleDescriptor>,
}

/// A bundle that the worker has.
struct BundleInFlight {
    collector: Mutex<Collector>,
    done: Mutex<Option<oneshot::Sender<Result<BundleOutcome, WorkerError>>>>,
    /// Messages received, to tell a slow worker from one that stands still.
    received: AtomicU64,
    state: Arc<StateQueue>,
}

impl BundleInFlight {
    fn end(&self, result: Result<BundleOutcome, WorkerError>) {
        if let Some(done) = self.done.lock().take() {
            // The bundle was abandoned if nobody listens.
            let _ = done.send(result);
        }
    }

    /// Applies `step` to what has come so far, and ends the bundle if it is whole or wrong.
    fn advance(&self, step: impl FnOnce(&mut Collector) -> Result<(), ProtocolError>) {
        self.received.fetch_add(1, Ordering::Relaxed);
        let result = {
            let mut collector = self.collector.lock();
            step(&mut collector).map(|()| collector.take_if_whole())
        };
        match result {
            Ok(None) => {}
            Ok(Some(outcome)) => self.end(Ok(outcome)),
            Err(error) => self.end(Err(WorkerError::Failed(error.to_string()))),
        }
    }
}

/// Takes a bundle off the worker's instructions when its `process` ends, in whatever way.
struct Registration<'a> {
    connection: &'a WorkerConnection,
    instruction: String,
    /// Whether the worker has done all of it.
    done: bool,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.connection.spoilt.store(true, Ordering::Release);
        }
        self.connection
            .instructions
            .lock()
            .bundles
            .remove(&self.instruction);
    }
}

/// Takes an instruction that nobody awaits any more off the worker's instructions.
struct Pending<'a> {
    connection: &'a WorkerConnection,
    instruction: String,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.connection
            .instructions
            .lock()
            .pending
            .remove(&self.instruction);
    }
}

impl WorkerConnection {
    pub(crate) fn new(
        worker_id: String,
        identity: WorkerIdentity,
        provision: fnapi::ProvisionInfo,
        url: String,
        embeds: bool,
    ) -> Self {
        Self {
            worker_id,
            identity: Mutex::new(identity),
            jobs_before: AtomicU64::new(0),
            spoilt: AtomicBool::new(false),
            provision,
            url,
            embeds,
            instructions: Mutex::default(),
            life: Life::new(),
            data: watch::Sender::new(None),
            status: StatusDesk::default(),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            said: LastWords::default(),
            heard: watch::Sender::new(false),
            silence_told: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            next: AtomicU64::new(0),
        }
    }

    /// The worker's id without its token, to be shown.
    pub(crate) fn name(&self) -> &str {
        without_token(&self.worker_id)
    }

    // Streams come and go.

    /// The control stream has come. Returns what is to be sent on it.
    pub(crate) fn attach_control(
        &self,
    ) -> Result<mpsc::UnboundedReceiver<Result<fnapi::InstructionRequest, Status>>, Status> {
        let (tx, rx) = mpsc::unbounded_channel();
        let mut instructions = self.instructions.lock();
        if !self.life.connect() {
            self.refuse_if_over()?;
            let id = self.name();
            return Err(Status::already_exists(format!(
                "worker {id:?} has a control stream already"
            )));
        }
        instructions.control = Some(tx);
        Ok(rx)
    }

    /// A data stream has come. Returns what is to be sent on it.
    pub(crate) fn attach_data(&self) -> Result<Outbound, Status> {
        let (tx, rx) = window::channel();
        let mut taken = false;
        self.refuse_if_over()?;
        self.data.send_if_modified(|slot| {
            taken = slot.as_ref().is_some_and(|old| !old.is_closed());
            if !taken {
                *slot = Some(tx);
            }
            !taken
        });
        if taken {
            let id = self.name();
            return Err(Status::already_exists(format!(
                "worker {id:?} has a data stream already"
            )));
        }
        Ok(rx)
    }

    /// Another stream has come, for state, logs or status. It counts until what is returned is dropped.
    pub(crate) fn attach(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            let id = self.name();
            Status::resource_exhausted(format!(
                "worker {id:?} has {MAX_STREAMS} streams for state, logs and status already"
            ))
        })
    }

    /// A state stream has come. Returns where answers go, and what is to be sent on it.
    pub(crate) fn attach_state(&self) -> Result<(Answers, super::state::Outbound), Status> {
        self.refuse_if_over()?;
        Ok(Answers::new(self.presence()))
    }

    /// A status stream has come. Returns what is to be asked on it.
    pub(crate) fn attach_status(&self) -> Result<super::status::Questions, Status> {
        self.refuse_if_over()?;
        Ok(self.status.attach())
    }

    /// A worker that has ended opens no stream any more.
    fn refuse_if_over(&self) -> Result<(), Status> {
        match self.life.now().end() {
            None => Ok(()),
            Some(reason) => {
                let id = self.name();
                Err(Status::failed_precondition(format!(
                    "worker {id:?} has ended: {reason}"
                )))
            }
        }
    }

    /// The worker is gone: everything that it had fails.
    pub(crate) fn lose(&self, reason: &str) {
        if self.life.lose(reason) {
            let job = self.identity().job_id;
            tracing::warn!(worker = %self.name(), %job, "worker lost: {reason}");
        }
        self.clear();
    }

    /// The worker's process has ended, and this is how. It is told even where the end of a stream was noticed long before: on
    /// a busy machine whoever watches the process may be late.
    pub(crate) fn ended(&self, reason: &str) {
        let late = matches!(self.life.now(), Presence::Lost(before) if before != reason);
        if late {
            let job = self.identity().job_id;
            tracing::warn!(worker = %self.name(), %job, "worker lost: {reason}");
        }
        self.lose(reason);
    }

    /// Whoever calls this tells the end of the worker's process by [`WorkerConnection::ended`].
    pub(crate) fn watch(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// A stream of the worker has ended. The end of its process, where that is known, is the better reason.
    pub(crate) async fn stream_ended(&self, reason: &str) {
        if self.watched.load(Ordering::Relaxed) {
            let mut presence = self.life.watch();
            let over = presence.wait_for(Presence::is_over);
            // It may go on: only the stream has ended then.
            let _ = tokio::time::timeout(LAST_WORD, over).await;
        }
        self.lose(reason);
    }

    /// The worker is no longer wanted: its streams end.
    pub(crate) fn stop(&self) {
        self.life.stop();
        self.clear();
    }

    fn clear(&self) {
        let (pending, bundles) = {
            let mut instructions = self.instructions.lock();
            instructions.control = None;
            (
                std::mem::take(&mut instructions.pending),
                std::mem::take(&mut instructions.bundles),
            )
        };
        self.data.send_replace(None);
        self.status.close();
        for waiting in pending.into_values() {
            let _ = waiting.send(Err(self.lost_error()));
        }
        for bundle in bundles.into_values() {
            bundle.end(Err(self.lost_error()));
        }
    }

    fn lost_error(&self) -> WorkerError {
        let now = self.life.now();
        WorkerError::Lost {
            worker: self.name().to_owned(),
            reason: now.end().unwrap_or("its connection ended").to_owned(),
        }
    }

    /// The worker's life, to be waited for.
    pub(super) fn life(&self) -> &Life {
        &self.life
    }

    /// The worker's life, to be watched.
    pub(crate) fn presence(&self) -> watch::Receiver<Presence> {
        self.life.watch()
    }

    /// Keeps what the worker says, in its log or on its standard output.
    pub(crate) fn note(&self, text: &str) {
        self.said.add(text);
    }

    /// The last of what the worker said.
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.lines()
    }

    /// The last of what the worker said, in words.
    pub(crate) fn last_words(&self) -> String {
        match self.said() {
            said if said.is_empty() => "it has said nothing".to_owned(),
            said => format!("the last it said was:\n{}", said.join("\n")),
        }
    }

    fn hear(&self) {
        self.heard
            .send_if_modified(|heard| !std::mem::replace(heard, true));
    }

    /// Whether it has answered anything, or asked.
    pub(crate) fn was_heard(&self) -> bool {
        *self.heard.borrow()
    }

    /// Resolves when the worker has not answered anything, ever, for so long; never if it has.
    pub(crate) async fn silent_for(&self, time: Duration) {
        let mut heard = self.heard.subscribe();
        let silent = tokio::time::timeout(time, heard.wait_for(|heard| *heard))
            .await
            .is_err();
        if !silent {
            std::future::pending::<()>().await;
        }
    }

    /// Whether its silence is to be told now: once.
    pub(crate) fn tells_silence(&self) -> bool {
        !self.silence_told.swap(true, Ordering::Relaxed)
    }

    // What a worker sends.

    pub(crate) fn on_log(&self, entry: &fnapi::LogEntry) {
        if entry.log_location == POOL_ENDED {
            return self.ended(&entry.message);
        }
        self.note(&entry.message);
        self.note(&entry.trace);
    }

    pub(crate) fn on_response(&self, response: fnapi::InstructionResponse) {
        self.hear();
        let id = response.instruction_id.as_str();
        let (bundle, waiting) = {
            let mut instructions = self.instructions.lock();
            let bundle = instructions.bundles.get(id).cloned();
            let waiting = if bundle.is_none() {
                instructions.pending.remove(id)
            } else {
                None
            };
            (bundle, waiting)
        };
        if let Some(bundle) = bundle {
            if !response.error.is_empty() {
                return bundle.end(Err(WorkerError::Failed(response.error)));
            }
            bundle.advance(|collector| match response.response {
                Some(instruction_response::Response::ProcessBundle(response)) => collector.response(response),
                Some(_) => Err(ProtocolError::WrongResponse(
                    "an answer to another kind of request",
                )),
                None => Err(ProtocolError::WrongResponse("an empty answer")),
            });
        } else if let Some(waiting) = waiting {
            let _ = waiting.send(Ok(response));
        } else {
            tracing::debug!(worker = %self.name(), "answer to unknown instruction {id:?}");
        }
    }

    pub(crate) fn on_elements(&self, elements: fnapi::Elements) {
        self.hear();
        for data in elements.data {
            if let Some(bundle) = self.bundle(&data.instruction_id) {
                bundle.advance(|collector| collector.data(data));
            }
        }
        for timers in elements.timers {
            if let Some(bundle) = self.bundle(&timers.instruction_id) {
                bundle.advance(|collector| collector.timers(timers));
            }
        }
    }

    pub(crate) async fn on_state(&self, request: fnapi::StateRequest, answers: &Answers) {
        self.hear();
        match self.bundle(&request.instruction_id) {
            Some(bundle) => bundle.state.push(request, answers.clone()).await,
            None => {
                let error = format!("no bundle {:?} is running on this worker", request.instruction_id);
                let answer = fnapi::StateResponse {
                    id: request.id,
                    error,
                    response: None,
                };
                answers.send(answer).await;
            }
        }
    }

    /// A running bundle. What a worker still sends for one that has ended (failed, abandoned) is of no use.
    fn bundle(&self, instruction: &str) -> Option<Arc<BundleInFlight>> {
        let bundle = self.instructions.lock().bundles.get(instruction).cloned();
        if bundle.is_none() {
            tracing::debug!(worker = %self.name(), "message for unknown instruction {instruction:?}");
        }
        bundle
    }

    /// The descriptor as the worker needs it.
    pub(crate) fn descriptor(&self, id: &str) -> Option<Arc<fnapi::ProcessBundleDescriptor>> {
        self.instructions
            .lock()
            .descriptors
            .get(id)
            .map(|r| r.served.clone())
    }

    // One job after another.

    /// Whose the worker is now.
    pub(crate) fn identity(&self) -> WorkerIdentity {
        self.identity.lock().clone()
    }

    /// Whether another job can have the worker: it has done all bundles that it was given, and none has failed.
    pub(crate) fn is_reusable(&self) -> bool {
        self.life.now() == Presence::Connected
            && !self.spoilt.load(Ordering::Acquire)
            && self.instructions.lock().bundles.is_empty()
    }

    /// The worker is another job's from now on.
    pub(crate) fn adopt(&self, environment_id: &str, job_id: &str) {
        {
            let mut identity = self.identity.lock();
            environment_id.clone_into(&mut identity.environment_id);
            job_id.clone_into(&mut identity.job_id);
        }
        self.jobs_before.fetch_add(1, Ordering::Relaxed);
        self.instructions.lock().descriptors.clear();
        self.said.clear();
    }

    /// Bundles, descriptors and cache tokens are unique within a job, and a worker remembers those of the jobs before.
    pub(crate) fn own(&self, id: &str) -> String {
        match self.jobs_before.load(Ordering::Relaxed) {
            0 => id.to_owned(),
            before => format!("{before}/{id}"),
        }
    }

    fn own_token(&self, token: Bytes) -> Bytes {
        match self.jobs_before.load(Ordering::Relaxed) {
            0 => token,
            before => [&before.to_be_bytes(), &token[..]].concat().into(),
        }
    }

    // What the runner asks.

    /// Returns the id that the worker is to ask for.
    fn register(&self, given: &Arc<fnapi::ProcessBundleDescriptor>) -> String {
        let id = self.own(&given.id);
        let mut instructions = self.instructions.lock();
        if instructions
            .descriptors
            .get(&id)
            .is_some_and(|r| Arc::ptr_eq(&r.given, given))
        {
            return id;
        }
        let endpoint = pipeline::ApiServiceDescriptor {
            url: self.url.clone(),
            authentication: None,
        };
        let mut served = with_endpoints(given, &endpoint, &endpoint);
        served.id.clone_from(&id);
        instructions.descriptors.insert(
            id.clone(),
            Registered {
                given: given.clone(),
                served: Arc::new(served),
            },
        );
        id
    }

    fn send_control(&self, request: fnapi::InstructionRequest) -> Result<(), WorkerError> {
        let control = self.instructions.lock().control.clone();
        let sent = control.is_some_and(|control| control.send(Ok(request)).is_ok());
        if sent { Ok(()) } else { Err(self.lost_error()) }
    }

    /// Processes a bundle to its end.
    pub(crate) async fn process(&self, work: BundleWork) -> Result<BundleOutcome, WorkerError> {
        let descriptor_id = self.register(&work.descriptor);
        let (done, mut outcome) = oneshot::channel();
        let running = Arc::new(BundleInFlight {
            collector: Mutex::new(Collector::new(&work.sinks, &work.timer_families)),
            done: Mutex::new(Some(done)),
            received: AtomicU64::new(0),
            state: Arc::new(StateQueue::new(work.state)),
        });
        let instruction = self.own(&work.instruction);
        let mut cache_tokens = work.cache_tokens;
        for given in &mut cache_tokens {
            given.token = self.own_token(std::mem::take(&mut given.token));
        }
        {
            let mut instructions = self.instructions.lock();
            if instructions.control.is_none() {
                return Err(self.lost_error());
            }
            if instructions.bundles.contains_key(&instruction) {
                return Err(WorkerError::Failed(format!(
                    "bundle {instruction:?} is running on this worker already"
                )));
            }
            instructions.bundles.insert(instruction.clone(), running.clone());
        }
        let mut registration = Registration {
            connection: self,
            instruction: instruction.clone(),
            done: false,
        };

        let mut messages = send::messages(&instruction, &work.source, &work.timer_families, work.input);
        let embedded = match messages.as_slice() {
            [one] if self.embeds && send::size(one) <= EMBED_BYTES => messages.pop(),
            _ => None,
        };
        self.send_control(fnapi::InstructionRequest {
            instruction_id: instruction,
            request: Some(instruction_request::Request::ProcessBundle(
                fnapi::ProcessBundleRequest {
                    process_bundle_descriptor_id: descriptor_id,
                    cache_tokens,
                    elements: embedded,
                    ..Default::default()
                },
            )),
        })?;
        let result = tokio::select! {
            biased;
            // An early failure ends the sending.
            result = &mut outcome => result,
            sent = self.send_data(messages) => match sent {
                Ok(()) => self.await_outcome(outcome, &running).await,
                Err(error) => return Err(error),
            },
        };
        let outcome = result.unwrap_or_else(|_| Err(self.lost_error()))?;
        running.state.settled().await;
        registration.done = true;
        Ok(outcome)
    }

    async fn send_data(&self, messages: Vec<fnapi::Elements>) -> Result<(), WorkerError> {
        if messages.is_empty() {
            return Ok(());
        }
        // A worker opens its data stream when it first needs it. A lost worker's bundles end by `clear`.
        let mut data = self.data.subscribe();
        let sender = match data.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(sender)) => sender.clone(),
            _ => return Err(self.lost_error()),
        };
        for message in messages {
            let bytes = send::size(&message);
            if bytes > MAX_BYTES {
                return Err(WorkerError::Failed(format!(
                    "an element of {bytes} bytes is too large for gRPC, which passes up to 1.9 GiB; make elements \
                     smaller, for example by writing large values to files and passing their names"
                )));
            }
            if sender.send(message).await.is_err() {
                return Err(self.lost_error());
            }
        }
        Ok(())
    }

    async fn await_outcome(
        &self,
        mut outcome: oneshot::Receiver<Result<BundleOutcome, WorkerError>>,
        running: &BundleInFlight,
    ) -> Result<Result<BundleOutcome, WorkerError>, oneshot::error::RecvError> {
        let mut before = running.received.load(Ordering::Relaxed);
        loop {
            tokio::select! {
                biased;
                result = &mut outcome => return result,
                () = tokio::time::sleep(STALL) => {
                    let now = running.received.load(Ordering::Relaxed);
                    let collector = running.collector.lock();
                    if collector.responded() && now == before {
                        let open = collector.still_open().join(", ");
                        let seconds = STALL.as_secs();
                        return Ok(Err(WorkerError::Failed(format!(
                            "the worker answered the bundle, then sent nothing for {seconds} s without closing {open}"
                        ))));
                    }
                    before = now;
                }
            }
        }
    }

    /// Whether this bundle is running on the worker.
    pub(crate) fn is_running(&self, instruction: &str) -> bool {
        self.instructions.lock().bundles.contains_key(instruction)
    }

    /// Asks something and awaits the answer. An error of the SDK's is `Failed`.
    pub(crate) async fn ask(
        &self,
        request: instruction_request::Request,
    ) -> Result<instruction_response::Response, WorkerError> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let instruction = format!("ask-{n}");
        let (tx, rx) = oneshot::channel();
        {
            let mut instructions = self.instructions.lock();
            if instructions.control.is_none() {
                return Err(self.lost_error());
            }
            instructions.pending.insert(instruction.clone(), tx);
        }
        let _pending = Pending {
            connection: self,
            instruction: instruction.clone(),
        };
        self.send_control(fnapi::InstructionRequest {
            instruction_id: instruction,
            request: Some(request),
        })?;
        let response = rx.await.unwrap_or_else(|_| Err(self.lost_error()))?;
        if !response.error.is_empty() {
            return Err(WorkerError::Failed(response.error));
        }
        response
            .response
            .ok_or_else(|| WorkerError::Failed("the worker sent an empty answer".into()))
    }
}
