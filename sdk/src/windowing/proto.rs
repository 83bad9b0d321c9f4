//! Windowing strategies as protos.

use prost::Message;
use purlin_proto::pipeline::{
    self, FixedWindowsPayload, FunctionSpec, SessionWindowsPayload, SlidingWindowsPayload, accumulation_mode,
    closing_behavior, merge_status, on_time_behavior, output_time,
};
use purlin_proto::urns::window_fns;

use super::{Accumulation, TimestampCombiner, TimestampTransform, Trigger, WindowFn, Windowing};

fn duration(ms: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration {
        seconds: ms.div_euclid(1000),
        nanos: (ms.rem_euclid(1000) * 1_000_000) as i32,
    })
}

fn timestamp(ms: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp {
        seconds: ms.div_euclid(1000),
        nanos: (ms.rem_euclid(1000) * 1_000_000) as i32,
    })
}

fn ms(seconds: i64, nanos: i32) -> i64 {
    seconds
        .saturating_mul(1000)
        .saturating_add(i64::from(nanos) / 1_000_000)
}

/// URN of a window function that is found by its name.
pub(crate) const CUSTOM_WINDOW_FN: &str = "purlin:window_fn:closure:v1";

/// A window function as pipelines describe it.
pub(super) fn window_fn_to_spec(window_fn: &WindowFn) -> FunctionSpec {
    let (urn, payload) = match *window_fn {
        WindowFn::Global => (window_fns::GLOBAL_WINDOWS, Vec::new()),
        WindowFn::Custom(ref custom) => (CUSTOM_WINDOW_FN, custom.payload().to_vec()),
        WindowFn::Fixed { size_ms, offset_ms } => (
            window_fns::FIXED_WINDOWS,
            FixedWindowsPayload {
                size: duration(size_ms),
                offset: timestamp(offset_ms),
            }
            .encode_to_vec(),
        ),
        WindowFn::Sliding {
            size_ms,
            period_ms,
            offset_ms,
        } => (
            window_fns::SLIDING_WINDOWS,
            SlidingWindowsPayload {
                size: duration(size_ms),
                offset: timestamp(offset_ms),
                period: duration(period_ms),
            }
            .encode_to_vec(),
        ),
        WindowFn::Sessions { gap_ms } => (
            window_fns::SESSION_WINDOWS,
            SessionWindowsPayload {
                gap_size: duration(gap_ms),
            }
            .encode_to_vec(),
        ),
    };
    FunctionSpec {
        urn: urn.into(),
        payload: payload.into(),
    }
}

/// The window function that a spec describes; `custom` finds those of the user's own.
pub(crate) fn window_fn_from_spec(
    spec: &FunctionSpec,
    custom: impl FnOnce(&FunctionSpec) -> Result<WindowFn, String>,
) -> Result<WindowFn, String> {
    let bad =
        |e: prost::DecodeError| format!("the payload of window function {} cannot be read: {e}", spec.urn);
    let d = |d: Option<prost_types::Duration>| d.map_or(0, |d| ms(d.seconds, d.nanos));
    let t = |t: Option<prost_types::Timestamp>| t.map_or(0, |t| ms(t.seconds, t.nanos));
    let window_fn = match spec.urn.as_str() {
        window_fns::GLOBAL_WINDOWS => WindowFn::Global,
        window_fns::FIXED_WINDOWS => {
            let p = FixedWindowsPayload::decode(spec.payload.clone()).map_err(bad)?;
            WindowFn::Fixed {
                size_ms: d(p.size),
                offset_ms: t(p.offset),
            }
        }
        window_fns::SLIDING_WINDOWS => {
            let p = SlidingWindowsPayload::decode(spec.payload.clone()).map_err(bad)?;
            WindowFn::Sliding {
                size_ms: d(p.size),
                period_ms: d(p.period),
                offset_ms: t(p.offset),
            }
        }
        window_fns::SESSION_WINDOWS => {
            let p = SessionWindowsPayload::decode(spec.payload.clone()).map_err(bad)?;
            WindowFn::Sessions {
                gap_ms: d(p.gap_size),
            }
        }
        CUSTOM_WINDOW_FN => custom(spec)?,
        other => return Err(format!("window function {other} is not known to this SDK")),
    };
    match window_fn.problem() {
        None => Ok(window_fn),
        Some(problem) => Err(problem.into()),
    }
}

