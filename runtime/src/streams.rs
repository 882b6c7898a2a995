//! A container's standard streams: handed over as they are, copied to a log, or through a terminal.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use anyhow::{Context, Result};
use linux_exec::plan::Stdio;
use nix::{fcntl::OFlag, unistd::pipe2};

use crate::{
    log::{LogWriter, Stream},
    spec::StdioSpec,
    terminal::{self, RawMode},
};

/// Where the streams lead.
pub(crate) enum Wiring {
    /// Ours are the container's: nothing to copy. For `run --rm` without a terminal.
    Direct,
    /// Copied to our own streams (when `attached`) and to the log (when there is one).
    Copied { attached: bool, log: Option<PathBuf> },
}

/// The side that stays with us until the container has been started.
pub(crate) struct Pending {
    attached: bool,
    log: Option<Arc<Mutex<LogWriter>>>,
    pipes: Vec<(OwnedFd, Stream)>,
    interactive: bool,
}

/// Copying threads, and the terminal's state.
pub(crate) struct Copying {
    outputs: Vec<JoinHandle<()>>,
    terminal: Option<Arc<File>>,
    _raw: Option<RawMode>,
}

/// The container's side and ours.
pub(crate) fn prepare(spec: StdioSpec, wiring: Wiring) -> Result<(Stdio, Pending)> {
    let (attached, log) = match wiring {
        Wiring::Direct if !spec.terminal => return direct(spec.interactive),
        Wiring::Direct => (true, None),
        Wiring::Copied { attached, log } => (attached, log),
    };
    let log = log.map(|path| LogWriter::open(path.clone()).with_context(|| format!("cannot open {}", path.display())));
    let log = log.transpose()?.map(|log| Arc::new(Mutex::new(log)));
    let mut pending = Pending { attached, log, pipes: Vec::new(), interactive: spec.interactive };
    if spec.terminal {
        let size = attached.then(terminal::size).flatten();
        return Ok((Stdio::Terminal { size }, pending));
    }
    let stdin = stdin_for(spec.interactive && attached)?;
    let mut output = |stream| -> Result<OwnedFd> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
        pending.pipes.push((reader, stream));
        Ok(writer)
    };
    let files = [stdin, output(Stream::Stdout)?, output(Stream::Stderr)?];
    Ok((Stdio::Files(files), pending))
}

fn direct(interactive: bool) -> Result<(Stdio, Pending)> {
    let nothing = Pending { attached: true, log: None, pipes: Vec::new(), interactive };
    if interactive {
        return Ok((Stdio::Inherit, nothing));
    }
    let own = |fd: &dyn AsFdDyn| fd.duplicate().context("cannot duplicate a stream");
    Ok((Stdio::Files([stdin_for(false)?, own(&io::stdout())?, own(&io::stderr())?]), nothing))
}

/// Our own standard input, or nothing to read.
fn stdin_for(own: bool) -> Result<OwnedFd> {
    if own {
        return io::stdin().duplicate().context("cannot duplicate standard input");
    }
    Ok(File::open("/dev/null").context("cannot open /dev/null")?.into())
}

trait AsFdDyn {
    fn duplicate(&self) -> io::Result<OwnedFd>;
}

impl<T: AsFd> AsFdDyn for T {
    fn duplicate(&self) -> io::Result<OwnedFd> {
        self.as_fd().try_clone_to_owned()
    }
}

impl Pending {
    /// Begins to copy, once the container runs. `terminal` is the master of its pty, if it has one.
    pub(crate) fn copy(self, terminal: Option<OwnedFd>) -> Result<Copying> {
        let mut outputs = Vec::new();
        for (pipe, stream) in self.pipes {
            outputs.push(copy_out(File::from(pipe), stream, self.attached, self.log.clone()));
        }
        let terminal = terminal.map(|master| Arc::new(File::from(master)));
        let mut raw = None;
        if let Some(master) = &terminal {
            let from = master.try_clone().context("cannot duplicate the terminal")?;
            outputs.push(copy_out(from, Stream::Stdout, self.attached, self.log.clone()));
            if self.attached && self.interactive {
                raw = RawMode::enter();
                copy_in(master.try_clone().context("cannot duplicate the terminal")?);
            }
        }
        Ok(Copying { outputs, terminal, _raw: raw })
    }
}

impl Copying {
    /// Gives the container's terminal the size of ours.
    pub(crate) fn resize(&self) {
        if let (Some(master), Some(size)) = (&self.terminal, terminal::size()) {
            terminal::set_size(master, size);
        }
    }

    /// Waits until all output has been copied: every writer is gone with the container.
    pub(crate) fn finish(self) {
        for thread in self.outputs {
            // A thread that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

fn copy_out(mut from: File, stream: Stream, attached: bool, log: Option<Arc<Mutex<LogWriter>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut to = attached.then(|| own_output(stream)).flatten();
        let mut buffer = vec![0; 64 << 10];
        // A pty's master answers EIO when nobody has the other side open any more.
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if let Some(Ok(mut log)) = log.as_ref().map(|log| log.lock()) {
                // A full disk must not stop the container; what could not be kept is missing from the log.
                let _ = log.write(stream, &buffer[..count]);
            }
            if to.as_mut().is_some_and(|to| to.write_all(&buffer[..count]).is_err()) {
                to = None;
                if log.is_none() {
                    // Nobody reads: the container gets EPIPE, as it would without us.
                    return;
                }
            }
        }
    })
}

fn own_output(stream: Stream) -> Option<File> {
    let fd = match stream {
        Stream::Stdout => io::stdout().duplicate(),
        Stream::Stderr => io::stderr().duplicate(),
    };
    fd.ok().map(File::from)
}

/// Not joined: it may wait for a key that is never pressed.
fn copy_in(mut to: File) {
    std::thread::spawn(move || {
        let mut from = match io::stdin().duplicate() {
            Ok(fd) => File::from(fd),
            Err(_) => return,
        };
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
        // End of input is said as a user at a terminal says it: control-D.
        let _ = to.write_all(&[4]);
    });
}

/// Standard streams of a supervisor that stays in the background.
pub(crate) fn detach() -> Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").context("cannot open /dev/null")?;
    nix::unistd::dup2_stdin(&null).context("cannot redirect standard input")?;
    nix::unistd::dup2_stdout(&null).context("cannot redirect standard output")?;
    nix::unistd::dup2_stderr(&null).context("cannot redirect standard error")
}
