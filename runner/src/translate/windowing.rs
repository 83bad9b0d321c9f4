//! Windowing strategies, as the engine needs them.

use prost::Message as _;
use purlin_engine::{
    Accumulation, PaneEmission, SdkWindows, TimestampCombiner, TimestampTransform, Trigger, WindowFn,
    Windowing,
};
use purlin_proto::pipeline::{self, trigger};
use purlin_proto::urns::window_fns;

/// The engine's windowing of a strategy, without its environment; an error says what is wrong with it.
pub(super) fn windowing(strategy: &pipeline::WindowingStrategy) -> Result<Windowing, String> {
    use pipeline::{accumulation_mode, closing_behavior, on_time_behavior, output_time};
    let accumulation = match strategy.accumulation_mode() {
        accumulation_mode::Enum::Accumulating => Accumulation::Accumulating,
        accumulation_mode::Enum::Discarding | accumulation_mode::Enum::Unspecified => {
            Accumulation::Discarding
        }
        accumulation_mode::Enum::Retracting => {
            return Err("retracting panes are not supported; use discarding or accumulating ones".into());
        }
    };
    if strategy.allowed_lateness < 0 {
        return Err(format!(
            "allowed lateness {} ms is negative",
            strategy.allowed_lateness
        ));
    }
    Ok(Windowing {
        window_fn: window_fn(strategy)?,
        trigger: strategy
            .trigger
            .as_ref()
            .map_or(Ok(Trigger::Default), |t| trigger(t, 0))?,
        accumulation,
        allowed_lateness_ms: strategy.allowed_lateness,
        closing: match strategy.closing_behavior() {
            closing_behavior::Enum::EmitAlways => PaneEmission::Always,
            _ => PaneEmission::IfNonEmpty,
        },
        on_time: match strategy.on_time_behavior() {
            on_time_behavior::Enum::FireIfNonempty => PaneEmission::IfNonEmpty,
            _ => PaneEmission::Always,
        },
        timestamp_combiner: match strategy.output_time() {
            output_time::Enum::LatestInPane => TimestampCombiner::Latest,
            output_time::Enum::EarliestInPane => TimestampCombiner::Earliest,
            _ => TimestampCombiner::EndOfWindow,
        },
        environment: None,
    })
}

/// The windowing of collections that translation makes of nothing.
pub(super) fn global_windowing() -> Windowing {
    Windowing {
        window_fn: WindowFn::Global,
        trigger: Trigger::Default,
        accumulation: Accumulation::Discarding,
        allowed_lateness_ms: 0,
        closing: PaneEmission::IfNonEmpty,
        on_time: PaneEmission::Always,
        timestamp_combiner: TimestampCombiner::EndOfWindow,
        environment: None,
    }
}

fn window_fn(strategy: &pipeline::WindowingStrategy) -> Result<WindowFn, String> {
    use pipeline::merge_status::Enum as MergeStatus;
    let spec = strategy
        .window_fn
        .as_ref()
        .ok_or("a windowing strategy has no window function")?;
    let custom = WindowFn::Custom(SdkWindows {
        merging: strategy.merge_status() == MergeStatus::NeedsMerge,
    });
    let bad = |error: prost::DecodeError| {
        format!(
            "the payload of window function {} is malformed: {error}",
            spec.urn
        )
    };
    Ok(match spec.urn.as_str() {
        window_fns::GLOBAL_WINDOWS => WindowFn::Global,
        window_fns::FIXED_WINDOWS => {
            let payload = pipeline::FixedWindowsPayload::decode(&spec.payload[..]).map_err(bad)?;
            match (whole_millis(payload.size), offset_millis(payload.offset)) {
                (Some(size_ms), Some(offset_ms)) if size_ms > 0 => WindowFn::Fixed { size_ms, offset_ms },
                (Some(size_ms), _) if size_ms <= 0 => {
                    return Err("fixed windows have a size of 0 or less".into());
                }
                // Finer than the milliseconds that the runner counts: the SDK alone knows these windows.
                _ => custom,
            }
        }
        window_fns::SLIDING_WINDOWS => {
            let payload = pipeline::SlidingWindowsPayload::decode(&spec.payload[..]).map_err(bad)?;
            let parts = (
                whole_millis(payload.size),
                whole_millis(payload.period),
                offset_millis(payload.offset),
            );
            match parts {
                (Some(size_ms), Some(period_ms), Some(offset_ms)) if size_ms > 0 && period_ms > 0 => {
                    WindowFn::Sliding {
                        size_ms,
                        period_ms,
                        offset_ms,
                    }
                }
                (Some(size), Some(period), _) if size <= 0 || period <= 0 => {
                    return Err("sliding windows have a size or period of 0 or less".into());
                }
                _ => custom,
            }
        }
        window_fns::SESSION_WINDOWS => {
            let payload = pipeline::SessionWindowsPayload::decode(&spec.payload[..]).map_err(bad)?;
            if strategy.merge_status() == MergeStatus::AlreadyMerged {
                return Ok(WindowFn::Custom(SdkWindows { merging: false }));
            }
            match ceil_millis(payload.gap_size) {
                Some(gap_ms) if gap_ms > 0 => WindowFn::Sessions { gap_ms },
                _ => return Err("session windows have a gap of 0 or less".into()),
            }
        }
        "" => return Err("a window function has no URN".into()),
        _ => custom,
    })
}

