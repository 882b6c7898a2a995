//! A container's standard streams: which of the caller's descriptors it gets, and what is copied instead.
//!
//! A program gets pipes, or its pty. A descriptor of the caller is handed on only if nothing of the host can be reached
//! through it: an unnamed pipe. In place of /dev/null it gets another descriptor of that, through which the mode of
//! the host's device cannot be changed. Files, directories, terminals, named pipes and other devices stay
//! with us: a program that had them could overwrite the input, change the mode and owner of the output, read what is typed
//! besides, or walk the host from a directory. What they hold is copied through pipes, by threads of the supervisor, so that
//! a reader who stalls holds up no time limit.
//!
//! A reader who goes away takes the pipe with him: the program gets EPIPE as it would without us, or its terminal hangs up.

use std::{
    fs::File,
    io::{self, ErrorKind, IsTerminal, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use linux_exec::{devices::open_null, plan::Stdio};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        stat::{SFlag, fstat},
        statfs::{FsType, fstatfs},
    },
    unistd::pipe2,
};

use crate::{
    lifecycle::{
        log::{LogWriter, Stream},
        terminal::{self, RawMode, Screen},
    },
    output::{self, errors::Coded},
    spec::StdioSpec,
};

/// Where the streams lead.
pub(crate) enum Wiring {
    /// To ours and from ours, with no copy where there may be none. For `run --rm` and `exec`.
    Direct,
    /// Copied to our own streams (when `attached`) and to the log (when there is one).
    Copied { attached: bool, log: Option<PathBuf> },
    /// Nowhere. For `exec -d`.
    Nowhere,
}

/// The side that stays with us until the container has been started. All that copying needs is here already: once the
/// program has begun, nothing should fail any more.
pub(crate) struct Pending {
    attached: bool,
    interactive: bool,
    log: Option<Arc<Mutex<LogWriter>>>,
    outputs: Vec<(OwnedFd, Sink)>,
    input: Option<OwnedFd>,
    screen: Option<(Option<File>, Sink)>,
    null: Option<OwnedFd>,
    /// A pipe whose writing end is closed when the program has ended.
    ended: Option<(OwnedFd, OwnedFd)>,
}

/// Copying threads, each of which gives what it could not do, and the terminal's state.
pub(crate) struct Copying {
    outputs: Vec<JoinHandle<Option<String>>>,
    /// Closed when the program has ended.
    program: Option<OwnedFd>,
    terminal: Weak<File>,
    _raw: Option<RawMode>,
}

/// f_type of unnamed pipes (linux/magic.h). Not of sockets: every one belongs to a network namespace, whose devices its ioctls show
/// and change.
const UNNAMED: FsType = FsType(0x5049_5045);
/// /dev/null.
const NULL_DEVICE: (u64, u64) = (1, 3);

/// The container's side and ours. `root`: the program begins as root.
///
/// # Errors
/// Among others, as with Docker: a terminal is asked for and the input is none.
pub(crate) fn prepare(spec: StdioSpec, wiring: Wiring, root: bool) -> Result<(Stdio, Pending)> {
    let (attached, log) = match wiring {
        Wiring::Direct => (true, None),
        Wiring::Nowhere => (false, None),
        Wiring::Copied { attached, log } => (attached, log),
    };
    let interactive = spec.interactive && attached;
    if spec.terminal && interactive && !io::stdin().is_terminal() {
        return Err(Coded::new(1, "the input device is not a TTY").into());
    }
    let log = log.map(|path| LogWriter::open(path.clone()).with_context(|| format!("cannot open {}", path.display())));
    let log = log.transpose()?.map(|log| Arc::new(Mutex::new(log)));
    let (outputs, input, screen, null, ended) = (Vec::new(), None, None, None, None);
    let mut pending = Pending { attached, interactive, log, outputs, input, screen, null, ended };
    let stdio = if spec.terminal {
        let keyboard = interactive.then(|| duplicate(io::stdin().as_fd())).transpose()?.map(File::from);
        pending.screen = Some((keyboard, pending.sink(Stream::Stdout)?));
        Stdio::Terminal { size: attached.then(terminal::size).flatten() }
    } else {
        let stdin = pending.stdin(root)?;
        let [stdout, stderr] = pending.outputs(root)?;
        Stdio::Files([stdin, stdout, stderr])
    };
    if pending.screen.is_some() || !pending.outputs.is_empty() {
        pending.ended = Some(pipe()?);
    }
    Ok((stdio, pending))
}

