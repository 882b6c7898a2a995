//! Commands on images, and finding the image for `run`.

use std::{
    borrow::Cow,
    io::{BufRead, IsTerminal},
    path::Path,
};

use anyhow::{Context, Result, bail};
use images::{
    Image, Reference, Selection,
    archive::{self, Loaded},
    import::{self, Changes},
    platform::{Platform, Prefer},
    registry::{self, RegistryOptions},
    store::{StoreError, Writing},
};

use super::{changes, each_of, print, view};
use crate::{
    cli::{Filters, ImagesArgs, ImportArgs, LoadArgs, PreferChoice, PullArgs, PullPolicy, RmiArgs, TagArgs, is_like},
    kinds::wasm,
    output::{
        self, Column,
        progress::{PullProgress, Silent},
    },
    records::{
        events::{Event, Subject},
        host::Host,
    },
    spec::Workload,
};

const COLUMNS: [Column; 6] = [
    Column { header: "REPOSITORY", field: "Repository" },
    Column { header: "TAG", field: "Tag" },
    Column { header: "KIND", field: "Kind" },
    Column { header: "IMAGE ID", field: "ID" },
    Column { header: "CREATED", field: "CreatedSince" },
    Column { header: "SIZE", field: "Size" },
];

/// What a template may name besides.
const MORE_COLUMNS: [Column; 6] = [
    Column { header: "DIGEST", field: "Digest" },
    Column { header: "CREATED AT", field: "CreatedAt" },
    Column { header: "SHARED SIZE", field: "SharedSize" },
    Column { header: "UNIQUE SIZE", field: "UniqueSize" },
    Column { header: "SIZE", field: "VirtualSize" },
    Column { header: "CONTAINERS", field: "Containers" },
];

/// `--platform` and `--prefer`.
pub(crate) fn selection(platform: Option<&str>, prefer: PreferChoice) -> Result<Selection> {
    let platform = platform.map(|text| text.parse::<Platform>()).transpose()?;
    let prefer = match prefer {
        PreferChoice::Linux => Prefer::Linux,
        PreferChoice::Wasm => Prefer::Wasm,
    };
    Ok(Selection { platform, prefer })
}

/// The image for `run` and `create`: from the store, or from its registry as the policy says.
///
/// Nobody removes it while the second value lives. While a registry is asked, nothing of the store is held.
pub(crate) fn find_or_pull(
    host: &Host,
    name: &str,
    selection: &Selection,
    policy: PullPolicy,
    quiet: bool,
) -> Result<(Image, Writing)> {
    let found = match policy {
        PullPolicy::Always => None,
        PullPolicy::Missing | PullPolicy::Never | PullPolicy::Newer => find(host, name, selection)?,
    };
    match (found, policy) {
        (Some((image, writing)), PullPolicy::Newer) => {
            drop(writing);
            if is_current(host, name, &image)?
                && let Some(found) = find(host, name, selection)?
            {
                return Ok(found);
            }
        }
        (Some(found), _) => return Ok(found),
        (None, PullPolicy::Never) => {
            bail!("image {name} is not in the store, and --pull=never was given; amphora pull {name}")
        }
        (None, _) if quiet => {}
        (None, _) => output::note(&format!("Unable to find image '{name}' locally")),
    }
    pull_and_find(host, name, selection, quiet)
}

fn find(host: &Host, name: &str, selection: &Selection) -> Result<Option<(Image, Writing)>, StoreError> {
    let writing = host.store.writing()?;
    Ok(host.store.resolve(name, selection)?.map(|image| (image, writing)))
}

/// Apart from `find_or_pull`, as what a pull needs of the stack is much, and a start without one would touch it all.
#[cold]
#[inline(never)]
fn pull_and_find(host: &Host, name: &str, selection: &Selection, quiet: bool) -> Result<(Image, Writing)> {
    let reference: Reference = name.parse()?;
    fetch(host, &reference, selection, &RegistryOptions::default(), quiet)?;
    find(host, name, selection)?
        .with_context(|| format!("image {name} was pulled, and removed again by another command; try again"))
}

fn is_current(host: &Host, name: &str, image: &Image) -> Result<bool> {
    let reference: Reference = name.parse()?;
    let remote = registry::remote_digest(&reference, &RegistryOptions::default())?;
    Ok(remote == image.digest.to_string() || host.store.entry_digest(name)?.is_some_and(|digest| digest == remote))
}

/// Pulls, and prepares what was pulled, so that `run` need not.
fn fetch(
    host: &Host,
    reference: &Reference,
    selection: &Selection,
    options: &RegistryOptions,
    quiet: bool,
) -> Result<Image> {
    let ready = |image: &Image| prepare(host, image);
    if quiet {
        Ok(registry::pull(&host.store, reference, selection, options, &Silent, &ready)?)
    } else {
        Ok(registry::pull(&host.store, reference, selection, options, &PullProgress::new(), &ready)?)
    }
}

