//! A parser for plain command lines of `run` and `create`, which start something and are in a hurry.
//!
//! clap makes a description of every option before it looks at the first word, which costs thirty page faults. A line of
//! known options with plain values is understood here without it. Everything else, help and mistakes included, is left
//! to clap, which defines the command line: a test compares the two for every option that clap knows.

use super::run::{ContainerArgs, NetworkChoice, PreferChoice, PullPolicy, RunArgs};
use std::{ffi::OsString, path::PathBuf};

/// The words after `run` or `create`; None if they are not plain.
pub(super) fn parse(words: &[OsString]) -> Option<RunArgs> {
    let mut args = RunArgs::default();
    let mut words = words.iter();
    loop {
        let word = words.next()?.to_str()?;
        if !word.starts_with('-') {
            let rest: Option<Vec<String>> = words.map(|word| word.to_str().map(str::to_owned)).collect();
            args.container.words = [vec![word.to_owned()], rest?].concat();
            return Some(args);
        }
        if switches(&mut args, word).is_some() {
            continue;
        }
        if let Some((name, value)) = word.strip_prefix("--").and_then(|word| word.split_once('='))
            && let Some(switch) = switch(&mut args, name)
        {
            *switch = value.parse().ok()?;
            continue;
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, value),
            Some(_) => return None,
            None => (word, words.next()?.to_str()?),
        };
        if value.is_empty() || value.starts_with('-') {
            return None;
        }
        option(&mut args.container, name, value.to_owned())?;
    }
}

/// Options without a value, short ones in any combination.
fn switches(args: &mut RunArgs, word: &str) -> Option<()> {
    let names: Option<Vec<&str>> = match word.strip_prefix("--") {
        Some(name) => Some(vec![name]),
        None => word.bytes().skip(1).map(letter).collect(),
    };
    for name in names.filter(|names| !names.is_empty())? {
        *switch(args, name)? = true;
    }
    Some(())
}

fn letter(letter: u8) -> Option<&'static str> {
    Some(match letter {
        b'd' => "detach",
        b'i' => "interactive",
        b't' => "tty",
        _ => return None,
    })
}

fn switch<'a>(args: &'a mut RunArgs, name: &str) -> Option<&'a mut bool> {
    Some(match name {
        "detach" => &mut args.detach,
        "timings" => &mut args.timings,
        "init" => &mut args.container.init,
        "interactive" => &mut args.container.interactive,
        "privileged" => &mut args.container.privileged,
        "read-only" => &mut args.container.read_only,
        "rm" => &mut args.container.rm,
        "tty" => &mut args.container.tty,
        _ => return None,
    })
}

fn option(args: &mut ContainerArgs, name: &str, value: String) -> Option<()> {
    match name {
        "--cap-add" => args.cap_add.push(value),
        "--cap-drop" => args.cap_drop.push(value),
        "--cidfile" => args.cidfile = Some(PathBuf::from(value)),
        "-c" | "--cpu-shares" => args.cpu_shares = Some(value),
        "--cpus" => args.cpus = Some(value),
        "--cpuset-cpus" => args.cpuset_cpus = Some(value),
        "--entrypoint" => args.entrypoint = Some(value),
        "-e" | "--env" => args.env.push(value),
        "--env-file" => args.env_file.push(PathBuf::from(value)),
        "--fuel" => args.fuel = Some(value),
        "-h" | "--hostname" => args.hostname = Some(value),
        "-l" | "--label" => args.label.push(value),
        "-m" | "--memory" => args.memory = Some(value),
        "--memory-swap" => args.memory_swap = Some(value),
        "--mount" => args.mount.push(value),
        "--name" => args.name = Some(value),
        "--net" | "--network" => args.network = network(&value)?,
        "--pids-limit" => args.pids_limit = Some(value),
        "--platform" => args.platform = Some(value),
        "--prefer" => args.prefer = prefer(&value)?,
        "--pull" => args.pull = pull(&value)?,
        "--security-opt" => args.security_opt.push(value),
        "--stop-signal" => args.stop_signal = Some(value),
        "--stop-timeout" => args.stop_timeout = Some(value),
        "--timeout" => args.timeout = Some(value),
        "--tmpfs" => args.tmpfs.push(value),
        "--ulimit" => args.ulimit.push(value),
        "-u" | "--user" => args.user = Some(value),
        "-v" | "--volume" => args.volume.push(value),
        "-w" | "--workdir" => args.workdir = Some(value),
        _ => return None,
    }
    Some(())
}

