//! Containers and their records.
//!
//! ```text
//! ROOT/containers/ID/spec.json     what it is to be; the container exists when this file does; locked while it runs
//!                    run.lock      the file that is locked instead, once spec.json was replaced (see [`revise`])
//!                    ended.json    how the last run ended; as long as it runs, how it will have ended if nobody can say it
//!                    log           its output, if it is kept
//!                    networks.answer   a FIFO, while it is connected to a network
//!                    upper/ work/  the writable layer
//! ROOT/names/NAME -> ID            claims a name: symlink(2) fails if it is taken
//! RUNROOT/running/ID.json          the run that is going on: pids and their start times, then its end (see [`record`])
//!
//! RUNROOT/containers/ID/spec.json  with --rm: it goes when it ends, and at a reboot
//! RUNROOT/names/NAME -> ID
//! ROOT/writable/ID/                with --rm, where needed: log, upper/, work/, which can be large
//! ```
//!
//! Locking: `start`, `rm` and the end of a run hold flock(2) on `containers/ID` itself; who makes a folder holds
//! `containers` too, shared, until he has that one. A supervisor holds `spec.json` as long as the container runs: what runs
//! is never removed, whatever became of its other records. Every file appears by rename.
//! A record of a run whose processes are gone is recognised by pid and start time and counts as ended.
//!
//! A container with `--rm` is in no record of ROOT. As long as a process of amphora's runs it, that process holds what it uses of
//! ROOT ([`images::holds`]): its image, its volumes, its writable layer, its name. So it is seen by who has another RUNROOT.
//!
//! What this version cannot read is named and spared ([`unreadable`]): only `rm -f` removes it.

mod between;
mod engine;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod health;
mod held;
mod record;
mod revise;
mod shelf;
mod status;
mod unreadable;

