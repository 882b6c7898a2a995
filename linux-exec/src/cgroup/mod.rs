//! One small interface over cgroup v1, hybrid and v2.
//!
//! ```text
//! v1, hybrid   /sys/fs/cgroup/memory/amphora/ID      always, for the peak and the out-of-memory count
//!              /sys/fs/cgroup/{cpu,cpuset,pids,devices}/amphora/ID    only where a limit or rule needs them
//!              …/amphora/ID in every other hierarchy too, wherever it is mounted, for a container that can mount
//! v2           BASE/amphora/ID        BASE: /sys/fs/cgroup where it may be written, else the nearest ancestor of this
//!                                     process's own cgroup that was delegated to its user and holds no process itself
//! ```
//!
//! Limits are set while the group is empty. There is no lock: the kernel lets one of two makers of the same directory win,
//! and what a killed process has left behind (a group without processes) is removed by the next one to make it.
//! The `amphora` directories stay.
//!
//! Source: cgroups(7), the kernel's Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.

mod devices;
mod files;
mod rest;
mod subtree;
mod v1;
mod v2;
mod values;

pub use values::LEAST_MEMORY_BYTES;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

/// Where every distribution mounts them.
const ROOT: &str = "/sys/fs/cgroup";

/// The directory that all our groups lie in.
const PARENT: &str = "amphora";

/// Limits; None is unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Bytes.
    pub memory_bytes: Option<u64>,
    /// Memory *plus* swap in bytes, Docker's meaning; with a memory limit and None here, swap is off (equal to memory).
    /// `u64::MAX` is unlimited swap.
    pub memory_swap_bytes: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u64>,
    /// 2..=262144, on the scale of v1 (converted to a weight on v2).
    pub cpu_shares: Option<u64>,
    /// A list such as `0-1,3`.
    pub cpuset_cpus: Option<String>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Only the devices that every container has may be opened. Where that cannot be had the group is made all the same, and
    /// [`Cgroup::restricts_devices`] says so.
    pub restrict_devices: bool,
    /// For a container that can mount: a group in every hierarchy of the machine, or none is made, as otherwise it would see, and
    /// could change, what its maker is in. On v2 it gets a group below the one with the limits.
    pub every_hierarchy: bool,
}

/// What one container used and which limits it met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// None where the kernel does not tell (v2 before Linux 5.19, v1 without the memory controller).
    pub peak_memory_bytes: Option<u64>,
    /// Processes killed by the memory limit.
    pub oom_kills: u64,
    /// How often a fork was refused.
    pub pids_refused: u64,
    /// Microseconds, of all CPUs together. None on v1 where CPU time is not accounted in the hierarchies used.
    pub cpu_usec: Option<u64>,
}

/// Why a cgroup or a limit cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A limit that this machine cannot enforce; the text is a sentence of [`Cgroups::unenforceable`].
    #[error("{0}")]
    Unenforceable(String),
    /// A value that the kernel would refuse, or silently make another one.
    #[error("{option} {found}: expected {expected}")]
    Value {
        /// The limit, by its usual flag.
        option: &'static str,
        /// The value.
        found: String,
        /// What would do.
        expected: String,
    },
    /// A container that can mount would share a hierarchy with the host.
    #[error(
        "a container that can mount file systems must have a cgroup of its own in every hierarchy, or it could change the host's, and \
         in `{hierarchy}` it can have none: {reason}"
    )]
    Shared {
        /// Its controllers or name.
        hierarchy: String,
        /// Why.
        reason: String,
    },
    /// An id that cannot name a directory.
    #[error("container id `{0}` cannot name a cgroup: expected one path component that does not begin with a dot")]
    Id(String),
    /// Reading, writing, making or removing failed.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// Such as `write 1048576 to`.
        action: String,
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Processes stay in a group that is to be removed, made anew, or was killed.
    #[error("cgroup {} still has processes: stop them, or wait for them to end, and try again", .0.display())]
    Busy(PathBuf),
}

impl CgroupError {
    /// For `map_err`.
    fn file(action: impl Into<String>, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let (action, path) = (action.into(), path.to_owned());
        move |source| Self::File { action, path, source }
    }

    /// The same as the reason why a hierarchy would be shared.
    fn shared(self, hierarchy: &str) -> Self {
        match self {
            Self::Busy(_) | Self::Shared { .. } => self,
            error => Self::Shared { hierarchy: hierarchy.to_owned(), reason: error.to_string() },
        }
    }

    /// Whether the file or directory does not exist.
    fn is_missing(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// The controllers that the limits need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controller {
    Memory,
    Cpu,
    Cpuset,
    Pids,
    /// On v1 only; on v2 a program does that.
    Devices,
}

impl Controller {
    const ALL: [Self; 5] = [Self::Memory, Self::Cpu, Self::Cpuset, Self::Pids, Self::Devices];

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuset => "cpuset",
            Self::Pids => "pids",
            Self::Devices => "devices",
        }
    }

    /// The flag among `wanted` that needs this controller, if any.
    fn flag(self, wanted: &Resources) -> Option<&'static str> {
        match self {
            Self::Memory => wanted.memory_bytes.map(|_| "the memory limit"),
            Self::Cpu => wanted.cpu_millis.map(|_| "the CPU limit").or(wanted.cpu_shares.map(|_| "the CPU shares")),
            Self::Cpuset => wanted.cpuset_cpus.as_ref().map(|_| "the list of CPUs"),
            Self::Pids => wanted.pids.map(|_| "the limit of processes"),
            Self::Devices => None,
        }
    }
}

