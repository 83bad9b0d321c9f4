//! TestStreams.

use purlin_engine::*;
use purlin_model::{Coder, Timestamp, Window, wire};

use crate::common::*;

#[test]
fn test_streams_go_on_when_all_is_quiet_and_share_a_clock() {
    let mut build = Build::new(1);
    let element = |value: &str, at: i64| element(utf8(value), at);
    let a = vec![
        element("a1", 1),
        TestStreamEvent::ProcessingTime(10),
        element("a2", 2),
        watermark(20),
    ];
    let b = vec![
        element("b1", 1),
        TestStreamEvent::ProcessingTime(5),
        element("b2", 2),
    ];
    let a = build.native("A", &[], Coder::Utf8, scripted(a));
    let b = build.native("B", &[], Coder::Utf8, scripted(b));
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
    let stream = build.native("Stream", &[], Coder::Utf8, told());
    build.user("See", stream, Coder::Utf8, user());
    let mut hand = Hand::start(build.engine());
    assert!(hand.started.is_empty() && hand.other.is_empty());
    let transform = TransformId(0);
    hand.tell(Event::TestStreamEvents {
        transform,
        events: vec![element(utf8("x"), 1)],
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

fn together(elements: &[(&str, &str, i64)]) -> TestStreamEvent {
    TestStreamEvent::Elements {
        output: 0,
        elements: elements
            .iter()
            .map(|(key, value, at)| (kv(key, value).into(), Timestamp(*at)))
            .collect(),
    }
}

#[test]
fn what_comes_together_is_one_bundle_but_late_and_timely_elements_are_two() {
    // Without state, and with it, where elements of a key are kept together.
    for stateful in [false, true] {
        let mut build = Build::new(3);
        let events = vec![
            together(&[("k", "a", 1), ("l", "b", 2), ("k", "c", 3)]),
            watermark(10),
            together(&[("k", "d", 4), ("k", "e", 11), ("k", "f", 5)]),
        ];
        let stream = build.script(pair(), events);
        let see = UserTransform { stateful, ..user() };
        build.user("See", stream, pair(), see);
        let mut hand = Hand::start(build.engine());
        for expected in [3, 2, 1] {
            let bundle = hand.one();
            assert_eq!(bundle.elements, expected);
            hand.finish(&bundle, &[]);
        }
        assert_eq!(hand.finished(), Some(Outcome::Done));
    }
}

#[test]
fn a_trigger_that_counts_is_asked_after_each_element_of_an_event() {
    let count = |n| Trigger::ElementCount(n);
    let repeat = |trigger| Trigger::Repeat(Box::new(trigger));
    let late = Trigger::AfterEndOfWindow {
        early: Some(Box::new(count(2))),
        late: Some(Box::new(count(1))),
    };
    // What comes together fires by these counts of values.
    for (trigger, expected) in [
        (repeat(count(2)), vec![2, 2, 1]),
        (repeat(Trigger::Always), vec![1; 5]),
        (
            repeat(Trigger::AfterEach(vec![count(3), Trigger::Always])),
            vec![3, 1, 1],
        ),
        (late, vec![2, 2, 1]),
        // These look at clocks alone: once for all that has come.
        (Trigger::Default, vec![5]),
        (repeat(Trigger::AfterProcessingTime(Vec::new())), vec![5]),
    ] {
        let mut build = Build::new(1);
        let five = together(&["a", "b", "c", "d", "e"].map(|value| ("k", value, 1)));
        let stream = build.script(pair(), vec![five]);
        build.graph.collections[CollectionId(stream)].windowing.trigger = trigger.clone();
        let grouped = build.native("Group", &[stream], group(), TransformKind::GroupByKey);
        build.user("See", grouped, group(), user());
        let format = CollectionFormat::from(&build.graph.collections[CollectionId(grouped)]);
        let mut hand = Hand::start(build.engine());
        let mut told = Vec::new();
        while hand.finished().is_none() {
            let bundle = hand.one();
            let data = elements(&bundle);
            for element in format.walk(&data) {
                let element = element.expect("what the engine wrote");
                let (_, mut values) = format.coder.split_kv(&data[element.value()]).expect("a pair");
                told.push(wire::read_i32_be(&mut values, "a count").expect("values"));
            }
            hand.finish(&bundle, &[]);
        }
        assert_eq!(told, expected, "{trigger:?}");
    }
}

#[test]
fn what_comes_together_late_fires_together() {
    let mut build = Build::new(1);
    let events = vec![watermark(20), together(&["a", "b"].map(|value| ("k", value, 1)))];
    let stream = build.script(pair(), events);
    let windowed = build.by_tens(stream);
    let windowing = &mut build.graph.collections[CollectionId(windowed)].windowing;
    windowing.allowed_lateness_ms = 1_000;
    windowing.trigger = Trigger::AfterEndOfWindow {
        early: None,
        late: Some(Box::new(Trigger::ElementCount(1))),
    };
    let grouped = build.native("Group", &[windowed], group(), TransformKind::GroupByKey);
    build.user("See", grouped, group(), user());
    let mut hand = Hand::start(build.engine());
    let bundle = hand.one();
    let data = ["a", "b"]
        .map(|value| at(1, interval(0, 10), &kv("k", value)))
        .concat();
    hand.finish(&bundle, &[(windowed, data)]);
    let bundle = hand.one();
    assert_eq!(bundle.elements, 1, "one pane has both");
    hand.finish(&bundle, &[]);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

#[test]
fn timers_by_the_clock_of_sdks_are_due_by_that_of_the_stream() {
    let mut build = Build::new(1);
    let clock = TestStreamEvent::ProcessingTime;
    let events = vec![
        clock(100_000),
        together(&[("k", "a", 1)]),
        clock(59_000),
        together(&[("k", "b", 1)]),
        clock(1_000),
        together(&[("k", "c", 1)]),
    ];
    let stream = build.script(pair(), events);
    let kind = TransformKind::User(stateful(&[("t", TimeDomain::ProcessingTime)]));
    let transform = build.transform("Timers", &[stream], &[], kind);
    let mut hand = Hand::start(build.engine());
    let bundle = hand.one();
    assert!(elements(&bundle).ends_with(b"a"));
    // A minute from now, as the SDK's clock has it: it knows nothing of the stream's.
    hand.now += 7;
    let set = timer("k", Window::Global, "", Some((hand.now + 60_000, 1)));
    hand.finish_with_timers(&bundle, transform, &[("t", set)]);
    let bundle = hand.one();
    assert!(elements(&bundle).ends_with(b"b") && timers(&bundle).is_empty());
    hand.finish(&bundle, &[]);
    hand.now += 3;
    // It fires at its time, and is told by the SDK's clock: now.
    let bundle = hand.one();
    let told = timer("k", Window::Global, "", Some((hand.now - 3, 1)));
    assert_eq!(timers(&bundle), [("t".to_string(), told)]);
    hand.finish(&bundle, &[]);
    let bundle = hand.one();
    assert!(elements(&bundle).ends_with(b"c"));
    hand.finish(&bundle, &[]);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}
