//! Models that change while the job runs, and models beside them.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use purlin::prelude::*;
use purlin_inference::{Batching, ModelMetadata, RunInference};

use crate::{Times, failure};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// Elements that are an example, where they are positive, and else name a model.
fn apart(stream: &PCollection<i64>) -> (PCollection<i64>, PCollection<ModelMetadata>) {
    let examples = stream.filter("Examples", |n: &i64| *n > 0);
    let models = stream
        .filter("Models", |n: &i64| *n <= 0)
        .map("Model", |n| ModelMetadata {
            model_id: format!("times-{}", -n),
            model_name: format!("v{}", -n),
        });
    (examples, models)
}

#[purlin::test]
fn the_latest_model_serves_and_results_name_it(p: TestPipeline) {
    let stream = TestStream::new()
        .element(1i64, at(1))
        .element(-3, at(2))
        .element(2, at(3))
        .element(-5, at(9))
        // Named later, but it is older.
        .element(-4, at(5))
        .element(3, at(10));
    let (examples, models) = apart(&p.apply(stream));
    let inference = RunInference::new(Times::new("first", 2)).with_model_updates(&models);
    let shown = examples.apply(inference).map("Show", |result| {
        (
            result.inference,
            (result.model_id, result.model_hash.unwrap_or_default()),
        )
    });
    PAssert::that(&shown).contains_in_any_order([
        (2, ("first".to_owned(), "hash of 2".to_owned())),
        (6, ("times-3".to_owned(), "hash of 3".to_owned())),
        (15, ("times-5".to_owned(), "hash of 5".to_owned())),
    ]);
    let result = p.run();
    let metrics = result.metrics();
    assert_eq!(metrics.counter("RunInference", "model_updates"), 2);
    assert_eq!(metrics.counter("RunInference", "num_inferences"), 3);
    // As Beam has it, too.
    assert_eq!(metrics.counter("RunInference", "v5_num_inferences"), 1);
    assert_eq!(
        metrics
            .distribution("RunInference", "v3_load_model_latency_milli_secs")
            .count,
        1
    );
}

#[purlin::test]
fn updates_that_are_all_there_come_before_the_elements(p: TestPipeline) {
    let models = p.apply(Create::new([ModelMetadata::at("models/times-7.bin")]));
    let examples = p.apply_named("Examples", Create::new([1i64, 2]));
    let windows = Windowing::fixed(Duration::from_secs(1));
    let results = examples
        .window_into("Windows", windows)
        .apply(RunInference::new(Times::new("never used", 2)).with_model_updates(&models));
    let shown = results.map("Show", |result| (result.inference, result.model_id));
    PAssert::that(&shown).contains_in_any_order([7, 14].map(|n| (n, "models/times-7.bin".to_owned())));
    p.run();
}

#[test]
fn a_model_that_cannot_be_had_stops_nothing() {
    let p = TestPipeline::new();
    let stream = TestStream::new()
        .element(1i64, at(1))
        .element(0, at(2))
        .element(2, at(3))
        .element(3, at(4))
        .element(-5, at(5))
        .element(4, at(6));
    let (examples, models) = apart(&p.apply(stream));
    let models = models.map("Broken", |model| match model.model_id.as_str() {
        "times-0" => ModelMetadata::at("broken"),
        _ => model,
    });
    let inference = RunInference::new(Times::new("stays", 2)).with_model_updates(&models);
    let shown = examples.apply(inference).map("Show", |result| result.inference);
    PAssert::that(&shown).contains_in_any_order([2, 4, 6, 20]);
    let result = p.run();
    assert_eq!(
        result.metrics().counter("RunInference", "failed_model_updates"),
        1
    );

    let p = TestPipeline::new();
    let models = p.apply(Create::new([ModelMetadata::at("broken")]));
    p.apply_named("Examples", Create::new([1i64]))
        .apply(RunInference::new(Times::new("none", 2)).with_model_updates(&models));
    assert!(failure(p).contains("cannot load the model broken: broken is no model"));
}

#[test]
fn a_watched_pattern_gives_the_file_that_was_changed_last() {
    let folder = tempfile::tempdir().unwrap();
    for by in [3, 4] {
        let file = fs::File::create(folder.path().join(format!("times-{by}.bin"))).unwrap();
        let changed = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000 - by);
        file.set_modified(changed).unwrap();
    }
    let p = TestPipeline::new();
    let pattern = format!("{}/*.bin", folder.path().display());
    let watch = MatchContinuously::new(&pattern, Duration::from_millis(5)).polls(2);
    let examples = p.apply(Create::new([1i64]));
    let shown = examples
        .apply(RunInference::new(Times::new("before", 2)).watch_model(watch))
        .map("Show", |result| (result.inference, result.model_version));
    PAssert::that(&shown).equals((3, Some("999997000:0".to_owned())));
    p.run();
}

