//! Requests, tried until they succeed or may not be tried any more.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::breaker::{Breaker, CircuitBreaker, WhenOpen};
use crate::failure::{Failure, FailureKind, RemoteError};
use crate::retries::Retries;
use crate::throttle::{Throttle, Throttling};

/// How a server is asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Policy {
    pub retries: Retries,
    pub throttling: Option<Throttling>,
    pub breaker: Option<CircuitBreaker>,
    /// Of one try.
    pub try_timeout: Duration,
    /// Of all tries of a request, with what lies between them.
    pub total_timeout: Duration,
    /// So many requests are in the works at a time, those that pause between two tries among them.
    pub concurrency: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            retries: Retries::default(),
            throttling: Some(Throttling::default()),
            breaker: Some(CircuitBreaker::default()),
            try_timeout: Duration::from_secs(60),
            total_timeout: Duration::from_secs(600),
            concurrency: 8,
        }
    }
}

/// What was counted since the last time that somebody asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub requests: u64,
    pub retries: u64,
    pub throttled_millis: u64,
    pub circuit_opens: u64,
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    retries: AtomicU64,
    throttled_millis: AtomicU64,
    circuit_opens: AtomicU64,
}

/// More requests at a time are none.
const MOST: usize = 1 << 20;

type Random = dyn Fn() -> f64 + Send + Sync;

/// All requests of a process to one model, with what is known of how its server copes with them. The clock is tokio's.
pub(crate) struct Caller {
    model: String,
    url: String,
    policy: Policy,
    permits: Semaphore,
    throttle: Option<Mutex<Throttle>>,
    breaker: Option<Mutex<Breaker>>,
    /// Wakes those that wait for the circuit when it closes.
    circuit_closed: Notify,
    /// The server wants to be left alone until then.
    quiet_until: Mutex<Option<Instant>>,
    /// Gives numbers from 0 to 1.
    random: Box<Random>,
    counters: Counters,
}

impl Caller {
    pub fn new(model: String, url: String, policy: Policy, random: Box<Random>) -> Caller {
        Caller {
            permits: Semaphore::new(policy.concurrency.clamp(1, MOST)),
            throttle: policy.throttling.clone().map(Throttle::new).map(Mutex::new),
            breaker: policy.breaker.clone().map(Breaker::new).map(Mutex::new),
            circuit_closed: Notify::new(),
            quiet_until: Mutex::default(),
            counters: Counters::default(),
            model,
            url,
            policy,
            random,
        }
    }

    /// What was counted since the last call.
    pub fn take_counted(&self) -> Counted {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        Counted {
            requests: take(&self.counters.requests),
            retries: take(&self.counters.retries),
            throttled_millis: take(&self.counters.throttled_millis),
            circuit_opens: take(&self.counters.circuit_opens),
        }
    }

