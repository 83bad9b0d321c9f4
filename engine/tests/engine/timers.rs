//! State, timers, and the expiration of windows.

use bytes::Bytes;
use purlin_engine::*;
use purlin_model::{Coder, Timestamp, Window};

use crate::common::{self, *};

#[test]
fn timers_overwrite_and_clear_and_fire_in_order() {
    let (build, pairs, _, transform) = with_timers(TimeDomain::EventTime);
    let (mut hand, bundle) = to_timers(build, pairs);
    let window = || interval(0, 10);
    let other = timer("k", window(), "other", Some((6, 6)));
    let again = timer("k", window(), "", Some((8, 8)));
    let late = timer("k", window(), "late", Some((2, 2)));
    let set = [
        timer("k", window(), "", Some((4, 4))),
        again.clone(),
        timer("k", window(), "cleared", Some((5, 5))),
        timer("k", window(), "cleared", None),
        other.clone(),
    ];
    hand.finish_with_timers(&bundle, transform, &[("t", set.concat())]);
    let bundle = hand.one();
    assert_eq!(bundle.elements, 0);
    let both = [other.clone(), again.clone()].concat();
    assert_eq!(timers(&bundle), [("t".to_string(), both)]);
    // It sets one that is to fire between the two: they cannot go together.
    hand.finish_with_timers(&bundle, transform, &[("t", late.clone())]);
    assert!(matches!(hand.other.last(), Some(Action::Undone(id)) if *id == bundle.id));
    let bundle = hand.one();
    assert_eq!(
        (timers(&bundle), bundle.attempt),
        (vec![("t".to_string(), other)], 1)
    );
    // A timer that is set for a time already passed fires next.
    hand.finish_with_timers(&bundle, transform, &[("t", late.clone())]);
    let bundle = hand.one();
    assert_eq!(timers(&bundle)[0].1, late);
    // A failure fires it again.
    hand.fail(&bundle, "no");
    let bundle = hand.one();
    assert_eq!(timers(&bundle)[0].1, late);
    hand.finish(&bundle, &[]);
    let bundle = hand.one();
    assert_eq!(timers(&bundle)[0].1, again);
    assert_eq!(hand.finished(), None);
    hand.finish(&bundle, &[]);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

#[test]
fn timers_of_several_timestamps_and_families_go_together_in_order() {
    let mut build = Build::new(1);
    let impulse = build.impulse();
    let pairs = build.user("Pair", impulse, pair(), user());
    let kind = TransformKind::User(stateful(&[
        ("a", TimeDomain::EventTime),
        ("b", TimeDomain::EventTime),
    ]));
    let out = build.collection(pair());
    let transform = build.transform("Timers", &[pairs], &[out], kind);
    build.sink(out, pair());
    let mut hand = Hand::start(build.engine());
    let first = hand.one();
    hand.finish(&first, &[(pairs, at(3, Window::Global, &kv("k", "v")))]);
    let bundle = hand.one();
    let set = |tag: &str, at: i64| timer("k", Window::Global, tag, Some((at, at)));
    let of_a = [set("1", 10), set("2", 30)].concat();
    let of_b = [set("1", 20), set("2", 40)].concat();
    hand.finish_with_timers(&bundle, transform, &[("a", of_a), ("b", of_b)]);
    let bundle = hand.one();
    let fired = |family: &str, tag: &str, at: i64| (family.to_string(), set(tag, at));
    let all = [
        fired("a", "1", 10),
        fired("b", "1", 20),
        fired("a", "2", 30),
        fired("b", "2", 40),
    ];
    assert_eq!(timers(&bundle), all);
    // One that is set for later than all of them is no reason to do it again.
    hand.finish_with_timers(&bundle, transform, &[("a", set("3", 50))]);
    let bundle = hand.one();
    assert_eq!(timers(&bundle), [fired("a", "3", 50)]);
    hand.finish(&bundle, &[]);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

#[test]
fn a_timer_that_another_one_cleared_does_not_fire() {
    let (build, pairs, _, transform) = with_timers(TimeDomain::EventTime);
    let mut hand = Hand::start(build.engine());
    let first = hand.one();
    hand.finish(&first, &[(pairs, at(3, interval(0, 10), &kv("k", "v")))]);
    let bundle = hand.one();
    let window = || interval(0, 10);
    let of_k = |tag: &str, at: i64| timer("k", window(), tag, Some((at, at)));
    let of_z = timer("z", window(), "", Some((7, 7)));
    hand.finish_with_timers(
        &bundle,
        transform,
        &[("t", [of_k("1", 4), of_k("2", 5), of_z.clone()].concat())],
    );
    let bundle = hand.one();
    assert_eq!(timers(&bundle)[0].1, [of_k("1", 4), of_k("2", 5)].concat());
    // The first timer of "k" clears the second, which has fired in vain; "z" has a bundle of its own, after this one.
    let clear = timer("k", window(), "2", None);
    hand.finish_with_timers(&bundle, transform, &[("t", clear.clone())]);
    let bundle = hand.one();
    assert_eq!(timers(&bundle)[0].1, [of_z, of_k("1", 4)].concat());
    hand.finish_with_timers(&bundle, transform, &[("t", clear)]);
    assert!(hand.started.is_empty());
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

/// A stage whose timer holds the watermark, and one that follows it and has set a timer; the bundle that fires the first.
fn two_stages_of_timers() -> (Hand, Bundle, u32, StageId) {
    let mut build = Build::new(1);
    let impulse = build.impulse();
    let pairs = build.user("Pair", impulse, pair(), user());
    let (middle, out) = (build.collection(pair()), build.collection(pair()));
    let kind = || TransformKind::User(stateful(&[("t", TimeDomain::EventTime)]));
    let first = build.transform("First", &[pairs], &[middle], kind());
    let second = build.transform("Second", &[middle], &[out], kind());
    build.sink(out, pair());
    let mut hand = Hand::start(build.engine());
    let follower = stage_of(&hand.engine, second);
    let pair = hand.one();
    hand.finish(&pair, &[(pairs, at(3, Window::Global, &kv("k", "v")))]);
    let bundle = hand.one();
    let result = BundleResult {
        outputs: hand.outputs(&[(middle, at(3, Window::Global, &kv("k", "early")))]),
        timers: vec![(
            first,
            "t".into(),
            timer("k", Window::Global, "", Some((100, 3))).into(),
        )],
        ..BundleResult::default()
    };
    hand.end(&bundle, result);
    let bundle = hand.one();
    assert_eq!(bundle.stage, follower);
    let set = [50, 55].map(|at| timer("k", Window::Global, &format!("{at}"), Some((at, at))));
    hand.finish_with_timers(&bundle, second, &[("t", set.concat())]);
    let fires = hand.one();
    assert_eq!(timers(&fires).len(), 1);
    (hand, fires, middle, follower)
}

#[test]
fn a_timer_does_not_overtake_elements_that_came_before_the_watermark_moved() {
    let (mut hand, fires, middle, follower) = two_stages_of_timers();
    // One commit makes an element and lets the watermark go, past the timers of the stage that follows.
    hand.finish(&fires, &[(middle, at(60, Window::Global, &kv("k", "late")))]);
    let bundle = hand.one();
    assert_eq!(bundle.stage, follower);
    assert!(timers(&bundle).is_empty());
    assert!(elements(&bundle).ends_with(b"late"));
    hand.finish(&bundle, &[]);
    let bundle = hand.one();
    assert_eq!(bundle.elements, 0);
    let set = [50, 55].map(|at| timer("k", Window::Global, &format!("{at}"), Some((at, at))));
    assert_eq!(timers(&bundle), [("t".to_string(), set.concat())]);
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

#[test]
fn state_is_collected_and_late_elements_are_dropped() {
    let mut build = Build::new(1);
    let events = vec![
        element(kv("k", "on time"), 1),
        watermark(5),
        element(kv("k", "late, but its window is open"), 2),
        watermark(10),
        element(kv("k", "too late"), 3),
    ];
    let stream = build.script(pair(), events);
    let windowed = build.by_tens(stream);
    let state = UserTransform {
        on_window_expiration: Some("expiry".into()),
        ..stateful(&[("expiry", TimeDomain::EventTime)])
    };
    let transform = build.transform("State", &[windowed], &[], TransformKind::User(state));
    let mut hand = Hand::start(build.engine());
    let key = bag(transform, interval(0, 10).to_bytes(), "k");
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
fn an_event_time_timer_fires_once_the_watermark_is_beyond_it() {
    let mut build = Build::new(1);
    let events = vec![
        element(kv("k", "sets it"), 1),
        watermark(5),
        element(kv("k", "at its timestamp"), 5),
        watermark(6),
    ];
    let stream = build.script(pair(), events);
    let user = stateful(&[("t", TimeDomain::EventTime)]);
    let transform = build.transform("Timers", &[stream], &[], TransformKind::User(user));
    let mut hand = Hand::start(build.engine());
    let first = hand.one();
    let set = timer("k", Window::Global, "", Some((5, 5)));
    hand.finish_with_timers(&first, transform, &[("t", set.clone())]);
    let second = hand.one();
    assert!(elements(&second).ends_with(b"at its timestamp"));
    assert!(common::timers(&second).is_empty());
    hand.finish(&second, &[]);
    let third = hand.one();
    assert_eq!(common::timers(&third), [("t".to_string(), set)]);
    hand.finish(&third, &[]);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

#[test]
fn a_timer_holds_the_watermark_until_it_is_cleared() {
    for cleared in [false, true] {
        let mut build = Build::new(1);
        let events = vec![
            element(kv("k", "1"), 1),
            watermark(30),
            element(kv("k", "2"), 31),
            TestStreamEvent::ProcessingTime(100),
            watermark(40),
            element(kv("z", "3"), 41),
            TestStreamEvent::ProcessingTime(10_000),
        ];
        let stream = build.script(pair(), events);
        let windowed = build.by_tens(stream);
        let out = build.fixed(pair(), 10);
        let user = stateful(&[("t", TimeDomain::ProcessingTime)]);
        let transform = build.transform("Timers", &[windowed], &[out], TransformKind::User(user));
        let end = grouped_by_tens(&mut build, out);
        let mut hand = Hand::start(build.engine());
        let end = stage_of(&hand.engine, end);
        let window = interval(0, 10);
        let step = |hand: &mut Hand, value: &str, at: i64, window: Window| {
            let bundle = hand.one();
            hand.finish(&bundle, &[(windowed, common::at(at, window, &kv("k", value)))]);
            hand.one()
        };
        let bundle = step(&mut hand, "1", 1, window.clone());
        let result = BundleResult {
            outputs: hand.outputs(&[(out, at(1, window.clone(), &kv("k", "1")))]),
            timers: vec![(
                transform,
                "t".into(),
                timer("k", window.clone(), "", Some((5_000, 1))).into(),
            )],
            ..BundleResult::default()
        };
        hand.end(&bundle, result);
        let bundle = step(&mut hand, "2", 31, interval(30, 40));
        assert_ne!(
            bundle.stage, end,
            "the window was told before its timer let it go"
        );
        let timers = cleared.then(|| ("t", timer("k", window, "", None)));
        hand.finish_with_timers(&bundle, transform, timers.as_slice());
        let next = hand.one();
        assert_eq!(next.stage == end, cleared);
    }
}

#[test]
fn state_lives_as_long_as_late_elements_are_taken() {
    let mut build = Build::new(1);
    let events = vec![
        element(kv("k", "on time"), 1),
        watermark(15),
        element(kv("k", "late"), 2),
        watermark(20),
        element(kv("k", "too late"), 3),
    ];
    let stream = build.script(pair(), events);
    let windowed = build.by_tens(stream);
    build.graph.collections[CollectionId(windowed)]
        .windowing
        .allowed_lateness_ms = 10;
    let transform = build.transform("State", &[windowed], &[], TransformKind::User(stateful(&[])));
    let mut hand = Hand::start(build.engine());
    let key = bag(transform, interval(0, 10).to_bytes(), "k");
    for (value, before) in [("on time", 0), ("late", 1)] {
        let bundle = hand.one();
        hand.finish(&bundle, &[(windowed, at(1, interval(0, 10), &kv("k", value)))]);
        let bundle = hand.one();
        assert!(elements(&bundle).ends_with(value.as_bytes()));
        assert_eq!(hand.engine.state_get(bundle.id, &key).unwrap().len(), before);
        let data = Bytes::from_static(b"+");
        hand.engine.state_append(bundle.id, key.clone(), data).unwrap();
        hand.finish(&bundle, &[]);
    }
    let bundle = hand.one();
    hand.finish(
        &bundle,
        &[(windowed, at(3, interval(0, 10), &kv("k", "too late")))],
    );
    assert!(hand.started.is_empty());
    assert_eq!(hand.engine.dropped_elements(), 1);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

/// A stage with timers in the global window, whose output is grouped.
pub fn grouped_timers(domain: TimeDomain) -> (Hand, Bundle, TransformId, u32, StageId) {
    let mut build = Build::new(1);
    let impulse = build.impulse();
    let pairs = build.user("Pair", impulse, pair(), user());
    let out = build.collection(pair());
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
    let grouped = Coder::kv(Coder::Utf8, Coder::iterable(Coder::Utf8));
    let grouped = build.native("Group", &[out], grouped, TransformKind::GroupByKey);
    let end = build.transform("End", &[grouped], &[], TransformKind::User(user()));
    let mut hand = Hand::start(build.engine());
    let first = hand.one();
    hand.finish(&first, &[(pairs, at(3, Window::Global, &kv("k", "v")))]);
    let bundle = hand.one();
    let end = stage_of(&hand.engine, end);
    (hand, bundle, transform, out, end)
}

#[test]
fn a_timer_without_output_timestamp_is_waited_for_downstream() {
    const NEVER: i64 = Timestamp::MAX.0;
    for domain in [TimeDomain::EventTime, TimeDomain::ProcessingTime] {
        let (mut hand, bundle, transform, out, end) = grouped_timers(domain);
        let set = [
            timer("k", Window::Global, "", Some((1_500, NEVER))),
            timer("k", Window::Global, "cleared", Some((1_700, NEVER))),
            timer("k", Window::Global, "cleared", None),
        ];
        hand.finish_with_timers(&bundle, transform, &[("t", set.concat())]);
        hand.now = 1_500;
        hand.tell(Event::Tick);
        let fired = hand.one();
        assert_eq!(
            timers(&fired)[0].1,
            timer("k", Window::Global, "", Some((1_500, NEVER)))
        );
        // Its group is told only with what the timer makes, also where that is made by a second attempt.
        hand.fail(&fired, "no");
        let fired = hand.one();
        hand.finish(&fired, &[(out, at(1_500, Window::Global, &kv("k", "late")))]);
        let group = hand.one();
        assert_eq!(group.stage, end);
        assert!(elements(&group).ends_with(b"late"));
        hand.finish(&group, &[]);
        assert_eq!(hand.engine.dropped_elements(), 0);
        assert_eq!(hand.finished(), Some(Outcome::Done));
    }
}

#[test]
fn a_drain_fires_processing_time_timers_at_once_and_each_once() {
    let (mut hand, bundle, transform, out, end) = grouped_timers(TimeDomain::ProcessingTime);
    let window = Window::Global;
    let set = |tag: &str, at: i64| timer("k", window.clone(), tag, Some((at, 3)));
    hand.finish_with_timers(&bundle, transform, &[("t", set("loop", 50_000))]);
    assert!(hand.started.is_empty());
    hand.tell(Event::Drain);
    let bundle = hand.one();
    assert_eq!(timers(&bundle)[0].1, set("loop", 50_000));
    // It sets itself again, and another one, which is not lost, and which sets both again.
    hand.finish_with_timers(
        &bundle,
        transform,
        &[("t", [set("loop", 60_000), set("other", 90_000)].concat())],
    );
    let bundle = hand.one();
    assert_eq!(timers(&bundle)[0].1, set("other", 90_000));
    let result = BundleResult {
        outputs: hand.outputs(&[(out, at(3, window.clone(), &kv("k", "made")))]),
        timers: vec![(
            transform,
            "t".into(),
            [set("loop", 60_000), set("other", 95_000)].concat().into(),
        )],
        ..BundleResult::default()
    };
    hand.tell(Event::BundleFinished {
        bundle: bundle.id,
        result,
    });
    let group = hand.one();
    assert_eq!(group.stage, end);
    assert!(elements(&group).ends_with(b"made"));
    hand.finish(&group, &[]);
    assert_eq!(hand.finished(), Some(Outcome::Drained));
}

#[test]
fn a_drain_lets_the_timers_of_what_is_not_read_yet_be_set() {
    let mut build = Build::new(1);
    let impulse = build.impulse();
    let pairs = build.user("Pair", impulse, pair(), user());
    let timers = vec![TimerFamily {
        name: "t".into(),
        domain: TimeDomain::ProcessingTime,
    }];
    let user = UserTransform {
        stateful: true,
        timers,
        ..user()
    };
    let transform = build.transform("Timers", &[pairs], &[], TransformKind::User(user));
    let mut hand = Hand::start(build.engine());
    let first = hand.one();
    hand.tell(Event::Drain);
    hand.finish(&first, &[(pairs, at(3, Window::Global, &kv("k", "v")))]);
    let bundle = hand.one();
    let set = timer("k", Window::Global, "", Some((50_000, 3)));
    hand.finish_with_timers(&bundle, transform, &[("t", set.clone())]);
    let bundle = hand.one();
    assert_eq!(common::timers(&bundle), [("t".to_string(), set.clone())]);
    hand.finish_with_timers(&bundle, transform, &[("t", set)]);
    assert_eq!(hand.finished(), Some(Outcome::Drained));
}
