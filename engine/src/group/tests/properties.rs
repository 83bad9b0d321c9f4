//! What holds for all triggers, windows and orders of events.

use std::collections::BTreeMap;

use proptest::prelude::*;
use purlin_model::{Timestamp, Timing, Window};

use super::{Fired, Subject, fixed};
use crate::graph::{
    Accumulation, PaneEmission, SdkWindows, TimestampCombiner, TimestampTransform, Trigger, WindowFn,
    Windowing,
};

#[derive(Clone, Debug)]
enum Step {
    Ingest { key: usize, timestamps: Vec<i64> },
    Advance,
    Watermark(i64),
    Now(i64),
    Synchronized(i64),
}

const KEYS: [&str; 3] = ["a", "b", "a longer key that does not fit"];

fn triggers() -> impl Strategy<Value = Trigger> {
    let leaf = prop_oneof![
        Just(Trigger::Default),
        (1..4u32).prop_map(Trigger::ElementCount),
        (0..20i64).prop_map(|delay| Trigger::AfterProcessingTime(vec![
            TimestampTransform::Delay(delay),
            TimestampTransform::AlignTo {
                period_ms: 5,
                offset_ms: 2
            },
        ])),
        Just(Trigger::AfterSynchronizedProcessingTime),
        Just(Trigger::Always),
        Just(Trigger::Never),
        Just(Trigger::AfterEndOfWindow {
            early: None,
            late: None
        }),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let boxed = inner.clone().prop_map(Box::new);
        let some = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            (prop::option::of(boxed.clone()), prop::option::of(boxed.clone()))
                .prop_map(|(early, late)| Trigger::AfterEndOfWindow { early, late }),
            some.clone().prop_map(Trigger::AfterEach),
            some.clone().prop_map(Trigger::AfterAll),
            some.prop_map(Trigger::AfterAny),
            (boxed.clone(), boxed.clone()).prop_map(|(main, until)| Trigger::OrFinally(main, until)),
            boxed.prop_map(Trigger::Repeat),
        ]
    })
}

fn window_fns() -> impl Strategy<Value = WindowFn> {
    prop_oneof![
        Just(WindowFn::Global),
        Just(WindowFn::Fixed {
            size_ms: 10,
            offset_ms: 3
        }),
        Just(WindowFn::Sliding {
            size_ms: 20,
            period_ms: 10,
            offset_ms: 0
        }),
        Just(WindowFn::Sessions { gap_ms: 5 }),
    ]
}

fn emissions() -> impl Strategy<Value = PaneEmission> {
    prop_oneof![Just(PaneEmission::Always), Just(PaneEmission::IfNonEmpty)]
}

fn windowings() -> impl Strategy<Value = Windowing> {
    let combiners = prop_oneof![
        Just(TimestampCombiner::EndOfWindow),
        Just(TimestampCombiner::Earliest),
        Just(TimestampCombiner::Latest),
    ];
    let accumulations = prop_oneof![Just(Accumulation::Discarding), Just(Accumulation::Accumulating)];
    let lateness = prop_oneof![Just(0), 1..40i64];
    (
        window_fns(),
        triggers(),
        combiners,
        accumulations,
        lateness,
        emissions(),
        emissions(),
    )
        .prop_map(
            |(
                window_fn,
                trigger,
                timestamp_combiner,
                accumulation,
                allowed_lateness_ms,
                closing,
                on_time,
            )| {
                Windowing {
                    window_fn,
                    trigger,
                    timestamp_combiner,
                    accumulation,
                    allowed_lateness_ms,
                    closing,
                    on_time,
                    ..fixed("Default")
                }
            },
        )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..KEYS.len(), prop::collection::vec(0..60i64, 1..5))
            .prop_map(|(key, timestamps)| Step::Ingest { key, timestamps }),
        4 => Just(Step::Advance),
        2 => (0..70i64).prop_map(Step::Watermark),
        1 => (0..70i64).prop_map(Step::Now),
        1 => (0..70i64).prop_map(Step::Synchronized),
    ];
    prop::collection::vec(step, 0..40)
}

