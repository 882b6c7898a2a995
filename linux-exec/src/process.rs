//! A process's identity: its pid and its start time.
//!
//! A pid alone may come to mean another process; a pid with the start time does not, until the next boot.
use crate::sys;
use rustix::{
    fd::{AsFd, OwnedFd},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use std::{
    fs::File,
    io::{self, Read},
    sync::OnceLock,
};

/// The inode number of a process's pid namespace.
pub(crate) fn pid_namespace(process: &str) -> rustix::io::Result<u64> {
    rustix::fs::stat(format!("/proc/{process}/ns/pid")).map(|stat| stat.st_ino)
}

/// A process that can be told from a later one of the same pid.
///
/// Source: proc_pid_stat(5), field 22.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// As the caller's pid namespace counts.
    pub pid: i32,
    /// Clock ticks since boot.
    pub start_ticks: u64,
}

impl Process {
    /// Reads the start time of a pid that exists (a zombie does too); ESRCH if it does not.
    pub fn of(pid: i32) -> io::Result<Self> {
        Stat::read(pid).map(|stat| Self { pid, start_ticks: stat.start_ticks })
    }

    /// This process.
    pub fn own() -> io::Result<Self> {
        static OWN: OnceLock<Process> = OnceLock::new();
        if let Some(own) = OWN.get() {
            return Ok(*own);
        }
        let own = Self::of(std::process::id().cast_signed())?;
        Ok(*OWN.get_or_init(|| own))
    }

    /// Whether that very process still lives (a zombie does not).
    #[must_use]
    pub fn is_alive(self) -> bool {
        self.lives().unwrap_or(false)
    }

