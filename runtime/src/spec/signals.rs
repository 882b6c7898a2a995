//! Signals by name or number.

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

/// `TERM`, `SIGTERM`, `term`, `15`, `RTMIN+3`: the number. Source: signal(7).
pub(crate) fn parse(text: &str) -> Result<i32> {
    let upper = text.trim().to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = bare.strip_prefix("RTMIN").map(|offset| offset.trim_start_matches('+'));
    let number = match (bare.parse::<i32>(), real_time) {
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

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [("TERM", 15), ("SIGTERM", 15), ("sigkill", 9), ("9", 9), ("HUP", 1), ("RTMIN+3", 37)] {
            assert_eq!(parse(text).expect(text), number, "{text}");
        }
        for text in ["", "SIG", "NOPE", "0", "65", "-1", "RTMIN+99"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
