//! Everything that a container's first process needs, decided before the clone.
use crate::{cgroup::Cgroup, confinement::Confinement, rootfs::Rootfs, users::User};
use nix::sys::signal::SigSet;
pub use rustix::mount::MountAttrFlags;
use std::{os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Instant};

/// The plan of one container, which [`crate::spawn::spawn`] starts.
pub struct Plan<'a> {
    /// The root.
    pub root: Rootfs,
    /// Remounted read-only after all mounts are in place.
    pub root_readonly: bool,
    /// First the kernel's file systems and /dev, then binds and tmpfs, each in the order given. Mount points that are missing
    /// are made (directories, or empty files for file binds), beneath the root. A bind or tmpfs that lands on or under a
    /// procfs, sysfs or cgroup file system, on /dev itself, or on the root is refused, by whatever links it got there; below
    /// /dev only one whose target says so may land.
    pub mounts: Vec<Mount>,
    /// Covered with an empty read-only directory or a null device; missing ones are skipped. No part may be a symbolic link.
    pub masked_paths: Vec<PathBuf>,
    /// Remounted read-only; missing ones are skipped. No part may be a symbolic link.
    pub readonly_paths: Vec<PathBuf>,
    /// Device nodes in its root and on its mounts work: which of them may be opened is what its cgroup says.
    pub device_nodes: bool,
    /// What it is kept from.
    pub confinement: Confinement<'a>,
    /// Host name of its new uts namespace.
    pub hostname: Option<String>,
    /// Domain name of it.
    pub domain_name: Option<String>,
    /// Names (`net.ipv4.ip_forward`) and values of settings that belong to a namespace which is new or joined (sysctl(8)).
    pub sysctls: Vec<(String, String)>,
    /// Made if it is missing (as Docker does), owned by root.
    pub cwd: PathBuf,
    /// Ids.
    pub user: User,
    /// umask(2).
    pub umask: u32,
    /// proc_pid_oom_score_adj(5): -1000 to 1000; None: the caller's.
    pub oom_score_adj: Option<i32>,
    /// setrlimit(2) resource number, soft, hard (u64::MAX unlimited).
    pub rlimits: Vec<(u32, u64, u64)>,
    /// Where it runs.
    pub cgroup: Option<&'a Cgroup>,
    /// Standard input, output, error.
    pub stdio: Stdio,
    /// How long its program may take to begin.
    pub patience: Patience,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// When its program begins.
    pub begin: Begin,
    /// What runs.
    pub entry: Entry,
}

impl<'a> Plan<'a> {
    /// A program of root's in `/`, on the caller's streams, at once and while the caller lives; nothing is mounted or limited.
    #[must_use]
    pub fn new(root: Rootfs, confinement: Confinement<'a>, entry: Entry) -> Self {
        Self {
            root,
            root_readonly: false,
            mounts: Vec::new(),
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
            device_nodes: false,
            confinement,
            hostname: None,
            domain_name: None,
            sysctls: Vec::new(),
            cwd: "/".into(),
            user: User { uid: 0, gid: 0, groups: Vec::new(), home: "/root".into() },
            umask: 0o022,
            oom_score_adj: None,
            rlimits: Vec::new(),
            cgroup: None,
            stdio: Stdio::Inherit,
            patience: Patience::default(),
            lifetime: Lifetime::OfStarter,
            begin: Begin::Now,
            entry,
        }
    }
}

/// When a start is given up, and what was made of it is killed.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// When one of these is pending, which the caller has blocked; it stays pending.
    pub signals: SigSet,
    /// At this time.
    pub deadline: Option<Instant>,
}

impl Default for Patience {
    /// Never.
    fn default() -> Self {
        Self { signals: SigSet::empty(), deadline: None }
    }
}

/// How long a container may live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// It gets SIGKILL when the *thread* that started it ends (PR_SET_PDEATHSIG): start it from one that lives as long.
    OfStarter,
    /// It goes on.
    Own,
}

/// When a program begins.
#[derive(Debug)]
pub enum Begin {
    /// At once.
    Now,
    /// When a byte can be read from this descriptor (of a FIFO, say). Its process is there, confined and in its cgroup, and waits;
    /// it ends if the other end is closed. See [`crate::spawn::Held`].
    WhenTold(OwnedFd),
}

/// The three streams.
pub enum Stdio {
    /// The caller's own.
    Inherit,
    /// These. Pipes among them belong to the program's user afterwards, unless that is root.
    Streams([Stream; 3]),
    /// A new pty in the container's own devpts, the controlling terminal of its session, also at /dev/console; its
    /// master comes back in `Child::terminal`. The plan must have [`MountSource::Dev`] on /dev.
    Terminal {
        /// Columns and rows to begin with.
        size: Option<(u16, u16)>,
    },
}

/// One stream.
#[derive(Debug)]
pub enum Stream {
    /// A null device of which the program can change nothing that is the host's.
    Null,
    /// An open file.
    File(OwnedFd),
}

