//! `HostConfig` of `inspect`: what was asked for beside the program itself, by Docker's names.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::network;
use crate::spec::{
    RunSpec, Security,
    devices::DeviceSpec,
    limits::{Limits, Throttle, ThrottleRate},
    mounts::{MountKind, MountSpec},
    names,
    network::NameService,
};

/// What is in force, said or not: no log grows without end.
fn log_options(spec: &RunSpec) -> Value {
    json!({ "max-size": spec.log.max_bytes.to_string(), "max-file": spec.log.max_files.to_string() })
}

/// `HostConfig` of `inspect`.
pub(super) fn host_config(spec: &RunSpec) -> Value {
    let Limits {
        memory_bytes,
        memory_swap_bytes,
        cpu_millis,
        cpu_shares,
        cpuset_cpus,
        pids,
        ulimits,
        timeout_ms,
        fuel,
        memory_reservation_bytes,
        cpuset_mems,
        cpu_period_usec,
        cpu_quota_usec,
        blkio_weight,
        throttles,
        rare,
    } = &spec.limits;
    let mut config = docker_defaults();
    let ours = json!({
        "Binds": binds(spec),
        "Tmpfs": tmpfs(spec),
        "Memory": memory_bytes.unwrap_or(0),
        "MemorySwap": memory_swap_bytes.unwrap_or(0),
        "NanoCpus": cpu_millis.unwrap_or(0) * 1_000_000,
        "CpuShares": cpu_shares.unwrap_or(0),
        "CpusetCpus": cpuset_cpus.as_deref().unwrap_or(""),
        "PidsLimit": pids,
        "MemoryReservation": memory_reservation_bytes.unwrap_or(0),
        "CpusetMems": cpuset_mems.as_deref().unwrap_or(""),
        "CpuPeriod": cpu_period_usec.unwrap_or(0),
        "CpuQuota": cpu_quota_usec.unwrap_or(0),
        "BlkioWeight": blkio_weight.unwrap_or(0),
        "LogConfig": { "Type": spec.log.name(), "Config": log_options(spec) },
        "ShmSize": spec.further.shm_bytes.unwrap_or(64 << 20),
        "OomScoreAdj": spec.further.oom_score_adj.unwrap_or(0),
        "IpcMode": spec.further.ipc.to_string(),
        "UTSMode": if spec.further.host_uts { "host" } else { "" },
        "CgroupnsMode": if spec.further.host_cgroup { "host" } else { "private" },
        "RestartPolicy": { "Name": spec.restart.name(), "MaximumRetryCount": spec.restart.most() },
        "Ulimits": ulimits.iter().map(|u| json!({"Name": u.name, "Soft": u.soft, "Hard": u.hard})).collect::<Vec<_>>(),
        "TimeoutMs": timeout_ms,
        "Fuel": fuel,
        "NetworkMode": spec.network.mode(),
        "AutoRemove": spec.auto_remove,
        "Init": spec.init,
        "ReadonlyRootfs": spec.read_only,
        "Privileged": spec.security.privileged,
        "CapAdd": spec.security.cap_add,
        "CapDrop": spec.security.cap_drop,
        "SecurityOpt": security_options(&spec.security),
    });
    // In two parts, as the macro takes no more at once.
    let more = json!({
        "BlkioDeviceReadBps": rates(throttles, ThrottleRate::ReadBps),
        "BlkioDeviceWriteBps": rates(throttles, ThrottleRate::WriteBps),
        "BlkioDeviceReadIOps": rates(throttles, ThrottleRate::ReadIops),
        "BlkioDeviceWriteIOps": rates(throttles, ThrottleRate::WriteIops),
        "CgroupParent": spec.further.cgroup_parent.as_deref().unwrap_or_default(),
        "DeviceCgroupRules": Some(&spec.further.device_rules).filter(|rules| !rules.is_empty()),
        "BlkioWeightDevice": rare
            .blkio_weight_devices
            .iter()
            .map(|(path, weight)| json!({ "Path": path, "Weight": weight }))
            .collect::<Vec<_>>(),
        "MemorySwappiness": rare.memory_swappiness,
        "OomKillDisable": rare.oom_kill_disable,
        "CpuRealtimePeriod": rare.cpu_rt_period_usec.unwrap_or(0),
        "CpuRealtimeRuntime": rare.cpu_rt_runtime_usec.unwrap_or(0),
        "PortBindings": network::port_bindings(&spec.ports),
        "Dns": spec.names.servers,
        "DnsOptions": spec.names.options,
        "DnsSearch": spec.names.search,
        "ExtraHosts": extra_hosts(&spec.names),
        "Devices": spec.further.devices.iter().map(device).collect::<Vec<_>>(),
        "PidMode": Some(&spec.further.pid).filter(|pid| !pid.is_own()).map_or_else(String::new, ToString::to_string),
        "UsernsMode": if spec.further.host_user { "host" } else { "" },
        "Annotations": spec.further.annotations,
        "GroupAdd": spec.further.group_add,
        "Sysctls": spec.further.sysctls.iter().cloned().collect::<BTreeMap<_, _>>(),
    });
    for part in [ours, more] {
        if let (Value::Object(config), Value::Object(part)) = (&mut config, part) {
            config.extend(part);
        }
    }
    config
}

