//! Who writes a temporary file: told by its name, so that what a killed process left behind can be told from what a living
//! one writes.

use std::{fs, process, sync::OnceLock};

/// A process: its pid, and its start in clock ticks since boot, as a pid alone may come to mean another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Writer {
    pid: u32,
    start_ticks: u64,
}

impl Writer {
    /// This process.
    pub(crate) fn own() -> Self {
        static OWN: OnceLock<Writer> = OnceLock::new();
        // Without /proc nobody can be told dead; zero then stands for "unknown".
        let start_ticks = || status("self").map_or(0, |(start_ticks, _)| start_ticks);
        *OWN.get_or_init(|| Self { pid: process::id(), start_ticks: start_ticks() })
    }

    /// As it stands in a name: `<pid>-<start>`.
    pub(crate) fn name(self) -> String {
        format!("{}-{}", self.pid, self.start_ticks)
    }

    /// The writer that a name tells of.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (pid, start_ticks) = name.split_once('-')?;
        Some(Self { pid: pid.parse().ok()?, start_ticks: start_ticks.parse().ok()? })
    }

    /// Whether it can still write. A process that was killed and that nobody has reaped yet cannot.
    pub(crate) fn is_alive(self) -> bool {
        status(&self.pid.to_string()) == Some((self.start_ticks, true))
    }
}

/// Start time of a process, and whether it runs: fields 22 and 3 of `/proc/PID/stat`, proc_pid_stat(5).
fn status(pid: &str) -> Option<(u64, bool)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses and may hold any character, so count from its end.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    Some((fields.nth(22 - 4)?.parse().ok()?, !ended))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_writer_is_known_by_its_name() {
        let own = Writer::own();
        assert_eq!(Writer::parse(&own.name()), Some(own));
        assert!(own.is_alive());
        assert!(!Writer { start_ticks: own.start_ticks + 1, ..own }.is_alive(), "another process of this pid");
        assert_eq!(["", "7", "a-b", "-"].map(Writer::parse), [None; 4]);
    }

    /// Files of killed compilers stayed for as long as nobody reaped those.
    #[test]
    fn a_killed_writer_that_nobody_has_reaped_is_dead() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let (start_ticks, _) = status(&child.id().to_string()).unwrap();
        let writer = Writer { pid: child.id(), start_ticks };
        assert!(writer.is_alive());
        child.kill().unwrap();
        // Ended, but a zombie until it is waited for.
        let pid = rustix::process::Pid::from_child(&child);
        let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
        assert!(!writer.is_alive());
        child.wait().unwrap();
        assert!(!writer.is_alive());
    }
}
