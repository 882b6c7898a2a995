//! The demo's program in both its forms: the Linux one does what its source says, and the Wasm one, which is committed, is
//! what its source compiles to.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const LINUX_PROGRAM: &str = concat!(env!("OUT_DIR"), "/vessel");

/// What `demo/vessel.wat` was made with: commands, and what their `--version` says. Other versions make other text of the
/// same source.
const TOOLS: [(&str, &str); 3] = [("clang", "clang version 14."), ("wasm-ld", "LLD 14."), ("wasm2wat", "1.0.")];

/// Before the command in `demo/vessel.wat` that makes it.
const COMMAND: &str = ";; $ ";

#[test]
fn the_linux_program_greets_and_echoes() {
    let said = |text: &str| (Some(0), text.to_owned(), String::new());
    assert_eq!(vessel(&[]), said("Hello from a vessel of Linux code.\n"));
    assert_eq!(vessel(&["args", "a", "b c", "", "é"]), said("a\nb c\n\né\n"));
    assert_eq!(vessel(&["args"]), said(""));
    let usage = "usage: vessel [hog | spin | wait | args ARGUMENT...]\n".to_owned();
    assert_eq!(vessel(&["nonsense"]), (Some(2), String::new(), usage));
}

#[test]
fn the_linux_program_traps_where_memory_ends() {
    let script = format!("ulimit -v 32768; exec '{LINUX_PROGRAM}' hog");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "vessel: no more memory\n");
    assert_eq!(output.status.code(), None, "a signal ends it: {}", output.status);
}

#[test]
fn the_wasm_program_is_what_its_source_compiles_to() {
    if let Some(reason) = TOOLS.iter().find_map(|(tool, version)| unusable(tool, version)) {
        println!("skipped: {reason}");
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    let committed = fs::read_to_string(folder.join("vessel.wat")).unwrap();
    let command = committed.lines().find_map(|line| line.strip_prefix(COMMAND)).unwrap();
    let temporary = TemporaryFile::new();
    let made =
        Command::new("sh").args(["-c", command]).current_dir(&folder).env("WASM", &temporary.0).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made = String::from_utf8(made.stdout).unwrap();
    assert!(
        code(&made) == code(&committed),
        "demo/vessel.wat is not what demo/vessel.c compiles to; made now:\n{made}"
    );
}

fn vessel(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(LINUX_PROGRAM).args(arguments).output().expect("the build script made it");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it writes UTF-8");
    (status.code(), text(stdout), text(stderr))
}

/// The lines that are not comments, without their indentation.
fn code(wat: &str) -> Vec<&str> {
    wat.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(";;")).collect()
}

/// Why a tool cannot be used, if it cannot.
fn unusable(tool: &str, version: &str) -> Option<String> {
    match Command::new(tool).arg("--version").output() {
        Err(error) => Some(format!("cannot run {tool}: {error}")),
        Ok(output) => {
            let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            (!found.contains(version)).then(|| format!("{tool} must be `{version}`, and is `{found}`"))
        }
    }
}

struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("vessel-{}.wasm", std::process::id())))
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // It is not there if the command failed.
        let _ = fs::remove_file(&self.0);
    }
}
