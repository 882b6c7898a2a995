//! One function for each command: what was typed in, an exit code out.

mod attach;
mod bench;
mod changes;
mod commit;
mod container;
mod cp;
mod create;
mod debug;
mod demo;
mod devices;
mod df;
mod events;
mod exec;
mod explain;
mod export;
mod filters;
mod history;
mod host_config;
mod image;
mod image_view;
mod info_fields;
mod inspect;
mod life;
mod logs;
mod network;
mod own;
mod removed;
mod run;
mod save;
mod serve;
mod serve_demo;
mod settings;
mod stats;
mod system;
mod top;
mod version;
mod view;
mod volume;
mod wait;

use std::{
    io::{BufRead, IsTerminal},
    path::PathBuf,
};

use anyhow::{Context, Error, Result};

pub(crate) use own::own;

use crate::{
    cli::{Command, Globals, ImageCommand, SystemCommand},
    output,
    records::{
        container::{Container, Unreadable},
        host::{Host, become_root},
    },
    spec::{FORMAT, exit_code},
};

/// Runs a command. The exit code is the program's own for `run`, else 0, or 1 when one of several objects failed. `behind`:
/// this is the process that `exec -d` leaves behind.
pub(crate) fn dispatch(globals: Globals, command: &Command, behind: bool) -> Result<u8> {
    match command {
        Command::Completions(args) => return print(&String::from_utf8_lossy(&args.script())),
        Command::Man(args) => {
            let failed = || format!("cannot write manual pages into {}", args.folder.display());
            return args.write().with_context(failed).map(|()| 0);
        }
        Command::Version(args) => return version::version(args),
        Command::Demo => return demo::demo(),
        Command::Serve(args) if args.schema => return serve::schema(),
        Command::Serve(args) if args.demo => {
            become_root()?;
            return serve_demo::demo(args);
        }
        Command::Bench(args) => {
            if let Some(command) = &args.command {
                return bench::compare(command);
            }
        }
        _ => {}
    }
    let host = Host::open(place(globals.root, "AMPHORA_ROOT"), place(globals.runroot, "AMPHORA_RUNROOT"))?;
    if touches_files_of_images(command) {
        become_root()?;
    }
    if let Command::Serve(args) = command {
        return serve::serve(host, args);
    }
    let host = &host;
    match command {
        Command::Run(args) => run::run(host, &args.0),
        Command::Create(args) => create::create(host, &args.0),
        Command::Start(args) => run::start(host, args),
        Command::Ps(args) => container::ps(host, args),
        Command::Logs(args) => logs::logs(host, args),
        Command::Exec(args) if behind => exec::exec_behind(host, &args.0),
        Command::Exec(args) => exec::exec(host, &args.0),
        Command::Inspect(args) => inspect::inspect(host, args),
        Command::Stop(args) => container::stop(host, args),
        Command::Restart(args) => container::restart(host, args),
        Command::Kill(args) => container::kill(host, args),
        Command::Wait(args) => container::wait(host, args),
        Command::Attach(args) => attach::attach(host, args),
        Command::Cp(args) => cp::cp(host, args),
        Command::Diff(args) => cp::diff(host, args),
        Command::Events(args) | Command::System(SystemCommand::Events(args)) => events::events(host, args),
        Command::Export(args) => export::export(host, args),
        Command::Commit(args) => commit::commit(host, args),
        Command::Pause(args) => life::pause(host, args),
        Command::Unpause(args) => life::unpause(host, args),
        Command::Rename(args) => life::rename(host, args),
        Command::Update(args) => life::update(host, args),
        Command::Top(args) => top::top(host, args),
        Command::Debug(args) => debug::debug(host, args),
        Command::Stats(args) => stats::stats(host, args),
        Command::Rm(args) => container::rm(host, args),
        Command::Images(args) | Command::Image(ImageCommand::Ls(args)) => image::images(host, args),
        Command::History(args) | Command::Image(ImageCommand::History(args)) => history::history(host, args),
        Command::Rmi(args) | Command::Image(ImageCommand::Rm(args)) => image::rmi(host, args),
        Command::Tag(args) | Command::Image(ImageCommand::Tag(args)) => image::tag(host, args),
        Command::Load(args) | Command::Image(ImageCommand::Load(args)) => image::load(host, args),
        Command::Save(args) | Command::Image(ImageCommand::Save(args)) => save::save(host, args),
        Command::Import(args) | Command::Image(ImageCommand::Import(args)) => image::import(host, args),
        Command::Pull(args) | Command::Image(ImageCommand::Pull(args)) => image::pull(host, args),
        Command::Image(ImageCommand::Explain(args)) => explain::explain(host, args),
        Command::Image(ImageCommand::Inspect(args)) => inspect::inspect_images(host, args),
        Command::Volume(command) => volume::volume(host, command),
        Command::Info(args) => version::info(host, args),
        Command::System(SystemCommand::Df(args)) => df::df(host, args),
        Command::Network(command) => network::network(host, command),
        Command::Port(args) => network::port(host, args),
        Command::System(SystemCommand::Check) => system::check(host),
        Command::System(SystemCommand::Prune(args)) => system::prune(host, args),
        Command::System(SystemCommand::Restore) => run::restore(host),
        Command::System(SystemCommand::Repair) => system::repair(host),
        Command::ContainerPrune(args) => system::prune_containers(host, args),
        Command::Image(ImageCommand::Prune(args)) => system::prune_images(host, args),
        Command::Bench(args) => bench::bench(host, args),
        Command::Container(_) | Command::Completions(_) | Command::Man(_) | Command::Version(_) => Ok(0),
        // Done above.
        Command::Demo | Command::Serve(_) => Ok(0),
    }
}

