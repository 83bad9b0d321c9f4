//! Side inputs: readiness, tokens, window mapping.

use bytes::Bytes;
use purlin_engine::*;
use purlin_model::{Coder, Timestamp, Window};

use crate::common::*;

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

/// Reads a side input, for whose windows the SDK is asked.
fn join_by_the_sdk(build: &mut Build, main: u32, from: u32) {
    let side = SideInput {
        mapping: WindowMapping::Sdk,
        ..side("s", from, SideInputAccess::Iterable)
    };
    let join = UserTransform {
        side_inputs: vec![side],
        ..user()
    };
    build.user("Join", main, Coder::Utf8, join);
}

#[test]
fn custom_windows_are_mapped_by_the_sdk() {
    let mut build = Build::new(1);
    let events = vec![element(utf8("x"), 1), watermark(5)];
    let main = build.script(Coder::Utf8, events);
    let from = build.native("Side", &[], Coder::Utf8, told());
    let windowed = build.by_tens(from);
    join_by_the_sdk(&mut build, main, windowed);
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
    hand.tell(Event::TestStreamEvents {
        transform: TransformId(1),
        events: vec![watermark(10)],
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
    let windowed = build.by_tens(side_source);
    join_by_the_sdk(&mut build, impulse, windowed);
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
fn elements_that_wait_for_a_side_input_hold_the_watermark() {
    let mut build = Build::new(1);
    let events = vec![element(kv("k", "x"), 1), watermark(50)];
    let main = build.script(pair(), events);
    let from = build.native("Side", &[], Coder::Utf8, told());
    let windowed = build.fixed(pair(), 10);
    let join = UserTransform {
        side_inputs: vec![side("s", from, SideInputAccess::Iterable)],
        ..user()
    };
    build.transform("Join", &[main], &[windowed], TransformKind::User(join));
    let end = grouped_by_tens(&mut build, windowed);
    let mut hand = Hand::start(build.engine());
    assert!(hand.started.is_empty());
    hand.tell(Event::TestStreamEvents {
        transform: TransformId(1),
        events: Vec::new(),
        done: true,
    });
    let bundle = hand.one();
    hand.finish(&bundle, &[(windowed, at(1, interval(0, 10), &kv("k", "x")))]);
    let bundle = hand.one();
    assert_eq!(bundle.stage, stage_of(&hand.engine, end));
    hand.finish(&bundle, &[]);
    assert_eq!(hand.engine.dropped_elements(), 0);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

#[test]
fn a_scripted_window_that_ends_is_read_when_it_is_complete_whatever_its_trigger() {
    let mut build = Build::new(1);
    let main = build.script(Coder::Utf8, vec![element(utf8("x"), 1)]);
    let main_windowed = build.by_tens(main);
    let events = vec![
        TestStreamEvent::ProcessingTime(1),
        element(kv("a", "1"), 1),
        element(kv("a", "2"), 1),
        watermark(10),
    ];
    let from = build.script(pair(), events);
    let side_windowed = build.by_tens(from);
    let windowing = &mut build.graph.collections[CollectionId(side_windowed)].windowing;
    windowing.trigger = Trigger::Repeat(Box::new(Trigger::ElementCount(1)));
    let join = UserTransform {
        side_inputs: vec![side("s", side_windowed, SideInputAccess::Multimap)],
        ..user()
    };
    let join = build.transform("Join", &[main_windowed], &[], TransformKind::User(join));
    let mut hand = Hand::start(build.engine());
    let bundle = hand.one();
    hand.finish(&bundle, &[(main_windowed, at(1, interval(0, 10), &utf8("x")))]);
    for value in ["1", "2"] {
        let bundle = hand.one();
        assert_ne!(bundle.stage, stage_of(&hand.engine, join));
        hand.finish(
            &bundle,
            &[(side_windowed, at(1, interval(0, 10), &kv("a", value)))],
        );
    }
    let bundle = hand.one();
    assert_eq!(bundle.stage, stage_of(&hand.engine, join));
    let key = SideInputKey {
        transform: join,
        side_input: "s".into(),
        window: interval(0, 10).to_bytes(),
        part: SideInputPart::MultimapValues(utf8("a").into()),
    };
    let read = hand.engine.side_input(bundle.id, &key).unwrap().concat();
    assert_eq!(read, [utf8("1"), utf8("2")].concat());
    hand.finish(&bundle, &[]);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}

#[test]
fn a_window_of_an_unbounded_side_input_is_ready_at_its_first_pane_or_when_it_is_known_to_be_empty() {
    let mut build = Build::new(2);
    let main = build.impulse();
    let main_windowed = build.fixed(Coder::Utf8, 10);
    build.transform("Main", &[main], &[main_windowed], TransformKind::User(user()));
    let source = build.impulse();
    let restrictions = build.user("Restrict", source, pair(), user());
    let side_windowed = build.fixed(pair(), 10);
    let reader = UserTransform {
        splittable: true,
        ..user()
    };
    build.transform(
        "Side",
        &[restrictions],
        &[side_windowed],
        TransformKind::User(reader),
    );
    build.graph.collections[CollectionId(side_windowed)].bounded = false;
    build.graph.collections[CollectionId(side_windowed)]
        .windowing
        .trigger = Trigger::Repeat(Box::new(Trigger::ElementCount(1)));
    let grouped = build.fixed(Coder::kv(Coder::Utf8, Coder::iterable(Coder::Utf8)), 10);
    build.transform("Group", &[side_windowed], &[grouped], TransformKind::GroupByKey);
    {
        let grouped = &mut build.graph.collections[CollectionId(grouped)];
        grouped.bounded = false;
        grouped.windowing.trigger = Trigger::Repeat(Box::new(Trigger::ElementCount(1)));
    }
    let join = UserTransform {
        side_inputs: vec![side("s", grouped, SideInputAccess::Multimap)],
        ..user()
    };
    let join = build.transform("Join", &[main_windowed], &[], TransformKind::User(join));
    let mut hand = Hand::start(build.engine());
    let join_stage = stage_of(&hand.engine, join);
    let reads = |hand: &mut Hand| {
        let at = hand
            .started
            .iter()
            .position(|bundle| bundle.stage == join_stage)?;
        Some(hand.started.remove(at))
    };
    let take = |hand: &mut Hand, output: u32| {
        let makes = |bundle: &Bundle| {
            let stage = &hand.engine.stages()[bundle.stage];
            stage.outputs.contains(&CollectionId(output))
        };
        let at = hand.started.iter().position(makes).unwrap();
        hand.started.remove(at)
    };
    let bundle = take(&mut hand, main_windowed);
    let main_elements: Vec<u8> = [("x", 1), ("y", 11), ("z", 21)]
        .into_iter()
        .flat_map(|(value, start)| at(start, interval(start - 1, start + 9), &utf8(value)))
        .collect();
    hand.finish(&bundle, &[(main_windowed, main_elements)]);
    let bundle = take(&mut hand, restrictions);
    hand.finish(
        &bundle,
        &[(
            restrictions,
            at(start_of_time(), Window::Global, &kv("topic", "0")),
        )],
    );
    let bundle = take(&mut hand, side_windowed);
    assert!(reads(&mut hand).is_none(), "nothing has come of the side input");
    // A pane of the second window, and the watermark beyond the first, which is empty; the third is open.
    let result = BundleResult {
        outputs: hand.outputs(&[(side_windowed, at(11, interval(10, 20), &kv("a", "1")))]),
        residuals: vec![Residual {
            watermark: Some(Timestamp(12)),
            ..residual("topic", "1", 300)
        }],
        ..BundleResult::default()
    };
    hand.tell(Event::BundleFinished {
        bundle: bundle.id,
        result,
    });
    let mut seen = Vec::new();
    while let Some(bundle) = reads(&mut hand) {
        let key = |window: Window| SideInputKey {
            transform: join,
            side_input: "s".into(),
            window: window.to_bytes(),
            part: SideInputPart::MultimapValues(utf8("a").into()),
        };
        let data = elements(&bundle);
        for (value, window) in [
            (b'x', interval(0, 10)),
            (b'y', interval(10, 20)),
            (b'z', interval(20, 30)),
        ] {
            if data.contains(&value) {
                let read = hand.engine.side_input(bundle.id, &key(window)).unwrap().concat();
                seen.push((char::from(value), read.len()));
            }
        }
        hand.finish(&bundle, &[]);
    }
    seen.sort_unstable();
    let iterable_of_one = 4 + utf8("1").len();
    assert_eq!(seen, [('x', 0), ('y', iterable_of_one)]);
    hand.now += 300;
    hand.tell(Event::Tick);
    let bundle = take(&mut hand, side_windowed);
    assert!(reads(&mut hand).is_none(), "nothing has come of the third window");
    hand.finish(&bundle, &[]);
    let bundle = reads(&mut hand).unwrap();
    assert!(elements(&bundle).contains(&b'z'));
    hand.finish(&bundle, &[]);
    assert_eq!(hand.finished(), Some(Outcome::Done));
}
