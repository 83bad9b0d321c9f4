//! Merging windows: sessions, and custom ones that an SDK merges.

use expect_test::expect;
use purlin_model::{Timestamp, Window};

use super::{Subject, check, fixed, show};
use crate::graph::{Accumulation, SdkWindows, TimestampCombiner, WindowFn, Windowing};
use crate::group::{GroupError, GroupMergeId};

fn sessions(trigger: &str) -> Windowing {
    Windowing {
        window_fn: WindowFn::Sessions { gap_ms: 10 },
        ..fixed(trigger)
    }
}

#[test]
fn sessions_merge() {
    check(
        sessions("Default"),
        "
            + a 1 30 5
            + b 3
            + a 12
            w 22
            + a 35
            w end
        ",
        expect![[r#"
            + a 1 30 5
            + b 3
            + a 12
            w 22
                b [3, 13) [3] at 12 on time 0/0 last
                a [1, 22) [1, 5, 12] at 21 on time 0/0 last
            + a 35
            w end
                a [30, 45) [30, 35] at 44 on time 0/0 last
        "#]],
    );
}

#[test]
fn an_element_joins_two_sessions() {
    check(
        sessions("Default"),
        "
            + a 1
            + a 15
            + a 8
            w 24
            w 25
        ",
        expect![[r#"
            + a 1
            + a 15
            + a 8
            w 24
            w 25
                a [1, 25) [1, 8, 15] at 24 on time 0/0 last
        "#]],
    );
}

#[test]
fn sessions_that_touch_stay_apart() {
    check(
        sessions("Default"),
        "
            + a 1 11
            w end
        ",
        expect![[r#"
            + a 1 11
            w end
                a [1, 11) [1] at 10 on time 0/0 last
                a [11, 21) [11] at 20 on time 0/0 last
        "#]],
    );
}

#[test]
fn merging_adds_up_counts_and_begins_panes_anew() {
    check(
        sessions("AfterWatermark(early=AfterCount(2))"),
        "
            + a 1 2
            + a 3
            + a 20
            + a 12
            w end
        ",
        expect![[r#"
            + a 1 2
                a [1, 12) [1, 2] at 11 early 0/-1
            + a 3
            + a 20
            + a 12
                a [1, 30) [3, 12, 20] at 29 early 0/-1
            w end
                a [1, 30) [] at 29 on time 1/0 last
        "#]],
    );
}

#[test]
fn a_session_that_was_fired_lives_on_when_it_grows() {
    check(
        Windowing {
            allowed_lateness_ms: 100,
            accumulation: Accumulation::Accumulating,
            ..sessions("AfterWatermark(late=AfterCount(2))")
        },
        "
            + a 1
            w 11
            + a 2@10
            w 19
            + a 3@4
            w 20
            + a 4@5
            + a 5@6
            w end
        ",
        expect![[r#"
            + a 1
            w 11
                a [1, 11) [1] at 10 on time 0/0
            + a 2@10
            w 19
            + a 3@4
            w 20
                a [1, 20) [1, 2, 3] at 19 on time 0/0
            + a 4@5
            + a 5@6
                a [1, 20) [1, 2, 3, 4, 5] at 19 late 1/1
            w end
        "#]],
    );
}

#[test]
fn a_closed_session_takes_nothing_and_joins_nothing() {
    check(
        sessions("AfterCount(2)"),
        "
            + a 1 2
            + a 3
            + a 5@1
            + a 4
            w end
        ",
        expect![[r#"
            + a 1 2
                a [1, 12) [1, 2] at 11 early 0/-1 last
            + a 3
            + a 5@1
                a [1, 13) [3, 5] at 12 early 0/-1 last
            + a 4
            w end
                a [4, 14) [4] at 13 on time 0/0 last
        "#]],
    );
}

#[test]
fn sessions_wait_for_processing_time_from_the_first_element() {
    check(
        sessions("Repeatedly(AfterProcessingTime(5))"),
        "
            + a 1
            p 3
            + a 15
            p 4
            + a 8
            p 5
            + a 9
            p 9
            w end
        ",
        expect![[r#"
            + a 1
            p 3
            + a 15
            p 4
            + a 8
            p 5
                a [1, 25) [1, 8, 15] at 24 early 0/-1
            + a 9
            p 9
            w end
                a [1, 25) [9] at 24 on time 1/0 last
        "#]],
    );
}

#[test]
fn after_each_goes_on_in_merged_sessions() {
    check(
        sessions("AfterEach(AfterCount(1), AfterCount(3))"),
        "
            + a 1
            + a 2
            + a 3
            + a 4
            w end
        ",
        expect![[r#"
            + a 1
                a [1, 11) [1] at 10 early 0/-1
            + a 2
            + a 3
            + a 4
                a [1, 14) [2, 3, 4] at 13 early 0/-1 last
            w end
        "#]],
    );
}

#[test]
fn or_finally_in_sessions() {
    check(
        sessions(
            "OrFinally(Repeatedly(AfterAny(AfterCount(2), AfterProcessingTime(50))), AfterAll(AfterCount(3), AfterCount(4)))",
        ),
        "
            + a 1 2
            + a 3
            + a 4
            + a 5
            w end
        ",
        expect![[r#"
            + a 1 2
                a [1, 12) [1, 2] at 11 early 0/-1
            + a 3
            + a 4
                a [1, 14) [3, 4] at 13 early 0/-1 last
            + a 5
            w end
                a [5, 15) [5] at 14 on time 0/0 last
        "#]],
    );
}

#[test]
fn the_earliest_timestamp_of_merged_sessions() {
    check(
        Windowing {
            timestamp_combiner: TimestampCombiner::Earliest,
            ..sessions("Default")
        },
        "
            + a 15
            + a 8
            w end
        ",
        expect![[r#"
            + a 15
            + a 8
            w end
                a [8, 25) [8, 15] at 8 on time 0/0 last
        "#]],
    );
}

/// Merges windows as they are asked for, each ten milliseconds into one.
pub(super) fn answer_all(subject: &mut Subject) -> usize {
    let requests = subject.grouper.take_merge_requests();
    let count = requests.len();
    for (id, windows) in requests {
        let mut merged: Vec<(Window, Vec<Window>)> = Vec::new();
        for window in windows {
            let tens = window.max_timestamp().millis().div_euclid(10) * 10;
            let result = Window::Interval {
                start: Timestamp(tens),
                end: Timestamp(tens + 10),
            };
            match merged.iter_mut().find(|(other, _)| *other == result) {
                Some((_, sources)) => sources.push(window),
                None => merged.push((result, vec![window])),
            }
        }
        subject.grouper.merged(id, merged).expect("it was asked");
    }
    count
}

fn custom(trigger: &str) -> Windowing {
    Windowing {
        window_fn: WindowFn::Custom(SdkWindows { merging: true }),
        ..fixed(trigger)
    }
}

#[test]
fn custom_windows_wait_for_the_sdk() {
    let mut subject = Subject::new(custom("Default"));
    subject.watermark = Timestamp(0);
    assert!(subject.advance().is_empty());
    subject.ingest("a", &[(1, 1), (2, 2), (3, 13)]);
    subject.ingest("b", &[(4, 4)]);
    assert_eq!(subject.grouper.hold(), Timestamp(0));
    // The windows pass, but nothing fires before they have merged.
    subject.watermark = Timestamp(10);
    assert!(subject.advance().is_empty());
    assert_eq!(subject.grouper.hold(), Timestamp(0));
    assert_eq!(answer_all(&mut subject), 2);
    assert_eq!(answer_all(&mut subject), 0);
    let fired: Vec<_> = subject.advance().iter().map(show).collect();
    assert_eq!(
        fired,
        [
            "a [0, 10) [1, 2] at 9 on time 0/0 last",
            "b [0, 10) [4] at 9 on time 0/0 last"
        ]
    );
    assert_eq!(subject.grouper.hold(), Timestamp(19));
    subject.watermark = Timestamp::MAX;
    let fired: Vec<_> = subject.advance().iter().map(show).collect();
    assert_eq!(fired, ["a [10, 20) [3] at 19 on time 0/0 last"]);
    assert!(subject.grouper.is_empty());
}

#[test]
fn values_that_come_while_the_sdk_is_asked_wait_for_the_next_answer() {
    let mut subject = Subject::new(custom("Repeatedly(AfterCount(2))"));
    subject.ingest("a", &[(1, 1)]);
    let requests = subject.grouper.take_merge_requests();
    let window = |start, end| Window::Interval {
        start: Timestamp(start),
        end: Timestamp(end),
    };
    assert_eq!(requests, [(GroupMergeId(0), vec![window(1, 2)])]);
    subject.ingest("a", &[(2, 2), (3, 1)]);
    assert!(subject.grouper.take_merge_requests().is_empty());
    subject
        .grouper
        .merged(GroupMergeId(0), vec![(window(0, 10), vec![window(1, 2)])])
        .unwrap();
    // The pane is there, but one of its key's windows may yet merge with it.
    assert!(subject.advance().is_empty());
    let requests = subject.grouper.take_merge_requests();
    assert_eq!(
        requests,
        [(GroupMergeId(1), vec![window(0, 10), window(2, 3), window(1, 2)])]
    );
    // What the SDK does not name stays as it is.
    let merged = vec![(window(0, 10), vec![window(0, 10), window(1, 2)])];
    subject.grouper.merged(GroupMergeId(1), merged).unwrap();
    let fired: Vec<_> = subject.advance().iter().map(show).collect();
    assert_eq!(fired, ["a [0, 10) [1, 3] at 9 early 0/-1"]);
    // A window that is known needs no question.
    subject.ingest("a", &[(4, 2)]);
    assert!(subject.grouper.take_merge_requests().is_empty() || subject.grouper.has_news());
    subject.watermark = Timestamp::MAX;
    let fired: Vec<_> = subject.advance().iter().map(show).collect();
    assert_eq!(fired, ["a [2, 3) [2, 4] at 2 on time 0/0 last"]);
    assert!(subject.grouper.is_empty());
}

#[test]
fn windows_that_were_fired_merge_by_the_sdks_word() {
    let mut subject = Subject::new(Windowing {
        accumulation: Accumulation::Accumulating,
        ..custom("AfterWatermark(early=AfterCount(1))")
    });
    for value in [1, 11, 2, 12, 5] {
        subject.ingest("a", &[(value, value as i64)]);
        answer_all(&mut subject);
    }
    let fired: Vec<_> = subject.advance().iter().map(show).collect();
    assert_eq!(
        fired,
        [
            "a [0, 10) [1, 2, 5] at 9 early 0/-1",
            "a [10, 20) [11, 12] at 19 early 0/-1"
        ]
    );
    subject.ingest("a", &[(3, 3)]);
    let (id, windows) = subject.grouper.take_merge_requests().remove(0);
    let all = Window::Interval {
        start: Timestamp(0),
        end: Timestamp(20),
    };
    subject.grouper.merged(id, vec![(all, windows)]).unwrap();
    let fired: Vec<_> = subject.advance().iter().map(show).collect();
    assert_eq!(fired, ["a [0, 20) [1, 2, 3, 5, 11, 12] at 19 early 0/-1"]);
}

#[test]
fn answers_that_nobody_asked_for_are_refused() {
    let mut subject = Subject::new(custom("Default"));
    let unknown = GroupMergeId(7);
    assert_eq!(
        subject.grouper.merged(unknown, Vec::new()),
        Err(GroupError::UnknownMerge(unknown))
    );
    // A hostile answer: windows that are not there, and one window in two results.
    subject.ingest("a", &[(1, 1), (2, 2)]);
    let (id, windows) = subject.grouper.take_merge_requests().remove(0);
    let window = |start, end| Window::Interval {
        start: Timestamp(start),
        end: Timestamp(end),
    };
    let merged = vec![
        (
            window(0, 5),
            vec![window(7, 8), windows[0].clone(), windows[0].clone()],
        ),
        (window(3, 9), windows.clone()),
        (Window::Global, vec![Window::Global]),
    ];
    subject.grouper.merged(id, merged).unwrap();
    subject.watermark = Timestamp::MAX;
    let fired: Vec<_> = subject.advance().iter().map(show).collect();
    assert_eq!(fired, ["a [3, 9) [1, 2] at 8 on time 0/0 last"]);
    assert!(subject.grouper.is_empty());
}
