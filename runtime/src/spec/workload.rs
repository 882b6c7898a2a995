//! What a container runs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a container runs: decided once, when it is made, and written down with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Workload {
    /// Programs in a root file system; which one is decided by the command line.
    Linux,
    /// One program for the engine.
    Wasm(WasmProgram),
}

/// Where a Wasm program lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WasmProgram {
    /// It is a blob of its image.
    Blob {
        /// `sha256:…`
        digest: String,
    },
    /// It is a file in a root file system that it may see.
    File {
        /// Path inside the root.
        path: String,
    },
}

impl Workload {
    /// Its kind.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Workload::Linux => Kind::Linux,
            Workload::Wasm(_) => Kind::Wasm,
        }
    }
}

/// The kinds there are, by the name that lists show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A program for the kernel.
    Linux,
    /// A program for the engine.
    Wasm,
}

impl Kind {
    /// Its operating system, as images name it.
    pub(crate) fn platform(self) -> &'static str {
        match self {
            Kind::Linux => "linux",
            Kind::Wasm => "wasi",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Linux => "linux",
            Kind::Wasm => "wasm",
        })
    }
}
