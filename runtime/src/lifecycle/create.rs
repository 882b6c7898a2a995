//! From a [`Request`] and an image to a container that is written down.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, bail};
use images::{Image, Selection};

use crate::{
    output,
    records::{
        container::{Container, Lock},
        host::Host,
    },
    spec::{
        FORMAT, Further, ImagePin, Network, RunSpec, Workload, env,
        health::{Health, HealthOptions},
        mounts::{MountKind, MountSpec},
        names,
        namespaces::NamespaceMode,
        network::Endpoint,
        ports::{self, Listening, PublishedPort},
        request::Request,
        signals,
    },
};

/// Makes a container of an image. Nobody else touches it while the lock is held.
///
/// The caller holds `Store::writing` since before it looked for the image: until the container names it, nobody may remove it.
pub(crate) fn create(host: &Host, image: &Image, request: Request) -> Result<(Container, Lock)> {
    let made = host.containers.create(specify(host, image, request)?)?;
    made.0.happened("create");
    Ok(made)
}

/// What the container of a request would be; nothing is made.
pub(crate) fn specify(host: &Host, image: &Image, request: Request) -> Result<RunSpec> {
    let (image, workload) = Workload::chosen(image, request.component.as_deref())?;
    workload.behaviour().check_typed(request.entrypoint.is_some(), request.cwd.is_some())?;
    let spec = with_defaults(host, &image, &workload, request)?;
    workload.behaviour().check(&spec)?;
    Ok(spec)
}

/// What was asked for plus the image's defaults, validated.
fn with_defaults(host: &Host, image: &Image, workload: &Workload, request: Request) -> Result<RunSpec> {
    let config = image.config.config().clone().unwrap_or_default();
    let id = names::new_id()?;
    let hostname = request.hostname.clone().unwrap_or_else(|| names::short_id(&id).to_owned());
    let name = match &request.name {
        Some(name) => names::validate("container name", name).map(|()| name.clone())?,
        None => free_name(host, &id)?,
    };
    let exposed = request.exposed.iter().chain(config.exposed_ports().iter().flatten()).filter(|_| request.publish_all);
    let ports = ports(exposed, request.ports.clone())?;
    let listening = match ports.is_empty() {
        true => Listening::default(),
        false => workload.behaviour().listening(host, image)?,
    };
    let publishes = !ports.is_empty() && listening == Listening::Own;
    let (argv, entrypoint_words) = command_line(&request, image, workload)?;
    Ok(RunSpec {
        format: FORMAT,
        argv,
        entrypoint_words,
        domainname: request.domainname.clone().unwrap_or_default(),
        env: environment(&request, image, workload, &hostname),
        cwd: working_directory(request.cwd.as_deref().or(config.working_dir().as_deref()))?,
        user: request.user.or_else(|| config.user().clone()).unwrap_or_default(),
        mounts: pin_images(
            host,
            name_volumes(with_volumes_of_image(request.mounts, config.volumes().iter().flatten()))?,
        )?,
        network: network_of(host, workload, request.network, request.default_network, publishes)?,
        names: request.names,
        ports,
        exposed: request.exposed,
        listening,
        limits: request.limits,
        security: request.security,
        wasm: request.wasm,
        read_only: request.read_only,
        stdio: request.stdio,
        init: request.init,
        auto_remove: request.auto_remove,
        stop_signal: signals::parse(
            request.stop_signal.as_deref().or(config.stop_signal().as_deref()).unwrap_or("SIGTERM"),
        )?,
        stop_timeout_ms: request.stop_timeout.milliseconds(),
        labels: labels(config.labels().clone().unwrap_or_default(), request.labels),
        created_unix_nanos: output::now_nanos(),
        restart: request.restart,
        log: request.log,
        health: health_of(image, workload, &request.health)?,
        further: Further {
            pid: by_id(host, "--pid", request.further.pid)?,
            ipc: by_id(host, "--ipc", request.further.ipc)?,
            ..request.further
        },
        revised: false,
        image: ImagePin {
            name: request.image,
            digest: image.digest.to_string(),
            kind: workload.kind(),
            workload: Some(workload.clone()),
        },
        id,
        name,
        hostname,
    })
}

/// What was asked for, or what the image says, unless that cannot be done.
fn health_of(image: &Image, workload: &Workload, wanted: &HealthOptions) -> Result<Option<Health>> {
    if !workload.behaviour().takes_exec() {
        return Ok(Health::decide(wanted, None));
    }
    match &image.healthcheck {
        Ok(of_image) => Ok(Health::decide(wanted, of_image.as_ref())),
        Err(_) if wanted.none => Ok(None),
        Err(error) => bail!("the image's HEALTHCHECK cannot be read: {error} (--no-healthcheck runs it without)"),
    }
}

/// What was asked for, with the id of a container in place of its name; else the default network where ports need one, or where it is
/// that of all.
fn network_of(
    host: &Host,
    workload: &Workload,
    wanted: Option<Network>,
    default: Option<Network>,
    publishes: bool,
) -> Result<Network> {
    let behaviour = workload.behaviour();
    match wanted {
        Some(Network::Container(name)) => Ok(Network::Container(host.containers.find(&name)?.spec.id)),
        Some(network @ (Network::None | Network::Host)) if publishes => {
            bail!("-p: with --network {} there is no port to be led to; leave one of them out", network.mode())
        }
        Some(Network::Joined(endpoints)) => {
            endpoints.into_iter().map(|one| by_name(host, one)).collect::<Result<_>>().map(Network::Joined)
        }
        Some(network) => Ok(network),
        None if publishes => Ok(Network::default_one()),
        None if !behaviour.is_on_default_network() => Ok(Network::None),
        None => Ok(default.unwrap_or_else(Network::default_one)),
    }
}

