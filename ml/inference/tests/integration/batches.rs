//! Which elements make a batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;
use purlin::prelude::*;
use purlin_inference::{Batching, LastBatch, ModelFn, RunInference};

use crate::{Times, failure};

fn numbers(p: &TestPipeline, numbers: impl IntoIterator<Item = i64>) -> PCollection<i64> {
    p.apply(Create::new(numbers.into_iter().collect::<Vec<_>>()))
}

#[test]
fn batches_have_a_largest_weight() {
    let (p, handler) = (TestPipeline::new(), Times::new("weight", 2));
    let batching = Batching::of_size(100).max_weight(10);
    numbers(&p, [3, 3, 3, 3, 12, 1, 9, 1]).apply(RunInference::new(handler.clone()).with_batching(batching));
    p.run();
    let mut weights: Vec<i64> = handler.batches().iter().map(|batch| batch.iter().sum()).collect();
    assert_eq!(weights.iter().sum::<i64>(), 35);
    weights.retain(|weight| *weight > 10);
    assert_eq!(weights, [12], "an element that is too heavy is alone");
}

#[test]
fn buckets_hold_examples_of_about_one_length() {
    let (p, handler) = (TestPipeline::new(), Times::new("buckets", 2));
    let batching = Batching::of_size(4).buckets([10, 20]);
    let results = numbers(&p, (0..30).rev())
        .apply(RunInference::new(handler.clone()).with_batching(batching))
        .map("Inference", |result| result.inference);
    PAssert::that(&results).contains_in_any_order((0..30).map(|n| n * 2));
    p.run();
    for batch in handler.batches() {
        assert!(batch.iter().all(|n| n / 10 == batch[0] / 10), "{batch:?}");
    }
}

#[test]
fn the_last_batch_is_emitted_padded_or_dropped() {
    for (last, examples, ran) in [
        (
            LastBatch::Emit,
            10,
            vec![vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]],
        ),
        (
            LastBatch::Pad,
            10,
            vec![vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9, 9, 9]],
        ),
        (LastBatch::Drop, 8, vec![vec![0, 1, 2, 3], vec![4, 5, 6, 7]]),
    ] {
        let (p, handler) = (TestPipeline::new(), Times::new("last", 3));
        let results = p
            .apply(Create::new([0i64]))
            .flat_map("Numbers", |_| 0..10i64)
            .apply(RunInference::new(handler.clone()).with_batching(Batching::of_size(4).last_batch(last)))
            .map("Inference", |result| result.inference);
        PAssert::that(&results).contains_in_any_order((0..examples).map(|n| n * 3));
        let result = p.run();
        assert_eq!(handler.batches(), ran, "{last:?}");
        let dropped = result.metrics().counter("BatchElements", "dropped");
        assert_eq!(dropped, 10 - examples);
    }
}

#[purlin::test]
fn a_result_leaves_when_its_time_is_over(p: TestPipeline) {
    let handler = Times::new("duration", 2);
    let at = Timestamp::from_millis;
    let second = Duration::from_secs(1);
    // The third waits for no fourth; the watermark does not move before the end.
    let stream = TestStream::new()
        .element(1i64, at(1))
        .element(2, at(2))
        .advance_processing_time(20 * second)
        .element(3, at(3))
        .advance_processing_time(20 * second)
        .elements((10..14).map(|n| (n, at(n))))
        .element(14, at(14));
    let batching = Batching::between(1, 4).max_duration(10 * second).shards(1);
    let results = p
        .apply(stream)
        .apply(RunInference::new(handler.clone()).with_batching(batching))
        .map("Inference", |result| result.inference);
    PAssert::that(&results).contains_in_any_order([2, 4, 6, 20, 22, 24, 26, 28]);
    p.run();
    assert_eq!(
        handler.batches(),
        [vec![1, 2], vec![3], vec![10, 11, 12, 13], vec![14]]
    );
}

#[test]
fn with_a_duration_of_0_every_element_goes_at_once() {
    let (p, handler) = (TestPipeline::new(), Times::new("at once", 2));
    let batching = Batching::of_size(64).max_duration(Duration::ZERO);
    numbers(&p, 0..5).apply(RunInference::new(handler.clone()).with_batching(batching));
    p.run();
    assert!(handler.batches().iter().all(|batch| batch.len() == 1));
    assert_eq!(handler.batches().len(), 5);
}

