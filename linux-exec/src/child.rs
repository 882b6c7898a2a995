//! The clone, the child's walk through its steps, and what its report means.
use crate::{
    error::Error,
    launcher::{Becomes, Launcher},
    plan::{Call, Patience, Stdio, Stream},
    process::Process,
    reap::{self, Reaped},
    report::{self, Expected, Report},
    steps::{Context, Step},
    sys::{self, Birth, Memory, SignalsBlocked, Stack},
    users::User,
};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::{Gid, Mode, Uid},
    io::{Errno, FdFlags},
};
use std::{
    ffi::{CString, c_int},
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// A container's first process, or one that joined it.
#[derive(Debug)]
pub struct Child {
    /// Identity in the caller's pid namespace.
    pub process: Process,
    /// Readable when it has ended; the caller reaps it ([`reap`]).
    pub pidfd: OwnedFd,
    /// The pty's master, for [`crate::plan::Stdio::Terminal`].
    pub terminal: Option<OwnedFd>,
    /// For [`crate::plan::Begin::WhenTold`].
    pub held: Option<Held>,
}

/// Waits until a child has ended, and reaps it: within two seconds of its end, come what may (see [`Reaped::withheld`]).
pub fn reap(child: &Child) -> io::Result<Reaped> {
    reap::reap(child.process.pid, child.pidfd.as_fd())
}

/// What comes after the steps.
pub(crate) enum Last {
    /// The launcher, which executes the program.
    Program(Launcher),
    /// What `Step::PrepareCall` comes to.
    Call(Option<Box<dyn FnOnce() -> Call>>),
}

/// Everything about one child.
pub(crate) struct Launch<'a> {
    pub(crate) birth: Birth<'a>,
    /// How many of the steps are taken by a process between, of which the child is a sibling: what it is born into belongs to the
    /// user namespace that its maker is in.
    pub(crate) between: usize,
    pub(crate) steps: Vec<Step<'a>>,
    pub(crate) last: Last,
    /// The master of the child's pty.
    pub(crate) terminal: Option<OwnedFd>,
    /// The pid namespace that is joined, by its inode number.
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
        let expected = Expected { joined: self.joined, successor: self.between > 0 };
        let report = Report::read(&reader, &cloned, expected, self.patience);
        if report.failure.is_some() || report.given_up.is_some() {
            for other in [&report.successor, &report.sibling].into_iter().flatten() {
                // He has exited, or somebody in the container says so.
                reap::put_down(other.process.pid, other.pidfd.as_fd());
            }
            // It has exited or is about to, or is not to go on.
            reap::put_down(cloned.pid, cloned.pidfd.as_fd());
        }
        match (report.failure, report.given_up) {
            (Some((step, errno)), _) => return Err(self.explain(step, errno)),
            (None, Some(given_up)) => return Err(given_up.explain(self.joined.is_some())),
            (None, None) => {}
        }
        let held = match self.last {
            Last::Program(launcher) if report.held => {
                Some(Held { report: reader, first: self.steps.len(), programs: launcher.programs })
            }
            Last::Program(_) | Last::Call(_) => None,
        };
        let (process, pidfd) = last_of(cloned, report, expected)?;
        Ok(Child { process, pidfd, terminal: self.terminal, held })
    }

    fn clone(&mut self, reader: &OwnedFd, writer: &OwnedFd) -> Result<sys::Cloned, Error> {
        let shares_memory = matches!(self.last, Last::Program(_));
        let stack = || {
            let stack = shares_memory.then(Stack::new).transpose();
            stack.map_err(|errno| Error::new("map a stack", errno))
        };
        let (mut own, mut between) = (stack()?, if self.between > 0 { stack()? } else { None });
        let _signals = SignalsBlocked::new().map_err(|errno| Error::new("block signals", errno))?;
        let (first, steps, last) = (self.between, &self.steps, &mut self.last);
        let (reader, writer) = (reader.as_fd(), writer.as_fd());
        let mut child = || run(steps, first, last, reader, writer);
        if first == 0 {
            return sys::clone(self.birth, memory(&mut own), &mut child).map_err(clone_error);
        }
        let birth = Birth { as_sibling: true, ..self.birth };
        let mut stand_between = || {
            if let Err((step, errno)) = walk(&steps[..first], 0, &mut Context::new(writer)) {
                return fail(writer, step, errno);
            }
            match sys::clone(birth, memory(&mut own), &mut child) {
                Ok(cloned) => tell(writer, report::SUCCESSOR, cloned.pid),
                Err(errno) => return fail(writer, steps.len() + CLONE, errno),
            }
            0
        };
        sys::clone(Birth::default(), memory(&mut between), &mut stand_between).map_err(clone_error)
    }

    fn explain(&self, step: usize, errno: Errno) -> Error {
        if let Some(step) = self.steps.get(step) {
            return Error::new(step.describe(), errno).hint(step.hint(errno).unwrap_or_default());
        }
        match (&self.last, step - self.steps.len()) {
            (_, CLONE) => clone_error(errno),
            (Last::Program(launcher), after) => explain_launcher(after, &launcher.programs, errno),
            (Last::Call(_), _) => Error::new("call the program", errno),
        }
    }
}