/// Whether a `--user` is root, by one of its usual names.
pub(crate) fn is_root(user: &str) -> bool {
    matches!(user.split(':').next().unwrap_or_default(), "" | "0" | "root")
}

/// Nothing to read, and nobody who listens.
pub(crate) fn nowhere() -> Result<OwnedFd> {
    open_null().context("cannot open /dev/null")
}

/// Makes the streams of a process that stays in the background lead nowhere.
pub(crate) fn detach(null: &OwnedFd) {
    // These replace descriptors that are there, so no limit is in the way.
    let _ = nix::unistd::dup2_stdin(null);
    let _ = nix::unistd::dup2_stdout(null);
    let _ = nix::unistd::dup2_stderr(null);
}

/// What a descriptor of ours is to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    /// Nothing of the host is reached through it.
    Harmless,
    /// The null device.
    Null,
    /// Everything else.
    Hosts,
}

fn look_at(fd: BorrowedFd<'_>, root: bool) -> Result<Own> {
    let file_system = fstatfs(fd).context("cannot look at a stream")?.filesystem_type();
    if file_system == UNNAMED {
        // Another user could not open it by the name /dev/stdout, as many images do: it is ours, not his.
        return Ok(if root { Own::Harmless } else { Own::Hosts });
    }
    let found = fstat(fd).context("cannot look at a stream")?;
    let is_device = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
    let number = (nix::sys::stat::major(found.st_rdev), nix::sys::stat::minor(found.st_rdev));
    Ok(if is_device && number == NULL_DEVICE { Own::Null } else { Own::Hosts })
}

/// Whether both lead to the same file, so that the order of what is written can be kept.
fn is_same_file(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let identity = |fd| fstat(fd).ok().map(|found| (found.st_dev, found.st_ino));
    identity(one).is_some_and(|file| identity(other) == Some(file))
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    fd.try_clone_to_owned().context("cannot duplicate a stream")
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")
}

impl Pending {
    /// The program's standard input.
    fn stdin(&mut self, root: bool) -> Result<OwnedFd> {
        let own = io::stdin();
        match if self.interactive { look_at(own.as_fd(), root)? } else { Own::Null } {
            Own::Harmless => duplicate(own.as_fd()),
            Own::Null => self.nowhere(),
            Own::Hosts => {
                let (reader, writer) = pipe()?;
                self.input = Some(writer);
                Ok(reader)
            }
        }
    }

    /// The program's standard output and error.
    fn outputs(&mut self, root: bool) -> Result<[OwnedFd; 2]> {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let own = match (&self.log, self.attached) {
            (Some(_), _) => [Own::Hosts; 2],
            (None, false) => [Own::Null; 2],
            (None, true) => [look_at(stdout.as_fd(), root)?, look_at(stderr.as_fd(), root)?],
        };
        if self.log.is_none() && own == [Own::Hosts; 2] && is_same_file(stdout.as_fd(), stderr.as_fd()) {
            let both = self.copied(Stream::Stdout)?;
            return Ok([duplicate(both.as_fd())?, both]);
        }
        Ok([self.output(own[0], stdout.as_fd(), Stream::Stdout)?, self.output(own[1], stderr.as_fd(), Stream::Stderr)?])
    }

    fn output(&mut self, own: Own, fd: BorrowedFd<'_>, stream: Stream) -> Result<OwnedFd> {
        match own {
            Own::Harmless => duplicate(fd),
            Own::Null => self.nowhere(),
            Own::Hosts => self.copied(stream),
        }
    }

    /// One descriptor of the null device does for all streams.
    fn nowhere(&mut self) -> Result<OwnedFd> {
        let null = match self.null.take() {
            Some(null) => null,
            None => nowhere()?,
        };
        duplicate(self.null.insert(null).as_fd())
    }

    fn copied(&mut self, stream: Stream) -> Result<OwnedFd> {
        let (reader, writer) = pipe()?;
        self.outputs.push((reader, self.sink(stream)?));
        Ok(writer)
    }