/// Runs the steps, then ends the input. Values are numbered in the order in which they came.
fn run(windowing: &Windowing, steps: &[Step]) -> (Vec<Fired>, u64, u64) {
    let mut subject = Subject::new(windowing.clone());
    let mut fired = Vec::new();
    let mut output_watermark = Timestamp::MIN;
    let mut value = 0;
    let mut copies = 0;
    let end = [Step::Advance, Step::Watermark(i64::MAX), Step::Advance];
    for step in steps.iter().chain(&end) {
        match step {
            Step::Ingest { key, timestamps } => {
                let elements: Vec<_> = timestamps
                    .iter()
                    .map(|&timestamp| {
                        value += 1;
                        (value, timestamp)
                    })
                    .collect();
                let windows =
                    |&timestamp: &i64| windowing.window_fn.assign(Timestamp(timestamp)).len() as u64;
                copies += timestamps.iter().map(windows).sum::<u64>();
                subject.ingest(KEYS[*key], &elements);
            }
            Step::Advance => {
                for pane in subject.advance() {
                    // What is not late must not come behind the watermark that the next one saw.
                    assert!(
                        pane.pane.timing == Timing::Late || pane.timestamp >= output_watermark,
                        "{pane:?}"
                    );
                    assert!(pane.timestamp <= pane.window.max_timestamp(), "{pane:?}");
                    fired.push(pane);
                }
                assert!(!subject.grouper.has_news());
                for time in [
                    subject.grouper.next_processing_time(),
                    subject.grouper.next_synchronized_time(),
                ] {
                    assert!(time.is_none_or(|time| time > Timestamp::MIN));
                }
                assert!(
                    subject
                        .grouper
                        .next_event_time()
                        .is_none_or(|time| time >= subject.watermark)
                );
                assert!(
                    subject
                        .grouper
                        .next_processing_time()
                        .is_none_or(|time| time > subject.now)
                );
                output_watermark = output_watermark.max(subject.watermark.min(subject.grouper.hold()));
            }
            Step::Watermark(to) => subject.watermark = subject.watermark.max(Timestamp::from_millis(*to)),
            Step::Now(to) => subject.now = subject.now.max(Timestamp(*to)),
            Step::Synchronized(to) => {
                subject.synchronized_now = subject.synchronized_now.max(Timestamp(*to));
            }
        }
    }
    assert!(subject.grouper.is_empty());
    assert_eq!(subject.grouper.hold(), Timestamp::MAX);
    assert_eq!(subject.grouper.next_event_time(), None);
    assert_eq!(subject.grouper.next_processing_time(), None);
    assert_eq!(subject.grouper.next_synchronized_time(), None);
    (fired, copies, subject.grouper.dropped())
}

type Panes = BTreeMap<(String, Window), Vec<Fired>>;

fn by_key_and_window(fired: Vec<Fired>) -> Panes {
    let mut panes = Panes::new();
    for pane in fired {
        panes
            .entry((pane.key.clone(), pane.window.clone()))
            .or_default()
            .push(pane);
    }
    panes
}

