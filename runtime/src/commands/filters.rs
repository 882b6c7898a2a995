//! `--filter` of `ps` and of what removes containers.

use anyhow::{Context, Result, bail};
use images::Selection;
use regex_lite::Regex;

use super::{find, view};
use crate::{
    cli::Filters,
    output,
    records::{
        container::{Container, Status},
        host::Host,
    },
    spec::mounts::{MountKind, MountSpec},
};

const KEYS: [&str; 12] =
    ["ancestor", "before", "exited", "health", "id", "kind", "label", "name", "network", "since", "status", "volume"];

/// Docker's words for where a container is in its life, and for its health.
const STATES: [&str; 7] = ["created", "dead", "exited", "paused", "removing", "restarting", "running"];
const HEALTH: [&str; 4] = ["healthy", "none", "starting", "unhealthy"];

/// The filters of one command, understood.
#[derive(Default)]
pub(super) struct ContainerFilters {
    filters: Filters,
    names: Vec<Regex>,
    ids: Vec<Regex>,
    exited: Vec<u8>,
    /// Digests of images, each with the name that was typed.
    ancestors: Vec<(String, Option<String>)>,
    /// Nanoseconds since the epoch.
    before: Option<i64>,
    since: Option<i64>,
}

impl ContainerFilters {
    /// Those of `ps`.
    pub(super) fn parse(host: &Host, texts: &[String]) -> Result<Self> {
        let filters = Filters::parse(texts, &KEYS)?;
        for (key, known) in [("status", STATES.as_slice()), ("health", &HEALTH)] {
            if let Some(unknown) = filters.values(key).find(|value| !known.contains(value)) {
                bail!("invalid filter `{key}={unknown}`: expected one of {}", known.join(", "));
            }
        }
        let patterns = |key: &str| filters.values(key).map(|text| pattern(key, text)).collect::<Result<Vec<_>>>();
        let created = |key: &str| {
            let moments = filters.values(key).map(|name| Ok(find(host, name)?.spec.created_unix_nanos));
            moments.collect::<Result<Vec<i64>>>()
        };
        let code =
            |text: &str| text.parse().with_context(|| format!("invalid filter `exited={text}`: expected a number"));
        Ok(Self {
            names: patterns("name")?,
            ids: patterns("id")?,
            exited: filters.values("exited").map(code).collect::<Result<_>>()?,
            ancestors: filters.values("ancestor").map(|name| ancestor(host, name)).collect::<Result<_>>()?,
            before: created("before")?.into_iter().min(),
            since: created("since")?.into_iter().max(),
            filters,
        })
    }

    /// Those of `container prune`.
    pub(super) fn for_prune(filters: &PruneFilters) -> Self {
        Self { before: filters.before, filters: filters.filters.clone(), ..Self::default() }
    }

    /// Whether containers that do not run are asked for.
    pub(super) fn ask_for_ended(&self) -> bool {
        ["status", "exited"].iter().any(|key| self.filters.values(key).next().is_some())
            || self.before.is_some()
            || self.since.is_some()
    }

    /// Whether all of them hold.
    pub(super) fn hold(&self, host: &Host, container: &Container, status: &Result<Status>) -> bool {
        let spec = &container.spec;
        let any = |patterns: &[Regex], texts: &[&str]| {
            patterns.is_empty() || patterns.iter().any(|one| texts.iter().any(|text| one.is_match(text)))
        };
        let code = match status {
            Ok(Status::Stopped(ended)) => Some(ended.exit_code),
            _ => None,
        };
        any(&self.names, &[&spec.name, &format!("/{}", spec.name)])
            && any(&self.ids, &[&spec.id])
            && (self.exited.is_empty() || code.is_some_and(|code| self.exited.contains(&code)))
            && (self.ancestors.is_empty() || self.ancestors.iter().any(|one| is_made_from(container, one)))
            && self.before.is_none_or(|before| spec.created_unix_nanos < before)
            && self.since.is_none_or(|since| spec.created_unix_nanos > since)
            && self.filters.any("status", |wanted| view::status_word(status) == wanted)
            && self.filters.any("health", |wanted| health_word(container) == wanted)
            && self.filters.any("kind", |kind| spec.image.kind.to_string() == kind)
            && self.filters.any("network", |name| view::network_name(&spec.network).split(',').any(|one| one == name))
            && self.filters.any("volume", |wanted| spec.mounts.iter().any(|mount| has(host, mount, wanted)))
            && self.filters.labels(|name| spec.labels.get(name).cloned())
    }
}

/// As Docker says it.
fn health_word(container: &Container) -> &'static str {
    match container.health() {
        Ok(Some(found)) if container.spec.health.is_some() => found.status.name(),
        _ if container.spec.health.is_some() => "starting",
        _ => "none",
    }
}

/// What the prunes are asked to spare: what is younger, and what has other labels.
#[derive(Default)]
pub(super) struct PruneFilters {
    filters: Filters,
    /// Nanoseconds since the epoch.
    before: Option<i64>,
}

impl PruneFilters {
    /// `label`, `label!` and `until`.
    pub(super) fn parse(texts: &[String]) -> Result<Self> {
        let filters = Filters::parse(texts, &["label", "label!", "until"])?;
        let now = output::now_nanos();
        let until = filters.values("until").map(|text| Ok(output::parse_moment(text, now)?));
        let before = until.collect::<Result<Vec<i64>>>()?.into_iter().min();
        Ok(Self { filters, before })
    }

    /// Whether all hold for something of this age with these labels.
    pub(super) fn hold(&self, created_unix_nanos: Option<i64>, label: impl Fn(&str) -> Option<String>) -> bool {
        let is_old = |before| created_unix_nanos.is_some_and(|created| created < before);
        self.before.is_none_or(is_old) && self.filters.labels(label)
    }

    /// Whether the age was asked for.
    pub(super) fn ask_for_age(&self) -> bool {
        self.before.is_some()
    }
}

fn pattern(key: &str, text: &str) -> Result<Regex> {
    Regex::new(text).with_context(|| format!("invalid filter `{key}={text}`: expected a regular expression"))
}

/// An image by name, id or digest; of one that is not there any more, its name.
fn ancestor(host: &Host, name: &str) -> Result<(String, Option<String>)> {
    let found = host.store.resolve(name, &Selection::default()).ok().flatten();
    let reference = name.parse::<images::Reference>().ok().map(|reference| reference.to_string());
    Ok((found.map(|image| image.digest.to_string()).unwrap_or_default(), reference))
}

fn is_made_from(container: &Container, (digest, name): &(String, Option<String>)) -> bool {
    let image = &container.spec.image;
    let own = image.name.parse::<images::Reference>().ok().map(|reference| reference.to_string());
    image.digest == *digest || (digest.is_empty() && name.is_some() && own == *name)
}

/// Whether a mount is this volume, or is at, or comes from, this place.
fn has(host: &Host, mount: &MountSpec, wanted: &str) -> bool {
    let is_source = match &mount.kind {
        MountKind::Bind { source, .. } => source.as_os_str() == wanted,
        MountKind::Volume { name, .. } => {
            let name = name.as_deref().unwrap_or_default();
            name == wanted || host.volumes.data(name).as_os_str() == wanted
        }
        MountKind::Tmpfs { .. } | MountKind::Image { .. } => false,
    };
    is_source || mount.target.as_os_str() == wanted
}
