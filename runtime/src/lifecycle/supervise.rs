//! Waits for a container's first process: forwards signals, keeps its time limit, and says how it ended.
//!
//! One thread polls three things: the process, the signals sent to us, and the clock. Output that must be copied is
//! copied by threads of its own (see [`crate::lifecycle::streams`]), so that a reader who stalls cannot hold up a time limit.

use std::{
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use linux_exec::{
    cgroup::Place,
    plan::Patience,
    process::Process,
    spawn::{Child, Exit, Reaped, reap},
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};

use super::holders;
use crate::{output::errors::Coded, spec::exit_code};

/// What a supervisor passes on to its container.
const FORWARDED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// Asks a supervisor to look which networks its container is to be on. Whoever does not expect it ignores it.
pub(super) const LOOK_AT_NETWORKS: Signal = Signal::SIGURG;

/// Those by which a user wants a program to end.
const DEADLY: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// Signals that wait to be read, blocked from before the container begins, so that none is lost.
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Blocks them for this process; the container's process unblocks its own.
    pub(crate) fn block() -> Result<Self> {
        let set: SigSet = FORWARDED.into_iter().chain([LOOK_AT_NETWORKS]).collect();
        set.thread_block().context("cannot block signals")?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        Ok(Self(fd.context("cannot make a signalfd")?))
    }

    /// What is blocked no more does what it does to any process.
    pub(super) fn unblock(self) {
        let set: SigSet = FORWARDED.into_iter().chain([LOOK_AT_NETWORKS]).collect();
        // It fails for no set that could be blocked.
        let _ = set.thread_unblock();
    }

    /// One by which somebody wants an end, if one has come; those that came are taken.
    pub(super) fn deadly(&self) -> Option<i32> {
        self.taken().filter(|number| DEADLY.iter().any(|deadly| *deadly as i32 == *number)).last()
    }

    /// Whether one has come by which somebody wants an end; those that came are taken.
    pub(super) fn take_deadly(&self) -> bool {
        self.deadly().is_some()
    }

    /// Those that have come.
    pub(super) fn taken(&self) -> impl Iterator<Item = i32> {
        let came = std::iter::from_fn(|| self.0.read_signal().ok().flatten());
        came.filter_map(|info| i32::try_from(info.ssi_signo).ok())
    }

    /// Readable when one has come.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// How long a program may take to begin: until somebody wants it to end, or until `deadline`.
    pub(crate) fn patience(deadline: Option<Instant>) -> Patience {
        Patience { signals: DEADLY.into_iter().collect(), deadline }
    }

    /// The error for who waits, of a program that did not begin; a signal that ended the wait counts as the one that ended it.
    pub(crate) fn explain(&self, error: &linux_exec::Error) -> anyhow::Error {
        let mut came = std::iter::from_fn(|| self.0.read_signal().ok().flatten());
        let is_deadly = |number: u32| DEADLY.iter().any(|deadly| *deadly as u32 == number);
        let ended_by =
            came.by_ref().map(|info| info.ssi_signo).find(|number| error.is_interrupted() && is_deadly(*number));
        let code = ended_by.and_then(|number| u8::try_from(number).ok());
        let code = code.map_or(error.exit_code(), |number| exit_code::of_exit(Exit::Signal(number)));
        Coded::new(code, error.to_string()).into()
    }
}

/// When to stop it, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StopRule<'a> {
    /// Where the cgroup of the container lies that ends with the process; None: it ends alone.
    pub(crate) container: Option<&'a Place>,
    /// From the start of supervision; None: no limit.
    pub(crate) time_limit: Option<Duration>,
    /// Sent first.
    pub(crate) stop_signal: i32,
    /// Between the stop signal and SIGKILL; None: SIGKILL never follows.
    pub(crate) stop_timeout: Option<Duration>,
}

/// What is done for signals that are not passed on.
pub(crate) struct Duties<'a> {
    /// Our own terminal changed its size.
    pub(crate) resize: &'a dyn Fn(),
    /// The container may be wanted on other networks.
    pub(crate) look_at_networks: &'a mut dyn FnMut(),
}

/// How it ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    pub(crate) exit: Exit,
    /// The time limit was reached.
    pub(crate) timed_out: bool,
    /// What the kernel said; its `exit` is that of a process which was killed where a signal of ours did it.
    pub(crate) reaped: Reaped,
}

enum Clock {
    Unlimited,
    StopAt(Instant),
    KillAt(Instant),
    /// Killed; when to look next at what keeps it from ending.
    LookAt(Instant),
}

/// How long a killed process may take to end before somebody looks at what keeps it.
pub(super) const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// Waits until the process has ended, and reaps it.
pub(crate) fn supervise(
    child: &Child,
    signals: &Signals,
    rule: StopRule<'_>,
    duties: &mut Duties<'_>,
) -> Result<Ending> {
    let mut clock = match rule.time_limit {
        Some(limit) => Clock::StopAt(Instant::now() + limit),
        None => Clock::Unlimited,
    };
    let mut timed_out = false;
    let mut ended_by = None;
    loop {
        let (ended, signalled) = wait(child.pidfd.as_fd(), signals.0.as_fd(), &clock);
        if ended {
            let reaped = reap_surely(child)?;
            let exit = match (reaped.exit, ended_by) {
                (Exit::Signal(signal), Some(ended_by)) if i32::from(signal) == Signal::SIGKILL as i32 => ended_by,
                (exit, _) => exit,
            };
            return Ok(Ending { exit, timed_out, reaped });
        }
        if signalled {
            let killed_for = forward(child.process, signals, duties);
            if killed_for.is_some() && ended_by.is_none() {
                clock = Clock::LookAt(Instant::now() + ENDS_WITHIN);
            }
            ended_by = ended_by.or(killed_for);
        }
        timed_out |= clock.tick(child.process, rule);
    }
}

