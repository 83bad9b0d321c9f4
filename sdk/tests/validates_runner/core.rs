//! Elements, side inputs, groupings, windows, metrics, failures.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use purlin::prelude::*;

/// A folder for this case, the same one in all of its processes.
pub static SCRATCH: OnceLock<PathBuf> = OnceLock::new();

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Elements of the key "k", each at its own time.
pub fn at_seconds(p: &TestPipeline, seconds: &[i64]) -> PCollection<(String, i64)> {
    let pairs: Vec<(String, i64)> = seconds.iter().map(|s| ("k".to_owned(), *s)).collect();
    with_timestamps(&p.apply(Create::new(pairs)))
}

/// Values are seconds.
pub fn with_timestamps(pairs: &PCollection<(String, i64)>) -> PCollection<(String, i64)> {
    pairs.par_do_with(
        "Timestamps",
        |pair: (String, i64), ctx: &mut Context<'_, (String, i64)>| {
            let at = Timestamp::from_millis(pair.1 * 1000);
            ctx.output_with_timestamp(pair, at);
            Ok(())
        },
    )
}

/// The end of each element's window, in seconds, with the value.
fn with_end(pc: &PCollection<(String, i64)>) -> PCollection<(i64, i64)> {
    pc.par_do_with(
        "End",
        |(_, n): (String, i64), ctx: &mut Context<'_, (i64, i64)>| {
            let end = (ctx.window().max_timestamp().millis() + 1) / 1000;
            ctx.output((end, n));
            Ok(())
        },
    )
}

pub fn impulse(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let one = p
        .apply(Impulse)
        .par_do_with("Look", |bytes: Vec<u8>, ctx: &mut Context<'_, bool>| {
            ctx.output(
                bytes.is_empty() && ctx.timestamp() == Timestamp::MIN && *ctx.window() == Window::Global,
            );
            Ok(())
        });
    PAssert::that(&one).contains_in_any_order([true]);
    p.run_with(o);
}

pub fn create(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let numbers = p.apply(Create::new(0i64..5000));
    PAssert::that(&numbers).contains_in_any_order(0i64..5000);
    let other = p.apply_named("Words", Create::new(words("a b a")));
    PAssert::that(&other)
        .named("Words")
        .contains_in_any_order(words("a a b"));
    p.run_with(o);
}

pub fn par_do_chain(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let mut numbers = p.apply(Create::new(0i64..100));
    for step in 0..30 {
        numbers = numbers.map(&format!("Add{step}"), |n| n + 1);
    }
    let some = numbers
        .filter("Even", |n: &i64| n % 2 == 0)
        .flat_map("Twice", |n: i64| [n, n])
        .try_map("Check", |n: i64| if n < 1000 { Ok(n) } else { Err("too large") });
    let expected: Vec<i64> = (30i64..130).filter(|n| n % 2 == 0).flat_map(|n| [n, n]).collect();
    PAssert::that(&some).contains_in_any_order(expected);
    p.run_with(o);
}

pub fn tagged_outputs(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let odd = OutputTag::<String>::new("odd");
    let large = OutputTag::<(i64, bool)>::new("large");
    let (odd_tag, large_tag) = (odd.clone(), large.clone());
    let (even, (odd, large)) = p.apply(Create::new(0i64..10)).apply(
        ParDo::of("Sort", move |n: i64, ctx: &mut Context<'_, i64>| {
            match n % 2 {
                0 => ctx.output(n),
                _ => ctx.output_to(&odd_tag, n.to_string()),
            }
            if n > 7 {
                ctx.output_to(&large_tag, (n, true));
            }
            Ok(())
        })
        .with_outputs((&odd, &large)),
    );
    PAssert::that(&even)
        .named("Even")
        .contains_in_any_order([0, 2, 4, 6, 8]);
    PAssert::that(&odd)
        .named("Odd")
        .contains_in_any_order(words("1 3 5 7 9"));
    PAssert::that(&large)
        .named("Large")
        .contains_in_any_order([(8, true), (9, true)]);
    p.run_with(o);
}

pub fn flatten(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let parts: Vec<PCollection<i64>> = (0..4)
        .map(|part: i64| p.apply_named(&format!("Part{part}"), Create::new(part * 10..part * 10 + 3)))
        .collect();
    let all = parts.apply(Flatten::new()).map("Next", |n| n + 1);
    PAssert::that(&all).contains_in_any_order([1, 2, 3, 11, 12, 13, 21, 22, 23, 31, 32, 33]);
    p.run_with(o);
}

