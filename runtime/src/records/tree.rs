//! Files and directories copied from one place to another, by descriptors: nothing on the way is looked up by a path twice, so nobody
//! who changes either side meanwhile leads the copy elsewhere. No symbolic link is followed.

use std::{
    ffi::CStr,
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
};

pub(crate) use images::pack::names;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, chownat, fchmod, fchown,
        fstat, ftruncate, futimens, mkdirat, mknodat, openat, readlinkat, seek, statat, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};

/// How deep directories are followed: each takes two descriptors.
const MAX_DEPTH: usize = 250;
/// Permissions, and which of them let others act for the owner.
const MODE_BITS: u32 = 0o7777;
const SET_ID_BITS: u32 = 0o6000;

/// What is kept of what is copied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    /// Owners and groups, and so the bits that act for them; else all belongs to `owner`.
    pub(crate) owners: bool,
    /// Whom it belongs to otherwise.
    pub(crate) owner: (u32, u32),
}

impl Keep {
    fn owner_of(self, found: &Stat) -> (Uid, Gid) {
        let (uid, gid) = if self.owners { (found.st_uid, found.st_gid) } else { self.owner };
        (Uid::from_raw(uid), Gid::from_raw(gid))
    }

    fn mode_of(self, found: &Stat) -> Mode {
        let bits = found.st_mode & MODE_BITS;
        Mode::from_raw_mode(if self.owners { bits } else { bits & !SET_ID_BITS })
    }
}

/// How much was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Bytes of files.
    pub(crate) bytes: u64,
}

/// Copies one file, link or directory with all that is in it to a name in another directory. What is there of that name is replaced, but a
/// directory is copied into.
///
/// # Errors
/// The first file that cannot be copied, by its path below what is copied. Devices and sockets are left out.
pub(crate) fn copy(
    from: BorrowedFd<'_>,
    name: &CStr,
    to: BorrowedFd<'_>,
    new_name: &CStr,
    keep: Keep,
) -> io::Result<Copied> {
    let mut copied = Copied::default();
    copy_one(from, name, to, new_name, keep, &mut copied, 0)?;
    Ok(copied)
}

/// Copies what is in a directory into another one.
pub(crate) fn copy_contents(from: BorrowedFd<'_>, to: BorrowedFd<'_>, keep: Keep) -> io::Result<Copied> {
    let mut copied = Copied::default();
    for name in names(from)? {
        copy_one(from, &name, to, &name, keep, &mut copied, 0)?;
    }
    Ok(copied)
}

/// Gives a directory the mode and the owner of another one.
pub(crate) fn resemble(from: BorrowedFd<'_>, to: BorrowedFd<'_>, keep: Keep) -> io::Result<()> {
    let found = fstat(from)?;
    let (uid, gid) = keep.owner_of(&found);
    fchown(to, Some(uid), Some(gid))?;
    fchmod(to, keep.mode_of(&found))?;
    futimens(to, &times(&found))?;
    Ok(())
}

/// Writes a file that is open already under a name in a directory.
pub(crate) fn copy_opened(file: OwnedFd, to: BorrowedFd<'_>, name: &CStr, keep: Keep) -> io::Result<Copied> {
    let found = fstat(&file)?;
    let target = create(to, name)?;
    let bytes = fill(file, &target)?;
    let (uid, gid) = keep.owner_of(&found);
    fchown(&target, Some(uid), Some(gid))?;
    fchmod(&target, keep.mode_of(&found))?;
    futimens(&target, &times(&found))?;
    Ok(Copied { bytes })
}

fn copy_one(
    from: BorrowedFd<'_>,
    name: &CStr,
    to: BorrowedFd<'_>,
    new_name: &CStr,
    keep: Keep,
    copied: &mut Copied,
    depth: usize,
) -> io::Result<()> {
    let found = statat(from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| named(name, errno))?;
    let done = match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => return copy_directory(from, name, to, new_name, keep, copied, depth),
        FileType::RegularFile => copy_file(from, name, to, new_name, keep, copied),
        FileType::Symlink => copy_link(from, name, to, new_name, keep, &found),
        FileType::Fifo => replace(to, new_name, &|| mknodat(to, new_name, FileType::Fifo, keep.mode_of(&found), 0)),
        // They mean something only where they were made.
        _ => Ok(()),
    };
    done.map_err(|errno| named(name, errno))
}

