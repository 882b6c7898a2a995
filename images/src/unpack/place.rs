//! One entry becomes one file: the system calls.
//!
//! Making files is most of what unpacking costs, so each gets no call that it does not need: for an ordinary file
//! `openat`, `write`, `utimensat`, `close`. Ownership is changed only where it differs from what the kernel gave, the
//! mode only where the umask or the owner's change would have taken bits off it (always after the owner, which clears
//! set-id bits).

use super::{
    UnpackError,
    directories::{Directories, Directory, Made, is_whiteout},
    entries::{Entries, Entry, Kind},
    input::Source,
    left_out::{Mark, is_overlay_attribute},
    names::{self, Marker},
};
use crate::{
    Budget,
    budget::{Exceeded, Hold},
    remove_tree,
};
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod,
        fchown, fsetxattr, fstat, ftruncate, futimens, linkat, lsetxattr, makedev, mkdirat, mknodat, openat, seek,
        statat, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
    process::{getegid, geteuid},
};
use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    ops::Bound,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

/// Set-user-id, set-group-id, sticky: what a change of owner or a umask-free `open` may lose.
const SPECIAL_BITS: u32 = 0o7000;

/// What a directory costs until the layer's end besides its path and its attributes, and what an attribute costs besides
/// its name and value.
const DIRECTORY_BYTES: usize = 192;
const ATTRIBUTE_BYTES: usize = 80;
/// What is charged, for messages.
const HELD: &str = "the directories of layers and their attributes";
/// Owners remembered as not mapped.
const UNMAPPED: usize = 1024;

/// What this store notes at layers is no archive's to set.
const OURS: &[u8] = b"user.amphora.";

