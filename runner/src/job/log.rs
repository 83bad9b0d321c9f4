//! What a job tells: states and messages, in order, replayed to whoever listens later.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use futures::{Stream, StreamExt as _};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Its first workers start.
    Starting,
    /// Bundles are processed.
    Running,
    /// What is there is finished; sources have stopped.
    Draining,
    /// It stops.
    Cancelling,
    /// All is processed.
    Done,
    /// It failed; its last error message says why.
    Failed,
    /// It was stopped before its end.
    Cancelled,
    /// It was drained.
    Drained,
}

impl JobState {
    /// Whether nothing follows.
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            JobState::Done | JobState::Failed | JobState::Cancelled | JobState::Drained
        )
    }
}

/// A job came to a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// The state.
    pub state: JobState,
    /// Since when.
    pub at: SystemTime,
}

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Importance {
    /// For those who look for faults in the runner.
    Debug,
    /// Details of the run.
    Detailed,
    /// The course of the run.
    Basic,
    /// Something is wrong, and the job goes on.
    Warning,
    /// Why the job failed, or will.
    Error,
}

/// Something to be told to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Counts from 0.
    pub id: u64,
    /// When it was told.
    pub at: SystemTime,
    /// How much it matters.
    pub importance: Importance,
    /// The text.
    pub text: String,
}

/// A state or a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEvent {
    /// The job came to a state.
    State(StateChange),
    /// Something to tell.
    Message(Message),
}

/// Of a job that tells very much, the oldest messages are forgotten (states never are): so many are kept,
const MAX_MESSAGES: usize = 10_000;
/// and so many bytes of text.
const MAX_BYTES: usize = 8 << 20;
/// Bytes of one message; the end of a longer one is not kept. Clients of gRPC take 4 MiB by default.
const MAX_KEPT_MESSAGE_BYTES: usize = 256 << 10;

/// The states and messages of one job, whatever runs it.
///
/// Whoever runs the job adds to it; any number of readers see all of it, from its beginning. It begins with the state
/// [`JobState::Starting`], and ends with the first terminal state: what is added after that is ignored. Of a job that tells very
/// much the oldest messages are forgotten, so that the log stays within 8 MiB.
///
/// ```
/// use std::sync::Arc;
///
/// use futures::StreamExt;
/// use purlin_runner::job::{EventLog, Importance, JobEvent, JobState};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let log = Arc::new(EventLog::new());
/// log.set(JobState::Running);
/// log.tell(Importance::Basic, "half of it is done".to_owned());
/// log.set(JobState::Done);
/// log.tell(Importance::Basic, "too late".to_owned());
/// let events: Vec<JobEvent> = log.events().collect().await;
/// assert_eq!(events.len(), 4);
/// assert!(matches!(&events[2], JobEvent::Message(message) if message.id == 0));
/// # }
/// ```
#[derive(Debug)]
pub struct EventLog {
    kept: Mutex<Kept>,
    states: watch::Sender<StateChange>,
    /// Number of events so far.
    count: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<(u64, Arc<JobEvent>)>,
    next: u64,
    messages: u64,
    messages_kept: usize,
    /// Of the messages that are kept.
    bytes: usize,
    history: Vec<StateChange>,
    last_error: Option<String>,
}

impl Default for EventLog {
    fn default() -> Self {
        Self::new()
    }
}

impl EventLog {
    /// The log of a job that starts now.
    pub fn new() -> Self {
        let first = StateChange {
            state: JobState::Starting,
            at: SystemTime::now(),
        };
        let log = EventLog {
            kept: Mutex::default(),
            states: watch::Sender::new(first),
            count: watch::Sender::new(0),
        };
        log.push_state(first);
        log
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock()
    }

    fn push_state(&self, change: StateChange) {
        let next = {
            let mut kept = self.lock();
            kept.history.push(change);
            // Under the lock: whoever has read the event asks for the state next.
            self.states.send_replace(change);
            kept.push(JobEvent::State(change))
        };
        self.count.send_replace(next);
    }

    /// Comes to a state, now. After a terminal one nothing changes.
    pub fn set(&self, state: JobState) {
        let current = self.states.borrow().state;
        if current != state && !current.is_terminal() {
            self.push_state(StateChange {
                state,
                at: SystemTime::now(),
            });
        }
    }

    /// Adds a message. The text of one that is longer than 256 KiB is cut.
    pub fn tell(&self, importance: Importance, text: String) {
        if self.states.borrow().state.is_terminal() {
            return;
        }
        let text = cut(text);
        let next = {
            let mut kept = self.lock();
            if importance == Importance::Error {
                kept.last_error = Some(text.clone());
            }
            let message = Message {
                id: kept.messages,
                at: SystemTime::now(),
                importance,
                text,
            };
            kept.messages += 1;
            kept.messages_kept += 1;
            kept.bytes += message.text.len();
            while kept.messages_kept > MAX_MESSAGES || kept.bytes > MAX_BYTES {
                if !kept.forget_one() {
                    break;
                }
            }
            kept.push(JobEvent::Message(message))
        };
        self.count.send_replace(next);
    }

