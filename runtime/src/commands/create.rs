//! From what was typed to a [`RunSpec`]: `create`, and the first half of `run`.

use std::{collections::BTreeMap, io::Write, path::Path};

use anyhow::{Context, Result, bail};
use images::Image;

use super::{
    image::{find_or_pull, selection},
    say_id,
};
use crate::{
    cli::{ContainerArgs, CreateArgs, NetworkChoice},
    output,
    records::{
        container::{Container, Lock},
        host::Host,
    },
    spec::{
        FORMAT, ImagePin, Network, RunSpec, Security, StdioSpec, Workload, env,
        mounts::{MountKind, MountSpec},
        names, signals,
    },
};

/// Docker's: between the stop signal and SIGKILL.
const DEFAULT_STOP_TIMEOUT_MS: u64 = 10_000;

/// `amphora create`.
pub(crate) fn create(host: &Host, args: &CreateArgs) -> Result<u8> {
    let made = make(host, &args.container)?;
    say_id(&made.container, "was made")
}

/// A container that was just made; nobody else touches it while the lock is held.
pub(crate) struct Made {
    pub(crate) container: Container,
    pub(crate) image: Image,
    pub(crate) lock: Lock,
}

/// Finds the image (or pulls it), and writes the container down.
pub(crate) fn make(host: &Host, args: &ContainerArgs) -> Result<Made> {
    // Until the container names the image, nobody may remove it.
    let _writing = host.store.writing()?;
    let image = find_or_pull(host, args.image(), &selection(args.platform.as_deref(), args.prefer)?, args.pull)?;
    let workload = Workload::of(&image)?;
    let spec = spec(host, args, &image, &workload)?;
    workload.behaviour().check(&spec)?;
    workload.behaviour().check_typed(args.entrypoint.is_some(), args.workdir.is_some())?;
    refuse_taken_cidfile(args.cidfile.as_deref())?;
    let (container, lock) = host.containers.create(spec)?;
    if let Some(path) = &args.cidfile
        && let Err(error) = write_cidfile(path, &container.spec.id)
    {
        // What its user does not learn of must not stay.
        return Err(host.containers.delete(&container).err().unwrap_or(error));
    }
    Ok(Made { container, image, lock })
}

