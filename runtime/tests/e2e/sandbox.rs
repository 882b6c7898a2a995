//! A store of its own for each test, with everything removed at its end and nothing left behind.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;

use crate::session::{Ended, Session};

/// The programs of the test registry are there in these forms, each under a tag of that name.
pub(crate) const KINDS: [&str; 3] = ["linux", "wasm", "component"];

/// `{{.Kind}}` of a tag.
pub(crate) fn kind_of(tag: &str) -> &'static str {
    if tag == "linux" { "linux" } else { "wasm" }
}

/// A fixture that `cargo xtask test` makes; None where a tool for it is not installed, which is then said.
pub(crate) fn fixture(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os("AMPHORA_TEST_FIXTURES")?).join(name);
    if !path.exists() {
        println!("skipped: the fixture {name} is not there");
        return None;
    }
    Some(path)
}

/// Emulated, with one slow processor.
pub(crate) fn is_second_kernel() -> bool {
    env::var_os("AMPHORA_SECOND_KERNEL").is_some()
}

/// ROOT and RUNROOT in a folder that goes when this is dropped.
pub(crate) struct Sandbox {
    folder: PathBuf,
    registry: String,
}

impl Sandbox {
    /// None, and said so, where there is no registry.
    pub(crate) fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Ok(registry) = env::var("AMPHORA_TEST_REGISTRY") else {
            println!("skipped: no registry; run cargo xtask test");
            return None;
        };
        let name = format!("amphora-e2e-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a folder for the test");
        fs::create_dir(folder.join("work")).expect("a folder for the test");
        Some(Self { folder, registry })
    }

    /// A sandbox in which these images of the registry are, and their full names.
    pub(crate) fn with<const N: usize>(names: [&str; N]) -> Option<(Self, [String; N])> {
        let sandbox = Self::new()?;
        let images = names.map(|name| sandbox.pull(name));
        Some((sandbox, images))
    }

    /// The user's current folder while amphora runs.
    pub(crate) fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    /// Writes a file in [`Self::work`] and gives its path as text.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.work().join(name);
        fs::write(&path, content).expect("a file of the test");
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    pub(crate) fn runroot(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// The full name of an image of the registry.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.registry)
    }

    /// Pulls an image of the registry, and gives its full name.
    pub(crate) fn pull(&self, name: &str) -> String {
        let image = self.image(name);
        self.ok(["pull", "-q", &image]);
        image
    }

    /// The program with ROOT and RUNROOT, and nothing on its standard input.
    pub(crate) fn command<I: AsRef<str>>(&self, arguments: impl IntoIterator<Item = I>) -> Command {
        let mut command = Command::new(binary());
        command.arg("--root").arg(self.root()).arg("--runroot").arg(self.runroot());
        command.args(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        // Those that are about networks say so.
        command.current_dir(self.work()).stdin(Stdio::null()).env("AMPHORA_NETWORK", "none");
        command
    }

    /// Starts a command and leaves it running.
    pub(crate) fn start<I: AsRef<str>>(&self, arguments: impl IntoIterator<Item = I>) -> Session {
        Session::start(self.command(arguments))
    }

    /// Runs a command to its end.
    pub(crate) fn run<I: AsRef<str>>(&self, arguments: impl IntoIterator<Item = I>) -> Ended {
        self.start(arguments).wait()
    }

    /// The standard output of a command that succeeds.
    pub(crate) fn ok<I: AsRef<str>>(&self, arguments: impl IntoIterator<Item = I>) -> String {
        let arguments: Vec<String> = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        let ended = self.run(&arguments);
        assert_eq!(ended.code, Some(0), "{}: {ended}", arguments.join(" "));
        ended.stdout
    }

    /// The standard error of a command that ends with this code.
    pub(crate) fn fails<I: AsRef<str>>(&self, code: i32, arguments: impl IntoIterator<Item = I>) -> String {
        let arguments: Vec<String> = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        let ended = self.run(&arguments);
        assert_eq!(ended.code, Some(code), "{}: {ended}", arguments.join(" "));
        ended.stderr
    }

    /// The standard error of a command that fails before any program runs: with Docker's code for that.
    pub(crate) fn refuses<I: AsRef<str>>(&self, arguments: impl IntoIterator<Item = I>) -> String {
        let arguments: Vec<String> = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        let code = match arguments.iter().map(String::as_str).take(2).collect::<Vec<_>>()[..] {
            // Lower codes of theirs mean something.
            ["run", ..] | ["system", "check" | "repair"] => 125,
            _ => 1,
        };
        self.fails(code, arguments)
    }

    /// One field of `inspect`, by a template such as `.State.Status`.
    pub(crate) fn inspect(&self, name: &str, field: &str) -> String {
        self.ok(["inspect", "--format", &format!("{{{{{field}}}}}"), name]).trim_end().to_owned()
    }

    /// All of `inspect`.
    pub(crate) fn details(&self, name: &str) -> Value {
        let text = self.ok(["inspect", name]);
        let all: Value = serde_json::from_str(&text).expect("inspect prints JSON");
        all[0].clone()
    }

    /// `info`, one field.
    pub(crate) fn info(&self, field: &str) -> String {
        self.ok(["info", "--format", &format!("{{{{.{field}}}}}")]).trim_end().to_owned()
    }

    /// Whether the caller is root of the machine.
    pub(crate) fn is_root(&self) -> bool {
        self.info("Rootless") == "false"
    }

    /// Whether these limits can be enforced for a Linux image here. Where not, they must be refused with the reason, and
    /// only to an ordinary user, or by a kernel that lacks the controller, as the second one lacks cpuset.
    pub(crate) fn can_limit(&self, flags: &[&str]) -> bool {
        let hello = self.pull("hello:linux");
        let ended = self.run(["run", "--rm"].iter().chain(flags).copied().chain([hello.as_str()]));
        if ended.code == Some(0) {
            return true;
        }
        assert!(!self.is_root() || is_second_kernel(), "{flags:?} for root: {ended}");
        assert_eq!(ended.code, Some(125), "{flags:?}: {ended}");
        assert!(ended.stderr.contains("cannot be enforced: "), "{flags:?}: {ended}");
        println!("skipped: {flags:?} for a Linux image is refused here: {}", ended.stderr.trim());
        false
    }

    /// Nothing was left behind.
    pub(crate) fn check_clean(&self) {
        let ended = self.run(["system", "check"]);
        assert_eq!(ended.code, Some(0), "system check: {ended}");
    }

    /// What is under a folder of ROOT and RUNROOT; nothing if it is not there.
    pub(crate) fn stored(&self, folder: &str) -> Vec<String> {
        let folders = [self.root().join(folder), self.runroot().join(folder)];
        let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    }

    /// Everything of amphora's is removed by amphora; gives what went wrong in that.
    fn clean_up(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut step = |arguments: &[&str]| -> String {
            match Session::start(self.command(arguments)).try_wait() {
                Ok(ended) if ended.code == Some(0) => return ended.stdout,
                Ok(ended) => wrong.push(format!("{}: {ended}", arguments.join(" "))),
                Err(why) => wrong.push(format!("{}: {why}", arguments.join(" "))),
            }
            String::new()
        };
        let ids = step(&["ps", "-a", "-q", "--no-trunc"]);
        let remove: Vec<&str> = ["rm", "-f", "-v"].into_iter().chain(ids.lines()).collect();
        if remove.len() > 3 {
            step(&remove);
        }
        step(&["system", "check"]);
        step(&["system", "prune", "-a", "-f"]);
        for folder in [
            "containers",
            "names",
            "writable",
            "running",
            "layers",
            "compiled",
            "image-layout/blobs/sha256",
            "temporary",
        ] {
            let left = self.stored(folder);
            if !left.is_empty() {
                wrong.push(format!("after system prune -a there is something in ROOT/{folder}: {left:?}"));
            }
        }
        wrong
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let wrong = self.clean_up();
        let removed = fs::remove_dir_all(&self.folder);
        // One failure is enough, and a second panic would end all tests.
        if !std::thread::panicking() {
            assert!(wrong.is_empty(), "at the end of the test: {}", wrong.join("\n"));
            removed.unwrap_or_else(|error| panic!("{} cannot be removed: {error}", self.folder.display()));
        }
    }
}

/// The program under test.
pub(crate) fn binary() -> PathBuf {
    env::var_os("AMPHORA_BIN").map_or_else(|| Path::new(env!("CARGO_BIN_EXE_amphora")).to_owned(), PathBuf::from)
}
