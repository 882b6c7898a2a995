//! What happened to containers, images, volumes and networks, as `amphora events` tells it.
//!
//! ```text
//! RUNROOT/events      one event a line, as JSON, between two line ends
//!         events.1    the ones before it, since that one grew to its bound
//! ```
//!
//! Nobody is asked for anything: whoever does something appends a line, by one write(2) of O_APPEND, which the kernel does for one
//! after the other. A line that a killed process, or a full disk, left unfinished ends where the next one begins, and is passed over.
//! Whoever finds the log full renames it, under a lock of the file itself; who wrote meanwhile wrote to `events.1`, and who finds that his
//! file is gone altogether writes once more.

mod reader;

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

pub(crate) use reader::{EventReader, Watch};

use crate::{output, records::container::make_private_folder, spec::RunSpec};

/// The log is renamed when it is larger than this: some four thousand events.
const LOG_BYTES: u64 = 1 << 20;
/// When it is so much larger, whoever was to rename it does not come to it.
const STUCK: u64 = 4;
/// An event is told without its labels if it has more of them than this.
const EVENT_BYTES: usize = 16 << 10;

/// What something happened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
    Container,
    Image,
    Network,
    Volume,
}

impl Subject {
    /// Docker's word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
        }
    }
}

/// One thing that happened, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) unix_nanos: i64,
    pub(crate) subject: Subject,
    /// `create`, `start`, `die`, …
    pub(crate) action: String,
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) attributes: BTreeMap<String, String>,
}

impl Event {
    /// It happens now.
    pub(crate) fn new(subject: Subject, action: impl Into<String>, id: impl Into<String>) -> Self {
        let unix_nanos = output::now_nanos();
        Self { unix_nanos, subject, action: action.into(), id: id.into(), attributes: BTreeMap::new() }
    }

    /// Something of a container, with its name, its image and its labels.
    pub(crate) fn of_container(spec: &RunSpec, action: impl Into<String>) -> Self {
        let mut attributes = spec.labels.clone();
        let size: usize = attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        if size > EVENT_BYTES {
            attributes.clear();
        }
        Self { attributes, ..Self::new(Subject::Container, action, &spec.id) }
            .with("image", &spec.image.name)
            .with("name", &spec.name)
    }

    /// Something of a network, or of a container on it.
    pub(crate) fn of_network(id: &str, name: &str, action: impl Into<String>) -> Self {
        Self::new(Subject::Network, action, id).with("name", name).with("type", "bridge")
    }

    /// The same with one more attribute.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.attributes.insert(name.to_owned(), value.into());
        self
    }
}

/// The log of one RUNROOT.
#[derive(Debug)]
pub(crate) struct EventLog {
    path: PathBuf,
    /// Open since the last event, as most processes have more than one to tell.
    file: Mutex<Option<File>>,
}

impl Clone for EventLog {
    fn clone(&self) -> Self {
        Self { path: self.path.clone(), file: Mutex::default() }
    }
}

impl EventLog {
    /// Nothing is made before the first event.
    pub(crate) fn in_folder(runroot: &Path) -> Self {
        Self { path: runroot.join("events"), file: Mutex::default() }
    }

    /// The log before.
    fn older(&self) -> PathBuf {
        self.path.with_extension("1")
    }

    /// Notes what happened. Whether that succeeds is no part of it, so a failure is only said.
    pub(crate) fn note(&self, events: &[Event]) {
        let noted = self.append(&lines(events)).with_context(|| format!("cannot write to {}", self.path.display()));
        if let Err(error) = noted {
            output::complain(&error.context("what happened is not in amphora events"));
        }
    }

    fn append(&self, lines: &[u8]) -> io::Result<()> {
        // A file that was renamed twice since it was opened is read by nobody.
        const ATTEMPTS: u32 = 3;
        for _ in 0..ATTEMPTS {
            let mut file = self.opened().take().map_or_else(|| self.open(), Ok)?;
            file.write_all(lines)?;
            let found = file.metadata()?;
            if found.nlink() == 0 {
                continue;
            }
            // One that was renamed meanwhile is as long.
            if found.len() > LOG_BYTES {
                return self.rename(&file, found.len());
            }
            *self.opened() = Some(file);
            break;
        }
        Ok(())
    }

    fn opened(&self) -> MutexGuard<'_, Option<File>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK);
        match options.open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.path.parent().map_or(Ok(()), make_private_folder).map_err(io::Error::other)?;
                options.open(&self.path)
            }
            opened => opened,
        }
    }

    /// Begins a new log, unless somebody else does.
    fn rename(&self, file: &File, length: u64) -> io::Result<()> {
        if file.try_lock().is_err() && length < LOG_BYTES * STUCK {
            return Ok(());
        }
        let is_same = match self.path.metadata() {
            Ok(found) => identity(&found) == identity(&file.metadata()?),
            Err(_) => false,
        };
        if is_same { fs::rename(&self.path, self.older()) } else { Ok(()) }
    }
}

