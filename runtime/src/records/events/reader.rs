//! Reading the log of events, and waiting for more of it.

use std::{
    fs::File,
    io::{ErrorKind, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, OwnedFd},
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};

use super::{Event, EventLog, identity};
use crate::records::container::make_private_folder;

/// What is read of the log, from its beginning or from now on.
pub(crate) struct EventReader {
    log: EventLog,
    /// The older one first; whoever had it open before it was renamed may still write to it.
    files: Vec<Followed>,
    lost: bool,
}

struct Followed {
    file: File,
    identity: (u64, u64),
    /// A line whose end has not come yet.
    rest: Vec<u8>,
}

impl EventReader {
    /// Opens the log, which need not be there yet.
    pub(crate) fn open(log: &EventLog, from_beginning: bool) -> Result<Self> {
        const ATTEMPTS: u32 = 10;
        let mut reader = Self { log: log.clone(), files: Vec::new(), lost: false };
        if !from_beginning {
            if let Some(mut newest) = Followed::open(&log.path)? {
                newest.file.seek(SeekFrom::End(0))?;
                reader.files.push(newest);
            }
            return Ok(reader);
        }
        for _ in 0..ATTEMPTS {
            let newest = Followed::open(&log.path)?;
            let older = Followed::open(&log.older())?;
            // Else it was renamed in between, and the one before it is missing.
            let is_same =
                Followed::open(&log.path)?.map(|file| file.identity) == newest.as_ref().map(|file| file.identity);
            reader.files = older.into_iter().chain(newest).collect();
            if is_same {
                break;
            }
        }
        Ok(reader)
    }

    /// All whole events that were written since it was asked last.
    pub(crate) fn read(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        for file in &mut self.files {
            file.read(&mut events)?;
        }
        let Some(mut newest) = Followed::open(&self.log.path)? else { return Ok(events) };
        if self.files.iter().all(|file| file.identity != newest.identity) {
            self.take_older(&mut events)?;
            newest.read(&mut events)?;
            self.files.push(newest);
            let gone = self.files.len().saturating_sub(2);
            self.files.drain(..gone);
        }
        Ok(events)
    }

    /// The log that was read last is the one before the newest now, unless there was another one in between.
    fn take_older(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let Some(last) = self.files.last_mut() else { return Ok(()) };
        last.read(events)?;
        let Some(mut older) = Followed::open(&self.log.older())? else { return Ok(()) };
        if older.identity != last.identity {
            self.lost = true;
            older.read(events)?;
            self.files.push(older);
        }
        Ok(())
    }

    /// Whether there may have been events that it did not read, as it was too slow.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost
    }
}

impl Followed {
    fn open(path: &Path) -> Result<Option<Self>> {
        let opened = File::options().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(path);
        let file = match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.with_context(|| format!("cannot open {}", path.display()))?,
        };
        let identity = identity(&file.metadata()?);
        Ok(Some(Self { file, identity, rest: Vec::new() }))
    }

    fn read(&mut self, events: &mut Vec<Event>) -> Result<()> {
        self.file.read_to_end(&mut self.rest).context("cannot read the log of events")?;
        let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else { return Ok(()) };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        events.extend(whole.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()));
        Ok(())
    }
}

/// Wakes when something is written.
pub(crate) struct Watch {
    /// None: this user has no more of them, and looks now and then.
    inotify: Option<OwnedFd>,
}

impl Watch {
    /// Watches the folder, as the log in it comes and goes.
    pub(crate) fn on(log: &EventLog) -> Result<Self> {
        let folder = log.path.parent().context("the log is in a folder")?;
        make_private_folder(folder)?;
        let watch = || -> rustix::io::Result<OwnedFd> {
            let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
            inotify::add_watch(&inotify, folder, flags)?;
            Ok(inotify)
        };
        match watch() {
            Ok(inotify) => Ok(Self { inotify: Some(inotify) }),
            Err(Errno::MFILE | Errno::NOSPC | Errno::NOMEM) => Ok(Self { inotify: None }),
            Err(errno) => Err(errno).with_context(|| format!("cannot watch {}", folder.display())),
        }
    }

    /// Waits until something may have been written, at most so long. False: whoever reads standard output is gone, who is only
    /// looked at if that is `for_reader`.
    pub(crate) fn wait(&self, longest: Option<Duration>, for_reader: bool) -> Result<bool> {
        const LOOKS_EVERY: Duration = Duration::from_millis(200);
        let longest = match self.inotify {
            Some(_) => longest,
            None => Some(longest.map_or(LOOKS_EVERY, |longest| longest.min(LOOKS_EVERY))),
        };
        let timeout = longest.and_then(|longest| Timespec::try_from(longest).ok());
        let stdout = rustix::stdio::stdout();
        let mut fds: Vec<PollFd> = self.inotify.iter().map(|inotify| PollFd::new(inotify, PollFlags::IN)).collect();
        // Nothing is asked of it: that nobody is at its other end is told always.
        fds.extend(for_reader.then(|| PollFd::new(&stdout, PollFlags::empty())));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for events"),
        }
        let is_gone = fds.iter().any(|fd| fd.revents().intersects(PollFlags::ERR | PollFlags::HUP));
        if let Some(inotify) = &self.inotify {
            let mut told = [0; 4096];
            while rustix::io::read(inotify.as_fd(), &mut told).is_ok_and(|count| count > 0) {}
        }
        Ok(!is_gone)
    }
}
