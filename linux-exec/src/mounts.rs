//! A plan's mounts as steps.
use crate::{
    actions, detached,
    plan::{Mount, MountSource, Namespaces, Plan},
    spawn::SpawnError,
    steps::Step,
    sys,
    target::Target,
};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, FileType, statat, statfs},
    io::Errno,
    mount::{MountAttrFlags, MountFlags},
};
use std::{
    ffi::{CStr, CString},
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// statfs(2) f_type of cgroup v2 (linux/magic.h).
const CGROUP2_MAGIC: i64 = 0x6367_7270;
/// The size of /dev itself, as Docker has it.
const DEV_BYTES: u64 = 64 * 1024 * 1024;
/// Of a file system that the kernel fills.
const KERNEL_FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Collects the steps for the mounts of one plan.
pub(crate) struct Mounts<'a> {
    /// Before the root is entered.
    pub(crate) before: Vec<Step<'a>>,
    /// In it: all mounts, then masks and read-only paths.
    pub(crate) steps: Vec<Step<'a>>,
    user_namespace: bool,
    namespaces: Namespaces,
    /// The container has all of the host's devices: nodes open them.
    host_devices: bool,
    /// Made before, when the plan has a terminal in it.
    devpts: Option<OwnedFd>,
}

impl<'a> Mounts<'a> {
    /// Prepares the mounts of a plan. `devpts`: the one that the plan's terminal is in.
    pub(crate) fn prepare(plan: &Plan<'_>, devpts: Option<OwnedFd>) -> Result<Self, SpawnError> {
        let terminal = devpts.is_some();
        let user_namespace = sys::in_user_namespace();
        let (before, steps) = (Vec::new(), Vec::new());
        let host_devices = has_host_devices(plan);
        let mut mounts = Self { before, steps, user_namespace, namespaces: plan.namespaces, host_devices, devpts };
        for mount in &plan.mounts {
            if !matches!(mount.source, MountSource::Bind { .. } | MountSource::Tmpfs { .. }) {
                plan.root.refuse_symlink(&mount.target).map_err(SpawnError::from_rootfs)?;
            }
            mounts.add(mount)?;
        }
        if terminal {
            mounts.add_console()?;
        }
        for path in &plan.masked_paths {
            mounts.steps.push(Step::Mask(c_path(path)?));
        }
        for path in &plan.readonly_paths {
            mounts.steps.push(Step::ReadOnlyPath(c_path(path)?));
        }
        Ok(mounts)
    }

