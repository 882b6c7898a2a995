//! From what was typed to a container: `create`, and the first half of `run`.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    path::Path,
};

use anyhow::{Context, Result, bail};
use images::Image;

use super::{
    devices,
    image::{find_or_pull, selection},
    say_id, settings,
};
use crate::{
    cli::ProgramArgs,
    lifecycle,
    output::{
        self,
        errors::{self, Coded},
    },
    records::{
        container::{Container, FindError, Lock},
        host::Host,
    },
    spec::{
        Network, Security, StdioSpec, Workload, env, exit_code, mounts::MountError, request::Request,
        restart::RestartPolicy, seccomp::SeccompProfile,
    },
};

/// The most that is read of a seccomp profile; Docker's default one has 17 kB.
const PROFILE_BYTES: u64 = 4 << 20;

/// `amphora create`.
pub(crate) fn create(host: &Host, args: &ProgramArgs) -> Result<u8> {
    let made = make(host, args)?;
    say_id(&made.container, "was made")
}

/// A container that was just made; nobody else touches it while the lock is held.
pub(crate) struct Made {
    pub(crate) container: Container,
    pub(crate) image: Image,
    pub(crate) lock: Lock,
}

/// Finds the image (or pulls it), and makes the container.
pub(crate) fn make(host: &Host, args: &ProgramArgs) -> Result<Made> {
    let selection = selection(args.platform.as_deref(), args.prefer)?;
    // Until the container names the image, nobody may remove it.
    let (image, _writing) = find_or_pull(host, &args.subject, &selection, args.pull, args.quiet)?;
    let request = request(host, args).map_err(as_typed)?;
    refuse_taken_cidfile(args.cidfile.as_deref())?;
    let (container, lock) = lifecycle::create(host, &image, request)?;
    if let Some(path) = &args.cidfile
        && let Err(error) = write_cidfile(path, &container.spec.id)
    {
        // What its user does not learn of must not stay.
        host.containers.delete(&container)?;
        container.happened("destroy");
        return Err(error);
    }
    Ok(Made { container, image, lock })
}

/// What cannot be meant ends `create` as it ends `run`; as with Docker, what is wrong with a mount, or with another container that is
/// named, is found by who makes the container.
fn as_typed(error: anyhow::Error) -> anyhow::Error {
    let is_found_later = error.chain().any(|cause| cause.is::<MountError>() || cause.is::<FindError>());
    match is_found_later || errors::exit_code(&error).is_some() {
        true => error,
        false => Coded::new(exit_code::OURS, errors::sentence(&error)).into(),
    }
}

/// `run --explain-grants`: says what would run the image, and runs nothing.
pub(crate) fn explain_grants(host: &Host, args: &ProgramArgs) -> Result<u8> {
    let selection = selection(args.platform.as_deref(), args.prefer)?;
    let (image, _writing) = find_or_pull(host, &args.subject, &selection, args.pull, args.quiet)?;
    let (image, workload) = Workload::chosen(&image, args.component.as_deref())?;
    let component = args.component.as_ref().map(|component| format!("--component {component} "));
    let subject = component.unwrap_or_default() + &args.subject;
    output::say(&workload.behaviour().explain_grants(host, &image, &subject)?)?;
    Ok(0)
}

/// What a user, or a machine, wants for all that says nothing of networks.
fn default_network() -> Result<Option<Network>> {
    match std::env::var_os("AMPHORA_NETWORK").as_deref().map(|value| value.to_str()) {
        None | Some(Some("")) => Ok(None),
        Some(Some("none")) => Ok(Some(Network::None)),
        Some(Some("bridge")) => Ok(Some(Network::default_one())),
        Some(other) => bail!("AMPHORA_NETWORK={}: expected bridge or none", other.unwrap_or("…")),
    }
}

