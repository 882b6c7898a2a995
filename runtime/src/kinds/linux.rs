//! Programs for the kernel, on the image's own root file system.

use std::{io::Read, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use images::Image;
use linux_exec::{
    capabilities::CapabilitySets,
    cgroup::DeviceRule,
    confinement::{Confinement, Namespace, Namespaces, Privileges},
    plan::{Entry, Init, Mount},
    program::ProgramError,
    rootfs::Rootfs,
    userns, users,
    users::User,
};
use nix::{fcntl::OFlag, unistd::pipe2};
use serde_json::{Value, json};

use super::{
    Behaviour, First, Given, Hosted, Hosting, Parts, is_filtered, linux_defaults, linux_devices, linux_filter,
    overlay_root, report::Teller,
};
use crate::{
    network::Attached,
    output::errors::Coded,
    records::{container::Container, host::Host},
    spec::{Network, RunSpec, exit_code, mounts, ports::Listening},
};

/// The most that is read of one of the files that tell of users, in bytes.
const USERS_BYTES: u64 = 8 << 20;

/// The kind.
pub(super) struct Linux;

impl Behaviour for Linux {
    fn default_entrypoint(&self, _image: &Image) -> Vec<String> {
        Vec::new()
    }

    fn default_env(&self, hostname: &str) -> Vec<String> {
        vec![linux_defaults::PATH_VARIABLE.to_owned(), format!("HOSTNAME={hostname}")]
    }

    fn keeps_files(&self) -> bool {
        true
    }

    fn has_users(&self) -> bool {
        true
    }

    fn check_typed(&self, _entrypoint: bool, _workdir: bool) -> Result<()> {
        Ok(())
    }

    fn check(&self, spec: &RunSpec) -> Result<()> {
        if spec.limits.fuel.is_some() {
            bail!(
                "--fuel: only Wasm programs count instructions; for a Linux program use --timeout or --ulimit cpu=SECONDS"
            );
        }
        if !spec.wasm.is_default() {
            bail!(
                "--allow-net, --cacert, --config, --coredump, --invoke, --kv, --reuse, --wasm: only Wasm programs have an engine \
                 that knows these; leave them out"
            );
        }
        if spec.init && !spec.further.pid.is_own() {
            bail!(
                "--init: the first process among those of --pid {} is another; leave one of them out",
                spec.further.pid
            );
        }
        mounts::refuse_root(&spec.mounts)
    }

    fn takes_exec(&self) -> bool {
        true
    }

    fn check_exec(&self, _name: &str) -> Result<()> {
        Ok(())
    }

    /// Unpacks layers.
    fn prepare(&self, host: &Host, image: &Image) -> Result<()> {
        host.store.layers(image).map(drop).context("cannot unpack the image's layers")
    }

    fn explain(&self, _host: &Host, image: &Image) -> Result<Vec<(&'static str, Value)>> {
        Ok(vec![("runs_here", json!(image.config.architecture().to_string() == host_architecture()))])
    }

    fn explain_grants(&self, _host: &Host, _image: &Image, name: &str) -> Result<String> {
        Ok(format!("amphora run {name}\n# a Linux program: what it needs cannot be told before it runs"))
    }

    fn debug(&self, _host: &Host, _image: &Image, container: &Container, _pid: Option<i32>) -> Result<String> {
        let name = &container.spec.name;
        bail!("container {name} runs a Linux program, into which amphora exec {name} PROGRAM looks with its own tools")
    }

    fn details(&self, _host: &Host, _image: Option<&Image>, _container: &Container) -> Option<(&'static str, Value)> {
        None
    }

    fn listening(&self, _host: &Host, _image: &Image) -> Result<Listening> {
        Ok(Listening::Own)
    }

    fn needs_process(&self, _spec: &RunSpec) -> Option<&'static str> {
        Some("a Linux program is a process")
    }

    fn host(&self, of: Hosting<'_>) -> Result<Hosted> {
        bail!("container {} runs a Linux program, which is a process of its own", of.container.spec.name)
    }

    /// As with Docker. An ordinary user is asked first, as it takes him a process for each container.
    fn is_on_default_network(&self) -> bool {
        nix::unistd::geteuid().is_root() && !userns::is_inside()
    }

    fn allowance_bytes(&self, _spec: &RunSpec) -> u64 {
        0
    }

    fn has_its_own_memory(&self) -> bool {
        false
    }

    fn limits_memory_itself(&self) -> bool {
        false
    }

    fn reaches_devices(&self, spec: &RunSpec) -> Result<bool> {
        let security = &spec.security;
        Ok(!security.privileged && security.capabilities(false)?.reaches_devices() && !userns::is_inside())
    }

    /// A privileged one has all devices.
    fn device_rules(&self, spec: &RunSpec) -> Result<Option<Vec<DeviceRule>>> {
        let has_some_and_reaches = !spec.further.devices.is_empty() && self.reaches_devices(spec)?;
        let is_listed = !spec.security.privileged && (spec.further.lists_devices() || has_some_and_reaches);
        is_listed.then(|| linux_devices::rules(&spec.further)).transpose()
    }

    fn can_mount(&self, spec: &RunSpec) -> Result<bool> {
        // Without a filter, or with one that is not ours, it can make itself a user namespace, in which it has all capabilities.
        let security = &spec.security;
        let able = security.capabilities(security.privileged)?.can_mount()
            || security.seccomp_unconfined
            || security.seccomp_profile.is_some();
        Ok(able && !spec.security.privileged && !userns::is_inside())
    }

    fn root(&self, host: &Host, image: &Image, container: &Container) -> Result<(Rootfs, bool)> {
        Ok((overlay_root(host, image, container)?, false))
    }

    fn cwd(&self, spec: &RunSpec) -> PathBuf {
        PathBuf::from(&spec.cwd)
    }

    fn confinement<'a>(
        &self,
        spec: &RunSpec,
        capabilities: CapabilitySets,
        given: &Given<'a>,
    ) -> Result<Confinement<'a>> {
        let network = match (given.attached.map(Attached::namespace), &spec.network) {
            (Some(made), _) => Namespace::Join(made),
            (None, Network::Host) => Namespace::Host,
            (None, _) => Namespace::New,
        };
        let security = &spec.security;
        let privileges = Privileges {
            capabilities,
            no_new_privileges: !security.new_privileges_allowed && !security.privileged,
            seccomp: linux_filter(spec, capabilities.bounding, !is_filtered(spec))?,
        };
        let namespace = |is_hosts: bool| if is_hosts { Namespace::Host } else { Namespace::New };
        let further = &spec.further;
        let namespaces = Namespaces {
            network,
            pid: given.joined.pid(spec),
            ipc: given.joined.ipc(spec),
            uts: namespace(further.host_uts),
            cgroup: namespace(further.host_cgroup),
            ..Namespaces::NEW
        };
        Ok(Confinement::new(namespaces, privileges)?)
    }

    fn hidden_paths(&self, spec: &RunSpec) -> (Vec<PathBuf>, Vec<PathBuf>) {
        if spec.security.privileged { Default::default() } else { linux_defaults::hidden_paths() }
    }

    fn rlimits(&self, _spec: &RunSpec) -> Vec<(u32, u64, u64)> {
        Vec::new()
    }

    fn entry(&self, of: &Parts<'_>, user_mounts: Vec<Mount>) -> Result<First> {
        let spec = &of.container.spec;
        let files = linux_defaults::network_files(spec, of.given.attached, of.container.writable()?)?;
        let devices = linux_devices::mounts(&spec.further.devices)?;
        // One of the user's at the same place lies above it.
        let shared = of.given.joined.mounts(spec);
        let own = linux_defaults::mounts(spec).into_iter().chain(shared).chain(files).chain(devices);
        let mounts: Vec<_> = own.chain(user_mounts).collect();
        let (entry, report) = program(spec, of.root, of.user, &mounts)?;
        Ok(First { entry, report, mounts, timeout_grace: Duration::ZERO, ports: Vec::new() })
    }
}

fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// As the image's own files tell; without any in them, root is as everywhere. `has_users`: it may have such files, though no user was asked
/// for.
pub(super) fn find_user(spec: &RunSpec, root: &Rootfs, has_users: bool) -> Result<User> {
    if spec.user.is_empty() && !has_users {
        return Ok(User { uid: 0, gid: 0, groups: Vec::new(), home: "/root".into() });
    }
    let read = |path: &str| -> Result<String> {
        let mut text = Vec::new();
        if let Some(file) = root.open(path.as_ref())? {
            file.take(USERS_BYTES)
                .read_to_end(&mut text)
                .with_context(|| format!("cannot read {path} of the image"))?;
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    let wanted = if spec.user.is_empty() { "0" } else { &spec.user };
    let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
    let mut user = users::resolve(wanted, &passwd, &group)?;
    for name in &spec.further.group_add {
        let more = users::resolve(&format!("{}:{name}", user.uid), &passwd, &group)?.gid;
        if !user.groups.contains(&more) {
            user.groups.push(more);
        }
    }
    Ok(user)
}

/// The program, and where its init tells of its end, if it has one.
fn program(spec: &RunSpec, root: &Rootfs, user: &User, mounts: &[Mount]) -> Result<(Entry, Option<Teller>)> {
    let mut env = spec.env.clone();
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    let path = env.iter().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or_default();
    let name = &spec.argv[0];
    // A program may come from a volume, so mounts are looked into as well.
    let found = root.find_program(mounts, name, path, spec.cwd.as_ref());
    let program = found.map_err(|error| program_error(&error))?;
    let bytes = |text: &String| text.clone().into_bytes();
    let (init, report) = needs_init(spec).then(new_init).transpose()?.unzip();
    let (argv, env) = (spec.argv.iter().map(bytes).collect(), env.iter().map(bytes).collect());
    Ok((Entry::Exec { program, argv, env, init }, report))
}

/// An init, and the end of the pipe on which it tells of the program's end.
fn new_init() -> Result<(Init, Teller)> {
    let (report, writer) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
    Ok((Init { report: writer }, Teller::Init(report)))
}

/// A limit that ends a program by a signal holds only for one that is not the first process of its pid namespace.
fn needs_init(spec: &RunSpec) -> bool {
    spec.init
        || spec.further.pid.is_own()
            && spec.limits.ulimits.iter().any(|ulimit| matches!(ulimit.name.as_str(), "cpu" | "fsize"))
}

fn program_error(error: &ProgramError) -> anyhow::Error {
    let code = match error {
        ProgramError::NotFound(_) => exit_code::NOT_FOUND,
        ProgramError::NotExecutable(_) => exit_code::NOT_EXECUTABLE,
    };
    Coded::new(code, error.to_string()).into()
}
