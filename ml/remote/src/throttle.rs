//! Less is asked of a server that cannot keep up.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Holds requests back while a server refuses many for lack of time: the client-side throttling of Google's book on site reliability,
/// which Beam's `AdaptiveThrottler` follows, too. Of the requests in a window of time, some were accepted; a request is held back with
/// a probability of `(requests - overload_ratio * accepted) / (requests + 1)`, if that is positive, and asks again after a pause.
#[derive(Debug, Clone, PartialEq)]
pub struct Throttling {
    /// How far back requests count. 10 s unless told.
    pub window: Duration,
    /// So many requests for each that is accepted are well. 2 unless told; larger is more patient with the server's refusals.
    pub overload_ratio: f64,
    /// How long a request that is held back waits before it asks again. 200 ms unless told.
    pub pause: Duration,
}

impl Default for Throttling {
    fn default() -> Self {
        Throttling {
            window: Duration::from_secs(10),
            overload_ratio: 2.0,
            pause: Duration::from_millis(200),
        }
    }
}

/// The window is counted in so many parts.
const PARTS: u32 = 10;

#[derive(Debug, Clone, Copy)]
struct Part {
    begin: Instant,
    requests: f64,
    accepted: f64,
}

/// What [`Throttling`] knows of a server.
#[derive(Debug)]
pub(crate) struct Throttle {
    settings: Throttling,
    parts: VecDeque<Part>,
}

impl Throttle {
    pub fn new(settings: Throttling) -> Throttle {
        Throttle {
            settings,
            parts: VecDeque::new(),
        }
    }

    /// Whether a request has to wait, and how long before it asks again. `random` is from 0 to 1.
    pub fn holds_back(&mut self, now: Instant, random: f64) -> Option<Duration> {
        let probability = self.probability(now);
        self.part(now).requests += 1.0;
        (random < probability).then_some(self.settings.pause)
    }

    /// The server took a request.
    pub fn accepted(&mut self, now: Instant) {
        self.part(now).accepted += 1.0;
    }

    fn probability(&mut self, now: Instant) -> f64 {
        while let Some(part) = self.parts.front()
            && now.duration_since(part.begin) >= self.settings.window
        {
            self.parts.pop_front();
        }
        let requests: f64 = self.parts.iter().map(|part| part.requests).sum();
        let accepted: f64 = self.parts.iter().map(|part| part.accepted).sum();
        ((requests - self.settings.overload_ratio * accepted) / (requests + 1.0)).max(0.0)
    }

    fn part(&mut self, now: Instant) -> &mut Part {
        let length = self.settings.window / PARTS;
        let fits = |part: &Part| now.duration_since(part.begin) < length;
        if !self.parts.back().is_some_and(fits) {
            self.parts.push_back(Part {
                begin: now,
                requests: 0.0,
                accepted: 0.0,
            });
        }
        let last = self.parts.len() - 1;
        &mut self.parts[last]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_refuses_is_asked_less() {
        let start = Instant::now();
        let settings = Throttling::default();
        let mut throttle = Throttle::new(settings.clone());
        // All is accepted: nothing is held back.
        for _ in 0..10 {
            assert_eq!(throttle.holds_back(start, 0.0), None);
            throttle.accepted(start);
        }
        // Of 10 more none is accepted: half of all was, which is still well.
        for _ in 0..11 {
            assert_eq!(throttle.holds_back(start, 0.0), None);
        }
        // (21 - 2 * 10) / (21 + 1), then (22 - 20) / 23.
        assert_eq!(throttle.holds_back(start, 0.044), Some(settings.pause));
        assert_eq!(throttle.holds_back(start, 0.088), None);
        // After the window nothing of it counts.
        let later = start + settings.window;
        assert_eq!(throttle.holds_back(later, 0.0), None);
        assert_eq!(throttle.parts.len(), 1);
    }

    #[test]
    fn the_window_moves_in_parts() {
        let start = Instant::now();
        let mut throttle = Throttle::new(Throttling::default());
        for second in 0..100 {
            let now = start + Duration::from_secs(second);
            throttle.holds_back(now, 1.0);
            assert!(throttle.parts.len() <= 10);
        }
        // Ten requests, none accepted.
        let now = start + Duration::from_secs(99);
        assert!((throttle.probability(now) - 10.0 / 11.0).abs() < 1e-12);
    }
}
