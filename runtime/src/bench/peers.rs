//! Who is measured, and how each is called: at its own best settings, each flag for a reason that docs/benchmarks.md gives.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::{
    Request, bundle, line,
    process::hex,
    results::{Absent, Program, Results, Temperature},
    stage::{self, Material, STORES, Stage},
    words,
};

/// The contender that all others are compared with.
pub(super) const OWN: &str = "amphora";

/// Somebody who starts a subject.
pub(super) struct Contender {
    pub(super) name: String,
    pub(super) temperature: Temperature,
    /// Ways to call it, the best first: the first that does the work is taken.
    pub(super) ways: Vec<Way>,
    /// Undoes what a run that failed may have left.
    pub(super) undo: Option<Vec<String>>,
    /// Emptied before each run.
    pub(super) emptied: Option<PathBuf>,
    /// Put out of the page cache before each run.
    pub(super) evicted: Vec<PathBuf>,
    /// Its processes are another's children.
    pub(super) is_served: bool,
}

/// One way to call somebody.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) words: Vec<String>,
    /// Why it differs from the usual one.
    pub(super) note: Option<&'static str>,
}

impl Way {
    fn usual(words: Vec<String>) -> Self {
        Self { words, note: None }
    }
}

/// A runtime that is known by name.
struct Known {
    name: &'static str,
    /// Says its version.
    version: &'static [&'static str],
    starts_linux: bool,
    starts_wasm: bool,
    contenders: Make,
}

/// Makes the contenders of a program at a path.
type Make = for<'t, 'm, 'p> fn(&'t Table<'m>, &'p str) -> Result<Vec<Contender>>;

const KNOWN: [Known; 8] = [
    linux("crun", |table, path| table.crun(path)),
    linux("runc", |table, path| table.runc(path)),
    linux("youki", |table, path| table.youki(path)),
    linux("runsc", |table, path| table.runsc(path)),
    linux("bwrap", |table, path| table.bubblewrap(path)),
    linux("podman", |table, path| table.podman(path)),
    linux("docker", |table, path| table.docker(path)),
    Known {
        name: "wasmtime",
        version: &["--version"],
        starts_linux: false,
        starts_wasm: true,
        contenders: |table, path| table.wasmtime(path),
    },
];

const fn linux(name: &'static str, contenders: Make) -> Known {
    Known { name, version: &["--version"], starts_linux: true, starts_wasm: false, contenders }
}

/// Everyone who starts a subject; who does not is noted in `results`.
pub(super) fn all(
    stage: &Stage,
    request: &Request,
    material: &Material,
    results: &mut Results,
) -> Result<Vec<Contender>> {
    let table = Table { stage, material };
    let own = stage.amphora.display().to_string();
    note_program(results, OWN, &own, &["--version"])?;
    let mut contenders = table.amphora();
    for known in chosen(request, results)? {
        let starts = if material.is_linux() { known.starts_linux } else { known.starts_wasm };
        let Some(path) = find(known.name).filter(|_| starts) else { continue };
        let path = path.display().to_string();
        match (known.contenders)(&table, &path) {
            Ok(made) => {
                contenders.extend(made);
                note_program(results, known.name, &path, known.version)?;
            }
            Err(error) => results.absent.push(Absent {
                name: known.name.to_owned(),
                subject: Some(material.subject.name.clone()),
                reason: format!("{error:#}"),
            }),
        }
    }
    for (name, command) in &request.own_peers {
        match table.own_peer(name, command) {
            Ok(contender) => contenders.extend(contender),
            Err(error) => bail!("--peer {name}: {error:#}"),
        }
    }
    Ok(contenders)
}

/// One of them anew, for a subject with other arguments.
pub(super) fn named(stage: &Stage, request: &Request, material: &Material, name: &str) -> Result<Contender> {
    let table = Table { stage, material };
    let is_warm = |contender: &Contender| contender.name == name && contender.temperature == Temperature::Warm;
    let path = || find(name).map(|path| path.display().to_string()).with_context(|| format!("{name} is gone"));
    let made = match (KNOWN.iter().find(|known| known.name == name), request.own_peers.iter().find(|own| own.0 == name))
    {
        _ if name == OWN => table.amphora(),
        (_, Some((name, command))) => table.own_peer(name, command)?.into_iter().collect(),
        (Some(known), None) => (known.contenders)(&table, &path()?)?,
        (None, None) => Vec::new(),
    };
    made.into_iter().find(is_warm).with_context(|| format!("no contender {name}"))
}

