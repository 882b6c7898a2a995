//! `amphora serve`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct ServeArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ServeCommand>,
    /// Checks the functions and their images, and starts nothing
    #[arg(long, conflicts_with_all = ["schema", "demo"])]
    pub(crate) check: bool,
    /// Prints a JSON schema of the file
    #[arg(long, conflicts_with_all = ["file", "route", "demo"])]
    pub(crate) schema: bool,
    /// Serves two functions that amphora brings along, one of each kind, and says how fast they answer
    #[arg(long, conflicts_with_all = ["file", "route"])]
    pub(crate) demo: bool,
    /// Tells clients what went wrong, and serves images of this machine as soon as they change
    #[arg(long)]
    pub(crate) dev: bool,
    /// Instead of a file: what is below a path is answered by an image
    #[arg(long, value_name = "[HOST]/PATH=IMAGE", conflicts_with = "file")]
    pub(crate) route: Vec<String>,
    /// Without a file: where clients come (default 127.0.0.1:8080)
    #[arg(long, value_name = "IP:PORT", conflicts_with = "file")]
    pub(crate) listen: Vec<String>,
    /// Without a file: where operators come: IP:PORT, a path, or off
    #[arg(long, value_name = "WHERE", conflicts_with = "file")]
    pub(crate) admin: Option<String>,
    /// The functions and the routes to them
    #[arg(value_name = "FILE", required_unless_present_any = ["schema", "route", "demo"])]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServeCommand {
    /// Show the functions of a gateway that runs, in containers or not
    Ps(ServePsArgs),
    /// Serve a function from the image that it had before
    Rollback(RollbackArgs),
    /// Print the same functions as another platform has them
    Export(ServeExportArgs),
}

/// Which gateway.
#[derive(Debug, Args)]
pub(crate) struct WhichArgs {
    /// Of several gateways, the one of this name
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// The unix socket of its operators, where it is not in its usual place
    #[arg(long, value_name = "PATH")]
    pub(crate) admin: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ServePsArgs {
    #[command(flatten)]
    pub(crate) which: WhichArgs,
    /// A Go template or json
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    pub(crate) which: WhichArgs,
    /// As the file calls it
    #[arg(value_name = "FUNCTION")]
    pub(crate) function: String,
}

#[derive(Debug, Args)]
pub(crate) struct ServeExportArgs {
    /// What for
    #[arg(value_name = "PLATFORM")]
    pub(crate) platform: ExportPlatform,
    /// The functions and the routes to them
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ExportPlatform {
    Knative,
}
