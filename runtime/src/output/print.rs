//! The one way to print: nothing panics because nobody listens, and nothing that is printed commands a terminal.
//!
//! A reader who has gone (EPIPE, as with `| head`) has heard what he wanted: that is no error, and the command does the rest
//! of its work. A disk that is full, or any other failure, is one. Standard error has nobody to complain to.
//!
//! Names, labels, arguments, errors: much of what is shown comes from images and containers. Characters that a terminal
//! obeys are shown by their numbers.

use std::borrow::Cow;

use anyhow::{Context, Error, Result};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::BorrowedFd,
    io::Errno,
    stdio,
};

use crate::output::errors;

/// Prints text, which may have lines and tabs, to standard output.
///
/// # Errors
/// It could not be written, though somebody listens.
pub(crate) fn print(text: &str) -> Result<()> {
    emit(&harmless_lines(text))
}

/// Prints one line to standard output.
///
/// # Errors
/// As [`print`].
pub(crate) fn say(line: &str) -> Result<()> {
    print(&format!("{line}\n"))
}

/// The same for something that must not get lost, such as the id of what was just made: whether somebody heard it.
///
/// # Errors
/// As [`print`].
pub(crate) fn say_to_somebody(line: &str) -> Result<bool> {
    heard(write_all(stdio::stdout(), format!("{}\n", harmless_lines(line)).as_bytes()))
}

/// The same as [`emit`]; whether there is still somebody who reads it.
pub(crate) fn emit_to_somebody(text: &str) -> Result<bool> {
    heard(write_all(stdio::stdout(), text.as_bytes()))
}

/// Prints what a template or JSON made of values, each of which is harmless already; the rest is what the user typed.
///
/// # Errors
/// As [`print`].
pub(crate) fn emit(text: &str) -> Result<()> {
    heard(write_all(stdio::stdout(), text.as_bytes())).map(drop)
}

/// Says something beside the output, on standard error.
pub(crate) fn note(line: &str) {
    ask(&format!("{line}\n"));
}

/// The same without a new line.
pub(crate) fn ask(text: &str) {
    // Where even standard error takes nothing, nobody is left to tell.
    let _ = write_all(stdio::stderr(), harmless_lines(text).as_bytes());
}

/// Writes a line over the one before on a terminal, on standard error; the last one stays.
pub(crate) fn rewrite(line: &str, is_last: bool) {
    let end = if is_last { "\n" } else { "" };
    // Where even standard error takes nothing, nobody is left to tell.
    let _ = write_all(stdio::stderr(), format!("\r{}\x1b[K{end}", harmless(line)).as_bytes());
}

/// Says what went wrong, on standard error.
pub(crate) fn complain(error: &Error) {
    note(&format!("amphora: {}", errors::sentence(error)));
}

fn heard(written: rustix::io::Result<()>) -> Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(Errno::PIPE) => Ok(false),
        Err(errno) => Err(errno).context("cannot write to standard output"),
    }
}

/// Past the standard library's buffer, which would keep what could not be written and try again at the end.
fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            // Somebody who shares it has made it non-blocking.
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(&to, PollFlags::OUT)], None)),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Whether a terminal obeys a character instead of showing it: control characters of both sets, and those that change the
/// direction of text or begin a line.
fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A value for one cell or one line: nothing in it is obeyed, and it has no lines of its own.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    replaced(text, is_obeyed)
}

/// The same for text of several lines.
pub(crate) fn harmless_lines(text: &str) -> Cow<'_, str> {
    replaced(text, |character| is_obeyed(character) && !matches!(character, '\n' | '\t'))
}

fn replaced(text: &str, is_replaced: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&is_replaced) {
        return Cow::Borrowed(text);
    }
    let mut harmless = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match is_replaced(character) {
            true => harmless.extend(character.escape_default()),
            false => harmless.push(character),
        }
    }
    Cow::Owned(harmless)
}

/// JSON text in which the characters that JSON lets stand as they are, though terminals obey them, are escaped too.
pub(crate) fn harmless_json(json: &str) -> Cow<'_, str> {
    // Outside of strings there are none; control characters below 0x20 are escaped in every JSON, or are its layout.
    let is_left = |character: char| is_obeyed(character) && character >= '\u{7f}';
    if !json.chars().any(is_left) {
        return Cow::Borrowed(json);
    }
    let mut harmless = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        match is_left(character) {
            true => harmless.push_str(&format!("\\u{:04x}", u32::from(character))),
            false => harmless.push(character),
        }
    }
    Cow::Owned(harmless)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown_by_its_number() {
        for (text, shown) in [
            ("plain ä 😀", "plain ä 😀"),
            ("\x1b[31mred\x1b[0m", "\\u{1b}[31mred\\u{1b}[0m"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{9b}2J\u{7f}", "\\u{9b}2J\\u{7f}"),
            ("\u{202e}txt.exe\u{2028}", "\\u{202e}txt.exe\\u{2028}"),
        ] {
            assert_eq!(harmless(text), shown);
            assert_eq!(harmless(&harmless(text)), shown, "twice");
        }
        assert_eq!(harmless_lines("a\tb\n\x1bc\n"), "a\tb\n\\u{1b}c\n");
    }

    #[test]
    fn json_keeps_its_meaning_and_has_no_character_that_a_terminal_obeys() {
        let value = serde_json::json!({"a\u{9b}": "\u{1b}[2J\u{85}\u{7f}\u{202e}ä\n"});
        let json = serde_json::to_string_pretty(&value).unwrap();
        let shown = harmless_json(&json);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert!(shown.chars().all(|c| c == '\n' || !is_obeyed(c)), "{shown:?}");
    }

    #[test]
    fn a_reader_who_has_gone_is_no_error_and_a_full_disk_is_one() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(reader);
        assert!(!heard(write_all(rustix::fd::AsFd::as_fd(&writer), b"x")).unwrap());
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = heard(write_all(rustix::fd::AsFd::as_fd(&full), b"x")).unwrap_err();
        assert!(format!("{error:#}").contains("No space left"), "{error:#}");
    }
}
