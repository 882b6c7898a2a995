//! `system df`: how much space is used, and how much of it could be had back.

use std::collections::{BTreeMap, HashSet};

use anyhow::Result;
use images::{Image, store::tree_size};
use serde_json::json;

use super::{note_unreadable, print, view};
use crate::{
    cli::DfArgs,
    output::{self, Column, Row},
    records::{container::Container, host::Host, volumes::Volume},
};

const COLUMNS: [Column; 5] = [
    Column { header: "TYPE", field: "Type" },
    Column { header: "TOTAL", field: "TotalCount" },
    Column { header: "ACTIVE", field: "Active" },
    Column { header: "SIZE", field: "Size" },
    Column { header: "RECLAIMABLE", field: "Reclaimable" },
];

const OF_IMAGES: [Column; 8] = [
    Column { header: "REPOSITORY", field: "Repository" },
    Column { header: "TAG", field: "Tag" },
    Column { header: "IMAGE ID", field: "ID" },
    Column { header: "CREATED", field: "CreatedSince" },
    Column { header: "SIZE", field: "Size" },
    Column { header: "SHARED SIZE", field: "SharedSize" },
    Column { header: "UNIQUE SIZE", field: "UniqueSize" },
    Column { header: "CONTAINERS", field: "Containers" },
];

const OF_CONTAINERS: [Column; 8] = [
    Column { header: "CONTAINER ID", field: "ID" },
    Column { header: "IMAGE", field: "Image" },
    Column { header: "COMMAND", field: "Command" },
    Column { header: "LOCAL VOLUMES", field: "LocalVolumes" },
    Column { header: "SIZE", field: "Size" },
    Column { header: "CREATED", field: "RunningFor" },
    Column { header: "STATUS", field: "Status" },
    Column { header: "NAMES", field: "Names" },
];

const OF_VOLUMES: [Column; 3] = [
    Column { header: "VOLUME NAME", field: "Name" },
    Column { header: "LINKS", field: "Links" },
    Column { header: "SIZE", field: "Size" },
];

/// All there is, with sizes.
struct Usage {
    images: Vec<Image>,
    containers: Vec<(Container, u64)>,
    /// Each with the number of containers that have it.
    volumes: Vec<(Volume, u64, usize)>,
}

/// How large all images are together.
pub(super) fn images_size(host: &Host) -> Result<u64> {
    Ok(Usage::size_of(host, host.store.list()?.iter()))
}

/// `amphora system df`.
pub(super) fn df(host: &Host, args: &DfArgs) -> Result<u8> {
    let (containers, unreadable) = host.containers.list()?;
    note_unreadable(&unreadable);
    let mut links: BTreeMap<&str, usize> = BTreeMap::new();
    for name in containers.iter().flat_map(|container| container.spec.volumes()) {
        *links.entry(name).or_default() += 1;
    }
    let sized = |volume: Volume| {
        let size = tree_size(&host.volumes.data(&volume.name));
        let links = links.get(volume.name.as_str()).copied().unwrap_or(0);
        (volume, size, links)
    };
    let volumes = host.volumes.list()?.into_iter().map(sized).collect();
    let containers = containers.into_iter().map(|container| {
        let size = container.written_bytes();
        (container, size)
    });
    let usage = Usage { images: host.store.list()?, containers: containers.collect(), volumes };
    if args.verbose {
        return verbose(host, &usage);
    }
    let rows = [usage.of_images(host), usage.of_containers(), usage.of_volumes(), row("Build Cache", [0; 2], [0; 2])];
    print(&output::list(args.format.as_deref(), &COLUMNS, &COLUMNS, &rows)?)
}

/// `count`: all, and those in use; `bytes`: all, and those of what is not in use.
fn row(what: &str, [count, active]: [usize; 2], [size, spare]: [u64; 2]) -> Row {
    let share = (spare * 100).checked_div(size).map(|share| format!(" ({share}%)")).unwrap_or_default();
    json!({
        "Type": what,
        "TotalCount": count.to_string(),
        "Active": active.to_string(),
        "Size": output::size(size),
        "Reclaimable": format!("{}{share}", output::size(spare)),
    })
    .into()
}

impl Usage {
    fn digests_in_use(&self) -> HashSet<&str> {
        self.containers.iter().map(|(container, _)| container.spec.image.digest.as_str()).collect()
    }

