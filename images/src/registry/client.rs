//! The one HTTP client: whatever asks a registry, a token server, or where they lead to, asks through it, so that what
//! [`policy`](super::policy) and [`Pace`] say holds for every request.
//!
//! | of each answer | bound | told as |
//! |---|---|---|
//! | connecting, with TLS | 10 s | `cannot be reached` |
//! | status and headers | [`Pace::window`] in time; some 400 KiB and 100 headers, by hyper | `had not answered`, `message head is too large` |
//! | body | [`Pace::least_rate`]; a document also [`Pace::document_time`], and its own length | `sent only`, `took longer`, `is larger` |
//! | redirects | ten, no circle | `leads` |
//!
//! Nothing is decoded: a body is taken as it comes, so that a `Content-Encoding` inflates nothing.

use super::{
    Reason, RegistryOptions,
    pace::Pace,
    policy::{MAX_REDIRECTS, Policy, same_origin, shown},
    resolve::{Names, Whose},
};
use bytes::Bytes;
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{self, HeaderMap, HeaderValue},
    redirect,
};
use std::{cell::OnceCell, error::Error, io, sync::Once, time::Duration};
use tokio::time::{Instant, timeout};

const USER_AGENT: &str = concat!("amphora/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer, or no more of it.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection broke: the same request may succeed a moment later.
    Broken {
        /// What the connection said.
        cause: String,
    },
    /// It will not get better.
    Final(Reason),
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self::Final(reason)
    }
}

impl Failure {
    /// What to tell when no further try is made.
    pub(super) fn into_reason(self, what: &str, received: u64, tries: u32) -> Reason {
        match self {
            Self::Broken { cause } => Reason::CutOff { what: what.to_owned(), received, tries, cause },
            Self::Final(reason) => reason,
        }
    }
}

/// One request.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    /// Goes to this URL's scheme, host and port alone.
    pub(super) authorization: Option<HeaderValue>,
    /// For messages: `the manifest`, `layer sha256:…`.
    pub(super) what: &'a str,
    /// How long it may take in all, with redirects and repetitions; `None` for layers, whose size nobody bounds.
    pub(super) time: Option<Duration>,
    /// Since when that counts.
    pub(super) begun: Instant,
}

impl Ask<'_> {
    fn deadline(&self) -> Option<(Instant, Duration)> {
        self.time.map(|time| (self.begun + time, time))
    }
}

/// An HTTP client that asks as the policy says.
pub(super) struct Client<'a> {
    /// For the registry itself, and from a registry on this machine to others on it.
    own: reqwest::Client,
    /// For where it leads, without a proxy; made when it is needed, as reading the certificate authorities takes
    /// milliseconds.
    elsewhere: OnceCell<reqwest::Client>,
    /// For all that a proxy is asked for: it looks up no name but the proxies'.
    by_proxy: OnceCell<reqwest::Client>,
    names: Names,
    pub(super) policy: Policy,
    pace: &'a Pace,
}

impl<'a> Client<'a> {
    /// For a registry, given by scheme, host and port. What was looked up is shared with others by `names`.
    pub(super) fn new(registry: &Url, options: &'a RegistryOptions, names: &Names) -> Result<Self, Reason> {
        install_crypto();
        let policy = Policy::new(registry.clone(), options.insecure);
        let own = build(&policy, names, &Whose::Own(policy.nearest()), registry)?;
        let (elsewhere, by_proxy) = (OnceCell::new(), OnceCell::new());
        Ok(Self { own, elsewhere, by_proxy, names: names.clone(), policy, pace: &options.pace })
    }

    /// The client for a URL.
    fn client(&self, url: &Url) -> Result<&reqwest::Client, Reason> {
        let (made, whose) = match url {
            _ if self.policy.is_proxied(url) => (&self.by_proxy, Whose::Proxies),
            _ if self.policy.is_own(url) || Policy::is_here(url) => return Ok(&self.own),
            _ => (&self.elsewhere, Whose::Elsewhere(self.policy.nearest())),
        };
        match made.get() {
            Some(client) => Ok(client),
            None => {
                let client = build(&self.policy, &self.names, &whose, url)?;
                Ok(made.get_or_init(|| client))
            }
        }
    }

