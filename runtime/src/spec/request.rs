//! What is asked for, by a user, a bundle, a gateway or an API: plain values, of no front end's types.

use std::collections::BTreeMap;

use crate::spec::{
    Further, Network, Security, StdioSpec, health::HealthOptions, limits::Limits, logging::LogSpec, mounts::MountSpec,
    network::NameService, ports::PublishedPort, restart::RestartPolicy, wasm::WasmOptions,
};

/// Docker's: between the stop signal and SIGKILL, in milliseconds.
const STOP_TIMEOUT_MS: u64 = 10_000;

/// A container that somebody wants. What is left out is as the image says, else as with Docker.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The image, as it was asked for.
    pub image: String,
    /// Of a Spin application, the component that is wanted.
    pub component: Option<String>,
    /// Replaces the image's command, or is passed to its entrypoint.
    pub command: Vec<String>,
    /// Replaces the image's entrypoint and its command; one of no words leaves only `command`.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value`; only `NAME` takes away what the image sets.
    pub env: Vec<String>,
    /// Absolute path inside the container.
    pub cwd: Option<String>,
    /// `name|uid[:group|gid]`
    pub user: Option<String>,
    /// Host name inside the container.
    pub hostname: Option<String>,
    /// Domain name inside the container.
    pub domainname: Option<String>,
    /// A random one if none is wanted.
    pub name: Option<String>,
    /// Volumes, binds and tmpfs.
    pub mounts: Vec<MountSpec>,
    /// Which network it sees; None: the default network if ports are published, else `default_network`.
    pub network: Option<Network>,
    /// What a Linux image gets of which nothing else was said; None: the default network for root, else none.
    pub default_network: Option<Network>,
    /// How it finds others by name.
    pub names: NameService,
    /// Ports that the host's addresses lead to.
    pub ports: Vec<PublishedPort>,
    /// Ports that it is said to serve, beside those of its image: `80/tcp`.
    pub exposed: Vec<String>,
    /// Whether every port that is exposed is published, too.
    pub publish_all: bool,
    /// What it may use.
    pub limits: Limits,
    /// What it may do.
    pub security: Security,
    /// What is asked of a Wasm program's engine.
    pub wasm: WasmOptions,
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// Which of its streams are connected, and to what.
    pub stdio: StdioSpec,
    /// Whether an init passes signals on and reaps processes.
    pub init: bool,
    /// Removed as soon as it has ended.
    pub auto_remove: bool,
    /// Number or name.
    pub stop_signal: Option<String>,
    /// Between the stop signal and SIGKILL.
    pub stop_timeout: StopTimeout,
    /// Beside the image's.
    pub labels: BTreeMap<String, String>,
    /// What becomes of it when it ends.
    pub restart: RestartPolicy,
    /// How its output is kept.
    pub log: LogSpec,
    /// How it is seen to be well.
    pub health: HealthOptions,
    /// What few ask for.
    pub further: Further,
}

/// One more program that somebody wants in a container that runs. What is left out is as for the container.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExecRequest {
    /// `argv`; the program is looked for as in the container's PATH.
    pub(crate) command: Vec<String>,
    /// `NAME=value`, beside the container's; only `NAME` takes that away.
    pub(crate) env: Vec<String>,
    /// Absolute path inside the container.
    pub(crate) cwd: Option<String>,
    /// `name|uid[:group|gid]`
    pub(crate) user: Option<String>,
    /// All capabilities and no filter, whatever the container has.
    pub(crate) privileged: bool,
    /// Which of its streams are connected, and to what.
    pub(crate) stdio: StdioSpec,
}

/// How long a container that was asked to stop may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopTimeout {
    /// Then SIGKILL follows; milliseconds.
    After(u64),
    /// SIGKILL never follows.
    Never,
}

impl Default for StopTimeout {
    fn default() -> Self {
        Self::After(STOP_TIMEOUT_MS)
    }
}

impl StopTimeout {
    /// Milliseconds; None for ever.
    pub(crate) fn milliseconds(self) -> Option<u64> {
        match self {
            Self::After(ms) => Some(ms),
            Self::Never => None,
        }
    }
}
