//! A plan's mounts as steps.
use crate::{
    actions::Hidden,
    confinement::{Namespace, Namespaces},
    detached::{self, FileSystem},
    devices::{self, Devices, Nodes},
    error::Error,
    magic,
    plan::{Mount, MountSource, Plan, Propagation, Stdio, Stream},
    steps::{MAX_MADE, Place, Step},
    sys::{self, MountChange},
    target::{c_path, target},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, FileType, statat, statfs},
    io::Errno,
    mount::{MountAttrFlags, MountPropagationFlags},
};
use std::{
    ffi::{CStr, CString},
    path::Path,
};

/// The size of /dev itself, as Docker has it.
const DEV_BYTES: u64 = 64 * 1024 * 1024;
/// What a file system shows of the namespaces that its maker is in: such a one is made in the new ones.
const OF_NAMESPACES: [&CStr; 7] = [c"proc", c"sysfs", c"mqueue", c"cgroup", c"cgroup2", c"devpts", c"binder"];

/// Collects the steps for the mounts of one plan.
pub(crate) struct Mounts<'a> {
    /// Before the root is entered.
    pub(crate) before: Vec<Step<'a>>,
    /// In it: the runtime's own mounts, masks and read-only paths, then what somebody asked for.
    pub(crate) steps: Vec<Step<'a>>,
    user_namespace: bool,
    namespaces: Namespaces<'a>,
    /// The container may have nodes that open devices of the host's.
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
        let has_nodes = !plan.masked_paths.is_empty()
            || plan.mounts.iter().any(|mount| matches!(mount.source, MountSource::Dev { .. }));
        let null = has_null_stream(plan).then_some(if has_nodes && !user_namespace { Null::Own } else { Null::Host });
        if null == Some(Null::Host) {
            // Before the nodes, which are made on the host's /dev.
            mounts.before.push(Step::OpenNull(Some(devices::bind_null()?)));
        }
        if has_nodes {
            mounts.before.push(Step::MakeNodes(Nodes::prepare(user_namespace)?));
        }
        mounts.before.extend((null == Some(Null::Own)).then_some(Step::OpenNull(None)));
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
        match &mount.source {
            MountSource::Proc if self.user_namespace && self.namespaces.pid.is_callers() => self.hosts(mount, "/proc"),
            MountSource::Proc => {
                let pids = match self.namespaces.pid {
                    Namespace::Join(pids) => Some(pids),
                    Namespace::New | Namespace::Host | Namespace::Filtered => None,
                };
                let what = FileSystem { pids, ..file_system(mount, c"proc", detached::PLAIN) };
                self.make(what, path(mount)?, false)
            }
            MountSource::Sysfs if self.user_namespace && self.namespaces.network.is_callers() => {
                self.hosts(mount, "/sys")
            }
            MountSource::Sysfs => self.make(file_system(mount, c"sysfs", detached::PLAIN), path(mount)?, false),
            MountSource::Mqueue => self.mqueue(file_system(mount, c"mqueue", detached::PLAIN), path(mount)?),
            MountSource::Cgroup => self.cgroup(mount),
            MountSource::Dev { shm_bytes, host_devices } => self.dev(mount, *shm_bytes, *host_devices),
            MountSource::Tmpfs { size_bytes, mode, exec } => {
                let mut attributes = detached::PLAIN;
                attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, !exec);
                let options = detached::tmpfs_options(*size_bytes, *mode);
                self.asked(mount, FileSystem { options, ..file_system(mount, c"tmpfs", attributes) })
            }
            MountSource::FileSystem { kind, source, options } => {
                let source = source.iter().map(|source| format!("source={source}"));
                let options: Result<_, _> = source.chain(options.iter().cloned()).map(|text| option(&text)).collect();
                let kind = c_path(kind.as_ref())?;
                self.asked(mount, FileSystem { options: options?, ..file_system(mount, &kind, self.nodev()) })
            }
            MountSource::Detached(tree) => {
                let tree = tree.try_clone().map_err(|_| Error::new("duplicate a descriptor", Errno::MFILE))?;
                self.attach(tree, &mount.target, false)
            }
            MountSource::Bind { source, recursive } => self.bind(mount, source, *recursive),
        }
    }

    fn slot(&mut self) -> Result<usize, Error> {
        let slot = self.made;
        if slot == MAX_MADE {
            let action = format!("make more than {MAX_MADE} file systems in the new namespaces");
            return Err(Error::new(action, Errno::INVAL));
        }
        self.made += 1;
        Ok(slot)
    }

    /// One of the runtime's own, made by the child.
    fn make(&mut self, what: FileSystem<'a>, place: Place, optional: bool) -> Result<(), Error> {
        let slot = self.slot()?;
        self.steps.push(Step::AttachMade { kind: what.kind.clone(), place, slot });
        self.before.push(Step::Make { what, slot, optional });
        Ok(())
    }

    /// One that somebody asked for: made here, unless it is to belong to namespaces of the container's.
    fn asked(&mut self, mount: &Mount, what: FileSystem<'static>) -> Result<(), Error> {
        if !self.belongs_inside(&what.kind) {
            let what = FileSystem { change: MountChange { ids_of: ids_of(mount), ..what.change }, ..what };
            let tree = what.make().map_err(|errno| {
                let kind = what.kind.to_string_lossy();
                Error::new(format!("make a {kind} for {}", mount.target.display()), errno).hint(match errno {
                    Errno::NODEV => "this kernel does not have that file system",
                    Errno::INVAL => "an option is none of that file system's, or has a value that it does not take",
                    _ => "",
                })
            })?;
            return self.attach(tree, &mount.target, false);
        }
        if mount.attributes.ids_of.is_some() {
            let action = format!("map the ids of {}", mount.target.display());
            return Err(
                Error::new(action, Errno::INVAL).hint("it is made with the ids of the container's user namespace")
            );
        }
        let slot = self.slot()?;
        self.steps.push(Step::AttachAsked { target: target(&mount.target)?, slot });
        self.before.push(Step::Make { what, slot, optional: false });
        Ok(())
    }

    fn belongs_inside(&self, kind: &CStr) -> bool {
        self.namespaces.user.is_some() || OF_NAMESPACES.contains(&kind)
    }

    /// The host's network and pid namespaces belong to another user namespace, so what shows them can be bound but not mounted.
    fn hosts(&mut self, mount: &Mount, from: &'static str) -> Result<(), Error> {
        let tree = detached::copy(Path::new(from), true, MountAttrFlags::MOUNT_ATTR_RDONLY)
            .map_err(|errno| Error::new(format!("bind the host's {from}"), errno))?;
        self.steps.push(Step::AttachOwn { tree, place: path(mount)? });
        Ok(())
    }

    /// cgroup v2 only: a v1 tree is a mount for each controller, which few programs look at, so there is none.
    fn cgroup(&mut self, mount: &Mount) -> Result<(), Error> {
        match statfs(c"/sys/fs/cgroup") {
            Ok(stat) if stat.f_type == magic::CGROUP2 => {
                self.make(file_system(mount, c"cgroup2", detached::PLAIN), path(mount)?, true)
            }
            _ => Ok(()),
        }
    }

    fn nodev(&self) -> MountAttrFlags {
        if self.host_devices { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_NODEV }
    }

    fn bind(&mut self, mount: &Mount, source: &Path, recursive: bool) -> Result<(), Error> {
        let error = |errno| {
            let error = Error::new(format!("bind {} on {}", source.display(), mount.target.display()), errno);
            match errno {
                Errno::NOENT => error.hint("the source does not exist on the host"),
                Errno::INVAL if mount.attributes.ids_of.is_some() => {
                    error.hint("the file system may be one that cannot map ids, or its ids are mapped already")
                }
                Errno::INVAL if !recursive => {
                    error.hint("in a user namespace mounts below the source cannot be left out: bind recursively")
                }
                Errno::PERM if !mount.attributes.clear.is_empty() => {
                    error.hint("in a user namespace an attribute that the host's mount has cannot be taken away")
                }
                _ => error,
            }
        };
        let tree = detached::open(source, recursive).map_err(error)?;
        let own = MountChange { recursive: recursive && mount.attributes.recursive, ..change(mount, self.nodev()) };
        if recursive && !own.recursive {
            let below = MountChange { set: self.nodev(), clear: MountAttrFlags::empty(), recursive, ..own };
            sys::mount_setattr(tree.as_fd(), c"", below).map_err(error)?;
        }
        sys::mount_setattr(tree.as_fd(), c"", MountChange { ids_of: ids_of(mount), ..own }).map_err(error)?;
        let stat = statat(&tree, c"", AtFlags::EMPTY_PATH).map_err(error)?;
        self.attach(tree, &mount.target, FileType::from_raw_mode(stat.st_mode) != FileType::Directory)
    }

    fn attach(&mut self, tree: OwnedFd, at: &Path, file: bool) -> Result<(), Error> {
        self.steps.push(Step::Attach { tree, target: target(at)?, file });
        Ok(())
    }

    /// /dev and what is mounted in it; see [`crate::devices`].
    fn dev(&mut self, mount: &Mount, shm_bytes: Option<u64>, host_devices: bool) -> Result<(), Error> {
        let at = &mount.target;
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID;
        attributes.set(MountAttrFlags::MOUNT_ATTR_NODEV, !self.host_devices);
        let tree = tmpfs(at, DEV_BYTES, 0o755, attributes)?;
        let devices = Devices::prepare(self.user_namespace, host_devices)?;
        self.steps.push(Step::AttachDev { tree, target: target(at)?, devices });
        match self.devpts.take() {
            Some(devpts) => self.steps.push(Step::AttachOwn { tree: devpts, place: Place::Dev(c"pts") }),
            None => self.make(file_system(mount, c"devpts", MountAttrFlags::empty()), Place::Dev(c"pts"), false)?,
        }
        if let Some(bytes) = shm_bytes {
            let tree = tmpfs(&at.join("shm"), bytes, 0o1777, detached::PLAIN)?;
            self.steps.push(Step::AttachOwn { tree, place: Place::Dev(c"shm") });
        }
        self.mqueue(file_system(mount, c"mqueue", detached::PLAIN), Place::Dev(c"mqueue"))
    }

    /// Those of the host are none of the container's business.
    fn mqueue(&mut self, what: FileSystem<'static>, place: Place) -> Result<(), Error> {
        if self.namespaces.ipc.is_callers() { Ok(()) } else { self.make(what, place, true) }
    }
}

