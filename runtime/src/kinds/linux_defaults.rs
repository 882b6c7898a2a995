//! What every Linux container finds: Docker's mounts, masks and search path.
//!
//! Source: moby `daemon/pkg/oci/defaults.go` as of June 2026, and the OCI runtime specification's "Default Filesystems".

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use linux_exec::plan::{Mount, MountSource};

use crate::{
    network::{Attached, files},
    spec::{Network, RunSpec, namespaces::NamespaceMode, network::NameService},
};

/// Docker's default search path.
pub(crate) const PATH_VARIABLE: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Docker's default size of `/dev/shm`.
const SHM_BYTES: u64 = 64 << 20;

/// Covered, so that nothing can be read there.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Read-only, though `/proc` is writable.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The mounts, in order.
pub(crate) fn mounts(spec: &RunSpec) -> Vec<Mount> {
    let privileged = spec.security.privileged;
    let mount = |target: &str, source, readonly| Mount::new(target, source, readonly);
    vec![
        mount("/proc", MountSource::Proc, false),
        devices(spec),
        mount("/sys", MountSource::Sysfs, !privileged),
        mount("/sys/fs/cgroup", MountSource::Cgroup, !privileged),
    ]
}

/// A `/dev` of its own.
pub(crate) fn devices(spec: &RunSpec) -> Mount {
    let source = MountSource::Dev {
        shm_bytes: (spec.further.ipc != NamespaceMode::WithoutMemory)
            .then(|| spec.further.shm_bytes.unwrap_or(SHM_BYTES)),
        host_devices: spec.security.privileged,
    };
    Mount::new("/dev", source, false)
}

/// `/etc/hosts` and `/etc/hostname`, kept in the container's folder, and where it reaches others `/etc/resolv.conf`; with the host's
/// network its files, unless something else was asked for.
pub(crate) fn network_files(spec: &RunSpec, attached: Option<&Attached>, folder: &Path) -> Result<Vec<Mount>> {
    let mut mounts = vec![
        written(folder, "hosts", &files::hosts(spec, attached))?,
        written(folder, "hostname", &format!("{}\n", spec.hostname))?,
    ];
    let is_told = spec.names != NameService::default();
    match spec.network {
        Network::Host if !is_told => {
            for name in
                ["hosts", "resolv.conf"].map(|name| Path::new("/etc").join(name)).into_iter().filter(|p| p.exists())
            {
                mounts.retain(|mount| mount.target != name);
                mounts.push(Mount { readonly: true, ..file_bind(name.clone(), name) });
            }
        }
        Network::None if !is_told => {}
        _ => mounts.push(written(folder, "resolv.conf", &files::resolv_conf(spec, attached))?),
    }
    Ok(mounts)
}

fn written(folder: &Path, name: &str, text: &str) -> Result<Mount> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file_bind(path, Path::new("/etc").join(name)))
}

fn file_bind(source: PathBuf, target: PathBuf) -> Mount {
    Mount::new(target, MountSource::Bind { source, recursive: false }, false)
}

/// Masked and read-only paths.
pub(crate) fn hidden_paths() -> (Vec<PathBuf>, Vec<PathBuf>) {
    let masked = MASKED.iter().map(PathBuf::from).chain(thermal_paths());
    (masked.collect(), READ_ONLY.iter().map(PathBuf::from).collect())
}

/// Each CPU's counters of overheating, from which other programs' work can be told. Machines without them have none for the
/// first CPU either.
fn thermal_paths() -> impl Iterator<Item = PathBuf> {
    let path = |cpu: u32| PathBuf::from(format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle"));
    let have = path(0).exists();
    let possible = have.then(|| fs::read_to_string("/sys/devices/system/cpu/possible").ok()).flatten();
    let last = possible.and_then(|text| text.trim().rsplit(['-', ',']).next()?.parse::<u32>().ok());
    (0..last.map_or(u32::from(have), |last| last + 1)).map(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Docker hides: moby `daemon/pkg/oci/defaults.go`, June 2026.
    #[test]
    fn what_docker_hides_is_hidden() {
        let masked = "/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats \
            /proc/sched_debug /proc/scsi /proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap /sys/firmware";
        let read_only = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger";
        let (found_masked, found_read_only) = hidden_paths();
        let paths = |text: &str| text.split_whitespace().map(PathBuf::from).collect::<Vec<_>>();
        assert!(paths(masked).iter().all(|path| found_masked.contains(path)));
        assert_eq!(found_read_only, paths(read_only));
        let cpus = std::thread::available_parallelism().unwrap().get();
        for cpu in 0..cpus {
            let path = PathBuf::from(format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle"));
            assert!(!path.exists() || found_masked.contains(&path), "{}", path.display());
        }
    }
}
