//! Benchmarks of Purlin against its peers: what they share. Each is a program in `benches/` that prints what it found.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// Runs each program so many times, in turn, so that what disturbs the machine disturbs all of them.
pub fn in_turn(rounds: usize, programs: &mut [&mut dyn FnMut()]) -> Vec<Runs> {
    let mut all = vec![Runs::default(); programs.len()];
    for _ in 0..rounds {
        for (program, runs) in programs.iter_mut().zip(&mut all) {
            reset_peak_memory();
            let start = Instant::now();
            program();
            runs.times.push(start.elapsed());
            runs.peak_kib = runs.peak_kib.max(peak_memory_kib().unwrap_or(0));
        }
    }
    all
}

/// What running a program several times told.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    /// Time of each run.
    pub times: Vec<Duration>,
    /// Largest resident memory of the process in any of the runs, in KiB; 0 where the system does not tell.
    pub peak_kib: u64,
}

impl Runs {
    /// The median time, in seconds.
    pub fn median(&self) -> f64 {
        let mut seconds: Vec<f64> = self.times.iter().map(Duration::as_secs_f64).collect();
        seconds.sort_by(f64::total_cmp);
        let middle = seconds.len() / 2;
        match seconds.len() {
            0 => f64::NAN,
            n if n % 2 == 0 => (seconds[middle - 1] + seconds[middle]) / 2.0,
            _ => seconds[middle],
        }
    }
}

/// Lets the kernel forget the process's largest resident memory. Where it does not, peaks are of all runs so far.
fn reset_peak_memory() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn peak_memory_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A sequence of numbers that is always the same (splitmix64).
#[derive(Clone, Debug)]
pub struct Numbers(pub u64);

impl Numbers {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number as a fraction in `0..1`.
    pub fn fraction(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }
}