/// A file system without options, with these attributes and those of a mount, and ids as they are.
fn file_system(mount: &Mount, kind: &CStr, attributes: MountAttrFlags) -> FileSystem<'static> {
    FileSystem { kind: kind.to_owned(), options: Vec::new(), change: change(mount, attributes), pids: None }
}

/// What is usual, with what a mount wants beyond it.
fn change(mount: &Mount, usual: MountAttrFlags) -> MountChange<'static> {
    let wanted = &mount.attributes;
    let propagation = match wanted.propagation {
        // A new file system is that already.
        Propagation::Private if !matches!(mount.source, MountSource::Bind { .. }) => MountPropagationFlags::empty(),
        Propagation::Private => MountPropagationFlags::PRIVATE,
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
        Propagation::Shared => MountPropagationFlags::SHARED,
        Propagation::Unbindable => MountPropagationFlags::UNBINDABLE,
    };
    let read_only = if mount.readonly { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
    let set = (usual - wanted.clear) | wanted.set | read_only;
    MountChange { set, clear: wanted.clear, propagation, ids_of: None, recursive: false }
}

fn ids_of(mount: &Mount) -> Option<BorrowedFd<'_>> {
    mount.attributes.ids_of.as_deref().map(AsFd::as_fd)
}

/// `key=value`, or `key`.
fn option(text: &str) -> Result<(CString, Option<CString>), Error> {
    let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value)));
    Ok((c_path(key.as_ref())?, value.map(|value| c_path(value.as_ref())).transpose()?))
}

fn tmpfs(at: &Path, size_bytes: u64, mode: u32, attributes: MountAttrFlags) -> Result<OwnedFd, Error> {
    detached::tmpfs(Some(size_bytes), mode, attributes)
        .map_err(|errno| Error::new(format!("make a tmpfs for {}", at.display()), errno))
}

/// Whose null device streams are.
#[derive(PartialEq)]
enum Null {
    Own,
    Host,
}

fn has_null_stream(plan: &Plan<'_>) -> bool {
    matches!(&plan.stdio, Stdio::Streams(streams) if streams.iter().any(|stream| matches!(stream, Stream::Null)))
}

/// Whether a mount is what the runtime's own promises rest on, and not something that somebody asked for.
fn is_own(mount: &Mount) -> bool {
    match mount.source {
        MountSource::Bind { .. }
        | MountSource::Detached(_)
        | MountSource::Tmpfs { .. }
        | MountSource::FileSystem { .. } => false,
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

/// Whether device nodes in the container are to work.
pub(crate) fn has_host_devices(plan: &Plan<'_>) -> bool {
    let has_all = |mount: &Mount| matches!(mount.source, MountSource::Dev { host_devices: true, .. });
    plan.device_nodes || plan.mounts.iter().any(has_all)
}
