//! Programs for the engine.

mod code;
pub(super) mod core_dumps;
mod debug;
mod explain;
mod function;
mod grants;
mod listeners;
mod network;
mod process;
mod stores;
mod within;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use images::{
    Image,
    program::{self, Form, Program, Role},
};
use linux_exec::{
    capabilities::CapabilitySets,
    cgroup::DeviceRule,
    confinement::{Confinement, Namespace, Namespaces, Privileges},
    plan::Mount,
    rootfs::Rootfs,
    seccomp,
};
use nix::libc::{RLIMIT_DATA, RLIMIT_NOFILE};
use serde_json::Value;
use wasm_exec::{Profile, Proposals};

use super::{
    Behaviour, First, Given, Hosted, Hosting, Parts, is_filtered, linux_defaults, overlay_root, report::Teller,
};
use crate::{
    network::Attached,
    output::{self, errors::Coded},
    records::{container::Container, host::Host},
    spec::{RunSpec, WasmProgram, exit_code, mounts, ports::Listening},
};

use listeners::Listeners;

pub(crate) use code::{Wanted, check_compiled, compile, optimise};
pub(crate) use function::record;

/// Memory that a Wasm process may use beyond what its program may: the runtime itself, its stack and its buffers.
/// Compiled code is mapped from a file and can be reclaimed, so its size does not matter here.
const ALLOWANCE_BYTES: u64 = 32 << 20;

/// How much longer than its own time limit a program is waited for before it is killed from outside.
const TIMEOUT_GRACE: Duration = Duration::from_millis(500);

impl Behaviour for WasmProgram {
    fn default_entrypoint(&self, image: &Image) -> Vec<String> {
        match self {
            WasmProgram::File { path } => {
                let command = image.config.config().as_ref().and_then(|config| config.cmd().clone());
                vec![command.into_iter().flatten().next().unwrap_or_else(|| path.clone())]
            }
            WasmProgram::Blob { digest } => {
                let name = image.reference.as_ref().and_then(|r| r.repository.rsplit('/').next().map(str::to_owned));
                vec![name.unwrap_or_else(|| digest.clone())]
            }
        }
    }

    fn default_env(&self, _hostname: &str) -> Vec<String> {
        Vec::new()
    }

    fn keeps_files(&self) -> bool {
        matches!(self, WasmProgram::File { .. })
    }

    fn has_users(&self) -> bool {
        false
    }

    fn check_typed(&self, entrypoint: bool, workdir: bool) -> Result<()> {
        match self {
            WasmProgram::File { path } if entrypoint => bail!(
                "--entrypoint: the image is a Wasm program in a root file system, {path}, and starts no other; leave it out"
            ),
            WasmProgram::File { .. } if workdir => bail!(
                "--workdir: the image is a Wasm program in a root file system, whose paths begin at /; leave it out"
            ),
            WasmProgram::File { .. } | WasmProgram::Blob { .. } => Ok(()),
        }
    }

    fn check(&self, spec: &RunSpec) -> Result<()> {
        if spec.security.seccomp_profile.is_some() {
            bail!(
                "--security-opt seccomp=FILE: a Wasm program makes no system calls itself; its engine has a filter of its own, \
                 narrower than Docker's (seccomp=unconfined takes it away)"
            );
        }
        listeners::check(&spec.ports, spec.listening)?;
        if let WasmProgram::File { .. } = self {
            mounts::refuse_root(&spec.mounts)?;
        }
        network::check(spec)?;
        proposals(spec)?;
        if spec.wasm.reuse.is_some() && !is_served(spec) {
            bail!("--reuse: only a function that is served at a port (-p) answers requests; leave it out");
        }
        if spec.health.as_ref().is_some_and(|health| health.probe.is_none()) {
            bail!(
                "--health-cmd: a Wasm program has no other program beside it that could be executed; --health-tcp and --health-http look \
                 at it from outside"
            );
        }
        if let Some(flag) = spec.further.of_linux() {
            bail!("{flag}: a Wasm program has nothing of the kind; leave it out");
        }
        check_ulimits(spec)
    }

    fn takes_exec(&self) -> bool {
        false
    }

    fn check_exec(&self, name: &str) -> Result<()> {
        bail!(
            "container {name} runs a Wasm program: it has no shell and no other programs to execute; \
             amphora debug {name} shows what can be seen of it, and amphora run starts another instance of its image"
        )
    }