    fn add(&mut self, mount: &Mount) -> Result<(), SpawnError> {
        let read_only = if mount.readonly { MountFlags::RDONLY } else { MountFlags::empty() };
        match &mount.source {
            MountSource::Proc => self.made_before(c"proc", mount),
            MountSource::Mqueue => self.mqueue(&mount.target, read_only),
            MountSource::Sysfs if self.user_namespace && !self.namespaces.network => self.host_sysfs(mount),
            MountSource::Sysfs => self.made_before(c"sysfs", mount),
            MountSource::Cgroup => self.cgroup(&mount.target),
            MountSource::Dev { shm_bytes, host_devices } => {
                self.dev(&mount.target, *shm_bytes, *host_devices)?;
                if mount.readonly {
                    self.steps.push(Step::ReadOnlyMount(c_path(&mount.target)?));
                }
                Ok(())
            }
            MountSource::Tmpfs { size_bytes, mode, exec } => {
                let mut attributes = with_read_only(detached::PLAIN, mount.readonly);
                attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, !exec);
                self.tmpfs(&mount.target, *size_bytes, *mode, attributes)
            }
            MountSource::Bind { source, recursive } => self.bind(mount, source, *recursive),
        }
    }

    fn made_before(&mut self, kind: &'static CStr, mount: &Mount) -> Result<(), SpawnError> {
        let slot = self.before.len();
        let attributes = with_read_only(detached::PLAIN, mount.readonly);
        self.before.push(Step::Make { kind, attributes, slot });
        self.steps.push(Step::AttachMade { kind, target: target(&mount.target)?, slot });
        Ok(())
    }

    fn kernel(&mut self, kind: &'static CStr, at: &Path, extra: MountFlags, optional: bool) -> Result<(), SpawnError> {
        self.steps.push(Step::Mount { kind, target: target(at)?, flags: KERNEL_FLAGS | extra, optional });
        Ok(())
    }

    /// The host's network namespace belongs to another user namespace, so its sysfs can be bound but not mounted.
    fn host_sysfs(&mut self, mount: &Mount) -> Result<(), SpawnError> {
        let tree = detached::copy(Path::new("/sys"), true, MountAttrFlags::MOUNT_ATTR_RDONLY)
            .map_err(|errno| SpawnError::new("bind the host's /sys", errno))?;
        self.attach(tree, &mount.target, false)
    }

    /// cgroup v2 only: a v1 tree is a mount for each controller, which few programs look at, so there is none.
    fn cgroup(&mut self, at: &Path) -> Result<(), SpawnError> {
        match statfs(c"/sys/fs/cgroup") {
            Ok(stat) if stat.f_type == CGROUP2_MAGIC => self.kernel(c"cgroup2", at, MountFlags::RDONLY, true),
            _ => Ok(()),
        }
    }

    fn tmpfs(
        &mut self,
        at: &Path,
        size_bytes: Option<u64>,
        mode: u32,
        attributes: MountAttrFlags,
    ) -> Result<(), SpawnError> {
        let tree = detached::tmpfs(size_bytes, mode, attributes)
            .map_err(|errno| SpawnError::new(format!("make a tmpfs for {}", at.display()), errno))?;
        self.attach(tree, at, false)
    }

    fn bind(&mut self, mount: &Mount, source: &Path, recursive: bool) -> Result<(), SpawnError> {
        let devices = if self.host_devices { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_NODEV };
        let attributes = with_read_only(devices, mount.readonly);
        let error = |errno| {
            let error = SpawnError::new(format!("bind {} on {}", source.display(), mount.target.display()), errno);
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

    fn attach(&mut self, tree: OwnedFd, at: &Path, file: bool) -> Result<(), SpawnError> {
        self.steps.push(Step::Attach { tree, target: target(at)?, file });
        Ok(())
    }

    /// /dev and what is mounted in it. The devices are the host's, bound one by one: /dev itself, like all else in the
    /// container, is `nodev`, so that a node which its program makes (CAP_MKNOD is in Docker's default set) opens nothing.
    fn dev(&mut self, at: &Path, shm_bytes: u64, host_devices: bool) -> Result<(), SpawnError> {
        if host_devices {
            let tree = detached::copy(Path::new("/dev"), true, MountAttrFlags::empty())
                .map_err(|errno| SpawnError::new("bind the host's /dev", errno))?;
            self.attach(tree, at, false)?;
        } else {
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
            let tree = detached::tmpfs(Some(DEV_BYTES), 0o755, attributes)
                .map_err(|errno| SpawnError::new("make a tmpfs for /dev", errno))?;
            self.steps.push(Step::AttachDev { tree, target: target(at)? });
            self.bind_devices(at)?;
        }
        let devpts = match self.devpts.take() {
            Some(devpts) => devpts,
            None => detached::devpts().map_err(|errno| SpawnError::new("make a devpts", errno))?,
        };
        self.attach(devpts, &at.join("pts"), false)?;
        self.tmpfs(&at.join("shm"), Some(shm_bytes), 0o1777, detached::PLAIN)?;
        self.mqueue(&at.join("mqueue"), MountFlags::empty())
    }

    /// Those of the host are none of the container's business.
    fn mqueue(&mut self, target: &Path, flags: MountFlags) -> Result<(), SpawnError> {
        if self.namespaces.ipc { self.kernel(c"mqueue", target, flags, true) } else { Ok(()) }
    }

    fn bind_devices(&mut self, at: &Path) -> Result<(), SpawnError> {
        for name in actions::DEVICES {
            let name = Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
            let host = Path::new("/dev").join(name);
            let tree = detached::copy(&host, false, MountAttrFlags::empty())
                .map_err(|errno| SpawnError::new(format!("bind the host's {}", host.display()), errno))?;
            self.attach(tree, &at.join(name), true)?;
        }
        Ok(())
    }

    fn add_console(&mut self) -> Result<(), SpawnError> {
        if self.devpts.is_some() {
            return Err(SpawnError::new("provide a terminal", Errno::NODEV).hint("it needs the mount of /dev"));
        }
        self.steps.push(Step::Console(target(Path::new("/dev/console"))?));
        Ok(())
    }
}

/// Whether device nodes in the container are to work.
pub(crate) fn has_host_devices(plan: &Plan<'_>) -> bool {
    plan.mounts.iter().any(|mount| matches!(mount.source, MountSource::Dev { host_devices: true, .. }))
}

fn with_read_only(attributes: MountAttrFlags, read_only: bool) -> MountAttrFlags {
    if read_only { attributes | MountAttrFlags::MOUNT_ATTR_RDONLY } else { attributes }
}

/// A mount point for the child.
pub(crate) fn target(path: &Path) -> Result<Target, SpawnError> {
    Target::new(path).map_err(|_| contains_nul(path))
}

/// A path for the child.
pub(crate) fn c_path(path: &Path) -> Result<CString, SpawnError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| contains_nul(path))
}

fn contains_nul(path: &Path) -> SpawnError {
    SpawnError::new(format!("use the path {}: it contains a NUL byte", path.display()), Errno::INVAL)
}
