//! One registry, one repository: which scheme, which token, and requests that are repeated when that may help.

use super::{Reason, RegistryOptions, auth};
use crate::Reference;
use oci_client::{
    RegistryOperation,
    client::{Client, ClientConfig, ClientProtocol},
    errors::OciDistributionError,
    secrets::RegistryAuth,
};
use reqwest::{Method, Response, StatusCode, header};
use std::{cell::RefCell, error::Error, io, net::IpAddr, sync::Once, time::Duration};

const USER_AGENT: &str = concat!("amphora/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The first request and three repetitions.
pub(super) const TRIES: u32 = 4;
/// The longest `Retry-After` that is obeyed.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How much of an error's body is read: enough for the registry's own words.
const ANSWER_BYTES: usize = 16 << 10;

/// What goes into the `Authorization` header.
#[derive(Clone)]
enum Authorization {
    None,
    Basic(String, String),
    Bearer(String),
}

/// What is asked for.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    /// Beneath the repository: `manifests/latest`.
    pub(super) path: &'a str,
    pub(super) accept: &'a str,
    /// Skip so many bytes of the body.
    pub(super) offset: u64,
    /// For messages: `the manifest`, `layer sha256:…`.
    pub(super) what: &'a str,
}

/// A conversation with one registry about one repository.
pub(super) struct Session<'a> {
    pub(super) reference: &'a Reference,
    options: &'a RegistryOptions,
    oci_reference: oci_client::Reference,
    credentials: Option<auth::Credentials>,
    scheme: &'static str,
    client: reqwest::Client,
    authorization: RefCell<Authorization>,
}

