//! Watermarks and clocks by a script.

use std::time::Duration;

use purlin::prelude::*;

fn seconds(s: i64) -> Timestamp {
    Timestamp::from_millis(s * 1000)
}

fn keyed(numbers: &PCollection<i64>) -> PCollection<(String, i64)> {
    numbers.map("Key", |n: i64| ("k".to_owned(), n))
}

pub fn late_elements(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let numbers = p.apply(
        TestStream::new()
            .element(1i64, seconds(3))
            .advance_watermark_to(seconds(10))
            .element(2, seconds(4))
            .advance_watermark_to(seconds(30))
            .element(100, seconds(5))
            .element(3, seconds(31)),
    );
    let windows = Windowing::fixed(Duration::from_secs(10)).allowed_lateness(Duration::from_secs(15));
    let sums = keyed(&numbers)
        .window_into("Windows", windows)
        .combine_per_key("Sum", Sum::new())
        .values();
    PAssert::that(&sums).contains_in_any_order([1, 2, 3]);
    p.run_with(o);
}

pub fn early_and_late_panes(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let numbers = p.apply(
        TestStream::new()
            .element(1i64, seconds(1))
            .element(2, seconds(2))
            .element(3, seconds(3))
            .advance_watermark_to(seconds(10))
            .element(4, seconds(4)),
    );
    let trigger = Trigger::after_end_of_window()
        .early(Trigger::ElementCount(2))
        .late(Trigger::ElementCount(1));
    let windows = Windowing::fixed(Duration::from_secs(10))
        .trigger(trigger.into())
        .allowed_lateness(Duration::from_secs(60))
        .accumulating();
    let panes = keyed(&numbers)
        .window_into("Windows", windows)
        .group_by_key("Group")
        .par_do_with(
            "Pane",
            |(_, values): (String, Vec<i64>), ctx: &mut Context<'_, (String, i64, i64)>| {
                let timing = format!("{:?}", ctx.pane().timing);
                ctx.output((timing, ctx.pane().index, values.iter().sum()));
                Ok(())
            },
        );
    let pane = |timing: &str, index, sum| (timing.to_owned(), index, sum);
    PAssert::that(&panes).contains_in_any_order([
        pane("Early", 0, 3),
        pane("OnTime", 1, 6),
        pane("Late", 2, 10),
    ]);
    p.run_with(o);
}

/// A window with an early, an on-time and two late panes, and one that has a single pane.
pub fn assertions_by_pane(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let numbers = p.apply(
        TestStream::new()
            .element(1i64, seconds(1))
            .element(2, seconds(2))
            .element(4, seconds(3))
            .element(100, seconds(13))
            .advance_watermark_to(seconds(10))
            .element(8, seconds(4))
            .element(16, seconds(5)),
    );
    let trigger = Trigger::after_end_of_window()
        .early(Trigger::ElementCount(2))
        .late(Trigger::ElementCount(1));
    let windows = Windowing::fixed(Duration::from_secs(10))
        .trigger(trigger.into())
        .allowed_lateness(Duration::from_secs(60));
    let sums = keyed(&numbers)
        .window_into("Windows", windows)
        .combine_per_key("Sum", Sum::new())
        .values();
    let window = |start: i64| IntervalWindow {
        start: seconds(start),
        end: seconds(start + 10),
    };
    let (first, second) = (window(0), window(10));
    PAssert::that(&sums)
        .in_window(first)
        .contains_in_any_order([3, 4, 8, 16]);
    PAssert::that(&sums).in_early_panes(first).equals(3);
    PAssert::that(&sums).in_on_time_pane(first).equals(4);
    PAssert::that(&sums)
        .in_late_panes(first)
        .contains_in_any_order([8, 16]);
    PAssert::that(&sums)
        .in_non_late_panes(first)
        .contains_in_any_order([3, 4]);
    PAssert::that(&sums).in_window(second).equals(100);
    PAssert::that(&sums).in_early_panes(second).is_empty();
    PAssert::that(&sums).in_window(window(20)).is_empty();
    p.run_with(o);
}

/// Panes of windows that fire once.
pub fn assertions_by_only_pane(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let numbers = p.apply(
        TestStream::new()
            .element(1i64, seconds(1))
            .element(2, seconds(12)),
    );
    let sums = keyed(&numbers)
        .window_into("Windows", Windowing::fixed(Duration::from_secs(10)))
        .combine_per_key("Sum", Sum::new())
        .values();
    let window = |start: i64| IntervalWindow {
        start: seconds(start),
        end: seconds(start + 10),
    };
    PAssert::that(&sums).in_only_pane(window(0)).equals(1);
    PAssert::that(&sums).in_final_pane(window(10)).equals(2);
    p.run_with(o);
}

pub fn processing_time(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let numbers = p.apply(
        TestStream::new()
            .element(1i64, seconds(1))
            .element(2, seconds(2))
            .advance_processing_time(Duration::from_secs(20))
            .element(3, seconds(3))
            .advance_watermark_to_infinity(),
    );
    let trigger = Trigger::after_processing_time(Duration::from_secs(10)).repeatedly();
    let windows = Windowing::global().trigger(trigger);
    let sums = keyed(&numbers)
        .window_into("Windows", windows)
        .combine_per_key("Sum", Sum::new())
        .values();
    PAssert::that(&sums).contains_in_any_order([3, 3]);
    p.run_with(o);
}