/// What a failed step was doing.
type Step<T> = Result<T, (&'static str, io::Error)>;

/// Puts entries into a directory.
pub(super) struct Placer {
    target: PathBuf,
    directories: Directories,
    /// Directories' modes, owners, times and xattrs, by path: set last, as filling a directory changes its time, and a
    /// mode may forbid filling it.
    deferred: BTreeMap<Vec<u8>, Late>,
    /// What `deferred` was ever given.
    held: Hold,
    budget: Budget,
    us: Us,
    /// Names of a layer's marks are names like others.
    plain: bool,
}

/// What a directory still has to get.
#[derive(Default)]
struct Late {
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    opaque: bool,
    /// No entry says what it is like.
    left_out: bool,
}

/// Who unpacks.
struct Us {
    owner: (u32, u32),
    umask: u32,
    /// Root of the first user namespace.
    privileged: bool,
    /// Owners that this user namespace does not map: asked for once.
    unmapped: HashSet<(u32, u32)>,
}

impl Placer {
    /// Opens the target.
    pub(super) fn new(target: &Path, budget: &Budget) -> Result<Self, UnpackError> {
        let open = || -> Step<_> {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = openat(CWD, target, flags, Mode::empty()).step("opening the target directory")?;
            // A set-group-id bit inherited from above would give every file that group.
            if fstat(&root).step("reading the target directory")?.st_mode & 0o2000 != 0 {
                fchown(&root, None, Some(getegid())).step("changing the target's group")?;
            }
            fchmod(&root, Mode::from_raw_mode(0o755)).step("changing the target's mode")?;
            Ok(Self {
                target: target.to_owned(),
                directories: Directories::new(root, budget),
                deferred: BTreeMap::new(),
                held: budget.hold(0, HELD).map_err(beyond)?,
                budget: budget.clone(),
                us: Us::look()?,
                plain: false,
            })
        };
        open().map_err(|(action, source)| system(b"", target, action, source))
    }

    /// For an archive that is no layer.
    pub(super) fn without_marks(self) -> Self {
        Self { plain: true, ..self }
    }

    /// Makes what an entry describes, reading its data.
    pub(super) fn place<S: Source>(&mut self, entry: &Entry, data: &mut Entries<S>) -> Result<(), UnpackError> {
        let refused =
            |reason: &str| UnpackError::Refused { entry: names::printable(&entry.path), reason: reason.to_owned() };
        let path = names::clean(&entry.path).map_err(refused)?;
        let marker = if self.plain { None } else { names::marker(&path).map_err(refused)? };
        let done = match (marker, entry.kind) {
            (Some(Marker::Ignored), _) => Ok(()),
            (Some(Marker::Opaque), _) => self.opaque(names::split(&path).0),
            (Some(Marker::Whiteout(name)), _) => self.whiteout(names::split(&path).0, name),
            (None, Kind::Directory) => self.directory(&path, entry),
            (None, _) if path.is_empty() => return Err(refused("the image's root can only be a directory")),
            (None, Kind::File) => return self.file(&path, entry, data),
            (None, Kind::HardLink) => {
                let old = names::clean(&entry.link).map_err(|reason| refused(&format!("its link target: {reason}")))?;
                self.hard_link(&path, &old)
            }
            (None, kind) => self.special(&path, entry, kind),
        };
        done.map_err(|(action, source)| system(&entry.path, &self.target, action, source))
    }

    /// Gives the directories their modes, owners, times and xattrs, the deepest first.
    pub(super) fn finish(mut self) -> Result<(), UnpackError> {
        self.directories.forget();
        self.mark_root().map_err(|(action, source)| system(b"", &self.target, action, source))?;
        for (path, late) in std::mem::take(&mut self.deferred).iter().rev() {
            self.finish_directory(path, late).map_err(|(action, source)| system(path, &self.target, action, source))?;
        }
        Ok(())
    }

    /// Says of the root whether it was left out itself, and whether others were.
    fn mark_root(&self) -> Step<()> {
        let others = self.deferred.values().any(|late| late.left_out);
        let itself = self.deferred.get(&b""[..]).is_none_or(|late| late.mtime.is_none());
        let root = self.directories.open(b"").step("opening the directory")?;
        Mark { itself, others }.set(&root, self.us.privileged);
        Ok(())
    }

    fn file<S: Source>(&mut self, path: &[u8], entry: &Entry, data: &mut Entries<S>) -> Result<(), UnpackError> {
        let failed = |target: &Path, (action, source)| system(&entry.path, target, action, source);
        let fd = self.create(path, entry.mode).map_err(|error| failed(&self.target, error))?;
        match &entry.sparse {
            None => while write_some(&fd, data, u64::MAX, &|error| failed(&self.target, error))? > 0 {},
            Some(sparse) => {
                let failed = |error| failed(&self.target, error);
                ftruncate(&fd, sparse.real_size).step("setting its size").map_err(failed)?;
                for &(offset, mut length) in &sparse.pieces {
                    seek(&fd, rustix::fs::SeekFrom::Start(offset)).step("seeking").map_err(failed)?;
                    while length > 0 {
                        length -= write_some(&fd, data, length, &failed)?;
                    }
                }
            }
        }
        self.us.finish_file(&fd, entry).map_err(|error| failed(&self.target, error))
    }

    /// A new, empty file; whatever had its name is gone.
    fn create(&mut self, path: &[u8], mode: u32) -> Step<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.replacing(path, "creating the file", |parent, name| {
            openat(parent, name, flags, Mode::from_raw_mode(mode & 0o777))
        })
    }

    fn directory(&mut self, path: &[u8], entry: &Entry) -> Step<()> {
        if path.is_empty() {
            let late = self.us.late(entry, 0o755);
            return self.note(Vec::new(), late);
        }
        let (parent, name) = names::split(path);
        let at_once = if self.us.owner.0 == 0 || entry.mode & 0o700 == 0o700 { entry.mode & 0o777 } else { 0o700 };
        let directory = self.enter(parent)?;
        let path = names::join(&directory.path, name);
        let made = match mkdirat(&directory.fd, name, Mode::from_raw_mode(at_once)) {
            Err(Errno::EXIST) if is_directory(&directory.fd, name).step("looking at what has its name")? => false,
            Err(Errno::EXIST) => {
                unlinkat(&directory.fd, name, AtFlags::empty()).step("removing what had its name")?;
                mkdirat(&directory.fd, name, Mode::from_raw_mode(at_once)).step("creating the directory")?;
                // What had its name hid the layers below, and so must the directory.
                self.make_opaque(path.clone())?;
                // It may have been a link, and what lies behind it open by its name.
                self.directories.forget_at_next();
                true
            }
            other => other.map(|()| true).step("creating the directory")?,
        };
        let late = self.us.late(entry, if made { at_once & !self.us.umask } else { u32::MAX });
        self.note(path, late)
    }

    fn opaque(&mut self, directory: &[u8]) -> Step<()> {
        if self.directories.is_behind_link(directory) {
            return Ok(());
        }
        let path = self.enter(directory)?.path.clone();
        self.make_opaque(path)
    }

    /// Hides a name of the layers below. What this layer itself put there stays (OCI image-spec, layer.md,
    /// "Whiteouts"). Behind a link that this layer itself put there is nothing of the layers below: where the link leads,
    /// nobody removed anything.
    fn whiteout(&mut self, directory: &[u8], name: &[u8]) -> Step<()> {
        if self.directories.is_behind_link(directory) {
            return Ok(());
        }
        let path = self.enter(directory)?.path.clone();
        if self.deferred.get(&path).is_some_and(|late| late.opaque) {
            // Nothing shows there that could be hidden, and the kernel would list the name.
            return Ok(());
        }
        let directory = self.directories.current();
        let mode = Mode::from_raw_mode(0o600);
        match mknodat(&directory.fd, name, FileType::CharacterDevice, mode, 0) {
            Err(Errno::EXIST) => {
                if !is_directory(&directory.fd, name).step("looking at what has its name")? {
                    return Ok(());
                }
                let path = names::join(&directory.path, name);
                if let Some(late) = self.deferred.get_mut(&path) {
                    // It is a new one, and no heir of what is gone.
                    late.left_out = false;
                }
                self.make_opaque(path)
            }
            other => other.step("creating the whiteout"),
        }
    }

    /// The new name of a file that this layer has already. A link to a symbolic link is a second name of the link.
    fn hard_link(&mut self, path: &[u8], old: &[u8]) -> Step<()> {
        let (old_parent, old_name) = names::split(old);
        let from = self.directories.resolve(old_parent);
        let from = from.map_err(|error| self.not_opened("opening the directory of the file it links to", error))?;
        // What is marked as gone is no file; a second name of the mark would hide another one.
        match is_whiteout(&from, old_name) {
            Ok(false) if path == old => return Ok(()),
            Ok(true) => return Err(("linking it to a file that this layer removes", Errno::NOENT.into())),
            _ => {}
        }
        self.replacing(path, "linking it to a file that an earlier entry must have made", |parent, name| {
            linkat(&from, old_name, parent, name, AtFlags::empty())
        })
    }

    /// Symbolic links, devices and fifos.
    fn special(&mut self, path: &[u8], entry: &Entry, kind: Kind) -> Step<()> {
        let device = makedev(entry.device.0, entry.device.1);
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let made = self.replacing(path, "creating it", |parent, name| match kind {
            Kind::Symlink => symlinkat(entry.link.as_slice(), parent, name),
            Kind::Fifo => mknodat(parent, name, FileType::Fifo, mode, 0),
            Kind::CharDevice => mknodat(parent, name, FileType::CharacterDevice, mode, device),
            _ => mknodat(parent, name, FileType::BlockDevice, mode, device),
        });
        match made {
            // Only the first user namespace's root makes devices. Images need theirs nowhere: /dev is the runtime's.
            Err((_, error)) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) && is_device(kind) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                let (parent, name) = (&self.directories.current().fd, names::split(path).1);
                self.us.finish_special(parent, name, entry, kind)
            }
        }
    }

    /// Runs `make` in the entry's directory; where the name is taken, removes what has it and runs it again.
    fn replacing<T>(
        &mut self,
        path: &[u8],
        action: &'static str,
        make: impl Fn(&OwnedFd, &[u8]) -> rustix::io::Result<T>,
    ) -> Step<T> {
        let (parent, name) = names::split(path);
        let directory = self.enter(parent)?;
        match make(&directory.fd, name) {
            Err(Errno::EXIST) => {}
            other => return other.step(action),
        }
        let full = names::join(&directory.path, name);
        match unlinkat(&directory.fd, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => self.remove_tree(&full)?,
            other => other.step("removing what had its name")?,
        }
        // It may have been a link, even one on the way here: the directory stays this one, by whatever name it came.
        self.directories.forget_at_next();
        make(&self.directories.current().fd, name).step(action)
    }

    /// A file takes a directory's place.
    fn remove_tree(&mut self, path: &[u8]) -> Step<()> {
        self.deferred.remove(path);
        let first = [path, b"/"].concat();
        loop {
            let next = self.deferred.range::<[u8], _>((Bound::Included(first.as_slice()), Bound::Unbounded)).next();
            let Some(key) = next.map(|(key, _)| key).filter(|key| key.starts_with(&first)).cloned() else { break };
            self.deferred.remove(&key);
        }
        let full = self.target.join(std::ffi::OsStr::from_bytes(path));
        remove_tree(&full).map_err(|error| ("removing the directory that had its name", error))
    }

    /// The directory that a clean name calls, open; those that the archive left out are made.
    fn enter(&mut self, name: &[u8]) -> Step<&Directory> {
        if let Err(error) = self.directories.enter(name) {
            return Err(self.not_opened("opening its directory", error));
        }
        for made in self.directories.take_made() {
            self.budget.entries(1).map_err(beyond)?;
            // Whatever the umask is.
            let mode = (self.us.umask & 0o755 != 0).then_some(0o755);
            let Made { path, replaced } = made;
            self.note(path, Late { mode, opaque: replaced, left_out: !replaced, ..Late::default() })?;
        }
        Ok(self.directories.current())
    }

    /// Why a directory could not be opened; links may have led through too much, those before taken together.
    fn not_opened(&self, action: &'static str, error: Errno) -> (&'static str, io::Error) {
        match self.budget.steps(1) {
            Err(bound) if error == Errno::LOOP => beyond(bound),
            _ => (action, error.into()),
        }
    }

    fn make_opaque(&mut self, path: Vec<u8>) -> Step<()> {
        if let Some(late) = self.deferred.get_mut(&path) {
            late.opaque = true;
            return Ok(());
        }
        self.note(path, Late { opaque: true, ..Late::default() })
    }

    fn note(&mut self, path: Vec<u8>, late: Late) -> Step<()> {
        let attributes = late.xattrs.iter().map(|(name, value)| name.len() + value.len() + ATTRIBUTE_BYTES);
        let bytes = path.len() + attributes.sum::<usize>() + DIRECTORY_BYTES;
        self.held.grow(bytes as u64, HELD).map_err(beyond)?;
        let before = self.deferred.entry(path).or_default();
        *before = Late { opaque: before.opaque || late.opaque, ..late };
        Ok(())
    }

    fn finish_directory(&mut self, path: &[u8], late: &Late) -> Step<()> {
        let only_time =
            late.mode.is_none() && late.owner.is_none() && late.xattrs.is_empty() && !late.opaque && !late.left_out;
        if let (true, false, Some(mtime)) = (only_time, path.is_empty(), late.mtime) {
            let times = timestamps(mtime);
            return utimensat(self.directories.root(), path, &times, AtFlags::SYMLINK_NOFOLLOW)
                .step("setting its time");
        }
        let fd = self.directories.open(path).step("opening the directory")?;
        if let Some(owner) = late.owner {
            self.us.chown(owner, |uid, gid| fchown(&fd, uid, gid))?;
        }
        if late.opaque {
            fsetxattr(&fd, self.us.opaque(), b"y", XattrFlags::empty()).step("marking the directory as opaque")?;
        }
        // The root's says more.
        if late.left_out && !path.is_empty() {
            Mark { itself: true, others: false }.set(&fd, self.us.privileged);
        }
        set_xattrs(&late.xattrs, |name, value| fsetxattr(&fd, name, value, XattrFlags::empty()))?;
        if let Some(mode) = late.mode {
            fchmod(&fd, Mode::from_raw_mode(mode)).step("changing its mode")?;
        }
        late.mtime.map_or(Ok(()), |mtime| futimens(&fd, &timestamps(mtime)).step("setting its time"))
    }
}