impl<'a> Session<'a> {
    /// Finds out by which scheme the registry answers.
    pub(super) async fn connect(reference: &'a Reference, options: &'a RegistryOptions) -> Result<Self, Reason> {
        install_crypto();
        let credentials = auth::credentials(reference, options)?;
        let schemes = schemes(&reference.registry, options.insecure);
        let (mut first_error, mut wrong_scheme) = (None, None);
        for &scheme in schemes {
            let session = Self::new(reference, options, credentials.clone(), scheme)?;
            match session.answers(schemes.len() > 1).await {
                Ok(()) => return Ok(session),
                // Worth telling only if nothing else is wrong: the other scheme's error says more.
                Err(error @ Reason::Unreachable { .. }) if scheme == "http" => wrong_scheme = Some(error),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.or(wrong_scheme).unwrap_or(Reason::Gone))
    }

    fn new(
        reference: &'a Reference,
        options: &'a RegistryOptions,
        credentials: Option<auth::Credentials>,
        scheme: &'static str,
    ) -> Result<Self, Reason> {
        let tag = reference.tag.clone().unwrap_or_default();
        let oci_reference =
            oci_client::Reference::with_tag(reference.registry.clone(), reference.repository.clone(), tag);
        let client = build_client(options, scheme).map_err(|error| unreachable(&reference.registry, &error))?;
        let authorization = RefCell::new(Authorization::None);
        Ok(Self { reference, options, oci_reference, credentials, scheme, client, authorization })
    }

    pub(super) fn idle_timeout(&self) -> Duration {
        self.options.idle_timeout
    }

    /// Sends a request until it is answered well, or badly for good.
    pub(super) async fn get(&self, request: &Request<'_>) -> Result<Response, Reason> {
        let mut tries = 0;
        let mut authorized = false;
        loop {
            tries += 1;
            let response = match self.send(request).await {
                Ok(response) => response,
                Err(error) if tries < TRIES && is_passing(&error) => {
                    self.wait(tries, None).await;
                    continue;
                }
                Err(error) => return Err(self.transport(request, &error, tries)),
            };
            match response.status() {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(response),
                StatusCode::UNAUTHORIZED if !authorized => {
                    authorized = true;
                    tries -= 1;
                    self.authorize(response).await?;
                }
                status if tries < TRIES && is_worth_repeating(status) => self.wait(tries, Some(&response)).await,
                _ => return Err(self.answered(request, response, tries).await),
            }
        }
    }

    /// Waits before the next try.
    pub(super) async fn wait(&self, tries: u32, response: Option<&Response>) {
        let asked = response.and_then(retry_after).map(|asked| asked.min(LONGEST_WAIT));
        let own = self.options.retry_delay * 2_u32.saturating_pow(tries.saturating_sub(1));
        tokio::time::sleep(asked.unwrap_or(own)).await;
    }

    fn host(&self) -> &str {
        self.oci_reference.resolve_registry()
    }

    fn url(&self, path: &str) -> String {
        format!("{}://{}/v2/{}/{path}", self.scheme, self.host(), self.reference.repository)
    }

    /// Where there is a choice of schemes, asks whether this is the right one.
    async fn answers(&self, ask: bool) -> Result<(), Reason> {
        if !ask {
            return Ok(());
        }
        let url = format!("{}://{}/v2/", self.scheme, self.host());
        match self.client.get(&url).send().await {
            // What a TLS server says to those who do not speak TLS.
            Ok(response) if self.scheme == "http" && response.status() == StatusCode::BAD_REQUEST => {
                Err(Reason::Unreachable { url, cause: "it answers 400 to plain HTTP".to_owned() })
            }
            Ok(_) => Ok(()),
            Err(error) if is_refused(&error) => Err(Reason::Refused { url, cause: causes(&error) }),
            Err(error) if error.is_timeout() && !error.is_connect() => {
                Err(Reason::TooSlow { what: "an answer".to_owned(), after: self.options.idle_timeout })
            }
            Err(error) => Err(unreachable(&url, &error)),
        }
    }

    async fn send(&self, request: &Request<'_>) -> reqwest::Result<Response> {
        let authorization = self.authorization.borrow().clone();
        let builder = self.client.request(request.method.clone(), self.url(request.path));
        let builder = builder.header(header::ACCEPT, request.accept);
        let builder = match authorization {
            Authorization::None => builder,
            Authorization::Basic(user, password) => builder.basic_auth(user, Some(password)),
            Authorization::Bearer(token) => builder.bearer_auth(token),
        };
        let builder = match request.offset {
            0 => builder,
            offset => builder.header(header::RANGE, format!("bytes={offset}-")),
        };
        builder.send().await
    }

    /// Answers the challenge of a 401: oci-client speaks with the token server.
    async fn authorize(&self, refused: Response) -> Result<(), Reason> {
        let auth = match &self.credentials {
            Some((user, password)) => RegistryAuth::Basic(user.clone(), password.clone()),
            None => RegistryAuth::Anonymous,
        };
        let url = self.url("");
        let client = Client::try_from(self.oci_config())
            .map_err(|error| Reason::Unreachable { url: url.clone(), cause: error.to_string() })?;
        let answer = client.auth(&self.oci_reference, &auth, RegistryOperation::Pull).await;
        let authorization = match (answer, &self.credentials) {
            (Ok(Some(token)), _) => Authorization::Bearer(token),
            (Ok(None), Some((user, password))) => Authorization::Basic(user.clone(), password.clone()),
            (Ok(None), None) => return Err(self.unauthorized(own_words(refused).await)),
            (Err(OciDistributionError::AuthenticationFailure(answer)), _) => {
                return Err(self.unauthorized(words(answer.as_bytes())));
            }
            (Err(OciDistributionError::RequestError(error)), _) => return Err(unreachable(&url, &error)),
            (Err(error), _) => return Err(self.unauthorized(words(error.to_string().as_bytes()))),
        };
        *self.authorization.borrow_mut() = authorization;
        Ok(())
    }

    fn oci_config(&self) -> ClientConfig {
        ClientConfig {
            protocol: if self.scheme == "http" { ClientProtocol::Http } else { ClientProtocol::Https },
            accept_invalid_certificates: self.options.insecure,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(self.options.idle_timeout),
            user_agent: USER_AGENT,
            ..ClientConfig::default()
        }
    }

    fn unauthorized(&self, answer: String) -> Reason {
        Reason::Unauthorized { answer, had_credentials: self.credentials.is_some() }
    }

    async fn answered(&self, request: &Request<'_>, response: Response, tries: u32) -> Reason {
        let status = response.status();
        let answer = own_words(response).await;
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

    fn transport(&self, request: &Request<'_>, error: &reqwest::Error, tries: u32) -> Reason {
        let url = self.url(request.path);
        if is_refused(error) {
            Reason::Refused { url, cause: causes(error) }
        } else if error.is_connect() {
            unreachable(&url, error)
        } else if error.is_timeout() {
            Reason::TooSlow { what: request.what.to_owned(), after: self.options.idle_timeout }
        } else {
            Reason::CutOff { what: request.what.to_owned(), received: 0, tries, cause: causes(error) }
        }
    }
}

fn build_client(options: &RegistryOptions, scheme: &str) -> reqwest::Result<reqwest::Client> {
    let builder = || {
        reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(options.idle_timeout)
            .tls_danger_accept_invalid_certs(options.insecure)
    };
    match builder().build() {
        // A machine without certificate authorities can still use plain HTTP.
        Err(_) if scheme == "http" => builder().tls_certs_only([]).build(),
        other => other,
    }
}

/// The schemes to try, in this order.
fn schemes(registry: &str, insecure: bool) -> &'static [&'static str] {
    match (is_loopback(registry), insecure) {
        (true, _) => &["http", "https"],
        (false, true) => &["https", "http"],
        (false, false) => &["https"],
    }
}

/// Whether a registry is on this machine, by its name alone.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// TLS needs a provider of cryptography, once in a process. Another one that is there already is as good.
fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

fn is_worth_repeating(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// Whether the same request may succeed a moment later. A refused connection or a wrong certificate stays so; silence
/// has lasted long enough.
fn is_passing(error: &reqwest::Error) -> bool {
    !error.is_connect() && !error.is_timeout() && !error.is_redirect() && !error.is_builder()
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn unreachable(url: &str, error: &reqwest::Error) -> Reason {
    Reason::Unreachable { url: url.to_owned(), cause: causes(error) }
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
pub(super) fn causes(error: &(dyn Error + 'static)) -> String {
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

/// The registry's own explanation, as `: CODE: message`; empty if it has none.
async fn own_words(mut response: Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES {
            break;
        }
    }
    words(&body)
}

/// Of a JSON error document (distribution-spec, "Error Codes") or of plain text, one line without control characters.
fn words(body: &[u8]) -> String {
    let document: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let first = document.as_ref().and_then(|json| json.get("errors")?.get(0));
    let text = match first {
        Some(error) => {
            ["code", "message"].iter().filter_map(|key| error.get(key)?.as_str()).collect::<Vec<_>>().join(": ")
        }
        None => String::from_utf8_lossy(body).trim().to_owned(),
    };
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    if line.is_empty() || line.starts_with('<') { String::new() } else { format!(": {line}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_by_the_name() {
        for (registry, expected) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("localhost.example", false),
            ("10.0.0.1:5000", false),
            ("[fe80::1]:80", false),
            ("docker.io", false),
        ] {
            assert_eq!(is_loopback(registry), expected, "{registry}");
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
    }
}
