//! The transforms, run in this process.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use purlin::prelude::*;

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn pairs(pairs: &[(&str, i64)]) -> Vec<(String, i64)> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), *value))
        .collect()
}

/// Numbers that are their own timestamps, in seconds.
fn timed(p: &Pipeline, seconds: impl IntoIterator<Item = i64, IntoIter: 'static>) -> PCollection<i64> {
    p.apply(Create::new(seconds))
        .par_do_with("Timestamps", |n: i64, ctx: &mut Context<'_, i64>| {
            ctx.output_with_timestamp(n, Timestamp::from_millis(n * 1000));
            Ok(())
        })
}

#[test]
fn words_are_counted() {
    let p = TestPipeline::new();
    let counts = p
        .apply(Create::new(strings(&["to be or not", "to be"])))
        .flat_map("Split", |line: String| {
            line.split(' ').map(str::to_owned).collect::<Vec<_>>()
        })
        .count_per_element();
    PAssert::that(&counts).contains_in_any_order(
        [("to", 2), ("be", 2), ("or", 1), ("not", 1)].map(|(word, n)| (word.to_owned(), n)),
    );
    PAssert::that(&counts.keys().apply(Count::globally())).equals(4);
    p.run();
}

#[test]
fn three_and_four_collections_group_by_one_key() {
    let p = TestPipeline::new();
    let a = p.apply(Create::new([("x".to_owned(), 1i64), ("x".to_owned(), 2)]));
    let b = p.apply(Create::new([("y".to_owned(), "b".to_owned())]));
    let c = p.apply(Create::new([("x".to_owned(), 0.5f64)]));
    let d = p.apply(Create::new([("y".to_owned(), vec![1u8, 2])]));
    type Groups = (Vec<i64>, Vec<String>, Vec<f64>);
    let sorted = |(key, (mut a, b, c)): (String, Groups)| {
        a.sort_unstable();
        (key, (a, b, c))
    };
    let three = (a.clone(), b.clone(), c.clone())
        .apply(CoGroupByKey::new())
        .map("Sort", sorted);
    PAssert::that(&three).contains_in_any_order([
        ("x".to_owned(), (vec![1, 2], vec![], vec![0.5])),
        ("y".to_owned(), (vec![], vec!["b".to_owned()], vec![])),
    ]);
    let four = (
        a.values().map("AsKey", |n: i64| (n, n)),
        b.map("A", |(_, b)| (1i64, b)),
        c.map("B", |(_, c)| (2i64, c)),
        d.map("C", |(_, d)| (2i64, d)),
    )
        .apply(CoGroupByKey::new());
    PAssert::that(&four).contains_in_any_order([
        (1, (vec![1], vec!["b".to_owned()], vec![], vec![])),
        (2, (vec![2], vec![], vec![0.5], vec![vec![1, 2]])),
    ]);
    p.run();
}

#[test]
fn combiners_over_nothing() {
    let p = TestPipeline::new();
    let none = p.apply(Create::new(Vec::<i64>::new()));
    PAssert::that(&none.apply(Count::globally())).equals(0);
    PAssert::that(&none.apply(Sum::globally())).equals(0);
    PAssert::that(&none.apply(ToList::globally())).equals(vec![]);
    PAssert::that(&none.apply(Top::largest(3))).equals(vec![]);
    PAssert::that(&none.apply(Mean::globally()).map("IsNan", f64::is_nan)).equals(true);
    PAssert::that(&none.apply(Min::globally())).is_empty();
    PAssert::that(&none.apply(Max::globally())).is_empty();
    PAssert::that(&none.apply(Latest::globally())).is_empty();
    PAssert::that(&none.distinct()).is_empty();
    p.run();
}

#[test]
fn a_sum_that_does_not_fit_fails() {
    let p = TestPipeline::new();
    p.apply(Create::new([i64::MAX, 1])).apply(Sum::globally());
    let error = p.try_run().unwrap_err().to_string();
    assert!(
        error.contains("Sum.Globally") && error.contains("does not fit i64"),
        "{error}"
    );
}

