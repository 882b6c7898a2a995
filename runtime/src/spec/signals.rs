//! Signals by name or number.

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

/// `TERM`, `SIGTERM`, `term`, `15`, `RTMIN+3`, `RTMAX-2`: the number. Source: signal(7).
pub(crate) fn parse(text: &str) -> Result<i32> {
    let upper = text.trim().to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = bare.strip_prefix("RTMIN").map(|offset| offset.trim_start_matches('+'));
    let from_above = bare.strip_prefix("RTMAX").and_then(|offset| match offset {
        "" => Some(0),
        offset => offset.strip_prefix('-')?.parse::<i32>().ok().filter(|offset| *offset >= 0),
    });
    let number = match (bare.parse::<i32>(), real_time) {
        _ if from_above.is_some() => from_above.and_then(|offset| nix::libc::SIGRTMAX().checked_sub(offset)),
        (Ok(number), _) => Some(number),
        (Err(_), Some("")) => Some(nix::libc::SIGRTMIN()),
        (Err(_), Some(offset)) => offset.parse::<i32>().ok().map(|offset| nix::libc::SIGRTMIN() + offset),
        (Err(_), None) => format!("SIG{bare}").parse::<Signal>().ok().map(|signal| signal as i32),
    };
    match number {
        Some(number) if (1..=nix::libc::SIGRTMAX()).contains(&number) => Ok(number),
        _ => bail!(
            "{text} is no signal: expected a name such as TERM or SIGTERM, or a number from 1 to {}",
            nix::libc::SIGRTMAX()
        ),
    }
}

/// `SIGTERM`, `SIGRTMIN+3`; a number that has no name stays one.
pub(crate) fn name(signal: i32) -> String {
    let real_time = signal - nix::libc::SIGRTMIN();
    match Signal::try_from(signal) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) if real_time == 0 => "SIGRTMIN".to_owned(),
        Err(_) if real_time > 0 => format!("SIGRTMIN+{real_time}"),
        Err(_) => signal.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{name, parse};

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("9", 9),
            ("HUP", 1),
            ("RTMIN+3", 37),
            ("SIGRTMAX-3", 61),
            ("RTMAX", 64),
        ] {
            assert_eq!(parse(text).expect(text), number, "{text}");
            assert_eq!(parse(&name(number)).expect(text), number, "{text}");
        }
        assert_eq!((name(15).as_str(), name(37).as_str()), ("SIGTERM", "SIGRTMIN+3"));
        for text in ["", "SIG", "NOPE", "0", "65", "-1", "RTMIN+99", "RTMAX-99", "RTMAX+1", "RTMAX--1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
