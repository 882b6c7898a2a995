//! `inspect`, for containers, images and volumes.

use anyhow::{Context, Result, bail};
use images::{Image, Reference, Selection};
use serde_json::Value;

use super::{find, image_view, network, print, view, volume};
use crate::{
    cli::{ImageInspectArgs, InspectArgs, ObjectType},
    output::{self, TemplateError, errors::Coded},
    records::{
        container::{Container, FindError},
        host::Host,
    },
    spec::{exit_code, names},
};

/// `amphora inspect`: a container is looked for first, then an image, then a volume.
pub(crate) fn inspect(host: &Host, args: &InspectArgs) -> Result<u8> {
    let container = |name: &str| find(host, name).and_then(|found| container_and_networks(host, &found, args.size));
    show(&args.names, args.format.as_deref(), |name| match args.object_type {
        Some(ObjectType::Container) => container(name),
        Some(ObjectType::Image) => image(host, name)?.with_context(|| format!("no such image: {name}")),
        Some(ObjectType::Volume) => volume::details(host, name)?.with_context(|| volume::no_such(name)),
        None => match container(name) {
            Err(error) if matches!(error.downcast_ref(), Some(FindError::NoSuch(_))) => image_or_volume(host, name),
            found => found,
        },
    })
}

/// `amphora image inspect`.
pub(crate) fn inspect_images(host: &Host, args: &ImageInspectArgs) -> Result<u8> {
    show(&args.images, args.format.as_deref(), |name| {
        image(host, name)?.with_context(|| format!("no such image: {name} (amphora images lists them)"))
    })
}

fn container_and_networks(host: &Host, container: &Container, sized: bool) -> Result<Value> {
    let (mut found, unreadable) = host.networks.of_containers()?;
    unreadable.iter().for_each(output::complain);
    let found = found.remove(&container.spec.id).unwrap_or_default();
    let shown = network::shown(container, Some(&container.status()?), &found);
    view::container_details(host, container, sized, &shown.settings)
}

fn image_or_volume(host: &Host, name: &str) -> Result<Value> {
    // A name that is no reference may still be another object's that does not exist.
    if let Some(found) = image(host, name)? {
        return Ok(found);
    }
    // What no volume can be called is none.
    let is_name = names::validate("volume name", name).is_ok();
    match is_name.then(|| volume::details(host, name)).transpose()?.flatten() {
        Some(found) => Ok(found),
        None => bail!("no such object: {name} (neither a container nor an image in the store nor a volume)"),
    }
}

fn image(host: &Host, name: &str) -> Result<Option<Value>> {
    let Some(image) = host.store.resolve(name, &Selection::default())? else { return Ok(None) };
    Ok(Some(image_view::image_details(host, &image, &names_of(host, &image)?)))
}

/// All names of an image, the one it was found by first.
fn names_of(host: &Host, image: &Image) -> Result<Vec<Reference>> {
    let mut names: Vec<Reference> = image.reference.clone().into_iter().collect();
    for other in host.store.listed()?.into_iter().flatten().filter(|other| other.digest == image.digest) {
        names.extend(other.reference.filter(|name| !names.contains(name)));
    }
    Ok(names)
}

/// What was found is shown even when another name was not found; then the exit code is 1, as with Docker.
pub(super) fn show(names: &[String], format: Option<&str>, mut find: impl FnMut(&str) -> Result<Value>) -> Result<u8> {
    let mut found = Vec::new();
    let mut code = 0;
    for name in names {
        match find(name) {
            Ok(value) => found.push(value),
            Err(error) => {
                output::complain(&error);
                code = 1;
            }
        }
    }
    match output::objects(format, &found) {
        Ok(text) => print(&text).map(|_| code),
        Err(error @ TemplateError::Syntax(_)) => Err(Coded::new(exit_code::NO_TEMPLATE, error.to_string()).into()),
        // As Docker does: what asked for a line gets one.
        Err(error @ TemplateError::Apply(_)) => print("\n").and(Err(error.into())),
    }
}
