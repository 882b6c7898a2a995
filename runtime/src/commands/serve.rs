//! `amphora serve`: from what was typed to a gateway.

use anyhow::{Context, Result};
use images::Image;

use super::image::{find_or_pull, selection};
use crate::{
    cli::{PreferChoice, PullPolicy, ServeArgs},
    output,
    records::host::Host,
    serve::{
        self,
        config::{self, Pull},
    },
};

/// `amphora serve --schema`.
pub(crate) fn schema() -> Result<u8> {
    output::print(config::SCHEMA).map(|()| 0)
}

/// `amphora serve`.
pub(crate) fn serve(host: Host, args: &ServeArgs) -> Result<u8> {
    let file = args.file.as_deref().context("no file is named")?;
    if !args.check {
        return serve::run(host, file, find);
    }
    let checked = serve::check(&host, file, find_here)?;
    let name_width = checked.iter().map(|function| function.name.len()).max().unwrap_or_default();
    for function in &checked {
        output::say(&format!(
            "{:name_width$}  {:5}  {} ({})",
            function.name, function.kind, function.image, function.digest
        ))?;
    }
    output::say(&format!("{} can be served: {} functions", file.display(), checked.len()))?;
    Ok(0)
}

/// As `run` finds it.
fn find(host: &Host, name: &str, platform: Option<&str>, pull: Pull) -> Result<Image> {
    let policy = match pull {
        Pull::Missing => PullPolicy::Missing,
        Pull::Always => PullPolicy::Always,
        Pull::Never => PullPolicy::Never,
    };
    let (image, _writing) = find_or_pull(host, name, &selection(platform, PreferChoice::Linux)?, policy)?;
    Ok(image)
}

/// The same of what is here already.
fn find_here(host: &Host, name: &str, platform: Option<&str>, _pull: Pull) -> Result<Image> {
    let found = host.store().resolve(name, &selection(platform, PreferChoice::Linux)?)?;
    found.with_context(|| format!("image {name} is not in the store; amphora pull {name}"))
}