/// Those who are wanted and installed. Who is not is noted once.
fn chosen(request: &Request, results: &mut Results) -> Result<Vec<&'static Known>> {
    let names: Vec<&str> = request.peers.iter().flatten().map(String::as_str).collect();
    if let Some(unknown) = names.iter().find(|name| KNOWN.iter().all(|known| known.name != **name)) {
        let known: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
        bail!("no peer `{unknown}` is known, only {}; --peer {unknown}='COMMAND' takes any other", known.join(", "));
    }
    let wanted = KNOWN.iter().filter(|known| request.peers.is_none() || names.contains(&known.name));
    let (here, missing): (Vec<&Known>, Vec<&Known>) = wanted.partition(|known| find(known.name).is_some());
    for known in missing {
        let absent = Absent { name: known.name.to_owned(), subject: None, reason: "not found on PATH".to_owned() };
        if !results.absent.contains(&absent) {
            results.absent.push(absent);
        }
    }
    Ok(here)
}

fn note_program(results: &mut Results, name: &str, path: &str, version: &[&str]) -> Result<()> {
    if results.contenders.iter().any(|program| program.name == name) {
        return Ok(());
    }
    let said = Command::new(path).args(version).output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let version = said.lines().next().unwrap_or("unknown").trim().to_owned();
    let bytes = fs::metadata(path).with_context(|| format!("cannot look at {path}"))?.len();
    let digest = digest(Path::new(path))?;
    results.contenders.push(Program {
        name: name.to_owned(),
        path: path.to_owned(),
        version,
        digest,
        bytes,
        note: None,
    });
    Ok(())
}

/// Of a program's file.
pub(super) fn digest(path: &Path) -> Result<String> {
    let failed = || format!("cannot read {}", path.display());
    let mut file = fs::File::open(path).with_context(failed)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).with_context(failed)? {
            0 => return Ok(format!("sha256:{}", hex(&hash.finalize()))),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// A program on `PATH`, or where the administrator's programs are.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|candidate| Path::is_file(candidate))
}

/// What the contenders of one subject are made of.
struct Table<'a> {
    stage: &'a Stage,
    material: &'a Material,
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// One name for all containers of this process: runs come one after the other.
fn id() -> String {
    format!("amphora-bench-{}", std::process::id())
}

/// The words of a command for one of several containers at once.
pub(super) fn renamed(words: &[String], index: usize) -> Vec<String> {
    let id = id();
    words.iter().map(|word| if *word == id { format!("{id}-{index}") } else { word.clone() }).collect()
}

