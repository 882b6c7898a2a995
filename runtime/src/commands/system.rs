//! `system check`, `system prune` and `system repair`, and the other prunes.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use images::{
    Image,
    holds::{Holds, IMAGE},
    store::Checked,
};
use linux_exec::process::Process;

use super::{
    confirmed, df, each,
    filters::{ContainerFilters, PruneFilters},
    image::say_removed,
    network, note_unreadable,
    removed::Removed,
    volume,
};
use crate::{
    cli::{ContainerPruneArgs, Filters, PruneArgs, SystemPruneArgs},
    kinds::wasm,
    lifecycle, output,
    records::host::Host,
    serve,
};

/// The code with which `system check` and the prunes end when they could not look at everything.
const NOT_ALL_LOOKED_AT: u8 = 2;

/// `amphora system check`: 0 when nothing was left behind or is damaged, 1 when something is, 2 when that cannot be told.
pub(crate) fn check(host: &Host) -> Result<u8> {
    let (Checked { leftovers, damaged, mut not_looked_at }, elsewhere) = leftovers(host, false)?;
    not_looked_at.extend(elsewhere);
    let (_, unreadable) = host.containers.list()?;
    unreadable.iter().try_for_each(|container| output::say(&container.to_string()))?;
    damaged.iter().chain(&leftovers).try_for_each(|line| output::say(line))?;
    if !leftovers.is_empty() {
        output::say("amphora system prune removes all that was left behind")?;
    }
    not_looked_at.iter().try_for_each(|what| output::say(&format!("not looked at: {what}")))?;
    host.networks.in_the_way()?.iter().try_for_each(|line| output::say(line))?;
    if !not_looked_at.is_empty() {
        return Ok(NOT_ALL_LOOKED_AT);
    }
    if leftovers.is_empty() && damaged.is_empty() && unreadable.is_empty() {
        output::say("nothing was left behind")?;
        return Ok(0);
    }
    Ok(1)
}

/// What was left behind; and what is used by whom nothing else is known of here, which is none of that.
fn leftovers(host: &Host, remove: bool) -> Result<(Checked, Vec<String>)> {
    let mut found = serve::leftovers::check(host, remove)?;
    found.extend(lifecycle::check_orphans(host, remove)?);
    // Cgroups then: whose they are is known as long as their containers are there.
    found.extend(lifecycle::check_cgroups(host, remove)?);
    found.extend(host.containers.check(remove)?);
    found.extend(host.networks.check(remove)?);
    found.extend(lifecycle::networks::check(host, remove)?);
    let mut checked = host.store.check(remove)?;
    found.append(&mut checked.leftovers);
    match wasm::check_compiled(host, remove)? {
        Some(stale) => found.extend(stale),
        None => {
            // The store has said so already, if it was so for as long as this took.
            if checked.not_looked_at.is_empty() {
                checked.not_looked_at.push("compiled code, as an image is being made".to_owned());
            }
        }
    }
    if let Err(error) = Process::own() {
        checked.not_looked_at.push(format!("processes that outlive their supervisors ({error})"));
    }
    Ok((Checked { leftovers: found, ..checked }, elsewhere(host)?))
}

/// What runs with another RUNROOT, a sentence each.
fn elsewhere(host: &Host) -> Result<Vec<String>> {
    let mut found = host.containers.elsewhere()?;
    let holds = Holds::open(&host.paths.root)?;
    for image in host.store.list()? {
        let digest = image.digest.to_string();
        // Asked again, as one of ours may have ended since.
        let is_held = || holds.is_held(IMAGE, &digest);
        if is_held()? && !host.image_digests_in_use()?.contains(&digest) && is_held()? {
            let name = image.reference.map_or_else(|| digest.clone(), |reference| reference.familiar());
            found.push(format!("what uses the image {name}: a container with --rm that runs with another --runroot"));
        }
    }
    Ok(found)
}

/// `amphora system repair`: 0 when the list of images is whole, or is again; 1 when something of it could not be kept.
pub(crate) fn repair(host: &Host) -> Result<u8> {
    let mended = [host.networks.check(true)?, lifecycle::networks::check(host, true)?].concat();
    mended.iter().try_for_each(|line| output::say(&format!("Mended: {line}")))?;
    let Some(repaired) = host.store.repair()? else {
        output::say("the list of images is whole; nothing was changed")?;
        return Ok(0);
    };
    output::say(&format!("The list of images was damaged: {}", repaired.found))?;
    if let Some(aside) = &repaired.aside {
        output::say(&format!("What was there lies at {} now", aside.display()))?;
    }
    repaired.named.iter().try_for_each(|line| output::say(&format!("Kept: {line}")))?;
    repaired.unnamed.iter().try_for_each(|line| output::say(&format!("Found: {line}")))?;
    repaired.lost.iter().try_for_each(|line| output::say(&format!("Lost: {line}")))?;
    if !repaired.unnamed.is_empty() {
        output::say("amphora tag ID NAME gives a name; amphora system prune removes images that have none")?;
    }
    Ok(u8::from(!repaired.lost.is_empty()))
}

