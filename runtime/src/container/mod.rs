//! Containers and their records.
//!
//! ```text
//! ROOT/containers/ID/spec.json     what it is to be; the container exists when this file does
//!                    ended.json    how the last run ended
//!                    log           its output, if it is kept
//!                    upper/ work/  the writable layer
//! ROOT/names/NAME -> ID            claims a name: symlink(2) fails if it is taken
//! RUNROOT/running/ID.json          the run that is going on: pids and their start times
//!
//! RUNROOT/containers/ID/spec.json  with --rm: it goes when it ends, and at a reboot
//! RUNROOT/names/NAME -> ID
//! ROOT/writable/ID/                with --rm, where needed: log, upper/, work/, which can be large
//! ```
//!
//! Locking: `start`, `rm` and the end of a run hold flock(2) on `containers/ID` itself. Every file appears by rename.
//! A record of a run whose processes are gone is recognised by pid and start time and counts as ended.

mod files;
mod shelf;

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use linux_exec::process::Process;
use nix::fcntl::FlockArg;
use serde::{Deserialize, Serialize};

pub(crate) use files::{Lock, write_json};

use crate::{names, spec::RunSpec, volumes::Volumes};
use files::{folder_entries, is_half_written, lock_dir, make_private_folder, read_json, remove_if, try_lock};
use shelf::Shelf;

/// Where everything lies.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// What outlives a reboot.
    pub(crate) root: PathBuf,
    /// What does not.
    pub(crate) runroot: PathBuf,
}

impl Paths {
    fn running(&self) -> PathBuf {
        self.runroot.join("running")
    }

    fn writable(&self) -> PathBuf {
        self.root.join("writable")
    }

    /// Compiled Wasm programs.
    pub(crate) fn compiled(&self) -> PathBuf {
        self.root.join("compiled")
    }

    /// Volumes.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }
}

/// A run that is going on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Running {
    pub(crate) pid: i32,
    pub(crate) start_ticks: u64,
    pub(crate) supervisor_pid: i32,
    pub(crate) supervisor_start_ticks: u64,
    pub(crate) started_unix_nanos: i64,
}

impl Running {
    /// The container's first process.
    pub(crate) fn process(&self) -> Process {
        Process { pid: self.pid, start_ticks: self.start_ticks }
    }

    /// The process that waits for it.
    pub(crate) fn supervisor(&self) -> Process {
        Process { pid: self.supervisor_pid, start_ticks: self.supervisor_start_ticks }
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
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ended {
    pub(crate) exit_code: u8,
    pub(crate) oom_killed: bool,
    pub(crate) limit_hit: Option<LimitHit>,
    /// Why it could not be started, or what else went wrong.
    pub(crate) error: Option<String>,
    pub(crate) started_unix_nanos: i64,
    pub(crate) finished_unix_nanos: i64,
    pub(crate) peak_memory_bytes: Option<u64>,
    pub(crate) cpu_usec: Option<u64>,
    pub(crate) pids_refused: u64,
    pub(crate) fuel_used: Option<u64>,
}

/// Where a container is in its life.
#[derive(Debug, Clone)]
pub(crate) enum Status {
    Created,
    Running(Running),
    Stopped(Ended),
}

impl Status {
    /// Docker's word for it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running(_) => "running",
            Status::Stopped(_) => "exited",
        }
    }
}

/// All containers of one ROOT and RUNROOT.
pub(crate) struct Containers {
    paths: Paths,
    /// For what outlives a reboot.
    kept: Shelf,
    /// For what is removed when it ends.
    passing: Shelf,
}

/// One container.
pub(crate) struct Container {
    pub(crate) spec: RunSpec,
    /// Its records, and its lock.
    dir: PathBuf,
    /// What it writes, on disk; another folder than `dir` for what is removed when it ends.
    writable: PathBuf,
    running: PathBuf,
}

impl Containers {
    /// Nothing is made before the first container is.
    pub(crate) fn new(paths: &Paths) -> Self {
        let (kept, passing) = (Shelf::in_folder(&paths.root), Shelf::in_folder(&paths.runroot));
        Self { paths: paths.clone(), kept, passing }
    }

    fn shelves(&self) -> [&Shelf; 2] {
        [&self.passing, &self.kept]
    }

    /// The shelf of a container, and the other one.
    fn shelves_for(&self, spec: &RunSpec) -> (&Shelf, &Shelf) {
        if spec.auto_remove { (&self.passing, &self.kept) } else { (&self.kept, &self.passing) }
    }

    fn handle(&self, spec: RunSpec) -> Container {
        let dir = self.shelves_for(&spec).0.folder(&spec.id);
        let writable = if spec.auto_remove { self.paths.writable().join(&spec.id) } else { dir.clone() };
        let running = self.paths.running().join(format!("{}.json", spec.id));
        Container { spec, dir, writable, running }
    }

