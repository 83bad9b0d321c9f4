//! When a request is tried again.

use std::time::{Duration, SystemTime};

use crate::failure::Failure;

/// How often a request is tried, and how long a pause before the next try is.
///
/// Pauses double from one try to the next; each is a random share of that, so that many clients do not come back at once (full
/// jitter). A server's `Retry-After` makes a pause longer, never shorter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries {
    /// So many tries in all. 5 unless told; 1 tries nothing again.
    pub tries: u32,
    /// The longest pause after the first try. 100 ms unless told.
    pub first_pause: Duration,
    /// The longest pause after any try. 10 s unless told.
    pub longest_pause: Duration,
    /// Statuses of HTTP after which nothing is tried again, though it would be otherwise: 500, where a model that cannot take a row
    /// answers so. None unless told.
    pub never_on: Vec<u16>,
}

impl Default for Retries {
    fn default() -> Self {
        Retries {
            tries: 5,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(10),
            never_on: Vec::new(),
        }
    }
}

impl Retries {
    /// How long to wait after so many tries failed, the last of them like this; `None`: no more tries. `random` is from 0 to 1.
    pub(crate) fn pause(&self, tried: u32, failure: &Failure, random: f64) -> Option<Duration> {
        let is_excluded = failure
            .status
            .is_some_and(|status| self.never_on.contains(&status));
        if tried >= self.tries || !failure.kind.is_transient() || is_excluded {
            return None;
        }
        let doubled = 2u32
            .checked_pow(tried.saturating_sub(1))
            .and_then(|factor| self.first_pause.checked_mul(factor))
            .unwrap_or(self.longest_pause);
        let pause = doubled.min(self.longest_pause).mul_f64(random.clamp(0.0, 1.0));
        Some(pause.max(failure.retry_after.unwrap_or_default()))
    }
}

/// Reads `Retry-After`: seconds, or a date of HTTP. A date that has passed is no time at all.
pub(crate) fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(header).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureKind;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let retries = Retries {
            tries: 7,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(1),
            never_on: vec![500],
        };
        let failure = Failure::new(FailureKind::Unavailable, "cut");
        let pause = |tried, random| {
            retries
                .pause(tried, &failure, random)
                .map(|pause| pause.as_millis())
        };
        let longest: Vec<_> = (1..8).map(|tried| pause(tried, 1.0)).collect();
        let expected = [100, 200, 400, 800, 1000, 1000].map(Some);
        assert_eq!(longest[..6], expected);
        assert_eq!(longest[6], None);
        assert_eq!(pause(3, 0.25), Some(100));
        assert_eq!(pause(3, 0.0), Some(0));
        let many = Retries {
            tries: u32::MAX,
            ..retries.clone()
        };
        assert_eq!(many.pause(1000, &failure, 1.0), Some(Duration::from_secs(1)));
    }

    #[test]
    fn some_failures_are_not_tried_again_and_some_servers_want_more_time() {
        let retries = Retries {
            never_on: vec![500],
            ..Retries::default()
        };
        let mut failure = Failure::new(FailureKind::Failed, "500");
        assert!(retries.pause(1, &failure, 0.5).is_some());
        failure.status = Some(500);
        assert_eq!(retries.pause(1, &failure, 0.5), None);
        assert_eq!(
            retries.pause(1, &Failure::new(FailureKind::Refused, "400"), 0.5),
            None
        );
        let mut failure = Failure::new(FailureKind::Overloaded, "429");
        failure.retry_after = Some(Duration::from_secs(7));
        assert_eq!(retries.pause(1, &failure, 0.5), Some(Duration::from_secs(7)));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        assert_eq!(retry_after(" 120 ", now), Some(Duration::from_secs(120)));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(retry_after(date, now), Some(Duration::from_secs(7)));
        let later = now + Duration::from_secs(100);
        assert_eq!(retry_after(date, later), Some(Duration::ZERO));
        for wrong in ["", "-1", "soon", "1.5"] {
            assert_eq!(retry_after(wrong, now), None, "{wrong}");
        }
    }
}
