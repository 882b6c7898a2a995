//! A container's files as archives: all of them (`export`), those that it has changed (`commit`), some of them (`cp`).

use std::{
    ffi::{CString, OsStr},
    io::{self, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use images::{
    Image,
    pack::{Form, LeftOut, Packer},
};
use linux_exec::rootfs::Rootfs;
use nix::sys::signal::{Signal, raise};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};

use super::{
    changed::{Change, changes},
    pause,
    start::{image_of, workload_of},
    supervise::Signals,
};
use crate::{
    output::{self, errors::Coded},
    records::{
        container::{Container, Status},
        host::Host,
        tree,
    },
};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Writes all files of a container as it sees them, but for what is mounted there.
pub(crate) fn export(host: &Host, container: &Container, to: &mut dyn Write) -> Result<LeftOut> {
    let spec = &container.spec;
    refuse_without_files(host, container)?;
    let mut layers = host.store.layers(&image_of(host, spec)?)?;
    layers.extend(container.upper()?);
    let root = Rootfs::read_only(&layers)?.mount;
    let root = openat(&root, c".", DIRECTORY, Mode::empty()).context("cannot open the container's root")?;
    let mut packer = Packer::new(to, Form::Files);
    let mut names = tree::names(root.as_fd()).context("cannot list the container's root")?;
    names.sort_unstable();
    for name in names {
        packer.add_tree(root.as_fd(), &name, name.to_bytes()).map_err(failed)?;
    }
    let (_, left_out) = packer.finish().map_err(failed)?;
    refuse_removed(container)?;
    Ok(left_out)
}

/// The reader of a pipe who has gone away is told by his error.
fn failed(error: io::Error) -> anyhow::Error {
    anyhow::Error::new(error).context("cannot write the archive")
}

/// A container that has no files of its own has none to be written.
pub(crate) fn refuse_without_files(host: &Host, container: &Container) -> Result<()> {
    let name = &container.spec.name;
    if workload_of(host, &container.spec)?.behaviour().keeps_files() {
        return Ok(());
    }
    bail!(Coded::new(
        1,
        format!(
            "container {name} runs a Wasm program that has no root file system, so there are no files of its own; those of volumes \
             are copied with amphora cp"
        )
    ))
}

/// What was read may be half of it.
fn refuse_removed(container: &Container) -> Result<()> {
    if !container.exists()? {
        bail!(Coded::new(1, format!("container {} was removed while its files were read", container.spec.name)));
    }
    Ok(())
}

/// What a container has changed of its image.
pub(crate) struct Changed<'a> {
    container: &'a Container,
    pub(crate) image: Image,
    changes: Vec<(Change, PathBuf)>,
}

impl<'a> Changed<'a> {
    /// The caller holds `Store::writing`.
    pub(crate) fn look(host: &Host, container: &'a Container) -> Result<Self> {
        let image = image_of(host, &container.spec)?;
        Ok(Self { container, image, changes: changes(host, container)? })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Writes it as a layer. What is changed back meanwhile is left out.
    pub(crate) fn pack(&self, to: &mut dyn Write) -> io::Result<LeftOut> {
        let upper = openat(CWD, self.container.upper_path(), DIRECTORY, Mode::empty())?;
        let mut packer = Packer::new(to, Form::Layer);
        let mut parent: Option<(&Path, OwnedFd)> = None;
        for (_, path) in &self.changes {
            let below = path.strip_prefix("/").unwrap_or(path);
            let (Some(directory), Some(name)) = (below.parent(), below.file_name()) else { continue };
            if parent.as_ref().is_none_or(|(known, _)| *known != directory) {
                parent = open_beneath(&upper, directory)?.map(|opened| (directory, opened));
            }
            let Some((_, opened)) = &parent else { continue };
            packer.add(opened.as_fd(), &CString::new(name.as_bytes())?, below.as_os_str().as_bytes())?;
        }
        let (_, left_out) = packer.finish()?;
        refuse_removed(self.container).map_err(io::Error::other)?;
        Ok(left_out)
    }
}

/// None: it is not there any more.
fn open_beneath(upper: &OwnedFd, directory: &Path) -> io::Result<Option<OwnedFd>> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match openat2(upper, directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

/// A container that stands still until this is dropped, if it runs and can be made to. As long as it does, signals wait: one that
/// ended this process would leave it so.
pub(crate) struct Frozen<'a> {
    container: &'a Container,
    signals: Option<Signals>,
    /// One that is to end this process.
    came: Option<i32>,
}

impl<'a> Frozen<'a> {
    /// One that its user has paused stays so.
    pub(crate) fn freeze(container: &'a Container) -> Result<Self> {
        let mut frozen = Self { container, signals: None, came: None };
        if matches!(container.status()?, Status::Running(running) if !running.paused) {
            let signals = Signals::block()?;
            match pause::pause(container) {
                Ok(()) => frozen.signals = Some(signals),
                Err(error) => {
                    signals.unblock();
                    output::note(&format!(
                        "amphora: {error:#}; it goes on while its files are read (--pause=false asks for that)"
                    ));
                }
            }
        }
        Ok(frozen)
    }

    /// Whether somebody wants this process to end.
    fn is_to_end(&mut self) -> bool {
        self.came = self.came.or_else(|| self.signals.as_ref()?.deadly());
        self.came.is_some()
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let Some(signals) = self.signals.take() else { return };
        if let Err(error) = pause::unpause(self.container)
            // It may have been ended meanwhile.
            && self.container.status().map_or(true, |status| status.is_up())
        {
            output::complain(&error);
        }
        signals.unblock();
        if let Some(signal) = self.came.and_then(|number| Signal::try_from(number).ok()) {
            // Now it does what it does to any process.
            let _ = raise(signal);
        }
    }
}

/// Writes until somebody wants this process to end.
pub(crate) struct Interruptible<'w, 'f, 'c> {
    to: &'w mut dyn Write,
    frozen: Option<&'f mut Frozen<'c>>,
}

impl<'w, 'f, 'c> Interruptible<'w, 'f, 'c> {
    pub(crate) fn new(to: &'w mut dyn Write, frozen: Option<&'f mut Frozen<'c>>) -> Self {
        Self { to, frozen }
    }
}

impl Write for Interruptible<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.frozen.as_mut().is_some_and(|frozen| frozen.is_to_end()) {
            return Err(io::Error::other("a signal came that ends it"));
        }
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Says what is not in an archive.
pub(crate) fn note_left_out(left_out: &LeftOut) {
    for what in &left_out.told {
        output::note(&format!("amphora: left out: {what}"));
    }
    let more = left_out.count.saturating_sub(left_out.told.len());
    if more > 0 {
        output::note(&format!("amphora: left out: {more} more"));
    }
}

/// The name that an entry for a path has.
pub(super) fn entry_name(path: &Path) -> &[u8] {
    path.file_name().map_or(b".".as_slice(), OsStr::as_bytes)
}
