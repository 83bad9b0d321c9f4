//! Bundles: composition, attempts, failures, the end of a job.

use bytes::Bytes;
use purlin_engine::*;
use purlin_model::{Coder, Timestamp, Window};

use crate::common::*;

#[test]
fn impulse_par_do_group_by_key_par_do() {
    let (build, pairs, out) = grouping();
    let mut hand = Hand::start(build.engine());
    let first = hand.one();
    assert_eq!((first.stage, first.elements, first.attempt), (StageId(0), 1, 1));
    assert_eq!(elements(&first), at(start_of_time(), Window::Global, &[0]));
    let element = |k, v| at(5, Window::Global, &kv(k, v));
    let data = [element("a", "1"), element("b", "2"), element("a", "3")].concat();
    hand.finish(&first, &[(pairs, data)]);
    let second = hand.one();
    assert_eq!((second.stage, second.elements), (StageId(1), 2));
    hand.finish(&second, &[(out, at(5, Window::Global, &utf8("done")))]);
    assert_eq!(hand.finished(), Some(Outcome::Done));
    assert!(hand.engine.handle(Timestamp(0), Event::Tick).is_empty());
}

#[test]
fn a_bundle_is_tried_four_times() {
    let (build, ..) = grouping();
    let mut hand = Hand::start(build.engine());
    for attempt in 1..=4 {
        let bundle = hand.one();
        assert_eq!(bundle.attempt, attempt);
        hand.fail(&bundle, "ValueError: no such thing");
    }
    assert_eq!(
        hand.error(),
        "a bundle failed 4 times, the last time with:\nValueError: no such thing"
    );
    assert_eq!(hand.finished(), Some(Outcome::Failed));
    // The error comes before the end.
    assert!(matches!(
        hand.other.as_slice(),
        [Action::Failed { .. }, Action::Finished(_)]
    ));
}

#[test]
fn lost_workers_are_counted_apart() {
    let (build, ..) = grouping();
    let mut hand = Hand::start(build.engine());
    for _ in 0..8 {
        let bundle = hand.one();
        assert_eq!(bundle.attempt, 1);
        hand.tell(Event::BundleFailed {
            bundle: bundle.id,
            error: "gone".into(),
            worker_lost: true,
        });
    }
    let bundle = hand.one();
    hand.tell(Event::BundleFailed {
        bundle: bundle.id,
        error: "gone".into(),
        worker_lost: true,
    });
    assert!(hand.error().contains("9 workers were lost"), "{}", hand.error());
}

#[test]
fn nothing_of_a_failed_bundle_stays_and_its_cache_token_changes() {
    let (mut build, pairs, _) = grouping();
    let state = build.user("Count", pairs, pair(), stateful(&[]));
    build.sink(state, pair());
    let mut hand = Hand::start(build.engine());
    let first = hand.one();
    hand.finish(&first, &[(pairs, at(5, Window::Global, &kv("a", "1")))]);
    // The grouping waits for the end of the input, the stage with state does not.
    let bundles = std::mem::take(&mut hand.started);
    let stage = hand
        .engine
        .stages()
        .iter()
        .find(|stage| stage.stateful.is_some())
        .unwrap()
        .id;
    let bundle = bundles.iter().find(|bundle| bundle.stage == stage).cloned();
    let bundle = bundle.unwrap_or_else(|| {
        let other = bundles[0].clone();
        hand.finish(&other, &[]);
        hand.one()
    });
    let transform = hand.engine.stages()[stage].stateful.unwrap();
    let key = bag(transform, Bytes::new(), "a");
    hand.engine
        .state_append(bundle.id, key.clone(), Bytes::from_static(b"x"))
        .unwrap();
    assert_eq!(hand.engine.state_get(bundle.id, &key).unwrap().len(), 1);
    hand.fail(&bundle, "no");
    assert!(hand.engine.state_get(bundle.id, &key).is_err());
    let again = hand
        .started
        .iter()
        .find(|bundle| bundle.stage == stage)
        .cloned()
        .unwrap();
    assert!(hand.engine.state_get(again.id, &key).unwrap().is_empty());
    assert_ne!(again.state_token, bundle.state_token);
    assert_eq!(elements(&again), elements(&bundle));
}

#[test]
fn a_cancelled_job_abandons_its_bundles() {
    let (build, ..) = grouping();
    let mut hand = Hand::start(build.engine());
    let bundle = hand.one();
    hand.tell(Event::Cancel);
    assert!(matches!(
        hand.other.as_slice(),
        [Action::Abandon(id), Action::Finished(Outcome::Cancelled)] if *id == bundle.id
    ));
    hand.finish(&bundle, &[]);
    assert_eq!(hand.other.len(), 2);
}

