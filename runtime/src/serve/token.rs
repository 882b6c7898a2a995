//! Who is an operator over TCP: whoever knows a token, which is drawn at the start and told, or stands in a file.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use hyper::{
    Method, Request,
    header::{AUTHORIZATION, COOKIE, HeaderValue},
};
use sha2::{Digest, Sha256};

/// What is shorter can be guessed.
const SHORTEST: usize = 16;
/// What is longer was not meant to be one.
const LONGEST: u64 = 4096;

/// The token of one gateway.
pub(super) struct Token {
    text: String,
    /// Browsers send a cookie to all ports of a host: each gateway has one of its own.
    cookie: String,
}

/// What a request shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// By `Authorization`, or by the cookie where nothing is changed.
    Right,
    /// In its query: a browser that is to get the cookie.
    InQuery,
    Nothing,
}

impl Token {
    /// That of the file, or a new one.
    pub(super) fn open(file: Option<&Path>, port: u16) -> Result<Self> {
        let text = match file {
            Some(file) => read(file).with_context(|| format!("admin_token: {}", file.display()))?,
            None => {
                let mut random = [0; 16];
                getrandom::fill(&mut random).context("cannot draw a token")?;
                format!("{:032x}", u128::from_le_bytes(random))
            }
        };
        Ok(Self { text, cookie: format!("amphora-serve-{port}") })
    }

    /// What a browser is sent to once.
    pub(super) fn query(&self) -> String {
        format!("?token={}", self.text)
    }

    pub(super) fn cookie(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&format!("{}={}; HttpOnly; SameSite=Strict; Path=/", self.cookie, self.text)).ok()
    }

    /// In a time that tells nothing of the token.
    fn is(&self, text: &str) -> bool {
        Sha256::digest(text) == Sha256::digest(&self.text)
    }

    pub(super) fn shown<B>(&self, request: &Request<B>) -> Shown {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if header.and_then(|value| value.strip_prefix("Bearer ")).is_some_and(|token| self.is(token.trim())) {
            return Shown::Right;
        }
        // Other sites may lead a browser to change something, but know no token.
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Shown::Nothing;
        }
        let cookies = request.headers().get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut own = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        if own.any(|(name, value)| name == self.cookie && self.is(value)) {
            return Shown::Right;
        }
        let mut pairs = request.uri().query().unwrap_or_default().split('&');
        match pairs.any(|pair| pair.strip_prefix("token=").is_some_and(|token| self.is(token))) {
            true => Shown::InQuery,
            false => Shown::Nothing,
        }
    }
}

fn read(file: &Path) -> Result<String> {
    let length = fs::metadata(file).context("cannot be read")?.len();
    ensure!(length <= LONGEST, "{length} bytes are too many for a token");
    let text = fs::read_to_string(file).context("cannot be read")?.trim().to_owned();
    ensure!(
        text.len() >= SHORTEST && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._~".contains(c)),
        "expected a token of at least {SHORTEST} letters, digits and -._~, such as `openssl rand -hex 16` makes"
    );
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(method: &str, uri: &str, header: &str, value: &str) -> Shown {
        let token = Token { text: "0123456789abcdef".to_owned(), cookie: "amphora-serve-8081".to_owned() };
        token.shown(&Request::builder().method(method).uri(uri).header(header, value).body(()).unwrap())
    }

    #[test]
    fn only_who_knows_it_is_let_in_and_a_cookie_changes_nothing() {
        let right = "0123456789abcdef";
        let bearer = format!("Bearer {right}");
        let cookie = format!("a=b; amphora-serve-8081={right}");
        let query = format!("/?a=b&token={right}");
        assert_eq!(shown("GET", "/", "authorization", &bearer), Shown::Right);
        assert_eq!(shown("POST", "/", "authorization", &bearer), Shown::Right);
        assert_eq!(shown("GET", "/", "cookie", &cookie), Shown::Right);
        assert_eq!(shown("POST", "/", "cookie", &cookie), Shown::Nothing);
        assert_eq!(shown("GET", &query, "x", "y"), Shown::InQuery);
        assert_eq!(shown("POST", &query, "x", "y"), Shown::Nothing);
        for (uri, header, value) in [
            ("/", "authorization", "Bearer 0123456789abcde"),
            ("/", "authorization", "0123456789abcdef"),
            ("/", "cookie", "amphora-serve-8082=0123456789abcdef"),
            ("/?token=", "cookie", "amphora-serve-8081="),
        ] {
            assert_eq!(shown("GET", uri, header, value), Shown::Nothing, "{uri} {value}");
        }
    }

    #[test]
    fn a_token_of_a_file_is_long_and_plain() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let open = |text: &str| {
            fs::write(&file, text).unwrap();
            Token::open(Some(&file), 1).map(|token| token.text).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(open("0123456789abcdef\n").as_deref(), Ok("0123456789abcdef"));
        for text in ["short", "0123456789 abcdef", "0123456789abcdef;"] {
            assert!(open(text).unwrap_err().contains("expected a token of at least 16"), "{text}");
        }
        assert!(open(&"a".repeat(5000)).unwrap_err().contains("5000 bytes are too many"));
        assert_eq!(Token::open(None, 1).unwrap().text.len(), 32);
    }
}