fn is_merging(windowing: &Windowing) -> bool {
    matches!(windowing.window_fn, WindowFn::Sessions { .. })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Each value comes out once (discarding), or is counted as dropped; nothing is left in the end.
    #[test]
    fn no_value_is_lost_or_doubled(windowing in windowings(), steps in steps()) {
        let windowing = Windowing { accumulation: Accumulation::Discarding, ..windowing };
        let (fired, copies, dropped) = run(&windowing, &steps);
        let mut seen: Vec<_> = fired.iter().flat_map(|pane| pane.values.iter().map(|&value| (&pane.window, value))).collect();
        prop_assert_eq!(seen.len() as u64 + dropped, copies);
        seen.sort();
        let count = seen.len();
        seen.dedup();
        prop_assert_eq!(seen.len(), count);
    }

    /// Indices count the panes, timings go from early over on time to late, and nothing follows the last pane.
    #[test]
    fn panes_are_numbered(windowing in windowings(), steps in steps()) {
        let merging = is_merging(&windowing);
        for ((_, window), panes) in by_key_and_window(run(&windowing, &steps).0) {
            let mut previous: Option<Fired> = None;
            for pane in panes {
                // A merged window may come to be anew after the one before it has closed.
                if merging && pane.pane.index == 0 {
                    previous = None;
                }
                let info = pane.pane;
                let index = previous.as_ref().map_or(0, |previous| previous.pane.index + 1);
                prop_assert_eq!(info.index, index);
                prop_assert_eq!(info.is_first, index == 0);
                let later = match (previous.as_ref().map(|previous| previous.pane), info.timing) {
                    (Some(previous), Timing::Early) => previous.timing == Timing::Early,
                    (Some(previous), Timing::OnTime) => previous.timing == Timing::Early,
                    (_, timing) => timing != Timing::Unknown,
                };
                prop_assert!(later, "{:?} after {:?} in {}", info, previous, window);
                let nonspeculative = match (info.timing, previous.as_ref().map(|previous| previous.pane)) {
                    (Timing::Early, _) => -1,
                    (_, None) => 0,
                    (_, Some(previous)) => previous.nonspeculative_index + 1,
                };
                prop_assert_eq!(info.nonspeculative_index, nonspeculative);
                prop_assert!(previous.is_none_or(|previous| !previous.pane.is_last));
                previous = Some(pane);
            }
        }
    }

    /// What discarding panes tell one by one, accumulating ones tell together.
    #[test]
    fn discarding_adds_up_to_accumulating(windowing in windowings(), steps in steps()) {
        // Where windows merge, an accumulating pane tells what came before the merge once more.
        let window_fn = match windowing.window_fn {
            WindowFn::Sessions { gap_ms } => WindowFn::Fixed { size_ms: gap_ms, offset_ms: 0 },
            other => other,
        };
        let windowing = Windowing { window_fn, ..windowing };
        let accumulating = Windowing { accumulation: Accumulation::Accumulating, ..windowing.clone() };
        let discarding = Windowing { accumulation: Accumulation::Discarding, ..windowing };
        let accumulated = by_key_and_window(run(&accumulating, &steps).0);
        let discarded = by_key_and_window(run(&discarding, &steps).0);
        prop_assert_eq!(accumulated.len(), discarded.len());
        for (place, panes) in discarded {
            let all = &accumulated[&place];
            prop_assert_eq!(all.len(), panes.len());
            let mut so_far = Vec::new();
            for (pane, all) in panes.iter().zip(all) {
                so_far.extend_from_slice(&pane.values);
                so_far.sort_unstable();
                prop_assert_eq!(&so_far, &all.values);
                prop_assert_eq!((pane.pane, pane.timestamp), (all.pane, all.timestamp));
            }
        }
    }

    /// Order and bundling of the input do not matter where the watermark alone decides, nor does it which of the two
    /// stores it goes through.
    #[test]
    fn order_does_not_matter(
        window_fn in window_fns(),
        elements in prop::collection::vec((0..KEYS.len(), 0..200i64), 0..60).prop_shuffle(),
        seed in any::<u64>(),
        combiner in prop_oneof![Just(TimestampCombiner::EndOfWindow), Just(TimestampCombiner::Earliest)],
    ) {
        let grouped = |trigger: Trigger, order: &[usize], bundle: usize| {
            let windowing = Windowing {
                window_fn: window_fn.clone(),
                timestamp_combiner: combiner,
                trigger,
                ..fixed("Default")
            };
            let mut subject = Subject::new(windowing);
            for bundle in order.chunks(bundle) {
                for &at in bundle {
                    let (key, timestamp) = elements[at];
                    subject.ingest(KEYS[key], &[(at as u64, timestamp)]);
                }
                assert!(subject.advance().is_empty());
            }
            subject.watermark = Timestamp::MAX;
            let mut fired = subject.advance();
            fired.sort_by(|a, b| (&a.key, &a.window).cmp(&(&b.key, &b.window)));
            fired
        };
        let order: Vec<usize> = (0..elements.len()).collect();
        let mut shuffled = order.clone();
        shuffled.sort_by_key(|&at| (at as u64 + 1).wrapping_mul(seed | 1));
        let expected = grouped(Trigger::Default, &order, 1000);
        let general = super::parse_trigger("AfterWatermark(early=AfterCount(1000000))");
        prop_assert_eq!(&grouped(Trigger::Default, &shuffled, 1), &expected);
        prop_assert_eq!(&grouped(general, &shuffled, 7), &expected);
    }

    /// An SDK that merges windows by tens gives what fixed windows of ten give, whenever it is asked.
    #[test]
    fn custom_merging_can_make_fixed_windows(
        steps in prop::collection::vec((0..KEYS.len(), 0..60i64, 0..4u8), 0..40),
    ) {
        let mut custom = Subject::new(Windowing { window_fn: WindowFn::Custom(SdkWindows { merging: true }), ..fixed("Default") });
        let mut native = Subject::new(fixed("Default"));
        for (value, &(key, timestamp, event)) in (0..).zip(&steps) {
            custom.ingest(KEYS[key], &[(value, timestamp)]);
            native.ingest(KEYS[key], &[(value, timestamp)]);
            if event == 0 {
                super::merging::answer_all(&mut custom);
            }
            if event == 1 {
                prop_assert!(custom.advance().is_empty());
            }
        }
        custom.watermark = Timestamp::MAX;
        native.watermark = Timestamp::MAX;
        let mut fired = custom.advance();
        while super::merging::answer_all(&mut custom) > 0 {
            fired.extend(custom.advance());
        }
        prop_assert!(custom.grouper.is_empty());
        let order = |fired: &mut Vec<Fired>| fired.sort_by(|a, b| (&a.key, &a.window).cmp(&(&b.key, &b.window)));
        let mut expected = native.advance();
        order(&mut expected);
        order(&mut fired);
        prop_assert_eq!(fired, expected);
    }
}
