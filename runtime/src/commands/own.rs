//! What amphora's own processes do.

use std::{ffi::OsString, path::Path};

use anyhow::{Context, Result, bail, ensure};
use images::Selection;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::{
    kinds, lifecycle,
    records::{host::Host, own_process::OwnProcess},
};

/// The first two arguments are ROOT and RUNROOT.
pub(crate) fn own(process: OwnProcess, args: &[OsString]) -> Result<u8> {
    const NOT_BY_HAND: &str = "this command is not meant to be called by hand";
    let [root, runroot, rest @ ..] = args else { bail!(NOT_BY_HAND) };
    let host = Host::inherited(Path::new(root), Path::new(runroot))?;
    let rest: Vec<&str> = rest.iter().filter_map(|word| word.to_str()).collect();
    match (process, rest.as_slice()) {
        (OwnProcess::Supervise, [id]) => lifecycle::supervise_in_background(&host, id, None),
        (OwnProcess::Supervise, [id, size]) => lifecycle::supervise_in_background(&host, id, terminal_size(size)),
        (OwnProcess::Health, [id]) => lifecycle::health::look_after(&host, id),
        (OwnProcess::Compile, [digest, fuel, proposals, parent]) => {
            compile(&host, digest, *fuel == "true", proposals, parent).map(|()| 0)
        }
        (OwnProcess::ImportDemo, []) => lifecycle::built_in::import(&host).map(|()| 0),
        _ => bail!(NOT_BY_HAND),
    }
}

/// `COLUMNSxROWS`
fn terminal_size(text: &str) -> Option<(u16, u16)> {
    let (columns, rows) = text.split_once('x')?;
    Some((columns.parse().ok()?, rows.parse().ok()?))
}

fn compile(host: &Host, digest: &str, fuel: bool, proposals: &str, parent: &str) -> Result<()> {
    // What it compiles is of no image yet if the pull that waits for it is killed, so it goes with it.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // That one may have been killed before there was a signal to send.
    let is_parent = |pid: Pid| pid.as_raw_nonzero().to_string() == parent;
    ensure!(getppid().is_some_and(is_parent), "nobody waits for the compiled code any more");
    // By digest alone: it is compiled before it has a name.
    let digest = digest.parse().with_context(|| format!("`{digest}` is no digest"))?;
    let image = host.store.unnamed_image("", &digest, &Selection::default())?;
    let image = image.with_context(|| format!("no image {digest}"))?;
    kinds::wasm::compile(host, &image, fuel, proposals)
}
