//! What a child reports on its way to its program, and for how long it is listened to.
//!
//! The child writes nothing if all went well: the pipe closes at its exec (or before its function is called), and end-of-file
//! means success. A failure is two numbers, the index of the step and the errno; another process that goes on in its place is told of by
//! a negative number and its pid.
//!
//! The processes of a container that is joined can open the newcomer's end of the pipe by /proc: they may write to it, take out
//! what is in it, or keep it open, and they may stop the newcomer. So nothing here waits for the pipe alone.
use crate::{
    error::Error,
    plan::Patience,
    process::{Process, pid_namespace},
    sys::Cloned,
};
use nix::sys::{
    signal::SigSet,
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{OFlags, fcntl_setfl},
    io::{Errno, Result},
    pipe::{PipeFlags, pipe_with},
};
use std::time::{Duration, Instant};

/// How long a program that joins may take from the moment at which the container's processes can see it.
const SEEN_PATIENCE: Duration = Duration::from_secs(10);

/// What came through the pipe until its end: nothing if the child is past its steps (or was killed on the way, which its exit
/// status tells).
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) failure: Option<(usize, Errno)>,
    /// The child of whoever stood between.
    pub(crate) successor: Option<Sibling>,
    /// A program that joined.
    pub(crate) sibling: Option<Sibling>,
    /// It waits until it is told to begin.
    pub(crate) held: bool,
    pub(crate) given_up: Option<GivenUp>,
}

/// Who may be told of.
#[derive(Clone, Copy, Default)]
pub(crate) struct Expected {
    /// Who joins a pid namespace, which has this inode number.
    pub(crate) joined: Option<u64>,
    /// The child of a process that stands between.
    pub(crate) successor: bool,
}

/// Messages with these first numbers are of a pid, or of nothing. Both are written by the launcher, too.
const SIBLING: i32 = -1;
const HELD: i32 = -3;
/// A successor's pid.
pub(crate) const SUCCESSOR: i32 = -2;

/// A child of this process that another child made.
pub(crate) struct Sibling {
    pub(crate) process: Process,
    pub(crate) pidfd: OwnedFd,
}

/// Why the end of the pipe was not waited for.
#[derive(Clone, Copy)]
pub(crate) enum GivenUp {
    /// By a signal.
    Interrupted,
    /// The caller's deadline.
    Late,
    /// [`SEEN_PATIENCE`] is over.
    Held,
}

/// A start that takes no longer than this does not look for signals, which is nearly every one.
const SOON: Duration = Duration::from_millis(20);

/// The signals that end the wait.
enum Signals {
    /// Not watched before this moment.
    Unwatched(Instant),
    /// None where there are none, or they cannot be watched.
    Watched(Option<SignalFd>),
}

impl Signals {
    /// The same, watched if it is time for that.
    fn watched(self, set: &SigSet) -> Self {
        match self {
            Self::Unwatched(from) if Instant::now() >= from => {
                let fd = (*set != SigSet::empty()).then(|| SignalFd::with_flags(set, SfdFlags::SFD_CLOEXEC));
                Self::Watched(fd.and_then(std::result::Result::ok))
            }
            other => other,
        }
    }

    /// When they will be watched.
    fn since(&self) -> Option<Instant> {
        match self {
            Self::Unwatched(from) => Some(*from),
            Self::Watched(_) => None,
        }
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Watched(Some(fd)) => Some(fd.as_fd()),
            Self::Unwatched(_) | Self::Watched(None) => None,
        }
    }
}

/// A pipe whose reader never blocks, whoever else reads from it. Its writer does: a message is not to be lost.
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setfl(&reader, OFlags::NONBLOCK)?;
    Ok((reader, writer))
}

impl Report {
    /// `child` is the process that was cloned. What is read may come from a container that is joined (the inode number of
    /// its pid namespace), too: a sibling is believed only if it is a child of this process (which may have some in many) and in
    /// that namespace.
    pub(crate) fn read(pipe: &OwnedFd, child: &Cloned, expected: Expected, patience: Patience) -> Self {
        Self::listen(pipe, child.pid, child.pidfd.as_fd(), expected, patience)
    }

    /// Of a process that waited to be told to begin.
    pub(crate) fn of_held(pipe: &OwnedFd, pidfd: BorrowedFd<'_>, patience: Patience) -> Self {
        Self::listen(pipe, 0, pidfd, Expected::default(), patience)
    }

