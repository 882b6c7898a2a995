//! Limits that few ask for, and that only one version of cgroups has, in Docker's spelling. Which machine has none of them is told when
//! the container's cgroup is made.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::limits::{LimitError, invalid};

/// `None` leaves each as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RareLimits {
    /// `--memory-swappiness`: 0 to 100 (cgroup v1).
    pub memory_swappiness: Option<u64>,
    /// `--oom-kill-disable`: who exceeds the memory limit waits (cgroup v1).
    pub oom_kill_disable: bool,
    /// `--cpu-rt-period` in microseconds (cgroup v1).
    pub cpu_rt_period_usec: Option<u64>,
    /// `--cpu-rt-runtime` in microseconds (cgroup v1).
    pub cpu_rt_runtime_usec: Option<u64>,
    /// `--blkio-weight-device`: nodes of the host, each with a weight from 10 to 1000.
    pub blkio_weight_devices: Vec<(PathBuf, u16)>,
}

/// What was typed.
#[derive(Debug, Default)]
pub(crate) struct Typed<'a> {
    pub(crate) swappiness: Option<&'a str>,
    pub(crate) oom_kill_disable: bool,
    pub(crate) rt_period: Option<&'a str>,
    pub(crate) rt_runtime: Option<&'a str>,
    pub(crate) weight_devices: &'a [String],
}

impl RareLimits {
    /// # Errors
    /// The first flag that cannot be used, by name.
    pub(crate) fn parse(typed: &Typed<'_>) -> Result<Self, LimitError> {
        let microseconds = |flag, text: Option<&str>| match text.map(str::parse::<u64>) {
            None | Some(Ok(0)) => Ok(None),
            Some(Ok(usec)) => Ok(Some(usec)),
            Some(Err(_)) => Err(invalid(flag, text.unwrap_or_default(), "microseconds")),
        };
        Ok(Self {
            memory_swappiness: typed.swappiness.map_or(Ok(None), parse_swappiness)?,
            oom_kill_disable: typed.oom_kill_disable,
            cpu_rt_period_usec: microseconds("--cpu-rt-period", typed.rt_period)?,
            cpu_rt_runtime_usec: microseconds("--cpu-rt-runtime", typed.rt_runtime)?,
            blkio_weight_devices: typed
                .weight_devices
                .iter()
                .map(|text| parse_weight_device(text))
                .collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// -1 is Docker's "as the kernel has it".
fn parse_swappiness(text: &str) -> Result<Option<u64>, LimitError> {
    match text.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(found @ 0..=100) => Ok(Some(found.unsigned_abs())),
        _ => Err(invalid("--memory-swappiness", text, "a number from 0 to 100, or -1")),
    }
}

fn parse_weight_device(text: &str) -> Result<(PathBuf, u16), LimitError> {
    let found = text.rsplit_once(':').filter(|(path, _)| path.starts_with('/'));
    let found = found.and_then(|(path, weight)| Some((path.into(), weight.parse().ok()?)));
    found
        .filter(|(_, weight)| (10..=1000).contains(weight))
        .ok_or_else(|| invalid("--blkio-weight-device", text, "DEVICE:WEIGHT such as /dev/sda:300, from 10 to 1000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_limits_are_dockers() {
        let weights = ["/dev/sda:300".to_owned()];
        let typed = Typed {
            swappiness: Some("60"),
            oom_kill_disable: true,
            rt_period: Some("1000000"),
            rt_runtime: Some("0"),
            weight_devices: &weights,
        };
        let limits = RareLimits {
            memory_swappiness: Some(60),
            oom_kill_disable: true,
            cpu_rt_period_usec: Some(1_000_000),
            cpu_rt_runtime_usec: None,
            blkio_weight_devices: vec![("/dev/sda".into(), 300)],
        };
        assert_eq!(RareLimits::parse(&typed), Ok(limits));
        assert!(RareLimits::parse(&Typed { swappiness: Some("-1"), ..Typed::default() }).unwrap().is_default());
        for typed in [
            Typed { swappiness: Some("101"), ..Typed::default() },
            Typed { rt_period: Some("x"), ..Typed::default() },
            Typed { weight_devices: &["/dev/sda".to_owned()], ..Typed::default() },
            Typed { weight_devices: &["/dev/sda:9".to_owned()], ..Typed::default() },
            Typed { weight_devices: &["sda:300".to_owned()], ..Typed::default() },
        ] {
            let message = RareLimits::parse(&typed).unwrap_err().to_string();
            assert!(message.contains("for --"), "{message}");
        }
    }
}
