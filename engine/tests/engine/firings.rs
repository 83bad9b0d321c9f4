//! Side inputs whose windows fire several times, or late.

use bytes::Bytes;
use purlin_engine::*;
use purlin_model::windowed::encode_header;
use purlin_model::{Coder, PaneInfo, Timestamp, Timing, Window};

use crate::common::*;

const STREAM: TransformId = TransformId(0);
const MAIN: usize = 0;
const SIDE: usize = 1;

/// Reads, of one scripted stream, the first output with what a stage makes of the grouped second one as its side input.
struct Joined {
    hand: Hand,
    join: TransformId,
    made: u32,
}

fn add(output: usize, value: Vec<u8>, at: i64) -> TestStreamEvent {
    TestStreamEvent::Elements {
        output,
        elements: vec![(value.into(), Timestamp(at))],
    }
}

impl Joined {
    /// `key`: the coder of the grouping's keys.
    fn new(key: Coder, access: SideInputAccess, windowing: impl Fn(&mut Windowing)) -> Joined {
        let mut build = Build::new(1);
        let main = build.collection(Coder::Utf8);
        let from = build.collection(Coder::kv(key.clone(), Coder::Utf8));
        build.transform("Stream", &[], &[main, from], told());
        let grouped = Coder::kv(key, Coder::iterable(Coder::Utf8));
        let grouped = build.native("Group", &[from], grouped, TransformKind::GroupByKey);
        let coder = match access {
            SideInputAccess::Iterable => Coder::Utf8,
            SideInputAccess::Multimap => pair(),
        };
        let made = build.user("Make", grouped, coder, user());
        for id in [from, grouped, made] {
            let collection = &mut build.graph.collections[CollectionId(id)];
            collection.bounded = false;
            windowing(&mut collection.windowing);
        }
        let reads = UserTransform {
            side_inputs: vec![side("s", made, access)],
            ..user()
        };
        let join = build.transform("Join", &[main], &[], TransformKind::User(reads));
        let hand = Hand::start(build.engine());
        Joined { hand, join, made }
    }

    fn counting(access: SideInputAccess) -> Joined {
        Joined::counting_by(Coder::Utf8, access)
    }

    fn counting_by(key: Coder, access: SideInputAccess) -> Joined {
        Joined::new(key, access, |windowing| {
            windowing.trigger = Trigger::Repeat(Box::new(Trigger::ElementCount(1)));
        })
    }

    fn tell(&mut self, event: TestStreamEvent) {
        self.hand.tell(Event::TestStreamEvents {
            transform: STREAM,
            events: vec![event],
            done: false,
        });
    }

    /// A key of the grouping fires, and a bundle makes these elements of it.
    fn fire(&mut self, key: &str, made: &[Vec<u8>]) {
        self.fire_key(&utf8(key), made);
    }

    fn fire_key(&mut self, key: &[u8], made: &[Vec<u8>]) {
        self.tell(add(SIDE, [key, &utf8("v")].concat(), 1));
        let bundle = self.hand.one();
        // Each in a buffer of its own.
        let outputs: Vec<_> = made.iter().map(|data| (self.made, data.clone())).collect();
        self.hand.finish(&bundle, &outputs);
    }

    /// What an element of the main input reads now.
    fn read(&mut self, part: SideInputPart) -> Vec<u8> {
        self.tell(add(MAIN, utf8("x"), 1));
        let bundle = self.hand.one();
        let key = SideInputKey {
            transform: self.join,
            side_input: "s".into(),
            window: Bytes::new(),
            part,
        };
        let read = self.hand.engine.side_input(bundle.id, &key).unwrap().concat();
        self.hand.finish(&bundle, &[]);
        read
    }
}

fn paned(index: i64, value: &[u8]) -> Vec<u8> {
    let pane = PaneInfo {
        is_first: index == 0,
        is_last: false,
        timing: Timing::Early,
        index,
        nonspeculative_index: -1,
    };
    let mut out = Vec::new();
    encode_header(Timestamp(1), &[Window::Global], pane, &mut out);
    out.extend_from_slice(value);
    out
}

#[test]
fn the_latest_firing_of_a_key_that_stands_for_none_replaces_those_before() {
    let own = || {
        Coder::length_prefix(Coder::Unknown {
            urn: "of:an:sdk".into(),
            payload: Bytes::new(),
            components: Vec::new(),
        })
    };
    for (coder, key) in [
        (Coder::GlobalWindow, &[][..]),
        (Coder::Bytes, &[0]),
        (own(), &[0]),
        (own(), &[1, 0]),
    ] {
        let mut joined = Joined::counting_by(coder, SideInputAccess::Iterable);
        joined.fire_key(key, &[paned(0, &utf8("1")), paned(0, &utf8("2"))]);
        let all = SideInputPart::Iterable;
        assert_eq!(joined.read(all.clone()), [utf8("1"), utf8("2")].concat());
        joined.fire_key(key, &[paned(1, &utf8("3")), paned(1, &utf8("4"))]);
        assert_eq!(joined.read(all.clone()), [utf8("3"), utf8("4")].concat());
        // A bundle of an earlier firing was overtaken.
        joined.fire_key(key, &[paned(0, &utf8("old")), paned(2, &utf8("5"))]);
        assert_eq!(joined.read(all), utf8("5"));
    }
}

