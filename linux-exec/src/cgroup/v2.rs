//! cgroup v2: one tree, in which a controller is passed on from parent to child by `cgroup.subtree_control`.

use super::{
    CgroupError, Controller, INSIDE, PARENT, Place, Resources, Usage, devices, files,
    settings::{self, Setting},
    subtree, values,
};
use crate::sys;
use rustix::fs::{Mode, OFlags};
use std::os::fd::AsFd;
use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// Where in the tree our groups may lie.
pub(super) struct Tree {
    top: PathBuf,
    /// The directory that `amphora` lies in, or why there is none.
    base: Result<PathBuf, String>,
}

/// A container's directory.
pub(super) struct Group {
    pub(super) path: PathBuf,
    /// For CLONE_INTO_CGROUP.
    pub(super) handle: OwnedFd,
    /// For those who join later. Opened at once, so that a group that cannot be joined fails here and not in the child.
    pub(super) procs: File,
    /// Set by the one who makes it.
    pub(super) restricts_devices: bool,
}

impl Tree {
    /// The top for those who may write there (root), else below this process's own group.
    pub(super) fn find(top: &Path) -> Result<Self, CgroupError> {
        let base = match files::write_obstacle(top) {
            None => Ok(top.to_owned()),
            Some(error) => delegated(top, &own_path()?).ok_or_else(|| no_delegation(top, &error)),
        };
        Ok(Self { top: top.to_owned(), base })
    }

    /// Our parent directory; it may not exist yet.
    pub(super) fn parent(&self) -> Option<PathBuf> {
        Some(self.base.as_ref().ok()?.join(PARENT))
    }

    /// Why a controller cannot be used.
    pub(super) fn obstacle(&self, controller: Controller) -> Option<String> {
        let base = match &self.base {
            Ok(base) => base,
            Err(reason) => return Some(reason.clone()),
        };
        if matches!(controller, Controller::Devices | Controller::Freezer) {
            return None;
        }
        let name = controller.v2_name();
        let lists = |path: PathBuf| files::read(&path).is_ok_and(|list| list.split(' ').any(|listed| listed == name));
        if lists(base.join(PARENT).join("cgroup.controllers")) || lists(base.join("cgroup.subtree_control")) {
            return None;
        }
        if !lists(base.join("cgroup.controllers")) {
            return Some(not_offered(name, base));
        }
        has_inner_processes(base).then(|| inner_processes(base))
    }

    /// Whether swap can be limited; a group that has the memory controller tells.
    pub(super) fn accounts_swap(&self) -> bool {
        let Some(parent) = self.parent() else { return false };
        let ready = parent.join("memory.max").exists()
            || files::make_parent(&parent)
                .and_then(|()| enable(Controller::Memory, self.base_of_ours()?, std::slice::from_ref(&parent)))
                .is_ok();
        ready && parent.join("memory.swap.max").exists()
    }

    fn base_of_ours(&self) -> Result<&Path, CgroupError> {
        self.base.as_deref().map_err(|reason| CgroupError::Unenforceable(reason.clone()))
    }

    /// Where a place begins.
    fn base_of(&self, place: &Place) -> Result<&Path, CgroupError> {
        if place.is_absolute() { Ok(&self.top) } else { self.base_of_ours() }
    }

    /// Makes the directory and sets the limits; on failure takes it back.
    pub(super) fn create(&self, place: &Place, wanted: &Resources) -> Result<Group, CgroupError> {
        let base = self.base_of(place)?;
        let (parents, path) = (place.parents(base), place.path(base));
        match files::make(&path, place) {
            Err(error) if error.is_missing() => {
                parents.iter().try_for_each(|parent| files::make_parent(parent))?;
                // For the figures that they give even without a limit; where a limit needs them, it will say what fails.
                let _ = enable(Controller::Memory, base, &parents);
                let _ = enable(Controller::Pids, base, &parents);
                files::make(&path, place)?;
            }
            made => made?,
        }
        let restricted = wanted.restrict_devices || wanted.further.devices.is_some();
        let limited = match restricted || wanted.every_hierarchy {
            true => files::make_parent(&path.join(INSIDE)),
            false => Ok(()),
        };
        let group = limited.and_then(|()| self.limit(place, wanted)).and_then(|()| Group::open(path.clone()));
        let mut group = group.inspect_err(|_| drop(subtree::remove_tree(&path)))?;
        let attached = match &wanted.further.devices {
            Some(rules) => restrict_devices(&path, &devices::compile(rules)),
            None if wanted.restrict_devices => restrict_devices(&path, &devices::PROGRAM),
            None => return Ok(group),
        };
        group.restricts_devices = attached.is_ok();
        match attached {
            Err(error) if wanted.further.devices.is_some() => {
                let _ = subtree::remove_tree(&path);
                Err(error)
            }
            _ => Ok(group),
        }
    }