/// The numbers, after those of the steps, by which failure is told.
const EXEC: usize = 0;
const PROCESS: usize = 1;
const LAUNCHER: usize = 2;
const CLONE: usize = 3;

/// A program that has not begun; its process waits ([`crate::plan::Begin::WhenTold`]).
#[derive(Debug)]
pub struct Held {
    report: OwnedFd,
    /// The number of the launcher's first failure.
    first: usize,
    programs: Vec<CString>,
}

impl Held {
    /// Waits until the program has begun, once it was told to, or says why it has not. The process has ended then.
    pub fn wait(self, pidfd: BorrowedFd<'_>, patience: Patience) -> Result<(), Error> {
        let report = Report::of_held(&self.report, pidfd, patience);
        match (report.failure, report.given_up) {
            (Some((step, errno)), _) => Err(explain_launcher(step.saturating_sub(self.first), &self.programs, errno)),
            (None, Some(given_up)) => Err(given_up.explain(false)),
            (None, None) => Ok(()),
        }
    }
}

fn memory(stack: &mut Option<Stack>) -> Memory<'_> {
    stack.as_mut().map_or(Memory::Copied, Memory::Shared)
}

/// The process that is or becomes the program; those before it are reaped.
fn last_of(cloned: sys::Cloned, report: Report, expected: Expected) -> Result<(Process, OwnedFd), Error> {
    let own = |cloned: sys::Cloned| {
        let process = Process::of(cloned.pid);
        let process = process.map_err(|error| Error::new("identify the container's process", error))?;
        Ok((process, cloned.pidfd))
    };
    let missing = |what: &str| Error::new(what, Errno::SRCH);
    let mut made = Some(cloned);
    if expected.successor {
        let successor = report.successor.ok_or_else(|| missing("find the container's first process"))?;
        let between = made.replace(sys::Cloned { pid: successor.process.pid, pidfd: successor.pidfd });
        between.iter().for_each(|between| reap::finish(between.pid, between.pidfd.as_fd()));
    }
    let made = made.ok_or_else(|| missing("find the container's first process"))?;
    if expected.joined.is_none() {
        return own(made);
    }
    reap::finish(made.pid, made.pidfd.as_fd());
    let sibling = report.sibling.ok_or_else(|| {
        missing("join the container").hint("it has ended, or its processes took the report of who joined")
    })?;
    Ok((sibling.process, sibling.pidfd))
}

