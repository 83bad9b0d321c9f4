//! A chain of steps: a loop that calls boxed closures one after the other, against a pipeline in this process.
//!
//! `STEPS=100`, `ELEMENTS=2000000` and `ROUNDS=5` change the defaults, `ONLY=NAME` runs one of the programs, for a
//! profiler. With `--features peers` the crate ironbeam takes part.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use purlin::prelude::*;
use purlin_benches::{Program, compare, setting};

type Boxed = Arc<dyn Fn(i64) -> i64 + Send + Sync>;

/// The work of a step. Steps of one chain must not be one after optimisation.
fn step(n: i64, by: i64) -> i64 {
    (n ^ by).wrapping_add(n >> 3)
}

fn boxed(steps: i64) -> Vec<Boxed> {
    (0..steps)
        .map(|by| Arc::new(move |n| step(n, by)) as Boxed)
        .collect()
}

/// Adds steps to numbers made in the pipeline, and gives the sum of what comes out.
fn by_pipeline(
    elements: i64,
    steps: impl FnOnce(PCollection<i64>) -> PCollection<i64>,
) -> Result<i64, RunError> {
    const PARTS: i64 = 64;
    let p = Pipeline::new();
    let part = move |part: i64| elements * part / PARTS..elements * (part + 1) / PARTS;
    let numbers = p
        .apply(Create::new(0..PARTS))
        .reshuffle("Spread")
        .flat_map("Number", part);
    // Sums that do not fit fail: these wrap.
    let total = Metrics::counter("chain", "sum");
    steps(numbers)
        .map("Halve", |n| n >> 32)
        .combine_globally("Sum", Sum::new())
        .map("Tell", move |sum: i64| total.inc(sum));
    let result = p.run(&PipelineOptions::default())?;
    Ok(result.metrics().counter("chain", "sum"))
}

#[cfg(feature = "peers")]
fn by_ironbeam(elements: i64, steps: &[Boxed], parallel: bool) -> i64 {
    let p = ironbeam::Pipeline::default();
    let mut numbers = ironbeam::from_vec(&p, (0..elements).collect::<Vec<i64>>());
    for f in steps.iter().cloned() {
        numbers = numbers.map(move |n: &i64| f(*n));
    }
    let all = match parallel {
        true => numbers.collect_par(None, None),
        false => numbers.collect_seq(),
    };
    all.expect("ironbeam runs").into_iter().map(|n| n >> 32).sum()
}

fn main() {
    let (steps, elements) = (
        setting("STEPS", 100) as i64,
        setting("ELEMENTS", 2_000_000) as i64,
    );
    let boxed = boxed(steps);
    let expected = AtomicI64::new(0);
    let check = |sum: i64| {
        let before = expected.swap(sum, Relaxed);
        assert!(before == 0 || before == sum, "the sums are {before} and {sum}");
    };
    #[allow(unused_mut)]
    let mut programs: Vec<Program<'_>> = vec![
        (
            "loop, 1 thread",
            Box::new(|| {
                let all = (0..elements).map(|n| boxed.iter().fold(n, |n, f| f(n)) >> 32);
                check(all.sum());
            }),
        ),
        (
            "pipeline, boxed closures",
            Box::new(|| {
                let sum = by_pipeline(elements, |mut numbers| {
                    for (index, f) in boxed.iter().cloned().enumerate() {
                        numbers = numbers.map(&format!("Step{index}"), move |n| f(n));
                    }
                    numbers
                });
                check(sum.expect("the pipeline runs"));
            }),
        ),
        (
            "pipeline",
            Box::new(|| {
                let sum = by_pipeline(elements, |mut numbers| {
                    for by in 0..steps {
                        numbers = numbers.map(&format!("Step{by}"), move |n| step(n, by));
                    }
                    numbers
                });
                check(sum.expect("the pipeline runs"));
            }),
        ),
    ];
    #[cfg(feature = "peers")]
    programs.extend([
        (
            "ironbeam, sequential",
            Box::new(|| check(by_ironbeam(elements, &boxed, false))) as Box<dyn FnMut()>,
        ),
        (
            "ironbeam, parallel",
            Box::new(|| check(by_ironbeam(elements, &boxed, true))),
        ),
    ]);
    compare(&format!("chain of {steps} steps, {elements} elements"), programs);
}