/// Device and inode.
fn identity(found: &fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// Each between two line ends, so that what somebody else has not finished before it is no part of it.
fn lines(events: &[Event]) -> Vec<u8> {
    let mut text = Vec::with_capacity(512);
    for event in events {
        text.push(b'\n');
        // Neither strings nor a vector that grows can refuse.
        serde_json::to_writer(&mut text, event).expect("an event has a JSON form");
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn event(id: &str) -> Event {
        Event::new(Subject::Volume, "create", id).with("driver", "local")
    }

    fn ids(events: &[Event]) -> Vec<&str> {
        events.iter().map(|event| event.id.as_str()).collect()
    }

    #[test]
    fn what_was_noted_is_read_whoever_else_writes() {
        let folder = tempfile::tempdir().unwrap();
        let log = EventLog::in_folder(&folder.path().join("run"));
        let mut from_now = EventReader::open(&log, false).unwrap();
        thread::scope(|scope| {
            for writer in 0..4 {
                let log = &log;
                scope.spawn(move || (0..200).for_each(|n| log.note(&[event(&format!("{writer}-{n}"))])));
            }
        });
        let all = EventReader::open(&log, true).unwrap().read().unwrap();
        assert_eq!((all.len(), from_now.read().unwrap().len()), (800, 800));
        for writer in 0..4 {
            let of_it: Vec<String> = (0..200).map(|n| format!("{writer}-{n}")).collect();
            let found: Vec<&str> = ids(&all).into_iter().filter(|id| id.starts_with(&format!("{writer}-"))).collect();
            assert_eq!(found, of_it);
        }
    }

    #[test]
    fn what_is_not_whole_is_passed_over_and_nothing_else_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let log = EventLog::in_folder(folder.path());
        log.note(&[event("a")]);
        let whole = lines(&[event("cut")]);
        log.append(&whole[..whole.len() / 2]).unwrap();
        let mut reader = EventReader::open(&log, true).unwrap();
        assert_eq!(ids(&reader.read().unwrap()), ["a"]);
        log.note(&[event("b")]);
        log.append(b"\xff\xfe\x00\n{}\n").unwrap();
        let whole = lines(&[event("late")]);
        log.append(&whole[..20]).unwrap();
        assert_eq!(ids(&reader.read().unwrap()), ["b"]);
        // The rest of a line that was being written.
        log.append(&whole[20..]).unwrap();
        assert_eq!(ids(&reader.read().unwrap()), ["late"]);
    }

    #[test]
    fn the_log_is_bounded_and_followed_over_its_ends() {
        let folder = tempfile::tempdir().unwrap();
        let log = EventLog::in_folder(folder.path());
        let mut reader = EventReader::open(&log, true).unwrap();
        let filler = "x".repeat(10_000);
        let mut seen = Vec::new();
        for n in 0..500 {
            log.note(&[event(&n.to_string()).with("filler", filler.as_str())]);
            if n % 50 == 0 {
                seen.extend(reader.read().unwrap());
            }
        }
        seen.extend(reader.read().unwrap());
        assert_eq!(ids(&seen), (0..500).map(|n| n.to_string()).collect::<Vec<_>>());
        assert!(!reader.has_lost());
        let size = |path: &Path| path.metadata().unwrap().len();
        assert!(size(&log.path) <= LOG_BYTES + 11_000 && size(&log.older()) <= LOG_BYTES + 11_000);
        // Of what is left, the last ones.
        let left = EventReader::open(&log, true).unwrap().read().unwrap();
        assert!(left.len() >= 100 && left.last().unwrap().id == "499");
        // Who does not read for so long is told.
        for n in 0..500 {
            log.note(&[event(&n.to_string()).with("filler", filler.as_str())]);
        }
        reader.read().unwrap();
        assert!(reader.has_lost());
    }

    /// Somebody who holds the lock of the log and does not rename it, as he was stopped.
    #[test]
    fn nobody_waits_for_who_is_to_rename_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = EventLog::in_folder(folder.path());
        log.note(&[event("first")]);
        let stopped = File::open(&log.path).unwrap();
        stopped.lock().unwrap();
        let filler = "x".repeat(16_000);
        for n in 0..600 {
            log.note(&[event(&n.to_string()).with("filler", filler.as_str())]);
        }
        assert!(log.path.metadata().unwrap().len() < LOG_BYTES * (STUCK + 1), "{:?}", log.path.metadata());
        assert!(log.older().exists());
    }

    #[test]
    fn labels_without_end_are_left_out() {
        let mut spec: RunSpec = serde_json::from_str(
            r#"{"id":"1","name":"web","image":{"name":"bb","digest":"sha256:x","kind":"linux"},"argv":["sh"],"labels":{"a":"b"}}"#,
        )
        .unwrap();
        assert_eq!(Event::of_container(&spec, "start").attributes["a"], "b");
        spec.labels.insert("long".to_owned(), "x".repeat(1 << 20));
        let names: Vec<String> = Event::of_container(&spec, "start").attributes.into_keys().collect();
        assert_eq!(names, ["image", "name"]);
    }
}
