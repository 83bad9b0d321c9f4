//! Splittable DoFns: residuals, splits, drain and truncation.

use bytes::Bytes;
use purlin_engine::*;
use purlin_model::{Coder, Timestamp, Window};

use crate::common::*;

#[test]
fn residuals_are_resumed_after_their_delay() {
    let (mut hand, bundle) = to_restriction(true, "file", "0");
    hand.leave(&bundle, residual("file", "1", 300));
    assert!(
        matches!(hand.other.as_slice(), [Action::WakeAt(Timestamp(1_300))]),
        "{:?}",
        hand.other
    );
    hand.now = 1_300;
    hand.tell(Event::Tick);
    let bundle = hand.one();
    assert_eq!(elements(&bundle), restriction("file", "1"));
    hand.finish(&bundle, &[]);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

#[test]
fn restrictions_that_come_back_at_once_all_have_their_turn() {
    for keyed in [false, true] {
        let mut build = Build::new(2);
        let impulse = build.impulse();
        let coder = if keyed { sized_by_key() } else { pair() };
        let restrictions = build.user("Split", impulse, coder, user());
        let read = UserTransform {
            stateful: keyed,
            ..splittable()
        };
        build.transform("Read", &[restrictions], &[], TransformKind::User(read));
        let mut hand = Hand::start(build.engine());
        let restriction = |n: usize, from: usize| match keyed {
            true => restriction_by_key(&format!("k{n:02}"), "a", &from.to_string()),
            false => restriction(&format!("k{n:02}"), &from.to_string()),
        };
        let first = hand.one();
        let all: Vec<u8> = (0..12).flat_map(|n| restriction(n, 0)).collect();
        hand.finish(&first, &[(restrictions, all)]);
        let mut turns = [0usize; 12];
        for turn in 1..=48 {
            let bundle = hand.started.remove(0);
            let data = elements(&bundle);
            let is_of = |n: &usize| {
                let name = utf8(&format!("k{n:02}"));
                data.windows(name.len()).any(|bytes| bytes == name)
            };
            let of: Vec<usize> = (0..12).filter(is_of).collect();
            let mut residuals = Vec::new();
            for n in of {
                turns[n] += 1;
                residuals.push(Residual {
                    element: restriction(n, turn).into(),
                    delay_ms: 0,
                    watermark: Some(Timestamp(50)),
                });
            }
            let result = BundleResult {
                residuals,
                ..BundleResult::default()
            };
            hand.end(&bundle, result);
        }
        assert!(turns.iter().all(|turns| (3..=5).contains(turns)), "{turns:?}");
    }
}

/// A source without end, and a slow stage behind it in an environment of its own: the hand, the collections of the restrictions
/// and of what the source makes, the stages of both.
fn source_before_slow_stage(max_queued_bytes: u64) -> (Hand, u32, u32, StageId, StageId) {
    let mut build = Build::new(2);
    let slow = Environment {
        name: "slow".into(),
        workers: 1,
        slots_per_worker: 1,
    };
    build.graph.environments.push(slow);
    let impulse = build.impulse();
    let restrictions = build.user("Split", impulse, pair(), user());
    let out = build.user("Read", restrictions, pair(), splittable());
    build.graph.collections[CollectionId(out)].bounded = false;
    let user = UserTransform {
        environment: Some(EnvironmentId(1)),
        ..user()
    };
    build.transform("Slow", &[out], &[], TransformKind::User(user));
    let config = EngineConfig {
        max_queued_bytes,
        max_bundle_elements: 1,
        ..EngineConfig::default()
    };
    let hand = Hand::start(Engine::new(FusedGraph::new(build.graph, config).unwrap()));
    let id = |name: &str| {
        let found = hand.engine.graph().transforms.iter().position(|t| t.name == name);
        stage_of(&hand.engine, TransformId(found.unwrap() as u32))
    };
    let (read, slow) = (id("Read"), id("Slow"));
    (hand, restrictions, out, read, slow)
}

#[test]
fn a_source_is_held_back_by_what_is_queued_behind_it() {
    let (mut hand, restrictions, out, read, slow) = source_before_slow_stage(40);
    let first = hand.one();
    let all = [restriction("a", "0"), restriction("b", "0")].concat();
    hand.finish(&first, &[(restrictions, all)]);
    let made: Vec<u8> = (0..4)
        .flat_map(|n| at(60 + n, Window::Global, &kv("k", "v")))
        .collect();
    let take = |hand: &mut Hand, stage: StageId| {
        let place = hand.started.iter().position(|bundle| bundle.stage == stage);
        place.map(|place| hand.started.remove(place))
    };
    let (a, b) = (take(&mut hand, read).unwrap(), take(&mut hand, read).unwrap());
    let result = BundleResult {
        outputs: hand.outputs(&[(out, made.clone())]),
        residuals: vec![residual("a", "1", 0)],
        ..BundleResult::default()
    };
    hand.end(&a, result);
    // One of four elements is processed, and the other three are more than may wait.
    assert!(take(&mut hand, read).is_none(), "the source goes on");
    // The bundle that runs is asked to stop.
    hand.now += 2_000;
    hand.progress(&b);
    let asked = |action: &Action| matches!(action, Action::SplitBundle { bundle, fraction: 0.0, .. } if *bundle == b.id);
    assert!(hand.other.iter().any(asked), "{:?}", hand.other);
    hand.split(&b, split(restriction("b", "0-5"), residual("b", "5-", 0)));
    hand.finish(&b, &[]);
    assert!(take(&mut hand, read).is_none(), "the source goes on");
    // It goes on when enough is done.
    let mut done = 0;
    while hand.started.iter().all(|bundle| bundle.stage != read) {
        let next = take(&mut hand, slow).unwrap();
        hand.finish(&next, &[]);
        done += 1;
    }
    assert!((1..4).contains(&done), "{done} elements were processed first");
    // A drain needs no room.
    hand.tell(Event::Drain);
    while let Some(bundle) = hand.started.pop() {
        hand.finish(&bundle, &[]);
    }
    assert_eq!(hand.finished(), Some(Outcome::Drained));
}

#[test]
fn a_source_that_does_not_stop_is_asked_to_from_time_to_time() {
    for keyed in [false, true] {
        let mut build = Build::new(4);
        let impulse = build.impulse();
        let coder = if keyed { sized_by_key() } else { pair() };
        let restrictions = build.user("Split", impulse, coder, user());
        let read = UserTransform {
            stateful: keyed,
            ..splittable()
        };
        let out = build.user("Read", restrictions, pair(), read);
        build.graph.collections[CollectionId(out)].bounded = false;
        build.sink(out, pair());
        let mut hand = Hand::start(build.engine());
        let restriction = |from: &str| match keyed {
            true => restriction_by_key("k", "a", from),
            false => restriction("k", from),
        };
        let first = hand.one();
        hand.finish(&first, &[(restrictions, restriction("0-"))]);
        let running = hand.one();
        hand.now += 1_000;
        hand.progress(&running);
        let asked = |action: &Action| matches!(action, Action::SplitBundle { fraction: 0.0, .. });
        assert!(hand.other.iter().any(asked), "{:?}", hand.other);
        let rest = Residual {
            element: restriction("5-").into(),
            delay_ms: 0,
            watermark: None,
        };
        hand.split(&running, split(restriction("0-5"), rest));
        hand.finish(&running, &[(out, at(7, Window::Global, &kv("topic", "x")))]);
        let rest = hand.one();
        assert_eq!(elements(&rest), restriction("5-"));
    }
}

#[test]
fn stragglers_split_and_the_answer_may_come_after_the_end() {
    let (mut hand, bundle) = to_restriction(true, "file", "0-9");
    hand.now += 900;
    hand.progress(&bundle);
    assert!(hand.other.is_empty(), "{:?}", hand.other);
    hand.now += 200;
    hand.progress(&bundle);
    assert!(matches!(
        hand.other.as_slice(),
        [Action::SplitBundle {
            estimated_input_elements: 1,
            ..
        }]
    ));
    hand.finish(&bundle, &[]);
    assert_eq!(hand.finished(), None);
    hand.split(
        &bundle,
        split(restriction("file", "0-4"), residual("file", "5-9", 0)),
    );
    let rest = hand.one();
    assert_eq!(elements(&rest), restriction("file", "5-9"));
    hand.finish(&rest, &[]);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

#[test]
fn a_retry_after_a_split_runs_the_primary_only() {
    let (mut hand, bundle) = to_restriction(true, "file", "0-9");
    hand.now += 2_000;
    hand.progress(&bundle);
    let primary = restriction("file", "0-4");
    hand.split(&bundle, split(primary.clone(), residual("file", "5-9", 0)));
    let rest = hand.one();
    hand.fail(&bundle, "no");
    let again = hand.one();
    assert_eq!(elements(&again), primary);
    hand.finish(&again, &[]);
    hand.finish(&rest, &[]);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

#[test]
fn a_drain_stops_endless_sources() {
    let (mut hand, bundle) = to_restriction(false, "topic", "0");
    hand.now += 2_000;
    hand.progress(&bundle);
    hand.split(&bundle, Split::default());
    hand.leave(&bundle, residual("topic", "1", 100));
    assert_eq!(hand.finished(), None);
    hand.tell(Event::Drain);
    assert_eq!(hand.finished(), Some(Outcome::Drained));
}

#[test]
fn a_drain_truncates_what_waits_and_what_runs() {
    let (mut build, restrictions, out) = reading(false);
    let read = TransformId(2);
    let truncated = build.collection(pair());
    let truncate = build.transform(
        "Truncate",
        &[restrictions],
        &[truncated],
        TransformKind::User(user()),
    );
    let config = EngineConfig {
        truncates: vec![(read, truncate)],
        ..EngineConfig::default()
    };
    let mut hand = Hand::start(Engine::new(FusedGraph::new(build.graph, config).unwrap()));
    let stage = |hand: &Hand, id: TransformId| stage_of(&hand.engine, id);
    let first = hand.one();
    hand.finish(&first, &[(restrictions, restriction("topic", "0"))]);
    let running = hand.one();
    assert_eq!(running.stage, stage(&hand, read));
    hand.tell(Event::Drain);
    hand.now += 2_000;
    hand.progress(&running);
    assert!(
        hand.other
            .iter()
            .any(|action| matches!(action, Action::SplitBundle { fraction: 0.0, .. }))
    );
    hand.split(
        &running,
        split(restriction("topic", "0-5"), residual("topic", "5-", 0)),
    );
    hand.finish(&running, &[(out, at(7, Window::Global, &kv("topic", "x")))]);
    let truncating = hand.one();
    assert_eq!(truncating.stage, stage(&hand, truncate));
    assert_eq!(elements(&truncating), restriction("topic", "5-"));
    hand.finish(&truncating, &[(truncated, restriction("topic", "5-6"))]);
    let last = hand.one();
    assert_eq!(last.stage, stage(&hand, read));
    assert_eq!(elements(&last), restriction("topic", "5-6"));
    // What is left of a truncated restriction goes on as it is.
    hand.leave(&last, residual("topic", "6-6", 0));
    let last = hand.one();
    assert_eq!(last.stage, stage(&hand, read));
    hand.finish(&last, &[]);
    let end = hand.one();
    hand.finish(&end, &[]);
    assert_eq!(hand.finished(), Some(Outcome::Drained));
}

#[test]
fn the_watermark_of_a_residual_is_a_hold() {
    for (held_at, told) in [(8, false), (25, true)] {
        let mut build = Build::new(2);
        let impulse = build.impulse();
        let restrictions = build.user("Split", impulse, pair(), user());
        let out = build.user("Read", restrictions, pair(), splittable());
        let windowed = build.by_tens(out);
        let end = grouped_by_tens(&mut build, windowed);
        let mut hand = Hand::start(build.engine());
        let end = stage_of(&hand.engine, end);
        let first = hand.one();
        hand.finish(&first, &[(restrictions, restriction("file", "0"))]);
        let bundle = hand.one();
        let rest = Residual {
            watermark: Some(Timestamp(held_at)),
            ..residual("file", "1", 300)
        };
        let result = BundleResult {
            outputs: hand.outputs(&[(windowed, at(5, interval(0, 10), &kv("k", "v")))]),
            residuals: vec![rest],
            ..BundleResult::default()
        };
        hand.end(&bundle, result);
        let first_window = |hand: &Hand| hand.started.iter().any(|bundle| bundle.stage == end);
        assert_eq!(first_window(&hand), told, "held at {held_at}");
        hand.now += 300;
        hand.tell(Event::Tick);
        let rest = hand.started.iter().find(|bundle| bundle.stage != end).cloned();
        hand.finish(&rest.unwrap(), &[]);
        assert!(first_window(&hand));
    }
}

#[test]
fn an_empty_answer_to_a_split_leaves_the_work_whole() {
    let (mut hand, bundle) = to_restriction(true, "file", "0-9");
    let asked = |hand: &mut Hand, after: i64| {
        hand.now += after;
        hand.other.clear();
        hand.progress(&bundle);
        hand.other
            .iter()
            .any(|action| matches!(action, Action::SplitBundle { .. }))
    };
    assert!(asked(&mut hand, 1_000));
    assert!(!asked(&mut hand, 1_000), "it was asked again before it answered");
    hand.split(&bundle, Split::default());
    // The next question comes later: it was of no use.
    assert!(!asked(&mut hand, 1_500));
    assert!(asked(&mut hand, 500));
    hand.fail(&bundle, "no");
    assert_eq!(elements(&hand.one()), restriction("file", "0-9"));
}

#[test]
fn a_drain_ends_test_streams() {
    let mut build = Build::new(1);
    let stream = build.native("Stream", &[], Coder::Utf8, told());
    build.user("See", stream, Coder::Utf8, user());
    let mut hand = Hand::start(build.engine());
    hand.tell(Event::Drain);
    assert_eq!(hand.finished(), Some(Outcome::Drained));
}

/// Sized elements and restrictions: ((keyed element, restriction), size).
fn sized_by_key() -> Coder {
    Coder::kv(Coder::kv(pair(), Coder::Utf8), Coder::Double)
}

/// One of [`sized_by_key`], of size 1.
fn restriction_by_key(key: &str, value: &str, from: &str) -> Vec<u8> {
    let value = [kv(key, value), utf8(from), 1f64.to_be_bytes().to_vec()].concat();
    at(start_of_time(), Window::Global, &value)
}

#[test]
fn an_answer_that_loses_elements_runs_the_bundle_again_unsplit() {
    let unusable = [
        // Kept and given back at once.
        Split {
            first_residual: Some(0),
            last_primary: 0,
            ..Split::default()
        },
        // Its one element is in two parts, of which one is missing.
        Split {
            first_residual: Some(1),
            last_primary: -1,
            residuals: vec![residual("file", "5-9", 0)],
            ..Split::default()
        },
        Split {
            first_residual: Some(1),
            last_primary: -1,
            primary_roots: vec![restriction("file", "0-4").into()],
            ..Split::default()
        },
        // A part of no element.
        Split {
            residuals: vec![residual("file", "5-9", 0)],
            ..Split::default()
        },
        // A part that is no element.
        Split {
            residuals: vec![Residual {
                element: Bytes::from_static(b"\xff"),
                ..residual("file", "5-9", 0)
            }],
            ..split(restriction("file", "0-4"), residual("file", "5-9", 0))
        },
    ];
    for answer in unusable {
        let shown = format!("{answer:?}");
        let (mut hand, bundle) = to_restriction(true, "file", "0-9");
        hand.now += 2_000;
        hand.progress(&bundle);
        hand.other.clear();
        hand.split(&bundle, answer);
        assert!(
            matches!(
                hand.other.as_slice(),
                [Action::Abandon(id), Action::SplitsStopped { stage, .. }]
                    if *id == bundle.id && *stage == bundle.stage
            ),
            "{shown}: {:?}",
            hand.other
        );
        let again = hand.one();
        // The worker did nothing wrong with the bundle: it is no failed attempt.
        assert_eq!((again.attempt, elements(&again)), (1, restriction("file", "0-9")));
        hand.other.clear();
        hand.now += 20_000;
        hand.progress(&again);
        assert!(hand.other.is_empty(), "{shown}: {:?}", hand.other);
        hand.finish(&again, &[]);
        assert_eq!(hand.finished(), Some(Outcome::Done));
    }
}

#[test]
fn a_drain_goes_on_asking_for_splits_and_ends() {
    let (mut hand, mut bundle) = to_restriction(false, "topic", "0-");
    hand.tell(Event::Drain);
    for attempt in 1..=5 {
        hand.now += 2_000;
        hand.progress(&bundle);
        hand.tell(Event::SplitUnusable {
            bundle: bundle.id,
            error: "nonsense".into(),
        });
        if hand.finished().is_some() {
            // The first costs no attempt.
            assert_eq!(attempt, 5);
            break;
        }
        bundle = hand.one();
    }
    assert_eq!(hand.finished(), Some(Outcome::Failed));
    assert!(hand.error().contains("nonsense"), "{}", hand.error());
}

#[test]
fn a_splittable_transform_may_keep_state_by_key() {
    let mut build = Build::new(2);
    let impulse = build.impulse();
    let restrictions = build.user("Split", impulse, sized_by_key(), user());
    let read = UserTransform {
        stateful: true,
        ..splittable()
    };
    let transform = build.transform("Read", &[restrictions], &[], TransformKind::User(read));
    let mut hand = Hand::start(build.engine());
    let restriction = restriction_by_key;
    let first = hand.one();
    let input = [restriction("k", "a", "0"), restriction("z", "b", "0")].concat();
    hand.finish(&first, &[(restrictions, input)]);
    // Each key has a bundle of its own, or both are in one: state is by key.
    let bundles = std::mem::take(&mut hand.started);
    let key = |key: &str| bag(transform, Bytes::new(), key);
    let of_k = bundles.iter().find(|bundle| {
        let data = elements(bundle);
        data.windows(2).any(|bytes| bytes == utf8("k"))
    });
    let of_k = of_k.unwrap().clone();
    let seen = Bytes::from_static(b"seen");
    hand.engine.state_append(of_k.id, key("k"), seen.clone()).unwrap();
    for bundle in &bundles {
        let rest = Residual {
            element: restriction("k", "a", "1").into(),
            delay_ms: 300,
            watermark: None,
        };
        let residuals = if bundle.id == of_k.id {
            vec![rest]
        } else {
            Vec::new()
        };
        let result = BundleResult {
            residuals,
            ..BundleResult::default()
        };
        hand.end(bundle, result);
    }
    assert!(hand.started.is_empty());
    assert_eq!(hand.finished(), None);
    hand.now += 300;
    hand.tell(Event::Tick);
    let again = hand.one();
    assert_eq!(elements(&again), restriction("k", "a", "1"));
    assert_eq!(hand.engine.state_get(again.id, &key("k")).unwrap(), [seen]);
    assert!(hand.engine.state_get(again.id, &key("z")).unwrap().is_empty());
    hand.finish(&again, &[]);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

#[test]
fn a_drain_truncates_restrictions_that_a_split_gives_back() {
    let (mut build, restrictions, out) = reading(false);
    build.graph.environments[EnvironmentId(0)].slots_per_worker = 1;
    let truncated = build.user("Truncate", restrictions, pair(), user());
    let id = |name: &str| {
        let found = build.graph.transforms.iter().position(|t| t.name == name);
        TransformId(found.unwrap() as u32)
    };
    let (read, truncate) = (id("Read"), id("Truncate"));
    let config = EngineConfig {
        truncates: vec![(read, truncate)],
        ..EngineConfig::default()
    };
    let mut hand = Hand::start(Engine::new(FusedGraph::new(build.graph, config).unwrap()));
    let first = hand.one();
    // So many that a bundle takes several.
    let restriction = |n: usize| at(start_of_time(), Window::Global, &kv("topic", &format!("{n:02}-")));
    let all: Vec<u8> = (0..40).flat_map(restriction).collect();
    hand.finish(&first, &[(restrictions, all)]);
    let running = hand.one();
    assert_eq!(running.stage, stage_of(&hand.engine, read));
    assert!(running.elements > 1, "{} elements", running.elements);
    hand.tell(Event::Drain);
    hand.now += 2_000;
    hand.tell(Event::BundleProgress {
        bundle: running.id,
        elements_done: 0,
    });
    let split = Split {
        first_residual: Some(1),
        last_primary: -1,
        primary_roots: vec![at(start_of_time(), Window::Global, &kv("topic", "00-5")).into()],
        residuals: vec![residual("topic", "5-", 0)],
    };
    hand.tell(Event::BundleSplit {
        bundle: running.id,
        split,
    });
    hand.finish(&running, &[(out, at(7, Window::Global, &kv("topic", "x")))]);
    let mut seen = 0;
    while let Some(bundle) = hand.started.pop() {
        // None of the rest is read before it is truncated.
        assert_ne!(bundle.stage, stage_of(&hand.engine, read));
        if bundle.stage == stage_of(&hand.engine, truncate) {
            seen += bundle.elements;
        }
        hand.finish(&bundle, &[]);
    }
    let _ = truncated;
    assert_eq!(seen, 40);
    assert_eq!(hand.finished(), Some(Outcome::Drained));
}

#[test]
fn a_drain_ends_an_endless_source_that_keeps_state() {
    let mut build = Build::new(1);
    let impulse = build.impulse();
    let restrictions = build.user("Split", impulse, sized_by_key(), user());
    let read = UserTransform {
        stateful: true,
        ..splittable()
    };
    let out = build.user("Read", restrictions, pair(), read);
    build.graph.collections[CollectionId(out)].bounded = false;
    build.sink(out, pair());
    let mut hand = Hand::start(build.engine());
    let restriction = |key: &str, from: &str| restriction_by_key(key, "a", from);
    let first = hand.one();
    let input = [
        restriction("k", "0"),
        restriction("k", "1"),
        restriction("z", "2"),
    ]
    .concat();
    hand.finish(&first, &[(restrictions, input)]);
    let running = hand.one();
    hand.tell(Event::Drain);
    hand.now += 2_000;
    hand.tell(Event::BundleProgress {
        bundle: running.id,
        elements_done: 0,
    });
    let asked = |action: &Action| matches!(action, Action::SplitBundle { fraction: 0.0, .. });
    assert!(hand.other.iter().any(asked));
    let split = Split {
        first_residual: Some(1),
        last_primary: -1,
        primary_roots: vec![restriction("k", "0-5").into()],
        residuals: vec![Residual {
            element: restriction("k", "5-").into(),
            delay_ms: 0,
            watermark: None,
        }],
    };
    hand.tell(Event::BundleSplit {
        bundle: running.id,
        split,
    });
    hand.finish(&running, &[(out, at(7, Window::Global, &kv("topic", "x")))]);
    // What was not begun, and what it gave back, goes: there is nothing that would truncate it.
    assert_eq!(hand.finished(), Some(Outcome::Drained));
}
