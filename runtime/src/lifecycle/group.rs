//! Where a container's cgroup lies, which everybody finds again by its record.

use anyhow::{Context, Result};
use linux_exec::cgroup::{Cgroup, Cgroups, Place};

use crate::spec::RunSpec;

/// In which a container's group lies that has devices of its own: on cgroup v1 a list of devices can allow no more than the group
/// above it does, and ours allows only what every container has.
const WITH_DEVICES: &str = "amphora.devices";

/// Its place: below the group that was asked for, or where all are.
pub(crate) fn place(spec: &RunSpec) -> Result<Place> {
    let parent = match &spec.further.cgroup_parent {
        Some(parent) => parent.as_str(),
        None if spec.further.has_devices() => WITH_DEVICES,
        None => return Ok(Place::of_container(&spec.id)?),
    };
    let place = Place::parse(&format!("{}/{}", parent.trim_end_matches('/'), spec.id));
    place.with_context(|| format!("--cgroup-parent {parent}"))
}

/// The group that was made for it, if there is one.
pub(crate) fn open(spec: &RunSpec) -> Result<Option<Cgroup>> {
    Ok(Cgroups::detect()?.open_at(&place(spec)?)?)
}

/// A supervisor that was killed leaves its container's cgroup, and every one those that the container got later.
pub(super) fn remove_leftover(place: &Place) -> Result<()> {
    if let Some(cgroup) = Cgroups::detect()?.open_at(place)? {
        cgroup.kill()?;
        cgroup.remove()?;
    }
    Ok(())
}
