//! What the checks of a running container's health have found: `RUNROOT/running/ID.health`, by rename.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{
    Container,
    files::{folder_entries, is_there, remove_if},
    record::{read_json, write_json},
};
use crate::{output, spec::health::Health};

/// Docker's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HealthStatus {
    #[default]
    Starting,
    Healthy,
    Unhealthy,
}

impl HealthStatus {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What was found so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct HealthFound {
    pub(crate) status: HealthStatus,
    /// One after the other, up to the last one.
    pub(crate) failed: u32,
    /// The last ones.
    pub(crate) checks: Vec<Check>,
}

/// One check.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Check {
    pub(crate) started_unix_nanos: i64,
    pub(crate) finished_unix_nanos: i64,
    pub(crate) exit_code: i32,
    pub(crate) output: String,
}

impl HealthFound {
    /// Nobody can look, and why.
    pub(crate) fn unknown(why: String) -> Self {
        let now = output::now_nanos();
        let check = Check { started_unix_nanos: now, finished_unix_nanos: now, exit_code: -1, output: why };
        Self { status: HealthStatus::Unhealthy, failed: 1, checks: vec![check] }
    }

    /// Adds a check. `starts`: the container may still be starting, so that a failure does not count.
    pub(crate) fn note(&mut self, check: Check, health: &Health, starts: bool, remembered: usize) {
        if check.exit_code == 0 {
            (self.status, self.failed) = (HealthStatus::Healthy, 0);
        } else if !(starts && self.status == HealthStatus::Starting) {
            self.failed += 1;
            if self.failed >= health.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        self.checks.push(check);
        let gone = self.checks.len().saturating_sub(remembered);
        self.checks.drain(..gone);
    }
}

/// Whether a file is such a record; one of a container that does not run was left behind by a killed supervisor.
pub(super) fn check(path: &Path, remove: bool, found: &mut Vec<String>) -> Result<bool> {
    if path.extension().is_none_or(|extension| extension != "health") {
        return Ok(false);
    }
    if !is_there(&path.with_extension("json"))? {
        found.push(format!("health of a container that does not run: {}", path.display()));
        remove_if(remove, path)?;
    }
    Ok(true)
}

impl Container {
    /// Notes what was found.
    pub(crate) fn write_health(&self, found: &HealthFound) -> Result<()> {
        write_json(&self.running.with_extension("health"), found)
    }

    /// There is no run any more, and `writer`, the process that looked after it, was killed: what it was just writing goes too.
    pub(crate) fn forget_health(&self, writer: u32) {
        let half = format!("{}.tmp{writer}-", self.spec.id);
        let is_half =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(half.as_bytes()));
        let records = self.running.parent().and_then(|folder| folder_entries(folder).ok()).unwrap_or_default();
        // What cannot be removed here, `system prune` recognises.
        for path in records.into_iter().filter(is_half).chain([self.running.with_extension("health")]) {
            let _ = fs::remove_file(path);
        }
    }

    /// What was found in the run that goes on. None: there is no check.
    pub(crate) fn health(&self) -> Result<Option<HealthFound>> {
        if self.spec.health.is_none() {
            return Ok(None);
        }
        read_json(&self.running.with_extension("health")).map(|found| Some(found.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_success_is_well_and_failures_count_one_after_the_other() {
        let health = Health {
            probe: None,
            command: Vec::new(),
            interval_ms: 1,
            timeout_ms: 1,
            retries: 2,
            start_period_ms: 0,
            start_interval_ms: 0,
        };
        let mut found = HealthFound::default();
        let mut note = |exit_code, starts| {
            let check = Check { started_unix_nanos: 0, finished_unix_nanos: 0, exit_code, output: String::new() };
            found.note(check, &health, starts, 3);
            (found.status, found.failed, found.checks.len())
        };
        use HealthStatus::{Healthy, Starting, Unhealthy};
        assert_eq!(note(1, true), (Starting, 0, 1));
        assert_eq!(note(1, false), (Starting, 1, 2));
        assert_eq!(note(0, false), (Healthy, 0, 3));
        assert_eq!(note(-1, false), (Healthy, 1, 3));
        assert_eq!(note(1, true), (Unhealthy, 2, 3));
        assert_eq!(note(0, false), (Healthy, 0, 3));
    }
}
