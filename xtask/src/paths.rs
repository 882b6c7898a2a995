//! Where things lie in the workspace.
//!
//! ```text
//! target/
//!   fixtures/              what tests and benchmarks run on; each file and folder appears whole, by rename
//!     stamps/NAME          what NAME was made from; another content means that it has to be made again
//!     programs/            {linux,wasm,component}/NAME, compiled from xtask/fixtures/*.c and *.wat
//!     layouts/NAME-TAG/    one OCI image layout per image of the registry
//!     registry/            the registry's storage, shared by all instances
//!     env                  NAME=value lines of the registry that `cargo xtask registry` serves
//!   second-kernel/         script, log and exit status of the run under user-mode-linux
//!   bench/                 results of `cargo xtask bench`
//! ```

use std::{
    env,
    path::{Path, PathBuf},
};

/// The workspace's own folder.
pub(crate) fn workspace() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The folder of everything that tests run on.
pub(crate) fn fixtures() -> PathBuf {
    target().join("fixtures")
}

/// The release binary.
pub(crate) fn binary() -> PathBuf {
    release("amphora")
}

/// A program of the workspace as `cargo build --release` leaves it; `.cargo/config.toml` names the target, so there is a
/// folder more.
pub(crate) fn release(program: &str) -> PathBuf {
    target().join(format!("{}-unknown-linux-gnu", env::consts::ARCH)).join("release").join(program)
}
