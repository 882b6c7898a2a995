//! `save`: images as an archive.

use std::{
    fs::{self, File},
    io::{self, BufWriter, IsTerminal},
    path::Path,
};

use anyhow::{Context, Result, bail};
use images::{Image, Reference, Selection, archive};

use super::image::happened;
use crate::{cli::SaveArgs, records::host::Host};

/// `amphora save`.
pub(super) fn save(host: &Host, args: &SaveArgs) -> Result<u8> {
    // Nobody removes them meanwhile.
    let _writing = host.store.writing()?;
    let images = found(host, &args.images)?;
    match &args.output {
        Some(path) => to_file(host, &images, path)?,
        None if io::stdout().is_terminal() => {
            bail!("save writes an archive, which is nothing for a terminal: name a file with -o, or redirect")
        }
        None => match archive::save(&host.store, &images, BufWriter::new(io::stdout().lock())) {
            // The reader of a pipe has gone away, as `| head` does.
            Err(archive::SaveError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => other.context("cannot save to standard output")?,
        },
    }
    for (image, _) in &images {
        happened(host, "save", image.digest.as_ref(), image.digest.as_ref());
    }
    Ok(0)
}

/// Each image with the names that were typed for it.
fn found(host: &Host, names: &[String]) -> Result<Vec<(Image, Vec<Reference>)>> {
    let mut images: Vec<(Image, Vec<Reference>)> = Vec::new();
    for name in names {
        let image = host.store.resolve(name, &Selection::default())?;
        let image = image.with_context(|| format!("no such image: {name} (amphora images lists them)"))?;
        let reference = image.reference.clone();
        match images.iter_mut().find(|(known, _)| known.digest == image.digest) {
            Some((_, references)) => references.extend(reference),
            None => images.push((image, reference.into_iter().collect())),
        }
    }
    Ok(images)
}

/// What is not whole does not stay.
fn to_file(host: &Host, images: &[(Image, Vec<Reference>)], path: &Path) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let is_plain = file.metadata().is_ok_and(|found| found.is_file());
    let saved = archive::save(&host.store, images, BufWriter::new(file));
    if saved.is_err() && is_plain {
        // Gone already is fine.
        let _ = fs::remove_file(path);
    }
    saved.with_context(|| format!("cannot save to {}", path.display()))
}