use std::{
    cell::RefCell,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use images::holds::Holds;

pub(crate) use engine::EngineRecord;
pub(crate) use files::{Lock, make_private_folder};
pub(crate) use health::{Check, HealthFound, HealthStatus};
pub(crate) use held::VOLUME;
pub(crate) use record::{Ended, LimitHit, Mark, RunFound, RunRecord, Running, read_json, write_json};
pub(crate) use status::Status;
pub(crate) use unreadable::Unreadable;

use crate::{
    records::{
        events::{Event, EventLog},
        paths::Paths,
        volumes::Volumes,
    },
    spec::{FORMAT, RunSpec, exit_code, names},
};
use files::{folder_entries, is_there, lock_alone, remove_folder, remove_if, try_lock};
use record::is_half_written;
use shelf::Shelf;

/// Why a name leads to no container.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    /// None has it.
    #[error("no such container: {0} (amphora ps -a lists them)")]
    NoSuch(String),
    /// Several have an id that begins with it.
    #[error("{0} matches more than one container id; give more digits, or a name")]
    Ambiguous(String),
    /// There is one, but what it is to be cannot be read.
    #[error(transparent)]
    Unreadable(Box<Unreadable>),
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
    /// Where what happens to it is told.
    events: EventLog,
    /// What it uses of ROOT, while it is in no record there: see [`Containers::hold`].
    held: RefCell<Option<Holds>>,
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
        let events = EventLog::in_folder(&self.paths.runroot);
        Container { spec, dir, writable, running, events, held: RefCell::default() }
    }

    /// Claims the name and writes the container down. The lock comes with it, so that nobody sees it half made.
    pub(crate) fn create(&self, spec: RunSpec) -> Result<(Container, Lock)> {
        let (shelf, other) = self.shelves_for(&spec);
        shelf.make()?;
        make_private_folder(&self.paths.running())?;
        let container = self.handle(spec);
        self.hold(&container)?;
        let lock = container.make_folder(shelf)?;
        let made = claim_name(&container.spec, shelf, other).and_then(|()| {
            self.refuse_held_name(&container).inspect_err(|_| _ = shelf.drop_name(&container.spec))?;
            write_json(&container.dir.join("spec.json"), &container.spec)
                .inspect_err(|_| _ = shelf.drop_name(&container.spec))
        });
        if made.is_err() {
            container.unmake_folder();
        }
        made.map(|()| (container, lock))
    }

    /// Whether a container has this name.
    pub(crate) fn has_name(&self, name: &str) -> Result<bool> {
        Ok(self.passing.owner(name)?.or(self.kept.owner(name)?).is_some())
    }

    /// Finds a container by name, id, or unique prefix of an id.
    ///
    /// # Errors
    /// A [`FindError`], or what kept the records from being looked at.
    pub(crate) fn find(&self, wanted: &str) -> Result<Container> {
        for shelf in self.shelves() {
            let Some(id) = shelf.owner(wanted)? else { continue };
            if let Some(container) = self.load_or_name(&id)? {
                return Ok(container);
            }
        }
        let id = self.find_by_prefix(wanted)?;
        self.load_or_name(&id)?.ok_or_else(|| no_such(wanted))
    }

    fn find_by_prefix(&self, prefix: &str) -> Result<String> {
        let mut matching = self.ids()?.into_iter().filter(|id| !prefix.is_empty() && id.starts_with(prefix));
        let first = matching.next().ok_or_else(|| no_such(prefix))?;
        match matching.next() {
            None => Ok(first),
            Some(_) => Err(FindError::Ambiguous(prefix.to_owned()).into()),
        }
    }

    fn load_or_name(&self, id: &str) -> Result<Option<Container>> {
        self.load(id).map_err(|error| FindError::Unreadable(Box::new(self.name_unreadable(id, &error))).into())
    }

    /// All containers, newest first, and those that cannot be read. Folders that are not (yet) containers are passed over.
    pub(crate) fn list(&self) -> Result<(Vec<Container>, Vec<Unreadable>)> {
        let (mut all, mut unreadable) = (Vec::new(), Vec::new());
        for id in self.ids()? {
            match self.load(&id) {
                Ok(found) => all.extend(found),
                Err(error) => unreadable.push(self.name_unreadable(&id, &error)),
            }
        }
        all.sort_by_key(|container| std::cmp::Reverse(container.spec.created_unix_nanos));
        Ok((all, unreadable))
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
        if container.spec.auto_remove {
            Volumes::new(&self.paths).remove_unnamed_of(&container.spec)?;
        }
        // The name first: as long as it leads here, nobody else can have it, so it is ours to remove.
        self.shelves_for(&container.spec).0.drop_name(&container.spec)?;
        if container.writable != container.dir {
            remove_folder(&container.writable)?;
        }
        // Before anybody sees that it is gone, who may then remove its image, or use its name.
        drop(container.held.take());
        remove_folder(&container.dir)?;
        // Last: as long as something of it is there, its end is too.
        container.forget_running()
    }

    /// What killed processes left behind, each with a sentence; removed when `remove`.
    pub(crate) fn check(&self, remove: bool) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for shelf in self.shelves() {
            for id in shelf.ids()? {
                match self.load(&id) {
                    Ok(Some(container)) => self.check_container(&container, remove, &mut found)?,
                    Ok(None) => check_half_made(shelf, &id, remove, &mut found)?,
                    // Not left behind by anybody, for all that can be said: spared.
                    Err(_) => {}
                }
            }
            shelf.check_names(remove, &mut found)?;
        }
        self.check_writable(remove, &mut found)?;
        self.check_records(remove, &mut found)?;
        Ok(found)
    }

    fn check_container(&self, container: &Container, remove: bool, found: &mut Vec<String>) -> Result<()> {
        let Some(_lock) = container.try_lock()? else { return Ok(()) };
        if !container.is_abandoned() {
            return Ok(());
        }
        found.push(format!("container with --rm that has ended and is still there: {}", container.dir.display()));
        if remove { self.delete(container) } else { Ok(()) }
    }

    fn check_records(&self, remove: bool, found: &mut Vec<String>) -> Result<()> {
        for record in folder_entries(&self.paths.running())? {
            if is_half_written(&record) {
                found.push(format!("half-written record: {}", record.display()));
                remove_if(remove, &record)?;
                continue;
            }
            if health::check(&record, remove, found)? {
                continue;
            }
            let Ok(Some(run)) = RunFound::open(&record) else { continue };
            if run.is_going_on()? {
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
        remove_if(true, record)
    }
}

fn check_half_made(shelf: &Shelf, id: &str, remove: bool, found: &mut Vec<String>) -> Result<()> {
    let dir = shelf.folder(id);
    // Between the two calls that make and lock it, a folder is nobody's: then its maker holds the shelf.
    let _nobody_makes = shelf.nobody_makes()?;
    let Some(_lock) = try_lock(&dir)? else { return Ok(()) };
    if is_there(&dir.join("spec.json"))? {
        return Ok(());
    }
    found.push(format!("half-made container: {}", dir.display()));
    if remove { remove_folder(&dir) } else { Ok(()) }
}

impl Container {
    /// Whether it has not been removed.
    pub(crate) fn exists(&self) -> Result<bool> {
        is_there(&self.dir)
    }

    /// The format of its record, if that is of a newer version, which may have meant more by it than is known here.
    pub(crate) fn newer_format(&self) -> Option<u32> {
        Some(self.spec.format).filter(|&format| format > FORMAT)
    }

    /// Tells that something happened to it, in Docker's word.
    pub(crate) fn happened(&self, action: &str) {
        self.events.note(&[Event::of_container(&self.spec, action)]);
    }

    /// The same with more to tell.
    pub(crate) fn note(&self, events: &[Event]) {
        self.events.note(events);
    }

    /// The folder on disk for what it writes; made if need be.
    pub(crate) fn writable(&self) -> Result<&Path> {
        if self.writable != self.dir {
            make_private_folder(&self.writable)?;
        }
        Ok(&self.writable)
    }

    /// Where its supervisor answers who changes the networks that it is on.
    pub(crate) fn answer_path(&self) -> PathBuf {
        self.dir.join("networks.answer")
    }

    /// The log of its output; [`Self::writable`] makes the folder for it.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.writable.join("log")
    }

    /// The writable layer, which is there once it has run.
    pub(crate) fn upper_path(&self) -> PathBuf {
        self.writable.join("upper")
    }

    /// The same, if it is there.
    pub(crate) fn upper(&self) -> Result<Option<PathBuf>> {
        let upper = self.upper_path();
        let is_made = is_there(&upper).with_context(|| format!("container {}", self.spec.name))?;
        Ok(is_made.then_some(upper))
    }

    /// How large the files are together that it has written.
    pub(crate) fn written_bytes(&self) -> u64 {
        images::store::tree_size(&self.upper_path())
    }

    fn make_folder(&self, shelf: &Shelf) -> Result<Lock> {
        let _making = shelf.making()?;
        fs::create_dir(&self.dir).with_context(|| format!("cannot make {}", self.dir.display()))?;
        let lock = lock_alone(&self.dir).inspect_err(|_| self.unmake_folder())?;
        lock.with_context(|| format!("{} was removed as soon as it was made", self.dir.display()))
    }

    /// Takes no descriptor: there may be none left. What cannot be removed here, `system prune` recognises.
    fn unmake_folder(&self) {
        let _ = fs::remove_file(self.dir.join("spec.json"));
        let _ = fs::remove_dir(&self.dir);
    }

    /// Waits for the lock. Whoever had it may have removed the container meanwhile: then there is none.
    pub(crate) fn lock(&self) -> Result<Lock> {
        self.lock_if_there()?.ok_or_else(|| no_such(&self.spec.name))
    }

    /// The same; None if the container is gone.
    pub(crate) fn lock_if_there(&self) -> Result<Option<Lock>> {
        let Some(lock) = lock_alone(&self.dir)? else { return Ok(None) };
        Ok(self.exists()?.then_some(lock))
    }

    /// The lock that says that it runs, for its supervisor; None if somebody else has it.
    pub(crate) fn lock_run(&self) -> Result<Option<Lock>> {
        try_lock(&self.run_lock())
    }

    /// The lock; None if somebody else has it, or the container is gone.
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>> {
        try_lock(&self.dir)
    }

    /// The run that goes on, or whose end is nowhere but in this record.
    pub(crate) fn run(&self) -> Result<Option<RunFound>> {
        RunFound::open(&self.running)
    }

    /// How a run ended whose processes are gone.
    pub(crate) fn end_of(&self, run: &RunFound) -> Result<Ended> {
        let started_unix_nanos = run.running.started_unix_nanos;
        if let Some(ended) = run.ended()? {
            return Ok(ended);
        }
        // The supervisor removes the record after it has written the end: read again, in that order.
        let noted = self.ended()?.filter(|ended| !ended.presumed && ended.started_unix_nanos == started_unix_nanos);
        Ok(noted.unwrap_or_else(|| Ended {
            format: FORMAT,
            exit_code: exit_code::of_killed(),
            error: Some(
                "its supervisor was killed, so that nobody saw how the program ended; it is gone as well".into(),
            ),
            started_unix_nanos,
            finished_unix_nanos: started_unix_nanos,
            ..Ended::default()
        }))
    }

    fn ended(&self) -> Result<Option<Ended>> {
        read_json(&self.dir.join("ended.json"))
    }

    /// A `--rm` container whose processes are all gone.
    fn is_abandoned(&self) -> bool {
        self.spec.auto_remove
            && !self.status().map_or(true, |status| status.is_up())
            && matches!(self.lock_run(), Ok(Some(_)))
    }

    /// Notes the run that has begun.
    pub(crate) fn write_running(&self, running: &Running) -> Result<RunRecord> {
        RunRecord::create(&self.running, running)
    }

    /// Whether its last run's record is gone, as it has ended and that is written down.
    pub(crate) fn has_forgotten(&self, run: &RunFound) -> Result<bool> {
        Ok(self.run()?.is_none_or(|now| !now.running.is_same_run(&run.running)))
    }

    /// Writes beforehand how a run will have ended of which nobody can say it: so no older run's end stands for this one's.
    pub(crate) fn presume_end(&self, now_unix_nanos: i64) -> Result<()> {
        let ended = Ended {
            format: FORMAT,
            presumed: true,
            exit_code: exit_code::LOST,
            error: Some(
                "the machine was restarted, or RUNROOT removed, while it ran: how it ended is not known".into(),
            ),
            started_unix_nanos: now_unix_nanos,
            finished_unix_nanos: now_unix_nanos,
            ..Ended::default()
        };
        // A reboot removes the folder of the record that is written next.
        self.running.parent().map_or(Ok(()), make_private_folder)?;
        write_json(&self.dir.join("ended.json"), &ended)
    }

    /// Notes how the run ended, then that there is none.
    pub(crate) fn write_ended(&self, ended: &Ended) -> Result<()> {
        write_json(&self.dir.join("ended.json"), ended)?;
        self.forget_running()
    }

    /// Removes the record of its run.
    pub(crate) fn forget_running(&self) -> Result<()> {
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
        None => {
            let other = other.living_owner(&spec.name);
            if !matches!(other, Ok(None)) {
                // What cannot be given back leads to no container, and is recognised by that.
                let _ = shelf.drop_name(spec);
            }
            other?
        }
        taken => taken,
    };
    let Some(owner) = owner else { return Ok(()) };
    bail!(
        "the container name \"{0}\" is taken by container {1}; remove it (amphora rm {0}) or choose another name",
        spec.name,
        names::short_id(&owner)
    )
}

fn no_such(wanted: &str) -> anyhow::Error {
    FindError::NoSuch(wanted.to_owned()).into()
}
