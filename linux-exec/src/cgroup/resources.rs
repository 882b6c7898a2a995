//! What a group is to enforce: what `run` limits, and all else of the OCI runtime-spec's `linux.resources`.

use super::devices::DeviceRule;
use std::collections::BTreeMap;

/// Limits; None is unlimited. In an update, None is as it was, and `u64::MAX` unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Bytes.
    pub memory_bytes: Option<u64>,
    /// Memory *plus* swap in bytes, Docker's meaning; with a memory limit and None here, swap is off (equal to memory).
    /// `u64::MAX` is unlimited swap.
    pub memory_swap_bytes: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u64>,
    /// 2..=262144, on the scale of v1 (converted to a weight on v2).
    pub cpu_shares: Option<u64>,
    /// A list such as `0-1,3`.
    pub cpuset_cpus: Option<String>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Only the devices that every container has may be opened. Where that cannot be had the group is made all the same, and
    /// [`super::Cgroup::restricts_devices`] says so.
    pub restrict_devices: bool,
    /// For a container that can mount: a group in every hierarchy of the machine, or none is made, as otherwise it would see, and
    /// could change, what its maker is in. On v2 it gets a group below the one with the limits.
    pub every_hierarchy: bool,
    /// What `run` has no options for.
    pub further: Further,
}

/// The rest of `linux.resources`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Further {
    /// What the group gets back first when memory is short; bytes. v1: `soft_limit`, v2: `memory.low`.
    pub memory_reservation_bytes: Option<u64>,
    /// v1 only: 0..=100.
    pub memory_swappiness: Option<u64>,
    /// v1 only: who exceeds the limit waits for memory instead of being killed.
    pub oom_killer_disabled: bool,
    /// v2 only: all processes are killed, or none.
    pub oom_group: Option<bool>,
    /// Microseconds of CPU time in each period; `u64::MAX` is unlimited. Beside it `cpu_millis` is not to be set.
    pub cpu_quota_usec: Option<u64>,
    /// Microseconds; the kernel's own is 100000.
    pub cpu_period_usec: Option<u64>,
    /// Microseconds that are saved up for a later period.
    pub cpu_burst_usec: Option<u64>,
    /// It runs only when nobody else wants to.
    pub cpu_idle: Option<bool>,
    /// v1 only: microseconds for real-time threads, and of what period.
    pub cpu_realtime_runtime_usec: Option<u64>,
    /// v1 only.
    pub cpu_realtime_period_usec: Option<u64>,
    /// Memory nodes, a list such as `0-1,3`.
    pub cpuset_mems: Option<String>,
    /// 10..=1000, on the scale of v1 (converted on v2, where the `bfq` scheduler does not take it as it is).
    pub io_weight: Option<u16>,
    /// The same for single devices.
    pub io_weight_devices: Vec<(Device, u16)>,
    /// Bytes and operations a second.
    pub io_throttle: Vec<(Device, Rate, u64)>,
    /// By page size as the kernel writes it (`2MB`); bytes.
    pub hugepages: Vec<(String, u64)>,
    /// v1 only: what packets are marked with.
    pub network_class: Option<u32>,
    /// v1 only: by name of an interface.
    pub network_priorities: Vec<(String, u32)>,
    /// By device: handles and objects.
    pub rdma: Vec<(String, Option<u32>, Option<u32>)>,
    /// v2 only: files and what is written to them.
    pub unified: BTreeMap<String, String>,
    /// Which devices may be used, the last rule that speaks of one deciding; None: all. On v1 no more than where the group lies, and
    /// at our own place ([`super::Place::of_container`]) that is what `restrict_devices` allows: choose another one.
    pub devices: Option<Vec<DeviceRule>>,
    /// It can be frozen: v1 then needs one more group.
    pub freezable: bool,
}

/// Major and minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// The driver's.
    pub major: u32,
    /// The device's.
    pub minor: u32,
}

/// What is throttled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// Bytes.
    ReadBytes,
    /// Bytes.
    WriteBytes,
    /// Operations.
    Reads,
    /// Operations.
    Writes,
}
