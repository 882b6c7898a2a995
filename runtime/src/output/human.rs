//! Sizes and times in words, as Docker puts them.

use std::time::Duration;

/// A size in decimal units with three significant digits: `74.8MB`, `1.23GB`, `512B`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    // In thousandths of the unit, as whole numbers; every step rounds once, from the bytes themselves.
    let (mut unit, mut divisor) = (0, 1_u128);
    while rounded(u128::from(bytes), divisor) >= 1_000_000 {
        unit += 1;
        divisor *= 1000;
    }
    format!("{}{}", decimal(rounded(u128::from(bytes), divisor)), UNITS[unit])
}

/// A size in binary units with at most four significant digits, as Docker tells of memory: `1.5MiB`, `1023B`, `7.654GiB`.
pub(crate) fn binary_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (0..UNITS.len()).rev().find(|unit| bytes >> (10 * unit) > 0).unwrap_or(0);
    let whole = bytes >> (10 * unit);
    // Digits behind the point, as Go's `%.4g` has them.
    let digits: u32 = if whole >= 1000 {
        0
    } else if whole >= 100 {
        1
    } else if whole >= 10 {
        2
    } else {
        3
    };
    let (scale, divisor) = (10_u128.pow(digits), 1_u128 << (10 * unit));
    let scaled = (u128::from(bytes) * scale + divisor / 2) / divisor;
    format!("{}{}", decimal(scaled * 1000 / scale), UNITS[unit])
}

/// `bytes / divisor` in thousandths, rounded to three significant digits.
fn rounded(bytes: u128, divisor: u128) -> u128 {
    let whole = bytes / divisor;
    let step = if whole >= 100 {
        1000
    } else if whole >= 10 {
        100
    } else {
        10
    };
    (bytes * 1000 + step * divisor / 2) / (step * divisor) * step
}

/// Thousandths as a decimal without trailing zeros.
fn decimal(thousandths: u128) -> String {
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A duration in words: `Less than a second`, `5 seconds`, `About a minute`, `3 days`.
///
/// The steps are those of `HumanDuration` in docker/go-units.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (2..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, 2..60, _) => format!("{minutes} minutes"),
        (.., 0..=1) => "About an hour".to_owned(),
        (.., 2..48) => format!("{hours} hours"),
        (.., 48..336) => format!("{} days", hours / 24),
        (.., 336..1440) => format!("{} weeks", hours / 24 / 7),
        (.., 1440..17_520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// How long ago a moment is, both in nanoseconds since 1970: `3 days ago`. What lies ahead counts as now.
pub(crate) fn age(moment_nanos: i64, now_nanos: i64) -> String {
    let nanos = now_nanos.saturating_sub(moment_nanos);
    format!("{} ago", duration(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_in_binary_units() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1536, "1.5KiB"),
            (10 << 20, "10MiB"),
            (8_218_000_000, "7.654GiB"),
            (123_456_789, "117.7MiB"),
            (1_073_000_000, "1023MiB"),
        ] {
            assert_eq!(binary_size(bytes), text);
        }
    }

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (512, "512B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.23kB"),
            (1235, "1.24kB"),
            (74_777_777, "74.8MB"),
            (5_000_000, "5MB"),
            (123_456_789, "123MB"),
            (999_499, "999kB"),
            (999_500, "1MB"),
            (9_995_000, "10MB"),
            (1_000_000_000, "1GB"),
            (u64::MAX, "18.4EB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn durations_are_put_in_words() {
        const HOUR: u64 = 3600;
        const DAY: u64 = 24 * HOUR;
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (45, "45 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (59 * 60, "59 minutes"),
            (HOUR, "About an hour"),
            (HOUR + 1799, "About an hour"),
            (HOUR + 1800, "2 hours"),
            (47 * HOUR, "47 hours"),
            (2 * DAY, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (59 * DAY, "8 weeks"),
            (60 * DAY, "2 months"),
            (729 * DAY, "24 months"),
            (730 * DAY, "2 years"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn ages_count_from_now() {
        assert_eq!(age(0, 5_000_000_000), "5 seconds ago");
        assert_eq!(age(7, 5), "Less than a second ago");
        assert_eq!(age(i64::MIN, i64::MAX), "292 years ago");
    }
}
