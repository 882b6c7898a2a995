//! Commands on containers that run: paused, renamed, changed, looked into, attached to.

use super::filter::parse_pair;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RenameArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
    /// Its name from now on
    #[arg(value_name = "NEW_NAME")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// Weight of block I/O, from 10 to 1000
    #[arg(long, value_name = "uint16")]
    pub(crate) blkio_weight: Option<String>,
    /// Period of the CPU quota, in microseconds
    #[arg(long, value_name = "int")]
    pub(crate) cpu_period: Option<String>,
    /// CPU time in each period, in microseconds; -1 for unlimited
    #[arg(long, value_name = "int", allow_negative_numbers = true)]
    pub(crate) cpu_quota: Option<String>,
    /// CPU weight against other containers (1024 is usual)
    #[arg(short, long, value_name = "int")]
    pub(crate) cpu_shares: Option<String>,
    /// Number of CPUs, such as 0.5; 0 for all
    #[arg(long, value_name = "decimal")]
    pub(crate) cpus: Option<String>,
    /// CPUs in which to run, such as 0-3 or 0,1
    #[arg(long, value_name = "string")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes in which to run, such as 0-3 or 0,1
    #[arg(long, value_name = "string")]
    pub(crate) cpuset_mems: Option<String>,
    /// Memory limit, such as 128m or 1g; 0 for unlimited
    #[arg(short, long, value_name = "bytes")]
    pub(crate) memory: Option<String>,
    /// What it gets back first when memory is short
    #[arg(long, value_name = "bytes")]
    pub(crate) memory_reservation: Option<String>,
    /// Limit of memory and swap together, -1 for unlimited swap
    #[arg(long, value_name = "bytes", allow_negative_numbers = true)]
    pub(crate) memory_swap: Option<String>,
    /// Limit of processes and threads, -1 for unlimited
    #[arg(long, value_name = "int", allow_negative_numbers = true)]
    pub(crate) pids_limit: Option<String>,
    /// When it is started again: no, on-failure[:TIMES], always, unless-stopped
    #[arg(long, value_name = "string")]
    pub(crate) restart: Option<String>,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
    /// Options of the host's ps(1), such as `-o pid,cmd`
    #[arg(value_name = "ps OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) options: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DebugArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Show those that do not run too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// `json`, or a template such as 'table {{.Name}}\t{{.CPUPerc}}'
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Show the first values and end
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Show whole ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Names or ids; all that run if none are given
    #[arg(value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Keys that leave the container running, instead of ctrl-p,ctrl-q
    #[arg(long, value_name = "string")]
    pub(crate) detach_keys: Option<String>,
    /// Pass nothing on that is typed
    #[arg(long)]
    pub(crate) no_stdin: bool,
    /// Pass signals on to the program (only where it has no terminal)
    #[arg(long, value_name = "bool", default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) sig_proxy: bool,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// Keep owners and groups
    #[arg(short, long)]
    pub(crate) archive: bool,
    /// Copy what a link as the source leads to
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    /// Say nothing
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// CONTAINER:PATH, or a path of the host
    #[arg(value_name = "SRC_PATH")]
    pub(crate) source: String,
    /// CONTAINER:PATH, or a path of the host
    #[arg(value_name = "DEST_PATH")]
    pub(crate) target: String,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Show only those for which this holds: container=, event=, image=, label=, network=, scope=, type=, volume=
    #[arg(short, long, value_name = "filter", value_parser = parse_pair)]
    pub(crate) filter: Vec<String>,
    /// `json`, or a template such as '{{.Type}} {{.Action}}'
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Show what happened since a time (2024-01-02T13:23:37Z) or age (42m) too
    #[arg(long, value_name = "string")]
    pub(crate) since: Option<String>,
    /// End at a time (2024-01-02T13:23:37Z) or age (42m)
    #[arg(long, value_name = "string")]
    pub(crate) until: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Write to a file, instead of standard output
    #[arg(short, long, value_name = "string")]
    pub(crate) output: Option<PathBuf>,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct CommitArgs {
    /// Who made it
    #[arg(short, long, value_name = "string")]
    pub(crate) author: Option<String>,
    /// A setting of the new image, in the words of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR
    #[arg(short, long, value_name = "list")]
    pub(crate) change: Vec<String>,
    /// What the image's history says of it
    #[arg(short, long, value_name = "string")]
    pub(crate) message: Option<String>,
    /// Freeze the container meanwhile
    #[arg(short, long, value_name = "bool", default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) pause: bool,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
    /// Name of the new image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub(crate) image: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}
