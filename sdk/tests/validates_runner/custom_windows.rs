//! Windows of the user's own.

use std::time::Duration;

use purlin::prelude::*;

use super::core::at_seconds;

/// A number of elements that belong together, told by their timestamps: the tens of seconds.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, purlin::Element)]
struct Group {
    first: i64,
    last: i64,
}

impl WindowType for Group {
    fn max_timestamp(&self) -> Timestamp {
        Timestamp::from_millis((self.last + 1) * 10_000 - 1)
    }
}

/// Neighbouring tens of seconds merge.
#[derive(Clone)]
struct Neighbours;

impl CustomWindowFn for Neighbours {
    type Window = Group;
    const MERGES: bool = true;

    fn name(&self) -> String {
        "neighbours".into()
    }

    fn assign(&self, timestamp: Timestamp) -> Vec<Group> {
        let ten = timestamp.millis().div_euclid(10_000);
        vec![Group {
            first: ten,
            last: ten,
        }]
    }

    fn merge(&self, windows: &[Group]) -> Vec<Merged<Group>> {
        let mut order: Vec<usize> = (0..windows.len()).collect();
        order.sort_by_key(|index| windows[*index].first);
        let mut all: Vec<Merged<Group>> = Vec::new();
        for index in order {
            let window = &windows[index];
            match all.last_mut() {
                Some(last) if window.first <= last.into.last + 1 => {
                    last.from.push(index);
                    last.into.last = last.into.last.max(window.last);
                }
                _ => all.push(Merged {
                    from: vec![index],
                    into: window.clone(),
                }),
            }
        }
        all.retain(|merged| merged.from.len() > 1);
        all
    }
}

/// Each element is in the group of its ten and in the next one.
#[derive(Clone)]
struct Twice;

impl CustomWindowFn for Twice {
    type Window = Group;
    const ASSIGNS_TO_ONE_WINDOW: bool = false;

    fn name(&self) -> String {
        "twice".into()
    }

    fn assign(&self, timestamp: Timestamp) -> Vec<Group> {
        let ten = timestamp.millis().div_euclid(10_000);
        [ten, ten + 1]
            .map(|ten| Group {
                first: ten,
                last: ten,
            })
            .to_vec()
    }
}

fn with_group(sums: &PCollection<(String, i64)>) -> PCollection<(i64, i64, i64)> {
    sums.par_do_with(
        "Group",
        |(_, sum): (String, i64), ctx: &mut Context<'_, (i64, i64, i64)>| {
            let group: Group = ctx.window_as().ok_or("not a group")?;
            ctx.output((group.first, group.last, sum));
            Ok(())
        },
    )
}

pub fn windows_of_the_users_own_type_group(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let sums = at_seconds(&p, &[1, 2, 15, 31])
        .window_into("Twice", Windowing::custom(Twice))
        .combine_per_key("Sum", Sum::new());
    PAssert::that(&with_group(&sums)).contains_in_any_order([
        (0, 0, 3),
        (1, 1, 18),
        (2, 2, 15),
        (3, 3, 31),
        (4, 4, 31),
    ]);
    p.run_with(o);
}

pub fn windows_of_the_users_own_type_merge(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let sums = at_seconds(&p, &[1, 2, 15, 31, 55, 49])
        .window_into("Neighbours", Windowing::custom(Neighbours))
        .combine_per_key("Sum", Sum::new());
    PAssert::that(&with_group(&sums)).contains_in_any_order([(0, 1, 18), (3, 5, 135)]);
    p.run_with(o);
}

pub fn side_inputs_have_windows_of_the_users_own(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let windowed = at_seconds(&p, &[1, 2, 15]).window_into("Side", Windowing::custom(Twice));
    let sides = windowed.values().as_list();
    let main = at_seconds(&p, &[3, 12]).window_into("Main", Windowing::fixed(Duration::from_secs(10)));
    let view = sides.clone();
    let out = main.apply(
        ParDo::of(
            "Read",
            move |(_, second): (String, i64), ctx: &mut Context<'_, (i64, Vec<i64>)>| {
                let mut values = ctx.side(&view)?.to_vec();
                values.sort_unstable();
                ctx.output((second, values));
                Ok(())
            },
        )
        .with_side_input(&sides),
    );
    PAssert::that(&out).contains_in_any_order([(3, vec![1, 2, 15]), (12, vec![15])]);
    p.run_with(o);
}

pub fn state_is_kept_by_windows_of_the_users_own(o: &PipelineOptions) {
    #[derive(Clone)]
    struct Last {
        last: ValueState<i64>,
        end: Timer,
    }
    impl StatefulDoFn for Last {
        type Key = String;
        type Value = i64;
        type Out = (i64, i64);
        purlin::fields!(last, end);
        fn process(&mut self, _: String, value: i64, ctx: &mut KeyedContext<'_, (i64, i64)>) -> DoFnResult {
            let end = ctx.window().max_timestamp();
            self.end.set(ctx, end)?;
            let last = self.last.read(ctx)?.unwrap_or(value);
            self.last.write(ctx, &last.max(value))
        }
        fn on_timer(
            &mut self,
            _: String,
            _: &FiredTimer,
            ctx: &mut KeyedContext<'_, (i64, i64)>,
        ) -> DoFnResult {
            let group: Group = ctx.window_as().ok_or("not a group")?;
            let last = self.last.read(ctx)?.unwrap_or(-1);
            ctx.output((group.first, last));
            Ok(())
        }
    }
    let p = TestPipeline::new();
    let last = Last {
        last: ValueState::new("last"),
        end: Timer::event_time("end"),
    };
    let out = at_seconds(&p, &[1, 2, 15])
        .window_into("Twice", Windowing::custom(Twice))
        .stateful_par_do("Last", last);
    PAssert::that(&out).contains_in_any_order([(0, 2), (1, 15), (2, 15)]);
    p.run_with(o);
}

pub fn calendar_months_group(o: &PipelineOptions) {
    let p = TestPipeline::new();
    // 1970-01-31, 1970-02-01, 1970-02-28, 1970-03-01
    let days = [30, 31, 58, 59].map(|day: i64| day * 86_400);
    let counts = at_seconds(&p, &days)
        .window_into("Months", Windowing::calendar(CalendarWindows::months(1)))
        .combine_per_key("Count", Count::new())
        .par_do_with(
            "Start",
            |(_, count): (String, u64), ctx: &mut Context<'_, (i64, u64)>| {
                let window: IntervalWindow = ctx.window_as().ok_or("not an interval")?;
                ctx.output((window.start.millis() / 86_400_000, count));
                Ok(())
            },
        );
    PAssert::that(&counts).contains_in_any_order([(0, 1u64), (31, 2), (59, 1)]);
    p.run_with(o);
}
