//! What a container is to be: what the user typed plus the image's defaults, validated.
//!
//! It knows no command-line types, and it is what is stored as `spec.json`, so that `start` needs nothing else.

pub(crate) mod capabilities;
pub(crate) mod cdi;
pub(crate) mod detach_keys;
pub(crate) mod devices;
pub(crate) mod env;
pub(crate) mod exit_code;
pub(crate) mod health;
pub(crate) mod limits;
pub(crate) mod logging;
pub(crate) mod mounts;
pub(crate) mod names;
pub(crate) mod namespaces;
pub(crate) mod network;
pub(crate) mod ports;
pub(crate) mod probe;
pub(crate) mod propagation;
pub(crate) mod quantity;
pub(crate) mod rare_limits;
pub(crate) mod request;
pub(crate) mod restart;
pub(crate) mod seccomp;
pub(crate) mod signals;
pub(crate) mod subnet;
pub(crate) mod wasm;
mod workload;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use network::Network;
pub(crate) use workload::{Kind, WasmProgram, Workload};

use crate::spec::{
    devices::DeviceSpec,
    health::Health,
    limits::Limits,
    logging::LogSpec,
    mounts::{MountKind, MountSpec},
    namespaces::NamespaceMode,
    network::NameService,
    ports::{Listening, PublishedPort},
    restart::RestartPolicy,
    wasm::WasmOptions,
};

/// The format of all records that this version writes. It grows with every change that an older version must know of to
/// treat a container well. Fields that a record does not have get what they meant before they were there; fields that are
/// not known here are passed over, and the user is told.
pub(crate) const FORMAT: u32 = 1;

/// What a record without a number is.
pub(crate) fn first_format() -> u32 {
    1
}

/// One container, complete. Everything a later `start`, `exec` or `inspect` asks for is in here.
///
/// As a file it may be of another version: what an older one did not write has a default, and what a newer one wrote
/// besides is passed over (the user is told).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunSpec {
    /// Of the file.
    #[serde(default = "first_format")]
    pub(crate) format: u32,
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    /// Unique among containers.
    pub(crate) name: String,
    /// The image, pinned.
    pub(crate) image: ImagePin,
    /// The command line, `argv[0]` first; never empty.
    pub(crate) argv: Vec<String>,
    /// How many words of it are the entrypoint.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) entrypoint_words: usize,
    /// `NAME=value`, in order, each name once.
    #[serde(default)]
    pub(crate) env: Vec<String>,
    /// Absolute path inside the container.
    #[serde(default = "root_directory")]
    pub(crate) cwd: String,
    /// `name|uid[:group|gid]`; empty means root.
    #[serde(default)]
    pub(crate) user: String,
    /// Host name inside the container.
    #[serde(default)]
    pub(crate) hostname: String,
    /// Domain name inside the container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) domainname: String,
    /// Volumes, binds and tmpfs that the user asked for.
    #[serde(default)]
    pub(crate) mounts: Vec<MountSpec>,
    /// Which network it sees.
    #[serde(default)]
    pub(crate) network: Network,
    /// Ports that the host's addresses lead to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ports: Vec<PublishedPort>,
    /// Ports that it is said to serve, beside those of its image: `80/tcp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) exposed: Vec<String>,
    /// What they are to it.
    #[serde(default)]
    pub(crate) listening: Listening,
    /// How it finds others by name.
    #[serde(default)]
    pub(crate) names: NameService,
    /// What it may use.
    #[serde(default)]
    pub(crate) limits: Limits,
    /// What it may do.
    #[serde(default)]
    pub(crate) security: Security,
    /// Whether the root file system is read-only.
    #[serde(default)]
    pub(crate) read_only: bool,
    /// What is asked of its engine.
    #[serde(default, skip_serializing_if = "WasmOptions::is_default")]
    pub(crate) wasm: WasmOptions,
    /// Which of its streams are connected, and to what.
    #[serde(default)]
    pub(crate) stdio: StdioSpec,
    /// `--init`: the program is not the first process. What runs a Wasm program does that part itself.
    #[serde(default)]
    pub(crate) init: bool,
    /// Removed as soon as it has ended.
    #[serde(default)]
    pub(crate) auto_remove: bool,
    /// Sent by `stop`, and at the time limit.
    #[serde(default = "terminate")]
    pub(crate) stop_signal: i32,
    /// Between the stop signal and SIGKILL; None: SIGKILL never follows.
    #[serde(default)]
    pub(crate) stop_timeout_ms: Option<u64>,
    /// The user's and the image's.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// Nanoseconds since the epoch.
    #[serde(default)]
    pub(crate) created_unix_nanos: i64,
    /// What becomes of it when it ends.
    #[serde(default)]
    pub(crate) restart: RestartPolicy,
    /// How its output is kept.
    #[serde(default)]
    pub(crate) log: LogSpec,
    /// How it is seen to be well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<Health>,
    /// What few ask for.
    #[serde(default)]
    pub(crate) further: Further,
    /// It is not the record that the container was made with.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) revised: bool,
}

impl RunSpec {
    /// Names of the volumes that it has.
    pub(crate) fn volumes(&self) -> impl Iterator<Item = &str> {
        let mounted = self.mounts.iter().filter_map(|mount| match &mount.kind {
            MountKind::Volume { name, .. } => name.as_deref(),
            MountKind::Bind { .. } | MountKind::Tmpfs { .. } | MountKind::Image { .. } => None,
        });
        mounted.chain(self.wasm.stores.iter().filter_map(|store| store.volume.as_deref()))
    }