    fn listen(pipe: &OwnedFd, child: i32, pidfd: BorrowedFd<'_>, expected: Expected, patience: Patience) -> Self {
        let seen = expected.joined.map(|_| Instant::now() + SEEN_PATIENCE);
        let deadline = [seen, patience.deadline].into_iter().flatten().min();
        let mut signals = Signals::Unwatched(Instant::now() + SOON);
        let mut report = Self::default();
        loop {
            let others = report.sibling.as_ref().or(report.successor.as_ref());
            let watched = others.map_or(pidfd, |other| other.pidfd.as_fd());
            signals = signals.watched(&patience.signals);
            let deadline = [deadline, signals.since()].into_iter().flatten().min();
            let (ended, interrupted) = wait(pipe, watched, signals.as_fd(), deadline);
            let mut message = [0_u8; 8];
            // Messages are shorter than a pipe's unit, so each comes whole.
            match rustix::io::retry_on_intr(|| rustix::io::read(pipe, &mut message)) {
                Ok(0) => return report,
                Ok(8) => report.note(message, child, expected),
                Ok(_) => {}
                // Who has ended writes no more, and what he wrote before has been read.
                Err(Errno::AGAIN) if ended => return report,
                Err(Errno::AGAIN) => {}
                Err(_) => return report,
            }
            if report.held {
                return report;
            }
            let late = |deadline: Option<Instant>| deadline.is_some_and(|deadline| Instant::now() >= deadline);
            report.given_up = match () {
                () if interrupted => Some(GivenUp::Interrupted),
                () if late(patience.deadline) => Some(GivenUp::Late),
                () if late(seen) => Some(GivenUp::Held),
                () => continue,
            };
            return report;
        }
    }

    fn note(&mut self, message: [u8; 8], child: i32, expected: Expected) {
        let [a, b, c, d, e, f, g, h] = message;
        let (first, second) = (i32::from_ne_bytes([a, b, c, d]), i32::from_ne_bytes([e, f, g, h]));
        let known = |other: &Option<Sibling>| other.as_ref().is_some_and(|other| other.process.pid == second);
        match first {
            SUCCESSOR if expected.successor && self.successor.is_none() && second != child => {
                self.successor = Sibling::of(second);
            }
            SIBLING if self.sibling.is_none() && second != child && !known(&self.successor) => {
                self.sibling = expected.joined.and_then(|joined| Sibling::of(second).filter(|one| one.is_in(joined)));
            }
            HELD => self.held = true,
            0.. if self.failure.is_none() => {
                let step = usize::try_from(first).unwrap_or(usize::MAX);
                self.failure = Some((step, Errno::from_raw_os_error(second)));
            }
            _ => {}
        }
    }
}

impl Sibling {
    /// None if it is no child of this process.
    fn of(pid: i32) -> Option<Self> {
        let process = Process::of(pid).ok()?;
        let pidfd = process.pidfd().ok()?;
        // A child that nobody has waited for keeps its pid.
        let is_own = process.parent().is_ok_and(|parent| parent.cast_unsigned() == std::process::id());
        is_own.then_some(Self { process, pidfd })
    }

    /// Whether it is in that pid namespace.
    fn is_in(&self, namespace: u64) -> bool {
        pid_namespace(&self.process.pid.to_string()) == Ok(namespace)
    }
}

impl GivenUp {
    pub(crate) fn explain(self, joins: bool) -> Error {
        match self {
            Self::Interrupted => Error::new("start the program", Errno::INTR)
                .hint("a signal came before it began: what it is executed from did not answer, or is held by a file lease")
                .interrupted(),
            Self::Late => Error::new("start the program", Errno::TIMEDOUT)
                .hint("the time limit was reached before it began: what it is executed from did not answer, or is held by a file lease")
                .timed_out(),
            Self::Held if joins => Error::new("start the program", Errno::TIMEDOUT)
                .hint("it did not begin within ten seconds: a process of the container holds it, or what it is executed from"),
            Self::Held => Error::new("start the program", Errno::TIMEDOUT),
        }
    }
}

