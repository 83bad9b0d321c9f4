//! Pipelines run in this process by the direct runner.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use purlin::prelude::*;

/// What comes out of a collection, for looking at after the run.
fn collect<T: Element>(pc: &PCollection<T>) -> Arc<Mutex<Vec<T>>> {
    let all = Arc::new(Mutex::new(Vec::new()));
    let into = all.clone();
    pc.map("Collect", move |element| into.lock().push(element));
    all
}

fn run(p: &Pipeline) -> PipelineResult {
    p.run(&PipelineOptions::default())
        .unwrap_or_else(|e| panic!("{e}"))
}

fn sorted<T: Ord + Clone>(all: &Mutex<Vec<T>>) -> Vec<T> {
    let mut all = all.lock().clone();
    all.sort();
    all
}

#[test]
fn word_count() {
    let p = Pipeline::new();
    let counts = p
        .apply(Create::new(["to be or not", "to be"].map(str::to_owned)))
        .flat_map("Split", |line: String| {
            line.split(' ').map(str::to_owned).collect::<Vec<_>>()
        })
        .map("PairWithOne", |word| (word, 1u64))
        .combine_per_key("Sum", Sum::new());
    let all = collect(&counts);
    assert_eq!(run(&p).state(), PipelineState::Done);
    let expected = [("be", 2), ("not", 1), ("or", 1), ("to", 2)].map(|(w, n)| (w.to_owned(), n));
    assert_eq!(sorted(&all), expected);
}

#[test]
fn many_elements_pass_a_chain_a_reshuffle_and_a_grouping() {
    let p = Pipeline::new();
    let mut numbers = p.apply(Create::new(0..100_000i64));
    for step in 0..50 {
        numbers = numbers.map(&format!("Add{step}"), |n| n + 1);
    }
    let grouped = numbers
        .reshuffle("Spread")
        .map("Key", |n| (n % 10, n))
        .group_by_key("Group");
    let sizes = collect(&grouped.map("Size", |(key, values)| {
        (key, values.len(), values.iter().sum::<i64>())
    }));
    run(&p);
    let expected: Vec<_> = (0..10i64)
        .map(|key| {
            let values: Vec<i64> = (50..100_050).filter(|n| n % 10 == key).collect();
            (key, values.len(), values.iter().sum::<i64>())
        })
        .collect();
    assert_eq!(sorted(&sizes), expected);
}

#[test]
fn flatten_and_two_consumers() {
    let p = Pipeline::new();
    let a = p.apply(Create::new([1i64, 2]));
    let b = p.apply(Create::new([3i64]));
    let both = [a.clone(), b.clone(), a.map("Tenfold", |n| n * 10)].apply(Flatten::new());
    let (x, y) = (collect(&both), collect(&both.map("Negative", |n| -n)));
    run(&p);
    assert_eq!(sorted(&x), [1, 2, 3, 10, 20]);
    assert_eq!(sorted(&y), [-20, -10, -3, -2, -1]);
}

#[test]
fn side_inputs_of_all_kinds() {
    let p = Pipeline::new();
    let pairs = p.apply(Create::new([("a".to_string(), 1i64), ("b".to_string(), 2)]));
    let more = p.apply(Create::new([("a".to_string(), 3i64), ("a".to_string(), 4)]));
    let one = p.apply(Create::new([7i64])).as_singleton();
    let none = p.apply(Create::new(Vec::<i64>::new())).as_singleton_or(9);
    let (map, multimap, list) = (pairs.as_map(), more.as_multimap(), pairs.as_list());
    let main = p.apply(Create::new(["a".to_string(), "b".to_string()]));
    let results = main.apply(
        ParDo::of("Look", {
            let (one, none, map, multimap, list) = (
                one.clone(),
                none.clone(),
                map.clone(),
                multimap.clone(),
                list.clone(),
            );
            move |key: String, ctx: &mut Context<'_, (String, Vec<i64>)>| {
                let mut found = vec![*ctx.side(&one)?, *ctx.side(&none)?, ctx.side(&map)?[&key]];
                found.push(ctx.side(&list)?.len() as i64);
                let mut many = ctx.side(&multimap)?.get(&key).cloned().unwrap_or_default();
                many.sort();
                found.extend(many);
                ctx.output((key, found));
                Ok(())
            }
        })
        .with_side_input(&one)
        .with_side_input(&none)
        .with_side_input(&map)
        .with_side_input(&multimap)
        .with_side_input(&list),
    );
    let all = collect(&results);
    run(&p);
    assert_eq!(
        sorted(&all),
        [
            ("a".to_owned(), vec![7, 9, 1, 2, 3, 4]),
            ("b".to_owned(), vec![7, 9, 2, 2])
        ]
    );
}