pub fn flatten_twice(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let numbers = p.apply(Create::new([1i64, 2]));
    let twice = [numbers.clone(), numbers].apply(Flatten::new());
    PAssert::that(&twice).contains_in_any_order([1, 1, 2, 2]);
    p.run_with(o);
}

pub fn flatten_of_other_producers(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let numbers = p.apply(Create::new([("a".to_owned(), 1i64)]));
    let grouped = numbers
        .group_by_key("Group")
        .map("Sum", |(k, v): (String, Vec<i64>)| (k, v.iter().sum::<i64>()));
    let all = [numbers, grouped]
        .apply(Flatten::new())
        .combine_per_key("Sum", Sum::new());
    PAssert::that(&all).contains_in_any_order([("a".to_owned(), 2)]);
    p.run_with(o);
}

pub fn group_by_key(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let grouped = p
        .apply(Create::new(
            (0i64..1000)
                .map(|n| (format!("key {}", n % 7), n))
                .collect::<Vec<_>>(),
        ))
        .group_by_key("Group")
        .map("Size", |(key, values): (String, Vec<i64>)| {
            (key, values.len() as i64, values.iter().sum::<i64>())
        });
    let expected = (0i64..7).map(|key| {
        let values: Vec<i64> = (0i64..1000).filter(|n| n % 7 == key).collect();
        (
            format!("key {key}"),
            values.len() as i64,
            values.iter().sum::<i64>(),
        )
    });
    PAssert::that(&grouped).contains_in_any_order(expected);
    let bytes = p
        .apply(Create::new([(1i64, 200u8), (2, 7), (1, 3)]))
        .group_by_key("GroupBytes")
        .map("Sort", |(key, mut values): (i64, Vec<u8>)| {
            values.sort_unstable();
            (key, values)
        });
    PAssert::that(&bytes).contains_in_any_order([(1i64, vec![3u8, 200]), (2, vec![7])]);
    p.run_with(o);
}

/// A key with so many values that our runner keeps most of them, to be read page by page.
pub fn large_groups(o: &PipelineOptions) {
    const PARTS: i64 = 20;
    const OF_EACH: i64 = 1000;
    let p = TestPipeline::new();
    let pairs = p
        .apply(Create::new((0..PARTS).collect::<Vec<_>>()))
        .flat_map("Values", |part: i64| {
            (0..OF_EACH).map(move |n| ("key".to_owned(), (part * OF_EACH + n, vec![b'v'; 1000])))
        });
    let by_page = pairs.group_by_key_as_iterables("Group").try_map(
        "Twice",
        |(_, values): (String, Elements<(i64, Vec<u8>)>)| {
            let (mut count, mut sum) = (0i64, 0);
            for value in values.iter().chain(&values) {
                let (number, bytes) = value?;
                count += i64::from(bytes.len() == 1000);
                sum += number;
            }
            Ok::<_, BoxError>((count, sum))
        },
    );
    let total = PARTS * OF_EACH;
    PAssert::that(&by_page).equals((2 * total, total * (total - 1)));
    let at_once = pairs
        .group_by_key("AtOnce")
        .map("Once", |(_, values): (String, Vec<(i64, Vec<u8>)>)| {
            (
                values.len() as i64,
                values.iter().map(|(number, _)| number).sum::<i64>(),
            )
        });
    PAssert::that(&at_once).equals((total, total * (total - 1) / 2));
    p.run_with(o);
}

pub fn reshuffle(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let spread = at_seconds(&p, &[3, 14])
        .window_into("Windows", Windowing::fixed(Duration::from_secs(10)))
        .reshuffle("Spread")
        .par_do_with(
            "Look",
            |(_, n): (String, i64), ctx: &mut Context<'_, (i64, i64, i64)>| {
                let end = (ctx.window().max_timestamp().millis() + 1) / 1000;
                ctx.output((n, ctx.timestamp().millis(), end));
                Ok(())
            },
        );
    PAssert::that(&spread).contains_in_any_order([(3, 3000, 10), (14, 14_000, 20)]);
    p.run_with(o);
}

pub fn combine(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let numbers = p.apply(Create::new(1i64..=100)).reshuffle("Spread");
    PAssert::that(&numbers.apply(Sum::globally()))
        .named("Sum")
        .equals(5050);
    let by_last_digit = numbers
        .with_keys("Digit", |n: &i64| n % 10)
        .combine_per_key("Max", Max::new());
    let expected = (0i64..10).map(|digit| (digit, Some(if digit == 0 { 100 } else { 90 + digit })));
    PAssert::that(&by_last_digit.map("Some", |(k, v): (i64, _)| (k, Some(v))))
        .contains_in_any_order(expected);
    p.run_with(o);
}

