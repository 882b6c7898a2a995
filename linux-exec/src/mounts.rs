//! A plan's mounts as steps.
use crate::{
    actions::Hidden,
    confinement::Namespaces,
    detached,
    devices::{Devices, Nodes},
    error::Error,
    magic,
    plan::{Mount, MountSource, Plan},
    steps::{MAX_MADE, Place, Step},
    sys,
    target::{c_path, target},
};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, FileType, statat, statfs},
    io::Errno,
    mount::MountAttrFlags,
};
use std::{ffi::CStr, path::Path};

/// The size of /dev itself, as Docker has it.
const DEV_BYTES: u64 = 64 * 1024 * 1024;

/// Collects the steps for the mounts of one plan.
pub(crate) struct Mounts<'a> {
    /// Before the root is entered.
    pub(crate) before: Vec<Step<'a>>,
    /// In it: the runtime's own mounts, masks and read-only paths, then what somebody asked for.
    pub(crate) steps: Vec<Step<'a>>,
    user_namespace: bool,
    namespaces: Namespaces<'a>,
    /// The container has all of the host's devices: nodes open them.
    host_devices: bool,
    made: usize,
    /// Made before, when the plan has a terminal in it.
    devpts: Option<OwnedFd>,
}

impl<'a> Mounts<'a> {
    /// Prepares the mounts of a plan. `terminal`: the devpts that the plan's terminal is in, and that terminal.
    pub(crate) fn prepare(plan: &Plan<'a>, terminal: Option<(OwnedFd, OwnedFd)>) -> Result<Self, Error> {
        let namespaces = *plan.confinement.namespaces();
        let user_namespace = namespaces.user.is_some() || sys::in_user_namespace();
        let (before, steps) = (Vec::new(), Vec::new());
        let (devpts, console) = terminal.unzip();
        let host_devices = has_host_devices(plan);
        let mut mounts = Self { before, steps, user_namespace, namespaces, host_devices, made: 0, devpts };
        if !plan.masked_paths.is_empty()
            || plan.mounts.iter().any(|mount| matches!(mount.source, MountSource::Dev { .. }))
        {
            mounts.before.push(Step::MakeNodes(Nodes::prepare(user_namespace)?));
        }
        // What the runtime relies on comes first, when all that lies in the root is what was there before the container's start.
        for mount in plan.mounts.iter().filter(|mount| is_own(mount)) {
            mounts.add(mount)?;
        }
        if mounts.devpts.is_some() {
            return Err(Error::new("provide a terminal", Errno::NODEV).hint("it needs the mount of /dev"));
        }
        mounts.steps.extend(console.map(Step::Console));
        for path in &plan.masked_paths {
            mounts.steps.push(Step::Mask(hidden(plan, path)?));
        }
        for path in &plan.readonly_paths {
            mounts.steps.push(Step::ReadOnlyPath(hidden(plan, path)?));
        }
        for mount in plan.mounts.iter().filter(|mount| !is_own(mount)) {
            mounts.add(mount)?;
        }
        Ok(mounts)
    }

