//! The engine's decisions, one at a time.

mod common;

use bytes::Bytes;
use common::*;
use purlin_coders::{Coder, Timestamp, Window};
use purlin_engine::*;

const FOREVER: i64 = i64::MIN / 1_000 - 1;

fn start_of_time() -> i64 {
    Timestamp::MIN.0.max(FOREVER)
}

/// Impulse, a stage that makes pairs, a GroupByKey, a stage that reads it.
fn grouping() -> (Build, u32, u32) {
    let mut build = Build::new(1);
    let impulse = build.impulse();
    let pairs = build.user("Pair", impulse, pair(), user());
    let grouped_coder = Coder::kv(Coder::Utf8, Coder::iterable(Coder::Utf8));
    let grouped = build.native("Group", &[pairs], grouped_coder, TransformKind::GroupByKey);
    let out = build.user("Join", grouped, Coder::Utf8, user());
    build.sink(out, Coder::Utf8);
    (build, pairs, out)
}

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
    let state = build.user(
        "Count",
        pairs,
        pair(),
        UserTransform {
            stateful: true,
            ..user()
        },
    );
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
    let key = StateKey {
        transform,
        state: "s".into(),
        window: Bytes::new(),
        key: utf8("a").into(),
        part: StatePart::Bag,
    };
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

/// A stage with timers, after pairs in fixed windows of 10 ms.
fn with_timers(domain: TimeDomain) -> (Build, u32, u32, TransformId) {
    let mut build = Build::new(1);
    let impulse = build.impulse();
    let pairs = build.fixed(pair(), 10);
    build.transform("Pair", &[impulse], &[pairs], TransformKind::User(user()));
    let out = build.fixed(pair(), 10);
    let timers = vec![TimerFamily {
        name: "t".into(),
        domain,
    }];
    let kind = TransformKind::User(UserTransform {
        stateful: true,
        timers,
        ..user()
    });
    let transform = build.transform("Timers", &[pairs], &[out], kind);
    build.sink(out, pair());
    (build, pairs, out, transform)
}

fn to_timers(build: Build, pairs: u32) -> (Hand, Bundle) {
    let mut hand = Hand::start(build.engine());
    let first = hand.one();
    hand.finish(&first, &[(pairs, at(3, interval(0, 10), &kv("k", "v")))]);
    let bundle = hand.one();
    (hand, bundle)
}