/// A namespace with the id of a container in place of its name.
fn by_id(host: &Host, flag: &str, mode: NamespaceMode) -> Result<NamespaceMode> {
    match mode {
        NamespaceMode::Container(name) => {
            let found = host.containers.find(&name).with_context(|| format!("{flag} container:{name}"))?;
            Ok(NamespaceMode::Container(found.spec.id))
        }
        mode => Ok(mode),
    }
}

/// The network of a container's endpoint by its name, where it was given by its id.
fn by_name(host: &Host, endpoint: Endpoint) -> Result<Endpoint> {
    let found = host.networks.find(&endpoint.network)?;
    Ok(Endpoint { network: found.map_or(endpoint.network, |found| found.name), ..endpoint })
}

/// Those that were asked for, and of those that the image exposes the others.
fn ports<'a>(exposed: impl Iterator<Item = &'a String>, wanted: Vec<PublishedPort>) -> Result<Vec<PublishedPort>> {
    let mut ports = wanted;
    for text in exposed {
        let exposed = ports::parse_publish(text).with_context(|| format!("the exposed port `{text}`"))?;
        for port in exposed {
            let is_same =
                |other: &PublishedPort| (other.container_port, other.protocol) == (port.container_port, port.protocol);
            if !ports.iter().any(is_same) {
                ports.push(port);
            }
        }
    }
    Ok(ports)
}

/// A random name that nobody has; after some tries, one that ends with the id.
fn free_name(host: &Host, id: &str) -> Result<String> {
    for _ in 0..4 {
        let name = names::random_name()?;
        if !host.containers.has_name(&name)? {
            return Ok(name);
        }
    }
    Ok(format!("{}_{}", names::random_name()?, names::short_id(id)))
}

/// The words asked for replace the image's command; its entrypoint stays unless another one replaces both. And how many words
/// of all are the entrypoint.
fn command_line(request: &Request, image: &Image, workload: &Workload) -> Result<(Vec<String>, usize)> {
    let config = image.config.config().clone().unwrap_or_default();
    let (entrypoint, mut default_command) = match &request.entrypoint {
        Some(entrypoint) => (entrypoint.clone(), Vec::new()),
        None => (config.entrypoint().clone().unwrap_or_default(), config.cmd().clone().unwrap_or_default()),
    };
    let entrypoint = match entrypoint.is_empty() {
        true => workload.behaviour().default_entrypoint(image),
        false => entrypoint,
    };
    // Where the image has no entrypoint, its command may name the program itself.
    if config.entrypoint().as_ref().is_none_or(Vec::is_empty) && default_command.first() == entrypoint.first() {
        default_command = default_command.split_off(default_command.len().min(1));
    }
    let command = if request.command.is_empty() { default_command } else { request.command.clone() };
    let entrypoint_words = entrypoint.len();
    let argv = [entrypoint, command].concat();
    if argv.is_empty() {
        bail!(
            "no command: the image {0} has neither an entrypoint nor a command; add one: amphora run {0} COMMAND",
            request.image
        );
    }
    Ok((argv, entrypoint_words))
}

fn environment(request: &Request, image: &Image, workload: &Workload, hostname: &str) -> Vec<String> {
    let mut defaults = workload.behaviour().default_env(hostname);
    if request.stdio.terminal {
        defaults.push("TERM=xterm".to_owned());
    }
    let of_image = image.config.config().as_ref().and_then(|config| config.env().clone()).unwrap_or_default();
    env::merge(&[&defaults, &of_image, &request.env])
}

/// An absolute path, by default the root.
pub(super) fn working_directory(wanted: Option<&str>) -> Result<String> {
    match wanted {
        None | Some("") => Ok("/".to_owned()),
        Some(dir) if Path::new(dir).is_absolute() => Ok(dir.to_owned()),
        Some(dir) => {
            bail!("the working directory {dir} is not absolute: it is a path inside the container, such as /{dir}")
        }
    }
}

/// A new volume at each place that the image names and where nothing else is to be mounted.
fn with_volumes_of_image<'a>(mut mounts: Vec<MountSpec>, places: impl Iterator<Item = &'a String>) -> Vec<MountSpec> {
    for place in places {
        let volume = MountSpec::new_volume_at(Path::new(place));
        mounts.extend(volume.filter(|volume| mounts.iter().all(|mount| mount.target != volume.target)));
    }
    mounts.sort_by_key(|mount| mount.target.components().count());
    mounts
}

/// An anonymous volume gets a name of its own, so that a second start finds it again.
fn name_volumes(mut mounts: Vec<MountSpec>) -> Result<Vec<MountSpec>> {
    for mount in &mut mounts {
        if let MountKind::Volume { name: name @ None, .. } = &mut mount.kind {
            *name = Some(names::new_id()?);
        }
    }
    Ok(mounts)
}

/// An image that is mounted is the one that has the name now.
fn pin_images(host: &Host, mut mounts: Vec<MountSpec>) -> Result<Vec<MountSpec>> {
    for mount in &mut mounts {
        if let MountKind::Image { name, digest } = &mut mount.kind {
            let image = host.store.resolve(name, &Selection::default())?;
            let image =
                image.with_context(|| format!("--mount type=image: no such image: {name} (amphora pull {name})"))?;
            *digest = image.digest.to_string();
        }
    }
    Ok(mounts)
}

fn labels(
    of_image: impl IntoIterator<Item = (String, String)>,
    wanted: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    of_image.into_iter().chain(wanted).collect()
}
