//! ★ The only place where the two kinds part: [`Workload::behaviour`] is the one match.
//!
//! Everything before it (references, the store, what the user typed) and everything after it (processes, cgroups, logs,
//! signals, exit codes) is one path. What differs is a method of [`Behaviour`], written in [`linux`] and in [`wasm`]: a third
//! kind is a compile error until it has answered all of them.

mod joined;
mod linux;
mod linux_defaults;
mod linux_devices;
mod linux_seccomp;
mod mounts;
mod propagation;
pub(crate) mod report;
pub(crate) mod wasm;

pub(crate) use joined::Joined;

use std::{
    borrow::Cow,
    fs,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt, chown},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use images::{Class, Image, spin::Application};
use linux_exec::{
    capabilities::{CapabilitySet, CapabilitySets},
    cgroup::{Cgroup, Device, DeviceRule, Further, Rate, Resources},
    confinement::Confinement,
    plan::{Entry, Mount, Plan, Stdio},
    rootfs::Rootfs,
    seccomp,
    users::User,
};
use serde_json::Value;
use wasm_exec::{
    OutputSink, Stores,
    http::{Pools, Service},
};

use crate::{
    kinds::report::Teller,
    network::Attached,
    output::errors::Coded,
    records::{container::Container, host::Host},
    spec::{
        RunSpec, WasmProgram, Workload, exit_code,
        limits::{Limits, Throttle, ThrottleRate},
        mounts::MountKind,
        ports::{Listening, PublishedPort},
        seccomp::Circumstances,
    },
};

/// What a kind of program does its own way.
pub(crate) trait Behaviour {
    /// The command line up to where the user's arguments begin, if neither the image nor the user names one.
    fn default_entrypoint(&self, image: &Image) -> Vec<String>;

    /// Variables that every program of this kind finds, unless the image or the user sets them.
    fn default_env(&self, hostname: &str) -> Vec<String>;

    /// Whether it runs on its image's files, and keeps what it changes of them.
    fn keeps_files(&self) -> bool;

    /// Whether its root has files that tell of users.
    fn has_users(&self) -> bool;

    /// Refuses words of the command line that would be without effect.
    fn check_typed(&self, entrypoint: bool, workdir: bool) -> Result<()>;

    /// Refuses what this kind cannot enforce or cannot do.
    fn check(&self, spec: &RunSpec) -> Result<()>;

    /// Whether a second program can join a running container of this kind: a health check, say.
    fn takes_exec(&self) -> bool;

    /// Refuses a second program where none can join.
    fn check_exec(&self, name: &str) -> Result<()>;

    /// Does at pull and import what `run` should not have to.
    fn prepare(&self, host: &Host, image: &Image) -> Result<()>;

    /// What `image explain` says of the program.
    fn explain(&self, host: &Host, image: &Image) -> Result<Vec<(&'static str, Value)>>;

    /// The shortest command line that runs an image of this name, and below it, as comments, what more flags would give.
    fn explain_grants(&self, host: &Host, image: &Image, name: &str) -> Result<String>;

    /// What can be seen of the program in a container; `pid`: of its process, if it runs.
    fn debug(&self, host: &Host, image: &Image, container: &Container, pid: Option<i32>) -> Result<String>;

    /// What `inspect` says of it besides, and under which name.
    fn details(&self, host: &Host, image: Option<&Image>, container: &Container) -> Option<(&'static str, Value)>;

    /// What published ports are to the program; one that opens its sockets itself needs a network for them.
    fn listening(&self, host: &Host, image: &Image) -> Result<Listening>;

    /// Whether it is on the default network where nothing was said of networks.
    fn is_on_default_network(&self) -> bool;

    /// What of it, if anything, takes a process of its own, where it could be a function within another one.
    fn needs_process(&self, spec: &RunSpec) -> Option<&'static str>;

    /// Makes it a function within this process, which is an event loop's.
    fn host(&self, of: Hosting<'_>) -> Result<Hosted>;

    /// Memory that the process may use beyond what its program may.
    fn allowance_bytes(&self, spec: &RunSpec) -> u64;

    /// Whether the memory of its processes alone is what it uses, and not what its cgroup counts.
    fn has_its_own_memory(&self) -> bool;

    /// Whether a limit of memory holds even where no cgroup can be made.
    fn limits_memory_itself(&self) -> bool;

    /// Whether it could make device nodes that work.
    fn reaches_devices(&self, spec: &RunSpec) -> Result<bool>;

    /// A list of devices that it may open, where it has one of its own.
    fn device_rules(&self, spec: &RunSpec) -> Result<Option<Vec<DeviceRule>>>;

    /// Whether it could mount the host's cgroup hierarchies.
    fn can_mount(&self, spec: &RunSpec) -> Result<bool>;

    /// The root that it sees, and whether all of that is read-only whatever the user says.
    fn root(&self, host: &Host, image: &Image, container: &Container) -> Result<(Rootfs, bool)>;

    /// Its working directory as the kernel knows it.
    fn cwd(&self, spec: &RunSpec) -> PathBuf;

    /// What it is kept from.
    fn confinement<'a>(
        &self,
        spec: &RunSpec,
        capabilities: CapabilitySets,
        given: &Given<'a>,
    ) -> Result<Confinement<'a>>;

    /// Paths that are covered, and paths that are read-only.
    fn hidden_paths(&self, spec: &RunSpec) -> (Vec<PathBuf>, Vec<PathBuf>);

    /// Limits of the process that are not the user's own: resource, soft, hard.
    fn rlimits(&self, spec: &RunSpec) -> Vec<(u32, u64, u64)>;

    /// The first process.
    fn entry(&self, of: &Parts<'_>, user_mounts: Vec<Mount>) -> Result<First>;
}

/// What was made or opened for a container outside of it.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) cgroup: &'a Cgroup,
    /// Its network, unless that is new or the host's.
    pub(crate) attached: Option<&'a Attached>,
    pub(crate) joined: &'a Joined,
}

/// What is known when the first process is decided.
pub(crate) struct Parts<'a> {
    host: &'a Host,
    image: &'a Image,
    container: &'a Container,
    root: &'a Rootfs,
    user: &'a User,
    given: Given<'a>,
}

/// What a function within this process is made of.
pub(crate) struct Hosting<'a> {
    pub(crate) host: &'a Host,
    pub(crate) image: &'a Image,
    /// What was asked for, written down; it has no process.
    pub(crate) container: &'a Container,
    pub(crate) pools: &'a Pools,
    /// Requests at once.
    pub(crate) requests: u32,
    /// From a whole request to the beginning of its answer.
    pub(crate) answer_within: Duration,
    /// Requests that one instance answers.
    pub(crate) reuse: u32,
    /// Takes what it writes, and what is told of it.
    pub(crate) output: OutputSink,
    /// Those that it has already; None: they are opened.
    pub(crate) stores: Option<Stores>,
}

