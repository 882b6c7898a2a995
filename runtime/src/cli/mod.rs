//! The command line: what can be typed, and nothing of what it means.
//!
//! Structs of arguments carry no doc comments, as clap would take those for the command's help, which stands at the
//! variants of [`Command`]; nor do the variants of value enums, which would make `--help` three times as long.

mod bench;
mod container;
mod filter;
mod flags;
mod image;
mod life;
mod network;
mod serve;
mod system;
mod unsupported;
mod volume;

pub(crate) use bench::{BenchArgs, BenchCommand, MeasureChoice};
pub(crate) use container::{
    ContainerCommand, ContainerPruneArgs, InspectArgs, KillArgs, LogsArgs, ObjectType, PsArgs, RmArgs, StartArgs,
    StopArgs, Tail, WaitArgs, WaitCondition,
};
pub(crate) use filter::{Filters, is_like};
pub(crate) use flags::{PreferChoice, ProgramArgs, PullPolicy};
pub(crate) use image::{
    ExplainArgs, ExplainFormat, HistoryArgs, ImageCommand, ImageInspectArgs, ImagesArgs, ImportArgs, LoadArgs,
    PullArgs, RmiArgs, SaveArgs, TagArgs,
};
pub(crate) use life::{
    AttachArgs, CommitArgs, CpArgs, DebugArgs, DiffArgs, EventsArgs, ExportArgs, PauseArgs, RenameArgs, StatsArgs,
    TopArgs, UpdateArgs,
};
pub(crate) use network::{
    NetworkCommand, NetworkConnectArgs, NetworkCreateArgs, NetworkDisconnectArgs, NetworkInspectArgs, NetworkLsArgs,
    NetworkPruneArgs, NetworkRmArgs, PortArgs,
};
pub(crate) use serve::{
    ExportPlatform, RollbackArgs, ServeArgs, ServeCommand, ServeExportArgs, ServePsArgs, WhichArgs,
};
pub(crate) use system::{CompletionsArgs, DfArgs, FormatArgs, ManArgs, PruneArgs, SystemCommand, SystemPruneArgs};
pub(crate) use volume::{
    VolumeCommand, VolumeCreateArgs, VolumeInspectArgs, VolumeLsArgs, VolumePruneArgs, VolumeRmArgs,
};

use clap::{ArgAction, Args, Parser, Subcommand, error::ErrorKind};
use std::{ffi::OsString, path::PathBuf};

use crate::spec::exit_code;

type RunArgs = flags::Of<{ flags::RUN }>;
type CreateArgs = flags::Of<{ flags::CREATE }>;
type ExecArgs = flags::Of<{ flags::EXEC }>;

/// One runtime for Linux and Wasm images
#[derive(Debug, Parser)]
#[command(name = "amphora", version, args_override_self = true, disable_version_flag = true, arg(version_flag()))]
pub(crate) struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// What is given before the command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct Globals {
    /// Where images and containers are kept (also AMPHORA_ROOT)
    #[arg(long, value_name = "path")]
    pub(crate) root: Option<PathBuf>,
    /// Where the state of running containers is kept (also AMPHORA_RUNROOT)
    #[arg(long, value_name = "path")]
    pub(crate) runroot: Option<PathBuf>,
}

