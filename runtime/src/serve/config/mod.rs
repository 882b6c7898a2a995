//! The file that says what is served, and nothing that is done with it.
//!
//! ```text
//! text ── toml, values ── Config ── check_whole ── what a gateway is made of
//!          line and column of whatever is wrong
//! ```

mod mistake;
mod values;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::{NonZeroU32, NonZeroU64},
    path::PathBuf,
};

use serde::Deserialize;
use toml::Spanned;
use wasm_exec::http::front::Waits;

use super::traces::Endpoint;

pub(crate) use mistake::Mistake;
pub(crate) use values::{
    AccessLog, Admin, Bytes, Cpus, HostPattern, Isolation, Listen, Memory, MethodName, Millis, Mount, Name,
    PathPattern, Pids, Pull, Segment, Store, Tmpfs, Watch,
};

/// Of a function among several of a route.
const LARGEST_WEIGHT: u32 = 10_000;

/// What editors check a file by: JSON Schema 2020-12.
pub(crate) const SCHEMA: &str = include_str!("schema.json");

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// One gateway of a name runs at once, and what it leaves behind when it is killed is the next one's.
    #[serde(default = "default_name")]
    pub(crate) name: Name,
    /// Where clients come.
    #[serde(default = "default_listen")]
    pub(crate) listen: Vec<Listen>,
    /// Where clients come who speak TLS.
    #[serde(default)]
    pub(crate) tls: Option<TlsConfig>,
    /// Where operators come.
    #[serde(default)]
    pub(crate) admin: Admin,
    /// What operators who come over TCP have to know is in this file; None: it is drawn at each start.
    #[serde(default)]
    pub(crate) admin_token: Option<PathBuf>,
    /// A line for each request.
    #[serde(default)]
    pub(crate) access_log: AccessLog,
    /// Where spans of requests are sent.
    #[serde(default)]
    pub(crate) traces: Option<TracesConfig>,
    /// What clients say of `X-Forwarded-*` is passed on, as they are proxies of one's own.
    #[serde(default)]
    pub(crate) trust_forwarded: bool,
    /// How long requests may go on when the gateway stops.
    #[serde(default = "default_drain")]
    pub(crate) drain: Millis,
    /// What one client may take.
    #[serde(default)]
    pub(crate) limits: ClientLimits,
    /// By their names.
    #[serde(default)]
    pub(crate) functions: BTreeMap<Name, FunctionConfig>,
    /// In any order: the narrower one counts.
    #[serde(default)]
    pub(crate) routes: Vec<Spanned<RouteConfig>>,
}

/// A collector of OpenTelemetry's.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TracesConfig {
    /// `http://IP:PORT/v1/traces`
    pub(crate) endpoint: String,
    /// What the gateway is called there.
    #[serde(default = "default_service")]
    pub(crate) service: String,
    /// The share of requests that is sent.
    #[serde(default = "default_sample")]
    pub(crate) sample: f64,
}

/// Encrypted connections.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsConfig {
    pub(crate) listen: Vec<Listen>,
    /// For a name that no other is for, the first one.
    pub(crate) certificates: Vec<CertificateConfig>,
}

/// One certificate and its key, as PEM; read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateConfig {
    /// With what leads to an authority, its own first.
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// What one client may take.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ClientLimits {
    /// Connections at once; more of them wait in the kernel.
    pub(crate) connections: u32,
    /// Of them, those of one address; more of them are closed.
    pub(crate) connections_per_address: u32,
    /// A request's line and headers: 414 or 431.
    pub(crate) head: Bytes,
    /// A request's body: 413.
    pub(crate) body: Bytes,
    /// From a head's first byte to its last: 408.
    pub(crate) head_timeout: Millis,
    /// For the next bytes of a body: 408.
    pub(crate) body_timeout: Millis,
    /// A connection without a request is closed.
    pub(crate) idle_timeout: Millis,
    /// A client takes nothing of what it is sent: the connection is closed.
    pub(crate) send_timeout: Millis,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_address: 1024,
            head: Bytes(64 << 10),
            body: Bytes(128 << 20),
            head_timeout: Millis(20_000),
            body_timeout: Millis(30_000),
            idle_timeout: Millis(60_000),
            send_timeout: Millis(60_000),
        }
    }
}

impl ClientLimits {
    pub(crate) fn waits(&self) -> Waits {
        let [head, idle, stalled] = [self.head_timeout, self.idle_timeout, self.send_timeout].map(Millis::duration);
        Waits { head, idle, stalled }
    }
}

