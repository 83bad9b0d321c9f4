//! State requests over a stream, answered to the threads that wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use parking_lot::Mutex;
use purlin_net::MAX_MESSAGE_BYTES;
use purlin_proto::fn_execution::beam_fn_state_client::BeamFnStateClient;
use purlin_proto::fn_execution::{StateRequest, StateResponse};
use purlin_runner::worker::{StateAnswer, StateHandler};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::connect::{WorkerChannel, while_reading};

/// The state stream to one service.
pub(super) struct StateClient {
    requests: mpsc::Sender<StateRequest>,
    pending: Arc<Mutex<Pending>>,
    next: AtomicU64,
}

#[derive(Default)]
struct Pending {
    waiting: HashMap<String, SyncSender<StateResponse>>,
    ended: Option<String>,
}

impl StateClient {
    pub fn open(address: &str, channel: WorkerChannel) -> StateClient {
        let (requests, outbound) = mpsc::channel(64);
        let pending = Arc::<Mutex<Pending>>::default();
        let (shared, address) = (pending.clone(), address.to_owned());
        tokio::spawn(async move {
            let mut client = BeamFnStateClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES);
            let (outbound, reading) = while_reading(ReceiverStream::new(outbound));
            let reason = match client.state(outbound).await {
                Err(status) => status.message().to_owned(),
                Ok(response) => {
                    let mut answers = response.into_inner();
                    loop {
                        match answers.message().await {
                            Ok(Some(answer)) => {
                                let waiting = shared.lock().waiting.remove(&answer.id);
                                match waiting {
                                    // There is room for the one answer; the thread may have gone.
                                    Some(waiting) => drop(waiting.try_send(answer)),
                                    None => {
                                        tracing::debug!("answer to an unknown state request {:?}", answer.id)
                                    }
                                }
                            }
                            Ok(None) => break "the runner closed it".to_owned(),
                            Err(status) => break status.message().to_owned(),
                        }
                    }
                }
            };
            drop(reading);
            let mut pending = shared.lock();
            pending.ended = Some(format!(
                "the state stream to the runner at {address} ended: {reason}"
            ));
            // Whoever waits sees that its sender is gone.
            pending.waiting.clear();
        });
        StateClient {
            requests,
            pending,
            next: AtomicU64::new(1),
        }
    }
}

fn failed(id: String, error: String) -> StateResponse {
    StateResponse {
        id,
        error,
        response: None,
    }
}

impl Pending {
    fn ended(&self) -> String {
        let ended = self.ended.clone();
        ended.unwrap_or_else(|| "the state stream to the runner has ended".into())
    }
}

impl StateHandler for StateClient {
    fn handle(&self, request: StateRequest) -> StateResponse {
        self.handle_later(request)()
    }

    fn handle_later(&self, mut request: StateRequest) -> StateAnswer {
        let given = std::mem::take(&mut request.id);
        let id = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        request.id.clone_from(&id);
        let (answer, answered) = sync_channel(1);
        let ended = {
            let mut pending = self.pending.lock();
            pending.waiting.insert(id.clone(), answer);
            pending.ended.clone()
        };
        if ended.is_some() || self.requests.blocking_send(request).is_err() {
            let mut pending = self.pending.lock();
            pending.waiting.remove(&id);
            let response = failed(given, pending.ended());
            return Box::new(move || response);
        }
        let pending = self.pending.clone();
        Box::new(move || match answered.recv() {
            Ok(response) => StateResponse {
                id: given,
                ..response
            },
            Err(_) => failed(given, pending.lock().ended()),
        })
    }
}

/// Answers where the runner gives no state service.
pub(super) struct NoState;

impl StateHandler for NoState {
    fn handle(&self, request: StateRequest) -> StateResponse {
        StateResponse {
            id: request.id,
            error: "the runner names no state service for this stage".into(),
            response: None,
        }
    }
}
