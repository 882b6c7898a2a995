//! One registry, one repository: which scheme, which token, and requests that are repeated when that may help.

use super::{
    Reason, RegistryOptions, auth,
    client::{Answer, Ask, Client, Failure},
    policy::{Policy, shown},
    resolve::Names,
    token::{self, Challenge, TOKEN_BYTES},
};
use crate::{
    Budget, Reference,
    budget::{Exceeded, Hold},
};
use reqwest::{
    Method, StatusCode, Url,
    header::{self, HeaderMap, HeaderValue},
};
use std::{cell::RefCell, time::Duration};
use tokio::time::{Instant, timeout};

/// The first request and three repetitions.
pub(super) const TRIES: u32 = 4;
/// The longest `Retry-After` that is obeyed.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How much of an error's body is read: enough for the registry's own words.
const ANSWER_BYTES: usize = 16 << 10;

/// What is asked for.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    /// Beneath the repository: `manifests/latest`.
    pub(super) path: &'a str,
    pub(super) accept: &'static str,
    /// Skip so many bytes of the body.
    pub(super) offset: u64,
    /// For messages: `the manifest`, `layer sha256:…`.
    pub(super) what: &'a str,
    /// How long it may take in all.
    pub(super) time: Option<Duration>,
}

/// A small body, whole, and charged to the budget of the pull.
pub(super) struct Document {
    pub(super) headers: HeaderMap,
    pub(super) bytes: Vec<u8>,
    pub(super) hold: Hold,
}

/// A conversation with one registry about one repository.
pub(super) struct Session<'a> {
    pub(super) reference: &'a Reference,
    pub(super) budget: &'a Budget,
    options: &'a RegistryOptions,
    credentials: auth::Known,
    /// Scheme, host, port.
    registry: Url,
    client: Client<'a>,
    authorization: RefCell<Option<HeaderValue>>,
}

