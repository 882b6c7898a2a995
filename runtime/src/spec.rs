//! What a container is to be: what the user typed plus the image's defaults, validated.
//!
//! It knows no command-line types, and it is what is stored as `spec.json`, so that `start` needs nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{limits::Limits, mounts::MountSpec, target::Kind};

/// One container, complete. Everything a later `start`, `exec` or `inspect` asks for is in here.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunSpec {
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    /// Unique among containers.
    pub(crate) name: String,
    /// The image, pinned.
    pub(crate) image: ImagePin,
    /// The command line, `argv[0]` first; never empty.
    pub(crate) argv: Vec<String>,
    /// `NAME=value`, in order, each name once.
    pub(crate) env: Vec<String>,
    /// Absolute path inside the container.
    pub(crate) cwd: String,
    /// `name|uid[:group|gid]`; empty means root.
    pub(crate) user: String,
    /// Host name inside the container.
    pub(crate) hostname: String,
    /// Volumes, binds and tmpfs that the user asked for.
    pub(crate) mounts: Vec<MountSpec>,
    /// Which network it sees.
    pub(crate) network: Network,
    /// What it may use.
    pub(crate) limits: Limits,
    /// What it may do.
    pub(crate) security: Security,
    /// Whether the root file system is read-only.
    pub(crate) read_only: bool,
    /// Which of its streams are connected, and to what.
    pub(crate) stdio: StdioSpec,
    /// `--init`: the program is not the first process. What runs a Wasm program does that part itself.
    #[serde(default)]
    pub(crate) init: bool,
    /// Removed as soon as it has ended.
    pub(crate) auto_remove: bool,
    /// Sent by `stop`, and at the time limit.
    pub(crate) stop_signal: i32,
    /// Between the stop signal and SIGKILL; None: SIGKILL never follows.
    pub(crate) stop_timeout_ms: Option<u64>,
    /// The user's and the image's.
    pub(crate) labels: BTreeMap<String, String>,
    /// Nanoseconds since the epoch.
    pub(crate) created_unix_nanos: i64,
}

/// Which image, by digest, so that a tag which moves on does not change a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImagePin {
    /// As the user typed it.
    pub(crate) name: String,
    /// Manifest digest.
    pub(crate) digest: String,
    /// For lists, and for what only one kind can do.
    pub(crate) kind: Kind,
}

/// The networks there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Network {
    /// A network of its own with only a loopback device.
    None,
    /// The host's.
    Host,
}

/// Rights of the program.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Security {
    /// Capabilities beyond the default set.
    pub(crate) cap_add: Vec<String>,
    /// Capabilities taken from the default set.
    pub(crate) cap_drop: Vec<String>,
    /// All capabilities and devices, no seccomp filter, nothing masked.
    pub(crate) privileged: bool,
    /// `--security-opt seccomp=unconfined`.
    pub(crate) seccomp_unconfined: bool,
    /// `--security-opt no-new-privileges=false` switches it off.
    pub(crate) new_privileges_allowed: bool,
}

/// The streams.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StdioSpec {
    /// `-i`: standard input stays open.
    pub(crate) interactive: bool,
    /// `-t`: a terminal of its own.
    pub(crate) terminal: bool,
}
