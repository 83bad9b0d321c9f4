//! The trigger algebra, one script each.

use expect_test::expect;

use super::{check, fixed};
use crate::graph::{Accumulation, PaneEmission, WindowFn, Windowing};

fn late(trigger: &str, allowed_lateness_ms: i64) -> Windowing {
    Windowing {
        allowed_lateness_ms,
        ..fixed(trigger)
    }
}

fn accumulating(windowing: Windowing) -> Windowing {
    Windowing {
        accumulation: Accumulation::Accumulating,
        ..windowing
    }
}

#[test]
fn default_fires_at_the_end_of_the_window() {
    check(
        fixed("Default"),
        "
            + a 1 2 11
            + b 3
            w 9
            w 10
            + a 4
            w end
        ",
        expect![[r#"
            + a 1 2 11
            + b 3
            w 9
            w 10
                a [0, 10) [1, 2] at 9 on time 0/0 last
                b [0, 10) [3] at 9 on time 0/0 last
            + a 4
            w end
                a [10, 20) [11] at 19 on time 0/0 last
        "#]],
    );
}

#[test]
fn default_fires_for_each_late_bundle() {
    check(
        late("Default", 20),
        "
            + a 1
            w 10
            + a 2 3
            + b 4
            w 29
            + a 5
            w 30
            + a 6
        ",
        expect![[r#"
            + a 1
            w 10
                a [0, 10) [1] at 9 on time 0/0
            + a 2 3
                a [0, 10) [2, 3] at 9 late 1/1
            + b 4
                b [0, 10) [4] at 9 late 0/0
            w 29
            + a 5
                a [0, 10) [5] at 9 late 2/2
            w 30
            + a 6
        "#]],
    );
}

#[test]
fn default_accumulates_late_data() {
    check(
        accumulating(late("Default", 20)),
        "
            + a 1
            w 10
            + a 2 3
            w end
        ",
        expect![[r#"
            + a 1
            w 10
                a [0, 10) [1] at 9 on time 0/0
            + a 2 3
                a [0, 10) [1, 2, 3] at 9 late 1/1
            w end
        "#]],
    );
}

#[test]
fn after_watermark_closes_the_window() {
    // What comes after the one pane is dropped, but a key that had none gets a pane, which is late.
    check(
        late("AfterWatermark", 20),
        "
            + a 1
            w 10
            + a 2
            + b 3
            + b 4
            w end
        ",
        expect![[r#"
            + a 1
            w 10
                a [0, 10) [1] at 9 on time 0/0 last
            + a 2
            + b 3
                b [0, 10) [3] at 9 late 0/0 last
            + b 4
            w end
        "#]],
    );
}

#[test]
fn early_and_late_firings() {
    check(
        late("AfterWatermark(early=AfterCount(2), late=AfterCount(2))", 20),
        "
            + a 1
            + a 2
            + a 3 4 5
            + a 6
            w 10
            + a 7
            + a 8
            + a 9
            w 30
        ",
        expect![[r#"
            + a 1
            + a 2
                a [0, 10) [1, 2] at 9 early 0/-1
            + a 3 4 5
                a [0, 10) [3, 4, 5] at 9 early 1/-1
            + a 6
            w 10
                a [0, 10) [6] at 9 on time 2/0
            + a 7
            + a 8
                a [0, 10) [7, 8] at 9 late 3/1
            + a 9
            w 30
                a [0, 10) [9] at 9 late 4/2 last
        "#]],
    );
}

#[test]
fn early_and_late_firings_accumulate() {
    check(
        accumulating(late(
            "AfterWatermark(early=AfterCount(2), late=AfterCount(2))",
            20,
        )),
        "
            + a 1 2
            + a 3
            w 10
            + a 4
            + a 5
            w 30
        ",
        expect![[r#"
            + a 1 2
                a [0, 10) [1, 2] at 9 early 0/-1
            + a 3
            w 10
                a [0, 10) [1, 2, 3] at 9 on time 1/0
            + a 4
            + a 5
                a [0, 10) [1, 2, 3, 4, 5] at 9 late 2/1
            w 30
        "#]],
    );
}

#[test]
fn an_empty_on_time_pane_is_told() {
    check(
        fixed("AfterWatermark(early=AfterCount(1))"),
        "
            + a 1
            w 10
        ",
        expect![[r#"
            + a 1
                a [0, 10) [1] at 9 early 0/-1
            w 10
                a [0, 10) [] at 9 on time 1/0 last
        "#]],
    );
}

#[test]
fn an_empty_on_time_pane_is_told_only_if_wanted() {
    check(
        Windowing {
            on_time: PaneEmission::IfNonEmpty,
            ..fixed("AfterWatermark(early=AfterCount(1))")
        },
        "
            + a 1
            w 10
        ",
        expect![[r#"
            + a 1
                a [0, 10) [1] at 9 early 0/-1
            w 10
        "#]],
    );
}

#[test]
fn an_empty_closing_pane_is_told_if_wanted() {
    check(
        Windowing {
            closing: PaneEmission::Always,
            ..late("AfterWatermark(early=AfterCount(1), late=AfterCount(1))", 5)
        },
        "
            + a 1
            w 10
            w 15
        ",
        expect![[r#"
            + a 1
                a [0, 10) [1] at 9 early 0/-1
            w 10
                a [0, 10) [] at 9 on time 1/0
            w 15
                a [0, 10) [] at 9 late 2/1 last
        "#]],
    );
}

#[test]
fn only_late_firings() {
    // Until the end of the window nothing fires, after it each two.
    check(
        late("AfterWatermark(late=AfterCount(2))", 20),
        "
            + a 1 2 3
            w 10
            + a 4
            + a 5
            + a 6
            w end
        ",
        expect![[r#"
            + a 1 2 3
            w 10
                a [0, 10) [1, 2, 3] at 9 on time 0/0
            + a 4
            + a 5
                a [0, 10) [4, 5] at 9 late 1/1
            + a 6
            w end
                a [0, 10) [6] at 9 late 2/2 last
        "#]],
    );
}

#[test]
fn after_count_finishes() {
    // Beam: once the trigger has finished, what follows is dropped; what never filled a pane comes when the window expires.
    check(
        late("AfterCount(3)", 5),
        "
            + a 1 2
            + b 4
            + a 3
            + a 5 6 7
            w 14
            w 15
        ",
        expect![[r#"
            + a 1 2
            + b 4
            + a 3
                a [0, 10) [1, 2, 3] at 9 early 0/-1 last
            + a 5 6 7
            w 14
            w 15
                b [0, 10) [4] at 9 on time 0/0 last
        "#]],
    );
}

#[test]
fn after_count_takes_a_bundle_as_a_whole() {
    check(
        fixed("AfterCount(3)"),
        "
            + a 1 2 3 4 5
            + a 6
            w end
        ",
        expect![[r#"
            + a 1 2 3 4 5
                a [0, 10) [1, 2, 3, 4, 5] at 9 early 0/-1 last
            + a 6
            w end
        "#]],
    );
}

#[test]
fn in_batch_all_comes_in_one_pane() {
    // A caller that looks at triggers only at the end of the input.
    check(
        fixed("AfterCount(3)"),
        "
            . a 1 2
            . a 3 4 5
            . a 10 11
            . b 6 7 8 9
            w end
        ",
        expect![[r#"
            . a 1 2
            . a 3 4 5
            . a 10 11
            . b 6 7 8 9
            w end
                a [0, 10) [1, 2, 3, 4, 5] at 9 on time 0/0 last
                a [10, 20) [10, 11] at 19 on time 0/0 last
                b [0, 10) [6, 7, 8, 9] at 9 on time 0/0 last
        "#]],
    );
}

#[test]
fn repeatedly_after_count() {
    check(
        fixed("Repeatedly(AfterCount(2))"),
        "
            + a 1
            + a 2
            + a 3
            + a 4 5
            + a 6
            w end
        ",
        expect![[r#"
            + a 1
            + a 2
                a [0, 10) [1, 2] at 9 early 0/-1
            + a 3
            + a 4 5
                a [0, 10) [3, 4, 5] at 9 early 1/-1
            + a 6
            w end
                a [0, 10) [6] at 9 on time 2/0 last
        "#]],
    );
}

#[test]
fn after_processing_time_counts_from_the_first_element() {
    check(
        fixed("AfterProcessingTime(5)"),
        "
            p 10
            + a 1
            p 13
            + a 2
            p 14
            p 15
            + a 3
            w end
        ",
        expect![[r#"
            p 10
            + a 1
            p 13
            + a 2
            p 14
            p 15
                a [0, 10) [1, 2] at 9 early 0/-1 last
            + a 3
            w end
        "#]],
    );
}

#[test]
fn repeatedly_after_processing_time() {
    check(
        fixed("Repeatedly(AfterProcessingTime(5))"),
        "
            + a 1
            p 4
            + a 2
            p 5
            + a 3
            p 9
            p 10
            + a 4
            w end
        ",
        expect![[r#"
            + a 1
            p 4
            + a 2
            p 5
                a [0, 10) [1, 2] at 9 early 0/-1
            + a 3
            p 9
            p 10
                a [0, 10) [3] at 9 early 1/-1
            + a 4
            w end
                a [0, 10) [4] at 9 on time 2/0 last
        "#]],
    );
}

#[test]
fn after_synchronized_processing_time() {
    // It waits for the slowest, and as the whole trigger it does not finish.
    check(
        fixed("AfterSynchronizedProcessingTime"),
        "
            s 2
            p 5
            + a 1
            p 9
            s 4
            s 5
            + a 2
            s 9
            w end
        ",
        expect![[r#"
            s 2
            p 5
            + a 1
            p 9
            s 4
            s 5
                a [0, 10) [1] at 9 early 0/-1
            + a 2
            s 9
                a [0, 10) [2] at 9 early 1/-1
            w end
        "#]],
    );
}

#[test]
fn after_each_goes_from_one_to_the_next() {
    check(
        fixed("AfterEach(AfterCount(2), AfterCount(1), AfterWatermark)"),
        "
            + a 1
            + a 2
            + a 3
            + a 4
            w 10
        ",
        expect![[r#"
            + a 1
            + a 2
                a [0, 10) [1, 2] at 9 early 0/-1
            + a 3
                a [0, 10) [3] at 9 early 1/-1
            + a 4
            w 10
                a [0, 10) [4] at 9 on time 2/0 last
        "#]],
    );
}

#[test]
fn after_all_waits_for_all() {
    check(
        fixed("Repeatedly(AfterAll(AfterCount(2), AfterProcessingTime(5)))"),
        "
            + a 1
            p 5
            + a 2
            + a 3 4
            p 9
            p 10
            w end
        ",
        expect![[r#"
            + a 1
            p 5
            + a 2
                a [0, 10) [1, 2] at 9 early 0/-1
            + a 3 4
            p 9
            p 10
                a [0, 10) [3, 4] at 9 early 1/-1
            w end
        "#]],
    );
}

#[test]
fn after_any_fires_with_the_first() {
    // The pane that the other one watched is gone with it.
    check(
        fixed("Repeatedly(AfterAny(AfterCount(3), AfterProcessingTime(5)))"),
        "
            + a 1 2 3
            + a 4
            p 4
            p 5
            + a 5 6 7
            w end
        ",
        expect![[r#"
            + a 1 2 3
                a [0, 10) [1, 2, 3] at 9 early 0/-1
            + a 4
            p 4
            p 5
                a [0, 10) [4] at 9 early 1/-1
            + a 5 6 7
                a [0, 10) [5, 6, 7] at 9 early 2/-1
            w end
        "#]],
    );
}

#[test]
fn or_finally_ends_the_main_trigger() {
    // The other trigger counts over all panes.
    check(
        fixed("OrFinally(Repeatedly(AfterCount(2)), AfterCount(5))"),
        "
            + a 1 2
            + a 3 4
            + a 5
            + a 6 7
            w end
        ",
        expect![[r#"
            + a 1 2
                a [0, 10) [1, 2] at 9 early 0/-1
            + a 3 4
                a [0, 10) [3, 4] at 9 early 1/-1
            + a 5
                a [0, 10) [5] at 9 early 2/-1 last
            + a 6 7
            w end
        "#]],
    );
}

#[test]
fn or_finally_ends_with_the_main_trigger() {
    check(
        fixed("OrFinally(AfterCount(2), AfterWatermark)"),
        "
            + a 1 2
            + a 3
            w end
        ",
        expect![[r#"
            + a 1 2
                a [0, 10) [1, 2] at 9 early 0/-1 last
            + a 3
            w end
        "#]],
    );
}

#[test]
fn always_fires_for_each_bundle() {
    check(
        fixed("Always"),
        "
            + a 1 2
            + a 3
            w 10
        ",
        expect![[r#"
            + a 1 2
                a [0, 10) [1, 2] at 9 early 0/-1
            + a 3
                a [0, 10) [3] at 9 early 1/-1
            w 10
        "#]],
    );
}

#[test]
fn never_fires_when_the_window_expires() {
    check(
        late("Never", 5),
        "
            + a 1
            w 10
            + a 2
            w 14
            w 15
            + a 3
        ",
        expect![[r#"
            + a 1
            w 10
            + a 2
            w 14
            w 15
                a [0, 10) [1, 2] at 9 on time 0/0 last
            + a 3
        "#]],
    );
}

#[test]
fn global_window_by_count() {
    check(
        Windowing {
            window_fn: WindowFn::Global,
            ..accumulating(fixed("Repeatedly(AfterCount(2))"))
        },
        "
            + a 1 2
            + a 3
            + a 4
            w end
        ",
        expect![[r#"
            + a 1 2
                a global [1, 2] at end early 0/-1
            + a 3
            + a 4
                a global [1, 2, 3, 4] at end early 1/-1
            w end
        "#]],
    );
}

#[test]
fn what_is_due_at_once_fires_together() {
    // Elements, the end of the window and its expiry seen at the same time: one pane, and it is the last.
    check(
        late("AfterEach(AfterCount(1), AfterWatermark)", 5),
        "
            . a 1
            w end
        ",
        expect![[r#"
            . a 1
            w end
                a [0, 10) [1] at 9 on time 0/0 last
        "#]],
    );
}

#[test]
fn each_cause_has_its_pane() {
    check(
        late("AfterEach(AfterCount(1), AfterWatermark)", 5),
        "
            + a 1
            w 10
            w end
        ",
        expect![[r#"
            + a 1
                a [0, 10) [1] at 9 early 0/-1
            w 10
                a [0, 10) [] at 9 on time 1/0 last
            w end
        "#]],
    );
}
