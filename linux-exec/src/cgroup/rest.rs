//! Groups in the hierarchies that no limit needs: of other controllers, of names, and on a hybrid machine the v2 tree.
//!
//! Where a container has no group of its own, its cgroup namespace begins at the caller's, which mostly is the hierarchy's root.
//! A program that can mount would see there what this process sees: on v1 the `release_agent`, which the kernel runs as root
//! of the host, and everywhere the groups of the host's services, which it could stop. A hierarchy that has a group in it
//! cannot be remounted with another `release_agent` either, and none can be made outside of the first cgroup namespace.
//!
//! Unlike those of the limits, our parent directories do not stay, as with one in it a hierarchy outlives its last mount.

use super::{CgroupError, PARENT, Place, ROOT, files, subtree, v1};
use crate::detached;
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    mount::{FsOpenFlags, fsconfig_set_flag, fsconfig_set_string, fsopen},
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

/// How often a parent directory is made that another command takes away again meanwhile.
const ATTEMPTS: usize = 100;

/// A container's directory in one hierarchy.
pub(super) struct Group {
    pub(super) path: PathBuf,
    entrance: File,
    _mount: Option<OwnedFd>,
}

/// A hierarchy, as the second field of proc_pid_cgroup(5) tells it: `blkio`, `cpu,cpuacct`, `name=systemd`; empty for the v2 tree.
#[derive(PartialEq)]
struct Hierarchy(String);

/// Where a hierarchy can be reached.
struct Root {
    path: PathBuf,
    /// By this one, if it is mounted nowhere; `path` leads through the descriptor.
    mount: Option<OwnedFd>,
}

/// Makes a group in each hierarchy of which `covered`, told one of its controllers, says no; on failure takes back what was made.
pub(super) fn create(place: &Place, covered: &dyn Fn(&str) -> bool) -> Result<Vec<Group>, CgroupError> {
    let mut groups = Vec::new();
    for hierarchy in uncovered(covered)? {
        match hierarchy.create(place) {
            Ok(group) => groups.push(group),
            // It was about to go, since it lost its last mount.
            Err(_) if !uncovered(covered)?.contains(&hierarchy) => {}
            Err(error) => {
                groups.iter().try_for_each(Group::remove)?;
                return Err(error);
            }
        }
    }
    Ok(groups)
}

