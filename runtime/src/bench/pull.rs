//! Pulling: from a registry on loopback, which holds the images of the benchmark alone, until they are ready to run.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use images::{Digest, Selection, Store};

use super::{
    Benchmark,
    peers::{self, Job, find},
    process::{self, is_interrupted},
    stage::{Material, STORES},
};

const READY_WITHIN: Duration = Duration::from_secs(10);

impl Benchmark<'_> {
    pub(super) fn pulls(&mut self, materials: &[Material]) -> Result<()> {
        let store = Store::open(&self.stage.root(STORES[0]))?;
        let folder = self.stage.work.join("registry");
        let mut names = Vec::new();
        for (index, material) in materials.iter().enumerate() {
            let name = format!("subject-{index}");
            put(&store, material, &folder, &name).with_context(|| material.subject.name.clone())?;
            names.push(name);
        }
        self.watcher.begins("starting a registry on loopback");
        let registry = Registry::start(&folder)?;
        let mut lanes = Vec::new();
        for (material, name) in materials.iter().zip(&names) {
            if is_interrupted() {
                break;
            }
            let reference = format!("127.0.0.1:{}/{name}:latest", registry.port);
            let contenders = peers::all(self.stage, self.request, material, Job::Pull(&reference), &mut self.results)?;
            lanes.extend(self.qualify(material, contenders)?);
        }
        self.rounds(&mut lanes)
    }
}

/// A registry that runs, until this is dropped.
struct Registry {
    process: Child,
    port: u16,
}

impl Registry {
    fn start(folder: &Path) -> Result<Self> {
        let program = find("docker-registry").context("docker-registry is not found on PATH")?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let configuration = folder.with_extension("yml");
        let root = serde_json::Value::from(folder.display().to_string());
        let text = format!(
            "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\n\
             storage: {{ filesystem: {{ rootdirectory: {root} }}, maintenance: {{ uploadpurging: {{ enabled: false }} }} }}\n\
             http: {{ addr: '127.0.0.1:{port}', secret: bench }}\n"
        );
        fs::write(&configuration, text).with_context(|| format!("cannot write {}", configuration.display()))?;
        // It ends with us, however that comes about, where there is somebody to see to it.
        let mut command = find("setpriv").map_or_else(
            || Command::new(&program),
            |setpriv| {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL"]).arg(&program);
                command
            },
        );
        command.arg("serve").arg(&configuration).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = std::os::unix::process::CommandExt::process_group(&mut command, 0).spawn();
        let process = process.context("cannot start docker-registry")?;
        process::keep(Some(process.id()));
        let mut registry = Self { process, port };
        registry.wait()?;
        Ok(registry)
    }

    fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("docker-registry ended at once ({status})");
            }
            ensure!(Instant::now() < deadline, "docker-registry does not listen after {READY_WITHIN:?}");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        process::keep(None);
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Puts an image where a registry has what was pushed to it, as its storage driver `filesystem` lays it out:
///
/// ```text
/// docker/registry/v2/blobs/sha256/AB/ABCD…/data
/// docker/registry/v2/repositories/NAME/_layers/sha256/ABCD…/link
/// docker/registry/v2/repositories/NAME/_manifests/revisions/sha256/ABCD…/link
/// docker/registry/v2/repositories/NAME/_manifests/tags/latest/current/link
/// ```
fn put(store: &Store, material: &Material, folder: &Path, name: &str) -> Result<()> {
    let image = store.resolve(&material.image, &Selection::default())?;
    let image = image.with_context(|| format!("{} got lost", material.image))?;
    let v2 = folder.join("docker/registry/v2");
    let repository = v2.join("repositories").join(name);
    let blob = |digest: &Digest| {
        let (kind, hex) = (digest.algorithm().as_ref().to_owned(), digest.digest().to_owned());
        let place = v2.join("blobs").join(&kind).join(&hex[..2]).join(&hex);
        fs::create_dir_all(&place)?;
        let from = store.blob_path(digest);
        fs::copy(&from, place.join("data")).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok::<PathBuf, anyhow::Error>(PathBuf::from(kind).join(hex))
    };
    for part in image.manifest.layers().iter().chain([image.manifest.config()]) {
        link(&repository.join("_layers").join(blob(part.digest())?), part.digest())?;
    }
    let revision = blob(&image.digest)?;
    let manifests = repository.join("_manifests");
    link(&manifests.join("revisions").join(&revision), &image.digest)?;
    link(&manifests.join("tags/latest/index").join(&revision), &image.digest)?;
    link(&manifests.join("tags/latest/current"), &image.digest)
}

fn link(place: &Path, digest: &Digest) -> Result<()> {
    fs::create_dir_all(place)?;
    fs::write(place.join("link"), digest.to_string()).with_context(|| format!("cannot write {}", place.display()))
}
