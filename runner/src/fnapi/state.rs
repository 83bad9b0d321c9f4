//! Answers the state requests of one bundle: in their order within the bundle, at the same time as those of others.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use purlin_proto::fn_execution as fnapi;
use tokio::sync::{Notify, mpsc};

use super::lock;
use crate::worker::StateHandler;

/// Where answers go: the worker's state stream.
pub(crate) type Answers = mpsc::Sender<Result<fnapi::StateResponse, tonic::Status>>;

/// Requests of one bundle that wait for their turn. SDKs send a clear and the appends after it without waiting
/// for answers, so a bundle's requests must not overtake each other.
pub(crate) struct StateQueue {
    handler: Arc<dyn StateHandler>,
    waiting: Mutex<Waiting>,
    idle: Notify,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<(fnapi::StateRequest, Answers)>,
    running: bool,
}

impl StateQueue {
    pub(crate) fn new(handler: Arc<dyn StateHandler>) -> Self {
        Self {
            handler,
            waiting: Mutex::default(),
            idle: Notify::new(),
        }
    }

    /// Adds a request, to be answered off the async threads: scanning a large side input takes a while.
    pub(crate) fn push(self: &Arc<Self>, request: fnapi::StateRequest, answers: Answers) {
        let mut waiting = lock(&self.waiting);
        waiting.requests.push_back((request, answers));
        if !waiting.running {
            waiting.running = true;
            let queue = self.clone();
            tokio::task::spawn_blocking(move || queue.drain());
        }
    }

    fn drain(&self) {
        loop {
            let (request, answers) = {
                let mut waiting = lock(&self.waiting);
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
            // The worker is gone if this fails, and so is the bundle.
            let _ = answers.blocking_send(Ok(answer));
        }
    }

    /// Waits until every request that has come is answered.
    pub(crate) async fn settled(&self) {
        loop {
            let notified = self.idle.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if !lock(&self.waiting).running {
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
            lock(&self.0).push(request.id);
            fnapi::StateResponse::default()
        }
    }

    #[tokio::test]
    async fn order_stays_and_a_panic_is_an_error() {
        let echo = Arc::new(Echo(Mutex::default()));
        let queue = Arc::new(StateQueue::new(echo.clone()));
        let (tx, mut rx) = mpsc::channel(1000);
        let ids: Vec<String> = (0..100)
            .map(|i| if i == 50 { "bad".into() } else { i.to_string() })
            .collect();
        for id in &ids {
            queue.push(
                fnapi::StateRequest {
                    id: id.clone(),
                    ..Default::default()
                },
                tx.clone(),
            );
        }
        queue.settled().await;
        drop(tx);
        let mut answered = Vec::new();
        while let Some(answer) = rx.recv().await {
            let answer = answer.unwrap();
            assert_eq!(answer.error.is_empty(), answer.id != "bad");
            answered.push(answer.id);
        }
        assert_eq!(answered, ids);
        assert_eq!(lock(&echo.0).len(), 99);
    }
}
