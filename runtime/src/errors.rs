//! Errors that carry an exit code.

/// An error for which Docker's users expect a certain exit code; any other error ends with 125.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Coded {
    code: u8,
    message: String,
}

impl Coded {
    /// 126: not executable; 127: not found.
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// The exit code for an error: its own if it carries one.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(|cause| cause.downcast_ref::<Coded>()).map_or(125, |coded| coded.code)
}
