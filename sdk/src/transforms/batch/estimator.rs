//! The best batch size, from the times of batches so far.
//!
//! The model is `time = fixed + size * each`. The two are fitted to the measured times; the targets then give a size. Sizes
//! grow by at most a factor of two, and are spread about the target so that the fit has something to compare.

/// So many measurements are kept.
const MAX_DATA: usize = 100;
/// A batch is at most so many times as large as the last.
const MAX_GROWTH: usize = 2;
/// From so many measurements on, sizes are spread by the variance.
const SPREAD_FROM: usize = 10;

/// What sizes are allowed and wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Limits {
    pub min: usize,
    pub max: usize,
    pub overhead: Option<f64>,
    pub duration: Option<f64>,
    pub whole_duration: Option<f64>,
    pub variance: f64,
}

impl Limits {
    pub fn new(min: usize, max: usize) -> Limits {
        Limits {
            min,
            max,
            overhead: Some(0.05),
            duration: Some(10.0),
            whole_duration: None,
            variance: 0.25,
        }
    }

    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.min == 0 {
            problems.push("the smallest batch size is 0, but a batch has at least one element".to_owned());
        }
        if self.min > self.max {
            problems.push(format!(
                "the smallest batch size, {}, is larger than the largest, {}: exchange them",
                self.min, self.max
            ));
        }
        if let Some(share) = self.overhead.filter(|share| !(*share > 0.0 && *share <= 1.0)) {
            problems.push(format!(
                "target_batch_overhead is {share}, but must be above 0 and at most 1"
            ));
        }
        for (name, seconds) in [
            ("target_batch_duration_secs", self.duration),
            (
                "target_batch_duration_secs_including_fixed_cost",
                self.whole_duration,
            ),
        ] {
            if let Some(seconds) = seconds.filter(|seconds| !(*seconds > 0.0 && seconds.is_finite())) {
                problems.push(format!("{name} is {seconds}, but must be above 0"));
            }
        }
        if !(self.variance >= 0.0 && self.variance < 1.0) {
            problems.push(format!(
                "variance is {}, but must be at least 0 and below 1",
                self.variance
            ));
        }
        if self.overhead.is_none() && self.duration.is_none() && self.whole_duration.is_none() {
            problems.push("no target is set: give target_batch_overhead or a target duration".to_owned());
        }
        problems
    }

    /// What has problems does not run, but is built to its end so that all problems show.
    pub fn make_sane(&mut self) {
        self.min = self.min.max(1);
        self.max = self.max.max(self.min);
    }
}

/// What one thread has to remember between its batches.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Turn {
    /// The next batch's time is not to be learned from.
    pub ignore_next: bool,
    /// The size whose time was not learned, to be tried again.
    replay: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Estimator {
    limits: Limits,
    /// Size and seconds.
    data: Vec<(usize, f64)>,
    random: u64,
}