#[test]
fn what_contradicts_itself_is_refused() {
    let p = TestPipeline::new();
    let inputs = numbers(&p, [1]);
    let second = Duration::from_secs(1);
    for batching in [
        Batching::of_size(0),
        Batching::between(3, 2).max_duration(second),
        Batching::of_size(1).max_weight(0),
        Batching::of_size(1).buckets([3, 3]),
        Batching::of_size(2).max_duration(second).shards(0),
        Batching::of_size(2)
            .max_duration(second)
            .last_batch(LastBatch::Drop),
        Batching::of_size(2).max_weight(9).last_batch(LastBatch::Pad),
    ] {
        inputs.apply(RunInference::new(Times::new("refused", 1)).with_batching(batching));
    }
    let told = failure(p);
    for part in [
        "for 7 reasons",
        "the smallest batch size is 0",
        "the smallest batch size is 3 and the largest 2",
        "the largest weight of a batch is 0",
        "the boundaries of its buckets are [3, 3]",
        "it has 0 shards",
        "that would drop whatever comes slowly",
        "a padded batch could exceed it",
    ] {
        assert!(told.contains(part), "{part} is not in:\n{told}");
    }
}

#[test]
fn a_bundle_that_is_tried_again_is_cut_into_the_same_batches() {
    let batches: Arc<Mutex<Vec<Vec<i64>>>> = Arc::default();
    let seen = batches.clone();
    let handler = ModelFn::new(
        "fails once",
        || Ok(()),
        move |batch: &[&i64], _: &()| {
            let mut seen = seen.lock();
            seen.push(batch.iter().map(|example| **example).collect());
            match seen.len() {
                3 => Err("not yet".into()),
                _ => Ok(batch.iter().map(|example| **example).collect()),
            }
        },
    );
    let p = TestPipeline::new();
    let results = p
        .apply(Create::new([0i64]))
        .flat_map("Numbers", |_| 0..10i64)
        .apply(RunInference::new(handler).with_batching(Batching::of_size(4)));
    PAssert::that(&results.map("Inference", |result| result.inference)).contains_in_any_order(0..10);
    p.run();
    let cut = [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]];
    assert_eq!(*batches.lock(), [cut.clone(), cut].concat());
}

/// Any limits, and whether elements of a key come out in order over all batches: not where those of other lengths overtake them.
fn limits() -> impl Strategy<Value = (Batching, bool)> {
    let sizes = (1usize..12, 0usize..12);
    let weight = prop_oneof![Just(usize::MAX), 1usize..60];
    let buckets = prop_oneof![Just(vec![]), Just(vec![5]), Just(vec![3, 9, 20])];
    let duration = prop_oneof![3 => Just(None), 1 => Just(Some(0)), 2 => Just(Some(3600))];
    (
        sizes,
        weight,
        buckets,
        duration,
        any::<bool>(),
        any::<bool>(),
        1u64..4,
    )
        .prop_map(|((min, more), weight, buckets, duration, by_key, pads, shards)| {
            let in_order = by_key && buckets.is_empty();
            let mut batching = Batching::between(min, min + more).buckets(buckets).shards(shards);
            if by_key {
                batching = batching.by_key();
            }
            if let Some(seconds) = duration {
                batching = batching.max_duration(Duration::from_secs(seconds));
            }
            let batching = match pads {
                true => batching.last_batch(LastBatch::Pad),
                false => batching.max_weight(weight),
            };
            (batching, in_order)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Batching never loses, doubles or reorders within a key, for any limits, in bundles of any size.
    #[test]
    fn batches_hold_each_element_once_and_in_order(
        (batching, in_order) in limits(),
        keys in proptest::collection::vec(0i64..4, 0..60),
        bundle in prop_oneof![Just(None), (1u32..9).prop_map(Some)],
    ) {
        let p = TestPipeline::new();
        let handler = Times::new("any limits", 1);
        // Each number holds its key and its place, small enough to be its own weight and length.
        let numbered: Vec<(i64, i64)> = keys.iter().zip(0..).map(|(key, place)| (*key, place)).collect();
        let elements = numbered.clone();
        let results = p
            .apply(Create::new([0i64]))
            .flat_map("Elements", move |_| elements.clone())
            .apply(RunInference::keyed(handler.clone()).with_batching(batching.clone()))
            .map("Pair", |(key, result)| (key, result.inference));
        PAssert::that(&results).contains_in_any_order(numbered.clone());
        let options = PipelineOptions {
            experiments: bundle.map(|n| format!("max_bundle_elements={n}")).into_iter().collect(),
            ..PipelineOptions::default()
        };
        p.run_with(&options);

        let key_of: BTreeMap<i64, i64> = numbered.iter().map(|(key, place)| (*place, *key)).collect();
        let mut last: BTreeMap<i64, i64> = BTreeMap::new();
        for batch in handler.batches() {
            prop_assert!(batch.len() <= batching.sizes().max);
            if !in_order {
                last.clear();
            }
            for place in batch {
                // A padded batch has its last example again.
                let before = last.insert(key_of[&place], place);
                prop_assert!(before.is_none_or(|before| before <= place), "{:?}", handler.batches());
            }
        }
    }
}
