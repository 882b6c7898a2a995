//! What went wrong on the way to a running program.
use rustix::io::Errno;
use std::io;

/// Which action on which object failed, why, and what may help.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {source}{hint}")]
pub struct Error {
    action: String,
    source: io::Error,
    /// Empty, or `: ` and what may help.
    hint: String,
    exit_code: u8,
    interrupted: bool,
}

impl Error {
    /// Docker's codes: 127 if the program was not found, 126 if it cannot be executed, 125 for everything else; and timeout(1)'s 124
    /// if the plan's deadline passed.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// Whether one of the plan's signals ended the wait for it.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Whether what it was to be done with is not there, or not any more.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self.source.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::NOENT | Errno::SRCH))
    }

    /// `action` follows "cannot".
    pub(crate) fn new(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { action: action.into(), source: source.into(), hint: String::new(), exit_code: 125, interrupted: false }
    }

    pub(crate) fn hint(mut self, hint: &str) -> Self {
        if !hint.is_empty() {
            self.hint = format!(": {hint}");
        }
        self
    }

    pub(crate) fn timed_out(mut self) -> Self {
        self.exit_code = 124;
        self
    }

    pub(crate) fn interrupted(mut self) -> Self {
        self.interrupted = true;
        self
    }

    pub(crate) fn exit_code_of_exec(mut self, errno: Errno) -> Self {
        self.exit_code = if errno == Errno::NOENT { 127 } else { 126 };
        self
    }
}