    /// Where the copies of a stream go.
    fn sink(&self, stream: Stream) -> Result<Sink> {
        let own = match stream {
            Stream::Stdout => self.attached.then(|| duplicate(io::stdout().as_fd())),
            Stream::Stderr => self.attached.then(|| duplicate(io::stderr().as_fd())),
        };
        Ok(Sink { stream, to: own.transpose()?.map(File::from), log: self.log.clone(), problem: None })
    }

    /// Begins to copy, once the container runs. `terminal` is the master of its pty, if it has one.
    pub(crate) fn copy(self, terminal: Option<OwnedFd>) -> Result<Copying> {
        let mut copying = Copying { outputs: Vec::new(), program: None, terminal: Weak::new(), _raw: None };
        if let Some(input) = self.input {
            // Not waited for: it may wait for a key that is never pressed.
            start("input", move || copy_in(&File::from(input)))?;
        }
        let Some((ended, program)) = self.ended else { return Ok(copying) };
        let ended = Arc::new(ended);
        copying.program = Some(program);
        for (pipe, sink) in self.outputs {
            let ended = Arc::clone(&ended);
            copying.outputs.push(start("output", move || copy_out(&File::from(pipe), ended.as_fd(), sink))?);
        }
        if let (Some(master), Some((keyboard, sink))) = (terminal, self.screen) {
            copying._raw = self.interactive.then(RawMode::enter).flatten();
            let screen = Screen::new(master.into(), keyboard)?;
            copying.terminal = screen.master();
            copying.outputs.push(start("terminal", move || screen.show(ended.as_fd(), sink))?);
        }
        Ok(copying)
    }
}

fn start<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.with_context(|| format!("cannot start a thread for the container's {name}"))
}

impl Copying {
    /// Gives the container's terminal the size of ours.
    pub(crate) fn resize(&self) {
        if let (Some(master), Some(size)) = (self.terminal.upgrade(), terminal::size()) {
            terminal::set_size(&master, size);
        }
    }

    /// Waits until all that the program wrote before its end has been copied; gives what could not be. What others, whom
    /// an `exec` left behind, write later is nobody's.
    pub(crate) fn finish(self) -> Vec<String> {
        drop(self.program);
        // A thread that panicked has said so on standard error.
        self.outputs.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect()
    }
}

/// Where copied output goes.
pub(crate) struct Sink {
    stream: Stream,
    to: Option<File>,
    log: Option<Arc<Mutex<LogWriter>>>,
    problem: Option<String>,
}

impl Sink {
    /// Takes what was read; false if nobody is there any more who wants it.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> bool {
        if let Some(Ok(mut log)) = self.log.as_ref().map(|log| log.lock())
            && let Err(error) = log.write(self.stream, bytes)
        {
            // A full disk must not stop the container.
            self.problem.get_or_insert_with(|| format!("the log is not whole: {error}"));
        }
        match self.to.as_mut().map(|to| to.write_all(bytes)) {
            None | Some(Ok(())) => true,
            Some(Err(error)) => {
                if error.kind() != ErrorKind::BrokenPipe {
                    let problem = format!("cannot write to {}: {error}", self.stream.title());
                    output::note(&format!("amphora: {problem}"));
                    self.problem.get_or_insert(problem);
                }
                false
            }
        }
    }

    /// What it could not do.
    pub(crate) fn problem(self) -> Option<String> {
        self.problem
    }
}

/// Until the end of the output; after the end of the program, until there is nothing more to read.
fn copy_out(mut from: &File, ended: BorrowedFd<'_>, mut sink: Sink) -> Option<String> {
    let mut buffer = vec![0; 64 << 10];
    let mut is_over = false;
    loop {
        let mut fds = [PollFd::new(from.as_fd(), PollFlags::POLLIN), PollFd::new(ended, PollFlags::POLLIN)];
        // Of what is over only what is there already is wanted.
        let found = poll(if is_over { &mut fds[..1] } else { &mut fds }, timeout(is_over));
        match found {
            Err(Errno::EINTR) => continue,
            Err(_) | Ok(_) if fds[0].any() == Some(true) || found.is_err() => match from.read(&mut buffer) {
                Ok(count @ 1..) if sink.take(&buffer[..count]) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => break,
            },
            _ if is_over => break,
            _ => is_over = true,
        }
    }
    sink.problem()
}

