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
mod cgi;
pub(crate) mod client;
mod compress;
pub(crate) mod config;
mod containers;
mod dev;
mod exchange;
mod fleet;
mod front;
mod function;
mod gateway;
mod headers;
mod instance;
mod knative;
mod launcher;
pub(crate) mod leftovers;
mod metrics;
mod named;
mod path;
mod plan;
mod record;
mod refusal;
mod routes;
mod signals;
mod site;
mod sockets;
mod source;
mod status;
mod tls;
mod token;
mod traces;
mod upload;
mod versions;
mod watch;
mod weights;
mod within;

use anyhow::{Result, anyhow};

pub(crate) use gateway::{Options, run};
pub(crate) use knative::documents as knative;
pub(crate) use plan::FindImage;
pub(crate) use source::{Source, Typed};

use crate::{output::errors, records::host::Host, serve::plan::Plan, spec::Kind};

/// What of a function can be said without a start.
pub(crate) struct Checked {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) image: String,
    pub(crate) digest: String,
}

/// Checks the file, all images and certificates; every function that cannot be served is named.
pub(crate) fn check(host: &Host, source: &Source, find: FindImage) -> Result<Vec<Checked>> {
    let config = source.read()?;
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
    if let Some(tls) = &config.tls
        && let Err(error) = tls::check(&tls.certificates)
    {
        wrong.push(format!("tls: {}", errors::sentence(&error)));
    }
    match wrong.is_empty() {
        true => Ok(checked),
        false => Err(anyhow!("{source}: {}", wrong.join("\n"))),
    }
}
