//! cgroup v1, and hybrid machines, whose v2 tree has no controller of use: one hierarchy for each controller.

use super::{
    CgroupError, Controller, INSIDE, PARENT, Place, ROOT, Resources, Usage, adopt, devices, files, settings, subtree,
    values,
};
use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Where the controllers' hierarchies are mounted; each is looked up when it is first asked for.
#[derive(Default)]
pub(super) struct Hierarchies {
    found: [OnceLock<Option<PathBuf>>; Controller::ALL.len() + Controller::FURTHER.len()],
}

/// A container's directories.
pub(super) struct Group {
    members: Vec<Member>,
}

struct Member {
    controller: Controller,
    path: PathBuf,
    tasks: File,
}

impl Hierarchies {
    /// Whether there is any.
    pub(super) fn any(&self) -> bool {
        Controller::ALL.iter().any(|controller| self.root(*controller).is_some())
    }

    /// Our parent directories, those that exist and those that do not yet.
    pub(super) fn parents(&self) -> Vec<PathBuf> {
        Controller::ALL.iter().filter_map(|controller| Some(self.root(*controller)?.join(PARENT))).collect()
    }

    /// Why a controller cannot be used.
    pub(super) fn obstacle(&self, controller: Controller) -> Option<String> {
        let name = controller.name();
        let Some(root) = self.root(controller) else {
            return Some(format!(
                "no cgroup hierarchy with the `{name}` controller is mounted; as root, \
                 `mkdir -p {ROOT}/{name} && mount -t cgroup -o {name} {name} {ROOT}/{name}` gives one if the kernel has it"
            ));
        };
        let parent = root.join(PARENT);
        let directory = if parent.exists() { parent } else { root.to_owned() };
        let error = files::write_obstacle(&directory)?;
        if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
            return Some(files::read_only(root));
        }
        Some(format!(
            "{} cannot be written ({error}); cgroup v1 serves root only: run as root, or start the machine with \
             cgroup v2 (`systemd.unified_cgroup_hierarchy=1` on the kernel's command line)",
            directory.display()
        ))
    }

    /// Whether memory and swap together can be limited.
    pub(super) fn accounts_swap(&self) -> bool {
        self.root(Controller::Memory).is_some_and(|root| root.join("memory.memsw.limit_in_bytes").exists())
    }

    /// Makes the directories and sets the limits; on failure takes back what was made.
    pub(super) fn create(&self, place: &Place, wanted: &Resources) -> Result<Group, CgroupError> {
        let mut group = Group { members: Vec::new() };
        for controller in Controller::ALL.into_iter().chain(Controller::FURTHER) {
            let limited = controller.flag(wanted).is_some();
            let wished =
                controller == Controller::Memory || (controller == Controller::Devices && wanted.restrict_devices);
            let needed =
                wanted.every_hierarchy && Controller::ALL.contains(&controller) && self.root(controller).is_some();
            if !limited && !wished && !needed {
                continue;
            }
            match self.create_member(controller, place, wanted) {
                Ok(member) => group.members.push(member),
                // Without a limit it would only have told how much was used; of devices the caller is told.
                Err(error) if !limited && !needed && !matches!(error, CgroupError::Busy(_)) => {}
                Err(error) => {
                    group.members.iter().try_for_each(|member| subtree::remove_tree(&member.path))?;
                    return Err(if limited { error } else { error.shared(controller.name()) });
                }
            }
        }
        Ok(group)
    }

    fn create_member(&self, controller: Controller, place: &Place, wanted: &Resources) -> Result<Member, CgroupError> {
        let missing = || CgroupError::Unenforceable(self.obstacle(controller).unwrap_or_default());
        let root = self.root(controller).ok_or_else(missing)?;
        let path = place.path(root);
        let own_rules = wanted.further.devices.is_some() || !place.is_default();
        if controller == Controller::Devices && !own_rules {
            // Before there is a group in it, as the kernel changes rules only then.
            let parent = place.parent(root);
            files::make_parent(&parent)?;
            devices::restrict_v1(&parent)?;
        }
        match files::make(&path, place) {
            Err(error) if error.is_missing() => {
                place.parents(root).iter().try_for_each(|parent| files::make_parent(parent))?;
                files::make(&path, place)?;
            }
            made => made?,
        }
        let limited = match controller {
            Controller::Devices if own_rules => limit_devices(&path, wanted),
            // Its parent has the rules.
            Controller::Devices => Ok(()),
            Controller::Cpuset => limit_cpuset(root, place, wanted),
            _ => limit(controller, &path, wanted),
        };
        let member = limited.and_then(|()| Member::open(controller, &path));
        member.inspect_err(|_| drop(subtree::remove_tree(&path)))
    }

    /// Changes limits; a group that the container does not have yet in a hierarchy is made, and its processes are moved there.
    pub(super) fn update(&self, place: &Place, wanted: &Resources) -> Result<(), CgroupError> {
        let settings = settings::v1(wanted);
        let controllers: Vec<Controller> = settings.iter().map(|setting| setting.controller).collect();
        self.adopt(place, &controllers, wanted)?;
        files::apply_in_any_order(&settings, &|setting| {
            let missing = || CgroupError::Unenforceable(self.obstacle(setting.controller).unwrap_or_default());
            files::apply(&place.path(self.root(setting.controller).ok_or_else(missing)?), setting)
        })
    }

    /// Groups of a running container for these controllers, where it has none.
    pub(super) fn adopt(
        &self,
        place: &Place,
        controllers: &[Controller],
        wanted: &Resources,
    ) -> Result<(), CgroupError> {
        let is_there = |controller: Controller| self.root(controller).is_some_and(|root| place.path(root).exists());
        let mut having = Controller::ALL.into_iter().chain(Controller::FURTHER);
        let from = having.find(|controller| is_there(*controller)).and_then(|controller| self.root(controller));
        for &controller in controllers {
            if is_there(controller) {
                continue;
            }
            let from = from.ok_or_else(|| {
                CgroupError::Unenforceable(format!(
                    "{} has no cgroup, so none of its processes can be found: start it where cgroups can be made",
                    place.name()
                ))
            })?;
            let made = self.create_member(controller, place, wanted)?;
            adopt::move_all(&place.path(from), &made.path).inspect_err(|_| drop(subtree::remove_tree(&made.path)))?;
        }
        Ok(())
    }

    /// The directories that there are.
    pub(super) fn open(&self, place: &Place) -> Result<Group, CgroupError> {
        let mut members = Vec::new();
        for controller in Controller::ALL {
            let Some(root) = self.root(controller) else { continue };
            match Member::open(controller, &place.path(root)) {
                Ok(member) => members.push(member),
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Group { members })
    }

    /// Whether a controller, or a hierarchy by its name, is looked after here.
    pub(super) fn covers(&self, name: &str) -> bool {
        Controller::ALL.iter().any(|controller| controller.name() == name && self.root(*controller).is_some())
    }

    fn root(&self, controller: Controller) -> Option<&Path> {
        self.found[controller as usize].get_or_init(|| find(controller.name())).as_deref()
    }
}