    /// Claims the name and writes the container down. The lock comes with it, so that nobody sees it half made.
    pub(crate) fn create(&self, spec: RunSpec) -> Result<(Container, Lock)> {
        let (shelf, other) = self.shelves_for(&spec);
        shelf.make()?;
        make_private_folder(&self.paths.running())?;
        let container = self.handle(spec);
        let lock = container.make_folder()?;
        let made = claim_name(&container.spec, shelf, other).and_then(|()| {
            write_json(&container.dir.join("spec.json"), &container.spec)
                .inspect_err(|_| _ = shelf.drop_name(&container.spec))
        });
        if made.is_err() {
            // Best effort: what cannot be removed here, `system prune` recognises.
            let _ = fs::remove_dir_all(&container.dir);
        }
        made.map(|()| (container, lock))
    }

    /// Whether a container has this name.
    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.shelves().iter().any(|shelf| shelf.owner(name).is_some())
    }

    /// Finds a container by name, id, or unique prefix of an id.
    pub(crate) fn find(&self, wanted: &str) -> Result<Container> {
        for id in self.shelves().iter().filter_map(|shelf| shelf.owner(wanted)) {
            if let Some(container) = self.load(&id)? {
                return Ok(container);
            }
        }
        let id = self.find_by_prefix(wanted)?;
        self.load(&id)?.ok_or_else(|| no_such(wanted))
    }

    fn find_by_prefix(&self, prefix: &str) -> Result<String> {
        let mut matching = self.ids()?.into_iter().filter(|id| !prefix.is_empty() && id.starts_with(prefix));
        let first = matching.next().ok_or_else(|| no_such(prefix))?;
        match matching.next() {
            None => Ok(first),
            Some(_) => bail!("{prefix} matches more than one container id; give more digits, or a name"),
        }
    }

    /// All containers, newest first. Folders that are not (yet) containers are passed over, and so are those whose record
    /// is damaged: [`Self::check`] names them, and the other containers can still be used.
    pub(crate) fn list(&self) -> Result<Vec<Container>> {
        let mut all = Vec::new();
        for id in self.ids()? {
            all.extend(self.load(&id).ok().flatten());
        }
        all.sort_by_key(|container| std::cmp::Reverse(container.spec.created_unix_nanos));
        Ok(all)
    }

    /// The ids of all containers, half-made ones too.
    pub(crate) fn ids(&self) -> Result<Vec<String>> {
        Ok([self.passing.ids()?, self.kept.ids()?].concat())
    }

    /// The container of an id; None if its folder has no spec.
    pub(crate) fn load(&self, id: &str) -> Result<Option<Container>> {
        for shelf in self.shelves() {
            if let Some(spec) = read_json::<RunSpec>(&shelf.folder(id).join("spec.json"))? {
                return Ok(Some(self.handle(spec)));
            }
        }
        Ok(None)
    }

    /// Removes everything of a container, with `--rm` its unnamed volumes too. The caller holds its lock.
    pub(crate) fn delete(&self, container: &Container) -> Result<()> {
        container.forget_running()?;
        if container.spec.auto_remove {
            Volumes::new(&self.paths).remove_unnamed_of(container)?;
        }
        // The name first: as long as it leads here, nobody else can have it, so it is ours to remove.
        self.shelves_for(&container.spec).0.drop_name(&container.spec)?;
        if container.writable != container.dir {
            remove_folder(&container.writable)?;
        }
        remove_folder(&container.dir)
    }

    /// What killed processes left behind, each with a sentence; removed when `remove`.
    pub(crate) fn check(&self, remove: bool) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for shelf in self.shelves() {
            for id in shelf.ids()? {
                self.check_folder(shelf, &id, remove, &mut found)?;
            }
            shelf.check_names(remove, &mut found)?;
        }
        self.check_writable(remove, &mut found)?;
        self.check_records(remove, &mut found)?;
        Ok(found)
    }

    fn check_folder(&self, shelf: &Shelf, id: &str, remove: bool, found: &mut Vec<String>) -> Result<()> {
        let dir = shelf.folder(id);
        let Some(_lock) = try_lock(&dir)? else { return Ok(()) };
        let (container, what) = match self.load(id) {
            Err(_) => (None, "container with a damaged record"),
            Ok(None) => (None, "half-made container"),
            Ok(Some(container)) if container.is_abandoned() => (Some(container), "container of a killed run with --rm"),
            Ok(Some(_)) => return Ok(()),
        };
        found.push(format!("{what}: {}", dir.display()));
        match (remove, container) {
            (true, Some(container)) => self.delete(&container),
            (true, None) => remove_folder(&dir),
            (false, _) => Ok(()),
        }
    }

    /// What is written on disk belongs to a container that is removed when it ends, until a reboot forgets that one.
    fn check_writable(&self, remove: bool, found: &mut Vec<String>) -> Result<()> {
        for folder in folder_entries(&self.paths.writable())? {
            let id = folder.file_name().unwrap_or_default();
            // Looked at once more, as a container takes its own folder with it.
            if self.passing.folder(id).exists() || !folder.exists() {
                continue;
            }
            found.push(format!("writable layer without a container: {}", folder.display()));
            if remove {
                remove_folder(&folder)?;
            }
        }
        Ok(())
    }

    fn check_records(&self, remove: bool, found: &mut Vec<String>) -> Result<()> {
        for record in folder_entries(&self.paths.running())? {
            if is_half_written(&record) {
                found.push(format!("half-written record: {}", record.display()));
                remove_if(remove, &record)?;
                continue;
            }
            let Ok(Some(running)) = read_json::<Running>(&record) else { continue };
            if running.process().is_alive() || running.supervisor().is_alive() {
                continue;
            }
            found.push(format!("record of a run whose processes are gone: {}", record.display()));
            if remove {
                self.settle(&record)?;
            }
        }
        Ok(())
    }

    /// Turns the record of a killed run into an end, so that the container stays listed with the reason.
    fn settle(&self, record: &Path) -> Result<()> {
        let id = record.file_stem().unwrap_or_default().to_string_lossy();
        if let Some(container) = self.load(&id)?
            && let Status::Stopped(ended) = container.status()?
        {
            container.write_ended(&ended)?;
        }
        remove_if(record.exists(), record)
    }
}