/// What cgroups this process can make: found once per command, cheaply (one `statfs`), the rest only when it is asked for.
pub struct Cgroups {
    tree: Tree,
}

enum Tree {
    V1(v1::Hierarchies),
    V2(v2::Tree),
}

/// One container's cgroup: a directory on v2, one for each controller on v1, nothing where none can be made; and one in each other
/// hierarchy if it can mount.
pub struct Cgroup {
    id: String,
    kind: Kind,
    rest: Vec<rest::Group>,
    every_hierarchy: bool,
}

enum Kind {
    Nothing,
    V1(v1::Group),
    V2(v2::Group),
}

impl Cgroups {
    /// Looks at what lies at /sys/fs/cgroup; everything else is looked up when a limit needs it.
    pub fn detect() -> Result<Self, CgroupError> {
        let tree = if files::is_v2(Path::new(ROOT)) {
            Tree::V2(v2::Tree::find(Path::new(ROOT))?)
        } else {
            Tree::V1(v1::Hierarchies::default())
        };
        Ok(Self { tree })
    }

    /// `v1`, `hybrid`, `v2`, or `none` where nothing is mounted; for `info`.
    pub fn mode(&self) -> &'static str {
        match &self.tree {
            Tree::V2(_) => "v2",
            Tree::V1(_) if files::is_v2(&Path::new(ROOT).join("unified")) => "hybrid",
            Tree::V1(hierarchies) if hierarchies.any() => "v1",
            Tree::V1(_) => "none",
        }
    }

    /// One sentence for each limit that cannot be enforced here, with the reason and the next step. Empty: all can.
    pub fn unenforceable(&self, wanted: &Resources) -> Vec<String> {
        let mut sentences = Vec::new();
        for controller in Controller::ALL {
            // The machine is looked at only for what is wanted.
            if let Some(flag) = controller.flag(wanted)
                && let Some(reason) = self.obstacle(controller)
            {
                sentences.push(format!("{flag} cannot be enforced: {reason}"));
            }
        }
        if sentences.is_empty() && values::limits_swap(wanted) && !self.accounts_swap() {
            sentences.push(NO_SWAP_ACCOUNTING.to_owned());
        }
        sentences
    }

    /// Makes the cgroup of container `id`, limits set while it is empty.
    ///
    /// A group of that name without processes is taken for left behind and made anew; one with processes is an error.
    /// On v1 it lies only in the hierarchies that a limit needs, plus memory (for peak and out-of-memory count).
    /// Where nothing can be made and nothing is limited: a `Cgroup` that does nothing.
    pub fn create(&self, id: &str, wanted: &Resources) -> Result<Cgroup, CgroupError> {
        check_id(id)?;
        values::check(wanted)?;
        let limited = Controller::ALL.iter().any(|controller| controller.flag(wanted).is_some());
        let kind = match &self.tree {
            Tree::V1(hierarchies) => hierarchies.create(id, wanted).map(Kind::V1),
            Tree::V2(tree) => tree.create(id, wanted).map(Kind::V2),
        };
        let cgroup = |kind| {
            let every_hierarchy = wanted.every_hierarchy;
            Cgroup { id: id.to_owned(), kind, rest: Vec::new(), every_hierarchy }
        };
        match kind {
            Ok(kind) if wanted.every_hierarchy => self.create_rest(cgroup(kind)),
            Ok(kind) => Ok(cgroup(kind)),
            Err(error @ (CgroupError::Unenforceable(_) | CgroupError::File { .. }))
                if !limited && wanted.every_hierarchy =>
            {
                Err(error.shared("cgroup v2"))
            }
            Err(CgroupError::Unenforceable(_)) if !limited => Ok(cgroup(Kind::Nothing)),
            // What lies behind it says more than an errno.
            Err(error @ (CgroupError::Unenforceable(_) | CgroupError::File { .. })) => {
                Err(self.unenforceable(wanted).pop().map_or(error, CgroupError::Unenforceable))
            }
            Err(error) => Err(error),
        }
    }

    fn create_rest(&self, mut cgroup: Cgroup) -> Result<Cgroup, CgroupError> {
        match rest::create(&cgroup.id, &|name| self.covers(name)) {
            Ok(rest) => {
                cgroup.rest = rest;
                Ok(cgroup)
            }
            Err(error) => {
                cgroup.remove()?;
                Err(error)
            }
        }
    }

    /// The cgroup that `create` made for `id`, from another process (`exec`, `stop`, clean-up); None if there is none.
    pub fn open(&self, id: &str) -> Result<Option<Cgroup>, CgroupError> {
        check_id(id)?;
        let kind = match &self.tree {
            Tree::V1(hierarchies) => Kind::V1(hierarchies.open(id)?),
            Tree::V2(tree) => tree.open(id)?.map_or(Kind::Nothing, Kind::V2),
        };
        let rest = rest::open(id, &|name| self.covers(name))?;
        let cgroup = Cgroup { id: id.to_owned(), kind, rest, every_hierarchy: false };
        Ok(Some(cgroup).filter(|cgroup| !cgroup.paths().is_empty()))
    }

    /// Whether the tree of the limits looks after a hierarchy, told one of its controllers; the v2 tree has none.
    fn covers(&self, name: &str) -> bool {
        match &self.tree {
            Tree::V1(hierarchies) => hierarchies.covers(name),
            Tree::V2(_) => name.is_empty(),
        }
    }

    /// Ids of all containers that have a cgroup under our parent, in order (for `system check`).
    pub fn list(&self) -> Vec<String> {
        let parents = match &self.tree {
            Tree::V1(hierarchies) => hierarchies.parents(),
            Tree::V2(tree) => tree.parent().into_iter().collect(),
        };
        let directories = parents.iter().flat_map(|parent| files::directories(parent));
        let directories = directories.chain(rest::list(&|name| self.covers(name)));
        let mut ids: Vec<String> =
            directories.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
        ids.sort();
        ids.dedup();
        ids
    }

    /// Why a controller cannot be used; None if it can.
    fn obstacle(&self, controller: Controller) -> Option<String> {
        match &self.tree {
            Tree::V1(hierarchies) => hierarchies.obstacle(controller),
            Tree::V2(tree) => tree.obstacle(controller),
        }
    }

    fn accounts_swap(&self) -> bool {
        match &self.tree {
            Tree::V1(hierarchies) => hierarchies.accounts_swap(),
            Tree::V2(tree) => tree.accounts_swap(),
        }
    }
}