/// How long to wait for more.
pub(crate) fn timeout(is_over: bool) -> PollTimeout {
    if is_over { PollTimeout::ZERO } else { PollTimeout::NONE }
}

/// Until our input ends or the program reads no more.
fn copy_in(mut to: &File) {
    let own = io::stdin();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match nix::unistd::read(&own, &mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(errno) => return output::note(&format!("amphora: cannot read standard input: {errno}")),
        };
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(file: &File, root: bool) -> Own {
        look_at(file.as_fd(), root).unwrap()
    }

    #[test]
    fn nothing_of_the_hosts_is_handed_to_a_program() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let open = |path: &std::path::Path| File::options().read(true).write(true).open(path).unwrap();
        for file in [
            tempfile::tempfile().unwrap(),
            File::open(dir.path()).unwrap(),
            open(&fifo),
            File::open("/dev/zero").unwrap(),
            File::from(nix::pty::openpty(None, None).unwrap().slave),
        ] {
            assert_eq!((own(&file, true), own(&file, false)), (Own::Hosts, Own::Hosts), "{file:?}");
        }
    }

    #[test]
    fn pipes_and_the_null_device_are_handed_on() {
        let (reader, writer) = pipe().unwrap();
        // The network of the host was seen through a socket, and changed with CAP_NET_ADMIN.
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(own(&File::from(OwnedFd::from(socket)), true), Own::Hosts);
        for file in [File::from(reader), File::from(writer)] {
            // By the name /dev/stdout only its owner can open it.
            assert_eq!((own(&file, true), own(&file, false)), (Own::Harmless, Own::Hosts), "{file:?}");
        }
        for null in [File::from(nowhere().unwrap()), File::open("/dev/null").unwrap()] {
            assert_eq!((own(&null, true), own(&null, false)), (Own::Null, Own::Null));
        }
    }

    #[test]
    fn the_hosts_null_device_is_not_changed_through_what_a_program_gets() {
        let null = nowhere().unwrap();
        let (mode, times) = (nix::sys::stat::Mode::from_bits_truncate(0o666), nix::sys::time::TimeSpec::new(0, 0));
        assert!(nix::sys::stat::fchmod(&null, mode).is_err());
        assert!(nix::sys::stat::futimens(&null, &times, &times).is_err());
        assert!(nix::unistd::fchown(&null, Some(nix::unistd::Uid::from_raw(0)), None).is_err());
        File::from(null).write_all(b"x").unwrap();
    }

    #[test]
    fn users_that_are_root_are_known_by_their_names() {
        for user in ["", "0", "root", "0:0", "root:wheel"] {
            assert!(is_root(user), "{user}");
        }
        for user in ["web", "1000:0", "00x"] {
            assert!(!is_root(user), "{user}");
        }
    }

    fn sink(to: OwnedFd) -> Sink {
        Sink { stream: Stream::Stdout, to: Some(to.into()), log: None, problem: None }
    }

    #[test]
    fn what_is_still_in_a_pipe_after_the_end_is_copied_though_another_writer_is_left() {
        let (from, mut writer) = pipe().map(|(from, to)| (File::from(from), File::from(to))).unwrap();
        let (result, to) = pipe().unwrap();
        let (ended, program) = pipe().unwrap();
        writer.write_all(b"last words").unwrap();
        drop(program);
        assert_eq!(copy_out(&from, ended.as_fd(), sink(to)), None);
        assert_eq!(io::read_to_string(File::from(result)).unwrap(), "last words");
        drop(writer);
    }

    fn copied_to(to: OwnedFd) -> Option<String> {
        let (from, mut writer) = pipe().map(|(from, to)| (File::from(from), File::from(to))).unwrap();
        let (ended, _program) = pipe().unwrap();
        writer.write_all(b"x").unwrap();
        copy_out(&from, ended.as_fd(), sink(to))
    }

    #[test]
    fn a_reader_who_goes_ends_the_copying_and_a_full_disk_is_told() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        assert_eq!(copied_to(writer), None);
        let told = copied_to(File::options().write(true).open("/dev/full").unwrap().into());
        assert!(told.is_some_and(|told| told.contains("standard output") && told.contains("No space left")));
    }
}