    /// Tries it until it succeeds or may not be tried any more, once it is this request's turn.
    pub async fn call<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        self.call_with(1, attempt).await
    }

    /// As [`Caller::call`], while this process asks nothing else of the server.
    pub async fn call_alone<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        self.call_with(self.policy.concurrency.clamp(1, MOST), attempt)
            .await
    }

    async fn call_with<T, F>(&self, turns: usize, attempt: impl Fn() -> F) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        // Never closed.
        let _turns = self
            .permits
            .acquire_many(u32::try_from(turns).unwrap_or(u32::MAX))
            .await;
        let begin = Instant::now();
        let end = begin + self.policy.total_timeout;
        let mut tries = 0;
        let mut last: Option<Failure> = None;
        let error = |failure: Failure, tries: u32| RemoteError {
            model: self.model.clone(),
            url: self.url.clone(),
            failure,
            tries,
            elapsed: begin.elapsed(),
        };
        loop {
            if let Err(mut failure) = self.admitted(end).await {
                // What the server last said tells more.
                if let Some(last) = last {
                    failure.text = format!("{}; {}", last.text, failure.text);
                    failure.status = last.status;
                }
                return Err(error(failure, tries));
            }
            tries += 1;
            self.counters.requests.fetch_add(1, Ordering::Relaxed);
            let failure = match self.attempt(&attempt, end).await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            let Some(pause) = self.policy.retries.pause(tries, &failure, (self.random)()) else {
                return Err(error(failure, tries));
            };
            let next = Instant::now() + pause;
            if next >= end {
                let mut failure = failure;
                failure.text = format!(
                    "{}; the next try is due in {:.1} s, after its time limit of {:?} for all tries",
                    failure.text,
                    pause.as_secs_f64(),
                    self.policy.total_timeout
                );
                return Err(error(failure, tries));
            }
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
            last = Some(failure);
            sleep_until(next).await;
        }
    }

    /// One try, within its time.
    async fn attempt<T, F>(&self, attempt: &impl Fn() -> F, end: Instant) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let limit = end.min(Instant::now() + self.policy.try_timeout);
        let result = timeout_at(limit, attempt()).await.unwrap_or_else(|_| {
            let text = format!("no answer within {:?}", self.policy.try_timeout);
            Err(Failure::new(FailureKind::Unavailable, text))
        });
        self.learn(&result);
        result
    }

    /// What an answer says of the server.
    fn learn<T>(&self, result: &Result<T, Failure>) {
        let now = Instant::now();
        let kind = result.as_ref().err().map(|failure| failure.kind);
        if let Some(throttle) = &self.throttle
            && !kind.is_some_and(FailureKind::is_overload)
        {
            throttle.lock().accepted(now);
        }
        if let Some(breaker) = &self.breaker {
            let mut breaker = breaker.lock();
            if kind != Some(FailureKind::Unavailable) {
                if breaker.answered() {
                    self.circuit_closed.notify_waiters();
                }
            } else if breaker.unavailable(now) {
                self.counters.circuit_opens.fetch_add(1, Ordering::Relaxed);
            }
        }
        if let Err(Failure {
            retry_after: Some(pause),
            ..
        }) = result
        {
            let mut quiet = self.quiet_until.lock();
            *quiet = (*quiet).max(now.checked_add(*pause));
        }
    }

    /// Waits until the server may be asked.
    async fn admitted(&self, end: Instant) -> Result<(), Failure> {
        let begin = Instant::now();
        let mut throttled = Duration::ZERO;
        loop {
            let now = Instant::now();
            // Before it is looked at: a circuit that closes meanwhile is not missed.
            let closed = self.circuit_closed.notified();
            let mut wakes_early = false;
            let (until, why) = match self.may_go(now) {
                Ok(()) => break,
                Err(Hold::Quiet(until)) => {
                    throttled += until.min(end) - now;
                    (until, "the server wants to be left alone for longer than")
                }
                Err(Hold::Circuit(until)) => {
                    wakes_early = true;
                    (until, "the circuit to the server stayed open for")
                }
                Err(Hold::Throttle(pause)) => {
                    throttled += pause.min(end - now);
                    (now + pause, "requests were held back for")
                }
                Err(Hold::Fail(failure)) => {
                    self.count_throttled(throttled);
                    return Err(failure);
                }
            };
            if until >= end {
                self.count_throttled(throttled);
                let (waited, limit) = (begin.elapsed().as_secs_f64(), self.policy.total_timeout);
                let text = format!("{why} its time limit of {limit:?} for all tries (waited {waited:.1} s)");
                return Err(Failure::new(FailureKind::Unavailable, text));
            }
            match wakes_early {
                // Whichever comes first.
                true => drop(timeout_at(until, closed).await),
                false => sleep_until(until).await,
            }
        }
        self.count_throttled(throttled);
        Ok(())
    }

    /// Whether a request may go now.
    ///
    /// One that goes while the circuit is half open is its probe, for whose answer all others wait. So the probe is taken last, and
    /// by a request that nothing else holds back; and the throttle is asked only where the circuit would let the request go, as it
    /// counts what it is asked. Nobody comes between the two: the circuit's lock is held meanwhile.
    fn may_go(&self, now: Instant) -> Result<(), Hold> {
        if let Some(until) = (*self.quiet_until.lock()).filter(|until| *until > now) {
            return Err(Hold::Quiet(until));
        }
        let mut breaker = self.breaker.as_ref().map(Mutex::lock);
        if let Some(breaker) = &breaker
            && let Some(until) = breaker.open_until(now)
        {
            return Err(match breaker.when_open() {
                WhenOpen::Wait => Hold::Circuit(until),
                WhenOpen::Fail => Hold::Fail(circuit_is_open(until - now)),
            });
        }
        if let Some(throttle) = &self.throttle
            && let Some(pause) = throttle.lock().holds_back(now, (self.random)())
        {
            return Err(Hold::Throttle(pause));
        }
        if let Some(breaker) = &mut breaker {
            breaker.goes(now);
        }
        Ok(())
    }

    fn count_throttled(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.counters
            .throttled_millis
            .fetch_add(millis, Ordering::Relaxed);
    }
}

/// What keeps a request from going.
enum Hold {
    /// The server wants to be left alone until then.
    Quiet(Instant),
    /// The circuit is open until then.
    Circuit(Instant),
    /// The throttle lets it wait for so long.
    Throttle(Duration),
    /// It fails without a try.
    Fail(Failure),
}

fn circuit_is_open(time: Duration) -> Failure {
    let seconds = time.as_secs_f64();
    let text =
        format!("its circuit is open after failures in a row: the server is asked again in {seconds:.1} s");
    Failure::new(FailureKind::Unavailable, text)
}

#[cfg(test)]
mod tests;
