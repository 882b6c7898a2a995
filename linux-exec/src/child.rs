//! The clone, the child's walk through its steps, and its report.
//!
//! The child writes nothing if all went well: the report pipe closes at its exec (or before its function is called),
//! and end-of-file means success. A failure is two numbers, the index of the step and the errno.
use crate::{
    plan::{Init, Stdio},
    process::Process,
    spawn::{Child, SpawnError},
    steps::{Context, MAX_MADE, Step},
    sys::{self, ExecStrings, Memory, SignalsBlocked, Stack},
};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::Mode,
    io::{Errno, FdFlags},
    pipe::{PipeFlags, pipe_with},
};
use std::{
    ffi::{CString, c_int},
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// What comes after the steps.
pub(crate) enum Last {
    /// The first of these that can be executed.
    Exec { programs: Vec<CString>, argv: ExecStrings, env: ExecStrings },
    /// What starts the program as the second process.
    Init { init: Init, argv: ExecStrings, env: ExecStrings },
    /// A function, once every descriptor in `close` (first, last) is closed.
    Call { function: Box<dyn FnOnce() -> u8>, close: Vec<(u32, u32)> },
}

/// Everything about one child.
pub(crate) struct Launch<'a> {
    /// CLONE_NEW….
    pub(crate) namespaces: c_int,
    /// A cgroup v2 directory.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// Whether the child may see this process's memory until its exec.
    pub(crate) share_memory: bool,
    pub(crate) steps: Vec<Step<'a>>,
    pub(crate) last: Last,
    /// The master of the child's pty.
    pub(crate) terminal: Option<OwnedFd>,
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
    pub(crate) fn start(mut self) -> Result<Child, SpawnError> {
        let (reader, writer) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|errno| SpawnError::new("create a pipe", errno))?;
        let cloned = self.clone(&reader, &writer)?;
        drop(writer);
        let process = Process::of(cloned.pid);
        if let Some((step, errno)) = read_report(&reader) {
            // It has exited or is about to.
            let _ = sys::wait_with_usage(cloned.pid);
            return Err(self.explain(step, errno));
        }
        let process = process.map_err(|error| SpawnError::from_io("identify the container's process", &error))?;
        Ok(Child { process, pidfd: cloned.pidfd, terminal: self.terminal })
    }

    fn clone(&mut self, reader: &OwnedFd, writer: &OwnedFd) -> Result<sys::Cloned, SpawnError> {
        let stack = self.share_memory.then(Stack::new).transpose();
        let mut stack = stack.map_err(|errno| SpawnError::new("map a stack", errno))?;
        let memory = stack.as_mut().map_or(Memory::Copied, Memory::Shared);
        let _signals = SignalsBlocked::new().map_err(|errno| SpawnError::new("block signals", errno))?;
        let (steps, last) = (&self.steps, &mut self.last);
        let mut child = || run(steps, last, reader.as_fd(), writer.as_fd());
        sys::clone(self.namespaces, memory, self.cgroup, &mut child).map_err(clone_error)
    }

    fn explain(&self, step: usize, errno: Errno) -> SpawnError {
        let Some(step) = self.steps.get(step) else { return self.explain_exec(errno) };
        let error = SpawnError::new(step.describe(), errno).hint(step.hint(errno).unwrap_or_default());
        match (step, errno) {
            (Step::CheckProgram(_), _) => error.exit_code_of_exec(errno),
            _ => error,
        }
    }

    fn explain_exec(&self, errno: Errno) -> SpawnError {
        let programs = match &self.last {
            Last::Exec { programs, .. } => programs,
            Last::Init { .. } => return SpawnError::new("execute the container's init", errno),
            Last::Call { .. } => return SpawnError::new("call the program", errno),
        };
        let names: Vec<_> = programs.iter().map(|program| crate::steps::show(program)).collect();
        let hint = match errno {
            Errno::NOENT if names.len() == 1 => "there is no such file, or the interpreter that it needs is missing",
            Errno::NOEXEC => "it is not a program for this machine, and has no `#!` line",
            Errno::ACCESS => "it is not marked executable for this user, or is on a file system mounted noexec",
            _ => "",
        };
        let tried = if names.len() > 3 {
            format!("{} (and {} more)", names[..2].join(", "), names.len() - 2)
        } else {
            names.join(", ")
        };
        SpawnError::new(format!("execute {tried}"), errno).hint(hint).exit_code_of_exec(errno)
    }
}

fn clone_error(errno: Errno) -> SpawnError {
    SpawnError::new("create the container's namespaces", errno).hint(match errno {
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
    let mut context = Context { report, made: [const { None }; MAX_MADE], empty_directory: None };
    for (index, step) in steps.iter().enumerate() {
        if let Err(errno) = step.run(&mut context) {
            return fail(report, index, errno);
        }
    }
    let errno = match last {
        Last::Exec { programs, argv, env } => exec(programs, argv, env),
        Last::Init { init, argv, env } => exec_init(init, argv, env),
        Last::Call { function, close } => call(std::mem::replace(function, Box::new(|| EXIT_FAILED)), close),
    };
    fail(report, steps.len(), errno)
}

/// Tries one path after the other as execvp(3) does: a file without permission is remembered, but another may do.
fn exec(programs: &[CString], argv: &ExecStrings, env: &ExecStrings) -> Errno {
    let mut remembered = Errno::NOENT;
    for program in programs {
        match sys::execve(program, argv, env) {
            Errno::NOENT | Errno::NOTDIR if programs.len() > 1 => {}
            Errno::ACCESS => remembered = Errno::ACCESS,
            errno => return errno,
        }
    }
    remembered
}

/// Executes the init from its descriptor, with its report still open, and with all signals blocked: the first process of a
/// pid namespace would lose those that come before it waits for them.
fn exec_init(init: &Init, argv: &ExecStrings, env: &ExecStrings) -> Errno {
    let ready = rustix::io::fcntl_setfd(&init.report, FdFlags::empty()).and_then(|()| sys::block_all_signals());
    match ready {
        Ok(()) => sys::execveat(init.program.as_fd(), argv, env),
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

/// None at end-of-file: the child is past its steps (or was killed on the way, which its exit status tells).
fn read_report(reader: &OwnedFd) -> Option<(usize, Errno)> {
    let mut message = [0_u8; 8];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(reader, &mut message)).unwrap_or_default();
    let (index, number) = message.split_first_chunk::<4>()?;
    let number = i32::from_ne_bytes(number.try_into().ok()?);
    let step = usize::try_from(u32::from_ne_bytes(*index)).ok()?;
    (length == message.len()).then(|| (step, Errno::from_raw_os_error(number)))
}

/// The streams as a step; `slave` is the pty's end for [`Stdio::Terminal`].
pub(crate) fn stdio_steps<'a>(stdio: Stdio, slave: Option<OwnedFd>) -> Result<Vec<Step<'a>>, SpawnError> {
    let error = |errno| SpawnError::new("duplicate a descriptor", errno);
    match (stdio, slave) {
        (Stdio::Inherit, _) | (Stdio::Terminal { .. }, None) => Ok(Vec::new()),
        (Stdio::Files([input, output, error_output]), _) => {
            let above = |fd| sys::above_stdio(fd).map_err(error);
            Ok(vec![Step::Stdio([above(input)?, above(output)?, above(error_output)?])])
        }
        (Stdio::Terminal { .. }, Some(slave)) => {
            let copy = || rustix::io::fcntl_dupfd_cloexec(&slave, 3).map_err(error);
            Ok(vec![Step::Stdio([copy()?, copy()?, copy()?]), Step::ControllingTerminal])
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
