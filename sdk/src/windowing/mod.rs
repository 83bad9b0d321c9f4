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
mod into;
mod proto;
mod trigger;

use std::fmt;
use std::time::Duration;

use purlin_model::{CoderSpec, Timestamp, Window, Windows, urns};

pub use calendar::CalendarWindows;
pub use custom::{CustomFn, CustomWindowFn, IntervalWindow, IntoWindow, Merged, WindowType};
pub use into::WindowInto;
pub(crate) use proto::window_fn_from_spec;
pub use trigger::{AfterEndOfWindow, TimestampTransform, Trigger};

/// How elements are given windows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WindowFn {
    /// `beam:window_fn:global_windows:v1`: one window of all time.
    Global,
    /// `beam:window_fn:fixed_windows:v1`.
    Fixed {
        /// Length of a window in milliseconds.
        size_ms: i64,
        /// Start of the windows, modulo the size.
        offset_ms: i64,
    },
    /// `beam:window_fn:sliding_windows:v1`.
    Sliding {
        /// Length of a window in milliseconds.
        size_ms: i64,
        /// Distance of the windows' starts in milliseconds.
        period_ms: i64,
        /// Start of the windows, modulo the period.
        offset_ms: i64,
    },
    /// `beam:window_fn:session_windows:v1`.
    Sessions {
        /// Smallest gap between two sessions, in milliseconds.
        gap_ms: i64,
    },
    /// A window function of the user's own.
    Custom(CustomFn),
}

fn interval(start: i64, length: i64) -> Window {
    Window::Interval {
        start: Timestamp(start),
        end: Timestamp(start.saturating_add(length)),
    }
}

impl WindowFn {
    /// The windows of an element of this timestamp.
    pub fn assign(&self, timestamp: Timestamp) -> Windows {
        let at = timestamp.millis();
        match *self {
            WindowFn::Custom(ref custom) => custom.inner().assign(timestamp),
            WindowFn::Global => Windows::GLOBAL,
            WindowFn::Fixed { size_ms, offset_ms } => {
                Windows::One(interval(at - (at - offset_ms).rem_euclid(size_ms), size_ms))
            }
            WindowFn::Sliding {
                size_ms,
                period_ms,
                offset_ms,
            } => {
                let last = at - (at - offset_ms).rem_euclid(period_ms);
                let starts = std::iter::successors(Some(last), |start| Some(start - period_ms));
                starts
                    .take_while(|start| *start > at - size_ms)
                    .map(|start| interval(start, size_ms))
                    .collect()
            }
            WindowFn::Sessions { gap_ms } => Windows::One(interval(at, gap_ms)),
        }
    }

    /// The side-input window that belongs to a main-input window: the one that holds its maximum timestamp. Of several
    /// sliding windows it is the earliest; where that time lies between two of them, the next one.
    pub fn side_input_window(&self, main: &Window) -> Window {
        self.try_side_input_window(main).unwrap_or(Window::Global)
    }

    pub(crate) fn try_side_input_window(&self, main: &Window) -> Option<Window> {
        match *self {
            WindowFn::Custom(ref custom) => custom.inner().side_input_window(main),
            WindowFn::Sliding {
                size_ms,
                period_ms,
                offset_ms,
            } => {
                let before = main.max_timestamp().millis().saturating_sub(size_ms);
                let into = before.saturating_sub(offset_ms).rem_euclid(period_ms);
                let start = before.saturating_sub(into).saturating_add(period_ms);
                Some(interval(start, size_ms))
            }
            _ => self.assign(main.max_timestamp()).first().cloned(),
        }
    }

    /// A window as it was assigned: some runners send windows without their largest timestamps.
    pub(crate) fn restore(&self, window: Window) -> Window {
        match (self, &window) {
            (WindowFn::Custom(custom), Window::Opaque { .. }) => {
                custom.inner().restore(&window).unwrap_or(window)
            }
            _ => window,
        }
    }

    /// Which windows merge, and to what. Beam's own window functions are merged by runners.
    pub(crate) fn merge(&self, windows: &[Window]) -> Result<Vec<(Window, Vec<Window>)>, String> {
        match self {
            WindowFn::Custom(custom) => custom.inner().merge(windows),
            other => Err(format!("windows by {other} are merged by the runner")),
        }
    }

    /// Whether windows of one key merge.
    pub fn merges(&self) -> bool {
        match self {
            WindowFn::Custom(custom) => custom.inner().merges(),
            other => matches!(other, WindowFn::Sessions { .. }),
        }
    }

