//! Running other programs: each with an end in time, none of them outliving this one.

use anyhow::{Context, Result, bail};
use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// Where programs lie that an ordinary user's `PATH` leaves out.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Finds a program as a shell would, and in the folders for the administrator too.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(SYSTEM_FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// A command that ends when this process does, and after `limit` at the latest.
///
/// `timeout` puts the program into a process group of its own and ends the whole group, so that what a test binary
/// or a build started ends too. stdin is empty.
pub(crate) fn bounded(program: impl AsRef<OsStr>, limit: Duration) -> Command {
    let mut command = tied(&"timeout");
    command.args(["--kill-after=10", &limit.as_secs().to_string()]).arg(program);
    command
}

/// A command that ends when this process does: for servers, which have no time of their own.
pub(crate) fn tied(program: &impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(program).stdin(Stdio::null());
    command
}

/// `cargo` with the environment that a user's own call has.
///
/// What `cargo run` sets for this program would reach build scripts that ask for it, and have them built anew.
pub(crate) fn cargo(limit: Duration) -> Command {
    let mut command = bounded(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), limit);
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|p| name_text.starts_with(p)) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end; one that fails is an error that repeats its last words.
pub(crate) fn run(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("cannot start {}", describe(command)))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = words.lines().collect();
    let last = lines[lines.len().saturating_sub(20)..].join("\n  ");
    bail!("{} ended with {}\n  {last}", describe(command), meaning(output.status.code()));
}

/// What a command line was, without the wrappers of [`bounded`].
pub(crate) fn describe(command: &Command) -> String {
    let words: Vec<String> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let own = words.iter().skip_while(|word| word.starts_with('-') || *word == "TERM");
    let own: Vec<&str> = own.map(String::as_str).collect();
    match own.as_slice() {
        ["timeout", _, _, rest @ ..] => rest.join(" "),
        rest => rest.join(" "),
    }
}

/// An exit code in words; 124 and 137 are what `timeout` makes of a program that it ended.
pub(crate) fn meaning(code: Option<i32>) -> String {
    match code {
        Some(124 | 137) => "no result: its time was over".to_owned(),
        Some(code) => format!("status {code}"),
        None => "a signal".to_owned(),
    }
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0)
}

/// Reads a text file, with its path in the error.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
