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

    /// Whether a request may go now.
    ///
    /// # Errors
    /// The time at which to ask again.
    pub fn admit(&mut self, now: Instant) -> Result<(), Instant> {
        match self.state {
            State::Closed(_) => Ok(()),
            State::Open(until) | State::Probing(until) if now < until => Err(until),
            // A probe whose end was never told, as its request was dropped, gives way to the next.
            State::Open(_) | State::Probing(_) => {
                self.state = State::Probing(now + self.settings.pause);
                Ok(())
            }
        }
    }

    /// The server answered.
    pub fn answered(&mut self) {
        self.state = State::Closed(0);
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
        breaker.answered();
        assert!(!breaker.unavailable(at(1)) && !breaker.unavailable(at(1)));
        assert_eq!(breaker.admit(at(1)), Ok(()));
        assert!(breaker.unavailable(at(1)));
        assert_eq!(breaker.admit(at(1)), Err(at(11)));
        // One that was under way before says nothing new.
        assert!(!breaker.unavailable(at(2)));
        assert_eq!(breaker.admit(at(10)), Err(at(11)));
        // One goes, the others wait for it.
        assert_eq!(breaker.admit(at(11)), Ok(()));
        assert_eq!(breaker.admit(at(12)), Err(at(21)));
        assert!(breaker.unavailable(at(13)));
        assert_eq!(breaker.admit(at(14)), Err(at(23)));
        // This probe is never heard of again.
        assert_eq!(breaker.admit(at(23)), Ok(()));
        assert_eq!(breaker.admit(at(33)), Ok(()));
        breaker.answered();
        assert_eq!(breaker.admit(at(33)), Ok(()));
        assert!(!breaker.unavailable(at(34)));
    }
}