impl Estimator {
    pub fn new(limits: Limits) -> Estimator {
        Estimator {
            limits,
            data: Vec::new(),
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// A number in `0..1`. The sequence is always the same: sizes only have to differ.
    fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn record(&mut self, turn: &mut Turn, size: usize, seconds: f64) {
        if std::mem::take(&mut turn.ignore_next) {
            turn.replay = Some(size.min(self.limits.max));
            return;
        }
        self.data.push((size, seconds));
        if self.data.len() >= MAX_DATA {
            // Old ones go first, mostly; two at a time keep the parity, which alternates the sizes.
            for part in [4, 2] {
                let among = self.data.len() / part;
                let at = (self.random() * among as f64) as usize;
                self.data.remove(at);
            }
        }
    }

    pub fn next_batch_size(&mut self, turn: &mut Turn) -> usize {
        if let Some(size) = turn.replay.take() {
            return size.max(self.limits.min);
        }
        let Limits {
            min,
            max,
            overhead,
            duration,
            whole_duration,
            variance,
        } = self.limits;
        if min == max {
            return min;
        }
        let Some(&(last, _)) = self.data.last() else {
            return min;
        };
        if self.data.len() < 2 {
            // Another size than the first, to have two to compare.
            return min.saturating_mul(MAX_GROWTH).min(max).max(min + 1);
        }
        let (fixed, each) = self.fit();
        let mut target = max as f64;
        if let Some(seconds) = whole_duration {
            target = target.min((seconds - fixed) / each);
        }
        if let Some(seconds) = duration {
            target = target.min(seconds / each);
        }
        if let Some(share) = overhead {
            target = target.min(fixed / each * (1.0 / share - 1.0));
        }
        if self.data.len() > SPREAD_FROM {
            target += target * variance * (2.0 * self.random() - 1.0);
        }
        let cap = last.saturating_mul(MAX_GROWTH).min(max);
        // Even at the lower end, sizes alternate, or nothing more could be learned.
        let floor = (min + self.data.len() % 2).min(max);
        // A target that is not a number or negative becomes 0 by the cast.
        (target as usize).min(cap).max(floor)
    }

    /// Fixed seconds of a batch, and seconds of each element; both above 0.
    fn fit(&self) -> (f64, f64) {
        // The slowest fifth is mostly noise, and weighs much in a fit: it is left out once there is enough.
        let mut sorted: Vec<(f64, f64)> = self
            .data
            .iter()
            .map(|(size, secs)| (*size as f64, *secs))
            .collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        sorted.truncate((sorted.len() * 4 / 5).max(20));
        let (fixed, each) = robust_line(&sorted);
        (fixed.max(1e-10), each.max(1e-20))
    }
}

/// Fits `y = a + b x`. With enough points, those that bend the first fit most (Cook's distance above a half) are left out
/// of a second one, in which small batches weigh more, since they tell more of the fixed cost.
fn robust_line(points: &[(f64, f64)]) -> (f64, f64) {
    let (a, b) = line(points.iter().map(|&(x, y)| (x, y, 1.0)));
    let n = points.len() as f64;
    if points.len() < 10 || points.iter().all(|p| p.0 == points[0].0) {
        return (a, b);
    }
    let sum: f64 = points.iter().map(|p| p.0).sum();
    let squares: f64 = points.iter().map(|p| p.0 * p.0).sum();
    let residual = |&(x, y): &(f64, f64)| a + b * x - y;
    let variance = points.iter().map(|p| residual(p).powi(2)).sum::<f64>() / (n - 2.0);
    if variance == 0.0 {
        return (a, b);
    }
    let kept = points.iter().filter(|p| {
        let leverage = (squares - 2.0 * sum * p.0 + n * p.0 * p.0) / (n * squares - sum * sum);
        let distance = 0.5 / variance * residual(p).powi(2) * leverage / (1.0 - leverage).powi(2);
        distance <= 0.5
    });
    // numpy's weights multiply the residuals before they are squared: 1/x there is 1/x^2 here.
    let weighted: Vec<_> = kept.map(|&(x, y)| (x, y, 1.0 / (x * x).max(1.0))).collect();
    if weighted.len() < 2 {
        return (a, b);
    }
    line(weighted.into_iter())
}

/// The weighted least-squares line of points `(x, y, weight)`: intercept and slope. Of points with one x alone, the line
/// through the origin.
fn line(points: impl Iterator<Item = (f64, f64, f64)> + Clone) -> (f64, f64) {
    let (mut n, mut mean_x, mut mean_y) = (0.0, 0.0, 0.0);
    for (x, y, weight) in points.clone() {
        n += weight;
        mean_x += weight * x;
        mean_y += weight * y;
    }
    if n == 0.0 {
        return (0.0, 0.0);
    }
    mean_x /= n;
    mean_y /= n;
    let (mut xx, mut xy) = (0.0, 0.0);
    for (x, y, weight) in points {
        xx += weight * (x - mean_x) * (x - mean_x);
        xy += weight * (x - mean_x) * (y - mean_y);
    }
    if mean_x == 0.0 {
        (mean_y, 0.0)
    } else if xx == 0.0 {
        (0.0, mean_y / mean_x)
    } else {
        let slope = xy / xx;
        (mean_y - slope * mean_x, slope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs batches whose time is known, and gives the last sizes.
    fn run(limits: Limits, batches: usize, time: impl Fn(usize) -> f64) -> Vec<usize> {
        let mut estimator = Estimator::new(limits);
        let mut turn = Turn::default();
        let mut sizes = Vec::new();
        for _ in 0..batches {
            let size = estimator.next_batch_size(&mut turn);
            estimator.record(&mut turn, size, time(size));
            sizes.push(size);
        }
        sizes
    }

    #[test]
    fn a_fixed_size_stays() {
        assert!(run(Limits::new(7, 7), 50, |_| 1.0).iter().all(|size| *size == 7));
    }

    #[test]
    fn sizes_grow_at_most_by_two() {
        let sizes = run(Limits::new(1, 1000), 20, |_| 1.0);
        assert!(
            sizes.windows(2).all(|pair| pair[1] <= 2 * pair[0] + 1),
            "{sizes:?}"
        );
        assert!(*sizes.last().unwrap() > 500, "{sizes:?}");
    }

    #[test]
    fn the_overhead_is_met() {
        let limits = Limits {
            overhead: Some(0.05),
            duration: None,
            variance: 0.0,
            ..Limits::new(1, 100_000)
        };
        // fixed / (fixed + size * each) = 5 % at a size of 19 * fixed / each.
        let sizes = run(limits, 60, |size| 0.01 + size as f64 * 1e-4);
        assert!((1890..=1910).contains(sizes.last().unwrap()), "{sizes:?}");
    }

    #[test]
    fn the_duration_is_met() {
        let limits = Limits {
            overhead: None,
            duration: Some(2.0),
            variance: 0.0,
            ..Limits::new(1, 100_000)
        };
        let sizes = run(limits, 60, |size| 1.0 + size as f64 * 1e-3);
        assert!((1990..=2010).contains(sizes.last().unwrap()), "{sizes:?}");
        let limits = Limits {
            duration: None,
            whole_duration: Some(2.0),
            ..limits
        };
        let sizes = run(limits, 60, |size| 1.0 + size as f64 * 1e-3);
        assert!((990..=1010).contains(sizes.last().unwrap()), "{sizes:?}");
    }

    #[test]
    fn sizes_spread_by_the_variance() {
        let limits = Limits {
            overhead: None,
            duration: Some(1.0),
            ..Limits::new(1, 100_000)
        };
        let sizes = run(limits, 300, |size| size as f64 * 1e-3);
        let late = &sizes[100..];
        assert!(late.iter().all(|size| (749..=1251).contains(size)), "{late:?}");
        assert!(
            late.iter().max().unwrap() - late.iter().min().unwrap() > 300,
            "{late:?}"
        );
    }

    #[test]
    fn one_outlier_does_no_harm() {
        let limits = Limits {
            overhead: None,
            duration: Some(1.0),
            variance: 0.1,
            ..Limits::new(1, 100_000)
        };
        let mut estimator = Estimator::new(limits);
        let mut turn = Turn::default();
        let mut last = 0;
        for i in 0..100 {
            last = estimator.next_batch_size(&mut turn);
            let slow = if i == 50 { 100.0 } else { 1.0 };
            estimator.record(&mut turn, last, slow * (0.001 + last as f64 * 1e-3));
        }
        assert!((850..=1150).contains(&last), "{last}");
    }

    #[test]
    fn an_ignored_size_is_tried_again() {
        let mut estimator = Estimator::new(Limits::new(3, 100));
        let mut turn = Turn {
            ignore_next: true,
            ..Turn::default()
        };
        estimator.record(&mut turn, 5, 1000.0);
        assert!(estimator.data.is_empty());
        assert_eq!(estimator.next_batch_size(&mut turn), 5);
        assert_eq!(estimator.next_batch_size(&mut turn), 3);
    }

    #[test]
    fn bad_limits_are_named() {
        let limits = Limits {
            overhead: Some(2.0),
            duration: Some(0.0),
            variance: 1.5,
            ..Limits::new(5, 2)
        };
        let problems = limits.problems();
        assert_eq!(problems.len(), 4, "{problems:?}");
        let none = Limits {
            overhead: None,
            duration: None,
            ..Limits::new(0, 2)
        };
        assert_eq!(none.problems().len(), 2);
    }
}
