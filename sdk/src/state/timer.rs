//! Timers: callbacks for a key at a time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use purlin_model::Timestamp;

use super::{Field, FieldKind, FieldSpec, Keyed, TimeDomain, field_id};
use crate::clock::now;
use crate::error::{BoxError, DoFnResult};

/// A family of timers. Each key has, in each window, one timer for each tag; the timer without a tag is the one of the
/// empty tag. Setting a timer that is set replaces it.
#[derive(Clone)]
pub struct Timer {
    id: u64,
    name: Arc<str>,
    domain: TimeDomain,
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timer({}, {:?})", self.name, self.domain)
    }
}

impl Field for Timer {
    fn spec(&self) -> FieldSpec {
        FieldSpec {
            id: self.id,
            name: self.name.clone(),
            queryable: false,
            kind: FieldKind::Timer(self.domain),
        }
    }
}

impl Timer {
    /// Timers that fire when the watermark has passed their time: no element before it is to come.
    pub fn event_time(name: &str) -> Timer {
        Timer::new(name, TimeDomain::EventTime)
    }

    /// Timers that fire when the clock has reached their time.
    pub fn processing_time(name: &str) -> Timer {
        Timer::new(name, TimeDomain::ProcessingTime)
    }

    fn new(name: &str, domain: TimeDomain) -> Timer {
        Timer {
            id: field_id::<Timer>(name),
            name: name.into(),
            domain,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    fn request(&self) -> TimerRequest<'_> {
        TimerRequest {
            timer: self,
            tag: "",
            output_timestamp: None,
        }
    }

    /// The timer of this tag: any text, told back when it fires.
    pub fn tag<'a>(&'a self, tag: &'a str) -> TimerRequest<'a> {
        TimerRequest {
            tag,
            ..self.request()
        }
    }

    /// Sets the timer so that what it emits has this timestamp, at which the output watermark is held until then.
    pub fn output_timestamp(&self, timestamp: Timestamp) -> TimerRequest<'_> {
        TimerRequest {
            output_timestamp: Some(timestamp),
            ..self.request()
        }
    }

    /// Sets the timer.
    ///
    /// # Errors
    /// When it is not declared.
    pub fn set(&self, ctx: &mut impl Keyed, at: Timestamp) -> DoFnResult {
        self.request().set(ctx, at)
    }

    /// Sets the timer so long from now, by the clock.
    ///
    /// # Errors
    /// When it is not declared, or waits for event time.
    pub fn set_after(&self, ctx: &mut impl Keyed, delay: Duration) -> DoFnResult {
        self.request().set_after(ctx, delay)
    }

    /// Clears the timer: it does not fire.
    ///
    /// # Errors
    /// When it is not declared.
    pub fn clear(&self, ctx: &mut impl Keyed) -> DoFnResult {
        self.request().clear(ctx)
    }
}

/// One timer of a family, to be set or cleared.
#[derive(Clone, Copy, Debug)]
pub struct TimerRequest<'a> {
    timer: &'a Timer,
    tag: &'a str,
    output_timestamp: Option<Timestamp>,
}

impl TimerRequest<'_> {
    /// What the timer emits has this timestamp, at which the output watermark is held until it fires. Without it that
    /// is the time of an event-time timer, and the timestamp of the element at hand for a processing-time timer.
    #[must_use]
    pub fn output_timestamp(mut self, timestamp: Timestamp) -> Self {
        self.output_timestamp = Some(timestamp);
        self
    }

    /// Sets the timer.
    ///
    /// # Errors
    /// When it is not declared, or an event-time timer's output timestamp is after its time.
    pub fn set(self, ctx: &mut impl Keyed, at: Timestamp) -> DoFnResult {
        let timer = self.timer;
        if timer.domain == TimeDomain::EventTime
            && let Some(output) = self.output_timestamp.filter(|output| *output > at)
        {
            return Err(format!(
                "timer \"{}\" is set to {at} with an output timestamp after that, {output}: an event-time timer holds \
                 the watermark at its own time at the latest",
                timer.name
            )
            .into());
        }
        let output = self.output_timestamp;
        ctx.keyed().set_timer(timer.id, &timer.name, self.tag, at, output)
    }

    /// Sets the timer so long from now, by the clock.
    ///
    /// # Errors
    /// When it is not declared, or waits for event time.
    pub fn set_after(self, ctx: &mut impl Keyed, delay: Duration) -> DoFnResult {
        if self.timer.domain == TimeDomain::EventTime {
            return Err(BoxError::from(format!(
                "timer \"{}\" waits for event time: set it to a timestamp; only Timer::processing_time timers wait for \
                 the clock",
                self.timer.name
            )));
        }
        let delay = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        self.set(ctx, now().plus_millis(delay))
    }

    /// Clears the timer.
    ///
    /// # Errors
    /// When it is not declared.
    pub fn clear(self, ctx: &mut impl Keyed) -> DoFnResult {
        ctx.keyed().clear_timer(self.timer.id, &self.timer.name, self.tag)
    }
}

/// A timer that fires.
#[derive(Clone, Debug)]
pub struct FiredTimer {
    pub(crate) id: u64,
    pub(crate) name: Arc<str>,
    pub(crate) tag: String,
    pub(crate) timestamp: Timestamp,
}

impl FiredTimer {
    /// Whether it is of this family.
    pub fn is(&self, timer: &Timer) -> bool {
        self.id == timer.id()
    }

    /// Name of its family.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its tag; empty for a timer without one.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The time that it was set to, in its time domain. Its output timestamp is the context's timestamp.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }
}
