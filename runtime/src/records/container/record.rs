//! Records as files: whole or not there, with the number of their format, and the record of a run that is going on.
//!
//! ```text
//! RUNROOT/running/ID.json     {"pid":…}      written when the run begins, by rename
//!                             {"exit_code":…} second line: its end, written by the supervisor through the descriptor that
//!                                            it has had since the beginning
//! ```
//!
//! The supervisor has the record locked (flock(2)) from before it has its name until the supervisor's own end: a record that
//! is locked is of a run that goes on, whatever can be seen of the processes from here (another pid or time namespace, no
//! /proc). Only of one that is not locked the processes are asked, as a container can outlive its supervisor.
//!
//! The end takes neither a descriptor nor a block that was not there at the beginning, so it is kept also when both are
//! used up. Whoever waits holds the file open: he reads the end from it, though the container may be gone by then.

use std::{
    fs,
    io::{self, ErrorKind, Read, Seek, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use linux_exec::{process::Process, userns};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::spec::{FORMAT, first_format, ports::PublishedPort};

/// A run that is going on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    #[serde(default = "first_format")]
    pub(crate) format: u32,
    pub(crate) pid: i32,
    pub(crate) start_ticks: u64,
    pub(crate) supervisor_pid: i32,
    pub(crate) supervisor_start_ticks: u64,
    #[serde(default)]
    pub(crate) started_unix_nanos: i64,
    /// All its processes are frozen.
    #[serde(default)]
    pub(crate) paused: bool,
    /// It got cgroups while it runs, of which its supervisor does not know.
    #[serde(default)]
    pub(crate) regrouped: bool,
    /// It has ended, and its supervisor starts it again after a pause.
    #[serde(default)]
    pub(crate) restarting: bool,
    /// How often its supervisor has started it again.
    #[serde(default)]
    pub(crate) restart_count: u32,
    /// The supervisor's descriptor of what leads to the program's standard input: a pipe, or its terminal's master.
    #[serde(default)]
    pub(crate) input_fd: Option<i32>,
    /// Where it is published, each at one address and one port of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ports: Vec<PublishedPort>,
}

/// What of the record of a run changes while it goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mark {
    Paused,
    Regrouped,
    Restarting,
}

impl Mark {
    fn field(self) -> &'static str {
        match self {
            Mark::Paused => "\"paused\":",
            Mark::Regrouped => "\"regrouped\":",
            Mark::Restarting => "\"restarting\":",
        }
    }
}

impl Running {
    /// The container's first process.
    pub(crate) fn process(&self) -> Process {
        Process { pid: self.pid, start_ticks: self.start_ticks }
    }

    /// Whether both records are of one run, whatever has changed in it.
    pub(super) fn is_same_run(&self, other: &Self) -> bool {
        let identity = |run: &Self| (run.pid, run.start_ticks, run.supervisor_pid, run.started_unix_nanos);
        identity(self) == identity(other)
    }

    /// The process that waits for it.
    pub(crate) fn supervisor(&self) -> Process {
        Process { pid: self.supervisor_pid, start_ticks: self.supervisor_start_ticks }
    }

    /// Whether these processes are this container's: a record is only somebody's word for it, and what it names may be killed. The first
    /// process's cgroup says so; or, where it has none, its parent does, which is the supervisor, an amphora as this process is; or, where
    /// the supervisor is gone, that it is the first process of a pid namespace below ours, which no stranger with this pid and
    /// start time is. What an ordinary user may not look at is at worst another process of that user's.
    pub(crate) fn is_of(&self, id: &str) -> bool {
        let (process, supervisor) = (self.process(), self.supervisor());
        if process.is_in_cgroup(id).unwrap_or(false) {
            return true;
        }
        let may_not_look = |_| userns::is_inside() || !nix::unistd::geteuid().is_root();
        let is_supervised = supervisor.is_alive() && supervisor.runs_own_executable().unwrap_or_else(may_not_look);
        if process.is_alive() && process.is_first_in_namespace().unwrap_or(false) {
            return true;
        }
        let is_child = || process.parent().is_ok_and(|parent| parent == self.supervisor_pid);
        // Of one that has ended the supervisor is about to write that down.
        is_supervised && (!process.is_alive() || is_child())
    }

    /// Whether the container or its supervisor is seen to live. What cannot be looked at counts as living.
    fn is_seen(&self) -> bool {
        let lives = |process: Process| process.lives().unwrap_or(true);
        lives(self.process()) || lives(self.supervisor())
    }

    /// Whether the container lives and its supervisor does not.
    fn is_orphaned(&self) -> bool {
        self.process().is_alive() && matches!(self.supervisor().lives(), Ok(false))
    }
}

