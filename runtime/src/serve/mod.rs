//! `amphora serve`: functions of both kinds behind one door.
//!
//! ```text
//! client ── front ── exchange ── routes ── function ─┬─ within ── wasm_exec: an instance in this process
//!           hyper    one request                     └─ fleet ── instance ── a container's own network namespace
//!                                                       scaling  connections
//! operator ─ admin   figures                            launcher ── lifecycle: create, a supervisor, stop, remove
//! ```
//!
//! A Wasm function is served within this process where nothing that it is given takes one of its own: an instance of the engine's for each
//! request. All others are containers, of either kind, started as `run -d` does. Requests reach those through a socket that was made inside
//! of their network namespace, so they need no address and no port of the host. A Linux program opens its own port there; a Wasm program is
//! given one in a namespace that is the gateway's alone.

mod access_log;
mod admin;
mod answer;
pub(crate) mod config;
mod containers;
mod exchange;
mod fleet;
mod front;
mod function;
mod gateway;
mod headers;
mod instance;
mod launcher;
pub(crate) mod leftovers;
mod metrics;
mod path;
mod plan;
mod record;
mod refusal;
mod routes;
mod signals;
mod sockets;
mod status;
mod tls;
mod upload;
mod within;

use std::{fs, path::Path};

use anyhow::{Context, Result, anyhow};

pub(crate) use gateway::run;
pub(crate) use plan::FindImage;

use crate::{
    output::errors,
    records::host::Host,
    serve::{config::Config, plan::Plan},
    spec::Kind,
};

/// What is larger was not written by anybody.
const LARGEST_FILE: u64 = 4 << 20;

/// Reads the file.
pub(crate) fn read(path: &Path) -> Result<Config> {
    let shown = path.display();
    let length = fs::metadata(path).with_context(|| format!("cannot read {shown}"))?.len();
    anyhow::ensure!(length <= LARGEST_FILE, "{shown} has {length} bytes; at most {LARGEST_FILE} are read");
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let mut config = Config::parse(&text).with_context(|| shown.to_string())?;
    let folder = std::path::absolute(path).with_context(|| format!("cannot find the folder of {shown}"))?;
    let folder = folder.parent().unwrap_or(Path::new("/"));
    config.resolve_paths(folder).map_err(|problem| anyhow!("{shown}: {problem}"))?;
    Ok(config)
}

/// What of a function can be said without a start.
pub(crate) struct Checked {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) image: String,
    pub(crate) digest: String,
}

/// Checks the file and all images; every function that cannot be served is named.
pub(crate) fn check(host: &Host, path: &Path, find: FindImage) -> Result<Vec<Checked>> {
    let config = read(path)?;
    let (mut checked, mut wrong) = (Vec::new(), Vec::new());
    for (name, function) in &config.functions {
        match Plan::new(host, name.as_str(), function, find) {
            Ok(plan) => checked.push(Checked {
                name: plan.name,
                kind: plan.kind,
                image: plan.config.image,
                digest: plan.digest,
            }),
            Err(error) => wrong.push(format!("function `{name}`: {}", errors::sentence(&error))),
        }
    }
    match wrong.is_empty() {
        true => Ok(checked),
        false => Err(anyhow!("{}: {}", path.display(), wrong.join("\n"))),
    }
}
