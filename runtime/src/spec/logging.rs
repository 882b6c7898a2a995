//! Where a container's output is kept: `--log-driver` and `--log-opt`, in Docker's spelling.

use std::collections::BTreeMap;

use regex_lite::Regex;
use serde::{Deserialize, Serialize};

use crate::spec::{RunSpec, quantity};

/// A file's size where nothing else is said. Docker's json-file grows without end there.
const USUAL_BYTES: u64 = 16 << 20;
/// How many files there are then, the one that is written among them.
const USUAL_FILES: u32 = 2;
/// Of a log that nobody reads but who is attached.
const PASSING_BYTES: u64 = 256 << 10;
/// What one entry may take.
const LEAST_BYTES: u64 = 64 << 10;

/// A log that cannot be had.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LogError {
    /// Another driver.
    #[error("--log-driver {0}: not supported; expected json-file, local, journald or none")]
    Driver(String),
    /// Another option, or one without a value.
    #[error(
        "--log-opt {0}: not supported; expected max-size=SIZE (at least 64k), max-file=NUMBER (1 to 100), labels=NAME,…, env=NAME,…, \
         labels-regex=, env-regex= or tag=TEMPLATE"
    )]
    Option(String),
    /// An expression or a template that does not parse.
    #[error("--log-opt {option}: {problem}")]
    Unparsable {
        /// As it was given.
        option: String,
        /// Why.
        problem: String,
    },
}

/// How it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogSpec {
    /// Who keeps it.
    pub driver: LogDriver,
    /// Of each file.
    pub max_bytes: u64,
    /// All of them.
    pub max_files: u32,
    /// What is told of the container with each line.
    #[serde(skip_serializing_if = "LogDetails::is_empty")]
    pub details: LogDetails,
}

/// What of a container is told with each line of its log: `logs --details`, and a journal's fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogDetails {
    /// Labels by name.
    pub labels: Vec<String>,
    /// Labels whose names match.
    pub labels_regex: Option<String>,
    /// Variables by name.
    pub env: Vec<String>,
    /// Variables whose names match.
    pub env_regex: Option<String>,
    /// A template.
    pub tag: Option<String>,
}

/// The drivers there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// Files.
    #[default]
    JsonFile,
    /// The same, with Docker's bounds for it.
    Local,
    /// The same, and the host's journal has it too.
    Journald,
    /// Nothing can be read later.
    None,
}

impl Default for LogSpec {
    fn default() -> Self {
        Self {
            driver: LogDriver::JsonFile,
            max_bytes: USUAL_BYTES,
            max_files: USUAL_FILES,
            details: LogDetails::default(),
        }
    }
}

impl LogSpec {
    /// Parses both flags.
    ///
    /// # Errors
    /// A driver or an option that is not known here.
    pub(crate) fn parse(driver: Option<&str>, options: &[String]) -> Result<Self, LogError> {
        let mut log = match driver {
            None | Some("json-file") => Self::default(),
            Some("local") => Self { driver: LogDriver::Local, max_bytes: 20 << 20, max_files: 5, ..Self::default() },
            Some("journald") => Self { driver: LogDriver::Journald, ..Self::default() },
            Some("none") => Self { driver: LogDriver::None, max_bytes: PASSING_BYTES, max_files: 1, ..Self::default() },
            Some(other) => return Err(LogError::Driver(other.to_owned())),
        };
        for option in options {
            let refused = || LogError::Option(option.clone());
            match option.split_once('=').filter(|_| log.driver != LogDriver::None).ok_or_else(refused)? {
                ("max-size", "-1") => log.max_bytes = USUAL_BYTES,
                ("max-size", size) => {
                    let bytes = quantity::parse_bytes(size).ok().filter(|bytes| *bytes >= LEAST_BYTES);
                    log.max_bytes = bytes.ok_or_else(refused)?;
                }
                ("max-file", files) => {
                    let files = files.parse().ok().filter(|files| (1..=100).contains(files));
                    log.max_files = files.ok_or_else(refused)?;
                }
                (name @ ("labels" | "labels-regex" | "env" | "env-regex" | "tag"), value) => {
                    log.details
                        .set(name, value)
                        .map_err(|problem| LogError::Unparsable { option: option.clone(), problem })?;
                }
                // How Docker's daemon writes, which no reader can tell.
                ("mode" | "max-buffer-size" | "compress", _) => {}
                _ => return Err(refused()),
            }
        }
        Ok(log)
    }

