//! The files of a container, running or not, from outside.
//!
//! Every path in it is resolved beneath its root by the kernel (openat2(2), RESOLVE_IN_ROOT), so that no symbolic link of the container's
//! leads out, whoever changes it meanwhile; what is looked up is then used by its descriptor.

use std::{
    ffi::{CString, OsStr},
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use images::{
    Budget,
    pack::{Form, LeftOut, Packer},
    unpack::decompress,
};
use linux_exec::process::Process;
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, statat},
    io::Errno,
};

use super::{archive::entry_name, start::image_to_start, workload_of};
use crate::{
    output::errors::Coded,
    records::{
        container::{Container, Lock, Status},
        host::{Host, become_root},
        tree::{self, Copied, Keep},
    },
    spec::mounts::MountKind,
};

/// One side of a copy.
pub(crate) enum Side {
    /// The caller's own files.
    Host,
    /// A container's.
    Container(Root),
}

/// A container's root directory.
pub(crate) struct Root {
    root: OwnedFd,
    /// Of one that does not run: nobody starts it meanwhile.
    _lock: Option<Lock>,
    /// What is mounted only while it runs: target, directory of the host.
    mounts: Vec<(PathBuf, PathBuf)>,
}

impl Root {
    /// Opens it: as its first process sees it, or its layers and what its volumes and binds would be.
    pub(crate) fn open(host: &Host, container: &Container) -> Result<Self> {
        if let Some(run) = container.going_on()? {
            return Self::of_process(run.running.process());
        }
        become_root()?;
        let lock = container.lock()?;
        match container.status_under(&lock)? {
            Status::Running(running) => Self::of_process(running.process()),
            Status::OutOfReach => Err(container.out_of_reach()),
            Status::Created | Status::Restarting(..) | Status::Stopped(_) => Self::of_layers(host, container, lock),
        }
    }

    fn of_process(process: Process) -> Result<Self> {
        let path = format!("/proc/{}/root", process.pid);
        let root = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root = root.context("cannot open the container's root")?;
        // Another process may have its pid by now.
        if !process.is_alive() {
            bail!("the container has ended just now: try again");
        }
        // Only now: from inside a user namespace a process of another one is out of reach, and what it has open is not.
        become_root()?;
        Ok(Self { root, _lock: None, mounts: Vec::new() })
    }

    fn of_layers(host: &Host, container: &Container, lock: Lock) -> Result<Self> {
        let spec = &container.spec;
        let image = image_to_start(host, container)?;
        let (root, _) = workload_of(host, spec)?.behaviour().root(host, &image, container)?;
        let mounts = spec.mounts.iter().filter_map(|mount| match &mount.kind {
            MountKind::Bind { source, .. } => Some((mount.target.clone(), source.clone())),
            // Part of a volume may have become a link by now, which leads nobody.
            MountKind::Volume { name, subpath: None, .. } => {
                Some((mount.target.clone(), host.volumes.data(name.as_deref()?)))
            }
            MountKind::Volume { .. } | MountKind::Tmpfs { .. } | MountKind::Image { .. } => None,
        });
        // Those inside others come first.
        let mut mounts: Vec<_> = mounts.collect();
        mounts.sort_by_key(|(target, _)| std::cmp::Reverse(target.components().count()));
        Ok(Self { root: root.mount, _lock: Some(lock), mounts })
    }

    fn open_path(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = clean(path);
        let mounted = self.mounts.iter().find_map(|(target, source)| Some((source, path.strip_prefix(target).ok()?)));
        let Some((source, below)) = mounted else { return open_in_root(&self.root, &path, flags) };
        let directory = openat(CWD, source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        match below.as_os_str().is_empty() {
            true => openat(CWD, source, flags | OFlags::CLOEXEC, Mode::empty()),
            false => open_in_root(&directory, below, flags),
        }
    }
}

fn open_in_root(root: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    const ATTEMPTS: usize = 1000;
    let open = || openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT);
    for _ in 1..ATTEMPTS {
        // Somebody moved something meanwhile.
        match open() {
            Err(Errno::AGAIN) => {}
            opened => return opened,
        }
    }
    open()
}

/// Absolute, without `.`; `..` goes up by name.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => _ = cleaned.pop(),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