#[test]
fn values_that_no_longer_bear_their_key_add_up_even_of_one_key() {
    for (coder, key) in [
        (Coder::Utf8, utf8("k")),
        (Coder::Utf8, utf8("")),
        (Coder::VarInt, vec![0]),
    ] {
        let mut joined = Joined::counting_by(coder, SideInputAccess::Iterable);
        joined.fire_key(&key, &[paned(0, &utf8("1"))]);
        joined.fire_key(&key, &[paned(1, &utf8("2"))]);
        let read = joined.read(SideInputPart::Iterable);
        assert_eq!(read, [utf8("1"), utf8("2")].concat());
    }
}

#[test]
fn what_comes_of_no_firing_adds_up() {
    let mut joined = Joined::counting_by(Coder::GlobalWindow, SideInputAccess::Iterable);
    let plain = |value: &str| at(1, Window::Global, &utf8(value));
    joined.fire_key(&[], &[plain("a"), paned(0, &utf8("1"))]);
    // A pane without an index, which is not the first one, tells of no firing either.
    joined.fire_key(&[], &[paned(1, &utf8("2")), plain("b"), paned(-1, &utf8("c"))]);
    let read = joined.read(SideInputPart::Iterable);
    assert_eq!(read, [utf8("a"), utf8("b"), utf8("c"), utf8("2")].concat());
    joined.fire_key(&[], &[paned(2, &utf8("3"))]);
    assert_eq!(
        joined.read(SideInputPart::Iterable),
        [utf8("a"), utf8("b"), utf8("c"), utf8("3")].concat()
    );
}

#[test]
fn a_multimap_replaces_the_keys_that_fired() {
    let mut joined = Joined::counting(SideInputAccess::Multimap);
    joined.fire("a", &[paned(0, &kv("a", "1"))]);
    joined.fire("b", &[paned(0, &kv("b", "2")), paned(0, &kv("b", "3"))]);
    joined.fire("a", &[paned(1, &kv("a", "4"))]);
    let values = |key: &str| SideInputPart::MultimapValues(utf8(key).into());
    assert_eq!(joined.read(values("a")), utf8("4"));
    assert_eq!(joined.read(values("b")), [utf8("2"), utf8("3")].concat());
    assert_eq!(
        joined.read(SideInputPart::MultimapKeys),
        [utf8("a"), utf8("b")].concat()
    );
}

#[test]
fn of_several_keys_that_are_not_told_nothing_is_lost() {
    let mut joined = Joined::counting(SideInputAccess::Iterable);
    joined.fire("a", &[paned(0, &utf8("1"))]);
    joined.fire("a", &[paned(1, &utf8("2"))]);
    joined.fire("b", &[paned(0, &utf8("3"))]);
    joined.fire("a", &[paned(2, &utf8("4"))]);
    let read = joined.read(SideInputPart::Iterable);
    assert_eq!(read, [utf8("1"), utf8("2"), utf8("3"), utf8("4")].concat());
}

#[test]
fn a_window_is_empty_only_when_nothing_late_may_come_any_more() {
    for (lateness, trigger) in [(0, Trigger::Default), (5, Trigger::Default), (5, Trigger::Never)] {
        let mut build = Build::new(1);
        let main = build.impulse();
        let main = build.by_tens(main);
        let from = build.native("Side", &[], pair(), told());
        let side_windowed = build.by_tens(from);
        let windowing = &mut build.graph.collections[CollectionId(side_windowed)].windowing;
        windowing.allowed_lateness_ms = lateness;
        windowing.trigger = trigger.clone();
        let join = UserTransform {
            side_inputs: vec![side("s", side_windowed, SideInputAccess::Iterable)],
            ..user()
        };
        build.transform("Join", &[main], &[], TransformKind::User(join));
        let mut hand = Hand::start(build.engine());
        let bundle = hand.one();
        hand.finish(&bundle, &[(main, at(1, interval(0, 10), &utf8("x")))]);
        let mut watermark_at = |to| {
            hand.tell(Event::TestStreamEvents {
                transform: TransformId(2),
                events: vec![watermark(to)],
                done: false,
            });
            !hand.started.is_empty()
        };
        assert!(!watermark_at(9), "lateness {lateness}");
        assert_eq!(watermark_at(10), lateness == 0, "lateness {lateness}");
        assert_eq!(watermark_at(14), lateness == 0, "lateness {lateness}");
        assert!(watermark_at(15), "lateness {lateness}");
    }
}
