//! TestStreams.

use purlin_coders::{Coder, Timestamp};
use purlin_engine::*;

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

#[test]
fn a_bundle_of_a_test_stream_has_one_element() {
    // Without state, and with it, where elements of a key are kept together.
    for stateful in [false, true] {
        let mut build = Build::new(1);
        let elements = (0..3).map(|i| (kv("k", &i.to_string()).into(), Timestamp(1)));
        let events = vec![TestStreamEvent::Elements {
            output: 0,
            elements: elements.collect(),
        }];
        let stream = build.script(pair(), events);
        let see = UserTransform { stateful, ..user() };
        build.user("See", stream, pair(), see);
        let mut hand = Hand::start(build.engine());
        for _ in 0..3 {
            let bundle = hand.one();
            assert_eq!(bundle.elements, 1);
            hand.finish(&bundle, &[]);
        }
        assert_eq!(hand.finished(), Some(Outcome::Done));
    }
}