const NO_SWAP_ACCOUNTING: &str = "the limit of memory and swap cannot be enforced: this kernel does not account swap; \
    start it with swapaccount=1, or do without";

impl Cgroup {
    /// v2: the directory for CLONE_INTO_CGROUP. None on v1, where the child writes to [`Self::join_files`] instead.
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        match &self.kind {
            Kind::V2(group) => Some(group.handle.as_fd()),
            Kind::V1(_) | Kind::Nothing => None,
        }
    }

    /// Open `tasks` (v1) or `cgroup.procs` (v2) files, to which a process writes `0\n` that is to be in it. `cloned`: it was
    /// cloned into [`Self::clone_into`].
    pub fn join_files(&self, cloned: bool) -> Vec<BorrowedFd<'_>> {
        let mut files = match &self.kind {
            Kind::V1(group) => group.join_files(),
            Kind::V2(group) if !cloned => vec![group.procs.as_fd()],
            Kind::V2(_) | Kind::Nothing => Vec::new(),
        };
        files.extend(self.rest.iter().map(rest::Group::entrance));
        files
    }

    /// The container that it was made for.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Whether it was made with a group in every hierarchy.
    pub(crate) fn is_in_every_hierarchy(&self) -> bool {
        self.every_hierarchy
    }

    /// Whether the devices that its processes can open were restricted when it was made.
    pub fn restricts_devices(&self) -> bool {
        match &self.kind {
            Kind::Nothing => false,
            Kind::V1(group) => group.restricts_devices(),
            Kind::V2(group) => group.restricts_devices,
        }
    }

    /// What was used so far.
    pub fn usage(&self) -> Usage {
        match &self.kind {
            Kind::Nothing => Usage::default(),
            Kind::V1(group) => group.usage(),
            Kind::V2(group) => group.usage(),
        }
    }

    /// SIGKILLs every process in it, and in the groups below it, and thaws those that are frozen.
    ///
    /// On v2 (Linux 5.14) the kernel does that at once; elsewhere they are signalled one by one until none is left, for half a
    /// second at most, after which it is [`CgroupError::Busy`].
    pub fn kill(&self) -> Result<(), CgroupError> {
        subtree::kill(&self.paths())
    }

    /// Removes it and the groups that the workload made below it; retries for half a second while it is busy.
    /// Already gone is fine.
    pub fn remove(&self) -> Result<(), CgroupError> {
        self.kind.paths().iter().try_for_each(|path| subtree::remove(path))?;
        self.rest.iter().try_for_each(rest::Group::remove)
    }

    /// Its directories, for `inspect`.
    pub fn paths(&self) -> Vec<PathBuf> {
        let mut paths = self.kind.paths();
        paths.extend(self.rest.iter().map(|group| group.path.clone()));
        paths
    }
}

impl Kind {
    fn paths(&self) -> Vec<PathBuf> {
        match self {
            Self::Nothing => Vec::new(),
            Self::V1(group) => group.paths(),
            Self::V2(group) => vec![group.path.clone()],
        }
    }
}

fn check_id(id: &str) -> Result<(), CgroupError> {
    let fits = !id.is_empty() && !id.starts_with('.') && !id.contains(['/', '\n', '\0']);
    if fits { Ok(()) } else { Err(CgroupError::Id(id.to_owned())) }
}

#[cfg(test)]
mod tests;
