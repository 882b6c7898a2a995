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

mod adopt;
mod devices;
mod files;
mod freezer;
mod place;
mod resources;
mod rest;
mod settings;
mod statistics;
mod subtree;
mod v1;
mod v2;
mod values;

pub use devices::{Access, DeviceKind, DeviceRule};
pub use place::Place;
pub use resources::{Device, Further, Rate, Resources};
pub use statistics::{IoStatistics, Statistics};
pub use values::LEAST_MEMORY_BYTES;

use freezer::Freezer;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

/// Where every distribution mounts them.
const ROOT: &str = "/sys/fs/cgroup";

/// The directory that all our groups lie in.
const PARENT: &str = "amphora";

/// The group below a container's own in which its processes are if they can mount: they see this one as the root, and reach
/// neither the limits nor the rules for devices, which are above it.
const INSIDE: &str = "inside";

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
    /// A path that leads elsewhere.
    #[error(
        "cgroups path `{0}`: expected directories and a name without `..`, such as /parent/name (systemd's form slice:prefix:name needs systemd)"
    )]
    Place(String),
    /// Some process cannot be frozen.
    #[error("cgroup {} does not freeze within two seconds: a process in it waits for the kernel; it was thawed again", .0.display())]
    NotFrozen(PathBuf),
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
    Io,
    Hugetlb,
    NetCls,
    NetPrio,
    Rdma,
    /// On v1 only; on v2 each group can be frozen.
    Freezer,
}

impl Controller {
    /// Those of `run`.
    const ALL: [Self; 5] = [Self::Memory, Self::Cpu, Self::Cpuset, Self::Pids, Self::Devices];

    /// Those of [`Further`] besides; nothing is looked up for them unless it is asked for.
    const FURTHER: [Self; 6] = [Self::Io, Self::Hugetlb, Self::NetCls, Self::NetPrio, Self::Rdma, Self::Freezer];

    /// Of v1.
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuset => "cpuset",
            Self::Pids => "pids",
            Self::Devices => "devices",
            Self::Io => "blkio",
            Self::Hugetlb => "hugetlb",
            Self::NetCls => "net_cls",
            Self::NetPrio => "net_prio",
            Self::Rdma => "rdma",
            Self::Freezer => "freezer",
        }
    }

    fn v2_name(self) -> &'static str {
        if self == Self::Io { "io" } else { self.name() }
    }

    /// By what its files' names begin with.
    fn of_v2_file(prefix: &str) -> Option<Self> {
        let all = [Self::Memory, Self::Cpu, Self::Cpuset, Self::Pids, Self::Io, Self::Hugetlb, Self::Rdma];
        all.into_iter().find(|controller| controller.v2_name() == prefix)
    }

    /// What among `wanted` needs this controller, if any.
    fn flag(self, wanted: &Resources) -> Option<&'static str> {
        let further = &wanted.further;
        let needs = |asked: bool, what: &'static str| asked.then_some(what);
        let of_run = match self {
            Self::Memory => wanted.memory_bytes.map(|_| "the memory limit"),
            Self::Cpu => wanted.cpu_millis.map(|_| "the CPU limit").or(wanted.cpu_shares.map(|_| "the CPU shares")),
            Self::Cpuset => wanted.cpuset_cpus.as_ref().map(|_| "the list of CPUs"),
            Self::Pids => wanted.pids.map(|_| "the limit of processes"),
            Self::Devices => needs(further.devices.is_some(), "the list of devices"),
            Self::Io => needs(
                further.io_weight.is_some() || !further.io_weight_devices.is_empty() || !further.io_throttle.is_empty(),
                "the limit of block I/O",
            ),
            Self::Hugetlb => needs(!further.hugepages.is_empty(), "the limit of huge pages"),
            Self::NetCls => needs(further.network_class.is_some(), "the network class"),
            Self::NetPrio => needs(!further.network_priorities.is_empty(), "the network priorities"),
            Self::Rdma => needs(!further.rdma.is_empty(), "the limit of RDMA"),
            Self::Freezer => needs(further.freezable, "freezing"),
        };
        of_run.or_else(|| self.further_flag(further))
    }

    /// For those that `run` has limits of too.
    fn further_flag(self, further: &Further) -> Option<&'static str> {
        let asked = match self {
            Self::Memory => {
                further.memory_reservation_bytes.is_some()
                    || further.memory_swappiness.is_some()
                    || further.oom_killer_disabled
                    || further.oom_group.is_some()
            }
            Self::Cpu => {
                further.cpu_idle.is_some()
                    || further.cpu_quota_usec.or(further.cpu_period_usec).or(further.cpu_burst_usec).is_some()
                    || further.cpu_realtime_runtime_usec.or(further.cpu_realtime_period_usec).is_some()
            }
            Self::Cpuset => further.cpuset_mems.is_some(),
            _ => false,
        };
        let in_unified = || further.unified.keys().any(|file| file.split('.').next() == Some(self.v2_name()));
        (asked || in_unified()).then_some(match self {
            Self::Memory => "a setting of memory",
            Self::Cpu => "a setting of CPU time",
            Self::Cpuset => "the list of memory nodes",
            _ => "a file in `unified`",
        })
    }
}