/// A stage that gets as many elements as are asked for, from a stage before it.
fn working(workers: u32, slots: u32) -> (Build, u32) {
    let mut build = Build::new(slots);
    build.graph.environments[EnvironmentId(0)].workers = workers;
    let impulse = build.impulse();
    let texts = build.user("Make", impulse, Coder::Utf8, user());
    let spread = build.native("Spread", &[texts], Coder::Utf8, TransformKind::Redistribute);
    build.user("Work", spread, Coder::Utf8, user());
    (build, texts)
}

/// Sends so many elements to the stage of [`working`].
fn send(hand: &mut Hand, texts: u32, count: usize) {
    let first = hand.one();
    let data = at(1, Window::Global, &utf8("x")).repeat(count);
    hand.finish(&first, &[(texts, data)]);
}

fn sizes(hand: &Hand) -> Vec<u64> {
    hand.started.iter().map(|bundle| bundle.elements).collect()
}

#[test]
fn few_elements_are_one_bundle_a_worker_and_many_fill_all_slots() {
    let sizes = |workers: u32, slots: u32, count: usize| {
        let (build, texts) = working(workers, slots);
        let mut hand = Hand::start(build.engine());
        send(&mut hand, texts, count);
        sizes(&hand)
    };
    assert_eq!(sizes(1, 4, 3), [3]);
    assert_eq!(sizes(1, 8, 35), [35]);
    assert_eq!(sizes(2, 8, 35), [18, 17]);
    assert_eq!(sizes(8, 1, 3), [1, 1, 1]);
    assert_eq!(sizes(1, 4, 10_000), [10_000]);
    assert_eq!(sizes(1, 4, 80_000), [10_000, 8_750, 7_656, 6_699]);
    assert_eq!(sizes(1, 4, 2_000_000), [100_000; 4]);
}

#[test]
fn few_keys_of_a_transform_with_state_are_shared_out_at_once() {
    let mut build = Build::new(4);
    let impulse = build.impulse();
    let pairs = build.user("Make", impulse, pair(), user());
    let stateful = UserTransform {
        stateful: true,
        ..user()
    };
    build.user("Work", pairs, pair(), stateful);
    let mut hand = Hand::start(build.engine());
    let first = hand.one();
    let element = |key: &str| at(1, Window::Global, &kv(key, "x"));
    let data = ["a", "b", "c", "d"].map(element).concat();
    hand.finish(&first, &[(pairs, data)]);
    assert_eq!(sizes(&hand), [1, 1, 1, 1]);
}

/// The worker of a bundle has begun so many elements; it gives back what is asked for, as SDKs do.
fn straggle(hand: &mut Hand, bundle: &Bundle, begun: u64) {
    hand.other.clear();
    hand.tell(Event::BundleProgress {
        bundle: bundle.id,
        elements_done: begun,
    });
    let asked = hand.other.iter().find_map(|action| match action {
        Action::SplitBundle {
            fraction,
            estimated_input_elements,
            ..
        } => Some((*fraction, *estimated_input_elements)),
        _ => None,
    });
    let Some((fraction, count)) = asked else { return };
    let remainder = count as f64 - begun as f64 + 0.5;
    let first_residual = begun + ((0.5 + remainder * fraction).round() as u64).max(1) - 1;
    let split = Split {
        first_residual: Some(first_residual),
        last_primary: first_residual as i64 - 1,
        ..Split::default()
    };
    hand.split(bundle, split);
}

#[test]
fn slow_elements_fill_all_slots_after_the_first_report() {
    for (count, expected) in [(8, vec![1; 7]), (16, vec![2, 2, 2, 2, 2, 2, 1])] {
        let (build, texts) = working(1, 8);
        let mut hand = Hand::start(build.engine());
        send(&mut hand, texts, count);
        let bundle = hand.one();
        hand.now += 200;
        straggle(&mut hand, &bundle, 1);
        assert_eq!(sizes(&hand), expected);
    }
}

#[test]
fn what_is_shared_out_keeps_batches_whole() {
    // The worker has begun ten elements and then works on the ten at once.
    let (build, texts) = working(1, 8);
    let mut hand = Hand::start(build.engine());
    send(&mut hand, texts, 35);
    let bundle = hand.one();
    hand.now += 200;
    straggle(&mut hand, &bundle, 10);
    assert_eq!(sizes(&hand), [10, 10, 5]);
}

