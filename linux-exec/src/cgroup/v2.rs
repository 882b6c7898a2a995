//! cgroup v2: one tree, in which a controller is passed on from parent to child by `cgroup.subtree_control`.

use super::{CgroupError, Controller, PARENT, Resources, Usage, devices, files, subtree, values};
use crate::sys;
use rustix::fs::{Mode, OFlags};
use std::os::fd::AsFd;
use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// The group below a container's own in which its processes are if they can mount: they see this one as the root, and reach
/// neither the limits nor the program for devices, which are above it.
const INSIDE: &str = "inside";

/// Where in the tree our groups may lie.
pub(super) struct Tree {
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
        Ok(Self { base })
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
        let name = controller.name();
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
            || files::make_parent(&parent).and_then(|()| self.enable(Controller::Memory)).is_ok();
        ready && parent.join("memory.swap.max").exists()
    }

    /// Makes the directory and sets the limits; on failure takes it back.
    pub(super) fn create(&self, id: &str, wanted: &Resources) -> Result<Group, CgroupError> {
        let base = self.base.as_ref().map_err(|reason| CgroupError::Unenforceable(reason.clone()))?;
        let parent = base.join(PARENT);
        let path = parent.join(id);
        match files::make(&path) {
            Err(error) if error.is_missing() => {
                files::make_parent(&parent)?;
                // For the figures that they give even without a limit; where a limit needs them, it will say what fails.
                let _ = self.enable(Controller::Memory);
                let _ = self.enable(Controller::Pids);
                files::make(&path)?;
            }
            made => made?,
        }
        let inside =
            if wanted.restrict_devices || wanted.every_hierarchy { files::make(&path.join(INSIDE)) } else { Ok(()) };
        let group = inside.and_then(|()| self.limit(&parent, &path, wanted)).and_then(|()| Group::open(path.clone()));
        let mut group = group.inspect_err(|_| drop(subtree::remove_tree(&path)))?;
        group.restricts_devices = wanted.restrict_devices && restrict_devices(&path).is_ok();
        Ok(group)
    }

    /// The directory, if there is one.
    pub(super) fn open(&self, id: &str) -> Result<Option<Group>, CgroupError> {
        let Some(parent) = self.parent() else { return Ok(None) };
        match Group::open(parent.join(id)) {
            Ok(group) => Ok(Some(group)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn limit(&self, parent: &Path, path: &Path, wanted: &Resources) -> Result<(), CgroupError> {
        if let Some(memory) = wanted.memory_bytes {
            self.set(Controller::Memory, path, "memory.max", &memory.to_string())?;
            limit_swap(path, memory, wanted)?;
        }
        if let Some(millis) = wanted.cpu_millis {
            let bandwidth = format!("{} {}", values::cpu_quota_usec(millis), values::CPU_PERIOD_USEC);
            self.set(Controller::Cpu, path, "cpu.max", &bandwidth)?;
        }
        if let Some(shares) = wanted.cpu_shares {
            self.set(Controller::Cpu, path, "cpu.weight", &values::cpu_weight(shares).to_string())?;
        }
        if let Some(cpus) = &wanted.cpuset_cpus {
            self.set(Controller::Cpuset, path, "cpuset.cpus", cpus)?;
            // The kernel takes CPUs that are not there, and then allows all.
            values::check_cpus(cpus, &files::read(&parent.join("cpuset.cpus.effective"))?)?;
        }
        wanted.pids.map_or(Ok(()), |pids| self.set(Controller::Pids, path, "pids.max", &pids.to_string()))
    }

    /// A file that is not there is the sign of a controller that is not passed on yet.
    fn set(&self, controller: Controller, path: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
        match files::write(&path.join(file), value) {
            Err(error) if error.is_missing() => {
                self.enable(controller)?;
                files::write(&path.join(file), value)
            }
            done => done,
        }
    }

    /// Passes a controller on from the base to our parent, and from there to the containers.
    ///
    /// The kernel would not refuse `cpu` and `pids` beside inner processes, but make the base the root of a threaded subtree,
    /// below which no group takes a process.
    fn enable(&self, controller: Controller) -> Result<(), CgroupError> {
        let base = self.base.as_ref().map_err(|reason| CgroupError::Unenforceable(reason.clone()))?;
        if has_inner_processes(base) {
            return Err(CgroupError::Unenforceable(inner_processes(base)));
        }
        let value = format!("+{}", controller.name());
        files::write(&base.join("cgroup.subtree_control"), &value)?;
        files::write(&base.join(PARENT).join("cgroup.subtree_control"), &value)
    }
}

/// v2 limits swap alone, not the sum.
fn limit_swap(path: &Path, memory: u64, wanted: &Resources) -> Result<(), CgroupError> {
    let value = match wanted.memory_swap_bytes {
        Some(u64::MAX) => return Ok(()),
        Some(sum) => sum.saturating_sub(memory),
        None => 0,
    };
    match files::write(&path.join("memory.swap.max"), &value.to_string()) {
        // Swap is not accounted. Where a limit on it was asked for, `unenforceable` has said so.
        Err(error) if error.is_missing() && !values::limits_swap(wanted) => Ok(()),
        done => done,
    }
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

fn restrict_devices(path: &Path) -> Result<(), CgroupError> {
    let attached = sys::restrict_devices(open_directory(path)?.as_fd(), &devices::PROGRAM);
    attached.map_err(|errno| CgroupError::file("attach a program to", path)(errno.into()))
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
