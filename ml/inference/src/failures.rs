//! A limit on how many examples may fail.

use parking_lot::Mutex;
use thiserror::Error;

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

/// Counts examples of this process. A bundle that is tried again counts again, but once too many have failed, that stays so.
#[derive(Debug)]
pub(crate) struct FailureRate {
    allowed: f64,
    after: u64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    all: u64,
    failed: u64,
    first: Vec<String>,
    /// There were too many.
    ended: bool,
}

impl FailureRate {
    pub fn new(allowed: f64, after: u64) -> FailureRate {
        FailureRate {
            allowed,
            after,
            seen: Mutex::default(),
        }
    }

    pub fn problem(&self) -> Option<String> {
        (!(0.0..=1.0).contains(&self.allowed)).then(|| {
            format!(
                "max_failure_rate is {}, but must be from 0, for none, to 1, for all",
                self.allowed
            )
        })
    }

    /// Counts examples that are new, and errors of these or earlier ones.
    pub fn record<'a>(
        &self,
        new: usize,
        errors: impl Iterator<Item = &'a str>,
    ) -> Result<(), TooManyFailures> {
        let mut seen = self.seen.lock();
        if !seen.ended {
            seen.all += new as u64;
            for error in errors {
                seen.failed += 1;
                if seen.first.len() < QUOTED {
                    seen.first.push(error.to_owned());
                }
            }
        }
        let share = seen.failed as f64 / seen.all.max(1) as f64;
        if seen.all < self.after.max(1) || share <= self.allowed {
            return Ok(());
        }
        seen.ended = true;
        Err(TooManyFailures {
            failed: seen.failed,
            all: seen.all,
            percent: share * 100.0,
            allowed: self.allowed * 100.0,
            quotes: seen.first.iter().map(|error| format!("\n- {error}")).collect(),
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