fn request(host: &Host, args: &ProgramArgs) -> Result<Request> {
    let word = |entrypoint: &String| Some(entrypoint.clone()).into_iter().filter(|word| !word.is_empty()).collect();
    let granted = devices::granted(args)?;
    // One that was removed matters only to whom begins a path there.
    let mut mounts = args.mounts(&std::env::current_dir().unwrap_or_default())?;
    mounts.extend(granted.mounts.iter().cloned());
    Ok(Request {
        image: args.subject.clone(),
        component: args.component.clone(),
        command: args.command.clone(),
        entrypoint: args.entrypoint.as_ref().map(word),
        env: [granted.env.clone(), env::from_flags(&args.env_file, &args.env)?].concat(),
        cwd: args.workdir.clone(),
        user: args.user.clone(),
        hostname: args.hostname.clone(),
        name: args.name.clone(),
        mounts: settings::volumes_from(host, args, mounts)?,
        domainname: args.domainname.clone(),
        network: args.networks().map_err(anyhow::Error::msg)?,
        default_network: default_network()?,
        names: args.names().map_err(anyhow::Error::msg)?,
        ports: args.ports()?,
        exposed: args.exposed()?,
        publish_all: args.publish_all,
        limits: args.limits()?,
        security: security(args)?,
        wasm: settings::wasm(args)?,
        read_only: args.read_only,
        stdio: StdioSpec { interactive: args.interactive, terminal: args.tty },
        init: args.init,
        auto_remove: args.rm,
        stop_signal: args.stop_signal.clone(),
        stop_timeout: args.stop_timeout()?,
        labels: labels(args)?,
        restart: restart(args)?,
        log: settings::log(args)?,
        health: settings::health(args)?,
        further: settings::further(args, &granted)?,
    })
}

fn restart(args: &ProgramArgs) -> Result<RestartPolicy> {
    let policy = args.restart.as_deref().map_or(Ok(RestartPolicy::No), RestartPolicy::parse)?;
    if policy.restarts() && args.rm {
        bail!("conflicting options: cannot specify both --restart and --rm");
    }
    Ok(policy)
}

fn security(args: &ProgramArgs) -> Result<Security> {
    let mut security = Security {
        cap_add: args.cap_add.clone(),
        cap_drop: args.cap_drop.clone(),
        privileged: args.privileged,
        ..Security::default()
    };
    for option in &args.security_opt {
        match option.replacen(':', "=", usize::from(!option.contains('='))).as_str() {
            "no-new-privileges" | "no-new-privileges=true" => security.new_privileges_allowed = false,
            "no-new-privileges=false" => security.new_privileges_allowed = true,
            option => match option.strip_prefix("seccomp=") {
                Some(value) => {
                    security.seccomp_unconfined = value == "unconfined";
                    security.seccomp_profile = seccomp_profile(value)?;
                }
                None => bail!(
                    "--security-opt {option}: not supported; expected no-new-privileges[=true|=false] or \
                     seccomp=unconfined|builtin|FILE"
                ),
            },
        }
    }
    Ok(security)
}

/// None: no filter, or the default one.
fn seccomp_profile(value: &str) -> Result<Option<SeccompProfile>> {
    if matches!(value, "unconfined" | "builtin") {
        return Ok(None);
    }
    let (name, text) = match value.trim_start().starts_with('{') {
        true => ("the profile".to_owned(), value.to_owned()),
        false => (value.to_owned(), read_profile(Path::new(value))?),
    };
    SeccompProfile::parse(&text).map(Some).with_context(|| format!("--security-opt seccomp: {name} cannot be used"))
}

/// Plain files and pipes, as a shell's `<(…)` gives one.
fn read_profile(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(PROFILE_BYTES + 1).read_to_string(&mut text));
    read.with_context(|| {
        format!("--security-opt seccomp={}: expected unconfined, builtin or a profile's file", path.display())
    })?;
    if text.len() as u64 > PROFILE_BYTES {
        bail!("--security-opt seccomp={}: expected at most {PROFILE_BYTES} bytes", path.display());
    }
    Ok(text)
}

fn labels(args: &ProgramArgs) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for label in settings::labels_of_files(&args.label_file)?.iter().chain(&args.label) {
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