/// What Docker tells of every container, where this one has nothing else.
fn docker_defaults() -> Value {
    json!({
        "ContainerIDFile": "",
        "VolumeDriver": "", "VolumesFrom": null,
        "Cgroup": "", "Links": null, "PublishAllPorts": false,
        "Runtime": "amphora", "Isolation": "",
        "DeviceRequests": null,
    })
}

fn device(device: &DeviceSpec) -> Value {
    json!({ "PathOnHost": device.path, "PathInContainer": device.target, "CgroupPermissions": device.uses })
}

/// `-v`, as it could be typed.
fn binds(spec: &RunSpec) -> Value {
    let bind = |mount: &MountSpec| {
        let source = match &mount.kind {
            MountKind::Bind { source, .. } => source.display().to_string(),
            MountKind::Volume { name: Some(name), .. } if !names::is_id(name) => name.clone(),
            MountKind::Volume { .. } | MountKind::Tmpfs { .. } | MountKind::Image { .. } => return None,
        };
        let passes = match &mount.kind {
            MountKind::Bind { propagation, .. } if !propagation.is_private() => Some(propagation.to_string()),
            _ => None,
        };
        let options: Vec<String> = mount.readonly.then(|| "ro".to_owned()).into_iter().chain(passes).collect();
        let options = if options.is_empty() { String::new() } else { format!(":{}", options.join(",")) };
        Some(format!("{source}:{}{options}", mount.target.display()))
    };
    match spec.mounts.iter().filter_map(bind).collect::<Vec<_>>() {
        none if none.is_empty() => Value::Null,
        binds => json!(binds),
    }
}

fn tmpfs(spec: &RunSpec) -> Value {
    let options = |mount: &MountSpec| match &mount.kind {
        MountKind::Tmpfs { size_bytes, mode, exec, owner } => {
            let size = size_bytes.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
            let exec = if *exec { ",exec" } else { "" };
            let owner = owner.map(|(uid, gid)| format!(",uid={uid},gid={gid}")).unwrap_or_default();
            Some((mount.target.display().to_string(), format!("mode={mode:o}{size}{exec}{owner}").into()))
        }
        MountKind::Bind { .. } | MountKind::Volume { .. } | MountKind::Image { .. } => None,
    };
    spec.mounts.iter().filter_map(options).collect::<Map<_, _>>().into()
}

fn security_options(security: &Security) -> Value {
    let options = [
        security.seccomp_unconfined.then_some("seccomp=unconfined"),
        security.seccomp_profile.is_some().then_some("seccomp=profile"),
        security.new_privileges_allowed.then_some("no-new-privileges=false"),
    ];
    match options.into_iter().flatten().collect::<Vec<_>>() {
        none if none.is_empty() => Value::Null,
        options => json!(options),
    }
}

fn extra_hosts(names: &NameService) -> Value {
    let host = |(name, ip): &(String, Option<std::net::IpAddr>)| {
        format!("{name}:{}", ip.map_or_else(|| "host-gateway".to_owned(), |ip| ip.to_string()))
    };
    match names.hosts.as_slice() {
        [] => Value::Null,
        hosts => hosts.iter().map(host).collect::<Vec<_>>().into(),
    }
}

fn rates(throttles: &[Throttle], rate: ThrottleRate) -> Value {
    let of_it = throttles.iter().filter(|throttle| throttle.rate == rate);
    match of_it.map(|throttle| json!({ "Path": throttle.path, "Rate": throttle.limit })).collect::<Vec<_>>() {
        none if none.is_empty() => Value::Null,
        rates => rates.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_is_shown() {
        let text = r#"{"id":"1","name":"web","image":{"name":"bb","digest":"sha256:x","kind":"linux"},"argv":["sh"],
            "ports":[{"host_ip":"127.0.0.1","host_port":{"fixed":8080},"container_port":80},{"host_port":"any","container_port":53,"protocol":"udp"}],
            "names":{"servers":["10.0.0.1"],"search":["a.b"],"options":[],"hosts":[["db","10.0.0.2"],["gw",null]]}}"#;
        let config = host_config(&serde_json::from_str(text).unwrap());
        assert_eq!(config["PortBindings"]["80/tcp"], json!([{"HostIp": "127.0.0.1", "HostPort": "8080"}]));
        assert_eq!(config["PortBindings"]["53/udp"], json!([{"HostIp": "", "HostPort": ""}]));
        assert_eq!((&config["Dns"], &config["DnsSearch"]), (&json!(["10.0.0.1"]), &json!(["a.b"])));
        assert_eq!(config["ExtraHosts"], json!(["db:10.0.0.2", "gw:host-gateway"]));
    }
}
