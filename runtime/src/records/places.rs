//! Whether what lies in ROOT and RUNROOT can only be what amphora put there.
//!
//! Records name processes that are killed, images that are run, and files that are deleted; whoever can write there commands whoever
//! uses it. `$XDG_RUNTIME_DIR`, `--root` and `--runroot` are words of the caller's, and of whoever set the environment. So before
//! anything is read: every folder of ours belongs to this user and nobody else can write to it, and nobody else can put another in
//! its place.

use std::{
    collections::HashSet,
    fs::{self, DirBuilder, Metadata},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::unistd::{getegid, geteuid};

use crate::records::paths::Paths;

/// Folders in ROOT and in RUNROOT.
const OF_ROOT: [&str; 9] =
    ["image-layout", "layers", "verified", "compiled", "containers", "names", "writable", "volumes", "networks"];
const OF_RUNROOT: [&str; 3] = ["running", "containers", "names"];

/// Checks all folders that are there.
///
/// # Errors
/// One belongs to somebody else, or can be written to or replaced by somebody else.
pub(crate) fn check(paths: &Paths) -> Result<()> {
    let mut seen = HashSet::new();
    for (flag, place, folders) in
        [("--root", &paths.root, OF_ROOT.as_slice()), ("--runroot", &paths.runroot, OF_RUNROOT.as_slice())]
    {
        check_place(place, folders, &mut seen)
            .with_context(|| format!("cannot use {} ({flag} chooses another place)", place.display()))?;
    }
    Ok(())
}

/// `seen`: folders above that were checked for another place.
fn check_place(place: &Path, folders: &[&str], seen: &mut HashSet<PathBuf>) -> Result<()> {
    // What it leads to, where it is a link, and all that is above that.
    let Some(real) = find(place)? else {
        // It could not be made; whoever needs it says why. What is there is trusted no more for that.
        let above = place.ancestors().skip(1).find_map(|above| fs::canonicalize(above).ok());
        return above.map_or(Ok(()), |above| above.ancestors().try_for_each(check_above));
    };
    check_own(&real)?;
    real.ancestors().skip(1).filter(|above| seen.insert((*above).to_owned())).try_for_each(check_above)?;
    folders.iter().try_for_each(|name| check_own(&real.join(name)))
}

/// Where a place is, made if it is missing, before it is looked at: what somebody else makes meanwhile is his, and is seen to be.
fn find(place: &Path) -> Result<Option<PathBuf>> {
    let look = || match fs::canonicalize(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some).context("it cannot be found"),
    };
    match look()? {
        Some(real) => Ok(Some(real)),
        None if DirBuilder::new().mode(0o700).recursive(true).create(place).is_err() => Ok(None),
        None => look(),
    }
}

/// A folder of ours; missing is fine.
fn check_own(folder: &Path) -> Result<()> {
    let Some(found) = look_at(folder)? else { return Ok(()) };
    let user = geteuid();
    if !found.is_dir() {
        bail!("{} is not a folder", folder.display());
    }
    if found.uid() != user.as_raw() {
        bail!(
            "{} belongs to user {}, and this is user {user}, who would have to trust what is written there",
            folder.display(),
            found.uid()
        );
    }
    if found.mode() & 0o022 != 0 {
        bail!(
            "{0} can be written to by others (mode {1:04o}), who could put anything there: chmod go-w {0}",
            folder.display(),
            found.mode() & 0o7777
        );
    }
    Ok(())
}

/// A folder that one of ours lies in: who may rename in it may put another in its place. In one with the sticky bit only owners may.
fn check_above(folder: &Path) -> Result<()> {
    let Some(found) = look_at(folder)? else { return Ok(()) };
    let is_sticky = found.mode() & 0o1000 != 0;
    // Many users have a group of their own, and folders that it may write to.
    let own_group = [0, getegid().as_raw()].contains(&found.gid());
    let others_write = found.mode() & 0o002 != 0 || (found.mode() & 0o020 != 0 && !own_group);
    let anybody_renames = others_write && !is_sticky;
    if anybody_renames || !is_trusted(found.uid()) {
        bail!(
            "{} (mode {:04o}, of user {}) lets others put something else in its place",
            folder.display(),
            found.mode() & 0o7777,
            found.uid()
        );
    }
    Ok(())
}

/// This user, root, and in a user namespace whoever has no number in it, as the host's root has none.
fn is_trusted(uid: u32) -> bool {
    const OVERFLOW: u32 = 65_534;
    uid == 0 || uid == geteuid().as_raw() || (uid == OVERFLOW && linux_exec::userns::is_inside())
}

/// Without following a link; None if there is nothing.
fn look_at(path: &Path) -> Result<Option<Metadata>> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some).with_context(|| format!("cannot look at {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// Planted records made `rm -f` kill any process of the host.
    #[test]
    fn a_place_that_others_can_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (root, runroot) = (folder.path().join("root"), folder.path().join("run"));
        let paths = Paths { root: root.clone(), runroot: runroot.clone() };
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        check(&paths).unwrap();
        assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o700);
        fs::create_dir_all(root.join("volumes")).unwrap();
        fs::create_dir_all(runroot.join("running")).unwrap();
        for path in [&root, &runroot, &root.join("volumes"), &runroot.join("running")] {
            for bad in [0o777, 0o1777, 0o775, 0o720] {
                mode(path, bad);
                let error = format!("{:#}", check(&paths).unwrap_err());
                assert!(error.contains("can be written to by others"), "{error}");
            }
            mode(path, 0o755);
            check(&paths).unwrap();
        }
        if geteuid().is_root() {
            mode(folder.path(), 0o770);
            nix::unistd::chown(folder.path(), None, Some(nix::unistd::Gid::from_raw(5))).unwrap();
            assert!(format!("{:#}", check(&paths).unwrap_err()).contains("in its place"));
        }
        mode(folder.path(), 0o757);
        assert!(format!("{:#}", check(&paths).unwrap_err()).contains("in its place"));
        mode(folder.path(), 0o1757);
        check(&paths).unwrap();
        // A link in place of one of ours leads to what nobody has looked at.
        fs::remove_dir(runroot.join("running")).unwrap();
        symlink("/tmp", runroot.join("running")).unwrap();
        assert!(format!("{:#}", check(&paths).unwrap_err()).contains("is not a folder"));
    }
}
