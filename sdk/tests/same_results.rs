//! What must make no difference: how work is cut into bundles, how many threads there are, and whether combining happens
//! before the grouping.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use purlin::prelude::*;

fn run(p: &TestPipeline, threads: u32) {
    let options = PipelineOptions {
        direct_num_workers: threads,
        ..PipelineOptions::default()
    };
    p.run_with(&options);
}

/// Combines as Beam says it is done without lifting: all values of a key, after the grouping.
fn without_lifting<F: CombineFn<In = i64> + Sync>(
    pairs: &PCollection<(u8, i64)>,
    combine: F,
) -> PCollection<(u8, F::Out)> {
    pairs
        .group_by_key("Group")
        .map("Combine", move |(key, values): (u8, Vec<i64>)| {
            let mut accumulator = combine.create_accumulator();
            values
                .into_iter()
                .for_each(|value| combine.add_input(&mut accumulator, value));
            (key, combine.extract_output(accumulator))
        })
}

/// Both collections hold the same, or the pipeline fails.
fn assert_same<T: Element + std::fmt::Debug + PartialEq + Sync>(
    name: &str,
    a: &PCollection<T>,
    b: &PCollection<T>,
) {
    let tagged = |pc: &PCollection<T>, tag: bool| pc.map("Tag", move |element: T| (element.to_bytes(), tag));
    let both = vec![tagged(a, true), tagged(b, false)].apply(Flatten::new());
    PAssert::that(&both)
        .named(name)
        .satisfies(|elements: &[(Vec<u8>, bool)]| {
            let mut counts: BTreeMap<&[u8], i64> = BTreeMap::new();
            for (bytes, tag) in elements {
                *counts.entry(bytes).or_default() += if *tag { 1 } else { -1 };
            }
            for (bytes, count) in counts {
                let element = T::from_bytes(bytes).expect("an element decodes");
                assert_eq!(count, 0, "{element:?} is in one more often than in the other");
            }
        });
}

#[test]
fn groups_that_are_read_by_page_are_the_same() {
    let p = TestPipeline::new();
    let pairs = p
        .apply(Create::new(0i64..30_000))
        .map("Pair", |n| ((n % 3) as u8, n));
    let by_page =
        pairs
            .group_by_key_as_iterables("ByPage")
            .try_map("Sum", |(key, values): (u8, Elements<i64>)| {
                let first: i64 = values.iter().sum::<Result<i64, BoxError>>()?;
                let second: i64 = values.iter().sum::<Result<i64, BoxError>>()?;
                Ok::<_, BoxError>((key, if first == second { first } else { -1 }))
            });
    assert_same("ByPage", &by_page, &without_lifting(&pairs, Sum::new()));
    // Iterables that go on are whole.
    let on = pairs.group_by_key_as_iterables("On").reshuffle("Spread").try_map(
        "Sum",
        |(key, values): (u8, Elements<i64>)| {
            Ok::<_, BoxError>((key, values.iter().sum::<Result<i64, BoxError>>()?))
        },
    );
    assert_same("On", &on, &pairs.combine_per_key("Lifted", Sum::new()));
    let options = PipelineOptions {
        experiments: vec!["state_backed_iterable_bytes=1000".into()],
        ..PipelineOptions::default()
    };
    p.run_with(&options);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lifting_makes_no_difference(
        pairs in prop::collection::vec((0u8..5, -100i64..100), 0..200),
        threads in 1u32..5,
    ) {
        let p = TestPipeline::new();
        let pairs = p.apply(Create::new(pairs)).reshuffle("Spread");
        assert_same("Sum", &pairs.combine_per_key("Lifted", Sum::new()), &without_lifting(&pairs, Sum::new()));
        assert_same("Count", &pairs.combine_per_key("Lifted", Count::new()), &without_lifting(&pairs, Count::new()));
        assert_same("Max", &pairs.combine_per_key("Lifted", Max::new()), &without_lifting(&pairs, Max::new()));
        assert_same(
            "Top",
            &pairs.combine_per_key("Lifted", purlin::transforms::TopFn::largest(3)),
            &without_lifting(&pairs, purlin::transforms::TopFn::largest(3)),
        );
        run(&p, threads);
    }

    #[test]
    fn lifting_makes_no_difference_in_windows(
        pairs in prop::collection::vec((0u8..3, 0i64..300), 0..200),
        sliding in any::<bool>(),
        threads in 1u32..4,
    ) {
        let windowing = match sliding {
            true => Windowing::sliding(Duration::from_secs(60), Duration::from_secs(20)),
            false => Windowing::sessions(Duration::from_secs(7)),
        };
        let p = TestPipeline::new();
        let pairs = p
            .apply(Create::new(pairs))
            .par_do_with("Timestamps", |pair: (u8, i64), ctx: &mut Context<'_, (u8, i64)>| {
                ctx.output_with_timestamp(pair, Timestamp::from_millis(pair.1 * 1000));
                Ok(())
            })
            .window_into("Windows", windowing);
        let end = |element: (u8, i64), ctx: &mut Context<'_, (i64, (u8, i64))>| -> DoFnResult {
            let end = ctx.window().max_timestamp().millis();
            ctx.output((end, element));
            Ok(())
        };
        let lifted = pairs.combine_per_key("Lifted", Sum::new()).par_do_with("End", end);
        let plain = without_lifting(&pairs, Sum::new()).par_do_with("End", end);
        assert_same("Sums", &lifted, &plain);
        run(&p, threads);
    }

    #[test]
    fn threads_make_no_difference(numbers in prop::collection::vec(0i64..1000, 0..500), threads in 1u32..8) {
        let distinct: BTreeSet<i64> = numbers.iter().copied().collect();
        let sum: i64 = numbers.iter().sum();
        let mut by_last_digit: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        numbers.iter().for_each(|n| by_last_digit.entry(n % 10).or_default().push(*n));
        by_last_digit.values_mut().for_each(|values| values.sort_unstable());

        let p = TestPipeline::new();
        let numbers = p.apply(Create::new(numbers)).reshuffle("Spread");
        PAssert::that(&numbers.distinct()).contains_in_any_order(distinct);
        PAssert::that(&numbers.apply(Sum::globally())).equals(sum);
        let grouped = numbers.with_keys("LastDigit", |n: &i64| n % 10).group_by_key("Group").map(
            "Sort",
            |(key, mut values): (i64, Vec<i64>)| {
                values.sort_unstable();
                (key, values)
            },
        );
        PAssert::that(&grouped).contains_in_any_order(by_last_digit);
        run(&p, threads);
    }
}

