//! `volume`.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{confirmed, each, inspect, print};
use crate::{
    cli::{Filters, VolumeCommand, VolumeCreateArgs, VolumeInspectArgs, VolumeLsArgs, VolumePruneArgs, VolumeRmArgs},
    output::{self, Column},
    records::{host::Host, volumes::Volume},
    spec::names,
};

const COLUMNS: [Column; 2] =
    [Column { header: "DRIVER", field: "Driver" }, Column { header: "VOLUME NAME", field: "Name" }];

/// What a template may name besides.
const MORE_COLUMNS: [Column; 2] =
    [Column { header: "MOUNTPOINT", field: "Mountpoint" }, Column { header: "CREATED AT", field: "CreatedAt" }];

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
    host.volumes.make(&name)?;
    output::say(&name)?;
    Ok(0)
}

fn inspect_volumes(host: &Host, args: &VolumeInspectArgs) -> Result<u8> {
    inspect::show(&args.volumes, args.format.as_deref(), |name| {
        let volume = host.volumes.find(name)?;
        Ok(row(host, &volume.with_context(|| format!("no such volume: {name} (amphora volume ls lists them)"))?))
    })
}

fn ls(host: &Host, args: &VolumeLsArgs) -> Result<u8> {
    let filters = Filters::parse(&args.filter, &["name", "dangling"])?;
    let used = host.volumes_in_use()?;
    let shown = |volume: &Volume| {
        filters.any("name", |part| volume.name.contains(part))
            && filters.any("dangling", |wanted| (wanted == "true" || wanted == "1") != used.contains_key(&volume.name))
    };
    let rows: Vec<output::Row> =
        host.volumes.list()?.iter().filter(|volume| shown(volume)).map(|volume| row(host, volume).into()).collect();
    let format = if args.quiet { Some("{{.Name}}") } else { args.format.as_deref() };
    let headers = [COLUMNS.as_slice(), &MORE_COLUMNS].concat();
    print(&output::list(format, &COLUMNS, &headers, &rows)?)
}

fn prune(host: &Host, args: &VolumePruneArgs) -> Result<u8> {
    let which = if args.all { "all volumes" } else { "the volumes without a name of their own" };
    if !args.force && !confirmed(&format!("{which} that no container has"), "volume prune -f")? {
        return Ok(1);
    }
    let used = host.volumes_in_use()?;
    for volume in host.volumes.list()? {
        let wanted = args.all || names::is_id(&volume.name);
        let is_used = used.contains_key(&volume.name) || host.volumes.is_held(&volume.name)?;
        if wanted && !is_used && host.volumes.remove(&volume.name)? {
            output::say(&format!("Deleted volume: {}", volume.name))?;
        }
    }
    Ok(0)
}

fn rm(host: &Host, args: &VolumeRmArgs) -> Result<u8> {
    let used = host.volumes_in_use()?;
    each(&args.volumes, |name| {
        let was_there = host.volumes.remove_unused(name, &used)?;
        if !was_there && !args.force {
            anyhow::bail!("no such volume: {name} (amphora volume ls lists them)");
        }
        output::say(name)
    })
}

fn row(host: &Host, volume: &Volume) -> Value {
    json!({
        "Name": volume.name,
        "Driver": "local",
        "Scope": "local",
        "Mountpoint": host.volumes.data(&volume.name),
        "CreatedAt": output::rfc3339(volume.created_unix_nanos),
    })
}