#[purlin::test]
fn a_hundred_swaps_under_load_lose_and_double_nothing_and_memory_stays_flat(p: TestPipeline) {
    const SWAPS: i64 = 100;
    const EACH: i64 = 20;
    let mut stream = TestStream::new();
    for swap in 0..SWAPS {
        let examples = (1..=EACH).map(|n| swap * EACH + n);
        stream = stream
            .element(-(swap + 1), at(swap * 10))
            .elements(examples.map(|n| (n, at(swap * 10 + 1))));
    }
    let (examples, models) = apart(&p.apply(stream));
    let handler = Times::new("swapped", 1);
    let live = handler.live.clone();
    let inference = RunInference::new(handler.clone())
        .with_model_updates(&models)
        .with_batching(Batching::of_size(8));
    let results = examples.apply(inference).map("Live", move |result| {
        let by = result.model_id.replace("times-", "");
        let right = by
            .parse::<i64>()
            .is_ok_and(|by| result.example * by == result.inference);
        let serves = format!("times-{}", (result.example - 1) / EACH + 1);
        assert!(
            live.load(Ordering::SeqCst) <= 2,
            "more than two models are in memory"
        );
        (result.example, (right, serves == result.model_id))
    });
    PAssert::that(&results).contains_in_any_order((1..=SWAPS * EACH).map(|n| (n, (true, true))));
    let result = p.run();
    assert_eq!(
        result.metrics().counter("RunInference", "num_inferences"),
        SWAPS * EACH
    );
    assert_eq!(handler.loads.load(Ordering::SeqCst) as i64, SWAPS);
}

#[test]
fn swaps_under_load_of_all_threads_lose_and_double_nothing() {
    // A source that runs on while models change: which model takes which element is not known, but each result is its model's.
    let p = TestPipeline::new();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let now = at(i64::try_from(now.as_millis()).unwrap());
    let every = |millis| {
        PeriodicImpulse::every(Duration::from_millis(millis))
            .from(now)
            .until(now.plus_millis(60))
    };
    let models = p.apply(every(2)).map("Model", |at: Timestamp| {
        ModelMetadata::at(&format!("times-{}", at.millis() % 1000 + 1))
    });
    let examples = p
        .apply_named("Examples", every(1))
        .flat_map("Numbers", |_| 1..50i64)
        .reshuffle("Spread");
    let handler = Times::new("times-1", 1);
    let live = handler.live.clone();
    let results = examples.apply(RunInference::new(handler).with_model_updates(&models));
    let shown = results.map("Show", move |result| {
        let by = result.model_id.replace("times-", "");
        let right = by
            .parse::<i64>()
            .is_ok_and(|by| result.example * by == result.inference);
        // One that serves, and for each thread one whose batch and one whose load is under way.
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
        (
            result.example,
            (right, live.load(Ordering::SeqCst) <= 2 * threads + 1),
        )
    });
    let expected = (0..60).flat_map(|_| 1..50i64).map(|n| (n, (true, true)));
    PAssert::that(&shown).contains_in_any_order(expected);
    p.run();
}

#[test]
fn a_shadow_model_is_compared_and_may_end_the_job() {
    let run = |gate: f64| {
        let p = TestPipeline::new();
        let numbers = p.apply(Create::new([0i64])).flat_map("Numbers", |_| 0..40i64);
        let shadow = Times::new("shadow", 3);
        // They agree on 0 and where both are small.
        let inference = RunInference::new(Times::new("served", 2))
            .with_shadow_model(shadow, |served: &i64, shadow: &i64| (served - shadow).abs() < 10)
            .max_disagreement(gate, 40);
        let results = numbers
            .apply(inference)
            .map("Inference", |result| result.inference);
        PAssert::that(&results).contains_in_any_order((0..40).map(|n| n * 2));
        p.try_run()
    };
    let result = run(0.8).unwrap();
    assert_eq!(result.metrics().counter("RunInference", "shadow_agreements"), 10);
    assert_eq!(
        result.metrics().counter("RunInference", "shadow_disagreements"),
        30
    );
    let told = run(0.5).unwrap_err().to_string();
    assert!(
        told.contains("the shadow model shadow disagrees with the model on 30 of 40 examples, 75.0 %, but at most 50.0 % may"),
        "{told}"
    );
}

#[test]
fn a_shadow_model_that_fails_harms_nobody() {
    let p = TestPipeline::new();
    let shadow = Times {
        bad: vec![1],
        ..Times::new("bad shadow", 3)
    };
    let inference = RunInference::new(Times::new("well", 2)).with_shadow_model(shadow, |a, b| a == b);
    let results = p.apply(Create::new([1i64])).apply(inference);
    PAssert::that(&results.map("Inference", |result| result.inference)).equals(2);
    let result = p.run();
    assert_eq!(result.metrics().counter("RunInference", "shadow_failures"), 1);
}

#[test]
fn models_by_key_cannot_be_updated() {
    let p = TestPipeline::new();
    let models = p.apply(Create::new([ModelMetadata::at("times-2")]));
    let pairs = p.apply_named("Pairs", Create::new([(1i64, 1i64)]));
    pairs.apply(RunInference::per_key([(1i64, Times::new("a", 1))]).with_model_updates(&models));
    assert!(failure(p).contains("its models are by key, and these cannot be changed while the job runs"));
}
