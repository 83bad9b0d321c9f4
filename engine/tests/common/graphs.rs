//! Graphs that several tests start from, and their elements.

use bytes::Bytes;
use purlin_engine::*;
use purlin_model::{Coder, Timestamp, Window};

use super::*;

const FOREVER: i64 = i64::MIN / 1_000 - 1;

pub fn start_of_time() -> i64 {
    Timestamp::MIN.0.max(FOREVER)
}

/// Impulse, a stage that makes pairs, a GroupByKey, a stage that reads it.
pub fn grouping() -> (Build, u32, u32) {
    let mut build = Build::new(1);
    let impulse = build.impulse();
    let pairs = build.user("Pair", impulse, pair(), user());
    let grouped = build.native("Group", &[pairs], group(), TransformKind::GroupByKey);
    let out = build.user("Join", grouped, Coder::Utf8, user());
    build.sink(out, Coder::Utf8);
    (build, pairs, out)
}

/// A stage with timers, after pairs in fixed windows of 10 ms.
pub fn with_timers(domain: TimeDomain) -> (Build, u32, u32, TransformId) {
    let mut build = Build::new(1);
    let impulse = build.impulse();
    let pairs = build.fixed(pair(), 10);
    build.transform("Pair", &[impulse], &[pairs], TransformKind::User(user()));
    let out = build.fixed(pair(), 10);
    let kind = TransformKind::User(stateful(&[("t", domain)]));
    let transform = build.transform("Timers", &[pairs], &[out], kind);
    build.sink(out, pair());
    (build, pairs, out, transform)
}

pub fn to_timers(build: Build, pairs: u32) -> (Hand, Bundle) {
    let mut hand = Hand::start(build.engine());
    let first = hand.one();
    hand.finish(&first, &[(pairs, at(3, interval(0, 10), &kv("k", "v")))]);
    let bundle = hand.one();
    (hand, bundle)
}

/// Restrictions are pairs here; the splittable stage emits what the test says.
pub fn reading(bounded: bool) -> (Build, u32, u32) {
    let mut build = Build::new(2);
    let impulse = build.impulse();
    let restrictions = build.user("Split", impulse, pair(), user());
    let out = build.user("Read", restrictions, pair(), splittable());
    build.graph.collections[CollectionId(out)].bounded = bounded;
    let grouped = build.native("Group", &[out], group(), TransformKind::GroupByKey);
    build.user("End", grouped, pair(), user());
    (build, restrictions, out)
}

pub fn restriction(key: &str, value: &str) -> Vec<u8> {
    at(start_of_time(), Window::Global, &kv(key, value))
}

/// [`reading`], with the bundle that has come to this restriction.
pub fn to_restriction(bounded: bool, key: &str, value: &str) -> (Hand, Bundle) {
    let (build, restrictions, _) = reading(bounded);
    let mut hand = Hand::start(build.engine());
    let first = hand.one();
    hand.finish(&first, &[(restrictions, restriction(key, value))]);
    let bundle = hand.one();
    (hand, bundle)
}

pub fn residual(key: &str, value: &str, delay_ms: i64) -> Residual {
    Residual {
        element: restriction(key, value).into(),
        delay_ms,
        watermark: Some(Timestamp(50)),
    }
}

/// A split within the one element of a bundle.
pub fn split(primary: Vec<u8>, residual: Residual) -> Split {
    Split {
        first_residual: Some(1),
        last_primary: -1,
        primary_roots: vec![primary.into()],
        residuals: vec![residual],
    }
}

/// A main stream and a side stream, each scripted; the main one reads the side one.
pub fn side_inputs(main: Vec<TestStreamEvent>, side_events: Vec<TestStreamEvent>, trigger: Trigger) -> Build {
    let mut build = Build::new(1);
    let main = build.native("Main", &[], Coder::Utf8, scripted(main));
    let from = build.native("Side", &[], pair(), scripted(side_events));
    build.graph.collections[CollectionId(from)].windowing.trigger = trigger;
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

pub fn element(value: Vec<u8>, at: i64) -> TestStreamEvent {
    TestStreamEvent::Elements {
        output: 0,
        elements: vec![(value.into(), Timestamp(at))],
    }
}

pub fn scripted(events: Vec<TestStreamEvent>) -> TransformKind {
    TransformKind::TestStream(TestStream {
        events,
        remote: false,
    })
}

/// A TestStream whose events the test tells.
pub fn told() -> TransformKind {
    TransformKind::TestStream(TestStream {
        events: Vec::new(),
        remote: true,
    })
}

pub fn watermark(to: i64) -> TestStreamEvent {
    TestStreamEvent::Watermark {
        output: None,
        to: Timestamp(to),
    }
}

/// Groups a collection in fixed windows of 10 ms, and hands the groups to a stage that is the last.
pub fn grouped_by_tens(build: &mut Build, input: u32) -> TransformId {
    let grouped = build.fixed(group(), 10);
    build.transform("Group", &[input], &[grouped], TransformKind::GroupByKey);
    build.transform("End", &[grouped], &[], TransformKind::User(user()))
}

/// The bag "s" of a key in a window.
pub fn bag(transform: TransformId, window: Bytes, key: &str) -> StateKey {
    StateKey {
        transform,
        state: "s".into(),
        window,
        key: utf8(key).into(),
        part: StatePart::Bag,
    }
}

/// The stage that executes a transform.
pub fn stage_of(engine: &Engine, id: TransformId) -> StageId {
    let stage = engine
        .stages()
        .iter()
        .find(|stage| stage.transforms.contains(&id));
    stage.unwrap().id
}