fn copy_directory(
    from: BorrowedFd<'_>,
    name: &CStr,
    to: BorrowedFd<'_>,
    new_name: &CStr,
    keep: Keep,
    copied: &mut Copied,
    depth: usize,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!("directories are more than {MAX_DEPTH} deep")));
    }
    let directory = || -> rustix::io::Result<(OwnedFd, OwnedFd)> {
        let source = openat(from, name, DIRECTORY, Mode::empty())?;
        match mkdirat(to, new_name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        Ok((source, openat(to, new_name, DIRECTORY, Mode::empty())?))
    };
    let (source, target) = directory().map_err(|errno| named(name, errno))?;
    copy_all(source.as_fd(), target.as_fd(), keep, copied, depth + 1).map_err(|error| within(name, &error))
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

fn copy_all(from: BorrowedFd<'_>, to: BorrowedFd<'_>, keep: Keep, copied: &mut Copied, depth: usize) -> io::Result<()> {
    for name in names(from)? {
        copy_one(from, &name, to, &name, keep, copied, depth)?;
    }
    resemble(from, to, keep)
}

fn copy_file(
    from: BorrowedFd<'_>,
    name: &CStr,
    to: BorrowedFd<'_>,
    new_name: &CStr,
    keep: Keep,
    copied: &mut Copied,
) -> rustix::io::Result<()> {
    // Whatever else has taken its name meanwhile must not be waited for.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = openat(from, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&source)?.st_mode) != FileType::RegularFile {
        return Err(Errno::AGAIN);
    }
    let done = copy_opened(source, to, new_name, keep);
    copied.bytes += done.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?.bytes;
    Ok(())
}

/// As long as it was at the beginning, whoever still writes to it, and with its holes: a container can make files that are longer than
/// any disk. How long it is.
fn fill(source: OwnedFd, target: &OwnedFd) -> rustix::io::Result<u64> {
    let (mut source, mut target) = (File::from(source), File::from(target.try_clone().map_err(|_| Errno::MFILE)?));
    let failed = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let length = u64::try_from(fstat(&source)?.st_size).unwrap_or(0);
    // A file of the kernel's, which does not say, or nothing.
    if length == 0 {
        return io::copy(&mut source, &mut target).map_err(failed);
    }
    let mut at = 0;
    while at < length {
        let begin = match seek(&source, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            // A file system without holes.
            Err(Errno::INVAL) => at,
            other => other?,
        };
        let end = seek(&source, SeekFrom::Hole(begin)).unwrap_or(length).min(length);
        seek(&source, SeekFrom::Start(begin))?;
        seek(&target, SeekFrom::Start(begin))?;
        let part = end.saturating_sub(begin);
        // Somebody has made it shorter meanwhile.
        if part == 0 || io::copy(&mut (&source).take(part), &mut target).map_err(failed)? < part {
            break;
        }
        at = end;
    }
    ftruncate(&target, length)?;
    Ok(length)
}

/// A new file in place of what is there; into what is there where that cannot be replaced, as it is a mount point.
pub(crate) fn create(to: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let make = || openat(to, name, flags | OFlags::CREATE | OFlags::EXCL, Mode::from_raw_mode(0o600));
    match make() {
        Err(Errno::EXIST) => {}
        made => return made,
    }
    match unlinkat(to, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => make(),
        Err(Errno::BUSY) => {
            let file = openat(to, name, flags, Mode::empty())?;
            if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
                return Err(Errno::BUSY);
            }
            ftruncate(&file, 0)?;
            Ok(file)
        }
        Err(errno) => Err(errno),
    }
}

fn copy_link(
    from: BorrowedFd<'_>,
    name: &CStr,
    to: BorrowedFd<'_>,
    new_name: &CStr,
    keep: Keep,
    found: &Stat,
) -> rustix::io::Result<()> {
    let target = readlinkat(from, name, Vec::new())?;
    replace(to, new_name, &|| symlinkat(&target, to, new_name))?;
    let (uid, gid) = keep.owner_of(found);
    chownat(to, new_name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    utimensat(to, new_name, &times(found), AtFlags::SYMLINK_NOFOLLOW)
}

/// Makes something, in place of what is there of that name and is no directory.
fn replace(to: BorrowedFd<'_>, name: &CStr, make: &dyn Fn() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    match make() {
        Err(Errno::EXIST) => {
            unlinkat(to, name, AtFlags::empty())?;
            make()
        }
        made => made,
    }
}