/// A command with its arguments.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Command {
    /// Create a container from an image and run it
    Run(Box<RunArgs>),
    /// Create a container from an image
    Create(Box<CreateArgs>),
    /// Start containers that were created or have ended
    Start(StartArgs),
    /// List containers
    Ps(PsArgs),
    /// Show what a container wrote
    Logs(LogsArgs),
    /// Run another command in a running container
    Exec(Box<ExecArgs>),
    /// Show all that is known about containers or images
    Inspect(InspectArgs),
    /// Ask containers to stop, then kill them
    Stop(StopArgs),
    /// Stop containers, then start them again
    Restart(StopArgs),
    /// Send a signal to containers
    Kill(KillArgs),
    /// Wait until containers end, and print their exit codes
    Wait(WaitArgs),
    /// Show a running container's output, and pass on what is typed
    Attach(AttachArgs),
    /// Copy files out of a container or into it
    Cp(CpArgs),
    /// Show what a container has changed of its image's files
    Diff(DiffArgs),
    /// Make an image of what a container has changed
    Commit(CommitArgs),
    /// Write a container's files to an archive
    Export(ExportArgs),
    /// Show what happens to containers, images, volumes and networks
    Events(EventsArgs),
    /// Freeze all processes of containers
    Pause(PauseArgs),
    /// Let paused containers go on
    Unpause(PauseArgs),
    /// Give a container another name
    Rename(RenameArgs),
    /// Change limits of containers
    Update(UpdateArgs),
    /// Show the processes of a container
    Top(TopArgs),
    /// Show what can be seen of a Wasm program: imports, grants, last trap, memory
    Debug(DebugArgs),
    /// Show what containers use
    Stats(StatsArgs),
    /// Remove containers
    Rm(RmArgs),
    /// List images
    Images(ImagesArgs),
    /// Show how an image was made, newest layer first
    History(HistoryArgs),
    /// Remove images
    Rmi(RmiArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Read images from an archive or a layout directory
    Load(LoadArgs),
    /// Write images to an archive
    Save(SaveArgs),
    /// Make an image from a root file system archive or a Wasm file
    Import(ImportArgs),
    /// Fetch an image from its registry
    Pull(PullArgs),
    /// The commands on containers, by Docker's longer names
    #[command(subcommand)]
    Container(ContainerCommand),
    // What `container prune` becomes.
    #[command(skip)]
    ContainerPrune(ContainerPruneArgs),
    /// Look into images and manage them
    #[command(subcommand)]
    Image(ImageCommand),
    /// Manage volumes
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Manage networks
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Show which ports of the host lead to a container
    Port(PortArgs),
    /// Show the machine, the store and what can be enforced here
    Info(FormatArgs),
    /// Show the version
    Version(FormatArgs),
    /// Check and clean the installation
    #[command(subcommand)]
    System(SystemCommand),
    /// Print a shell's completion script
    Completions(CompletionsArgs),
    /// Write manual pages into a folder
    Man(ManArgs),
    /// Run the same program as a Linux and as a Wasm image, side by side
    Demo,
    /// Measure how fast images start, beside other runtimes
    Bench(Box<BenchArgs>),
    /// Serve functions of both kinds over HTTP
    Serve(ServeArgs),
}

impl Command {
    /// The exit code where the command itself fails: as with Docker, that of `run` is none that a program has.
    pub(crate) fn failure_code(&self) -> u8 {
        match self {
            Command::Run(_) => exit_code::OURS,
            // Their lower codes mean something.
            Command::System(SystemCommand::Check | SystemCommand::Repair) => exit_code::OURS,
            // 1 says that something got slower.
            Command::Bench(args) if args.command.is_some() => exit_code::NOT_COMPARED,
            _ => exit_code::FAILED,
        }
    }
}

/// The exit code where what was typed is no command.
pub(crate) fn refusal_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::TooFewValues
        | ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand
        | ErrorKind::InvalidSubcommand => exit_code::FAILED,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => exit_code::FAILED,
        _ => exit_code::OURS,
    }
}

fn version_flag() -> clap::Arg {
    clap::Arg::new("version")
        .short('v')
        .short_alias('V')
        .long("version")
        .action(ArgAction::Version)
        .help("Print version")
}

/// Parses the whole command line; the first argument is the program's name.
///
/// `Globals` and `Command` are what was typed, not yet understood. The error prints itself; it is help or the version, to
/// standard output, where `use_stderr` is false.
///
/// # Errors
/// Whatever clap refuses, and `not supported yet` for what only Docker has.
pub(crate) fn parse(args: Vec<OsString>) -> Result<(Globals, Command), clap::Error> {
    match parse_hot(&args) {
        Some(parsed) => Ok(parsed),
        None => parse_all(args),
    }
}

fn parse_all(args: Vec<OsString>) -> Result<(Globals, Command), clap::Error> {
    let cli = Cli::try_parse_from(args).map_err(unsupported::explain)?;
    let command = match cli.command {
        Command::Container(command) => command.into_command(),
        command => command,
    };
    Ok((cli.globals, command))
}

/// Parses the commands that start something, without making the parser of any other command. Whatever it does not
/// understand, help and mistakes included, is left to the whole parser.
fn parse_hot(args: &[OsString]) -> Option<(Globals, Command)> {
    let mut globals = Globals::default();
    let mut rest = args.get(1..)?;
    loop {
        let (first, tail) = rest.split_first()?;
        let first = first.to_str()?;
        if !first.starts_with('-') {
            return Some((globals, parse_one(first, rest)?));
        }
        let (name, value, tail) = match first.split_once('=') {
            Some((name, value)) => (name, OsString::from(value), tail),
            None => (first, tail.first()?.clone(), tail.get(1..)?),
        };
        match name {
            _ if value.is_empty() || value.as_encoded_bytes().starts_with(b"-") => return None,
            "--root" => globals.root = Some(value.into()),
            "--runroot" => globals.runroot = Some(value.into()),
            _ => return None,
        }
        rest = tail;
    }
}

