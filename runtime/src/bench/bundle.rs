//! The OCI runtime bundle that others get: the same root file system, and what amphora does by default.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::stage::Material;

/// Docker's default set.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Makes it of a subject's folder; the folder's path.
pub(super) fn write(material: &Material, ids: [u32; 2]) -> Result<PathBuf> {
    let path = material.folder.join("config.json");
    let configuration = configuration(material, ids);
    fs::write(&path, serde_json::to_vec_pretty(&configuration)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(material.folder.clone())
}

/// `config.json`: what `runc spec` writes, with Docker's capabilities and a writable root.
///
/// There is no seccomp filter in it, as there is none in `runc spec`: compiling one costs the peers several
/// milliseconds, so leaving it out is in their favour. An ordinary user gets a user namespace of one id.
fn configuration(material: &Material, [uid, gid]: [u32; 2]) -> Value {
    let caller = [nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()];
    let is_root = caller[0] == 0;
    let capabilities = json!({ "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES });
    let mut namespaces = vec!["pid", "ipc", "uts", "mount", "cgroup"];
    namespaces.extend((!material.on_host_network).then_some("network"));
    namespaces.extend((!is_root).then_some("user"));
    let namespaces: Vec<Value> = namespaces.into_iter().map(|kind| json!({ "type": kind })).collect();
    let mut configuration = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": { "uid": uid, "gid": gid }, "args": material.program, "cwd": material.cwd,
            "env": environment(material), "capabilities": capabilities, "noNewPrivileges": true,
        },
        "root": { "path": material.rootfs.as_deref().unwrap_or("rootfs".as_ref()), "readonly": false },
        "hostname": "bench",
        "mounts": mounts(is_root, material.on_host_network),
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
                "/sys/devices/virtual/powercap", "/sys/firmware",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    if !is_root {
        let only = |host: u32| json!([{ "containerID": 0, "hostID": host, "size": 1 }]);
        configuration["linux"]["uidMappings"] = only(caller[0]);
        configuration["linux"]["gidMappings"] = only(caller[1]);
    }
    configuration
}

/// The image's, and a PATH in any case.
pub(super) fn environment(material: &Material) -> Vec<String> {
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let own = material.env.iter().any(|variable| variable.starts_with("PATH="));
    material.env.iter().cloned().chain((!own).then(|| path.to_owned())).collect()
}

fn mounts(is_root: bool, on_host_network: bool) -> Vec<Value> {
    // Group 5 has no id in a user namespace of one.
    let terminals: &[&str] = match is_root {
        true => &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        false => &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
    };
    let list: [(&str, &str, &[&str]); 6] = [
        ("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", terminals),
        ("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        ("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    let entry =
        |(target, kind, options)| json!({ "destination": target, "type": kind, "source": kind, "options": options });
    // Who may mount a sysfs is who owns the network namespace.
    let may_mount = |kind: &str| kind != "sysfs" || is_root || !on_host_network;
    list.into_iter().filter(|(_, kind, _)| may_mount(kind)).map(entry).collect()
}

/// Whether a root file system is there to be put into a bundle.
pub(super) fn rootfs(material: &Material) -> Result<&Path, String> {
    material.rootfs.as_deref().map_err(Clone::clone)
}
