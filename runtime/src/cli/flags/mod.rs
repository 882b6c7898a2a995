//! The options of `run`, `create` and `exec`: each is defined once, in [`table`], and that definition is what is parsed,
//! what help and completion scripts tell, and what an error says of an option that only Docker has.
//!
//! The table has two readers. `plain` walks it word by word and is enough for nearly every line that starts something;
//! `described` makes clap's description of it, which costs thirty page faults of a start, and which decides about
//! everything that is not plain. Both hand what they found to [`Flag::set`].

mod described;
mod plain;
mod program;
mod table;

pub(crate) use program::{PreferChoice, ProgramArgs, PullPolicy};

pub(super) use described::Of;
pub(super) use plain::parse;

use clap::builder::ValueParser;
use std::{ffi::OsString, path::PathBuf};

/// `run`, as a parameter of [`Of`].
pub(super) const RUN: u8 = 0;
/// `create`.
pub(super) const CREATE: u8 = 1;
/// `exec`.
pub(super) const EXEC: u8 = 2;

/// One option.
struct Flag {
    long: &'static str,
    /// Another long name.
    alias: Option<&'static str>,
    short: Option<char>,
    takes: Takes,
    /// What help says, by command; nothing where the command has no such option.
    help: [Option<&'static str>; 3],
    /// Help says nothing of it.
    hidden: bool,
    /// -1 is a value, not another option.
    negative: bool,
}

/// What comes with an option, and where it goes.
enum Takes {
    /// Nothing; as with Docker, it may be given a value all the same: `--rm=true`, `-t=false`.
    Switch(fn(&mut ProgramArgs) -> &mut bool),
    /// A value. Each kind of value has a name, which help shows; the last one counts.
    Text(&'static str, fn(&mut ProgramArgs) -> &mut Option<String>),
    /// Any number of values.
    Texts(&'static str, fn(&mut ProgramArgs) -> &mut Vec<String>),
    File(&'static str, fn(&mut ProgramArgs) -> &mut Option<PathBuf>),
    Files(&'static str, fn(&mut ProgramArgs) -> &mut Vec<PathBuf>),
    /// One of a few values.
    Choice(&'static str, &'static Choice),
}

struct Choice {
    default: &'static str,
    /// Knows the values, and what to say of others.
    parser: fn() -> ValueParser,
    set: fn(&mut ProgramArgs, &str) -> Option<()>,
}

impl Flag {
    fn is_of(&self, command: u8) -> bool {
        self.help[usize::from(command)].is_some()
    }

    /// Notes one value. None if it is none of this option's.
    fn set(&self, args: &mut ProgramArgs, value: OsString) -> Option<()> {
        match &self.takes {
            Takes::Switch(place) => *place(args) = value.to_str()?.parse().ok()?,
            Takes::Text(_, place) => *place(args) = Some(value.into_string().ok()?),
            Takes::Texts(_, place) => place(args).push(value.into_string().ok()?),
            Takes::File(_, place) => *place(args) = Some(value.into()),
            Takes::Files(_, place) => place(args).push(value.into()),
            Takes::Choice(_, choice) => (choice.set)(args, value.to_str()?)?,
        }
        Some(())
    }
}

/// An option that only Docker has.
struct Refused {
    long: &'static str,
    short: Option<char>,
    instead: &'static str,
}

/// What to do instead of an option that only Docker has, as it was typed: with its dashes. `None` for any other.
pub(super) fn instead_of(typed: &str) -> Option<&'static str> {
    let is_it = |refused: &&Refused| match typed.strip_prefix("--") {
        Some(long) => refused.long == long,
        None => refused.short.is_some_and(|letter| typed.strip_prefix('-') == Some(letter.encode_utf8(&mut [0; 4]))),
    };
    table::REFUSED.iter().find(is_it).map(|refused| refused.instead)
}

#[cfg(test)]
impl Flag {
    /// All that can be typed: `--net`, `-m`.
    fn spellings(&self) -> impl Iterator<Item = String> {
        let long = [Some(self.long), self.alias].into_iter().flatten().map(|name| format!("--{name}"));
        long.chain(self.short.map(|letter| format!("-{letter}")))
    }
}