/// How it ended is told once, and only here.
fn reap_surely(child: &Child) -> Result<Reaped> {
    for _ in 0..100 {
        if let Ok(reaped) = reap(child) {
            return Ok(reaped);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    reap(child).context("cannot reap the container's process")
}

impl Clock {
    fn remaining(&self) -> Option<Duration> {
        match self {
            Clock::Unlimited => None,
            Clock::StopAt(at) | Clock::KillAt(at) | Clock::LookAt(at) => {
                Some(at.saturating_duration_since(Instant::now()))
            }
        }
    }

    /// Does what is due; true if that is because the time limit has been reached.
    fn tick(&mut self, process: Process, rule: StopRule<'_>) -> bool {
        match *self {
            Clock::StopAt(at) if Instant::now() >= at => {
                let grace = stop(process, rule.stop_signal, rule.stop_timeout);
                *self = grace.map_or(Clock::Unlimited, |grace| Clock::KillAt(Instant::now() + grace));
                true
            }
            Clock::KillAt(at) if Instant::now() >= at => {
                // It may have ended by itself just now.
                let _ = process.signal(Signal::SIGKILL as i32);
                *self = Clock::LookAt(Instant::now() + ENDS_WITHIN);
                true
            }
            Clock::LookAt(at) if Instant::now() >= at => {
                // Nobody is here to whom the others could be named; `stop` and `rm -f` name them.
                holders::release(rule.container, process);
                *self = Clock::LookAt(Instant::now() + ENDS_WITHIN);
                false
            }
            _ => false,
        }
    }
}

/// Sends the stop signal; how long to wait before SIGKILL. A first process that has no handler for a signal never
/// sees it (pid_namespaces(7)): waiting would be for nothing.
pub(crate) fn stop(process: Process, signal: i32, timeout: Option<Duration>) -> Option<Duration> {
    let _ = process.signal(signal);
    // Any other process does what is usual, if it may take a moment.
    let takes_it = has_handler(process.pid, signal) || !process.is_first_in_namespace().unwrap_or(false);
    if takes_it { timeout } else { Some(Duration::ZERO) }
}

/// Whether a signal is caught, or blocked, as who waits for signals one by one has them (an init does). When in doubt, yes.
fn has_handler(pid: i32, signal: i32) -> bool {
    ["SigCgt:", "SigBlk:"].iter().any(|mask| is_in_mask(pid, mask, signal).unwrap_or(true))
}

/// Whether a signal is neither caught nor ignored nor blocked. When in doubt, no.
fn is_default(pid: i32, signal: i32) -> bool {
    ["SigCgt:", "SigIgn:", "SigBlk:"].iter().all(|mask| is_in_mask(pid, mask, signal) == Some(false))
}

/// From one of the masks in proc_pid_status(5).
fn is_in_mask(pid: i32, name: &str, signal: i32) -> Option<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let hex = status.lines().find_map(|line| line.strip_prefix(name))?;
    let mask = u64::from_str_radix(hex.trim(), 16).ok()?;
    Some(mask & 1u64.wrapping_shl(u32::try_from(signal - 1).ok()?) != 0)
}

/// Waits for so long, or until something can be read.
pub(super) fn wait_readable(fd: BorrowedFd<'_>, longest: Duration) {
    let longest = PollTimeout::try_from(longest + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    // What goes wrong shows when it is read.
    let _ = poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], longest);
}

fn wait(pidfd: BorrowedFd<'_>, signals: BorrowedFd<'_>, clock: &Clock) -> (bool, bool) {
    let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN), PollFd::new(signals, PollFlags::POLLIN)];
    // A millisecond more, as poll rounds down and would return just too early.
    let timeout = clock.remaining().map_or(PollTimeout::NONE, |left| {
        PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        // For want of memory, say: its end must not get lost over that, nor its time limit.
        Err(_) => std::thread::sleep(Duration::from_millis(10)),
    }
    let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
    (ready(&fds[0]), ready(&fds[1]))
}

/// Passes on what came. Gives how the process ends if that was a signal which ends any program that does not care: the
/// first process of a pid namespace would never see it, so that its default action is ours to do.
fn forward(process: Process, signals: &Signals, duties: &mut Duties<'_>) -> Option<Exit> {
    let mut ended_by = None;
    while let Ok(Some(info)) = signals.0.read_signal() {
        let Ok(number) = i32::try_from(info.ssi_signo) else { continue };
        if number == Signal::SIGWINCH as i32 {
            (duties.resize)();
            continue;
        }
        if number == LOOK_AT_NETWORKS as i32 {
            (duties.look_at_networks)();
            continue;
        }
        let is_deadly = DEADLY.iter().any(|deadly| *deadly as i32 == number) && is_default(process.pid, number);
        // It may have ended meanwhile.
        let _ = process.signal(if is_deadly { Signal::SIGKILL as i32 } else { number });
        if is_deadly {
            ended_by = ended_by.or(u8::try_from(number).ok().map(Exit::Signal));
        }
    }
    ended_by
}
