//! What `run`, `create` and `exec` were told, as typed.

use crate::spec::{
    Network,
    limits::{self, CpuList, LimitError, Limits, Throttle, ThrottleRate},
    mounts::{self, MountError, MountSpec},
    network::{self, NameService},
    ports::{self, PortError, PublishedPort},
    rare_limits::{self, RareLimits},
    request::StopTimeout,
};
use clap::ValueEnum;
use std::path::{Path, PathBuf};

/// What was typed after `run`, `create` or `exec`; what a command has no option for stays as it is by default.
#[derive(Debug, Default)]
pub(crate) struct ProgramArgs {
    pub(crate) add_host: Vec<String>,
    pub(crate) allow_net: Vec<String>,
    pub(crate) cacert: Vec<PathBuf>,
    pub(crate) cap_add: Vec<String>,
    pub(crate) cap_drop: Vec<String>,
    pub(crate) cidfile: Option<PathBuf>,
    pub(crate) component: Option<String>,
    pub(crate) config: Vec<String>,
    pub(crate) config_file: Vec<PathBuf>,
    pub(crate) coredump: Option<PathBuf>,
    pub(crate) cpu_shares: Option<String>,
    pub(crate) cpus: Option<String>,
    pub(crate) cpuset_cpus: Option<String>,
    pub(crate) detach: bool,
    pub(crate) dns: Vec<String>,
    pub(crate) dns_option: Vec<String>,
    pub(crate) dns_search: Vec<String>,
    pub(crate) domainname: Option<String>,
    pub(crate) entrypoint: Option<String>,
    pub(crate) env: Vec<String>,
    pub(crate) env_file: Vec<PathBuf>,
    pub(crate) explain_grants: bool,
    pub(crate) expose: Vec<String>,
    pub(crate) fuel: Option<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) init: bool,
    pub(crate) interactive: bool,
    pub(crate) invoke: Option<String>,
    pub(crate) ip: Option<String>,
    pub(crate) ip6: Option<String>,
    pub(crate) kv: Vec<String>,
    pub(crate) label: Vec<String>,
    pub(crate) memory: Option<String>,
    pub(crate) memory_swap: Option<String>,
    pub(crate) mount: Vec<String>,
    pub(crate) name: Option<String>,
    pub(crate) mac_address: Option<String>,
    pub(crate) network: Vec<String>,
    pub(crate) network_alias: Vec<String>,
    pub(crate) pids_limit: Option<String>,
    pub(crate) platform: Option<String>,
    pub(crate) prefer: PreferChoice,
    pub(crate) privileged: bool,
    pub(crate) publish: Vec<String>,
    pub(crate) publish_all: bool,
    pub(crate) pull: PullPolicy,
    pub(crate) quiet: bool,
    pub(crate) read_only: bool,
    pub(crate) reuse: Option<String>,
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
    pub(crate) wasm: Vec<String>,
    pub(crate) workdir: Option<String>,
    pub(crate) blkio_weight: Option<String>,
    pub(crate) blkio_weight_device: Vec<String>,
    pub(crate) cpu_period: Option<String>,
    pub(crate) cpu_quota: Option<String>,
    pub(crate) cpu_rt_period: Option<String>,
    pub(crate) cpu_rt_runtime: Option<String>,
    pub(crate) cpuset_mems: Option<String>,
    pub(crate) memory_reservation: Option<String>,
    pub(crate) memory_swappiness: Option<String>,
    pub(crate) oom_kill_disable: bool,
    pub(crate) isolation: Option<String>,
    pub(crate) volume_driver: Option<String>,
    pub(crate) restart: Option<String>,
    pub(crate) device: Vec<String>,
    pub(crate) cgroup_parent: Option<String>,
    pub(crate) device_cgroup_rule: Vec<String>,
    pub(crate) device_read_bps: Vec<String>,
    pub(crate) device_read_iops: Vec<String>,
    pub(crate) device_write_bps: Vec<String>,
    pub(crate) device_write_iops: Vec<String>,
    pub(crate) attach: Vec<String>,
    pub(crate) detach_keys: Option<String>,
    pub(crate) sig_proxy: Option<String>,
    pub(crate) annotation: Vec<String>,
    pub(crate) cgroupns: Option<String>,
    pub(crate) gpus: Option<String>,
    pub(crate) group_add: Vec<String>,
    pub(crate) health_cmd: Option<String>,
    pub(crate) health_http: Option<String>,
    pub(crate) health_tcp: Option<String>,
    pub(crate) health_interval: Option<String>,
    pub(crate) health_retries: Option<String>,
    pub(crate) health_start_interval: Option<String>,
    pub(crate) health_start_period: Option<String>,
    pub(crate) health_timeout: Option<String>,
    pub(crate) ipc: Option<String>,
    pub(crate) label_file: Vec<PathBuf>,
    pub(crate) log_driver: Option<String>,
    pub(crate) log_opt: Vec<String>,
    pub(crate) no_healthcheck: bool,
    pub(crate) oom_score_adj: Option<String>,
    pub(crate) shm_size: Option<String>,
    pub(crate) sysctl: Vec<String>,
    pub(crate) uts: Option<String>,
    pub(crate) pid: Option<String>,
    pub(crate) userns: Option<String>,
    pub(crate) volumes_from: Vec<String>,
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
            rare: self.rare_limits()?,
        };
        limits.check()?;
        Ok(limits)
    }

    fn rare_limits(&self) -> Result<RareLimits, LimitError> {
        RareLimits::parse(&rare_limits::Typed {
            swappiness: self.memory_swappiness.as_deref(),
            oom_kill_disable: self.oom_kill_disable,
            rt_period: self.cpu_rt_period.as_deref(),
            rt_runtime: self.cpu_rt_runtime.as_deref(),
            weight_devices: &self.blkio_weight_device,
        })
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

    /// Understands `--network` and what is about the first one; None where none of that was given.
    ///
    /// # Errors
    /// The first flag that cannot be used, or goes with no other.
    pub(crate) fn networks(&self) -> Result<Option<Network>, String> {
        network::parse(&network::Typed {
            networks: &self.network,
            aliases: &self.network_alias,
            ipv4: self.ip.as_deref(),
            ipv6: self.ip6.as_deref(),
            mac: self.mac_address.as_deref(),
        })
    }

    /// Understands `--dns`, `--dns-search`, `--dns-option` and `--add-host`.
    ///
    /// # Errors
    /// The first flag that cannot be used.
    pub(crate) fn names(&self) -> Result<NameService, String> {
        let server =
            |text: &String| text.parse().map_err(|_| format!("invalid value `{text}` for --dns: it is no IP address"));
        let search = |text: &String| match text.as_str() {
            "." => Ok(text.clone()),
            name => network::host_name("--dns-search", name),
        };
        let option = |text: &String| match text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(text.clone()),
            false => Err(format!("invalid value `{text}` for --dns-option: expected a word such as ndots:2")),
        };
        Ok(NameService {
            servers: self.dns.iter().map(server).collect::<Result<_, String>>()?,
            search: self.dns_search.iter().map(search).collect::<Result<_, String>>()?,
            options: self.dns_option.iter().map(option).collect::<Result<_, String>>()?,
            hosts: self.add_host.iter().map(|text| network::parse_host(text)).collect::<Result<_, String>>()?,
        })
    }

    /// Understands `-p`.
    ///
    /// # Errors
    /// The first flag that cannot be used, or two for one port of the host.
    pub(crate) fn ports(&self) -> Result<Vec<PublishedPort>, PortError> {
        ports::parse_all(&self.publish)
    }

    /// Understands `--expose`.
    ///
    /// # Errors
    /// The first value that is no port.
    pub(crate) fn exposed(&self) -> Result<Vec<String>, PortError> {
        let ports = self.expose.iter().map(|text| ports::parse_expose(text)).collect::<Result<Vec<_>, _>>()?;
        Ok(ports.concat())
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
