//! Answers the state requests of one bundle: in their order within the bundle, at the same time as those of others.
//!
//! Requests that wait for their turn are bounded by bytes. A worker that asks faster than it is answered, or does not read its
//! answers, is not read any further until there is room.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;
use prost::Message as _;
use purlin_proto::fn_execution as fnapi;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::presence::Presence;
use crate::worker::StateHandler;

/// Bytes of a bundle's requests that wait at a time; a larger one waits alone.
pub(crate) const WINDOW_BYTES: usize = 8 << 20;
/// What a request takes in memory beside its bytes.
const REQUEST_BYTES: usize = 512;
/// Answers that wait for the connection.
const ANSWERS: usize = 64;

/// A state stream's answers on their way to the connection.
pub(crate) type Outbound = mpsc::Receiver<Result<fnapi::StateResponse, tonic::Status>>;

/// Where answers go: the worker's state stream.
#[derive(Clone)]
pub(crate) struct Answers {
    stream: mpsc::Sender<Result<fnapi::StateResponse, tonic::Status>>,
    presence: watch::Receiver<Presence>,
}

impl Answers {
    /// Those of a worker whose life `presence` tells.
    pub(crate) fn new(presence: watch::Receiver<Presence>) -> (Self, Outbound) {
        let (stream, outbound) = mpsc::channel(ANSWERS);
        (Self { stream, presence }, outbound)
    }

    /// Sends an answer when there is room. None is sent to a worker that has ended, and nothing waits for one.
    pub(crate) async fn send(&self, answer: fnapi::StateResponse) {
        let mut presence = self.presence.clone();
        tokio::select! {
            _ = self.stream.send(Ok(answer)) => {}
            _ = presence.wait_for(Presence::is_over) => {}
        }
    }

    /// The same off the async threads.
    fn send_blocking(&self, answer: fnapi::StateResponse) {
        if let Err(TrySendError::Full(Ok(answer))) = self.stream.try_send(Ok(answer)) {
            Handle::current().block_on(self.send(answer));
        }
    }
}

/// Requests of one bundle that wait for their turn. SDKs send a clear and the appends after it without waiting
/// for answers, so a bundle's requests must not overtake each other.
pub(crate) struct StateQueue {
    handler: Arc<dyn StateHandler>,
    waiting: Mutex<Waiting>,
    window: Arc<Semaphore>,
    idle: Notify,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<(fnapi::StateRequest, Answers, OwnedSemaphorePermit)>,
    running: bool,
}

impl StateQueue {
    pub(crate) fn new(handler: Arc<dyn StateHandler>) -> Self {
        Self {
            handler,
            waiting: Mutex::default(),
            window: Arc::new(Semaphore::new(WINDOW_BYTES)),
            idle: Notify::new(),
        }
    }

    /// Adds a request when there is room, to be answered off the async threads: scanning a large side input takes a while.
    pub(crate) async fn push(self: &Arc<Self>, request: fnapi::StateRequest, answers: Answers) {
        let bytes = (request.encoded_len() + REQUEST_BYTES).min(WINDOW_BYTES) as u32;
        let mut presence = answers.presence.clone();
        let permit = tokio::select! {
            permit = self.window.clone().acquire_many_owned(bytes) => permit,
            // Its bundle has failed.
            _ = presence.wait_for(Presence::is_over) => return,
        };
        // The semaphore is never closed.
        let Ok(permit) = permit else { return };
        let mut waiting = self.waiting.lock();
        waiting.requests.push_back((request, answers, permit));
        if !waiting.running {
            waiting.running = true;
            let queue = self.clone();
            tokio::task::spawn_blocking(move || queue.drain());
        }
    }

    fn drain(&self) {
        loop {
            let (request, answers, _permit) = {
                let mut waiting = self.waiting.lock();
                match waiting.requests.pop_front() {
                    Some(next) => next,
                    None => {
                        waiting.running = false;
                        self.idle.notify_waiters();
                        return;
                    }
                }
            };
            let id = request.id.clone();
            let answer = catch_unwind(AssertUnwindSafe(|| self.handler.handle(request)));
            let mut answer = answer.unwrap_or_else(|_| fnapi::StateResponse {
                error: "the runner failed while it answered this state request; its log says where".into(),
                ..Default::default()
            });
            answer.id = id;
            answers.send_blocking(answer);
        }
    }

    /// Waits until every request that has come is answered.
    pub(crate) async fn settled(&self) {
        loop {
            let notified = self.idle.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if !self.waiting.lock().running {
                return;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo(Mutex<Vec<String>>);

    impl StateHandler for Echo {
        fn handle(&self, request: fnapi::StateRequest) -> fnapi::StateResponse {
            assert_ne!(request.id, "bad", "a handler's panic is the test's point");
            self.0.lock().push(request.id);
            fnapi::StateResponse::default()
        }
    }

    #[tokio::test]
    async fn order_stays_and_a_panic_is_an_error() {
        let echo = Arc::new(Echo(Mutex::default()));
        let queue = Arc::new(StateQueue::new(echo.clone()));
        let presence = watch::Sender::new(Presence::Connected);
        let (answers, mut rx) = Answers::new(presence.subscribe());
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            while let Some(answer) = rx.recv().await {
                all.push(answer.unwrap());
            }
            all
        });
        let ids: Vec<String> = (0..100)
            .map(|i| if i == 50 { "bad".into() } else { i.to_string() })
            .collect();
        for id in &ids {
            queue.push(request(id, 0), answers.clone()).await;
        }
        queue.settled().await;
        drop(answers);
        let mut answered = Vec::new();
        for answer in reading.await.unwrap() {
            assert_eq!(answer.error.is_empty(), answer.id != "bad");
            answered.push(answer.id);
        }
        assert_eq!(answered, ids);
        assert_eq!(echo.0.lock().len(), 99);
    }

    fn request(id: &str, bytes: usize) -> fnapi::StateRequest {
        fnapi::StateRequest {
            id: id.to_owned(),
            instruction_id: "i".repeat(bytes),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn what_a_worker_asks_without_reading_is_bounded_and_ends_with_it() {
        let queue = Arc::new(StateQueue::new(Arc::new(Echo(Mutex::default()))));
        let presence = watch::Sender::new(Presence::Connected);
        let (answers, _unread) = Answers::new(presence.subscribe());
        let asking = tokio::spawn({
            let (queue, answers) = (queue.clone(), answers.clone());
            async move {
                for n in 0..1000 {
                    queue
                        .push(request(&n.to_string(), 1 << 20), answers.clone())
                        .await;
                }
            }
        });
        // Some 64 are answered, which nobody reads; then as many wait as there is room for.
        while queue.window.available_permits() > 1 << 20 || queue.waiting.lock().requests.len() < 6 {
            tokio::task::yield_now().await;
        }
        assert!(queue.waiting.lock().requests.len() <= WINDOW_BYTES >> 20);
        assert!(!asking.is_finished());
        presence.send_replace(Presence::Stopped);
        asking.await.unwrap();
        queue.settled().await;
        assert!(queue.waiting.lock().requests.is_empty());
    }
}
