//! Puts an OCI layout into a registry, by the distribution specification.
//!
//! A client of our own because the usual ones refuse to copy artifacts whose types they do not know. It knows plain
//! HTTP/1.1 over loopback only.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    time::Duration,
};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A registry at `host:port`.
pub(crate) struct Client<'a> {
    pub(crate) address: &'a str,
}

/// What a registry answered: no request here needs the body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl Client<'_> {
    /// Pushes what a layout's index names first, as `name:tag`.
    pub(crate) fn push(&self, layout: &Path, name: &str, tag: &str) -> Result<()> {
        let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
        let entry = &index["manifests"][0];
        let present = self.request("HEAD", &format!("/v2/{name}/manifests/{tag}"), None)?;
        if present.header("docker-content-digest") == entry["digest"].as_str() {
            return Ok(());
        }
        self.manifest(layout, name, entry, tag).with_context(|| format!("cannot push {name}:{tag}"))
    }

    /// Pushes a manifest or index after everything that it names.
    fn manifest(&self, layout: &Path, name: &str, descriptor: &Value, reference: &str) -> Result<()> {
        let bytes = blob(layout, descriptor)?;
        let document: Value = serde_json::from_slice(&bytes)?;
        for child in document["manifests"].as_array().into_iter().flatten() {
            self.manifest(layout, name, child, text(&child["digest"])?)?;
        }
        let config = document.get("config").into_iter();
        for part in config.chain(document["layers"].as_array().into_iter().flatten()) {
            self.blob(layout, name, part)?;
        }
        let media_type = text(&descriptor["mediaType"])?;
        let answer = self.request("PUT", &format!("/v2/{name}/manifests/{reference}"), Some((media_type, &bytes)))?;
        expect(&answer, 201, &format!("the manifest {reference}"))
    }

    /// Pushes one blob in one piece, unless it is there.
    fn blob(&self, layout: &Path, name: &str, descriptor: &Value) -> Result<()> {
        let digest = text(&descriptor["digest"])?;
        if self.request("HEAD", &format!("/v2/{name}/blobs/{digest}"), None)?.status == 200 {
            return Ok(());
        }
        let session = self.request("POST", &format!("/v2/{name}/blobs/uploads/"), Some(("", b"")))?;
        expect(&session, 202, "the start of an upload")?;
        let location = session.header("location").context("the registry names no place for an upload")?;
        let path = location.strip_prefix(&format!("http://{}", self.address)).unwrap_or(location);
        let separator = if path.contains('?') { '&' } else { '?' };
        let bytes = blob(layout, descriptor)?;
        let target = format!("{path}{separator}digest={digest}");
        expect(&self.request("PUT", &target, Some(("application/octet-stream", &bytes)))?, 201, digest)
    }

    /// One request on a connection of its own; `body` is a media type and the bytes.
    pub(crate) fn request(&self, method: &str, target: &str, body: Option<(&str, &[u8])>) -> Result<Answer> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        head += "Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, ";
        head += "application/vnd.docker.distribution.manifest.v2+json\r\n";
        if let Some((media_type, bytes)) = body {
            head += &format!("Content-Type: {media_type}\r\nContent-Length: {}\r\n", bytes.len());
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        stream.write_all(body.map_or(b"", |(_, bytes)| bytes))?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        parse(&String::from_utf8_lossy(&answer)).with_context(|| format!("{method} {target}: not an HTTP answer"))
    }
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, _) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let pair = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    Some(Answer { status, headers: lines.filter_map(pair).collect() })
}

fn expect(answer: &Answer, status: u16, what: &str) -> Result<()> {
    if answer.status != status {
        bail!("the registry answers {} to {what}, not {status}", answer.status);
    }
    Ok(())
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().context("a descriptor without its digest or media type")
}

fn blob(layout: &Path, descriptor: &Value) -> Result<Vec<u8>> {
    let digest = text(&descriptor["digest"])?;
    let path = layout.join("blobs").join(digest.replace(':', "/"));
    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn an_answer_is_its_status_and_its_headers() {
        let answer =
            parse("HTTP/1.1 202 Accepted\r\nLocation: http://a:1/x?y=z\r\nX: b\r\n\r\nbody: no\r\n").expect("valid");
        assert_eq!(answer.status, 202);
        assert_eq!(answer.header("location"), Some("http://a:1/x?y=z"));
        assert_eq!(answer.header("body"), None);
        assert!(parse("not HTTP\r\n\r\n").is_none());
    }
}
