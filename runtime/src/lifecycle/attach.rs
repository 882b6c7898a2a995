//! A container's streams, in front of a user who did not start it, or who may leave it.
//!
//! Its supervisor needs to do nothing for that. What the program writes is read from the log, as it grows; what is typed is written to
//! the supervisor's own end of the program's input, of which this process takes a copy (pidfd_getfd(2)). So who attaches and does
//! not read holds up nobody.

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
};
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl, inotify},
    process::{PidfdGetfdFlags, pidfd_getfd},
};

use super::{
    log::{LogReader, Stream, parse},
    start::start_detached,
    stop,
    supervise::Signals,
    terminal::{self, RawMode},
};
use crate::{
    output::{self, errors::Coded},
    records::{
        container::{Container, Lock, RunFound, Running, Status},
        host::Host,
    },
    spec::{detach_keys::DetachKeys, exit_code},
};

/// How a user is attached.
#[derive(Debug, Clone)]
pub(crate) struct Attachment {
    /// What he types goes to the program, where that has an input.
    pub(crate) input: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) keys: DetachKeys,
    /// Signals that he sends us go to the program, where it has no terminal.
    pub(crate) passes_signals: bool,
}

/// Shows a container that runs until it ends, or until its user leaves it: then 0. Its exit code.
pub(crate) fn attach(container: &Container, how: Attachment) -> Result<u8> {
    let name = &container.spec.name;
    let refuse = |what: &str| Err(Coded::new(1, format!("cannot attach to container {name}: it {what}")).into());
    match container.status()? {
        Status::Running(running) if running.paused => return refuse("is paused; unpause it first"),
        Status::Running(_) => {}
        Status::OutOfReach => return Err(container.out_of_reach()),
        Status::Restarting(..) => return refuse("is about to be started again; wait until it runs"),
        Status::Created | Status::Stopped(_) => return refuse("does not run; start it first"),
    }
    let log = LogReader::open_at_end(container.log_path()).context("cannot open the log")?;
    if !log.is_there() {
        return refuse("was started with `run --rm` in the foreground, and only there its output is shown");
    }
    let Some(run) = container.going_on()? else { return refuse("has ended just now") };
    Front::new(container, run, log, how)?.show()
}

/// Starts a container in the background and attaches to it at once, so that its user can leave it.
pub(crate) fn start_in_front(host: &Host, container: &Container, lock: Lock, how: Attachment) -> Result<u8> {
    let spec = &container.spec;
    if spec.stdio.terminal && how.input && !io::IsTerminal::is_terminal(&io::stdin()) {
        return Err(Coded::new(1, "the input device is not a TTY").into());
    }
    container.writable()?;
    let mut log = LogReader::open_at_end(container.log_path()).context("cannot open the log")?;
    start_detached(host, container, &lock, terminal::size())?;
    // As long as we have the lock, nothing of it is removed.
    log.reopen_if_new().context("cannot open the log")?;
    let run = container.run()?;
    drop(lock);
    match run {
        Some(run) => Front::new(container, run, log, how)?.show(),
        None => {
            show(&mut log, &how)?;
            Ok(stop::wait(container)?.map_or(exit_code::OURS, |ended| ended.exit_code))
        }
    }
}

/// What is between a user and a container.
struct Front<'a> {
    container: &'a Container,
    run: RunFound,
    log: LogReader,
    grows: OwnedFd,
    how: Attachment,
    /// The supervisor's end of the program's input.
    input: Option<File>,
    /// Typed, and not yet taken.
    typed: Vec<u8>,
    signals: Option<Signals>,
    _raw: Option<RawMode>,
}

/// What became of it.
enum Event {
    /// The program has ended.
    Ended,
    /// The user has left.
    Left,
    /// A signal that ends who is in front of a terminal.
    Signal(i32),
}

