//! The init: the first process of a container whose program must not be that.

use std::{fs::File, io::Write, os::fd::OwnedFd};

use anyhow::{Context, Result};
use linux_exec::plan::Init;
use nix::{fcntl::OFlag, unistd::pipe2};
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::Errno,
};

/// Compiled by the build script.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));

/// An init, and the end of the pipe on which it tells of the program's end.
pub(crate) fn new() -> Result<(Init, OwnedFd)> {
    let (report, writer) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
    let program = sealed().context("cannot put the init into memory")?;
    Ok((Init { program, report: writer }, report))
}

/// The program in memory, as a file that nobody can change any more, from whichever side.
fn sealed() -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match memfd_create(c"amphora-init", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 every such file can be executed.
        Err(Errno::INVAL) => memfd_create(c"amphora-init", flags)?,
        made => made?,
    };
    let mut file = File::from(memory);
    file.write_all(PROGRAM)?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file.into())
}
