//! The clone, the child's walk through its steps, and what its report means.
use crate::{
    error::Error,
    launcher::{Becomes, Launcher},
    plan::{Patience, Stdio},
    process::Process,
    reap::{self, Child},
    report::{self, Report},
    steps::{Context, MAX_MADE, Step},
    sys::{self, Memory, SignalsBlocked, Stack},
    users::User,
};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::{Gid, Mode, Uid},
    io::{Errno, FdFlags},
};
use std::{
    ffi::{CString, c_int},
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// What comes after the steps.
pub(crate) enum Last {
    /// The launcher, which executes the program.
    Program(Launcher),
    /// A function, once every descriptor in `close` (first, last) is closed.
    Call { function: Box<dyn FnOnce() -> u8>, close: Vec<(u32, u32)> },
}

/// Everything about one child.
pub(crate) struct Launch<'a> {
    /// CLONE_NEW….
    pub(crate) namespaces: c_int,
    /// A cgroup v2 directory.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    pub(crate) steps: Vec<Step<'a>>,
    pub(crate) last: Last,
    /// The master of the child's pty.
    pub(crate) terminal: Option<OwnedFd>,
    /// The pid namespace of a container that is joined, by its inode number.
    pub(crate) joined: Option<u64>,
    pub(crate) patience: Patience,
}

/// What is told when the clone itself fails or the parent's own calls do.
const EXIT_FAILED: u8 = 125;
/// These would be ignored by the first process of a pid namespace unless it has a handler.
const ENDING_SIGNALS: [c_int; 8] = [
    nix::libc::SIGTERM,
    nix::libc::SIGINT,
    nix::libc::SIGHUP,
    nix::libc::SIGQUIT,
    nix::libc::SIGUSR1,
    nix::libc::SIGUSR2,
    nix::libc::SIGXCPU,
    nix::libc::SIGXFSZ,
];

impl Launch<'_> {
    /// Clones, waits for the report, and says what failed.
    pub(crate) fn start(mut self) -> Result<Child, Error> {
        let (reader, writer) = report::pipe().map_err(|errno| Error::new("create a pipe", errno))?;
        if let Last::Program(launcher) = &mut self.last {
            launcher.tell_of(&writer, self.steps.len())?;
        }
        let cloned = self.clone(&reader, &writer)?;
        drop(writer);
        let report = Report::read(&reader, &cloned, self.joined, self.patience);
        if report.failure.is_some() || report.given_up.is_some() {
            if let Some(sibling) = &report.sibling {
                // He has exited, or somebody in the container says so.
                reap::put_down(sibling.process.pid, sibling.pidfd.as_fd());
            }
            // It has exited or is about to, or is not to go on.
            reap::put_down(cloned.pid, cloned.pidfd.as_fd());
        }
        match (report.failure, report.given_up) {
            (Some((step, errno)), _) => return Err(self.explain(step, errno)),
            (None, Some(given_up)) => return Err(given_up.explain(self.joined.is_some())),
            (None, None) => {}
        }
        if self.joined.is_none() {
            let process = Process::of(cloned.pid);
            let process = process.map_err(|error| Error::new("identify the container's process", error))?;
            return Ok(Child { process, pidfd: cloned.pidfd, terminal: self.terminal });
        }
        reap::finish(cloned.pid, cloned.pidfd.as_fd());
        let sibling = report.sibling.ok_or_else(|| {
            Error::new("join the container", Errno::SRCH)
                .hint("it has ended, or its processes took the report of who joined")
        })?;
        Ok(Child { process: sibling.process, pidfd: sibling.pidfd, terminal: self.terminal })
    }

    fn clone(&mut self, reader: &OwnedFd, writer: &OwnedFd) -> Result<sys::Cloned, Error> {
        let shares_memory = matches!(self.last, Last::Program(_));
        let stack = shares_memory.then(Stack::new).transpose();
        let mut stack = stack.map_err(|errno| Error::new("map a stack", errno))?;
        let memory = stack.as_mut().map_or(Memory::Copied, Memory::Shared);
        let _signals = SignalsBlocked::new().map_err(|errno| Error::new("block signals", errno))?;
        let (steps, last) = (&self.steps, &mut self.last);
        let mut child = || run(steps, last, reader.as_fd(), writer.as_fd());
        sys::clone(self.namespaces, memory, self.cgroup, &mut child).map_err(clone_error)
    }

    fn explain(&self, step: usize, errno: Errno) -> Error {
        if let Some(step) = self.steps.get(step) {
            return Error::new(step.describe(), errno).hint(step.hint(errno).unwrap_or_default());
        }
        match (&self.last, step - self.steps.len()) {
            (Last::Program(launcher), 0) => explain_exec(&launcher.programs, errno),
            (Last::Program(_), 1) => Error::new("start the program's process", errno)
                .hint(match errno {
                    Errno::AGAIN => "the limit on processes, of its cgroup or of its user, is reached",
                    Errno::NOMEM => "the container has ended meanwhile, or memory is used up",
                    _ => "",
                })
                .exit_code_of_exec(errno),
            (Last::Program(_), _) => Error::new("execute the launcher from memory", errno).hint(match errno {
                Errno::ACCESS => "the sysctl vm.memfd_noexec must not be 2",
                Errno::TOOBIG => TOO_LONG,
                _ => "",
            }),
            (Last::Call { .. }, _) => Error::new("call the program", errno),
        }
    }
}