    /// Docker's word for the driver.
    pub(crate) fn name(&self) -> &'static str {
        match self.driver {
            LogDriver::JsonFile => "json-file",
            LogDriver::Local => "local",
            LogDriver::Journald => "journald",
            LogDriver::None => "none",
        }
    }
}

impl LogDetails {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let names = || value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let regex = || Regex::new(value).map(|_| Some(value.to_owned())).map_err(|error| error.to_string());
        match name {
            "labels" => self.labels = names(),
            "labels-regex" => self.labels_regex = regex()?,
            "env" => self.env = names(),
            "env-regex" => self.env_regex = regex()?,
            _ => self.tag = Some(value.to_owned()),
        }
        Ok(())
    }

    /// Names and values, by name; the tag is not among them.
    pub(crate) fn of(&self, spec: &RunSpec) -> BTreeMap<String, String> {
        let chosen = |names: &[String], regex: Option<&String>, name: &str| {
            let matches = || regex.and_then(|regex| Regex::new(regex).ok()).is_some_and(|regex| regex.is_match(name));
            names.iter().any(|known| known == name) || matches()
        };
        let labels = spec.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let labels = labels.filter(|(name, _)| chosen(&self.labels, self.labels_regex.as_ref(), name));
        let variables = spec.env.iter().filter_map(|variable| variable.split_once('='));
        let variables = variables.filter(|(name, _)| chosen(&self.env, self.env_regex.as_ref(), name));
        labels.chain(variables).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(driver: Option<&str>, options: &[&str]) -> Result<LogSpec, LogError> {
        LogSpec::parse(driver, &options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_log_is_bounded_whatever_is_said() {
        for (driver, options, bytes, files) in [
            (None, &[][..], 16 << 20, 2),
            (Some("json-file"), &["max-size=1m", "max-file=3"], 1 << 20, 3),
            (Some("json-file"), &["max-size=-1"], 16 << 20, 2),
            (Some("local"), &[], 20 << 20, 5),
            (Some("none"), &[], 256 << 10, 1),
            (Some("journald"), &["labels=a", "tag={{.Name}}"], 16 << 20, 2),
        ] {
            let log = parse(driver, options).unwrap();
            assert_eq!((log.max_bytes, log.max_files), (bytes, files), "{driver:?} {options:?}");
        }
        assert_eq!(parse(Some("syslog"), &[]), Err(LogError::Driver("syslog".to_owned())));
        for option in ["max-size", "max-size=1k", "max-size=x", "max-file=0", "max-file=1000", "labels", "x=y"] {
            assert_eq!(parse(None, &[option]), Err(LogError::Option(option.to_owned())));
        }
        assert!(parse(Some("none"), &["max-size=1m"]).is_err());
        assert!(parse(None, &["env-regex=("]).unwrap_err().to_string().contains("env-regex=("));
    }

    #[test]
    fn details_are_labels_and_variables() {
        let text = r#"{"id":"1","name":"a","image":{"name":"b","digest":"sha256:x","kind":"linux"},"argv":["sh"],
            "labels":{"tier":"front","other":"x","com.a":"1"},"env":["A=b=c","PATH=/bin"]}"#;
        let spec: RunSpec = serde_json::from_str(text).unwrap();
        let details = |options: &[&str]| -> Vec<String> {
            let of = parse(None, options).unwrap().details.of(&spec);
            of.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
        };
        assert_eq!(details(&["labels=tier,missing", "env=A"]), ["A=b=c", "tier=front"]);
        assert_eq!(details(&["labels-regex=^com[.]"]), ["com.a=1"]);
        assert!(details(&[]).is_empty());
    }
}
