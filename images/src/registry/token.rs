//! What a 401 asks for: a user and a password, or a token of a token server (distribution-spec, RFC 7235).

use super::Reason;
use base64::{Engine, engine::general_purpose::STANDARD};
use http_auth::{ChallengeParser, ChallengeRef};
use oci_client::token_cache::RegistryToken;
use reqwest::{
    Url,
    header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};

/// The largest answer of a token server that is read. Real ones have a few KiB.
pub(super) const TOKEN_BYTES: u64 = 256 << 10;

/// Where to ask for a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) realm: String,
    service: Option<String>,
}

impl Challenge {
    /// The first that names a token server; `None` where a user and a password are all that is asked for.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        // What does not parse asks for nothing that could be given.
        texts.flat_map(|text| ChallengeParser::new(text).map_while(Result::ok)).find_map(|challenge| bearer(&challenge))
    }

    /// What to ask, for the right to pull from a repository.
    pub(super) fn url(&self, repository: &str) -> Result<Url, String> {
        let mut url = self.realm.parse::<Url>().map_err(|error| format!("which is no URL ({error})"))?;
        url.set_fragment(None);
        url.query_pairs_mut().append_pair("scope", &format!("repository:{repository}:pull"));
        if let Some(service) = &self.service {
            url.query_pairs_mut().append_pair("service", service);
        }
        Ok(url)
    }
}

fn bearer(challenge: &ChallengeRef<'_>) -> Option<Challenge> {
    let parameter = |wanted: &str| {
        let found = challenge.params.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.to_unescaped())
    };
    if !challenge.scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    Some(Challenge { realm: parameter("realm")?, service: parameter("service") })
}

/// The header for a user and a password.
pub(super) fn basic(user: &str, password: &str) -> Result<HeaderValue, Reason> {
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    secret(&format!("Basic {encoded}"), "the user and the password")
}

/// The header for what a token server answered.
pub(super) fn bearer_header(answer: &[u8], server: &str) -> Result<HeaderValue, Reason> {
    let what = format!("the answer of the token server {server}");
    let token: RegistryToken = serde_json::from_slice(answer).map_err(|_| Reason::Malformed {
        what: what.clone(),
        // What came may hold a token.
        cause: "it is not a JSON object with a `token` or an `access_token`".to_owned(),
    })?;
    secret(&token.bearer_token(), &what)
}

fn secret(text: &str, what: &str) -> Result<HeaderValue, Reason> {
    let mut header = HeaderValue::from_str(text).map_err(|_| Reason::Malformed {
        what: what.to_owned(),
        cause: "it has control characters, which no header may have".to_owned(),
    })?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(texts: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(text.as_bytes()).unwrap());
        }
        Challenge::of(&headers)
    }

    #[test]
    fn token_servers_are_found_among_challenges() {
        let of = |realm: &str, service: Option<&str>| {
            Some(Challenge { realm: realm.to_owned(), service: service.map(str::to_owned) })
        };
        let (realm, plain) = (r#"Bearer realm="https://a/t",service="s",scope="repository:other:push""#, "Bearer");
        assert_eq!(challenge(&[realm]), of("https://a/t", Some("s")));
        assert_eq!(challenge(&[r#"Basic realm="x""#, realm]), of("https://a/t", Some("s")));
        assert_eq!(challenge(&[&format!(r#"Basic realm="x", {realm}"#)]), of("https://a/t", Some("s")));
        assert_eq!(challenge(&[r#"bearer REALM="https://a/\"t""#]), of("https://a/\"t", None));
        for none in [plain, r#"Basic realm="x""#, "", "\u{e9}", "=,=,\"", "Bearer realm"] {
            assert_eq!(challenge(&[none]), None, "{none}");
        }
        assert_eq!(challenge(&[]), None);
    }

    #[test]
    fn the_question_keeps_the_realms_own_parts_and_asks_to_pull_only() {
        let asked = challenge(&[r#"Bearer realm="https://a/t?x=1#f",service="s s""#]).unwrap().url("lib/app").unwrap();
        assert_eq!(asked.as_str(), "https://a/t?x=1&scope=repository%3Alib%2Fapp%3Apull&service=s+s");
        assert!(challenge(&[r#"Bearer realm="/t""#]).unwrap().url("app").is_err());
    }

    #[test]
    fn a_token_is_taken_and_never_shown() {
        let header = bearer_header(br#"{"access_token":"t","expires_in":1}"#, "x").unwrap();
        assert!(header == "Bearer t" && header.is_sensitive());
        for answer in [&br#"{"token":"se\ncret"}"#[..], br#"{"secret":"secret"}"#, br#"["secret"]"#, b"secret"] {
            let error = bearer_header(answer, "x").unwrap_err().to_string();
            assert!(error.contains("token server x") && !error.contains("cret"), "{error}");
        }
    }
}