    /// Compiles. What takes proposals that are off is stored all the same; with them it is compiled when it runs.
    fn prepare(&self, host: &Host, image: &Image) -> Result<()> {
        match code::compiled(self, host, image, Profile::default()) {
            Err(error)
                if error.downcast_ref::<Coded>().is_some_and(|coded| coded.code == exit_code::NOT_EXECUTABLE) =>
            {
                output::note(&error.to_string());
                Ok(())
            }
            other => other.map(drop),
        }
    }

    fn explain(&self, host: &Host, image: &Image) -> Result<Vec<(&'static str, Value)>> {
        explain::fields(&code::bytes(self, host, image)?)
    }

    fn explain_grants(&self, host: &Host, image: &Image, name: &str) -> Result<String> {
        grants::command_line(name, &code::bytes(self, host, image)?)
    }

    fn debug(&self, host: &Host, image: &Image, container: &Container, pid: Option<i32>) -> Result<String> {
        let code_bytes = code::size(self, host, image, profile(&container.spec)?)?;
        debug::describe(container, &code::bytes(self, host, image)?, code_bytes, pid)
    }

    fn details(&self, host: &Host, image: Option<&Image>, container: &Container) -> Option<(&'static str, Value)> {
        let code = |image| code::size(self, host, image, profile(&container.spec).ok()?).ok()?;
        Some(("Wasm", debug::details(container, image.and_then(code))))
    }

    fn listening(&self, host: &Host, image: &Image) -> Result<Listening> {
        let Program { form, role, .. } = program::inspect(&code::bytes(self, host, image)?)?;
        Ok(match (form, role) {
            (_, Role::Function) => Listening::Function,
            (Form::Module, _) => Listening::Given,
            (Form::Component, _) => Listening::Own,
        })
    }

    fn is_on_default_network(&self) -> bool {
        false
    }