    /// The directory, if there is one.
    pub(super) fn open(&self, place: &Place) -> Result<Option<Group>, CgroupError> {
        let Ok(base) = self.base_of(place) else { return Ok(None) };
        match Group::open(place.path(base)) {
            Ok(group) => Ok(Some(group)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Changes limits.
    pub(super) fn update(&self, place: &Place, wanted: &Resources) -> Result<(), CgroupError> {
        files::apply_in_any_order(&settings::v2(wanted), &|setting| self.set(place, setting))
    }

    fn limit(&self, place: &Place, wanted: &Resources) -> Result<(), CgroupError> {
        settings::v2(wanted).iter().try_for_each(|setting| self.set(place, setting))?;
        // The kernel takes CPUs that are not there, and then allows all.
        wanted.cpuset_cpus.as_ref().map_or(Ok(()), |cpus| {
            let parent = place.parent(self.base_of(place)?);
            values::check_cpus(cpus, &files::read(&parent.join("cpuset.cpus.effective"))?)
        })
    }

    /// A file that is not there is the sign of a controller that is not passed on yet.
    fn set(&self, place: &Place, setting: &Setting) -> Result<(), CgroupError> {
        let base = self.base_of(place)?;
        let path = place.path(base);
        match files::write(&path.join(&setting.file), &setting.value) {
            Err(error) if error.is_missing() => {
                enable(setting.controller, base, &place.parents(base))?;
                files::apply(&path, setting)
            }
            done => done,
        }
    }
}

/// Passes a controller on from the base to what a group lies in, from each to the next, and from there to the group.
///
/// The kernel would not refuse `cpu` and `pids` beside inner processes, but make the base the root of a threaded subtree,
/// below which no group takes a process.
fn enable(controller: Controller, base: &Path, parents: &[PathBuf]) -> Result<(), CgroupError> {
    if has_inner_processes(base) {
        return Err(CgroupError::Unenforceable(inner_processes(base)));
    }
    let value = format!("+{}", controller.v2_name());
    let mut passing = std::iter::once(base).chain(parents.iter().map(PathBuf::as_path));
    passing.try_for_each(|group| files::write(&group.join("cgroup.subtree_control"), &value))
}

/// This process's group, from the top of the tree: the line `0::/…` of proc_pid_cgroup(5).
fn own_path() -> Result<PathBuf, CgroupError> {
    let path = Path::new("/proc/self/cgroup");
    let text = fs::read_to_string(path).map_err(CgroupError::file("read", path))?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(PathBuf::from(own.unwrap_or_default()))
}

/// The nearest group from `own` upwards that may be written and whose controllers can be passed on. A process may only be
/// moved between groups whose common ancestor may be written, so the search ends at the first one that may not.
fn delegated(top: &Path, own: &Path) -> Option<PathBuf> {
    let own = top.join(own);
    let ours = own.ancestors().take_while(|group| group.starts_with(top) && is_ours(group));
    ours.into_iter().find(|group| !has_inner_processes(group)).map(Path::to_owned)
}

fn is_ours(group: &Path) -> bool {
    let writable = |path: &Path| files::write_obstacle(path).is_none();
    writable(group) && writable(&group.join("cgroup.procs")) && writable(&group.join("cgroup.subtree_control"))
}

/// Whether the kernel's rule against inner processes keeps this group from passing controllers on. The root of the whole
/// tree, which has no `cgroup.type`, is exempt from it.
fn has_inner_processes(group: &Path) -> bool {
    group.join("cgroup.type").exists() && files::read(&group.join("cgroup.procs")).is_ok_and(|pids| !pids.is_empty())
}

fn no_delegation(top: &Path, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
        return files::read_only(top);
    }
    format!(
        "{} cannot be written ({error}) and no cgroup above this process is delegated to its user; where systemd runs, \
         `systemd-run --user --scope -p Delegate=yes amphora …` starts it in one that is",
        top.display()
    )
}

fn not_offered(name: &str, base: &Path) -> String {
    format!(
        "the `{name}` controller is not among those of {}/cgroup.controllers; its parents must pass it on (for an ordinary \
         user under systemd: `Delegate={name}` in a drop-in of user@.service), or the kernel does not have it",
        base.display()
    )
}

fn inner_processes(base: &Path) -> String {
    let base = base.display();
    format!(
        "{base} has processes of its own, so the kernel lets it pass no controller on; move them out of the way first: \
         `mkdir {base}/init && while read pid; do echo $pid >{base}/init/cgroup.procs; done <{base}/cgroup.procs`"
    )
}

fn open_directory(path: &Path) -> Result<OwnedFd, CgroupError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    opened.map_err(|errno| CgroupError::file("open", path)(errno.into()))
}

fn restrict_devices(path: &Path, program: &[u64]) -> Result<(), CgroupError> {
    let attached = sys::restrict_devices(open_directory(path)?.as_fd(), program);
    attached.map_err(|errno| CgroupError::file("attach a program for devices to", path)(errno.into()))
}

impl Group {
    fn open(path: PathBuf) -> Result<Self, CgroupError> {
        let (handle, entered) = match open_directory(&path.join(INSIDE)) {
            Err(error) if error.is_missing() => (open_directory(&path)?, path.clone()),
            opened => (opened?, path.join(INSIDE)),
        };
        let procs = entered.join("cgroup.procs");
        let procs = files::open_for_writing(&procs).map_err(CgroupError::file("open", &procs))?;
        Ok(Self { path, handle, procs, restricts_devices: false })
    }

    pub(super) fn usage(&self) -> Usage {
        let keyed = |file: &str, key: &str| files::read_keyed(&self.path.join(file), key);
        Usage {
            peak_memory_bytes: files::read_number(&self.path.join("memory.peak")),
            oom_kills: keyed("memory.events", "oom_kill").unwrap_or(0),
            pids_refused: keyed("pids.events", "max").unwrap_or(0),
            cpu_usec: keyed("cpu.stat", "usage_usec"),
        }
    }
}
