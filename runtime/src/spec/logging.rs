//! Where a container's output is kept: `--log-driver` and `--log-opt`, in Docker's spelling.

use serde::{Deserialize, Serialize};

use crate::spec::quantity;

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
    #[error("--log-driver {0}: not supported; expected json-file, local or none")]
    Driver(String),
    /// Another option, or one without a value.
    #[error("--log-opt {0}: not supported; expected max-size=SIZE (at least 64k) or max-file=NUMBER (1 to 100)")]
    Option(String),
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
    /// Nothing can be read later.
    None,
}

impl Default for LogSpec {
    fn default() -> Self {
        Self { driver: LogDriver::JsonFile, max_bytes: USUAL_BYTES, max_files: USUAL_FILES }
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
            Some("local") => Self { driver: LogDriver::Local, max_bytes: 20 << 20, max_files: 5 },
            Some("none") => Self { driver: LogDriver::None, max_bytes: PASSING_BYTES, max_files: 1 },
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
            LogDriver::None => "none",
        }
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
        ] {
            let log = parse(driver, options).unwrap();
            assert_eq!((log.max_bytes, log.max_files), (bytes, files), "{driver:?} {options:?}");
        }
        assert_eq!(parse(Some("journald"), &[]), Err(LogError::Driver("journald".to_owned())));
        for option in ["max-size", "max-size=1k", "max-size=x", "max-file=0", "max-file=1000", "labels=x", "tag=x"] {
            assert_eq!(parse(None, &[option]), Err(LogError::Option(option.to_owned())));
        }
        assert!(parse(Some("none"), &["max-size=1m"]).is_err());
    }
}
