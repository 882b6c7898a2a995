//! Containers and images as lists, `inspect` and `--format` show them: Docker's field names, plus our own.

use std::path::PathBuf;

use anyhow::Result;
use images::{Image, Reference, Selection, store::Damaged};
use serde_json::{Map, Value, json};

use super::host_config::host_config;
use crate::{
    output::{self, Row},
    records::{
        container::{Container, Ended, HealthStatus, LimitHit, Running, Status, Unreadable},
        host::Host,
    },
    spec::{
        Network, RunSpec,
        mounts::{MountKind, MountSpec},
        ports::PublishedPort,
        signals,
    },
};

/// One line of `ps`. `sized`: how much it has written is to be looked up.
pub(crate) fn container_row(
    host: &Host,
    container: &Container,
    status: &Result<Status>,
    ports: &str,
    no_trunc: bool,
    sized: bool,
) -> Row {
    let spec = &container.spec;
    let fields = json!({
        "ID": shortened(&spec.id, 12, no_trunc),
        "Image": spec.image.name,
        "Kind": spec.image.kind.to_string(),
        "Command": format!("\"{}\"", ellipsis(&command_line(&spec.argv), 20, no_trunc)),
        "CreatedAt": output::civil_utc(spec.created_unix_nanos),
        "RunningFor": ago(spec.created_unix_nanos),
        "State": status_word(status),
        "Status": status.as_ref().map_or_else(|_| "Unknown".to_owned(), |status| status_of(container, status)),
        "Names": spec.name,
        "Labels": label_list(spec.labels.iter()),
        "LocalVolumes": spec.volumes().count().to_string(),
        "Mounts": spec.mounts.iter().filter_map(|mount| mounted(mount, no_trunc)).collect::<Vec<_>>().join(","),
        "Networks": network_name(&spec.network),
        "Platform": spec.image.kind.platform(),
        "Ports": ports,
        "Size": if sized { container_size(host, container) } else { "N/A".to_owned() },
    });
    Row { fields, labels: spec.labels.clone() }
}

/// Arguments with spaces are in quotes.
fn command_line(argv: &[String]) -> String {
    let quoted = |word: &String| if word.contains(' ') { format!("'{word}'") } else { word.clone() };
    argv.iter().take(1).cloned().chain(argv.iter().skip(1).map(quoted)).collect::<Vec<_>>().join(" ")
}

/// `a=b,c=d`.
pub(crate) fn label_list<'a>(labels: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    labels.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

/// What is mounted, as `ps` names it. Memory has no name.
fn mounted(mount: &MountSpec, no_trunc: bool) -> Option<String> {
    match &mount.kind {
        MountKind::Bind { source, .. } => Some(ellipsis(&source.display().to_string(), 15, no_trunc)),
        MountKind::Volume { name, .. } => Some(ellipsis(name.as_deref().unwrap_or_default(), 15, no_trunc)),
        MountKind::Image { name, .. } => Some(ellipsis(name, 15, no_trunc)),
        MountKind::Tmpfs { .. } => None,
    }
}

/// `12B (virtual 5.1MB)`: what it has written, and together with its image.
fn container_size(host: &Host, container: &Container) -> String {
    let written = container.written_bytes();
    let whole = written + image_of(host, &container.spec).map_or(0, |image| host.store.unpacked_size(&image));
    format!("{} (virtual {})", output::size(written), output::size(whole))
}

/// The image that a container was made from.
fn image_of(host: &Host, spec: &RunSpec) -> Option<Image> {
    host.store.resolve(&spec.image.digest, &Selection::default()).ok().flatten()
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
        "LocalVolumes": "",
        "Mounts": "",
        "Networks": "",
        "Platform": unknown,
        "Ports": "",
        "Size": "N/A",
    })
}

fn up_since(running: &Running) -> String {
    format!("Up {}", ago(running.started_unix_nanos).trim_end_matches(" ago"))
}

