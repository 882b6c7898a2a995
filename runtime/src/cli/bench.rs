//! `amphora bench`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

use crate::bench::compare::parse_threshold;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) command: Option<BenchCommand>,
    /// Only these peers, by name (crun, runc, youki, runsc, bwrap, podman, docker, ctr, nerdctl, skopeo, wasmtime, wasmer, spin); none: ''
    #[arg(long, value_name = "list", value_delimiter = ',')]
    pub(crate) peers: Option<Vec<String>>,
    /// One more peer; {bundle}, {rootfs}, {program}, {wasm}, {id}, {state}, {scratch}, {port} and {reference} are filled in
    #[arg(long, value_name = "name=command", value_parser = parse_peer)]
    pub(crate) peer: Vec<(String, String)>,
    /// What is measured
    #[arg(long, value_name = "list", value_delimiter = ',', default_values = ["start", "stages", "size"])]
    pub(crate) only: Vec<MeasureChoice>,
    /// Warm runs of each; a quarter as many cold ones
    #[arg(short = 'n', long, value_name = "number", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) runs: u32,
    /// Few runs: to see whether everything works
    #[arg(long)]
    pub(crate) quick: bool,
    /// Draws the same orders again
    #[arg(long, value_name = "number")]
    pub(crate) seed: Option<u64>,
    /// Kills a run that takes longer
    #[arg(long, value_name = "seconds", default_value = "60", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
    /// Measures programs that fail, too
    #[arg(long)]
    pub(crate) allow_failure: bool,
    /// Empties the whole page cache before each cold run, instead of putting out the files involved
    #[arg(long)]
    pub(crate) drop_caches: bool,
    /// How long starts are counted for `rate`
    #[arg(long, value_name = "seconds", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// How many starts at a time for `rate`; by default 1, 2, 4, …, and the number of cores
    #[arg(long, value_name = "list", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) at_a_time: Vec<u32>,
    /// Where the servers of your Linux images listen, for `http`; they share the host's network
    #[arg(long, value_name = "port", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Has the kernel say what it saw of each, in runs that are not timed; takes root
    #[arg(long)]
    pub(crate) trace: bool,
    /// How many at once for `memory`
    #[arg(long, value_name = "list", value_delimiter = ',', default_values = ["1", "10", "100"], value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) at_once: Vec<u32>,
    /// Writes results.json, results.csv, report.md and report.html into this folder
    #[arg(long, value_name = "folder")]
    pub(crate) report: Option<PathBuf>,
    /// Uses this new folder, and leaves it there, so that the commands can be repeated
    #[arg(long, value_name = "folder")]
    pub(crate) work: Option<PathBuf>,
    /// Images of either kind that are here; none: a built-in pair
    #[arg(value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// Arguments of the programs
    #[arg(value_name = "ARG", last = true)]
    pub(crate) arguments: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Show what got better and worse from one results.json to another; exits with 1 if something got slower, with 2 if it cannot compare
    Compare(BenchCompareArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BenchCompareArgs {
    /// Smaller differences are none
    #[arg(long, value_name = "share", default_value = "5%", value_parser = parse_threshold)]
    pub(crate) threshold: f64,
    /// Compares CPU time instead of the time that passed
    #[arg(long)]
    pub(crate) cpu: bool,
    /// Compares times as multiples of this peer's of the same rounds, which takes out what the machine did besides
    #[arg(long, value_name = "peer")]
    pub(crate) relative_to: Option<String>,
    /// Compares what was measured on different machines all the same
    #[arg(long)]
    pub(crate) different_machines: bool,
    /// The earlier one
    #[arg(value_name = "BEFORE")]
    pub(crate) before: PathBuf,
    /// The later one
    #[arg(value_name = "AFTER")]
    pub(crate) after: PathBuf,
}

/// `--only`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MeasureChoice {
    // Command to exit, and to the first byte of output
    #[value(alias = "first-byte")]
    Start,
    // Where the time of `run` goes
    Stages,
    // Compressed, unpacked, compiled, resident
    Size,
    // Starts per second
    Rate,
    // Many at once
    Memory,
    // Command to the first 200 of a server
    Http,
    // From a registry on loopback until ready to run
    Pull,
}

fn parse_peer(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, command)) if is_name(name) && !command.trim().is_empty() => {
            Ok((name.to_owned(), command.to_owned()))
        }
        _ => Err("expected NAME=COMMAND, the name of at most 40 letters, digits, `-`, `_` and `.`".to_owned()),
    }
}

/// It becomes part of paths, and a label in drawings. `amphora` is taken.
fn is_name(name: &str) -> bool {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    (1..=40).contains(&name.len()) && name.chars().all(is_plain) && !name.starts_with('.') && name != "amphora"
}

#[cfg(test)]
mod tests {
    use super::parse_peer;

    #[test]
    fn a_peer_has_a_name_and_a_command() {
        let expected = Ok(("a-1".to_owned(), "b --c=d {id}".to_owned()));
        assert_eq!(parse_peer("a-1=b --c=d {id}"), expected);
        for text in ["", "a", "=b", "a=", "a/b=c", "..=c", "amphora=c"] {
            assert!(parse_peer(text).is_err(), "{text}");
        }
    }
}
