//! Numbers, one after the other.

use std::time::Duration;

use purlin_model::Timestamp;

use super::now;
use crate::error::BoxError;
use crate::pipeline::{PBegin, PCollection, PTransform};
use crate::primitives::{Impulse, SplittableParDo};
use crate::splittable::{
    Continuation, ManualWatermark, OffsetRange, OffsetTracker, SplitContext, SplittableDoFn,
};

/// Numbers, one after the other; without an end, for ever.
///
/// ```
/// use std::time::Duration;
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let numbers: PCollection<i64> = p.apply(GenerateSequence::from(3).to(6));
/// PAssert::that(&numbers).contains_in_any_order([3, 4, 5]);
/// p.run();
///
/// // Ten a second, without end; each bears the time at which it is due.
/// let ticks = GenerateSequence::from(0).with_rate(10, Duration::from_secs(1));
/// ```
#[derive(Clone, Debug)]
pub struct GenerateSequence {
    from: i64,
    to: Option<i64>,
    rate: Option<(u64, Duration)>,
    timestamps: Option<fn(i64) -> Timestamp>,
}

impl GenerateSequence {
    /// Numbers from this one on.
    pub fn from(from: i64) -> GenerateSequence {
        GenerateSequence {
            from,
            to: None,
            rate: None,
            timestamps: None,
        }
    }

    /// Numbers before this one.
    #[must_use]
    pub fn to(mut self, to: i64) -> Self {
        self.to = Some(to);
        self
    }

    /// So many numbers in this time, from the start of the pipeline on. Each number's timestamp is when it is due.
    #[must_use]
    pub fn with_rate(mut self, numbers: u64, period: Duration) -> Self {
        self.rate = Some((numbers, period));
        self
    }

    /// The timestamps of the numbers; they must not descend.
    #[must_use]
    pub fn with_timestamps(mut self, timestamps: fn(i64) -> Timestamp) -> Self {
        self.timestamps = Some(timestamps);
        self
    }
}

/// Counts from a number on. The element is the time of the start, in milliseconds. Numbers without an end may be drained
/// between any two of them.
#[derive(Clone)]
struct Count<const FOR_EVER: bool> {
    sequence: GenerateSequence,
    first: i64,
    end: i64,
}

impl<const FOR_EVER: bool> Count<FOR_EVER> {
    /// When a number is due.
    fn due(&self, number: i64, start: i64) -> Timestamp {
        let Some((numbers, period)) = self.sequence.rate else {
            return Timestamp::MIN;
        };
        let index = u128::from(number.abs_diff(self.first));
        let after = index * period.as_millis() / u128::from(numbers.max(1));
        Timestamp::from_millis(start.saturating_add(i64::try_from(after).unwrap_or(i64::MAX)))
    }
}

/// Shortly after a number is due is as good as then.
const PATIENCE: Duration = Duration::from_millis(2);

impl<const FOR_EVER: bool> SplittableDoFn for Count<FOR_EVER> {
    type In = i64;
    type Out = i64;
    type Tracker = OffsetTracker;
    type Watermark = ManualWatermark;
    const UNBOUNDED: bool = FOR_EVER;

    fn initial_restriction(&self, _: &i64) -> Result<OffsetRange, BoxError> {
        Ok(OffsetRange::new(self.first, self.end))
    }

    fn tracker(&self, _: &i64, restriction: OffsetRange) -> OffsetTracker {
        OffsetTracker::new(restriction)
    }

    fn split(&self, _: &i64, restriction: OffsetRange) -> Result<Vec<OffsetRange>, BoxError> {
        // Numbers of a rate, or without an end, come one after the other.
        if FOR_EVER || self.sequence.rate.is_some() {
            return Ok(vec![restriction]);
        }
        Ok(restriction.split((restriction.len() / 16).max(10_000)))
    }

    fn process(&mut self, start: &i64, ctx: &mut SplitContext<'_, Self>) -> Result<Continuation, BoxError> {
        let mut number = ctx.restriction().start;
        let mut emitted: u32 = 0;
        loop {
            let due = self.due(number, *start);
            if self.sequence.rate.is_some() {
                let wait = due.millis_since(now());
                if wait > 0 && number < ctx.restriction().end {
                    let wait = Duration::from_millis(wait.unsigned_abs());
                    return Ok(Continuation::Resume(wait.max(PATIENCE)));
                }
            } else if FOR_EVER && emitted == 10_000 {
                // What is there goes on, before there is more.
                return Ok(Continuation::Resume(Duration::ZERO));
            }
            if !ctx.try_claim(number) {
                return Ok(Continuation::Done);
            }
            match (self.sequence.timestamps, self.sequence.rate) {
                (Some(timestamps), _) => {
                    let at = timestamps(number);
                    ctx.output_with_timestamp(number, at);
                    ctx.watermark(|watermark| watermark.set(at));
                }
                (None, Some(_)) => {
                    ctx.output_with_timestamp(number, due);
                    ctx.watermark(|watermark| watermark.set(due));
                }
                (None, None) => ctx.output(number),
            }
            emitted += 1;
            let Some(next) = number.checked_add(1) else {
                return Ok(Continuation::Done);
            };
            number = next;
        }
    }
}

impl PTransform<PBegin> for GenerateSequence {
    type Output = PCollection<i64>;

    fn name(&self) -> String {
        "GenerateSequence".into()
    }

    fn expand(self, input: PBegin) -> PCollection<i64> {
        let pipeline = input.pipeline();
        if self.to.is_some_and(|to| to < self.from) {
            pipeline.problem("its numbers end before they start");
        }
        if let Some((numbers, period)) = self.rate
            && (numbers == 0 || period.is_zero())
        {
            pipeline.problem("its rate needs at least one number in a period that is not zero");
        }
        let start = pipeline.apply(Impulse).map("Start", |_: Vec<u8>| now().millis());
        let (first, to) = (self.from, self.to);
        let (end, sequence) = (to.unwrap_or(i64::MAX), self);
        match to {
            Some(_) => start.apply(SplittableParDo::new(
                "Count",
                Count::<false> { sequence, first, end },
            )),
            None => start.apply(SplittableParDo::new(
                "Count",
                Count::<true> { sequence, first, end },
            )),
        }
    }
}
