//! Windows of the periods, aligned to the UTC clock and calendar.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::Offset;

/// The periods of limits, from the shortest to the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    Second,
    Minute,
    Hour,
    Day,
    Month,
    Year,
}

impl Period {
    pub const ALL: [Period; 6] =
        [Period::Second, Period::Minute, Period::Hour, Period::Day, Period::Month, Period::Year];

    pub fn name(self) -> &'static str {
        match self {
            Period::Second => "second",
            Period::Minute => "minute",
            Period::Hour => "hour",
            Period::Day => "day",
            Period::Month => "month",
            Period::Year => "year",
        }
    }

    /// The window that contains this second since 1970. Caches windows that need calendar calculations.
    pub fn cached_window(self, second: u64) -> Window {
        let cache = match self {
            Period::Month => &MONTH,
            Period::Year => &YEAR,
            _ => return self.window(second),
        };
        if let Some(window) = cache.get().filter(|window| (window.start..window.end).contains(&second)) {
            return window;
        }
        let window = self.window(second);
        cache.set(Some(window));
        window
    }

    /// The window that contains this second since 1970.
    pub fn window(self, second: u64) -> Window {
        let fixed_length = |length: u64| {
            let number = second / length;
            Window { number, start: number * length, end: (number + 1) * length }
        };
        match self {
            Period::Second => fixed_length(1),
            Period::Minute => fixed_length(60),
            Period::Hour => fixed_length(3600),
            Period::Day => fixed_length(DAY),
            Period::Month | Period::Year => self.calendar(second).unwrap_or_else(|| fixed_length(31 * DAY)),
        }
    }

    /// The window of a month or year. `None` after the year 9999, where the calendar ends.
    fn calendar(self, second: u64) -> Option<Window> {
        let now = Timestamp::from_second(i64::try_from(second).ok()?).ok()?;
        let date = Offset::UTC.to_datetime(now).date();
        let (first, last, number) = match self {
            Period::Year => (date.first_of_year(), date.last_of_year(), i64::from(date.year())),
            _ => {
                let number = i64::from(date.year()) * 12 + i64::from(date.month());
                (date.first_of_month(), date.last_of_month(), number)
            }
        };
        let midnight_of = |date: jiff::civil::Date| {
            let midnight = Offset::UTC.to_timestamp(date.to_datetime(Time::midnight())).ok()?;
            u64::try_from(midnight.as_second()).ok()
        };
        Some(Window { number: u64::try_from(number).ok()?, start: midnight_of(first)?, end: midnight_of(last)? + DAY })
    }
}

thread_local! {
    /// The last calculated windows of this worker thread.
    static MONTH: Cell<Option<Window>> = const { Cell::new(None) };
    static YEAR: Cell<Option<Window>> = const { Cell::new(None) };
}

/// A window, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Consecutive number of the window.
    pub number: u64,
    pub start: u64,
    /// The first second after the window.
    pub end: u64,
}

pub fn unix_second(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

const DAY: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    // docs/kong-compatibility.md, 4.25
    // docs/kong-compatibility.md, 7.21
    #[test]
    fn windows_are_aligned_to_the_calendar() {
        for (now, period, start, end) in [
            ("2026-01-02T12:34:56Z", Period::Second, "2026-01-02T12:34:56Z", "2026-01-02T12:34:57Z"),
            ("2026-01-02T12:34:56Z", Period::Minute, "2026-01-02T12:34:00Z", "2026-01-02T12:35:00Z"),
            ("2026-01-02T12:34:56Z", Period::Hour, "2026-01-02T12:00:00Z", "2026-01-02T13:00:00Z"),
            ("2026-01-02T12:34:56Z", Period::Day, "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"),
            ("2028-02-29T23:59:59Z", Period::Month, "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
            ("2028-03-01T00:00:00Z", Period::Month, "2028-03-01T00:00:00Z", "2028-04-01T00:00:00Z"),
            ("2026-12-31T23:59:59Z", Period::Month, "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("2028-06-15T00:00:00Z", Period::Year, "2028-01-01T00:00:00Z", "2029-01-01T00:00:00Z"),
        ] {
            let second = |text: &str| u64::try_from(text.parse::<Timestamp>().unwrap().as_second()).unwrap();
            let window = period.window(second(now));
            assert_eq!((window.start, window.end), (second(start), second(end)), "{now} {period:?}");
            let next = period.window(window.end);
            assert_eq!((next.number, next.start), (window.number + 1, window.end), "{now} {period:?}");
            // Moves to the next window and back, with and without a cached window.
            for second in [window.start, window.end - 1, window.end, window.start] {
                assert_eq!(period.cached_window(second), period.window(second), "{now} {period:?}");
            }
        }
        for period in Period::ALL {
            assert!(period.window(u64::MAX / 2).end > 0, "{period:?}");
        }
    }
}
