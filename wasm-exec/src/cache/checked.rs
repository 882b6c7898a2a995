//! Which files were found right since the machine was started, so that a start of a program need not read all of its code.
//!
//! ```text
//! <file's name> -> <start of the machine> <device> <inode> <bytes> <changed> <kind>     a symbolic link that leads nowhere
//! ```
//!
//! A link is read by one system call and is never half written. Its directory is one that nobody else can write to. What a file's
//! inode says of its last change is the kernel's word: nobody can write to a file without it.

use super::kind::Kind;
use nix::{
    sys::time::TimeValLike,
    time::{ClockId, clock_gettime},
};
use rustix::fs::Stat;
use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, symlink},
    path::Path,
};

/// What the moment when the machine was started may differ by, from one time that it is asked for to another: rounding.
const ROUNDING_SECONDS: u64 = 1;

/// The kind of the file of this name in `dir`'s store, if it is the one that was found right.
pub(super) fn find(dir: &Path, name: &str, found: &Stat) -> Option<Kind> {
    let text = rustix::fs::readlink(dir.join(name), Vec::new()).ok()?.into_string().ok()?;
    let (boot, rest) = text.split_once(' ')?;
    if started()?.abs_diff(boot.parse().ok()?) > ROUNDING_SECONDS {
        return None;
    }
    let kind = rest.strip_prefix(&identity(found))?;
    Kind::numbered(kind.parse().ok()?)
}

/// Notes that the file was found right. What cannot be noted costs the next start the same check.
pub(super) fn note(dir: &Path, name: &str, found: &Stat, kind: Kind) {
    let Some(started) = started() else { return };
    let text = format!("{started} {}{}", identity(found), kind as u64);
    let link = dir.join(name);
    let noted = || {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        forget(dir, name)?;
        symlink(&text, &link)
    };
    let _ = noted();
}

/// Takes back what was noted of a file.
pub(super) fn forget(dir: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(dir.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn identity(of: &Stat) -> String {
    format!("{} {} {} {}.{:09} ", of.st_dev, of.st_ino, of.st_size, of.st_ctime, of.st_ctime_nsec)
}

/// When the machine was started, in seconds of the calendar, as `btime` in proc_stat(5); asking takes no system call.
fn started() -> Option<u64> {
    let millis = |clock| clock_gettime(clock).ok().map(|time| time.num_milliseconds());
    let started = millis(ClockId::CLOCK_REALTIME)? - millis(ClockId::CLOCK_BOOTTIME)?;
    u64::try_from(started / 1000).ok()
}
