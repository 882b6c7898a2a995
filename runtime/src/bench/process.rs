//! One run of one command: timed, bounded, and what it left behind ended.

use std::{
    fs,
    io::Read,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use linux_exec::interrupt;
use nix::{
    errno::Errno,
    sys::{
        ptrace,
        resource::{Usage, UsageWho, getrusage},
        signal::{Signal, kill},
        time::{TimeVal, TimeValLike},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
    process::{PidfdFlags, pidfd_open},
};
use sha2::{Digest, Sha256};

/// What is kept of standard error, for the reason of a failure.
const KEPT_BYTES: usize = 4096;
/// How long what a run left may go on before it is killed: the clean-up of others takes this long at times.
const LEFTOVERS_END_WITHIN: Duration = Duration::from_secs(2);
/// How long what was killed may take to end.
const KILLED_END_WITHIN: Duration = Duration::from_secs(10);

/// Pid of a child that serves the runs, and stays when they have ended; 0: there is none.
static KEPT: AtomicU32 = AtomicU32::new(0);

/// Names the one child that is none of a run, or that there is none any more.
pub(super) fn keep(pid: Option<u32>) {
    KEPT.store(pid.unwrap_or(0), Ordering::Relaxed);
}

/// Whether ^C came.
pub(super) fn is_interrupted() -> bool {
    interrupt::came()
}

/// What one run did and cost.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) wall_ms: f64,
    pub(super) first_byte_ms: Option<f64>,
    /// What one more request to a server took.
    pub(super) request_ms: Option<f64>,
    pub(super) user_ms: f64,
    pub(super) system_ms: f64,
    pub(super) minor_faults: i64,
    /// 128 + n for signal n.
    pub(super) exit_code: i32,
    /// SHA-256 of standard output.
    pub(super) output: String,
    pub(super) output_bytes: u64,
    /// The first words of standard error.
    pub(super) complaint: String,
    /// Processes that had to be killed after it had ended.
    pub(super) left_behind: usize,
}

/// A command for a run: nothing to read, both outputs read by us, and a group of its own, so that ^C does not reach it.
pub(super) fn command(words: &[String]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command
}

/// Runs a command to its end. An error says why there is no end to speak of.
///
/// The clock stops when the process has ended, not when its output has: whoever inherited that may keep it open.
pub(super) fn run(words: &[String], timeout: Duration) -> Result<Run> {
    let before = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let begun = Instant::now();
    let mut child = command(words).spawn().with_context(|| format!("cannot start {}", words[0]))?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let rustix_pid = rustix::process::Pid::from_raw(pid.as_raw()).context("a child without a pid")?;
    let pidfd = pidfd_open(rustix_pid, PidfdFlags::empty()).context("cannot watch a process")?;
    let mut out = Stream::new(child.stdout.take().context("no pipe")?.into())?;
    let mut err = Stream::new(child.stderr.take().context("no pipe")?.into())?;
    let ended = watch(&pidfd, &mut out, &mut err, begun + timeout);
    let Some(ended) = ended? else {
        end_all()?;
        let why = if is_interrupted() { "interrupted".to_owned() } else { format!("no end after {timeout:?}: killed") };
        bail!("{why}{}", err.quoted());
    };
    let exit_code = exit_code(waitpid(pid, None)?);
    out.drain();
    err.drain();
    let left_behind = settle()?;
    let after = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let first_byte_ms = out.first.map(|first| milliseconds(first - begun));
    let (user_ms, system_ms, minor_faults) = cost_between(&before, &after);
    Ok(Run {
        wall_ms: milliseconds(ended - begun),
        first_byte_ms,
        request_ms: None,
        user_ms,
        system_ms,
        minor_faults,
        exit_code,
        output_bytes: out.bytes,
        output: hex(&out.hash.finalize()),
        complaint: String::from_utf8_lossy(&err.head).trim().to_owned(),
        left_behind,
    })
}

/// Reads until the process has ended: when that was. None: its time is over, or ours.
fn watch(pidfd: &OwnedFd, out: &mut Stream, err: &mut Stream, deadline: Instant) -> Result<Option<Instant>> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || is_interrupted() {
            return Ok(None);
        }
        let [ended, out_ready, err_ready] = wait(pidfd, out, err, left)?;
        let now = Instant::now();
        if out_ready {
            out.read(now);
        }
        if ended {
            return Ok(Some(now));
        }
        if err_ready {
            err.read(now);
        }
    }
}

fn wait(pidfd: &OwnedFd, out: &Stream, err: &Stream, left: Duration) -> Result<[bool; 3]> {
    // In the place of one whose end was read: its hang-up would be told without end.
    let mut fds =
        [pidfd.as_fd(), out.fd_or(pidfd), err.fd_or(pidfd)].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    let timeout = Timespec { tv_sec: i64::try_from(left.as_secs())?, tv_nsec: i64::from(left.subsec_nanos()) };
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok([false; 3]),
        Err(errno) => return Err(errno).context("cannot wait for a process"),
    }
    let [ended, out_ready, err_ready] = fds.map(|fd| !fd.revents().is_empty());
    Ok([ended, out_ready && out.is_open, err_ready && err.is_open])
}

