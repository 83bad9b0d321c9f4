//! Asks workers how they are: the service `BeamFnWorkerStatus`.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use purlin_proto::fn_execution as fnapi;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

/// How long a worker may take to answer; it stops all its threads to look at them.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is sent on a worker's status stream.
pub(crate) type Questions = mpsc::UnboundedReceiver<Result<fnapi::WorkerStatusRequest, Status>>;

/// A worker's status stream, if it has one, and who waits for an answer.
#[derive(Debug, Default)]
pub(crate) struct StatusDesk(Mutex<Desk>);

#[derive(Debug, Default)]
struct Desk {
    questions: Option<mpsc::UnboundedSender<Result<fnapi::WorkerStatusRequest, Status>>>,
    waiting: HashMap<String, oneshot::Sender<fnapi::WorkerStatusResponse>>,
    next: u64,
}

impl StatusDesk {
    /// A status stream has come. It takes the place of an older one.
    pub(crate) fn attach(&self) -> Questions {
        let (sender, questions) = mpsc::unbounded_channel();
        self.0.lock().questions = Some(sender);
        questions
    }

    /// The worker is gone.
    pub(crate) fn close(&self) {
        *self.0.lock() = Desk::default();
    }

    pub(crate) fn answered(&self, answer: fnapi::WorkerStatusResponse) {
        if let Some(waiting) = self.0.lock().waiting.remove(&answer.id) {
            // Whoever asked may have lost patience.
            let _ = waiting.send(answer);
        }
    }

    /// The worker's own account of its threads, bundles and caches.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn ask(&self) -> Result<String, String> {
        let (id, answer) = {
            let mut desk = self.0.lock();
            let id = desk.next.to_string();
            let request = fnapi::WorkerStatusRequest { id: id.clone() };
            let sent = desk
                .questions
                .as_ref()
                .is_some_and(|to| to.send(Ok(request)).is_ok());
            if !sent {
                return Err(
                    "it has opened no status stream (SDKs do so when they start with a status endpoint: in \
                            PROCESS, DOCKER and EXTERNAL environments, not in LOOPBACK ones)"
                        .to_owned(),
                );
            }
            desk.next += 1;
            let (sender, answer) = oneshot::channel();
            desk.waiting.insert(id.clone(), sender);
            (id, answer)
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        self.0.lock().waiting.remove(&id);
        match answer {
            Err(_) => Err(format!("it did not answer within {} s", PATIENCE.as_secs())),
            Ok(Err(_)) => Err("it has gone".to_owned()),
            Ok(Ok(answer)) if answer.error.is_empty() => Ok(answer.status_info),
            Ok(Ok(answer)) => Err(answer.error),
        }
    }
}