    /// Whether each element is in exactly one window.
    pub fn assigns_to_one_window(&self) -> bool {
        match self {
            WindowFn::Custom(custom) => custom.inner().assigns_to_one_window(),
            other => !matches!(other, WindowFn::Sliding { .. }),
        }
    }

    pub(crate) fn window_coder_spec(&self) -> CoderSpec {
        match self {
            WindowFn::Global => CoderSpec::atom(urns::GLOBAL_WINDOW),
            WindowFn::Custom(custom) => custom.window_coder(),
            _ => CoderSpec::atom(urns::INTERVAL_WINDOW),
        }
    }

    /// What is wrong with its numbers, if anything.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        match *self {
            WindowFn::Fixed { size_ms, .. } if size_ms <= 0 => {
                Some("fixed windows need a size of at least 1 ms")
            }
            WindowFn::Sliding {
                size_ms, period_ms, ..
            } if size_ms <= 0 || period_ms <= 0 => {
                Some("sliding windows need a size and a period of at least 1 ms")
            }
            WindowFn::Sessions { gap_ms } if gap_ms <= 0 => Some("sessions need a gap of at least 1 ms"),
            _ => None,
        }
    }
}

impl fmt::Display for WindowFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let d = |ms: i64| format!("{:?}", Duration::from_millis(ms.unsigned_abs()));
        match *self {
            WindowFn::Global => f.write_str("global"),
            WindowFn::Custom(ref custom) => f.write_str(custom.name()),
            WindowFn::Fixed { size_ms, .. } => write!(f, "fixed({})", d(size_ms)),
            WindowFn::Sliding {
                size_ms, period_ms, ..
            } => {
                write!(f, "sliding({} every {})", d(size_ms), d(period_ms))
            }
            WindowFn::Sessions { gap_ms } => write!(f, "sessions({})", d(gap_ms)),
        }
    }
}

/// Whether fired panes keep their elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Accumulation {
    /// A pane has what came since the last one.
    #[default]
    Discarding,
    /// A pane has all that came so far.
    Accumulating,
}

/// What timestamp a pane's output bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum TimestampCombiner {
    /// The window's maximum timestamp.
    #[default]
    EndOfWindow,
    /// The earliest of the elements.
    Earliest,
    /// The latest of the elements.
    Latest,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(window_fn: WindowFn, at: i64) -> Vec<String> {
        window_fn
            .assign(Timestamp(at))
            .iter()
            .map(|w| w.to_string())
            .collect()
    }

    #[test]
    fn fixed_windows_hold_their_elements() {
        let f = WindowFn::Fixed {
            size_ms: 10_000,
            offset_ms: 3_000,
        };
        assert_eq!(windows(f.clone(), 2_999), ["[-7.000s, 3.000s)"]);
        assert_eq!(windows(f, 3_000), ["[3.000s, 13.000s)"]);
    }

    #[test]
    fn sliding_windows_come_latest_first() {
        let f = WindowFn::Sliding {
            size_ms: 10_000,
            period_ms: 5_000,
            offset_ms: 0,
        };
        assert_eq!(
            windows(f.clone(), 12_000),
            ["[10.000s, 20.000s)", "[5.000s, 15.000s)"]
        );
        assert_eq!(windows(f.clone(), 10_000).len(), 2);
        let gaps = WindowFn::Sliding {
            size_ms: 2_000,
            period_ms: 5_000,
            offset_ms: 0,
        };
        assert_eq!(windows(gaps.clone(), 3_000), Vec::<String>::new());
        assert_eq!(windows(gaps.clone(), 1_999), ["[0.000s, 2.000s)"]);
    }

    #[test]
    fn a_side_input_in_sliding_windows_is_read_in_the_earliest() {
        let f = WindowFn::Sliding {
            size_ms: 10_000,
            period_ms: 5_000,
            offset_ms: 0,
        };
        assert_eq!(f.side_input_window(&interval(0, 4_000)), interval(-5_000, 10_000));
        let gaps = WindowFn::Sliding {
            size_ms: 2_000,
            period_ms: 5_000,
            offset_ms: 0,
        };
        assert_eq!(
            gaps.side_input_window(&interval(0, 4_000)),
            interval(5_000, 2_000)
        );
    }

    #[test]
    fn a_session_starts_with_its_element() {
        assert_eq!(
            windows(WindowFn::Sessions { gap_ms: 1_000 }, 5),
            ["[0.005s, 1.005s)"]
        );
    }
}
