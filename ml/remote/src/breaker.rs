//! A server that is away is not asked all the time.

use std::time::Duration;

use tokio::time::Instant;

/// After so many failures in a row nothing is asked of a server for a while; then one request tries whether it is back. Failures
/// are those of connections and time limits, and the statuses 502, 503 and 504: a server that answers is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// So many failures in a row open the circuit. 10 unless told.
    pub failures: u32,
    /// How long it stays open. 10 s unless told.
    pub pause: Duration,
    /// What becomes of requests meanwhile. They wait, unless told.
    pub when_open: WhenOpen,
}

/// What becomes of requests while a circuit is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenOpen {
    /// They wait, within the limit of time that they have.
    Wait,
    /// They fail at once.
    Fail,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        CircuitBreaker {
            failures: 10,
            pause: Duration::from_secs(10),
            when_open: WhenOpen::Wait,
        }
    }
}

/// The circuit to a server.
///
/// ```text
/// Closed(failures) ──failures in a row──▶ Open(until) ──time──▶ Probing
///    ▲  ▲                                    ▲                   │ │
///    │  └── answered                         └──── unavailable ──┘ │
///    └───────────────────────── answered ──────────────────────────┘
/// ```
#[derive(Debug)]
pub(crate) struct Breaker {
    settings: CircuitBreaker,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many failures in a row.
    Closed(u32),
    Open(Instant),
    /// One request is under way, which is to be told by then.
    Probing(Instant),
}

impl Breaker {
    pub fn new(settings: CircuitBreaker) -> Breaker {
        Breaker {
            settings,
            state: State::Closed(0),
        }
    }

    pub fn when_open(&self) -> WhenOpen {
        self.settings.when_open
    }

    /// The time at which to ask again, where no request may go now. Changes nothing: a request that goes says so by [`Breaker::goes`].
    pub fn open_until(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Closed(_) => None,
            // A probe whose end was never told, as its request was dropped, gives way to the next.
            State::Open(until) | State::Probing(until) => (now < until).then_some(until),
        }
    }

    /// A request goes, as it may. Unless the circuit is closed it is the one that tries whether the server is back.
    pub fn goes(&mut self, now: Instant) {
        if !matches!(self.state, State::Closed(_)) {
            self.state = State::Probing(now + self.settings.pause);
        }
    }

    /// The server answered. Whether the circuit closes by that.
    pub fn answered(&mut self) -> bool {
        let before = std::mem::replace(&mut self.state, State::Closed(0));
        !matches!(before, State::Closed(_))
    }

    /// It did not. Whether the circuit opens by that.
    pub fn unavailable(&mut self, now: Instant) -> bool {
        let failures = match self.state {
            State::Closed(failures) => failures.saturating_add(1),
            // Of a request that was under way before.
            State::Open(_) => return false,
            State::Probing(_) => self.settings.failures,
        };
        let opens = failures >= self.settings.failures;
        self.state = match opens {
            true => State::Open(now + self.settings.pause),
            false => State::Closed(failures),
        };
        opens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circuit_opens_and_one_request_tries_whether_to_close_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut breaker = Breaker::new(CircuitBreaker {
            failures: 3,
            ..CircuitBreaker::default()
        });
        assert!(!breaker.unavailable(at(0)) && !breaker.unavailable(at(0)));
        // In a row: an answer begins again.
        assert!(!breaker.answered());
        assert!(!breaker.unavailable(at(1)) && !breaker.unavailable(at(1)));
        assert_eq!(breaker.open_until(at(1)), None);
        breaker.goes(at(1));
        assert!(breaker.unavailable(at(1)));
        assert_eq!(breaker.open_until(at(1)), Some(at(11)));
        // One that was under way before says nothing new.
        assert!(!breaker.unavailable(at(2)));
        assert_eq!(breaker.open_until(at(10)), Some(at(11)));
        // One may go; asking alone does not take its place.
        assert_eq!(breaker.open_until(at(11)), None);
        assert_eq!(breaker.open_until(at(11)), None);
        // It goes, the others wait for it.
        breaker.goes(at(11));
        assert_eq!(breaker.open_until(at(12)), Some(at(21)));
        assert!(breaker.unavailable(at(13)));
        assert_eq!(breaker.open_until(at(14)), Some(at(23)));
        // This probe is never heard of again.
        breaker.goes(at(23));
        assert_eq!(breaker.open_until(at(24)), Some(at(33)));
        assert_eq!(breaker.open_until(at(33)), None);
        breaker.goes(at(33));
        assert!(breaker.answered());
        assert_eq!(breaker.open_until(at(33)), None);
        assert!(!breaker.unavailable(at(34)));
    }
}
