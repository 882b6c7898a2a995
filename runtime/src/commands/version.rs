//! `version` and `info`: the fields that scripts ask Docker for, and our own.

use std::fs;

use anyhow::Result;
use linux_exec::{cgroup::Cgroups, userns::IdMap};
use serde_json::{Map, Value, json};

use super::{info_fields, note_unreadable, print, view::DRIVER};
use crate::{
    cli::FormatArgs,
    output,
    records::{
        container::{Container, Status},
        host::{Host, become_root},
    },
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Of an architecture, as Go names it.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn kernel() -> Result<String> {
    Ok(nix::sys::utsname::uname()?.release().to_string_lossy().into_owned())
}

/// `amphora version`. There is one program, which is client and server in one, and no API.
pub(super) fn version(args: &FormatArgs) -> Result<u8> {
    let kernel = kernel()?;
    let of_both = json!({
        "Version": VERSION, "ApiVersion": "", "GitCommit": "", "GoVersion": "", "Os": std::env::consts::OS,
        "Arch": go_arch(), "BuildTime": "",
    });
    let (mut client, mut server) = (of_both.clone(), of_both);
    extend(&mut client, json!({ "DefaultAPIVersion": "", "Context": "default" }));
    let details = json!({
        "ApiVersion": "", "Arch": go_arch(), "BuildTime": "", "Experimental": "false", "GitCommit": "", "GoVersion": "",
        "KernelVersion": kernel, "MinAPIVersion": "", "Os": std::env::consts::OS,
    });
    let engine = json!({ "Name": "Engine", "Version": VERSION, "Details": details });
    extend(
        &mut server,
        json!({
            "MinAPIVersion": "", "KernelVersion": kernel, "Experimental": false, "Platform": { "Name": "Amphora" },
            "Components": [engine],
        }),
    );
    let value = json!({
        "Client": client, "Server": server,
        "Version": VERSION, "Os": std::env::consts::OS, "Arch": std::env::consts::ARCH,
    });
    let text = output::object(args.format.as_deref(), &value)?.unwrap_or_else(|| {
        let os = format!("{}/{}", std::env::consts::OS, go_arch());
        format!(
            "Client:\n Version:           {VERSION}\n OS/Arch:           {os}\n\n\
             Server: Amphora\n Engine:\n  Version:          {VERSION}\n  OS/Arch:          {os}\n  Kernel Version:   {kernel}\n"
        )
    });
    print(&text)
}

fn extend(value: &mut Value, more: Value) {
    if let (Value::Object(value), Value::Object(more)) = (value, more) {
        value.extend(more);
    }
}

/// `amphora info`.
pub(super) fn info(host: &Host, args: &FormatArgs) -> Result<u8> {
    let (containers, unreadable) = host.containers.list()?;
    note_unreadable(&unreadable);
    let states: Vec<_> = containers.iter().map(Container::status).collect();
    let up = states.iter().filter(|state| state.as_ref().map_or(true, Status::is_up)).count();
    let paused = states.iter().filter(|state| state.as_ref().is_ok_and(|state| state.word() == "paused")).count();
    let running = up - paused + unreadable.iter().filter(|one| one.running.is_some()).count();
    let all = containers.len() + unreadable.len();
    let id_map = become_root()?;
    let ids = match &id_map {
        IdMap::Host => "root".to_owned(),
        IdMap::Single => "user namespace, one id".to_owned(),
        IdMap::Range { count } => format!("user namespace, {count} subordinate ids"),
    };
    let rootless = id_map != IdMap::Host;
    let cgroups = Cgroups::detect()?;
    let mode = cgroups.mode();
    let mut value = machine(host, rootless)?;
    extend(&mut value, info_fields::fields(&cgroups));
    extend(
        &mut value,
        json!({
            "Version": VERSION,
            "Root": host.paths.root,
            "RunRoot": host.paths.runroot,
            "Ids": ids,
            "Rootless": rootless,
            "CgroupMode": mode,
            "CgroupVersion": if mode == "v2" { "2" } else { "1" },
            "Containers": all,
            "ContainersRunning": running,
            "ContainersPaused": paused,
            "ContainersStopped": all - running - paused,
            "Images": host.store.list()?.len(),
        }),
    );
    let text = output::object(args.format.as_deref(), &value)?.unwrap_or_else(|| described(&value));
    print(&text)
}

/// What does not change with what is done here.
fn machine(host: &Host, rootless: bool) -> Result<Value> {
    let mut security = vec!["name=seccomp,profile=builtin"];
    security.extend(rootless.then_some("name=rootless"));
    let node = nix::sys::utsname::uname()?.nodename().to_string_lossy().into_owned();
    Ok(json!({
        "ID": "",
        "Name": node,
        "ServerVersion": VERSION,
        "Driver": DRIVER,
        "DriverStatus": [],
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "KernelVersion": kernel()?,
        "OperatingSystem": operating_system(),
        "OSType": std::env::consts::OS,
        "Architecture": std::env::consts::ARCH,
        "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
        "MemTotal": memory_bytes(),
        "DockerRootDir": host.paths.root,
        "DefaultRuntime": "amphora",
        "Runtimes": { "amphora": { "path": "amphora" } },
        "SecurityOptions": security,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "Swarm": { "LocalNodeState": "inactive", "Error": "" },
        "HttpProxy": "", "HttpsProxy": "", "NoProxy": "",
        "Labels": [],
        "Debug": false,
        "ExperimentalBuild": false,
        "LiveRestoreEnabled": true,
        "ClientInfo": {
            "Version": VERSION, "Context": "default", "Debug": false, "Plugins": [], "Warnings": null, "Arch": go_arch(),
            "Os": std::env::consts::OS, "DefaultAPIVersion": "", "GitCommit": "", "GoVersion": "",
        },
    }))
}

fn operating_system() -> String {
    info_fields::os_release("PRETTY_NAME").unwrap_or_else(|| "Linux".to_owned())
}

fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    total.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The lines of Docker's that have something to say here, then our own.
fn described(value: &Value) -> String {
    const LINES: [(&str, &str); 17] = [
        (" Containers", "Containers"),
        ("  Running", "ContainersRunning"),
        ("  Paused", "ContainersPaused"),
        ("  Stopped", "ContainersStopped"),
        (" Images", "Images"),
        (" Server Version", "ServerVersion"),
        (" Storage Driver", "Driver"),
        (" Logging Driver", "LoggingDriver"),
        (" Cgroup Driver", "CgroupDriver"),
        (" Cgroup Version", "CgroupVersion"),
        (" Kernel Version", "KernelVersion"),
        (" Operating System", "OperatingSystem"),
        (" OSType", "OSType"),
        (" Architecture", "Architecture"),
        (" CPUs", "NCPU"),
        (" Name", "Name"),
        (" Docker Root Dir", "DockerRootDir"),
    ];
    const OURS: [&str; 5] = ["Root", "RunRoot", "Ids", "Rootless", "CgroupMode"];
    let none = Map::new();
    let fields = value.as_object().unwrap_or(&none);
    let shown = |name: &str| match fields.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let mut text = format!("Client:\n Version: {VERSION}\n\nServer:\n");
    for (words, name) in LINES {
        text.push_str(&format!("{words}: {}\n", shown(name)));
    }
    for name in OURS {
        text.push_str(&format!(" {name}: {}\n", shown(name)));
    }
    text
}