/// Those that there are.
pub(super) fn open(place: &Place, covered: &dyn Fn(&str) -> bool) -> Result<Vec<Group>, CgroupError> {
    let mut groups = Vec::new();
    for hierarchy in uncovered(covered)? {
        let Ok(root) = hierarchy.root() else { continue };
        let path = place.path(&root.path);
        match hierarchy.enter(root, path) {
            Ok(group) => groups.push(group),
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(groups)
}

/// The names of all groups.
pub(super) fn list(covered: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let hierarchies = uncovered(covered).unwrap_or_default();
    let roots = hierarchies.iter().filter_map(|hierarchy| hierarchy.root().ok());
    roots.flat_map(|root| files::directories(&root.path.join(PARENT))).collect()
}

/// The hierarchies that this process is in, which are all.
fn uncovered(covered: &dyn Fn(&str) -> bool) -> Result<Vec<Hierarchy>, CgroupError> {
    let path = Path::new("/proc/self/cgroup");
    let text = fs::read_to_string(path).map_err(CgroupError::file("read", path))?;
    Ok(parse(&text, covered))
}

fn parse(text: &str, covered: &dyn Fn(&str) -> bool) -> Vec<Hierarchy> {
    let controllers = text.lines().filter_map(|line| line.split(':').nth(1));
    let uncovered = controllers.filter(|controllers| !controllers.split(',').any(covered));
    uncovered.map(|controllers| Hierarchy(controllers.to_owned())).collect()
}

impl Hierarchy {
    /// One of its controllers, or `name=…`: each belongs to one hierarchy only.
    fn key(&self) -> &str {
        self.0.split(',').next().unwrap_or_default()
    }

    fn is_v2(&self) -> bool {
        self.0.is_empty()
    }

    fn create(&self, place: &Place) -> Result<Group, CgroupError> {
        self.try_to_create(place).map_err(|error| match error {
            CgroupError::Busy(_) => error,
            error => CgroupError::Shared { hierarchy: self.describe(), reason: error.to_string() },
        })
    }

    fn try_to_create(&self, place: &Place) -> Result<Group, CgroupError> {
        let root = self.root()?;
        let path = place.path(&root.path);
        self.make(&root.path, place, &path)?;
        self.enter(root, path.clone()).inspect_err(|_| drop(subtree::remove_tree(&path)))
    }

    /// The parent, which every command removes that finds it empty, and the group in it.
    fn make(&self, root: &Path, place: &Place, path: &Path) -> Result<(), CgroupError> {
        let once = || {
            place.parents(root).iter().try_for_each(|parent| files::make_parent(parent))?;
            files::make(path, place)?;
            if self.0.split(',').any(|controller| controller == "cpuset") {
                v1::inherit_cpuset(&v1::inherit_to_parent(root, place)?, path)?;
            }
            Ok(())
        };
        let mut made = once();
        for _ in 0..ATTEMPTS {
            match made {
                Err(error) if CgroupError::is_missing(&error) => made = once(),
                _ => break,
            }
        }
        made
    }

    fn enter(&self, root: Root, path: PathBuf) -> Result<Group, CgroupError> {
        let file = path.join(if self.is_v2() { "cgroup.procs" } else { "tasks" });
        let entrance = files::open_for_writing(&file).map_err(CgroupError::file("open", &file))?;
        Ok(Group { path, entrance, _mount: root.mount })
    }

    /// The usual place, where the mount table says, or nowhere: one that only its groups keep alive, since it was unmounted.
    fn root(&self) -> Result<Root, CgroupError> {
        let path = if self.is_v2() { v2_mount_point() } else { v1::find(self.key()) };
        if let Some(path) = path {
            return Ok(Root { path, mount: None });
        }
        let mounted = self.mount().map_err(|errno| CgroupError::File {
            action: "mount".to_owned(),
            path: self.describe().into(),
            source: errno.into(),
        })?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", mounted.as_raw_fd()));
        Ok(Root { path, mount: Some(mounted) })
    }

    fn mount(&self) -> rustix::io::Result<OwnedFd> {
        let context = fsopen(if self.is_v2() { c"cgroup2" } else { c"cgroup" }, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for option in self.0.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some((key, value)) => fsconfig_set_string(context.as_fd(), key, value)?,
                None => fsconfig_set_flag(context.as_fd(), option)?,
            }
        }
        detached::finish(context.as_fd(), detached::PLAIN)
    }

    fn describe(&self) -> String {
        if self.is_v2() { "cgroup v2".to_owned() } else { self.0.clone() }
    }
}

fn v2_mount_point() -> Option<PathBuf> {
    let usual = [Path::new(ROOT).to_owned(), Path::new(ROOT).join("unified")];
    usual.into_iter().find(|path| files::is_v2(path)).or_else(|| {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").ok()?;
        files::mount_point(&mountinfo, &|kind, _| kind == "cgroup2")
    })
}

impl Group {
    pub(super) fn entrance(&self) -> BorrowedFd<'_> {
        self.entrance.as_fd()
    }

    /// Removes it, and our parent directory if it was the last one in it.
    pub(super) fn remove(&self) -> Result<(), CgroupError> {
        subtree::remove(&self.path)?;
        if let Some(parent) = self.path.parent().filter(|parent| parent.ends_with(PARENT)) {
            // Another container's group is in it.
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_which_none_is_covered() {
        let text = "12:cpu,cpuacct:/\n11:misc:/a:b\n3:cpuset:/\n2:devices,name=x:/\n1:name=systemd:/user.slice\n0::/user.slice\n";
        for (covered, expected) in [
            (&["cpuacct", "devices"][..], &["misc", "cpuset", "name=systemd", ""][..]),
            (&["", "name=systemd", "cpu"], &["misc", "cpuset", "devices,name=x"]),
        ] {
            let found = parse(text, &|controller| covered.contains(&controller));
            assert_eq!(found.into_iter().map(|hierarchy| hierarchy.0).collect::<Vec<_>>(), expected);
        }
    }
}
