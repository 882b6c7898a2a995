//! Containers and images as lists, `inspect` and `--format` show them: Docker's field names, plus our own.

use std::path::PathBuf;

use anyhow::Result;
use images::{Image, Reference, store::Damaged};
use serde_json::{Value, json};

use crate::{
    output,
    records::container::{Container, Ended, LimitHit, Running, Status, Unreadable},
    spec::{
        Network,
        limits::Limits,
        mounts::{MountKind, MountSpec},
    },
};

/// One line of `ps`.
pub(crate) fn container_row(container: &Container, status: &Result<Status>, no_trunc: bool) -> Value {
    let spec = &container.spec;
    let labels: Vec<String> = spec.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    json!({
        "ID": shortened(&spec.id, 12, no_trunc),
        "Image": spec.image.name,
        "Kind": spec.image.kind.to_string(),
        "Command": format!("\"{}\"", ellipsis(&spec.argv.join(" "), 20, no_trunc)),
        "CreatedAt": output::civil_utc(spec.created_unix_nanos),
        "RunningFor": ago(spec.created_unix_nanos),
        "State": status_word(status),
        "Status": status.as_ref().map_or_else(|_| "Unknown".to_owned(), status_text),
        "Names": spec.name,
        "Labels": labels.join(","),
        "Mounts": spec.mounts.iter().map(|m| m.target.display().to_string()).collect::<Vec<_>>().join(","),
        "Networks": network_name(spec.network),
    })
}

/// One word for where a container is in its life, or for not knowing it.
pub(crate) fn status_word(status: &Result<Status>) -> &'static str {
    status.as_ref().map_or("unknown", Status::word)
}

/// One line of `ps` for a container of which little is known.
pub(crate) fn unreadable_row(container: &Unreadable, no_trunc: bool) -> Value {
    let (state, status) = match &container.running {
        Some(running) => ("running", format!("{} (record unreadable)", up_since(running))),
        None => ("unknown", "Record unreadable".to_owned()),
    };
    let unknown = "<unknown>";
    json!({
        "ID": shortened(&container.id, 12, no_trunc),
        "Image": unknown,
        "Kind": unknown,
        "Command": unknown,
        "CreatedAt": unknown,
        "RunningFor": unknown,
        "State": state,
        "Status": status,
        "Names": container.name.as_deref().unwrap_or_default(),
        "Labels": "",
        "Mounts": "",
        "Networks": "",
    })
}

fn up_since(running: &Running) -> String {
    format!("Up {}", ago(running.started_unix_nanos).trim_end_matches(" ago"))
}

fn status_text(status: &Status) -> String {
    match status {
        Status::Created => "Created".to_owned(),
        Status::Running(running) if running.paused => format!("{} (Paused)", up_since(running)),
        Status::Running(running) => up_since(running),
        Status::OutOfReach => "Up (out of reach)".to_owned(),
        Status::Restarting(_, ended) => format!("Restarting ({}) {}", ended.exit_code, ago(ended.finished_unix_nanos)),
        Status::Stopped(ended) => format!("Exited ({}) {}", ended.exit_code, ago(ended.finished_unix_nanos)),
    }
}

fn ago(moment_nanos: i64) -> String {
    output::age(moment_nanos, output::now_nanos())
}

fn network_name(network: Network) -> &'static str {
    match network {
        Network::None => "none",
        Network::Host => "host",
    }
}

/// One line of `images`. An image without a name shows `<none>`.
pub(crate) fn image_row(image: &Image, no_trunc: bool) -> Value {
    let none = || "<none>".to_owned();
    let created = image.created.as_deref().and_then(output::parse_rfc3339);
    json!({
        "Repository": image.reference.as_ref().map_or_else(none, |r| r.familiar_repository()),
        "Tag": image.reference.as_ref().and_then(|r| r.tag.clone()).unwrap_or_else(none),
        "Digest": image.digest.to_string(),
        "Kind": image.classification.class.kind(),
        "ID": match no_trunc {
            true => image.digest.to_string(),
            false => image.digest.digest().chars().take(12).collect(),
        },
        "CreatedSince": created.map_or_else(|| "N/A".to_owned(), ago),
        "CreatedAt": image.created.clone().unwrap_or_default(),
        "Size": output::size(image.size_bytes),
    })
}

/// The same for an entry that cannot be read; `system check` says why.
pub(crate) fn damaged_row(damaged: &Damaged) -> Value {
    let name = damaged.name.as_deref().and_then(|name| name.parse::<Reference>().ok());
    let none = || "<none>".to_owned();
    json!({
        "Repository": name.as_ref().map_or_else(none, Reference::familiar_repository),
        "Tag": name.as_ref().and_then(|name| name.tag.clone()).unwrap_or_else(none),
        "Digest": damaged.digest,
        "Kind": "damaged",
        "ID": damaged.digest.rsplit(':').next().unwrap_or_default().chars().take(12).collect::<String>(),
        "CreatedSince": "N/A",
        "CreatedAt": "",
        "Size": "N/A",
    })
}

