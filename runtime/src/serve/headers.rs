//! Headers between a client and a function: what is for one connection alone is taken off, who came and where is told.

use std::net::SocketAddr;

use hyper::{
    HeaderMap, Request, Version,
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE, EXPECT, HOST,
        HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, TE, TRAILER, TRANSFER_ENCODING,
        UPGRADE,
    },
};

/// How a client can name a request to whoever reads the log.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// Before the name of a path's parameter.
const PARAMETER: &str = "x-amphora-path-";
/// Before what proxies tell of a client.
const OF_PROXIES: &str = "x-forwarded-";
/// The other protocol that a connection may become. HTTP/2, for one, would lead past routes and checks to a function.
const WEBSOCKET: &str = "websocket";
/// Of a request's name.
const LONGEST_ID: usize = 64;

/// What a request is for, as far as its function is to know.
pub(super) struct Told<'a> {
    pub(super) client: SocketAddr,
    pub(super) is_encrypted: bool,
    /// As the client wrote it.
    pub(super) host: Option<&'a HeaderValue>,
    /// What was taken off the path.
    pub(super) prefix: &'a str,
    pub(super) parameters: &'a [(&'a str, String)],
    pub(super) request_id: &'a str,
    pub(super) is_trusted: bool,
}

/// What a client calls its request, if that can be passed on.
pub(super) fn request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    Some(id).filter(|id| (1..=LONGEST_ID).contains(&id.len()) && id.chars().all(is_plain))
}

/// Whether it asks for another protocol on its connection, and may get it.
pub(super) fn asks_for_upgrade<B>(request: &Request<B>) -> Option<HeaderValue> {
    let is_asked = request.version() == Version::HTTP_11 && lists(request.headers(), "upgrade");
    let mut asked = request.headers().get_all(UPGRADE).iter();
    let (only, more) = (asked.next(), asked.next());
    let is_websocket = |asked: &&HeaderValue| asked.as_bytes().trim_ascii().eq_ignore_ascii_case(WEBSOCKET.as_bytes());
    only.filter(is_websocket).filter(|_| is_asked && more.is_none()).cloned()
}

/// Whether a body comes in parts and nothing besides: what else was done to it (`gzip, chunked`) is for this connection, and nobody here
/// undoes it.
pub(super) fn has_plain_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_plain = |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    codings.next().is_none_or(is_plain) && codings.next().is_none()
}

/// Whether Connection lists a name.
fn lists(headers: &HeaderMap, name: &str) -> bool {
    listed(headers).any(|listed| listed.eq_ignore_ascii_case(name))
}

