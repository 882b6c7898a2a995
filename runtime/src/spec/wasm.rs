//! What is asked of a Wasm program's engine, beside limits.

use serde::{Deserialize, Serialize};

/// Of a Linux program none of it can be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WasmOptions {
    /// `--invoke`: one function that it exports is called so, with arguments in WAVE, instead of what starts a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invoke: Option<String>,
    /// `--wasm`: names of proposals that it may use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proposals: Vec<String>,
}

impl WasmOptions {
    /// Whether nothing is asked for.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