fn parse_one(name: &str, args: &[OsString]) -> Option<Command> {
    match name {
        "run" => flags::parse(&args[1..]).map(Command::Run),
        "create" => flags::parse(&args[1..]).map(Command::Create),
        "exec" => flags::parse(&args[1..]).map(Command::Exec),
        "start" => arguments("start", args).map(Command::Start),
        _ => None,
    }
}

fn arguments<A: Args>(name: &'static str, args: &[OsString]) -> Option<A> {
    let command = A::augment_args(clap::Command::new(name)).args_override_self(true);
    A::from_arg_matches_mut(&mut command.try_get_matches_from(args).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::request::StopTimeout;
    use clap::CommandFactory;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn run(line: &str) -> ProgramArgs {
        match parse(words(line)).unwrap() {
            (_, Command::Run(args)) => args.0,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(line: &str) -> String {
        parse(words(line)).unwrap_err().render().to_string()
    }

    #[test]
    fn the_definitions_are_sound() {
        let mut command = Cli::command();
        command.build();
        command.debug_assert();
    }

    #[test]
    fn both_ways_of_parsing_agree() {
        for line in [
            "amphora run alpine",
            "amphora --root /r run --rm -it -e A=b alpine -la --name x -- y",
            "amphora --runroot=/x --root /y --root /z run --name a --name b --memory-swap 1g alpine sh -c true",
            "amphora create --net host -h web --pids-limit=1 alpine",
            "amphora start -ai web",
            "amphora exec -it -w / web sh -c exit",
        ] {
            let hot = parse_hot(&words(line)).unwrap();
            assert_eq!(format!("{hot:?}"), format!("{:?}", parse_all(words(line)).unwrap()), "{line}");
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_whole_parser() {
        for line in [
            "amphora",
            "amphora --root",
            "amphora --root= run alpine",
            "amphora --root -x run alpine",
            "amphora --version",
            "amphora --nonsense run alpine",
            "amphora run --help",
            "amphora run",
            "amphora run --read-only -- alpine -- x",
            "amphora create -d alpine",
            "amphora run --nonsense alpine",
            "amphora ps",
            "amphora help run",
        ] {
            assert!(parse_hot(&words(line)).is_none(), "{line}");
        }
    }

    #[test]
    fn nothing_after_the_image_is_ours() {
        let args = run("amphora run --rm alpine -la --rm --name x -p 80 -- --help");
        assert_eq!(args.subject, "alpine");
        assert_eq!(args.command, ["-la", "--rm", "--name", "x", "-p", "80", "--", "--help"]);
        assert_eq!((args.rm, args.name), (true, None));
    }

    #[test]
    fn nothing_after_the_command_of_exec_is_ours() {
        match parse(words("amphora exec -i web ls -la --tty")).unwrap().1 {
            Command::Exec(args) => {
                let args = args.0;
                assert_eq!((args.subject.as_str(), args.interactive, args.tty), ("web", true, false));
                assert_eq!(args.command, ["ls", "-la", "--tty"]);
            }
            other => panic!("{other:?}"),
        }
        assert!(refusal("amphora exec web").contains("Usage: amphora exec [OPTIONS] CONTAINER COMMAND [ARG...]"));
    }

    #[test]
    fn the_limits_and_mounts_of_a_command_line_are_understood() {
        let args = run(
            "amphora run -m 128m --memory-swap -1 --cpus 0.5 --pids-limit 64 --timeout 1m --ulimit core=-1 -v ./a:/b x",
        );
        let limits = args.limits().unwrap();
        assert_eq!((limits.memory_bytes, limits.memory_swap_bytes), (Some(128 << 20), Some(-1)));
        assert_eq!((limits.cpu_millis, limits.pids, limits.timeout_ms), (Some(500), Some(64), Some(60_000)));
        assert_eq!(limits.ulimits.len(), 1);
        assert_eq!(args.mounts("/home".as_ref()).unwrap()[0].target.as_os_str(), "/b");
        let message = run("amphora run -m 1k alpine").limits().unwrap_err().to_string();
        assert_eq!(message, "invalid value `1k` for --memory: the minimum is 6m (6291456 bytes)");
        assert_eq!(run("amphora run --stop-timeout -1 x").stop_timeout(), Ok(StopTimeout::Never));
        assert_eq!(run("amphora run --stop-timeout 3 x").stop_timeout(), Ok(StopTimeout::After(3000)));
        assert_eq!(run("amphora run x").stop_timeout(), Ok(StopTimeout::After(10_000)));
    }

    #[test]
    fn usage_names_the_whole_command() {
        assert!(refusal("amphora run").contains("Usage: amphora run [OPTIONS] IMAGE [COMMAND] [ARG...]"));
        assert!(refusal("amphora image explain").contains("Usage: amphora image explain"));
        let help = refusal("amphora run --help");
        assert!(
            help.starts_with("Create a container from an image and run it\n\nUsage: amphora run [OPTIONS] IMAGE"),
            "{help}"
        );
        assert_eq!(help, refusal("amphora help run"));
        assert!(help.contains("  -h, --hostname <string>"), "{help}");
    }

    #[test]
    fn what_only_docker_has_is_named() {
        for (line, message) in [
            (
                "amphora run --link db alpine",
                "error: not supported yet: the flag `--link`; containers on a network of your own",
            ),
            (
                "amphora create --use-api-socket alpine",
                "error: not supported yet: the flag `--use-api-socket`: there is",
            ),
            ("amphora start --checkpoint x web", "error: not supported yet: the flag `--checkpoint`\n"),
            ("amphora rm -l web", "error: not supported yet: the flag `-l`;"),
            ("amphora pull -a alpine", "error: not supported yet: the flag `-a`\n"),
            ("amphora build .", "error: not supported yet: the command `build`; build elsewhere"),
            ("amphora --root /x search", "error: not supported yet: the command `search`\n"),
        ] {
            let refusal = refusal(line);
            assert!(refusal.starts_with(message), "{line}: {refusal}");
        }
        assert!(refusal("amphora run --nonsense alpine").contains("unexpected argument '--nonsense'"));
        let message = refusal("amphora inspct web");
        assert!(message.contains("a similar subcommand exists: 'inspect'"), "{message}");
    }

    #[test]
    fn no_flag_is_both_supported_and_unsupported() {
        for name in ["run", "create", "exec"] {
            let mut command = Cli::command();
            command.build();
            let known: Vec<String> =
                command.find_subcommand_mut(name).unwrap().get_arguments().flat_map(spellings).collect();
            assert!(known.iter().all(|flag| flags::instead_of(flag).is_none()), "{name}: {known:?}");
        }
    }

    fn spellings(arg: &clap::Arg) -> Vec<String> {
        let long = arg.get_long_and_visible_aliases().unwrap_or_default().into_iter().map(|name| format!("--{name}"));
        long.chain(arg.get_short().map(|name| format!("-{name}"))).collect()
    }

    #[test]
    fn values_that_begin_with_a_dash_or_are_optional() {
        match parse(words("amphora logs -f -n 10 --since 5m web")).unwrap().1 {
            Command::Logs(args) => assert_eq!((args.follow, args.tail), (true, Tail::Last(10))),
            other => panic!("{other:?}"),
        }
        for (line, expected) in [("amphora logs --tail all web", Tail::All), ("amphora logs --tail -1 web", Tail::All)]
        {
            assert!(matches!(parse(words(line)).unwrap().1, Command::Logs(args) if args.tail == expected), "{line}");
        }
        for (line, verify) in
            [("", true), ("--tls-verify", true), ("--tls-verify=false", false), ("--tls-verify=true", true)]
        {
            let parsed = parse(words(&format!("amphora pull {line} alpine"))).unwrap().1;
            assert!(
                matches!(parsed, Command::Pull(args) if args.tls_verify == verify && args.image == "alpine"),
                "{line}"
            );
        }
        let parsed = parse(words("amphora stop --timeout -1 web")).unwrap().1;
        assert!(matches!(parsed, Command::Stop(args) if args.time.as_deref() == Some("-1")));
    }

    #[test]
    fn every_shell_gets_a_script() {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            match parse(words(&format!("amphora completions {shell}"))).unwrap().1 {
                Command::Completions(args) => {
                    assert!(String::from_utf8(args.script()).unwrap().contains("pids-limit"), "{shell}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// From the same table as the parser.
    #[test]
    fn every_command_gets_a_manual_page() {
        let folder = tempfile::tempdir().unwrap();
        let pages = folder.path().join("man1");
        match parse(words(&format!("amphora man {}", pages.display()))).unwrap().1 {
            Command::Man(args) => args.write().unwrap(),
            other => panic!("{other:?}"),
        }
        let page = |name: &str| std::fs::read_to_string(pages.join(name)).unwrap();
        assert!(page("amphora-run.1").contains("pids\\-limit"));
        assert!(page("amphora-image-explain.1").contains("explain"));
        assert!(page("amphora.1").contains("amphora\\-volume(1)"));
    }
}
