//! A model for each key.

use std::sync::atomic::Ordering;

use purlin::prelude::*;
use purlin_inference::{Batching, ModelHandler, RunInference};

use crate::{Times, failure};

/// Handlers that count their models together.
fn handlers(models: i64) -> Vec<(i64, Times)> {
    let first = Times::new("m0", 0);
    (0..models)
        .map(|n| {
            let handler = Times {
                id: format!("m{n}"),
                by: n,
                ..first.clone()
            };
            (n, handler)
        })
        .collect()
}

fn run(
    limit: impl Fn(
        RunInference<Times, purlin_inference::Keyed<i64>>,
    ) -> RunInference<Times, purlin_inference::Keyed<i64>>,
) -> Times {
    let all = handlers(6);
    let handler = all[0].1.clone();
    let p = TestPipeline::new();
    // Each key again and again.
    let pairs = p
        .apply(Create::new([0i64]))
        .flat_map("Pairs", |_| (0..60i64).map(|n| (n % 6, n)));
    let results = pairs.apply(limit(RunInference::per_key(all)).with_batching(Batching::of_size(2)));
    let shown = results.map("Show", |(key, result)| (key, (result.inference, result.model_id)));
    let expected = (0..60i64).map(|n| (n % 6, (n * (n % 6), format!("m{}", n % 6))));
    PAssert::that(&shown).contains_in_any_order(expected);
    let result = p.run();
    let metrics = result.metrics();
    assert_eq!(metrics.counter("BeamML_KeyedModels", "num_inferences"), 60);
    let loads = metrics
        .distribution("BeamML_KeyedModels", "load_model_latency_milli_secs")
        .count;
    assert_eq!(loads as usize, handler.loads.load(Ordering::SeqCst));
    for batch in handler.batches() {
        assert!(
            batch.iter().all(|n| n % 6 == batch[0] % 6),
            "a batch is of one model: {batch:?}"
        );
    }
    handler
}

#[test]
fn each_model_is_loaded_once_where_all_may_stay() {
    assert_eq!(run(|inference| inference).loads.load(Ordering::SeqCst), 6);
}

#[test]
fn models_make_room_for_others() {
    // One thread or more load models again that had to go.
    assert!(
        run(|inference| inference.max_models_per_worker(2))
            .loads
            .load(Ordering::SeqCst)
            > 6
    );
    assert!(
        run(|inference| inference.max_model_bytes_per_worker(250))
            .loads
            .load(Ordering::SeqCst)
            > 6
    );
    assert_eq!(
        run(|inference| inference.max_model_bytes_per_worker(600))
            .loads
            .load(Ordering::SeqCst),
        6
    );
}

#[purlin::test]
fn keys_share_a_model_and_a_key_without_one_fails(p: TestPipeline) {
    let shared = Times::new("shared by keys", 2);
    let pairs = p.apply(Create::new([(1i64, 10i64), (2, 20), (3, 30)]));
    let inference = RunInference::per_key([(1i64, shared.clone()), (2, shared.clone())]);
    let (results, failed) = pairs.apply(inference.with_dead_letters());
    PAssert::that(&results.map("Inference", |(_, result)| result.inference)).contains_in_any_order([20, 40]);
    let failed = failed.map("Failed", |failed| (failed.example.0, failed.error));
    PAssert::that(&failed).equals((
        3,
        "no model handler is given for the element's key: give RunInference::per_key one for each".to_owned(),
    ));
    p.run();
    assert_eq!(shared.loads.load(Ordering::SeqCst), 1);
}

#[test]
fn what_fails_before_the_model_names_the_model_of_its_key() {
    let p = TestPipeline::new();
    let pairs = p.apply(Create::new([
        (1i64, "x".to_owned()),
        (2, "x".to_owned()),
        (3, "x".to_owned()),
    ]));
    let inference = RunInference::per_key([(1i64, Times::new("one", 1)), (2, Times::new("two", 2))])
        .try_with_preprocess("Parse", |text: String| text.parse::<i64>())
        .with_exception_handling();
    let (_, failed) = pairs.apply(inference);
    let names = failed
        .failed_preprocessing
        .map("Name", |failed| (failed.example.0, failed.model_id));
    PAssert::that(&names).contains_in_any_order([
        (1, "one".to_owned()),
        (2, "two".to_owned()),
        (3, String::new()),
    ]);
    p.run();
}

#[test]
fn handlers_that_contradict_each_other_are_refused() {
    let p = TestPipeline::new();
    let pairs = p.apply(Create::new([(1i64, 10i64)]));
    let [a, b] = ["a", "b"].map(|id| Times::new(id, 1));
    assert_ne!(a.model_key(), b.model_key());
    pairs.apply(RunInference::per_key([(1i64, a.clone()), (1, b)]));
    pairs.apply(RunInference::per_key([(1i64, a.clone()), (1, a.clone())]).max_models_per_worker(0));
    pairs.apply(RunInference::per_key(Vec::<(i64, Times)>::new()));
    let told = failure(p);
    for part in [
        "for 3 reasons",
        "a key has two model handlers, one of them b",
        "max_models_per_worker is 0",
        "it has no model handler",
    ] {
        assert!(told.contains(part), "{part} is not in:\n{told}");
    }
}