impl<'a> Session<'a> {
    /// Finds out by which scheme the registry answers.
    pub(super) async fn connect(
        reference: &'a Reference,
        options: &'a RegistryOptions,
        budget: &'a Budget,
    ) -> Result<Self, Reason> {
        let credentials = auth::credentials(reference, options)?;
        let candidates = candidates(reference, options.insecure)?;
        let (choice, mut first_error, mut wrong_scheme) = (candidates.len() > 1, None, None);
        let names = Names::default();
        for registry in candidates {
            let client = Client::new(&registry, options, &names)?;
            let plain = registry.scheme() == "http";
            let (credentials, authorization) = (credentials.clone(), RefCell::new(None));
            let session = Self { reference, budget, options, credentials, registry, client, authorization };
            match session.answers(choice).await {
                Ok(()) => return Ok(session),
                // Worth telling only if nothing else is wrong: the other scheme's error says more.
                Err(error @ (Reason::Unreachable { .. } | Reason::Malformed { .. })) if plain => {
                    wrong_scheme = Some(error);
                }
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.or(wrong_scheme).unwrap_or(Reason::Gone))
    }

    /// Sends a request until it is answered well, or badly for good.
    pub(super) async fn get(&self, request: &Request<'_>) -> Result<Answer<'a>, Reason> {
        self.get_since(request, Instant::now()).await
    }

    async fn get_since(&self, request: &Request<'_>, begun: Instant) -> Result<Answer<'a>, Reason> {
        let mut authorized = false;
        loop {
            let (answer, tries) = self.repeat(&|| self.ask(request, begun)).await?;
            match answer.status() {
                StatusCode::OK => return Ok(answer),
                StatusCode::PARTIAL_CONTENT if request.offset > 0 => {
                    check_range(&answer, request)?;
                    return Ok(answer);
                }
                StatusCode::UNAUTHORIZED if !authorized && answer.own => {
                    authorized = true;
                    self.authorize(answer).await?;
                }
                _ => return Err(self.answered(request, answer, tries).await),
            }
        }
    }

    /// Fetches a document of at most `limit` bytes.
    pub(super) async fn read(&self, request: &Request<'_>, limit: u64) -> Result<Document, Reason> {
        let (mut tries, begun) = (0, Instant::now());
        loop {
            tries += 1;
            let answer = self.get_since(request, begun).await?;
            if let Some(encoding) = answer.header(header::CONTENT_ENCODING).filter(|&name| name != "identity") {
                let cause = format!("it comes in Content-Encoding `{encoding}`, which was not asked for");
                return Err(Reason::Malformed { what: request.what.to_owned(), cause });
            }
            let headers = answer.headers().clone();
            let mut bytes = Vec::new();
            match body(answer, request.what, limit, &mut bytes).await {
                Ok(()) => {
                    let hold = self.budget.document(&bytes, "its indexes, manifests and config")?;
                    return Ok(Document { headers, bytes, hold });
                }
                Err(Failure::Broken { .. }) if tries < TRIES => self.wait(tries, None).await,
                Err(failure) => return Err(failure.into_reason(request.what, bytes.len() as u64, tries)),
            }
        }
    }

    /// How long a document may take.
    pub(super) fn document_time(&self) -> Duration {
        self.options.pace.document_time
    }

    /// Waits before the next try.
    pub(super) async fn wait(&self, tries: u32, answer: Option<&Answer<'_>>) {
        let asked = answer.and_then(retry_after).map(|asked| asked.min(LONGEST_WAIT));
        let own = self.options.retry_delay * 2_u32.saturating_pow(tries.saturating_sub(1));
        tokio::time::sleep(asked.unwrap_or(own)).await;
    }

    /// Where there is a choice of schemes, asks whether this is the right one.
    async fn answers(&self, ask: bool) -> Result<(), Reason> {
        if !ask {
            return Ok(());
        }
        let ask = self.question(Method::GET, self.url("/v2/")?, "/v2/");
        let unreachable = |cause: &str| Reason::Unreachable { url: shown(&ask.url), cause: cause.to_owned() };
        let response = match self.client.send_once(&ask, &ask.url, false).await {
            Ok(response) => response,
            Err(Failure::Broken { cause }) => return Err(unreachable(&cause)),
            Err(Failure::Final(reason)) => return Err(reason),
        };
        let location = response.headers().get(header::LOCATION).and_then(|to| ask.url.join(to.to_str().ok()?).ok());
        let leads_to_tls = response.status().is_redirection()
            && location.is_some_and(|to| to.scheme() == "https" && to.host_str() == ask.url.host_str());
        // What TLS servers say to those who do not speak TLS.
        let refuses = response.status() == StatusCode::BAD_REQUEST || leads_to_tls;
        if self.registry.scheme() == "http" && refuses {
            return Err(unreachable(&format!("it answers {} to plain HTTP", response.status().as_u16())));
        }
        Ok(())
    }

    fn url(&self, path: &str) -> Result<Url, Reason> {
        self.registry.join(path).map_err(|error| Reason::Malformed {
            what: format!("the path {path} at {}", self.registry),
            cause: error.to_string(),
        })
    }

    fn question<'b>(&self, method: Method, url: Url, what: &'b str) -> Ask<'b> {
        let time = Some(self.document_time());
        Ask { method, url, headers: HeaderMap::new(), authorization: None, what, time, begun: Instant::now() }
    }

    fn ask<'b>(&self, request: &Request<'b>, begun: Instant) -> Result<Ask<'b>, Reason> {
        let url = self.url(&format!("/v2/{}/{}", self.reference.repository, request.path))?;
        let mut ask = self.question(request.method.clone(), url, request.what);
        ask.headers.insert(header::ACCEPT, HeaderValue::from_static(request.accept));
        if let Some(range) =
            HeaderValue::from_str(&format!("bytes={}-", request.offset)).ok().filter(|_| request.offset > 0)
        {
            ask.headers.insert(header::RANGE, range);
        }
        ask.authorization = self.authorization.borrow().clone();
        (ask.time, ask.begun) = (request.time, begun);
        Ok(ask)
    }

    /// Sends what is to be asked until it is answered; how often that was.
    async fn repeat<'b>(&self, ask: &dyn Fn() -> Result<Ask<'b>, Reason>) -> Result<(Answer<'a>, u32), Reason> {
        let mut tries = 0;
        loop {
            tries += 1;
            let ask = ask()?;
            match self.client.send(&ask).await {
                Ok(answer) if tries < TRIES && is_worth_repeating(answer.status()) => {
                    self.wait(tries, Some(&answer)).await;
                }
                Ok(answer) => return Ok((answer, tries)),
                Err(Failure::Broken { .. }) if tries < TRIES => self.wait(tries, None).await,
                Err(failure) => return Err(failure.into_reason(ask.what, 0, tries)),
            }
        }
    }

    /// Answers the challenge of the registry's own 401.
    async fn authorize(&self, refused: Answer<'_>) -> Result<(), Reason> {
        let header = match (Challenge::of(refused.headers()), self.credentials.login()) {
            (Some(challenge), _) => self.token(&challenge, &refused.url).await?,
            (None, Some((user, password))) => token::basic(user, password)?,
            (None, None) => return Err(self.unauthorized(own_words(refused).await)),
        };
        *self.authorization.borrow_mut() = Some(header);
        Ok(())
    }

    /// Asks a token server, if it is one that may be asked.
    async fn token(&self, challenge: &Challenge, from: &Url) -> Result<HeaderValue, Reason> {
        let url = challenge.url(&self.reference.repository).map_err(|cause| {
            let realm = challenge.realm.chars().take(200).collect();
            Reason::Realm { realm, cause }
        })?;
        let refused = |cause| Reason::Realm { realm: shown(&url), cause };
        let policy = &self.client.policy;
        policy.may_lead(from, &url).map_err(refused)?;
        let authorization = match self.credentials.login() {
            None => None,
            Some((user, password)) => {
                policy.may_be_told(&url).map_err(refused)?;
                Some(token::basic(user, password)?)
            }
        };
        let begun = Instant::now();
        let ask = || {
            let ask = self.question(Method::GET, url.clone(), "a token");
            Ok(Ask { authorization: authorization.clone(), begun, ..ask })
        };
        let (answer, tries) = self.repeat(&ask).await?;
        match answer.status() {
            StatusCode::OK => {}
            status if is_worth_repeating(status) => return Err(self.led_astray("a token", answer, tries).await),
            status => {
                let (url, status, answer) = (shown(&url), status.as_u16(), own_words(answer).await);
                let (had_credentials, lack) = self.sent();
                return Err(Reason::NoToken { url, status, answer, had_credentials, lack });
            }
        }
        let mut bytes = Vec::new();
        let read = body(answer, "the token", TOKEN_BYTES, &mut bytes).await;
        read.map_err(|failure| failure.into_reason("the token", bytes.len() as u64, 1))?;
        let _hold = self.budget.document(&bytes, "a token")?;
        token::bearer_header(&bytes, &shown(&url))
    }

    /// Whether a user and a password were sent, and why not.
    fn sent(&self) -> (bool, String) {
        match &self.credentials {
            auth::Known::Login(_) => (true, String::new()),
            auth::Known::Nothing(why) => (false, why.clone()),
        }
    }

    fn unauthorized(&self, answer: String) -> Reason {
        let (had_credentials, lack) = self.sent();
        Reason::Unauthorized { answer, had_credentials, lack }
    }

    async fn answered(&self, request: &Request<'_>, answer: Answer<'_>, tries: u32) -> Reason {
        if !answer.own {
            return self.led_astray(request.what, answer, tries).await;
        }
        let status = answer.status();
        let answer = own_words(answer).await;
        let what = request.what.to_owned();
        match status.as_u16() {
            401 => self.unauthorized(answer),
            403 => Reason::Denied { answer },
            404 => Reason::NotFound { what, answer },
            429 => Reason::TooManyRequests { tries, answer },
            500.. => Reason::Server { status: status.as_u16(), tries, answer },
            other => Reason::Unexpected { status: other, what, answer },
        }
    }

    /// Not the registry itself answered.
    async fn led_astray(&self, what: &str, answer: Answer<'_>, tries: u32) -> Reason {
        let (url, status) = (shown(&answer.url), answer.status().as_u16());
        let answer = own_words(answer).await;
        Reason::Elsewhere { url, status, what: what.to_owned(), tries, answer }
    }
}

