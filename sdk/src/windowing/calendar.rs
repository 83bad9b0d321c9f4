//! Windows that are days, weeks, months or years.

use purlin_model::Timestamp;

use super::custom::{CustomWindowFn, IntervalWindow};

const DAY_MS: i64 = 86_400_000;

/// Days since 1970-01-01 of the first of a month, which may be out of range: month 12 is January of the next year.
fn first_of_month(year: i64, month: i64) -> i64 {
    let (year, month) = (year + month.div_euclid(12), month.rem_euclid(12));
    // Years that start in March have the leap day at their end.
    let (year, month) = if month < 2 {
        (year - 1, month + 10)
    } else {
        (year, month - 2)
    };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year and month (from 0) of a day since 1970-01-01.
fn month_of(day: i64) -> (i64, i64) {
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let year = year + era * 400;
    if month < 10 {
        (year, month + 2)
    } else {
        (year + 1, month - 10)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// So many days, counted from this day.
    Days(i64),
    Months,
}

/// Windows that are so many days, weeks, months or years of the (proleptic Gregorian) calendar, at a fixed offset from
/// UTC. They are interval windows.
///
/// ```
/// use purlin::prelude::*;
/// use purlin::windowing::CalendarWindows;
///
/// let monthly = Windowing::calendar(CalendarWindows::months(1));
/// let fiscal_years = CalendarWindows::years(1).starting(2020, 4, 1);
/// # let _ = fiscal_years;
/// assert_eq!(monthly.window_fn().to_string(), "calendar(1 month)");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CalendarWindows {
    unit: Unit,
    /// Days or months in a window.
    count: i64,
    /// Year, month from 0, and day from 1 at which a window starts.
    start: (i64, i64, i64),
    utc_offset_ms: i64,
}

impl CalendarWindows {
    fn new(unit: Unit, count: u32) -> CalendarWindows {
        CalendarWindows {
            unit,
            count: i64::from(count.max(1)),
            start: (1970, 0, 1),
            utc_offset_ms: 0,
        }
    }

    /// So many days, counted from 1970-01-01; at least one.
    pub fn days(count: u32) -> CalendarWindows {
        CalendarWindows::new(Unit::Days(0), count)
    }

    /// So many weeks from Monday on; at least one.
    pub fn weeks(count: u32) -> CalendarWindows {
        // 1970-01-05 was a Monday.
        let weeks = CalendarWindows::new(Unit::Days(4), count);
        CalendarWindows {
            count: weeks.count * 7,
            ..weeks
        }
    }

    /// So many months, counted from January 1970; at least one.
    pub fn months(count: u32) -> CalendarWindows {
        CalendarWindows::new(Unit::Months, count)
    }

    /// So many years, counted from 1970; at least one.
    pub fn years(count: u32) -> CalendarWindows {
        let years = CalendarWindows::new(Unit::Months, count);
        CalendarWindows {
            count: years.count * 12,
            ..years
        }
    }

    /// A window starts on this date: month and day from 1. For months and years the day counts, too, and is one that
    /// each month has: from 1 to 28.
    #[must_use]
    pub fn starting(mut self, year: i32, month: u32, day: u32) -> Self {
        let (year, month) = (i64::from(year), i64::from(month.clamp(1, 12)) - 1);
        self.start = (year, month, i64::from(day.clamp(1, 28)));
        if let Unit::Days(start) = &mut self.unit {
            *start = first_of_month(year, month) + i64::from(day.clamp(1, 31)) - 1;
        }
        self
    }

    /// Days begin so many minutes before midnight UTC: 120 for UTC+2.
    #[must_use]
    pub fn utc_offset_minutes(mut self, minutes: i32) -> Self {
        self.utc_offset_ms = i64::from(minutes) * 60_000;
        self
    }

    /// First day of the window that holds a day, and of the one behind it.
    fn days_of(&self, day: i64) -> (i64, i64) {
        match self.unit {
            Unit::Days(start) => {
                let first = day - (day - start).rem_euclid(self.count);
                (first, first + self.count)
            }
            Unit::Months => {
                let (start_year, start_month, start_day) = self.start;
                // As if months began on that day.
                let (year, month) = month_of(day - (start_day - 1));
                let months = (year - start_year) * 12 + month - start_month;
                let first = months - months.rem_euclid(self.count) + start_month;
                let at = |month: i64| first_of_month(start_year, month) + start_day - 1;
                (at(first), at(first + self.count))
            }
        }
    }
}

impl CustomWindowFn for CalendarWindows {
    type Window = IntervalWindow;

    fn name(&self) -> String {
        let (count, unit) = match self.unit {
            Unit::Days(_) if self.count % 7 == 0 => (self.count / 7, "week"),
            Unit::Days(_) => (self.count, "day"),
            Unit::Months if self.count % 12 == 0 => (self.count / 12, "year"),
            Unit::Months => (self.count, "month"),
        };
        let plural = if count == 1 { "" } else { "s" };
        let mut name = format!("calendar({count} {unit}{plural}");
        if self.start != (1970, 0, 1) {
            let (year, month, day) = self.start;
            name.push_str(&format!(" from {year:04}-{:02}-{day:02}", month + 1));
        }
        if self.utc_offset_ms != 0 {
            name.push_str(&format!(" UTC{:+} min", self.utc_offset_ms / 60_000));
        }
        name.push(')');
        name
    }

    fn assign(&self, timestamp: Timestamp) -> Vec<IntervalWindow> {
        let local = timestamp.millis().saturating_add(self.utc_offset_ms);
        let (first, next) = self.days_of(local.div_euclid(DAY_MS));
        let at =
            |day: i64| Timestamp::from_millis(day.saturating_mul(DAY_MS).saturating_sub(self.utc_offset_ms));
        vec![IntervalWindow {
            start: at(first),
            end: at(next),
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-02-29 was day 19782.
    const LEAP_DAY: i64 = 19_782;

    #[test]
    fn days_and_months_agree() {
        assert_eq!(first_of_month(1970, 0), 0);
        assert_eq!(first_of_month(2024, 2), LEAP_DAY + 1);
        assert_eq!(month_of(LEAP_DAY), (2024, 1));
        assert_eq!(month_of(LEAP_DAY + 1), (2024, 2));
        for month in -12 * 500..12 * 500 {
            let first = first_of_month(1970, month);
            let expected = (1970 + month.div_euclid(12), month.rem_euclid(12));
            assert_eq!(month_of(first), expected);
            let before = month - 1;
            assert_eq!(
                month_of(first - 1),
                (1970 + before.div_euclid(12), before.rem_euclid(12))
            );
            assert!((28..=31).contains(&(first_of_month(1970, month + 1) - first)));
        }
    }

    fn window(windows: CalendarWindows, day: i64) -> (i64, i64) {
        let window = windows.assign(Timestamp::from_millis(day * DAY_MS + 1))[0];
        (window.start.millis() / DAY_MS, window.end.millis() / DAY_MS)
    }

    #[test]
    fn windows_hold_their_days() {
        assert_eq!(
            window(CalendarWindows::days(1), LEAP_DAY),
            (LEAP_DAY, LEAP_DAY + 1)
        );
        // It was a Thursday.
        assert_eq!(
            window(CalendarWindows::weeks(1), LEAP_DAY),
            (LEAP_DAY - 3, LEAP_DAY + 4)
        );
        assert_eq!(
            window(CalendarWindows::months(1), LEAP_DAY),
            (LEAP_DAY - 28, LEAP_DAY + 1)
        );
        assert_eq!(
            window(CalendarWindows::years(1), LEAP_DAY),
            (LEAP_DAY - 59, LEAP_DAY + 307)
        );
        let fiscal = CalendarWindows::years(1).starting(2020, 3, 1);
        assert_eq!(window(fiscal, LEAP_DAY), (LEAP_DAY - 365, LEAP_DAY + 1));
        assert_eq!(window(fiscal, LEAP_DAY + 1), (LEAP_DAY + 1, LEAP_DAY + 366));
        let from_the_tenth = CalendarWindows::months(1).starting(1970, 1, 10);
        assert_eq!(window(from_the_tenth, LEAP_DAY), (LEAP_DAY - 19, LEAP_DAY + 10));
        assert_eq!(fiscal.name(), "calendar(1 year from 2020-03-01)");
        // Two hours east of Greenwich the day begins two hours earlier.
        let east = CalendarWindows::days(1).utc_offset_minutes(120);
        let window = east.assign(Timestamp::from_millis(23 * 3_600_000))[0];
        assert_eq!(window.start.millis(), 22 * 3_600_000);
    }
}