impl Side {
    fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        match self {
            Side::Host => openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()),
            Side::Container(root) => root.open_path(path, flags),
        }
    }

    /// What a path leads to.
    fn kind(&self, path: &Path) -> Result<Option<FileType>> {
        match self.open(path, OFlags::PATH) {
            Ok(found) => Ok(Some(FileType::from_raw_mode(fstat(&found)?.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).with_context(|| format!("cannot look at {}", path.display())),
        }
    }

    fn directory(&self, path: &Path) -> Result<OwnedFd> {
        let opened = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK);
        opened.with_context(|| format!("cannot open the directory {}", path.display()))
    }

    /// The directory that a path's last part is in, and that part.
    fn parent(&self, path: &Path) -> Result<(OwnedFd, CString)> {
        let path = match self {
            Side::Host => std::path::absolute(path)?,
            Side::Container(_) => clean(path),
        };
        let name = path.file_name().with_context(|| format!("{} has no name", path.display()))?;
        let parent = self.directory(path.parent().unwrap_or(Path::new("/")))?;
        Ok((parent, CString::new(name.as_bytes())?))
    }
}

/// What is to be copied, and how.
pub(crate) struct Copy<'a> {
    pub(crate) from: &'a Side,
    pub(crate) source: &'a Path,
    pub(crate) to: &'a Side,
    pub(crate) target: &'a Path,
    /// A link as the source stands for what it leads to.
    pub(crate) follow: bool,
    pub(crate) keep: Keep,
}

impl Copy<'_> {
    /// Copies, by Docker's rules for what lies at the target already.
    ///
    /// # Errors
    /// With exit code 1: what does not fit together, or cannot be read or written.
    pub(crate) fn copy(&self) -> Result<Copied> {
        self.try_to_copy().map_err(|error| Coded::new(1, format!("{error:#}")).into())
    }

    fn try_to_copy(&self) -> Result<Copied> {
        let (source, target) = (self.source, self.target);
        let kind = self.source_kind()?;
        let is_directory = kind == FileType::Directory;
        // `folder/.` means what is in it.
        let only_contents = source.as_os_str().as_bytes().ends_with(b"/.") || source == Path::new(".");
        if only_contents && !is_directory {
            bail!("{} is not a directory", source.display());
        }
        match self.to.kind(target)? {
            Some(FileType::Directory) if only_contents || clean(source) == Path::new("/") => {
                self.contents(&self.to.directory(target)?, false)
            }
            Some(FileType::Directory) => {
                let name = self.name_of_source()?;
                self.named(kind, &self.to.directory(target)?, &name)
            }
            Some(_) if is_directory => bail!("cannot copy a directory over the file {}", target.display()),
            None if !is_directory && target.as_os_str().as_bytes().ends_with(b"/") => {
                bail!("the directory {} does not exist", target.display())
            }
            Some(_) | None => {
                let (parent, name) = self.to.parent(target)?;
                self.named(kind, &parent, &name)
            }
        }
    }

    fn name_of_source(&self) -> Result<CString> {
        let name = self.source.file_name().map(OsStr::to_owned);
        let name = match (name, self.from) {
            (Some(name), _) => name,
            (None, Side::Host) => {
                std::path::absolute(self.source)?.file_name().map(OsStr::to_owned).unwrap_or_default()
            }
            (None, Side::Container(_)) => bail!("{} has no name", self.source.display()),
        };
        Ok(CString::new(name.as_bytes())?)
    }

    fn source_kind(&self) -> Result<FileType> {
        let missing = || format!("cannot find {}", self.source.display());
        let is_whole = self.source.file_name().is_none() || self.source.as_os_str().as_bytes().ends_with(b"/.");
        if self.follow || is_whole || clean(self.source) == Path::new("/") {
            return self.from.kind(self.source)?.with_context(missing);
        }
        let (parent, name) = self.from.parent(self.source)?;
        let found = statat(&parent, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW).with_context(missing)?;
        Ok(FileType::from_raw_mode(found.st_mode))
    }

    /// Under a name in a directory.
    fn named(&self, kind: FileType, to: &OwnedFd, name: &CString) -> Result<Copied> {
        let is_whole = self.source.file_name().is_none() || self.source.as_os_str().as_bytes().ends_with(b"/.");
        if kind == FileType::Directory && (self.follow || is_whole) {
            match rustix::fs::mkdirat(to, name.as_c_str(), Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno).context("cannot make the target"),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            return self.contents(&openat(to, name.as_c_str(), flags, Mode::empty())?, true);
        }
        if self.follow && kind == FileType::RegularFile {
            let file = self.from.open(self.source, OFlags::RDONLY | OFlags::NONBLOCK)?;
            if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
                bail!("{} became something else meanwhile", self.source.display());
            }
            return Ok(tree::copy_opened(file, to.as_fd(), name, self.keep)?);
        }
        let (parent, source) = self.from.parent(self.source)?;
        Ok(tree::copy(parent.as_fd(), &source, to.as_fd(), name, self.keep)?)
    }

    fn contents(&self, to: &OwnedFd, resembles: bool) -> Result<Copied> {
        let from = self.from.directory(self.source)?;
        let copied = tree::copy_contents(from.as_fd(), to.as_fd(), self.keep)?;
        if resembles {
            tree::resemble(from.as_fd(), to.as_fd(), self.keep)?;
        }
        Ok(copied)
    }
}