    /// The same; an error if it cannot be found out, for want of a descriptor for instance.
    pub fn lives(self) -> io::Result<bool> {
        match Stat::read(self.pid) {
            Ok(stat) => Ok(stat.start_ticks == self.start_ticks && !stat.ended),
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The process that reaps this one: the one that started it, until that ends.
    pub fn parent(self) -> io::Result<i32> {
        Stat::read(self.pid).map(|stat| stat.parent)
    }

    /// Whether it is in a cgroup of this name, or in one below (proc_pid_cgroup(5)).
    pub fn is_in_cgroup(self, name: &str) -> io::Result<bool> {
        let path = format!("/proc/{}/cgroup", self.pid);
        let text = std::fs::read_to_string(&path)?;
        Ok(text.lines().any(|line| line.split('/').any(|part| part == name)))
    }

    /// Whether it is the first process of a pid namespace below ours; anybody may see that (proc_pid_status(5)).
    pub fn is_first_in_namespace(self) -> io::Result<bool> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        Ok(first_in_namespace(&status))
    }

    /// Whether it runs the same file as this process; an error if that may not be looked at.
    pub fn runs_own_executable(self) -> io::Result<bool> {
        let file = |process: &str| rustix::fs::stat(format!("/proc/{process}/exe"));
        let (own, other) = (file("self")?, file(&self.pid.to_string())?);
        Ok((own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
    }

    /// Opens a pidfd for that very process; ESRCH if it is gone.
    ///
    /// The start time is read after the descriptor was opened, so a pid taken by another process in between is noticed.
    pub fn pidfd(self) -> io::Result<OwnedFd> {
        let pid = Pid::from_raw(self.pid).ok_or(Errno::SRCH)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| match errno {
            // It leads no process (any more): it is just being reaped, or the number has become a thread's.
            Errno::INVAL | Errno::NOENT => Errno::SRCH,
            errno => errno,
        })?;
        if Self::of(self.pid)? == self { Ok(pidfd) } else { Err(Errno::SRCH.into()) }
    }

    /// Sends a signal through a pidfd, so never to a stranger; ESRCH if the process is gone.
    pub fn signal(self, signal: i32) -> io::Result<()> {
        Ok(sys::pidfd_send_signal(self.pidfd()?.as_fd(), signal)?)
    }
}

/// One number for each namespace, from ours to its own.
fn first_in_namespace(status: &str) -> bool {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    numbers.split_ascii_whitespace().skip(1).last() == Some("1")
}

/// Whether /proc tells of processes at all: without it none is seen, which says nothing of any.
fn is_proc_there() -> bool {
    rustix::fs::stat("/proc/self/stat").is_ok()
}

/// What is used of /proc/PID/stat.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    ended: bool,
    parent: i32,
    start_ticks: u64,
}

impl Stat {
    fn read(pid: i32) -> io::Result<Self> {
        let path = format!("/proc/{pid}/stat");
        // Longer than any: 52 numbers of up to 20 digits and a name of up to 64 bytes. One read gives all of it.
        let mut text = [0; 1200];
        let length = File::open(&path).and_then(|mut file| file.read(&mut text)).map_err(|error| {
            match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOENT | Errno::SRCH) if is_proc_there() => Errno::SRCH.into(),
                _ => io::Error::new(error.kind(), format!("cannot read {path}: {error}")),
            }
        })?;
        Self::parse(text.get(..length).unwrap_or_default())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{path} is malformed")))
    }

    /// The second field, the program's name, is in parentheses and may itself contain anything but NUL.
    fn parse(text: &[u8]) -> Option<Self> {
        let name_end = text.iter().rposition(|&byte| byte == b')')?;
        let rest = std::str::from_utf8(text.get(name_end + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let ended = matches!(fields.next()?, "Z" | "X" | "x");
        let parent = fields.next()?.parse().ok()?;
        // The parent was field 4; the start time is field 22.
        let start_ticks = fields.nth(17)?.parse().ok()?;
        Some(Self { ended, parent, start_ticks })
    }
}

/// From here on what this process executes gets none of its descriptors but its three streams, whoever opened them.
///
/// For what is left behind: who waits for the end of a pipe, or for a lock, that he opened before he started this
/// process would wait for that, too. Fails only on kernels before 5.11, where nothing else here works either.
pub fn pass_on_streams_alone() -> io::Result<()> {
    Ok(sys::close_all_on_exec()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_parse() {
        let rest = "1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 0 0";
        let parse = |text: String| Stat::parse(text.as_bytes());
        assert_eq!(parse(format!("7 (sh) S {rest}")), Some(Stat { ended: false, parent: 1, start_ticks: 4242 }));
        assert_eq!(parse(format!("7 (a) Z) R 1) Z {rest}")), Some(Stat { ended: true, parent: 1, start_ticks: 4242 }));
        assert_eq!(parse("7 (sh) S 1 2".into()), None);
        assert_eq!(parse("7 sh".into()), None);
        assert_eq!(parse(String::new()), None);
    }

    #[test]
    fn the_first_process_of_a_namespace_is_known_by_its_numbers() {
        for (numbers, is_first) in
            [("77\t1", true), ("77\t5\t1", true), ("1", false), ("77\t2", false), ("77\t1\t3", false), ("", false)]
        {
            assert_eq!(
                first_in_namespace(&format!("Name:\ta\nNSpid:\t{numbers}\nThreads:\t1\n")),
                is_first,
                "{numbers}"
            );
        }
        assert!(!first_in_namespace("Name:\ta\n"));
    }

    #[test]
    fn own_process_is_alive_and_another_start_time_is_not() {
        let own = Process::of(std::process::id().cast_signed()).unwrap();
        assert!(own.is_alive());
        own.signal(0).unwrap();
        let other = Process { start_ticks: own.start_ticks + 1, ..own };
        assert!(!other.is_alive());
        assert_eq!(other.signal(0).unwrap_err().raw_os_error(), Some(Errno::SRCH.raw_os_error()));
    }

    /// `rm` failed now and then on older kernels, where one that is just being reaped looks like that.
    #[test]
    fn a_number_that_has_become_a_threads_is_of_no_process() {
        let thread = std::thread::spawn(|| {
            let thread = Process::of(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            thread.pidfd().unwrap_err().raw_os_error()
        });
        assert_eq!(thread.join().unwrap(), Some(Errno::SRCH.raw_os_error()));
    }

    #[test]
    fn an_ended_process_is_not_alive() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let process = Process::of(child.id().cast_signed()).unwrap();
        child.wait().unwrap();
        assert!(!process.is_alive());
        assert_eq!(process.pidfd().unwrap_err().raw_os_error(), Some(Errno::SRCH.raw_os_error()));
    }
}