/// What the first process becomes.
pub enum Entry {
    /// execve(2) after clone3(CLONE_VM|CLONE_VFORK): nothing of this process is copied.
    Exec {
        /// Absolute path inside the container.
        program: PathBuf,
        /// argv[0] first.
        argv: Vec<Vec<u8>>,
        /// `NAME=value`.
        env: Vec<Vec<u8>>,
        /// None: the program is the first process.
        init: Option<Init>,
    },
    /// Runs in a copy of this process (clone without CLONE_VM; the caller must be single-threaded).
    Call {
        /// Called in the copy before it enters its root, with all rights and limits still the caller's, and in the
        /// container's cgroup: what the function needs of the host's files is opened here. Signals are blocked, and have
        /// their default actions but for handlers that it installs. If it panics the start fails.
        prepare: Box<dyn FnOnce() -> Call>,
    },
}

/// What a copy of this process does as its last.
pub struct Call {
    /// Called, then _exit(code); 125 if it panics. SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGXCPU and SIGXFSZ
    /// end it with 128+n, as pid 1 would otherwise ignore them.
    pub function: Box<dyn FnOnce() -> u8>,
    /// Raw descriptors that the function uses; all other ones above 2 are closed first.
    pub keep: Vec<i32>,
}

/// The first process of a container whose program is the second: it passes signals on, reaps, and ends as the program does.
pub struct Init {
    /// A pipe to which it writes by which signal the program ended, `{"signal":9}` or `{"signal":null}`.
    pub report: OwnedFd,
}

/// One mount.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Absolute, inside the container; symlinks in it are resolved beneath the root.
    pub target: PathBuf,
    /// What.
    pub source: MountSource,
    /// Read-only (recursively for binds).
    pub readonly: bool,
    /// What else it is to be, or not to be.
    pub attributes: Attributes,
}

impl Mount {
    /// A mount with the attributes that are usual for what it is.
    pub fn new(target: impl Into<PathBuf>, source: MountSource, readonly: bool) -> Self {
        Self { target: target.into(), source, readonly, attributes: Attributes::default() }
    }
}

/// Attributes of a mount beyond the usual ones (mount_setattr(2)).
#[derive(Debug, Clone)]
pub struct Attributes {
    /// Added.
    pub set: MountAttrFlags,
    /// Taken away. What the host's mount has and a user namespace must not lose stays (EPERM).
    pub clear: MountAttrFlags,
    /// What passes between the mount and the one that it is a copy of (mount_namespaces(7)).
    pub propagation: Propagation,
    /// The user namespace whose ids the files show (an idmapped mount); the file system must be able to.
    pub ids_of: Option<Arc<OwnedFd>>,
    /// Whether this (but for the propagation, which always does) and `readonly` hold for the mounts below a recursive bind too.
    pub recursive: bool,
}

impl Default for Attributes {
    fn default() -> Self {
        let none = MountAttrFlags::empty();
        Self { set: none, clear: none, propagation: Propagation::Private, ids_of: None, recursive: true }
    }
}

/// How later mounts and unmounts travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all.
    Private,
    /// From the host's mount to this one.
    Slave,
    /// Both ways.
    Shared,
    /// Not at all, and it cannot be bound elsewhere.
    Unbindable,
}

/// What is mounted.
#[derive(Debug, Clone)]
pub enum MountSource {
    /// procfs: nosuid, nodev, noexec. Its target, as that of sysfs and /dev, must not be a symbolic link in the image.
    Proc,
    /// sysfs (bind of the host's where not permitted).
    Sysfs,
    /// The cgroup v2 tree, seen from the new cgroup namespace, read-only. Skipped on v1 and hybrid hosts.
    Cgroup,
    /// mqueue; skipped where the IPC namespace is the host's.
    Mqueue,
    /// A minimal /dev: tmpfs with null, zero, full, random, urandom, tty, the symlinks fd, stdin, stdout, stderr, ptmx,
    /// core; pts (own devpts), shm (tmpfs), mqueue (where the kernel has it, and the IPC namespace is new). The nodes are the
    /// container's own; in a user namespace, where none can be made, the host's, on mounts that do not let them be changed.
    Dev {
        /// Size of /dev/shm; None: there is none.
        shm_bytes: Option<u64>,
        /// --privileged: in place of the six a node of its own for each device of the host.
        host_devices: bool,
    },
    /// tmpfs; nosuid, nodev, noexec unless options say otherwise.
    Tmpfs {
        /// None: half of memory, as the kernel does.
        size_bytes: Option<u64>,
        /// Mode, e.g. 0o1777.
        mode: u32,
        /// Whether programs may be executed from it.
        exec: bool,
    },
    /// Any file system that the kernel knows by its type. What shows a namespace (procfs, mqueue), and where a user namespace is
    /// joined every one, is made inside of the new namespaces.
    FileSystem {
        /// Such as `ext4`.
        kind: String,
        /// What is mounted, such as `/dev/vdb1`.
        source: Option<String>,
        /// `key=value`, or `key`, as mount(8) has them after the general ones.
        options: Vec<String>,
    },
    /// A mount that is detached (fsmount(2)), and is taken as it is: the attributes are not asked.
    Detached(Arc<OwnedFd>),
    /// A host file or directory, which must exist. Later mounts on either side do not show on the other, unless the attributes say so.
    Bind {
        /// Host path.
        source: PathBuf,
        /// rbind.
        recursive: bool,
    },
}