fn network(value: &str) -> Option<NetworkChoice> {
    Some(match value {
        "none" => NetworkChoice::None,
        "host" => NetworkChoice::Host,
        _ => return None,
    })
}

fn prefer(value: &str) -> Option<PreferChoice> {
    Some(match value {
        "linux" => PreferChoice::Linux,
        "wasm" => PreferChoice::Wasm,
        _ => return None,
    })
}

fn pull(value: &str) -> Option<PullPolicy> {
    Some(match value {
        "missing" => PullPolicy::Missing,
        "always" => PullPolicy::Always,
        "never" => PullPolicy::Never,
        "newer" => PullPolicy::Newer,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, Args, FromArgMatches};

    fn by_clap(words: &[String]) -> Option<RunArgs> {
        let command = clap::Command::new("run").no_binary_name(true).args_override_self(true);
        RunArgs::from_arg_matches(&RunArgs::augment_args(command).try_get_matches_from(words).ok()?).ok()
    }

    fn plain(words: &[String]) -> Option<RunArgs> {
        parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    /// Every spelling of an option, with every value that it lists or one that any option takes.
    fn spellings(arg: &Arg) -> Vec<Vec<String>> {
        let longs = arg.get_long_and_visible_aliases().unwrap_or_default().into_iter().map(|name| format!("--{name}"));
        let names: Vec<String> = longs.chain(arg.get_short().map(|letter| format!("-{letter}"))).collect();
        let values: Vec<String> = match arg.get_id().as_str() {
            "network" => vec!["none".into(), "host".into()],
            _ => arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect(),
        };
        let values = if values.is_empty() { vec!["1".to_owned()] } else { values };
        let takes_value = arg.get_action().takes_values();
        let with_values = |name: &String| -> Vec<Vec<String>> {
            match (takes_value, name.starts_with("--")) {
                (false, _) => vec![vec![name.clone()]],
                (true, long) => values
                    .iter()
                    .flat_map(|value| {
                        let joined = long.then(|| vec![format!("{name}={value}")]);
                        [Some(vec![name.clone(), value.clone()]), joined]
                    })
                    .flatten()
                    .collect(),
            }
        };
        names.iter().flat_map(with_values).collect()
    }

    #[test]
    fn every_option_means_what_it_means_to_clap() {
        let command = RunArgs::augment_args(clap::Command::new("run"));
        let options: Vec<&Arg> =
            command.get_opts().chain(command.get_arguments().filter(|a| !a.is_positional())).collect();
        let mut seen = 0;
        for option in options.into_iter().filter(|option| option.get_id() != "help") {
            for spelling in spellings(option) {
                // Once, and once more after another value of the same option.
                for words in [spelling.clone(), [spelling.clone(), spelling.clone()].concat()] {
                    let words = [words, vec!["image".into(), "--rm".into(), "x".into()]].concat();
                    let ours = plain(&words).unwrap_or_else(|| panic!("{words:?} is left to clap"));
                    assert_eq!(format!("{ours:?}"), format!("{:?}", by_clap(&words).unwrap()), "{words:?}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 100, "{seen}");
    }

    #[test]
    fn lines_of_several_options_mean_the_same_too() {
        for line in [
            "image",
            "--rm -it -e A=b -e C=d image sh -c exit",
            "-dit --name web --memory=1g image",
            "-e A=b=c --env=D=e=f image -e X=y",
            "--rm --rm=false --tty=true image",
            "--name a --name b --cap-add X --cap-add Y image --",
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(format!("{:?}", plain(&words).unwrap()), format!("{:?}", by_clap(&words).unwrap()), "{line}");
        }
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
            "-ie A=b image",
            "--rm=maybe image",
            "-t=false image",
            "--network bridge image",
            "--pull sometimes image",
            "--prefer both image",
            "-p 80:80 image",
        ] {
            let words: Vec<String> = line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
            assert!(plain(&words).is_none(), "{line}");
        }
    }
}