/// Which limit ended a run or was met in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LimitHit {
    /// `-m`
    Memory,
    /// `--timeout`
    Timeout,
    /// `--fuel`
    Fuel,
    /// `--pids-limit`
    Pids,
    /// `--ulimit fsize`
    Fsize,
    /// `--ulimit cpu`
    Cpu,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}

impl LimitHit {
    /// As `inspect` shows it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            LimitHit::Memory => "memory",
            LimitHit::Timeout => "timeout",
            LimitHit::Fuel => "fuel",
            LimitHit::Pids => "pids",
            LimitHit::Fsize => "fsize",
            LimitHit::Cpu => "cpu",
            LimitHit::Other => "other",
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    #[serde(default = "first_format")]
    pub(crate) format: u32,
    /// Written when the run began, for the case that nobody is left to write how it ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) presumed: bool,
    pub(crate) exit_code: u8,
    #[serde(default)]
    pub(crate) oom_killed: bool,
    #[serde(default)]
    pub(crate) limit_hit: Option<LimitHit>,
    /// Why it could not be started, or what else went wrong.
    #[serde(default)]
    pub(crate) error: Option<String>,
    #[serde(default)]
    pub(crate) started_unix_nanos: i64,
    #[serde(default)]
    pub(crate) finished_unix_nanos: i64,
    #[serde(default)]
    pub(crate) peak_memory_bytes: Option<u64>,
    #[serde(default)]
    pub(crate) cpu_usec: Option<u64>,
    #[serde(default)]
    pub(crate) pids_refused: u64,
    #[serde(default)]
    pub(crate) fuel_used: Option<u64>,
    /// How often its supervisor has started it again.
    #[serde(default)]
    pub(crate) restart_count: u32,
}

/// The record of a run in the hands of its supervisor.
#[derive(Debug)]
pub(crate) struct RunRecord(fs::File);

impl RunRecord {
    /// Notes the run that has begun.
    pub(super) fn create(path: &Path, running: &Running) -> Result<Self> {
        write_whole(path, running, true).map(Self)
    }

    /// Whether it got cgroups meanwhile.
    pub(crate) fn is_regrouped(&self) -> bool {
        // Where nobody can tell, what it may have got is looked for.
        self.text().map_or(true, |text| text.contains("\"regrouped\":true"))
    }

    /// Says that there will be another run.
    pub(crate) fn mark_restarting(&self) -> Result<()> {
        let marked = || set(&self.0, &self.text()?, Mark::Restarting, true);
        marked().context("cannot write into the record of the run")
    }

    fn text(&self) -> io::Result<String> {
        let mut text = [0; 4096];
        let read = self.0.read_at(&mut text, 0)?;
        Ok(String::from_utf8_lossy(&text[..read]).into_owned())
    }

    /// Notes how it ended.
    pub(crate) fn note_end(&self, ended: &Ended) -> Result<()> {
        let line = format!("\n{}\n", serde_json::to_string(ended)?);
        (&self.0).write_all(line.as_bytes()).context("cannot write the end into the record of the run")
    }
}

/// The record of a run, held open.
#[derive(Debug)]
pub(crate) struct RunFound {
    file: fs::File,
    pub(crate) running: Running,
}

