//! `run` and `create`: what a container is made of.

use crate::spec::{
    limits::{self, CpuList, LimitError, Limits},
    mounts::{self, MountError, MountSpec},
    request::StopTimeout,
};
use clap::{ArgAction, Args, ValueEnum};
use std::path::{Path, PathBuf};

#[derive(Debug, Default, Args)]
#[command(override_usage = "amphora run [OPTIONS] IMAGE [COMMAND] [ARG...]", mut_args(switch))]
pub(crate) struct RunArgs {
    /// Run in the background and print the container's id
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Print how long each stage of the start took
    #[arg(long, hide = true)]
    pub(crate) timings: bool,
    #[command(flatten)]
    pub(crate) container: ContainerArgs,
}

#[derive(Debug, Args)]
#[command(override_usage = "amphora create [OPTIONS] IMAGE [COMMAND] [ARG...]")]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub(crate) container: ContainerArgs,
}

// What `run` and `create` share, as typed. `-h` is the host name, as with Docker, so help has only its long form.
#[derive(Debug, Default, Args)]
#[command(disable_help_flag = true, arg(help_flag()), mut_args(switch))]
pub(crate) struct ContainerArgs {
    /// Add a Linux capability
    #[arg(long, value_name = "list")]
    pub(crate) cap_add: Vec<String>,
    /// Drop a Linux capability
    #[arg(long, value_name = "list")]
    pub(crate) cap_drop: Vec<String>,
    /// Write the container's id to this file
    #[arg(long, value_name = "file")]
    pub(crate) cidfile: Option<PathBuf>,
    /// CPU weight against other containers (1024 is usual)
    #[arg(short = 'c', long, value_name = "int")]
    pub(crate) cpu_shares: Option<String>,
    /// Number of CPUs, such as 0.5
    #[arg(long, value_name = "decimal")]
    pub(crate) cpus: Option<String>,
    /// CPUs in which to run, such as 0-3 or 0,1
    #[arg(long, value_name = "string")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Replace the image's entrypoint
    #[arg(long, value_name = "string")]
    pub(crate) entrypoint: Option<String>,
    /// Set an environment variable, or pass on the caller's
    #[arg(short, long, value_name = "list")]
    pub(crate) env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "list")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Instructions that a Wasm program may execute
    #[arg(long, value_name = "int")]
    pub(crate) fuel: Option<String>,
    /// Host name inside the container
    #[arg(short = 'h', long, value_name = "string")]
    pub(crate) hostname: Option<String>,
    /// Run the program under an init that passes signals on and reaps processes
    #[arg(long)]
    pub(crate) init: bool,
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Set a label
    #[arg(short, long, value_name = "list")]
    pub(crate) label: Vec<String>,
    /// Memory limit, such as 128m or 1g
    #[arg(short, long, value_name = "bytes")]
    pub(crate) memory: Option<String>,
    /// Limit of memory and swap together, -1 for unlimited swap
    #[arg(long, value_name = "bytes", allow_negative_numbers = true)]
    pub(crate) memory_swap: Option<String>,
    /// Mount a directory, a volume or memory
    #[arg(long, value_name = "mount")]
    pub(crate) mount: Vec<String>,
    /// Name of the container
    #[arg(long, value_name = "string")]
    pub(crate) name: Option<String>,
    /// Network: none or host
    #[arg(long, visible_alias = "net", value_name = "network", default_value = "none", value_parser = parse_network)]
    pub(crate) network: NetworkChoice,
    /// Limit of processes and threads, -1 for unlimited
    #[arg(long, value_name = "int", allow_negative_numbers = true)]
    pub(crate) pids_limit: Option<String>,
    /// Platform to choose from a multi-platform image, such as wasi/wasm
    #[arg(long, value_name = "string")]
    pub(crate) platform: Option<String>,
    /// Kind to choose where an image has both
    #[arg(long, value_name = "kind", default_value = "linux")]
    pub(crate) prefer: PreferChoice,
    /// Give all capabilities and devices
    #[arg(long)]
    pub(crate) privileged: bool,
    /// When to ask the registry
    #[arg(long, value_name = "policy", default_value = "missing")]
    pub(crate) pull: PullPolicy,
    /// Make the root file system read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Remove the container when it ends
    #[arg(long)]
    pub(crate) rm: bool,
    /// Security options: no-new-privileges, seccomp=unconfined
    #[arg(long, value_name = "list")]
    pub(crate) security_opt: Vec<String>,
    /// Signal that asks the container to stop
    #[arg(long, value_name = "signal")]
    pub(crate) stop_signal: Option<String>,
    /// Seconds between the stop signal and SIGKILL, -1 to wait for ever
    #[arg(long, value_name = "seconds", allow_negative_numbers = true)]
    pub(crate) stop_timeout: Option<String>,
    /// Stop after this time, such as 10s or 1m30s
    #[arg(long, value_name = "duration")]
    pub(crate) timeout: Option<String>,
    /// Mount memory at a directory, such as /run:size=64m
    #[arg(long, value_name = "list")]
    pub(crate) tmpfs: Vec<String>,
    /// Give the container a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Resource limit, such as nofile=1024:2048
    #[arg(long, value_name = "ulimit")]
    pub(crate) ulimit: Vec<String>,
    /// User, as name or uid, and maybe group: name[:group]
    #[arg(short, long, value_name = "string")]
    pub(crate) user: Option<String>,
    /// Mount a directory or a volume: source:target[:ro]
    #[arg(short, long, value_name = "list")]
    pub(crate) volume: Vec<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "string")]
    pub(crate) workdir: Option<String>,
    // The image, then what replaces its command (Linux) or is passed to it (Wasm). One argument to the parser, so that
    // nothing after the image is read as an option of ours.
    #[arg(value_name = "IMAGE [COMMAND] [ARG...]", required = true, trailing_var_arg = true, hide = true)]
    pub(super) words: Vec<String>,
}

