//! What few lines of `run` and `create` ask for: health, logs, namespaces, other containers' volumes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};

use super::{devices::Granted, find};
use crate::{
    cli::ProgramArgs,
    records::host::Host,
    spec::{
        Further,
        devices::parse_rule,
        health::{HealthFlags, HealthOptions},
        logging::LogSpec,
        mounts::MountSpec,
        namespaces::NamespaceMode,
        quantity,
        wasm::{StoreSpec, WasmOptions},
    },
};

pub(super) fn log(args: &ProgramArgs) -> Result<LogSpec> {
    Ok(LogSpec::parse(args.log_driver.as_deref(), &args.log_opt)?)
}

pub(super) fn health(args: &ProgramArgs) -> Result<HealthOptions> {
    Ok(HealthOptions::parse(&HealthFlags {
        command: args.health_cmd.as_deref(),
        tcp: args.health_tcp.as_deref(),
        http: args.health_http.as_deref(),
        interval: args.health_interval.as_deref(),
        timeout: args.health_timeout.as_deref(),
        retries: args.health_retries.as_deref(),
        start_period: args.health_start_period.as_deref(),
        start_interval: args.health_start_interval.as_deref(),
        none: args.no_healthcheck,
    })?)
}

/// Refuses what would be without effect: values of flags that have one meaning here.
fn check_only_values(args: &ProgramArgs) -> Result<()> {
    match args.isolation.as_deref() {
        None | Some("" | "default") => {}
        Some(other) => bail!("invalid value `{other}` for --isolation: expected default; others are Windows' own"),
    }
    match args.volume_driver.as_deref() {
        None | Some("" | "local") => Ok(()),
        Some(other) => bail!("invalid value `{other}` for --volume-driver: expected local; a volume is a folder here"),
    }
}

pub(super) fn further(args: &ProgramArgs, granted: &Granted) -> Result<Further> {
    check_only_values(args)?;
    let shm_bytes = args.shm_size.as_deref().map(|text| {
        quantity::parse_bytes(text)
            .ok()
            .filter(|bytes| *bytes > 0)
            .with_context(|| format!("invalid value `{text}` for --shm-size: expected a size such as 64m"))
    });
    let oom_score_adj = args.oom_score_adj.as_deref().map(|text| {
        text.parse().ok().filter(|score| (-1000..=1000).contains(score)).with_context(|| {
            format!("invalid value `{text}` for --oom-score-adj: expected a number from -1000 to 1000")
        })
    });
    Ok(Further {
        group_add: [args.group_add.as_slice(), &granted.groups].concat(),
        devices: granted.nodes.clone(),
        device_rules: device_rules(&args.device_cgroup_rule)?,
        cgroup_parent: args.cgroup_parent.clone().filter(|parent| !parent.is_empty()),
        sysctls: pairs("--sysctl", &args.sysctl)?.into_iter().collect(),
        oom_score_adj: oom_score_adj.transpose()?,
        shm_bytes: shm_bytes.transpose()?,
        pid: NamespaceMode::of_pid(args.pid.as_deref().unwrap_or_default())?,
        ipc: NamespaceMode::of_ipc(args.ipc.as_deref().unwrap_or_default())?,
        host_uts: NamespaceMode::is_host_uts(args.uts.as_deref().unwrap_or_default())?,
        host_cgroup: NamespaceMode::is_host_cgroup(args.cgroupns.as_deref().unwrap_or_default())?,
        host_user: NamespaceMode::is_host_user(args.userns.as_deref().unwrap_or_default())?,
        annotations: pairs("--annotation", &args.annotation)?,
    })
}

fn device_rules(texts: &[String]) -> Result<Vec<String>> {
    texts.iter().try_for_each(|text| parse_rule(text).map(drop))?;
    Ok(texts.to_vec())
}

pub(super) fn wasm(args: &ProgramArgs) -> Result<WasmOptions> {
    let listed = |lists: &[String]| -> Vec<String> {
        let words = lists.iter().flat_map(|list| list.split(',')).map(str::trim).filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    };
    let mut config = BTreeMap::new();
    for path in &args.config_file {
        config.extend(config_of_file(path)?);
    }
    config.extend(pairs("--config", &args.config)?);
    let absolute = |flag: &str, path: &PathBuf| {
        std::path::absolute(path).with_context(|| format!("invalid value `{}` for {flag}", path.display()))
    };
    let count = |text: &String| {
        text.parse()
            .map_err(|_| anyhow!("invalid value `{text}` for --reuse: expected a number of requests, such as 100"))
    };
    Ok(WasmOptions {
        invoke: args.invoke.clone(),
        proposals: listed(&args.wasm),
        allow_net: listed(&args.allow_net),
        ca_files: args.cacert.iter().map(|path| absolute("--cacert", path)).collect::<Result<_>>()?,
        config,
        stores: StoreSpec::parse_all(&args.kv).map_err(anyhow::Error::msg)?,
        reuse: args.reuse.as_ref().map(count).transpose()?,
        core_dumps: args.coredump.as_ref().map(|path| absolute("--coredump", path)).transpose()?,
    })
}

/// As in a file of variables, without the caller's: `NAME=VALUE` as it stands, one a line, `#` before what does not count.
fn config_of_file(path: &Path) -> Result<BTreeMap<String, String>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read the --config-file {}", path.display()))?;
    let text = std::str::from_utf8(&bytes).with_context(|| format!("--config-file {}", path.display()))?;
    let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
    pairs(&format!("--config-file {}", path.display()), &lines.map(str::to_owned).collect::<Vec<_>>())
}

fn pairs(flag: &str, texts: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => bail!("invalid value `{text}` for {flag}: expected NAME=VALUE"),
    };
    texts.iter().map(pair).collect()
}

/// `NAME=VALUE` of a file, one a line; `#` begins a comment.
pub(super) fn labels_of_files(files: &[PathBuf]) -> Result<Vec<String>> {
    let mut labels = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read the --label-file {}", path.display()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        labels.extend(lines.map(str::to_owned));
    }
    Ok(labels)
}

/// What other containers have mounted, where nothing else is to be mounted.
pub(super) fn volumes_from(host: &Host, args: &ProgramArgs, own: Vec<MountSpec>) -> Result<Vec<MountSpec>> {
    let mut mounts = own;
    for text in &args.volumes_from {
        let (name, mode) = text.split_once(':').unwrap_or((text, ""));
        let readonly = match mode {
            "" | "rw" | "z" | "Z" => false,
            "ro" => true,
            other => bail!("invalid value `{text}` for --volumes-from: the mode `{other}` is neither ro nor rw"),
        };
        let other = find(host, name).with_context(|| format!("--volumes-from {text}"))?;
        for mount in &other.spec.mounts {
            if mounts.iter().all(|known| known.target != mount.target) {
                mounts.push(MountSpec { readonly: mount.readonly || readonly, ..mount.clone() });
            }
        }
    }
    mounts.sort_by_key(|mount| mount.target.components().count());
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_a_name_and_a_value() {
        assert!(pairs("--sysctl", &["x".to_owned()]).unwrap_err().to_string().contains("--sysctl"));
    }
}