pub fn two_stages(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let numbers = p.apply(
        TestStream::new()
            .elements([(1i64, seconds(1)), (2, seconds(11))])
            .advance_watermark_to(seconds(12))
            .element(3, seconds(13)),
    );
    let sums = keyed(&numbers)
        .window_into("Windows", Windowing::fixed(Duration::from_secs(10)))
        .combine_per_key("Sum", Sum::new())
        .reshuffle("Spread")
        .window_into("Longer", Windowing::fixed(Duration::from_secs(60)))
        .combine_per_key("Again", Sum::new())
        .values();
    PAssert::that(&sums).contains_in_any_order([6]);
    p.run_with(o);
}

/// Sets timers in no order, and tells the order in which they fire.
#[derive(Clone)]
struct InOrder {
    timer: Timer,
    order: ValueState<i64>,
}

impl StatefulDoFn for InOrder {
    type Key = String;
    type Value = i64;
    type Out = (i64, i64);
    purlin::fields!(timer, order);

    fn process(&mut self, _: String, value: i64, ctx: &mut KeyedContext<'_, (i64, i64)>) -> DoFnResult {
        self.timer.tag(&value.to_string()).set(ctx, seconds(value))
    }

    fn on_timer(
        &mut self,
        _: String,
        timer: &FiredTimer,
        ctx: &mut KeyedContext<'_, (i64, i64)>,
    ) -> DoFnResult {
        let order = self.order.read(ctx)?.unwrap_or(0);
        self.order.write(ctx, &(order + 1))?;
        ctx.output((order, timer.timestamp().millis() / 1000));
        Ok(())
    }
}

pub fn timers_in_order(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let numbers = p.apply(
        TestStream::new()
            .elements([5i64, 2, 9, 3, 30].map(|n| (n, seconds(0))))
            .advance_watermark_to(seconds(10))
            .element(20, seconds(11)),
    );
    let dofn = InOrder {
        timer: Timer::event_time("timer"),
        order: ValueState::new("order"),
    };
    let fired = keyed(&numbers).stateful_par_do("InOrder", dofn);
    PAssert::that(&fired).contains_in_any_order([(0, 2), (1, 3), (2, 5), (3, 9), (4, 20), (5, 30)]);
    p.run_with(o);
}

/// Holds what it gets, at its timestamp, until a timer fires.
#[derive(Clone)]
struct Hold {
    held: ValueState<i64>,
    timer: Timer,
}

impl StatefulDoFn for Hold {
    type Key = String;
    type Value = i64;
    type Out = (String, i64);
    purlin::fields!(held, timer);

    fn process(&mut self, _: String, value: i64, ctx: &mut KeyedContext<'_, (String, i64)>) -> DoFnResult {
        self.held.write(ctx, &value)?;
        let at = ctx.timestamp();
        self.timer.output_timestamp(at).set(ctx, seconds(25))
    }

    fn on_timer(
        &mut self,
        key: String,
        _: &FiredTimer,
        ctx: &mut KeyedContext<'_, (String, i64)>,
    ) -> DoFnResult {
        let held = self.held.read(ctx)?.unwrap_or(-1);
        ctx.output((key, held));
        Ok(())
    }
}

pub fn output_timestamps_hold(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let numbers = p.apply(
        TestStream::new()
            .element(1i64, seconds(3))
            .advance_watermark_to(seconds(20))
            .advance_watermark_to(seconds(40)),
    );
    let dofn = Hold {
        held: ValueState::new("held"),
        timer: Timer::event_time("timer"),
    };
    // Without the hold, what comes at 25 s would be late in the window that ends at 10 s.
    let sums = keyed(&numbers)
        .stateful_par_do("Hold", dofn)
        .window_into("Windows", Windowing::fixed(Duration::from_secs(10)))
        .combine_per_key("Sum", Sum::new())
        .par_do_with(
            "End",
            |(_, sum): (String, i64), ctx: &mut Context<'_, (i64, i64)>| {
                ctx.output(((ctx.window().max_timestamp().millis() + 1) / 1000, sum));
                Ok(())
            },
        );
    PAssert::that(&sums).contains_in_any_order([(10, 1)]);
    p.run_with(o);
}

/// A side input whose trigger fires for each element: a main-input element reads what has fired last.
pub fn triggered_side_inputs(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let script = TestStream::new()
        .element(10i64, seconds(1))
        .element(-1, seconds(2))
        .element(20, seconds(3))
        .element(-2, seconds(4))
        .advance_watermark_to_infinity();
    let numbers = p.apply(script).window_into(
        "EachElement",
        Windowing::global().trigger(Trigger::ElementCount(1).repeatedly()),
    );
    let largest = numbers
        .filter("Positive", |n: &i64| *n > 0)
        .apply(CombineGlobally::new("Max", Max::new()).without_defaults())
        .as_singleton();
    let side = largest.clone();
    let read = numbers.filter("Negative", |n: &i64| *n < 0).apply(
        ParDo::of("Read", move |n: i64, ctx: &mut Context<'_, (i64, i64)>| {
            let largest = *ctx.side(&side)?;
            ctx.output((n, largest));
            Ok(())
        })
        .with_side_input(&largest),
    );
    PAssert::that(&read).contains_in_any_order([(-1, 10), (-2, 20)]);
    p.run_with(o);
}