impl<'a> Front<'a> {
    fn new(container: &'a Container, run: RunFound, log: LogReader, how: Attachment) -> Result<Self> {
        let spec = &container.spec;
        let grows = watch(container.log_path().parent().context("a log lies in a folder")?)?;
        let needs_input = spec.stdio.terminal || (how.input && spec.stdio.interactive);
        let input = needs_input.then(|| take_input(&run.running)).transpose()?.flatten();
        let takes_input = how.input && spec.stdio.interactive && input.is_some();
        let has_terminal = spec.stdio.terminal;
        let signals = (has_terminal || how.passes_signals).then(Signals::block).transpose()?;
        let raw = (has_terminal && takes_input).then(RawMode::enter).flatten();
        let how = Attachment { input: takes_input, ..how };
        Ok(Self { container, run, log, grows, how, input, typed: Vec::new(), signals, _raw: raw })
    }

    fn show(mut self) -> Result<u8> {
        self.redraw();
        match self.until_event()? {
            Event::Left => {
                drop(self);
                output::note("\nread escape sequence");
                Ok(0)
            }
            Event::Signal(signal) => Ok(exit_code::of_signal(u8::try_from(signal).unwrap_or(0))),
            Event::Ended => {
                // All that it wrote is in the log when its supervisor has nothing more to do.
                stop::settle(self.container, &self.run, None)?;
                show(&mut self.log, &self.how)?;
                Ok(self.container.end_of(&self.run)?.exit_code)
            }
        }
    }

    fn until_event(&mut self) -> Result<Event> {
        let process = match self.run.running.process().pidfd() {
            Ok(process) => process,
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => return Ok(Event::Ended),
            Err(error) => return Err(error).context("cannot watch the container's process"),
        };
        loop {
            show(&mut self.log, &self.how)?;
            let ready = self.wait(process.as_fd())?;
            if ready.signals
                && let Some(signal) = self.take_signals()
            {
                return Ok(Event::Signal(signal));
            }
            if ready.grows {
                // Only that something came: what it is, is read from the log.
                let _ = rustix::io::read(&self.grows, &mut [0; 4096]);
            }
            if ready.keyboard && self.read_keyboard()? {
                return Ok(Event::Left);
            }
            if ready.takes {
                self.pass_on_typed();
            }
            if ready.ended {
                return Ok(Event::Ended);
            }
        }
    }

