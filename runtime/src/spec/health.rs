//! Whether a container is well: `--health-cmd` and its siblings, in Docker's spelling.

use serde::{Deserialize, Serialize};

use crate::spec::quantity;

/// A health check that cannot be had.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HealthError {
    /// A value that is none.
    #[error("invalid value `{found}` for {flag}: expected {expected}")]
    Invalid { flag: &'static str, found: String, expected: String },
    /// Settings of no check.
    #[error("{0} needs --health-cmd: it is a setting of that check")]
    Alone(&'static str),
    /// Both a check and none.
    #[error("--no-healthcheck conflicts with --health-* options")]
    None,
}

/// A check, again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What is executed in the container; 0 is well.
    pub command: Vec<String>,
    /// From the end of one to the next.
    pub interval_ms: u64,
    /// After which one has failed.
    pub timeout_ms: u64,
    /// How many have to fail one after the other.
    pub retries: u32,
    /// From the start, in which failures do not count.
    pub start_period_ms: u64,
    /// In place of `interval_ms` until then, or until one succeeds.
    pub start_interval_ms: u64,
}

/// What was typed.
#[derive(Debug, Default)]
pub(crate) struct HealthFlags<'a> {
    pub(crate) command: Option<&'a str>,
    pub(crate) interval: Option<&'a str>,
    pub(crate) timeout: Option<&'a str>,
    pub(crate) retries: Option<&'a str>,
    pub(crate) start_period: Option<&'a str>,
    pub(crate) start_interval: Option<&'a str>,
    pub(crate) none: bool,
}

impl Health {
    /// Parses the flags, with Docker's defaults. None: there is no check.
    ///
    /// # Errors
    /// A value that is none, or a setting without a command.
    pub(crate) fn parse(flags: &HealthFlags<'_>) -> Result<Option<Self>, HealthError> {
        let settings = [
            ("--health-interval", flags.interval),
            ("--health-timeout", flags.timeout),
            ("--health-retries", flags.retries),
            ("--health-start-period", flags.start_period),
            ("--health-start-interval", flags.start_interval),
        ];
        let setting = settings.iter().find(|(_, value)| value.is_some());
        let Some(command) = flags.command.filter(|command| !command.is_empty()) else {
            return match setting {
                Some(_) if flags.none => Err(HealthError::None),
                Some((flag, _)) => Err(HealthError::Alone(flag)),
                None => Ok(None),
            };
        };
        if flags.none {
            return Err(HealthError::None);
        }
        let millis = |index: usize, usual: u64| match settings[index] {
            (_, None | Some("0" | "0s")) => Ok(usual),
            (flag, Some(text)) => quantity::parse_duration_ms(text).map(|millis| millis.max(1)).map_err(|expected| {
                HealthError::Invalid { flag, found: text.to_owned(), expected: expected.to_string() }
            }),
        };
        let retries = match flags.retries {
            None | Some("0") => 3,
            Some(text) => text.parse().map_err(|_| HealthError::Invalid {
                flag: "--health-retries",
                found: text.to_owned(),
                expected: "a whole number".to_owned(),
            })?,
        };
        Ok(Some(Self {
            command: vec!["/bin/sh".to_owned(), "-c".to_owned(), command.to_owned()],
            interval_ms: millis(0, 30_000)?,
            timeout_ms: millis(1, 30_000)?,
            retries,
            start_period_ms: millis(3, 0)?,
            start_interval_ms: millis(4, 5_000)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_a_check_with_dockers_defaults() {
        let flags = HealthFlags { command: Some("true"), interval: Some("100ms"), ..HealthFlags::default() };
        let health = Health::parse(&flags).unwrap().unwrap();
        assert_eq!(health.command, ["/bin/sh", "-c", "true"]);
        assert_eq!(
            (health.interval_ms, health.timeout_ms, health.retries, health.start_period_ms),
            (100, 30_000, 3, 0)
        );
        assert_eq!(Health::parse(&HealthFlags::default()), Ok(None));
        assert_eq!(Health::parse(&HealthFlags { none: true, ..HealthFlags::default() }), Ok(None));
        assert_eq!(Health::parse(&HealthFlags { none: true, ..flags }), Err(HealthError::None));
        let alone = HealthFlags { timeout: Some("1s"), ..HealthFlags::default() };
        assert_eq!(Health::parse(&alone), Err(HealthError::Alone("--health-timeout")));
        let bad = HealthFlags { command: Some("x"), retries: Some("many"), ..HealthFlags::default() };
        assert!(Health::parse(&bad).unwrap_err().to_string().contains("--health-retries"));
    }
}
