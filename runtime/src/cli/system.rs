//! Commands on the installation as a whole.

use super::{EventsArgs, filter::parse_pair};
use clap::{Args, CommandFactory, Subcommand, ValueHint};
use clap_complete::Shell;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum SystemCommand {
    /// Show what happens to containers, images, volumes and networks
    Events(EventsArgs),
    /// Show how much space is used
    Df(DfArgs),
    /// Report what killed processes left behind; exits with 0 when there is nothing
    Check,
    /// Remove containers that ended, networks without any, images without a name, and what was left behind
    Prune(SystemPruneArgs),
    /// Start the containers that ran before the machine began anew: --restart always and unless-stopped
    Restore,
    /// Make a damaged list of images anew; exits with 1 when not all of it could be kept
    Repair,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Remove all images that no container uses
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Remove only those for which this holds: label=, label!=, until=
    #[arg(long, value_name = "filter", value_parser = parse_pair)]
    pub(crate) filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SystemPruneArgs {
    #[command(flatten)]
    pub(crate) of_images: PruneArgs,
    /// Remove volumes too that have no name of their own
    #[arg(long)]
    pub(crate) volumes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DfArgs {
    /// `json`, or a template such as 'table {{.Type}}\t{{.Size}}'
    #[arg(long, value_name = "string", conflicts_with = "verbose")]
    pub(crate) format: Option<String>,
    /// Show each object
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FormatArgs {
    /// `json`, or a template such as '{{.Version}}'
    #[arg(short, long, value_name = "string")]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

impl CompletionsArgs {
    /// The completion script of the whole command line.
    pub(crate) fn script(&self) -> Vec<u8> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::Cli::command(), "amphora", &mut script);
        script
    }
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Where a page for each command is written; made if it is not there
    #[arg(value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) folder: PathBuf,
}

impl ManArgs {
    /// Writes `amphora.1`, `amphora-run.1`, `amphora-image-explain.1`, …
    pub(crate) fn write(&self) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        clap_mangen::generate_to(super::Cli::command(), &self.folder)
    }
}