/// On each runner that the environment names; `tests/test_rust_suite.py` names more than there are by default.
#[purlin::test]
fn runners_make_no_difference(p: TestPipeline) {
    let numbers =
        p.apply(Create::new(0..20i64))
            .par_do_with("Timestamps", |n: i64, ctx: &mut Context<'_, i64>| {
                ctx.output_with_timestamp(n, Timestamp::from_millis(n * 1000));
                Ok(())
            });
    let sums = numbers
        .map("Key", |n: i64| (n % 2, n))
        .window_into("Windows", Windowing::fixed(Duration::from_secs(10)))
        .combine_per_key("Sum", Sum::new());
    let window = |start: i64| IntervalWindow {
        start: Timestamp::from_millis(start * 1000),
        end: Timestamp::from_millis((start + 10) * 1000),
    };
    PAssert::that(&sums)
        .in_window(window(0))
        .contains_in_any_order([(0, 20), (1, 25)]);
    PAssert::that(&sums)
        .in_on_time_pane(window(10))
        .contains_in_any_order([(0, 70), (1, 75)]);
    PAssert::that(&sums)
        .in_only_pane(window(10))
        .contains_in_any_order([(0, 70), (1, 75)]);
    PAssert::that(&sums).in_late_panes(window(0)).is_empty();
    PAssert::that(&sums).in_window(Window::Global).is_empty();
    p.run();
}

/// A test may give an error, and may be in a module.
mod inner {
    use purlin::prelude::*;
    use purlin::windowing::IntoWindow;

    #[purlin::test]
    fn a_failure_is_seen_on_each_runner(p: TestPipeline) -> Result<(), BoxError> {
        let numbers = p.apply(Create::new([1i64, 2]));
        let first = IntervalWindow {
            start: Timestamp::from_millis(0),
            end: Timestamp::from_millis(1000),
        };
        PAssert::that(&numbers)
            .named("Early")
            .in_window(first)
            .contains_in_any_order([1, 2]);
        let error = match p.try_run() {
            Ok(_) => return Err("elements of no such window were found".into()),
            Err(error) => error.to_string(),
        };
        let window = format!("window {}", first.into_window());
        for part in ["Early/Verify", &window, "missing: [1, 2]; unexpected: []"] {
            if !error.contains(part) {
                return Err(format!("{part:?} is not in {error:?}").into());
            }
        }
        Ok(())
    }
}

#[test]
fn a_pane_that_is_not_the_only_one_fails() {
    let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
    let window = IntervalWindow {
        start: at(0),
        end: at(10),
    };
    let error = |assert: fn(PAssert<i64>, IntervalWindow)| {
        let p = TestPipeline::new();
        let trigger = Trigger::after_end_of_window()
            .late(Trigger::ElementCount(1))
            .into();
        let windows = Windowing::fixed(Duration::from_secs(10))
            .trigger(trigger)
            .allowed_lateness(Duration::from_secs(60));
        let sums = p
            .apply(
                TestStream::new()
                    .element(1i64, at(3))
                    .advance_watermark_to(at(10))
                    .element(2, at(4)),
            )
            .window_into("Windows", windows)
            .map("Key", |n: i64| ((), n))
            .combine_per_key("Sum", Sum::new())
            .values();
        assert(PAssert::that(&sums).named("Sums"), window);
        p.try_run()
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    assert_eq!(
        error(|sums, window| sums.in_window(window).contains_in_any_order([1, 2])),
        ""
    );
    assert_eq!(error(|sums, window| sums.in_on_time_pane(window).equals(1)), "");
    let text = error(|sums, window| sums.in_only_pane(window).contains_in_any_order([1, 2]));
    assert!(
        text.contains("\"Sums/Pick the only pane of window [0.000s, 10.000s)")
            && text.contains("one of several"),
        "{text}"
    );
    let text = error(|sums, window| sums.in_late_panes(window).equals(3));
    assert!(
        text.contains("\"Sums/Verify the late panes of window [0.000s, 10.000s)\"")
            && text.contains("missing: [3]; unexpected: [2]"),
        "{text}"
    );
    let text = error(|sums, window| {
        sums.in_early_panes(window)
            .satisfies(|sums: &[i64]| assert_eq!(sums, [5]))
    });
    assert!(
        text.contains("the early panes of window [0.000s, 10.000s)") && text.contains("left: []"),
        "{text}"
    );
}
