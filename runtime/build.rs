//! Compiles the Linux half of the demo's program, and tells the linker which functions belong together.
//!
//! The demo's Wasm half, `demo/vessel.wat`, is committed, as the compiler that rustc links with can seldom make Wasm.

#[path = "../linux-exec/launcher/compile.rs"]
mod compile;

use compile::variable;
use std::{env, path::PathBuf, process::ExitCode};

/// Written by `cargo xtask link-order`.
const LINK_ORDER: &str = "link-order.txt";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=../linux-exec/launcher/freestanding.h");
    println!("cargo::rerun-if-changed={LINK_ORDER}");
    match order_functions().and_then(|()| compile::compile("demo/vessel.c", "vessel")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => compile::fail(&problem),
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
