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