    /// Bytes of the messages that are kept.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// The current state, and since when.
    pub fn current(&self) -> StateChange {
        *self.states.borrow()
    }

    /// Watches the state.
    pub fn watch(&self) -> watch::Receiver<StateChange> {
        self.states.subscribe()
    }

    /// All states so far, the first one first.
    pub fn history(&self) -> Vec<StateChange> {
        self.lock().history.clone()
    }

    /// Why the job failed: its last message of [`Importance::Error`]. None unless its state is [`JobState::Failed`].
    pub fn error(&self) -> Option<String> {
        match self.current().state {
            JobState::Failed => self.lock().last_error.clone(),
            _ => None,
        }
    }

    /// States and messages in order, from the first on, then as they come. Ends after the terminal state.
    pub fn events(self: &Arc<Self>) -> impl Stream<Item = JobEvent> + Send + 'static + use<> {
        let reader = Reader {
            log: Arc::clone(self),
            count: self.count.subscribe(),
            at: 0,
            ended: false,
        };
        futures::stream::unfold(reader, |mut reader| async move {
            let event = reader.next().await?;
            Some((event, reader))
        })
    }

    /// The states among [`EventLog::events`].
    pub fn states(self: &Arc<Self>) -> impl Stream<Item = StateChange> + Send + 'static + use<> {
        self.events().filter_map(|event| async move {
            match event {
                JobEvent::State(change) => Some(change),
                JobEvent::Message(_) => None,
            }
        })
    }
}

impl Kept {
    fn push(&mut self, event: JobEvent) -> u64 {
        self.events.push_back((self.next, Arc::new(event)));
        self.next += 1;
        self.next
    }

    /// Forgets the oldest message, if there is one.
    fn forget_one(&mut self) -> bool {
        let oldest = self
            .events
            .iter()
            .enumerate()
            .find_map(|(place, (_, event))| match &**event {
                JobEvent::Message(message) => Some((place, message.text.len())),
                JobEvent::State(_) => None,
            });
        let Some((place, bytes)) = oldest else {
            return false;
        };
        self.events.remove(place);
        self.messages_kept -= 1;
        self.bytes -= bytes;
        true
    }

    /// The first event at or after a number.
    fn at(&self, number: u64) -> Option<(u64, Arc<JobEvent>)> {
        let place = self.events.partition_point(|(own, _)| *own < number);
        self.events.get(place).cloned()
    }
}

/// The last boundary of characters that is not beyond `most` bytes.
pub(super) fn boundary(text: &str, most: usize) -> usize {
    (0..=most.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or(0)
}

/// The text, or its first part and how much is missing.
fn cut(mut text: String) -> String {
    let all = text.len();
    if all > MAX_KEPT_MESSAGE_BYTES {
        text.truncate(boundary(&text, MAX_KEPT_MESSAGE_BYTES));
        text.shrink_to_fit();
        text.push_str(&format!(" ... ({} more bytes)", all - text.len()));
    }
    text
}

struct Reader {
    log: Arc<EventLog>,
    count: watch::Receiver<u64>,
    at: u64,
    ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<JobEvent> {
        if self.ended {
            return None;
        }
        loop {
            self.count.mark_unchanged();
            let found = self.log.lock().at(self.at);
            if let Some((number, event)) = found {
                self.at = number + 1;
                self.ended = matches!(&*event, JobEvent::State(change) if change.state.is_terminal());
                return Some((*event).clone());
            }
            // The log, and with it the sender, lives as long as this reader.
            self.count.changed().await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_are_kept_within_bounds_of_bytes() {
        let log = Arc::new(EventLog::new());
        log.set(JobState::Running);
        for n in 0..100 {
            log.tell(
                Importance::Warning,
                format!("{n} {}", "ä".repeat(MAX_KEPT_MESSAGE_BYTES)),
            );
        }
        assert!(log.bytes() <= MAX_BYTES, "{} bytes are kept", log.bytes());
        log.set(JobState::Failed);
        let events: Vec<JobEvent> = log.events().collect().await;
        let mut texts = events.iter().filter_map(|event| match event {
            JobEvent::Message(message) => Some(message.text.as_str()),
            JobEvent::State(_) => None,
        });
        let last = texts.next_back().unwrap();
        assert!(
            last.starts_with("99 ä") && last.ends_with("more bytes)"),
            "{}",
            &last[..20]
        );
        // No state is forgotten.
        let states = events.iter().filter(|event| matches!(event, JobEvent::State(_)));
        assert_eq!(states.count(), 3);
    }
}
