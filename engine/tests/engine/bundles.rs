//! Bundles: composition, attempts, failures, the end of a job.

use bytes::Bytes;
use purlin_coders::{Coder, Timestamp, Window};
use purlin_engine::*;

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
        "ValueError: no such thing\nthe bundle failed 4 times"
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
    let transform = hand.engine.stages()[stage.0 as usize].stateful.unwrap();
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

#[test]
fn few_elements_are_spread_over_all_slots_and_many_make_large_bundles() {
    let mut build = Build::new(4);
    let impulse = build.impulse();
    let texts = build.user("Make", impulse, Coder::Utf8, user());
    let spread = build.native("Spread", &[texts], Coder::Utf8, TransformKind::Redistribute);
    build.user("Work", spread, Coder::Utf8, user());
    let graph = build.graph;
    let sizes = |count: usize| {
        let mut hand = Hand::start(Engine::new(graph.clone(), EngineConfig::default()).unwrap());
        let first = hand.one();
        hand.finish(
            &first,
            &[(texts, at(1, Window::Global, &utf8("x")).repeat(count))],
        );
        hand.started
            .iter()
            .map(|bundle| bundle.elements)
            .collect::<Vec<_>>()
    };
    assert_eq!(sizes(3), [1, 1, 1]);
    assert_eq!(sizes(8), [2, 2, 2, 2]);
    assert_eq!(sizes(80_000), [10_000, 8_750, 7_656, 6_699]);
    assert_eq!(sizes(2_000_000), [100_000; 4]);
}

#[test]
fn a_bundle_is_finalized_once_it_is_committed() {
    let (build, ..) = grouping();
    let mut hand = Hand::start(build.engine());
    let finalize = |hand: &Hand| {
        let finalized = hand.other.iter().filter_map(|action| match action {
            Action::Finalize(id) => Some(*id),
            _ => None,
        });
        finalized.collect::<Vec<_>>()
    };
    let first = hand.one();
    hand.fail(&first, "no");
    let again = hand.one();
    assert_eq!(finalize(&hand), []);
    let result = BundleResult {
        finalize: true,
        ..BundleResult::default()
    };
    hand.end(&again, result);
    assert_eq!(finalize(&hand), [again.id]);
}

#[test]
fn a_cache_of_state_is_good_on_one_worker() {
    let mut build = Build::new(1);
    build.graph.environments[0].workers = 2;
    let impulse = build.impulse();
    let pairs = build.user("Pair", impulse, pair(), user());
    build.transform("Count", &[pairs], &[], TransformKind::User(stateful(&[])));
    let config = EngineConfig {
        max_bundle_elements: 1,
        ..EngineConfig::default()
    };
    let mut hand = Hand::start(Engine::new(build.graph, config).unwrap());
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