    /// Asks, and follows where it is led.
    pub(super) async fn send(&self, ask: &Ask<'_>) -> Result<Answer<'a>, Failure> {
        let mut visited = vec![ask.url.clone()];
        let mut authorized = true;
        loop {
            let url = &visited[visited.len() - 1];
            authorized &= same_origin(&ask.url, url);
            let response = self.send_once(ask, url, authorized).await?;
            let Some(next) = next(url, &response, ask.what)? else {
                let own = self.policy.is_own(url) && visited.iter().all(|url| self.policy.is_own(url));
                let gauge = Gauge::new(self.pace, ask);
                return Ok(Answer { url: url.clone(), own, response, gauge });
            };
            self.may_follow(&visited, &next).map_err(|cause| {
                let (from, to) = (shown(&visited[visited.len() - 1]), shown(&next));
                Reason::Redirect { what: ask.what.to_owned(), from, to, cause }
            })?;
            visited.push(next);
        }
    }

    /// Asks one URL once, led nowhere: whether anybody answers there, and what.
    pub(super) async fn send_once(&self, ask: &Ask<'_>, url: &Url, authorized: bool) -> Result<Response, Failure> {
        let mut headers = ask.headers.clone();
        if let Some(authorization) = ask.authorization.as_ref().filter(|_| authorized) {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        let sent = self.client(url)?.request(ask.method.clone(), url.clone()).headers(headers).send();
        let patience = self.pace.window.min(time_left(ask.deadline(), ask.what)?);
        let response = match timeout(patience, sent).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(explain(url, ask.what, &error)),
            Err(_) => {
                time_left(ask.deadline(), ask.what)?;
                return Err(
                    Reason::NoAnswer { what: ask.what.to_owned(), url: shown(url), after: self.pace.window }.into()
                );
            }
        };
        if let Some(address) = response.remote_addr().filter(|_| self.policy.is_own(url)) {
            self.policy.seen(address);
        }
        Ok(response)
    }

    fn may_follow(&self, visited: &[Url], next: &Url) -> Result<(), String> {
        self.policy.may_lead(&visited[visited.len() - 1], next)?;
        if visited.contains(next) {
            return Err("where the request has been before: the redirects go in a circle".to_owned());
        }
        if visited.len() > MAX_REDIRECTS {
            return Err(format!("which is one redirect more than {MAX_REDIRECTS}, the most that are followed"));
        }
        Ok(())
    }
}

/// Where a redirect leads.
fn next(url: &Url, response: &Response, what: &str) -> Result<Option<Url>, Reason> {
    use StatusCode as Is;
    let redirects = [Is::MOVED_PERMANENTLY, Is::FOUND, Is::SEE_OTHER, Is::TEMPORARY_REDIRECT, Is::PERMANENT_REDIRECT];
    if !redirects.contains(&response.status()) {
        return Ok(None);
    }
    let told = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let mut to = told.and_then(|told| url.join(told).ok()).ok_or_else(|| Reason::Malformed {
        what: format!("the redirect of {} for {what}", shown(url)),
        cause: "it has no Location that is a URL".to_owned(),
    })?;
    to.set_fragment(None);
    Ok(Some(to))
}

/// An answer whose body has yet to come.
pub(super) struct Answer<'a> {
    /// Who answered, after redirects.
    pub(super) url: Url,
    /// The registry itself answered, having led nowhere: its challenges count.
    pub(super) own: bool,
    response: Response,
    gauge: Gauge<'a>,
}

impl Answer<'_> {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    pub(super) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    pub(super) fn content_length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// More of the body; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        let begun = Instant::now();
        loop {
            let patience = self.gauge.patience(begun)?;
            // Dropped in the middle, the read has taken nothing.
            let Ok(read) = timeout(patience, self.response.chunk()).await else {
                self.gauge.waited(begun)?;
                continue;
            };
            let chunk = read.map_err(|error| Failure::Broken { cause: causes(&error) })?;
            self.gauge.came(begun, chunk.as_ref().map_or(0, Bytes::len));
            return Ok(chunk);
        }
    }
}