/// One output of a process.
struct Stream {
    pipe: fs::File,
    is_open: bool,
    first: Option<Instant>,
    bytes: u64,
    hash: Sha256,
    head: Vec<u8>,
    buffer: Vec<u8>,
}

impl Stream {
    fn new(pipe: OwnedFd) -> Result<Self> {
        rustix::fs::fcntl_setfl(pipe.as_fd(), OFlags::NONBLOCK).context("cannot read a pipe without waiting")?;
        let buffer = vec![0; 64 * 1024];
        let (hash, head) = (Sha256::new(), Vec::new());
        Ok(Self { pipe: pipe.into(), is_open: true, first: None, bytes: 0, hash, head, buffer })
    }

    /// Its pipe, as long as somebody may write to it.
    fn fd_or<'s>(&'s self, other: &'s OwnedFd) -> BorrowedFd<'s> {
        if self.is_open { self.pipe.as_fd() } else { other.as_fd() }
    }

    /// Takes what is there now, once; whether there was something.
    fn read(&mut self, now: Instant) -> bool {
        match self.pipe.read(&mut self.buffer) {
            Ok(0) => self.is_open = false,
            Ok(count) => {
                self.first.get_or_insert(now);
                self.bytes += count as u64;
                self.hash.update(&self.buffer[..count]);
                let wanted = KEPT_BYTES.saturating_sub(self.head.len()).min(count);
                self.head.extend_from_slice(&self.buffer[..wanted]);
                return true;
            }
            // Nothing more for now.
            Err(_) => {}
        }
        false
    }

    /// Takes what is still in the pipe, which is not much.
    fn drain(&mut self) {
        let now = Instant::now();
        for _ in 0..64 {
            if !self.read(now) {
                break;
            }
        }
    }

    fn quoted(&self) -> String {
        match String::from_utf8_lossy(&self.head).trim() {
            "" => String::new(),
            words => format!("; it said: {words}"),
        }
    }
}

/// Waits for what a run left behind, and kills what does not end: how many that were.
pub(super) fn settle() -> Result<usize> {
    if all_ended_by(Instant::now() + LEFTOVERS_END_WITHIN)? { Ok(0) } else { end_all() }
}

/// Reaps whoever has become our child; whether there is none any more. Who was followed and stands still goes on to its end.
fn all_ended_by(deadline: Instant) -> Result<bool> {
    let mut pause = Duration::from_micros(50);
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            Err(Errno::ECHILD) => return Ok(true),
            Ok(WaitStatus::StillAlive) if is_keeping() && children().is_empty() => return Ok(true),
            Ok(WaitStatus::StillAlive) if Instant::now() >= deadline => return Ok(false),
            Ok(WaitStatus::StillAlive) => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(10));
            }
            Ok(WaitStatus::PtraceEvent(pid, ..) | WaitStatus::Stopped(pid, _)) => {
                // Killed meanwhile, it is waited for next.
                let _ = ptrace::cont(pid, None);
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for processes that were left behind"),
        }
    }
}

/// Kills all our children, and whoever becomes one by that, until there is none: how many there were.
pub(super) fn end_all() -> Result<usize> {
    let deadline = Instant::now() + KILLED_END_WITHIN;
    let mut killed = std::collections::HashSet::new();
    while Instant::now() < deadline {
        for pid in children() {
            killed.insert(pid);
            // It may have ended by itself.
            let _ = kill(pid, Signal::SIGKILL);
        }
        if all_ended_by(Instant::now() + Duration::from_millis(20))? {
            return Ok(killed.len());
        }
    }
    bail!("{} processes that were left behind do not end, though they were killed", children().len())
}

fn is_keeping() -> bool {
    KEPT.load(Ordering::Relaxed) != 0
}

/// Our children, of all threads, but for the one that is kept.
fn children() -> Vec<Pid> {
    let kept = i32::try_from(KEPT.load(Ordering::Relaxed)).unwrap_or(0);
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
        .filter(|pid| *pid != kept)
        .map(Pid::from_raw)
        .collect()
}

/// Makes whoever loses its parent below us our child, so that it is counted, and ended.
pub(super) fn adopt_orphans() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context("cannot become the parent of orphans")
}

pub(super) fn exit_code(status: WaitStatus) -> i32 {
    match status {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        _ => -1,
    }
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// User and system time in ms, and minor faults.
pub(super) fn cost_between(before: &Usage, after: &Usage) -> (f64, f64, i64) {
    (
        time_between(before, after, Usage::user_time),
        time_between(before, after, Usage::system_time),
        after.minor_page_faults() - before.minor_page_faults(),
    )
}

fn time_between(before: &Usage, after: &Usage, time: impl Fn(&Usage) -> TimeVal) -> f64 {
    (time(after).num_microseconds() - time(before).num_microseconds()) as f64 / 1e3
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
