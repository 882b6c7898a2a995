//! From limits to what is written to which file. Pure.
//!
//! Conversions to v2 are those of runc (opencontainers/cgroups) and crun's crun.1, "cgroup v2"; the files those of the kernel's
//! Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.

use super::{
    Controller,
    resources::{Device, Rate, Resources},
    values,
};

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) controller: Controller,
    pub(super) file: String,
    pub(super) value: String,
    /// Written where this one is missing.
    pub(super) instead: Option<(String, String)>,
    /// Nothing is lost where there is no such file.
    pub(super) optional: bool,
}

/// Collects them.
struct Settings {
    all: Vec<Setting>,
    /// How the kernel writes "unlimited".
    unlimited: &'static str,
}

impl Settings {
    fn text(&mut self, controller: Controller, file: impl Into<String>, value: impl Into<String>) {
        let setting = Setting { controller, file: file.into(), value: value.into(), instead: None, optional: false };
        self.all.push(setting);
    }

    fn number(&mut self, controller: Controller, file: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.text(controller, file, self.limit(value));
        }
    }

    fn limit(&self, value: u64) -> String {
        if value == u64::MAX { self.unlimited.to_owned() } else { value.to_string() }
    }

    fn or(&mut self, file: impl Into<String>, value: impl Into<String>) {
        if let Some(last) = self.all.last_mut() {
            last.instead = Some((file.into(), value.into()));
        }
    }
}

/// For one hierarchy per controller.
pub(super) fn v1(wanted: &Resources) -> Vec<Setting> {
    let mut settings = Settings { all: Vec::new(), unlimited: "-1" };
    let further = &wanted.further;
    memory_v1(&mut settings, wanted);
    settings.number(Controller::Cpu, "cpu.cfs_period_us", further.cpu_period_usec);
    settings.number(Controller::Cpu, "cpu.cfs_quota_us", quota(wanted));
    settings.number(Controller::Cpu, "cpu.cfs_burst_us", further.cpu_burst_usec);
    settings.number(Controller::Cpu, "cpu.shares", wanted.cpu_shares);
    settings.number(Controller::Cpu, "cpu.idle", further.cpu_idle.map(u64::from));
    settings.number(Controller::Cpu, "cpu.rt_period_us", further.cpu_realtime_period_usec);
    settings.number(Controller::Cpu, "cpu.rt_runtime_us", further.cpu_realtime_runtime_usec);
    cpuset(&mut settings, wanted);
    if let Some(pids) = wanted.pids {
        settings.text(Controller::Pids, "pids.max", if pids == u64::MAX { "max".to_owned() } else { pids.to_string() });
    }
    io_v1(&mut settings, wanted);
    for (size, bytes) in &further.hugepages {
        settings.number(Controller::Hugetlb, &format!("hugetlb.{size}.limit_in_bytes"), Some(*bytes));
    }
    settings.number(Controller::NetCls, "net_cls.classid", further.network_class.map(u64::from));
    for (interface, priority) in &further.network_priorities {
        settings.text(Controller::NetPrio, "net_prio.ifpriomap", format!("{interface} {priority}"));
    }
    rdma(&mut settings, wanted);
    settings.all
}

/// Memory before the sum: the sum with swap must never be the smaller one.
fn memory_v1(settings: &mut Settings, wanted: &Resources) {
    let further = &wanted.further;
    settings.number(Controller::Memory, "memory.limit_in_bytes", wanted.memory_bytes);
    if let Some(sum) = wanted.memory_swap_bytes.or(wanted.memory_bytes).filter(|_| wanted.memory_bytes.is_some()) {
        settings.number(Controller::Memory, "memory.memsw.limit_in_bytes", Some(sum));
        swap_is_optional(settings, wanted, sum);
    }
    settings.number(Controller::Memory, "memory.soft_limit_in_bytes", further.memory_reservation_bytes);
    settings.number(Controller::Memory, "memory.swappiness", further.memory_swappiness);
    settings.number(Controller::Memory, "memory.oom_control", further.oom_killer_disabled.then_some(1));
}

/// Where swap is not accounted. Where a limit on it was asked for, `unenforceable` has said so.
fn swap_is_optional(settings: &mut Settings, wanted: &Resources, sum: u64) {
    if let Some(last) = settings.all.last_mut() {
        last.optional = sum == u64::MAX || !values::limits_swap(wanted);
    }
}

fn quota(wanted: &Resources) -> Option<u64> {
    wanted.further.cpu_quota_usec.or(wanted.cpu_millis.map(values::cpu_quota_usec))
}

fn cpuset(settings: &mut Settings, wanted: &Resources) {
    for (file, list) in [("cpuset.cpus", &wanted.cpuset_cpus), ("cpuset.mems", &wanted.further.cpuset_mems)] {
        if let Some(list) = list {
            settings.text(Controller::Cpuset, file, list);
        }
    }
}

fn io_v1(settings: &mut Settings, wanted: &Resources) {
    let further = &wanted.further;
    if let Some(weight) = further.io_weight {
        settings.text(Controller::Io, "blkio.bfq.weight", weight.to_string());
        settings.or("blkio.weight", weight.to_string());
    }
    for (device, weight) in &further.io_weight_devices {
        let value = format!("{} {weight}", numbers(*device));
        settings.text(Controller::Io, "blkio.bfq.weight_device", &value);
        settings.or("blkio.weight_device", value);
    }
    for (device, rate, limit) in &further.io_throttle {
        let file = match rate {
            Rate::ReadBytes => "blkio.throttle.read_bps_device",
            Rate::WriteBytes => "blkio.throttle.write_bps_device",
            Rate::Reads => "blkio.throttle.read_iops_device",
            Rate::Writes => "blkio.throttle.write_iops_device",
        };
        // Zero takes the limit away.
        let limit = if *limit == u64::MAX { 0 } else { *limit };
        settings.text(Controller::Io, file, format!("{} {limit}", numbers(*device)));
    }
}

