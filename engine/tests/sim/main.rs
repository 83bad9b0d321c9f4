//! Seeded simulation of the engine: generated pipelines, workers that delay, fail, split and vanish, several bundling
//! strategies, against a naive oracle. SIM_SEED and SIM_SEEDS choose the [`seeds`].

mod driver;
mod hostile;
mod oracle;
mod pipeline;
mod rng;
mod scripted;
mod seeds;
mod sides;
mod turns;
mod worker;

use purlin_engine::{CollectionId, EngineConfig, Outcome};

use driver::{Driver, Report};
use oracle::Element;
use pipeline::Pipeline;
use rng::Rng;
use worker::Fault;

fn strategy(seed: u64) -> EngineConfig {
    let base = EngineConfig {
        split_after_ms: 10,
        split_slow_after_ms: 4,
        max_worker_losses: 1_000,
        ..EngineConfig::default()
    };
    match seed % 4 {
        0 => EngineConfig {
            max_bundle_elements: 1,
            min_bundle_elements: 1,
            max_queued_bytes: 200,
            few_elements: 1,
            ..base
        },
        1 => EngineConfig {
            max_bundle_elements: 5,
            min_bundle_elements: 2,
            few_elements: 2,
            max_bundle_bytes: 40,
            max_queued_bytes: 0,
            ..base
        },
        2 => EngineConfig {
            min_bundle_elements: 1,
            few_elements: 1,
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

/// As [`simulate`], with a source that the drain ends.
fn simulate_drain(seed: u64, fault: Fault) -> (Pipeline, Report) {
    let pipeline = pipeline::generate_endless(&mut Rng::new(seed));
    let config = EngineConfig {
        truncates: pipeline.truncates.clone(),
        ..strategy(seed / 7)
    };
    let report = Driver::new(&pipeline, config, seed, fault).run();
    (pipeline, report)
}

/// What is wrong with a run, if anything is.
fn verdict(pipeline: &Pipeline, report: &Report) -> Option<String> {
    if let Some(error) = &report.error {
        return Some(error.clone());
    }
    let (outcome, gap) = match pipeline.endless {
        Some(_) => (Outcome::Drained, gap(&report.endless)),
        None => (Outcome::Done, None),
    };
    if report.outcome != Some(outcome) {
        return Some(format!("ended with {:?}", report.outcome));
    }
    if gap.is_some() {
        return gap;
    }
    let expected = oracle::evaluate(pipeline, &report.endless);
    (expected != report.committed).then(|| {
        let (missing, extra) = (
            difference(&expected, &report.committed),
            difference(&report.committed, &expected),
        );
        format!("missing {missing:?}\nnot expected {extra:?}")
    })
}

/// Elements that the first has more often than the second.
fn difference(first: &[Element], second: &[Element]) -> Vec<Element> {
    let mut second = second.to_vec();
    let mut left = first.to_vec();
    left.retain(|element| match second.iter().position(|other| other == element) {
        Some(at) => {
            second.swap_remove(at);
            false
        }
        None => true,
    });
    left
}

/// Ranges are read in order: of each a part without gaps from its start, every number once.
fn gap(read: &[Element]) -> Option<String> {
    let mut numbers: Vec<i64> = read.iter().map(|element| element.value).collect();
    numbers.sort_unstable();
    let wrong = |pair: &&[i64]| pair[1] != pair[0] + 1 && pair[1] % pipeline::UNIT != 0;
    let wrong = numbers.windows(2).find(wrong);
    wrong.map(|pair| format!("after {} the sources read {}", pair[0], pair[1]))
}

fn names(pipeline: &Pipeline) -> Vec<String> {
    let ids = |ids: &[CollectionId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
    let transforms = pipeline.graph.transforms.iter();
    transforms
        .map(|t| format!("{} {:?}->{:?}", t.name, ids(&t.inputs), ids(&t.outputs)))
        .collect()
}

#[test]
fn every_drain_ends_with_all_that_was_read() {
    let (mut read, mut failures) = (0, 0);
    let tried = seeds::each(200, |seed| {
        let (pipeline, report) = simulate_drain(seed, Fault::None);
        if let Some(wrong) = verdict(&pipeline, &report) {
            panic!("seed {seed}: {wrong}\n{:?}", names(&pipeline));
        }
        read += report.endless.len() as u64;
        failures += report.failures;
    });
    tried.saw("elements", read, 10_000);
    tried.saw("failures", failures, 2_000);
}

#[test]
fn every_script_gives_the_oracles_panes() {
    let mut panes = 0;
    let tried = seeds::each(400, |seed| {
        let (pipeline, script) = scripted::generate(&mut Rng::new(seed));
        let report = Driver::new(&pipeline, strategy(seed / 7), seed, Fault::None).run();
        let expected = scripted::evaluate(&script);
        if report.error.is_some() || report.outcome != Some(Outcome::Done) || expected != report.committed {
            let Report { error, committed, .. } = report;
            let script = scripted::describe(&script);
            panic!("seed {seed}: {error:?}\nexpected {expected:?}\ncommitted {committed:?}\n{script}");
        }
        panes += expected.len() as u64;
    });
    tried.saw("panes", panes, 5_000);
}

#[test]
fn every_script_of_a_side_input_gives_what_its_latest_firings_gave() {
    let mut read = 0;
    let tried = seeds::each(400, |seed| {
        let (pipeline, script) = sides::generate(&mut Rng::new(seed));
        let report = Driver::new(&pipeline, strategy(seed / 7), seed, Fault::None).run();
        let expected = sides::evaluate(&script);
        if report.error.is_some() || report.outcome != Some(Outcome::Done) || expected != report.committed {
            let Report { error, committed, .. } = report;
            panic!("seed {seed}: {error:?}\nexpected {expected:?}\ncommitted {committed:?}\n{script:?}");
        }
        read += expected.len() as u64;
    });
    tried.saw("elements that read a side input", read, 5_000);
}

#[test]
fn every_schedule_gives_the_oracles_result() {
    let (mut splits, mut failures, mut undone, mut elements) = (0, 0, 0, 0);
    let tried = seeds::each(400, |seed| {
        let (pipeline, report) = simulate(seed, Fault::None);
        if let Some(wrong) = verdict(&pipeline, &report) {
            panic!("seed {seed}: {wrong}\n{:?}", names(&pipeline));
        }
        splits += report.splits;
        failures += report.failures;
        undone += report.undone;
        elements += report.committed.len() as u64;
    });
    // The workers did misbehave, and there was something to compute.
    tried.saw("splits", splits, 500);
    tried.saw("failures", failures, 2_000);
    tried.saw("bundles undone", undone, 20);
    tried.saw("elements", elements, 5_000);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..30 {
        let (first, second) = (simulate(seed, Fault::None).1, simulate(seed, Fault::None).1);
        assert_eq!(first.trace, second.trace, "seed {seed}");
        let (first, second) = (
            simulate_drain(seed, Fault::None).1,
            simulate_drain(seed, Fault::None).1,
        );
        assert_eq!(first.trace, second.trace, "drain, seed {seed}");
    }
}

fn caught(fault: Fault) -> usize {
    caught_by(simulate, fault)
}

fn caught_by(simulate: fn(u64, Fault) -> (Pipeline, Report), fault: Fault) -> usize {
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
fn faults_of_endless_sources_are_caught() {
    assert!(caught_by(simulate_drain, Fault::DoubledResidual) > 0);
    assert!(caught_by(simulate_drain, Fault::DroppedHold) > 0);
    assert!(caught_by(simulate_drain, Fault::LostTimer) > 0);
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
    let tried = seeds::each(400, |seed| accepted += hostile::attack(seed) as u64);
    // Enough of what was sent was taken for the test to reach beyond the first check.
    tried.saw("bundles", accepted, 1_000);
}