/// A function within this process.
pub(crate) struct Hosted {
    pub(crate) service: Service,
    pub(crate) stores: Stores,
    /// What it is granted lies there, as long as it runs.
    pub(crate) folders: Vec<OwnedFd>,
}

/// The first process of a container.
pub(crate) struct First {
    entry: Entry,
    /// Where it tells of its end, if it does.
    report: Option<Teller>,
    /// All mounts, those of the user among them.
    mounts: Vec<Mount>,
    /// How long after the time limit the supervisor steps in.
    timeout_grace: Duration,
    /// Where it is published, each at one address and one port.
    ports: Vec<PublishedPort>,
}

/// Everything decided, ready for [`linux_exec::spawn::spawn`].
pub(crate) struct Prepared<'a> {
    pub(crate) plan: Plan<'a>,
    /// What the program's own process tells of its end.
    pub(crate) report: Option<Teller>,
    /// How long after the time limit the supervisor steps in.
    pub(crate) timeout_grace: Duration,
    /// Where it is published, each at one address and one port.
    pub(crate) ports: Vec<PublishedPort>,
}

/// Of an application of several components, how one is chosen.
fn choice(image: &Image) -> &'static str {
    let application = image.spin.as_ref().and_then(|application| application.as_ref().ok());
    match application.is_some_and(|application| !application.answering().is_empty()) {
        true => " as a whole (--component NAME runs one that answers HTTP requests)",
        false => "",
    }
}

impl Workload {
    /// What an image runs as; an error names what it is instead.
    pub(crate) fn of(image: &Image) -> Result<Self> {
        let name = image.reference.as_ref().map_or_else(|| image.digest.to_string(), |r| r.familiar());
        let what = match &image.classification.class {
            Class::Linux => return Ok(Workload::Linux),
            Class::WasmArtifact { program } => {
                return Ok(Workload::Wasm(WasmProgram::Blob { digest: program.clone() }));
            }
            Class::WasmRootfs { program } => return Ok(Workload::Wasm(WasmProgram::File { path: program.clone() })),
            Class::ProxyWasm => "a proxy-wasm plugin: it runs inside a proxy such as Envoy, not by itself".to_owned(),
            Class::Spin => match image.spin.as_ref().map(|application| application.as_ref()?.served()) {
                Some(Ok(served)) => return Ok(Workload::Wasm(WasmProgram::Blob { digest: served.program })),
                Some(Err(why)) => format!("a Spin application that does not run here{}: {why}", choice(image)),
                None => "a Spin application without a description".to_owned(),
            },
            Class::Windows => "a Windows image: it needs a Windows kernel".to_owned(),
            Class::Other { media_type } => format!("an artifact of type {media_type}: it is no program"),
        };
        Err(Coded::new(
            exit_code::NOT_EXECUTABLE,
            format!("cannot run {name}: it is {what} (amphora image explain {name} says more)"),
        )
        .into())
    }

