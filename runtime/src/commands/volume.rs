//! `volume`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use images::store::tree_size;
use serde_json::{Value, json};

use super::{confirmed, each, inspect, print, removed::Removed, view};
use crate::{
    cli::{Filters, VolumeCommand, VolumeCreateArgs, VolumeInspectArgs, VolumeLsArgs, VolumePruneArgs, VolumeRmArgs},
    output::{self, Column},
    records::{
        events::{Event, Subject},
        host::Host,
        volumes::Volume,
    },
    spec::names,
};

const COLUMNS: [Column; 2] =
    [Column { header: "DRIVER", field: "Driver" }, Column { header: "VOLUME NAME", field: "Name" }];

/// What a template may name besides.
const MORE_COLUMNS: [Column; 9] = [
    Column { header: "MOUNTPOINT", field: "Mountpoint" },
    Column { header: "CREATED AT", field: "CreatedAt" },
    Column { header: "SCOPE", field: "Scope" },
    Column { header: "LABELS", field: "Labels" },
    Column { header: "LINKS", field: "Links" },
    Column { header: "SIZE", field: "Size" },
    Column { header: "GROUP", field: "Group" },
    Column { header: "AVAILABILITY", field: "Availability" },
    Column { header: "STATUS", field: "Status" },
];

/// `amphora volume`.
pub(crate) fn volume(host: &Host, command: &VolumeCommand) -> Result<u8> {
    match command {
        VolumeCommand::Create(args) => create(host, args),
        VolumeCommand::Inspect(args) => inspect_volumes(host, args),
        VolumeCommand::Ls(args) => ls(host, args),
        VolumeCommand::Prune(args) => prune(host, args),
        VolumeCommand::Rm(args) => rm(host, args),
    }
}

/// As with Docker, one that is there already is as good as a new one.
fn create(host: &Host, args: &VolumeCreateArgs) -> Result<u8> {
    let name = match &args.name {
        Some(name) => names::validate("volume name", name).map(|()| name.clone())?,
        None => names::new_id()?,
    };
    if host.volumes.make_labelled(&name, &labels(&args.label))? {
        happened(host, "create", &name);
    }
    output::say(&name)?;
    Ok(0)
}

/// `NAME=VALUE`, or `NAME` for an empty value.
fn labels(typed: &[String]) -> BTreeMap<String, String> {
    let pair = |text: &String| {
        text.split_once('=').map_or((text.clone(), String::new()), |(name, value)| (name.to_owned(), value.to_owned()))
    };
    typed.iter().map(pair).collect()
}

fn inspect_volumes(host: &Host, args: &VolumeInspectArgs) -> Result<u8> {
    inspect::show(&args.volumes, args.format.as_deref(), |name| details(host, name)?.with_context(|| no_such(name)))
}

/// `inspect` of a volume, if it is there.
pub(super) fn details(host: &Host, name: &str) -> Result<Option<Value>> {
    let Some(volume) = host.volumes.find(name)? else { return Ok(None) };
    Ok(Some(json!({
        "Name": volume.name,
        "Driver": "local",
        "Scope": "local",
        "Mountpoint": host.volumes.data(&volume.name),
        "CreatedAt": output::rfc3339_seconds(volume.created_unix_nanos),
        "Labels": Some(volume.labels).filter(|labels| !labels.is_empty()),
        "Options": null,
    })))
}

/// What is said where there is none of this name.
pub(super) fn no_such(name: &str) -> String {
    format!("no such volume: {name} (amphora volume ls lists them)")
}

fn ls(host: &Host, args: &VolumeLsArgs) -> Result<u8> {
    let filters = Filters::parse(&args.filter, &["dangling", "driver", "label", "name"])?;
    let used = host.volumes_in_use()?;
    let shown = |volume: &Volume| {
        filters.any("name", |part| volume.name.contains(part))
            && filters.any("driver", |driver| driver == "local")
            && filters.any("dangling", |wanted| (wanted == "true" || wanted == "1") != used.contains_key(&volume.name))
            && filters.labels(|name| volume.labels.get(name).cloned())
    };
    let rows: Vec<output::Row> =
        host.volumes.list()?.into_iter().filter(shown).map(|volume| row(host, volume)).collect();
    let format = if args.quiet { Some("{{.Name}}") } else { args.format.as_deref() };
    let headers = [COLUMNS.as_slice(), &MORE_COLUMNS].concat();
    print(&output::list(format, &COLUMNS, &headers, &rows)?)
}

fn prune(host: &Host, args: &VolumePruneArgs) -> Result<u8> {
    let filters = Filters::parse(&args.filter, &["label", "label!"])?;
    let which = if args.all { "all volumes" } else { "the volumes without a name of their own" };
    if !args.force && !confirmed(&format!("{which} that no container has"), "volume prune -f")? {
        return Ok(1);
    }
    remove_unused(host, args.all, &filters)?.end()
}

/// Those that no container has; of those with a name of their own only where `all` are meant.
pub(super) fn remove_unused(host: &Host, all: bool, filters: &Filters) -> Result<Removed> {
    let used = host.volumes_in_use()?;
    let mut removed = Removed::of("Volumes");
    for volume in host.volumes.list()? {
        let wanted = all || names::is_id(&volume.name);
        let is_used = used.contains_key(&volume.name) || host.volumes.is_held(&volume.name)?;
        if !wanted || is_used || !filters.labels(|name| volume.labels.get(name).cloned()) {
            continue;
        }
        let size = tree_size(&host.volumes.data(&volume.name));
        if host.volumes.remove(&volume.name)? {
            happened(host, "destroy", &volume.name);
            removed.say(&volume.name, size)?;
        }
    }
    Ok(removed)
}

fn rm(host: &Host, args: &VolumeRmArgs) -> Result<u8> {
    let used = host.volumes_in_use()?;
    each(&args.volumes, |name| {
        let was_there = host.volumes.remove_unused(name, &used)?;
        if !was_there && !args.force {
            anyhow::bail!(no_such(name));
        }
        if was_there {
            happened(host, "destroy", name);
        }
        output::say(name)
    })
}

fn happened(host: &Host, action: &str, name: &str) {
    host.events.note(&[Event::new(Subject::Volume, action, name).with("driver", "local")]);
}

fn row(host: &Host, volume: Volume) -> output::Row {
    let fields = json!({
        "Name": volume.name,
        "Driver": "local",
        "Scope": "local",
        "Mountpoint": host.volumes.data(&volume.name),
        "CreatedAt": output::rfc3339(volume.created_unix_nanos),
        "Labels": view::label_list(volume.labels.iter()),
        "Links": "N/A",
        "Size": "N/A",
        "Group": "N/A",
        "Availability": "N/A",
        "Status": "N/A",
    });
    output::Row { fields, labels: volume.labels }
}
