//! Reading, writing and making: what v1 and v2 have in common.

use super::{CgroupError, Place, settings::Setting, subtree};
use linux_raw_sys::general::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// Whether a cgroup v2 tree is mounted there.
pub(super) fn is_v2(path: &Path) -> bool {
    is_on(path, CGROUP2_SUPER_MAGIC)
}

/// Whether a cgroup v1 hierarchy is mounted there.
pub(super) fn is_v1(path: &Path) -> bool {
    is_on(path, CGROUP_SUPER_MAGIC)
}

fn is_on(path: &Path, magic: u32) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| u64::try_from(found.f_type) == Ok(u64::from(magic)))
}

/// The first mount whose type and options are `wanted`.
///
/// proc_pid_mountinfo(5): the mount point is the fifth field; after ` - ` come type, source and the file system's own options,
/// among which a v1 hierarchy names its controllers.
pub(super) fn mount_point(mountinfo: &str, wanted: &dyn Fn(&str, &str) -> bool) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = file_system.split(' ');
        let (kind, options) = (fields.next()?, fields.nth(1)?);
        let path = mount.split(' ').nth(4)?;
        wanted(kind, options).then(|| PathBuf::from(path.replace("\\040", " ")))
    })
}

/// Why a file or directory cannot be written; None if it can.
pub(super) fn write_obstacle(path: &Path) -> Option<io::Error> {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).err().map(io::Error::from)
}

/// The sentence for a tree that nobody may write: usual inside of a container.
pub(super) fn read_only(path: &Path) -> String {
    let path = path.display();
    format!(
        "{path} is mounted read-only; `mount -o remount,rw {path}` makes it writable where that is permitted, otherwise the \
         container that this runs in must be started with a writable one (Docker: `--privileged`)"
    )
}

/// Writes a value; nothing is created.
pub(super) fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    let written = open_for_writing(path).and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(CgroupError::file(format!("write `{value}` to"), path))
}

pub(super) fn open_for_writing(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

/// The text of a small file (a page at most) without the blanks at its end, by one read(2): the kernel gives it in one piece.
pub(super) fn read(path: &Path) -> Result<String, CgroupError> {
    let mut page = [0; 4096];
    let len = File::open(path).and_then(|mut file| file.read(&mut page)).map_err(CgroupError::file("read", path))?;
    Ok(String::from_utf8_lossy(&page[..len]).trim_end().to_owned())
}

/// A file that holds one number; None if it is missing or holds something else.
pub(super) fn read_number(path: &Path) -> Option<u64> {
    read(path).ok()?.parse().ok()
}

/// The number after `key` in a file of `key number` lines.
pub(super) fn read_keyed(path: &Path, key: &str) -> Option<u64> {
    keyed(&read(path).ok()?, key)
}

fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

/// Makes a group's directory; an empty one of that name was left behind by a process that was killed, and is made anew. What lies below
/// one is ours to remove only at our own place.
pub(super) fn make(path: &Path, place: &Place) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if place.is_default() {
                subtree::remove_tree(path)?;
            } else {
                fs::remove_dir(path).map_err(|_| CgroupError::Busy(path.to_owned()))?;
            }
            fs::create_dir(path).map_err(CgroupError::file("make", path))
        }
        made => made.map_err(CgroupError::file("make", path)),
    }
}

/// Writes a value to the first of its files that there is.
pub(super) fn apply(path: &Path, setting: &Setting) -> Result<(), CgroupError> {
    match (write(&path.join(&setting.file), &setting.value), &setting.instead) {
        (Err(error), Some((file, value))) if error.is_missing() => write(&path.join(file), value),
        (Err(error), None) if error.is_missing() && setting.optional => Ok(()),
        (done, _) => done,
    }
}

/// Writes values of which one may only be possible after another (a sum that must not be the smaller one, a quota in its period).
pub(super) fn apply_in_any_order(
    settings: &[Setting],
    write: &dyn Fn(&Setting) -> Result<(), CgroupError>,
) -> Result<(), CgroupError> {
    let refused: Vec<&Setting> = settings.iter().filter(|setting| write(setting).is_err()).collect();
    refused.into_iter().try_for_each(write)
}

/// Makes the directory that all groups lie in; another process may have been quicker.
pub(super) fn make_parent(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(CgroupError::file("make", path)),
    }
}

/// The directories in a directory; none if it cannot be read.
pub(super) fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points() {
        let mountinfo = "24 23 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            25 24 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            26 24 0:24 /docker/1 /odd\\040place/mem rw - cgroup memory rw,memory\n\
            27 24 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        for (kind, option, expected) in [
            ("cgroup", "cpu", Some("/sys/fs/cgroup/cpu,cpuacct")),
            ("cgroup", "cpuacct", Some("/sys/fs/cgroup/cpu,cpuacct")),
            ("cgroup", "memory", Some("/odd place/mem")),
            ("cgroup2", "rw", Some("/sys/fs/cgroup/unified")),
            ("cgroup", "pids", None),
        ] {
            let wanted = |found: &str, options: &str| found == kind && options.split(',').any(|name| name == option);
            assert_eq!(mount_point(mountinfo, &wanted).as_deref(), expected.map(Path::new), "{option}");
        }
    }

    #[test]
    fn keyed_files() {
        let text = "low 0\nhigh 3\noom 1\noom_kill 12\noom_group_kill 0\nbad x";
        for (key, expected) in [("oom_kill", Some(12)), ("oom", Some(1)), ("oom_", None), ("bad", None), ("max", None)]
        {
            assert_eq!(keyed(text, key), expected, "{key}");
        }
    }
}
