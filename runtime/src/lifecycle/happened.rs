//! What a container's life has to tell (`amphora events`), as Docker tells it.

use crate::{
    records::{
        container::Ended,
        events::{Event, Subject},
    },
    spec::{
        Network, RunSpec,
        mounts::{MountKind, MountSpec},
    },
};

/// It runs: with its volumes and, if it is connected to any, its networks.
pub(super) fn started(spec: &RunSpec, has_network: bool) -> Vec<Event> {
    let volumes = spec.mounts.iter().filter_map(|mount| of_volume(spec, mount, "mount"));
    let volumes = volumes.map(|(event, mount)| {
        event
            .with("destination", mount.target.to_string_lossy())
            .with("propagation", "")
            .with("read/write", (!mount.readonly).to_string())
    });
    let networks = networks(spec, has_network, "connect");
    networks.chain(volumes).chain([Event::of_container(spec, "start")]).collect()
}

/// It has ended.
pub(super) fn ended(spec: &RunSpec, ended: &Ended, had_network: bool) -> Vec<Event> {
    let out_of_memory = ended.oom_killed.then(|| Event::of_container(spec, "oom"));
    let seconds = (ended.finished_unix_nanos - ended.started_unix_nanos) / 1_000_000_000;
    let died = Event::of_container(spec, "die")
        .with("exitCode", ended.exit_code.to_string())
        .with("execDuration", seconds.to_string());
    let volumes = spec.mounts.iter().filter_map(|mount| of_volume(spec, mount, "unmount"));
    let volumes = volumes.map(|(event, _)| event);
    out_of_memory.into_iter().chain([died]).chain(networks(spec, had_network, "disconnect")).chain(volumes).collect()
}

/// It has ended, and is no more.
pub(super) fn ended_for_good(spec: &RunSpec, how: &Ended, had_network: bool) -> Vec<Event> {
    let mut events = ended(spec, how, had_network);
    events.push(Event::of_container(spec, "destroy"));
    events
}

/// Somebody sends it a signal.
pub(super) fn killed(spec: &RunSpec, signal: i32) -> Event {
    Event::of_container(spec, "kill").with("signal", signal.to_string())
}

/// It has another name. `before`: what it was until now.
pub(super) fn renamed(before: &RunSpec, name: &str) -> Event {
    let old = format!("/{}", before.name);
    Event::of_container(before, "rename").with("oldName", old).with("name", name)
}

fn of_volume<'a>(spec: &RunSpec, mount: &'a MountSpec, action: &str) -> Option<(Event, &'a MountSpec)> {
    let MountKind::Volume { name: Some(name), .. } = &mount.kind else { return None };
    let event = Event::new(Subject::Volume, action, name).with("driver", "local").with("container", &spec.id);
    Some((event, mount))
}

fn networks<'a>(spec: &'a RunSpec, has_any: bool, action: &'a str) -> impl Iterator<Item = Event> + 'a {
    let joined = match &spec.network {
        Network::Joined(endpoints) if has_any => endpoints.as_slice(),
        _ => &[],
    };
    joined.iter().map(move |endpoint| {
        Event::new(Subject::Network, action, &endpoint.network)
            .with("container", &spec.id)
            .with("name", &endpoint.network)
            .with("type", "bridge")
    })
}
