//! One test, run.

use super::{
    http::{Running, free_port},
    suite::{Case, Operation},
};
use crate::{
    command::{run, tied},
    paths,
};
use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// No test takes as long.
const LIMIT: Duration = Duration::from_secs(30);

/// Who runs the programs.
pub(super) enum Contender {
    /// What was built last, with a store of its own.
    Amphora { root: PathBuf, runroot: PathBuf },
    /// `wasmtime`, for comparison.
    Wasmtime(PathBuf),
}

impl Contender {
    pub(super) fn amphora(folder: &Path) -> Self {
        Self::Amphora { root: folder.join("root"), runroot: folder.join("run") }
    }

    /// An error says what the test found.
    pub(super) fn run(&self, case: &Case, scratch: &Path) -> Result<()> {
        let servers: Vec<Running> = case.servers.iter().map(Running::start).collect::<Result<_>>()?;
        let port = case.serves.then(free_port).transpose()?;
        let mut session = None;
        for operation in &case.operations {
            match (operation, &mut session) {
                (Operation::Run { args, env, root }, _) => {
                    let root = root.as_deref().map(|root| copied(root, scratch)).transpose()?;
                    let mut env = env.clone();
                    env.extend(servers.iter().map(|server| (server.variable.clone(), server.address.to_string())));
                    let given = Given { env: &env, root: root.as_deref(), args, servers: &servers, port };
                    session = Some(Session::start(&mut self.command(case, &given)?, port)?);
                }
                (other, Some(session)) => session.take(other)?,
                (_, None) => bail!("the test begins with something else than `run`"),
            }
        }
        Ok(())
    }

    fn command(&self, case: &Case, given: &Given<'_>) -> Result<Command> {
        let root = given.root;
        let variables = given.env.iter().map(|(name, value)| format!("{name}={value}"));
        let mut command = match self {
            Self::Amphora { .. } => {
                // Programs find the name of their file first among their arguments.
                let image = format!("conformance/{}.wasm", case.name);
                run(self.amphora_command().arg("import").arg(&case.program).arg(&image))?;
                let mut command = self.amphora_command();
                command.args(["run", "--rm", "-i", "--timeout", "20s"]);
                command.args(root.map(|root| format!("-v={}:/", root.display())));
                command.args(variables.map(|variable| format!("--env={variable}")));
                command.args(case.sockets.then_some("--network=host"));
                command.args(given.port.map(|port| format!("-p=127.0.0.1:{port}:80")));
                command.args(given.servers.iter().map(|server| format!("--allow-net={}", server.address))).arg(image);
                command
            }
            Self::Wasmtime(program) => {
                let mut command = alone(program);
                match given.port {
                    Some(port) => command.args(["serve", "-Scli", &format!("--addr=127.0.0.1:{port}")]),
                    None => command.arg("run"),
                };
                if case.suite.contains("wasip3") {
                    command.args(["-Wcomponent-model-async", "-Sp3,http"]);
                }
                command.args(case.sockets.then_some("-Sinherit-network"));
                command.args(root.map(|root| format!("--dir={}::/", root.display())));
                command.args(variables.map(|variable| format!("--env={variable}"))).arg(&case.program);
                command
            }
        };
        command.args(given.args);
        Ok(command)
    }

    fn amphora_command(&self) -> Command {
        let mut command = alone(&paths::binary());
        if let Self::Amphora { root, runroot } = self {
            command.arg("--root").arg(root).arg("--runroot").arg(runroot);
        }
        command
    }
}

/// Bounded in time, and without its process group: a signal reaches the program once.
fn alone(program: &Path) -> Command {
    let mut command = tied(&"timeout");
    command.args(["--foreground", "--kill-after=10", &LIMIT.as_secs().to_string()]).arg(program);
    command
}

/// What a program is given.
struct Given<'a> {
    env: &'a [(String, String)],
    root: Option<&'a Path>,
    args: &'a [String],
    servers: &'a [Running],
    /// At which it answers.
    port: Option<u16>,
}

/// A copy of a test's files that the program may change, without what another run left behind.
fn copied(folder: &Path, scratch: &Path) -> Result<PathBuf> {
    run(Command::new("cp").arg("-a").arg(folder).arg(scratch))?;
    for entry in fs::read_dir(scratch)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "cleanup") {
            fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path))?;
        }
    }
    Ok(scratch.to_owned())
}

/// A program that runs, and what is connected to it.
struct Session {
    child: Child,
    stdout: BufReader<Box<dyn Read>>,
    stderr: BufReader<Box<dyn Read>>,
    connection: Option<TcpStream>,
    port: Option<u16>,
}

impl Session {
    fn start(command: &mut Command, port: Option<u16>) -> Result<Self> {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start it")?;
        let stdout: Box<dyn Read> = Box::new(child.stdout.take().context("it has no stdout")?);
        let stderr: Box<dyn Read> = Box::new(child.stderr.take().context("it has no stderr")?);
        Ok(Self { child, stdout: BufReader::new(stdout), stderr: BufReader::new(stderr), connection: None, port })
    }

    fn take(&mut self, operation: &Operation) -> Result<()> {
        match operation {
            Operation::Run { .. } => bail!("it runs already"),
            Operation::Other(name) => bail!("`{name}` is a step that is not known here"),
            Operation::Request(exchange) => {
                let port = self.port.context("it answers no requests")?;
                exchange.make(SocketAddr::from(([127, 0, 0, 1], port)))
            }
            Operation::Kill { signal } => self.signal(signal.parse().with_context(|| format!("`{signal}`"))?),
            Operation::Wait { exit_code } => self.wait(*exit_code),
            Operation::Read { stderr, payload } => {
                let stream = if *stderr { &mut self.stderr } else { &mut self.stdout };
                expect(stream, payload, if *stderr { "its stderr" } else { "its stdout" })
            }
            Operation::Write { payload } => {
                self.child.stdin.as_mut().context("it has no stdin")?.write_all(payload.as_bytes()).context("its stdin")
            }
            Operation::Connect => self.connect(),
            Operation::Send { payload } => Ok(self.connection()?.write_all(payload.as_bytes())?),
            Operation::Receive { payload } => expect(self.connection()?, payload, "its connection"),
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    /// It prints where it listens.
    fn connect(&mut self) -> Result<()> {
        let mut address = String::new();
        self.stdout.read_line(&mut address)?;
        let connection =
            TcpStream::connect(address.trim()).with_context(|| format!("cannot connect to `{address}`"))?;
        connection.set_read_timeout(Some(LIMIT))?;
        self.connection = Some(connection);
        Ok(())
    }

    fn connection(&mut self) -> Result<&mut TcpStream> {
        self.connection.as_mut().context("it is not connected")
    }

    fn wait(&mut self, exit_code: i32) -> Result<()> {
        drop(self.child.stdin.take());
        let mut said = String::new();
        // What is on one stream only fits into a pipe; no test has more.
        self.stdout.read_to_string(&mut said)?;
        self.stderr.read_to_string(&mut said)?;
        let status = self.child.wait()?;
        ensure!(status.code() == Some(exit_code), "it ended with {status}, expected {exit_code}: {said}");
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A test that failed in the middle; one that has ended is waited for once more, which is no error.
        let _ = self.signal(Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

fn expect(stream: &mut impl Read, payload: &str, which: &str) -> Result<()> {
    let mut found = vec![0; payload.len()];
    let read = stream.read_exact(&mut found);
    ensure!(
        read.is_ok() && found == payload.as_bytes(),
        "{which} has `{}`, expected `{payload}`",
        String::from_utf8_lossy(&found).trim_end_matches('\0')
    );
    Ok(())
}
