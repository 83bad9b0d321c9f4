//! Window functions: which windows an element is put into, and which side-input window belongs to a main-input window.

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::{Timestamp, Window, Windows};

/// The point after the last one that an interval window may contain.
const END_OF_TIME: Timestamp = Timestamp::END_OF_GLOBAL_WINDOW.plus_millis(1);

/// What is known of a window function that is none of Beam's own. An engine knows only whether its windows merge; the SDK
/// that it belongs to can call it.
pub trait CustomWindows {
    /// Whether windows of one key may merge.
    fn merges(&self) -> bool;

    /// Whether each element is in exactly one window.
    fn assigns_to_one_window(&self) -> bool {
        false
    }

    /// The windows of an element of this timestamp: none where only the SDK can tell.
    fn assign(&self, _timestamp: Timestamp) -> Windows {
        Windows::Many(Vec::new())
    }

    /// The side-input window that belongs to a main-input window, if that can be told.
    fn side_input_window(&self, _main: &Window) -> Option<Window> {
        None
    }
}

/// A window function: Beam's own, whose times are in milliseconds, or a custom one, of which `C` is known.
///
/// ```
/// use purlin_model::{CustomWindows, Timestamp, Window, WindowFn};
///
/// enum None {}
/// # impl CustomWindows for None { fn merges(&self) -> bool { false } }
/// let by_tens: WindowFn<None> = WindowFn::Fixed { size_ms: 10, offset_ms: 0 };
/// let window = Window::Interval { start: Timestamp(10), end: Timestamp(20) };
/// assert_eq!(by_tens.assign(Timestamp(12)).iter().next(), Some(&window));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WindowFn<C> {
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
    /// One that belongs to an SDK.
    Custom(C),
}

impl<C> WindowFn<C> {
    /// What is wrong with its numbers, if anything.
    pub fn problem(&self) -> Option<&'static str> {
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

impl<C: CustomWindows> WindowFn<C> {
    /// The windows of an element of this timestamp. Sliding windows come latest first, as Beam's SDKs list them; a function
    /// whose numbers are wrong ([`WindowFn::problem`]) gives none.
    pub fn assign(&self, timestamp: Timestamp) -> Windows {
        match *self {
            WindowFn::Global => Windows::GLOBAL,
            WindowFn::Fixed { size_ms, offset_ms } if size_ms > 0 => {
                Windows::One(interval(period_start(timestamp, size_ms, offset_ms), size_ms))
            }
            WindowFn::Sliding {
                size_ms,
                period_ms,
                offset_ms,
            } if size_ms > 0 && period_ms > 0 => {
                let latest = period_start(timestamp, period_ms, offset_ms);
                let before = timestamp.millis().saturating_sub(size_ms);
                core::iter::successors(Some(latest), |start| start.checked_sub(period_ms))
                    .take_while(|start| *start > before)
                    .map(|start| interval(start, size_ms))
                    .collect()
            }
            WindowFn::Sessions { gap_ms } => Windows::One(interval(timestamp.millis(), gap_ms)),
            WindowFn::Custom(ref custom) => custom.assign(timestamp),
            WindowFn::Fixed { .. } | WindowFn::Sliding { .. } => Windows::Many(Vec::new()),
        }
    }

    /// The side-input window that a main-input window reads: the one that the side input's window function assigns to the
    /// main window's maximum timestamp, of several the one that ends first, and where that time lies between two sliding
    /// windows the next one. `None` where no such window is defined, as for sessions.
    pub fn side_input_window(&self, main: &Window) -> Option<Window> {
        match *self {
            WindowFn::Sessions { .. } => None,
            WindowFn::Custom(ref custom) => custom.side_input_window(main),
            WindowFn::Sliding {
                size_ms,
                period_ms,
                offset_ms,
            } if size_ms > 0 && period_ms > 0 => {
                let before = main.max_timestamp().millis().saturating_sub(size_ms);
                let start = period_start(Timestamp(before), period_ms, offset_ms).saturating_add(period_ms);
                Some(interval(start, size_ms))
            }
            _ => self.assign(main.max_timestamp()).iter().next().cloned(),
        }
    }

    /// Whether windows of one key may merge.
    pub fn merges(&self) -> bool {
        match self {
            WindowFn::Custom(custom) => custom.merges(),
            other => matches!(other, WindowFn::Sessions { .. }),
        }
    }

    /// Whether each element is in exactly one window.
    pub fn assigns_to_one_window(&self) -> bool {
        match self {
            WindowFn::Custom(custom) => custom.assigns_to_one_window(),
            other => !matches!(other, WindowFn::Sliding { .. }),
        }
    }
}

impl<C: fmt::Display> fmt::Display for WindowFn<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let long = |ms: i64| Duration::from_millis(ms.unsigned_abs());
        match *self {
            WindowFn::Global => f.write_str("global"),
            WindowFn::Custom(ref custom) => custom.fmt(f),
            WindowFn::Fixed { size_ms, .. } => write!(f, "fixed({:?})", long(size_ms)),
            WindowFn::Sliding {
                size_ms, period_ms, ..
            } => {
                write!(f, "sliding({:?} every {:?})", long(size_ms), long(period_ms))
            }
            WindowFn::Sessions { gap_ms } => write!(f, "sessions({:?})", long(gap_ms)),
        }
    }
}