fn spec(host: &Host, args: &ContainerArgs, image: &Image, workload: &Workload) -> Result<RunSpec> {
    let config = image.config.config().clone().unwrap_or_default();
    let id = names::new_id()?;
    let hostname = args.hostname.clone().unwrap_or_else(|| names::short_id(&id).to_owned());
    let name = match &args.name {
        Some(name) => names::validate("container name", name).map(|()| name.clone())?,
        None => free_name(host, &id)?,
    };
    Ok(RunSpec {
        format: FORMAT,
        argv: command_line(args, image, workload)?,
        env: environment(args, image, workload, &hostname)?,
        cwd: working_directory(args.workdir.as_deref().or(config.working_dir().as_deref()))?,
        user: args.user.clone().or_else(|| config.user().clone()).unwrap_or_default(),
        mounts: name_volumes(args.mounts(&std::env::current_dir().context("no current directory")?)?)?,
        network: match args.network {
            NetworkChoice::None => Network::None,
            NetworkChoice::Host => Network::Host,
        },
        limits: args.limits()?,
        security: security(args)?,
        read_only: args.read_only,
        stdio: StdioSpec { interactive: args.interactive, terminal: args.tty },
        init: args.init,
        auto_remove: args.rm,
        stop_signal: signals::parse(
            args.stop_signal.as_deref().or(config.stop_signal().as_deref()).unwrap_or("SIGTERM"),
        )?,
        stop_timeout_ms: args.stop_timeout_ms()?.unwrap_or(Some(DEFAULT_STOP_TIMEOUT_MS)),
        labels: labels(args, config.labels().clone().unwrap_or_default())?,
        created_unix_nanos: output::now_nanos(),
        image: ImagePin {
            name: args.image().to_owned(),
            digest: image.digest.to_string(),
            kind: workload.kind(),
            workload: Some(workload.clone()),
        },
        id,
        name,
        hostname,
    })
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

/// The user's words replace the image's command; the entrypoint stays unless `--entrypoint` replaces both.
fn command_line(args: &ContainerArgs, image: &Image, workload: &Workload) -> Result<Vec<String>> {
    let config = image.config.config().clone().unwrap_or_default();
    let (entrypoint, default_command) = match &args.entrypoint {
        Some(entrypoint) if entrypoint.is_empty() => (Vec::new(), Vec::new()),
        Some(entrypoint) => (vec![entrypoint.clone()], Vec::new()),
        None => (config.entrypoint().clone().unwrap_or_default(), config.cmd().clone().unwrap_or_default()),
    };
    let entrypoint = if entrypoint.is_empty() { workload.behaviour().default_entrypoint(image) } else { entrypoint };
    let command = if args.command().is_empty() { default_command } else { args.command().to_vec() };
    let argv = [entrypoint, command].concat();
    if argv.is_empty() {
        bail!(
            "no command: the image {0} has neither an entrypoint nor a command; add one: amphora run {0} COMMAND",
            args.image()
        );
    }
    Ok(argv)
}

fn environment(args: &ContainerArgs, image: &Image, workload: &Workload, hostname: &str) -> Result<Vec<String>> {
    let mut defaults = workload.behaviour().default_env(hostname);
    if args.tty {
        defaults.push("TERM=xterm".to_owned());
    }
    let of_image = image.config.config().as_ref().and_then(|config| config.env().clone()).unwrap_or_default();
    Ok(env::merge(&[defaults, of_image, env::from_flags(&args.env_file, &args.env)?]))
}

fn working_directory(wanted: Option<&str>) -> Result<String> {
    match wanted {
        None | Some("") => Ok("/".to_owned()),
        Some(dir) if Path::new(dir).is_absolute() => Ok(dir.to_owned()),
        Some(dir) => {
            bail!("the working directory {dir} is not absolute: it is a path inside the container, such as /{dir}")
        }
    }
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

fn security(args: &ContainerArgs) -> Result<Security> {
    let mut security = Security {
        cap_add: args.cap_add.clone(),
        cap_drop: args.cap_drop.clone(),
        privileged: args.privileged,
        ..Security::default()
    };
    for option in &args.security_opt {
        match option.replacen(':', "=", 1).as_str() {
            "no-new-privileges" | "no-new-privileges=true" => security.new_privileges_allowed = false,
            "no-new-privileges=false" => security.new_privileges_allowed = true,
            "seccomp=unconfined" => security.seccomp_unconfined = true,
            _ => bail!(
                "--security-opt {option}: not supported; expected no-new-privileges[=true|=false] or seccomp=unconfined"
            ),
        }
    }
    Ok(security)
}

fn labels(
    args: &ContainerArgs,
    of_image: impl IntoIterator<Item = (String, String)>,
) -> Result<BTreeMap<String, String>> {
    let mut labels: BTreeMap<String, String> = of_image.into_iter().collect();
    for label in &args.label {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        if name.is_empty() {
            bail!("--label {label}: expected NAME=VALUE");
        }
        labels.insert(name.to_owned(), value.to_owned());
    }
    Ok(labels)
}

fn refuse_taken_cidfile(path: Option<&Path>) -> Result<()> {
    match path {
        Some(path) if path.exists() => bail!("--cidfile {}: the file exists already; remove it first", path.display()),
        _ => Ok(()),
    }
}

fn write_cidfile(path: &Path, id: &str) -> Result<()> {
    std::fs::File::create_new(path)
        .and_then(|mut file| file.write_all(id.as_bytes()))
        .with_context(|| format!("--cidfile {}: cannot write it", path.display()))
}
