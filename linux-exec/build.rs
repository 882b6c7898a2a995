//! Compiles the launcher.

#[path = "launcher/compile.rs"]
mod compile;

use std::process::ExitCode;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=launcher/freestanding.h");
    match compile::compile("launcher/launcher.c", "launcher") {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => compile::fail(&problem),
    }
}
