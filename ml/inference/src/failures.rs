//! A limit on how many examples may fail.

use parking_lot::Mutex;
use thiserror::Error;

use crate::share::ShareLimit;

/// So many errors are quoted.
const QUOTED: usize = 5;

/// More examples failed than may.
#[derive(Debug, Error)]
#[error(
    "{failed} of {all} examples failed, {percent:.1} %, but at most {allowed:.1} % may (max_failure_rate); the first errors:{quotes}"
)]
pub struct TooManyFailures {
    failed: u64,
    all: u64,
    percent: f64,
    allowed: f64,
    quotes: String,
}

/// Counts examples and those of them that failed.
#[derive(Debug)]
pub(crate) struct FailureRate(Mutex<Seen>);

#[derive(Debug)]
struct Seen {
    limit: ShareLimit,
    first: Vec<String>,
}

impl FailureRate {
    pub fn new(allowed: f64, after: u64) -> FailureRate {
        FailureRate(Mutex::new(Seen {
            limit: ShareLimit::new(allowed, after),
            first: Vec::new(),
        }))
    }

    pub fn problem(&self) -> Option<String> {
        self.0.lock().limit.problem("max_failure_rate")
    }

    /// Counts examples that are new, and errors of these or earlier ones.
    pub fn record<'a>(
        &self,
        new: usize,
        errors: impl Iterator<Item = &'a str>,
    ) -> Result<(), TooManyFailures> {
        let mut seen = self.0.lock();
        let Seen { limit, first } = &mut *seen;
        let mut failed = 0;
        for error in errors {
            failed += 1;
            if first.len() < QUOTED && !limit.is_exceeded() {
                first.push(error.to_owned());
            }
        }
        limit.record(new, failed).map_err(|exceeded| TooManyFailures {
            failed: exceeded.of_the_kind,
            all: exceeded.all,
            percent: exceeded.percent,
            allowed: exceeded.allowed_percent,
            quotes: first.iter().map(|error| format!("\n- {error}")).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_failures_are_let_through_and_many_are_quoted() {
        let rate = FailureRate::new(0.5, 4);
        // All of three fail, but three are too few to tell.
        rate.record(3, ["a", "b", "c"].into_iter()).unwrap();
        rate.record(3, std::iter::empty()).unwrap();
        let error = rate
            .record(4, ["d", "e", "f", "g"].into_iter())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("7 of 10 examples failed, 70.0 %, but at most 50.0 % may"),
            "{error}"
        );
        assert!(
            error.contains("\n- a\n- b") && error.ends_with("\n- e"),
            "{error}"
        );
        // A bundle that is tried again does not get through.
        let again = rate.record(90, std::iter::empty()).unwrap_err();
        assert_eq!(again.to_string(), error);
        assert!(rate.problem().is_none() && FailureRate::new(1.5, 0).problem().is_some());
    }
}
