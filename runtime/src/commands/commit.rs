//! `commit`: an image of what a container has changed.

use std::io::{self, Write};

use anyhow::Result;
use images::{
    Image, Reference,
    commit::{self, Pack, Wanted},
    pack::LeftOut,
};
use serde_json::{Map, Value};

use super::{changes, find, image::prepare, view};
use crate::{
    cli::CommitArgs,
    lifecycle::archive::{self, Changed, Frozen, Interruptible},
    output,
    records::{
        events::Event,
        host::{Host, become_root},
    },
    spec::RunSpec,
};

/// `amphora commit`.
pub(crate) fn commit(host: &Host, args: &CommitArgs) -> Result<u8> {
    let container = find(host, &args.container)?;
    let name: Option<Reference> = args.image.as_deref().map(str::parse).transpose()?;
    let changes = changes::parse(&args.change)?;
    archive::refuse_without_files(host, &container)?;
    let mut frozen = args.pause.then(|| Frozen::freeze(&container)).transpose()?;
    become_root()?;
    let writing = host.store.writing()?;
    let changed = Changed::look(host, &container)?;
    let mut left_out = LeftOut::default();
    let mut pack = |to: &mut dyn Write| -> io::Result<()> {
        left_out = changed.pack(&mut Interruptible::new(to, frozen.as_mut()))?;
        // What is left to do is done with what was read.
        drop(frozen.take());
        Ok(())
    };
    let wanted = Wanted {
        base: &changed.image,
        settings: settings(&container.spec, &changed.image),
        changes: &changes,
        created_by: container.spec.argv.join(" "),
        author: args.author.clone(),
        comment: args.message.clone(),
        name: name.as_ref(),
    };
    let pack: Option<Pack<'_>> = if changed.is_empty() { None } else { Some(&mut pack) };
    let image = commit::commit(&host.store, writing, &wanted, pack, &|image| prepare(host, image))?;
    archive::note_left_out(&left_out);
    let event = Event::of_container(&container.spec, "commit")
        .with("comment", args.message.as_deref().unwrap_or_default())
        .with("imageID", image.digest.to_string())
        .with("imageRef", name.as_ref().map_or_else(String::new, Reference::familiar));
    host.events.note(&[event]);
    output::say(image.digest.as_ref())?;
    Ok(0)
}

/// What the container was told, as an image says it; null for what its image need not say.
fn settings(spec: &RunSpec, base: &Image) -> Map<String, Value> {
    let of_base = base.config.config().clone().unwrap_or_default();
    let container = view::container_config(spec, Some(base));
    let is_usual = |name: &str, value: &Value| match name {
        "WorkingDir" => value == "/" && of_base.working_dir().is_none(),
        "StopSignal" => value == "SIGTERM" && of_base.stop_signal().is_none(),
        _ => value == "" || value.as_object().is_some_and(Map::is_empty),
    };
    let kept = ["Cmd", "Entrypoint", "Env", "Healthcheck", "Labels", "StopSignal", "User", "WorkingDir"];
    let value = |name: &str| {
        let value = container[name].clone();
        if is_usual(name, &value) { Value::Null } else { value }
    };
    kept.iter().map(|name| ((*name).to_owned(), value(name))).collect()
}