pub fn co_group_by_key(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let pair = |k: &str, n: i64| (k.to_owned(), n);
    let a = p.apply_named("A", Create::new([pair("x", 1), pair("y", 2), pair("x", 3)]));
    let b = p.apply_named(
        "B",
        Create::new([("x".to_owned(), true), ("z".to_owned(), false)]),
    );
    let joined = (a, b).apply(CoGroupByKey::new()).map(
        "Sort",
        |(key, (mut numbers, flags)): (String, (Vec<i64>, Vec<bool>))| {
            numbers.sort_unstable();
            (key, (numbers, flags))
        },
    );
    PAssert::that(&joined).contains_in_any_order([
        ("x".to_owned(), (vec![1, 3], vec![true])),
        ("y".to_owned(), (vec![2], vec![])),
        ("z".to_owned(), (vec![], vec![false])),
    ]);
    p.run_with(o);
}

pub fn empty(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let none = p.apply(Create::new(Vec::<i64>::new()));
    PAssert::that(&none).named("None").is_empty();
    PAssert::that(&none.apply(Sum::globally())).named("Sum").equals(0);
    p.run_with(o);
}

fn large_keys(o: &PipelineOptions, bytes: usize) {
    let p = TestPipeline::new();
    let lengths = p
        .apply(Create::new(
            [("a", 1i64), ("b", 2), ("a", 3)].map(|(k, n)| (k.repeat(bytes), n)),
        ))
        .group_by_key("Group")
        .map("Length", |(key, values): (String, Vec<i64>)| {
            (key.len() as i64, values.iter().sum::<i64>())
        });
    PAssert::that(&lengths).contains_in_any_order([(bytes as i64, 4), (bytes as i64, 2)]);
    p.run_with(o);
}

pub fn keys_of_10_kb(o: &PipelineOptions) {
    large_keys(o, 10_000);
}

pub fn keys_of_1_mb(o: &PipelineOptions) {
    large_keys(o, 1_000_000);
}

pub fn side_inputs(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let one = p.apply_named("One", Create::new([7i64])).as_singleton();
    let none = p
        .apply_named("None", Create::new(Vec::<i64>::new()))
        .as_singleton_or(-1);
    let list = p.apply_named("List", Create::new([3i64, 1, 2])).as_list();
    let (a, b, c) = (one.clone(), none.clone(), list.clone());
    let out = p.apply(Create::new([100i64, 200])).apply(
        ParDo::of("Read", move |n: i64, ctx: &mut Context<'_, i64>| {
            let sum: i64 = ctx.side(&c)?.iter().sum();
            let out = n + *ctx.side(&a)? + *ctx.side(&b)? + sum;
            ctx.output(out);
            Ok(())
        })
        .with_side_input(&one)
        .with_side_input(&none)
        .with_side_input(&list),
    );
    PAssert::that(&out).contains_in_any_order([112, 212]);
    p.run_with(o);
}

pub fn side_inputs_of_other_types(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let names = p
        .apply_named(
            "Names",
            Create::new([(1i64, "one".to_owned()), (2, "two".to_owned())]),
        )
        .as_map();
    let flags = p
        .apply_named(
            "Flags",
            Create::new([("one".to_owned(), true), ("one".to_owned(), false)]),
        )
        .as_multimap();
    let (a, b) = (names.clone(), flags.clone());
    let out = p.apply(Create::new([1i64, 2, 3])).apply(
        ParDo::of("Read", move |n: i64, ctx: &mut Context<'_, (String, i64)>| {
            let name = ctx.side(&a)?.get(&n).cloned().unwrap_or_default();
            let flags = ctx.side(&b)?.get(&name).map_or(0, |flags| flags.len() as i64);
            ctx.output((name, flags));
            Ok(())
        })
        .with_side_input(&names)
        .with_side_input(&flags),
    );
    let expected = [("one", 2), ("two", 0), ("", 0)].map(|(name, n)| (name.to_owned(), n));
    PAssert::that(&out).contains_in_any_order(expected);
    p.run_with(o);
}

pub fn side_inputs_by_window(o: &PipelineOptions) {
    side_inputs_in(Windowing::fixed(Duration::from_secs(60)), o);
}

/// Of sliding windows the earliest is read.
pub fn side_inputs_by_sliding_window(o: &PipelineOptions) {
    let seconds = Duration::from_secs;
    side_inputs_in(Windowing::sliding(seconds(60), seconds(30)), o);
}

