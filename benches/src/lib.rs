//! Benchmarks of Purlin against its peers: what they share. Each is a program in `benches/` that prints what it found.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// Runs each program so many times, in turn, so that what disturbs the machine disturbs all of them.
pub fn in_turn(rounds: usize, programs: &mut [&mut dyn FnMut()]) -> Vec<Runs> {
    let mut all = vec![Runs::default(); programs.len()];
    for _ in 0..rounds {
        for (program, runs) in programs.iter_mut().zip(&mut all) {
            reset_peak_memory();
            let (start, cpu) = (Instant::now(), Cpu::now().unwrap_or_default());
            program();
            runs.times.push(start.elapsed());
            runs.cpu.push(Cpu::now().unwrap_or_default().since(&cpu).own);
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
    /// CPU seconds of each run, all threads together, to a hundredth; unlike times, they hardly tell of the machine's
    /// other work.
    pub cpu: Vec<f64>,
    /// Largest resident memory of the process in any of the runs, in KiB; 0 where the system does not tell.
    pub peak_kib: u64,
}

impl Runs {
    /// The median time, in seconds.
    pub fn median(&self) -> f64 {
        median(self.times.iter().map(Duration::as_secs_f64).collect())
    }

    /// The median of the CPU seconds.
    pub fn median_cpu(&self) -> f64 {
        median(self.cpu.clone())
    }
}

/// The middle one.
pub fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    let middle = seconds.len() / 2;
    match seconds.len() {
        0 => f64::NAN,
        n if n % 2 == 0 => (seconds[middle - 1] + seconds[middle]) / 2.0,
        _ => seconds[middle],
    }
}

/// A program of a benchmark, with its name.
pub type Program<'a> = (&'a str, Box<dyn FnMut() + 'a>);

/// Runs the programs in turn, `ROUNDS` times, and prints how they compare with the first. `ONLY` names the one to run
/// alone, for a profiler.
pub fn compare(title: &str, programs: Vec<Program<'_>>) {
    let only = std::env::var("ONLY").unwrap_or_default();
    let chosen = |name: &str| only.is_empty() || name == only;
    let (names, mut programs): (Vec<&str>, Vec<_>) = programs.into_iter().filter(|(n, _)| chosen(n)).unzip();
    let rounds = setting("ROUNDS", 5) as usize;
    let mut programs: Vec<&mut dyn FnMut()> = programs.iter_mut().map(|p| &mut **p as _).collect();
    let runs = in_turn(rounds, &mut programs);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{title}; median of {rounds}, {threads} threads");
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    let Some(first) = runs.first() else { return };
    for (name, runs) in names.iter().zip(&runs) {
        println!(
            "  {name:width$}  {:7.3} s ({:5.2} of the first)  cpu {:6.2} s ({:5.2})  peak {:5} MiB",
            runs.median(),
            runs.median() / first.median(),
            runs.median_cpu(),
            runs.median_cpu() / first.median_cpu(),
            runs.peak_kib / 1024
        );
    }
}

/// A number that the environment may set.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// CPU seconds of this process, user and system time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// Of its own threads, those that ended too.
    pub own: f64,
    /// Of the processes that it started and that have ended.
    pub children: f64,
}

impl Cpu {
    /// Until now. `None`: the system does not tell.
    pub fn now() -> Option<Cpu> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name, in parentheses, may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        // Linux tells times in hundredths of a second on all machines that this runs on.
        let seconds = |field: usize| Some(fields.get(field)?.parse::<u64>().ok()? as f64 / 100.0);
        Some(Cpu {
            own: seconds(11)? + seconds(12)?,
            children: seconds(13)? + seconds(14)?,
        })
    }

    /// What was used since then.
    #[must_use]
    pub fn since(&self, before: &Cpu) -> Cpu {
        Cpu {
            own: self.own - before.own,
            children: self.children - before.children,
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
