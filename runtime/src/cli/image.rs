//! Commands on images.

use super::{filter::parse_pair, flags::PreferChoice, system::PruneArgs};
use clap::{ArgAction, Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum ImageCommand {
    /// Show what an image is, by which rule, and what it needs to run
    Explain(ExplainArgs),
    /// Show how an image was made, newest layer first
    History(HistoryArgs),
    /// Make an image from a root file system archive or a Wasm file
    Import(ImportArgs),
    /// Show all that is known about images
    Inspect(ImageInspectArgs),
    /// Read images from an archive or a layout directory
    Load(LoadArgs),
    /// List images
    #[command(visible_alias = "list")]
    Ls(ImagesArgs),
    /// Remove images without a name
    Prune(PruneArgs),
    /// Fetch an image from its registry
    Pull(PullArgs),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(RmiArgs),
    /// Write images to an archive
    Save(SaveArgs),
    /// Give an image another name
    Tag(TagArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    // There are no intermediate images that could be left out.
    /// Show all images, as it does without this
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Show digests
    #[arg(long)]
    pub(crate) digests: bool,
    /// Show only those for which this holds: before=, dangling=, kind=, label=, reference=, since=, until=
    #[arg(short, long, value_name = "filter", value_parser = parse_pair)]
    pub(crate) filter: Vec<String>,
    /// `json`, or a template such as 'table {{.ID}}\t{{.Repository}}'
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Show whole ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show only this repository, or this image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub(crate) reference: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// `json`, or a template such as 'table {{.ID}}\t{{.CreatedBy}}'
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Show sizes and ages in words (=false: bytes and times)
    #[arg(short = 'H', long, value_name = "bool", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub(crate) human: bool,
    /// Show whole ids and commands
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Name, id or digest
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
}

#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Remove it with all its names
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Keep images without a name that it was made from; it has none here
    #[arg(long)]
    pub(crate) no_prune: bool,
    /// Names, ids or digests
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Name, id or digest
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    pub(crate) source: String,
    /// The new name
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    pub(crate) target: String,
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// An archive (OCI or Docker) or a layout directory, instead of standard input
    #[arg(short, long, value_name = "path")]
    pub(crate) input: Option<PathBuf>,
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// Write to this file, instead of standard output
    #[arg(short, long, value_name = "path")]
    pub(crate) output: Option<PathBuf>,
    /// Names, ids or digests
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Set something in the image's config, as a Dockerfile does, such as 'ENTRYPOINT ["/app"]'
    #[arg(short, long, value_name = "list")]
    pub(crate) change: Vec<String>,
    /// What the image's history says of this import
    #[arg(short, long, value_name = "string")]
    pub(crate) message: Option<String>,
    /// A root file system's tar archive, a .wasm or a .wat file, or - for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The image's name
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// User of the registry; without a password it is asked for
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub(crate) creds: Option<String>,
    /// Platform to choose from a multi-platform image, such as wasi/wasm
    #[arg(long, value_name = "string")]
    pub(crate) platform: Option<String>,
    /// Kind to choose where an image has both
    #[arg(long, value_name = "kind", default_value = "linux")]
    pub(crate) prefer: PreferChoice,
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Require HTTPS with a certificate that is trusted (=false: neither)
    #[arg(long, value_name = "bool", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub(crate) tls_verify: bool,
    /// Name, with a tag or digest
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Print text, one field a line, or JSON
    #[arg(long, value_name = "format", default_value = "text")]
    pub(crate) format: ExplainFormat,
    /// Platform to choose from a multi-platform image, such as wasi/wasm
    #[arg(long, value_name = "string")]
    pub(crate) platform: Option<String>,
    /// Kind to choose where an image has both
    #[arg(long, value_name = "kind", default_value = "linux")]
    pub(crate) prefer: PreferChoice,
    /// Name, id or digest
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
}

/// `image explain --format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExplainFormat {
    // One field a line
    Text,
    // One object
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ImageInspectArgs {
    /// `json`, or a template such as '{{.Config.Env}}'
    #[arg(short, long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Names, ids or digests
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}
