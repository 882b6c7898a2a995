//! The last step of every start: the child executes a tiny program from memory, and that one executes the container's.
//!
//! A process that resolves a path of a container and executes what it finds can be led to its own file, by a link to
//! `/proc/self/exe` put there at the last moment or named as an interpreter; and everything it has open can be reached by
//! `/proc/self/fd` until the exec. So by the time that path is resolved nothing of the host's is in reach: the process's
//! file is one in memory that nobody can change and nobody else uses, and its descriptors are the three streams and a pipe.

use crate::{error::Error, plan::Lifetime, sys::ExecStrings};
use rustix::{
    fd::{AsRawFd, OwnedFd},
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::Errno,
};
use std::ffi::CString;

/// Compiled by the build script; its source says what its arguments mean.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/launcher"));

/// By this name, which no user's argument list begins with by accident, the program knows that it was meant.
const NAME: &[u8] = b"\namphora";

/// What becomes of the process that executes the launcher.
pub(crate) enum Becomes {
    /// The program.
    Exec,
    /// An init with the program as its child, which tells of its end by `report`.
    Init { report: OwnedFd },
    /// Nothing: the program is a sibling, which controls the terminal on its standard input if it has one.
    Join { terminal: bool, lifetime: Lifetime },
}

/// The launcher with its orders.
pub(crate) struct Launcher {
    pub(crate) file: OwnedFd,
    pub(crate) becomes: Becomes,
    /// The first of these that can be executed.
    pub(crate) programs: Vec<CString>,
    /// A byte from it lets the program begin.
    pub(crate) held: Option<OwnedFd>,
    pub(crate) words: ExecStrings,
    pub(crate) env: ExecStrings,
    argv: Vec<CString>,
}

impl Launcher {
    /// Puts the launcher into memory. Every start has a copy of its own, so that what a container does to its is no other's
    /// business.
    pub(crate) fn new(
        becomes: Becomes,
        held: Option<OwnedFd>,
        programs: Vec<CString>,
        argv: Vec<CString>,
        env: ExecStrings,
    ) -> Result<Self, Error> {
        let file = sealed().map_err(|errno| Error::new("put the launcher into memory", errno))?;
        Ok(Self { file, becomes, held, programs, words: ExecStrings::new(Vec::new()), env, argv })
    }

    /// Completes the orders: `start` is where failure is told, and `step` the number by which.
    pub(crate) fn tell_of(&mut self, start: &OwnedFd, step: usize) -> Result<(), Error> {
        let (letter, extra) = match &self.becomes {
            Becomes::Exec => ("e", 0),
            Becomes::Init { report } => ("i", report.as_raw_fd()),
            Becomes::Join { terminal, lifetime } => {
                ("j", i32::from(*terminal) | i32::from(*lifetime == Lifetime::OfStarter) << 1)
            }
        };
        let orders = [
            letter.to_owned(),
            start.as_raw_fd().to_string(),
            step.to_string(),
            extra.to_string(),
            self.held.as_ref().map_or(0, AsRawFd::as_raw_fd).to_string(),
            self.programs.len().to_string(),
        ];
        let mut words = vec![NAME.to_vec()];
        words.extend(orders.map(String::into_bytes));
        let mut words = c_strings(words)?;
        words.extend(self.programs.iter().cloned());
        words.append(&mut self.argv);
        self.words = ExecStrings::new(words);
        Ok(())
    }
}

/// The program as a file that nobody can change any more, from whichever side.
fn sealed() -> rustix::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match memfd_create(c"amphora", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 every such file can be executed.
        Err(Errno::INVAL) => memfd_create(c"amphora", flags)?,
        made => made?,
    };
    let mut rest = PROGRAM;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    crate::sys::above_stdio(file)
}

/// Environment for execve(2).
pub(crate) fn exec_strings(strings: Vec<Vec<u8>>) -> Result<ExecStrings, Error> {
    c_strings(strings).map(ExecStrings::new)
}

/// Arguments.
pub(crate) fn c_strings(strings: Vec<Vec<u8>>) -> Result<Vec<CString>, Error> {
    let strings: Result<Vec<_>, _> = strings.into_iter().map(CString::new).collect();
    strings.map_err(|error| {
        let text = String::from_utf8_lossy(&error.into_vec()).into_owned();
        Error::new(format!("pass {text:?}: it contains a NUL byte"), Errno::INVAL)
    })
}
