//! What a container's first process tells its supervisor, where it is one of our own: a Wasm program's engine, or an init.

use std::{fs::File, io::Read, os::fd::OwnedFd};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::wasm::core_dumps::{Dumps, Filled};

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
    /// What it did not end by itself with, and where it was then; at most [`MOST_TRAP_BYTES`].
    pub(crate) trap: Option<String>,
    /// Files of core dumps that have been filled.
    pub(crate) filled: Vec<Filled>,
    /// Where they lie, once they have names.
    #[serde(skip)]
    pub(crate) core_dumps: Vec<String>,
}

/// As JSON it may be six times as long, and the report waits in a pipe, which as a rule has room for 64 KiB.
const MOST_TRAP_BYTES: usize = 8 << 10;

/// The beginning of what is told of a trap: as much as is kept of it.
pub(crate) fn beginning_of(trap: &str) -> String {
    trap[..trap.floor_char_boundary(MOST_TRAP_BYTES)].trim_end().to_owned()
}

/// What an init tells, which is all that is believed of it: as its neighbours in the container may write where it does.
#[derive(Debug, Default, Deserialize)]
struct InitReport {
    /// The program was killed by this signal.
    signal: Option<u8>,
}

/// The reading end of a first process that tells of its end.
#[derive(Debug)]
pub(crate) enum Teller {
    /// A Wasm program's engine, which no program can pose as; and its core dumps, if it makes any.
    Engine { report: OwnedFd, dumps: Option<Dumps> },
    /// An init.
    Init(OwnedFd),
}

/// What was told of an end.
#[derive(Debug)]
pub(crate) enum Told {
    /// The first process is the program itself, which tells nothing.
    NotAsked,
    /// An engine was killed before it could tell.
    Nothing,
    /// An engine told all.
    Report(Report),
    /// An init told which signal killed the program, if one did.
    Signal(Option<u8>),
}

impl Told {
    /// Reads what came until now, when the process has ended.
    pub(crate) fn read(teller: Option<Teller>) -> Self {
        match teller {
            None => Self::NotAsked,
            Some(Teller::Engine { report, dumps }) => match serde_json::from_slice::<Report>(&read_now(report)) {
                Ok(mut report) => {
                    if let Some(dumps) = dumps {
                        let (paths, problem) = dumps.publish(&report.filled);
                        report.core_dumps = paths;
                        report.error = report.error.or(problem);
                    }
                    Self::Report(report)
                }
                Err(_) => Self::Nothing,
            },
            Some(Teller::Init(pipe)) => {
                let bytes = read_now(pipe);
                // It speaks last.
                let last = bytes.iter().rposition(|&byte| byte == b'{').unwrap_or_default();
                let report: InitReport = serde_json::from_slice(&bytes[last..]).unwrap_or_default();
                Self::Signal(report.signal)
            }
        }
    }
}

/// Does not wait for the end of the file: somebody else may hold the other side open.
fn read_now(pipe: OwnedFd) -> Vec<u8> {
    let mut bytes = Vec::new();
    if rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK).is_ok() {
        // What was read before an error is there; that there is nothing more for now is one.
        let _ = File::from(pipe).take(MOST_BYTES).read_to_end(&mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::{PipeWriter, Write, pipe};

    use super::*;

    fn told(kind: fn(OwnedFd) -> Teller, texts: &[&str]) -> (Told, PipeWriter) {
        let (reader, mut writer) = pipe().unwrap();
        texts.iter().for_each(|text| writer.write_all(text.as_bytes()).unwrap());
        // Held open, as by a program that got it from its init's /proc/1/fd.
        (Told::read(Some(kind(reader.into()))), writer)
    }

    #[test]
    fn a_program_forges_nothing_in_the_name_of_its_init() {
        let forged = r#"{"out_of_memory":true,"timed_out":true,"error":"forged","signal":9}"#;
        let (told_of_init, _writer) = told(Teller::Init, &[forged, r#"{"signal":null}"#]);
        assert!(matches!(told_of_init, Told::Signal(None)), "{told_of_init:?}");
        let (told_of_init, _writer) = told(Teller::Init, &["garbage", r#"{"signal":25}"#]);
        assert!(matches!(told_of_init, Told::Signal(Some(25))), "{told_of_init:?}");
        let (told_of_init, _writer) = told(Teller::Init, &["garbage"]);
        assert!(matches!(told_of_init, Told::Signal(None)), "{told_of_init:?}");
    }

    #[test]
    fn an_engine_is_believed_and_its_silence_noticed() {
        let engine = |report| Teller::Engine { report, dumps: None };
        let (all, _writer) = told(engine, &[r#"{"out_of_fuel":true}"#]);
        assert!(matches!(all, Told::Report(Report { out_of_fuel: true, .. })), "{all:?}");
        let (nothing, _writer) = told(engine, &[]);
        assert!(matches!(nothing, Told::Nothing), "{nothing:?}");
    }
}
