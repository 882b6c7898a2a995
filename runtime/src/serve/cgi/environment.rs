//! What a command is told of its request: the meta-variables of RFC 3875, 4.1.

use hyper::{
    HeaderMap, Request,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, PROXY_AUTHORIZATION},
};

/// Programs take `HTTP_PROXY` for the proxy of their own requests (httpoxy).
const PROXY: HeaderName = HeaderName::from_static("proxy");

/// What a request came to.
pub(crate) struct Server<'a> {
    pub(crate) client: std::net::IpAddr,
    pub(crate) is_encrypted: bool,
    /// What was taken off the path.
    pub(crate) prefix: &'a str,
    pub(crate) protocol: &'static str,
    /// The path, decoded; empty: `/`.
    pub(crate) path: String,
}

/// Names and values, `A=B`.
pub(super) fn of<B>(request: &Request<B>, server: &Server<'_>) -> Vec<String> {
    let headers = request.headers();
    let host = text(headers, &HOST);
    let (name, port) = split_host(host);
    let usual = if server.is_encrypted { "443" } else { "80" };
    let mut variables = vec![
        ("GATEWAY_INTERFACE".to_owned(), "CGI/1.1"),
        ("SERVER_SOFTWARE".to_owned(), concat!("amphora/", env!("CARGO_PKG_VERSION"))),
        ("SERVER_PROTOCOL".to_owned(), server.protocol),
        ("SERVER_NAME".to_owned(), name),
        ("SERVER_PORT".to_owned(), port.unwrap_or(usual)),
        ("REQUEST_METHOD".to_owned(), request.method().as_str()),
        ("SCRIPT_NAME".to_owned(), server.prefix),
        ("PATH_INFO".to_owned(), if server.path.is_empty() { "/" } else { &server.path }),
        ("QUERY_STRING".to_owned(), request.uri().query().unwrap_or_default()),
        ("CONTENT_TYPE".to_owned(), text(headers, &CONTENT_TYPE)),
        ("CONTENT_LENGTH".to_owned(), text(headers, &CONTENT_LENGTH)),
    ];
    if server.is_encrypted {
        variables.push(("HTTPS".to_owned(), "on"));
    }
    let told_elsewhere = [CONTENT_TYPE, CONTENT_LENGTH, AUTHORIZATION, PROXY_AUTHORIZATION, PROXY];
    // One with `_` would be told by the same variable as one with `-`.
    let is_told = |header: &&HeaderName| !told_elsewhere.contains(header) && !header.as_str().contains('_');
    for header in headers.keys().filter(is_told) {
        variables
            .push((format!("HTTP_{}", header.as_str().to_ascii_uppercase().replace('-', "_")), text(headers, header)));
    }
    let (client, target) = (server.client, request.uri().path_and_query().map_or("/", |target| target.as_str()));
    let made = [
        format!("REMOTE_ADDR={client}"),
        format!("REMOTE_HOST={client}"),
        format!("REQUEST_URI={}{target}", server.prefix),
    ];
    variables.into_iter().map(|(name, value)| format!("{name}={value}")).chain(made).collect()
}

/// Of several lines the first, which the gateway has written where it matters; what is no text is left out.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn split_host(host: &str) -> (&str, Option<&str>) {
    let end = host.rfind(']').unwrap_or_default();
    match host[end..].find(':') {
        Some(at) => (&host[..end + at], Some(&host[end + at + 1..])),
        None => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_by_its_variables() {
        let request = Request::post("/sub/a%20b?x=1&y")
            .header("host", "[::1]:8080")
            .header("content-type", "text/plain")
            .header("content-length", "3")
            .header("x-some-thing", "1")
            .header("proxy", "http://evil/")
            .header("x_some_thing", "2")
            .header("authorization", "Basic x")
            .body(())
            .unwrap();
        let server = Server {
            client: [192, 0, 2, 7].into(),
            is_encrypted: false,
            prefix: "/api",
            protocol: "HTTP/1.1",
            path: "/sub/a b".to_owned(),
        };
        let variables = of(&request, &server);
        for expected in [
            "REQUEST_METHOD=POST",
            "SERVER_NAME=[::1]",
            "SERVER_PORT=8080",
            "SCRIPT_NAME=/api",
            "PATH_INFO=/sub/a b",
            "QUERY_STRING=x=1&y",
            "REQUEST_URI=/api/sub/a%20b?x=1&y",
            "CONTENT_TYPE=text/plain",
            "CONTENT_LENGTH=3",
            "HTTP_X_SOME_THING=1",
            "HTTP_HOST=[::1]:8080",
            "REMOTE_ADDR=192.0.2.7",
        ] {
            assert!(variables.iter().any(|found| found == expected), "{expected}: {variables:?}");
        }
        assert_eq!(variables.iter().filter(|found| found.starts_with("HTTP_X_SOME_THING")).count(), 1);
        let unwanted = ["HTTP_PROXY", "HTTP_AUTHORIZATION", "HTTP_CONTENT", "HTTPS"];
        assert!(!variables.iter().any(|found| unwanted.iter().any(|name| found.starts_with(name))), "{variables:?}");
        assert_eq!(
            [split_host("a:1"), split_host("[::1]"), split_host("a")],
            [("a", Some("1")), ("[::1]", None), ("a", None)]
        );
    }
}