/// execve(2), "Limits on size of arguments and environment".
const TOO_LONG: &str = "the arguments and the environment are too long: the kernel takes 128 KiB in each, and in all a quarter of the \
                        limit on the stack (`ulimit -s`), 6 MiB at the most";

fn explain_exec(programs: &[CString], errno: Errno) -> Error {
    let names: Vec<_> = programs.iter().map(|program| crate::steps::show(program)).collect();
    let hint = match errno {
        Errno::NOENT if names.len() == 1 => "there is no such file, or the interpreter that it needs is missing",
        Errno::LOOP => "it leads through too many symbolic links",
        Errno::NOEXEC => "it is not a program for this machine, and has no `#!` line",
        Errno::TOOBIG => TOO_LONG,
        Errno::ACCESS => "it is not marked executable for this user, or is on a file system mounted noexec",
        _ => "",
    };
    let tried = if names.len() > 3 {
        format!("{} (and {} more)", names[..2].join(", "), names.len() - 2)
    } else {
        names.join(", ")
    };
    Error::new(format!("execute {tried}"), errno).hint(hint).exit_code_of_exec(errno)
}

fn clone_error(errno: Errno) -> Error {
    Error::new("create the container's namespaces", errno).hint(match errno {
        Errno::PERM => "this needs root (CAP_SYS_ADMIN) or a user namespace",
        Errno::NOSPC => "a limit is reached: see /proc/sys/user/max_*_namespaces",
        Errno::AGAIN => "the limit on processes is reached (`ulimit -u`, or pids.max of the cgroup)",
        Errno::INVAL | Errno::NOSYS => "this kernel lacks a kind of namespace, or is older than 5.12",
        Errno::BUSY => "the cgroup has controllers for its children, so it cannot hold a process itself",
        _ => "",
    })
}