/// Measures how fast a body comes.
struct Gauge<'a> {
    pace: &'a Pace,
    what: String,
    /// When all of it must have come.
    deadline: Option<(Instant, Duration)>,
    /// Waited in this window so far, and what it has brought.
    waited: Duration,
    bytes: u64,
}

impl<'a> Gauge<'a> {
    fn new(pace: &'a Pace, ask: &Ask<'_>) -> Self {
        Self { pace, what: ask.what.to_owned(), deadline: ask.deadline(), waited: Duration::ZERO, bytes: 0 }
    }

    /// How long to wait for the next bytes, before the window or the request is over.
    fn patience(&self, begun: Instant) -> Result<Duration, Failure> {
        let window = self.pace.window.saturating_sub(self.waited + begun.elapsed());
        Ok(window.min(time_left(self.deadline, &self.what)?))
    }

    /// Nothing has come since `begun`: too little, if the window is over.
    fn waited(&self, begun: Instant) -> Result<(), Failure> {
        if self.waited + begun.elapsed() < self.pace.window {
            return Ok(());
        }
        let (received, least) = (self.bytes, self.pace.least_bytes());
        Err(Reason::TooSlow { what: self.what.clone(), received, least, after: self.pace.window }.into())
    }

    fn came(&mut self, begun: Instant, bytes: usize) {
        self.waited += begun.elapsed();
        self.bytes += bytes as u64;
        if self.bytes >= self.pace.least_bytes() {
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
    }
}

/// How long a request still has, with its deadline and the time that it had in all.
fn time_left(deadline: Option<(Instant, Duration)>, what: &str) -> Result<Duration, Reason> {
    let Some((deadline, after)) = deadline else { return Ok(Duration::MAX) };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(Reason::TooLong { what: what.to_owned(), after }) } else { Ok(left) }
}

/// A client for URLs like this one.
fn build(policy: &Policy, names: &Names, whose: &Whose, url: &Url) -> Result<reqwest::Client, Reason> {
    let direct = !policy.is_proxied(url);
    let builder = || {
        let builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(redirect::Policy::none())
            .referer(false)
            .dns_resolver(names.resolver(whose.clone()))
            .tls_danger_accept_invalid_certs(policy.insecure());
        if direct { builder.no_proxy() } else { builder }
    };
    let built = match builder().build() {
        // A machine without certificate authorities can still use plain HTTP.
        Err(_) if url.scheme() == "http" => builder().tls_certs_only([]).build(),
        other => other,
    };
    built.map_err(|error| Reason::Unreachable { url: shown(url), cause: causes(&error) })
}

/// TLS needs a provider of cryptography, once in a process. Another one that is there already is as good.
fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

/// Why a request was not answered.
fn explain(url: &Url, what: &str, error: &reqwest::Error) -> Failure {
    let hyper = chain(error).find_map(|cause| cause.downcast_ref::<hyper::Error>());
    let (url, cause) = (shown(url), causes(error));
    if is_refused(error) {
        Reason::Refused { url, cause }.into()
    } else if error.is_connect() || error.is_builder() {
        Reason::Unreachable { url, cause }.into()
    } else if hyper.is_some_and(hyper::Error::is_parse) {
        // Also of a head without end: "message head is too large".
        let cause = format!("it is no HTTP that can be read ({cause}); is this the port of a registry?");
        Reason::Malformed { what: format!("the answer of {url} for {what}"), cause }.into()
    } else {
        Failure::Broken { cause }
    }
}

fn is_refused(error: &reqwest::Error) -> bool {
    chain(error).any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    })
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// The innermost causes: the outer ones only repeat the URL.
fn causes(error: &(dyn Error + 'static)) -> String {
    let all = chain(error).map(ToString::to_string).collect::<Vec<_>>();
    let inner = if all.len() > 1 { &all[1..] } else { &all[..] };
    let mut distinct: Vec<&str> = Vec::new();
    for text in inner {
        if !distinct.iter().any(|seen| seen.contains(text.as_str())) {
            distinct.push(text);
        }
    }
    distinct.join(": ")
}
