//! Whether a container is well: `--health-cmd` and its siblings, in Docker's spelling.

use images::Healthcheck;
use serde::{Deserialize, Serialize};

use crate::spec::{probe::Probe, quantity};

/// A health check that cannot be had.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HealthError {
    /// A value that is none.
    #[error("invalid value `{found}` for {flag}: expected {expected}")]
    Invalid { flag: &'static str, found: String, expected: String },
    /// Both a check and none.
    #[error("--no-healthcheck conflicts with --health-* options")]
    None,
    /// More than one.
    #[error("--health-cmd, --health-tcp, --health-http: there is one check; give one of them")]
    Several,
}

/// A check, again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What is executed in the container; 0 is well. Empty where it is looked at from outside.
    pub command: Vec<String>,
    /// What is tried from outside, instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
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

/// What somebody wants of the check; what he leaves open is as the image says, else as with Docker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthOptions {
    /// There is no check, whatever the image says.
    pub none: bool,
    /// What is executed.
    pub command: Option<Vec<String>>,
    /// What is tried from outside, instead.
    pub probe: Option<Probe>,
    /// See [`Health`]; 0 is as the image says.
    pub interval_ms: u64,
    /// See [`Health`].
    pub timeout_ms: u64,
    /// See [`Health`].
    pub retries: u32,
    /// See [`Health`].
    pub start_period_ms: u64,
    /// See [`Health`].
    pub start_interval_ms: u64,
}

/// What was typed.
#[derive(Debug, Default)]
pub(crate) struct HealthFlags<'a> {
    pub(crate) command: Option<&'a str>,
    pub(crate) tcp: Option<&'a str>,
    pub(crate) http: Option<&'a str>,
    pub(crate) interval: Option<&'a str>,
    pub(crate) timeout: Option<&'a str>,
    pub(crate) retries: Option<&'a str>,
    pub(crate) start_period: Option<&'a str>,
    pub(crate) start_interval: Option<&'a str>,
    pub(crate) none: bool,
}

impl HealthOptions {
    /// Parses the flags.
    ///
    /// # Errors
    /// A value that is none, or settings of no check.
    pub(crate) fn parse(flags: &HealthFlags<'_>) -> Result<Self, HealthError> {
        let millis = |flag: &'static str, text: Option<&str>| match text {
            None | Some("0" | "0s") => Ok(0),
            Some(text) => quantity::parse_duration_ms(text).map(|millis| millis.max(1)).map_err(|expected| {
                HealthError::Invalid { flag, found: text.to_owned(), expected: expected.to_string() }
            }),
        };
        let retries = flags.retries.map_or(Ok(0), |text| {
            text.parse().map_err(|_| HealthError::Invalid {
                flag: "--health-retries",
                found: text.to_owned(),
                expected: "a whole number".to_owned(),
            })
        });
        let command = flags.command.filter(|command| !command.is_empty());
        let probe = probe(flags)?;
        if probe.is_some() && command.is_some() {
            return Err(HealthError::Several);
        }
        let options = Self {
            none: flags.none,
            command: command.map(shell),
            probe,
            interval_ms: millis("--health-interval", flags.interval)?,
            timeout_ms: millis("--health-timeout", flags.timeout)?,
            retries: retries?,
            start_period_ms: millis("--health-start-period", flags.start_period)?,
            start_interval_ms: millis("--health-start-interval", flags.start_interval)?,
        };
        match options.none && options != (Self { none: true, ..Self::default() }) {
            true => Err(HealthError::None),
            false => Ok(options),
        }
    }
}

fn probe(flags: &HealthFlags<'_>) -> Result<Option<Probe>, HealthError> {
    let parsed = |flag, text: Option<&str>, parse: fn(&str) -> Option<Probe>, expected: &str| {
        let refused = |text: &str| HealthError::Invalid { flag, found: text.to_owned(), expected: expected.to_owned() };
        text.map(|text| parse(text).ok_or_else(|| refused(text))).transpose()
    };
    let tcp = parsed("--health-tcp", flags.tcp, Probe::tcp, "a port of the container")?;
    let http = parsed(
        "--health-http",
        flags.http,
        Probe::http,
        "a port of the container and maybe a path, such as 80/health",
    )?;
    match (tcp, http) {
        (Some(_), Some(_)) => Err(HealthError::Several),
        (tcp, http) => Ok(tcp.or(http)),
    }
}

/// A command line for the container's shell.
fn shell(command: &str) -> Vec<String> {
    vec!["/bin/sh".to_owned(), "-c".to_owned(), command.to_owned()]
}

impl Health {
    /// The check that was asked for, or else that of the image. None: there is none.
    pub(crate) fn decide(wanted: &HealthOptions, of_image: Option<&Healthcheck>) -> Option<Self> {
        let of_image = of_image.cloned().unwrap_or_default();
        let executed = || wanted.command.clone().or_else(|| command_of(&of_image));
        let command =
            wanted.probe.is_none().then(executed).unwrap_or_else(|| Some(Vec::new())).filter(|_| !wanted.none)?;
        let millis = |wanted: u64, of_image: Option<i64>, usual: u64| {
            let nanos = of_image.and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or(0);
            let of_image = if nanos == 0 { usual } else { (nanos / 1_000_000).max(1) };
            if wanted == 0 { of_image } else { wanted }
        };
        let of_image_retries = of_image.retries.and_then(|retries| u32::try_from(retries).ok()).unwrap_or(0);
        let retries = [wanted.retries, of_image_retries].into_iter().find(|retries| *retries > 0).unwrap_or(3);
        Some(Self {
            command,
            probe: wanted.probe.clone(),
            interval_ms: millis(wanted.interval_ms, of_image.interval, 30_000),
            timeout_ms: millis(wanted.timeout_ms, of_image.timeout, 30_000),
            retries,
            start_period_ms: millis(wanted.start_period_ms, of_image.start_period, 0),
            start_interval_ms: millis(wanted.start_interval_ms, of_image.start_interval, 5_000),
        })
    }