#[test]
fn a_side_input_that_is_not_declared_says_what_to_do() {
    let p = Pipeline::new();
    let one = p.apply(Create::new([7i64])).as_singleton();
    p.apply(Create::new([1i64]))
        .par_do_with("Look", move |n: i64, ctx: &mut Context<'_, i64>| {
            let one = ctx.side(&one)?;
            ctx.output(n + *one);
            Ok(())
        });
    let error = p.run(&PipelineOptions::default()).unwrap_err().to_string();
    assert!(
        error.contains("\"Look\"") && error.contains(".with_side_input(&view)"),
        "{error}"
    );
}

#[test]
fn tagged_outputs_and_metrics() {
    let p = Pipeline::new();
    let bad = OutputTag::<String>::new("bad");
    let (seen, lengths) = (
        Metrics::counter("test", "seen"),
        Metrics::distribution("test", "lengths"),
    );
    let (numbers, bad) = p.apply(Create::new(["1", "x", "22"].map(str::to_owned))).apply(
        ParDo::of("Parse", {
            let bad = bad.clone();
            move |text: String, ctx: &mut Context<'_, i64>| {
                seen.inc(1);
                lengths.update(text.len() as i64);
                match text.parse() {
                    Ok(number) => ctx.output(number),
                    Err(_) => ctx.output_to(&bad, text),
                }
                Ok(())
            }
        })
        .with_outputs(&bad),
    );
    let (numbers, bad) = (collect(&numbers), collect(&bad));
    let result = run(&p);
    assert_eq!(sorted(&numbers), [1, 22]);
    assert_eq!(sorted(&bad), ["x"]);
    assert_eq!(result.metrics().counter("test", "seen"), 3);
    let lengths = result.metrics().distribution("test", "lengths");
    assert_eq!(
        (lengths.count, lengths.sum, lengths.min, lengths.max),
        (3, 4, 1, 2)
    );
    let steps: Vec<_> = result
        .metrics()
        .named("test", "seen")
        .map(|m| m.key.step.clone())
        .collect();
    assert_eq!(steps, ["Parse"]);
}

#[test]
fn errors_and_panics_name_the_transform() {
    let p = Pipeline::new();
    p.apply(Create::new(["x".to_string()]))
        .try_map("Parse", |s: String| s.parse::<i64>());
    let error = p.run(&PipelineOptions::default()).unwrap_err().to_string();
    assert!(
        error.contains("\"Parse\"") && error.contains("invalid digit"),
        "{error}"
    );

    let p = Pipeline::new();
    p.apply(Create::new([0i64]))
        .map("Before", |n| n)
        .map("Divide", |n: i64| 1 / n)
        .map("After", |n| n);
    let error = p.run(&PipelineOptions::default()).unwrap_err().to_string();
    assert!(
        error.contains("\"Divide\"") && error.contains("divide by zero"),
        "{error}"
    );
}

