//! State and timers, on the embedded runner.

use std::time::Duration;

use purlin::prelude::*;

type Pair = (String, i64);

fn pairs(p: &TestPipeline) -> PCollection<Pair> {
    let pair = |key: &str, value: i64| (key.to_owned(), value);
    p.apply(Create::new([
        pair("a", 1),
        pair("b", 2),
        pair("a", 3),
        pair("a", 1),
        pair("b", 5),
    ]))
}

/// Calls a closure for each value with all kinds of state, and another for the timers.
#[derive(Clone)]
struct States<F> {
    s: Handles,
    f: F,
}

#[derive(Clone)]
struct Handles {
    value: ValueState<i64>,
    bag: BagState<i64>,
    set: SetState<i64>,
    map: MapState<i64, String>,
    multimap: MultimapState<i64, i64>,
    list: OrderedListState<String>,
    sum: CombiningState<Sum<i64>>,
    end: Timer,
}

impl<F> States<F> {
    fn new(f: F) -> Self {
        let s = Handles {
            value: ValueState::new("value"),
            bag: BagState::new("bag"),
            set: SetState::new("set"),
            map: MapState::new("map"),
            multimap: MultimapState::new("multimap"),
            list: OrderedListState::new("list"),
            sum: CombiningState::new("sum", Sum::new()),
            end: Timer::event_time("end"),
        };
        States { s, f }
    }
}