fn side_inputs_in(windowing: Windowing, o: &PipelineOptions) {
    let p = TestPipeline::new();
    let side = at_seconds(&p, &[1, 2, 61])
        .window_into("SideWindows", windowing)
        .values()
        .as_list();
    let view = side.clone();
    let out = at_seconds(&p, &[5, 35, 65])
        .window_into("MainWindows", Windowing::fixed(Duration::from_secs(30)))
        .apply(
            ParDo::of(
                "Read",
                move |(_, n): (String, i64), ctx: &mut Context<'_, (i64, i64)>| {
                    let sum = ctx.side(&view)?.iter().sum();
                    ctx.output((n, sum));
                    Ok(())
                },
            )
            .with_side_input(&side),
        );
    PAssert::that(&out).contains_in_any_order([(5, 3), (35, 3), (65, 61)]);
    p.run_with(o);
}

/// Says in what order its methods are called.
#[derive(Clone, Default)]
struct Lifecycle {
    set_up: bool,
    in_bundle: bool,
    held: Vec<i64>,
}

impl DoFn for Lifecycle {
    type In = i64;
    type Out = i64;
    fn setup(&mut self) -> DoFnResult {
        assert!(!self.set_up);
        self.set_up = true;
        Ok(())
    }
    fn start_bundle(&mut self) -> DoFnResult {
        assert!(self.set_up && !self.in_bundle);
        self.in_bundle = true;
        Ok(())
    }
    fn process(&mut self, element: i64, _: &mut Context<'_, i64>) -> DoFnResult {
        assert!(self.in_bundle);
        self.held.push(element);
        Ok(())
    }
    fn finish_bundle(&mut self, ctx: &mut FinishContext<'_, i64>) -> DoFnResult {
        assert!(self.in_bundle);
        self.in_bundle = false;
        for element in self.held.drain(..) {
            ctx.output(element * 2, Timestamp::from_millis(0), Window::Global);
        }
        Ok(())
    }
}

pub fn lifecycle(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let out = p
        .apply(Create::new(0i64..50))
        .reshuffle("Spread")
        .par_do("Lifecycle", Lifecycle::default());
    PAssert::that(&out).contains_in_any_order((0i64..50).map(|n| n * 2));
    p.run_with(o);
}

