//! A container's standard streams: which of the caller's descriptors it gets, and what is copied instead.
//!
//! A program gets pipes of ours, or its pty, and none of the caller's descriptors. In place of /dev/null it gets another
//! descriptor of that, through which the mode of the host's device cannot be changed. A program that had the caller's could
//! overwrite the input, change the mode and owner of the output, read what is typed besides, or walk the host from a
//! directory; of a pipe even, whose other end it could open by /proc/self/fd: make it non-blocking for the caller's other
//! programs, read what they say, and speak in their place when it is long gone. What the caller's hold is copied through
//! pipes, by threads of the supervisor, so that a reader who stalls holds up no time limit.
//!
//! A reader who goes away takes the pipe with him: the program gets EPIPE as it would without us, or its terminal hangs up.

use std::{
    fs::File,
    io::{self, ErrorKind, IsTerminal, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, Weak},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use linux_exec::{
    devices::open_null,
    plan::{self, Stdio},
};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::stat::{SFlag, fstat},
    unistd::pipe2,
};

use crate::{
    lifecycle::{
        log::{Log, LogWriter, Stream},
        terminal::{self, RawMode, Screen},
    },
    output::{self, errors::Coded},
    spec::StdioSpec,
};

/// Where the streams lead.
pub(crate) enum Wiring {
    /// To ours and from ours. For `run --rm` and `exec`.
    Direct,
    /// Copied to our own streams and to the log.
    Copied { log: Log },
    /// To the log; an input stays open for who attaches. `size`: of the terminal of who waits for that already.
    Kept { log: Log, size: Option<(u16, u16)> },
    /// Nowhere. For `exec -d`.
    Nowhere,
}

/// The side that stays with us until the container has been started. All that copying needs is here already: once the
/// program has begun, nothing should fail any more.
pub(crate) struct Pending {
    attached: bool,
    interactive: bool,
    /// It is in the background, where others may attach.
    keeps_input: bool,
    log: Option<Arc<Mutex<LogWriter>>>,
    outputs: Vec<(OwnedFd, Sink)>,
    input: Option<OwnedFd>,
    screen: Option<(Option<File>, Sink)>,
    /// A pipe whose writing end is closed when the program has ended.
    ended: Option<(OwnedFd, OwnedFd)>,
}

/// Copying threads, each of which gives what it could not do, and the terminal's state.
pub(crate) struct Copying {
    outputs: Vec<JoinHandle<Option<NotCopied>>>,
    /// Closed when the program has ended.
    program: Option<OwnedFd>,
    terminal: Weak<File>,
    _raw: Option<RawMode>,
    /// Of the program's input, for who attaches.
    _input: Option<OwnedFd>,
}

/// /dev/null.
const NULL_DEVICE: (u64, u64) = (1, 3);

