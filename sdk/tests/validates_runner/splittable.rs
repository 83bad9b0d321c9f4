//! Splittable DoFns and what is built on them.

use std::time::Duration;

use purlin::prelude::*;

use super::core::SCRATCH;

/// Emits the offsets of its element, and stops after so many for a while.
#[derive(Clone)]
struct Offsets {
    at_a_time: i64,
    parts: u64,
}

impl SplittableDoFn for Offsets {
    type In = i64;
    type Out = i64;
    type Tracker = OffsetTracker;
    type Watermark = ManualWatermark;

    fn initial_restriction(&self, element: &i64) -> Result<OffsetRange, BoxError> {
        Ok(OffsetRange::new(0, *element))
    }

    fn tracker(&self, _: &i64, restriction: OffsetRange) -> OffsetTracker {
        OffsetTracker::new(restriction)
    }

    fn split(&self, _: &i64, restriction: OffsetRange) -> Result<Vec<OffsetRange>, BoxError> {
        Ok(restriction.split((restriction.len() / self.parts).max(1)))
    }

    fn process(&mut self, _: &i64, ctx: &mut SplitContext<'_, Self>) -> Result<Continuation, BoxError> {
        let start = ctx.restriction().start;
        for offset in start.. {
            if offset == start + self.at_a_time {
                return Ok(Continuation::Resume(Duration::from_millis(1)));
            }
            if !ctx.try_claim(offset) {
                break;
            }
            let at = Timestamp::from_millis(offset);
            ctx.output_with_timestamp(offset, at);
            ctx.watermark(|watermark| watermark.set(at));
        }
        Ok(Continuation::Done)
    }
}

fn each_once(o: &PipelineOptions, at_a_time: i64, parts: u64) {
    let p = TestPipeline::new();
    let offsets = p
        .apply(Create::new([100i64, 7, 0, 1]))
        .splittable_par_do("Offsets", Offsets { at_a_time, parts });
    let counts = offsets
        .window_into("Windows", Windowing::fixed(Duration::from_millis(50)))
        .map("One", |offset: i64| (offset, 1i64))
        .combine_per_key("Count", Sum::new());
    let expected = (0i64..100).map(|offset| (offset, 1 + i64::from(offset < 7) + i64::from(offset < 1)));
    PAssert::that(&counts.window_into("Together", Windowing::global())).contains_in_any_order(expected);
    p.run_with(o);
}

pub fn bounded(o: &PipelineOptions) {
    each_once(o, 1_000_000, 1);
}

pub fn initial_splits(o: &PipelineOptions) {
    each_once(o, 1_000_000, 9);
}

pub fn self_checkpoints(o: &PipelineOptions) {
    each_once(o, 13, 4);
}

/// Counts to its element; the two outputs and the side input belong to the same step.
#[derive(Clone)]
struct WithEnds {
    odd: OutputTag<i64>,
    offset: SideInput<purlin::side_input::Singleton<i64>>,
}

impl SplittableDoFn for WithEnds {
    type In = i64;
    type Out = i64;
    type Tracker = OffsetTracker;
    type Watermark = NoWatermark;
    fn initial_restriction(&self, element: &i64) -> Result<OffsetRange, BoxError> {
        Ok(OffsetRange::new(0, *element))
    }
    fn tracker(&self, _: &i64, restriction: OffsetRange) -> OffsetTracker {
        OffsetTracker::new(restriction)
    }
    fn process(&mut self, _: &i64, ctx: &mut SplitContext<'_, Self>) -> Result<Continuation, BoxError> {
        let add = *ctx.side(&self.offset)?;
        for offset in ctx.restriction().start.. {
            if !ctx.try_claim(offset) {
                break;
            }
            match offset % 2 {
                0 => ctx.output(offset + add),
                _ => ctx.output_to(&self.odd, offset + add),
            }
        }
        Ok(Continuation::Done)
    }
}

pub fn side_inputs_and_outputs(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let offset = p.apply_named("Offset", Create::new([100i64])).as_singleton();
    let odd = OutputTag::new("odd");
    let dofn = WithEnds {
        odd: odd.clone(),
        offset: offset.clone(),
    };
    let (even, odd) = p.apply(Create::new([5i64])).apply(
        SplittableParDo::new("WithEnds", dofn)
            .with_side_input(&offset)
            .with_outputs(&odd),
    );
    PAssert::that(&even)
        .named("Even")
        .contains_in_any_order([100, 102, 104]);
    PAssert::that(&odd).named("Odd").contains_in_any_order([101, 103]);
    p.run_with(o);
}