fn listed(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Takes off what is for this connection alone (RFC 9110, 7.6.1).
pub(super) fn take_off_connection(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> = listed(headers).filter_map(|name| name.parse().ok()).collect();
    for name in names {
        headers.remove(name);
    }
    let always = [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        PROXY_CONNECTION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    for name in always {
        headers.remove(name);
    }
}

/// The headers of a client's request as its function gets them.
pub(super) fn for_function(headers: &mut HeaderMap, version: Version, told: &Told<'_>) {
    // By its length and by its parts: of the two, only the parts can be checked.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    take_off_connection(headers);
    headers.remove(EXPECT);
    take_off_ours(headers, told.is_trusted);
    if version == Version::HTTP_2 {
        join_cookies(headers);
    }
    tell_forwarded(headers, told);
    for (name, value) in told.parameters {
        let name = HeaderName::try_from(format!("{PARAMETER}{name}"));
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            headers.insert(name, value);
        }
    }
    insert(headers, REQUEST_ID, told.request_id);
    match told.host {
        Some(host) => _ = headers.insert(HOST, host.clone()),
        // HTTP/1.1 has to have one, though it may be empty.
        None => _ = headers.insert(HOST, HeaderValue::from_static("")),
    }
}

/// Takes off what the gateway says, or a proxy that it trusts, and nobody else.
fn take_off_ours(headers: &mut HeaderMap, is_trusted: bool) {
    let is_forged = |name: &&HeaderName| match whose(name) {
        Whose::Proxies => !is_trusted || name.as_str().contains('_'),
        Whose::Gateways => true,
        Whose::Clients => false,
    };
    remove_all(headers, is_forged);
}

/// Who may say what a header says.
#[derive(PartialEq)]
enum Whose {
    Proxies,
    Gateways,
    Clients,
}

/// Servers that make variables of headers (CGI, WSGI, PHP) tell `_` and `-` not apart.
fn whose(name: &HeaderName) -> Whose {
    let name = name.as_str().replace('_', "-");
    if name == FORWARDED.as_str() || name.starts_with(OF_PROXIES) {
        Whose::Proxies
    } else if name == REQUEST_ID.as_str() || name.starts_with(PARAMETER) {
        Whose::Gateways
    } else {
        Whose::Clients
    }
}

fn remove_all(headers: &mut HeaderMap, is_one: impl Fn(&&HeaderName) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(is_one).cloned().collect();
    names.into_iter().for_each(|name| _ = headers.remove(name));
}

/// What may come behind a request's body: nothing that says who asks for what, or how it is to be read (RFC 9110, 6.5.1), as some servers
/// take it for a header.
pub(super) fn for_trailers(trailers: &mut HeaderMap) {
    take_off_connection(trailers);
    let of_heads = [
        AUTHORIZATION,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        COOKIE,
        EXPECT,
        HOST,
        RANGE,
        TRAILER,
    ];
    remove_all(trailers, |name| of_heads.contains(name) || whose(name) != Whose::Clients);
}

/// The headers of a function's answer as its client gets them. False: its length is told more than once.
pub(super) fn for_client(headers: &mut HeaderMap) -> bool {
    // By its length and by its parts: the parts count (RFC 9112, 6.3).
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let is_clear = lengths.next().is_none() || lengths.next().is_none();
    take_off_connection(headers);
    is_clear
}

/// Who came, to which host and path.
fn tell_forwarded(headers: &mut HeaderMap, told: &Told<'_>) {
    add_client(headers, told.client);
    if !headers.contains_key(FORWARDED_PROTO) {
        let scheme = if told.is_encrypted { "https" } else { "http" };
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    if let Some(host) = told.host.filter(|_| !headers.contains_key(FORWARDED_HOST)) {
        headers.insert(FORWARDED_HOST, host.clone());
    }
    if !told.prefix.is_empty() {
        // Of several, that of the nearest proxy.
        let outer = headers.get_all(FORWARDED_PREFIX).iter().next_back();
        let outer = outer.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let prefix = format!("{}{}", outer.trim_end_matches('/'), told.prefix);
        insert(headers, FORWARDED_PREFIX, &prefix);
    }
}

/// Behind those that the proxies before told. A proxy may write a line of its own instead of a longer one: in their order they are one
/// list (RFC 9110, 5.3), and the last that is told is what the nearest proxy saw.
fn add_client(headers: &mut HeaderMap, client: SocketAddr) {
    let client = client.ip().to_string();
    let told = headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
    let chain: Vec<&[u8]> = told.chain([client.as_bytes()]).collect();
    if let Ok(chain) = HeaderValue::from_bytes(&chain.join(&b", "[..])) {
        headers.insert(FORWARDED_FOR, chain);
    }
}

/// HTTP/2 may send a header for each cookie, HTTP/1.1 has one for all (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(all) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(COOKIE, all);
    }
}

