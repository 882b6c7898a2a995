//! The groups below a container's own, which its program made: as many, as deep and as fast as it could, with what it wrote in
//! them. Killing what is in them, and removing them.
//!
//! They are walked by descriptors, as a path can name no more than 4095 bytes: one group is open at a time, and the way back up
//! is `..`, which leads to the parent even of a group that is gone. Memory holds the names that are still to be looked at, which
//! are less than the kernel's own share of the same groups.

use super::{CgroupError, files};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, openat, unlinkat},
    io::{Errno, read, write},
};
use std::{
    ffi::{CStr, CString},
    mem::MaybeUninit,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Together half a second, most of it in the last ones.
const WAITS_MILLIS: [u64; 20] = [1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32, 32, 32, 50, 50, 50, 50, 50, 50];

/// How long one walk may take: of a tree that grows as fast as it is walked the end is never reached. A million groups are
/// removed in less.
const LONGEST_WALK: Duration = Duration::from_secs(120);

/// What is done with each group below another.
trait Visitor {
    /// Before it is looked into; whether to look into it.
    fn meet(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<bool, Errno>;
    /// Inside of it.
    fn enter(&mut self, group: BorrowedFd<'_>) -> Result<(), Errno>;
    /// After all below it.
    fn leave(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno>;
}

/// A group on the way down, and which of those below it are still to be visited.
struct Level {
    name: CString,
    below: Vec<CString>,
}

/// Visits all groups below one, each before those in it. A group that is gone meanwhile is passed over.
fn walk(top: OwnedFd, visitor: &mut dyn Visitor) -> Result<(), Errno> {
    let until = Instant::now() + LONGEST_WALK;
    let mut levels = vec![Level { name: CString::default(), below: names_in(&top)? }];
    let mut here = top;
    while let Some(level) = levels.last_mut() {
        if Instant::now() > until {
            return Err(Errno::BUSY);
        }
        if let Some(name) = level.below.pop() {
            if !visitor.meet(here.as_fd(), &name)? {
                continue;
            }
            let Some(group) = unless_gone(open_in(&here, &name))? else { continue };
            visitor.enter(group.as_fd())?;
            levels.push(Level { name, below: names_in(&group)? });
            here = group;
        } else {
            let Some(left) = levels.pop().filter(|_| !levels.is_empty()) else { break };
            here = open_in(&here, c"..")?;
            visitor.leave(here.as_fd(), &left.name)?;
        }
    }
    Ok(())
}

fn open_in(parent: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn unless_gone<T>(result: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match result {
        // NODEV: of a file of a group that is about to go.
        Err(Errno::NOENT | Errno::NODEV) => Ok(None),
        other => other.map(Some),
    }
}

/// All of them at once, as the kernel may pass over some in a directory that changes.
fn names_in(group: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 16 << 10];
    let mut entries = RawDir::new(group, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let Some(entry) = unless_gone(entry)? else { break };
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

// --- Killing ---------------------------------------------------------------------------------------------------

/// SIGKILLs every process in these groups of one container, one for each hierarchy, and below them.
///
/// A cgroup v2 (Linux 5.14) kills all that are in it at once. Elsewhere they are signalled one by one until none is left, for
/// half a second after which it is [`CgroupError::Busy`]; where there is a freezer, it keeps them from making others meanwhile.
/// A process in a frozen group of v1 does not die until that is thawed, so the groups below are thawed too.
pub(super) fn kill(paths: &[PathBuf]) -> Result<(), CgroupError> {
    let mut others = Vec::new();
    for path in paths {
        match files::write(&path.join("cgroup.kill"), "1") {
            Err(error) if error.is_missing() => others.push(path.as_path()),
            done => done?,
        }
    }
    let freezers: Vec<&Path> = others.iter().copied().filter(|path| path.join(FREEZER_STATE).exists()).collect();
    for wait in WAITS_MILLIS {
        if kill_once(&others, &freezers)? == 0 {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(wait));
    }
    match others.first() {
        Some(path) if kill_once(&others, &freezers)? > 0 => Err(CgroupError::Busy(path.to_path_buf())),
        _ => Ok(()),
    }
}

const FREEZER_STATE: &str = "freezer.state";
const FROZEN: &str = "FROZEN";
const THAWED: &str = "THAWED";

/// How many there were.
fn kill_once(paths: &[&Path], freezers: &[&Path]) -> Result<usize, CgroupError> {
    for path in freezers {
        gone_is_fine(files::write(&path.join(FREEZER_STATE), FROZEN))?;
    }
    let killed = paths.iter().map(|path| kill_in(path)).sum();
    for path in freezers {
        gone_is_fine(files::write(&path.join(FREEZER_STATE), THAWED))?;
    }
    killed
}

fn gone_is_fine(result: Result<(), CgroupError>) -> Result<(), CgroupError> {
    result.or_else(|error| if error.is_missing() { Ok(()) } else { Err(error) })
}

fn kill_in(path: &Path) -> Result<usize, CgroupError> {
    let mut killer = Killer { found: 0 };
    let mut all = || {
        let Some(top) = unless_gone(open_in(CWD, &c_path(path)?))? else { return Ok(()) };
        killer.kill(top.as_fd())?;
        walk(top, &mut killer)
    };
    match all() {
        Err(Errno::BUSY) => Err(CgroupError::Busy(path.to_owned())),
        Err(errno) => Err(CgroupError::file("kill the processes in", path)(errno.into())),
        Ok(()) => Ok(killer.found),
    }
}

struct Killer {
    found: usize,
}

impl Killer {
    fn kill(&mut self, group: BorrowedFd<'_>) -> Result<(), Errno> {
        // In a threaded group of v2 there are threads only; kill(2) takes the number of any for its process.
        let text = match text_of(group, c"cgroup.procs") {
            Err(Errno::OPNOTSUPP) => text_of(group, c"cgroup.threads"),
            other => other,
        }?;
        // A process of another pid namespace shows as 0, which kill(2) would take for our own process group.
        for pid in text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0) {
            self.found += 1;
            // It may have ended since, which is what was wanted; a refusal shows in the next round.
            let _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        Ok(())
    }
}

impl Visitor for Killer {
    fn meet(&mut self, _parent: BorrowedFd<'_>, _name: &CStr) -> Result<bool, Errno> {
        Ok(true)
    }

    fn enter(&mut self, group: BorrowedFd<'_>) -> Result<(), Errno> {
        self.kill(group)?;
        thaw(group)
    }

    fn leave(&mut self, _parent: BorrowedFd<'_>, _name: &CStr) -> Result<(), Errno> {
        Ok(())
    }
}

/// Of v1; another hierarchy has no such file.
fn thaw(group: BorrowedFd<'_>) -> Result<(), Errno> {
    let opened = openat(group, FREEZER_STATE, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    match unless_gone(opened)? {
        Some(state) => unless_gone(write(&state, THAWED.as_bytes())).map(drop),
        None => Ok(()),
    }
}

/// Empty if the group is gone.
fn text_of(group: BorrowedFd<'_>, name: &CStr) -> Result<String, Errno> {
    let opened = openat(group, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let Some(file) = unless_gone(opened)? else { return Ok(String::new()) };
    let (mut text, mut page) = (Vec::new(), [0; 4096]);
    while let Some(length @ 1..) = unless_gone(read(&file, &mut page))? {
        text.extend_from_slice(&page[..length]);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

// --- Removing --------------------------------------------------------------------------------------------------

/// Removes a group and the groups below it, and waits a little for processes that are about to end.
pub(super) fn remove(path: &Path) -> Result<(), CgroupError> {
    for wait in WAITS_MILLIS {
        match remove_tree(path) {
            Err(CgroupError::Busy(_)) => thread::sleep(Duration::from_millis(wait)),
            done => return done,
        }
    }
    remove_tree(path)
}

/// The group itself is tried first: nearly always it has nothing below.
pub(super) fn remove_tree(path: &Path) -> Result<(), CgroupError> {
    let name = c_path(path).map_err(|errno| CgroupError::file("remove", path)(errno.into()))?;
    let all = || {
        if remove_one(CWD, &name)? {
            return Ok(());
        }
        if let Some(top) = unless_gone(open_in(CWD, &name))? {
            walk(top, &mut Remover)?;
        }
        if remove_one(CWD, &name)? { Ok(()) } else { Err(Errno::BUSY) }
    };
    all().map_err(|errno| match errno {
        Errno::BUSY => CgroupError::Busy(path.to_owned()),
        errno => CgroupError::file("remove", path)(errno.into()),
    })
}

struct Remover;

impl Visitor for Remover {
    fn meet(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<bool, Errno> {
        remove_one(parent, name).map(|removed| !removed)
    }

    fn enter(&mut self, _group: BorrowedFd<'_>) -> Result<(), Errno> {
        Ok(())
    }

    /// A process in it is no reason to leave the others.
    fn leave(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        remove_one(parent, name).map(drop)
    }
}

/// Whether it is gone now; else there are processes or groups in it.
fn remove_one(parent: impl AsFd, name: &CStr) -> Result<bool, Errno> {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::BUSY | Errno::NOTEMPTY) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn c_path(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| Errno::INVAL)
}