pub fn generate_sequence(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let numbers = p.apply(GenerateSequence::from(-3).to(50_000));
    PAssert::that(&numbers.apply(Sum::globally())).equals((-3i64..50_000).sum());
    p.run_with(o);
}

pub fn periodic_impulse(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let at = |s: i64| Timestamp::from_millis(s * 1000);
    let times = p.apply(
        PeriodicImpulse::every(Duration::from_secs(10))
            .from(at(0))
            .until(at(95)),
    );
    let per_minute = times
        .window_into("Minutes", Windowing::fixed(Duration::from_secs(60)))
        .map("Key", |_| ("k".to_owned(), 1i64))
        .combine_per_key("Count", Sum::new())
        .values();
    PAssert::that(&per_minute.window_into("Together", Windowing::global())).contains_in_any_order([6, 4]);
    p.run_with(o);
}

/// Two partitions of thirty numbers each. A reader has seven of them at hand.
#[derive(Clone)]
struct Feed;

struct FeedReader {
    next: i64,
    at_hand: i64,
    end: i64,
}

impl UnboundedSource for Feed {
    type Out = i64;
    type Partition = i64;
    type Checkpoint = i64;
    type Reader = FeedReader;
    fn partitions(&self) -> Result<Vec<i64>, BoxError> {
        Ok(vec![0, 1000])
    }
    fn reader(&self, partition: &i64, checkpoint: Option<i64>) -> Result<FeedReader, BoxError> {
        let next = checkpoint.unwrap_or(*partition);
        Ok(FeedReader {
            next,
            at_hand: next + 7,
            end: partition + 30,
        })
    }
}

impl UnboundedReader for FeedReader {
    type Out = i64;
    type Checkpoint = i64;
    fn next(&mut self) -> Result<Next<i64>, BoxError> {
        if self.next == self.end {
            return Ok(Next::End);
        }
        if self.next == self.at_hand {
            return Ok(Next::Idle);
        }
        self.next += 1;
        Ok(Next::Record(self.next - 1, Timestamp::from_millis(self.next)))
    }
    fn checkpoint(&self) -> i64 {
        self.next
    }
    fn watermark(&self) -> Timestamp {
        Timestamp::from_millis(self.next)
    }
}

pub fn unbounded_source(o: &PipelineOptions) {
    let p = TestPipeline::new();
    let numbers = p.apply(ReadUnbounded::new("Feed", Feed).poll_every(Duration::from_millis(1)));
    let sums = numbers
        .window_into("Windows", Windowing::fixed(Duration::from_secs(3600)))
        .map("Key", |n: i64| (n / 1000, n))
        .combine_per_key("Sum", Sum::new());
    let expected = [(0, (0i64..30).sum()), (1, (1000i64..1030).sum())];
    PAssert::that(&sums.window_into("Together", Windowing::global())).contains_in_any_order(expected);
    p.run_with(o);
}

/// A source without end is drained: it stops, and all that it gave comes to the end, out of windows that end in the future.
pub fn drain(o: &PipelineOptions) {
    let first = SCRATCH.get().cloned().unwrap_or_default().join("first");
    let p = Pipeline::new();
    let seen = first.clone();
    let far = Windowing::fixed(Duration::from_secs(100 * 365 * 86_400));
    p.apply(GenerateSequence::from(0).with_rate(1000, Duration::from_secs(1)))
        .try_map("Count", move |n: i64| {
            Metrics::counter("drain", "read").inc(1);
            if n == 0 {
                std::fs::write(&seen, "")?;
            }
            Ok::<_, std::io::Error>((n % 3, n))
        })
        .window_into("Windows", far)
        .group_by_key("Group")
        .map("Arrive", |(_, all): (i64, Vec<i64>)| {
            Metrics::counter("drain", "arrived").inc(all.len() as i64);
        });
    let handle = p.start(o).unwrap_or_else(|e| panic!("{e}"));
    while !first.exists() {
        assert!(
            !handle.wait_for(Duration::from_millis(1)),
            "it ended by itself: {handle:?}"
        );
    }
    assert_eq!(handle.metrics().counter("drain", "arrived"), 0);
    if let Err(error) = handle.drain() {
        handle.cancel();
        panic!("{error}");
    }
    let result = handle.wait().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(result.state(), PipelineState::Drained);
    let counter = |name: &str| result.metrics().counter("drain", name);
    assert!(counter("read") > 0);
    assert_eq!(counter("arrived"), counter("read"));
}
