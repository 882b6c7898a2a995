//! Who is measured, and how each is called: at its own best settings, each flag for a reason that docs/benchmarks.md gives.
//!
//! ```text
//! bundles   images   wasm   own       how each is called: with a root file system, with a store of its own, with a Wasm program
//! pulls                               how each fetches an image
//! ```

mod bundles;
mod images;
mod own;
mod pulls;
mod wasm;

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::{
    Measure, Request,
    process::hex,
    results::{Absent, Program, Results, Temperature, Until},
    serve::Door,
    stage::{Material, Stage},
    words,
};

/// The contender that all others are compared with.
pub(super) const OWN: &str = "amphora";

/// Somebody who starts, serves or pulls a subject.
pub(super) struct Contender {
    pub(super) name: String,
    pub(super) temperature: Temperature,
    pub(super) task: Task,
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

/// What one run of it is.
#[derive(Debug, Clone, Default)]
pub(super) enum Task {
    /// Until the command has ended.
    #[default]
    Exit,
    /// Until its server answers.
    Answer(Door),
    /// Until the image is there.
    Ready {
        /// Removes what an earlier run has pulled; it fails where there is nothing.
        before: Option<Vec<String>>,
        /// Succeeds where the image is ready to run.
        witness: Option<Vec<String>>,
    },
}

impl Task {
    pub(super) fn until(&self) -> Until {
        match self {
            Self::Exit => Until::Exit,
            Self::Answer(_) => Until::Answer,
            Self::Ready { .. } => Until::Ready,
        }
    }
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

/// What is wanted of contenders.
#[derive(Debug, Clone, Copy)]
pub(super) enum Job<'a> {
    Run,
    /// To serve where the door is.
    Serve(&'a Door),
    /// To pull this reference.
    Pull(&'a str),
}

impl Job<'_> {
    fn until(self) -> Until {
        match self {
            Self::Run => Until::Exit,
            Self::Serve(_) => Until::Answer,
            Self::Pull(_) => Until::Ready,
        }
    }
}

/// A runtime that is known by name.
struct Known {
    name: &'static str,
    /// Says its version.
    version: &'static [&'static str],
    linux: &'static [Until],
    wasm: &'static [Until],
    /// Programs that it starts, or that start for it: what they are is part of what was measured.
    helpers: &'static [&'static str],
    contenders: Make,
}

/// Makes the contenders of a program at a path.
type Make = for<'t, 'm, 'p> fn(&'t Table<'m>, &'p str) -> Result<Vec<Contender>>;

const STARTS: &[Until] = &[Until::Exit, Until::Answer];
const KNOWN: [Known; 13] = [
    linux("crun", STARTS, &[], |table, path| table.crun(path)),
    linux("runc", STARTS, &[], |table, path| table.runc(path)),
    linux("youki", STARTS, &[], |table, path| table.youki(path)),
    linux("runsc", STARTS, &[], |table, path| table.runsc(path)),
    linux("bwrap", STARTS, &[], |table, path| table.bubblewrap(path)),
    linux("podman", &Until::ALL, &["conmon", "crun", "runc"], |table, path| table.podman(path)),
    linux("docker", &Until::ALL, &["dockerd", "containerd", "runc"], |table, path| table.docker(path)),
    linux("ctr", &Until::ALL, &["containerd", "containerd-shim-runc-v2", "runc"], |table, path| table.ctr(path)),
    linux("nerdctl", &Until::ALL, &["containerd", "containerd-shim-runc-v2", "runc"], |table, path| {
        table.nerdctl(path)
    }),
    Known { wasm: &[Until::Ready], ..linux("skopeo", &[Until::Ready], &["umoci"], |table, path| table.skopeo(path)) },
    wasm("wasmtime", STARTS, |table, path| table.wasmtime(path)),
    wasm("wasmer", &[Until::Exit], |table, path| table.wasmer(path)),
    wasm("spin", &[Until::Answer], |table, path| table.spin(path)),
];

const fn linux(
    name: &'static str,
    linux: &'static [Until],
    helpers: &'static [&'static str],
    contenders: Make,
) -> Known {
    Known { name, version: &["--version"], linux, wasm: &[], helpers, contenders }
}

const fn wasm(name: &'static str, wasm: &'static [Until], contenders: Make) -> Known {
    Known { name, version: &["--version"], linux: &[], wasm, helpers: &[], contenders }
}

impl Known {
    /// Whether it can do any of what is asked for.
    fn is_of_use(&self, request: &Request) -> bool {
        let wanted = |until: &Until| {
            request.measures.iter().any(|measure| match until {
                Until::Exit => !matches!(measure, Measure::Http | Measure::Pull),
                Until::Answer => *measure == Measure::Http,
                Until::Ready => *measure == Measure::Pull,
            })
        };
        self.linux.iter().chain(self.wasm).any(wanted)
    }

