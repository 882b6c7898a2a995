//! Why a program could not be started.

use std::{io, path::PathBuf};

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The bytes are not a program.
    #[error("this is not a Wasm program: {detail}")]
    Program {
        /// What is wrong, and at which offset.
        detail: String,
    },
    /// Compiled code that does not load.
    #[error(
        "the compiled code cannot be loaded: {detail}; remove it from the store's `compiled` directory, and the program is compiled again"
    )]
    Code {
        /// wasmtime's words.
        detail: String,
    },
    /// A fuel limit for code that does not count.
    #[error("a fuel limit needs code that counts instructions, and this code was compiled without")]
    NotCounting,
    /// Nothing to call.
    #[error("this program cannot be started: it needs to export {expected}, and {exports}{hint}")]
    NoEntry {
        /// What a program is started by.
        expected: &'static str,
        /// What there is.
        exports: String,
        /// What it is instead.
        hint: &'static str,
    },
    /// What it would be called by is not what it is named.
    #[error("this program cannot be started: what it exports as `{name}` is not that of WASI: {detail}")]
    Entry {
        /// The export.
        name: String,
        /// wasmtime's words.
        detail: String,
    },
    /// A call that cannot be made.
    #[error("cannot call `{call}`: {detail}")]
    Call {
        /// As it was asked for.
        call: String,
        /// Why not, and what there is.
        detail: String,
    },
    /// Something that nothing provides.
    #[error("this program imports what is not provided here: {}", missing.join(", "))]
    Imports {
        /// Names, with what is wrong where it is not the name.
        missing: Vec<String>,
    },
    /// A key-value store that cannot be opened.
    #[error("cannot open the key-value store {name}: {detail}")]
    Store {
        /// What the program calls it.
        name: String,
        /// Why not.
        detail: String,
    },
    /// A granted directory that cannot be opened.
    #[error("cannot open the granted directory {host}: {detail}")]
    Directory {
        /// Where it was looked for.
        host: PathBuf,
        /// Why not.
        detail: String,
    },
    /// A working directory that is not there.
    #[error("cannot use {guest} as the working directory: {host}: {detail}")]
    WorkingDirectory {
        /// Its name for the program.
        guest: String,
        /// Where it was looked for.
        host: PathBuf,
        /// Why not.
        detail: String,
    },
    /// The engine could not be made.
    #[error("the Wasm engine cannot be set up: {detail}")]
    Engine {
        /// wasmtime's words.
        detail: String,
    },
    /// The program could not be instantiated, by no fault of its own that has a name.
    #[error("the program cannot be started: {detail}")]
    Start {
        /// wasmtime's words.
        detail: String,
    },
    /// A thread or the event loop could not be made.
    #[error("cannot start {what}: {error}")]
    Thread {
        /// Which.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
}

impl RunError {
    #[expect(clippy::needless_pass_by_value, reason = "the signature that map_err needs")]
    pub(crate) fn engine(error: wasmtime::Error) -> Self {
        Self::Engine { detail: format!("{error:#}") }
    }

    pub(crate) fn no_entry<'a>(expected: &'static str, exports: impl Iterator<Item = &'a str>) -> Self {
        let exports: Vec<_> = exports.collect();
        let hint = match exports.as_slice() {
            names if names.iter().any(|name| name.starts_with("wasi:http/")) => {
                "; it is a function that answers HTTP requests: -p HOST_PORT:PORT serves it"
            }
            names if names.iter().any(|name| name.starts_with("wasi:cli/run@")) => {
                "; it is a command for a version of WASI that is not known here"
            }
            _ => "",
        };
        Self::NoEntry { expected, exports: listed(&exports), hint }
    }
}

fn listed(names: &[&str]) -> String {
    const SHOWN: usize = 8;
    let more = match names.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    match names {
        [] => "it exports nothing".into(),
        _ => format!("it exports {}{more}", names[..names.len().min(SHOWN)].join(", ")),
    }
}
