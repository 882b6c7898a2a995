//! Sizes and durations as people type them: `64m`, `1.5GiB`, `10s`, `1m30s`.
//!
//! The functions say only what was expected; the caller, which knows the flag, names it.

/// Parses a size in bytes the way Docker does: a number, maybe with a fraction, then `b`, `k`, `m`, `g`, `t` or `p`, each
/// maybe followed by `b` or `ib`, in any case. All units are powers of 1024; no unit means bytes.
///
/// A fraction of a byte is cut off. The source is `RAMInBytes` of docker/go-units. The error is what was expected.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "a size such as 512, 64k, 128m or 1.5g";
    let (number, unit) = split_number(text);
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(EXPECTED),
    };
    let micros = parse_micros(number).ok_or(EXPECTED)?;
    // A shift would lose the highest bits without a word.
    let bytes = micros.checked_mul(1 << shift).map(|scaled| scaled / MICROS);
    bytes.and_then(|bytes| i64::try_from(bytes).ok()).map(i64::unsigned_abs).ok_or("a size below 8 EiB")
}

/// Parses a duration into milliseconds: numbers, maybe with fractions, each with `h`, `m`, `s`, `ms`, `us` or `ns`
/// (`1m30s`), or one bare number of seconds.
///
/// What is less than a millisecond, but not zero, becomes one. The error is what was expected.
pub(crate) fn parse_duration_ms(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "a duration such as 10s, 1m30s, 500ms, or a number of seconds";
    if let Some(micros) = parse_micros(text) {
        return to_millis(micros * NANOS_PER_MICRO);
    }
    let mut rest = text;
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (number, tail) = split_number(rest);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let unit_nanos: u128 = match unit {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" => 1_000,
            "ns" => 1,
            _ => return Err(EXPECTED),
        };
        nanos += parse_micros(number).ok_or(EXPECTED)? * unit_nanos / MICROS;
        rest = tail;
    }
    if text.is_empty() { Err(EXPECTED) } else { to_millis(nanos) }
}

/// Numbers are kept as millionths while they are multiplied, so that `1.1g` does not depend on floating point.
const MICROS: u128 = 1_000_000;
const NANOS_PER_MICRO: u128 = 1_000;

fn to_millis(nanos: u128) -> Result<u64, &'static str> {
    u64::try_from(nanos.div_ceil(1_000_000)).map_err(|_| "a duration of less than 500 million years")
}

fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()))
}

/// A decimal number in millionths; digits beyond the sixth after the point are cut off. At most 19 digits before it, so
/// that no multiplication above overflows.
pub(crate) fn parse_micros(text: &str) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 19 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let millionths =
        fraction.bytes().chain(std::iter::repeat(b'0')).take(6).fold(0, |n, b| n * 10 + u128::from(b - b'0'));
    Some(whole * MICROS + millionths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_beyond_all_bounds_is_not_a_small_one() {
        for text in ["302231454903657293p", "9999999999999999999p", "9223372036854775808", "8192p"] {
            assert_eq!(parse_bytes(text), Err("a size below 8 EiB"), "{text}");
        }
        assert_eq!(parse_bytes("8191p"), Ok(8191 << 50));
    }

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        let table: &[(&str, u64)] = &[
            ("0", 0),
            ("512", 512),
            ("32b", 32),
            ("32B", 32),
            ("32k", 32 << 10),
            ("32kb", 32 << 10),
            ("64Kib", 64 << 10),
            ("32 MB", 32 << 20),
            ("128m", 128 << 20),
            ("1.5GiB", 3 << 29),
            (".5g", 1 << 29),
            ("1.", 1),
            ("2T", 2 << 40),
            ("1p", 1 << 50),
            ("1.1k", 1126),
        ];
        for (text, bytes) in table {
            assert_eq!(parse_bytes(text), Ok(*bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in
            ["", "m", ".", "-1", "1x", "1mm", "1.2.3m", "0x10", "1e3", " 1m", "1 m b", "9000p", "99999999999999999999"]
        {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read() {
        let table: &[(&str, u64)] = &[
            ("10", 10_000),
            ("0", 0),
            ("0.5", 500),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("2h", 7_200_000),
            ("1.5s", 1_500),
            ("1h0.5m", 3_630_000),
            ("10us", 1),
            ("1500us", 2),
            ("1ns", 1),
        ];
        for (text, millis) in table {
            assert_eq!(parse_duration_ms(text), Ok(*millis), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "s", "-1", "10 s", "1d", "1m30", "1s 2s", "ten", "9999999999999999999h"] {
            assert!(parse_duration_ms(text).is_err(), "{text}");
        }
    }
}
