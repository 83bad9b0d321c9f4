//! State and timers.

use std::time::Duration;

use purlin::prelude::*;

use super::core::{at_seconds, with_timestamps};

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

fn check<F>(o: &PipelineOptions, f: F, expected: &[(&str, &str)])
where
    F: Fn(&Handles, Option<i64>, &mut KeyedContext<'_, (String, String)>) -> Result<Option<String>, BoxError>
        + Clone
        + Send
        + 'static,
{
    let p = TestPipeline::new();
    let out = pairs(&p)
        .reshuffle("Spread")
        .stateful_par_do("States", States::new(f));
    let expected = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    PAssert::that(&out).contains_in_any_order(expected.collect::<Vec<_>>());
    p.run_with(o);
}

pub fn value_state(o: &PipelineOptions) {
    check(
        o,
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

pub fn bag_state(o: &PipelineOptions) {
    check(
        o,
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

pub fn set_state(o: &PipelineOptions) {
    check(
        o,
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

pub fn map_state(o: &PipelineOptions) {
    check(
        o,
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

pub fn multimap_state(o: &PipelineOptions) {
    check(
        o,
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

pub fn ordered_list_state(o: &PipelineOptions) {
    check(
        o,
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

pub fn combining_state(o: &PipelineOptions) {
    check(
        o,
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

pub fn a_window_expires_once_with_its_own_state(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let windowed =
        with_timestamps(&pairs(&p)).window_into("Windows", Windowing::fixed(Duration::from_secs(3)));
    let values = BagState::new("values");
    let out = windowed.stateful_par_do("AtExpiration", AtExpiration { values });
    let expected = [("a", vec![1, 1]), ("a", vec![3]), ("b", vec![2]), ("b", vec![5])];
    PAssert::that(&out).contains_in_any_order(expected.map(|(k, v)| (k.to_owned(), v)));
    p.run_with(o);
}

/// Sets timers of all kinds, and tells at what times they fire.
#[derive(Clone)]
struct Timers {
    event: Timer,
    clock: Timer,
}

impl StatefulDoFn for Timers {
    type Key = String;
    type Value = i64;
    type Out = String;
    purlin::fields!(event, clock);

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
        self.clock.set_after(ctx, Duration::from_millis(1))
    }

    fn on_timer(&mut self, _: String, timer: &FiredTimer, ctx: &mut KeyedContext<'_, String>) -> DoFnResult {
        if timer.is(&self.clock) {
            assert_eq!(timer.name(), "clock");
            ctx.output("clock".to_owned());
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
        ctx.output(format!("{at} {:?} {output}", timer.tag()));
        Ok(())
    }
}

pub fn timers_fire_at_their_times(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let timers = Timers {
        event: Timer::event_time("event"),
        clock: Timer::processing_time("clock"),
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
    p.run_with(o);
}

pub fn map_state_by_key(o: &PipelineOptions) {
    check(
        o,
        |s, value, ctx| match value {
            Some(value) => {
                let before = s.map.get(ctx, &(value % 2))?.unwrap_or_default();
                s.map.put(ctx, &(value % 2), &format!("{before}x"))?;
                s.multimap.add(ctx, &0, &value)?;
                Ok(None)
            }
            None => {
                let odd = s.map.get(ctx, &1)?;
                s.map.remove(ctx, &1)?;
                assert!(!s.map.contains_key(ctx, &1)?);
                let all = s.multimap.get(ctx, &0)?.len();
                Ok(Some(format!("{odd:?} {all}")))
            }
        },
        &[("a", r#"Some("xxx") 3"#), ("b", r#"Some("x") 2"#)],
    );
}

/// Sets a timer by the tag of each value, and one that sets itself some times.
#[derive(Clone)]
struct Tagged {
    timer: Timer,
    looping: bool,
}

impl StatefulDoFn for Tagged {
    type Key = String;
    type Value = i64;
    type Out = String;
    purlin::fields!(timer);

    fn process(&mut self, _: String, value: i64, ctx: &mut KeyedContext<'_, String>) -> DoFnResult {
        let tag = if self.looping {
            String::new()
        } else {
            format!("tag {value}")
        };
        self.timer
            .tag(&tag)
            .set(ctx, Timestamp::from_millis(value * 1000))
    }

    fn on_timer(
        &mut self,
        key: String,
        timer: &FiredTimer,
        ctx: &mut KeyedContext<'_, String>,
    ) -> DoFnResult {
        let at = timer.timestamp();
        ctx.output(format!("{key} {:?} {}", timer.tag(), at.millis()));
        if self.looping && at.millis() < 5000 {
            self.timer.set(ctx, at.plus_millis(1000))?;
        }
        Ok(())
    }
}

fn tagged(o: &PipelineOptions, looping: bool, values: &[(&str, i64)], expected: &[&str]) {
    let p = TestPipeline::new();
    let values: Vec<Pair> = values.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect();
    let timer = Timer::event_time("timer");
    let out = p
        .apply(Create::new(values))
        .stateful_par_do("Tagged", Tagged { timer, looping });
    PAssert::that(&out).contains_in_any_order(expected.iter().map(|text| (*text).to_owned()));
    p.run_with(o);
}

pub fn timers_by_tag(o: &PipelineOptions) {
    tagged(
        o,
        false,
        &[("a", 1), ("a", 2), ("b", 2)],
        &["a \"tag 1\" 1000", "a \"tag 2\" 2000", "b \"tag 2\" 2000"],
    );
}

pub fn a_timer_that_sets_itself(o: &PipelineOptions) {
    tagged(
        o,
        true,
        &[("a", 3), ("b", 5)],
        &["a \"\" 3000", "a \"\" 4000", "a \"\" 5000", "b \"\" 5000"],
    );
}

/// Tells whether timestamps ascend.
#[derive(Clone)]
struct Ascending {
    last: ValueState<i64>,
}

impl StatefulDoFn for Ascending {
    type Key = String;
    type Value = i64;
    type Out = bool;
    const REQUIRES_TIME_SORTED_INPUT: bool = true;
    purlin::fields!(last);

    fn process(&mut self, _: String, value: i64, ctx: &mut KeyedContext<'_, bool>) -> DoFnResult {
        let last = self.last.read(ctx)?;
        self.last.write(ctx, &value)?;
        ctx.output(last.is_none_or(|last| last <= value));
        Ok(())
    }
}

pub fn time_sorted_input(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let last = ValueState::new("last");
    let out = at_seconds(&p, &[5, 3, 9, 1, 7, 2]).stateful_par_do("Ascending", Ascending { last });
    PAssert::that(&out).contains_in_any_order([true; 6]);
    p.run_with(o);
}

/// Fails at first; what it then gets is the same as before.
#[derive(Clone)]
struct Stable;

impl DoFn for Stable {
    type In = (i64, u64);
    type Out = i64;
    const REQUIRES_STABLE_INPUT: bool = true;
    fn process(&mut self, (n, random): (i64, u64), ctx: &mut Context<'_, i64>) -> DoFnResult {
        let scratch = super::core::SCRATCH.get().ok_or("no scratch")?;
        let file = scratch.join(n.to_string());
        match std::fs::read_to_string(&file) {
            Ok(seen) => {
                if seen != random.to_string() {
                    return Err(format!("{n} came with {seen} and then with {random}").into());
                }
                ctx.output(n);
                Ok(())
            }
            Err(_) => {
                std::fs::write(&file, random.to_string())?;
                Err("the first attempt fails".into())
            }
        }
    }
}

pub fn stable_input(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let out = p
        .apply(Create::new([1i64, 2]))
        .map("Random", |n: i64| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            (n, now.map_or(0, |d| d.as_nanos() as u64))
        })
        .par_do("Stable", Stable);
    PAssert::that(&out).contains_in_any_order([1, 2]);
    p.run_with(o);
}
