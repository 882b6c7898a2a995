//! What Docker has and Amphora does not have yet: named in the error, so that nobody looks for a typing mistake.

use super::flags;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// Docker's commands, each with what to do instead, or with nothing.
const COMMANDS: &[(&[&str], &str)] = &[
    (&["build", "buildx", "builder", "commit"], "; build elsewhere, then `amphora load` or `amphora pull`"),
    (&["push", "save", "export"], "; the store is an OCI image layout: skopeo copies from it"),
    (&["login", "logout"], "; `amphora pull --creds USER[:PASSWORD]`"),
    (&["network", "cp", "events", "port", "diff", "history", "search"], ""),
    (&["compose", "swarm", "service", "stack", "node", "secret", "config", "context", "plugin", "manifest"], ""),
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
        ErrorKind::UnknownArgument => flags::instead_of(name),
        _ => COMMANDS.iter().find(|(names, _)| names.contains(&name.as_str())).map(|(_, instead)| *instead),
    };
    match instead {
        Some(instead) => Error::raw(error.kind(), format!("not supported yet: {what} `{name}`{instead}\n")),
        None => error,
    }
}