fn error_of(o: &PipelineOptions, panics: bool) -> String {
    let p = TestPipeline::new();
    p.apply(Create::new([1i64])).try_map("Divide", move |n: i64| {
        assert!(!panics, "cannot go on with {n}");
        Err::<i64, _>(format!("cannot divide {n} by nothing"))
    });
    match p.try_run_with(o) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

pub fn failure(o: &PipelineOptions) {
    let error = error_of(o, false);
    assert!(
        error.contains("Divide") && error.contains("cannot divide 1 by nothing"),
        "{error}"
    );
}

pub fn panics(o: &PipelineOptions) {
    let error = error_of(o, true);
    assert!(
        error.contains("Divide") && error.contains("cannot go on with 1"),
        "{error}"
    );
}

pub fn metrics(o: &PipelineOptions) {
    let p = TestPipeline::new();
    p.apply(Create::new(1i64..=10)).map("Count", |n: i64| {
        Metrics::counter("suite", "elements").inc(1);
        Metrics::distribution("suite", "values").update(n);
        n
    });
    let result = p.run_with(o);
    assert_eq!(result.metrics().counter("suite", "elements"), 10);
    let values = result.metrics().distribution("suite", "values");
    assert_eq!(
        (values.count, values.sum, values.min, values.max),
        (10, 55, 1, 10)
    );
}

pub fn gauges(o: &PipelineOptions) {
    let p = TestPipeline::new();
    p.apply(Impulse)
        .map("Set", |_: Vec<u8>| Metrics::gauge("suite", "gauge").set(42));
    let result = p.run_with(o);
    assert_eq!(
        result.metrics().gauge("suite", "gauge").map(|gauge| gauge.value),
        Some(42)
    );
}

/// Makes a file for each element, after the commit.
#[derive(Clone)]
struct Acknowledge(PathBuf);

impl DoFn for Acknowledge {
    type In = i64;
    type Out = i64;
    const FINALIZES_BUNDLES: bool = true;
    fn process(&mut self, element: i64, ctx: &mut Context<'_, i64>) -> DoFnResult {
        let file = self.0.join(element.to_string());
        ctx.after_commit(Duration::from_secs(600), move || {
            std::fs::write(file, "")?;
            Ok(())
        })?;
        ctx.output(element);
        Ok(())
    }
}

pub fn finalizers(o: &PipelineOptions) {
    let scratch = SCRATCH.get().cloned().unwrap_or_default();
    let p = TestPipeline::new();
    let out = p
        .apply(Create::new(1i64..=10))
        .par_do("Acknowledge", Acknowledge(scratch.clone()));
    PAssert::that(&out).contains_in_any_order(1i64..=10);
    p.run_with(o);
    let made = std::fs::read_dir(scratch).map(Iterator::count);
    assert!(matches!(made, Ok(10)), "{made:?}");
}

pub fn fixed_windows(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let sums = at_seconds(&p, &[1, 2, 11, 25])
        .window_into("Windows", Windowing::fixed(Duration::from_secs(10)))
        .combine_per_key("Sum", Sum::new());
    PAssert::that(&with_end(&sums)).contains_in_any_order([(10, 3), (20, 11), (30, 25)]);
    p.run_with(o);
}

pub fn sliding_windows(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let sums = at_seconds(&p, &[1, 12])
        .window_into(
            "Windows",
            Windowing::sliding(Duration::from_secs(20), Duration::from_secs(10)),
        )
        .combine_per_key("Sum", Sum::new());
    PAssert::that(&with_end(&sums)).contains_in_any_order([(10, 1), (20, 13), (30, 12)]);
    p.run_with(o);
}

pub fn sessions(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let sums = at_seconds(&p, &[1, 5, 9, 30, 33])
        .window_into("Windows", Windowing::sessions(Duration::from_secs(5)))
        .combine_per_key("Sum", Sum::new());
    PAssert::that(&with_end(&sums)).contains_in_any_order([(14, 15), (38, 63)]);
    p.run_with(o);
}

pub fn timestamp_combiners(o: &PipelineOptions) {
    let p = TestPipeline::new();
    for (name, combiner, expected) in [
        ("EndOfWindow", TimestampCombiner::EndOfWindow, 9_999),
        ("Earliest", TimestampCombiner::Earliest, 2_000),
        ("Latest", TimestampCombiner::Latest, 7_000),
    ] {
        let windows = Windowing::fixed(Duration::from_secs(10)).timestamp_combiner(combiner);
        let at = at_seconds(&p, &[2, 7])
            .window_into(name, windows)
            .group_by_key("Group")
            .par_do_with("At", |_: (String, Vec<i64>), ctx: &mut Context<'_, i64>| {
                let at = ctx.timestamp().millis();
                ctx.output(at);
                Ok(())
            });
        PAssert::that(&at)
            .named(&format!("{name}Assert"))
            .contains_in_any_order([expected]);
    }
    p.run_with(o);
}

pub fn async_code(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let squares = p
        .apply(Create::new(0i64..100))
        .map_async("Square", 8, |n: i64| async move {
            tokio::task::yield_now().await;
            n.checked_mul(n).ok_or("too large")
        });
    PAssert::that(&squares).contains_in_any_order((0i64..100).map(|n| n * n));
    p.run_with(o);
}

/// A key of the user's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, purlin::Element)]
enum Key {
    Name(String),
    Numbers { low: i32, high: u64 },
}

pub fn keys_of_all_types(o: &PipelineOptions) {
    fn counted<K: Element + Eq + std::hash::Hash + std::fmt::Debug + Sync>(
        p: &TestPipeline,
        name: &str,
        keys: [K; 3],
    ) {
        let expected = [(keys[0].clone(), 2u64), (keys[1].clone(), 1)];
        assert!(keys[0] == keys[2]);
        let counts = p
            .apply_named(name, Create::new(keys.map(|key| (key, ()))))
            .combine_per_key(&format!("{name}Count"), Count::new());
        PAssert::that(&counts)
            .named(&format!("{name}Assert"))
            .contains_in_any_order(expected);
    }
    let p = TestPipeline::new();
    counted(&p, "Strings", ["a".to_owned(), "b".to_owned(), "a".to_owned()]);
    counted(&p, "Numbers", [1i64, -2, 1]);
    counted(&p, "Bytes", [vec![1u8], vec![], vec![1u8]]);
    counted(
        &p,
        "Pairs",
        [
            (true, "x".to_owned()),
            (false, String::new()),
            (true, "x".to_owned()),
        ],
    );
    counted(&p, "Options", [None, Some(3i64), None]);
    counted(&p, "Lists", [vec![1i64, 2], vec![], vec![1, 2]]);
    let numbers = Key::Numbers {
        low: -1,
        high: u64::MAX,
    };
    counted(&p, "Own", [numbers.clone(), Key::Name("n".to_owned()), numbers]);
    p.run_with(o);
}
