//! Changes of what a container is to be: its name, its limits, what becomes of it when it ends.
//!
//! `spec.json` appears by rename as every record does, but its file is what a supervisor has locked while the container runs. So
//! before it is replaced for the first time, the old file gets a second name, `run.lock`, and from then on that one is locked. A
//! command that is killed in between leaves two names of one file, which is as good as one.
//!
//! A new name is claimed before the record has it, and the old one is given back last: a command that is killed in between leaves
//! a name too many, by which the container is found as well; once it leads nowhere it is free again.

use std::{borrow::Cow, fs, io::ErrorKind, path::PathBuf};

use anyhow::{Context, Result, bail};

use super::{
    Container, Containers, Lock, claim_name,
    files::{is_there, remove_if, try_lock},
    record::{Mark, RunFound, write_json},
};
use crate::spec::{RunSpec, names};

impl Containers {
    /// Gives a container another name. The caller holds its lock.
    pub(crate) fn rename(&self, container: &Container, lock: &Lock, name: &str) -> Result<()> {
        names::validate("container name", name)?;
        if container.spec.name == name {
            bail!("container {name} has that name already");
        }
        let spec = RunSpec { name: name.to_owned(), ..container.spec.clone() };
        let (shelf, other) = self.shelves_for(&spec);
        claim_name(&spec, shelf, other)?;
        let renamed = self.handle(spec);
        let revised = self
            .refuse_held_name(&renamed)
            .and_then(|()| container.revise(lock, &renamed.spec))
            .inspect_err(|_| _ = shelf.drop_name(&renamed.spec));
        revised?;
        shelf.drop_name(&container.spec)
    }

    /// What a container is to be by now. It costs one look where nobody has changed it.
    pub(crate) fn revised<'a>(&self, container: &'a Container) -> Cow<'a, RunSpec> {
        let is_changed = container.dir.join("run.lock").exists();
        let now = is_changed.then(|| self.reload(container));
        now.and_then(Result::ok).map_or(Cow::Borrowed(&container.spec), |now| Cow::Owned(now.spec))
    }

    /// The container as it is now, whoever changed it since it was looked up.
    pub(crate) fn reload(&self, container: &Container) -> Result<Container> {
        self.load(&container.spec.id)?.with_context(|| format!("no such container: {}", container.spec.name))
    }
}

impl Container {
    /// Writes down what it is to be from now on. What runs already is not changed by that.
    pub(crate) fn revise(&self, _lock: &Lock, spec: &RunSpec) -> Result<()> {
        let (record, lock) = (self.dir.join("spec.json"), self.dir.join("run.lock"));
        match fs::hard_link(&record, &lock) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot make {}", lock.display()));
            }
            _ => {}
        }
        write_json(&record, &RunSpec { revised: true, ..spec.clone() })
    }

    /// The lock that says that it runs, for who has read its record under the container's own lock, or has just written it.
    pub(crate) fn begin_run(&self) -> Result<Option<Lock>> {
        try_lock(&self.dir.join(if self.spec.revised { "run.lock" } else { "spec.json" }))
    }

    /// The file that is locked while it runs. Whoever looked it up before it was first changed has an older record.
    pub(super) fn run_lock(&self) -> PathBuf {
        let (record, lock) = (self.dir.join("spec.json"), self.dir.join("run.lock"));
        if self.spec.revised || lock.exists() { lock } else { record }
    }

    /// Sets a mark in the record of the run that goes on.
    pub(crate) fn mark(&self, run: &RunFound, mark: Mark, value: bool) -> Result<()> {
        run.mark(&self.running, mark, value)
    }

    /// Notes that its user wants it to end, before it does: then nobody starts it again, nor when the machine begins anew.
    pub(crate) fn note_halt(&self) -> Result<()> {
        // One with --rm is never started again.
        if self.spec.auto_remove {
            return Ok(());
        }
        let mark = self.halt_mark();
        let made = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&mark);
        match made {
            // It was removed meanwhile, so it does not run.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            made => made.map(drop).with_context(|| format!("cannot write {}", mark.display())),
        }
    }

    /// Its user wants it to run.
    pub(crate) fn forget_halt(&self) -> Result<()> {
        remove_if(true, &self.halt_mark())
    }

    /// Whether its user wants it to end, or wanted that last.
    pub(crate) fn is_halted(&self) -> Result<bool> {
        is_there(&self.halt_mark())
    }

    fn halt_mark(&self) -> PathBuf {
        self.dir.join("halt")
    }
}
