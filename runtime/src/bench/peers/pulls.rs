//! How others fetch an image, until they could run it.

use anyhow::{Context, Result};

use super::{Contender, Job, Table, Task, Way, find, strings};
use crate::bench::line;

impl Table<'_> {
    fn pull(
        &self,
        who: &str,
        words: Vec<String>,
        before: Option<Vec<String>>,
        witness: Option<Vec<String>>,
    ) -> Contender {
        Contender { task: Task::Ready { before, witness }, ..self.warm(who, vec![Way::usual(words)]) }
    }

    pub(super) fn pull_by_podman(&self, base: &[&str], reference: &str) -> Contender {
        let words = |more: &[&str]| strings(&[base, more].concat());
        let pull = words(&["pull", "-q", "--tls-verify=false", reference]);
        let exists = words(&["image", "exists", reference]);
        self.pull("podman", pull, Some(words(&["rmi", "--all", "--force"])), Some(exists))
    }

    /// It is their daemon that takes the time, and keeps what it pulled until it is told to forget it.
    pub(super) fn pull_by_daemon(&self, who: &str, base: &[&str], pull: &[&str], reference: &str) -> Contender {
        let words = |more: &[&str]| strings(&[base, more].concat());
        let forget = words(&["rmi", "--force", reference]);
        self.stage.run_afterwards(forget.clone());
        let pull = strings(&[base, pull, &[reference]].concat());
        let contender = self.pull(who, pull, Some(forget), Some(words(&["image", "inspect", reference])));
        Contender { is_served: true, ..contender }
    }

    pub(super) fn pull_by_ctr(&self, base: &[&str], reference: &str) -> Contender {
        let words = |more: &[&str]| strings(&[base, more].concat());
        let forget = words(&["images", "rm", "--sync", reference]);
        self.stage.run_afterwards(forget.clone());
        let pull = words(&["images", "pull", "--plain-http", reference]);
        Contender { is_served: true, ..self.pull("ctr", pull, Some(forget), None) }
    }

    /// Fetched by the one, and unpacked or compiled by the other.
    pub(super) fn skopeo(&self, path: &str) -> Result<Vec<Contender>> {
        let Job::Pull(reference) = self.job else { return Ok(Vec::new()) };
        let folder = self.stage.work.join("pulled-by-skopeo");
        let place = |name: &str| folder.join(name).display().to_string();
        let (layout, image) = (place("layout"), format!("docker://{reference}"));
        let destination = format!("oci:{layout}:it");
        let copy = strings(&[path, "--insecure-policy", "copy", "-q", "--src-tls-verify=false", &image, &destination]);
        let (who, next, made) = match self.material.is_linux() {
            true => {
                let umoci = find("umoci").context("umoci is not found on PATH, which would unpack what it fetched")?;
                let mut unpack = strings(&[&umoci.display().to_string(), "unpack"]);
                unpack.extend((!nix::unistd::geteuid().is_root()).then(|| "--rootless".to_owned()));
                unpack.extend(strings(&["--image", &format!("{layout}:it"), &place("bundle")]));
                ("skopeo+umoci", unpack, place("bundle/rootfs"))
            }
            false => {
                let wasmtime = find("wasmtime").context("wasmtime is not found on PATH, which would compile it")?;
                let digest = self.material.program_digest.strip_prefix("sha256:");
                let blob = digest.context("the program lies in an archive, which wasmtime cannot read")?;
                let blob = place(&format!("layout/blobs/sha256/{blob}"));
                let compile = [&wasmtime.display().to_string(), "compile", &blob, "-o", &place("program.cwasm")];
                ("skopeo+wasmtime", strings(&compile), place("program.cwasm"))
            }
        };
        // umoci makes its folder only in one that is there, and skopeo does not make it either.
        let script = format!("mkdir {} && {} && {}", line(&[folder.display().to_string()]), line(&copy), line(&next));
        let witness = strings(&["test", "-e", &made]);
        let contender = self.pull(who, strings(&["sh", "-c", &script]), None, Some(witness));
        Ok(vec![Contender { emptied: Some(folder), ..contender }])
    }
}