impl<F> StatefulDoFn for States<F>
where
    F: Fn(&Handles, Option<i64>, &mut KeyedContext<'_, (String, String)>) -> Result<Option<String>, BoxError>
        + Clone
        + Send
        + 'static,
{
    type Key = String;
    type Value = i64;
    type Out = (String, String);

    fn fields(&self, all: &mut purlin::state::Fields) {
        let s = &self.s;
        all.add(&s.value).add(&s.bag).add(&s.set).add(&s.map);
        all.add(&s.multimap).add(&s.list).add(&s.sum).add(&s.end);
    }

    fn process(
        &mut self,
        key: String,
        value: i64,
        ctx: &mut KeyedContext<'_, (String, String)>,
    ) -> DoFnResult {
        let end = ctx.window().max_timestamp();
        self.s.end.set(ctx, end)?;
        if let Some(out) = (self.f)(&self.s, Some(value), ctx)? {
            ctx.output((key, out));
        }
        Ok(())
    }

    fn on_timer(
        &mut self,
        key: String,
        timer: &FiredTimer,
        ctx: &mut KeyedContext<'_, (String, String)>,
    ) -> DoFnResult {
        assert!(timer.is(&self.s.end));
        if let Some(out) = (self.f)(&self.s, None, ctx)? {
            ctx.output((key, out));
        }
        Ok(())
    }
}

fn check<F>(f: F, expected: &[(&str, &str)])
where
    F: Fn(&Handles, Option<i64>, &mut KeyedContext<'_, (String, String)>) -> Result<Option<String>, BoxError>
        + Clone
        + Send
        + 'static,
{
    for bundle in ["1", "1000"] {
        let p = TestPipeline::new();
        let out = pairs(&p)
            .reshuffle("Spread")
            .stateful_par_do("States", States::new(f.clone()));
        let expected = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        PAssert::that(&out).contains_in_any_order(expected.collect::<Vec<_>>());
        p.run_with(&PipelineOptions {
            experiments: vec![format!("max_bundle_elements={bundle}")],
            ..PipelineOptions::default()
        });
    }
}

#[test]
fn value_state() {
    check(
        |s, value, ctx| match value {
            Some(value) => {
                let largest = s.value.read(ctx)?.unwrap_or(i64::MIN).max(value);
                s.value.write(ctx, &largest)?;
                Ok(None)
            }
            None => {
                let largest = s.value.read(ctx)?;
                s.value.clear(ctx)?;
                assert_eq!(s.value.read(ctx)?, None);
                Ok(Some(format!("{largest:?}")))
            }
        },
        &[("a", "Some(3)"), ("b", "Some(5)")],
    );
}

#[test]
fn bag_state() {
    check(
        |s, value, ctx| match value {
            Some(value) => s.bag.add(ctx, &value).map(|()| None),
            None => {
                let mut all = s.bag.read(ctx)?;
                all.sort_unstable();
                s.bag.clear(ctx)?;
                assert!(s.bag.is_empty(ctx)?);
                s.bag.add(ctx, &7)?;
                assert_eq!(s.bag.read(ctx)?, [7]);
                Ok(Some(format!("{all:?}")))
            }
        },
        &[("a", "[1, 1, 3]"), ("b", "[2, 5]")],
    );
}

#[test]
fn set_state() {
    check(
        |s, value, ctx| match value {
            Some(value) => {
                s.set.add(ctx, &value)?;
                s.set.add(ctx, &100)?;
                assert!(s.set.contains(ctx, &value)?);
                Ok(None)
            }
            None => {
                assert!(s.set.remove(ctx, &100)?);
                assert!(!s.set.remove(ctx, &100)?);
                assert!(!s.set.contains(ctx, &100)?);
                let mut all = s.set.read(ctx)?;
                all.sort_unstable();
                s.set.clear(ctx)?;
                assert!(s.set.is_empty(ctx)?);
                Ok(Some(format!("{all:?}")))
            }
        },
        &[("a", "[1, 3]"), ("b", "[2, 5]")],
    );
}

#[test]
fn map_state() {
    check(
        |s, value, ctx| match value {
            Some(value) => {
                let before = s.map.get(ctx, &value)?.unwrap_or_default();
                s.map.put(ctx, &value, &format!("{before}x"))?;
                s.map.put(ctx, &-1, &"gone".to_owned())?;
                Ok(None)
            }
            None => {
                assert!(s.map.contains_key(ctx, &-1)?);
                s.map.remove(ctx, &-1)?;
                assert!(!s.map.contains_key(ctx, &-1)?);
                let mut entries = s.map.entries(ctx)?;
                entries.sort();
                let mut keys = s.map.keys(ctx)?;
                keys.sort_unstable();
                assert_eq!(keys, entries.iter().map(|(key, _)| *key).collect::<Vec<_>>());
                s.map.clear(ctx)?;
                assert!(s.map.is_empty(ctx)?);
                assert_eq!(s.map.get(ctx, &1)?, None);
                s.map.put(ctx, &9, &"new".to_owned())?;
                assert_eq!(s.map.keys(ctx)?, [9]);
                Ok(Some(format!("{entries:?}")))
            }
        },
        &[
            ("a", r#"[(1, "xx"), (3, "x")]"#),
            ("b", r#"[(2, "x"), (5, "x")]"#),
        ],
    );
}

#[test]
fn multimap_state() {
    check(
        |s, value, ctx| match value {
            Some(value) => {
                s.multimap.add(ctx, &(value % 2), &value)?;
                s.multimap.add(ctx, &-1, &value)?;
                Ok(None)
            }
            None => {
                s.multimap.remove(ctx, &-1)?;
                let mut entries = s.multimap.entries(ctx)?;
                entries.iter_mut().for_each(|(_, values)| values.sort_unstable());
                entries.sort();
                let odd = s.multimap.get(ctx, &1)?.len();
                assert!(s.multimap.get(ctx, &-1)?.is_empty());
                Ok(Some(format!("{entries:?} {odd}")))
            }
        },
        &[("a", "[(1, [1, 1, 3])] 3"), ("b", "[(0, [2]), (1, [5])] 1")],
    );
}

#[test]
fn ordered_list_state() {
    check(
        |s, value, ctx| match value {
            Some(value) => {
                s.list.add(ctx, value, &format!("v{value}"))?;
                s.list.add(ctx, -value, &"negative".to_owned())?;
                Ok(None)
            }
            None => {
                s.list.clear_range(ctx, ..0)?;
                let low: Vec<String> = s
                    .list
                    .read_range(ctx, 0..=2)?
                    .into_iter()
                    .map(|(_, v)| v)
                    .collect();
                s.list.add(ctx, 0, &"zero".to_owned())?;
                let all: Vec<i64> = s.list.read(ctx)?.into_iter().map(|(n, _)| n).collect();
                s.list.clear(ctx)?;
                assert!(s.list.read_range(ctx, 1..9)?.is_empty());
                Ok(Some(format!("{low:?} {all:?}")))
            }
        },
        &[
            ("a", r#"["v1", "v1"] [0, 1, 1, 3]"#),
            ("b", r#"["v2"] [0, 2, 5]"#),
        ],
    );
}

#[test]
fn combining_state() {
    check(
        |s, value, ctx| match value {
            Some(value) => s.sum.add(ctx, value).map(|()| None),
            None => {
                s.sum.merge(ctx, 1000)?;
                let sum = s.sum.read(ctx)?;
                s.sum.clear(ctx)?;
                assert_eq!(s.sum.read(ctx)?, 0);
                Ok(Some(sum.to_string()))
            }
        },
        &[("a", "1005"), ("b", "1007")],
    );
}

/// Emits a key's values per window when the window expires.
#[derive(Clone)]
struct AtExpiration {
    values: BagState<i64>,
}

impl StatefulDoFn for AtExpiration {
    type Key = String;
    type Value = i64;
    type Out = (String, Vec<i64>);
    const ON_WINDOW_EXPIRATION: bool = true;
    purlin::fields!(values);

    fn process(&mut self, _: String, value: i64, ctx: &mut KeyedContext<'_, Self::Out>) -> DoFnResult {
        self.values.add(ctx, &value)
    }

    fn on_window_expiration(&mut self, key: String, ctx: &mut KeyedContext<'_, Self::Out>) -> DoFnResult {
        let mut values = self.values.read(ctx)?;
        values.sort_unstable();
        ctx.output((key, values));
        Ok(())
    }
}

#[test]
fn a_window_expires_once_with_its_own_state() {
    let p = TestPipeline::new();
    let windowed = pairs(&p)
        .par_do_with("Timestamps", |pair: Pair, ctx: &mut Context<'_, Pair>| {
            let at = Timestamp::from_millis(pair.1 * 1000);
            ctx.output_with_timestamp(pair, at);
            Ok(())
        })
        .window_into("Windows", Windowing::fixed(Duration::from_secs(3)));
    let values = BagState::new("values");
    let out = windowed.stateful_par_do("AtExpiration", AtExpiration { values });
    let expected = [("a", vec![1, 1]), ("a", vec![3]), ("b", vec![2]), ("b", vec![5])];
    PAssert::that(&out).contains_in_any_order(expected.map(|(k, v)| (k.to_owned(), v)));
    p.run();
}

/// Sets timers of all kinds, and tells in what order they fire.
#[derive(Clone)]
struct Timers {
    event: Timer,
    clock: Timer,
    log: BagState<String>,
    end: Timer,
}

impl StatefulDoFn for Timers {
    type Key = String;
    type Value = i64;
    type Out = String;
    purlin::fields!(event, clock, log, end);

    fn process(&mut self, _: String, _: i64, ctx: &mut KeyedContext<'_, String>) -> DoFnResult {
        let at = Timestamp::from_millis;
        self.event.tag("late").set(ctx, at(3000))?;
        self.event.tag("early").set(ctx, at(1000))?;
        self.event.tag("moved").set(ctx, at(500))?;
        self.event.tag("moved").set(ctx, at(2000))?;
        self.event.tag("cleared").set(ctx, at(1500))?;
        self.event.tag("cleared").clear(ctx)?;
        self.event.tag("cleared by early").set(ctx, at(1600))?;
        self.event.output_timestamp(at(700)).set(ctx, at(2500))?;
        self.clock.set_after(ctx, Duration::from_millis(1))?;
        self.end.set(ctx, Timestamp::END_OF_GLOBAL_WINDOW)
    }

    fn on_timer(&mut self, _: String, timer: &FiredTimer, ctx: &mut KeyedContext<'_, String>) -> DoFnResult {
        if timer.is(&self.clock) {
            assert_eq!(timer.name(), "clock");
            ctx.output("clock".to_owned());
            return Ok(());
        }
        if timer.is(&self.end) {
            self.log
                .read(ctx)?
                .into_iter()
                .for_each(|entry| ctx.output(entry));
            return Ok(());
        }
        if timer.tag() == "early" {
            self.event.tag("cleared by early").clear(ctx)?;
            self.event
                .tag("loop 3")
                .set(ctx, timer.timestamp().plus_millis(10))?;
        }
        if let Some(count) = timer.tag().strip_prefix("loop ") {
            let left: u32 = count.parse()?;
            if left > 1 {
                let next = format!("loop {}", left - 1);
                self.event
                    .tag(&next)
                    .set(ctx, timer.timestamp().plus_millis(10))?;
            }
        }
        let (at, output) = (timer.timestamp().millis(), ctx.timestamp().millis());
        self.log.add(ctx, &format!("{at} {:?} {output}", timer.tag()))
    }
}

#[test]
fn timers_fire_at_their_times() {
    let p = TestPipeline::new();
    let timers = Timers {
        event: Timer::event_time("event"),
        clock: Timer::processing_time("clock"),
        log: BagState::new("log"),
        end: Timer::event_time("end"),
    };
    let out = p
        .apply(Create::new([("k".to_owned(), 1i64)]))
        .par_do_with("Timestamp", |pair: Pair, ctx: &mut Context<'_, Pair>| {
            ctx.output_with_timestamp(pair, Timestamp::from_millis(100));
            Ok(())
        })
        .stateful_par_do("Timers", timers);
    PAssert::that(&out).contains_in_any_order(
        [
            "1000 \"early\" 1000",
            "1010 \"loop 3\" 1010",
            "1020 \"loop 2\" 1020",
            "1030 \"loop 1\" 1030",
            "2000 \"moved\" 2000",
            "2500 \"\" 700",
            "3000 \"late\" 3000",
            "clock",
        ]
        .map(str::to_owned),
    );
    p.run();
}

/// A DoFn that breaks a rule.
#[derive(Clone)]
struct Wrong {
    declared: ValueState<i64>,
    used: ValueState<i64>,
    timer: Timer,
    what: u8,
}

impl StatefulDoFn for Wrong {
    type Key = String;
    type Value = i64;
    type Out = String;
    purlin::fields!(declared, timer);

    fn process(&mut self, _: String, _: i64, ctx: &mut KeyedContext<'_, String>) -> DoFnResult {
        match self.what {
            0 => self.used.write(ctx, &1),
            1 => {
                let output = Timestamp::from_millis(10);
                self.timer
                    .output_timestamp(output)
                    .set(ctx, Timestamp::from_millis(5))
            }
            2 => self.timer.set_after(ctx, Duration::from_secs(1)),
            3 => ctx.after_commit(Duration::from_secs(1), || Ok(())),
            4 => self.timer.set(ctx, Timestamp::from_millis(1)),
            _ => Timer::event_time("other").set(ctx, Timestamp::from_millis(1)),
        }
    }
}

fn wrong(what: u8) -> String {
    let p = Pipeline::new();
    let dofn = Wrong {
        declared: ValueState::new("declared"),
        used: ValueState::new("used"),
        timer: Timer::event_time("timer"),
        what,
    };
    p.apply(Create::new([("k".to_owned(), 1i64)]))
        .stateful_par_do("Wrong", dofn);
    p.run(&PipelineOptions::default())
        .err()
        .map(|e| e.to_string())
        .unwrap_or_default()
}

#[test]
fn errors_name_the_transform_and_the_remedy() {
    let cases = [
        "state \"used\" is not declared: name its field in purlin::fields!(..)",
        "an event-time timer holds the watermark at its own time at the latest",
        "only Timer::processing_time timers wait for the clock",
        "set FINALIZES_BUNDLES = true",
        "timer \"timer\" fires, but the StatefulDoFn has no on_timer: write one",
        "timer \"other\" is not declared",
    ];
    for (what, expected) in cases.iter().enumerate() {
        let error = wrong(what as u8);
        assert!(
            error.contains("transform \"Wrong\"") && error.contains(expected),
            "{error}"
        );
    }
}

#[test]
fn what_is_declared_wrongly_is_told_when_the_pipeline_is_built() {
    #[derive(Clone)]
    struct Twice {
        a: ValueState<i64>,
        b: BagState<i64>,
    }
    impl StatefulDoFn for Twice {
        type Key = String;
        type Value = i64;
        type Out = String;
        purlin::fields!(a, b);
        fn process(&mut self, _: String, _: i64, _: &mut KeyedContext<'_, String>) -> DoFnResult {
            Ok(())
        }
    }
    let p = Pipeline::new();
    let twice = Twice {
        a: ValueState::new("same"),
        b: BagState::new("same"),
    };
    p.apply(Create::new([("k".to_owned(), 1i64)]))
        .window_into("Sessions", Windowing::sessions(Duration::from_secs(1)))
        .stateful_par_do("Twice", twice);
    let error = p.build().err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.contains("transform \"Twice\""), "{error}");
    assert!(
        error.contains("two of its states or timers have the name \"same\""),
        "{error}"
    );
    assert!(error.contains("sessions(1s) windows, which merge"), "{error}");
}

/// Acknowledges elements after the commit.
#[derive(Clone)]
struct Acknowledge(std::sync::Arc<std::sync::atomic::AtomicI64>);

impl DoFn for Acknowledge {
    type In = i64;
    type Out = i64;
    const FINALIZES_BUNDLES: bool = true;
    const REQUIRES_STABLE_INPUT: bool = true;
    fn process(&mut self, element: i64, ctx: &mut Context<'_, i64>) -> DoFnResult {
        let acknowledged = self.0.clone();
        ctx.after_commit(Duration::from_secs(600), move || {
            acknowledged.fetch_add(element, std::sync::atomic::Ordering::SeqCst);
            Ok(())
        })?;
        ctx.output(element);
        Ok(())
    }
}

#[test]
fn finalizers_are_called_once_after_the_commit() {
    let acknowledged = std::sync::Arc::<std::sync::atomic::AtomicI64>::default();
    let p = TestPipeline::new();
    let out = p
        .apply(Create::new(1i64..=100))
        .par_do("Acknowledge", Acknowledge(acknowledged.clone()));
    PAssert::that(&out).contains_in_any_order(1i64..=100);
    p.run();
    assert_eq!(acknowledged.load(std::sync::atomic::Ordering::SeqCst), 5050);
}
