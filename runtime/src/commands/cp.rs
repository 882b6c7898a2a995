//! `cp` and `diff`: files of containers.

use std::{
    io::{self, BufWriter, IsTerminal},
    path::Path,
};

use anyhow::{Result, bail};

use super::{export::is_reader_gone, find, print};
use crate::{
    cli::{CpArgs, DiffArgs},
    lifecycle::{
        archive,
        changed::{self, Change},
        files::{self, Copy, Root, Side},
    },
    output,
    records::{host::Host, tree::Keep},
};

/// `amphora cp`.
pub(crate) fn cp(host: &Host, args: &CpArgs) -> Result<u8> {
    let (source, target) = (place(&args.source), place(&args.target));
    let of_container = |name: &str| -> Result<Side> { Ok(Side::Container(Root::open(host, &find(host, name)?)?)) };
    match (source.0, target.0) {
        (Some(name), None) if args.target == "-" => return pack(&of_container(name)?, source.1, args.follow_link),
        (None, Some(name)) if args.source == "-" => return unpack(host, &of_container(name)?, target.1),
        _ => {}
    }
    let side = |name: Option<&str>| name.map_or(Ok(Side::Host), of_container);
    match (source.0, target.0) {
        (Some(_), Some(_)) => bail!("copying between containers is not supported"),
        (None, None) => bail!("must specify at least one container source: CONTAINER:PATH"),
        (Some(_), None) | (None, Some(_)) => {}
    }
    let (from, to) = (side(source.0)?, side(target.0)?);
    // Whoever copies, and root of the container: without root the two are one, by the user namespace that was entered.
    let user = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let owner = if source.0.is_some() { user } else { (0, 0) };
    let keep = Keep { owners: args.archive, owner };
    let copy = Copy { from: &from, source: source.1, to: &to, target: target.1, follow: args.follow_link, keep };
    let copied = copy.copy()?;
    if !args.quiet {
        output::note(&format!("Successfully copied {} to {}", output::size(copied.bytes), args.target));
    }
    Ok(0)
}

/// Into an archive on standard output.
fn pack(from: &Side, source: &Path, follow: bool) -> Result<u8> {
    if io::stdout().is_terminal() {
        bail!("an archive is nothing for a terminal: redirect it");
    }
    let mut to = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    match files::pack(from, source, follow, &mut to) {
        Err(error) if is_reader_gone(&error) => {}
        packed => archive::note_left_out(&packed?),
    }
    Ok(0)
}

/// Out of an archive on standard input. Owners are those that it tells of, as with Docker.
fn unpack(host: &Host, to: &Side, target: &Path) -> Result<u8> {
    if io::stdin().is_terminal() {
        bail!("`-` reads an archive: feed it to standard input");
    }
    files::unpack(host, io::stdin(), to, target, Keep { owners: true, owner: (0, 0) })?;
    Ok(0)
}

/// `CONTAINER:PATH`, or a path of the host, which is known by beginning with a slash or a dot, or by having no colon.
fn place(text: &str) -> (Option<&str>, &Path) {
    match text.split_once(':') {
        Some((name, path)) if !text.starts_with(['/', '.']) && !name.contains('/') => (Some(name), Path::new(path)),
        _ => (None, Path::new(text)),
    }
}

/// `amphora diff`.
pub(crate) fn diff(host: &Host, args: &DiffArgs) -> Result<u8> {
    let changes = changed::changes(host, &find(host, &args.container)?)?;
    let lines = changes.iter().map(|(change, path)| {
        let letter = match change {
            Change::Added => 'A',
            Change::Changed => 'C',
            Change::Removed => 'D',
        };
        format!("{letter} {}\n", output::harmless(&path.to_string_lossy()))
    });
    print(&lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_named_before_a_colon() {
        for (text, name, path) in [
            ("web:/x", Some("web"), "/x"),
            ("web:x:y", Some("web"), "x:y"),
            ("./web:x", None, "./web:x"),
            ("/a:b", None, "/a:b"),
            ("a/b:c", None, "a/b:c"),
            ("plain", None, "plain"),
        ] {
            assert_eq!(place(text), (name, Path::new(path)), "{text}");
        }
    }
}
