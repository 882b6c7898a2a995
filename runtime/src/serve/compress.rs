//! Answers made smaller for clients that understand it, if a function's operator wants that: by gzip or zstd, one piece after another, so
//! that nothing that a function has sent waits for what it has not.

use std::{
    io::{self, Write},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    body::Frame,
    header::{
        ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG,
        HeaderName, HeaderValue, VARY,
    },
};
use zstd::stream::write::Encoder as ZstdEncoder;

/// What is shorter does not become smaller.
const SHORTEST: u64 = 256;
/// As servers usually have it: what more costs, less bytes do not make good.
const GZIP_LEVEL: u32 = 5;
const ZSTD_LEVEL: i32 = 3;
/// A stream has memory of its own: 256 KiB of what it has seen are enough for a page.
const ZSTD_WINDOW_LOG: u32 = 18;
/// What a function says of its own bytes, which are not those that the client gets.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];
/// Besides all texts.
const TYPES: [&str; 6] = [
    "application/json",
    "application/javascript",
    "application/xml",
    "application/wasm",
    "application/x-ndjson",
    "image/svg+xml",
];

/// What a client may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Zstd,
    Gzip,
}

impl Coding {
    const fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// What a client likes best, if it likes one at least as well as an answer as it is (RFC 9110, 12.5.3).
    pub(super) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let lines = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let listed: Vec<(String, u32)> = lines.flat_map(|line| line.split(',')).filter_map(parse).collect();
        let of = |name: &str| listed.iter().find(|(listed, _)| listed == name).map(|(_, quality)| *quality);
        let any = of("*");
        let plain = of("identity").unwrap_or(1);
        // The first of those that are liked as well is ours.
        [Self::Gzip, Self::Zstd]
            .into_iter()
            .map(|coding| (of(coding.name()).or(any).unwrap_or_default(), coding))
            .filter(|(quality, _)| *quality > 0 && *quality >= plain)
            .max_by_key(|(quality, _)| *quality)
            .map(|(_, coding)| coding)
    }
}

/// A name and its quality in thousandths.
fn parse(entry: &str) -> Option<(String, u32)> {
    let mut parts = entry.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?.to_ascii_lowercase();
    let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let thousandths = match quality {
        None => 1000.0,
        Some(text) => text.parse::<f32>().ok()?.clamp(0.0, 1.0) * 1000.0,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is 0 to 1000")]
    Some((name, thousandths as u32))
}

/// A body while it is made smaller.
pub(super) struct Encoding {
    /// None: its last piece was sent.
    encoder: Option<Encoder>,
    trailers: Option<Frame<Bytes>>,
}

enum Encoder {
    Zstd(ZstdEncoder<'static, Vec<u8>>),
    Gzip(GzEncoder<Vec<u8>>),
}

/// Whether an answer is made smaller; if so, its headers say it. What might have been is told to caches in any case.
pub(super) fn choose<B>(
    response: &mut Response<B>,
    length: Option<u64>,
    method: &Method,
    accepted: Option<Coding>,
) -> Option<Box<Encoding>> {
    if !is_fit(response) {
        return None;
    }
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    let coding = accepted?;
    if *method == Method::HEAD || length.is_some_and(|length| length < SHORTEST) {
        return None;
    }
    let encoding = Box::new(Encoding { encoder: Some(Encoder::new(coding).ok()?), trailers: None });
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    weaken(headers);
    Some(encoding)
}

/// Whether it is text that has not been made smaller yet, and that nobody wants as it is.
fn is_fit<B>(response: &Response<B>) -> bool {
    let (status, headers) = (response.status(), response.headers());
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let has_body = !status.is_informational()
        && ![StatusCode::NO_CONTENT, StatusCode::PARTIAL_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    let content_type = text(CONTENT_TYPE);
    let content_type = content_type.split(';').next().unwrap_or_default().trim();
    // Events are to come one by one, and there are clients that wait for more of what is encoded.
    let is_text = content_type.starts_with("text/") && content_type != "text/event-stream";
    let is_like_text =
        TYPES.contains(&content_type) || content_type.ends_with("+json") || content_type.ends_with("+xml");
    has_body
        && (is_text || is_like_text)
        && !headers.contains_key(CONTENT_ENCODING)
        && !text(CACHE_CONTROL).contains("no-transform")
        && !DIGESTS.iter().any(|name| headers.contains_key(name))
}

/// The same content in other bytes.
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/")) else { return };
    match HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()) {
        Ok(weak) => _ = headers.insert(ETAG, weak),
        Err(_) => _ = headers.remove(ETAG),
    }
}

impl Encoder {
    fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL))),
            Coding::Zstd => {
                let mut encoder = ZstdEncoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(ZSTD_WINDOW_LOG)?;
                Self::Zstd(encoder)
            }
        })
    }

    /// All that comes of what was put in so far.
    fn push(&mut self, data: &[u8]) -> io::Result<Bytes> {
        let made = match self {
            Self::Gzip(encoder) => {
                encoder.write_all(data)?;
                encoder.flush()?;
                encoder.get_mut()
            }
            Self::Zstd(encoder) => {
                encoder.write_all(data)?;
                encoder.flush()?;
                encoder.get_mut()
            }
        };
        Ok(std::mem::take(made).into())
    }

    fn finish(self) -> io::Result<Bytes> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
        .map(Bytes::from)
    }
}

