//! What a container's first process does before its program: a flat list of steps, made by the parent as data.
//!
//! A step owns everything it needs. Running one allocates nothing, takes no lock and cannot panic: it may run in a
//! process that shares its memory with a parent of many threads. The exception is [`Step::PrepareCall`], for a copy of a
//! parent with one thread. [`Step::describe`] and [`Step::hint`] are for the
//! parent, which learns only the index of the failed step and the errno.
use crate::{
    actions::{self, Hidden},
    capabilities::{CapabilitySet, CapabilitySets},
    detached::FileSystem,
    devices::{Devices, Nodes},
    plan::Call,
    seccomp::Filter,
    sys::{self, NewNamespaces},
    target::Target,
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{Gid, Mode, Uid},
    io::{Errno, Result},
    mount::MountPropagationFlags,
    thread::{LinkNameSpaceType, ThreadNameSpaceType},
};
use std::{
    ffi::{CStr, CString},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// One step. They run in the order in which [`crate::spawn`] and [`crate::exec`] list them.
pub(crate) enum Step<'a> {
    /// setsid(2).
    NewSession,
    /// Every signal has its default action.
    DefaultSignals,
    /// cgroup v1, or v2 without CLONE_INTO_CGROUP: writes 0, which means the writer, to a `cgroup.procs`.
    JoinCgroup(BorrowedFd<'a>),
    /// Fails (EXDEV) unless this process is in groups of the container's in all hierarchies, or in those with these numbers.
    InOwnCgroups { id: Vec<u8>, hierarchies: Option<Vec<u32>> },
    /// setns(2) to a namespace of a kind.
    JoinNamespace(BorrowedFd<'a>, LinkNameSpaceType),
    /// The cgroup just joined becomes the root of what the container sees.
    NewCgroupNamespace,
    /// A time namespace that the next exec enters, with lines for /proc/self/timens_offsets.
    NewTimeNamespace { offsets: Vec<u8> },
    /// Writes a setting of the namespaces that were entered, by the host's /proc.
    Sysctl { path: CString, value: Vec<u8> },
    /// Writes /proc/self/oom_score_adj.
    OomScore(Vec<u8>),
    /// Joins the namespaces of a running container, and its root with them. Its pid namespace is for children only.
    EnterNamespaces { target: OwnedFd, kinds: ThreadNameSpaceType },
    /// No mount made from here on may appear outside.
    PrivateMounts,
    /// Prepares the function that is called as the last thing, while the host's files are still in sight.
    PrepareCall,
    /// Makes the container's own devices, and what masks are.
    MakeNodes(Nodes),
    /// Makes a file system that depends on the new namespaces. It comes before `EnterRoot`, since in a user namespace the
    /// kernel allows a procfs or sysfs only where a complete one is in reach, and the old root must not be when paths of the image
    /// are resolved. `optional`: nothing is made where the kernel does not have it.
    Make { what: FileSystem<'a>, slot: usize, optional: bool },
    /// Makes the root this process's, and detaches the old one with everything that was mounted in it.
    EnterRoot(OwnedFd),
    /// Attaches what `Make` made.
    AttachMade { kind: CString, place: Place, slot: usize },
    /// The same of one that somebody asked for.
    AttachAsked { target: Target, slot: usize },
    /// A mount that the parent made, as one of the runtime's own.
    AttachOwn { tree: OwnedFd, place: Place },
    /// A tmpfs as /dev, with what lies in it.
    AttachDev { tree: OwnedFd, target: Target, devices: Devices },
    /// The program's terminal, also as /dev/console.
    Console(OwnedFd),
    /// Covers a file with a null device or a directory with an empty one.
    Mask(Hidden),
    /// Makes a path a read-only mount of itself.
    ReadOnlyPath(Hidden),
    /// A mount that somebody asked for, made by the parent, on a directory or a file.
    Attach { tree: OwnedFd, target: Target, file: bool },
    /// Makes the root read-only.
    ReadOnlyRoot,
    /// The working directory.
    MakeDirectory(Target),
    /// sethostname(2).
    HostName(Vec<u8>),
    /// setdomainname(2).
    DomainName(Vec<u8>),
    /// 127.0.0.1 and ::1.
    LoopbackUp,
    /// Opens a null device for streams: one of those that `MakeNodes` made, or this mount of the host's. Before the root is entered.
    OpenNull(Option<OwnedFd>),
    /// Standard input, output and error; descriptors above 2, or what `OpenNull` opened.
    Stdio([Option<OwnedFd>; 3]),
    /// Gives the three streams, as far as they are pipes, to the program's user, who may then open them by their names in /dev.
    GiveStreams(Uid, Gid),
    /// Standard input becomes the controlling terminal.
    ControllingTerminal,
    /// setrlimit(2).
    ResourceLimit { resource: u32, soft: u64, hard: u64 },
    /// keyctl(2), KEYCTL_JOIN_SESSION_KEYRING: a new and empty one in place of the caller's.
    NewSessionKeyring,
    /// seccomp(2).
    Seccomp(Filter),
    /// Drops every other capability from the bounding set.
    BoundingSet(CapabilitySet),
    /// setgroups(2).
    Groups(Vec<Gid>),
    /// setresgid(2), setresuid(2).
    Ids(Uid, Gid),
    /// PR_SET_KEEPCAPS: the permitted ones are not lost with root's id.
    KeepCapabilities,
    /// capset(2), and PR_CAP_AMBIENT.
    Capabilities(CapabilitySets),
    /// PR_SET_NO_NEW_PRIVS.
    NoNewPrivileges,
    /// SIGKILL when the parent's thread ends, and an error if it has ended already.
    DieWithParent,
    /// chdir(2) with the user's own rights.
    WorkingDirectory(CString),
    /// What a program expects to inherit: no signals blocked, an umask, no descriptors above 2.
    ResetInherited { umask: Mode },
}

/// How many mounts that depend on the new namespaces a plan can have.
pub(crate) const MAX_MADE: usize = 64;

/// Where one of the runtime's own mounts goes.
pub(crate) enum Place {
    /// A directory that no link may lead to.
    Path(Target),
    /// A directory of /dev.
    Dev(&'static CStr),
}

impl Place {
    fn show(&self) -> String {
        match self {
            Self::Path(target) => show(target.path()),
            Self::Dev(name) => format!("/dev/{}", show(name)),
        }
    }

    fn attach(&self, tree: &OwnedFd, dev: Option<&actions::Dev<'_>>) -> Result<()> {
        match self {
            Self::Path(target) => actions::attach_own(tree, target),
            Self::Dev(name) => actions::attach_in_dev(tree, name, dev),
        }
    }
}

/// What steps share.
pub(crate) struct Context<'a> {
    /// Where failure is reported; its other end is closed when the parent dies.
    pub(crate) report: BorrowedFd<'a>,
    /// What `Step::Make` made, by slot.
    pub(crate) made: [Option<OwnedFd>; MAX_MADE],
    /// What `Step::MakeNodes` made.
    pub(crate) nodes: Option<actions::Made>,
    /// The mount that they are in, if they are the container's own.
    pub(crate) own_nodes: Option<BorrowedFd<'a>>,
    /// What `Step::OpenNull` opened.
    pub(crate) null: Option<OwnedFd>,
    /// What `Step::AttachDev` attached.
    pub(crate) dev: Option<actions::Dev<'a>>,
    /// For `Step::PrepareCall`.
    pub(crate) prepare: Option<Box<dyn FnOnce() -> Call>>,
    /// What that came to.
    pub(crate) call: Option<Call>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(report: BorrowedFd<'a>) -> Self {
        Self {
            report,
            made: [const { None }; MAX_MADE],
            nodes: None,
            own_nodes: None,
            null: None,
            dev: None,
            prepare: None,
            call: None,
        }
    }
}

impl<'a> Step<'a> {
    /// Does it.
    pub(crate) fn run(&'a self, context: &mut Context<'a>) -> Result<()> {
        match self {
            Self::NewSession => rustix::process::setsid().map(drop),
            Self::DefaultSignals => {
                sys::reset_signal_actions();
                Ok(())
            }
            Self::JoinCgroup(procs) => rustix::io::write(procs, b"0\n").map(drop),
            Self::InOwnCgroups { id, hierarchies } => actions::in_own_cgroups(id, hierarchies.as_deref()),
            Self::JoinNamespace(fd, kind) => rustix::thread::move_into_link_name_space(*fd, Some(*kind)),
            Self::NewCgroupNamespace => sys::unshare(NewNamespaces::CGROUP),
            Self::NewTimeNamespace { offsets } => actions::new_time_namespace(offsets),
            Self::Sysctl { path, value } => actions::write_to(path, value),
            Self::OomScore(score) => actions::write_to(c"/proc/self/oom_score_adj", score),
            Self::EnterNamespaces { target, kinds } => actions::enter_namespaces(target, *kinds),
            Self::PrivateMounts => {
                rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            }
            Self::PrepareCall => {
                let prepare = context.prepare.take().ok_or(Errno::INVAL)?;
                context.call = Some(catch_unwind(AssertUnwindSafe(prepare)).map_err(|_| Errno::CANCELED)?);
                Ok(())
            }
            Self::MakeNodes(nodes) => {
                context.own_nodes = nodes.host_null.is_none().then(|| nodes.tree.as_fd());
                context.nodes = Some(actions::make_nodes(nodes)?);
                Ok(())
            }
            Self::Make { what, slot, optional } => {
                let mount = match what.make() {
                    Err(Errno::NODEV) if *optional => return Ok(()),
                    made => made?,
                };
                context.made.get_mut(*slot).ok_or(Errno::NFILE)?.replace(mount);
                Ok(())
            }
            Self::EnterRoot(root) => actions::enter_root(root),
            Self::AttachMade { place, slot, .. } => match context.made.get(*slot) {
                Some(Some(made)) => place.attach(made, context.dev.as_ref()),
                Some(None) => Ok(()),
                None => Err(Errno::NFILE),
            },
            Self::AttachAsked { target, slot } => match context.made.get(*slot) {
                Some(Some(made)) => actions::attach(made, target, false, context.dev.as_ref()),
                Some(None) => Ok(()),
                None => Err(Errno::NFILE),
            },
            Self::AttachOwn { tree, place } => place.attach(tree, context.dev.as_ref()),
            Self::AttachDev { tree, target, devices } => {
                let nodes = context.nodes.as_ref().ok_or(Errno::NODEV)?;
                context.dev = Some(actions::attach_dev(tree, target, devices, nodes)?);
                Ok(())
            }
            Self::Console(terminal) => actions::console(terminal, context.dev.as_ref()),
            Self::Mask(path) => actions::mask(path, context.nodes.as_mut().ok_or(Errno::NODEV)?),
            Self::ReadOnlyPath(path) => actions::read_only_path(path),
            Self::Attach { tree, target, file } => actions::attach(tree, target, *file, context.dev.as_ref()),
            Self::ReadOnlyRoot => actions::read_only_root(),
            Self::MakeDirectory(target) => target.open_or_make(false).map(drop),
            Self::HostName(name) => rustix::system::sethostname(name),
            Self::DomainName(name) => rustix::system::setdomainname(name),
            Self::LoopbackUp => actions::loopback_up(),
            Self::OpenNull(host) => {
                context.null = Some(actions::open_null(host.as_ref(), context.own_nodes)?);
                Ok(())
            }
            Self::Stdio(files) => actions::stdio(files, context.null.as_ref()),
            Self::GiveStreams(uid, gid) => actions::give_streams(*uid, *gid),
            Self::ControllingTerminal => rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()),
            Self::ResourceLimit { resource, soft, hard } => sys::set_resource_limit(*resource, *soft, *hard),
            Self::NewSessionKeyring => actions::new_session_keyring(),
            Self::Seccomp(filter) => sys::install_seccomp_filter(&filter.program, filter.flags),
            Self::BoundingSet(keep) => actions::limit_bounding_set(*keep),
            Self::Groups(groups) => rustix::thread::set_thread_groups(groups),
            Self::Ids(uid, gid) => actions::set_ids(*uid, *gid),
            Self::KeepCapabilities => rustix::thread::set_keep_capabilities(true),
            Self::Capabilities(sets) => actions::set_capabilities(*sets),
            Self::NoNewPrivileges => rustix::thread::set_no_new_privs(true),
            Self::DieWithParent => actions::die_with_parent(context.report),
            Self::WorkingDirectory(path) => actions::change_directory(path),
            Self::ResetInherited { umask } => actions::reset_inherited(*umask),
        }
    }

    /// What was tried, to follow "cannot".
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::NewSession => "start a session".into(),
            Self::DefaultSignals => "give signals their default actions".into(),
            Self::JoinCgroup(_) => "join the container's cgroup".into(),
            Self::InOwnCgroups { .. } => "enter a cgroup of the container's in every hierarchy".into(),
            Self::JoinNamespace(_, kind) => format!("join the {}", name_of(*kind)),
            Self::NewCgroupNamespace => "create a cgroup namespace".into(),
            Self::NewTimeNamespace { .. } => "create a time namespace".into(),
            Self::Sysctl { path, value } => {
                format!("write `{}` to {}", String::from_utf8_lossy(value).trim_end(), show(path))
            }
            Self::OomScore(score) => format!("set oom_score_adj to {}", String::from_utf8_lossy(score).trim_end()),
            Self::EnterNamespaces { .. } => "enter the container's namespaces".into(),
            Self::PrivateMounts => "make the mounts private".into(),
            Self::PrepareCall => "prepare the program's call".into(),
            Self::EnterRoot(_) => "change to the container's root file system".into(),
            Self::MakeNodes(_) => "make the container's devices".into(),
            Self::Make { what, .. } => format!("make a {} of the new namespaces", what.kind.to_string_lossy()),
            Self::AttachMade { kind, place, .. } => format!("mount {} on {}", kind.to_string_lossy(), place.show()),
            Self::AttachOwn { place, .. } => format!("mount {}", place.show()),
            Self::Attach { target, .. } | Self::AttachAsked { target, .. } | Self::AttachDev { target, .. } => {
                format!("mount {}", show(target.path()))
            }
            Self::Console(_) => "provide /dev/console".into(),
            Self::Mask(hidden) => format!("mask {}", show(&hidden.path)),
            Self::ReadOnlyPath(hidden) => format!("make {} read-only", show(&hidden.path)),
            Self::ReadOnlyRoot => "make the root file system read-only".into(),
            Self::MakeDirectory(target) => format!("create the working directory {}", show(target.path())),
            Self::HostName(name) => format!("set the host name `{}`", String::from_utf8_lossy(name)),
            Self::DomainName(name) => format!("set the domain name `{}`", String::from_utf8_lossy(name)),
            Self::LoopbackUp => "set the loopback interface up".into(),
            Self::OpenNull(_) => "open the null device".into(),
            Self::Stdio(_) => "set standard input, output and error".into(),
            Self::GiveStreams(uid, gid) => {
                format!("give the streams to user {} group {}", uid.as_raw(), gid.as_raw())
            }
            Self::ControllingTerminal => "set the controlling terminal".into(),
            Self::ResourceLimit { resource, soft, hard } => {
                format!("set resource limit {resource} to {} (hard {})", amount(*soft), amount(*hard))
            }
            Self::NewSessionKeyring => "make a session keyring".into(),
            Self::Seccomp(_) => "install the seccomp filter".into(),
            Self::BoundingSet(_) => "drop capabilities from the bounding set".into(),
            Self::Groups(groups) => {
                let ids: Vec<_> = groups.iter().map(|group| group.as_raw().to_string()).collect();
                format!("set the groups {}", ids.join(","))
            }
            Self::Ids(uid, gid) => format!("become user {} group {}", uid.as_raw(), gid.as_raw()),
            Self::KeepCapabilities | Self::Capabilities(_) => "set the capabilities".into(),
            Self::NoNewPrivileges => "set no_new_privs".into(),
            Self::DieWithParent => "tie the container's life to its supervisor's".into(),
            Self::WorkingDirectory(path) => format!("change to the working directory {}", show(path)),
            Self::ResetInherited { .. } => "unblock signals, and reset umask and descriptors".into(),
        }
    }

    /// What may help.
    pub(crate) fn hint(&self, errno: Errno) -> Option<&'static str> {
        Some(match (self, errno) {
            (Self::InOwnCgroups { .. }, Errno::XDEV) => {
                "a hierarchy was mounted meanwhile, or another one lies where it should (/proc/self/cgroup lists them all)"
            }
            (Self::Make { .. }, Errno::PERM) => {
                "in a user namespace the kernel mounts this only where the host's own is complete; inside another \
                 container it has covered parts: run that one with its /proc and /sys unmasked"
            }
            (Self::JoinNamespace(..), Errno::INVAL) => "the file given is of a namespace of another kind, or of none",
            (Self::OomScore(_), Errno::ACCESS) => "only CAP_SYS_RESOURCE can make it less than it is",
            (Self::Make { what, .. }, Errno::INVAL) if what.pids.is_some() => {
                "a /proc of a pid namespace that is joined needs Linux 6.17"
            }
            (Self::Make { .. }, Errno::NODEV) => "this kernel does not have that file system",
            (Self::AttachMade { .. } | Self::AttachOwn { .. } | Self::AttachDev { .. }, Errno::LOOP) => {
                "in the image it is a symbolic link, or lies behind one; it must be a directory or missing"
            }
            (Self::Attach { .. } | Self::AttachAsked { .. }, Errno::XDEV) => {
                "it would land on or under /proc or /sys, on /dev itself, or on the root, or by a symbolic link in /dev: what \
                 the container is kept in by is not to be covered; mount it at another path"
            }
            (Self::Mask(_) | Self::ReadOnlyPath(_), Errno::XDEV | Errno::LOOP) => {
                "it is not on the file system that was mounted for it, but on another one"
            }
            (Self::Attach { .. }, Errno::NOTDIR | Errno::INVAL) => {
                "the source and the mount point must both be directories or both be files"
            }
            (_, Errno::LOOP) if self.resolves_in_image() => {
                "the path leads through a magic link such as /proc/self/fd, or through too many symbolic links"
            }
            (_, Errno::ROFS) if self.resolves_in_image() => {
                "the mount point is missing on a read-only file system: create it there first"
            }
            (Self::EnterRoot(_), Errno::INVAL) => {
                "the host's root must be a mount that can be pivoted away from, which an initramfs is not"
            }
            (Self::ResourceLimit { .. }, Errno::PERM) => {
                "raising a hard limit needs CAP_SYS_RESOURCE: ask for at most the caller's own (`ulimit -H -a`)"
            }
            (Self::Capabilities(_) | Self::BoundingSet(_), Errno::PERM) => {
                "this process does not have all of the capabilities asked for"
            }
            (Self::Ids(..) | Self::Groups(_) | Self::GiveStreams(..), Errno::INVAL) => {
                "the id is not mapped in this user namespace: give this user a range in /etc/subuid and /etc/subgid, \
                 or use a lower id"
            }
            (_, Errno::MFILE) => "the limit on open files (nofile) is too low for a start",
            (Self::Groups(_), Errno::PERM) => "without newgidmap a user namespace cannot change its groups",
            (Self::Seccomp(_), Errno::INVAL) => "this kernel needs CONFIG_SECCOMP_FILTER",
            (Self::Seccomp(_), Errno::ACCESS) => "without no_new_privs this needs CAP_SYS_ADMIN",
            (Self::WorkingDirectory(_), Errno::ACCESS) => "the user has no right to enter it",
            (Self::DieWithParent, _) => "the supervisor has ended",
            _ => return None,
        })
    }

    fn resolves_in_image(&self) -> bool {
        matches!(
            self,
            Self::AttachMade { .. }
                | Self::AttachOwn { .. }
                | Self::Attach { .. }
                | Self::AttachDev { .. }
                | Self::MakeDirectory(_)
                | Self::WorkingDirectory(_)
        )
    }
}

/// A C string for a message.
pub(crate) fn show(path: &CStr) -> String {
    path.to_string_lossy().into_owned()
}

/// A resource limit for a message.
fn amount(limit: u64) -> String {
    if limit == u64::MAX { "unlimited".into() } else { limit.to_string() }
}

fn name_of(kind: LinkNameSpaceType) -> &'static str {
    match kind {
        LinkNameSpaceType::Time => "time namespace",
        LinkNameSpaceType::Mount => "mount namespace",
        LinkNameSpaceType::ControlGroup => "cgroup namespace",
        LinkNameSpaceType::HostNameAndNISDomainName => "uts namespace",
        LinkNameSpaceType::InterProcessCommunication => "ipc namespace",
        LinkNameSpaceType::User => "user namespace",
        LinkNameSpaceType::ProcessID => "pid namespace",
        LinkNameSpaceType::Network => "network namespace",
    }
}