/// One function: an image of either kind, and how many of its containers there are.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FunctionConfig {
    pub(crate) image: String,
    /// Of a Spin application, the component that is served.
    #[serde(default)]
    pub(crate) component: Option<String>,
    /// Of an index with several.
    #[serde(default)]
    pub(crate) platform: Option<String>,
    /// Whether its registry is asked.
    #[serde(default)]
    pub(crate) pull: Pull,
    /// It is asked again and again, and a newer image takes over from the one that is served.
    #[serde(default)]
    pub(crate) watch: Watch,
    /// Replaces the image's command.
    #[serde(default)]
    pub(crate) command: Vec<String>,
    /// Replaces the image's entrypoint and its command.
    #[serde(default)]
    pub(crate) entrypoint: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) workdir: Option<String>,
    #[serde(default)]
    pub(crate) user: Option<String>,
    /// As `run -v`.
    #[serde(default)]
    pub(crate) volumes: Vec<Mount>,
    /// As `run --tmpfs`.
    #[serde(default)]
    pub(crate) tmpfs: Vec<Tmpfs>,
    /// As `run --network`; it is reached through its own namespace, whatever that leads to.
    #[serde(default)]
    pub(crate) network: Option<String>,
    #[serde(default)]
    pub(crate) read_only: bool,
    #[serde(default)]
    pub(crate) memory: Memory,
    #[serde(default)]
    pub(crate) cpus: Cpus,
    #[serde(default)]
    pub(crate) pids: Pids,
    /// Where its program runs; None: in the gateway's process if it can.
    #[serde(default)]
    pub(crate) isolation: Option<Isolation>,
    /// As `run --fuel`, for each request.
    #[serde(default)]
    pub(crate) fuel: Option<NonZeroU64>,
    /// As `run --reuse`.
    #[serde(default)]
    pub(crate) reuse: Option<NonZeroU32>,
    /// As `run --config`.
    #[serde(default)]
    pub(crate) config: BTreeMap<String, String>,
    /// As `run --kv`.
    #[serde(default)]
    pub(crate) kv: Vec<Store>,
    /// As `run --allow-net`.
    #[serde(default)]
    pub(crate) allow_net: Vec<String>,
    /// It is a command, which is started for each request.
    #[serde(default)]
    pub(crate) cgi: bool,
    /// Its texts are made smaller for clients that understand it.
    #[serde(default)]
    pub(crate) compress: bool,
    /// Where a program of a Linux image listens; it finds it as `$PORT`.
    #[serde(default = "default_port")]
    pub(crate) port: u16,
    /// Containers that run without a request, too.
    #[serde(default)]
    pub(crate) min: u32,
    /// Containers at once.
    #[serde(default = "default_max")]
    pub(crate) max: u32,
    /// Requests of one container at once; None: as its kind can bear.
    #[serde(default)]
    pub(crate) concurrency: Option<u32>,
    /// Requests that wait; more of them are refused.
    #[serde(default = "default_queue")]
    pub(crate) queue: u32,
    /// How long one waits: 503.
    #[serde(default = "default_queue_timeout")]
    pub(crate) queue_timeout: Millis,
    /// From a container's start until it listens: 502.
    #[serde(default = "default_start_timeout")]
    pub(crate) start_timeout: Millis,
    /// From a whole request to the beginning of its answer: 504.
    #[serde(default = "default_timeout")]
    pub(crate) timeout: Millis,
    /// A container without a request is frozen.
    #[serde(default = "default_freeze_after")]
    pub(crate) freeze_after: Millis,
    /// A container without a request is stopped.
    #[serde(default = "default_stop_after")]
    pub(crate) stop_after: Millis,
    /// Between the stop signal and SIGKILL.
    #[serde(default = "default_stop_timeout")]
    pub(crate) stop_timeout: Millis,
}

/// Which requests come to which function.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteConfig {
    /// One of this and `weights`.
    #[serde(default)]
    pub(crate) function: Option<Spanned<String>>,
    /// Several functions, each with its share of the requests.
    #[serde(default)]
    pub(crate) weights: Option<Spanned<BTreeMap<String, u32>>>,
    /// None: any.
    #[serde(default)]
    pub(crate) host: Option<HostPattern>,
    #[serde(default)]
    pub(crate) path: PathPattern,
    /// The path is all of the request's, not its beginning.
    #[serde(default)]
    pub(crate) exact: bool,
    /// None: any.
    #[serde(default)]
    pub(crate) methods: Option<Vec<MethodName>>,
    /// Whether what was matched is taken off; None: of a beginning it is.
    #[serde(default)]
    pub(crate) strip: Option<Spanned<bool>>,
}

fn default_name() -> Name {
    Name::new("default")
}

fn default_listen() -> Vec<Listen> {
    vec![Listen::loopback(8080)]
}

fn default_service() -> String {
    "amphora".to_owned()
}

fn default_sample() -> f64 {
    1.0
}

fn default_drain() -> Millis {
    Millis(30_000)
}

fn default_port() -> u16 {
    8080
}

