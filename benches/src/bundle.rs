//! The OCI runtime bundle that crun and runc get: the same root file system, and what amphora does by default.

use anyhow::Result;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

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

/// Makes the bundle in `folder` around one static executable; gives the bundle's path.
pub(crate) fn create(folder: &Path, program: &Path) -> Result<PathBuf> {
    let root = folder.join("rootfs");
    fs::create_dir_all(&root)?;
    fs::copy(program, root.join("hello"))?;
    fs::write(folder.join("config.json"), serde_json::to_vec_pretty(&configuration())?)?;
    Ok(folder.to_owned())
}

/// `config.json`: what `runc spec` writes, with Docker's capabilities and a writable root.
///
/// There is no seccomp filter in it, as there is none in `runc spec`: compiling one costs the peers several
/// milliseconds, so leaving it out is in their favour.
fn configuration() -> Value {
    let capabilities = json!({ "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES });
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": { "uid": 0, "gid": 0 }, "args": ["/hello"], "cwd": "/",
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "capabilities": capabilities, "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "bench",
        "mounts": mounts(),
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
                "/sys/devices/virtual/powercap", "/sys/firmware",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

fn mounts() -> Vec<Value> {
    let list: [(&str, &str, &[&str]); 6] = [
        ("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        ("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    let entry =
        |(target, kind, options)| json!({ "destination": target, "type": kind, "source": kind, "options": options });
    list.into_iter().map(entry).collect()
}
