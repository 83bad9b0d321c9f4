//! Window functions that the engine evaluates itself.

use purlin_model::{Timestamp, Window};

use crate::graph::WindowFn;

/// The point after the last one that an interval window may contain.
const END_OF_TIME: Timestamp = Timestamp::END_OF_GLOBAL_WINDOW.plus_millis(1);

/// The windows that `window_fn` assigns to a timestamp: none for window functions that only an SDK knows. Sliding
/// windows come latest first, as Beam's SDKs list them.
pub fn assign(window_fn: &WindowFn, timestamp: Timestamp) -> Vec<Window> {
    match *window_fn {
        WindowFn::Global => vec![Window::Global],
        WindowFn::Fixed { size_ms, offset_ms } if size_ms > 0 => {
            vec![interval(period_start(timestamp, size_ms, offset_ms), size_ms)]
        }
        WindowFn::Sliding {
            size_ms,
            period_ms,
            offset_ms,
        } if size_ms > 0 && period_ms > 0 => {
            let mut windows = Vec::new();
            let mut start = period_start(timestamp, period_ms, offset_ms);
            while start > timestamp.millis().saturating_sub(size_ms) {
                windows.push(interval(start, size_ms));
                match start.checked_sub(period_ms) {
                    Some(earlier) => start = earlier,
                    None => break,
                }
            }
            windows
        }
        WindowFn::Sessions { gap_ms } => vec![interval(timestamp.millis(), gap_ms)],
        WindowFn::Fixed { .. } | WindowFn::Sliding { .. } | WindowFn::Custom { .. } => Vec::new(),
    }
}

/// The side-input window that a main-input window reads: the one that the side input's window function assigns to the
/// main window's maximum timestamp, of several the one that ends first, and where that time lies between two sliding
/// windows the next one. `None` where no such window is defined: sessions, and window functions that only an SDK knows.
pub fn side_input_window(side: &WindowFn, main: &Window) -> Option<Window> {
    match *side {
        WindowFn::Sessions { .. } | WindowFn::Custom { .. } => None,
        WindowFn::Sliding {
            size_ms,
            period_ms,
            offset_ms,
        } if size_ms > 0 && period_ms > 0 => {
            let before = main.max_timestamp().millis().saturating_sub(size_ms);
            let start = period_start(Timestamp(before), period_ms, offset_ms).saturating_add(period_ms);
            Some(interval(start, size_ms))
        }
        _ => assign(side, main.max_timestamp()).pop(),
    }
}

/// Whether windows of this function merge.
pub fn merges(window_fn: &WindowFn) -> bool {
    matches!(
        window_fn,
        WindowFn::Sessions { .. } | WindowFn::Custom { merging: true }
    )
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
