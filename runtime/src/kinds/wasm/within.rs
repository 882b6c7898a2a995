//! A function within another process, the gateway's: what it is granted there, and what takes a process of its own.
//!
//! Directories are granted as mounts that have no place in anybody's file system: nothing beneath them is a device, and what is read-only
//! is so for the kernel, as in a container.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use linux_exec::rootfs::Rootfs;
use wasm_exec::{
    Command, OutputStreamName, Preopen,
    http::{Bounds, Serving},
};

use super::{code, grants, network, process, profile, stores};
use crate::{
    kinds::{Hosted, Hosting},
    records::host::Host,
    spec::{
        Network, RunSpec, WasmProgram,
        mounts::{MountKind, MountSpec},
        ports::Listening,
    },
};

/// The first thing of a function that only a process of its own can have or be held to; as it is written in the gateway's file.
pub(super) fn needs_process(program: &WasmProgram, spec: &RunSpec) -> Option<&'static str> {
    let has = |wanted: fn(&MountSpec) -> bool| spec.mounts.iter().any(wanted);
    let needs = [
        (matches!(program, WasmProgram::File { .. }), "the image has a root file system"),
        (spec.network != Network::None, "network: it has a network"),
        (
            !spec.ports.is_empty() && spec.listening != Listening::Function,
            "it is no function that is called for requests",
        ),
        (!matches!(spec.user.as_str(), "" | "0" | "root" | "0:0" | "root:root"), "user: it is another user"),
        (spec.cwd != "/", "workdir: its paths begin elsewhere"),
        (spec.limits.pids.is_some(), "pids: processes are limited"),
        (has(|mount| matches!(mount.kind, MountKind::Tmpfs { .. })), "tmpfs: memory is mounted"),
        (has(|mount| matches!(mount.kind, MountKind::Image { .. })), "volumes: an image is mounted"),
        (
            has(|mount| matches!(mount.kind, MountKind::Volume { subpath: Some(_), .. })),
            "volumes: part of one is mounted",
        ),
    ];
    needs.into_iter().find_map(|(is_so, what)| is_so.then_some(what))
}

/// Loads it, with exactly what was granted.
pub(super) fn host(program: &WasmProgram, of: Hosting<'_>) -> Result<Hosted> {
    let Hosting { host, image, container, pools, output, stores, .. } = of;
    let spec = &container.spec;
    if let Some(what) = needs_process(program, spec) {
        bail!("{what}, which takes a process of its own: isolation = \"process\"");
    }
    let code = code::compiled(program, host, image, profile(spec)?)?;
    let folders = folders(host, spec)?;
    let stores = stores.map_or_else(|| stores::granted(host, spec), Ok)?;
    let denied = {
        let output = output.clone();
        move |what: &str| output.write(OutputStreamName::Stderr, line(&network::denied(what)).as_bytes())
    };
    let command = Command {
        preopens: spec.mounts.iter().zip(&folders).map(|(mount, folder)| preopen(mount, folder)).collect(),
        network: network::granted(spec, None, denied)?,
        stores: stores.clone(),
        output: Some(output.clone()),
        ..process::own(spec)
    };
    let log = Box::new(move |message: &str| output.write(OutputStreamName::Stderr, line(message).as_bytes()));
    let bounds = Bounds { requests: of.requests, answer_within: of.answer_within, ..Bounds::default() };
    let serving = Serving { log, reuse: of.reuse, cpu_millis: spec.limits.cpu_millis, core_dump: None };
    let service = pools.service(code, bounds, command, serving).map_err(|error| grants::refusal(&error))?;
    Ok(Hosted { service, stores, folders })
}

fn line(message: &str) -> String {
    format!("amphora: {}\n", message.trim_end())
}

/// In the order of its mounts.
fn folders(host: &Host, spec: &RunSpec) -> Result<Vec<OwnedFd>> {
    let folder = |mount: &MountSpec| -> Result<OwnedFd> {
        let source = match &mount.kind {
            MountKind::Bind { source, .. } => source.clone(),
            MountKind::Volume { name, .. } => host.volumes.make(name.as_deref().context("a volume without a name")?)?,
            MountKind::Tmpfs { .. } | MountKind::Image { .. } => {
                bail!("{} cannot be granted here", mount.target.display())
            }
        };
        let target = mount.target.display();
        if !source.is_dir() {
            bail!("volume source {} for {target} is no directory; make it first", source.display());
        }
        let part = Rootfs::part(&source, mount.readonly);
        Ok(part.with_context(|| format!("volume source {} for {target} cannot be used", source.display()))?.mount)
    };
    spec.mounts.iter().map(folder).collect()
}

fn preopen(mount: &MountSpec, folder: &OwnedFd) -> Preopen {
    Preopen {
        host: format!("/proc/self/fd/{}", folder.as_raw_fd()).into(),
        guest: mount.target.to_string_lossy().into_owned(),
        writable: !mount.readonly,
    }
}