/// With its health, while it runs.
fn status_of(container: &Container, status: &Status) -> String {
    let text = status_text(status);
    if !matches!(status, Status::Running(running) if !running.paused) {
        return text;
    }
    match container.health().map(|found| found.map(|found| found.status)) {
        Ok(None) => text,
        Ok(Some(HealthStatus::Starting)) => format!("{text} (health: starting)"),
        Ok(Some(health)) => format!("{text} ({})", health.name()),
        Err(_) => format!("{text} (health: unknown)"),
    }
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

pub(crate) fn ago(moment_nanos: i64) -> String {
    output::age(moment_nanos, output::now_nanos())
}

/// Names of the networks, as a list.
pub(crate) fn network_name(network: &Network) -> String {
    match network {
        Network::Joined(endpoints) => {
            endpoints.iter().map(|endpoint| endpoint.network.as_str()).collect::<Vec<_>>().join(",")
        }
        // As with Docker: the networks are the other container's.
        Network::Container(_) => String::new(),
        other => other.mode(),
    }
}

/// One line of `images`. An image without a name shows `<none>`.
pub(crate) fn image_row(host: &Host, image: &Image, no_trunc: bool) -> Row {
    let none = || "<none>".to_owned();
    let created = image.created.as_deref().and_then(output::parse_rfc3339);
    let size = host.store.unpacked_size(image);
    let fields = json!({
        "Repository": image.reference.as_ref().map_or_else(none, |r| r.familiar_repository()),
        "Tag": image.reference.as_ref().and_then(|r| r.tag.clone()).unwrap_or_else(none),
        "Digest": image.digest.to_string(),
        "Kind": image.classification.class.kind(),
        "ID": image_id(image, no_trunc),
        "CreatedSince": created.map_or_else(|| "N/A".to_owned(), ago),
        "CreatedAt": created.map_or_else(|| "N/A".to_owned(), output::civil_utc),
        "Size": output::size(size),
        "VirtualSize": output::size(size),
        "Containers": "N/A",
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
    });
    let labels = image.config.config().as_ref().and_then(|config| config.labels().clone()).unwrap_or_default();
    Row { fields, labels: labels.into_iter().collect() }
}

/// As lists show it.
pub(crate) fn image_id(image: &Image, no_trunc: bool) -> String {
    match no_trunc {
        true => image.digest.to_string(),
        false => image.digest.digest().chars().take(12).collect(),
    }
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
        "CreatedAt": "N/A",
        "Size": "N/A",
        "VirtualSize": "N/A",
        "Containers": "N/A",
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
    })
}

/// `inspect` of a container. `sized`: how large it is, too.
pub(crate) fn container_details(
    host: &Host,
    container: &Container,
    sized: bool,
    network_settings: &Value,
) -> Result<Value> {
    let (spec, status) = (&container.spec, container.status()?);
    let image = image_of(host, spec);
    let mut details = json!({
        "Id": spec.id,
        "Created": output::rfc3339(spec.created_unix_nanos),
        "Path": spec.argv.first(),
        "Args": spec.argv.get(1..).unwrap_or_default(),
        "State": state(container, &status)?,
        "RestartCount": restart_count(&status),
        "Image": spec.image.digest,
        "Kind": spec.image.kind.to_string(),
        "Name": format!("/{}", spec.name),
        "LogPath": existing(container.log_path()),
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "Driver": DRIVER,
        "Platform": spec.image.kind.platform(),
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null,
        "HostConfig": host_config(&container.spec),
        "GraphDriver": container_layers(host, container, image.as_ref()),
        "Mounts": spec.mounts.iter().filter_map(|one| mount(host, one)).collect::<Vec<_>>(),
        "Config": container_config(spec, image.as_ref()),
        "NetworkSettings": network_settings,
    });
    let workload = spec.image.workload.as_ref();
    let of_kind = workload.and_then(|workload| workload.behaviour().details(host, image.as_ref(), container));
    if let Some(details) = details.as_object_mut() {
        details.extend(of_kind.map(|(name, value)| (name.to_owned(), value)));
    }
    if sized && let Some(details) = details.as_object_mut() {
        let written = container.written_bytes();
        let whole = written + image.map_or(0, |image| host.store.unpacked_size(&image));
        details.extend([("SizeRw".to_owned(), written.into()), ("SizeRootFs".to_owned(), whole.into())]);
    }
    Ok(details)
}

/// What layers are put together by.
pub(crate) const DRIVER: &str = "overlay2";

pub(super) fn container_config(spec: &RunSpec, image: Option<&Image>) -> Value {
    let (entrypoint, command) = spec.argv.split_at(spec.entrypoint_words.min(spec.argv.len()));
    let words = |words: &[String]| if words.is_empty() { Value::Null } else { json!(words) };
    let of_image = image.and_then(|image| image.config.config().clone()).unwrap_or_default();
    let mut config = json!({
        "Hostname": spec.hostname,
        "Domainname": spec.domainname,
        "User": spec.user,
        "AttachStdin": false,
        "AttachStdout": false,
        "AttachStderr": false,
        "Env": environment(spec, of_image.env().as_deref().unwrap_or_default()),
        "Cmd": words(command),
        "Entrypoint": words(entrypoint),
        "Image": spec.image.name,
        "Volumes": set(of_image.volumes().clone()),
        "WorkingDir": spec.cwd,
        "OnBuild": null,
        "Labels": spec.labels,
        "Tty": spec.stdio.terminal,
        "OpenStdin": spec.stdio.interactive,
        "StdinOnce": spec.stdio.interactive,
        "StopSignal": signals::name(spec.stop_signal),
        "StopTimeout": spec.stop_timeout_ms.map(|millis| millis / 1000),
        "StopTimeoutMs": spec.stop_timeout_ms,
    });
    if let Some(health) = &spec.health {
        config["Healthcheck"] = json!(health.as_healthcheck());
    }
    let published = spec.ports.iter().map(PublishedPort::inside);
    let exposed: Vec<String> =
        of_image.exposed_ports().iter().flatten().chain(&spec.exposed).cloned().chain(published).collect();
    if !exposed.is_empty() {
        config["ExposedPorts"] = set(Some(exposed));
    }
    config
}

