//! Moments as text. A moment is a count of nanoseconds since 1970 in UTC, which reaches from 1677 to 2262.

use crate::spec::quantity;
use std::time::SystemTime;

const NANOS_PER_SECOND: i64 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

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
    let (date, time) = civil(nanos);
    format!("{date}T{time}.{:09}Z", nanos.rem_euclid(NANOS_PER_SECOND))
}

/// As `ps` and `images` show it: `2024-01-02 13:23:37 +0000 UTC`.
pub(crate) fn civil_utc(nanos: i64) -> String {
    let (date, time) = civil(nanos);
    format!("{date} {time} +0000 UTC")
}

/// Parses RFC 3339, with any offset and any fraction. `None` for anything else, and outside of 1677 to 2262 (Go writes
/// "no time" as the year 1).
pub(crate) fn parse_rfc3339(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let days = parse_date(date)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (seconds, rest) = parse_clock(rest)?;
    let (nanos, rest) = parse_fraction(rest)?;
    let seconds = days.checked_mul(SECONDS_PER_DAY)? + seconds - parse_offset(rest)?;
    seconds.checked_mul(NANOS_PER_SECOND)?.checked_add(nanos)
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

/// Days since 1970 of a date in the Gregorian calendar. Years run from March, so that the leap day is the last; an era is
/// the 400 years after which the calendar repeats.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

fn civil(nanos: i64) -> (String, String) {
    let seconds = nanos.div_euclid(NANOS_PER_SECOND);
    let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_PER_DAY));
    let second = seconds.rem_euclid(SECONDS_PER_DAY);
    let time = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    (format!("{year:04}-{month:02}-{day:02}"), time)
}

fn parse_date(text: &str) -> Option<i64> {
    let [year, month, day] = parse_numbers(text, '-', [4, 2, 2])?;
    let days = days_from_civil(year, month, day);
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

/// `HH:MM:SS` into seconds. A leap second counts as the one before it.
fn parse_clock(text: &str) -> Option<(i64, &str)> {
    let (clock, rest) = text.split_at_checked(8)?;
    let [hour, minute, second] = parse_numbers(clock, ':', [2, 2, 2])?;
    (hour < 24 && minute < 60 && second <= 60).then_some((hour * 3600 + minute * 60 + second.min(59), rest))
}

fn parse_numbers(text: &str, separator: char, lengths: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; 3];
    for (number, length) in numbers.iter_mut().zip(lengths) {
        let part =
            parts.next().filter(|part| part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit()))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// `.123` into nanoseconds; no point is no fraction.
fn parse_fraction(text: &str) -> Option<(i64, &str)> {
    let Some(rest) = text.strip_prefix('.') else { return Some((0, text)) };
    let (digits, rest) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
    let nanos =
        digits.bytes().chain(std::iter::repeat(b'0')).take(9).fold(0, |n, byte| n * 10 + i64::from(byte - b'0'));
    (!digits.is_empty()).then_some((nanos, rest))
}

/// `Z` or `+07:00` into seconds east of UTC.
fn parse_offset(text: &str) -> Option<i64> {
    if text == "Z" || text == "z" {
        return Some(0);
    }
    let (sign, clock) = text.split_at_checked(1)?;
    let [hours, minutes, _] = parse_numbers(&format!("{clock}:00"), ':', [2, 2, 2])?;
    let seconds = (hours < 24 && minutes < 60).then_some(hours * 3600 + minutes * 60)?;
    match sign {
        "+" => Some(seconds),
        "-" => Some(-seconds),
        _ => None,
    }
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
        assert_eq!(civil_utc(1_704_201_817_999_999_999), "2024-01-02 13:23:37 +0000 UTC");
    }

    #[test]
    fn every_day_comes_back() {
        for days in (-100_000..100_000).step_by(7) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
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
            ("2016-12-31T23:59:60Z", 1_483_228_799_000_000_000),
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
