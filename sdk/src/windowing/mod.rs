//! Windows, triggers and how a PCollection uses them.
//!
//! ```
//! use std::time::Duration;
//! use purlin::prelude::*;
//!
//! let hourly = Windowing::fixed(Duration::from_secs(3600))
//!     .trigger(Trigger::after_end_of_window().early(Trigger::ElementCount(100)).into())
//!     .allowed_lateness(Duration::from_secs(60))
//!     .accumulating();
//! assert_eq!(hourly.window_fn().to_string(), "fixed(3600s)");
//! ```

mod calendar;
mod custom;
mod proto;

use std::time::Duration;

use purlin_model::{CoderSpec, Window, urns};
use purlin_proto::pipeline::FunctionSpec;

pub use calendar::CalendarWindows;
pub use custom::{CustomFn, CustomWindowFn, IntervalWindow, IntoWindow, Merged, WindowType};
pub(crate) use proto::window_fn_from_spec;
pub use purlin_model::{Accumulation, AfterEndOfWindow, TimestampCombiner, TimestampTransform, Trigger};

/// How elements are given windows.
pub type WindowFn = purlin_model::WindowFn<CustomFn>;

/// What only an SDK does with a window function.
pub(crate) trait SdkWindowFn {
    /// A window as it was assigned: some runners send windows without their largest timestamps.
    fn restore(&self, window: Window) -> Window;

    /// Which windows merge, and to what. Beam's own window functions are merged by runners.
    fn merge(&self, windows: &[Window]) -> Result<Vec<(Window, Vec<Window>)>, String>;

    /// The coder of its windows.
    fn window_coder_spec(&self) -> CoderSpec;

    /// As pipelines describe it.
    fn to_spec(&self) -> FunctionSpec;
}

impl SdkWindowFn for WindowFn {
    fn restore(&self, window: Window) -> Window {
        match (self, &window) {
            (WindowFn::Custom(custom), Window::Opaque { .. }) => {
                custom.inner().restore(&window).unwrap_or(window)
            }
            _ => window,
        }
    }

    fn merge(&self, windows: &[Window]) -> Result<Vec<(Window, Vec<Window>)>, String> {
        match self {
            WindowFn::Custom(custom) => custom.inner().merge(windows),
            other => Err(format!("windows by {other} are merged by the runner")),
        }
    }

    fn window_coder_spec(&self) -> CoderSpec {
        match self {
            WindowFn::Global => CoderSpec::atom(urns::GLOBAL_WINDOW),
            WindowFn::Custom(custom) => custom.window_coder(),
            _ => CoderSpec::atom(urns::INTERVAL_WINDOW),
        }
    }

    fn to_spec(&self) -> FunctionSpec {
        proto::window_fn_to_spec(self)
    }
}

/// A windowing strategy: window function, trigger, accumulation, lateness, timestamps.
#[derive(Clone, Debug, PartialEq)]
pub struct Windowing {
    pub(crate) window_fn: WindowFn,
    pub(crate) trigger: Trigger,
    pub(crate) accumulation: Accumulation,
    pub(crate) allowed_lateness_ms: i64,
    pub(crate) timestamp_combiner: TimestampCombiner,
    /// Whether the last pane fires when it is empty.
    pub(crate) closing_always: bool,
    /// Whether the on-time pane fires when it is empty.
    pub(crate) on_time_always: bool,
    /// Behind a grouping, where sessions have merged.
    pub(crate) already_merged: bool,
    /// Whether a grouping of an unbounded collection may wait for the end of time: its input is known to end.
    pub(crate) to_the_end: bool,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Windowing {
    /// Windows of this function, with Beam's default trigger, discarding, no lateness.
    pub fn new(window_fn: WindowFn) -> Windowing {
        Windowing {
            window_fn,
            trigger: Trigger::Default,
            accumulation: Accumulation::Discarding,
            allowed_lateness_ms: 0,
            timestamp_combiner: TimestampCombiner::EndOfWindow,
            closing_always: false,
            on_time_always: true,
            already_merged: false,
            to_the_end: false,
        }
    }

    /// The window of all time.
    pub fn global() -> Windowing {
        Windowing::new(WindowFn::Global)
    }

    /// Windows of this length, one after the other, from the epoch.
    pub fn fixed(size: Duration) -> Windowing {
        Windowing::new(WindowFn::Fixed {
            size_ms: millis(size),
            offset_ms: 0,
        })
    }

    /// Windows of this length that start every `period`.
    pub fn sliding(size: Duration, period: Duration) -> Windowing {
        Windowing::new(WindowFn::Sliding {
            size_ms: millis(size),
            period_ms: millis(period),
            offset_ms: 0,
        })
    }

    /// Sessions with gaps of at least this length between them.
    pub fn sessions(gap: Duration) -> Windowing {
        Windowing::new(WindowFn::Sessions { gap_ms: millis(gap) })
    }

    /// Windows of a function of the user's own.
    pub fn custom<F: CustomWindowFn>(window_fn: F) -> Windowing {
        Windowing::new(WindowFn::Custom(CustomFn::new(window_fn)))
    }

    /// Days, weeks, months or years.
    pub fn calendar(windows: CalendarWindows) -> Windowing {
        Windowing::custom(windows)
    }

    /// Moves the windows' starts by this much from the epoch (fixed and sliding windows).
    #[must_use]
    pub fn offset(mut self, offset: Duration) -> Windowing {
        match &mut self.window_fn {
            WindowFn::Fixed { offset_ms, .. } | WindowFn::Sliding { offset_ms, .. } => {
                *offset_ms = millis(offset)
            }
            WindowFn::Global | WindowFn::Sessions { .. } | WindowFn::Custom(_) => {}
        }
        self
    }

    /// When panes fire.
    #[must_use]
    pub fn trigger(mut self, trigger: Trigger) -> Windowing {
        self.trigger = trigger;
        self
    }

    /// Fired panes keep their elements: each has all that came so far.
    #[must_use]
    pub fn accumulating(mut self) -> Windowing {
        self.accumulation = Accumulation::Accumulating;
        self
    }

    /// Fired panes drop their elements: each has what came since the last one.
    #[must_use]
    pub fn discarding(mut self) -> Windowing {
        self.accumulation = Accumulation::Discarding;
        self
    }

    /// How long after its end a window still takes elements.
    #[must_use]
    pub fn allowed_lateness(mut self, lateness: Duration) -> Windowing {
        self.allowed_lateness_ms = millis(lateness);
        self
    }

    /// What timestamp a grouping's output bears.
    #[must_use]
    pub fn timestamp_combiner(mut self, combiner: TimestampCombiner) -> Windowing {
        self.timestamp_combiner = combiner;
        self
    }

    /// The last pane fires even when it is empty.
    #[must_use]
    pub fn fire_closing_always(mut self) -> Windowing {
        self.closing_always = true;
        self
    }

    /// The on-time pane fires only with elements.
    #[must_use]
    pub fn fire_on_time_if_non_empty(mut self) -> Windowing {
        self.on_time_always = false;
        self
    }

    /// Its window function.
    pub fn window_fn(&self) -> &WindowFn {
        &self.window_fn
    }

    /// The strategy behind a grouping.
    pub(crate) fn after_grouping(&self) -> Windowing {
        Windowing {
            trigger: self.trigger.continuation(),
            already_merged: self.window_fn.merges(),
            ..self.clone()
        }
    }
}

impl Default for Windowing {
    fn default() -> Self {
        Windowing::global()
    }
}
