//! Moments as text. A moment is a count of nanoseconds since 1970 in UTC, which reaches from 1677 to 2262.

use crate::spec::quantity;
use chrono::{DateTime, SecondsFormat};
use std::time::SystemTime;

/// Text that is no moment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid time `{found}`: expected 2024-01-02T13:23:37Z, 2024-01-02, seconds since 1970, or an age such as 42m")]
pub(crate) struct TimeError {
    found: String,
}

/// The present.
pub(crate) fn now_nanos() -> i64 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}

/// RFC 3339 in UTC with all nine digits of the second's fraction: `2024-01-02T13:23:37.123456789Z`.
pub(crate) fn rfc3339(nanos: i64) -> String {
    DateTime::from_timestamp_nanos(nanos).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// The same without a fraction: `2024-01-02T13:23:37Z`.
pub(crate) fn rfc3339_seconds(nanos: i64) -> String {
    DateTime::from_timestamp_nanos(nanos).to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// As `ps` and `images` show it: `2024-01-02 13:23:37 +0000 UTC`.
pub(crate) fn civil_utc(nanos: i64) -> String {
    DateTime::from_timestamp_nanos(nanos).format("%F %T +0000 UTC").to_string()
}

/// Hours and minutes: `13:23`.
pub(crate) fn clock_utc(nanos: i64) -> String {
    DateTime::from_timestamp_nanos(nanos).format("%H:%M").to_string()
}

/// Parses RFC 3339, with any offset and any fraction. `None` for anything else, and outside of 1677 to 2262 (Go writes
/// "no time" as the year 1).
pub(crate) fn parse_rfc3339(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok()?.timestamp_nanos_opt()
}

/// Parses what `--since` and `--until` take: RFC 3339, the same without an offset (then UTC), a date, seconds since 1970
/// with or without a fraction, or an age such as `1h30m`, which counts back from `now_nanos`.
///
/// # Errors
/// Anything else.
pub(crate) fn parse_moment(text: &str, now_nanos: i64) -> Result<i64, TimeError> {
    let moment = if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        quantity::parse_micros(text).and_then(|micros| i64::try_from(micros * 1000).ok())
    } else if let Ok(millis) = quantity::parse_duration_ms(text) {
        i64::try_from(millis).ok().and_then(|millis| now_nanos.checked_sub(millis.checked_mul(1_000_000)?))
    } else {
        let zoned = |suffix: &str| parse_rfc3339(&format!("{text}{suffix}"));
        zoned("").or_else(|| zoned("Z")).or_else(|| zoned(":00Z")).or_else(|| zoned("T00:00:00Z"))
    };
    moment.ok_or_else(|| TimeError { found: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (1_704_201_817_123_456_789, "2024-01-02T13:23:37.123456789Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000000000Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z"),
        ] {
            assert_eq!(rfc3339(nanos), text);
            assert_eq!(parse_rfc3339(text), Some(nanos), "{text}");
        }
        assert_eq!(rfc3339_seconds(1_704_201_817_999_999_999), "2024-01-02T13:23:37Z");
        assert_eq!(civil_utc(1_704_201_817_999_999_999), "2024-01-02 13:23:37 +0000 UTC");
    }

    #[test]
    fn rfc3339_is_read() {
        let second = 1_704_201_817_000_000_000;
        for (text, nanos) in [
            ("2024-01-02T13:23:37Z", second),
            ("2024-01-02t13:23:37z", second),
            ("2024-01-02 13:23:37Z", second),
            ("2024-01-02T15:23:37+02:00", second),
            ("2024-01-02T08:53:37-04:30", second),
            ("2024-01-02T13:23:37.5Z", second + 500_000_000),
            ("2024-01-02T13:23:37.1234567891Z", second + 123_456_789),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),
        ] {
            assert_eq!(parse_rfc3339(text), Some(nanos), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "2024-01-02",
            "2024-01-02T13:23:37",
            "2024-01-02T13:23Z",
            "2024-02-30T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-00-01T00:00:00Z",
            "2024-01-02T24:00:00Z",
            "2024-01-02T13:23:37.Z",
            "2024-01-02T13:23:37+0200",
            "2024-01-02T13:23:37ZZ",
            "0001-01-01T00:00:00Z",
            "2024-01-0é",
            "+024-01-02T13:23:37Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn moments_may_be_relative_or_short() {
        let now = 1_704_201_817_000_000_000;
        for (text, nanos) in [
            ("42m", now - 2_520_000_000_000),
            ("1h30m", now - 5_400_000_000_000),
            ("1704201817", now),
            ("1704201817.5", now + 500_000_000),
            ("2024-01-02T13:23:37", now),
            ("2024-01-02T13:23", now - 37_000_000_000),
            ("2024-01-02", 1_704_153_600_000_000_000),
            ("2024-01-02T15:23:37+02:00", now),
        ] {
            assert_eq!(parse_moment(text, now), Ok(nanos), "{text}");
        }
        for text in ["", "soon", "9999999999999", "2024-1-2", "-5m"] {
            assert!(parse_moment(text, now).is_err(), "{text}");
        }
    }
}
