//! The table as clap's description of a command, and what clap read by it.

use super::{CREATE, EXEC, Flag, ProgramArgs, RUN, Takes, table::FLAGS};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use std::path::PathBuf;

/// What is neither an option nor belongs to one.
const WORDS: &str = "words";

/// [`ProgramArgs`] that were read by the options of one command.
#[derive(Debug, Default)]
pub(crate) struct Of<const COMMAND: u8>(pub(crate) ProgramArgs);

impl<const COMMAND: u8> Args for Of<COMMAND> {
    fn augment_args(command: Command) -> Command {
        let usage = match COMMAND {
            RUN => "amphora run [OPTIONS] IMAGE [COMMAND] [ARG...]",
            CREATE => "amphora create [OPTIONS] IMAGE [COMMAND] [ARG...]",
            _ => "amphora exec [OPTIONS] CONTAINER COMMAND [ARG...]",
        };
        let known = || FLAGS.iter().filter(|flag| flag.is_of(COMMAND));
        let command = command.override_usage(usage).args(known().map(|flag| flag.described(COMMAND)));
        // A letter of help's that is another option's is not help's.
        let command = match known().any(|flag| flag.short == Some('h')) {
            true => command.disable_help_flag(true).arg(help()),
            false => command,
        };
        command.arg(words(COMMAND))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const COMMAND: u8> FromArgMatches for Of<COMMAND> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut typed = Self::default();
        typed.update_from_arg_matches(matches)?;
        Ok(typed)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for flag in FLAGS.iter().filter(|flag| flag.is_of(COMMAND)) {
            for value in matches.get_raw(flag.long).into_iter().flatten() {
                // clap has looked at it already, by the parser that it was given.
                flag.set(&mut self.0, value.to_owned()).ok_or_else(|| {
                    let said = format!("invalid value `{}` for --{}\n", value.display(), flag.long);
                    clap::Error::raw(clap::error::ErrorKind::InvalidValue, said)
                })?;
            }
        }
        let mut words = matches.get_many::<String>(WORDS).into_iter().flatten().cloned();
        self.0.subject = words.next().unwrap_or_default();
        self.0.command = words.collect();
        Ok(())
    }
}

impl Flag {
    fn described(&self, command: u8) -> Arg {
        let arg = Arg::new(self.long)
            .long(self.long)
            .visible_aliases(self.alias)
            .help(self.help[usize::from(command)].unwrap_or_default())
            .hide(self.hidden)
            .allow_negative_numbers(self.negative);
        let arg = self.short.into_iter().fold(arg, Arg::short);
        match &self.takes {
            Takes::Switch(_) => arg
                .value_name("bool")
                .value_parser(clap::value_parser!(bool))
                .num_args(0..=1)
                .require_equals(true)
                .default_value("false")
                .default_missing_value("true")
                .hide_possible_values(true)
                .hide_default_value(true),
            Takes::Text(name, _) => arg.value_name(name),
            Takes::Texts(name, _) => arg.value_name(name).action(ArgAction::Append),
            Takes::File(name, _) => arg.value_name(name).value_parser(clap::value_parser!(PathBuf)),
            Takes::Files(name, _) => {
                arg.value_name(name).value_parser(clap::value_parser!(PathBuf)).action(ArgAction::Append)
            }
            Takes::Choice(name, choice) => {
                arg.value_name(name).default_value(choice.default).value_parser((choice.parser)())
            }
        }
    }
}

/// One argument to the parser, so that nothing after the first word is read as an option of ours.
fn words(command: u8) -> Arg {
    let (name, least) = match command {
        EXEC => ("CONTAINER COMMAND [ARG...]", 2),
        _ => ("IMAGE [COMMAND] [ARG...]", 1),
    };
    Arg::new(WORDS).value_name(name).num_args(least..).required(true).trailing_var_arg(true).hide(true)
}

fn help() -> Arg {
    Arg::new("help").long("help").action(ArgAction::Help).help("Print help")
}
