//! openat2(2), which looks a path up under rules that the kernel keeps.
//!
//! Under such rules it gives EAGAIN when anything anywhere on the machine was renamed while it went through `..`: it cannot tell then
//! whether it is still where it must be. A container that renames all the time is not to decide whether another one starts.
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Mode, OFlags, ResolveFlags},
    io::{Errno, Result},
    path::Arg,
    thread::sched_yield,
};

/// So many renames in a row at the worst moment do not happen by themselves, nor by those who try.
const ATTEMPTS: usize = 10_000;

/// Opens a path below `directory` (close-on-exec). With a C string it allocates nothing.
pub(crate) fn open<P: Arg + Copy>(
    directory: impl AsFd,
    path: P,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    let directory = directory.as_fd();
    let once = || rustix::fs::openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
    for _ in 1..ATTEMPTS {
        match once() {
            Err(Errno::AGAIN) => sched_yield(),
            result => return result,
        }
    }
    once()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        sync::atomic::{AtomicBool, Ordering},
    };

    #[test]
    fn renames_elsewhere_fail_no_lookup() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["root/a/b/c", "one/moved", "two"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let root = fs::File::open(at("root")).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    fs::rename(at("one/moved"), at("two/moved")).unwrap();
                    fs::rename(at("two/moved"), at("one/moved")).unwrap();
                }
            });
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let failed = (0..2000)
                .find_map(|_| open(&root, c"a/b/c/../../../a/b/../b/c/../c/..", flags, ResolveFlags::IN_ROOT).err());
            done.store(true, Ordering::Relaxed);
            assert_eq!(failed, None);
        });
    }
}
