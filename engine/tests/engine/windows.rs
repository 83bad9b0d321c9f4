//! GroupByKey as the engine drives it: merging windows, bounded inputs, timestamps of panes.

use purlin_engine::*;
use purlin_model::windowed::encode_header;
use purlin_model::{Coder, PaneInfo, Timestamp, Window};

use crate::common::*;

#[test]
fn custom_windows_are_merged_by_the_sdk() {
    let mut build = Build::new(1);
    let impulse = build.impulse();
    let custom = |build: &mut Build, coder| {
        let id = build.fixed(coder, 10);
        let windowing = &mut build.graph.collections[CollectionId(id)].windowing;
        windowing.window_fn = WindowFn::Custom(SdkWindows { merging: true });
        windowing.environment = Some(EnvironmentId(0));
        id
    };
    let pairs = custom(&mut build, pair());
    build.transform("Pair", &[impulse], &[pairs], TransformKind::User(user()));
    let grouped = custom(&mut build, group());
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
        [Action::MergeWindows { request, windows, .. }] => {
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
    build.graph.environments[EnvironmentId(0)].slots_per_worker = 2;
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
    build.graph.collections[CollectionId(flat)].windowing.trigger = Trigger::ElementCount(2);
    let grouped = build.native("GroupFlat", &[flat], group(), TransformKind::GroupByKey);
    let end = build.transform("End", &[grouped], &[], TransformKind::User(user()));
    let mut hand = Hand::start(build.engine());
    let end = stage_of(&hand.engine, end);
    let (a, b) = (hand.started.remove(0), hand.started.remove(0));
    let element = |value| at(1, Window::Global, &kv("k", value));
    for (bundle, values) in [(a, ["1", "2"]), (b, ["3", "4"])] {
        let stage = &hand.engine.stages()[bundle.stage];
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
        let mut events = vec![watermark(5)];
        events.extend(order.map(|at| element(kv("k", &at.to_string()), at)));
        events.push(watermark(11));
        let stream = build.script(pair(), events);
        let windowed = build.by_tens(stream);
        let earliest = TimestampCombiner::Earliest;
        build.graph.collections[CollectionId(windowed)]
            .windowing
            .timestamp_combiner = earliest;
        grouped_by_tens(&mut build, windowed);
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

#[test]
fn what_is_in_no_window_goes_no_further() {
    let no_window = |value: &[u8]| {
        let mut out = Vec::new();
        encode_header(Timestamp(3), &[], PaneInfo::NO_FIRING, &mut out);
        out.extend_from_slice(value);
        out
    };
    for kind in [TransformKind::Redistribute, TransformKind::User(stateful(&[]))] {
        let mut build = Build::new(1);
        let impulse = build.impulse();
        let pairs = build.fixed(pair(), 10);
        build.transform("Window", &[impulse], &[pairs], TransformKind::User(user()));
        let next = build.fixed(pair(), 10);
        build.transform("Next", &[pairs], &[next], kind);
        build.transform("End", &[next], &[], TransformKind::User(user()));
        let mut hand = Hand::start(build.engine());
        let bundle = hand.one();
        let stays = [
            at(1, interval(0, 10), &kv("k", "a")),
            at(11, interval(10, 20), &kv("k", "b")),
        ];
        let [first, second] = stays.clone();
        let data = [no_window(&kv("k", "x")), first, no_window(&kv("k", "y")), second].concat();
        hand.finish(&bundle, &[(pairs, data)]);
        let bundle = hand.one();
        assert_eq!(bundle.elements, 2);
        assert_eq!(elements(&bundle), stays.concat());
        hand.finish(&bundle, &[]);
        assert_eq!(hand.finished(), Some(Outcome::Done));
    }
}