impl Us {
    fn look() -> Step<Self> {
        let read = |path| fs::read_to_string(path).map_err(|error| ("reading about this process in /proc/self", error));
        let status = read("/proc/self/status")?;
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        let first_namespace = read("/proc/self/uid_map")?.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
        let owner = (geteuid().as_raw(), getegid().as_raw());
        Ok(Self {
            owner,
            // Unknown (before Linux 4.7): as if it took everything, so that every mode is set.
            umask: umask.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o777),
            privileged: first_namespace && owner.0 == 0,
            unmapped: HashSet::new(),
        })
    }

    fn opaque(&self) -> &'static str {
        if self.privileged { "trusted.overlay.opaque" } else { "user.overlay.opaque" }
    }

    /// What a directory with this entry still needs when it has `mode_now`.
    fn late(&self, entry: &Entry, mode_now: u32) -> Late {
        let wanted = (entry.uid, entry.gid);
        Late {
            mode: (mode_now != entry.mode || wanted != self.owner).then_some(entry.mode),
            owner: (wanted != self.owner).then_some(wanted),
            mtime: Some(entry.mtime),
            xattrs: entry.xattrs.clone(),
            ..Late::default()
        }
    }

    fn finish_file(&mut self, fd: &OwnedFd, entry: &Entry) -> Step<()> {
        self.chown((entry.uid, entry.gid), |uid, gid| fchown(fd, uid, gid))?;
        if entry.mode & (SPECIAL_BITS | self.umask) != 0 {
            fchmod(fd, Mode::from_raw_mode(entry.mode)).step("changing its mode")?;
        }
        set_xattrs(&entry.xattrs, |name, value| fsetxattr(fd, name, value, XattrFlags::empty()))?;
        futimens(fd, &timestamps(entry.mtime)).step("setting its time")
    }

    fn finish_special(&mut self, parent: &OwnedFd, name: &[u8], entry: &Entry, kind: Kind) -> Step<()> {
        let no_follow = AtFlags::SYMLINK_NOFOLLOW;
        self.chown((entry.uid, entry.gid), |uid, gid| chownat(parent, name, uid, gid, no_follow))?;
        if kind != Kind::Symlink && entry.mode & (SPECIAL_BITS | self.umask) != 0 {
            chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty()).step("changing its mode")?;
        }
        if !entry.xattrs.is_empty() {
            // There is no call that takes a directory, a name and an xattr before Linux 6.13.
            let path =
                [format!("/proc/self/fd/{}/", std::os::fd::AsRawFd::as_raw_fd(parent)).as_bytes(), name].concat();
            set_xattrs(&entry.xattrs, |name, value| lsetxattr(path.as_slice(), name, value, XattrFlags::empty()))?;
        }
        utimensat(parent, name, &timestamps(entry.mtime), no_follow).step("setting its time")
    }

    /// Changes the owner where it differs; one that this user namespace does not map stays the process's own.
    fn chown(
        &mut self,
        wanted: (u32, u32),
        change: impl Fn(Option<Uid>, Option<Gid>) -> rustix::io::Result<()>,
    ) -> Step<()> {
        if wanted == self.owner || self.unmapped.contains(&wanted) {
            return Ok(());
        }
        match change(Some(Uid::from_raw(wanted.0)), Some(Gid::from_raw(wanted.1))) {
            Err(Errno::INVAL) => {}
            Err(Errno::PERM) if !self.privileged => {}
            other => return other.step("changing its owner"),
        }
        if self.unmapped.len() < UNMAPPED {
            self.unmapped.insert(wanted);
        }
        Ok(())
    }
}

