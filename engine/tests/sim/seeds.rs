//! Which seeds a test tries: others in each run, so that each run looks where none has looked yet.
//!
//! A test that fails names its seed. In the environment, `SIM_SEED=n` makes each test run that seed alone and print what the
//! engine did, and `SIM_SEEDS=n` says how many are tried.
#![allow(
    clippy::disallowed_methods,
    reason = "the engine is pure, not what chooses its seeds"
)]

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;

/// So many seeds were tried.
pub struct Tried(u64);

impl Tried {
    /// The seeds reached what they are to reach: of a thing, there was more than so much in a thousand of them. Of few seeds
    /// nothing is asked.
    pub fn saw(&self, what: &str, count: u64, per_thousand: u64) {
        let enough = count * 1_000 > per_thousand * self.0;
        assert!(self.0 < 100 || enough, "only {count} {what} in {} seeds", self.0);
    }
}

/// Tells of which seed a panic is.
struct Running(u64);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("That was seed {seed}: SIM_SEED={seed} runs it alone and prints what the engine did.");
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// The seed of SIM_SEED.
pub fn alone() -> Option<u64> {
    setting("SIM_SEED")
}

/// Prints a line of the trace, which is not kept back where the test passes.
pub fn show(line: &str) {
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Runs a test with so many seeds, or as many as SIM_SEEDS says, or with that of SIM_SEED alone.
pub fn each(usual: u64, mut test: impl FnMut(u64)) -> Tried {
    let (first, count) = match alone() {
        Some(seed) => (seed, 1),
        None => (
            u64::from(RandomState::new().build_hasher().finish() as u32),
            setting("SIM_SEEDS").unwrap_or(usual),
        ),
    };
    for seed in first..first + count {
        let _running = Running(seed);
        test(seed);
    }
    Tried(count)
}