/// Whether a command makes or removes files that belong to an image's own users.
fn touches_files_of_images(command: &Command) -> bool {
    match command {
        Command::Run(_) | Command::Create(_) | Command::Start(_) | Command::Volume(_) | Command::Serve(_) => true,
        Command::Load(_)
        | Command::Save(_)
        | Command::Import(_)
        | Command::Pull(_)
        | Command::Rmi(_)
        | Command::Tag(_) => true,
        Command::Image(ImageCommand::Inspect(_) | ImageCommand::Ls(_) | ImageCommand::History(_)) => false,
        Command::History(_) | Command::System(SystemCommand::Df(_) | SystemCommand::Events(_)) => false,
        Command::Image(_) | Command::System(_) | Command::ContainerPrune(_) => true,
        // These have to reach the container's process first.
        Command::Rm(_) | Command::Restart(_) => false,
        Command::Pause(_) | Command::Unpause(_) | Command::Rename(_) | Command::Update(_) => false,
        Command::Top(_) | Command::Debug(_) | Command::Stats(_) | Command::Attach(_) => false,
        // One that runs has to be reached first.
        Command::Cp(_) | Command::Network(_) | Command::Port(_) => false,
        Command::Diff(_) => true,
        Command::Events(_) | Command::Export(_) | Command::Commit(_) => false,
        Command::Ps(_) | Command::Logs(_) | Command::Inspect(_) | Command::Images(_) | Command::Info(_) => false,
        Command::Exec(_) | Command::Stop(_) | Command::Kill(_) | Command::Wait(_) => false,
        // What it starts becomes root by itself.
        Command::Bench(_) => false,
        Command::Container(_) | Command::Version(_) | Command::Completions(_) | Command::Man(_) | Command::Demo => {
            false
        }
    }
}

fn place(flag: Option<PathBuf>, variable: &str) -> Option<PathBuf> {
    flag.or_else(|| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from))
}

/// Does something to each of several objects; what fails is said, the others are done all the same.
fn each<T: AsRef<str>>(names: &[T], mut action: impl FnMut(&str) -> Result<()>) -> Result<u8> {
    each_of(names.iter().map(AsRef::as_ref), &mut action)
}

/// The same for what is no name.
fn each_of<T>(items: impl IntoIterator<Item = T>, mut action: impl FnMut(T) -> Result<()>) -> Result<u8> {
    let mut failures: Vec<Error> = Vec::new();
    for item in items {
        failures.extend(action(item).err());
    }
    match failures.len() {
        0 => Ok(0),
        1 => Err(failures.swap_remove(0)),
        _ => {
            failures.iter().for_each(output::complain);
            Ok(exit_code::FAILED)
        }
    }
}

/// Finds a container that something is to be done with.
fn find(host: &Host, name: &str) -> Result<Container> {
    let container = host.containers.find(name)?;
    if let Some(format) = container.newer_format() {
        output::note(&format!(
            "amphora: container {name} was made by a newer version (record format {format}, known here are those up to \
             {FORMAT}): what this version does not know of it is not in force"
        ));
    }
    Ok(container)
}

/// Says the id of a container that was made or started: it must not get lost.
fn say_id(container: &Container, what: &str) -> Result<u8> {
    let spec = &container.spec;
    let sentence = || format!("container {} ({}) {what}, but its id could not be printed", spec.name, spec.id);
    if !output::say_to_somebody(&spec.id).with_context(sentence)? {
        output::note(&format!("amphora: {}: nobody reads standard output", sentence()));
    }
    Ok(0)
}

/// Names what cannot be read and is therefore passed over.
fn note_unreadable(unreadable: &[Unreadable]) {
    unreadable.iter().for_each(|container| output::note(&format!("amphora: {container}")));
}

/// Asks before something is removed.
fn confirmed(what: &str, unasked: &str) -> Result<bool> {
    output::ask(&format!("This removes {what}. Go on? [y/N] "));
    if !std::io::stdin().is_terminal() {
        output::note("");
        anyhow::bail!("nobody can be asked here: use {unasked}");
    }
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Prints what a template or JSON made of values.
fn print(text: &str) -> Result<u8> {
    output::emit(text).map(|()| 0)
}
