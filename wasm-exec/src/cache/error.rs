//! Why a program could not be compiled or its code not be cached.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a program could not be compiled or its code not be cached.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The digest is not one.
    #[error("`{0}` is not a sha256 digest: expected 64 lower-case hexadecimal digits")]
    Digest(String),
    /// The bytes are not a program.
    #[error("this is not a Wasm program that can be compiled: {detail}")]
    Program {
        /// What is wrong, and at which offset.
        detail: String,
    },
    /// It uses proposals that are off.
    #[error("this program uses proposals for WebAssembly that are off unless they are asked for, {names}: {detail}")]
    Off {
        /// Their names, with commas between.
        names: String,
        /// Where, in wasmtime's words.
        detail: String,
    },
    /// It uses a proposal that this engine does not have.
    #[error("this program uses a proposal for WebAssembly that the engine does not have, {name}: {detail}")]
    Lacking {
        /// Its name.
        name: String,
        /// Where, in wasmtime's words.
        detail: String,
    },
    /// The engine could not be made.
    #[error("the Wasm engine cannot be set up: {detail}")]
    Engine {
        /// wasmtime's words.
        detail: String,
    },
    /// No random numbers for a key.
    #[error("cannot make a key for compiled code: the system gives no random numbers")]
    Random,
    /// A system call failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was to be done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Taken by value, as `map_err` gives it.
#[expect(clippy::needless_pass_by_value, reason = "the signature that map_err needs")]
pub(super) fn engine_error(error: wasmtime::Error) -> CacheError {
    CacheError::Engine { detail: format!("{error:#}") }
}

pub(super) fn io_error<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError::Io { action, path, source: source.into() }
}