/// What cannot be a header's value is left out: nothing of ours is.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn told<'a>(host: &'a HeaderValue, parameters: &'a [(&'a str, String)]) -> Told<'a> {
        Told {
            client: "192.0.2.7:5000".parse().unwrap(),
            is_encrypted: false,
            host: Some(host),
            prefix: "/api",
            parameters,
            request_id: "abc",
            is_trusted: false,
        }
    }

    #[test]
    fn what_is_for_one_connection_stays_there() {
        let host = HeaderValue::from_static("a:80");
        let mut headers = map(&[
            ("connection", "close, X-Secret , x-forwarded-for, host"),
            ("x-secret", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "x"),
            ("expect", "100-continue"),
            ("accept", "*/*"),
            ("traceparent", "00-1-2-01"),
        ]);
        for_function(&mut headers, Version::HTTP_11, &told(&host, &[]));
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let kept = ["accept", "host", "traceparent", "x-forwarded-for", "x-forwarded-host", "x-forwarded-prefix"];
        assert_eq!(names, [&kept[..], &["x-forwarded-proto", "x-request-id"]].concat());
        assert_eq!((&headers["x-forwarded-for"], &headers["host"]), (&"192.0.2.7".parse().unwrap(), &host));
    }

    #[test]
    fn only_a_proxy_of_ones_own_is_believed() {
        let host = HeaderValue::from_static("a");
        let lines = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/outer/"),
            ("forwarded", "for=x"),
        ];
        let mut headers = map(&lines);
        for_function(&mut headers, Version::HTTP_11, &told(&host, &[]));
        let value = |headers: &HeaderMap, name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(value(&headers, "x-forwarded-for").as_deref(), Some("192.0.2.7"));
        assert_eq!(value(&headers, "x-forwarded-proto").as_deref(), Some("http"));
        assert_eq!(
            (value(&headers, "forwarded"), value(&headers, "x-forwarded-prefix").as_deref()),
            (None, Some("/api"))
        );
        let mut headers = map(&lines);
        // A proxy that writes a line of its own beneath what its client wrote.
        for line in ["2.2.2.2 , \u{fc}", "3.3.3.3"] {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        for_function(&mut headers, Version::HTTP_11, &Told { is_trusted: true, ..told(&host, &[]) });
        let chains: Vec<&HeaderValue> = headers.get_all(FORWARDED_FOR).iter().collect();
        assert_eq!(chains, ["1.1.1.1, 2.2.2.2 , \u{fc}, 3.3.3.3, 192.0.2.7"]);
        assert_eq!(value(&headers, "x-forwarded-proto").as_deref(), Some("https"));
        assert_eq!(value(&headers, "x-forwarded-prefix").as_deref(), Some("/outer/api"));
    }

    #[test]
    fn what_servers_take_for_the_same_name_is_the_same() {
        let host = HeaderValue::from_static("a");
        let lines = [
            ("x_forwarded_for", "6.6.6.6"),
            ("x-forwarded_for", "6.6.6.6"),
            ("x_amphora_path_id", "66"),
            ("x_request_id", "forged"),
            ("x-forwarded-user", "root"),
            ("x-forwarded-port", "444"),
            ("x_other", "1"),
        ];
        for is_trusted in [false, true] {
            let mut headers = map(&lines);
            for_function(&mut headers, Version::HTTP_11, &Told { is_trusted, ..told(&host, &[]) });
            let forged = ["x_forwarded_for", "x-forwarded_for", "x_amphora_path_id", "x_request_id"];
            assert!(!forged.iter().any(|name| headers.contains_key(*name)) && headers.contains_key("x_other"));
            assert_eq!(headers.contains_key("x-forwarded-user"), is_trusted);
            assert_eq!(headers.contains_key("x-forwarded-port"), is_trusted);
        }
    }

    #[test]
    fn trailers_say_nothing_that_a_head_says() {
        let mut trailers = map(&[
            ("x-forwarded-for", "9.9.9.9"),
            ("x_forwarded_for", "9.9.9.9"),
            ("x-amphora-path-id", "1"),
            ("x-request-id", "1"),
            ("host", "b"),
            ("cookie", "a=1"),
            ("authorization", "x"),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
            ("checksum", "1"),
        ]);
        for_trailers(&mut trailers);
        assert_eq!(trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["checksum"]);
    }

    #[test]
    fn a_connection_becomes_websocket_and_nothing_else() {
        for (upgrade, expected) in [
            (&["websocket"][..], true),
            (&["WebSocket"], true),
            (&["h2c"], false),
            (&["h2c, websocket"], false),
            (&["websocket", "h2c"], false),
            (&["TLS/1.0, HTTP/2.0"], false),
        ] {
            let mut request = Request::new(());
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
            upgrade.iter().for_each(|value| _ = request.headers_mut().append(UPGRADE, HeaderValue::from_static(value)));
            assert_eq!(asks_for_upgrade(&request).is_some(), expected, "{upgrade:?}");
            request.headers_mut().remove(CONNECTION);
            assert!(asks_for_upgrade(&request).is_none());
        }
    }

    #[test]
    fn lengths_are_told_once_and_codings_are_chunked_alone() {
        let mut answer = map(&[("transfer-encoding", "chunked"), ("content-length", "3"), ("content-length", "4")]);
        assert!(for_client(&mut answer) && answer.is_empty());
        let mut answer = map(&[("content-length", "3")]);
        answer.append(CONTENT_LENGTH, HeaderValue::from_static("4"));
        assert!(!for_client(&mut answer));
        let is_plain = |codings: &[&'static str]| {
            let lines: Vec<_> =
                codings.iter().map(|coding| (TRANSFER_ENCODING, HeaderValue::from_static(coding))).collect();
            let mut headers = HeaderMap::new();
            lines.into_iter().for_each(|(name, value)| _ = headers.append(name, value));
            has_plain_coding(&headers)
        };
        assert!(is_plain(&[]) && is_plain(&["Chunked"]));
        assert!(!is_plain(&["gzip, chunked"]) && !is_plain(&["gzip", "chunked"]) && !is_plain(&["identity"]));
    }

    #[test]
    fn parameters_are_the_paths_and_nobody_elses() {
        let host = HeaderValue::from_static("a");
        let mut headers =
            map(&[("x-amphora-path-id", "forged"), ("x-amphora-path-other", "forged"), ("cookie", "a=1")]);
        headers.append(COOKIE, HeaderValue::from_static("b=2"));
        for_function(&mut headers, Version::HTTP_2, &told(&host, &[("id", "7".to_owned())]));
        assert_eq!(headers["x-amphora-path-id"], "7");
        assert!(!headers.contains_key("x-amphora-path-other"));
        assert_eq!(headers["cookie"], "a=1; b=2");
    }

    #[test]
    fn a_requests_name_is_plain() {
        let id = |value: &'static str| request_id(&map(&[("x-request-id", value)])).map(str::to_owned);
        assert_eq!(id("a-B_9.x").as_deref(), Some("a-B_9.x"));
        assert_eq!([id(""), id("a b"), id("\"a\"")], [None, None, None]);
    }
}