/// Waits for the registry, but not longer than the pull has time.
pub(super) async fn within<T>(budget: &Budget, work: impl Future<Output = Result<T, Reason>>) -> Result<T, Reason> {
    let over = Exceeded::Time { limit: budget.limits().time };
    timeout(budget.time_left()?, work).await.unwrap_or(Err(over.into()))
}

/// Reads a body to its end, refused as soon as it is too long. What has come is in `bytes`, also after an error.
async fn body(mut answer: Answer<'_>, what: &str, limit: u64, bytes: &mut Vec<u8>) -> Result<(), Failure> {
    let too_large = || Failure::Final(Reason::TooLarge { what: what.to_owned(), limit });
    if answer.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    while let Some(chunk) = answer.chunk().await? {
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(())
}

/// The registry's URL by each scheme to try, in this order.
fn candidates(reference: &Reference, insecure: bool) -> Result<Vec<Url>, Reason> {
    let oci = oci_client::Reference::with_tag(reference.registry.clone(), reference.repository.clone(), String::new());
    // Docker's own registry has another name there.
    let host = oci.resolve_registry();
    let with = |scheme: &str| {
        let parsed = format!("{scheme}://{host}/").parse::<Url>();
        parsed.map_err(|error| Reason::Malformed { what: format!("the registry {host}"), cause: error.to_string() })
    };
    let http = with("http")?;
    Ok(match (Policy::is_here(&http), insecure) {
        (true, _) => vec![http, with("https")?],
        (false, true) => vec![with("https")?, http],
        (false, false) => vec![with("https")?],
    })
}

/// A part of a blob must be the part that was asked for.
fn check_range(answer: &Answer<'_>, request: &Request<'_>) -> Result<(), Reason> {
    let told = answer.header(header::CONTENT_RANGE).unwrap_or_default();
    if told.starts_with(&format!("bytes {}-", request.offset)) {
        return Ok(());
    }
    let cause = format!("its rest from byte {} was asked for, the registry sends `{told}`", request.offset);
    Err(Reason::Malformed { what: request.what.to_owned(), cause })
}

fn is_worth_repeating(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

fn retry_after(answer: &Answer<'_>) -> Option<Duration> {
    answer.header(header::RETRY_AFTER)?.parse().ok().map(Duration::from_secs)
}

/// The registry's own explanation, as `: CODE: message`; empty if it has none.
async fn own_words(mut answer: Answer<'_>) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES {
            body.truncate(ANSWER_BYTES);
            break;
        }
    }
    words(&body)
}

