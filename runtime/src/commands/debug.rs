//! `debug`: what can be seen of a program in which nothing else can be executed.

use anyhow::{Context, Result};
use images::Selection;

use super::find;
use crate::{cli::DebugArgs, lifecycle, output, records::host::Host};

/// `amphora debug`.
pub(crate) fn debug(host: &Host, args: &DebugArgs) -> Result<u8> {
    let container = find(host, &args.container)?;
    let workload = lifecycle::workload_of(host, &container.spec)?;
    let image = host.store.resolve(&container.spec.image.digest, &Selection::default())?;
    let image = image.with_context(|| format!("the image of container {} is gone", container.spec.name))?;
    let pid = container.going_on()?.map(|run| run.running.pid);
    output::say(&workload.behaviour().debug(host, &image, &container, pid)?)?;
    Ok(0)
}
