//! Commands on volumes.

use clap::{Args, Subcommand};

use super::filter::parse_pair;

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum VolumeCommand {
    /// Make a volume
    Create(VolumeCreateArgs),
    /// Show all that is known about volumes
    Inspect(VolumeInspectArgs),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(VolumeLsArgs),
    /// Remove volumes that no container has
    Prune(VolumePruneArgs),
    /// Remove volumes
    #[command(visible_alias = "remove")]
    Rm(VolumeRmArgs),
}

#[derive(Debug, Args)]
pub(crate) struct VolumeCreateArgs {
    /// Set a label
    #[arg(long, value_name = "list")]
    pub(crate) label: Vec<String>,
    /// What keeps it; there is one
    #[arg(short, long, value_name = "string", default_value = "local", value_parser = ["local"])]
    pub(crate) driver: String,
    /// Its name, instead of a random one
    #[arg(value_name = "VOLUME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct VolumeInspectArgs {
    /// `json`, or a template such as '{{.Mountpoint}}'
    #[arg(short, long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Names
    #[arg(value_name = "VOLUME", required = true)]
    pub(crate) volumes: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct VolumeLsArgs {
    /// Show only those for which this holds: dangling=, driver=, label=, name=
    #[arg(short, long, value_name = "filter", value_parser = parse_pair)]
    pub(crate) filter: Vec<String>,
    /// `json`, or a template such as 'table {{.Name}}\t{{.Mountpoint}}'
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Show names only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VolumePruneArgs {
    /// Those too that were given a name
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Remove only those for which this holds: label=, label!=
    #[arg(long, value_name = "filter", value_parser = parse_pair)]
    pub(crate) filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VolumeRmArgs {
    /// Say nothing of volumes that do not exist
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Names
    #[arg(value_name = "VOLUME", required = true)]
    pub(crate) volumes: Vec<String>,
}
