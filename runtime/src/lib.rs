//! One runtime for Linux and Wasm OCI images.
//!
//! The `amphora` program is [`main`]. Other front ends make a [`Request`] and hand it to [`run`].

// They panic where nobody listens; `output` prints.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod bench;
mod cli;
mod commands;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod kinds;
mod lifecycle;
mod network;
mod output;
mod records;
mod serve;
mod spec;

use std::{ffi::OsString, io::ErrorKind, process::ExitCode};

use crate::{records::own_process::OwnProcess, spec::exit_code};

pub use crate::{
    lifecycle::run,
    records::host::Host,
    spec::{
        Further, Network, Security, StdioSpec,
        devices::DeviceSpec,
        health::{Health, HealthOptions},
        limits::{Limits, Ulimit},
        logging::{LogDetails, LogDriver, LogSpec},
        mounts::{MountKind, MountSpec},
        namespaces::NamespaceMode,
        network::{Endpoint, Mac, NameService},
        ports::{HostPort, Protocol, PublishedPort},
        probe::Probe,
        propagation::Propagation,
        rare_limits::RareLimits,
        request::{Request, StopTimeout},
        restart::RestartPolicy,
    },
};

/// The program: reads its command line, and gives its exit code.
#[must_use]
pub fn main() -> ExitCode {
    // The caller's would become the mode of containers' root directories, of volumes, and of the store's folders.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let args: Vec<OsString> = std::env::args_os().collect();
    let own = args.get(1).and_then(|word| word.to_str()).and_then(OwnProcess::parse);
    let result = match own {
        None => typed(args, false),
        Some(OwnProcess::Exec) => typed([&args[..1], &args[2..]].concat(), true),
        Some(process) => Ok((exit_code::OURS, commands::own(process, &args[2..]))),
    };
    match result {
        Ok((_, Ok(code))) => ExitCode::from(code),
        Ok((failed, Err(error))) => {
            output::complain(&error);
            ExitCode::from(output::errors::exit_code(&error).unwrap_or(failed))
        }
        Err(error) => usage(&error),
    }
}

/// What came of the command, and its exit code where it failed. `behind`: this is the process that `exec -d` leaves behind.
fn typed(args: Vec<OsString>, behind: bool) -> Result<(u8, anyhow::Result<u8>), clap::Error> {
    let (globals, command) = cli::parse(args)?;
    Ok((command.failure_code(), commands::dispatch(globals, &command, behind)))
}

/// Help and version are no errors; what cannot be parsed is amphora's own error.
fn usage(error: &clap::Error) -> ExitCode {
    let said = error.print();
    match said {
        Err(failure) if !error.use_stderr() && failure.kind() != ErrorKind::BrokenPipe => {
            output::note(&format!("amphora: cannot write to standard output: {failure}"));
            ExitCode::from(exit_code::FAILED)
        }
        // Nothing can be done where even standard error takes nothing.
        _ => ExitCode::from(if error.use_stderr() { cli::refusal_code(error.kind()) } else { 0 }),
    }
}
