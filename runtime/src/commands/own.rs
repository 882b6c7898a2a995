//! What amphora's own processes do.

use std::{ffi::OsString, path::Path};

use anyhow::{Context, Result, bail, ensure};
use images::{Image, Selection};
use rustix::process::{Pid, Signal, getppid, nice, set_parent_process_death_signal};

use crate::{
    kinds::wasm::{self, Wanted},
    lifecycle, network,
    records::{host::Host, own_process::OwnProcess},
};

/// What no other process waits for, it does when no other process wants the processor; nice(2).
const LEAST_URGENT: i32 = 19;

/// The first two arguments are ROOT and RUNROOT, but for what is about networks alone.
pub(crate) fn own(process: OwnProcess, args: &[OsString]) -> Result<u8> {
    const NOT_BY_HAND: &str = "this command is not meant to be called by hand";
    match (process, args) {
        (OwnProcess::Pasta, [parent, program, arguments @ ..]) => {
            return network::become_pasta(parent, program, arguments);
        }
        (OwnProcess::Switch, []) => return network::switch(),
        _ => {}
    }
    let [root, runroot, rest @ ..] = args else { bail!(NOT_BY_HAND) };
    let host = Host::inherited(Path::new(root), Path::new(runroot))?;
    let rest: Vec<&str> = rest.iter().filter_map(|word| word.to_str()).collect();
    match (process, rest.as_slice()) {
        (OwnProcess::Supervise, [id]) => lifecycle::supervise_in_background(&host, id, None),
        (OwnProcess::Supervise, [id, size]) => lifecycle::supervise_in_background(&host, id, terminal_size(size)),
        (OwnProcess::Health, [id]) => lifecycle::health::look_after(&host, id),
        (OwnProcess::Compile, [digest, program, fuel, proposals, baseline, parent]) => {
            stay_with(parent)?;
            let wanted = Wanted::parse(program, fuel, proposals, *baseline == "true")?;
            wasm::compile(&host, &image(&host, digest)?, &wanted).map(|()| 0)
        }
        (OwnProcess::Optimise, [digest, program, fuel, proposals]) => {
            nice(LEAST_URGENT)?;
            let wanted = Wanted::parse(program, fuel, proposals, false)?;
            wasm::optimise(&host, &image(&host, digest)?, &wanted).map(|()| 0)
        }
        (OwnProcess::ImportDemo, ["programs"]) => lifecycle::built_in::import(&host).map(|()| 0),
        (OwnProcess::ImportDemo, ["functions"]) => lifecycle::built_in::import_functions(&host).map(|()| 0),
        _ => bail!(NOT_BY_HAND),
    }
}

/// `COLUMNSxROWS`
fn terminal_size(text: &str) -> Option<(u16, u16)> {
    let (columns, rows) = text.split_once('x')?;
    Some((columns.parse().ok()?, rows.parse().ok()?))
}

/// What is compiled is of no image yet if the pull that waits for it is killed, so it goes with it.
fn stay_with(parent: &str) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // That one may have been killed before there was a signal to send.
    let is_parent = |pid: Pid| pid.as_raw_nonzero().to_string() == parent;
    ensure!(getppid().is_some_and(is_parent), "nobody waits for the compiled code any more");
    Ok(())
}

/// By digest alone: it is compiled before it has a name.
fn image(host: &Host, digest: &str) -> Result<Image> {
    let digest = digest.parse().with_context(|| format!("`{digest}` is no digest"))?;
    let image = host.store.unnamed_image("", &digest, &Selection::default())?;
    image.with_context(|| format!("no image {digest}"))
}