    /// How large images are together: what several of them have counts once.
    fn size_of<'a>(host: &Host, images: impl Iterator<Item = &'a Image>) -> u64 {
        parts(host, images).values().map(|(size, _)| size).sum()
    }

    fn of_images(&self, host: &Host) -> Row {
        let used = self.digests_in_use();
        let is_used = |image: &&Image| used.contains(image.digest.as_ref());
        let count = |digests: HashSet<&str>| digests.len();
        let all = count(self.images.iter().map(|image| image.digest.as_ref()).collect());
        let active = count(self.images.iter().filter(is_used).map(|image| image.digest.as_ref()).collect());
        let size = Self::size_of(host, self.images.iter());
        let kept = Self::size_of(host, self.images.iter().filter(is_used));
        row("Images", [all, active], [size, size - kept])
    }

    fn of_containers(&self) -> Row {
        let is_up = |container: &Container| container.status().map_or(true, |status| status.is_up());
        let idle: Vec<u64> = self.containers.iter().filter(|(one, _)| !is_up(one)).map(|(_, size)| *size).collect();
        let size = self.containers.iter().map(|(_, size)| size).sum();
        let all = self.containers.len();
        row("Containers", [all, all - idle.len()], [size, idle.iter().sum()])
    }

    fn of_volumes(&self) -> Row {
        let spare = self.volumes.iter().filter(|(_, _, links)| *links == 0);
        let active = self.volumes.len() - spare.clone().count();
        let size = self.volumes.iter().map(|(_, size, _)| size).sum();
        row("Local Volumes", [self.volumes.len(), active], [size, spare.map(|(_, size, _)| size).sum()])
    }
}

/// The layers of images, each with its size and how many images have it. What has no layers is one by itself.
fn parts<'a>(host: &Host, images: impl Iterator<Item = &'a Image>) -> BTreeMap<String, (u64, usize)> {
    let (mut parts, mut digests) = (BTreeMap::<String, (u64, usize)>::new(), HashSet::new());
    for image in images.filter(|image| digests.insert(image.digest.to_string())) {
        for (name, size) in parts_of(host, image) {
            parts.entry(name).or_insert((size, 0)).1 += 1;
        }
    }
    parts
}

fn parts_of(host: &Host, image: &Image) -> BTreeMap<String, u64> {
    let diff_ids = image.config.rootfs().diff_ids();
    if diff_ids.is_empty() {
        return BTreeMap::from([(image.digest.to_string(), image.size_bytes)]);
    }
    // The first of equal ones has the size.
    diff_ids.iter().cloned().zip(host.store.layer_sizes(image)).rev().collect()
}

fn verbose(host: &Host, usage: &Usage) -> Result<u8> {
    let users = |image: &Image| {
        let digest: &str = image.digest.as_ref();
        usage.containers.iter().filter(|(container, _)| container.spec.image.digest == digest).count()
    };
    let mut seen = HashSet::new();
    let mut listed: Vec<&Image> = usage.images.iter().collect();
    listed.sort_by_key(|image| image.reference.as_ref().map(ToString::to_string));
    // Each once, whatever names it has.
    listed.retain(|image| seen.insert(image.digest.to_string()));
    let all = parts(host, usage.images.iter());
    let images = listed.into_iter().map(|image| {
        let mut row = view::image_row(host, image, false);
        let own =
            parts_of(host, image).into_iter().filter(|(name, _)| all.get(name).is_some_and(|(_, users)| *users == 1));
        let alone = own.map(|(_, size)| size).sum();
        row.fields["UniqueSize"] = output::size(alone).into();
        row.fields["SharedSize"] = output::size(host.store.unpacked_size(image).saturating_sub(alone)).into();
        row.fields["Containers"] = users(image).to_string().into();
        row
    });
    let containers = usage.containers.iter().map(|(container, size)| {
        let mut row = view::container_row(host, container, &container.status(), "", false, false);
        row.fields["Size"] = output::size(*size).into();
        row
    });
    let volumes = usage.volumes.iter().map(|(volume, size, links)| {
        Row::from(json!({ "Name": volume.name, "Links": links.to_string(), "Size": output::size(*size) }))
    });
    let table = |columns: &[Column], rows: Vec<Row>| output::list(None, columns, columns, &rows);
    let text = format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\nBuild cache usage: 0B\n\n\
         CACHE ID   CACHE TYPE   SIZE      CREATED   LAST USED   USAGE     SHARED\n",
        table(&OF_IMAGES, images.collect())?,
        table(&OF_CONTAINERS, containers.collect())?,
        table(&OF_VOLUMES, volumes.collect())?,
    );
    print(&text)
}
