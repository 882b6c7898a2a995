//! ★ The only place where the two kinds part.
//!
//! Everything before it (references, the store, what the user typed) and everything after it (processes, cgroups, logs,
//! signals, exit codes) is one path. Each `match` here is exhaustive: a third kind is a compile error in this file and
//! nowhere else.

mod linux_defaults;
pub(crate) mod report;
pub(crate) mod wasm;

use std::{
    fs,
    io::Read,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use images::{Class, Image};
use linux_exec::{
    capabilities::CapabilitySet,
    cgroup::{Cgroup, Resources},
    plan::{Entry, Init, Mount, MountSource, Namespaces, Plan, Stdio},
    rootfs::{ProgramError, Rootfs},
    seccomp, userns, users,
    users::User,
};
use nix::{fcntl::OFlag, unistd::pipe2};

use crate::{
    kinds::wasm::WasmProcess,
    output::errors::Coded,
    records::{container::Container, host::Host},
    spec::{
        Kind, Network, RunSpec,
        mounts::{MountKind, MountSpec},
    },
};

/// Memory that a Wasm process may use beyond what its program may: the runtime itself, its stack and its buffers.
/// Compiled code is mapped from a file and can be reclaimed, so its size does not matter here.
pub(crate) const WASM_ALLOWANCE_BYTES: u64 = 32 << 20;

/// The largest program that is read into memory; the largest real ones have a quarter of it. A sparse file in a small
/// layer can claim any size.
const WASM_BYTES: u64 = 256 << 20;

/// How much longer than its own time limit a Wasm program is waited for before it is killed from outside.
const WASM_TIMEOUT_GRACE: Duration = Duration::from_millis(500);

/// What the program's process is kept from.
struct Confinement {
    seccomp: Option<seccomp::Filter>,
    namespaces: Namespaces,
    no_new_privileges: bool,
    masked_paths: Vec<PathBuf>,
    readonly_paths: Vec<PathBuf>,
}

impl Kind {
    /// Whether a second program can join a running container of this kind.
    pub(crate) fn check_exec(self, name: &str) -> Result<()> {
        match self {
            Kind::Linux => Ok(()),
            Kind::Wasm => bail!(
                "container {name} runs a Wasm program: it has no shell and no other programs to execute; \
                 amphora run starts another instance of its image"
            ),
        }
    }
}

/// What an image's program is, and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// Programs in a root file system; which one is decided by the command line.
    Linux,
    /// A blob that is the program.
    WasmBlob {
        /// `sha256:…`
        digest: String,
    },
    /// A file in a root file system that the program may see.
    WasmFile {
        /// Path inside the root.
        path: String,
    },
}

/// Everything decided, ready for [`linux_exec::spawn::spawn`].
pub(crate) struct Prepared<'a> {
    pub(crate) plan: Plan<'a>,
    /// What the program's own process tells of its end.
    pub(crate) report: Option<OwnedFd>,
    /// How long after the time limit the supervisor steps in.
    pub(crate) timeout_grace: Duration,
}

impl Target {
    /// What this image runs as; an error names what it is instead.
    pub(crate) fn of(image: &Image) -> Result<Self> {
        let name = image.reference.as_ref().map_or_else(|| image.digest.to_string(), |r| r.familiar());
        let what = match &image.classification.class {
            Class::Linux => return Ok(Target::Linux),
            Class::WasmArtifact { program } => return Ok(Target::WasmBlob { digest: program.clone() }),
            Class::WasmRootfs { program } => return Ok(Target::WasmFile { path: program.clone() }),
            Class::ProxyWasm => "a proxy-wasm plugin: it runs inside a proxy such as Envoy, not by itself".to_owned(),
            Class::Spin => "a Spin application: its components expect Spin's own trigger and interfaces".to_owned(),
            Class::Windows => "a Windows image: it needs a Windows kernel".to_owned(),
            Class::Other { media_type } => format!("an artifact of type {media_type}: it is no program"),
        };
        Err(Coded::new(126, format!("cannot run {name}: it is {what} (amphora image explain {name} says more)")).into())
    }

