//! A parser for plain command lines, which are most of those that start something and are in a hurry.
//!
//! A line of known options with plain values is understood here. Everything else, help and mistakes included, is left to
//! clap: a test compares the two for every option there is.

use super::{EXEC, Flag, Of, ProgramArgs, Takes, table::FLAGS};
use std::{ffi::OsString, slice::Iter};

/// The words after the command's name; None if they are not plain.
pub(in crate::cli) fn parse<const COMMAND: u8>(words: &[OsString]) -> Option<Box<Of<COMMAND>>> {
    let mut typed = Box::new(Of::default());
    let mut words = words.iter();
    loop {
        let word = words.next()?.to_str()?;
        if !word.starts_with('-') {
            typed.0.subject = word.to_owned();
            typed.0.command = words.map(|word| word.to_str().map(str::to_owned)).collect::<Option<_>>()?;
            return Some(typed).filter(|typed| COMMAND != EXEC || !typed.0.command.is_empty());
        }
        match word.strip_prefix("--") {
            Some(word) => long(COMMAND, &mut typed.0, word, &mut words)?,
            None => short(COMMAND, &mut typed.0, &word[1..], &mut words)?,
        }
    }
}

/// `--name`, `--name=value` or `--name value`.
fn long(command: u8, args: &mut ProgramArgs, word: &str, words: &mut Iter<OsString>) -> Option<()> {
    let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    let flag = find(command, |flag| flag.long == name || flag.alias == Some(name))?;
    set(flag, args, value, words)
}

/// `-abc`: any number of options, of which the last may take a value.
fn short(command: u8, args: &mut ProgramArgs, letters: &str, words: &mut Iter<OsString>) -> Option<()> {
    let mut letters = letters.chars().peekable();
    letters.peek()?;
    while let Some(letter) = letters.next() {
        let flag = find(command, |flag| flag.short == Some(letter))?;
        if letters.peek().is_some() && !matches!(flag.takes, Takes::Switch(_)) {
            return None;
        }
        set(flag, args, None, words)?;
    }
    Some(())
}

fn find(command: u8, is_it: impl Fn(&Flag) -> bool) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| is_it(flag)).filter(|flag| flag.is_of(command))
}

fn set(flag: &Flag, args: &mut ProgramArgs, joined: Option<&str>, words: &mut Iter<OsString>) -> Option<()> {
    let value = match (joined, &flag.takes) {
        (Some(value), _) => value,
        (None, Takes::Switch(_)) => "true",
        (None, _) => words.next()?.to_str()?,
    };
    if value.is_empty() || value.starts_with('-') {
        return None;
    }
    flag.set(args, value.into())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{CREATE, RUN},
        *,
    };
    use clap::{Args, FromArgMatches};

    fn by_clap<const COMMAND: u8>(words: &[String]) -> Option<Of<COMMAND>> {
        let command = clap::Command::new("it").no_binary_name(true).args_override_self(true);
        Of::from_arg_matches(&Of::<COMMAND>::augment_args(command).try_get_matches_from(words).ok()?).ok()
    }

    fn plain<const COMMAND: u8>(words: &[String]) -> Option<Box<Of<COMMAND>>> {
        parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn words(line: &str) -> Vec<String> {
        line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    /// Every way to give an option, with every value that it lists or one that any option takes.
    fn lines(flag: &Flag) -> Vec<String> {
        let values = match &flag.takes {
            Takes::Switch(_) => {
                return flag.spellings().chain([true, false].map(|on| format!("--{}={on}", flag.long))).collect();
            }
            Takes::Choice(_, choice) => match (choice.parser)().possible_values() {
                Some(values) => values.map(|value| value.get_name().to_owned()).collect(),
                None => Vec::new(),
            },
            _ => vec!["1".to_owned()],
        };
        let line = |name: String, value: &String| {
            let joined = name.starts_with("--").then(|| format!("{name}={value}"));
            [Some(format!("{name} {value}")), joined].into_iter().flatten()
        };
        flag.spellings().flat_map(|name| values.iter().flat_map(move |value| line(name.clone(), value))).collect()
    }

    fn compare<const COMMAND: u8>() -> usize {
        let lines: Vec<String> = FLAGS.iter().filter(|flag| flag.is_of(COMMAND)).flat_map(lines).collect();
        // Once, and once more after another value of the same option.
        let twice: Vec<String> = lines.iter().flat_map(|line| [line.clone(), format!("{line} {line}")]).collect();
        for line in &twice {
            same::<COMMAND>(&format!("{line} subject --rm x"));
        }
        twice.len()
    }

    fn same<const COMMAND: u8>(line: &str) {
        let words = words(line);
        let ours = plain::<COMMAND>(&words).unwrap_or_else(|| panic!("{line} is left to clap"));
        assert_eq!(format!("{ours:?}"), format!("{:?}", by_clap::<COMMAND>(&words).unwrap()), "{line}");
    }

    #[test]
    fn every_option_means_what_it_means_to_clap() {
        assert!(compare::<RUN>() > 150);
        assert!(compare::<CREATE>() > 150);
        assert!(compare::<EXEC>() > 40);
    }

    #[test]
    fn lines_of_several_options_mean_the_same_too() {
        for line in [
            "image",
            "--rm -it -e A=b -e C=d image sh -c exit",
            "-dit --name web --memory=1g image",
            "-ie A=b image",
            "-e A=b=c --env=D=e=f image -e X=y",
            "--rm --rm=false --tty=true image",
            "--name a --name b --cap-add X --cap-add Y image --",
        ] {
            same::<RUN>(line);
        }
        same::<EXEC>("-itu 1 container sh -c exit");
    }

    #[test]
    fn what_is_not_plain_is_left_to_clap() {
        for line in [
            "",
            "--rm",
            "-",
            "--",
            "-- image",
            "--help",
            "--nonsense image",
            "--name",
            "--name= image",
            "--name -x image",
            "--pids-limit -1 image",
            "-m=1g image",
            "-m1g image",
            "-ix image",
            "-ei A=b image",
            "--rm=maybe image",
            "-t=false image",
            "--pull sometimes image",
            "--prefer both image",
            "-p80:80 image",
        ] {
            assert!(plain::<RUN>(&words(line)).is_none(), "{line}");
        }
        for line in ["-d image", "--timings image"] {
            assert!(plain::<CREATE>(&words(line)).is_none(), "{line}");
        }
        for line in ["container", "-h container true", "--rm container true"] {
            assert!(plain::<EXEC>(&words(line)).is_none(), "{line}");
        }
    }
}