#[test]
fn the_element_of_a_failure_is_told_when_its_bundle_is_tried_again() {
    /// Does not take threes.
    #[derive(Clone)]
    struct NoThrees {
        state: ValueState<i64>,
    }
    impl StatefulDoFn for NoThrees {
        type Key = String;
        type Value = i64;
        type Out = i64;
        purlin::fields!(state);
        fn process(&mut self, _: String, value: i64, ctx: &mut KeyedContext<'_, i64>) -> DoFnResult {
            ctx.output(value);
            match value {
                3 => Err("no threes".into()),
                _ => Ok(()),
            }
        }
    }
    type Step = fn(PCollection<i64>);
    let steps: [(Step, &str); 3] = [
        (
            |numbers| {
                let texts = numbers.map("Text", |n| n.to_string().replace("500", "x"));
                let parsed = texts.try_map("Parse", |text: String| text.parse::<i64>());
                parsed.map("Behind", |n| n);
            },
            "\"Parse\": invalid digit found in string (at the element \"x\")",
        ),
        (
            |numbers| {
                numbers
                    .map("Before", |n| (n, n - 500))
                    .map("Divide", |(_, n)| 1 / n)
                    .map("Behind", |n| n);
            },
            "divide by zero (at the element (500, 0))",
        ),
        (
            |numbers| {
                let state = ValueState::new("state");
                numbers
                    .with_keys("Key", |_| "k".to_owned())
                    .stateful_par_do("Stateful", NoThrees { state })
                    .map("Behind", |n| n);
            },
            "no threes (at the element (\"k\", 3))",
        ),
    ];
    for (step, expected) in steps {
        for attempts in [2, 1] {
            let p = Pipeline::new();
            step(p.apply(Create::new(0..1000i64)));
            let options = PipelineOptions {
                max_attempts: attempts,
                ..PipelineOptions::default()
            };
            let error = p.run(&options).unwrap_err().to_string();
            assert_eq!(error.contains(expected), attempts == 2, "{error}");
            assert_eq!(error.contains("at the element"), attempts == 2, "{error}");
        }
    }
}

#[test]
fn combine_globally_has_a_default() {
    let p = Pipeline::new();
    let none = collect(
        &p.apply(Create::new(Vec::<i64>::new()))
            .combine_globally("Sum", Sum::new()),
    );
    let some = collect(
        &p.apply(Create::new([1i64, 2, 3]))
            .combine_globally("Sum", Sum::new()),
    );
    run(&p);
    assert_eq!(sorted(&none), [0]);
    assert_eq!(sorted(&some), [6]);
}

/// Gives elements their value in seconds as timestamp.
fn timed(p: &Pipeline, seconds: &[i64]) -> PCollection<i64> {
    let spread = p.apply(Create::new(seconds.to_vec()));
    spread.par_do_with("Timestamps", |n: i64, ctx: &mut Context<'_, i64>| {
        ctx.output_with_timestamp(n, Timestamp::from_millis(n * 1000));
        Ok(())
    })
}

fn window_text(pc: &PCollection<(String, i64)>) -> Arc<Mutex<Vec<(String, i64)>>> {
    collect(&pc.par_do_with(
        "Windows",
        |(_, n): (String, i64), ctx: &mut Context<'_, (String, i64)>| {
            let window = ctx.window().to_string();
            ctx.output((window, n));
            Ok(())
        },
    ))
}

fn sums(windowing: Windowing) -> Vec<(String, i64)> {
    let p = Pipeline::new();
    let sums = timed(&p, &[1, 2, 11, 25])
        .window_into("Windows", windowing)
        .map("Key", |n| ("k".to_string(), n))
        .combine_per_key("Sum", Sum::new());
    let all = window_text(&sums);
    run(&p);
    sorted(&all)
}

fn owned(expected: &[(&str, i64)]) -> Vec<(String, i64)> {
    expected.iter().map(|(w, n)| ((*w).to_owned(), *n)).collect()
}

#[test]
fn windows_group_apart() {
    let secs = Duration::from_secs;
    assert_eq!(
        sums(Windowing::fixed(secs(10))),
        owned(&[
            ("[0.000s, 10.000s)", 3),
            ("[10.000s, 20.000s)", 11),
            ("[20.000s, 30.000s)", 25)
        ])
    );
    assert_eq!(
        sums(Windowing::sliding(secs(20), secs(10))),
        owned(&[
            ("[-10.000s, 10.000s)", 3),
            ("[0.000s, 20.000s)", 14),
            ("[10.000s, 30.000s)", 36),
            ("[20.000s, 40.000s)", 25)
        ])
    );
    assert_eq!(
        sums(Windowing::sessions(secs(10))),
        owned(&[("[1.000s, 21.000s)", 14), ("[25.000s, 35.000s)", 25)])
    );
}