/// What cgroups this process can make: found once per command, cheaply (one `statfs`), the rest only when it is asked for.
pub struct Cgroups {
    tree: Tree,
}

enum Tree {
    V1(Box<v1::Hierarchies>),
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
            Tree::V1(Box::default())
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
        let mut sentences = settings::refused(wanted, matches!(self.tree, Tree::V2(_)));
        for controller in Controller::ALL.into_iter().chain(Controller::FURTHER) {
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
        self.create_at(&Place::of_container(id)?, wanted)
    }

    /// The same at another place; what it lies in is made too, and stays. There nothing is made anew but a group without any below it.
    pub fn create_at(&self, place: &Place, wanted: &Resources) -> Result<Cgroup, CgroupError> {
        values::check(wanted)?;
        if let Some(sentence) = settings::refused(wanted, matches!(self.tree, Tree::V2(_))).pop() {
            return Err(CgroupError::Unenforceable(sentence));
        }
        let mut controllers = Controller::ALL.iter().chain(&Controller::FURTHER);
        let limited = controllers.any(|controller| controller.flag(wanted).is_some());
        let kind = match &self.tree {
            Tree::V1(hierarchies) => hierarchies.create(place, wanted).map(Kind::V1),
            Tree::V2(tree) => tree.create(place, wanted).map(Kind::V2),
        };
        let cgroup = |kind| {
            let every_hierarchy = wanted.every_hierarchy;
            Cgroup { id: place.name().to_owned(), kind, rest: Vec::new(), every_hierarchy }
        };
        match kind {
            Ok(kind) if wanted.every_hierarchy => self.create_rest(place, cgroup(kind)),
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

    fn create_rest(&self, place: &Place, mut cgroup: Cgroup) -> Result<Cgroup, CgroupError> {
        let has = |name: &str| matches!(&cgroup.kind, Kind::V1(group) if group.has(name));
        match rest::create(place, &|name| self.covers(name) || has(name)) {
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
        self.open_at(&Place::of_container(id)?)
    }

    /// The same at another place.
    pub fn open_at(&self, place: &Place) -> Result<Option<Cgroup>, CgroupError> {
        let kind = match &self.tree {
            Tree::V1(hierarchies) => Kind::V1(hierarchies.open(place)?),
            Tree::V2(tree) => tree.open(place)?.map_or(Kind::Nothing, Kind::V2),
        };
        let rest = rest::open(place, &|name| self.covers(name))?;
        let cgroup = Cgroup { id: place.name().to_owned(), kind, rest, every_hierarchy: false };
        Ok(Some(cgroup).filter(|cgroup| !cgroup.paths().is_empty()))
    }

    /// Changes limits of a group that may have processes; what is None stays as it is, devices too. On v1 a group of a controller
    /// that the container had no need of is made, and its processes are moved there: who made the cgroup does not know of that
    /// one, and removes it only after [`Self::open_at`].
    ///
    /// # Errors
    /// A value is refused, by us or by the kernel (a memory limit below what is in use, say). Other limits may have been changed
    /// then.
    pub fn update(&self, place: &Place, wanted: &Resources) -> Result<(), CgroupError> {
        values::check(wanted)?;
        if let Some(sentence) = self.unenforceable(wanted).pop() {
            return Err(CgroupError::Unenforceable(sentence));
        }
        match &self.tree {
            Tree::V1(hierarchies) => hierarchies.update(place, wanted),
            Tree::V2(tree) => tree.update(place, wanted),
        }
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

    /// What is used now and was used so far.
    pub fn statistics(&self) -> Statistics {
        statistics::read(&self.paths())
    }

    /// Stops all its processes until they are thawed, and waits until they are; none of them notices.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.freezer()?.freeze()
    }

    /// Lets them go on.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.freezer()?.thaw()
    }

    /// Whether all are frozen.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        self.freezer()?.is_frozen()
    }

    fn freezer(&self) -> Result<Freezer, CgroupError> {
        Freezer::of(&self.paths()).ok_or_else(|| {
            let id = &self.id;
            CgroupError::Unenforceable(format!(
                "{id} cannot be frozen: it has no group in a hierarchy with a freezer; one gets it that is made to be freezable"
            ))
        })
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

#[cfg(test)]
mod tests;
