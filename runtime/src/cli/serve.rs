//! `amphora serve`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Checks the file and its images, and starts nothing
    #[arg(long, conflicts_with = "schema")]
    pub(crate) check: bool,
    /// Prints a JSON schema of the file
    #[arg(long)]
    pub(crate) schema: bool,
    /// The functions and the routes to them
    #[arg(value_name = "FILE", required_unless_present = "schema")]
    pub(crate) file: Option<PathBuf>,
}