impl Container {
    /// Whether it has not been removed.
    pub(crate) fn exists(&self) -> bool {
        self.dir.exists()
    }

    /// The folder on disk for what it writes; made if need be.
    pub(crate) fn writable(&self) -> Result<&Path> {
        if self.writable != self.dir {
            make_private_folder(&self.writable)?;
        }
        Ok(&self.writable)
    }

    /// The log of its output; [`Self::writable`] makes the folder for it.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.writable.join("log")
    }

    /// Between the two calls `system prune` may take the folder for one that a killed command left: then once more.
    fn make_folder(&self) -> Result<Lock> {
        for _ in 0..8 {
            fs::create_dir(&self.dir).with_context(|| format!("cannot make {}", self.dir.display()))?;
            if let Ok(lock) = self.lock() {
                return Ok(lock);
            }
        }
        bail!("{} is removed as soon as it is made", self.dir.display())
    }

    /// Waits for the lock. Whoever had it may have removed the container meanwhile: then there is none.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let lock = lock_dir(&self.dir, FlockArg::LockExclusive)?;
        lock.filter(|_| self.dir.exists()).ok_or_else(|| no_such(&self.spec.name))
    }

    /// The lock; None if somebody else has it, or the container is gone.
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>> {
        try_lock(&self.dir)
    }

    /// Where it is in its life, from the records and the processes themselves.
    pub(crate) fn status(&self) -> Result<Status> {
        if let Some(running) = read_json::<Running>(&self.running)? {
            if running.process().is_alive() || running.supervisor().is_alive() {
                return Ok(Status::Running(running));
            }
            // The supervisor removes the record after it has written the end: read again, in that order.
            return Ok(Status::Stopped(
                self.ended()?.filter(|e| e.started_unix_nanos == running.started_unix_nanos).unwrap_or_else(|| Ended {
                    exit_code: 137,
                    error: Some("its supervisor was killed, and the container with it".into()),
                    started_unix_nanos: running.started_unix_nanos,
                    finished_unix_nanos: running.started_unix_nanos,
                    ..Ended::default()
                }),
            ));
        }
        Ok(self.ended()?.map_or(Status::Created, Status::Stopped))
    }

    fn ended(&self) -> Result<Option<Ended>> {
        read_json(&self.dir.join("ended.json"))
    }

    /// A `--rm` container whose processes are all gone.
    fn is_abandoned(&self) -> bool {
        self.spec.auto_remove && !matches!(self.status(), Ok(Status::Running(_)) | Err(_))
    }

    /// Notes the run that has begun.
    pub(crate) fn write_running(&self, running: &Running) -> Result<()> {
        write_json(&self.running, running)
    }

    /// Notes how the run ended, then that there is none.
    pub(crate) fn write_ended(&self, ended: &Ended) -> Result<()> {
        write_json(&self.dir.join("ended.json"), ended)?;
        self.forget_running()
    }

    fn forget_running(&self) -> Result<()> {
        match fs::remove_file(&self.running) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.running.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Two commands that claim a name on different shelves may both find it taken, but never both get it.
fn claim_name(spec: &RunSpec, shelf: &Shelf, other: &Shelf) -> Result<()> {
    let owner = match shelf.claim_name(spec)? {
        None => other.living_owner(&spec.name)?.inspect(|_| _ = shelf.drop_name(spec)),
        taken => taken,
    };
    let Some(owner) = owner else { return Ok(()) };
    bail!(
        "the container name \"{0}\" is taken by container {1}; remove it (amphora rm {0}) or choose another name",
        spec.name,
        names::short_id(&owner)
    )
}

/// Removes a folder with all that is in it; gone already is fine.
fn remove_folder(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

fn no_such(wanted: &str) -> anyhow::Error {
    anyhow!("no such container: {wanted} (amphora ps -a lists them)")
}
