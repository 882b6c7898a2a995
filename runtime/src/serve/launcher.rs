//! Containers of functions: written down, and where they are processes started by the same path as `run -d`, so that each has a supervisor of its own, which does not end with the
//! gateway. What a killed gateway leaves behind is known by a label that nobody can guess, and removed by the next one.
//!
//! ```text
//! RUNROOT/serve/NAME.json    the label's value; locked by the gateway of this name
//! RUNROOT/serve/NAME.sock    where operators come
//! ```

use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, anyhow, bail};
use images::{Image, Selection};
use linux_exec::{network::namespace, process::Process};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::{
    cgi,
    plan::{LABEL_GATEWAY, Plan},
};
use crate::{
    lifecycle::{
        self,
        log::{LogReader, parse},
        pause,
    },
    output::{self, errors},
    records::{
        container::{Container, Lock, Status},
        host::Host,
    },
    spec::{RunSpec, Workload, limits, ports::HostPort},
};

/// Lines of a container's log that tell of its end.
const LAST_LINES: usize = 3;
/// Of each of them.
const LAST_CHARACTERS: usize = 300;

/// Starts and ends containers of one gateway. What it does may block.
pub(super) struct Launcher {
    pub(super) host: Host,
    /// Limits of descriptors, soft and hard, that containers get: those of `run`, whatever the gateway has.
    descriptors: (u64, u64),
    own: Own,
    /// Where sockets are that containers are given: nobody but the gateway is there.
    inside: OwnedFd,
}

/// What is this gateway's alone.
struct Own {
    label: String,
    /// Held for its lock.
    _file: File,
}

/// What the file of a gateway says.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) label: String,
}

/// A container that runs.
pub(super) struct Launched {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) process: Process,
    /// To be waited for when the container has ended.
    pub(super) supervisor: Child,
    /// Where it listens.
    pub(super) namespace: OwnedFd,
    pub(super) port: u16,
}

/// The folder of gateways.
pub(super) fn folder(host: &Host) -> PathBuf {
    host.paths.runroot.join("serve")
}

impl Launcher {
    /// The only gateway of its name.
    pub(super) fn new(host: Host, name: &str, descriptors: (u64, u64)) -> Result<Self> {
        let own = claim(&folder(&host), name)?;
        let (inside, ()) = namespace::make_elsewhere(|| Ok::<_, linux_exec::Error>(()))
            .context("cannot make the network namespace in which functions are reached")?;
        Ok(Self { host, descriptors, own, inside })
    }

    /// Removes what an earlier gateway of this name left behind; how many containers.
    pub(super) fn remove_leftovers(&self) -> Result<usize> {
        let (containers, unreadable) = self.host.containers.list()?;
        if !unreadable.is_empty() {
            output::note(&format!(
                "amphora serve: {} containers cannot be read, and stay even if an earlier gateway left them behind: amphora ps -a shows them",
                unreadable.len()
            ));
        }
        let of_ours = |container: &&Container| container.spec.labels.get(LABEL_GATEWAY) == Some(&self.own.label);
        let mut removed = 0;
        for container in containers.iter().filter(of_ours) {
            match lifecycle::remove(&self.host, container, true, true) {
                Ok(()) => removed += 1,
                Err(error) => output::note(&format!(
                    "amphora serve: container {} of an earlier gateway stays: {}",
                    container.spec.name,
                    errors::sentence(&error)
                )),
            }
        }
        Ok(removed)
    }

    /// Starts a container of a function; it may not listen yet.
    pub(super) fn launch(&self, plan: &Plan) -> Result<Launched> {
        let (container, lock) = self.create(plan, Vec::new())?;
        let (id, name) = (container.spec.id.clone(), container.spec.name.clone());
        let (container, mut supervisor) = match self.spawn(plan, container, &lock) {
            Ok(spawned) => spawned,
            Err(error) => {
                drop(lock);
                self.discard(&id);
                return Err(error);
            }
        };
        let begun = lifecycle::wait_until_started(&mut supervisor, &format!("container {name}"));
        let reached = begun.and_then(|()| Self::reach(plan, &container, &lock));
        // Nothing comes to its end as long as this is held.
        drop(lock);
        match reached {
            Ok(Some((process, namespace, port))) => Ok(Launched { id, name, process, supervisor, namespace, port }),
            Ok(None) => {
                // It writes down how.
                let _ = supervisor.wait();
                let how = self.how_it_ended(&id);
                self.discard(&id);
                Err(anyhow!("container {name} ended before it listened: {how}"))
            }
            Err(error) => {
                self.discard(&id);
                let _ = supervisor.wait();
                Err(error)
            }
        }
    }