/// Whether it is no text, of which the last character may have been cut.
fn is_binary(body: &[u8]) -> bool {
    body.contains(&0) || std::str::from_utf8(body).is_err_and(|error| error.error_len().is_some())
}

/// Of a JSON error document (distribution-spec, "Error Codes") or of plain text, one line without control characters.
fn words(body: &[u8]) -> String {
    let document: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let first = document.as_ref().and_then(|json| json.get("errors")?.get(0));
    let text = match first {
        Some(error) => {
            ["code", "message"].iter().filter_map(|key| error.get(key)?.as_str()).collect::<Vec<_>>().join(": ")
        }
        None if is_binary(body) => String::new(),
        None => String::from_utf8_lossy(body).trim().to_owned(),
    };
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    if line.is_empty() || line.starts_with('<') { String::new() } else { format!(": {line}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_and_for_who_asks_for_it() {
        for (registry, insecure, expected) in [
            ("localhost", false, "http://localhost https://localhost"),
            ("localhost:5000", true, "http://localhost:5000 https://localhost:5000"),
            ("127.9.9.9", false, "http://127.9.9.9 https://127.9.9.9"),
            ("[::1]:5000", false, "http://[::1]:5000 https://[::1]:5000"),
            ("localhost.example", false, "https://localhost.example"),
            ("10.0.0.1:5000", false, "https://10.0.0.1:5000"),
            ("10.0.0.1:5000", true, "https://10.0.0.1:5000 http://10.0.0.1:5000"),
            ("[fe80::1]:80", false, "https://[fe80::1]:80"),
            ("docker.io", false, "https://index.docker.io"),
        ] {
            let reference = Reference { registry: registry.to_owned(), ..("app".parse().unwrap()) };
            let found = candidates(&reference, insecure).unwrap();
            let found: Vec<_> = found.iter().map(|url| url.as_str().trim_end_matches('/')).collect();
            assert_eq!(found.join(" "), expected, "{registry}");
        }
    }

    #[test]
    fn a_registrys_words_are_one_safe_line() {
        for (body, expected) in [
            (
                r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known"}]}"#,
                ": NAME_UNKNOWN: repository name not known",
            ),
            (r#"{"errors":[]}"#, r#": {"errors":[]}"#),
            ("go away\n\u{1b}[31m", ": go away  [31m"),
            ("<html>…", ""),
            ("", ""),
        ] {
            assert_eq!(words(body.as_bytes()), expected);
        }
        assert_eq!(words(b"\x1f\x8b\x08\0\0\xff part of a layer"), "");
        assert_eq!(words("caf\u{e9}".as_bytes().split_last().unwrap().1), ": caf\u{fffd}");
    }
}
