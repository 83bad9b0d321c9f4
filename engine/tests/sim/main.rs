//! Seeded simulation of the engine: generated pipelines, workers that delay, fail, split and vanish, several bundling
//! strategies, against a naive oracle.

mod driver;
mod hostile;
mod oracle;
mod pipeline;
mod rng;
mod worker;

use purlin_engine::{EngineConfig, Outcome};

use driver::{Driver, Report};
use pipeline::Pipeline;
use rng::Rng;
use worker::Fault;

fn strategy(seed: u64) -> EngineConfig {
    let base = EngineConfig {
        split_after_ms: 10,
        max_worker_losses: 1_000,
        ..EngineConfig::default()
    };
    match seed % 4 {
        0 => EngineConfig {
            max_bundle_elements: 1,
            min_bundle_elements: 1,
            ..base
        },
        1 => EngineConfig {
            max_bundle_elements: 5,
            min_bundle_elements: 2,
            max_bundle_bytes: 40,
            ..base
        },
        2 => EngineConfig {
            min_bundle_elements: 1,
            ..base
        },
        _ => base,
    }
}

fn simulate(seed: u64, fault: Fault) -> (Pipeline, Report) {
    let pipeline = pipeline::generate(&mut Rng::new(seed));
    let report = Driver::new(&pipeline, strategy(seed / 7), seed, fault).run();
    (pipeline, report)
}

/// What is wrong with a run, if anything is.
fn verdict(pipeline: &Pipeline, report: &Report) -> Option<String> {
    if let Some(error) = &report.error {
        return Some(error.clone());
    }
    if report.outcome != Some(Outcome::Done) {
        return Some(format!("ended with {:?}", report.outcome));
    }
    let expected = oracle::evaluate(pipeline);
    (expected != report.committed).then(|| format!("expected {expected:?}\ncommitted {:?}", report.committed))
}

#[test]
fn every_schedule_gives_the_oracles_result() {
    let (mut splits, mut failures, mut elements) = (0, 0, 0);
    for seed in 0..1_000 {
        let (pipeline, report) = simulate(seed, Fault::None);
        if let Some(wrong) = verdict(&pipeline, &report) {
            let names: Vec<_> = pipeline
                .graph
                .transforms
                .iter()
                .map(|t| {
                    format!(
                        "{} {:?}->{:?}",
                        t.name,
                        t.inputs.iter().map(|i| i.0).collect::<Vec<_>>(),
                        t.outputs.iter().map(|i| i.0).collect::<Vec<_>>()
                    )
                })
                .collect();
            panic!("seed {seed}: {wrong}\n{names:?}");
        }
        splits += report.splits;
        failures += report.failures;
        elements += report.committed.len();
    }
    // The workers did misbehave, and there was something to compute.
    assert!(splits > 500, "only {splits} splits");
    assert!(failures > 2_000, "only {failures} failures");
    assert!(elements > 5_000, "only {elements} elements");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..30 {
        let (first, second) = (simulate(seed, Fault::None).1, simulate(seed, Fault::None).1);
        assert_eq!(first.trace, second.trace, "seed {seed}");
    }
}

fn caught(fault: Fault) -> usize {
    let wrong = |seed: &u64| {
        let result = std::panic::catch_unwind(|| {
            let (pipeline, report) = simulate(*seed, fault);
            verdict(&pipeline, &report).is_some()
        });
        result.unwrap_or(true)
    };
    (0..100).filter(wrong).count()
}

#[test]
fn a_dropped_hold_is_caught() {
    assert!(caught(Fault::DroppedHold) > 0);
}

#[test]
fn a_doubled_residual_is_caught() {
    assert!(caught(Fault::DoubledResidual) > 0);
}

#[test]
fn a_lost_timer_is_caught() {
    assert!(caught(Fault::LostTimer) > 0);
}

#[test]
fn a_doubled_output_is_caught() {
    assert!(caught(Fault::DoubledOutput) > 0);
}

#[test]
fn nothing_that_a_worker_sends_makes_the_engine_panic() {
    let mut accepted = 0;
    for seed in 0..500 {
        accepted += hostile::attack(seed);
    }
    // Enough of what was sent was taken for the test to reach beyond the first check.
    assert!(accepted > 1_500, "only {accepted} bundles");
}