/// `inspect` of a container.
pub(crate) fn container_details(container: &Container) -> Result<Value> {
    let (spec, status) = (&container.spec, container.status()?);
    Ok(json!({
        "Id": spec.id,
        "Created": output::rfc3339(spec.created_unix_nanos),
        "Path": spec.argv.first(),
        "Args": spec.argv.get(1..).unwrap_or_default(),
        "State": state(&status),
        "RestartCount": restart_count(&status),
        "Image": spec.image.digest,
        "Kind": spec.image.kind.to_string(),
        "Name": spec.name,
        "LogPath": existing(container.log_path()),
        "HostConfig": host_config(container),
        "Mounts": spec.mounts.iter().map(mount).collect::<Vec<_>>(),
        "Config": {
            "Hostname": spec.hostname,
            "User": spec.user,
            "Env": spec.env,
            "Cmd": spec.argv,
            "Image": spec.image.name,
            "WorkingDir": spec.cwd,
            "Labels": spec.labels,
            "Tty": spec.stdio.terminal,
            "OpenStdin": spec.stdio.interactive,
            "StopSignal": spec.stop_signal,
            "StopTimeoutMs": spec.stop_timeout_ms,
        },
        // Neither network gives a container an address of its own.
        "NetworkSettings": { "IPAddress": "", "Ports": {}, "Networks": { network_name(spec.network): { "IPAddress": "" } } },
    }))
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    path.exists().then_some(path)
}

fn host_config(container: &Container) -> Value {
    let spec = &container.spec;
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
        throttles: _,
    } = &spec.limits;
    json!({
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
        "RestartPolicy": { "Name": spec.restart.name(), "MaximumRetryCount": spec.restart.most() },
        "Ulimits": ulimits.iter().map(|u| json!({"Name": u.name, "Soft": u.soft, "Hard": u.hard})).collect::<Vec<_>>(),
        "TimeoutMs": timeout_ms,
        "Fuel": fuel,
        "NetworkMode": network_name(spec.network),
        "AutoRemove": spec.auto_remove,
        "Init": spec.init,
        "ReadonlyRootfs": spec.read_only,
        "Privileged": spec.security.privileged,
        "CapAdd": spec.security.cap_add,
        "CapDrop": spec.security.cap_drop,
    })
}

fn restart_count(status: &Status) -> u32 {
    match status {
        Status::Created | Status::OutOfReach => 0,
        Status::Running(running) | Status::Restarting(running, _) => running.restart_count,
        Status::Stopped(ended) => ended.restart_count,
    }
}

fn state(status: &Status) -> Value {
    let never = "0001-01-01T00:00:00Z".to_owned();
    let (pid, started, ended) = match status {
        Status::Created | Status::OutOfReach => (0, never.clone(), Ended::default()),
        Status::Running(running) => (running.pid, output::rfc3339(running.started_unix_nanos), Ended::default()),
        Status::Stopped(ended) | Status::Restarting(_, ended) => {
            (0, output::rfc3339(ended.started_unix_nanos), ended.clone())
        }
    };
    let finished = match status {
        Status::Stopped(ended) | Status::Restarting(_, ended) => output::rfc3339(ended.finished_unix_nanos),
        Status::Created | Status::Running(_) | Status::OutOfReach => never,
    };
    json!({
        "Status": status.word(),
        "Running": status.is_up(),
        "Restarting": matches!(status, Status::Restarting(..)),
        "Paused": matches!(status, Status::Running(running) if running.paused),
        "Pid": pid,
        "ExitCode": ended.exit_code,
        "OOMKilled": ended.oom_killed,
        "LimitHit": ended.limit_hit.map_or("", LimitHit::name),
        "Error": ended.error.unwrap_or_default(),
        "StartedAt": started,
        "FinishedAt": finished,
        "PeakMemoryBytes": ended.peak_memory_bytes,
        "CpuMicroseconds": ended.cpu_usec,
        "ForksRefused": ended.pids_refused,
        "FuelUsed": ended.fuel_used,
    })
}

fn mount(mount: &MountSpec) -> Value {
    let (kind, source) = match &mount.kind {
        MountKind::Bind { source, .. } => ("bind", source.display().to_string()),
        MountKind::Volume { name, .. } => ("volume", name.clone().unwrap_or_default()),
        MountKind::Tmpfs { .. } => ("tmpfs", String::new()),
    };
    json!({ "Type": kind, "Source": source, "Destination": mount.target, "RW": !mount.readonly })
}

/// `inspect` of an image.
pub(crate) fn image_details(image: &Image) -> Value {
    let config = image.config.config().as_ref();
    json!({
        "Id": image.digest.to_string(),
        "RepoTags": image.reference.as_ref().map(|r| r.familiar()).into_iter().collect::<Vec<_>>(),
        "Created": image.created,
        "Comment": comment(image),
        "Kind": image.classification.class.kind(),
        "Rule": image.classification.rule,
        "Os": image.config.os().to_string(),
        "Architecture": image.config.architecture().to_string(),
        "Size": image.size_bytes,
        "Config": config,
        "RootFS": { "Layers": image.config.rootfs().diff_ids() },
        "Labels": config.and_then(|c| c.labels().clone()),
    })
}

/// What was said of the image when it was made.
fn comment(image: &Image) -> &str {
    let last = image.config.history().as_ref().and_then(|history| history.last());
    last.and_then(|entry| entry.comment().as_deref()).unwrap_or_default()
}

fn shortened(text: &str, length: usize, whole: bool) -> &str {
    if whole { text } else { text.get(..length).unwrap_or(text) }
}

fn ellipsis(text: &str, length: usize, whole: bool) -> String {
    if whole || text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length - 1).chain(['…']).collect()
}