impl RunFound {
    /// None if there is none.
    pub(super) fn open(path: &Path) -> Result<Option<Self>> {
        let file = match fs::File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let text = read_all(&file).with_context(|| format!("cannot read {}", path.display()))?;
        let running = text.lines().next().unwrap_or_default();
        let running = parse(running.as_bytes()).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Some(Self { file, running }))
    }

    /// Whether it goes on in the container of this id. What lives has not ended, whoever noted what; of what does not, an end that has been
    /// noted is believed, though the supervisor may still have output to copy.
    pub(super) fn is_going_on_in(&self, id: &str) -> Result<bool> {
        let lives = self.running.process().lives().unwrap_or(true);
        Ok((lives || self.ended()?.is_none()) && self.running.is_seen() && self.running.is_of(id))
    }

    /// Whether its supervisor lives, wherever that is.
    pub(super) fn is_held(&self) -> Result<bool> {
        is_held(&self.file).context("cannot look at the lock of the record of the run")
    }

    /// Whether anything of it lives, as far as can be told.
    pub(super) fn is_going_on(&self) -> Result<bool> {
        Ok(self.is_held()? || self.running.is_seen())
    }

    /// Whether the container lives and its supervisor does not.
    pub(crate) fn is_orphaned(&self) -> Result<bool> {
        Ok(!self.is_held()? && self.running.is_orphaned())
    }

    /// Sets a mark in the record, in its place: the lock of a record is that of its file, which therefore stays.
    pub(super) fn mark(&self, path: &Path, mark: Mark, value: bool) -> Result<()> {
        let file = fs::OpenOptions::new().read(true).write(true).open(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        let text = read_all(&file).with_context(|| format!("cannot read {}", path.display()))?;
        if file.metadata()?.ino() != self.file.metadata()?.ino() {
            bail!("the run that was looked at has ended");
        }
        set(&file, &text, mark, value).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Whether it has ended and its supervisor, who lives, starts it again.
    pub(crate) fn is_between_runs(&self) -> Result<bool> {
        Ok(self.is_to_be_followed()? && self.is_held()?)
    }

    /// Whether there was to be another run when it ended.
    pub(super) fn is_to_be_followed(&self) -> Result<bool> {
        let text = read_all(&self.file).context("cannot read the record of the run")?;
        let now: Running = parse(text.lines().next().unwrap_or_default().as_bytes())?;
        Ok(now.restarting)
    }

    /// How it ended, if that has been noted by now.
    pub(crate) fn ended(&self) -> Result<Option<Ended>> {
        let text = read_all(&self.file).context("cannot read the record of the run")?;
        let end = text.split_inclusive('\n').nth(1);
        // One without its new line is being written.
        end.and_then(|line| line.strip_suffix('\n')).map(|line| parse(line.as_bytes())).transpose()
    }
}

/// Sets a mark in the first line of a record.
fn set(file: &fs::File, text: &str, mark: Mark, value: bool) -> Result<()> {
    let first = text.lines().next().unwrap_or_default();
    let Some(start) = first.find(mark.field()).map(|at| at + mark.field().len()) else {
        bail!("an older version of amphora started it: restart it first");
    };
    // Blanks count for nothing in JSON, so both values have one length.
    let value = if value { b"true " } else { b"false" };
    Ok(file.write_all_at(value, start as u64)?)
}

/// Whether another opening of a file has it locked. Who asks at the same time does not count, as he asks for a shared lock.
fn is_held(file: &fs::File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => flock(file, FlockOperation::Unlock).map(|()| false).map_err(Into::into),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

fn read_all(mut file: &fs::File) -> io::Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text).map(|_| text)
}

/// Before the pid of the writer and its start time, in the extension of what is being written.
const TEMPORARY: &str = "tmp";

/// Whether a file is one that was being written when its process was killed.
pub(super) fn is_half_written(path: &Path) -> bool {
    let writer = path.extension().and_then(|extension| extension.to_str()?.strip_prefix(TEMPORARY)?.split_once('-'));
    let Some((pid, start_ticks)) = writer else { return false };
    match (pid.parse(), start_ticks.parse()) {
        (Ok(pid), Ok(start_ticks)) => {
            let held = || fs::File::open(path).and_then(|file| is_held(&file)).unwrap_or(true);
            matches!(Process { pid, start_ticks }.lives(), Ok(false)) && !held()
        }
        _ => false,
    }
}

/// Unique while this process lives.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let own = Process::own()?;
    Ok(path.with_extension(format!("{TEMPORARY}{}-{}", own.pid, own.start_ticks)))
}

/// Writes to a temporary name beside it, then renames.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_whole(path, value, false).map(drop)
}

/// The same; gives the file, which is at its end, and has been locked since before it has its name if that is wanted.
fn write_whole(path: &Path, value: &impl Serialize, lock: bool) -> Result<fs::File> {
    let temporary = temporary_beside(path).with_context(|| format!("cannot write {}", path.display()))?;
    let write = || -> io::Result<fs::File> {
        let mut file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&temporary)?;
        if lock {
            flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        }
        file.write_all(&serde_json::to_vec(value)?)?;
        fs::rename(&temporary, path)?;
        Ok(file)
    };
    write().inspect_err(|_| _ = fs::remove_file(&temporary)).with_context(|| format!("cannot write {}", path.display()))
}