/// Milliseconds of a duration; `None` where it is no whole number of them.
fn whole_millis(duration: Option<prost_types::Duration>) -> Option<i64> {
    let duration = duration.unwrap_or_default();
    let nanos = i64::from(duration.nanos);
    (nanos % 1_000_000 == 0).then(|| duration.seconds.checked_mul(1000)?.checked_add(nanos / 1_000_000))?
}

fn ceil_millis(duration: Option<prost_types::Duration>) -> Option<i64> {
    let duration = duration.unwrap_or_default();
    let nanos = i64::from(duration.nanos);
    duration
        .seconds
        .checked_mul(1000)?
        .checked_add(nanos.div_euclid(1_000_000) + i64::from(nanos % 1_000_000 != 0))
}

fn offset_millis(offset: Option<prost_types::Timestamp>) -> Option<i64> {
    let offset = offset.unwrap_or_default();
    whole_millis(Some(prost_types::Duration {
        seconds: offset.seconds,
        nanos: offset.nanos,
    }))
}

fn trigger(proto: &pipeline::Trigger, depth: usize) -> Result<Trigger, String> {
    use trigger::Trigger as Proto;
    if depth > 50 {
        return Err("a trigger is nested more than 50 deep".into());
    }
    let all = |list: &[pipeline::Trigger]| -> Result<Vec<Trigger>, String> {
        if list.is_empty() {
            return Err("a trigger of several has none inside".into());
        }
        list.iter().map(|t| trigger(t, depth + 1)).collect()
    };
    let one = |inner: &Option<Box<pipeline::Trigger>>, what: &str| -> Result<Box<Trigger>, String> {
        let inner = inner
            .as_ref()
            .ok_or_else(|| format!("a {what} trigger lacks its inner trigger"))?;
        trigger(inner, depth + 1).map(Box::new)
    };
    let optional = |inner: &Option<Box<pipeline::Trigger>>| -> Result<Option<Box<Trigger>>, String> {
        inner
            .as_ref()
            .map(|t| trigger(t, depth + 1).map(Box::new))
            .transpose()
    };
    Ok(match &proto.trigger {
        None | Some(Proto::Default(_)) => Trigger::Default,
        Some(Proto::AfterAll(t)) => Trigger::AfterAll(all(&t.subtriggers)?),
        Some(Proto::AfterAny(t)) => Trigger::AfterAny(all(&t.subtriggers)?),
        Some(Proto::AfterEach(t)) => Trigger::AfterEach(all(&t.subtriggers)?),
        Some(Proto::AfterEndOfWindow(t)) => Trigger::AfterEndOfWindow {
            early: optional(&t.early_firings)?,
            late: optional(&t.late_firings)?,
        },
        Some(Proto::AfterProcessingTime(t)) => {
            use pipeline::timestamp_transform::TimestampTransform as Step;
            let step = |step: &pipeline::TimestampTransform| match &step.timestamp_transform {
                Some(Step::Delay(delay)) => Ok(TimestampTransform::Delay(delay.delay_millis)),
                Some(Step::AlignTo(align)) if align.period > 0 => Ok(TimestampTransform::AlignTo {
                    period_ms: align.period,
                    offset_ms: align.offset,
                }),
                Some(Step::AlignTo(_)) => {
                    Err("a processing-time trigger aligns to a period of 0 or less".to_owned())
                }
                None => Err("a processing-time trigger has an empty step".to_owned()),
            };
            let steps: Result<Vec<_>, String> = t.timestamp_transforms.iter().map(step).collect();
            Trigger::AfterProcessingTime(steps?)
        }
        Some(Proto::AfterSynchronizedProcessingTime(_)) => Trigger::AfterSynchronizedProcessingTime,
        Some(Proto::Always(_)) => Trigger::Always,
        Some(Proto::ElementCount(t)) => match u32::try_from(t.element_count) {
            Ok(count) if count > 0 => Trigger::ElementCount(count),
            _ => return Err(format!("an element-count trigger counts to {}", t.element_count)),
        },
        Some(Proto::Never(_)) => Trigger::Never,
        Some(Proto::OrFinally(t)) => {
            Trigger::OrFinally(one(&t.main, "or-finally")?, one(&t.finally, "or-finally")?)
        }
        Some(Proto::Repeat(t)) => Trigger::Repeat(one(&t.subtrigger, "repeat")?),
    })
}