    /// Starts a command as `start -a -i` does; its streams are pipes.
    pub(super) fn launch_command(&self, plan: &Plan, environment: Vec<String>) -> Result<cgi::Launched> {
        let (container, lock) = self.create(plan, environment)?;
        drop(lock);
        let RunSpec { id, name, .. } = container.spec;
        let mut command = Command::new(&self.host.program);
        command.arg("--root").arg(&self.host.paths.root).arg("--runroot").arg(&self.host.paths.runroot);
        command.args(["start", "-a", "-i", &id]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        match command.spawn() {
            Ok(child) => Ok(cgi::Launched { id, name, child }),
            Err(error) => {
                self.discard(&id);
                Err(error).with_context(|| format!("container {name} cannot be started"))
            }
        }
    }

    /// Writes a container down.
    pub(super) fn create(&self, plan: &Plan, environment: Vec<String>) -> Result<(Container, Lock)> {
        let mut tail = [0; 3];
        getrandom::fill(&mut tail).context("cannot draw a name")?;
        let [a, b, c] = tail;
        let name = format!("{}-{a:02x}{b:02x}{c:02x}", plan.name);
        let _writing = self.host.store.writing()?;
        let image = self.image(plan)?;
        let mut request = plan.request(&name, &self.own.label)?;
        request.env.extend(environment);
        if !plan.is_given_sockets {
            let (soft, hard) = self.descriptors;
            request.limits.ulimits.push(limits::parse_ulimit(&format!("nofile={soft}:{hard}"))?);
        }
        lifecycle::create(&self.host, &image, request)
    }

    pub(super) fn image(&self, plan: &Plan) -> Result<Image> {
        let image = self.host.store.resolve(&plan.digest, &Selection::default())?;
        image.with_context(|| {
            format!("the image {} ({}) is gone; pull it again, and reload", plan.config.image, plan.digest)
        })
    }

    pub(super) fn workload(&self, container: &Container) -> Result<Workload> {
        lifecycle::workload_of(&self.host, &container.spec)
    }

    /// Its supervisor, which makes the sockets that it is given, if it is, where nobody else is.
    fn spawn(&self, plan: &Plan, container: Container, lock: &Lock) -> Result<(Container, Child)> {
        let spawn = |container: Container| -> Result<_> {
            let supervisor = lifecycle::spawn_supervisor(&self.host, &container, lock, None)?;
            Ok((container, supervisor))
        };
        match plan.is_given_sockets {
            true => namespace::inside_elsewhere(self.inside.as_fd(), || spawn(container)),
            false => spawn(container),
        }
    }

    /// Where a container that has begun is reached; None: it has ended.
    fn reach(plan: &Plan, container: &Container, lock: &Lock) -> Result<Option<(Process, OwnedFd, u16)>> {
        let Some(run) = container.going_on_under(lock)? else { return Ok(None) };
        let process = run.running.process();
        let namespace = match namespace::of_process(process.pid) {
            // It has given up its namespaces, and ends.
            Err(error) if error.is_missing() => return Ok(None),
            other => other?,
        };
        // The pid was its own while the namespace was looked up, if it still is.
        if !process.is_alive() {
            return Ok(None);
        }
        // What is asked there would be the machine's own services.
        if namespace::is_callers(namespace.as_fd())? {
            bail!(
                "container {} has no network of its own, and opens its sockets itself: name a network (network = \"bridge\")",
                container.spec.name
            );
        }
        let given = run.running.ports.iter().find_map(|port| match port.host_port {
            HostPort::Fixed(number) => Some(number),
            HostPort::Any | HostPort::OneOf(..) => None,
        });
        Ok(Some((process, namespace, given.unwrap_or(plan.config.port))))
    }

    /// Stops a container, by force if need be.
    pub(super) fn end(&self, id: &str, stop_timeout_ms: u64) {
        let ended = self.host.containers.load(id).and_then(|container| match container {
            Some(container) => lifecycle::stop(&container, container.spec.stop_signal, Some(stop_timeout_ms))
                .or_else(|_| lifecycle::end_by_force(&container)),
            None => Ok(()),
        });
        if let Err(error) = ended {
            output::note(&format!("amphora serve: container {id} does not end: {}", errors::sentence(&error)));
        }
    }

    /// Removes a container, whatever it does. Nobody else does so.
    pub(super) fn discard(&self, id: &str) {
        let removed = self.host.containers.load(id).and_then(|container| match container {
            Some(container) => lifecycle::remove(&self.host, &container, true, true),
            None => Ok(()),
        });
        if let Err(error) = removed {
            output::note(&format!("amphora serve: container {id} stays: {}", errors::sentence(&error)));
        }
    }

    pub(super) fn freeze(&self, id: &str) -> Result<()> {
        pause::pause(&self.find(id)?)
    }

    pub(super) fn thaw(&self, id: &str) -> Result<()> {
        pause::unpause(&self.find(id)?)
    }

    fn find(&self, id: &str) -> Result<Container> {
        self.host.containers.load(id)?.ok_or_else(|| anyhow!("container {id} is gone"))
    }

    /// A sentence for a container that has ended, with the last that it said.
    pub(super) fn how_it_ended(&self, id: &str) -> String {
        let Ok(Some(container)) = self.host.containers.load(id) else { return "it was removed".to_owned() };
        let ended = match container.status() {
            Ok(Status::Stopped(ended)) => match ended.error {
                Some(error) => format!("it ended with {} ({error})", ended.exit_code),
                None => format!("it ended with {}", ended.exit_code),
            },
            Ok(status) => format!("it is {}", status.word()),
            Err(error) => errors::sentence(&error),
        };
        let said = last_lines(&container.log_path());
        if said.is_empty() { ended } else { format!("{ended}; the last it said: {}", said.join(" / ")) }
    }
}

fn last_lines(log: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let Ok(mut reader) = LogReader::open(log.to_owned()) else { return lines };
    while let Ok(Some(line)) = reader.next() {
        let Some(entry) = parse(line) else { continue };
        let text = String::from_utf8_lossy(entry.text);
        lines.push(output::harmless(text.trim_end()).chars().take(LAST_CHARACTERS).collect());
        if lines.len() > LAST_LINES {
            lines.remove(0);
        }
    }
    lines
}

/// Takes the name of a gateway, and what is known of the last one.
fn claim(folder: &Path, name: &str) -> Result<Own> {
    let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(folder);
    made.with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(format!("{name}.json"));
    let opened = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = opened.with_context(|| format!("cannot open {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => bail!(
            "a gateway of the name `{name}` is running: stop it, or give this one another name (name = \"…\" in its file)"
        ),
        Err(errno) => return Err(errno).with_context(|| format!("cannot lock {}", path.display())),
    }
    let mut text = String::new();
    file.read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
    // One that is not whole was being written when there was no container yet.
    if let Ok(Record { label }) = serde_json::from_str(&text) {
        return Ok(Own { label, _file: file });
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random).context("cannot draw a label")?;
    let label = format!("{name}-{:032x}", u128::from_le_bytes(random));
    file.set_len(0).with_context(|| format!("cannot write {}", path.display()))?;
    let written = serde_json::to_vec(&Record { label: label.clone() })?;
    file.rewind().with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(&written).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Own { label, _file: file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_gateway_has_a_name_and_the_next_knows_the_same_label() {
        let folder = tempfile::tempdir().unwrap();
        let first = claim(folder.path(), "edge").unwrap();
        let refused = claim(folder.path(), "edge").err().unwrap().to_string();
        assert!(refused.contains("`edge` is running"), "{refused}");
        let other = claim(folder.path(), "other").unwrap();
        let label = first.label.clone();
        assert!(label.starts_with("edge-") && label.len() == 37 && label != other.label, "{label}");
        drop(first);
        assert_eq!(claim(folder.path(), "edge").unwrap().label, label);
        fs::write(folder.path().join("edge.json"), "{\"lab").unwrap();
        assert_ne!(claim(folder.path(), "edge").unwrap().label, label);
    }
}