    /// For lists and for the spec.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Target::Linux => Kind::Linux,
            Target::WasmBlob { .. } | Target::WasmFile { .. } => Kind::Wasm,
        }
    }

    /// The command line up to where the user's arguments begin, if neither the image nor the user names one.
    pub(crate) fn default_entrypoint(&self, image: &Image) -> Vec<String> {
        match self {
            Target::Linux => Vec::new(),
            Target::WasmFile { path } => vec![path.clone()],
            Target::WasmBlob { digest } => {
                let name = image.reference.as_ref().and_then(|r| r.repository.rsplit('/').next().map(str::to_owned));
                vec![name.unwrap_or_else(|| digest.clone())]
            }
        }
    }

    /// Variables that every program of this kind finds, unless the image or the user sets them.
    pub(crate) fn default_env(&self, hostname: &str) -> Vec<String> {
        match self {
            Target::Linux => vec![linux_defaults::PATH_VARIABLE.to_owned(), format!("HOSTNAME={hostname}")],
            Target::WasmBlob { .. } | Target::WasmFile { .. } => Vec::new(),
        }
    }

    /// Refuses words of the command line that would be without effect.
    pub(crate) fn check_typed(&self, entrypoint: bool, workdir: bool) -> Result<()> {
        match self {
            Target::Linux | Target::WasmBlob { .. } => Ok(()),
            Target::WasmFile { path } if entrypoint => bail!(
                "--entrypoint: the image is a Wasm program in a root file system, {path}, and starts no other; leave it out"
            ),
            Target::WasmFile { .. } if workdir => bail!(
                "--workdir: the image is a Wasm program in a root file system, whose paths begin at /; leave it out"
            ),
            Target::WasmFile { .. } => Ok(()),
        }
    }

    /// Refuses what this kind cannot enforce or cannot do.
    pub(crate) fn check(&self, spec: &RunSpec) -> Result<()> {
        match self {
            Target::Linux if spec.limits.fuel.is_some() => {
                bail!(
                    "--fuel: only Wasm programs count instructions; for a Linux program use --timeout or --ulimit cpu=SECONDS"
                )
            }
            Target::Linux => Ok(()),
            Target::WasmBlob { .. } | Target::WasmFile { .. } => wasm::check(spec),
        }
    }

    /// What the cgroup is to enforce.
    pub(crate) fn resources(&self, spec: &RunSpec) -> Result<Resources> {
        let limits = &spec.limits;
        let restrict_devices = match self {
            Target::Linux => !spec.security.privileged && capabilities(spec)?.reaches_devices() && !userns::is_inside(),
            Target::WasmBlob { .. } | Target::WasmFile { .. } => false,
        };
        let allowance = match self {
            Target::Linux => 0,
            Target::WasmBlob { .. } | Target::WasmFile { .. } => WASM_ALLOWANCE_BYTES,
        };
        let raised = |bytes: u64| bytes.saturating_add(allowance);
        Ok(Resources {
            memory_bytes: limits.memory_bytes.map(raised),
            // -1, Docker's "unlimited", is no u64.
            memory_swap_bytes: limits.memory_swap_bytes.map(|bytes| u64::try_from(bytes).map_or(u64::MAX, raised)),
            cpu_millis: limits.cpu_millis,
            cpu_shares: limits.cpu_shares,
            cpuset_cpus: limits.cpuset_cpus.clone(),
            pids: limits.pids,
            restrict_devices,
        })
    }

    /// Limits that hold even where no cgroup can be made: a Wasm program is one process that cannot start another, so
    /// that a limit of its own memory is enough.
    pub(crate) fn memory_without_cgroup(&self) -> bool {
        match self {
            Target::Linux => false,
            Target::WasmBlob { .. } | Target::WasmFile { .. } => true,
        }
    }

    /// Does at pull and import what `run` should not have to: unpacks layers, compiles the program.
    pub(crate) fn prepare(&self, host: &Host, image: &Image) -> Result<()> {
        match self {
            Target::Linux => host.store.layers(image).map(drop).context("cannot unpack the image's layers"),
            Target::WasmBlob { .. } | Target::WasmFile { .. } => wasm::compiled(self, host, image, false).map(drop),
        }
    }

    /// The bytes of the program, where the image itself is the program.
    pub(crate) fn wasm_bytes(&self, host: &Host, image: &Image) -> Result<Option<Vec<u8>>> {
        let mut file = match self {
            Target::Linux => return Ok(None),
            Target::WasmBlob { digest } => host.store.blob(&digest.parse()?)?,
            Target::WasmFile { path } => open_in_layers(host, image, path)?,
        };
        let size = file.metadata()?.len();
        if size > WASM_BYTES {
            bail!("the image's program has {size} bytes, a Wasm program at most {WASM_BYTES}");
        }
        let mut bytes = Vec::new();
        file.by_ref().take(WASM_BYTES).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Decides and allocates everything that the first process needs.
    pub(crate) fn plan<'a>(
        &self,
        host: &Host,
        image: &Image,
        container: &Container,
        cgroup: &'a Cgroup,
        stdio: Stdio,
    ) -> Result<Prepared<'a>> {
        let spec = &container.spec;
        let user_mounts = lower_mounts(host, spec)?;
        let root = self.root(host, image, container)?;
        let user = find_user(spec, &root)?;
        let (entry, report, mounts, timeout_grace) = match self {
            Target::Linux => {
                let files = linux_defaults::network_files(spec, container.writable()?)?;
                let mounts: Vec<_> = linux_defaults::mounts(spec).into_iter().chain(files).chain(user_mounts).collect();
                let (entry, report) = linux_entry(spec, &root, &user, &mounts)?;
                (entry, report, mounts, Duration::ZERO)
            }
            Target::WasmBlob { .. } | Target::WasmFile { .. } => {
                let code = wasm::compiled(self, host, image, spec.limits.fuel.is_some())?;
                let whole_root = matches!(self, Target::WasmFile { .. });
                let WasmProcess { entry, report } = wasm::entry(spec, code, whole_root)?;
                // A terminal lives in a /dev/pts; the program is not granted it, so it cannot see that it is there.
                let terminal = spec.stdio.terminal.then(|| linux_defaults::devices(spec));
                let mounts = terminal.into_iter().chain(user_mounts).collect();
                (entry, Some(report), mounts, WASM_TIMEOUT_GRACE)
            }
        };
        let plan = self.common_plan(spec, root, user, mounts, entry, cgroup, stdio)?;
        Ok(Prepared { plan, report, timeout_grace })
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one struct, each decided by the caller")]
    fn common_plan<'a>(
        &self,
        spec: &RunSpec,
        root: Rootfs,
        user: User,
        mounts: Vec<Mount>,
        entry: Entry,
        cgroup: &'a Cgroup,
        stdio: Stdio,
    ) -> Result<Plan<'a>> {
        let capabilities = capabilities(spec)?;
        let confinement = self.confinement(spec, capabilities);
        Ok(Plan {
            root,
            root_readonly: spec.read_only || matches!(self, Target::WasmBlob { .. }),
            mounts,
            masked_paths: confinement.masked_paths,
            readonly_paths: confinement.readonly_paths,
            namespaces: confinement.namespaces,
            hostname: Some(spec.hostname.clone()),
            cwd: PathBuf::from(if matches!(self, Target::WasmBlob { .. }) { "/" } else { &spec.cwd }),
            user,
            capabilities,
            no_new_privileges: confinement.no_new_privileges,
            seccomp: confinement.seccomp,
            rlimits: self.rlimits(spec),
            cgroup: Some(cgroup),
            stdio,
            entry,
        })
    }

    fn confinement(&self, spec: &RunSpec, capabilities: CapabilitySet) -> Confinement {
        let security = &spec.security;
        let filtered = !(security.privileged || security.seccomp_unconfined);
        let offline = spec.network == Network::None;
        match self {
            Target::Linux => {
                let hidden = if security.privileged { Default::default() } else { linux_defaults::hidden_paths() };
                Confinement {
                    seccomp: filtered.then(|| seccomp::docker_default(capabilities)),
                    namespaces: Namespaces { network: offline, ..Namespaces::ALL },
                    no_new_privileges: !security.new_privileges_allowed && !security.privileged,
                    masked_paths: hidden.0,
                    readonly_paths: hidden.1,
                }
            }
            // The engine executes no other program, so there are no privileges to gain. Behind its filter it can make no
            // socket and no System V object or message queue, and its root has no /proc: it needs no namespace to be
            // kept from those, of which that of the network is the dearest of all.
            Target::WasmBlob { .. } | Target::WasmFile { .. } => Confinement {
                seccomp: filtered.then(|| seccomp::engine(!offline)),
                namespaces: Namespaces { network: offline && !filtered, ipc: !filtered, cgroup: !filtered },
                no_new_privileges: true,
                masked_paths: Vec::new(),
                readonly_paths: Vec::new(),
            },
        }
    }

    fn rlimits(&self, spec: &RunSpec) -> Vec<(u32, u64, u64)> {
        let own = match (self, spec.limits.memory_bytes) {
            (Target::WasmBlob { .. } | Target::WasmFile { .. }, Some(bytes)) => {
                let bytes = bytes.saturating_add(WASM_ALLOWANCE_BYTES);
                Some((nix::libc::RLIMIT_DATA, bytes, bytes))
            }
            (Target::Linux, _) | (_, None) => None,
        };
        spec.limits.ulimits.iter().map(|u| (u.resource, u.soft, u.hard)).chain(own).collect()
    }

    fn root(&self, host: &Host, image: &Image, container: &Container) -> Result<Rootfs> {
        match self {
            Target::Linux | Target::WasmFile { .. } => {
                let layers = host.store.layers(image)?;
                let writable = container.writable()?;
                let (upper, work) = (writable.join("upper"), writable.join("work"));
                for dir in [&upper, &work] {
                    make_dir(dir)?;
                }
                Ok(Rootfs::overlay(&layers, &upper, &work, container.spec.auto_remove)?)
            }
            Target::WasmBlob { .. } => Ok(Rootfs::empty()?),
        }
    }
}

