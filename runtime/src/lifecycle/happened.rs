//! What a container's life has to tell (`amphora events`), as Docker tells it.

use crate::{
    network::Attached,
    records::{
        container::Ended,
        events::{Event, Subject},
    },
    spec::{
        RunSpec,
        mounts::{MountKind, MountSpec},
    },
};

/// It runs: with its volumes and, if it is connected to any, its networks.
pub(super) fn started(spec: &RunSpec, attached: Option<&Attached>) -> Vec<Event> {
    let volumes = spec.mounts.iter().filter_map(|mount| of_volume(spec, mount, "mount"));
    let volumes = volumes.map(|(event, mount)| {
        event
            .with("destination", mount.target.to_string_lossy())
            .with("propagation", "")
            .with("read/write", (!mount.readonly).to_string())
    });
    let networks = networks(spec, attached, "connect");
    networks.into_iter().chain(volumes).chain([Event::of_container(spec, "start")]).collect()
}

/// It has ended. `networks`: that it is no more on those on which it was.
pub(super) fn ended(spec: &RunSpec, ended: &Ended, networks: Vec<Event>) -> Vec<Event> {
    let out_of_memory = ended.oom_killed.then(|| Event::of_container(spec, "oom"));
    let seconds = (ended.finished_unix_nanos - ended.started_unix_nanos) / 1_000_000_000;
    let died = Event::of_container(spec, "die")
        .with("exitCode", ended.exit_code.to_string())
        .with("execDuration", seconds.to_string());
    let volumes = spec.mounts.iter().filter_map(|mount| of_volume(spec, mount, "unmount"));
    let volumes = volumes.map(|(event, _)| event);
    out_of_memory.into_iter().chain([died]).chain(networks).chain(volumes).collect()
}

/// It is no more.
pub(super) fn destroyed(spec: &RunSpec) -> Event {
    Event::of_container(spec, "destroy")
}

/// Somebody sends it a signal.
pub(super) fn killed(spec: &RunSpec, signal: i32) -> Event {
    Event::of_container(spec, "kill").with("signal", signal.to_string())
}

/// One more program runs in it.
pub(super) fn exec_began(spec: &RunSpec, id: &str, command: &[String]) -> [Event; 2] {
    // A line of the log is not as long as a command line can be.
    const MOST: usize = 4096;
    let mut words = command.join(" ");
    words.truncate(words.floor_char_boundary(MOST));
    ["exec_create", "exec_start"].map(|what| Event::of_container(spec, format!("{what}: {words}")).with("execID", id))
}

/// It has ended.
pub(super) fn exec_died(spec: &RunSpec, id: &str, code: u8) -> Event {
    Event::of_container(spec, "exec_die").with("execID", id).with("exitCode", code.to_string())
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

/// Of the networks on which it is now, whoever has changed them since it began.
pub(super) fn networks(spec: &RunSpec, attached: Option<&Attached>, action: &str) -> Vec<Event> {
    let joined = attached.into_iter().flat_map(Attached::leases).map(|(network, _)| network);
    joined.map(|network| Event::of_network(&network.id, &network.name, action).with("container", &spec.id)).collect()
}