/// The usual place of a controller or of `name=…`, or where the mount table says.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let usual = Path::new(ROOT).join(name.strip_prefix("name=").unwrap_or(name));
    if files::is_v1(&usual) {
        return Some(usual);
    }
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").ok()?;
    files::mount_point(&mountinfo, &|kind, options| kind == "cgroup" && options.split(',').any(|option| option == name))
}

/// Sets one controller's limits.
fn limit(controller: Controller, path: &Path, wanted: &Resources) -> Result<(), CgroupError> {
    let settings = settings::v1(wanted);
    let mut settings = settings.iter().filter(|setting| setting.controller == controller);
    settings.try_for_each(|setting| files::apply(path, setting))
}

/// Who can mount the hierarchy could change the rules of its own group, but not those of the one that it lies in.
fn limit_devices(path: &Path, wanted: &Resources) -> Result<(), CgroupError> {
    match &wanted.further.devices {
        Some(rules) => devices::set_v1(path, rules)?,
        None if wanted.restrict_devices => devices::set_default_v1(path)?,
        None => {}
    }
    if wanted.every_hierarchy { files::make_parent(&path.join(INSIDE)) } else { Ok(()) }
}

fn limit_cpuset(root: &Path, place: &Place, wanted: &Resources) -> Result<(), CgroupError> {
    let (parent, path) = (inherit_to_parent(root, place)?, place.path(root));
    if let Some(cpus) = &wanted.cpuset_cpus {
        values::check_cpus(cpus, &files::read(&parent.join("cpuset.cpus"))?)?;
    }
    limit(Controller::Cpuset, &path, wanted)?;
    inherit_cpuset(&parent, &path)
}

/// Down to what a group lies in, which is returned.
pub(super) fn inherit_to_parent(root: &Path, place: &Place) -> Result<PathBuf, CgroupError> {
    let mut above = root.to_owned();
    for parent in place.parents(root) {
        inherit_cpuset(&above, &parent)?;
        above = parent;
    }
    Ok(above)
}

/// A new group has neither CPUs nor memory nodes, and takes no process before it has both.
pub(super) fn inherit_cpuset(parent: &Path, path: &Path) -> Result<(), CgroupError> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        if files::read(&path.join(name))?.is_empty() {
            files::write(&path.join(name), &files::read(&parent.join(name))?)?;
        }
    }
    Ok(())
}

impl Member {
    /// `tasks`, not `cgroup.procs`: a thread that moves only itself needs no machine-wide lock, which costs a grace
    /// period of RCU, 2 to 20 ms (cgroup_attach_lock in kernel/cgroup/cgroup.c). A new process has but one thread.
    fn open(controller: Controller, path: &Path) -> Result<Self, CgroupError> {
        let open = |file: PathBuf| files::open_for_writing(&file).map_err(CgroupError::file("open", &file));
        let tasks = match controller {
            Controller::Devices => match open(path.join(INSIDE).join("tasks")) {
                Err(error) if error.is_missing() => open(path.join("tasks"))?,
                opened => opened?,
            },
            _ => open(path.join("tasks"))?,
        };
        Ok(Self { controller, path: path.to_owned(), tasks })
    }
}

impl Group {
    pub(super) fn join_files(&self) -> Vec<BorrowedFd<'_>> {
        self.members.iter().map(|member| member.tasks.as_fd()).collect()
    }

    /// Whether it has a group in the hierarchy of a controller.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.controller.name() == name)
    }

    pub(super) fn restricts_devices(&self) -> bool {
        self.members.iter().any(|member| member.controller == Controller::Devices)
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.members.iter().map(|member| member.path.clone()).collect()
    }

    pub(super) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for Member { controller, path, .. } in &self.members {
            match controller {
                Controller::Memory => {
                    usage.peak_memory_bytes = files::read_number(&path.join("memory.max_usage_in_bytes"));
                    usage.oom_kills = files::read_keyed(&path.join("memory.oom_control"), "oom_kill").unwrap_or(0);
                }
                Controller::Pids => {
                    usage.pids_refused = files::read_keyed(&path.join("pids.events"), "max").unwrap_or(0);
                }
                // There where cpu and cpuacct are one hierarchy, as systemd mounts them.
                Controller::Cpu => {
                    usage.cpu_usec =
                        files::read_number(&path.join("cpuacct.usage")).map(|nanoseconds| nanoseconds / 1000);
                }
                _ => {}
            }
        }
        usage
    }
}