#[test]
fn timers_overwrite_clear_and_fire_one_timestamp_at_a_time() {
    let (build, pairs, _, transform) = with_timers(TimeDomain::EventTime);
    let (mut hand, bundle) = to_timers(build, pairs);
    let window = || interval(0, 10);
    let set = [
        timer("k", window(), "", Some((4, 4))),
        timer("k", window(), "", Some((8, 8))),
        timer("k", window(), "cleared", Some((5, 5))),
        timer("k", window(), "cleared", None),
        timer("k", window(), "other", Some((6, 6))),
    ];
    hand.finish_with_timers(&bundle, transform, &[("t", set.concat())]);
    let bundle = hand.one();
    assert_eq!(bundle.elements, 0);
    assert_eq!(
        timers(&bundle),
        [("t".to_string(), timer("k", window(), "other", Some((6, 6))))]
    );
    // A timer that is set for a time already passed fires next.
    hand.finish_with_timers(
        &bundle,
        transform,
        &[("t", timer("k", window(), "late", Some((2, 2))))],
    );
    let bundle = hand.one();
    assert_eq!(timers(&bundle)[0].1, timer("k", window(), "late", Some((2, 2))));
    // A failure fires it again.
    hand.fail(&bundle, "no");
    let bundle = hand.one();
    assert_eq!(timers(&bundle)[0].1, timer("k", window(), "late", Some((2, 2))));
    hand.finish(&bundle, &[]);
    let bundle = hand.one();
    assert_eq!(timers(&bundle)[0].1, timer("k", window(), "", Some((8, 8))));
    assert_eq!(hand.finished(), None);
    hand.finish(&bundle, &[]);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

#[test]
fn processing_time_timers_wait_for_the_clock() {
    let (build, pairs, _, transform) = with_timers(TimeDomain::ProcessingTime);
    let (mut hand, bundle) = to_timers(build, pairs);
    hand.finish_with_timers(
        &bundle,
        transform,
        &[("t", timer("k", interval(0, 10), "", Some((5_000, 3))))],
    );
    assert!(
        matches!(hand.other.as_slice(), [Action::WakeAt(Timestamp(5_000))]),
        "{:?}",
        hand.other
    );
    hand.now = 4_000;
    hand.tell(Event::Tick);
    assert!(hand.started.is_empty());
    hand.now = 5_000;
    hand.tell(Event::Tick);
    let bundle = hand.one();
    hand.finish(&bundle, &[]);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

#[test]
fn bad_timers_and_outputs_fail_the_bundle() {
    let (build, pairs, _, transform) = with_timers(TimeDomain::EventTime);
    let (mut hand, bundle) = to_timers(build, pairs);
    hand.finish_with_timers(&bundle, transform, &[("t", vec![1, 2, 3])]);
    let bundle = hand.one();
    assert_eq!(bundle.attempt, 2);
    hand.finish_with_timers(&bundle, transform, &[("unknown", Vec::new())]);
    let bundle = hand.one();
    hand.finish(&bundle, &[(pairs, at(3, interval(0, 10), &kv("k", "v")))]);
    assert_eq!(hand.one().attempt, 4);
}

/// Restrictions are pairs here; the splittable stage emits what the test says.
fn reading(bounded: bool) -> (Build, u32, u32) {
    let mut build = Build::new(2);
    let impulse = build.impulse();
    let restrictions = build.user("Split", impulse, pair(), user());
    let out = build.user(
        "Read",
        restrictions,
        pair(),
        UserTransform {
            splittable: true,
            ..user()
        },
    );
    build.graph.collections[out as usize].bounded = bounded;
    let grouped_coder = Coder::kv(Coder::Utf8, Coder::iterable(Coder::Utf8));
    let grouped = build.native("Group", &[out], grouped_coder, TransformKind::GroupByKey);
    build.user("End", grouped, pair(), user());
    (build, restrictions, out)
}

fn residual(value: &[u8], delay_ms: i64) -> Residual {
    let element = at(start_of_time(), Window::Global, value).into();
    Residual {
        element,
        delay_ms,
        watermark: Some(Timestamp(50)),
    }
}

#[test]
fn residuals_are_resumed_after_their_delay() {
    let (build, restrictions, _) = reading(true);
    let mut hand = Hand::start(build.engine());
    let first = hand.one();
    hand.finish(
        &first,
        &[(
            restrictions,
            at(start_of_time(), Window::Global, &kv("file", "0")),
        )],
    );
    let bundle = hand.one();
    let result = BundleResult {
        residuals: vec![residual(&kv("file", "1"), 300)],
        ..BundleResult::default()
    };
    hand.tell(Event::BundleFinished {
        bundle: bundle.id,
        result,
    });
    assert!(
        matches!(hand.other.as_slice(), [Action::WakeAt(Timestamp(1_300))]),
        "{:?}",
        hand.other
    );
    hand.now = 1_300;
    hand.tell(Event::Tick);
    let bundle = hand.one();
    assert_eq!(
        elements(&bundle),
        at(start_of_time(), Window::Global, &kv("file", "1"))
    );
    hand.finish(&bundle, &[]);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

#[test]
fn stragglers_split_and_the_answer_may_come_after_the_end() {
    let (build, restrictions, _) = reading(true);
    let mut hand = Hand::start(build.engine());
    let first = hand.one();
    hand.finish(
        &first,
        &[(
            restrictions,
            at(start_of_time(), Window::Global, &kv("file", "0-9")),
        )],
    );
    let bundle = hand.one();
    let progress = |bundle| Event::BundleProgress {
        bundle,
        elements_done: 0,
        watermark: None,
    };
    hand.now += 900;
    hand.tell(progress(bundle.id));
    assert!(hand.other.is_empty(), "{:?}", hand.other);
    hand.now += 200;
    hand.tell(progress(bundle.id));
    assert!(matches!(
        hand.other.as_slice(),
        [Action::SplitBundle {
            estimated_input_elements: 1,
            ..
        }]
    ));
    hand.tell(Event::BundleFinished {
        bundle: bundle.id,
        result: BundleResult::default(),
    });
    assert_eq!(hand.finished(), None);
    let split = Split {
        first_residual: Some(1),
        last_primary: -1,
        primary_roots: vec![at(start_of_time(), Window::Global, &kv("file", "0-4")).into()],
        residuals: vec![residual(&kv("file", "5-9"), 0)],
    };
    hand.tell(Event::BundleSplit {
        bundle: bundle.id,
        split,
    });
    let rest = hand.one();
    assert_eq!(
        elements(&rest),
        at(start_of_time(), Window::Global, &kv("file", "5-9"))
    );
    hand.finish(&rest, &[]);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

#[test]
fn a_retry_after_a_split_runs_the_primary_only() {
    let (build, restrictions, _) = reading(true);
    let mut hand = Hand::start(build.engine());
    let first = hand.one();
    hand.finish(
        &first,
        &[(
            restrictions,
            at(start_of_time(), Window::Global, &kv("file", "0-9")),
        )],
    );
    let bundle = hand.one();
    hand.now += 2_000;
    hand.tell(Event::BundleProgress {
        bundle: bundle.id,
        elements_done: 0,
        watermark: None,
    });
    let primary = at(start_of_time(), Window::Global, &kv("file", "0-4"));
    let split = Split {
        first_residual: Some(1),
        last_primary: -1,
        primary_roots: vec![primary.clone().into()],
        residuals: vec![residual(&kv("file", "5-9"), 0)],
    };
    hand.tell(Event::BundleSplit {
        bundle: bundle.id,
        split,
    });
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
    let (build, restrictions, _) = reading(false);
    let mut hand = Hand::start(build.engine());
    let first = hand.one();
    hand.finish(
        &first,
        &[(
            restrictions,
            at(start_of_time(), Window::Global, &kv("topic", "0")),
        )],
    );
    let bundle = hand.one();
    hand.now += 2_000;
    hand.tell(Event::BundleProgress {
        bundle: bundle.id,
        elements_done: 0,
        watermark: None,
    });
    hand.tell(Event::BundleSplit {
        bundle: bundle.id,
        split: Split::default(),
    });
    let result = BundleResult {
        residuals: vec![residual(&kv("topic", "1"), 100)],
        ..BundleResult::default()
    };
    hand.tell(Event::BundleFinished {
        bundle: bundle.id,
        result,
    });
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
    let mut hand = Hand::start(Engine::new(build.graph, config).unwrap());
    let stage = |hand: &Hand, id: TransformId| {
        hand.engine
            .stages()
            .iter()
            .find(|stage| stage.transforms.contains(&id))
            .unwrap()
            .id
    };
    let first = hand.one();
    let restriction = at(start_of_time(), Window::Global, &kv("topic", "0"));
    hand.finish(&first, &[(restrictions, restriction)]);
    let running = hand.one();
    assert_eq!(running.stage, stage(&hand, read));
    hand.tell(Event::Drain);
    hand.now += 2_000;
    hand.tell(Event::BundleProgress {
        bundle: running.id,
        elements_done: 0,
        watermark: None,
    });
    assert!(
        hand.other
            .iter()
            .any(|action| matches!(action, Action::SplitBundle { fraction: 0.0, .. }))
    );
    let split = Split {
        first_residual: Some(1),
        last_primary: -1,
        primary_roots: vec![at(start_of_time(), Window::Global, &kv("topic", "0-5")).into()],
        residuals: vec![residual(&kv("topic", "5-"), 0)],
    };
    hand.tell(Event::BundleSplit {
        bundle: running.id,
        split,
    });
    hand.finish(&running, &[(out, at(7, Window::Global, &kv("topic", "x")))]);
    let truncating = hand.one();
    assert_eq!(truncating.stage, stage(&hand, truncate));
    assert_eq!(
        elements(&truncating),
        at(start_of_time(), Window::Global, &kv("topic", "5-"))
    );
    hand.finish(
        &truncating,
        &[(
            truncated,
            at(start_of_time(), Window::Global, &kv("topic", "5-6")),
        )],
    );
    let last = hand.one();
    assert_eq!(last.stage, stage(&hand, read));
    assert_eq!(
        elements(&last),
        at(start_of_time(), Window::Global, &kv("topic", "5-6"))
    );
    // What is left of a truncated restriction goes on as it is.
    let result = BundleResult {
        residuals: vec![residual(&kv("topic", "6-6"), 0)],
        ..BundleResult::default()
    };
    hand.tell(Event::BundleFinished {
        bundle: last.id,
        result,
    });
    let last = hand.one();
    assert_eq!(last.stage, stage(&hand, read));
    hand.finish(&last, &[]);
    let end = hand.one();
    hand.finish(&end, &[]);
    assert_eq!(hand.finished(), Some(Outcome::Drained));
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
fn test_streams_go_on_when_all_is_quiet_and_share_a_clock() {
    let mut build = Build::new(1);
    let element = |value: &str, at: i64| TestStreamEvent::Elements {
        output: 0,
        elements: vec![(utf8(value).into(), Timestamp(at))],
    };
    let advance = |to: i64| TestStreamEvent::Watermark {
        output: None,
        to: Timestamp(to),
    };
    let script = |events| {
        TransformKind::TestStream(TestStream {
            events,
            remote: false,
        })
    };
    let a = vec![
        element("a1", 1),
        TestStreamEvent::ProcessingTime(10),
        element("a2", 2),
        advance(20),
    ];
    let b = vec![
        element("b1", 1),
        TestStreamEvent::ProcessingTime(5),
        element("b2", 2),
    ];
    let a = build.native("A", &[], Coder::Utf8, script(a));
    let b = build.native("B", &[], Coder::Utf8, script(b));
    let flat = build.native("Flatten", &[a, b], Coder::Utf8, TransformKind::Flatten);
    build.user("See", flat, Coder::Utf8, user());
    let mut hand = Hand::start(build.engine());
    for expected in ["a1", "b1", "b2", "a2"] {
        let bundle = hand.one();
        let bytes = elements(&bundle);
        assert_eq!(&bytes[bytes.len() - 2..], expected.as_bytes());
        hand.finish(&bundle, &[]);
    }
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

#[test]
fn a_remote_test_stream_waits_for_its_events() {
    let mut build = Build::new(1);
    let kind = TransformKind::TestStream(TestStream {
        events: Vec::new(),
        remote: true,
    });
    let stream = build.native("Stream", &[], Coder::Utf8, kind);
    build.user("See", stream, Coder::Utf8, user());
    let mut hand = Hand::start(build.engine());
    assert!(hand.started.is_empty() && hand.other.is_empty());
    let transform = TransformId(0);
    let elements = vec![(utf8("x").into(), Timestamp(1))];
    let events = vec![TestStreamEvent::Elements { output: 0, elements }];
    hand.tell(Event::TestStreamEvents {
        transform,
        events,
        done: false,
    });
    let bundle = hand.one();
    hand.finish(&bundle, &[]);
    assert_eq!(hand.finished(), None);
    hand.tell(Event::TestStreamEvents {
        transform,
        events: Vec::new(),
        done: true,
    });
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

/// A main stream and a side stream, each scripted; the main one reads the side one.
fn side_inputs(main: Vec<TestStreamEvent>, side_events: Vec<TestStreamEvent>, trigger: Trigger) -> Build {
    let mut build = Build::new(1);
    let script = |events| {
        TransformKind::TestStream(TestStream {
            events,
            remote: false,
        })
    };
    let main = build.native("Main", &[], Coder::Utf8, script(main));
    let from = build.native("Side", &[], pair(), script(side_events));
    build.graph.collections[from as usize].windowing.trigger = trigger;
    let side_inputs = vec![side("s", from, SideInputAccess::Multimap)];
    build.user(
        "Join",
        main,
        Coder::Utf8,
        UserTransform {
            side_inputs,
            ..user()
        },
    );
    build
}

fn element(value: Vec<u8>, at: i64) -> TestStreamEvent {
    TestStreamEvent::Elements {
        output: 0,
        elements: vec![(value.into(), Timestamp(at))],
    }
}

#[test]
fn elements_wait_for_their_side_input() {
    let main = vec![element(utf8("x"), 1)];
    let side_events = vec![
        TestStreamEvent::ProcessingTime(100),
        element(kv("a", "1"), 1),
        element(kv("b", "2"), 1),
        element(kv("a", "3"), 1),
    ];
    let mut hand = Hand::start(side_inputs(main, side_events, Trigger::Default).engine());
    let bundle = hand.one();
    let key = |part| SideInputKey {
        transform: TransformId(2),
        side_input: "s".into(),
        window: Bytes::new(),
        part,
    };
    let read = |part| {
        hand.engine
            .side_input(bundle.id, &key(part))
            .map(|parts| parts.concat())
    };
    assert_eq!(
        read(SideInputPart::MultimapValues(utf8("a").into())).unwrap(),
        [utf8("1"), utf8("3")].concat()
    );
    assert_eq!(
        read(SideInputPart::MultimapValues(utf8("z").into())).unwrap(),
        b""
    );
    assert_eq!(
        read(SideInputPart::MultimapKeys).unwrap(),
        [utf8("a"), utf8("b")].concat()
    );
    let entries = [
        utf8("a"),
        vec![0, 0, 0, 2],
        utf8("1"),
        utf8("3"),
        utf8("b"),
        vec![0, 0, 0, 1],
        utf8("2"),
    ];
    assert_eq!(read(SideInputPart::MultimapEntries).unwrap(), entries.concat());
    assert!(read(SideInputPart::Iterable).is_err());
    assert_eq!(bundle.side_input_tokens.len(), 1);
    hand.finish(&bundle, &[]);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

#[test]
fn a_triggered_side_input_is_ready_when_it_has_something_and_its_token_follows() {
    let step = || TestStreamEvent::ProcessingTime(10);
    let main = vec![
        element(utf8("x"), 1),
        step(),
        step(),
        element(utf8("y"), 2),
        step(),
        step(),
        element(utf8("z"), 2),
    ];
    let side_events = vec![
        step(),
        element(kv("a", "1"), 1),
        step(),
        step(),
        element(kv("a", "2"), 1),
        step(),
        step(),
    ];
    let trigger = Trigger::Repeat(Box::new(Trigger::ElementCount(1)));
    let mut hand = Hand::start(side_inputs(main, side_events, trigger).engine());
    let mut tokens = Vec::new();
    for expected in ["x", "y", "z"] {
        let bundle = hand.one();
        assert!(elements(&bundle).ends_with(expected.as_bytes()));
        tokens.push(bundle.side_input_tokens[0].2);
        hand.finish(&bundle, &[]);
    }
    assert_eq!(tokens[0], tokens[1]);
    assert_ne!(tokens[1], tokens[2]);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

#[test]
fn custom_windows_are_mapped_by_the_sdk() {
    let mut build = Build::new(1);
    let events = vec![
        element(utf8("x"), 1),
        TestStreamEvent::Watermark {
            output: None,
            to: Timestamp(5),
        },
    ];
    let script = |events| {
        TransformKind::TestStream(TestStream {
            events,
            remote: false,
        })
    };
    let main = build.native("Main", &[], Coder::Utf8, script(events));
    let kind = TransformKind::TestStream(TestStream {
        events: Vec::new(),
        remote: true,
    });
    let from = build.native("Side", &[], Coder::Utf8, kind);
    let windowed = build.fixed(Coder::Utf8, 10);
    build.transform("Window", &[from], &[windowed], TransformKind::User(user()));
    let mut side = side("s", windowed, SideInputAccess::Iterable);
    side.mapping = WindowMapping::Sdk;
    build.user(
        "Join",
        main,
        Coder::Utf8,
        UserTransform {
            side_inputs: vec![side],
            ..user()
        },
    );
    let mut hand = Hand::start(build.engine());
    let request = match hand.other.as_slice() {
        [
            Action::MapWindows {
                request,
                windows,
                side_input: 0,
                ..
            },
        ] if *windows == [Window::Global] => *request,
        other => panic!("{other:?}"),
    };
    hand.tell(Event::WindowsMapped {
        request,
        windows: vec![interval(0, 10)],
    });
    assert!(hand.started.is_empty());
    let advance = TestStreamEvent::Watermark {
        output: None,
        to: Timestamp(10),
    };
    hand.tell(Event::TestStreamEvents {
        transform: TransformId(1),
        events: vec![advance],
        done: false,
    });
    let bundle = hand.one();
    hand.finish(&bundle, &[]);
    hand.tell(Event::TestStreamEvents {
        transform: TransformId(1),
        events: Vec::new(),
        done: true,
    });
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

#[test]
fn a_failed_question_fails_the_job() {
    let mut build = Build::new(1);
    let impulse = build.impulse();
    let side_source = build.impulse();
    let windowed = build.fixed(Coder::Utf8, 10);
    build.transform("Window", &[side_source], &[windowed], TransformKind::User(user()));
    let mut side = side("s", windowed, SideInputAccess::Iterable);
    side.mapping = WindowMapping::Sdk;
    build.user(
        "Join",
        impulse,
        Coder::Utf8,
        UserTransform {
            side_inputs: vec![side],
            ..user()
        },
    );
    let mut hand = Hand::start(build.engine());
    let Some(Action::MapWindows { request, .. }) = hand.other.pop() else {
        panic!("no question")
    };
    hand.tell(Event::RequestFailed {
        request,
        error: "TypeError: not a window".into(),
    });
    assert!(hand.error().contains("TypeError: not a window"));
    assert_eq!(hand.finished(), Some(Outcome::Failed));
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
fn state_is_collected_and_late_elements_are_dropped() {
    let mut build = Build::new(1);
    let events = vec![
        element(kv("k", "on time"), 1),
        TestStreamEvent::Watermark {
            output: None,
            to: Timestamp(5),
        },
        element(kv("k", "late, but its window is open"), 2),
        TestStreamEvent::Watermark {
            output: None,
            to: Timestamp(10),
        },
        element(kv("k", "too late"), 3),
    ];
    let kind = TransformKind::TestStream(TestStream {
        events,
        remote: false,
    });
    let stream = build.native("Stream", &[], pair(), kind);
    let windowed = build.fixed(pair(), 10);
    build.transform("Window", &[stream], &[windowed], TransformKind::User(user()));
    let stateful = UserTransform {
        stateful: true,
        timers: vec![TimerFamily {
            name: "expiry".into(),
            domain: TimeDomain::EventTime,
        }],
        on_window_expiration: Some("expiry".into()),
        ..user()
    };
    let transform = build.transform("State", &[windowed], &[], TransformKind::User(stateful));
    let mut hand = Hand::start(build.engine());
    let key = StateKey {
        transform,
        state: "s".into(),
        window: interval(0, 10).to_bytes(),
        key: utf8("k").into(),
        part: StatePart::Bag,
    };
    let step = |hand: &mut Hand, value: &str, timestamp: i64| {
        let bundle = hand.one();
        hand.finish(
            &bundle,
            &[(windowed, at(timestamp, interval(0, 10), &kv("k", value)))],
        );
    };
    for (value, timestamp) in [("on time", 1), ("late, but its window is open", 2)] {
        step(&mut hand, value, timestamp);
        let bundle = hand.one();
        assert!(elements(&bundle).ends_with(value.as_bytes()));
        hand.engine
            .state_append(bundle.id, key.clone(), Bytes::from_static(b"+"))
            .unwrap();
        hand.finish(&bundle, &[]);
    }
    // The window expires: it is told, with its state there, and then the state goes.
    let bundle = hand.one();
    assert_eq!(
        timers(&bundle),
        [(
            "expiry".to_string(),
            timer("k", interval(0, 10), "", Some((9, 9)))
        )]
    );
    assert_eq!(hand.engine.state_get(bundle.id, &key).unwrap().len(), 2);
    hand.finish(&bundle, &[]);
    // What comes now is dropped.
    step(&mut hand, "too late", 3);
    assert!(hand.started.is_empty());
    assert_eq!(hand.engine.dropped_elements(), 1);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

#[test]
fn custom_windows_are_merged_by_the_sdk() {
    let mut build = Build::new(1);
    let impulse = build.impulse();
    let custom = |build: &mut Build, coder| {
        let id = build.fixed(coder, 10);
        let windowing = &mut build.graph.collections[id as usize].windowing;
        windowing.window_fn = WindowFn::Custom { merging: true };
        windowing.environment = Some(EnvironmentId(0));
        id
    };
    let pairs = custom(&mut build, pair());
    build.transform("Pair", &[impulse], &[pairs], TransformKind::User(user()));
    let grouped = custom(&mut build, Coder::kv(Coder::Utf8, Coder::iterable(Coder::Utf8)));
    build.transform("Group", &[pairs], &[grouped], TransformKind::GroupByKey);
    build.user("End", grouped, Coder::Utf8, user());
    let mut hand = Hand::start(build.engine());
    let first = hand.one();
    let data = [
        at(1, interval(0, 5), &kv("k", "a")),
        at(7, interval(4, 9), &kv("k", "b")),
    ]
    .concat();
    hand.finish(&first, &[(pairs, data)]);
    let request = match hand.other.as_slice() {
        [
            Action::MergeWindows {
                request,
                environment: EnvironmentId(0),
                windows,
                ..
            },
        ] => {
            assert_eq!(*windows, [interval(0, 5), interval(4, 9)]);
            *request
        }
        other => panic!("{other:?}"),
    };
    let merged = vec![(interval(0, 9), vec![interval(0, 5), interval(4, 9)])];
    hand.tell(Event::WindowsMerged { request, merged });
    let bundle = hand.one();
    let grouped = [utf8("k"), vec![0, 0, 0, 2], utf8("a"), utf8("b")].concat();
    assert!(elements(&bundle).ends_with(&grouped), "{:?}", elements(&bundle));
    hand.finish(&bundle, &[]);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

#[test]
fn a_bounded_input_is_grouped_whole_even_if_its_trigger_fires_early() {
    let (mut build, pairs, _) = grouping();
    build.graph.environments[0].slots_per_worker = 2;
    let second = build.user(
        "More",
        0,
        pair(),
        UserTransform {
            requires_stable_input: true,
            ..user()
        },
    );
    let flat = build.native("Flatten", &[pairs, second], pair(), TransformKind::Flatten);
    build.graph.collections[flat as usize].windowing.trigger = Trigger::ElementCount(2);
    let grouped_coder = Coder::kv(Coder::Utf8, Coder::iterable(Coder::Utf8));
    let grouped = build.native("GroupFlat", &[flat], grouped_coder, TransformKind::GroupByKey);
    let end = build.transform("End", &[grouped], &[], TransformKind::User(user()));
    let mut hand = Hand::start(build.engine());
    let stage = |hand: &Hand, id| {
        hand.engine
            .stages()
            .iter()
            .find(|stage| stage.transforms.contains(&id))
            .unwrap()
            .id
    };
    let end = stage(&hand, end);
    let (a, b) = (hand.started.remove(0), hand.started.remove(0));
    let element = |value| at(1, Window::Global, &kv("k", value));
    for (bundle, values) in [(a, ["1", "2"]), (b, ["3", "4"])] {
        let stage = &hand.engine.stages()[bundle.stage.0 as usize];
        let output = stage.outputs[0].0;
        assert!(hand.started.iter().all(|bundle| bundle.stage != end));
        hand.finish(
            &bundle,
            &[(output, [element(values[0]), element(values[1])].concat())],
        );
    }
    let bundle = hand.started.iter().find(|bundle| bundle.stage == end).unwrap();
    let bytes = elements(bundle);
    assert!(bytes.windows(4).any(|bytes| bytes == [0, 0, 0, 4]), "{bytes:?}");
}

#[test]
fn a_pane_bears_the_earliest_timestamp_that_was_not_late_in_whatever_order_elements_come() {
    for order in [[2, 3, 7, 8], [8, 7, 3, 2], [3, 8, 2, 7]] {
        let mut build = Build::new(1);
        let mut events = vec![TestStreamEvent::Watermark {
            output: None,
            to: Timestamp(5),
        }];
        events.extend(order.map(|at| element(kv("k", &at.to_string()), at)));
        events.push(TestStreamEvent::Watermark {
            output: None,
            to: Timestamp(11),
        });
        let kind = TransformKind::TestStream(TestStream {
            events,
            remote: false,
        });
        let stream = build.native("Stream", &[], pair(), kind);
        let windowed = build.fixed(pair(), 10);
        let earliest = TimestampCombiner::Earliest;
        build.graph.collections[windowed as usize]
            .windowing
            .timestamp_combiner = earliest;
        build.transform("Window", &[stream], &[windowed], TransformKind::User(user()));
        let grouped = build.fixed(Coder::kv(Coder::Utf8, Coder::iterable(Coder::Utf8)), 10);
        build.transform("Group", &[windowed], &[grouped], TransformKind::GroupByKey);
        build.transform("End", &[grouped], &[], TransformKind::User(user()));
        let mut hand = Hand::start(build.engine());
        for timestamp in order {
            let bundle = hand.one();
            let value = kv("k", &timestamp.to_string());
            hand.finish(&bundle, &[(windowed, at(timestamp, interval(0, 10), &value))]);
        }
        let bundle = hand.one();
        assert_eq!(elements(&bundle)[..8], Timestamp(7).to_bytes(), "{order:?}");
    }
}
