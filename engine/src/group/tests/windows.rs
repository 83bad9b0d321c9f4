//! Windows, timestamps and holds, one script each.

use expect_test::expect;
use purlin_model::Timestamp;

use super::{Subject, check, fixed};
use crate::graph::{TimestampCombiner, WindowFn, Windowing};

fn at(timestamp_combiner: TimestampCombiner, trigger: &str) -> Windowing {
    Windowing {
        timestamp_combiner,
        allowed_lateness_ms: 20,
        ..fixed(trigger)
    }
}

#[test]
fn an_element_is_in_each_of_its_sliding_windows() {
    check(
        Windowing {
            window_fn: WindowFn::Sliding {
                size_ms: 10,
                period_ms: 5,
                offset_ms: 0,
            },
            ..fixed("Default")
        },
        "
            + a 1 6 12
            w 10
            + a 9
            w end
        ",
        expect![[r#"
            + a 1 6 12
            w 10
                a [-5, 5) [1] at 4 on time 0/0 last
                a [0, 10) [1, 6] at 9 on time 0/0 last
            + a 9
            w end
                a [5, 15) [6, 9, 12] at 14 on time 0/0 last
                a [10, 20) [12] at 19 on time 0/0 last
        "#]],
    );
}

#[test]
fn earliest_takes_the_earliest_that_is_not_late() {
    // 2 and 3 come behind the output watermark, which is at 4: nothing can be held there any more.
    check(
        at(TimestampCombiner::Earliest, "Default"),
        "
            + a 5 7
            w 4
            + b 2 6
            + c 3
            w 10
            + a 8
            w end
        ",
        expect![[r#"
            + a 5 7
            w 4
            + b 2 6
            + c 3
            w 10
                a [0, 10) [5, 7] at 5 on time 0/0
                b [0, 10) [2, 6] at 6 on time 0/0
                c [0, 10) [3] at 9 on time 0/0
            + a 8
                a [0, 10) [8] at 9 late 1/1
            w end
        "#]],
    );
}

#[test]
fn latest_takes_the_latest() {
    check(
        at(TimestampCombiner::Latest, "Default"),
        "
            + a 5 7 6
            w 10
            + a 8
            w end
        ",
        expect![[r#"
            + a 5 7 6
            w 10
                a [0, 10) [5, 6, 7] at 7 on time 0/0
            + a 8
                a [0, 10) [8] at 9 late 1/1
            w end
        "#]],
    );
}

#[test]
fn a_pane_has_the_timestamp_of_its_own_elements() {
    check(
        at(TimestampCombiner::Earliest, "AfterWatermark(early=AfterCount(2))"),
        "
            + a 3 5
            + a 7
            w 10
        ",
        expect![[r#"
            + a 3 5
                a [0, 10) [3, 5] at 3 early 0/-1
            + a 7
            w 10
                a [0, 10) [7] at 7 on time 1/0 last
        "#]],
    );
}

#[test]
fn the_global_window_ends_a_day_before_time() {
    check(
        Windowing {
            window_fn: WindowFn::Global,
            ..fixed("Default")
        },
        "
            + a 1 2
            + b 3
            w 9223371950454774
            w end
        ",
        expect![[r#"
            + a 1 2
            + b 3
            w 9223371950454774
            w end
                a global [1, 2] at end on time 0/0 last
                b global [3] at end on time 0/0 last
        "#]],
    );
}

/// The hold after each line of a script.
fn holds(windowing: Windowing, script: &str) -> Vec<i64> {
    let mut subject = Subject::new(windowing);
    script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| {
            subject.run(line);
            subject.grouper.hold().millis()
        })
        .collect()
}

const NONE: i64 = Timestamp::MAX.0;

#[test]
fn earliest_holds_at_the_earliest_element() {
    let script = "
        + a 5
        + b 3
        + a 14
        w 10
        w 20
    ";
    assert_eq!(
        holds(at(TimestampCombiner::Earliest, "Default"), script),
        [5, 3, 3, 14, NONE]
    );
    // The same by the general way.
    let trigger = "AfterWatermark(early=AfterCount(10))";
    assert_eq!(
        holds(at(TimestampCombiner::Earliest, trigger), script),
        [5, 3, 3, 14, NONE]
    );
}

#[test]
fn latest_holds_at_the_latest_element_of_each_key() {
    let script = "
        + a 5
        + b 3
        + b 7
        w 10
    ";
    assert_eq!(
        holds(at(TimestampCombiner::Latest, "Default"), script),
        [5, 3, 5, NONE]
    );
}

#[test]
fn late_values_are_held_until_the_window_expires() {
    let script = "
        + a 5
        w 10
        + a 6
        + a 7
        w 29
        w 30
    ";
    let windowing = at(
        TimestampCombiner::EndOfWindow,
        "AfterWatermark(late=AfterCount(2))",
    );
    assert_eq!(holds(windowing, script), [9, NONE, 29, NONE, NONE, NONE]);
}

#[test]
fn a_promised_on_time_pane_holds_the_end_of_the_window() {
    let script = "
        + a 5 6
        w 10
    ";
    let windowing = at(TimestampCombiner::Earliest, "AfterWatermark(early=AfterCount(2))");
    assert_eq!(holds(windowing, script), [9, NONE]);
}

#[test]
fn times_of_interest_are_told() {
    let windowing = Windowing {
        allowed_lateness_ms: 5,
        ..fixed("AfterWatermark(early=AfterProcessingTime(5), late=AfterProcessingTime(7))")
    };
    let mut subject = Subject::new(windowing);
    let mut times = |line: &str| {
        subject.run(line);
        let grouper = &subject.grouper;
        let millis = |time: Option<Timestamp>| time.map(Timestamp::millis);
        (
            millis(grouper.next_event_time()),
            millis(grouper.next_processing_time()),
            grouper.is_empty(),
        )
    };
    assert_eq!(times("w 0"), (None, None, true));
    assert_eq!(times("+ a 1"), (Some(9), Some(5), false));
    assert_eq!(times("p 5"), (Some(9), None, false));
    assert_eq!(times("+ a 2"), (Some(9), Some(10), false));
    assert_eq!(times("w 10"), (Some(14), None, false));
    assert_eq!(times("+ a 3"), (Some(14), Some(12), false));
    assert_eq!(times("w 15"), (None, None, true));
}

#[test]
fn a_closed_window_is_remembered_until_it_expires() {
    let mut subject = Subject::new(Windowing {
        allowed_lateness_ms: 5,
        ..fixed("AfterCount(1)")
    });
    subject.run("+ a 1\n+ a 2\nw 14");
    assert!(!subject.grouper.is_empty());
    assert_eq!(
        (subject.grouper.dropped(), subject.grouper.hold()),
        (1, Timestamp::MAX)
    );
    subject.run("w 15\n+ a 3");
    assert!(subject.grouper.is_empty());
    assert_eq!(subject.grouper.dropped(), 2);
}

#[test]
fn bytes_that_are_no_pairs_are_refused() {
    let mut subject = Subject::new(fixed("Default"));
    let chunk = subject.chunk("key", &[(1, 1), (2, 2)]);
    for length in 1..chunk.data.len() {
        let mut cut = chunk.clone();
        cut.data.truncate(length);
        let whole = length == chunk.data.len() / 2;
        assert_eq!(
            subject.grouper.ingest(&cut, Timestamp(0), Timestamp::MIN).is_ok(),
            whole,
            "{length}"
        );
    }
}

#[test]
fn values_of_many_bytes_come_out_whole_by_either_way() {
    for trigger in ["Default", "AfterWatermark(early=AfterCount(1000000000))"] {
        let mut subject = Subject::new(fixed(trigger));
        let elements: Vec<_> = (0..700_000).map(|value| (value, 1)).collect();
        for key in ["a", "b"] {
            subject.ingest(key, &elements);
        }
        subject.ingest("small", &[(1, 1)]);
        subject.watermark = Timestamp::MAX;
        let fired = subject.advance();
        let shape: Vec<_> = fired
            .iter()
            .map(|pane| (pane.key.as_str(), pane.values.len()))
            .collect();
        assert_eq!(shape, [("a", 700_000), ("b", 700_000), ("small", 1)]);
        assert!(fired[1].values.iter().copied().eq(0..700_000));
    }
}