/// Writes the next piece of an entry's data, at most `most` bytes; how many.
fn write_some<S: Source>(
    fd: &OwnedFd,
    data: &mut Entries<S>,
    most: u64,
    failed: &dyn Fn((&'static str, io::Error)) -> UnpackError,
) -> Result<u64, UnpackError> {
    let bytes = data.data()?;
    let bytes = &bytes[..bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX))];
    if bytes.is_empty() {
        return Ok(0);
    }
    let count =
        rustix::io::retry_on_intr(|| rustix::io::write(fd, bytes)).step("writing its content").map_err(failed)?;
    data.consume(count);
    Ok(count as u64)
}

/// Sets extended attributes. Those that this process may not set, or this file system does not have, are left out.
fn set_xattrs(xattrs: &[(Vec<u8>, Vec<u8>)], set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>) -> Step<()> {
    for (name, value) in xattrs {
        if is_overlay_attribute(name) || name.starts_with(OURS) {
            continue;
        }
        match set(name, value) {
            Err(Errno::PERM | Errno::OPNOTSUPP) => {}
            // It may be the disk that is full, but mostly it is not.
            Err(Errno::NOSPC) => {
                let (name, length) = (names::printable(name), value.len());
                let why = format!("this file system has no room for `{name}` of {length} bytes beside the others");
                return Err(("setting an extended attribute", io::Error::other(why)));
            }
            other => other.step("setting an extended attribute")?,
        }
    }
    Ok(())
}

fn is_directory(parent: &OwnedFd, name: &[u8]) -> rustix::io::Result<bool> {
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn is_device(kind: Kind) -> bool {
    matches!(kind, Kind::CharDevice | Kind::BlockDevice)
}

fn timestamps((tv_sec, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn beyond(bound: Exceeded) -> (&'static str, io::Error) {
    ("keeping within bounds", io::Error::new(io::ErrorKind::FileTooLarge, bound))
}

fn system(entry: &[u8], target: &Path, action: &'static str, source: io::Error) -> UnpackError {
    UnpackError::System { entry: names::printable(entry), target: target.to_owned(), action, source }
}

/// Names what a failed call was for.
trait StepExt<T> {
    fn step(self, action: &'static str) -> Step<T>;
}

impl<T> StepExt<T> for rustix::io::Result<T> {
    fn step(self, action: &'static str) -> Step<T> {
        self.map_err(|error| (action, error.into()))
    }
}