#[test]
fn combiners_per_key() {
    let p = TestPipeline::new();
    let scores = p.apply(Create::new(pairs(&[("a", 3), ("b", 5), ("a", 1), ("a", 3)])));
    let key = |name: &str| name.to_owned();
    PAssert::that(&scores.apply(Count::per_key())).contains_in_any_order([(key("a"), 3), (key("b"), 1)]);
    PAssert::that(&scores.apply(Sum::per_key())).contains_in_any_order(pairs(&[("a", 7), ("b", 5)]));
    PAssert::that(&scores.apply(Min::per_key())).contains_in_any_order(pairs(&[("a", 1), ("b", 5)]));
    PAssert::that(&scores.apply(Max::per_key())).contains_in_any_order(pairs(&[("a", 3), ("b", 5)]));
    PAssert::that(&scores.apply(Mean::per_key()))
        .contains_in_any_order([(key("a"), 7.0 / 3.0), (key("b"), 5.0)]);
    PAssert::that(&scores.apply(Top::largest_per_key(2)))
        .contains_in_any_order([(key("a"), vec![3, 3]), (key("b"), vec![5])]);
    PAssert::that(&scores.apply(Top::smallest_per_key(1)))
        .contains_in_any_order([(key("a"), vec![1]), (key("b"), vec![5])]);
    let sets = scores
        .apply(ToSet::per_key())
        .map("Sort", |(key, mut set): (String, Vec<i64>)| {
            set.sort_unstable();
            (key, set)
        });
    PAssert::that(&sets).contains_in_any_order([(key("a"), vec![1, 3]), (key("b"), vec![5])]);
    let sizes = scores
        .apply(Sample::fixed_size_per_key(2))
        .map("Size", |(key, s): (String, Vec<i64>)| (key, s.len()));
    PAssert::that(&sizes).contains_in_any_order([(key("a"), 2), (key("b"), 1)]);
    p.run();
}

#[test]
fn windows_combine_apart() {
    let p = TestPipeline::new();
    let windowed =
        timed(&p, [0, 1, 59, 60, 130]).window_into("Minutes", Windowing::fixed(Duration::from_secs(60)));
    let sums = windowed
        .with_keys("One", |_| 0u8)
        .combine_per_key("Sum", Sum::new());
    PAssert::that(&sums.values()).contains_in_any_order([60, 60, 130]);
    let ends = windowed
        .apply(CombineGlobally::new("Count", Count::new()).without_defaults())
        .par_do_with("End", |n: u64, ctx: &mut Context<'_, (i64, u64)>| {
            let end = ctx.window().max_timestamp().millis();
            ctx.output((end, n));
            Ok(())
        });
    PAssert::that(&ends).contains_in_any_order([(59_999, 3), (119_999, 1), (179_999, 1)]);
    p.run();
}

#[test]
fn a_part_that_is_not_there_is_an_error() {
    let p = TestPipeline::new();
    p.apply(Create::new([7i64]))
        .apply(Partition::new(3, |n: &i64| *n as usize));
    let error = p.try_run().unwrap_err().to_string();
    assert!(
        error.contains("Partition/Split") && error.contains("went to part 7, but there are 3"),
        "{error}"
    );
}

#[test]
fn batches_hold_what_they_may() {
    let p = TestPipeline::new();
    let batches = p.apply(Create::new(0..1000i64)).apply(BatchElements::new(10, 64));
    PAssert::that(&batches).satisfies(|batches: &[Vec<i64>]| {
        let mut all: Vec<i64> = batches.iter().flatten().copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
        assert!(batches.iter().all(|batch| (1..=64).contains(&batch.len())));
    });
    let by_size = p
        .apply(Create::new(strings(&["aaaa", "b", "cc", "ddddddddd", "e"])))
        .apply(BatchElements::new(5, 5).element_size(|word: &String| word.len()));
    PAssert::that(&by_size).satisfies(|batches: &[Vec<String>]| {
        for batch in batches {
            assert!(
                batch.len() == 1 || batch.iter().map(String::len).sum::<usize>() <= 5,
                "{batch:?}"
            );
        }
    });
    let result = p.run();
    // 1000 numbers, and words of 17 letters.
    assert_eq!(
        result.metrics().distribution("BatchElements", "batch_size").sum,
        1000 + 17
    );
}