fn times(found: &Stat) -> Timestamps {
    let time = |seconds: i64, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    Timestamps {
        last_access: time(found.st_atime, found.st_atime_nsec),
        last_modification: time(found.st_mtime, found.st_mtime_nsec),
    }
}

fn named(name: &CStr, errno: Errno) -> io::Error {
    within(name, &errno.into())
}

/// The error of something in a directory.
fn within(name: &CStr, error: &io::Error) -> io::Error {
    let name = std::ffi::OsStr::from_bytes(name.to_bytes()).to_string_lossy();
    let separator = if error.get_ref().is_some() { "/" } else { ": " };
    io::Error::other(format!("{name}{separator}{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
        path::Path,
    };

    fn open(path: &Path) -> OwnedFd {
        openat(rustix::fs::CWD, path, DIRECTORY, Mode::empty()).unwrap()
    }

    fn keep(owners: bool) -> Keep {
        let user = nix::unistd::geteuid().as_raw();
        Keep { owners, owner: (user, nix::unistd::getegid().as_raw()) }
    }

    #[test]
    fn a_file_longer_than_the_disk_is_copied_with_its_holes() {
        let dir = tempfile::tempdir().unwrap();
        let source = File::create(dir.path().join("long")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&source, b"middle", 1 << 32).unwrap();
        source.set_len(1 << 40).unwrap();
        let copied = copy(open(dir.path()).as_fd(), c"long", open(dir.path()).as_fd(), c"new", keep(false)).unwrap();
        let new = File::open(dir.path().join("new")).unwrap();
        let (found, mut text) = (new.metadata().unwrap(), [0; 6]);
        std::os::unix::fs::FileExt::read_exact_at(&new, &mut text, 1 << 32).unwrap();
        assert_eq!((copied.bytes, found.len(), &text), (1 << 40, 1 << 40, b"middle"));
        assert!(found.blocks() < 1 << 11, "{} blocks", found.blocks());
    }

    #[test]
    fn a_tree_is_copied_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("a/file"), "text").unwrap();
        fs::set_permissions(from.join("a/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        symlink("/etc/passwd", from.join("a/link")).unwrap();
        nix::unistd::mkfifo(&from.join("a/fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        fs::set_permissions(from.join("a/b"), fs::Permissions::from_mode(0o1777)).unwrap();
        let copied = copy(open(&from).as_fd(), c"a", open(&to).as_fd(), c"new", keep(true)).unwrap();
        assert_eq!(copied.bytes, 4);
        assert_eq!(fs::read_to_string(to.join("new/file")).unwrap(), "text");
        let (old, new) = (fs::metadata(from.join("a/file")).unwrap(), fs::metadata(to.join("new/file")).unwrap());
        assert_eq!((old.mode(), old.mtime_nsec()), (new.mode(), new.mtime_nsec()));
        assert_eq!(fs::metadata(to.join("new/b")).unwrap().mode() & 0o7777, 0o1777);
        assert_eq!(fs::read_link(to.join("new/link")).unwrap(), Path::new("/etc/passwd"));
        // Once more, over what is there, and without what acts for its owner.
        copy(open(&from).as_fd(), c"a", open(&to).as_fd(), c"new", keep(false)).unwrap();
        assert_eq!(fs::metadata(to.join("new/file")).unwrap().mode() & 0o7777, 0o751);
    }

    #[test]
    fn what_lies_in_the_way_is_replaced_and_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to, outside) = (dir.path().join("from"), dir.path().join("to"), dir.path().join("outside"));
        for folder in [&from, &to, &outside] {
            fs::create_dir(folder).unwrap();
        }
        fs::create_dir(from.join("folder")).unwrap();
        fs::write(from.join("folder/x"), "new").unwrap();
        fs::write(from.join("file"), "new").unwrap();
        fs::write(outside.join("victim"), "old").unwrap();
        symlink(outside.join("victim"), to.join("file")).unwrap();
        symlink(&outside, to.join("folder")).unwrap();
        copy(open(&from).as_fd(), c"file", open(&to).as_fd(), c"file", keep(false)).unwrap();
        assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "old");
        assert!(to.join("file").symlink_metadata().unwrap().is_file());
        let refused = copy(open(&from).as_fd(), c"folder", open(&to).as_fd(), c"folder", keep(false)).unwrap_err();
        assert!(refused.to_string().starts_with("folder: "), "{refused}");
        assert!(!outside.join("x").exists());
    }
}