impl Encoding {
    /// The next frame, of a body whose frames are polled by `next`.
    pub(super) fn poll<E: From<io::Error>>(
        &mut self,
        cx: &mut Context<'_>,
        mut next: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>>,
    ) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        loop {
            let Some(encoder) = &mut self.encoder else { return Poll::Ready(self.trailers.take().map(Ok)) };
            let made = match ready!(next(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => encoder.push(&data),
                    Err(trailers) => {
                        self.trailers = Some(trailers);
                        self.finish()
                    }
                },
                None => self.finish(),
                Some(Err(error)) => {
                    self.encoder = None;
                    return Poll::Ready(Some(Err(error)));
                }
            };
            match made {
                Ok(bytes) if bytes.is_empty() => {}
                made => return Poll::Ready(Some(made.map(Frame::data).map_err(E::from))),
            }
        }
    }

    fn finish(&mut self) -> io::Result<Bytes> {
        self.encoder.take().map_or(Ok(Bytes::new()), Encoder::finish)
    }

    /// Whether its last frame was polled.
    pub(super) fn is_over(&self) -> bool {
        self.encoder.is_none() && self.trailers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, io::Read, task::Waker};

    use super::*;

    fn accepted(value: &'static str) -> Option<Coding> {
        Coding::accepted(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(value))]))
    }

    #[test]
    fn a_client_gets_what_it_likes_best() {
        for (value, expected) in [
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip", Some(Coding::Gzip)),
            ("GZIP;q=0.5, zstd;q=0.4", Some(Coding::Gzip)),
            ("zstd;q=0, *", Some(Coding::Gzip)),
            ("*;q=0.1", Some(Coding::Zstd)),
            ("gzip;q=0", None),
            ("gzip;q=0.1, identity;q=0.5", None),
            ("br", None),
            ("gzip;q=x, ,", None),
            ("", None),
        ] {
            assert_eq!(accepted(value), expected, "{value}");
        }
        assert_eq!(Coding::accepted(&HeaderMap::new()), None);
    }

    fn chosen(status: u16, headers: &[(&str, &str)], length: u64) -> (Option<Box<Encoding>>, HeaderMap) {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let mut response = response.body(()).unwrap();
        let encoding = choose(&mut response, Some(length), &Method::GET, Some(Coding::Gzip));
        (encoding, response.headers().clone())
    }

    #[test]
    fn only_text_that_is_long_enough_and_plain_is_encoded() {
        let text = ("content-type", "text/html; charset=utf-8");
        let (encoding, headers) = chosen(200, &[text, ("etag", "\"a\""), ("content-length", "300")], 300);
        assert!(encoding.is_some());
        assert_eq!(
            (&headers[CONTENT_ENCODING], &headers[VARY], &headers[ETAG]),
            (
                &HeaderValue::from_static("gzip"),
                &HeaderValue::from_static("accept-encoding"),
                &HeaderValue::from_static("W/\"a\"")
            )
        );
        assert!(!headers.contains_key(CONTENT_LENGTH));
        let (encoding, headers) = chosen(200, &[text], 10);
        assert!(encoding.is_none() && headers.contains_key(VARY));
        for (status, further) in [
            (206, ("x", "y")),
            (204, ("x", "y")),
            (304, ("x", "y")),
            (200, ("content-encoding", "br")),
            (200, ("cache-control", "public, No-Transform")),
            (200, ("repr-digest", "sha-256=:x:")),
        ] {
            let (encoding, headers) = chosen(status, &[text, further], 300);
            assert!(encoding.is_none() && !headers.contains_key(VARY), "{status} {further:?}");
        }
        for content_type in ["text/event-stream", "image/png", "application/octet-stream", ""] {
            assert!(chosen(200, &[("content-type", content_type)], 300).0.is_none(), "{content_type}");
        }
        for content_type in ["application/problem+json", "image/svg+xml", "APPLICATION/JSON"] {
            assert!(chosen(200, &[("content-type", content_type)], 300).0.is_some(), "{content_type}");
        }
    }

    /// The data of each frame, and whether the trailers came last.
    fn frames(coding: Coding, body: &[&'static str]) -> (Vec<Bytes>, bool) {
        let mut encoding = Encoding { encoder: Some(Encoder::new(coding).unwrap()), trailers: None };
        let mut source: VecDeque<Frame<Bytes>> =
            body.iter().map(|text| Frame::data(Bytes::from_static(text.as_bytes()))).collect();
        source.push_back(Frame::trailers(HeaderMap::new()));
        let (mut made, mut has_trailers) = (Vec::new(), false);
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(frame)) =
            encoding.poll(&mut cx, |_| Poll::Ready(source.pop_front().map(Ok::<_, io::Error>)))
        {
            assert!(!has_trailers);
            match frame.unwrap().into_data() {
                Ok(data) => made.push(data),
                Err(_) => has_trailers = true,
            }
        }
        assert!(encoding.is_over());
        (made, has_trailers)
    }

    #[test]
    fn what_was_sent_can_be_read_before_the_rest_comes() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            let (made, has_trailers) = frames(coding, &["one ", "two"]);
            assert!(has_trailers && made.len() == 3, "{coding:?}: {made:?}");
            let decode = |bytes: &[u8]| {
                let mut text = Vec::new();
                // Of a part there is an error at its end.
                _ = match coding {
                    Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut text),
                    Coding::Zstd => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut text),
                };
                String::from_utf8(text).unwrap()
            };
            assert_eq!(decode(&made[0]), "one ");
            assert_eq!(decode(&made.concat()), "one two");
        }
    }
}
