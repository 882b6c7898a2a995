//! amphora itself, and peers of the user's own.

use std::path::PathBuf;

use anyhow::Result;

use super::{Contender, Job, OWN, Table, Task, Way, id, strings, words};
use crate::bench::{
    bundle,
    results::Temperature,
    serve::{Door, EVERYWHERE},
    stage::{PULLED, STORES},
};

impl Table<'_> {
    pub(super) fn amphora(&self) -> Vec<Contender> {
        match self.job {
            Job::Run => {
                let root = self.stage.root(STORES[1]);
                let run = |store| vec![self.run(store, &["--network", "none"], &[])];
                let cold = Contender {
                    temperature: Temperature::Cold,
                    emptied: Some(root.join("compiled")),
                    evicted: vec![root],
                    ..self.warm(OWN, run(STORES[1]))
                };
                vec![self.warm(OWN, run(STORES[0])), cold]
            }
            Job::Serve(door) if !self.material.is_linux() => {
                vec![self.warm(OWN, vec![self.run(STORES[0], &["-p", &door.published(door.port)], &[])])]
            }
            Job::Serve(door) => {
                let on_host = self.warm(OWN, vec![self.run(STORES[0], &["--network", "host"], &[])]);
                let publish = door.behind().published(door.port);
                vec![on_host, self.behind(door, OWN, self.run(STORES[0], &["-p", &publish], &self.all_addresses()))]
            }
            Job::Pull(reference) => {
                let words = |command: &[&str]| [self.stage.amphora_words(PULLED), strings(command)].concat();
                let run = [&["run", "--rm", "--pull", "never", "--network", "none", reference], &[][..]].concat();
                let task = Task::Ready {
                    before: Some(words(&["system", "prune", "-a", "-f"])),
                    witness: Some([words(&run), self.material.subject.arguments.clone()].concat()),
                };
                vec![Contender { task, ..self.warm(OWN, vec![Way::usual(words(&["pull", "-q", reference]))]) }]
            }
        }
    }

    fn run(&self, store: &str, flags: &[&str], more: &[&str]) -> Way {
        let run = strings(&[&["run", "--rm"], flags, &[&self.material.image]].concat());
        let arguments = &self.material.subject.arguments;
        Way::usual([self.stage.amphora_words(store), run, arguments.clone(), strings(more)].concat())
    }

    /// Who serves behind a network of its own, at a port that is published.
    pub(super) fn behind(&self, door: &Door, name: &str, way: Way) -> Contender {
        Contender { task: Task::Answer(door.behind()), ..self.warm(&format!("{name} -p"), vec![way]) }
    }

    /// What makes the built-in server listen where its container's network is.
    pub(super) fn all_addresses(&self) -> Vec<&'static str> {
        if self.material.is_built_in { vec![EVERYWHERE] } else { Vec::new() }
    }

    /// `--peer NAME=COMMAND`; None: it does not do this with subjects of this kind.
    pub(super) fn own_peer(&self, name: &str, command: &str) -> Result<Option<Contender>> {
        let wants = |place: &str| command.contains(place);
        let wants_linux = wants("{bundle}") || wants("{rootfs}");
        let is_for_kind = match self.material.is_linux() {
            true => !wants("{wasm}"),
            false => !wants_linux,
        };
        let is_for_job = match self.job {
            Job::Run => !wants("{port}") && !wants("{reference}"),
            Job::Serve(_) => wants("{port}"),
            Job::Pull(_) => wants("{reference}"),
        };
        if !is_for_kind || !is_for_job {
            return Ok(None);
        }
        let bundle = if wants("{bundle}") { self.bundle()? } else { String::new() };
        let rootfs = match wants("{rootfs}") {
            true => bundle::rootfs(self.material).map_err(anyhow::Error::msg)?.display().to_string(),
            false => String::new(),
        };
        let path = |path: Option<&PathBuf>| path.map_or_else(String::new, |path| path.display().to_string());
        let places = [
            ("{bundle}", bundle),
            ("{rootfs}", rootfs),
            ("{wasm}", path(self.material.wasm.as_ref())),
            ("{id}", id()),
            ("{state}", self.stage.state_of(name)),
            ("{scratch}", self.stage.work.join(format!("scratch-{name}")).display().to_string()),
            ("{port}", if let Job::Serve(door) = self.job { door.port.to_string() } else { String::new() }),
            ("{reference}", if let Job::Pull(reference) = self.job { reference.to_owned() } else { String::new() }),
        ];
        let mut all = Vec::new();
        for word in words(command)? {
            if word == "{program}" {
                all.extend(self.material.program.iter().cloned());
            } else {
                all.push(places.iter().fold(word, |word, (place, value)| word.replace(place, value)));
            }
        }
        let mut contender = self.warm(name, vec![Way::usual(all)]);
        if matches!(self.job, Job::Pull(_)) {
            contender.task = Task::Ready { before: None, witness: None };
            contender.emptied = Some(self.stage.work.join(format!("scratch-{name}")));
        }
        Ok(Some(contender))
    }
}