/// Waits for something to read, the end of the watched process, an interrupt, or the deadline; which of the second and the third
/// it was.
fn wait(
    pipe: &OwnedFd,
    watched: BorrowedFd<'_>,
    interrupt: Option<BorrowedFd<'_>>,
    deadline: Option<Instant>,
) -> (bool, bool) {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    let mut fds = [
        PollFd::new(pipe, PollFlags::IN),
        PollFd::from_borrowed_fd(watched, PollFlags::IN),
        PollFd::from_borrowed_fd(interrupt.unwrap_or(watched), PollFlags::IN),
    ];
    match rustix::io::retry_on_intr(|| poll(&mut fds, left.as_ref())) {
        Ok(_) => {}
        // For want of memory, say.
        Err(_) => std::thread::sleep(Duration::from_millis(10)),
    }
    let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
    (ready(&fds[1]), interrupt.is_some() && ready(&fds[2]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::Signal;
    use std::{fs::File, io::Read, process::Command};

    fn with_sleeper(test: impl FnOnce(&Cloned, &OwnedFd, &OwnedFd)) {
        let (reader, writer) = pipe().unwrap();
        let mut sleeper = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let pid = sleeper.id().cast_signed();
        let pidfd = Process::of(pid).and_then(Process::pidfd).unwrap();
        test(&Cloned { pid, pidfd }, &reader, &writer);
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }

    fn soon() -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(200))
    }

    /// A process with containers of many was made to take another one's process for the one that it had started, and to kill it.
    #[test]
    fn a_forged_report_names_no_child_of_another_container() {
        let mut other = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let pid = other.id().cast_signed();
        let own = pid_namespace("self").unwrap();
        for (joined, believed) in [(Some(own), Some(pid)), (Some(own + 1), None), (None, None)] {
            let (reader, writer) = pipe().unwrap();
            rustix::io::write(&writer, &[(-1_i32).to_ne_bytes(), pid.to_ne_bytes()].concat()).unwrap();
            drop(writer);
            let cloned = Cloned { pid: 1, pidfd: Process::own().and_then(Process::pidfd).unwrap() };
            let expected = Expected { joined, successor: false };
            let report = Report::read(&reader, &cloned, expected, Patience::default());
            assert_eq!(report.sibling.map(|sibling| sibling.process.pid), believed, "{joined:?}");
        }
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_report_that_others_take_out_of_the_pipe_is_not_waited_for() {
        with_sleeper(|child, reader, writer| {
            let name = format!("/proc/self/fd/{}", rustix::fd::AsRawFd::as_raw_fd(reader));
            let thief = std::thread::spawn(move || {
                let mut pipe = File::open(name).unwrap();
                while pipe.read(&mut [0; 8]).is_ok_and(|length| length > 0) {}
            });
            let writer = writer.try_clone().unwrap();
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            let decoy = std::thread::spawn(move || {
                while stopped.try_recv().is_err() {
                    rustix::io::write(&writer, &[0xff; 8]).unwrap();
                }
            });
            let report =
                Report::read(reader, child, Expected::default(), Patience { deadline: soon(), ..Patience::default() });
            stop.send(()).unwrap();
            decoy.join().unwrap();
            assert!(matches!(report.given_up, Some(GivenUp::Late)) && report.sibling.is_none());
            drop(thief);
        });
    }

    #[test]
    fn an_interrupt_and_a_deadline_end_the_wait() {
        with_sleeper(|child, reader, _writer| {
            let late =
                Report::read(reader, child, Expected::default(), Patience { deadline: soon(), ..Patience::default() });
            assert!(matches!(late.given_up, Some(GivenUp::Late)));
            let signals: SigSet = [Signal::SIGWINCH, Signal::SIGURG].into_iter().collect();
            signals.thread_block().unwrap();
            nix::sys::pthread::pthread_kill(nix::sys::pthread::pthread_self(), Signal::SIGURG).unwrap();
            let patience = Patience { signals, ..Patience::default() };
            let interrupted = Report::read(reader, child, Expected::default(), patience);
            assert!(matches!(interrupted.given_up, Some(GivenUp::Interrupted)));
            assert_eq!(signals.wait(), Ok(Signal::SIGURG), "it stays pending for the caller");
        });
    }

    #[test]
    fn a_pipe_that_somebody_else_holds_is_given_up_with_its_writer() {
        let (reader, _held) = pipe().unwrap();
        let mut ended = Command::new("/bin/true").spawn().unwrap();
        let pid = ended.id().cast_signed();
        let pidfd = Process::of(pid).and_then(Process::pidfd).unwrap();
        let report = Report::read(&reader, &Cloned { pid, pidfd }, Expected::default(), Patience::default());
        assert!(report.given_up.is_none() && report.failure.is_none());
        ended.wait().unwrap();
    }
}