fn timestamp_transform_to_proto(transform: TimestampTransform) -> pipeline::TimestampTransform {
    use pipeline::timestamp_transform::{AlignTo, Delay, TimestampTransform as T};
    let transform = match transform {
        TimestampTransform::Delay(delay_millis) => T::Delay(Delay { delay_millis }),
        TimestampTransform::AlignTo { period_ms, offset_ms } => T::AlignTo(AlignTo {
            period: period_ms,
            offset: offset_ms,
        }),
    };
    pipeline::TimestampTransform {
        timestamp_transform: Some(transform),
    }
}

fn trigger_to_proto(trigger: &Trigger) -> pipeline::Trigger {
    use pipeline::trigger::{self as t, Trigger as T};
    let all = |triggers: &[Trigger]| triggers.iter().map(trigger_to_proto).collect::<Vec<_>>();
    let boxed = |trigger: &Option<Box<Trigger>>| trigger.as_ref().map(|t| Box::new(trigger_to_proto(t)));
    let trigger = match trigger {
        Trigger::Default => T::Default(t::Default {}),
        Trigger::AfterEndOfWindow { early, late } => T::AfterEndOfWindow(Box::new(t::AfterEndOfWindow {
            early_firings: boxed(early),
            late_firings: boxed(late),
        })),
        Trigger::ElementCount(count) => T::ElementCount(t::ElementCount {
            element_count: i32::try_from(*count).unwrap_or(i32::MAX),
        }),
        Trigger::AfterProcessingTime(transforms) => T::AfterProcessingTime(t::AfterProcessingTime {
            timestamp_transforms: transforms
                .iter()
                .copied()
                .map(timestamp_transform_to_proto)
                .collect(),
        }),
        Trigger::AfterSynchronizedProcessingTime => {
            T::AfterSynchronizedProcessingTime(t::AfterSynchronizedProcessingTime {})
        }
        Trigger::AfterEach(triggers) => T::AfterEach(t::AfterEach {
            subtriggers: all(triggers),
        }),
        Trigger::AfterAll(triggers) => T::AfterAll(t::AfterAll {
            subtriggers: all(triggers),
        }),
        Trigger::AfterAny(triggers) => T::AfterAny(t::AfterAny {
            subtriggers: all(triggers),
        }),
        Trigger::OrFinally(main, other) => T::OrFinally(Box::new(t::OrFinally {
            main: Some(Box::new(trigger_to_proto(main))),
            finally: Some(Box::new(trigger_to_proto(other))),
        })),
        Trigger::Repeat(trigger) => T::Repeat(Box::new(t::Repeat {
            subtrigger: Some(Box::new(trigger_to_proto(trigger))),
        })),
        Trigger::Always => T::Always(t::Always {}),
        Trigger::Never => T::Never(t::Never {}),
    };
    pipeline::Trigger {
        trigger: Some(trigger),
    }
}

impl Windowing {
    pub(crate) fn to_proto(
        &self,
        window_coder_id: String,
        environment_id: String,
    ) -> pipeline::WindowingStrategy {
        let merge = match (self.window_fn.merges(), self.already_merged) {
            (_, true) => merge_status::Enum::AlreadyMerged,
            (true, false) => merge_status::Enum::NeedsMerge,
            (false, false) => merge_status::Enum::NonMerging,
        };
        let accumulation = match self.accumulation {
            Accumulation::Discarding => accumulation_mode::Enum::Discarding,
            Accumulation::Accumulating => accumulation_mode::Enum::Accumulating,
        };
        let output_time = match self.timestamp_combiner {
            TimestampCombiner::EndOfWindow => output_time::Enum::EndOfWindow,
            TimestampCombiner::Earliest => output_time::Enum::EarliestInPane,
            TimestampCombiner::Latest => output_time::Enum::LatestInPane,
        };
        let closing = match self.closing_always {
            true => closing_behavior::Enum::EmitAlways,
            false => closing_behavior::Enum::EmitIfNonempty,
        };
        let on_time = match self.on_time_always {
            true => on_time_behavior::Enum::FireAlways,
            false => on_time_behavior::Enum::FireIfNonempty,
        };
        pipeline::WindowingStrategy {
            window_fn: Some(window_fn_to_spec(&self.window_fn)),
            merge_status: merge.into(),
            window_coder_id,
            trigger: Some(trigger_to_proto(&self.trigger)),
            accumulation_mode: accumulation.into(),
            output_time: output_time.into(),
            closing_behavior: closing.into(),
            allowed_lateness: self.allowed_lateness_ms,
            on_time_behavior: on_time.into(),
            assigns_to_one_window: self.window_fn.assigns_to_one_window(),
            environment_id,
        }
    }
}
