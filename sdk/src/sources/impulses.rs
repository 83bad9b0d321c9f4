//! An element at each multiple of a time.

use std::time::Duration;

use purlin_model::Timestamp;

use super::now;
use crate::error::BoxError;
use crate::pipeline::{PBegin, PCollection, PTransform};
use crate::primitives::{Impulse, SplittableParDo};
use crate::splittable::{
    Continuation, ManualWatermark, OffsetRange, OffsetTracker, SplitContext, SplittableDoFn,
};

/// An element whenever so much time has passed: its value and its timestamp are the time at which it is due. Impulses
/// that are due when the pipeline starts come at once.
///
/// ```
/// use std::time::Duration;
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let times: PCollection<Timestamp> = p.apply(
///     PeriodicImpulse::every(Duration::from_secs(60))
///         .from(Timestamp::from_millis(0))
///         .until(Timestamp::from_millis(180_000)),
/// );
/// let minutes = times.map("Minutes", |at: Timestamp| at.millis() / 60_000);
/// PAssert::that(&minutes).contains_in_any_order([0, 1, 2]);
/// p.run();
/// ```
#[derive(Clone, Debug)]
pub struct PeriodicImpulse {
    interval: Duration,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl PeriodicImpulse {
    /// From the start of the pipeline on, for ever.
    pub fn every(interval: Duration) -> PeriodicImpulse {
        PeriodicImpulse {
            interval,
            from: None,
            until: None,
        }
    }

    /// The first one is due then.
    #[must_use]
    pub fn from(mut self, from: Timestamp) -> Self {
        self.from = Some(from);
        self
    }

    /// No more then and later.
    #[must_use]
    pub fn until(mut self, until: Timestamp) -> Self {
        self.until = Some(until);
        self
    }
}

/// The element is the time of the first impulse; offsets count impulses.
#[derive(Clone)]
struct Tick<const FOR_EVER: bool> {
    interval_ms: i64,
    until: Option<Timestamp>,
}

impl<const FOR_EVER: bool> SplittableDoFn for Tick<FOR_EVER> {
    type In = Timestamp;
    type Out = Timestamp;
    type Tracker = OffsetTracker;
    type Watermark = ManualWatermark;
    const UNBOUNDED: bool = FOR_EVER;

    fn initial_restriction(&self, first: &Timestamp) -> Result<OffsetRange, BoxError> {
        let until = self.until.unwrap_or(Timestamp::MAX);
        let span = until.millis().saturating_sub(first.millis()).max(0);
        let impulses = span / self.interval_ms + i64::from(span % self.interval_ms != 0);
        Ok(OffsetRange::new(0, impulses))
    }

    fn tracker(&self, _: &Timestamp, restriction: OffsetRange) -> OffsetTracker {
        OffsetTracker::new(restriction)
    }

    fn process(
        &mut self,
        first: &Timestamp,
        ctx: &mut SplitContext<'_, Self>,
    ) -> Result<Continuation, BoxError> {
        let mut impulse = ctx.restriction().start;
        loop {
            let due = first.plus_millis(impulse.saturating_mul(self.interval_ms));
            if impulse < ctx.restriction().end {
                // What comes next comes at that time.
                ctx.watermark(|watermark| watermark.set(due));
                let wait = due.millis_since(now());
                if wait > 0 {
                    return Ok(Continuation::Resume(Duration::from_millis(wait.unsigned_abs())));
                }
            }
            if !ctx.try_claim(impulse) {
                return Ok(Continuation::Done);
            }
            ctx.output_with_timestamp(due, due);
            impulse += 1;
        }
    }
}

impl PTransform<PBegin> for PeriodicImpulse {
    type Output = PCollection<Timestamp>;

    fn name(&self) -> String {
        "PeriodicImpulse".into()
    }

    fn expand(self, input: PBegin) -> PCollection<Timestamp> {
        let pipeline = input.pipeline();
        let interval_ms = i64::try_from(self.interval.as_millis()).unwrap_or(i64::MAX);
        if interval_ms == 0 {
            pipeline.problem("its interval is less than a millisecond");
        }
        let from = self.from;
        let first = pipeline
            .apply(Impulse)
            .map("First", move |_: Vec<u8>| from.unwrap_or_else(now));
        let (interval_ms, until) = (interval_ms.max(1), self.until);
        match until {
            Some(_) => first.apply(SplittableParDo::new("Tick", Tick::<false> { interval_ms, until })),
            None => first.apply(SplittableParDo::new("Tick", Tick::<true> { interval_ms, until })),
        }
    }
}