/// The container's side and ours.
///
/// # Errors
/// Among others, as with Docker: a terminal is asked for and the input is none.
pub(crate) fn prepare(spec: StdioSpec, wiring: Wiring) -> Result<(Stdio, Pending)> {
    let (attached, log, size) = match wiring {
        Wiring::Direct => (true, None, terminal::size()),
        Wiring::Nowhere => (false, None, None),
        Wiring::Copied { log } => (true, Some(log), terminal::size()),
        Wiring::Kept { log, size } => (false, Some(log), size),
    };
    let interactive = spec.interactive && attached;
    let keeps_input = spec.interactive && !attached && log.is_some();
    if spec.terminal && interactive && !io::stdin().is_terminal() {
        return Err(Coded::new(1, "the input device is not a TTY").into());
    }
    let log = log.map(Log::open).transpose()?.map(|log| Arc::new(Mutex::new(log)));
    let (outputs, input, screen, ended) = (Vec::new(), None, None, None);
    let mut pending = Pending { attached, interactive, keeps_input, log, outputs, input, screen, ended };
    let stdio = if spec.terminal {
        let keyboard = interactive.then(|| duplicate(io::stdin().as_fd())).transpose()?.map(File::from);
        pending.screen = Some((keyboard, pending.sink(Stream::Stdout)?));
        Stdio::Terminal { size }
    } else {
        let stdin = pending.stdin()?;
        let [stdout, stderr] = pending.outputs()?;
        Stdio::Streams([stdin, stdout, stderr])
    };
    if pending.screen.is_some() || !pending.outputs.is_empty() {
        pending.ended = Some(pipe()?);
    }
    Ok((stdio, pending))
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

/// Whether it is the null device.
fn is_null(fd: BorrowedFd<'_>) -> Result<bool> {
    let found = fstat(fd).context("cannot look at a stream")?;
    let is_device = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
    let number = (nix::sys::stat::major(found.st_rdev), nix::sys::stat::minor(found.st_rdev));
    Ok(is_device && number == NULL_DEVICE)
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
    fn stdin(&mut self) -> Result<plan::Stream> {
        if !self.keeps_input && (!self.interactive || is_null(io::stdin().as_fd())?) {
            return Ok(plan::Stream::Null);
        }
        let (reader, writer) = pipe()?;
        self.input = Some(writer);
        Ok(plan::Stream::File(reader))
    }

    /// The program's standard output and error.
    fn outputs(&mut self) -> Result<[plan::Stream; 2]> {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let goes_nowhere = match (&self.log, self.attached) {
            (Some(_), _) => [false; 2],
            (None, false) => [true; 2],
            (None, true) => [is_null(stdout.as_fd())?, is_null(stderr.as_fd())?],
        };
        if self.log.is_none() && goes_nowhere == [false; 2] && is_same_file(stdout.as_fd(), stderr.as_fd()) {
            let both = self.copied(Stream::Stdout)?;
            return Ok([duplicate(both.as_fd())?, both].map(plan::Stream::File));
        }
        Ok([self.output(goes_nowhere[0], Stream::Stdout)?, self.output(goes_nowhere[1], Stream::Stderr)?])
    }

    fn output(&mut self, goes_nowhere: bool, stream: Stream) -> Result<plan::Stream> {
        if goes_nowhere { Ok(plan::Stream::Null) } else { self.copied(stream).map(plan::Stream::File) }
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

    /// The number of our descriptor that leads to the program's input, for who attaches.
    pub(crate) fn input_fd(&self, terminal: Option<&OwnedFd>) -> Option<i32> {
        terminal.or(self.input.as_ref().filter(|_| self.keeps_input)).map(AsRawFd::as_raw_fd)
    }

    /// Begins to copy, once the container runs. `terminal` is the master of its pty, if it has one.
    pub(crate) fn copy(self, terminal: Option<OwnedFd>) -> Result<Copying> {
        let (kept, input) = if self.keeps_input { (self.input, None) } else { (None, self.input) };
        let mut copying =
            Copying { outputs: Vec::new(), program: None, terminal: Weak::new(), _raw: None, _input: kept };
        if let Some(input) = input {
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

    /// Says that the program has ended; whether all that it wrote before has been copied within this time.
    pub(crate) fn is_done_within(&self, grace: PollTimeout) -> bool {
        let Some(program) = &self.program else { return true };
        // A byte instead of its closing: when the last thread has closed the other side, that is seen on this one.
        let _ = nix::unistd::write(program, b"e");
        poll(&mut [PollFd::new(program.as_fd(), PollFlags::empty())], grace).is_ok_and(|ready| ready > 0)
    }

    /// Waits until all that the program wrote before its end has been copied; gives what could not be. What others, whom
    /// an `exec` left behind, write later is nobody's.
    pub(crate) fn finish(self) -> Vec<NotCopied> {
        drop(self.program);
        // A thread that panicked has said so on standard error.
        self.outputs.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect()
    }
}

/// Output that was not copied.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotCopied {
    /// What went wrong, as a sentence.
    pub(crate) what: String,
    /// Our caller did not get it, though he wanted to: not only the log is not whole.
    pub(crate) for_caller: bool,
}

/// Where copied output goes.
pub(crate) struct Sink {
    stream: Stream,
    to: Option<File>,
    log: Option<Arc<Mutex<LogWriter>>>,
    problem: Option<NotCopied>,
}

impl Sink {
    /// Takes what was read; false if nobody is there any more who wants it.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> bool {
        if let Some(Ok(mut log)) = self.log.as_ref().map(|log| log.lock())
            && let Err(error) = log.write(self.stream, bytes)
        {
            // A full disk must not stop the container.
            let what = format!("the log is not whole: {error}");
            self.problem.get_or_insert(NotCopied { what, for_caller: false });
        }
        match self.to.as_ref().map(|to| write_whole(to, bytes)) {
            None | Some(Ok(())) => true,
            Some(Err(error)) => {
                if error.kind() != ErrorKind::BrokenPipe {
                    let problem = format!("cannot write to {}: {error}", self.stream.title());
                    output::note(&format!("amphora: {problem}"));
                    self.problem = Some(NotCopied { what: problem, for_caller: true });
                }
                false
            }
        }
    }

    /// What it could not do.
    pub(crate) fn problem(self) -> Option<NotCopied> {
        self.problem
    }
}

/// As much as a pipe holds.
const BUFFER_BYTES: usize = 64 << 10;

/// Until the end of the output; after the end of the program, what is in the pipe at that moment. Others, whom an `exec`
/// left behind, may write for ever.
fn copy_out(from: &File, ended: BorrowedFd<'_>, mut sink: Sink) -> Option<NotCopied> {
    // Not filled with zeros: most programs write less, and each page of it costs a fault.
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut left = u64::MAX;
    while left > 0 {
        let mut fds = [PollFd::new(from.as_fd(), PollFlags::POLLIN), PollFd::new(ended, PollFlags::POLLIN)];
        let is_over = left < u64::MAX;
        let found = poll(if is_over { &mut fds[..1] } else { &mut fds }, timeout(is_over));
        match found {
            Err(Errno::EINTR) => continue,
            Err(_) | Ok(_) if fds[0].any() == Some(true) || found.is_err() => {
                buffer.clear();
                match rustix::io::read(from, rustix::buffer::spare_capacity(&mut buffer)) {
                    Ok(count @ 1..) if sink.take(&buffer) => {
                        left = if is_over { left.saturating_sub(count as u64) } else { left };
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    _ => break,
                }
            }
            _ if is_over => break,
            _ => left = rustix::io::ioctl_fionread(from).unwrap_or(0),
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
            Err(Errno::EAGAIN) => {
                wait_until(own.as_fd(), PollFlags::POLLIN);
                continue;
            }
            Err(errno) => return output::note(&format!("amphora: cannot read standard input: {errno}")),
        };
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// Writes all, also to what one of our caller's other programs has made non-blocking.
fn write_whole(mut to: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait_until(to.as_fd(), PollFlags::POLLOUT),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits until a descriptor is ready. What goes wrong shows when it is used.
fn wait_until(fd: BorrowedFd<'_>, ready: PollFlags) {
    let _ = poll(&mut [PollFd::new(fd, ready)], PollTimeout::NONE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_null_device_needs_no_copy() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let open = |path: &std::path::Path| File::options().read(true).write(true).open(path).unwrap();
        let (reader, writer) = pipe().unwrap();
        // The network of the host was seen through a socket, and changed with CAP_NET_ADMIN.
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        for file in [
            tempfile::tempfile().unwrap(),
            File::open(dir.path()).unwrap(),
            open(&fifo),
            File::open("/dev/zero").unwrap(),
            File::from(nix::pty::openpty(None, None).unwrap().slave),
            File::from(OwnedFd::from(socket)),
            // Of a pipe its other end can be opened, and its flags are shared.
            File::from(reader),
            File::from(writer),
        ] {
            assert!(!is_null(file.as_fd()).unwrap(), "{file:?}");
        }
        for null in [File::from(nowhere().unwrap()), File::open("/dev/null").unwrap()] {
            assert!(is_null(null.as_fd()).unwrap());
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

    /// An `exec` whose program had left another one behind that writes without end never ended.
    #[test]
    fn who_writes_on_after_the_end_holds_nobody_up() {
        let (from, writer) = pipe().map(|(from, to)| (File::from(from), File::from(to))).unwrap();
        let (result, to) = pipe().unwrap();
        let (ended, program) = pipe().unwrap();
        let endless = thread::spawn(move || while (&writer).write_all(&[7; 4096]).is_ok() {});
        let drain = thread::spawn(move || io::copy(&mut File::from(result), &mut io::sink()).unwrap());
        drop(program);
        assert_eq!(copy_out(&from, ended.as_fd(), sink(to)), None);
        drop(from);
        endless.join().unwrap();
        drain.join().unwrap();
    }

    #[test]
    fn what_somebody_made_non_blocking_is_written_whole() {
        let (result, to) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        let writer = thread::spawn(move || write_whole(&File::from(to), &[7; 1 << 20]).unwrap());
        let mut got = 0;
        let mut buffer = [0; 4096];
        while !(writer.is_finished() && got == 1 << 20) {
            match nix::unistd::read(&result, &mut buffer) {
                Ok(count) => got += count,
                Err(_) => wait_until(result.as_fd(), PollFlags::POLLIN),
            }
        }
        writer.join().unwrap();
    }

    fn copied_to(to: OwnedFd) -> Option<NotCopied> {
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
        let told = told.unwrap();
        assert!(
            told.for_caller && told.what.contains("standard output") && told.what.contains("No space left"),
            "{told:?}"
        );
    }
}