    /// The same, of the component that is wanted of an application, with what of the image that is.
    pub(crate) fn chosen<'a>(image: &'a Image, component: Option<&str>) -> Result<(Cow<'a, Image>, Self)> {
        let image = match component {
            None => Cow::Borrowed(image),
            Some(component) => match image.only_component(component) {
                Ok(image) => Cow::Owned(image),
                Err(why) => bail!("--component {component}: the image has nothing of this name that runs: {why}"),
            },
        };
        let workload = Self::of(&image)?;
        Ok((image, workload))
    }

    /// All that an image may run as, each with what of the image that is: of a Spin application there may be several.
    pub(crate) fn all_of(image: &Image) -> Vec<(Cow<'_, Image>, Self)> {
        if let Ok(workload) = Self::of(image) {
            return vec![(Cow::Borrowed(image), workload)];
        }
        let application = image.spin.as_ref().and_then(|application| application.as_ref().ok());
        let components = application.map(Application::answering).unwrap_or_default();
        components.into_iter().filter_map(|component| Self::chosen(image, Some(component)).ok()).collect()
    }

    /// ★ Where the kinds part.
    pub(crate) fn behaviour(&self) -> &dyn Behaviour {
        match self {
            Workload::Linux => &linux::Linux,
            Workload::Wasm(program) => program,
        }
    }

    /// What the cgroup is to enforce.
    pub(crate) fn resources(&self, spec: &RunSpec) -> Result<Resources> {
        let limits = &spec.limits;
        let behaviour = self.behaviour();
        let raised = |bytes: u64| bytes.saturating_add(behaviour.allowance_bytes(spec));
        Ok(Resources {
            memory_bytes: limits.memory_bytes.map(raised),
            // -1, Docker's "unlimited", is no u64.
            memory_swap_bytes: limits.memory_swap_bytes.map(|bytes| u64::try_from(bytes).map_or(u64::MAX, raised)),
            cpu_millis: limits.cpu_millis,
            cpu_shares: limits.cpu_shares,
            cpuset_cpus: limits.cpuset_cpus.clone(),
            pids: limits.pids,
            restrict_devices: behaviour.reaches_devices(spec)?,
            every_hierarchy: behaviour.can_mount(spec)?,
            further: Further { devices: behaviour.device_rules(spec)?, ..further(limits)? },
        })
    }

    /// Decides and allocates everything that the first process needs.
    pub(crate) fn plan<'a>(
        &self,
        host: &Host,
        image: &Image,
        container: &Container,
        given: Given<'a>,
        stdio: Stdio,
    ) -> Result<Prepared<'a>> {
        let (spec, behaviour) = (&container.spec, self.behaviour());
        let user_mounts = lower_mounts(host, spec)?;
        let (root, root_readonly) = behaviour.root(host, image, container)?;
        fill_volumes(host, spec, &root)?;
        let user = linux::find_user(spec, &root, behaviour.has_users())?;
        let parts = Parts { host, image, container, root: &root, user: &user, given };
        let First { entry, report, mounts, timeout_grace, ports } = behaviour.entry(&parts, user_mounts)?;
        let capabilities = CapabilitySets::of_user(spec.security.capabilities(spec.security.privileged)?, user.uid);
        let (masked_paths, readonly_paths) = behaviour.hidden_paths(spec);
        let ulimits = spec.limits.ulimits.iter().map(|ulimit| (ulimit.resource, ulimit.soft, ulimit.hard));
        let confinement = behaviour.confinement(spec, capabilities, &given)?;
        let plan = Plan {
            root_readonly: spec.read_only || root_readonly,
            mounts,
            masked_paths,
            readonly_paths,
            hostname: (!spec.further.host_uts).then(|| spec.hostname.clone()),
            domain_name: Some(spec.domainname.clone()).filter(|name| !name.is_empty()),
            sysctls: spec.further.sysctls.clone(),
            oom_score_adj: spec.further.oom_score_adj,
            device_nodes: !spec.further.device_rules.is_empty(),
            cwd: behaviour.cwd(spec),
            user,
            umask: UMASK,
            rlimits: ulimits.chain(behaviour.rlimits(spec)).collect(),
            cgroup: Some(given.cgroup),
            stdio,
            ..Plan::new(root, confinement, entry)
        };
        Ok(Prepared { plan, report, timeout_grace, ports })
    }
}