    fn add(&mut self, mount: &Mount) -> Result<(), Error> {
        let attributes = with_read_only(detached::PLAIN, mount.readonly);
        match &mount.source {
            MountSource::Proc => self.make(c"proc", attributes, path(mount)?, false),
            MountSource::Mqueue => self.mqueue(path(mount)?, attributes),
            MountSource::Sysfs if self.user_namespace && self.namespaces.network.is_callers() => self.host_sysfs(mount),
            MountSource::Sysfs => self.make(c"sysfs", attributes, path(mount)?, false),
            MountSource::Cgroup => self.cgroup(mount),
            MountSource::Dev { shm_bytes, host_devices } => self.dev(&mount.target, *shm_bytes, *host_devices),
            MountSource::Tmpfs { size_bytes, mode, exec } => {
                let mut attributes = attributes;
                attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, !exec);
                let tree = tmpfs(&mount.target, *size_bytes, *mode, attributes)?;
                self.attach(tree, &mount.target, false)
            }
            MountSource::Bind { source, recursive } => self.bind(mount, source, *recursive),
        }
    }

    fn make(
        &mut self,
        kind: &'static CStr,
        attributes: MountAttrFlags,
        place: Place,
        optional: bool,
    ) -> Result<(), Error> {
        let slot = self.made;
        if slot == MAX_MADE {
            return Err(Error::new(format!("mount more than {MAX_MADE} of the kernel's file systems"), Errno::INVAL));
        }
        self.made += 1;
        self.before.push(Step::Make { kind, attributes, slot, optional });
        self.steps.push(Step::AttachMade { kind, place, slot });
        Ok(())
    }

    /// The host's network namespace belongs to another user namespace, so its sysfs can be bound but not mounted.
    fn host_sysfs(&mut self, mount: &Mount) -> Result<(), Error> {
        let tree = detached::copy(Path::new("/sys"), true, MountAttrFlags::MOUNT_ATTR_RDONLY)
            .map_err(|errno| Error::new("bind the host's /sys", errno))?;
        self.steps.push(Step::AttachOwn { tree, place: path(mount)? });
        Ok(())
    }

    /// cgroup v2 only: a v1 tree is a mount for each controller, which few programs look at, so there is none.
    fn cgroup(&mut self, mount: &Mount) -> Result<(), Error> {
        match statfs(c"/sys/fs/cgroup") {
            Ok(stat) if stat.f_type == magic::CGROUP2 => {
                self.make(c"cgroup2", with_read_only(detached::PLAIN, mount.readonly), path(mount)?, true)
            }
            _ => Ok(()),
        }
    }

    fn bind(&mut self, mount: &Mount, source: &Path, recursive: bool) -> Result<(), Error> {
        let devices = if self.host_devices { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_NODEV };
        let attributes = with_read_only(devices, mount.readonly);
        let error = |errno| {
            let error = Error::new(format!("bind {} on {}", source.display(), mount.target.display()), errno);
            match errno {
                Errno::NOENT => error.hint("the source does not exist on the host"),
                Errno::INVAL if !recursive => {
                    error.hint("in a user namespace mounts below the source cannot be left out: bind recursively")
                }
                _ => error,
            }
        };
        let tree = detached::copy(source, recursive, attributes).map_err(error)?;
        let stat = statat(&tree, c"", AtFlags::EMPTY_PATH).map_err(error)?;
        self.attach(tree, &mount.target, FileType::from_raw_mode(stat.st_mode) != FileType::Directory)
    }

    fn attach(&mut self, tree: OwnedFd, at: &Path, file: bool) -> Result<(), Error> {
        self.steps.push(Step::Attach { tree, target: target(at)?, file });
        Ok(())
    }

    /// /dev and what is mounted in it; see [`crate::devices`].
    fn dev(&mut self, at: &Path, shm_bytes: u64, host_devices: bool) -> Result<(), Error> {
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID;
        attributes.set(MountAttrFlags::MOUNT_ATTR_NODEV, !host_devices);
        let tree = tmpfs(at, Some(DEV_BYTES), 0o755, attributes)?;
        let devices = Devices::prepare(self.user_namespace, host_devices)?;
        self.steps.push(Step::AttachDev { tree, target: target(at)?, devices });
        match self.devpts.take() {
            Some(devpts) => self.steps.push(Step::AttachOwn { tree: devpts, place: Place::Dev(c"pts") }),
            None => self.make(c"devpts", MountAttrFlags::empty(), Place::Dev(c"pts"), false)?,
        }
        let shm = tmpfs(&at.join("shm"), Some(shm_bytes), 0o1777, detached::PLAIN)?;
        self.steps.push(Step::AttachOwn { tree: shm, place: Place::Dev(c"shm") });
        self.mqueue(Place::Dev(c"mqueue"), detached::PLAIN)
    }

    /// Those of the host are none of the container's business.
    fn mqueue(&mut self, place: Place, attributes: MountAttrFlags) -> Result<(), Error> {
        if !self.namespaces.ipc.is_callers() { self.make(c"mqueue", attributes, place, true) } else { Ok(()) }
    }
}

/// Whether a mount is what the runtime's own promises rest on, and not something that somebody asked for.
fn is_own(mount: &Mount) -> bool {
    match mount.source {
        MountSource::Bind { .. } | MountSource::Tmpfs { .. } => false,
        MountSource::Proc
        | MountSource::Sysfs
        | MountSource::Cgroup
        | MountSource::Mqueue
        | MountSource::Dev { .. } => true,
    }
}

/// A path to be covered, with the file system that it must be found on.
fn hidden(plan: &Plan<'_>, path: &Path) -> Result<Hidden, Error> {
    let covering = plan.mounts.iter().filter(|mount| is_own(mount) && path.starts_with(&mount.target));
    let innermost = covering.max_by_key(|mount| mount.target.components().count());
    let file_system = innermost.and_then(|mount| match mount.source {
        MountSource::Proc => Some(magic::PROC),
        MountSource::Sysfs => Some(magic::SYSFS),
        _ => None,
    });
    Ok(Hidden { path: c_path(path)?, file_system })
}

fn path(mount: &Mount) -> Result<Place, Error> {
    target(&mount.target).map(Place::Path)
}

fn tmpfs(at: &Path, size_bytes: Option<u64>, mode: u32, attributes: MountAttrFlags) -> Result<OwnedFd, Error> {
    detached::tmpfs(size_bytes, mode, attributes)
        .map_err(|errno| Error::new(format!("make a tmpfs for {}", at.display()), errno))
}

/// Whether device nodes in the container are to work.
pub(crate) fn has_host_devices(plan: &Plan<'_>) -> bool {
    plan.mounts.iter().any(|mount| matches!(mount.source, MountSource::Dev { host_devices: true, .. }))
}

fn with_read_only(attributes: MountAttrFlags, read_only: bool) -> MountAttrFlags {
    if read_only { attributes | MountAttrFlags::MOUNT_ATTR_RDONLY } else { attributes }
}
