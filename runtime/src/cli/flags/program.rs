//! What `run`, `create` and `exec` were told, as typed.

use crate::spec::{
    limits::{self, CpuList, LimitError, Limits, Throttle, ThrottleRate},
    mounts::{self, MountError, MountSpec},
    ports::{self, PortError, PublishedPort},
    request::StopTimeout,
};
use clap::ValueEnum;
use std::path::{Path, PathBuf};

/// What was typed after `run`, `create` or `exec`; what a command has no option for stays as it is by default.
#[derive(Debug, Default)]
pub(crate) struct ProgramArgs {
    pub(crate) cap_add: Vec<String>,
    pub(crate) cap_drop: Vec<String>,
    pub(crate) cidfile: Option<PathBuf>,
    pub(crate) cpu_shares: Option<String>,
    pub(crate) cpus: Option<String>,
    pub(crate) cpuset_cpus: Option<String>,
    pub(crate) detach: bool,
    pub(crate) entrypoint: Option<String>,
    pub(crate) env: Vec<String>,
    pub(crate) env_file: Vec<PathBuf>,
    pub(crate) fuel: Option<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) init: bool,
    pub(crate) interactive: bool,
    pub(crate) label: Vec<String>,
    pub(crate) memory: Option<String>,
    pub(crate) memory_swap: Option<String>,
    pub(crate) mount: Vec<String>,
    pub(crate) name: Option<String>,
    pub(crate) network: NetworkChoice,
    pub(crate) pids_limit: Option<String>,
    pub(crate) platform: Option<String>,
    pub(crate) prefer: PreferChoice,
    pub(crate) privileged: bool,
    pub(crate) publish: Vec<String>,
    pub(crate) pull: PullPolicy,
    pub(crate) read_only: bool,
    pub(crate) rm: bool,
    pub(crate) security_opt: Vec<String>,
    pub(crate) stop_signal: Option<String>,
    pub(crate) stop_timeout: Option<String>,
    pub(crate) timeout: Option<String>,
    pub(crate) timings: bool,
    pub(crate) tmpfs: Vec<String>,
    pub(crate) tty: bool,
    pub(crate) ulimit: Vec<String>,
    pub(crate) user: Option<String>,
    pub(crate) volume: Vec<String>,
    pub(crate) workdir: Option<String>,
    pub(crate) blkio_weight: Option<String>,
    pub(crate) cpu_period: Option<String>,
    pub(crate) cpu_quota: Option<String>,
    pub(crate) cpuset_mems: Option<String>,
    pub(crate) memory_reservation: Option<String>,
    pub(crate) restart: Option<String>,
    pub(crate) device_read_bps: Vec<String>,
    pub(crate) device_read_iops: Vec<String>,
    pub(crate) device_write_bps: Vec<String>,
    pub(crate) device_write_iops: Vec<String>,
    pub(crate) attach: Vec<String>,
    pub(crate) detach_keys: Option<String>,
    pub(crate) sig_proxy: Option<String>,
    /// The image of `run` and `create`, the container of `exec`.
    pub(crate) subject: String,
    /// What comes after it: the program and its arguments.
    pub(crate) command: Vec<String>,
}

impl ProgramArgs {
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
            memory_reservation_bytes: parsed(&self.memory_reservation, limits::parse_memory_reservation)?,
            cpuset_mems: parsed(&self.cpuset_mems, |text| limits::parse_cpuset_mems(text).map(Some))?,
            cpu_period_usec: parsed(&self.cpu_period, |text| limits::parse_cpu_usec("--cpu-period", text))?,
            cpu_quota_usec: parsed(&self.cpu_quota, |text| limits::parse_cpu_usec("--cpu-quota", text))?,
            blkio_weight: parsed(&self.blkio_weight, limits::parse_blkio_weight)?,
            throttles: self.throttles()?,
        };
        limits.check()?;
        Ok(limits)
    }

    fn throttles(&self) -> Result<Vec<Throttle>, LimitError> {
        let kinds = [
            ("--device-read-bps", ThrottleRate::ReadBps, &self.device_read_bps),
            ("--device-read-iops", ThrottleRate::ReadIops, &self.device_read_iops),
            ("--device-write-bps", ThrottleRate::WriteBps, &self.device_write_bps),
            ("--device-write-iops", ThrottleRate::WriteIops, &self.device_write_iops),
        ];
        let all = kinds.into_iter().flat_map(|(flag, rate, texts)| texts.iter().map(move |text| (flag, rate, text)));
        all.map(|(flag, rate, text)| limits::parse_throttle(flag, rate, text)).collect()
    }

    /// Understands `-v`, `--mount` and `--tmpfs`. `cwd` is where relative sources begin.
    ///
    /// # Errors
    /// The first flag that cannot be used, or two mounts at one target.
    pub(crate) fn mounts(&self, cwd: &Path) -> Result<Vec<MountSpec>, MountError> {
        mounts::parse_all(&self.volume, &self.mount, &self.tmpfs, cwd)
    }

    /// Understands `-p`.
    ///
    /// # Errors
    /// The first flag that cannot be used, or two for one port of the host.
    pub(crate) fn ports(&self) -> Result<Vec<PublishedPort>, PortError> {
        ports::parse_all(&self.publish)
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

pub(super) fn parse_network(text: &str) -> Result<NetworkChoice, &'static str> {
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
