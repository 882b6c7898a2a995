//! What Docker has and Amphora does not have yet: named in the error, so that nobody looks for a typing mistake.

use super::flags;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// Docker's commands, each with what to do instead, or with nothing.
const COMMANDS: &[(&[&str], &str)] = &[
    (&["build", "buildx", "builder"], "; build elsewhere, then `amphora load` or `amphora pull`"),
    (&["push"], "; `amphora save` writes an archive, and the store is an OCI image layout: skopeo copies from both"),
    (&["login", "logout"], "; `amphora pull --creds USER[:PASSWORD]`"),
    (&["search"], ""),
    (&["compose", "swarm", "service", "stack", "node", "secret", "config", "context", "plugin", "manifest"], ""),
];

/// Docker's flags of commands that are here, other than `run`, `create` and `exec`, each with what to do instead.
const FLAGS: &[(&[&str], &str)] = &[
    (&["--checkpoint", "--checkpoint-dir"], ""),
    (&["--detach-keys"], "; a program of exec ends with it: what run -it starts can be left, and attached to"),
    (&["--details"], "; `amphora inspect` shows labels"),
    (&["--link", "-l"], "; containers are not linked"),
    (&["--tree"], "; `amphora image inspect` shows an image's layers"),
    (&["--all-tags", "-a"], ""),
    (&["--platform"], "; `pull --platform` chooses"),
    (
        &["--opt", "-o", "--cluster", "--group", "--scope", "--sharing", "--secret", "--type"],
        "; a volume is a folder here",
    ),
    (&["--availability", "--limit-bytes", "--required-bytes"], "; a volume is a folder here"),
    (
        &["--driver-opt", "--link-local-ip", "--gw-priority"],
        "; --ip, --ip6 and --alias say what a container is on a network",
    ),
    (
        &[
            "--attachable",
            "--aux-address",
            "--config-from",
            "--config-only",
            "--ingress",
            "--ipam-driver",
            "--ipam-opt",
        ],
        "; a network is a bridge of this machine",
    ),
    (&["--topology-preferred", "--topology-required"], "; a volume is a folder here"),
];

/// Replaces an error about a flag or command that Docker has by one that says so. Other errors pass.
pub(super) fn explain(error: Error) -> Error {
    let (context, what) = match error.kind() {
        ErrorKind::UnknownArgument => (ContextKind::InvalidArg, "the flag"),
        ErrorKind::InvalidSubcommand => (ContextKind::InvalidSubcommand, "the command"),
        _ => return error,
    };
    let Some(ContextValue::String(name)) = error.get(context) else { return error };
    let instead = match error.kind() {
        ErrorKind::UnknownArgument => flags::instead_of(name).or_else(|| instead_of(FLAGS, name)),
        _ => instead_of(COMMANDS, name),
    };
    match instead {
        Some(instead) => Error::raw(error.kind(), format!("not supported yet: {what} `{name}`{instead}\n")),
        None => error,
    }
}

fn instead_of(known: &[(&[&str], &'static str)], name: &str) -> Option<&'static str> {
    known.iter().find(|(names, _)| names.contains(&name)).map(|(_, instead)| *instead)
}
