//! Containers on disk.
//!
//! ```text
//! ROOT/containers/ID/spec.json   what it is to be; the container exists when this file does
//!                    ended.json  how the last run ended
//!                    log         its output, if it is kept
//!                    upper/ work/  the writable layer
//! ROOT/names/NAME -> ID          claims a name: symlink(2) fails if it is taken
//! RUNROOT/running/ID.json        the run that is going on: pids and their start times
//! ```
//!
//! Locking: `start`, `rm` and the end of a run hold flock(2) on `containers/ID` itself. Every file appears by rename.
//! A record of a run whose processes are gone is recognised by pid and start time and counts as ended.

use std::{
    fs,
    io::{self, ErrorKind},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use linux_exec::process::Process;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{mounts::MountKind, names, spec::RunSpec};

/// Where everything lies.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// What outlives a reboot.
    pub(crate) root: PathBuf,
    /// What does not.
    pub(crate) runroot: PathBuf,
}

impl Paths {
    fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    fn running(&self) -> PathBuf {
        self.runroot.join("running")
    }

    /// Compiled Wasm programs.
    pub(crate) fn compiled(&self) -> PathBuf {
        self.root.join("compiled")
    }

    /// Named volumes.
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

/// All containers of one ROOT.
pub(crate) struct Containers {
    paths: Paths,
}

/// One container.
pub(crate) struct Container {
    pub(crate) spec: RunSpec,
    dir: PathBuf,
    running: PathBuf,
}

/// The lock of one container; released when dropped.
pub(crate) type Lock = Flock<OwnedFd>;

impl Containers {
    /// Nothing is made before the first container is.
    pub(crate) fn new(paths: &Paths) -> Self {
        Self { paths: paths.clone() }
    }

    fn handle(&self, spec: RunSpec) -> Container {
        let dir = self.paths.containers().join(&spec.id);
        let running = self.paths.running().join(format!("{}.json", spec.id));
        Container { spec, dir, running }
    }

    /// Claims the name and writes the container down. The lock comes with it, so that nobody sees it half made.
    pub(crate) fn create(&self, spec: RunSpec) -> Result<(Container, Lock)> {
        make_folders(&[&self.paths.containers(), &self.paths.names(), &self.paths.running()])?;
        let container = self.handle(spec);
        let lock = container.make_folder()?;
        let made = self.claim_name(&container.spec).and_then(|()| {
            write_json(&container.dir.join("spec.json"), &container.spec)
                .inspect_err(|_| self.drop_name(&container.spec))
        });
        if made.is_err() {
            // Best effort: what cannot be removed here, `system prune` recognises.
            let _ = fs::remove_dir_all(&container.dir);
        }
        made.map(|()| (container, lock))
    }

    /// The folder that the link leads to is there and locked by now: a link to none, or to one that nobody holds and that
    /// has no spec, was left by a killed command and is taken over, by one command at a time.
    fn claim_name(&self, spec: &RunSpec) -> Result<()> {
        if self.link_name(spec)? {
            return Ok(());
        }
        let _one_at_a_time = lock_dir(&self.paths.names(), FlockArg::LockExclusive)?;
        let link = self.paths.names().join(&spec.name);
        let owner = fs::read_link(&link).unwrap_or_default();
        if self.is_dead(&owner)? {
            // Gone already is fine: then the link is free, or somebody else's.
            let _ = fs::remove_file(&link);
            if self.link_name(spec)? {
                return Ok(());
            }
        }
        let short: String = owner.to_string_lossy().chars().take(12).collect();
        bail!(
            "the container name \"{}\" is taken by container {short}; remove it (amphora rm {0}) or choose another name",
            spec.name
        )
    }

    /// False if the name is taken.
    fn link_name(&self, spec: &RunSpec) -> Result<bool> {
        let link = self.paths.names().join(&spec.name);
        match std::os::unix::fs::symlink(&spec.id, &link) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot make {}", link.display())),
        }
    }

    /// Best effort: a link to nothing is taken over by whoever wants the name.
    fn drop_name(&self, spec: &RunSpec) {
        let _ = fs::remove_file(self.paths.names().join(&spec.name));
    }

    /// Whether nobody makes or has made the container of this id.
    fn is_dead(&self, id: &Path) -> Result<bool> {
        let dir = self.paths.containers().join(id);
        if !dir.exists() {
            return Ok(true);
        }
        Ok(try_lock(&dir)?.is_some() && !dir.join("spec.json").exists())
    }

