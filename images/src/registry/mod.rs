//! The registry client: pulls an image, streaming, several layers at once (OCI distribution-spec).
//!
//! ```text
//! client: one request as policy (where to) and Pace (how slow) allow it
//! session: scheme, token, retries ─▶ manifests: index, manifest, config, in memory and bounded
//!                                ─▶ layers: bytes ─ bounded channel ─▶ ingest, one thread a layer
//!                                     all whole? ▼ lock the store, see that nothing is gone, commit all, name the image
//! ```
//!
//! **One client.** [`client`] is the only one that speaks HTTP, and there is none inside a library: `oci-client` gives
//! types. Its own client takes no policy from outside; it reads answers of any length and follows redirects anywhere.
//!
//! **The store is locked late.** While the registry is waited for, nothing of the store is held but what this process is
//! writing under `temporary/`. So what was found there at first may be gone at the end; it is then fetched too.
//!
//! **HTTP or HTTPS.** A registry on this machine (`localhost`, `127.0.0.0/8`, `::1`) is asked by HTTP first, then by
//! HTTPS; the first question carries no credentials. With [`RegistryOptions::insecure`] any other one is asked by HTTPS
//! first, whatever its certificate, then by HTTP. Everyone else is asked by HTTPS only, with the system's certificate
//! authorities.
//!
//! **Threads.** [`pull`] runs its own single-threaded tokio runtime and joins every thread it started before it
//! returns: the process has as many threads afterwards as before.

mod auth;
mod client;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod hosts;
mod layers;
mod manifests;
mod pace;
mod policy;
mod resolve;
mod session;
#[cfg(test)]
mod tests;
mod token;

pub use error::{PullError, Reason};
pub use pace::Pace;

use crate::{
    Budget, Image, Reference, Selection, Store,
    budget::Limits,
    ingest::Staged,
    ready::{Ready, Stored, clean_up},
};
use manifests::Fetched;
use session::{Session, within};
use std::{io, time::Duration};

/// How to talk to the registry.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// User and password. `None`: those that `$REGISTRY_AUTH_FILE`, or `config.json` in `$DOCKER_CONFIG` or
    /// `~/.docker`, has under `auths` for this registry, else anonymous. Credential helpers are not run.
    pub credentials: Option<(String, String)>,
    /// Plain HTTP and certificates that nobody vouches for are allowed, though not on this machine, this registry and where it leads.
    pub insecure: bool,
    /// How slow the registry may be.
    pub pace: Pace,
    /// What all of the pull may take.
    pub limits: Limits,
    /// Wait before the first of three repetitions; doubled for each further one. A `Retry-After` counts instead, up to
    /// 30 s.
    pub retry_delay: Duration,
}

impl Default for RegistryOptions {
    /// No credentials of its own, secure, the usual pace and limits, half a second before the first repetition.
    fn default() -> Self {
        let (pace, limits, retry_delay) = (Pace::default(), Limits::default(), Duration::from_millis(500));
        Self { credentials: None, insecure: false, pace, limits, retry_delay }
    }
}

/// Told by pull, shown by the CLI (bars on a terminal, lines off it). Ids are short digests: 12 hexadecimal digits.
pub trait Progress: Send + Sync {
    /// A layer begins (`total` bytes) or was there already (`Already exists`).
    fn layer(&self, id: &str, total: u64, exists: bool);
    /// So many bytes more.
    fn advance(&self, id: &str, bytes: u64);
    /// Done.
    fn done(&self, id: &str);
}

/// Pulls and names an image.
///
/// Layers of a root file system are stored and unpacked, others stored. Of an index, only the selected manifest is
/// fetched; the index itself is kept too, so that its digest stays true. Blobs that are here are not fetched again. The
/// name is given when all is here, whole, checked and `ready`; an error leaves nothing behind.
///
/// # Errors
/// [`PullError`] names the image, the registry, and what it answered.
pub fn pull(
    store: &Store,
    reference: &Reference,
    selection: &Selection,
    options: &RegistryOptions,
    progress: &dyn Progress,
    ready: Ready,
) -> Result<Image, PullError> {
    pull_checked(store, reference, selection, options, progress, ready)
        .map_err(|reason| PullError::new(reference, reason))
}

/// How often it is tried to have all of an image here at the same time, while others remove parts of it.
const ROUNDS: u32 = 4;

fn pull_checked(
    store: &Store,
    reference: &Reference,
    selection: &Selection,
    options: &RegistryOptions,
    progress: &dyn Progress,
    ready: Ready,
) -> Result<Image, Reason> {
    let runtime = runtime()?;
    let budget = Budget::new(options.limits);
    let (session, fetched) = runtime.block_on(within(&budget, async {
        let mut session = Session::connect(reference, options, &budget).await?;
        let fetched = manifests::fetch(&mut session, selection).await?;
        Ok((session, fetched))
    }))?;
    for _ in 0..ROUNDS {
        let staged = layers::fetch(&runtime, store, &session, &fetched, progress)?;
        // The registry is waited for no more. From here to the name nobody may remove what is here.
        let writing = store.writing()?;
        match keep(store, reference, selection, &fetched, staged, ready) {
            Ok(Some(image)) => return Ok(image),
            // What was found here before the lock has been removed.
            Ok(None) => {}
            Err(reason) => {
                clean_up(store, writing);
                return Err(reason);
            }
        }
    }
    clean_up(store, store.writing()?);
    Err(Reason::Gone)
}

/// Makes what was fetched visible and names it; `None` if something that was here has gone since.
fn keep(
    store: &Store,
    reference: &Reference,
    selection: &Selection,
    fetched: &Fetched,
    staged: Vec<Staged>,
    ready: Ready,
) -> Result<Option<Image>, Reason> {
    for layer in staged {
        layer.commit()?;
    }
    if !layers::all_present(store, fetched)? {
        return Ok(None);
    }
    for document in fetched.documents() {
        store.put_blob(&document.bytes, Some(&document.digest))?;
    }
    let top = fetched.top();
    let stored = Stored { media_type: &top.media_type, digest: &top.digest, size: top.bytes.len() as u64 };
    stored.make_ready(store, selection, ready)?;
    store.name(reference, stored.media_type, stored.digest, stored.size)?;
    store.resolve(&reference.to_string(), selection)?.ok_or(Reason::Gone).map(Some)
}

/// The digest that the registry has for a tag now.
///
/// # Errors
/// As [`pull`].
pub fn remote_digest(reference: &Reference, options: &RegistryOptions) -> Result<String, PullError> {
    let ask = || {
        let budget = Budget::new(options.limits);
        runtime()?.block_on(within(&budget, async {
            let mut session = Session::connect(reference, options, &budget).await?;
            manifests::digest(&mut session).await
        }))
    };
    ask().map_err(|reason| PullError::new(reference, reason))
}

fn runtime() -> Result<tokio::runtime::Runtime, Reason> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|source: io::Error| Reason::Runtime { source })
}