/// Writes what a path of a container leads to as an archive.
///
/// # Errors
/// With exit code 1: what cannot be read. The reader of a pipe who has gone away is told by his error.
pub(crate) fn pack(from: &Side, source: &Path, follow: bool, to: &mut dyn Write) -> Result<LeftOut> {
    let name = entry_name(source);
    let failed = |error: io::Error| anyhow::Error::new(error).context("cannot write the archive");
    let mut packer = Packer::new(to, Form::Files);
    let is_whole = name == b"." || source.as_os_str().as_bytes().ends_with(b"/.");
    match is_whole || follow {
        true => match from.kind(source)? {
            None => bail!(Coded::new(1, format!("cannot find {}", source.display()))),
            Some(FileType::Directory) => {
                let name = if is_whole { b".".as_slice() } else { name };
                packer.add_opened(&from.directory(source)?, name).map_err(failed)?;
            }
            Some(_) => {
                let file = from.open(source, OFlags::RDONLY | OFlags::NONBLOCK);
                let file = file.with_context(|| format!("cannot open {}", source.display()))?;
                packer.add_opened_file(&file, name).map_err(failed)?;
            }
        },
        false => {
            let (parent, file) = from.parent(source)?;
            let missing = || Coded::new(1, format!("cannot find {}", source.display()));
            statat(&parent, file.as_c_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(|_| missing())?;
            packer.add_tree(parent.as_fd(), &file, name).map_err(failed)?;
        }
    }
    Ok(packer.finish().map_err(failed)?.1)
}

/// Puts what is in an archive, compressed or not, into a directory of a container.
///
/// It is unpacked beside the container first: then nothing in the archive, and nobody in the container, leads a file elsewhere.
pub(crate) fn unpack(
    host: &Host,
    archive: impl Read + Send + 'static,
    to: &Side,
    target: &Path,
    keep: Keep,
) -> Result<()> {
    match to.kind(target)? {
        Some(FileType::Directory) => {}
        Some(_) => {
            bail!(Coded::new(1, format!("{} is not a directory, into which an archive could be put", target.display())))
        }
        None => bail!(Coded::new(1, format!("cannot find {}, into which the archive is to be put", target.display()))),
    }
    let scratch = host.store.scratch()?;
    let budget = Budget::default();
    let mut tar = decompress(Box::new(archive), &budget).context("cannot read the archive")?;
    images::unpack::extract(&mut tar, scratch.path(), &budget).context("cannot unpack the archive")?;
    let unpacked = openat(CWD, scratch.path(), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    tree::copy_contents(unpacked.as_fd(), to.directory(target)?.as_fd(), keep)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_a_container_begin_at_its_root() {
        for (path, cleaned) in [("a/b", "/a/b"), ("/a/./b/", "/a/b"), ("../../x", "/x"), ("/a/../..", "/"), (".", "/")]
        {
            assert_eq!(clean(Path::new(path)), Path::new(cleaned), "{path}");
        }
    }
}
