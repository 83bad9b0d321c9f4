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
fn batches_hold_a_group_of_a_largest_weight() {
    let p = TestPipeline::new();
    // More groups than may be open at the same time.
    let batches = p.apply(Create::new(0..9000i64)).apply(
        BatchElements::new(1, 100)
            .group_by(|n: &i64| n % 3000)
            .max_weight(3000, |n: &i64| (*n % 3000) as usize),
    );
    PAssert::that(&batches).satisfies(|batches: &[Vec<i64>]| {
        let mut all: Vec<i64> = batches.iter().flatten().copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..9000).collect::<Vec<_>>());
        for batch in batches {
            assert!(batch.iter().all(|n| n % 3000 == batch[0] % 3000), "{batch:?}");
            let weight: i64 = batch.iter().map(|n| n % 3000).sum();
            assert!(batch.len() == 1 || weight <= 3000, "{batch:?}");
        }
    });
    p.run();
}

#[test]
fn small_batches_are_dropped_on_demand() {
    let p = TestPipeline::new();
    let batches = p
        .apply(Create::new([0i64]))
        .flat_map("Numbers", |_| 0..10i64)
        .apply(BatchElements::new(4, 4).drop_partial_batches());
    PAssert::that(&batches).contains_in_any_order([vec![0, 1, 2, 3], vec![4, 5, 6, 7]]);
    let result = p.run();
    assert_eq!(result.metrics().counter("BatchElements", "dropped"), 2);
}

#[test]
fn batches_of_keys_fill_across_bundles_and_go_when_their_time_is_over() {
    let second = Duration::from_secs(1);
    let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
    let element = |key: &str, n: i64| ((key.to_owned(), n), at(n));
    let p = TestPipeline::new();
    let mut stream = TestStream::new();
    for (element, timestamp) in [element("a", 1), element("b", 2), element("a", 3), element("a", 4)] {
        stream = stream.element(element, timestamp);
    }
    // What is not full after ten seconds goes: the second batch of a, and that of b.
    let (element, timestamp) = element("b", 70);
    let stream = stream
        .advance_processing_time(11 * second)
        .element(element, timestamp)
        .advance_watermark_to(at(100));
    let batches = p
        .apply(stream)
        .window_into("Minutes", Windowing::fixed(60 * second))
        .apply(GroupIntoBatches::of_size(2).max_buffering_duration(10 * second))
        .par_do_with(
            "At",
            |(key, batch): (String, Vec<i64>), ctx: &mut Context<'_, (String, (Vec<i64>, i64))>| {
                let at = ctx.timestamp().millis();
                ctx.output((key, (batch, at)));
                Ok(())
            },
        );
    let batch = |key: &str, batch: &[i64], at: i64| (key.to_owned(), (batch.to_vec(), at));
    PAssert::that(&batches).contains_in_any_order([
        batch("a", &[1, 3], 3000),
        batch("b", &[2], 2000),
        batch("a", &[4], 4000),
        // With ten seconds still to go, its window ended.
        batch("b", &[70], 119_999),
    ]);
    p.run();
}

#[test]
fn the_last_batches_of_keys_do_not_wait_and_weigh_no_more_than_they_may() {
    let p = TestPipeline::new();
    let hour = Duration::from_secs(3600);
    let batches = p
        .apply(Create::new([0i64]))
        .flat_map("Numbers", |_| (1..=10i64).map(|n| (n % 2, n)))
        .apply(
            GroupIntoBatches::of_size(3)
                .max_weight(8, |n: &i64| *n as usize)
                .max_buffering_duration(hour),
        );
    PAssert::that(&batches).contains_in_any_order([
        (1, vec![1, 3]),
        (1, vec![5]),
        (1, vec![7]),
        (1, vec![9]),
        (0, vec![2, 4]),
        (0, vec![6]),
        (0, vec![8]),
        (0, vec![10]),
    ]);
    let at_once = p
        .apply(Create::new([(1i64, 1i64), (1, 2)]))
        .apply(GroupIntoBatches::of_size(100).max_buffering_duration(Duration::ZERO));
    PAssert::that(&at_once)
        .named("AtOnce")
        .contains_in_any_order([(1, vec![1]), (1, vec![2])]);
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
    let p = TestPipeline::new();
    let pairs = p.apply(Create::new([(1i64, 1i64)]));
    pairs.apply(GroupIntoBatches::of_size(0));
    pairs.apply(GroupIntoBatches::of_size(1).max_weight(0, |_: &i64| 1));
    pairs.apply(BatchElements::new(1, 1).max_weight(0, |_: &(i64, i64)| 1));
    let error = p.try_run().unwrap_err().to_string();
    for part in [
        "for 3 reasons",
        "the size of its batches is 0",
        "the largest weight of its batches is 0",
        "the largest weight of a batch is 0",
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
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