    fn wait(&self, process: BorrowedFd<'_>) -> Result<Ready> {
        let stdin = io::stdin();
        let nothing = PollFlags::empty();
        let keyboard = if self.how.input && self.typed.is_empty() { PollFlags::POLLIN } else { nothing };
        let takes = if self.typed.is_empty() { nothing } else { PollFlags::POLLOUT };
        let mut fds = vec![PollFd::new(process, PollFlags::POLLIN), PollFd::new(self.grows.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.signals.iter().map(|signals| PollFd::new(signals.as_fd(), PollFlags::POLLIN)));
        let first = fds.len();
        // What is not waited for would be told of when it is closed, again and again.
        fds.extend((!keyboard.is_empty()).then(|| PollFd::new(stdin.as_fd(), keyboard)));
        let second = fds.len();
        if !takes.is_empty() {
            fds.extend(self.input.iter().map(|input| PollFd::new(input.as_fd(), takes)));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for the container"),
        }
        let any = |index: usize| fds.get(index).is_some_and(|fd| fd.any() == Some(true));
        Ok(Ready {
            ended: any(0),
            grows: any(1),
            signals: first > 2 && any(2),
            keyboard: second > first && any(first),
            takes: fds.len() > second && any(second),
        })
    }

    /// Whether the user has typed the keys to leave.
    fn read_keyboard(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        let count = match nix::unistd::read(io::stdin(), &mut buffer) {
            Err(Errno::EINTR | Errno::EAGAIN) => return Ok(false),
            // Our terminal is gone.
            Err(Errno::EIO) => 0,
            read => read.context("cannot read standard input")?,
        };
        if count == 0 {
            // The program's input stays open: others may attach.
            self.how.input = false;
        }
        if !self.container.spec.stdio.terminal {
            self.typed.extend_from_slice(&buffer[..count]);
            return Ok(false);
        }
        Ok(self.how.keys.pass(&buffer[..count], &mut self.typed))
    }

    fn pass_on_typed(&mut self) {
        match self.input.as_ref().map(|mut input| input.write(&self.typed)) {
            Some(Ok(count)) => drop(self.typed.drain(..count)),
            Some(Err(error)) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            // It reads no more.
            _ => {
                self.typed.clear();
                self.how.input = false;
            }
        }
    }

    /// Passes signals on, or obeys them; one by which we are to end.
    fn take_signals(&mut self) -> Option<i32> {
        let has_terminal = self.container.spec.stdio.terminal;
        for signal in self.signals.iter().flat_map(Signals::taken).collect::<Vec<_>>() {
            match signal {
                signal if signal == Signal::SIGWINCH as i32 => self.resize(),
                signal if has_terminal => return Some(signal),
                // It may have ended just now.
                signal => _ = self.run.running.process().signal(signal),
            }
        }
        None
    }

    /// Gives the container's terminal the size of ours.
    fn resize(&self) {
        if let (Some(input), Some(size), true) = (&self.input, terminal::size(), self.container.spec.stdio.terminal) {
            terminal::set_size(input, size);
        }
    }

    /// A program that shows a whole screen draws it again when its terminal changes.
    fn redraw(&self) {
        if let (Some(input), Some((columns, rows)), true) =
            (&self.input, terminal::size(), self.container.spec.stdio.terminal)
        {
            terminal::set_size(input, (columns.saturating_add(1), rows));
            terminal::set_size(input, (columns, rows));
        }
    }
}

/// What can be done without waiting.
struct Ready {
    ended: bool,
    grows: bool,
    signals: bool,
    keyboard: bool,
    takes: bool,
}

/// Tells when the log grows, or a new one begins.
pub(crate) fn watch(folder: &Path) -> Result<OwnedFd> {
    use inotify::{CreateFlags, WatchFlags};
    let grows = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("cannot watch the log")?;
    let wanted = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
    inotify::add_watch(&grows, folder, wanted).with_context(|| format!("cannot watch {}", folder.display()))?;
    Ok(grows)
}

/// A copy of the supervisor's descriptor. None: the program's input is closed, or was never open.
fn take_input(running: &Running) -> Result<Option<File>> {
    let Some(number) = running.input_fd else { return Ok(None) };
    let supervisor = running.supervisor();
    let take = || -> io::Result<OwnedFd> {
        let pidfd = supervisor.pidfd()?;
        Ok(pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty())?)
    };
    match take() {
        Ok(input) => {
            // Whoever does not read his input must not keep us from showing his output.
            let flags = fcntl_getfl(&input).and_then(|flags| fcntl_setfl(&input, flags | OFlags::NONBLOCK));
            flags.context("cannot set up the container's input")?;
            Ok(Some(input.into()))
        }
        // The end of the supervisor is seen as that of the program.
        Err(error) if matches!(error.raw_os_error(), Some(nix::libc::ESRCH | nix::libc::EBADF)) => Ok(None),
        Err(error) => {
            bail!("cannot reach the container's input, which its supervisor (process {}) has: {error}", supervisor.pid)
        }
    }
}

/// Shows what is new in the log.
fn show(log: &mut LogReader, how: &Attachment) -> Result<()> {
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    while let Some(line) = log.next().context("cannot read the log")? {
        let Some(entry) = parse(line) else { continue };
        let wanted = match entry.stream {
            Stream::Stdout => how.stdout,
            Stream::Stderr => how.stderr,
        };
        if !wanted {
            continue;
        }
        let mut whole = entry.text.to_vec();
        whole.extend(entry.full.then_some(b'\n'));
        let written = match entry.stream {
            Stream::Stdout => write_whole(&mut stdout, &whole),
            Stream::Stderr => write_whole(&mut stderr, &whole),
        };
        written.context("cannot write the container's output")?;
    }
    Ok(())
}

fn write_whole(to: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes).and_then(|count| to.flush().map(|()| count)) {
            Ok(count) => bytes = &bytes[count..],
            // Another program has made it so.
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
