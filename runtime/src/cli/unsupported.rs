//! What Docker has and Amphora does not have yet: named in the error, so that nobody looks for a typing mistake.

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// Docker's flags of `run`, `create` and `exec`, each with what to do instead, or with nothing.
const FLAGS: &[(&[&str], &str)] = &[
    (&["-p", "--publish", "-P", "--publish-all", "--expose"], "; --network host shares the host's ports"),
    (&["--restart"], "; let systemd or another supervisor start it again"),
    (&["--gpus", "--device", "--device-cgroup-rule"], "; --privileged gives all devices"),
    (&["--link", "--network-alias", "--ip", "--ip6", "--mac-address", "--add-host"], NETWORK),
    (&["--dns", "--dns-option", "--dns-search"], NETWORK),
    (&["--userns"], "; a caller without root gets a user namespace always"),
    (
        &["--pid", "--ipc", "--uts", "--cgroupns", "--cgroup-parent"],
        "; these namespaces are always the container's own",
    ),
    (&["-a", "--attach", "--detach-keys", "--sig-proxy"], ""),
    (&["--blkio-weight", "--blkio-weight-device", "--device-read-bps", "--device-read-iops"], ""),
    (&["--device-write-bps", "--device-write-iops"], ""),
    (&["--cpu-period", "--cpu-quota"], "; --cpus sets both"),
    (&["--cpuset-mems", "--cpu-rt-period", "--cpu-rt-runtime"], ""),
    (&["--memory-reservation", "--memory-swappiness", "--kernel-memory"], "; -m and --memory-swap are there"),
    (&["--oom-kill-disable", "--oom-score-adj"], ""),
    (&["--group-add"], "; --user takes a group too"),
    (&["--health-cmd", "--health-interval", "--health-retries", "--health-timeout", "--no-healthcheck"], ""),
    (&["--health-start-period", "--health-start-interval"], ""),
    (&["--log-driver", "--log-opt"], "; `amphora logs` reads what the container wrote"),
    (&["--label-file", "--annotation", "--domainname"], ""),
    (&["--runtime", "--isolation", "--disable-content-trust"], ""),
    (&["--shm-size"], "; --tmpfs /dev/shm:size=SIZE mounts one of that size"),
    (&["--storage-opt", "--sysctl", "--use-api-socket"], ""),
    (&["--volumes-from", "--volume-driver"], "; -v mounts named volumes"),
];

const NETWORK: &str = "; networks are `none` and `host` for now";

/// Docker's commands, each with what to do instead, or with nothing.
const COMMANDS: &[(&[&str], &str)] = &[
    (&["build", "buildx", "builder", "commit"], "; build elsewhere, then `amphora load` or `amphora pull`"),
    (&["push", "save", "export"], "; the store is an OCI image layout: skopeo copies from it"),
    (&["login", "logout"], "; `amphora pull --creds USER[:PASSWORD]`"),
    (&["network", "cp", "attach", "top", "stats", "events", "rename", "update"], ""),
    (&["pause", "unpause", "port", "diff", "history", "search"], ""),
    (&["compose", "swarm", "service", "stack", "node", "secret", "config", "context", "plugin", "manifest"], ""),
];

/// Replaces an error about a flag or command that Docker has by one that says so. Other errors pass.
pub(super) fn explain(error: Error) -> Error {
    let (context, table, what) = match error.kind() {
        ErrorKind::UnknownArgument => (ContextKind::InvalidArg, FLAGS, "the flag"),
        ErrorKind::InvalidSubcommand => (ContextKind::InvalidSubcommand, COMMANDS, "the command"),
        _ => return error,
    };
    let Some(ContextValue::String(name)) = error.get(context) else { return error };
    match table.iter().find(|(names, _)| names.contains(&name.as_str())) {
        Some((_, instead)) => Error::raw(error.kind(), format!("not supported yet: {what} `{name}`{instead}\n")),
        None => error,
    }
}

#[cfg(test)]
pub(super) fn is_listed(flag: &str) -> bool {
    FLAGS.iter().any(|(names, _)| names.contains(&flag))
}
