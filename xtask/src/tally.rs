//! Reads what test binaries print: counts, and what they skipped.

use anyhow::{Context, Result};
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

/// The sum over any number of test binaries.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// One line each: the test and its reason.
    pub(crate) skipped: Vec<String>,
    /// The test whose output is being read.
    current_test: String,
    /// Between `successes:` and the next heading: output of tests that passed, which nobody needs to see.
    in_successes: bool,
}

impl Tally {
    /// Takes one line of a test binary run with `--show-output`; tells whether it is worth printing.
    ///
    /// A test that cannot run prints `skipped: WHY` and passes.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count(counts, " passed");
            self.failed += count(counts, " failed");
            self.in_successes = false;
            self.current_test.clear();
        } else if let Some(test) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            test.clone_into(&mut self.current_test);
        } else if let Some(why) = line.strip_prefix("skipped: ") {
            let test = if self.current_test.is_empty() { "a whole test binary" } else { &self.current_test };
            self.skipped.push(format!("{test}: {why}"));
        } else if line == "successes:" {
            self.in_successes = true;
        } else if line == "failures:" {
            self.in_successes = false;
        } else if !line.starts_with("test ") && !self.in_successes {
            // Binaries without the usual harness print no sum.
            self.passed += u64::from(line.ends_with(" ... ok"));
            self.failed += u64::from(line.ends_with(" ... FAILED"));
        }
        !self.in_successes
    }

    /// Runs a command that runs test binaries, prints the part of its output that matters, and counts.
    ///
    /// Gives whether the command succeeded.
    pub(crate) fn run(&mut self, command: &mut Command) -> Result<bool> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start the tests")?;
        let output = child.stdout.take().context("the tests have no stdout")?;
        for line in BufReader::new(output).split(b'\n') {
            self.print(&String::from_utf8_lossy(&line?));
        }
        Ok(child.wait()?.success())
    }

    /// Counts and prints one line.
    pub(crate) fn print(&mut self, line: &str) {
        if self.line(line.trim_end_matches('\r')) {
            println!("{line}");
        }
    }
}

/// The number before `label` in `5 passed; 0 failed; …`.
fn count(counts: &str, label: &str) -> u64 {
    let before = counts.split(label).next().unwrap_or_default();
    before.rsplit([' ', ';']).next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn counts_and_skips_are_read_and_output_of_successes_is_hidden() {
        let mut tally = Tally::default();
        let output = "test a ... ok\nsuccesses:\n\n---- e2e::a stdout ----\nskipped: no cgroup\nnoise\n\nsuccesses:\n    a\n\n\
                      test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured\n\
                      plain: case ... ok\nskipped: needs root\n\
                      failures:\n---- b stdout ----\nwhy\n\
                      test result: FAILED. 3 passed; 2 failed; 0 ignored\n";
        let shown: Vec<&str> = output.lines().filter(|line| tally.line(line)).collect();
        assert_eq!((tally.passed, tally.failed), (16, 2));
        assert_eq!(tally.skipped, ["e2e::a: no cgroup", "a whole test binary: needs root"]);
        assert!(shown.contains(&"why") && !shown.contains(&"noise"), "{shown:?}");
    }
}