fn default_max() -> u32 {
    4
}

fn default_queue() -> u32 {
    100
}

fn default_queue_timeout() -> Millis {
    Millis(30_000)
}

fn default_start_timeout() -> Millis {
    Millis(30_000)
}

fn default_timeout() -> Millis {
    Millis(60_000)
}

fn default_freeze_after() -> Millis {
    Millis(10_000)
}

fn default_stop_after() -> Millis {
    Millis(300_000)
}

fn default_stop_timeout() -> Millis {
    Millis(10_000)
}

impl Config {
    /// Reads it from text.
    ///
    /// # Errors
    /// The first thing that is wrong with it, and where.
    pub(crate) fn parse(text: &str) -> Result<Self, Mistake> {
        let config: Self = toml::from_str(text).map_err(|error| Mistake::of_toml(text, &error))?;
        config.check_whole(text)?;
        Ok(config)
    }

    /// What no value can tell alone.
    fn check_whole(&self, text: &str) -> Result<(), Mistake> {
        if self.listen.is_empty() && self.tls.is_none() {
            return Err(Mistake::at_begin("listen = []: nobody could come; give at least one address"));
        }
        if self.tls.as_ref().is_some_and(|tls| tls.certificates.is_empty() || tls.listen.is_empty()) {
            return Err(Mistake::at_begin("tls: it needs an address in `listen` and one of `certificates`, at least"));
        }
        if let Some(traces) = &self.traces {
            Endpoint::parse(&traces.endpoint).map_err(|error| Mistake::at_begin(error.to_string()))?;
            if !(0.0..=1.0).contains(&traces.sample) {
                return Err(Mistake::at_begin(format!("traces.sample = {}: expected 0 to 1", traces.sample)));
            }
        }
        let names: Vec<&str> = self.functions.keys().map(Name::as_str).collect();
        let mut used = BTreeSet::new();
        for route in &self.routes {
            route.get_ref().check(text, route.span().start, &names)?;
            used.extend(route.get_ref().names());
        }
        for (name, function) in &self.functions {
            if !used.contains(name.as_str()) {
                return Err(Mistake::at_begin(format!(
                    "function `{name}`: no route leads to it; add [[routes]] with function = \"{name}\", or leave it out"
                )));
            }
            function.check().map_err(|problem| Mistake::at_begin(format!("function `{name}`: {problem}")))?;
        }
        self.refuse_twins(text)
    }

