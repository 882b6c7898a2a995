//! `amphora serve`: from what was typed to a gateway.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use images::Image;
use serde_json::{Value, json};

use super::image::{find_or_pull, selection};
use crate::{
    cli::{
        ExportPlatform, PreferChoice, PullPolicy, RollbackArgs, ServeArgs, ServeCommand, ServeExportArgs, ServePsArgs,
        WhichArgs,
    },
    output::{self, Column},
    records::host::Host,
    serve::{
        self, Options, Source, Typed, client,
        config::{self, Pull},
    },
};

/// `amphora serve --schema`.
pub(crate) fn schema() -> Result<u8> {
    output::print(config::SCHEMA).map(|()| 0)
}

/// `amphora serve`.
pub(crate) fn serve(host: Host, args: &ServeArgs) -> Result<u8> {
    match &args.command {
        Some(ServeCommand::Ps(args)) => return ps(&host, args),
        Some(ServeCommand::Rollback(args)) => return roll_back(&host, args),
        Some(ServeCommand::Export(args)) => return export(args),
        None => {}
    }
    let source = source(args)?;
    if !args.check {
        return serve::run(host, Options { source, find, dev: args.dev, when_serving: None });
    }
    let checked = serve::check(&host, &source, find_here)?;
    let name_width = checked.iter().map(|function| function.name.len()).max().unwrap_or_default();
    for function in &checked {
        output::say(&format!(
            "{:name_width$}  {:5}  {} ({})",
            function.name, function.kind, function.image, function.digest
        ))?;
    }
    output::say(&format!("{source} can be served: {} functions", checked.len()))?;
    Ok(0)
}

fn source(args: &ServeArgs) -> Result<Source> {
    if let Some(file) = &args.file {
        return Ok(Source::File(file.clone()));
    }
    if args.route.is_empty() {
        bail!("nothing is to be served: name a file, or give --route /=IMAGE");
    }
    let (listen, admin, routes) = (args.listen.clone(), args.admin.clone(), args.route.clone());
    Ok(Source::Typed(Typed { listen, admin, routes }))
}

/// `amphora serve rollback`.
fn roll_back(host: &Host, args: &RollbackArgs) -> Result<u8> {
    output::say(&client::roll_back(&socket(host, &args.which), &args.function)?).map(|()| 0)
}

fn socket(host: &Host, which: &WhichArgs) -> PathBuf {
    which.admin.clone().unwrap_or_else(|| client::usual_socket(host, &which.name))
}

const COLUMNS: [Column; 9] = [
    Column { header: "FUNCTION", field: "Function" },
    Column { header: "KIND", field: "Kind" },
    Column { header: "IMAGE", field: "Image" },
    Column { header: "CONTAINERS", field: "Containers" },
    Column { header: "FROZEN", field: "Frozen" },
    Column { header: "IN FLIGHT", field: "InFlight" },
    Column { header: "REQUESTS", field: "Requests" },
    Column { header: "FAILED", field: "Failed" },
    Column { header: "MEMORY", field: "Memory" },
];

/// What a template may name besides.
const MORE_COLUMNS: [Column; 4] = [
    Column { header: "DIGEST", field: "Digest" },
    Column { header: "PREVIOUS", field: "Previous" },
    Column { header: "WAITING", field: "Waiting" },
    Column { header: "LAST ERROR", field: "LastError" },
];

/// `amphora serve ps`.
fn ps(host: &Host, args: &ServePsArgs) -> Result<u8> {
    let functions = client::functions(&socket(host, &args.which))?;
    let rows: Vec<output::Row> = functions.iter().map(row).map(Into::into).collect();
    let headers = [COLUMNS.as_slice(), &MORE_COLUMNS].concat();
    output::emit(&output::list(args.format.as_deref(), &COLUMNS, &headers, &rows)?).map(|()| 0)
}

fn row(function: &Value) -> Value {
    let text = |key: &str| output::harmless(function[key].as_str().unwrap_or_default()).into_owned();
    let memory = function["memory_bytes"].as_u64().map_or_else(|| "--".to_owned(), output::binary_size);
    json!({
        "Function": text("name"),
        "Kind": text("kind"),
        "Image": text("image"),
        "Containers": function["containers"],
        "Frozen": function["frozen"],
        "InFlight": function["in_flight"],
        "Requests": function["requests"],
        "Failed": function["failed"],
        "Memory": memory,
        "Digest": text("digest"),
        "Previous": text("previous"),
        "Waiting": function["waiting"],
        "LastError": text("last_error"),
    })
}

/// `amphora serve export`.
fn export(args: &ServeExportArgs) -> Result<u8> {
    let config = Source::File(args.file.clone()).read()?;
    let text = match args.platform {
        ExportPlatform::Knative => serve::knative(&config),
    };
    output::print(&text).map(|()| 0)
}

/// As `run` finds it.
pub(super) fn find(host: &Host, name: &str, platform: Option<&str>, pull: Pull) -> Result<Image> {
    let policy = match pull {
        Pull::Missing => PullPolicy::Missing,
        Pull::Always => PullPolicy::Always,
        Pull::Newer => PullPolicy::Newer,
        Pull::Never => PullPolicy::Never,
    };
    let (image, _writing) = find_or_pull(host, name, &selection(platform, PreferChoice::Linux)?, policy, false)?;
    Ok(image)
}

/// The same of what is here already.
fn find_here(host: &Host, name: &str, platform: Option<&str>, _pull: Pull) -> Result<Image> {
    let found = host.store().resolve(name, &selection(platform, PreferChoice::Linux)?)?;
    found.with_context(|| format!("image {name} is not in the store; amphora pull {name}"))
}
