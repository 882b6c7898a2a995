//! What a container's first process tells its supervisor, where it is one of our own: a Wasm program's engine, or an init.

use std::{fs::File, io::Read, os::fd::OwnedFd};

use serde::{Deserialize, Serialize};

/// The longest report that is read.
const MOST_BYTES: u64 = 1 << 20;

/// Written once, before the process ends.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Report {
    /// The program was stopped at its memory limit.
    pub(crate) out_of_memory: bool,
    /// It asked for memory that its limit did not allow, whatever became of it.
    pub(crate) memory_refused: bool,
    /// The program was stopped at its time limit.
    pub(crate) timed_out: bool,
    /// The program had used up its fuel.
    pub(crate) out_of_fuel: bool,
    /// It could not be started.
    pub(crate) error: Option<String>,
    /// Fuel used, if it was counted.
    pub(crate) fuel_used: Option<u64>,
    /// Most that memories and tables came to.
    pub(crate) peak_memory_bytes: u64,
    /// The program was killed by this signal.
    pub(crate) signal: Option<u8>,
}

/// What was told of an end.
#[derive(Debug)]
pub(crate) enum Told {
    /// The first process is the program itself, which tells nothing.
    NotAsked,
    /// It was killed before it could tell.
    Nothing,
    /// All.
    Report(Report),
}

impl Told {
    /// Reads what came.
    pub(crate) fn read(pipe: OwnedFd) -> Self {
        let mut bytes = Vec::new();
        let read = File::from(pipe).take(MOST_BYTES).read_to_end(&mut bytes);
        let report = read.ok().and_then(|_| serde_json::from_slice(&bytes).ok());
        report.map_or(Self::Nothing, Self::Report)
    }
}