    /// Digests of the images that it needs: its own, and those that it has mounted.
    pub(crate) fn images(&self) -> impl Iterator<Item = &str> {
        let mounted = self.mounts.iter().filter_map(|mount| match &mount.kind {
            MountKind::Image { digest, .. } => Some(digest.as_str()),
            MountKind::Bind { .. } | MountKind::Volume { .. } | MountKind::Tmpfs { .. } => None,
        });
        std::iter::once(self.image.digest.as_str()).chain(mounted)
    }
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

fn root_directory() -> String {
    "/".to_owned()
}

fn terminate() -> i32 {
    nix::libc::SIGTERM
}

/// Which image, by digest, so that a tag which moves on does not change a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ImagePin {
    /// As the user typed it.
    pub(crate) name: String,
    /// Manifest digest.
    pub(crate) digest: String,
    /// For lists.
    pub(crate) kind: Kind,
    /// What of it runs. None in records that were written before it was decided when a container is made.
    #[serde(default)]
    pub(crate) workload: Option<Workload>,
}

/// What few ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Further {
    /// Names or numbers of groups beside the user's own.
    pub group_add: Vec<String>,
    /// Settings of its namespaces: name, value.
    pub sysctls: Vec<(String, String)>,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Of `/dev/shm`.
    pub shm_bytes: Option<u64>,
    /// Whose processes it sees.
    pub pid: NamespaceMode,
    /// Whose System V objects, message queues and shared memory it has.
    #[serde(rename = "host_ipc")]
    pub ipc: NamespaceMode,
    /// Host and domain name are the host's, instead of its own.
    pub host_uts: bool,
    /// The same for what it sees of cgroups.
    pub host_cgroup: bool,
    /// The same for users and groups, as somebody said; it is so for all.
    pub host_user: bool,
    /// Devices of the host's that it may use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceSpec>,
    /// Devices of which it may make nodes that work, as lines of a device cgroup.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_rules: Vec<String>,
    /// The group that its own lies in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_parent: Option<String>,
    /// Words of others, which mean nothing here.
    pub annotations: BTreeMap<String, String>,
}

impl Further {
    /// Whether a list of its own says which devices it may open.
    pub(crate) fn lists_devices(&self) -> bool {
        !self.device_rules.is_empty() || self.devices.iter().any(DeviceSpec::is_restricted)
    }

    /// Whether it may open more devices than every container.
    pub(crate) fn has_devices(&self) -> bool {
        !self.device_rules.is_empty() || !self.devices.is_empty()
    }

    /// Whether its cgroup lies elsewhere than those of most.
    pub(crate) fn has_other_group(&self) -> bool {
        self.cgroup_parent.is_some() || self.has_devices()
    }

    /// The first of them that only programs for the kernel have.
    pub(crate) fn of_linux(&self) -> Option<&'static str> {
        let asked = [
            (!self.group_add.is_empty(), "--group-add"),
            (!self.sysctls.is_empty(), "--sysctl"),
            (self.shm_bytes.is_some(), "--shm-size"),
            (self.pid != NamespaceMode::Private, "--pid"),
            (self.ipc != NamespaceMode::Private, "--ipc"),
            (self.host_cgroup, "--cgroupns"),
            (!self.devices.is_empty(), "--device"),
            (!self.device_rules.is_empty(), "--device-cgroup-rule"),
        ];
        asked.into_iter().find(|(asked, _)| *asked).map(|(_, flag)| flag)
    }
}

/// Rights of the program.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// Capabilities beyond the default set.
    pub cap_add: Vec<String>,
    /// Capabilities taken from the default set.
    pub cap_drop: Vec<String>,
    /// All capabilities and devices, no seccomp filter, nothing masked.
    pub privileged: bool,
    /// `--security-opt seccomp=unconfined`.
    pub seccomp_unconfined: bool,
    /// `--security-opt seccomp=FILE`: instead of the default one, for a privileged container too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp_profile: Option<seccomp::SeccompProfile>,
    /// `--security-opt no-new-privileges=false` switches it off.
    pub new_privileges_allowed: bool,
}

/// The streams.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StdioSpec {
    /// `-i`: standard input stays open.
    pub interactive: bool,
    /// `-t`: a terminal of its own.
    pub terminal: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_written_down() {
        let program = Workload::Wasm(WasmProgram::File { path: "/a.wasm".into() });
        let text = serde_json::to_string(&program).unwrap();
        assert_eq!(text, r#"{"wasm":{"file":{"path":"/a.wasm"}}}"#);
        assert_eq!(serde_json::from_str::<Workload>(&text).unwrap(), program);
        assert_eq!(serde_json::to_string(&Workload::Linux).unwrap(), r#""linux""#);
    }

    #[test]
    fn a_spec_of_an_older_or_newer_version_is_read() {
        let image = r#""image":{"name":"a","digest":"sha256:x","kind":"linux","signed":true}"#;
        let text = format!(r#"{{"id":"1","name":"a",{image},"argv":["sh"]}}"#);
        let older: RunSpec = serde_json::from_str(&text).unwrap();
        assert_eq!((older.format, older.cwd.as_str(), older.stop_signal, older.network), (1, "/", 15, Network::None));
        assert_eq!(older.image.workload, None);
        let text = format!(
            r#"{{"format":2,"id":"1","name":"a",{image},"argv":["sh"],"weather":"fine","limits":{{"pids":7,"io":1}},
                "mounts":[{{"target":"/a","readonly":true,"kind":{{"volume":{{"name":"v","copy":false,"x":1}}}},"y":2}}]}}"#
        );
        let newer: RunSpec = serde_json::from_str(&text).unwrap();
        assert_eq!((newer.format, newer.limits.pids, newer.mounts.len()), (2, Some(7), 1));
    }
}
