//! The registry client: pulls an image, streaming, several layers at once (OCI distribution-spec).
//!
//! ```text
//! session: scheme, token, retries ─▶ manifests: index, manifest, config, in memory and bounded
//!                                ─▶ layers: bytes ─ bounded channel ─▶ unpack::ingest, one thread a layer
//!                                                                          all right? ▼ commit all, then name the image
//! ```
//!
//! The `oci-client` crate answers the registry's challenge (basic, or a token from its token server). The bodies are
//! read here, with the HTTP client that it uses too, because it holds manifests of any size in memory and does not pass
//! `Retry-After` on.
//!
//! **HTTP or HTTPS.** A registry on this machine (`localhost`, `127.0.0.0/8`, `::1`) is asked by HTTP first, then by
//! HTTPS; the first question carries no credentials. With [`RegistryOptions::insecure`] any other one is asked by HTTPS
//! first, whatever its certificate, then by HTTP. Everyone else is asked by HTTPS only, with the system's certificate
//! authorities.
//!
//! **Threads.** [`pull`] runs its own single-threaded tokio runtime and joins every thread it started before it
//! returns: the process has as many threads afterwards as before.

mod auth;
mod error;
mod layers;
mod manifests;
mod session;
#[cfg(test)]
mod tests;

pub use error::{PullError, Reason};

use crate::{
    Image, Reference, Selection, Store,
    ready::{Ready, Stored, clean_up},
};
use session::Session;
use std::{io, time::Duration};

/// How to talk to the registry.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// User and password. `None`: those that `$REGISTRY_AUTH_FILE`, or `config.json` in `$DOCKER_CONFIG` or
    /// `~/.docker`, has under `auths` for this registry, else anonymous. Credential helpers are not run.
    pub credentials: Option<(String, String)>,
    /// Plain HTTP and certificates that nobody vouches for are allowed, though not on this machine
    /// (`--tls-verify=false`).
    pub insecure: bool,
    /// How long the registry may say nothing before the connection counts as broken.
    pub idle_timeout: Duration,
    /// Wait before the first of three repetitions; doubled for each further one. A `Retry-After` counts instead, up to
    /// 30 s.
    pub retry_delay: Duration,
}

impl Default for RegistryOptions {
    /// No credentials of its own, secure, 30 s of silence, half a second before the first repetition.
    fn default() -> Self {
        let (idle_timeout, retry_delay) = (Duration::from_secs(30), Duration::from_millis(500));
        Self { credentials: None, insecure: false, idle_timeout, retry_delay }
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
    let pulled = store.writing().map_err(Reason::from).and_then(|writing| {
        // Held to the end: what is found already there must not be removed before the new name holds it.
        let pulled = pull_checked(store, reference, selection, options, progress, ready);
        if pulled.is_err() {
            clean_up(store, writing);
        }
        pulled
    });
    pulled.map_err(|reason| PullError::new(reference, reason))
}

fn pull_checked(
    store: &Store,
    reference: &Reference,
    selection: &Selection,
    options: &RegistryOptions,
    progress: &dyn Progress,
    ready: Ready,
) -> Result<Image, Reason> {
    let runtime = runtime()?;
    let (session, fetched) = runtime.block_on(async {
        let mut session = Session::connect(reference, options).await?;
        let fetched = manifests::fetch(&mut session, selection).await?;
        Ok::<_, Reason>((session, fetched))
    })?;
    let staged = layers::fetch(&runtime, store, &session, &fetched, progress)?;
    for layer in staged {
        layer.commit()?;
    }
    for document in fetched.documents() {
        store.put_blob(&document.bytes, Some(&document.digest))?;
    }
    let top = fetched.top();
    let stored = Stored { media_type: &top.media_type, digest: &top.digest, size: top.bytes.len() as u64 };
    stored.make_ready(store, selection, ready)?;
    store.name(reference, stored.media_type, stored.digest, stored.size)?;
    store.resolve(&reference.to_string(), selection)?.ok_or(Reason::Gone)
}

/// The digest that the registry has for a tag now, for `--pull=newer`.
///
/// # Errors
/// As [`pull`].
pub fn remote_digest(reference: &Reference, options: &RegistryOptions) -> Result<String, PullError> {
    let ask = || {
        runtime()?.block_on(async {
            let mut session = Session::connect(reference, options).await?;
            manifests::digest(&mut session).await
        })
    };
    ask().map_err(|reason| PullError::new(reference, reason))
}

fn runtime() -> Result<tokio::runtime::Runtime, Reason> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|source: io::Error| Reason::Runtime { source })
}
