//! Where a worker is in its life, and what can happen to it there.

use tokio::sync::watch;

/// Where a worker is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It has been started, or asked for, and has not come yet.
    Awaited,
    /// Its control stream is open.
    Connected,
    /// The runner no longer wants it.
    Stopped,
    /// It is gone, for this reason.
    Lost(String),
}

/// What can happen to a worker.
#[derive(Clone, Debug)]
enum Event {
    Connect,
    Lose(String),
    Stop,
}

impl Presence {
    /// Whether nothing follows.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Presence::Lost(_) | Presence::Stopped)
    }

    /// Why the worker has ended, if it has.
    pub(crate) fn end(&self) -> Option<&str> {
        match self {
            Presence::Awaited | Presence::Connected => None,
            Presence::Stopped => Some("it was stopped"),
            Presence::Lost(reason) => Some(reason),
        }
    }

    /// All transitions; `None` where the event changes nothing. The first end stays: a worker that was lost is not stopped
    /// afterwards, and the end of the streams of a stopped one is no loss.
    fn after(&self, event: Event) -> Option<Presence> {
        match (self, event) {
            (Presence::Awaited, Event::Connect) => Some(Presence::Connected),
            (Presence::Awaited | Presence::Connected, Event::Lose(reason)) => Some(Presence::Lost(reason)),
            (Presence::Awaited | Presence::Connected, Event::Stop) => Some(Presence::Stopped),
            (Presence::Connected, Event::Connect) => None,
            (Presence::Stopped | Presence::Lost(_), _) => None,
        }
    }
}

/// The life of one worker, which many may watch.
pub(super) struct Life(watch::Sender<Presence>);

impl Life {
    pub fn new() -> Life {
        Life(watch::Sender::new(Presence::Awaited))
    }

    /// Where the worker is now.
    pub fn now(&self) -> Presence {
        self.0.borrow().clone()
    }

    /// Its life, to be watched.
    pub fn watch(&self) -> watch::Receiver<Presence> {
        self.0.subscribe()
    }

    /// The control stream has come. Returns whether it was awaited.
    pub fn connect(&self) -> bool {
        self.apply(Event::Connect)
    }

    /// The worker is gone. Returns whether this is news.
    pub fn lose(&self, reason: &str) -> bool {
        self.apply(Event::Lose(reason.to_owned()))
    }

    /// The worker is no longer wanted.
    pub fn stop(&self) {
        self.apply(Event::Stop);
    }

    fn apply(&self, event: Event) -> bool {
        self.0.send_if_modified(|presence| match presence.after(event) {
            Some(next) => {
                *presence = next;
                true
            }
            None => false,
        })
    }

    /// Resolves when the control stream has come (`Ok`), or the worker has ended before (`Err`, with the reason).
    pub async fn connected(&self) -> Result<(), String> {
        let mut presence = self.watch();
        let seen = presence.wait_for(|p| *p != Presence::Awaited).await;
        match seen.as_deref().map(Presence::end) {
            Ok(Some(reason)) => Err(reason.to_owned()),
            _ => Ok(()),
        }
    }

    /// Resolves when the worker is lost; never if it is stopped.
    pub async fn lost(&self) -> String {
        let mut presence = self.watch();
        let reason = match presence.wait_for(Presence::is_over).await.as_deref() {
            Ok(Presence::Lost(reason)) => Some(reason.clone()),
            _ => None,
        };
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_end_of_a_worker_stays() {
        let lost = |reason: &str| Presence::Lost(reason.to_owned());
        let lose = || Event::Lose("again".to_owned());
        let table = [
            (Presence::Awaited, Event::Connect, Some(Presence::Connected)),
            (Presence::Awaited, lose(), Some(lost("again"))),
            (Presence::Awaited, Event::Stop, Some(Presence::Stopped)),
            (Presence::Connected, Event::Connect, None),
            (Presence::Connected, lose(), Some(lost("again"))),
            (Presence::Connected, Event::Stop, Some(Presence::Stopped)),
            (Presence::Stopped, Event::Connect, None),
            (Presence::Stopped, lose(), None),
            (Presence::Stopped, Event::Stop, None),
            (lost("first"), Event::Connect, None),
            (lost("first"), lose(), None),
            (lost("first"), Event::Stop, None),
        ];
        for (before, event, after) in table {
            assert_eq!(before.after(event.clone()), after, "{before:?} {event:?}");
        }
    }
}