fn rdma(settings: &mut Settings, wanted: &Resources) {
    for (device, handles, objects) in &wanted.further.rdma {
        let limits = [("hca_handle", handles), ("hca_object", objects)];
        let limits = limits.iter().filter_map(|(name, value)| Some(format!(" {name}={}", value.as_ref()?)));
        settings.text(Controller::Rdma, "rdma.max", format!("{device}{}", limits.collect::<String>()));
    }
}

fn numbers(device: Device) -> String {
    format!("{}:{}", device.major, device.minor)
}

/// For the one tree. What exists on v1 only is refused before ([`refused`]).
pub(super) fn v2(wanted: &Resources) -> Vec<Setting> {
    let mut settings = Settings { all: Vec::new(), unlimited: "max" };
    let further = &wanted.further;
    settings.number(Controller::Memory, "memory.max", wanted.memory_bytes);
    if let Some(memory) = wanted.memory_bytes {
        // v2 limits swap alone, not the sum.
        let sum = wanted.memory_swap_bytes.unwrap_or(memory);
        let swap = if sum == u64::MAX { sum } else { sum.saturating_sub(memory) };
        settings.number(Controller::Memory, "memory.swap.max", Some(swap));
        swap_is_optional(&mut settings, wanted, sum);
    }
    settings.number(Controller::Memory, "memory.low", further.memory_reservation_bytes);
    settings.number(Controller::Memory, "memory.oom.group", further.oom_group.map(u64::from));
    if quota(wanted).is_some() || further.cpu_period_usec.is_some() {
        let period = further.cpu_period_usec.unwrap_or(values::CPU_PERIOD_USEC);
        let quota = settings.limit(quota(wanted).unwrap_or(u64::MAX));
        settings.text(Controller::Cpu, "cpu.max", format!("{quota} {period}"));
    }
    settings.number(Controller::Cpu, "cpu.max.burst", further.cpu_burst_usec);
    settings.number(Controller::Cpu, "cpu.weight", wanted.cpu_shares.map(values::cpu_weight));
    settings.number(Controller::Cpu, "cpu.idle", further.cpu_idle.map(u64::from));
    cpuset(&mut settings, wanted);
    settings.number(Controller::Pids, "pids.max", wanted.pids);
    io_v2(&mut settings, wanted);
    for (size, bytes) in &further.hugepages {
        settings.number(Controller::Hugetlb, &format!("hugetlb.{size}.max"), Some(*bytes));
    }
    rdma(&mut settings, wanted);
    for (file, value) in &further.unified {
        let prefix = file.split('.').next().unwrap_or_default();
        if let Some(controller) = Controller::of_v2_file(prefix) {
            settings.text(controller, file, value);
        }
    }
    settings.all
}

/// `bfq` takes the scale of v1; the weight of `io.cost` begins at 1 and ends at 10000.
fn io_v2(settings: &mut Settings, wanted: &Resources) {
    let further = &wanted.further;
    if let Some(weight) = further.io_weight {
        settings.text(Controller::Io, "io.bfq.weight", weight.to_string());
        settings.or("io.weight", values::io_weight(weight).to_string());
    }
    for (device, weight) in &further.io_weight_devices {
        let device = numbers(*device);
        settings.text(Controller::Io, "io.bfq.weight", format!("{device} {weight}"));
        settings.or("io.weight", format!("{device} {}", values::io_weight(*weight)));
    }
    for (device, rate, limit) in &further.io_throttle {
        let key = match rate {
            Rate::ReadBytes => "rbps",
            Rate::WriteBytes => "wbps",
            Rate::Reads => "riops",
            Rate::Writes => "wiops",
        };
        settings.text(Controller::Io, "io.max", format!("{} {key}={}", numbers(*device), settings.limit(*limit)));
    }
}

/// A sentence for each limit that this version of cgroups does not have.
pub(super) fn refused(wanted: &Resources, is_v2: bool) -> Vec<String> {
    let further = &wanted.further;
    let only_v1 = [
        ("swappiness", further.memory_swappiness.is_some(), "the machine's own (vm.swappiness) holds for all"),
        (
            "disabling the OOM killer",
            further.oom_killer_disabled,
            "use memory.high in `unified` to slow it down instead",
        ),
        (
            "CPU time for real-time threads",
            further.cpu_realtime_runtime_usec.is_some() || further.cpu_realtime_period_usec.is_some(),
            "use a scheduling policy",
        ),
        ("a network class", further.network_class.is_some(), "let the firewall match the cgroup's path"),
        ("network priorities", !further.network_priorities.is_empty(), "let the firewall match the cgroup's path"),
    ];
    let only_v2 = [
        ("`unified`", !further.unified.is_empty(), "name the limit by its own field"),
        ("killing a group as one", further.oom_group.is_some(), "a container's first process takes the others with it"),
    ];
    let (other, asked) = if is_v2 { ("v1", &only_v1[..]) } else { ("v2", &only_v2[..]) };
    let asked = asked.iter().filter(|(_, asked, _)| *asked);
    asked
        .map(|(what, _, next)| format!("{what} exists on cgroup {other} only, and here is the other one; {next}"))
        .collect()
}

#[cfg(test)]
mod tests;