#[test]
fn batches_stay_in_their_windows() {
    let p = TestPipeline::new();
    // More windows than may be open at the same time.
    let batches = timed(&p, 0..1000i64)
        .window_into("Ten", Windowing::fixed(Duration::from_secs(40)))
        .apply(BatchElements::new(7, 7))
        .par_do_with("At", |batch: Vec<i64>, ctx: &mut Context<'_, (Vec<i64>, i64)>| {
            let at = ctx.timestamp().millis();
            assert_eq!(ctx.window().max_timestamp().millis(), at);
            ctx.output((batch, at));
            Ok(())
        });
    PAssert::that(&batches).satisfies(|batches: &[(Vec<i64>, i64)]| {
        assert_eq!(batches.iter().map(|(batch, _)| batch.len()).sum::<usize>(), 1000);
        for (batch, at) in batches {
            assert!(
                batch.len() <= 7 && batch.iter().all(|n| n / 40 == at / 40_000),
                "{batch:?} at {at}"
            );
        }
    });
    p.run();
}

#[test]
fn batch_limits_that_cannot_be_are_problems() {
    let p = TestPipeline::new();
    p.apply(Create::new([1i64]))
        .apply(BatchElements::new(9, 3).target_batch_overhead(7.0));
    let error = p.try_run().unwrap_err().to_string();
    assert!(
        error.contains("the smallest batch size, 9, is larger than the largest, 3"),
        "{error}"
    );
    assert!(error.contains("target_batch_overhead is 7"), "{error}");
}

/// A clock by which each batch takes 10 ms and 1 ms more for each element.
#[test]
fn batches_adapt_to_the_time_they_take() {
    static MICROS: AtomicUsize = AtomicUsize::new(0);
    let p = TestPipeline::new();
    let batches = p
        .apply(Create::new([0i64]))
        .flat_map("Many", |_| 0..20_000i64)
        .apply(
            BatchElements::new(1, 10_000)
                .target_batch_overhead(0.1)
                .target_batch_duration_secs(None)
                .variance(0.0)
                .clock(|| Duration::from_micros(MICROS.load(Ordering::Relaxed) as u64)),
        )
        .map("Work", |batch: Vec<i64>| {
            MICROS.fetch_add(10_000 + 1_000 * batch.len(), Ordering::Relaxed);
            batch.len()
        });
    PAssert::that(&batches).satisfies(|sizes: &[usize]| {
        // 10 ms are a tenth of the whole where the elements take 90 ms.
        let near = sizes.iter().filter(|size| (85..=95).contains(*size)).count();
        assert!(near * 10 > sizes.len() * 8, "{sizes:?}");
    });
    p.run();
}

#[test]
fn an_assertion_that_fails_says_how() {
    let p = TestPipeline::new();
    let numbers = p.apply(Create::new([1i64, 2, 2]));
    PAssert::that(&numbers)
        .named("Numbers")
        .contains_in_any_order([2, 3]);
    let error = p.try_run().unwrap_err().to_string();
    assert!(error.contains("Numbers/Verify"), "{error}");
    assert!(
        error.contains("the collection has 3 elements, 2 were expected; missing: [3]; unexpected: ["),
        "{error}"
    );

    let p = TestPipeline::new();
    PAssert::that(&p.apply(Create::new([1i64]))).is_empty();
    assert!(
        p.try_run()
            .unwrap_err()
            .to_string()
            .contains("expected no elements, but there are 1: [1]")
    );

    let p = TestPipeline::new();
    PAssert::that(&p.apply(Create::new(Vec::<i64>::new()))).equals(1);
    assert!(p.try_run().unwrap_err().to_string().contains("missing: [1]"));
}

#[test]
fn large_collections_are_compared() {
    let p = TestPipeline::new();
    PAssert::that(&p.apply(Create::new(0..100_000i64)).reshuffle("Spread")).contains_in_any_order(0..100_000);
    p.run();
}