    /// As an image says it, and `inspect` shows it.
    pub(crate) fn as_healthcheck(&self) -> Healthcheck {
        let nanos = |millis: u64| i64::try_from(millis).ok().and_then(|millis| millis.checked_mul(1_000_000));
        let test = match self.command.as_slice() {
            [] => self.probe.iter().flat_map(|probe| [word_of(probe).to_owned(), probe.to_string()]).collect(),
            [sh, c, command] if sh == "/bin/sh" && c == "-c" => vec!["CMD-SHELL".to_owned(), command.clone()],
            words => std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect(),
        };
        Healthcheck {
            test: Some(test),
            interval: nanos(self.interval_ms),
            timeout: nanos(self.timeout_ms),
            start_period: nanos(self.start_period_ms).filter(|nanos| *nanos > 0),
            start_interval: nanos(self.start_interval_ms),
            retries: Some(self.retries.into()),
        }
    }
}

/// Beside Docker's words.
fn word_of(probe: &Probe) -> &'static str {
    match probe {
        Probe::Tcp { .. } => "TCP",
        Probe::Http { .. } => "HTTP",
    }
}

/// What is executed; None: nothing.
fn command_of(healthcheck: &Healthcheck) -> Option<Vec<String>> {
    match healthcheck.test.as_deref()? {
        [kind, command] if kind == "CMD-SHELL" => Some(shell(command)),
        [kind, words @ ..] if kind == "CMD" && !words.is_empty() => Some(words.to_vec()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthcheck(test: &[&str]) -> Healthcheck {
        Healthcheck { test: Some(test.iter().map(|word| (*word).to_owned()).collect()), ..Healthcheck::default() }
    }

    #[test]
    fn flags_become_a_check_with_dockers_defaults() {
        let flags = HealthFlags { command: Some("true"), interval: Some("100ms"), ..HealthFlags::default() };
        let health = Health::decide(&HealthOptions::parse(&flags).unwrap(), None).unwrap();
        assert_eq!(health.command, ["/bin/sh", "-c", "true"]);
        assert_eq!(
            (health.interval_ms, health.timeout_ms, health.retries, health.start_period_ms),
            (100, 30_000, 3, 0)
        );
        assert_eq!(HealthOptions::parse(&HealthFlags::default()), Ok(HealthOptions::default()));
        assert_eq!(HealthOptions::parse(&HealthFlags { none: true, ..flags }), Err(HealthError::None));
        let bad = HealthFlags { command: Some("x"), retries: Some("many"), ..HealthFlags::default() };
        assert!(HealthOptions::parse(&bad).unwrap_err().to_string().contains("--health-retries"));
    }

    #[test]
    fn an_image_has_a_check_that_flags_change() {
        let wanted = HealthOptions { interval_ms: 7, ..HealthOptions::default() };
        let of_image =
            Healthcheck { timeout: Some(2_000_000_000), retries: Some(5), ..healthcheck(&["CMD", "a", "b"]) };
        let health = Health::decide(&wanted, Some(&of_image)).unwrap();
        assert_eq!(health.command, ["a", "b"]);
        assert_eq!((health.interval_ms, health.timeout_ms, health.retries), (7, 2000, 5));
        assert_eq!(health.as_healthcheck().test, of_image.test);
        let shell = Health::decide(&wanted, Some(&healthcheck(&["CMD-SHELL", "x y"]))).unwrap();
        assert_eq!((shell.command[2].as_str(), shell.as_healthcheck().test.unwrap()[0].as_str()), ("x y", "CMD-SHELL"));
        for test in [&["NONE"][..], &[], &["CMD"], &["CMD-SHELL"], &["odd", "x"]] {
            assert_eq!(Health::decide(&wanted, Some(&healthcheck(test))), None, "{test:?}");
        }
        let none = HealthOptions { none: true, ..HealthOptions::default() };
        assert_eq!(Health::decide(&none, Some(&of_image)), None);
        assert_eq!(Health::decide(&wanted, None), None);
    }

    #[test]
    fn a_probe_is_a_check_of_its_own() {
        let flags = HealthFlags { http: Some("80/well"), ..HealthFlags::default() };
        let wanted = HealthOptions::parse(&flags).unwrap();
        // Whatever the image says.
        let health = Health::decide(&wanted, Some(&healthcheck(&["CMD", "a"]))).unwrap();
        assert_eq!((health.command.len(), health.probe.clone().map(|probe| probe.port())), (0, Some(80)));
        assert_eq!(health.as_healthcheck().test.unwrap(), ["HTTP", "80/well"]);
        let both = HealthFlags { tcp: Some("80"), ..flags };
        assert_eq!(HealthOptions::parse(&both), Err(HealthError::Several));
        let executed = HealthFlags { command: Some("true"), tcp: Some("80"), ..HealthFlags::default() };
        assert_eq!(HealthOptions::parse(&executed), Err(HealthError::Several));
        let none = HealthFlags { none: true, tcp: Some("80"), ..HealthFlags::default() };
        assert_eq!(HealthOptions::parse(&none), Err(HealthError::None));
        let odd = HealthFlags { tcp: Some("x"), ..HealthFlags::default() };
        assert!(HealthOptions::parse(&odd).unwrap_err().to_string().contains("--health-tcp"));
    }
}
