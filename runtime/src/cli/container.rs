//! Commands on containers that exist, and the group of all commands on containers.

use super::{
    AttachArgs, Command, CommitArgs, CpArgs, CreateArgs, DiffArgs, ExecArgs, ExportArgs, PauseArgs, RenameArgs,
    RunArgs, StatsArgs, TopArgs, UpdateArgs, filter::parse_pair,
};
use clap::{Args, Subcommand, ValueEnum};

/// `container COMMAND`: each but `prune` is a command that has a shorter name too.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum ContainerCommand {
    /// Create a container from an image and run it
    Run(Box<RunArgs>),
    /// Create a container from an image
    Create(Box<CreateArgs>),
    /// Start containers that were created or have ended
    Start(StartArgs),
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(PsArgs),
    /// Show what a container wrote
    Logs(LogsArgs),
    /// Run another command in a running container
    Exec(Box<ExecArgs>),
    /// Show all that is known about containers
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
    /// Show what containers use
    Stats(StatsArgs),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Remove containers that do not run
    Prune(ContainerPruneArgs),
}

impl ContainerCommand {
    /// The same by its shorter name.
    pub(super) fn into_command(self) -> Command {
        match self {
            Self::Run(args) => Command::Run(args),
            Self::Create(args) => Command::Create(args),
            Self::Start(args) => Command::Start(args),
            Self::Ls(args) => Command::Ps(args),
            Self::Logs(args) => Command::Logs(args),
            Self::Exec(args) => Command::Exec(args),
            Self::Inspect(args) => Command::Inspect(InspectArgs { object_type: Some(ObjectType::Container), ..args }),
            Self::Stop(args) => Command::Stop(args),
            Self::Restart(args) => Command::Restart(args),
            Self::Kill(args) => Command::Kill(args),
            Self::Wait(args) => Command::Wait(args),
            Self::Attach(args) => Command::Attach(args),
            Self::Cp(args) => Command::Cp(args),
            Self::Diff(args) => Command::Diff(args),
            Self::Commit(args) => Command::Commit(args),
            Self::Export(args) => Command::Export(args),
            Self::Pause(args) => Command::Pause(args),
            Self::Unpause(args) => Command::Unpause(args),
            Self::Rename(args) => Command::Rename(args),
            Self::Update(args) => Command::Update(args),
            Self::Top(args) => Command::Top(args),
            Self::Stats(args) => Command::Stats(args),
            Self::Rm(args) => Command::Rm(args),
            Self::Prune(args) => Command::ContainerPrune(args),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ContainerPruneArgs {
    /// Remove only those for which this holds: label=, label!=, until=
    #[arg(long, value_name = "filter", value_parser = parse_pair)]
    pub(crate) filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Attach to the output, forward signals, and end with the container's exit code
    #[arg(short, long)]
    pub(crate) attach: bool,
    /// Keys that leave the container running, instead of ctrl-p,ctrl-q
    #[arg(long, value_name = "string")]
    pub(crate) detach_keys: Option<String>,
    /// Attach to standard input too
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Show those that ended too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Show only those for which this holds: ancestor=, before=, exited=, health=, id=, kind=, label=, name=, network=, since=, status=, volume=
    #[arg(short, long, value_name = "filter", value_parser = parse_pair)]
    pub(crate) filter: Vec<String>,
    /// `json`, or a template such as 'table {{.ID}}\t{{.Names}}'
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Show the n newest, also those that ended (-1: as without this)
    #[arg(short = 'n', long, value_name = "int", allow_negative_numbers = true)]
    pub(crate) last: Option<i64>,
    /// Show the newest, also if it ended
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// Show whole ids and commands
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show how much they have written, and how large they are with their images
    #[arg(short, long)]
    pub(crate) size: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Show what the log's options add to each line
    #[arg(long)]
    pub(crate) details: bool,
    /// Go on as the container writes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Show what was written since a time (2024-01-02T13:23:37Z) or age (42m)
    #[arg(long, value_name = "string")]
    pub(crate) since: Option<String>,
    /// Number of lines from the end
    #[arg(short = 'n', long, value_name = "string", default_value = "all", value_parser = parse_tail, allow_negative_numbers = true)]
    pub(crate) tail: Tail,
    /// Show when each line was written
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Show what was written before a time (2024-01-02T13:23:37Z) or age (42m)
    #[arg(long, value_name = "string")]
    pub(crate) until: Option<String>,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}

/// `--tail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// All lines.
    All,
    /// So many from the end.
    Last(usize),
}

fn parse_tail(text: &str) -> Result<Tail, &'static str> {
    match text.parse::<i64>() {
        Ok(count) => Ok(usize::try_from(count).map_or(Tail::All, Tail::Last)),
        Err(_) if text == "all" => Ok(Tail::All),
        Err(_) => Err("expected a number of lines, or `all`"),
    }
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// `json`, or a template such as '{{.State.ExitCode}}'
    #[arg(short, long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Show how large containers are
    #[arg(short, long)]
    pub(crate) size: bool,
    /// Look only for this
    #[arg(long = "type", value_name = "type")]
    pub(crate) object_type: Option<ObjectType>,
    /// Names or ids of containers, images or volumes
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
}

/// `wait --condition`: those of Docker's API, and Podman's states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WaitCondition {
    // It does not run, now or later
    NotRunning,
    // It ends once more
    NextExit,
    // It is no more
    Removed,
    // It was made and has not run
    Created,
    // It runs
    Running,
    // It stands still
    Paused,
    // It has run and ended
    #[value(alias = "stopped")]
    Exited,
    // Its health checks say so
    Healthy,
    // Its health checks say so
    Unhealthy,
}

/// `inspect --type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ObjectType {
    // Containers
    Container,
    // Images
    Image,
    // Volumes
    Volume,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Signal that asks them to stop, by name or number, instead of their own
    #[arg(short, long, value_name = "string")]
    pub(crate) signal: Option<String>,
    /// Seconds until SIGKILL, -1 to wait for ever
    #[arg(short, long = "time", alias = "timeout", value_name = "seconds", allow_negative_numbers = true)]
    pub(crate) time: Option<String>,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Signal to send, by name or number
    #[arg(short, long, value_name = "string", default_value = "KILL")]
    pub(crate) signal: String,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// What is waited for: not-running, next-exit, removed, or a state: created, running, paused, exited, healthy, unhealthy
    #[arg(long, value_name = "condition", default_value = "not-running")]
    pub(crate) condition: WaitCondition,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Kill it first if it runs
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Remove its unnamed volumes too
    #[arg(short, long)]
    pub(crate) volumes: bool,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}
