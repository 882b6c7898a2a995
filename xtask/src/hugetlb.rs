//! Frees the cgroup v2 tree of its last controller, which crun 1.8 wants of a hybrid machine.

use crate::command::{find, is_root};
use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount, umount};
use std::{fs, path::Path};

/// Where systemd and others put the v2 tree of a hybrid machine.
const V2_TREE: &str = "/sys/fs/cgroup/unified";
const V1_TREE: &str = "/sys/fs/cgroup/hugetlb";

/// Mounted here, and unmounted when dropped.
pub(crate) struct V1Hugetlb;

/// Mounts `hugetlb` as a v1 hierarchy if it is what keeps the v2 tree from being empty, says so, and gives what
/// undoes it.
pub(crate) fn move_to_v1() -> Result<Option<V1Hugetlb>> {
    let controllers = fs::read_to_string(Path::new(V2_TREE).join("cgroup.controllers")).unwrap_or_default();
    let is_wanted = controllers.trim() == "hugetlb" && find("crun").is_some() && is_root();
    if !is_wanted || has_children() || Path::new(V1_TREE).exists() {
        return Ok(None);
    }
    eprintln!("mounting the hugetlb controller at {V1_TREE} for crun, until the benchmark ends");
    fs::create_dir(V1_TREE).with_context(|| format!("cannot create {V1_TREE}"))?;
    let guard = V1Hugetlb;
    mount(Some("hugetlb"), V1_TREE, Some("cgroup"), MsFlags::empty(), Some("hugetlb"))
        .with_context(|| format!("cannot mount {V1_TREE}"))?;
    Ok(Some(guard))
}

/// A controller moves only out of a tree without groups.
fn has_children() -> bool {
    fs::read_dir(V2_TREE).is_ok_and(|entries| entries.flatten().any(|entry| entry.path().is_dir()))
}

/// A hierarchy with groups in it outlives its last mount: podman leaves two empty ones.
fn remove_groups(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove_groups(&entry.path());
        let _ = fs::remove_dir(entry.path());
    }
}

impl Drop for V1Hugetlb {
    fn drop(&mut self) {
        remove_groups(Path::new(V1_TREE));
        let undone = umount(V1_TREE).map_err(std::io::Error::from).and_then(|()| fs::remove_dir(V1_TREE));
        if let Err(error) = undone {
            eprintln!("cannot unmount {V1_TREE} again: {error}");
        }
    }
}