#[test]
fn a_bundle_that_is_soon_done_or_in_its_setup_is_left_alone() {
    let (build, texts) = working(1, 8);
    let mut hand = Hand::start(build.engine());
    send(&mut hand, texts, 35);
    let bundle = hand.one();
    hand.now += 500;
    straggle(&mut hand, &bundle, 0);
    assert_eq!(sizes(&hand), []);
    straggle(&mut hand, &bundle, 20);
    assert_eq!(sizes(&hand), []);
    // Then one element lasts.
    hand.now += 900;
    straggle(&mut hand, &bundle, 25);
    assert_eq!(sizes(&hand), []);
    hand.now += 200;
    straggle(&mut hand, &bundle, 25);
    assert_eq!(sizes(&hand), [10]);
}

#[test]
fn what_comes_to_a_slow_stage_is_shared_out_until_a_bundle_is_quick() {
    let mut build = Build::new(16);
    let impulse = build.impulse();
    let makers = ["Make 1", "Make 2", "Make 3"].map(|name| {
        let apart = build.native("Apart", &[impulse], Coder::Bytes, TransformKind::Redistribute);
        build.user(name, apart, Coder::Utf8, user())
    });
    let texts = build.native("All", &makers, Coder::Utf8, TransformKind::Flatten);
    let spread = build.native("Spread", &[texts], Coder::Utf8, TransformKind::Redistribute);
    build.user("Work", spread, Coder::Utf8, user());
    let mut hand = Hand::start(build.engine());
    let mut making = std::mem::take(&mut hand.started);
    assert_eq!(making.len(), 3);
    let mut send = |hand: &mut Hand, count: usize| {
        let bundle = making.remove(0);
        let stage = &hand.engine.stages()[bundle.stage];
        let output = stage.outputs[0].0;
        let data = at(1, Window::Global, &utf8("x")).repeat(count);
        hand.finish(&bundle, &[(output, data)]);
        std::mem::take(&mut hand.started)
    };
    let slow = send(&mut hand, 4);
    assert_eq!(slow.len(), 1);
    hand.now += 200;
    straggle(&mut hand, &slow[0], 1);
    assert_eq!(sizes(&hand), [1, 1, 1]);
    let quick = std::mem::take(&mut hand.started);
    assert_eq!(send(&mut hand, 3).len(), 3);
    quick.iter().for_each(|bundle| hand.finish(bundle, &[]));
    assert_eq!(send(&mut hand, 3).len(), 1);
}

#[test]
fn a_bundle_is_finalized_once_it_is_committed() {
    let (build, ..) = grouping();
    let mut hand = Hand::start(build.engine());
    let first = hand.one();
    hand.fail(&first, "no");
    let again = hand.one();
    assert_eq!(hand.committed, []);
    let result = BundleResult {
        finalize: true,
        ..BundleResult::default()
    };
    hand.end(&again, result);
    assert_eq!(hand.committed, [(again.id, true)]);
}

#[test]
fn a_result_that_cannot_be_taken_is_refused_and_the_bundle_runs_again() {
    let (build, ..) = grouping();
    let mut hand = Hand::start(build.engine());
    let first = hand.one();
    let result = BundleResult {
        // Of a stage that splits nothing.
        residuals: vec![Residual {
            element: Bytes::new(),
            delay_ms: 0,
            watermark: None,
        }],
        finalize: true,
        ..BundleResult::default()
    };
    hand.end(&first, result);
    assert!(
        matches!(hand.other.as_slice(), [Action::Refused { bundle, .. }] if *bundle == first.id),
        "{:?}",
        hand.other
    );
    assert_eq!(hand.committed, []);
    let again = hand.one();
    assert_eq!(again.attempt, 2);
    hand.finish(&again, &[]);
    assert_eq!(hand.committed, [(again.id, false)]);
}

#[test]
fn a_cache_of_state_is_good_on_one_worker() {
    let mut build = Build::new(1);
    build.graph.environments[EnvironmentId(0)].workers = 2;
    let impulse = build.impulse();
    let pairs = build.user("Pair", impulse, pair(), user());
    build.transform("Count", &[pairs], &[], TransformKind::User(stateful(&[])));
    let config = EngineConfig {
        max_bundle_elements: 1,
        ..EngineConfig::default()
    };
    let mut hand = Hand::start(Engine::new(FusedGraph::new(build.graph, config).unwrap()));
    let first = hand.one();
    let data = ["a", "b", "a", "b", "a"].map(|key| at(1, Window::Global, &kv(key, "1")));
    hand.finish(&first, &[(pairs, data.concat())]);
    let (a, b) = (hand.started.remove(0), hand.started.remove(0));
    assert_ne!(a.worker, b.worker);
    assert_ne!(a.state_token, b.state_token);
    // The other worker changed state meanwhile: what this one remembers is not to be relied on.
    hand.finish(&a, &[]);
    let next = hand.one();
    assert_eq!(next.worker, a.worker);
    assert_ne!(next.state_token, a.state_token);
    assert_ne!(next.state_token, b.state_token);
}
