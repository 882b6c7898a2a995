//! Properties of what reads a registry's answers; see [`crate::fuzz`].

#![expect(clippy::unwrap_used, reason = "a panic is how a property fails")]

use super::{auth, manifests, token};
use crate::fuzz::{refused, split};
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

/// Header lines.
pub(crate) fn challenge(bytes: &[u8]) -> bool {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|&byte| byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(WWW_AUTHENTICATE, line);
    }
    let Some(challenge) = token::Challenge::of(&headers) else { return false };
    match challenge.url("library/app") {
        Err(reason) => refused(&reason),
        Ok(url) => {
            let asked = ("scope".into(), "repository:library/app:pull".into());
            assert!(url.query_pairs().any(|pair| pair == asked) && url.fragment().is_none(), "{url}");
            true
        }
    }
}

pub(crate) fn token(bytes: &[u8]) -> bool {
    match token::bearer_header(bytes, "auth.example") {
        Ok(header) => {
            assert!(header.is_sensitive() && header.as_bytes().starts_with(b"Bearer "));
            true
        }
        // Nothing of the answer, which may hold a token.
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("auth.example") && text.len() < 200, "{text}");
            false
        }
    }
}

pub(crate) fn credentials(bytes: &[u8]) -> bool {
    let read = ["alpine", "ghcr.io/a/b", "localhost:5000/x"].map(|reference| {
        let found = auth::from_config(bytes, &reference.parse().unwrap());
        if let Err(cause) = &found {
            // Of a file of passwords only the names of registries are shown.
            assert!(cause.starts_with("its entry `") || cause.starts_with("it is not what Docker writes"), "{cause}");
        }
        found.is_ok()
    });
    read == [true; 3]
}

/// The content type, a new line, the document.
pub(crate) fn manifest_answer(bytes: &[u8]) -> bool {
    let (content_type, document) = split(bytes, b'\n');
    let content_type = String::from_utf8(content_type.to_vec()).ok();
    match manifests::media_type(document, content_type) {
        Err(reason) => refused(&reason),
        Ok(media_type) => {
            assert!(manifests::is_known(&media_type), "{media_type}");
            true
        }
    }
}
