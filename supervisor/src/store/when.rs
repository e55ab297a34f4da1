//! Points in time as people give them: RFC 3339, a date, or how long ago. Pure.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// Units of "how long ago", in seconds.
const UNITS: [(&str, i64); 5] = [
    ("s", 1),
    ("m", 60),
    ("h", 60 * 60),
    ("d", 24 * 60 * 60),
    ("w", 7 * 24 * 60 * 60),
];

/// What may be given.
pub const REMEDY: &str =
    "give a time as 2026-11-22T03:04:05Z, a date as 2026-11-22, or how long ago as 90m, 2h, 3d, 1w";

/// The point in milliseconds since the epoch; `None`: it is none. A date is its beginning in UTC.
#[must_use]
pub fn parse(text: &str, now: Timestamp) -> Option<i64> {
    let text = text.trim();
    if let Some(seconds) = ago(text) {
        return now.as_millisecond().checked_sub(seconds.checked_mul(1000)?);
    }
    if let Ok(point) = text.parse::<Timestamp>() {
        return Some(point.as_millisecond());
    }
    let date: Date = text.parse().ok()?;
    // A date's parser takes the first part of a local time, too.
    let zoned = (text.len() == 10).then(|| date.to_zoned(TimeZone::UTC))?;
    Some(zoned.ok()?.timestamp().as_millisecond())
}

fn ago(text: &str) -> Option<i64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, seconds) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    number.parse::<i64>().ok()?.checked_mul(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Option<String> {
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let milliseconds = parse(text, now)?;
        Some(
            Timestamp::from_millisecond(milliseconds)
                .unwrap()
                .to_string(),
        )
    }

    #[test]
    fn times_dates_and_ages_are_understood() {
        for (given, meant) in [
            ("2026-11-22T03:04:05Z", "2026-11-22T03:04:05Z"),
            ("2026-11-22T03:04:05+02:00", "2026-11-22T01:04:05Z"),
            ("2026-11-20", "2026-11-20T00:00:00Z"),
            ("90s", "2026-11-22T11:58:30Z"),
            ("2h", "2026-11-22T10:00:00Z"),
            (" 3d ", "2026-11-19T12:00:00Z"),
            ("1w", "2026-11-15T12:00:00Z"),
        ] {
            assert_eq!(at(given).as_deref(), Some(meant), "{given}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for given in [
            "",
            "h",
            "2",
            "2x",
            "-2h",
            "2026-13-01",
            "2026-11-22T03:04",
            "yesterday",
            "99999999999999999999d",
            "9223372036854775807w",
            "é",
        ] {
            assert_eq!(at(given), None, "{given}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_handled(text: String) {
            at(&text);
        }
    }
}