impl Table<'_> {
    fn warm(&self, name: &str, ways: Vec<Way>) -> Contender {
        Contender {
            name: name.to_owned(),
            temperature: Temperature::Warm,
            ways,
            undo: None,
            emptied: None,
            evicted: Vec::new(),
            is_served: false,
        }
    }

    /// The same, warm and cold; `files` are what it reads of the subject.
    fn both(&self, name: &str, ways: Vec<Way>, undo: Option<Vec<String>>, files: PathBuf) -> Vec<Contender> {
        let warm = Contender { undo: undo.clone(), ..self.warm(name, ways.clone()) };
        let cold = Contender { temperature: Temperature::Cold, undo, evicted: vec![files], ..self.warm(name, ways) };
        vec![warm, cold]
    }

    fn amphora(&self) -> Vec<Contender> {
        let ways = |store: &str| {
            let run = strings(&["run", "--rm", "--network", "none", &self.material.image]);
            let arguments = &self.material.subject.arguments;
            vec![Way::usual([self.stage.amphora_words(store), run, arguments.clone()].concat())]
        };
        let root = self.stage.root(STORES[1]);
        let cold = Contender {
            temperature: Temperature::Cold,
            emptied: Some(root.join("compiled")),
            evicted: vec![root],
            ..self.warm(OWN, ways(STORES[1]))
        };
        vec![self.warm(OWN, ways(STORES[0])), cold]
    }

    fn bundle(&self) -> Result<String> {
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

    fn crun(&self, path: &str) -> Result<Vec<Contender>> {
        self.oci("crun", &[&[], &["--cgroup-manager=disabled"]], path)
    }

    fn runc(&self, path: &str) -> Result<Vec<Contender>> {
        self.oci("runc", &[&[]], path)
    }

    fn youki(&self, path: &str) -> Result<Vec<Contender>> {
        self.oci("youki", &[&[]], path)
    }

    fn runsc(&self, path: &str) -> Result<Vec<Contender>> {
        self.oci("runsc", &[&["--network=none"]], path)
    }

    fn bubblewrap(&self, path: &str) -> Result<Vec<Contender>> {
        let root = bundle::rootfs(self.material).map_err(anyhow::Error::msg)?;
        let root = root.display().to_string();
        let mut all = strings(&[path, "--unshare-all", "--bind", &root, "/", "--proc", "/proc", "--dev", "/dev"]);
        all.extend(strings(&["--clearenv", "--chdir", &self.material.cwd]));
        for variable in bundle::environment(self.material) {
            let (name, value) = variable.split_once('=').unwrap_or((&variable, ""));
            all.extend(strings(&["--setenv", name, value]));
        }
        all.extend(self.material.program.iter().cloned());
        Ok(self.both("bwrap", vec![Way::usual(all)], None, PathBuf::from(root)))
    }

    /// Those who have a store of their own: the root file system is imported there.
    fn imported(&self, base: &[&str], name: &str) -> Result<Vec<String>> {
        let root = bundle::rootfs(self.material).map_err(anyhow::Error::msg)?;
        let import = strings(&[base, &["import", "-", name]].concat());
        let script = format!("tar -C {} -c . | {}", line(&[root.display().to_string()]), line(&import));
        stage::run(Command::new("sh").args(["-c", &script])).context("cannot import the image")?;
        let mut run = strings(&[base, &["run", "--rm", "--network", "none", "--log-driver", "none"]].concat());
        run.extend(strings(&["-w", &self.material.cwd]));
        self.material.env.iter().for_each(|variable| run.extend(["-e".to_owned(), variable.clone()]));
        if let Some([uid, gid]) = self.material.ids {
            run.extend(["-u".to_owned(), format!("{uid}:{gid}")]);
        }
        run.push(name.to_owned());
        run.extend(self.material.program.iter().cloned());
        Ok(run)
    }

    fn podman(&self, path: &str) -> Result<Vec<Contender>> {
        let (root, state) = (self.stage.work.join("podman"), self.stage.state_of("podman"));
        let root_text = root.display().to_string();
        let base =
            [path, "--root", &root_text, "--runroot", &state, "--cgroup-manager=cgroupfs", "--events-backend=none"];
        // Files there belong to ids that an ordinary user can only touch by way of it.
        self.stage.run_afterwards(strings(&[&base[..], &["rmi", "--all", "--force"]].concat()));
        let words = self.imported(&base, &format!("localhost/{}", self.image_name()))?;
        Ok(self.both("podman", vec![Way::usual(words)], None, root))
    }

    /// Only warm: what is cold for it is the daemon's.
    fn docker(&self, path: &str) -> Result<Vec<Contender>> {
        stage::run(Command::new(path).args(["version", "--format", "{{.Server.Version}}"]))
            .context("no daemon answers it")?;
        let words = self.imported(&[path], &self.image_name())?;
        self.stage.run_afterwards(strings(&[path, "rmi", "--force", &self.image_name()]));
        Ok(vec![Contender { is_served: true, ..self.warm("docker", vec![Way::usual(words)]) }])
    }

    fn image_name(&self) -> String {
        let subject = self.material.folder.file_name().unwrap_or_default().display();
        format!("{}:{subject}", id())
    }

    fn wasmtime(&self, path: &str) -> Result<Vec<Contender>> {
        let module = self.material.wasm.as_deref().context("the subject has no Wasm program")?.display().to_string();
        let compiled = self.material.folder.join("program.cwasm").display().to_string();
        stage::run(Command::new(path).args(["compile", &module, "-o", &compiled]))?;
        let run = |flags: &[&str]| {
            let mut words = strings(&[&[path, "run"], flags].concat());
            for variable in &self.material.env {
                words.extend(["--env".to_owned(), variable.clone()]);
            }
            words
        };
        let finished = |mut words: Vec<String>, program: &str| {
            words.push(program.to_owned());
            words.extend(self.material.program.iter().cloned());
            vec![Way::usual(words)]
        };
        let warm = self.warm("wasmtime", finished(run(&["--allow-precompiled"]), &compiled));
        let cold = Contender {
            temperature: Temperature::Cold,
            evicted: vec![PathBuf::from(&module)],
            ..self.warm("wasmtime", finished(run(&["-C", "cache=n"]), &module))
        };
        Ok(vec![warm, cold])
    }

    /// `--peer NAME=COMMAND`; None: it does not start subjects of this kind.
    fn own_peer(&self, name: &str, command: &str) -> Result<Option<Contender>> {
        let wants = |place: &str| command.contains(place);
        let wants_linux = wants("{bundle}") || wants("{rootfs}");
        let is_for = match self.material.is_linux() {
            true => !wants("{wasm}"),
            false => !wants_linux,
        };
        if !is_for {
            return Ok(None);
        }
        let bundle = if wants("{bundle}") { self.bundle()? } else { String::new() };
        let rootfs = self.material.rootfs.as_ref().map_or_else(|_| String::new(), |root| root.display().to_string());
        let wasm = self.material.wasm.as_ref().map_or_else(String::new, |wasm| wasm.display().to_string());
        let places = [
            ("{bundle}", bundle),
            ("{rootfs}", rootfs),
            ("{wasm}", wasm),
            ("{id}", id()),
            ("{state}", self.stage.state_of(name)),
            ("{scratch}", self.stage.work.join(format!("scratch-{name}")).display().to_string()),
        ];
        let mut all = Vec::new();
        for word in words(command)? {
            if word == "{program}" {
                all.extend(self.material.program.iter().cloned());
            } else {
                all.push(places.iter().fold(word, |word, (place, value)| word.replace(place, value)));
            }
        }
        Ok(Some(self.warm(name, vec![Way::usual(all)])))
    }
}
