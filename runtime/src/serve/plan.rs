//! A function as it is to be: what its containers are made of, decided and checked before the first request.

use std::{collections::BTreeMap, num::NonZeroU64, time::Duration};

use anyhow::{Context, Result, bail};
use images::Image;

use super::config::{FunctionConfig, Isolation, Pull};
use crate::{
    lifecycle,
    records::host::Host,
    spec::{
        Kind, Network, StdioSpec, Workload,
        limits::Limits,
        network::{self, Typed},
        ports::{HostPort, Listening, Protocol, PublishedPort},
        request::{Request, StopTimeout},
        wasm::WasmOptions,
    },
};

/// On every container of a function: whose it is.
pub(super) const LABEL_GATEWAY: &str = "amphora.serve.gateway";
/// On every container of a function: which function's.
pub(super) const LABEL_FUNCTION: &str = "amphora.serve.function";

/// Requests of one container at once, where nobody says how many: of a program, and of one that has a fresh instance for each.
const USUAL_CONCURRENCY: u32 = 80;
const SERVED_CONCURRENCY: u32 = 1000;

/// How an image is found, from a registry if need be: other front ends do it in the same way.
pub(crate) type FindImage = fn(&Host, &str, Option<&str>, Pull) -> Result<Image>;

/// What of a function stays the same as long as it is served.
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) config: FunctionConfig,
    /// Manifest digest: a name may lead elsewhere tomorrow.
    pub(super) digest: String,
    pub(super) kind: Kind,
    /// Where its program runs.
    pub(super) isolation: Isolation,
    /// Its containers are given sockets, instead of opening one themselves.
    pub(super) is_given_sockets: bool,
    pub(super) concurrency: u32,
}

impl Plan {
    /// Finds the image, and checks all that can be checked without a start.
    pub(super) fn new(host: &Host, name: &str, config: &FunctionConfig, find: FindImage) -> Result<Self> {
        let image = find(host, &config.image, config.platform.as_deref(), config.pull)?;
        Self::of_image(host, name, config, &image)
    }

    /// The same of an image that was found.
    pub(super) fn of_image(host: &Host, name: &str, config: &FunctionConfig, image: &Image) -> Result<Self> {
        let (chosen, workload) = Workload::chosen(image, config.component.as_deref())?;
        let listening = workload.behaviour().listening(host, &chosen)?;
        if config.cgi && listening == Listening::Function {
            bail!("cgi = true: the image {} answers requests by itself; leave it out", config.image);
        }
        let is_given_sockets = listening != Listening::Own && !config.cgi;
        if let Some(network) = config.network.as_ref().filter(|name| is_given_sockets && *name != "none") {
            bail!("network = \"{network}\": a Wasm function that the gateway calls is on no network; leave it out");
        }
        let usual = if listening == Listening::Function { SERVED_CONCURRENCY } else { USUAL_CONCURRENCY };
        let mut plan = Self {
            name: name.to_owned(),
            config: config.clone(),
            digest: image.digest.to_string(),
            kind: workload.kind(),
            isolation: Isolation::Process,
            is_given_sockets,
            concurrency: config.concurrency.unwrap_or(usual),
        };
        // What `run` refuses is refused now.
        let spec = lifecycle::specify(host, image, plan.request("check", "check")?)?;
        let takes_process = match config.cgi {
            true => Some("cgi = true"),
            false => workload.behaviour().needs_process(&spec),
        };
        plan.isolation = match (config.isolation, takes_process) {
            (Some(Isolation::Engine), Some(what)) => {
                bail!("isolation = \"engine\": {what}, which takes a process of its own; leave out one of them")
            }
            (None | Some(Isolation::Engine), None) => Isolation::Engine,
            (None, Some(_)) | (Some(Isolation::Process), _) => Isolation::Process,
        };
        Ok(plan)
    }

    /// Whether what is served by the other can go on under this one.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest && self.config == other.config
    }

    pub(super) fn start_timeout(&self) -> Duration {
        self.config.start_timeout.duration()
    }

    /// What one container is to be. `gateway` is known to nobody else.
    pub(super) fn request(&self, container: &str, gateway: &str) -> Result<Request> {
        let config = &self.config;
        let mut env: Vec<String> = config.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut ports = Vec::new();
        match (self.isolation, self.is_given_sockets) {
            (Isolation::Engine, _) => {}
            (Isolation::Process, true) => ports.push(own_port(config.port)),
            (Isolation::Process, false) if config.cgi => {}
            (Isolation::Process, false) => env.push(format!("PORT={}", config.port)),
        }
        let mounts = config.volumes.iter().map(|volume| &volume.spec).chain(config.tmpfs.iter().map(|tmpfs| &tmpfs.0));
        let labels = [(LABEL_GATEWAY, gateway), (LABEL_FUNCTION, self.name.as_str())];
        Ok(Request {
            image: config.image.clone(),
            component: config.component.clone(),
            command: config.command.clone(),
            entrypoint: config.entrypoint.clone(),
            env,
            cwd: config.workdir.clone(),
            user: config.user.clone(),
            name: Some(container.to_owned()),
            mounts: mounts.cloned().collect(),
            network: Some(network_of(config.network.as_deref())?),
            ports,
            limits: self.limits(),
            wasm: self.wasm(),
            read_only: config.read_only,
            stdio: StdioSpec { interactive: config.cgi, terminal: false },
            stop_timeout: StopTimeout::After(config.stop_timeout.0),
            labels: labels
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
            ..Request::default()
        })
    }

    fn limits(&self) -> Limits {
        let config = &self.config;
        Limits {
            memory_bytes: config.memory.0,
            cpu_millis: config.cpus.0,
            pids: config.pids.0,
            fuel: config.fuel.map(NonZeroU64::get),
            ..Limits::default()
        }
    }

    fn wasm(&self) -> WasmOptions {
        let config = &self.config;
        // Of a function within another process that is for whoever serves it.
        let reuse = config.reuse.filter(|_| self.isolation == Isolation::Process);
        WasmOptions {
            config: config.config.clone(),
            stores: config.kv.iter().map(|store| store.0.clone()).collect(),
            allow_net: config.allow_net.clone(),
            reuse,
            ..WasmOptions::default()
        }
    }
}

/// A port that the kernel chooses, in the network namespace of the gateway's own.
fn own_port(container_port: u16) -> PublishedPort {
    PublishedPort {
        host_ip: Some(std::net::Ipv4Addr::LOCALHOST.into()),
        host_port: HostPort::Any,
        container_port,
        protocol: Protocol::Tcp,
    }
}

fn network_of(name: Option<&str>) -> Result<Network> {
    let Some(name) = name else { return Ok(Network::None) };
    let networks = [name.to_owned()];
    let found = network::parse(&Typed { networks: &networks, ..Typed::default() });
    let network = found.map_err(anyhow::Error::msg)?.context("no network is named")?;
    match network {
        Network::Host | Network::Container(_) => {
            bail!(
                "network = \"{name}\": a function has a network of its own; use none, bridge or a network of your own"
            )
        }
        network => Ok(network),
    }
}
