//! What can go wrong between a registry and the store, as sentences for the one who typed the reference.

use crate::{
    Digest, NotReady, Reference, budget::Exceeded, ingest::IngestError, platform::SelectError, store::StoreError,
    unpack::PlanError,
};
use std::{io, time::Duration};

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
#[error("pulling {reference} from {host}: {reason}")]
pub struct PullError {
    reference: String,
    host: String,
    /// What happened.
    pub reason: Box<Reason>,
}

impl PullError {
    pub(super) fn new(reference: &Reference, reason: Reason) -> Self {
        Self { reference: reference.to_string(), host: reference.registry.clone(), reason: Box::new(reason) }
    }
}

/// What happened during a pull.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// Nobody listens there.
    #[error("{url} refuses connections ({cause}); is a registry running there, and is the port right?")]
    Refused {
        /// What was asked.
        url: String,
        /// The system's answer.
        cause: String,
    },
    /// No connection, for another reason: name, route, certificate.
    #[error("{url} cannot be reached: {cause}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// From the outermost cause to the innermost.
        cause: String,
    },
    /// The connection ended in the middle, several times.
    #[error("the connection broke {tries} times, the last time after {received} bytes of {what}: {cause}; try again")]
    CutOff {
        /// `a manifest`, a layer's digest.
        what: String,
        /// Bytes that had come.
        received: u64,
        /// How often it was tried.
        tries: u32,
        /// What the connection said.
        cause: String,
    },
    /// No status and headers in time.
    #[error("{url} had not answered after {} s when {what} was asked for; try again, or look whether it is overloaded", .after.as_secs_f32())]
    NoAnswer {
        /// What was asked for.
        what: String,
        /// Who was asked.
        url: String,
        /// How long was waited.
        after: Duration,
    },
    /// Silence, or less than the least rate.
    #[error("the registry sent {} in {} s of {what}, where at least {least} bytes are expected; try again, or look whether it is overloaded", few(*.received), .after.as_secs_f32())]
    TooSlow {
        /// What was expected.
        what: String,
        /// Bytes that came in that time.
        received: u64,
        /// Bytes that should have come.
        least: u64,
        /// How long was measured.
        after: Duration,
    },
    /// More time than all of it may take.
    #[error("{what} took longer than {} s, the most that is waited for it; try again, or look whether the registry is overloaded", .after.as_secs_f32())]
    TooLong {
        /// Which document.
        what: String,
        /// The bound.
        after: Duration,
    },
    /// All of the pull took more than one may.
    #[error("{0}")]
    Budget(#[from] Exceeded),
    /// The registry leads where nobody is to be led.
    #[error("asked for {what}, {from} leads to {to}, {cause}; ask who runs the registry")]
    Redirect {
        /// What was asked for.
        what: String,
        /// Who leads.
        from: String,
        /// Where.
        to: String,
        /// Why that is not followed, as `which is …`.
        cause: String,
    },
    /// The registry names a token server that is not to be asked.
    #[error("for a token, the registry names {realm}, {cause}; ask who runs the registry")]
    Realm {
        /// The token server, as the registry names it.
        realm: String,
        /// Why it is not asked, as `which is …`.
        cause: String,
    },
    /// A host that the registry led to does not do as it should.
    #[error(
        "{url}, where the registry leads for {what}, answers {status} (asked {tries} times){answer}; ask who runs the registry"
    )]
    Elsewhere {
        /// Who answered.
        url: String,
        /// The status.
        status: u16,
        /// What was asked for.
        what: String,
        /// How often it was asked.
        tries: u32,
        /// Its own words.
        answer: String,
    },
    /// 401.
    #[error("the registry answers 401 (unauthorized){answer}; {}", if *.had_credentials { "the user or the password is wrong".to_owned() } else { format!("it wants a user and a password, and there are none: {lack}") })]
    Unauthorized {
        /// The registry's own words, with a colon before, if it had any.
        answer: String,
        /// Whether a user and a password were sent.
        had_credentials: bool,
        /// Why there are none.
        lack: String,
    },
    /// The token server that the registry names gives none.
    #[error("the token server {url} answers {status}{answer}; {}", if *.had_credentials { "the user or the password is wrong, or may not pull this".to_owned() } else { format!("it wants a user and a password, and there are none: {lack}") })]
    NoToken {
        /// Who was asked.
        url: String,
        /// The status.
        status: u16,
        /// Its own words, with a colon before, if it had any.
        answer: String,
        /// Whether a user and a password were sent.
        had_credentials: bool,
        /// Why there are none.
        lack: String,
    },
    /// 403.
    #[error("the registry answers 403 (denied){answer}; the user may not pull this repository")]
    Denied {
        /// The registry's own words.
        answer: String,
    },
    /// 404.
    #[error("the registry answers 404 (not found) for {what}{answer}; check the name and the tag")]
    NotFound {
        /// What was asked for.
        what: String,
        /// The registry's own words.
        answer: String,
    },
    /// 429, after repetitions.
    #[error(
        "the registry answers 429 (too many requests), also after {tries} tries{answer}; wait, or log in for a higher limit"
    )]
    TooManyRequests {
        /// How often it was asked.
        tries: u32,
        /// The registry's own words.
        answer: String,
    },
    /// 5xx, after repetitions.
    #[error("the registry fails with {status}, also after {tries} tries{answer}; its own log says why")]
    Server {
        /// The status.
        status: u16,
        /// How often it was asked.
        tries: u32,
        /// The registry's own words.
        answer: String,
    },
    /// Any other status.
    #[error("the registry answers {status} for {what}{answer}; expected 200")]
    Unexpected {
        /// The status.
        status: u16,
        /// What was asked for.
        what: String,
        /// The registry's own words.
        answer: String,
    },
    /// More bytes than a document may have.
    #[error("{what} is larger than {limit} bytes, which no real one is; it was not read")]
    TooLarge {
        /// `the manifest`, `the config`.
        what: String,
        /// The bound, bytes.
        limit: u64,
    },
    /// Not the bytes that were asked for.
    #[error(
        "{what} should have digest {expected}, but its bytes have {found}; the registry is damaged or lies, and nothing was kept"
    )]
    Digest {
        /// What was fetched.
        what: &'static str,
        /// The digest asked for or announced.
        expected: String,
        /// That of what came.
        found: String,
    },
    /// Not JSON, or not the JSON that it should be.
    #[error("{what} does not make sense: {cause}")]
    Malformed {
        /// Which document.
        what: String,
        /// What was found, what was expected.
        cause: String,
    },
    /// A kind of manifest that is refused by name.
    #[error("{0}")]
    Refusal(String),
    /// Layers that are refused by name, or do not fit the config.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The index has nothing for this platform, or does not end.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// A layer's content.
    #[error("layer {digest}: {source}")]
    Layer {
        /// The layer.
        digest: Digest,
        /// What was wrong with it.
        source: Box<IngestError>,
    },
    /// The file with the credentials.
    #[error("the credentials in {path} cannot be used: {cause}")]
    Credentials {
        /// The file.
        path: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is here and cannot be made ready to run.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// The event loop.
    #[error("starting the event loop: {source}")]
    Runtime {
        /// The system's answer.
        source: io::Error,
    },
    /// Somebody removed what the image needs, again and again, or the image as soon as it was named.
    #[error("the image was pulled, and removed again by another command at the same time; try again")]
    Gone,
}

fn few(bytes: u64) -> String {
    if bytes == 0 { "nothing".to_owned() } else { format!("only {bytes} bytes") }
}