/// The limits that few ask for.
fn further(limits: &Limits) -> Result<Further> {
    Ok(Further {
        memory_reservation_bytes: limits.memory_reservation_bytes,
        cpuset_mems: limits.cpuset_mems.clone(),
        cpu_period_usec: limits.cpu_period_usec,
        cpu_quota_usec: limits.cpu_quota_usec,
        io_weight: limits.blkio_weight,
        io_throttle: limits.throttles.iter().map(lower_throttle).collect::<Result<_>>()?,
        memory_swappiness: limits.rare.memory_swappiness,
        oom_killer_disabled: limits.rare.oom_kill_disable,
        cpu_realtime_period_usec: limits.rare.cpu_rt_period_usec,
        cpu_realtime_runtime_usec: limits.rare.cpu_rt_runtime_usec,
        io_weight_devices: limits
            .rare
            .blkio_weight_devices
            .iter()
            .map(|(path, weight)| Ok((block_device(path)?, *weight)))
            .collect::<Result<_>>()?,
        ..Further::default()
    })
}

fn block_device(path: &Path) -> Result<Device> {
    let found = path.metadata().with_context(|| format!("cannot limit {}", path.display()))?;
    if !found.file_type().is_block_device() {
        bail!("cannot limit {}: it is no block device", path.display());
    }
    let (major, minor) = (nix::sys::stat::major(found.rdev()), nix::sys::stat::minor(found.rdev()));
    Ok(Device { major: u32::try_from(major)?, minor: u32::try_from(minor)? })
}

fn lower_throttle(throttle: &Throttle) -> Result<(Device, Rate, u64)> {
    let rate = match throttle.rate {
        ThrottleRate::ReadBps => Rate::ReadBytes,
        ThrottleRate::WriteBps => Rate::WriteBytes,
        ThrottleRate::ReadIops => Rate::Reads,
        ThrottleRate::WriteIops => Rate::Writes,
    };
    Ok((block_device(&throttle.path)?, rate, throttle.limit))
}

/// What a program's new files are without, as with Docker.
pub(crate) const UMASK: u32 = 0o022;

/// The image's layers below a writable one, as a container of either kind may see them.
fn overlay_root(host: &Host, image: &Image, container: &Container) -> Result<Rootfs> {
    let layers = host.store.layers(image)?;
    let writable = container.writable()?;
    let (upper, work) = (writable.join("upper"), writable.join("work"));
    make_dir(&work)?;
    if make_dir(&upper)? {
        resemble(&upper, layers.last().context("the image has no layers")?)?;
    }
    Ok(Rootfs::overlay(&layers, &upper, &work, container.spec.auto_remove)?)
}

/// Whether it was not there.
fn make_dir(dir: &Path) -> Result<bool> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        made => made.map(|()| true).with_context(|| format!("cannot make {}", dir.display())),
    }
}

/// An overlay's root has the mode and the owner of its writable directory: they are to be those of the image's root.
fn resemble(upper: &Path, root: &Path) -> Result<()> {
    let resembling = || -> std::io::Result<()> {
        let (wanted, made) = (root.symlink_metadata()?, upper.symlink_metadata()?);
        if (wanted.uid(), wanted.gid()) != (made.uid(), made.gid()) {
            chown(upper, Some(wanted.uid()), Some(wanted.gid()))?;
        }
        if wanted.mode() != made.mode() {
            fs::set_permissions(upper, wanted.permissions())?;
        }
        Ok(())
    };
    resembling().with_context(|| format!("cannot give {} the mode and owner of {}", upper.display(), root.display()))
}

/// The user's mounts as the kernel is to make them. Named volumes are made on first use.
fn lower_mounts(host: &Host, spec: &RunSpec) -> Result<Vec<Mount>> {
    spec.mounts.iter().map(|mount| mounts::lower(host, mount)).collect()
}

/// A new volume begins with what the image has at its place, its mode and owner among that.
fn fill_volumes(host: &Host, spec: &RunSpec, root: &Rootfs) -> Result<()> {
    for mount in &spec.mounts {
        if let MountKind::Volume { name: Some(name), copy: true, .. } = &mount.kind {
            let filled = host.volumes.fill(name, &root.mount, &mount.target);
            filled.with_context(|| {
                format!("cannot fill volume {name} with what the image has at {}", mount.target.display())
            })?;
        }
    }
    Ok(())
}

/// Whether system calls are filtered, with the kind's own filter or another.
fn is_filtered(spec: &RunSpec) -> bool {
    !(spec.security.privileged || spec.security.seccomp_unconfined)
}

/// The filter of a Linux program: the profile that was given, or, unless it is `unfiltered`, Docker's.
pub(crate) fn linux_filter(
    spec: &RunSpec,
    capabilities: CapabilitySet,
    unfiltered: bool,
) -> Result<Option<seccomp::Filter>> {
    match &spec.security.seccomp_profile {
        Some(profile) => Ok(Some(profile.lower(&Circumstances::here(capabilities)?)?.compile()?)),
        None => Ok((!unfiltered).then(|| linux_seccomp::filter(capabilities))),
    }
}
