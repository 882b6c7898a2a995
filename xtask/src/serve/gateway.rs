//! A gateway in a folder of its own, with a store of its own.

use crate::command::{bounded, describe, run, tied};
use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::{fs::DirBuilderExt, net::UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// To listen, images being pulled before; and to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// One that runs; it ends when this is dropped, and its folder goes.
pub(super) struct Gateway {
    program: PathBuf,
    folder: PathBuf,
    process: Child,
    pub(super) port: u16,
}

impl Gateway {
    /// `functions`: the file without its `listen`. The first of `files` is its name in the folder, the second what it holds.
    pub(super) fn start(program: PathBuf, functions: &str, files: &[(&str, &str)]) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("amphora-serve-{}", std::process::id()));
        let made = fs::DirBuilder::new().mode(0o700).create(&folder);
        made.with_context(|| format!("cannot make {}", folder.display()))?;
        for (name, content) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().context("a file without a folder")?)?;
            fs::write(path, content)?;
        }
        write_functions(&folder, functions)?;
        let mut command = command_in(&folder, tied(&program));
        command.args(["serve", "functions.toml"]).stdout(Stdio::null()).stderr(File::create(folder.join("said"))?);
        let process = command.spawn().with_context(|| format!("cannot start {}", describe(&command)))?;
        let mut gateway = Self { program, folder, process, port: 0 };
        gateway.port = gateway.until("it listens", |gateway| {
            let said = gateway.said();
            let (_, rest) = said.split_once("listening at http://127.0.0.1:")?;
            rest.split_once('\n')?.0.parse().ok()
        })?;
        Ok(gateway)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it has said so far.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(self.folder.join("said")).unwrap_or_default()
    }

    /// Another file in place of the one that it has read, and that is read.
    pub(super) fn reload(&mut self, functions: &str) -> Result<()> {
        const READ: &str = "was read again\n";
        let before = self.said().matches(READ).count();
        write_functions(&self.folder, functions)?;
        self.signal(Signal::SIGHUP)?;
        self.until("it has read its file again", |gateway| {
            (gateway.said().matches(READ).count() > before).then_some(())
        })
    }

    /// What operators are told.
    pub(super) fn ask(&self, path: &str) -> Result<String> {
        let mut stream =
            UnixStream::connect(self.folder.join("run/serve/default.sock")).context("no operators' socket")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Runs another command on the same store; what it writes.
    pub(super) fn amphora(&self, words: &[&str]) -> Result<String> {
        let output = run(command_in(&self.folder, bounded(&self.program, PATIENCE)).args(words))?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    /// Ends it as a service manager does; nothing of it may be left.
    pub(super) fn stop(mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = self.until_ended()?;
        ensure!(status == Some(0), "the gateway ended with {status:?}: {}", self.said());
        let left = self.amphora(&["ps", "-aq"])?;
        ensure!(left.trim().is_empty(), "containers are left: {left}");
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.process.id())?);
        kill(pid, signal).context("the gateway is gone")
    }

    fn until_ended(&mut self) -> Result<Option<i32>> {
        self.until("it ends", |gateway| gateway.process.try_wait().ok().flatten().map(|status| status.code()))
    }

    fn until<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> Result<T> {
        let began = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return Ok(found);
            }
            if began.elapsed() > PATIENCE {
                bail!("waited in vain until {what}: {}", self.said());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|status| status.is_none()) {
            drop(self.signal(Signal::SIGTERM));
            drop(self.until_ended());
        }
        drop(self.amphora(&["system", "prune", "-a", "-f"]));
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            println!("{} is left behind: {error}", self.folder.display());
        }
    }
}

fn write_functions(folder: &std::path::Path, functions: &str) -> Result<()> {
    let text = format!("listen = [\"127.0.0.1:0\"]\naccess_log = \"off\"\n{functions}");
    fs::write(folder.join("functions.toml"), text).context("cannot write functions.toml")
}

/// On the store of the folder.
fn command_in(folder: &std::path::Path, mut command: Command) -> Command {
    let (root, runroot) = (folder.join("root"), folder.join("run"));
    command.envs([("AMPHORA_ROOT", root), ("AMPHORA_RUNROOT", runroot)]).env("AMPHORA_NETWORK", "none");
    command.current_dir(folder).stdin(Stdio::null());
    command
}
