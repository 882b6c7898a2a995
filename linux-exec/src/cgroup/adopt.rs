//! Groups that a container gets while it runs. Only on v1: there a container has no group in a hierarchy that nothing was asked of
//! when it started. On v2 its one group has what all controllers have.

use super::{CgroupError, Cgroups, Controller, Place, Resources, Tree, files};
use std::{collections::HashSet, fs, path::Path};

/// How often all processes are looked through for new ones; a child of one that was moved is in the new group already.
const ROUNDS: usize = 100;

impl Cgroups {
    /// Lets the container at a place be frozen, though it was made without that.
    ///
    /// # Errors
    /// It has no group at all, or can have none with a freezer; the reason is in the sentence.
    pub fn make_freezable(&self, place: &Place) -> Result<(), CgroupError> {
        let wanted =
            Resources { further: super::Further { freezable: true, ..Default::default() }, ..Default::default() };
        match &self.tree {
            Tree::V2(_) => Ok(()),
            Tree::V1(hierarchies) => hierarchies.adopt(place, &[Controller::Freezer], &wanted),
        }
    }
}

/// Moves all processes of one group into another, those too that are made meanwhile.
pub(super) fn move_all(from: &Path, to: &Path) -> Result<(), CgroupError> {
    let procs = to.join("cgroup.procs");
    for _ in 0..ROUNDS {
        let inside = processes(to)?;
        let outside: Vec<String> = processes(from)?.into_iter().filter(|pid| !inside.contains(pid)).collect();
        if outside.is_empty() {
            return Ok(());
        }
        for pid in outside {
            match files::write(&procs, &pid) {
                Err(error) if !has_ended(&error) => return Err(error),
                _ => {}
            }
        }
    }
    Err(CgroupError::Busy(from.to_owned()))
}

fn has_ended(error: &CgroupError) -> bool {
    matches!(error, CgroupError::File { source, .. } if source.raw_os_error() == Some(nix::libc::ESRCH))
}

fn processes(group: &Path) -> Result<HashSet<String>, CgroupError> {
    let path = group.join("cgroup.procs");
    let text = fs::read_to_string(&path).map_err(CgroupError::file("read", &path))?;
    Ok(text.lines().map(str::to_owned).collect())
}
