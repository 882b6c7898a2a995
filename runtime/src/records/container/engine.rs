//! What a Wasm program's engine tells of its run beside what every run tells: `engine.json` in the folder for what the container writes.
//!
//! A function's process writes it about once a second, in its place, through a descriptor that it has from the beginning; a
//! command's supervisor does when it has trapped. It is one line; what stands after it is of an older, longer one.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
};

use anyhow::{Context, Result};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::Container;

/// The most that is read of it.
const MOST_BYTES: u64 = 64 << 10;

/// The last run, as far as its engine told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct EngineRecord {
    /// Of a function: requests that came.
    pub(crate) requests: u64,
    /// Those that got no answer of the function's, or not all of it.
    pub(crate) failed: u64,
    /// How often the program did not end by itself.
    pub(crate) traps: u64,
    /// What its memories and tables come to.
    pub(crate) memory_bytes: u64,
    /// Most that they came to at once.
    pub(crate) peak_memory_bytes: u64,
    /// If it is counted.
    pub(crate) fuel_used: Option<u64>,
    /// The last trap, with its backtrace.
    pub(crate) last_trap: Option<String>,
    /// Where core dumps lie.
    pub(crate) core_dumps: Vec<String>,
}

impl EngineRecord {
    /// Writes it where the one before stood.
    pub(crate) fn write_to(&self, file: &File) -> Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(file.write_all_at(&line, 0)?)
    }

    fn read_from(file: File) -> Option<Self> {
        let mut text = String::new();
        file.take(MOST_BYTES).read_to_string(&mut text).ok()?;
        serde_json::from_str(text.lines().next()?).ok()
    }
}

impl Container {
    /// The file for a new run, empty.
    pub(crate) fn new_engine_file(&self) -> Result<File> {
        let path = self.writable()?.join("engine.json");
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(flags.bits().cast_signed())
            .open(&path);
        file.with_context(|| format!("cannot write {}", path.display()))
    }

    /// What is known of the last run. None: nothing, as of most programs that run by themselves.
    pub(crate) fn engine(&self) -> Option<EngineRecord> {
        let path = self.writable.join("engine.json");
        // It may be written just now.
        (0..3).find_map(|_| match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            file => EngineRecord::read_from(file.ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_record_takes_the_place_of_a_longer_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.json");
        let file = File::create(&path).unwrap();
        assert_eq!(EngineRecord::read_from(File::open(&path).unwrap()), None);
        let long = EngineRecord { last_trap: Some("a\nb".repeat(100)), ..EngineRecord::default() };
        for record in [long, EngineRecord { requests: 3, ..EngineRecord::default() }] {
            record.write_to(&file).unwrap();
            assert_eq!(EngineRecord::read_from(File::open(&path).unwrap()), Some(record));
        }
    }
}
