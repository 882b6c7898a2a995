//! `export`: a container's files as an archive.

use std::{
    fs::{self, File},
    io::{self, BufWriter, IsTerminal, Write},
    path::Path,
};

use anyhow::{Context, Result, bail};

use super::find;
use crate::{
    cli::ExportArgs,
    lifecycle::archive,
    records::{
        container::Container,
        host::{Host, become_root},
    },
};

/// `amphora export`.
pub(crate) fn export(host: &Host, args: &ExportArgs) -> Result<u8> {
    let container = find(host, &args.container)?;
    become_root()?;
    match &args.output {
        Some(path) => to_file(host, &container, path)?,
        None if io::stdout().is_terminal() => {
            bail!("export writes an archive, which is nothing for a terminal: name a file with -o, or redirect")
        }
        None => {
            let mut to = BufWriter::with_capacity(1 << 20, io::stdout().lock());
            match archive::export(host, &container, &mut to) {
                Err(error) if is_reader_gone(&error) => {}
                exported => archive::note_left_out(&exported?),
            }
        }
    }
    container.happened("export");
    Ok(0)
}

/// Whoever reads a pipe has gone away, as `| head` does.
pub(super) fn is_reader_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// What is not whole does not stay, and what is there already stays until the new one is whole.
fn to_file(host: &Host, container: &Container, path: &Path) -> Result<()> {
    let is_plain = path.symlink_metadata().map_or(true, |found| found.is_file());
    let failed = || format!("cannot write {}", path.display());
    if !is_plain {
        let mut to = BufWriter::new(File::options().write(true).open(path).with_context(failed)?);
        archive::note_left_out(&archive::export(host, container, &mut to)?);
        return to.flush().with_context(failed);
    }
    let half = path.with_file_name(format!(
        ".{}.{}",
        path.file_name().unwrap_or_default().to_string_lossy(),
        std::process::id()
    ));
    let write = || -> Result<()> {
        let mut to = BufWriter::with_capacity(1 << 20, File::create_new(&half).with_context(failed)?);
        let left_out = archive::export(host, container, &mut to)?;
        to.flush().with_context(failed)?;
        fs::rename(&half, path).with_context(failed)?;
        archive::note_left_out(&left_out);
        Ok(())
    };
    write().inspect_err(|_| {
        // It may never have been made.
        let _ = fs::remove_file(&half);
    })
}
