//! One run of one contender, and figures over many.

use crate::contenders::{Contender, Family};
use anyhow::{Context, Result, bail};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::{TimeVal, TimeValLike},
};
use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

/// What one run cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    /// From just before the start of the process until it has been waited for.
    pub(crate) wall_ms: f64,
    /// User and system time of the process and of all descendants that were waited for.
    pub(crate) cpu_ms: f64,
    /// Page faults without input or output, of the same processes.
    pub(crate) minor_faults: f64,
}

/// Runs a contender once and checks that it did the work.
///
/// stdout and stderr go to files, so that the time ends with the process and not with whoever inherited a pipe.
pub(crate) fn run_once(contender: &Contender, scratch: &Path) -> Result<Sample> {
    if let Some(before) = &contender.before {
        before()?;
    }
    let (out_path, err_path) = (scratch.join("stdout"), scratch.join("stderr"));
    let (out, err) = (File::create(&out_path)?, File::create(&err_path)?);
    let mut command = Command::new(&contender.program);
    command.args(&contender.arguments).stdin(Stdio::null()).stdout(out).stderr(err);

    let (cpu_before, faults_before) = children()?;
    let begun = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot start {}", contender.program.display()))?;
    let status = child.wait()?;
    let wall_ms = begun.elapsed().as_secs_f64() * 1e3;
    let (cpu_after, faults_after) = children()?;

    let output = fs::read_to_string(&out_path).unwrap_or_default();
    if status.code() != Some(0) || output != contender.expected_output {
        let words = fs::read_to_string(&err_path).unwrap_or_default();
        bail!("{status}, stdout {output:?} instead of {:?}, stderr: {}", contender.expected_output, words.trim());
    }
    Ok(Sample { wall_ms, cpu_ms: cpu_after - cpu_before, minor_faults: faults_after - faults_before })
}

/// CPU milliseconds and minor faults of all children that ended so far.
fn children() -> Result<(f64, f64)> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let milliseconds = |time: TimeVal| time.num_microseconds() as f64 / 1e3;
    Ok((milliseconds(usage.user_time()) + milliseconds(usage.system_time()), usage.minor_page_faults() as f64))
}

/// All runs of one contender.
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) family: Family,
    samples: Vec<Sample>,
}

impl Measured {
    pub(crate) fn new(contender: &Contender) -> Self {
        Self { name: contender.name.clone(), family: contender.family, samples: Vec::new() }
    }

    pub(crate) fn add(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    pub(crate) fn wall_ms(&self, fraction: f64) -> f64 {
        quantile(self.samples.iter().map(|sample| sample.wall_ms), fraction)
    }

    pub(crate) fn cpu_ms(&self) -> f64 {
        quantile(self.samples.iter().map(|sample| sample.cpu_ms), 0.5)
    }

    pub(crate) fn minor_faults(&self) -> f64 {
        quantile(self.samples.iter().map(|sample| sample.minor_faults), 0.5)
    }
}

/// The smallest value that at least `fraction` of the values do not exceed; 0 is the minimum, NaN is for no values.
pub(crate) fn quantile(values: impl Iterator<Item = f64>, fraction: f64) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let at_most = sorted.iter().enumerate().find(|(index, _)| (index + 1) as f64 >= fraction * sorted.len() as f64);
    at_most.map_or(f64::NAN, |(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values = || [5.0, 1.0, 4.0, 2.0, 3.0].into_iter();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|fraction| quantile(values(), fraction)), [1.0, 3.0, 5.0, 5.0]);
        assert_eq!(quantile((1..=100).map(f64::from), 0.99), 99.0);
        assert!(quantile(std::iter::empty(), 0.5).is_nan());
    }
}