    /// Two routes of the same requests: which one counts would be anybody's guess.
    fn refuse_twins(&self, text: &str) -> Result<(), Mistake> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for (number, route) in self.routes.iter().enumerate() {
            for what in route.get_ref().matched() {
                if let Some(earlier) = seen.insert(what.clone(), number) {
                    return Err(Mistake::at(
                        text,
                        route.span().start,
                        format!("route {} is for the same requests as route {}: {what}", number + 1, earlier + 1),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The file, for what is relative to it.
    pub(crate) fn resolve_paths(&mut self, folder: &std::path::Path) -> Result<(), String> {
        for function in self.functions.values_mut() {
            for volume in &mut function.volumes {
                volume.resolve(folder)?;
            }
        }
        for certificate in self.tls.iter_mut().flat_map(|tls| &mut tls.certificates) {
            certificate.certificate = folder.join(&certificate.certificate);
            certificate.key = folder.join(&certificate.key);
        }
        if let AccessLog::File(path) = &mut self.access_log {
            *path = folder.join(&path);
        }
        if let Admin::Socket(path) = &mut self.admin {
            *path = folder.join(&path);
        }
        if let Some(path) = &mut self.admin_token {
            *path = folder.join(&path);
        }
        Ok(())
    }

    /// The keys that a gateway takes when it starts, and no more, of which the other one has another value.
    pub(crate) fn changes_for_a_start(&self, other: &Self) -> Vec<&'static str> {
        let [own, others] = [self, other].map(|config| config.tls.as_ref().map(|tls| &tls.listen));
        let changes = [
            ("name", self.name != other.name),
            ("listen", self.listen != other.listen),
            ("tls", own.is_some() != others.is_some()),
            ("tls.listen", own != others),
            ("admin", self.admin != other.admin),
            ("admin_token", self.admin_token != other.admin_token),
            ("access_log", self.access_log != other.access_log),
            ("traces", self.traces != other.traces),
            ("drain", self.drain != other.drain),
            ("limits.connections", self.limits.connections != other.limits.connections),
        ];
        changes.into_iter().filter_map(|(key, is_change)| is_change.then_some(key)).collect()
    }

    /// Where operators come, if they do.
    pub(crate) fn admin_path(&self, default: PathBuf) -> Option<PathBuf> {
        match &self.admin {
            Admin::Default | Admin::Address(_) => Some(default),
            Admin::Off => None,
            Admin::Socket(path) => Some(path.clone()),
        }
    }
}

impl RouteConfig {
    fn check(&self, text: &str, begin: usize, functions: &[&str]) -> Result<(), Mistake> {
        let place = match (&self.function, &self.weights) {
            (Some(function), None) => function.span().start,
            (None, Some(weights)) => weights.span().start,
            (None, None) => return Err(Mistake::at(text, begin, "missing field `function`")),
            (Some(function), Some(_)) => {
                let message = "function and weights: a route has one of them; leave out the other";
                return Err(Mistake::at(text, function.span().start, message));
            }
        };
        if let Some(wanted) = self.names().find(|wanted| !functions.contains(wanted)) {
            return Err(Mistake::at(text, place, mistake::unknown("function", wanted, functions)));
        }
        if let Some((name, weight)) = self.shares().into_iter().find(|(_, weight)| *weight > LARGEST_WEIGHT) {
            let message = format!("{name} = {weight}: give weights up to {LARGEST_WEIGHT}; their proportion counts");
            return Err(Mistake::at(text, place, message));
        }
        if self.shares().is_empty() {
            return Err(Mistake::at(text, place, "weights: no request would be answered; one is above 0"));
        }
        if let Some(strip) = self.strip.as_ref().filter(|strip| *strip.get_ref() && self.exact) {
            let message = "strip = true: of an exact path nothing would be left; leave out one of them";
            return Err(Mistake::at(text, strip.span().start, message));
        }
        if self.methods.as_ref().is_some_and(Vec::is_empty) {
            return Err(Mistake::at(text, begin, "methods = []: no request has none; leave it out for all of them"));
        }
        Ok(())
    }

    /// All functions that it names.
    fn names(&self) -> impl Iterator<Item = &str> {
        let one = self.function.iter().map(|function| function.get_ref().as_str());
        one.chain(self.weights.iter().flat_map(|weights| weights.get_ref().keys().map(String::as_str)))
    }

    /// The functions that get its requests, each with its weight, which is above 0.
    pub(crate) fn shares(&self) -> Vec<(&str, u32)> {
        let one = self.function.iter().map(|function| (function.get_ref().as_str(), 1));
        let several = self.weights.iter().flat_map(|weights| weights.get_ref());
        one.chain(several.map(|(name, weight)| (name.as_str(), *weight))).filter(|(_, weight)| *weight > 0).collect()
    }

    /// Whether what was matched is taken off the path.
    pub(crate) fn strips(&self) -> bool {
        self.strip.as_ref().map_or(!self.exact, |strip| *strip.get_ref())
    }

    /// What it is for, once for each method.
    fn matched(&self) -> Vec<String> {
        let host = self.host.as_ref().map_or("*".to_owned(), ToString::to_string);
        let what = format!("host {host}, path {}{}", self.path.shape(), if self.exact { " exactly" } else { "" });
        match &self.methods {
            None => vec![what],
            Some(methods) => methods.iter().map(|method| format!("{method} of {what}")).collect(),
        }
    }
}

impl FunctionConfig {
    fn check(&self) -> Result<(), String> {
        if self.max == 0 {
            return Err("max = 0: no request could be answered; give at least 1".to_owned());
        }
        if self.min > self.max {
            return Err(format!("min = {} is above max = {}", self.min, self.max));
        }
        if self.concurrency == Some(0) {
            return Err("concurrency = 0: no request could be answered; give at least 1".to_owned());
        }
        if self.cgi && (self.min > 0 || self.concurrency.is_some()) {
            return Err("cgi = true: it is started for each request; leave out min and concurrency".to_owned());
        }
        if self.port == 0 {
            return Err("port = 0: a program cannot be found there; give the one that it listens at".to_owned());
        }
        if self.network.as_deref() == Some("host") {
            return Err(
                "network = \"host\": several containers would listen at one port; use none, bridge or a network of your own".to_owned()
            );
        }
        if let Some(name) = self.env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
            return Err(format!("env: `{name}` is no name of a variable"));
        }
        let mounts = self.volumes.iter().map(|volume| &volume.spec).chain(self.tmpfs.iter().map(|tmpfs| &tmpfs.0));
        let mut targets = BTreeSet::new();
        if let Some(twice) = mounts.map(|mount| &mount.target).find(|target| !targets.insert(*target)) {
            return Err(format!("two mounts at {}: give each a target of its own", twice.display()));
        }
        let mut stores = BTreeSet::new();
        if let Some(twice) = self.kv.iter().find(|store| !stores.insert(&store.0.name)) {
            return Err(format!("kv: there are two stores of the name {}; leave out one", twice.0.name));
        }
        if self.env.contains_key("PORT") {
            return Err("env: PORT is set to `port`; give it there".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