#[test]
fn the_timestamp_combiner_is_kept_when_a_combine_is_lifted() {
    let at = |combiner| {
        let p = Pipeline::new();
        let windowing = Windowing::fixed(Duration::from_secs(10)).timestamp_combiner(combiner);
        let sums = timed(&p, &[3, 5, 4])
            .window_into("Windows", windowing)
            .map("Key", |n| ((), n));
        let stamps =
            sums.combine_per_key("Sum", Sum::new())
                .par_do_with("Stamp", |_, ctx: &mut Context<'_, i64>| {
                    let at = ctx.timestamp().millis();
                    ctx.output(at);
                    Ok(())
                });
        let all = collect(&stamps);
        run(&p);
        sorted(&all)
    };
    assert_eq!(at(TimestampCombiner::Earliest), [3000]);
    assert_eq!(at(TimestampCombiner::Latest), [5000]);
    assert_eq!(at(TimestampCombiner::EndOfWindow), [9999]);
}

/// Counts the calls of its life cycle.
#[derive(Clone)]
struct Life {
    calls: Arc<[AtomicUsize; 5]>,
    held: Vec<i64>,
}

impl Life {
    fn called(&self, at: usize) {
        self.calls[at].fetch_add(1, Ordering::SeqCst);
    }
}

impl DoFn for Life {
    type In = i64;
    type Out = i64;
    fn setup(&mut self) -> DoFnResult {
        self.called(0);
        Ok(())
    }
    fn start_bundle(&mut self) -> DoFnResult {
        self.called(1);
        Ok(())
    }
    fn process(&mut self, element: i64, _ctx: &mut Context<'_, i64>) -> DoFnResult {
        self.called(2);
        self.held.push(element);
        Ok(())
    }
    fn finish_bundle(&mut self, ctx: &mut FinishContext<'_, i64>) -> DoFnResult {
        self.called(3);
        for element in self.held.drain(..) {
            ctx.output(element, Timestamp::MIN, Window::Global);
        }
        Ok(())
    }
    fn teardown(&mut self) {
        self.called(4);
    }
}

#[test]
fn a_do_fn_lives_its_life() {
    let p = Pipeline::new();
    let calls: Arc<[AtomicUsize; 5]> = Arc::default();
    let out = p.apply(Create::new(0..1000i64)).par_do(
        "Life",
        Life {
            calls: calls.clone(),
            held: Vec::new(),
        },
    );
    let all = collect(&out);
    run(&p);
    assert_eq!(sorted(&all), (0..1000).collect::<Vec<_>>());
    let [setups, starts, elements, finishes, teardowns] = calls.each_ref().map(|n| n.load(Ordering::SeqCst));
    assert_eq!(elements, 1000);
    assert_eq!(starts, finishes);
    assert_eq!(setups, teardowns);
    assert!(setups >= 1 && starts >= setups, "{setups} {starts}");
}

#[test]
fn problems_come_all_at_once() {
    let p = Pipeline::new();
    let numbers = p.apply(Create::new([1i64]));
    let fixed = numbers.window_into("Zero", Windowing::fixed(Duration::ZERO));
    fixed.combine_globally("Sum", Sum::new());
    [numbers, fixed].apply(Flatten::new());
    let error = p.build().unwrap_err();
    let text = error.to_string();
    assert_eq!(error.problems.len(), 3, "{text}");
    assert!(text.contains("\"Zero\": fixed windows need a size"), "{text}");
    assert!(text.contains("without_defaults()"), "{text}");
    assert!(text.contains("\"Flatten\""), "{text}");
    assert!(
        Pipeline::new()
            .build()
            .unwrap_err()
            .to_string()
            .contains("no transforms")
    );
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, Element)]
struct Person {
    name: String,
    tags: BTreeMap<String, u8>,
}

#[test]
fn serde_types_are_elements() {
    let p = Pipeline::new();
    let ann = Person {
        name: "Ann".into(),
        tags: BTreeMap::from([("x".into(), 1)]),
    };
    let all = collect(
        &p.apply(Create::new([ann.clone(), ann.clone()]))
            .reshuffle("Spread"),
    );
    run(&p);
    assert_eq!(sorted(&all), [ann.clone(), ann]);
}

#[test]
fn names_are_made_unique() {
    let p = Pipeline::new();
    let numbers = p.apply(Create::new([1i64]));
    numbers.map("Same", |n| n);
    numbers.map("Same", |n| n + 1);
    let built = p.build().unwrap();
    let mut names: Vec<_> = built
        .proto
        .components
        .unwrap()
        .transforms
        .into_values()
        .map(|t| t.unique_name)
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "Create",
            "Create/Decode",
            "Create/Emit",
            "Create/Impulse",
            "Same",
            "Same_2"
        ]
    );
}
