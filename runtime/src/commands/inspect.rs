//! `inspect`, for containers and images.

use anyhow::{Result, bail};
use images::Selection;
use serde_json::Value;

use super::{find, print, view};
use crate::{
    cli::{ImageInspectArgs, InspectArgs, ObjectType},
    output,
    records::{container::FindError, host::Host},
};

/// `amphora inspect`: a container is looked for first.
pub(crate) fn inspect(host: &Host, args: &InspectArgs) -> Result<u8> {
    show(&args.names, args.format.as_deref(), |name| match args.object_type {
        Some(ObjectType::Container) => view::container_details(&find(host, name)?),
        Some(ObjectType::Image) => image(host, name),
        None => match find(host, name) {
            Ok(container) => view::container_details(&container),
            Err(error) if matches!(error.downcast_ref(), Some(FindError::NoSuch(_))) => image(host, name),
            Err(error) => Err(error),
        },
    })
}

/// `amphora image inspect`.
pub(crate) fn inspect_images(host: &Host, args: &ImageInspectArgs) -> Result<u8> {
    show(&args.images, args.format.as_deref(), |name| image(host, name))
}

fn image(host: &Host, name: &str) -> Result<Value> {
    // A name that is no reference may still be a container's that does not exist.
    match host.store.resolve(name, &Selection::default()) {
        Ok(Some(image)) => Ok(view::image_details(&image)),
        Ok(None) => bail!("no such object: {name} (neither a container nor an image in the store)"),
        Err(error) => Err(error.into()),
    }
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
    print(&output::objects(format, &found)?)?;
    Ok(code)
}