/// What is done before an image gets its name. One that is of no kind that runs is stored all the same.
pub(super) fn prepare(host: &Host, image: &Image) -> Result<(), String> {
    let prepare = |(image, workload): &(Cow<'_, Image>, Workload)| workload.behaviour().prepare(host, image);
    Workload::all_of(image).iter().try_for_each(prepare).map_err(|error| format!("{error:#}"))
}

/// `amphora pull`.
pub(crate) fn pull(host: &Host, args: &PullArgs) -> Result<u8> {
    let reference: Reference = args.image.parse()?;
    let options = RegistryOptions {
        credentials: args.creds.as_deref().map(credentials).transpose()?,
        insecure: !args.tls_verify,
        ..RegistryOptions::default()
    };
    let image = fetch(host, &reference, &selection(args.platform.as_deref(), args.prefer)?, &options, args.quiet)?;
    happened(host, "pull", &reference.familiar(), &reference.familiar_repository());
    if args.quiet {
        output::say(&reference.to_string())?;
    } else {
        let kind = image.classification.class.kind();
        output::say(&format!("Digest: {}\nKind: {kind}\n{reference}", image.digest))?;
    }
    Ok(0)
}

/// `USER:PASSWORD`, or only `USER`: then the password is read from standard input, so that it is in no process list.
fn credentials(text: &str) -> Result<(String, String)> {
    if let Some((user, password)) = text.split_once(':') {
        return Ok((user.to_owned(), password.to_owned()));
    }
    if std::io::stdin().is_terminal() {
        output::ask("Password (shown as you type): ");
    }
    let mut password = String::new();
    std::io::stdin().lock().read_line(&mut password).context("cannot read the password")?;
    Ok((text.to_owned(), password.trim_end_matches(['\r', '\n']).to_owned()))
}

/// `amphora load`.
pub(crate) fn load(host: &Host, args: &LoadArgs) -> Result<u8> {
    let path = args.input.as_deref().unwrap_or(Path::new("-"));
    if path == Path::new("-") && std::io::stdin().is_terminal() {
        bail!("load reads an archive: name it with -i FILE, or feed it to standard input");
    }
    let loaded = archive::load(&host.store, path, &|image| prepare(host, image))?;
    each_of(loaded, |loaded| {
        let loaded = loaded?;
        // Beside the list, which scripts read; also with -q, as a name that moves or is not given is no progress.
        match &loaded {
            Loaded::Moved { reference, from } => {
                output::note(&format!("{} stood for {from} until now", reference.familiar()));
            }
            Loaded::Ignored { name, reason } => {
                output::note(&format!("the name `{name}` of the archive is not given: {reason}"));
            }
            Loaded::Named(_) | Loaded::Unnamed(_) => {}
        }
        if let Loaded::Named(reference) | Loaded::Moved { reference, .. } = &loaded {
            happened(host, "load", &reference.familiar(), &reference.familiar());
        }
        match said(&loaded) {
            Some(line) => output::say(&line),
            None => Ok(()),
        }
    })
}

fn said(loaded: &Loaded) -> Option<String> {
    match loaded {
        Loaded::Named(reference) | Loaded::Moved { reference, .. } => {
            Some(format!("Loaded image: {}", reference.familiar()))
        }
        Loaded::Unnamed(digest) => Some(format!("Loaded image ID: {digest}")),
        Loaded::Ignored { .. } => None,
    }
}

/// `amphora import`.
pub(crate) fn import(host: &Host, args: &ImportArgs) -> Result<u8> {
    let name: Reference = args.name.parse()?;
    let changes = Changes { message: args.message.clone(), ..changes::parse(&args.change)? };
    let image = import::import(&host.store, &args.file, &name, &changes, &|image| prepare(host, image))?;
    happened(host, "import", image.digest.as_ref(), image.digest.as_ref());
    output::say(image.digest.as_ref())?;
    Ok(0)
}

/// `amphora tag`.
pub(crate) fn tag(host: &Host, args: &TagArgs) -> Result<u8> {
    let target: Reference = args.target.parse()?;
    host.store.tag(&args.source, &target)?;
    let tagged = host.store.resolve(&args.target, &Selection::default())?;
    happened(host, "tag", &tagged.map_or_else(String::new, |image| image.digest.to_string()), &target.familiar());
    Ok(0)
}

/// `amphora rmi`.
pub(crate) fn rmi(host: &Host, args: &RmiArgs) -> Result<u8> {
    let removed = host.store.remove_each(&args.images, args.force, &|| host.images_used())?;
    let code = each_of(removed, |lines| say_removed(host, &lines?));
    wasm::check_compiled(host, true)?;
    code
}

/// Tells that something happened to an image.
pub(super) fn happened(host: &Host, action: &str, id: &str, name: &str) {
    host.events.note(&[Event::new(Subject::Image, action, id).with("name", name)]);
}

/// Says what the store did, a line for each name and each image that is no more.
pub(super) fn say_removed(host: &Host, lines: &[String]) -> Result<()> {
    for line in lines {
        if let Some(name) = line.strip_prefix("Untagged: ") {
            happened(host, "untag", name, name);
        } else if let Some(digest) = line.strip_prefix("Deleted: ") {
            happened(host, "delete", digest, digest);
        }
        output::say(line)?;
    }
    Ok(())
}

/// `amphora images`.
pub(crate) fn images(host: &Host, args: &ImagesArgs) -> Result<u8> {
    let filters = ImageFilters::parse(host, &args.filter)?;
    let wanted = args.reference.as_deref();
    let all = host.store.listed()?;
    let mut shown: Vec<&Image> = all.iter().filter_map(|entry| entry.as_ref().ok()).collect();
    shown.retain(|image| filters.hold(image) && wanted.is_none_or(|wanted| is_named(image, wanted)));
    shown.sort_by_key(|image| std::cmp::Reverse(created(image)));
    let mut rows: Vec<output::Row> = shown.iter().map(|image| view::image_row(host, image, args.no_trunc)).collect();
    let damaged = all.iter().filter_map(|entry| entry.as_ref().err());
    if args.filter.is_empty() && wanted.is_none() {
        rows.extend(damaged.map(|damaged| view::damaged_row(damaged).into()));
    } else {
        // Whether it would be shown cannot be told.
        damaged.for_each(|entry| output::note(&format!("amphora: not looked at: {entry}")));
    }
    let mut columns = COLUMNS.to_vec();
    if args.digests {
        columns.insert(2, MORE_COLUMNS[0]);
    }
    let format = if args.quiet { Some("{{.ID}}") } else { args.format.as_deref() };
    let headers = [COLUMNS.as_slice(), &MORE_COLUMNS].concat();
    print(&output::list(format, &columns, &headers, &rows)?)
}

/// Nanoseconds since the epoch; of one that does not say it, the beginning of time.
fn created(image: &Image) -> i64 {
    image.created.as_deref().and_then(output::parse_rfc3339).unwrap_or(i64::MIN)
}

/// `REPOSITORY`, with any tag, `REPOSITORY:TAG`, or a pattern of either.
fn is_named(image: &Image, wanted: &str) -> bool {
    let Some(name) = &image.reference else { return false };
    if is_like(wanted, &name.familiar_repository()) || is_like(wanted, &name.familiar()) {
        return true;
    }
    let Ok(wanted_reference) = wanted.parse::<Reference>() else { return false };
    let any_tag = wanted_reference.familiar_repository() == wanted;
    name.familiar_repository() == wanted_reference.familiar_repository()
        && (any_tag || name.tag == wanted_reference.tag)
}

/// `--filter` of `images`, understood.
struct ImageFilters {
    filters: Filters,
    before: Option<i64>,
    since: Option<i64>,
}

impl ImageFilters {
    fn parse(host: &Host, texts: &[String]) -> Result<Self> {
        let known = ["before", "dangling", "kind", "label", "reference", "since", "until"];
        let filters = Filters::parse(texts, &known)?;
        let of_image = |name: &str| match host.store.resolve(name, &Selection::default())? {
            Some(image) => Ok(created(&image)),
            None => bail!("no such image: {name} (amphora images lists them)"),
        };
        let now = output::now_nanos();
        let mut before: Vec<i64> = filters.values("before").map(of_image).collect::<Result<_>>()?;
        for text in filters.values("until") {
            before.push(output::parse_moment(text, now)?);
        }
        let since: Vec<i64> = filters.values("since").map(of_image).collect::<Result<_>>()?;
        if let Some(odd) = filters.values("dangling").find(|value| !["true", "false", "1", "0"].contains(value)) {
            bail!("invalid filter `dangling={odd}`: expected true or false");
        }
        Ok(Self { before: before.into_iter().min(), since: since.into_iter().max(), filters })
    }

    fn hold(&self, image: &Image) -> bool {
        let labels = image.config.config().as_ref().and_then(|config| config.labels().as_ref());
        let is_asked = |wanted: &str| matches!(wanted, "true" | "1");
        self.before.is_none_or(|before| created(image) < before)
            && self.since.is_none_or(|since| created(image) > since)
            && self.filters.any("reference", |name| is_named(image, name))
            && self.filters.any("kind", |kind| image.classification.class.kind() == kind)
            && self.filters.any("dangling", |wanted| image.reference.is_none() == is_asked(wanted))
            && self.filters.labels(|name| labels.and_then(|labels| labels.get(name)).cloned())
    }
}