/// The user's, then the image's, as Docker has them; not what every container has.
fn environment<'a>(spec: &'a RunSpec, of_image: &[String]) -> Vec<&'a String> {
    let workload = spec.image.workload.as_ref();
    let defaults = workload.map(|workload| workload.behaviour().default_env(&spec.hostname)).unwrap_or_default();
    let terminal = spec.stdio.terminal.then(|| "TERM=xterm".to_owned());
    let is_set = |entry: &&String| !defaults.contains(entry) && terminal.as_ref() != Some(*entry);
    let (images, mut users): (Vec<&String>, Vec<&String>) = spec.env.iter().partition(|entry| of_image.contains(entry));
    users.retain(is_set);
    users.extend(images);
    users
}

/// Go's set: a map of names to nothing.
fn set(names: Option<Vec<String>>) -> Value {
    names.map_or(Value::Null, |names| names.into_iter().map(|name| (name, json!({}))).collect::<Map<_, _>>().into())
}

/// Where the layers lie. A container's root has a path only while it runs.
fn container_layers(host: &Host, container: &Container, image: Option<&Image>) -> Value {
    let lower = image.map(|image| layer_paths(host, image)).unwrap_or_default();
    let merged = match container.status() {
        Ok(Status::Running(running)) => format!("/proc/{}/root", running.pid),
        _ => String::new(),
    };
    let upper = container.upper_path();
    json!({ "Name": DRIVER, "Data": {
        "LowerDir": lower.join(":"),
        "UpperDir": upper,
        "WorkDir": upper.with_file_name("work"),
        "MergedDir": merged,
    } })
}

/// Topmost first, as overlayfs is told them.
fn layer_paths(host: &Host, image: &Image) -> Vec<String> {
    let digests = image.config.rootfs().diff_ids().iter().rev().filter_map(|diff_id| diff_id.parse().ok());
    digests.map(|digest| host.store.layer_dir(&digest).display().to_string()).collect()
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    path.exists().then_some(path)
}

fn restart_count(status: &Status) -> u32 {
    match status {
        Status::Created | Status::OutOfReach => 0,
        Status::Running(running) | Status::Restarting(running, _) => running.restart_count,
        Status::Stopped(ended) => ended.restart_count,
    }
}

fn state(container: &Container, status: &Status) -> Result<Value> {
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
    let mut state = json!({
        "Status": status.word(),
        "Running": status.is_up(),
        "Restarting": matches!(status, Status::Restarting(..)),
        "Paused": matches!(status, Status::Running(running) if running.paused),
        "Dead": false,
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
    });
    // As with Docker, it is not there where there is no check.
    if let Some(found) = container.health()? {
        let checks = found.checks.iter().map(|check| {
            json!({
                "Start": output::rfc3339(check.started_unix_nanos),
                "End": output::rfc3339(check.finished_unix_nanos),
                "ExitCode": check.exit_code,
                "Output": check.output,
            })
        });
        state["Health"] = json!({
            "Status": found.status.name(),
            "FailingStreak": found.failed,
            "Log": checks.collect::<Vec<_>>(),
        });
    }
    Ok(state)
}

/// As with Docker, memory stands elsewhere: see [`tmpfs`].
fn mount(host: &Host, mount: &MountSpec) -> Option<Value> {
    let common = |kind: &str, source: String, propagation: &str| {
        json!({
            "Type": kind,
            "Source": source,
            "Destination": mount.target,
            "Mode": if mount.readonly { "ro" } else { "" },
            "RW": !mount.readonly,
            "Propagation": propagation,
        })
    };
    match &mount.kind {
        MountKind::Bind { source, propagation, .. } => {
            Some(common("bind", source.display().to_string(), &propagation.to_string()))
        }
        MountKind::Tmpfs { .. } => None,
        MountKind::Image { name, .. } => Some(common("image", name.clone(), "")),
        MountKind::Volume { name, .. } => {
            let name = name.as_deref().unwrap_or_default();
            let mut described = common("volume", host.volumes.data(name).display().to_string(), "");
            if let Some(described) = described.as_object_mut() {
                described.extend([("Name".to_owned(), name.into()), ("Driver".to_owned(), "local".into())]);
            }
            Some(described)
        }
    }
}

/// What was said of the image when it was made.
pub(crate) fn comment(image: &Image) -> &str {
    let last = image.config.history().as_ref().and_then(|history| history.last());
    last.and_then(|entry| entry.comment().as_deref()).unwrap_or_default()
}

fn shortened(text: &str, length: usize, whole: bool) -> &str {
    if whole { text } else { text.get(..length).unwrap_or(text) }
}

pub(crate) fn ellipsis(text: &str, length: usize, whole: bool) -> String {
    if whole || text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length - 1).chain(['…']).collect()
}
