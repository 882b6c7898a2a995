// Compiles programs without any library; for the build scripts that have such.

use std::{env, ffi::OsString, path::PathBuf, process::Command};

/// A static executable without any library, at a fixed address, and small: what a container can start fastest.
const FLAGS: [&str; 15] = [
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-Os",
    "-ffreestanding",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fno-pie",
    "-no-pie",
    "-static",
    "-nostdlib",
    "-s",
    "-Wl,--build-id=none",
    "-Wl,-z,noexecstack",
    "-Wl,-z,noseparate-code",
];

/// Compiles `source`, relative to the package, to the file `name` in OUT_DIR.
pub(crate) fn compile(source: &str, name: &str) -> Result<(), String> {
    println!("cargo::rerun-if-changed={source}");
    println!("cargo::rerun-if-env-changed=CC");
    let compiler = env::var("CC").ok().filter(|name| !name.trim().is_empty()).unwrap_or_else(|| "cc".to_owned());
    let mut words = compiler.split_whitespace();
    let program = words.next().unwrap_or("cc");
    let target: PathBuf = variable("OUT_DIR")?.into();
    let output = Command::new(program)
        .args(words)
        .args(FLAGS)
        .arg("-o")
        .arg(target.join(name))
        .arg(PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join(source))
        .output()
        .map_err(|error| {
            format!("cannot run the C compiler `{program}`: {error}; install one (Debian: apt install gcc) or set CC")
        })?;
    match output.status.success() {
        true => Ok(()),
        false => {
            Err(format!("`{compiler}` cannot compile {source}: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
    }
}

/// A variable that cargo sets for build scripts.
pub(crate) fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set: this program is for cargo to run"))
}

/// Says what went wrong where cargo shows it.
pub(crate) fn fail(problem: &str) -> std::process::ExitCode {
    println!("cargo::error={}", problem.replace('\n', " | "));
    std::process::ExitCode::FAILURE
}