/// None if there is no such file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        Ok(bytes) => parse(&bytes).map(Some).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Understands a record; an error says whether a newer version wrote it.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let error = match serde_json::from_slice(bytes) {
        Ok(record) => return Ok(record),
        Err(error) => error,
    };
    match serde_json::from_slice::<Value>(bytes).ok().and_then(|record| record.get("format")?.as_u64()) {
        Some(format) if format > u64::from(FORMAT) => bail!(
            "a newer version of amphora wrote it (format {format}, known here are those up to {FORMAT}): use that one ({error})"
        ),
        _ => bail!("it is damaged, or of another version of amphora ({error})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Running {
        let own = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        Running {
            format: FORMAT,
            pid: own.pid,
            start_ticks: own.start_ticks,
            supervisor_pid: own.pid,
            supervisor_start_ticks: own.start_ticks,
            started_unix_nanos: 7,
            paused: false,
            regrouped: false,
            restarting: false,
            restart_count: 0,
            input_fd: None,
            ports: Vec::new(),
        }
    }

    #[test]
    fn a_mark_is_set_in_place_and_taken_away_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let record = RunRecord::create(&path, &running()).unwrap();
        let found = RunFound::open(&path).unwrap().unwrap();
        for value in [true, false, true] {
            found.mark(&path, Mark::Paused, value).unwrap();
            let now = RunFound::open(&path).unwrap().unwrap().running;
            assert_eq!((now.paused, now.regrouped, now.started_unix_nanos), (value, false, 7));
        }
        found.mark(&path, Mark::Regrouped, true).unwrap();
        assert!(record.is_regrouped());
        // The end is written behind it all the same.
        record.note_end(&Ended { format: FORMAT, exit_code: 3, ..Ended::default() }).unwrap();
        assert_eq!(found.ended().unwrap().unwrap().exit_code, 3);
        // A record of another run is not touched.
        let _other = RunRecord::create(&path, &running()).unwrap();
        assert!(found.mark(&path, Mark::Paused, true).is_err());
        assert!(!RunFound::open(&path).unwrap().unwrap().running.paused);
    }

    #[test]
    fn an_end_reaches_who_holds_the_record_open_though_it_was_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let record = RunRecord::create(&path, &running()).unwrap();
        let found = RunFound::open(&path).unwrap().unwrap();
        assert_eq!(found.ended().unwrap(), None);
        let end = Ended { format: FORMAT, exit_code: 3, started_unix_nanos: 7, ..Ended::default() };
        record.note_end(&end).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(found.ended().unwrap(), Some(end));
    }

    /// A program may undo the signal by which it would die with its supervisor, and a setuid program does so unknowingly.
    #[test]
    fn a_first_process_that_outlives_its_supervisor_is_still_its_containers() {
        let mut unshare = std::process::Command::new("unshare");
        let unshared = unshare.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "sleep", "1000"]);
        let Ok(mut unshared) = unshared.spawn() else { return println!("skipped: no unshare(1)") };
        let children = format!("/proc/{0}/task/{0}/children", unshared.id());
        let first = loop {
            let children = fs::read_to_string(&children).unwrap_or_default();
            match children.trim().parse().ok().and_then(|pid| Process::of(pid).ok()) {
                Some(first) => break first,
                None if unshared.try_wait().unwrap().is_some() => return println!("skipped: no namespaces"),
                None => std::thread::yield_now(),
            }
        };
        let gone = Process { start_ticks: 1, ..Process::own().unwrap() };
        let named = |process: Process| Running {
            pid: process.pid,
            start_ticks: process.start_ticks,
            supervisor_pid: gone.pid,
            supervisor_start_ticks: gone.start_ticks,
            ..running()
        };
        let orphan = named(first);
        assert!(orphan.is_of("0123") && orphan.is_seen() && orphan.is_orphaned());
        // Nor is a process of the host taken for it, nor a later one of the same pid.
        assert!(!named(Process::of(unshared.id().cast_signed()).unwrap()).is_of("0123"));
        assert!(!named(Process { start_ticks: first.start_ticks + 1, ..first }).is_of("0123"));
        // It may not yet have asked to be killed with the other one.
        first.signal(nix::sys::signal::Signal::SIGKILL as i32).unwrap();
        unshared.wait().unwrap();
    }

    #[test]
    fn half_an_end_is_none_yet() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let record = RunRecord::create(&path, &running()).unwrap();
        (&record.0).write_all(b"\n{\"exit_co").unwrap();
        assert_eq!(RunFound::open(&path).unwrap().unwrap().ended().unwrap(), None);
    }

    #[test]
    fn a_record_of_another_version_is_read_where_it_can_be() {
        let older: Ended = parse(br#"{"exit_code":3}"#).unwrap();
        assert_eq!((older.format, older.exit_code), (1, 3));
        let newer: Ended =
            parse(br#"{"format":9,"exit_code":3,"limit_hit":"phase-of-moon","moon":{"full":true}}"#).unwrap();
        assert_eq!((newer.format, newer.limit_hit), (9, Some(LimitHit::Other)));
        let message = format!("{:#}", parse::<Ended>(br#"{"format":9,"code":{}}"#).unwrap_err());
        assert!(message.contains("newer version") && message.contains("format 9"), "{message}");
        let message = format!("{:#}", parse::<Ended>(b"{").unwrap_err());
        assert!(message.contains("damaged"), "{message}");
    }
}
