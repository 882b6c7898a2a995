//! Compiles the init and the Linux half of the demo's program, and tells the linker which functions belong together.
//!
//! The demo's Wasm half, `demo/vessel.wat`, is committed, as the compiler that rustc links with can seldom make Wasm.

use std::{
    env,
    ffi::OsString,
    path::PathBuf,
    process::{Command, ExitCode},
};

/// Programs without any library, each by its source and the name of what is made of it.
const PROGRAMS: [(&str, &str); 2] = [("demo/vessel.c", "vessel"), ("init/init.c", "init")];
/// Written by `cargo xtask link-order`.
const LINK_ORDER: &str = "link-order.txt";

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

fn main() -> ExitCode {
    let sources = PROGRAMS.iter().map(|(source, _)| *source).chain(["freestanding.h"]);
    sources.for_each(|source| println!("cargo::rerun-if-changed={source}"));
    println!("cargo::rerun-if-env-changed=CC");
    println!("cargo::rerun-if-changed={LINK_ORDER}");
    match order_functions().and_then(|()| PROGRAMS.iter().try_for_each(|(source, name)| compile(source, name))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            println!("cargo::error={}", problem.replace('\n', " | "));
            ExitCode::FAILURE
        }
    }
}

/// The functions of a start next to each other, which halves its page faults. Only lld takes such a list; rustc brings it
/// along for this target, and links with it unless it was told otherwise.
fn order_functions() -> Result<(), String> {
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let told_otherwise = env::var_os("RUSTC_LINKER").is_some()
        || ["linker", "link-self-contained", "fuse-ld"].iter().any(|word| flags.contains(word));
    if variable("TARGET")? != "x86_64-unknown-linux-gnu" || told_otherwise {
        return Ok(());
    }
    let list = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join(LINK_ORDER);
    println!("cargo::rustc-link-arg-bins=-Wl,--symbol-ordering-file={}", list.display());
    // Functions come and go; those that are gone are passed over.
    println!("cargo::rustc-link-arg-bins=-Wl,--no-warn-symbol-ordering");
    Ok(())
}

fn compile(source: &str, name: &str) -> Result<(), String> {
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

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set: this program is for cargo to run"))
}
