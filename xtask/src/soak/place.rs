//! One store, the commands that are given to it, and what may come of them.

use crate::{
    command::{bounded, tied},
    fixtures::Fixtures,
    paths,
};
use anyhow::{Context, Result};
use std::{
    fmt, fs,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};
use test_inputs::Random;

/// No command takes as long.
const LIMIT: Duration = Duration::from_secs(120);
/// What is pulled, loaded and run: small images of both kinds, each of which ends by itself with 0.
const IMAGES: [(&str, &str); 5] =
    [("busybox", "latest"), ("hello", "linux"), ("hello", "wasm"), ("hello", "component"), ("hello", "compat")];
/// Names that tags and imports give.
const TAGS: [&str; 6] = ["soak/a:1", "soak/a:2", "soak/b:1", "soak/c:1", "soak/d:1", "soak/e:1"];
/// What may be said by a command that came too early or too late: parts of sentences.
const KNOWN: [&str; 6] = [
    "in the store",
    "used by a container",
    "cannot be removed now",
    "remove one of them by name",
    "was pulled, and removed again by another command",
    "is the beginning of several image ids",
];

/// A store in a folder that goes when this is dropped.
pub(super) struct Place {
    folder: PathBuf,
    fixtures: PathBuf,
    registry: String,
    /// How many commands were to be killed.
    killed: AtomicUsize,
}

impl Place {
    pub(super) fn new(fixtures: &Fixtures, registry: &str, number: usize) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("amphora-soak-{}-{number}", std::process::id()));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { folder, fixtures: fixtures.path(""), registry: registry.to_owned(), killed: AtomicUsize::new(0) })
    }

    /// A command, drawn.
    pub(super) fn command(&self, random: &mut Random) -> Vec<String> {
        let (repository, tag) = random.one(&IMAGES);
        let pulled = format!("{}/{repository}:{tag}", self.registry);
        let layout = self.fixtures.join(format!("layouts/{repository}-{tag}")).display().to_string();
        let program = self.fixtures.join("programs/wasm/hello.wasm").display().to_string();
        let name = random.one(&TAGS).to_string();
        let any = if random.below(2) == 0 { pulled.clone() } else { random.one(&TAGS).to_string() };
        let words: Vec<&str> = match random.below(20) {
            0..=3 => vec!["pull", "-q", &pulled],
            4..=5 => vec!["load", "-q", "-i", &layout],
            6..=7 => vec!["import", &program, &name],
            8..=10 => vec!["tag", &any, &name],
            11..=13 => vec!["rmi", &any],
            14 => vec!["rmi", "-f", &any],
            15 => vec!["system", "prune", "-f"],
            16 => vec!["system", "check"],
            _ => vec!["run", "--rm", "--pull=never", &any],
        };
        words.into_iter().map(str::to_owned).collect()
    }

    fn amphora(&self, mut command: Command, words: &[impl AsRef<str>]) -> Command {
        command.arg("--root").arg(self.folder.join("root")).arg("--runroot").arg(self.folder.join("run"));
        command.args(words.iter().map(AsRef::as_ref)).current_dir(&self.folder).stdin(Stdio::null());
        command.env("AMPHORA_NETWORK", "none");
        command
    }

    /// Runs a command to its end.
    pub(super) fn run(&self, words: &[impl AsRef<str>]) -> Result<Ended> {
        let output = self.amphora(bounded(paths::binary(), LIMIT), words).output().context("cannot start amphora")?;
        Ok(Ended {
            command: words.iter().map(|word| word.as_ref().to_owned()).collect(),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Kills a command after so long. How it ended, if it had ended by then.
    pub(super) fn kill(&self, words: &[String], after: Duration) -> Result<Option<Ended>> {
        let said = self.folder.join(format!("said-{}", self.killed.fetch_add(1, Ordering::Relaxed)));
        let mut command = self.amphora(tied(&paths::binary()), words);
        // Into a file: what a killed command leaves behind may hold a pipe open.
        let stderr = fs::File::create(&said)?;
        let mut child = command.stdout(Stdio::null()).stderr(stderr).spawn().context("cannot start amphora")?;
        thread::sleep(after);
        child.kill()?;
        let status = child.wait()?;
        let stderr = fs::read_to_string(&said)?;
        fs::remove_file(&said)?;
        let ended = |code| Ended { command: words.to_vec(), code: Some(code), stdout: String::new(), stderr };
        Ok(status.code().map(ended))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // By amphora first: without root, layers may hold files of other ids.
        drop(self.run(&["system", "prune", "-a", "-f"]));
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            println!("{} is left behind: {error}", self.folder.display());
        }
    }
}

/// A command that has ended.
pub(super) struct Ended {
    pub(super) command: Vec<String>,
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Ended {
    /// For counting.
    pub(super) fn meaning(&self) -> String {
        match self.code {
            Some(0) => "done".to_owned(),
            Some(1 | 125) => "refused".to_owned(),
            Some(124 | 137) => "never ended".to_owned(),
            Some(code) => format!("ended with {code}"),
            None => "died".to_owned(),
        }
    }

    /// Why this should not have come of it.
    pub(super) fn unexpected(&self) -> Option<String> {
        let words: Vec<&str> = self.command.iter().take(2).map(String::as_str).collect();
        let expected = match self.code {
            Some(0) => true,
            Some(1) if words == ["system", "check"] => true,
            // Somebody else was writing.
            Some(2) => matches!(words[..], ["system", "check" | "prune"]),
            Some(1 | 125) => KNOWN.iter().any(|part| self.stderr.contains(part)),
            _ => false,
        };
        (!expected || self.stderr.contains("panicked")).then(|| self.to_string())
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (command, stdout, stderr) = (self.command.join(" "), self.stdout.trim_end(), self.stderr.trim_end());
        write!(f, "{command}: {}\n{stdout}\n{stderr}", self.meaning())
    }
}