    fn needs_process(&self, spec: &RunSpec) -> Option<&'static str> {
        within::needs_process(self, spec)
    }

    fn host(&self, of: Hosting<'_>) -> Result<Hosted> {
        within::host(self, of)
    }

    fn allowance_bytes(&self, spec: &RunSpec) -> u64 {
        let own = if is_served(spec) { function::ALLOWANCE_BYTES } else { ALLOWANCE_BYTES };
        let further = [network::allowance_bytes(spec), stores::allowance_bytes(spec), core_dumps::bytes(spec)];
        further.into_iter().fold(own, u64::saturating_add)
    }

    fn has_its_own_memory(&self) -> bool {
        true
    }

    /// It is one process that cannot start another, so that a limit of its own memory is enough.
    fn limits_memory_itself(&self) -> bool {
        true
    }

    fn reaches_devices(&self, _spec: &RunSpec) -> Result<bool> {
        Ok(false)
    }

    fn device_rules(&self, _spec: &RunSpec) -> Result<Option<Vec<DeviceRule>>> {
        Ok(None)
    }

    fn can_mount(&self, _spec: &RunSpec) -> Result<bool> {
        Ok(false)
    }

    fn root(&self, host: &Host, image: &Image, container: &Container) -> Result<(Rootfs, bool)> {
        match self {
            WasmProgram::File { .. } => Ok((overlay_root(host, image, container)?, false)),
            WasmProgram::Blob { .. } => Ok((Rootfs::empty()?, true)),
        }
    }

    fn cwd(&self, spec: &RunSpec) -> PathBuf {
        match self {
            WasmProgram::File { .. } => PathBuf::from(&spec.cwd),
            // Its own is where the engine says; in its root nothing is but what was mounted.
            WasmProgram::Blob { .. } => PathBuf::from("/"),
        }
    }

    /// The engine executes no other program, so there are no privileges to gain. Behind its filter it can make no
    /// socket and no System V object or message queue, and its root has no /proc: it needs no namespace to be
    /// kept from those, of which that of the network is the dearest of all. On a network it has the one that was made for
    /// it, where its sockets are those of TCP and UDP.
    fn confinement<'a>(
        &self,
        spec: &RunSpec,
        capabilities: CapabilitySets,
        given: &Given<'a>,
    ) -> Result<Confinement<'a>> {
        let filtered = is_filtered(spec);
        let own = if filtered { Namespace::Filtered } else { Namespace::New };
        let network = network::namespace(spec, given.attached.map(Attached::namespace), own);
        let seccomp = filtered.then(|| seccomp::engine(network::sockets(spec)));
        let privileges = Privileges { capabilities, no_new_privileges: true, seccomp };
        Ok(Confinement::new(Namespaces { network, ipc: own, cgroup: own, ..Namespaces::NEW }, privileges)?)
    }

    fn hidden_paths(&self, _spec: &RunSpec) -> (Vec<PathBuf>, Vec<PathBuf>) {
        Default::default()
    }

    /// A server's places for instances count as data as they are reserved, whatever is in them; it has one sum for all of them.
    fn rlimits(&self, spec: &RunSpec) -> Vec<(u32, u64, u64)> {
        if is_served(spec) {
            let (soft, hard) = function::descriptors(spec);
            return vec![(RLIMIT_NOFILE, soft, hard)];
        }
        let bytes = spec.limits.memory_bytes.map(|bytes| bytes.saturating_add(self.allowance_bytes(spec)));
        bytes.map(|bytes| (RLIMIT_DATA, bytes, bytes)).into_iter().collect()
    }

    fn entry(&self, of: &Parts<'_>, user_mounts: Vec<Mount>) -> Result<First> {
        let spec = &of.container.spec;
        // What serves requests runs for long.
        let compiled = if is_served(spec) { code::compiled } else { code::compiled_soon };
        let code = compiled(self, of.host, of.image, profile(spec)?)?;
        let sees_root = match self {
            WasmProgram::File { .. } => true,
            WasmProgram::Blob { .. } => false,
        };
        let command = process::command(of.host, spec, sees_root, of.given.attached)?;
        let Listeners { sockets, ports } = match (spec.listening, of.given.attached) {
            (Listening::Own, _) => Listeners::default(),
            _ if spec.ports.is_empty() => Listeners::default(),
            (_, Some(attached)) => listeners::open_inside(attached.namespace(), &spec.ports)?,
            (listening, None) => listeners::open(&spec.ports, listening)?,
        };
        let (dumps, empty) = core_dumps::open(spec, is_served(spec))?;
        let process::WasmProcess { entry, report } = match is_served(spec) {
            true => function::entry(of.container, code, command, sockets, empty)?,
            false => process::entry(spec, code, command, sockets, empty)?,
        };
        // A terminal lives in a /dev/pts; the program is not granted it, so it cannot see that it is there.
        let terminal = spec.stdio.terminal.then(|| linux_defaults::devices(spec));
        let granted =
            user_mounts.into_iter().map(|mount| Mount { target: process::place(&mount.target).into(), ..mount });
        let mounts = terminal.into_iter().chain(granted).collect();
        let report = Some(Teller::Engine { report, dumps });
        Ok(First { entry, report, mounts, timeout_grace: TIMEOUT_GRACE, ports })
    }
}

/// What its code has to be compiled for.
fn profile(spec: &RunSpec) -> Result<Profile> {
    Ok(Profile { fuel: spec.limits.fuel.is_some(), proposals: proposals(spec)?, ..Profile::default() })
}

/// What the user has switched on.
fn proposals(spec: &RunSpec) -> Result<Proposals> {
    let mut names = spec.wasm.proposals.iter();
    names.try_fold(Proposals::default(), |all, name| all.with(name).with_context(|| format!("--wasm {name}")))
}

fn is_published(spec: &RunSpec) -> bool {
    !spec.ports.is_empty()
}

/// Whether it answers requests at a port, and does not run by itself.
fn is_served(spec: &RunSpec) -> bool {
    is_published(spec) && spec.listening == Listening::Function
}

/// Refuses options that mean nothing to a Wasm program, rather than ignoring them.
fn check_ulimits(spec: &RunSpec) -> Result<()> {
    const HOST_SIDE: [&str; 6] = ["core", "cpu", "fsize", "nofile", "data", "as"];
    match spec.limits.ulimits.iter().find(|u| !HOST_SIDE.contains(&u.name.as_str())) {
        Some(ulimit) => bail!(
            "--ulimit {}: a Wasm program has no such resource; those that its process has are {}",
            ulimit.name,
            HOST_SIDE.join(", ")
        ),
        None => Ok(()),
    }
}