/// `amphora system prune`: 0 when all that can go is gone, 2 when that cannot be told.
pub(crate) fn prune(host: &Host, args: &SystemPruneArgs) -> Result<u8> {
    let PruneArgs { all, filter, force } = &args.of_images;
    let filters = PruneFilters::parse(filter)?;
    if args.volumes && filters.ask_for_age() {
        bail!("--volumes and --filter until=: how old a volume is is not known; leave one of them out");
    }
    let images = if *all { ", all images that no container uses" } else { "" };
    let volumes = if args.volumes { ", volumes without a name of their own" } else { "" };
    let what = format!(
        "all containers that do not run, all networks that no container is on{images}{volumes}, and what killed commands left behind"
    );
    if !force && !confirmed(&what, "system prune -f")? {
        return Ok(1);
    }
    let (mut spared, mut reclaimed) = (false, 0);
    let before = df::images_size(host)?;
    // Each step as far as it goes: one that cannot be done is said, and the next one is done.
    let code = each(&["containers", "networks", "volumes", "images", "leftovers"], |step| match step {
        "containers" => {
            let removed = remove_idle_containers(host, &ContainerFilters::for_prune(&filters))?;
            reclaimed += removed.bytes();
            Ok(())
        }
        "networks" => network::remove_unused(host, &filters).map(drop),
        "volumes" if args.volumes => {
            let labels = Filters::parse(filter, &["label", "label!"])?;
            reclaimed += volume::remove_unused(host, false, &labels)?.bytes();
            Ok(())
        }
        "volumes" => Ok(()),
        "images" => remove_images(host, *all, &filters),
        _ => remove_leftovers(host).map(|all| spared = !all),
    })?;
    reclaimed += before.saturating_sub(df::images_size(host)?);
    output::say(&format!("Total reclaimed space: {}", output::size(reclaimed)))?;
    Ok(if spared && code == 0 { NOT_ALL_LOOKED_AT } else { code })
}

/// Whether all could be looked at.
fn remove_leftovers(host: &Host) -> Result<bool> {
    let (Checked { leftovers, not_looked_at, damaged: _ }, elsewhere) = leftovers(host, true)?;
    leftovers.iter().try_for_each(|line| output::say(&format!("Deleted {line}")))?;
    not_looked_at.iter().chain(&elsewhere).try_for_each(|what| output::say(&format!("Left alone: {what}")))?;
    Ok(not_looked_at.is_empty())
}

/// `amphora container prune`.
pub(crate) fn prune_containers(host: &Host, args: &ContainerPruneArgs) -> Result<u8> {
    if !args.force && !confirmed("all containers that do not run", "container prune -f")? {
        return Ok(1);
    }
    remove_idle_containers(host, &ContainerFilters::for_prune(&PruneFilters::parse(&args.filter)?))?.end()
}

/// `amphora image prune`: codes as those of `system prune`.
pub(crate) fn prune_images(host: &Host, args: &PruneArgs) -> Result<u8> {
    let what = if args.all { "all images that no container uses" } else { "all images without a name" };
    if !args.force && !confirmed(what, "image prune -f")? {
        return Ok(1);
    }
    let filters = PruneFilters::parse(&args.filter)?;
    let before = df::images_size(host)?;
    remove_images(host, args.all, &filters)?;
    let reclaimed = before.saturating_sub(df::images_size(host)?);
    output::say(&format!("Total reclaimed space: {}", output::size(reclaimed)))?;
    if host.store.while_nobody_writes(|| ())?.is_some() {
        return Ok(0);
    }
    output::say(
        "Left alone: images without a name, as a pull, load or import is running, or a container is being made",
    )?;
    Ok(NOT_ALL_LOOKED_AT)
}

fn remove_idle_containers(host: &Host, filters: &ContainerFilters) -> Result<Removed> {
    let (containers, unreadable) = host.containers.list()?;
    note_unreadable(&unreadable);
    let mut removed = Removed::of("Containers");
    for container in containers {
        let name = &container.spec.name;
        if !filters.hold(host, &container, &container.status()) {
            continue;
        }
        let size = container.written_bytes();
        // A record of a function within a gateway has no process, and is in use.
        let removed_it = match serve::leftovers::is_served(host, &container) {
            Ok(false) => lifecycle::remove_idle(host, &container),
            other => other.map(|_| false),
        };
        match removed_it {
            Ok(true) => removed.say(&container.spec.id, size)?,
            Ok(false) => {}
            // What cannot be looked at is spared, and the others are removed all the same.
            Err(error) => output::complain(&error.context(format!("container {name} is not removed"))),
        }
    }
    Ok(removed)
}

fn remove_images(host: &Host, all: bool, filters: &PruneFilters) -> Result<()> {
    if all {
        remove_unused_images(host, filters)?;
    }
    // Not asked of an image that nobody can read, and which stays.
    let spared: BTreeSet<String> = host
        .store
        .list()?
        .iter()
        .filter(|image| !is_meant(image, filters))
        .map(|image| image.digest.to_string())
        .collect();
    let lines = host.store.remove_unnamed_if(&|digest| !spared.contains(digest), &|| host.images_used())?;
    say_removed(host, &lines)
}

fn is_meant(image: &Image, filters: &PruneFilters) -> bool {
    let labels = image.config.config().as_ref().and_then(|config| config.labels().as_ref());
    let created = image.created.as_deref().and_then(output::parse_rfc3339);
    filters.hold(created, |name| labels.and_then(|labels| labels.get(name)).cloned())
}

fn remove_unused_images(host: &Host, filters: &PruneFilters) -> Result<()> {
    // Only which to ask for: whether one is used is asked again when nobody can begin to use it.
    let used = host.image_digests_in_use()?;
    // An index is listed once for each of its images that are here, but its name goes only once.
    let (mut names, mut spared) = (BTreeSet::new(), BTreeSet::new());
    for image in host.store.list()? {
        let Some(reference) = &image.reference else { continue };
        names.insert(reference.to_string());
        if !is_meant(&image, filters) || used.contains(&image.digest.to_string()) {
            spared.insert(reference.to_string());
        }
    }
    let unused = names.difference(&spared).cloned().collect();
    let lines = host.store.remove_names(&unused, &|| host.images_used())?;
    say_removed(host, &lines)
}
