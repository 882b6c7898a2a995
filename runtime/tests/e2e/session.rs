//! A command that runs, with what it printed so far.

use std::{
    fmt,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

/// After this, what is waited for does not come. Long enough for a kernel that is emulated.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(10);

/// Waits until something is there, and fails when it does not come.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(found) = look() {
            return found;
        }
        thread::sleep(POLL);
    }
    panic!("{what}: not within {PATIENCE:?}");
}

/// Whether a process with this id is there and no zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// None: by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => writeln!(f, "exit code {code}")?,
            None => writeln!(f, "killed by a signal")?,
        }
        write!(f, "stdout: {}\nstderr: {}", self.stdout, self.stderr)
    }
}

/// One of its outputs, read by a thread of its own.
struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Output {
    fn read(mut from: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                sink.lock().expect("nobody panics here").extend_from_slice(&buffer[..count]);
            }
        });
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("nobody panics here")).into_owned()
    }
}

/// Killed and reaped when dropped.
pub(crate) struct Session {
    child: Child,
    outputs: [Output; 2],
}

impl Session {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = Output::read(child.stdout.take().expect("piped"));
        let stderr = Output::read(child.stderr.take().expect("piped"));
        Self { child, outputs: [stdout, stderr] }
    }

    /// Writes to its standard input, which must be a pipe, and closes it.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let mut stdin = self.child.stdin.take().expect("a pipe as standard input");
        stdin.write_all(bytes).expect("somebody who reads");
    }

    /// Writes to its standard input, which must be a pipe, and leaves it open.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.child.stdin.as_mut().expect("a pipe as standard input").write_all(bytes).expect("somebody who reads");
    }

    pub(crate) fn stdout(&self) -> String {
        self.outputs[0].text()
    }

    pub(crate) fn stderr(&self) -> String {
        self.outputs[1].text()
    }

    /// Waits until its standard output has this text.
    #[track_caller]
    pub(crate) fn until_printed(&self, text: &str) {
        let begun = Instant::now();
        while !self.stdout().contains(text) {
            let [stdout, stderr] = &self.outputs;
            let said = || format!("stdout: {}\nstderr: {}", stdout.text(), stderr.text());
            assert!(begun.elapsed() < PATIENCE, "`{text}` is not printed: {}", said());
            assert!(!stdout.reader.is_finished() || self.stdout().contains(text), "ended without `{text}`: {}", said());
            thread::sleep(POLL);
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal::kill(Pid::from_raw(self.pid()), signal).expect("a process to signal");
    }

    /// Waits for its end and for the end of its outputs.
    #[track_caller]
    pub(crate) fn wait(self) -> Ended {
        self.try_wait().unwrap_or_else(|why| panic!("{why}"))
    }

    /// The same; an error says what did not end.
    pub(crate) fn try_wait(mut self) -> Result<Ended, String> {
        let begun = Instant::now();
        loop {
            let status = self.child.try_wait().map_err(|error| error.to_string())?;
            let read = self.outputs.iter().all(|output| output.reader.is_finished());
            let [stdout, stderr] = &self.outputs;
            match status {
                Some(status) if read => {
                    return Ok(Ended { code: status.code(), stdout: stdout.text(), stderr: stderr.text() });
                }
                _ if begun.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(2)),
                None => {
                    return Err(format!(
                        "does not end within {PATIENCE:?}\nstdout: {}\nstderr: {}",
                        stdout.text(),
                        stderr.text()
                    ));
                }
                Some(_) => {
                    return Err("it ended, but somebody still holds its standard output or error open".to_owned());
                }
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It has ended already, unless a test gives up.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
