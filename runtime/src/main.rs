//! `amphora`: one runtime for Linux and Wasm OCI images.

// They panic where nobody listens; `output` prints.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod cli;
mod commands;
mod kinds;
mod lifecycle;
mod output;
mod records;
mod spec;

use std::{ffi::OsString, io::ErrorKind, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail, ensure};
use images::Selection;

use crate::{records::host::Host, spec::exit_code};

/// First argument of the process that `run -d` and `start` leave behind.
const SUPERVISE: &str = "__supervise";
/// First argument of the process that `exec -d` leaves behind; the whole command line follows.
const EXEC_BEHIND: &str = "__exec";
/// First argument of the process that compiles a Wasm program.
const COMPILE: &str = "__compile";

fn main() -> ExitCode {
    // The caller's would become the mode of containers' root directories, of volumes, and of the store's folders.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let args: Vec<OsString> = std::env::args_os().collect();
    let (args, behind) = match args.get(1) {
        Some(word) if word == EXEC_BEHIND => ([&args[..1], &args[2..]].concat(), true),
        _ => (args, false),
    };
    let result = match args.get(1).and_then(|word| word.to_str()) {
        Some(word @ (SUPERVISE | COMPILE | commands::demo::IMPORT)) => internal(word, &args[2..]),
        _ => match cli::parse(args) {
            Ok((globals, command)) => commands::dispatch(globals, &command, behind),
            Err(error) => return usage(&error),
        },
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::complain(&error);
            ExitCode::from(output::errors::exit_code(&error))
        }
    }
}

/// Help and version are no errors; what cannot be parsed is amphora's own error, 125.
fn usage(error: &clap::Error) -> ExitCode {
    let said = error.print();
    match said {
        Err(failure) if !error.use_stderr() && failure.kind() != ErrorKind::BrokenPipe => {
            output::note(&format!("amphora: cannot write to standard output: {failure}"));
            ExitCode::from(exit_code::OURS)
        }
        // Nothing can be done where even standard error takes nothing.
        _ => ExitCode::from(if error.use_stderr() { exit_code::OURS } else { 0 }),
    }
}

/// Processes that amphora starts itself; the first two arguments are ROOT and RUNROOT.
fn internal(command: &str, args: &[OsString]) -> Result<u8> {
    let [root, runroot, rest @ ..] = args else { bail!("{command} is not meant to be called by hand") };
    let host = Host::inherited(Path::new(root), Path::new(runroot))?;
    let rest: Vec<&str> = rest.iter().filter_map(|word| word.to_str()).collect();
    match (command, rest.as_slice()) {
        (SUPERVISE, [id]) => lifecycle::supervise_in_background(&host, id),
        (COMPILE, [digest, fuel, parent]) => {
            // What it compiles is of no image yet if the pull that waits for it is killed, so it goes with it.
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // That one may have been killed before there was a signal to send.
            let is_parent = |pid: rustix::process::Pid| pid.as_raw_nonzero().to_string() == *parent;
            ensure!(rustix::process::getppid().is_some_and(is_parent), "nobody waits for the compiled code any more");
            // By digest alone: it is compiled before it has a name.
            let digest = digest.parse().with_context(|| format!("`{digest}` is no digest"))?;
            let image = host.store.unnamed_image("", &digest, &Selection::default())?;
            let image = image.with_context(|| format!("no image {digest}"))?;
            kinds::wasm::compile(&host, &image, *fuel == "true").map(|()| 0)
        }
        (commands::demo::IMPORT, []) => commands::demo::import_images(&host).map(|()| 0),
        _ => bail!("{command} is not meant to be called by hand"),
    }
}
