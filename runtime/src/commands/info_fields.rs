//! Fields of `info` that scripts ask for: what of the machine can be limited, and what Docker tells of itself.

use std::fs;

use linux_exec::cgroup::{Cgroups, Further, Resources};
use serde_json::{Value, json};

use crate::output;

/// Fields of Docker's beside those of `info` itself.
pub(super) fn fields(cgroups: &Cgroups) -> Value {
    let can = |wanted: Resources| cgroups.unenforceable(&wanted).is_empty();
    let can_further = |further: Further| can(Resources { further, ..Resources::default() });
    const BYTES: u64 = 64 << 20;
    let memory = Resources { memory_bytes: Some(BYTES), ..Resources::default() };
    let swap = Resources { memory_swap_bytes: Some(2 * BYTES), ..memory.clone() };
    let limits = json!({
        "MemoryLimit": can(memory),
        "SwapLimit": can(swap),
        "CPUShares": can(Resources { cpu_shares: Some(1024), ..Resources::default() }),
        "CpuCfsPeriod": can_further(Further { cpu_period_usec: Some(100_000), ..Further::default() }),
        "CpuCfsQuota": can_further(Further { cpu_quota_usec: Some(100_000), ..Further::default() }),
        "CPUSet": can(Resources { cpuset_cpus: Some("0".to_owned()), ..Resources::default() }),
        "PidsLimit": can(Resources { pids: Some(1000), ..Resources::default() }),
        "OomKillDisable": can_further(Further { oom_killer_disabled: true, ..Further::default() }),
    });
    let registry = json!({ "Name": "docker.io", "Mirrors": [], "Secure": true, "Official": true });
    let mut fields = json!({
        "OSVersion": os_release("VERSION_ID").unwrap_or_default(),
        "Isolation": "",
        "InitBinary": "amphora",
        "ProductLicense": "",
        "IPv4Forwarding": is_set("/proc/sys/net/ipv4/ip_forward"),
        "BridgeNfIptables": is_set("/proc/sys/net/bridge/bridge-nf-call-iptables"),
        "BridgeNfIp6tables": is_set("/proc/sys/net/bridge/bridge-nf-call-ip6tables"),
        "SystemTime": output::rfc3339(output::now_nanos()),
        "RegistryConfig": {
            "IndexConfigs": { "docker.io": registry }, "InsecureRegistryCIDRs": ["127.0.0.0/8"], "Mirrors": [],
        },
        "DefaultAddressPools": [],
        "GenericResources": [],
        "CDISpecDirs": super::devices::FOLDERS,
        "Warnings": [],
        "Plugins": {
            "Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": null,
            "Log": ["journald", "json-file", "local", "none"],
        },
    });
    if let (Some(fields), Value::Object(limits)) = (fields.as_object_mut(), limits) {
        fields.extend(limits);
    }
    fields
}

/// A field of os-release(5).
pub(super) fn os_release(name: &str) -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

/// Whether a setting of the kernel's is on; one that is not there is not.
fn is_set(path: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() != "0")
}
