//! Errors that carry an exit code.

use super::hints;
use crate::output;

/// Characters of a long error that are shown: a document quoted in it may have megabytes.
const BEGINNING: usize = 3000;
const END: usize = 1000;

/// An error for which Docker's users expect a certain exit code; any other error ends with the command's.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Coded {
    pub(crate) code: u8,
    message: String,
}

impl Coded {
    /// One of [`crate::spec::exit_code`].
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// The exit code that an error carries.
pub(crate) fn exit_code(error: &anyhow::Error) -> Option<u8> {
    error.chain().find_map(|cause| cause.downcast_ref::<Coded>()).map(|coded| coded.code)
}

/// An error with its causes, as one sentence. The errors of the crates beneath say what caused them already; a cause that
/// was said is not said again. What can be typed next comes last.
///
/// What it quotes of images and containers commands no terminal, and what has lines of its own begins none that looks like
/// another error's; of what an image made very long, the middle is left out.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string).filter(|cause| !cause.is_empty()) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    let (beginning, end) = (text.char_indices().nth(BEGINNING), text.char_indices().nth_back(END));
    if let (Some((beginning, _)), Some((end, _))) = (beginning, end)
        && beginning < end
    {
        text = format!("{}… ({} bytes in all) …{}", &text[..beginning], text.len(), &text[end..]);
    }
    if let Some(step) = hints::next_step(error) {
        text = format!("{}; {step}", text.trim_end());
    }
    output::harmless_lines(&text).trim_end().replace('\n', "\n    ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn every_cause_is_said_once() {
        let error = anyhow!("no such file").context("reading x: no such file").context("cannot load x");
        assert_eq!(sentence(&error), "cannot load x: reading x: no such file");
        let error = Err::<(), _>(anyhow!("denied")).context("cannot open y").unwrap_err();
        assert_eq!(sentence(&error), "cannot open y: denied");
        assert_eq!(sentence(&anyhow!("alone")), "alone");
    }

    #[test]
    fn of_a_very_long_error_the_middle_is_left_out() {
        let text = sentence(&anyhow!("unknown type `{}`; expected another", "é".repeat(100_000)));
        assert!(text.starts_with("unknown type `éé") && text.ends_with("éé`; expected another"), "{text}");
        assert!(text.contains("éé… (200033 bytes in all) …éé") && text.chars().count() < 4100, "{text}");
    }

    #[test]
    fn what_an_error_quotes_commands_no_terminal_and_forges_no_error() {
        let error = anyhow!("cannot execute \u{1b}]0;x\u{7}\namphora: all is well\u{9b}2J");
        assert_eq!(sentence(&error), "cannot execute \\u{1b}]0;x\\u{7}\n    amphora: all is well\\u{9b}2J");
    }
}