fn explain_launcher(after: usize, programs: &[CString], errno: Errno) -> Error {
    match after {
        EXEC => explain_exec(programs, errno),
        PROCESS => Error::new("start the program's process", errno)
            .hint(match errno {
                Errno::AGAIN => "the limit on processes, of its cgroup or of its user, is reached",
                Errno::NOMEM => "the container has ended meanwhile, or memory is used up",
                _ => "",
            })
            .exit_code_of_exec(errno),
        _ => Error::new("execute the launcher from memory", errno).hint(match errno {
            Errno::ACCESS => "the sysctl vm.memfd_noexec must not be 2",
            Errno::TOOBIG => TOO_LONG,
            _ => "",
        }),
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

/// The child, from the step `first` on. Allocates nothing, takes no lock and does not panic, unless it is a copy with a
/// function to call.
fn run(steps: &[Step<'_>], first: usize, last: &mut Last, reader: BorrowedFd<'_>, report: BorrowedFd<'_>) -> u8 {
    // The parent's end, so that its death is seen at the other one.
    let end = reader.as_raw_fd().cast_unsigned();
    let _ = sys::close_range(end, end);
    // Modes in steps are meant as they are written.
    rustix::process::umask(Mode::empty());
    let mut context = Context::new(report);
    if let Last::Call(prepare) = last {
        context.prepare = prepare.take();
    }
    if let Err((step, errno)) = walk(steps.get(first..).unwrap_or_default(), first, &mut context) {
        return fail(report, step, errno);
    }
    match last {
        Last::Program(launcher) => fail(report, steps.len() + LAUNCHER, launch(launcher, report)),
        Last::Call(_) => fail(report, steps.len(), context.call.map_or(Errno::INVAL, call)),
    }
}

/// Takes steps, of which the first has this number.
fn walk<'a>(steps: &'a [Step<'a>], first: usize, context: &mut Context<'a>) -> std::result::Result<(), (usize, Errno)> {
    for (index, step) in steps.iter().enumerate() {
        step.run(context).map_err(|errno| (first + index, errno))?;
    }
    Ok(())
}

/// Executes the launcher from its descriptor, with what it reports to still open, and an init with all signals blocked: the
/// first process of a pid namespace would lose those that come before it waits for them.
fn launch(launcher: &Launcher, report: BorrowedFd<'_>) -> Errno {
    let keep = |fd: BorrowedFd<'_>| rustix::io::fcntl_setfd(fd, FdFlags::empty());
    let held = launcher.held.as_ref().map_or(Ok(()), |held| keep(held.as_fd()));
    let ready = held.and_then(|()| keep(report)).and_then(|()| match &launcher.becomes {
        Becomes::Exec | Becomes::Join { .. } => Ok(()),
        Becomes::Init { report } => keep(report.as_fd()).and_then(|()| sys::block_all_signals()),
    });
    match ready {
        Ok(()) => sys::execveat(launcher.file.as_fd(), &launcher.words, &launcher.env),
        Err(errno) => errno,
    }
}

/// Calls the function in this process, a copy with one thread; comes back only if it could not be called.
fn call(Call { function, keep }: Call) -> Errno {
    if let Err(errno) = sys::exit_on_signals(&ENDING_SIGNALS) {
        return errno;
    }
    for (first, last) in ranges_without(&keep) {
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
    tell(report, i32::try_from(step).unwrap_or(i32::MAX), errno.raw_os_error());
    EXIT_FAILED
}

fn tell(report: BorrowedFd<'_>, first: i32, second: i32) {
    let mut message = [0_u8; 8];
    let (one, other) = message.split_at_mut(4);
    one.copy_from_slice(&first.to_ne_bytes());
    other.copy_from_slice(&second.to_ne_bytes());
    let _ = rustix::io::write(report, &message);
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
        (Stdio::Streams([input, output, error_output]), _) => {
            let above = |stream| match stream {
                Stream::Null => Ok(None),
                Stream::File(fd) => sys::above_stdio(fd).map(Some).map_err(error),
            };
            let streams = Step::Stdio([above(input)?, above(output)?, above(error_output)?]);
            let given = Step::GiveStreams(Uid::from_raw(user.uid), Gid::from_raw(user.gid));
            Ok([streams].into_iter().chain((user.uid != 0).then_some(given)).collect())
        }
        (Stdio::Terminal { .. }, Some(slave)) => {
            let copy = || rustix::io::fcntl_dupfd_cloexec(&slave, 3).map(Some).map_err(error);
            let streams = Step::Stdio([copy()?, copy()?, copy()?]);
            Ok([streams].into_iter().chain(controlling.then_some(Step::ControllingTerminal)).collect())
        }
    }
}

/// The ranges above standard error that are left when `keep` is taken out.
fn ranges_without(keep: &[i32]) -> Vec<(u32, u32)> {
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