/// The user's mounts as the kernel is to make them. Named volumes are made on first use.
fn lower_mounts(host: &Host, spec: &RunSpec) -> Result<Vec<Mount>> {
    spec.mounts.iter().map(|mount| lower_mount(host, mount)).collect()
}

fn lower_mount(host: &Host, mount: &MountSpec) -> Result<Mount> {
    let source = match &mount.kind {
        MountKind::Bind { source, recursive } => {
            check_source(source, &mount.target)?;
            MountSource::Bind { source: source.clone(), recursive: *recursive }
        }
        MountKind::Volume { name, copy: _ } => {
            let name = name.as_deref().context("a volume without a name")?;
            MountSource::Bind { source: host.volumes.make(name)?, recursive: true }
        }
        MountKind::Tmpfs { size_bytes, mode, exec } => {
            MountSource::Tmpfs { size_bytes: *size_bytes, mode: *mode, exec: *exec }
        }
    };
    Ok(Mount { target: mount.target.clone(), source, readonly: mount.readonly })
}

fn check_source(source: &Path, target: &Path) -> Result<()> {
    source.symlink_metadata().map(drop).map_err(|error| {
        anyhow!(
            "volume source {} for {} cannot be used: {error}; make it first, or use a volume name without a slash",
            source.display(),
            target.display()
        )
    })
}