    /// Whether a container has this name.
    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.paths.names().join(name).symlink_metadata().is_ok()
    }

    /// Finds a container by name, id, or unique prefix of an id.
    pub(crate) fn find(&self, wanted: &str) -> Result<Container> {
        let id = match fs::read_link(self.paths.names().join(wanted)) {
            Ok(id) if !wanted.is_empty() && !wanted.contains('/') => id.to_string_lossy().into_owned(),
            _ => self.find_by_prefix(wanted)?,
        };
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

    /// Names of the folders under `containers/`.
    pub(crate) fn ids(&self) -> Result<Vec<String>> {
        let dir = self.paths.containers();
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.with_context(|| format!("cannot list {}", dir.display()))?,
        };
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }

    /// The container of an id; None if its folder has no spec.
    pub(crate) fn load(&self, id: &str) -> Result<Option<Container>> {
        let path = self.paths.containers().join(id).join("spec.json");
        Ok(read_json::<RunSpec>(&path)?.map(|spec| self.handle(spec)))
    }

    /// What killed processes left behind, each with a sentence; removed when `remove`.
    pub(crate) fn check(&self, remove: bool) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for id in self.ids()? {
            self.check_folder(&id, remove, &mut found)?;
        }
        self.check_links(&self.paths.names(), remove, &mut found)?;
        self.check_records(remove, &mut found)?;
        Ok(found)
    }

    fn check_folder(&self, id: &str, remove: bool, found: &mut Vec<String>) -> Result<()> {
        let dir = self.paths.containers().join(id);
        let Some(_lock) = try_lock(&dir)? else { return Ok(()) };
        let (container, what) = match self.load(id) {
            Err(_) => (None, "container with a damaged record"),
            Ok(None) => (None, "half-made container"),
            Ok(Some(container)) if container.is_abandoned() => (Some(container), "container of a killed run with --rm"),
            Ok(Some(_)) => return Ok(()),
        };
        found.push(format!("{what}: {}", dir.display()));
        match (remove, container) {
            (true, Some(container)) => container.delete(&self.paths),
            (true, None) => fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display())),
            (false, _) => Ok(()),
        }
    }

    fn check_links(&self, names: &Path, remove: bool, found: &mut Vec<String>) -> Result<()> {
        for link in folder_entries(names)? {
            let owner = fs::read_link(&link).unwrap_or_default();
            if !self.paths.containers().join(owner).exists() {
                found.push(format!("name without a container: {}", link.display()));
                remove_if(remove, &link)?;
            }
        }
        Ok(())
    }

    fn check_records(&self, remove: bool, found: &mut Vec<String>) -> Result<()> {
        for record in folder_entries(&self.paths.running())? {
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
    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The log of its output.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.dir.join("log")
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

    /// Removes the volumes that have no name but the one that this container gave them.
    pub(crate) fn delete_anonymous_volumes(&self, paths: &Paths) -> Result<()> {
        for mount in &self.spec.mounts {
            let MountKind::Volume { name: Some(name), .. } = &mount.kind else { continue };
            let dir = paths.volumes().join(name);
            if names::is_id(name) && dir.exists() {
                fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
            }
        }
        Ok(())
    }

    /// Removes everything of it, with `--rm` its anonymous volumes too.
    pub(crate) fn delete(&self, paths: &Paths) -> Result<()> {
        self.forget_running()?;
        if self.spec.auto_remove {
            self.delete_anonymous_volumes(paths)?;
        }
        // The name first: as long as it leads here, nobody else can have it, so it is ours to remove.
        let link = paths.names().join(&self.spec.name);
        if fs::read_link(&link).is_ok_and(|id| id.as_os_str() == self.spec.id.as_str()) {
            remove_if(true, &link)?;
        }
        fs::remove_dir_all(&self.dir).with_context(|| format!("cannot remove {}", self.dir.display()))
    }
}

fn no_such(wanted: &str) -> anyhow::Error {
    anyhow!("no such container: {wanted} (amphora ps -a lists them)")
}

fn make_folders(folders: &[&Path]) -> Result<()> {
    folders.iter().try_for_each(|dir| match fs::create_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
        }
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot make {}", dir.display()))
        }
        _ => Ok(()),
    })
}

fn folder_entries(dir: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        other => {
            let entries = other.with_context(|| format!("cannot list {}", dir.display()))?;
            Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        }
    }
}

fn remove_if(really: bool, path: &Path) -> Result<()> {
    match really.then(|| fs::remove_file(path)) {
        // Another command may clean up at the same time.
        Some(Err(error)) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn try_lock(dir: &Path) -> Result<Option<Lock>> {
    lock_dir(dir, FlockArg::LockExclusiveNonblock)
}

/// None: the folder is gone, or (non-blocking) somebody else has the lock.
fn lock_dir(dir: &Path, how: FlockArg) -> Result<Option<Lock>> {
    let file = match fs::File::open(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("cannot open {}", dir.display()))?,
    };
    match Flock::lock(OwnedFd::from(file), how) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(io::Error::from(errno)).with_context(|| format!("cannot lock {}", dir.display())),
    }
}

/// Writes to a temporary name beside it, then renames.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let write = || -> io::Result<()> {
        fs::write(&temporary, serde_json::to_vec(value)?)?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| _ = fs::remove_file(&temporary)).with_context(|| format!("cannot write {}", path.display()))
}

/// None if there is no such file.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).with_context(|| {
            format!("{} is damaged; amphora system prune removes the container it belongs to", path.display())
        }),
    }
}