    fn does(&self, job: Job<'_>, material: &Material) -> bool {
        let kinds = if material.is_linux() { self.linux } else { self.wasm };
        kinds.contains(&job.until())
    }
}

/// Everyone who does a job with a subject; who does not is noted in `results`.
pub(super) fn all(
    stage: &Stage,
    request: &Request,
    material: &Material,
    job: Job<'_>,
    results: &mut Results,
) -> Result<Vec<Contender>> {
    let table = Table { stage, material, job };
    let own = stage.amphora.display().to_string();
    note_program(results, OWN, &own, &["--version"])?;
    let mut contenders = table.amphora();
    for known in chosen(request, results)? {
        let Some(path) = find(known.name).filter(|_| known.does(job, material)) else { continue };
        let path = path.display().to_string();
        match (known.contenders)(&table, &path) {
            Ok(made) => {
                contenders.extend(made);
                note_program(results, known.name, &path, known.version)?;
                note_helpers(results, known)?;
            }
            Err(error) => {
                let absent = Absent {
                    name: known.name.to_owned(),
                    subject: Some(material.subject.name.clone()),
                    reason: format!("{error:#}"),
                };
                if !results.absent.contains(&absent) {
                    results.absent.push(absent);
                }
            }
        }
    }
    for (name, command) in &request.own_peers {
        match table.own_peer(name, command) {
            Ok(Some(contender)) => {
                note_own_program(results, name, &contender)?;
                contenders.push(contender);
            }
            Ok(None) => {}
            Err(error) => bail!("--peer {name}: {error:#}"),
        }
    }
    Ok(contenders)
}

/// One of them anew, for a subject with other arguments.
pub(super) fn named(stage: &Stage, request: &Request, material: &Material, name: &str) -> Result<Contender> {
    let table = Table { stage, material, job: Job::Run };
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
    let wanted = KNOWN.iter().filter(|known| match &request.peers {
        Some(_) => names.contains(&known.name),
        None => known.is_of_use(request),
    });
    let (here, missing): (Vec<&Known>, Vec<&Known>) = wanted.partition(|known| find(known.name).is_some());
    for known in missing {
        let absent = Absent { name: known.name.to_owned(), subject: None, reason: "not found on PATH".to_owned() };
        if !results.absent.contains(&absent) {
            results.absent.push(absent);
        }
    }
    Ok(here)
}

fn note_helpers(results: &mut Results, known: &Known) -> Result<()> {
    for helper in known.helpers {
        if let Some(path) = find(helper) {
            note_program(results, helper, &path.display().to_string(), &["--version"])?;
        }
    }
    Ok(())
}

/// The program of a command line of the user's, which need not know `--version`.
fn note_own_program(results: &mut Results, name: &str, contender: &Contender) -> Result<()> {
    let word = contender.ways.first().and_then(|way| way.words.first()).map(String::as_str).unwrap_or_default();
    let path = if word.contains('/') { Some(PathBuf::from(word)).filter(|path| path.is_file()) } else { find(word) };
    path.map_or(Ok(()), |path| note_program(results, name, &path.display().to_string(), &[]))
}

/// `version`: words that make it say its version; none: it is not asked.
fn note_program(results: &mut Results, name: &str, path: &str, version: &[&str]) -> Result<()> {
    if results.contenders.iter().any(|program| program.name == name) {
        return Ok(());
    }
    let said = if version.is_empty() { None } else { Command::new(path).args(version).output().ok() };
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let version = said.lines().next().map(str::trim).filter(|line| !line.is_empty()).unwrap_or("unknown").to_owned();
    let bytes = fs::metadata(path).with_context(|| format!("cannot look at {path}"))?.len();
    let digest = digest(Path::new(path))?;
    let (name, path) = (name.to_owned(), path.to_owned());
    results.contenders.push(Program { name, path, version, digest, bytes, note: None });
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
    job: Job<'a>,
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
        let task = match self.job {
            Job::Serve(door) => Task::Answer(door.clone()),
            Job::Run | Job::Pull(_) => Task::Exit,
        };
        Contender {
            name: name.to_owned(),
            temperature: Temperature::Warm,
            task,
            ways,
            undo: None,
            emptied: None,
            evicted: Vec::new(),
            is_served: false,
        }
    }

    /// The same, warm, and cold where it is a start; `files` are what it reads of the subject.
    fn both(&self, name: &str, ways: Vec<Way>, undo: Option<Vec<String>>, files: PathBuf) -> Vec<Contender> {
        let warm = Contender { undo: undo.clone(), ..self.warm(name, ways.clone()) };
        let cold = Contender { temperature: Temperature::Cold, undo, evicted: vec![files], ..self.warm(name, ways) };
        if self.serves() { vec![warm] } else { vec![warm, cold] }
    }

    fn serves(&self) -> bool {
        matches!(self.job, Job::Serve(_))
    }
}