impl ContainerArgs {
    /// The image as typed.
    pub(crate) fn image(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// What comes after the image.
    pub(crate) fn command(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// Understands the limit flags. Looks at the machine's CPUs only where a flag is about them.
    ///
    /// # Errors
    /// The first flag that cannot be used, by name.
    pub(crate) fn limits(&self) -> Result<Limits, LimitError> {
        let limits = Limits {
            memory_bytes: parsed(&self.memory, limits::parse_memory)?,
            memory_swap_bytes: parsed(&self.memory_swap, limits::parse_memory_swap)?,
            cpu_millis: parsed(&self.cpus, |text| limits::parse_cpus(text, CpuList::online().count()))?,
            cpu_shares: parsed(&self.cpu_shares, limits::parse_cpu_shares)?,
            cpuset_cpus: parsed(&self.cpuset_cpus, |text| {
                limits::parse_cpuset_cpus(text, &CpuList::online()).map(Some)
            })?,
            pids: parsed(&self.pids_limit, limits::parse_pids)?,
            ulimits: limits::parse_ulimits(&self.ulimit)?,
            timeout_ms: parsed(&self.timeout, limits::parse_timeout)?,
            fuel: parsed(&self.fuel, |text| limits::parse_fuel(text).map(Some))?,
        };
        limits.check()?;
        Ok(limits)
    }

    /// Understands `-v`, `--mount` and `--tmpfs`. `cwd` is where relative sources begin.
    ///
    /// # Errors
    /// The first flag that cannot be used, or two mounts at one target.
    pub(crate) fn mounts(&self, cwd: &Path) -> Result<Vec<MountSpec>, MountError> {
        mounts::parse_all(&self.volume, &self.mount, &self.tmpfs, cwd)
    }

    /// How long the container has between its stop signal and SIGKILL.
    ///
    /// # Errors
    /// A value that is no duration.
    pub(crate) fn stop_timeout(&self) -> Result<StopTimeout, LimitError> {
        let given = self.stop_timeout.as_deref().map(|text| limits::parse_stop_timeout("--stop-timeout", text));
        given.unwrap_or_else(|| Ok(StopTimeout::default()))
    }
}

/// As with Docker, a switch may be given a value: `--rm=true`, `-t=false`.
pub(super) fn switch(arg: clap::Arg) -> clap::Arg {
    match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .value_parser(clap::value_parser!(bool))
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
            .value_name("bool")
            .hide_possible_values(true)
            .hide_default_value(true),
        _ => arg,
    }
}

fn help_flag() -> clap::Arg {
    clap::Arg::new("help").long("help").action(ArgAction::Help).help("Print help")
}

fn parsed<T>(
    text: &Option<String>,
    parse: impl FnOnce(&str) -> Result<Option<T>, LimitError>,
) -> Result<Option<T>, LimitError> {
    text.as_deref().map_or(Ok(None), parse)
}

/// `--network`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum NetworkChoice {
    /// Loopback only.
    #[default]
    None,
    /// The host's.
    Host,
}

fn parse_network(text: &str) -> Result<NetworkChoice, &'static str> {
    match text {
        "none" => Ok(NetworkChoice::None),
        "host" => Ok(NetworkChoice::Host),
        _ => Err("not supported yet: expected `none` (the default) or `host`"),
    }
}

/// `--prefer`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PreferChoice {
    // The host's Linux manifest, then Wasm
    #[default]
    Linux,
    // Wasm, then the host's Linux manifest
    Wasm,
}

/// `--pull`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullPolicy {
    // When the store has no such image
    #[default]
    Missing,
    // Each time
    Always,
    // Never: the store must have it
    Never,
    // When the registry's image differs from the store's
    Newer,
}