/// When a window is collected: nothing may be added to it, or come from it, once the input watermark is past this.
/// No time lies beyond the end of the global window, so lateness cannot reach farther.
pub fn expiry(window: &Window, allowed_lateness_ms: i64) -> Timestamp {
    let end = window.max_timestamp();
    let last = end.max(Timestamp::END_OF_GLOBAL_WINDOW);
    end.plus_millis(allowed_lateness_ms.max(0)).min(last)
}

fn period_start(timestamp: Timestamp, period_ms: i64, offset_ms: i64) -> i64 {
    let timestamp = timestamp.millis();
    timestamp.saturating_sub(timestamp.saturating_sub(offset_ms).rem_euclid(period_ms))
}

fn interval(start: i64, size_ms: i64) -> Window {
    let end = Timestamp::from_millis(start.saturating_add(size_ms)).min(END_OF_TIME);
    // A window that starts before the beginning of time, as Beam's range has it, is one still.
    Window::Interval {
        start: Timestamp(start),
        end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No window function at all.
    #[derive(Debug, PartialEq)]
    enum No {}

    impl CustomWindows for No {
        fn merges(&self) -> bool {
            match *self {}
        }
    }

    type WindowFn = super::WindowFn<No>;

    fn assign(window_fn: &WindowFn, timestamp: Timestamp) -> Vec<Window> {
        window_fn.assign(timestamp).iter().cloned().collect()
    }

    fn side_input_window(window_fn: &WindowFn, main: &Window) -> Option<Window> {
        window_fn.side_input_window(main)
    }

    fn window(start: i64, end: i64) -> Window {
        Window::Interval {
            start: Timestamp(start),
            end: Timestamp(end),
        }
    }

    #[test]
    fn fixed_windows_follow_the_offset() {
        let fixed = WindowFn::Fixed {
            size_ms: 10,
            offset_ms: 3,
        };
        assert_eq!(assign(&fixed, Timestamp(3)), [window(3, 13)]);
        assert_eq!(assign(&fixed, Timestamp(2)), [window(-7, 3)]);
        assert_eq!(assign(&fixed, Timestamp(-8)), [window(-17, -7)]);
    }

    #[test]
    fn sliding_windows_come_latest_first() {
        let sliding = WindowFn::Sliding {
            size_ms: 10,
            period_ms: 5,
            offset_ms: 0,
        };
        assert_eq!(assign(&sliding, Timestamp(12)), [window(10, 20), window(5, 15)]);
        // Where the period is longer than the size, some points lie in no window.
        let sparse = WindowFn::Sliding {
            size_ms: 2,
            period_ms: 5,
            offset_ms: 0,
        };
        assert_eq!(assign(&sparse, Timestamp(12)), []);
    }

    #[test]
    fn a_side_input_is_read_in_the_window_that_ends_first() {
        let sliding = WindowFn::Sliding {
            size_ms: 10,
            period_ms: 5,
            offset_ms: 0,
        };
        assert_eq!(side_input_window(&sliding, &window(10, 13)), Some(window(5, 15)));
        assert_eq!(side_input_window(&sliding, &window(0, 4)), Some(window(-5, 5)));
        let gaps = WindowFn::Sliding {
            size_ms: 2,
            period_ms: 5,
            offset_ms: 1,
        };
        assert_eq!(side_input_window(&gaps, &window(10, 13)), Some(window(11, 13)));
        assert_eq!(side_input_window(&gaps, &window(10, 14)), Some(window(16, 18)));
        assert_eq!(
            side_input_window(&WindowFn::Global, &window(10, 13)),
            Some(Window::Global)
        );
        assert_eq!(
            side_input_window(&WindowFn::Sessions { gap_ms: 1 }, &Window::Global),
            None
        );
        let fixed = WindowFn::Fixed {
            size_ms: 86_400_000,
            offset_ms: 0,
        };
        let last = side_input_window(&fixed, &Window::Global);
        assert_eq!(
            last.map(|window| window.max_timestamp()),
            Some(Timestamp::END_OF_GLOBAL_WINDOW)
        );
    }

    #[test]
    fn hostile_sizes_neither_panic_nor_loop() {
        for size_ms in [i64::MIN, -1, 0, 1, i64::MAX] {
            for offset_ms in [i64::MIN, 0, i64::MAX] {
                assign(&WindowFn::Fixed { size_ms, offset_ms }, Timestamp::MAX);
                let period_ms = i64::MAX;
                assign(
                    &WindowFn::Sliding {
                        size_ms,
                        period_ms,
                        offset_ms,
                    },
                    Timestamp::MIN,
                );
            }
        }
    }

    #[test]
    fn lateness_ends_with_time() {
        assert_eq!(expiry(&window(0, 10), 5), Timestamp(14));
        assert_eq!(expiry(&Window::Global, 5), Timestamp::END_OF_GLOBAL_WINDOW);
        assert_eq!(expiry(&window(0, 10), i64::MAX), Timestamp::END_OF_GLOBAL_WINDOW);
    }
}
