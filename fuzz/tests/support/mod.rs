//! Runs a target over many inputs, and tells the input that it fails on.
#![allow(dead_code)]

use std::panic;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use purlin_fuzz::Random;

/// A target: how far the input went.
pub type Target = fn(&[u8]) -> usize;

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Panics of any thread count: tasks and state handlers have their own.
fn watch_panics() {
    panic::set_hook(Box::new(|info| PANICS.lock().unwrap().push(info.to_string())));
}

/// Gives the target `count` inputs of up to `most` bytes; none may take longer than `limit`. Returns how many of them
/// went anywhere, and how far all went together. FUZZ_SEED in the environment makes other inputs.
pub fn each(target: Target, seed: u64, count: usize, most: usize, limit: Duration) -> (usize, usize) {
    let other: u64 =
        std::env::var("FUZZ_SEED").map_or(0, |seed| seed.parse().expect("FUZZ_SEED is a number"));
    let seed = seed + 1000 * other;
    watch_panics();
    let mut random = Random(seed);
    let (mut some, mut all) = (0, 0);
    for number in 0..count {
        let name = format!("input {number} of seed {seed}");
        let far = check(target, &random.bytes(most), &name, limit);
        some += usize::from(far > 0);
        all += far;
    }
    let _ = panic::take_hook();
    (some, all)
}

/// Gives the target one input.
pub fn one(target: Target, input: &[u8], name: &str, limit: Duration) {
    watch_panics();
    check(target, input, name, limit);
    let _ = panic::take_hook();
}

fn check(target: Target, input: &[u8], name: &str, limit: Duration) -> usize {
    let begin = Instant::now();
    let result = panic::catch_unwind(|| target(input));
    let took = begin.elapsed();
    let panics = std::mem::take(&mut *PANICS.lock().unwrap());
    let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
    let problem = match &result {
        Ok(_) if !panics.is_empty() => format!("a task panicked: {panics:#?}"),
        Err(_) => format!("{panics:#?}"),
        Ok(_) if took > limit => format!("it took {took:?}"),
        Ok(far) => return *far,
    };
    let _ = panic::take_hook();
    panic!("{name}: {problem}\ninput: {hex}");
}
