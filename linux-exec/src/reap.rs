//! Reaps children, and waits for none of them for ever.
//!
//! A process of a container can trace one that joined it. The end of that one is seen by its pidfd then, but the kernel keeps it
//! from its parent for as long as the tracer likes. So everything here has a bound, after which a zombie is left where it is: it
//! goes when its tracer goes, at the latest with the container.
use crate::sys::{self, Waited};
use nix::libc;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::BorrowedFd,
};
use std::{
    io,
    time::{Duration, Instant},
};

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// exit(2).
    Code(u8),
    /// Killed by this signal.
    Signal(u8),
}

/// What a child leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaped {
    /// Its end.
    pub exit: Exit,
    /// The peak resident set of it and its children.
    ///
    /// It begins at the caller's own resident set, whose memory the child shared until its exec: a cgroup's figure is the better
    /// one where there is one.
    pub peak_rss_bytes: u64,
    /// Processor time of it and those of its children that it waited for.
    pub cpu: Duration,
    /// A tracer keeps how it ended from its parent: `exit` is that of a process that was killed, nothing is known of what it
    /// used, and its zombie is left.
    pub withheld: bool,
}

/// How long a tracer may take to pass on an end.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at a child that has ended and cannot be reaped.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until a child has ended, and reaps it: within two seconds of its end, come what may (see [`Reaped::withheld`]).
pub(crate) fn reap(pid: i32, pidfd: BorrowedFd<'_>) -> io::Result<Reaped> {
    wait_for_end(pidfd, None)?;
    Ok(match collect(pid)? {
        Some(waited) => Reaped {
            exit: exit(waited.status),
            peak_rss_bytes: waited.peak_rss_kib.saturating_mul(1024),
            cpu: waited.cpu,
            withheld: false,
        },
        None => Reaped { exit: Exit::Signal(SIGKILL), peak_rss_bytes: 0, cpu: Duration::ZERO, withheld: true },
    })
}

const SIGKILL: u8 = 9;

fn exit(status: libc::c_int) -> Exit {
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    if libc::WIFSIGNALED(status) {
        Exit::Signal(byte(libc::WTERMSIG(status)))
    } else {
        Exit::Code(byte(libc::WEXITSTATUS(status)))
    }
}

/// Reaps a child that has ended or is about to, and kills it if it does not.
pub(crate) fn finish(pid: i32, pidfd: BorrowedFd<'_>) {
    if !wait_for_end(pidfd, Some(PATIENCE)).is_ok_and(|ended| ended) {
        return put_down(pid, pidfd);
    }
    // Nobody asks how it ended.
    let _ = collect(pid);
}

/// Kills a child and reaps it.
pub(crate) fn put_down(pid: i32, pidfd: BorrowedFd<'_>) {
    // It may have ended by itself, and what a freezer holds ends later.
    let _ = sys::pidfd_send_signal(pidfd, libc::SIGKILL);
    if wait_for_end(pidfd, Some(PATIENCE)).is_ok_and(|ended| ended) {
        let _ = collect(pid);
    }
}

/// Whether it has ended, which is waited for.
fn wait_for_end(pidfd: BorrowedFd<'_>, patience: Option<Duration>) -> rustix::io::Result<bool> {
    let timeout = patience.and_then(|patience| Timespec::try_from(patience).ok());
    let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut fds, timeout.as_ref())).map(|ready| ready > 0)
}

/// Reaps a child that has ended; None if a tracer does not let go of it.
fn collect(pid: i32) -> rustix::io::Result<Option<Waited>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match sys::wait_if_ended(pid)? {
            None if Instant::now() < deadline => std::thread::sleep(PAUSE),
            waited => return Ok(waited),
        }
    }
}