/// The child. Allocates nothing, takes no lock and does not panic until its function is called.
fn run(steps: &[Step<'_>], last: &mut Last, reader: BorrowedFd<'_>, report: BorrowedFd<'_>) -> u8 {
    // The parent's end, so that its death is seen at the other one.
    let end = reader.as_raw_fd().cast_unsigned();
    let _ = sys::close_range(end, end);
    // Modes in steps are meant as they are written.
    rustix::process::umask(Mode::empty());
    let mut context = Context { report, made: [const { None }; MAX_MADE], nodes: None, dev: None };
    for (index, step) in steps.iter().enumerate() {
        if let Err(errno) = step.run(&mut context) {
            return fail(report, index, errno);
        }
    }
    match last {
        Last::Program(launcher) => fail(report, steps.len() + 2, launch(launcher, report)),
        Last::Call { function, close } => {
            let function = std::mem::replace(function, Box::new(|| EXIT_FAILED));
            fail(report, steps.len(), call(function, close))
        }
    }
}

/// Executes the launcher from its descriptor, with what it reports to still open, and an init with all signals blocked: the
/// first process of a pid namespace would lose those that come before it waits for them.
fn launch(launcher: &Launcher, report: BorrowedFd<'_>) -> Errno {
    let keep = |fd: BorrowedFd<'_>| rustix::io::fcntl_setfd(fd, FdFlags::empty());
    let ready = keep(report).and_then(|()| match &launcher.becomes {
        Becomes::Exec | Becomes::Join { .. } => Ok(()),
        Becomes::Init { report } => keep(report.as_fd()).and_then(|()| sys::block_all_signals()),
    });
    match ready {
        Ok(()) => sys::execveat(launcher.file.as_fd(), &launcher.words, &launcher.env),
        Err(errno) => errno,
    }
}

/// Calls the function in this process, a copy with one thread; comes back only if it could not be called.
fn call(function: Box<dyn FnOnce() -> u8>, close: &[(u32, u32)]) -> Errno {
    if let Err(errno) = sys::exit_on_signals(&ENDING_SIGNALS) {
        return errno;
    }
    for &(first, last) in close {
        if let Err(errno) = sys::close_range(first, last) {
            return errno;
        }
    }
    let code = catch_unwind(AssertUnwindSafe(function)).unwrap_or(EXIT_FAILED);
    // Nothing else flushes: _exit runs no handlers.
    let _ = std::io::stdout().flush();
    sys::exit_now(code)
}

/// Reports and gives the exit code, which nobody looks at.
fn fail(report: BorrowedFd<'_>, step: usize, errno: Errno) -> u8 {
    let mut message = [0_u8; 8];
    let (index, number) = message.split_at_mut(4);
    index.copy_from_slice(&u32::try_from(step).unwrap_or(u32::MAX).to_ne_bytes());
    number.copy_from_slice(&errno.raw_os_error().to_ne_bytes());
    let _ = rustix::io::write(report, &message);
    EXIT_FAILED
}

/// The streams as a step; `slave` is the pty's end for [`Stdio::Terminal`].
///
/// The terminal controls the session of the process that takes the steps if `controlling`. Pipes are given to another user than
/// root: the caller has made them for this program.
pub(crate) fn stdio_steps<'a>(
    stdio: Stdio,
    slave: Option<OwnedFd>,
    user: &User,
    controlling: bool,
) -> Result<Vec<Step<'a>>, Error> {
    let error = |errno| Error::new("duplicate a descriptor", errno);
    match (stdio, slave) {
        (Stdio::Inherit, _) | (Stdio::Terminal { .. }, None) => Ok(Vec::new()),
        (Stdio::Files([input, output, error_output]), _) => {
            let above = |fd| sys::above_stdio(fd).map_err(error);
            let streams = Step::Stdio([above(input)?, above(output)?, above(error_output)?]);
            let given = Step::GiveStreams(Uid::from_raw(user.uid), Gid::from_raw(user.gid));
            Ok([streams].into_iter().chain((user.uid != 0).then_some(given)).collect())
        }
        (Stdio::Terminal { .. }, Some(slave)) => {
            let copy = || rustix::io::fcntl_dupfd_cloexec(&slave, 3).map_err(error);
            let streams = Step::Stdio([copy()?, copy()?, copy()?]);
            Ok([streams].into_iter().chain(controlling.then_some(Step::ControllingTerminal)).collect())
        }
    }
}

/// The ranges above standard error that are left when `keep` is taken out.
pub(crate) fn ranges_without(keep: &[i32]) -> Vec<(u32, u32)> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|&fd| u32::try_from(fd).ok()).filter(|&fd| fd > 2).collect();
    keep.sort_unstable();
    keep.dedup();
    let mut first = 3;
    let mut ranges = Vec::with_capacity(keep.len() + 1);
    for fd in keep {
        if fd > first {
            ranges.push((first, fd - 1));
        }
        first = fd + 1;
    }
    ranges.push((first, u32::MAX));
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_leave_out_what_is_kept() {
        let max = u32::MAX;
        let table = [
            (&[][..], &[(3, max)][..]),
            (&[3], &[(4, max)]),
            (&[5], &[(3, 4), (6, max)]),
            (&[7, 5, 5, 6], &[(3, 4), (8, max)]),
            (&[0, 1, 2, -1, 9], &[(3, 8), (10, max)]),
            (&[3, 4, 6], &[(5, 5), (7, max)]),
        ];
        for (keep, expected) in table {
            assert_eq!(ranges_without(keep), expected, "{keep:?}");
        }
    }
}
