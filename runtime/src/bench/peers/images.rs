//! Those who have a store of images of their own: the root file system is imported there.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Contender, Job, Table, Way, id, strings};
use crate::bench::{bundle, line, stage};

impl Table<'_> {
    /// `base`: the words before each command; the name is the image's.
    fn import(&self, base: &[&str], name: &str) -> Result<()> {
        let root = bundle::rootfs(self.material).map_err(anyhow::Error::msg)?;
        let import = strings(&[base, &["import", "-", name]].concat());
        let script = format!("tar -C {} -c . | {}", line(&[root.display().to_string()]), line(&import));
        stage::run(Command::new("sh").args(["-c", &script])).context("cannot import the image").map(drop)
    }

    /// The words that run it; `more`: arguments besides the image's.
    fn run_imported(&self, base: &[&str], network: &[&str], name: &str, more: &[&str]) -> Way {
        let id = id();
        let flags = ["--name", &id, "--log-driver", "none", "-w", &self.material.cwd];
        let run = [base, &["run", "--rm"], network, &flags].concat();
        let mut run = strings(&run);
        self.material.env.iter().for_each(|variable| run.extend(["-e".to_owned(), variable.clone()]));
        if let Some([uid, gid]) = self.material.ids {
            run.extend(["-u".to_owned(), format!("{uid}:{gid}")]);
        }
        run.push(name.to_owned());
        run.extend(self.material.program.iter().cloned());
        run.extend(strings(more));
        Way::usual(run)
    }

    /// One way of running, or two of serving: on the host's network, and behind one of its own.
    fn imported(&self, who: &str, base: &[&str], name: &str) -> Vec<Contender> {
        let Job::Serve(door) = self.job else {
            return vec![self.warm(who, vec![self.run_imported(base, &["--network", "none"], name, &[])])];
        };
        let publish = door.behind().published(door.port);
        let behind = self.run_imported(base, &["-p", &publish], name, &self.all_addresses());
        let on_host = self.warm(who, vec![self.run_imported(base, &["--network", "host"], name, &[])]);
        vec![on_host, self.behind(door, who, behind)]
    }

    /// What a client that was killed leaves running.
    fn removal(&self, base: &[&str]) -> Option<Vec<String>> {
        Some(strings(&[base, &["rm", "--force", &id()]].concat()))
    }

    pub(super) fn podman(&self, path: &str) -> Result<Vec<Contender>> {
        let (root, state) = (self.stage.work.join("podman"), self.stage.state_of("podman"));
        let root_text = root.display().to_string();
        let base =
            [path, "--root", &root_text, "--runroot", &state, "--cgroup-manager=cgroupfs", "--events-backend=none"];
        // Files there belong to ids that an ordinary user can only touch by way of it.
        self.stage.run_afterwards(strings(&[&base[..], &["rmi", "--all", "--force"]].concat()));
        if let Job::Pull(reference) = self.job {
            return Ok(vec![self.pull_by_podman(&base, reference)]);
        }
        let name = format!("localhost/{}", self.image_name());
        self.import(&base, &name)?;
        let mut contenders = self.imported("podman", &base, &name);
        if !self.serves() {
            contenders = self.both("podman", contenders.remove(0).ways, None, root);
        }
        for contender in &mut contenders {
            contender.undo = self.removal(&base);
        }
        Ok(contenders)
    }

    /// Only warm: what is cold for it is the daemon's.
    pub(super) fn docker(&self, path: &str) -> Result<Vec<Contender>> {
        stage::run(Command::new(path).args(["version", "--format", "{{.Server.Version}}"]))
            .context("no daemon answers it")?;
        self.with_daemon("docker", &[path], &["pull", "-q"])
    }

    /// The same for containerd's.
    pub(super) fn nerdctl(&self, path: &str) -> Result<Vec<Contender>> {
        stage::run(Command::new(path).arg("info")).context("no containerd answers it")?;
        self.with_daemon("nerdctl", &[path, "--namespace", &id()], &["pull", "-q", "--insecure-registry"])
    }

    fn with_daemon(&self, who: &str, base: &[&str], pull: &[&str]) -> Result<Vec<Contender>> {
        if let Job::Pull(reference) = self.job {
            return Ok(vec![self.pull_by_daemon(who, base, pull, reference)]);
        }
        let name = self.image_name();
        self.import(base, &name)?;
        self.stage.run_afterwards(strings(&[base, &["rmi", "--force", &name]].concat()));
        let served = |contender| Contender { is_served: true, undo: self.removal(base), ..contender };
        Ok(self.imported(who, base, &name).into_iter().map(served).collect())
    }

    /// containerd's own client, with the root file system as it is.
    pub(super) fn ctr(&self, path: &str) -> Result<Vec<Contender>> {
        stage::run(Command::new(path).arg("version")).context("no containerd answers it")?;
        let id = id();
        let base = [path, "--namespace", &id];
        self.stage.run_afterwards(strings(&[path, "namespaces", "remove", &id]));
        if let Job::Pull(reference) = self.job {
            return Ok(vec![self.pull_by_ctr(&base, reference)]);
        }
        let root = bundle::rootfs(self.material).map_err(anyhow::Error::msg)?.display().to_string();
        let mut run = strings(&[&base[..], &["run", "--rm", "--cwd", &self.material.cwd]].concat());
        run.extend(self.serves().then(|| "--net-host".to_owned()));
        bundle::environment(self.material).into_iter().for_each(|variable| run.extend(["--env".to_owned(), variable]));
        ensure!(
            self.material.ids == Some([0, 0]),
            "it has no flag for a user, and the image wants another one than root"
        );
        run.extend(strings(&["--rootfs", &root, &id]));
        run.extend(self.material.program.iter().cloned());
        let remove = strings(&[&base[..], &["containers", "rm", &id]].concat());
        let kill = strings(&[&base[..], &["tasks", "rm", "--force", &id]].concat());
        let undo = strings(&["sh", "-c", &format!("{}; {}", line(&kill), line(&remove))]);
        Ok(vec![Contender { is_served: true, undo: Some(undo), ..self.warm("ctr", vec![Way::usual(run)]) }])
    }

    fn image_name(&self) -> String {
        let subject = self.material.folder.file_name().unwrap_or_default().display();
        format!("{}:{subject}", id())
    }
}
