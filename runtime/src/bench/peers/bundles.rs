//! Those who are given a root file system.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::{Contender, Table, Way, id, strings};
use crate::bench::bundle;

impl Table<'_> {
    pub(super) fn bundle(&self) -> Result<String> {
        bundle::rootfs(self.material).map_err(anyhow::Error::msg)?;
        let ids = self.material.ids.context("the image names its user by name, and a bundle takes numbers")?;
        let is_root = nix::unistd::geteuid().is_root();
        if !is_root && ids != [0, 0] {
            bail!("an ordinary user's bundle has one id, and the image wants another user");
        }
        Ok(bundle::write(self.material, ids)?.display().to_string())
    }

    /// Those who are called as runc is.
    fn oci(&self, name: &str, globals: &[&[&str]], path: &str) -> Result<Vec<Contender>> {
        let (bundle, id) = (self.bundle()?, id());
        let state = self.stage.state_of(name);
        let base = [path, "--root", state.as_str()];
        let ways = globals.iter().map(|flags| {
            let run = ["run", "--bundle", bundle.as_str(), id.as_str()];
            let note =
                (flags.len() > globals[0].len()).then_some("without a cgroup, as it refuses the ones of this machine");
            Way { words: strings(&[&base, *flags, &run].concat()), note }
        });
        let undo = strings(&[&base[..], &["delete", "--force", &id]].concat());
        Ok(self.both(name, ways.collect(), Some(undo), self.material.folder.clone()))
    }

    pub(super) fn crun(&self, path: &str) -> Result<Vec<Contender>> {
        self.oci("crun", &[&[], &["--cgroup-manager=disabled"]], path)
    }

    pub(super) fn runc(&self, path: &str) -> Result<Vec<Contender>> {
        self.oci("runc", &[&[]], path)
    }

    pub(super) fn youki(&self, path: &str) -> Result<Vec<Contender>> {
        self.oci("youki", &[&[]], path)
    }

    /// Its cgroups, too, are at times not those that it knows.
    pub(super) fn runsc(&self, path: &str) -> Result<Vec<Contender>> {
        let network = if self.serves() { "--network=host" } else { "--network=none" };
        let globals: [&[&str]; 2] = [&[network], &[network, "--ignore-cgroups"]];
        self.oci("runsc", &globals, path)
    }

    pub(super) fn bubblewrap(&self, path: &str) -> Result<Vec<Contender>> {
        let root = bundle::rootfs(self.material).map_err(anyhow::Error::msg)?;
        let root = root.display().to_string();
        let mut all = strings(&[path, "--unshare-all"]);
        all.extend(self.serves().then(|| "--share-net".to_owned()));
        all.extend(strings(&["--bind", &root, "/", "--proc", "/proc", "--dev", "/dev"]));
        all.extend(strings(&["--clearenv", "--chdir", &self.material.cwd]));
        for variable in bundle::environment(self.material) {
            let (name, value) = variable.split_once('=').unwrap_or((&variable, ""));
            all.extend(strings(&["--setenv", name, value]));
        }
        all.extend(self.material.program.iter().cloned());
        Ok(self.both("bwrap", vec![Way::usual(all)], None, PathBuf::from(root)))
    }
}