/// What the program may do.
fn capabilities(spec: &RunSpec) -> Result<CapabilitySet> {
    let security = &spec.security;
    let base = if security.privileged { CapabilitySet::all() } else { CapabilitySet::docker_default() };
    Ok(base.adjusted(&security.cap_add, &security.cap_drop)?)
}

fn make_dir(dir: &std::path::Path) -> Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot make {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// A Wasm program as a container of the image would see it.
fn open_in_layers(host: &Host, image: &Image, path: &str) -> Result<fs::File> {
    let found = host.store.open_in_root(image, path)?;
    found.with_context(|| format!("the image's entrypoint {path} is no file in its root file system"))
}

/// The image's own files are asked only for a name, or for the groups of a user.
fn find_user(spec: &RunSpec, root: &Rootfs) -> Result<User> {
    if spec.user.is_empty() {
        return Ok(User { uid: 0, gid: 0, groups: Vec::new(), home: "/root".into() });
    }
    let read = |path: &str| -> Result<String> {
        let mut text = Vec::new();
        if let Some(file) = root.open(path.as_ref())? {
            file.take(8 << 20).read_to_end(&mut text).with_context(|| format!("cannot read {path} of the image"))?;
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    Ok(users::resolve(&spec.user, &read("/etc/passwd")?, &read("/etc/group")?)?)
}

/// The program, and where its init tells of its end, if it has one.
fn linux_entry(spec: &RunSpec, root: &Rootfs, user: &User, mounts: &[Mount]) -> Result<(Entry, Option<OwnedFd>)> {
    let mut env = spec.env.clone();
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    let path = env.iter().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or_default();
    let name = &spec.argv[0];
    // A program may come from a volume, so mounts are looked into as well.
    let found = root.find_program_with(mounts, name, path, spec.cwd.as_ref());
    let program = found.map_err(|error| program_error(&error))?.path;
    let bytes = |text: &String| text.clone().into_bytes();
    let (init, report) = needs_init(spec).then(new_init).transpose()?.unzip();
    let (argv, env) = (spec.argv.iter().map(bytes).collect(), env.iter().map(bytes).collect());
    Ok((Entry::Exec { program, argv, env, init }, report))
}

/// An init, and the end of the pipe on which it tells of the program's end.
fn new_init() -> Result<(Init, OwnedFd)> {
    let (report, writer) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
    Ok((Init { report: writer }, report))
}

/// A limit that ends a program by a signal holds only for one that is not the first process of its pid namespace.
fn needs_init(spec: &RunSpec) -> bool {
    spec.init || spec.limits.ulimits.iter().any(|ulimit| matches!(ulimit.name.as_str(), "cpu" | "fsize"))
}

fn program_error(error: &ProgramError) -> anyhow::Error {
    let code = match error {
        ProgramError::NotFound(_) => 127,
        ProgramError::NotExecutable(_) => 126,
    };
    Coded::new(code, error.to_string()).into()
}
