//! The host's journal, which has a container's output too with `--log-driver journald`: one datagram for each entry, with Docker's
//! fields.
//!
//! Source: systemd's "Native Journal Protocol", and moby `daemon/logger/journald`.

use std::{io, os::unix::net::UnixDatagram, path::Path, time::Duration};

use anyhow::{Context, Result};
use serde_json::json;

use super::log::Stream;
use crate::{
    output,
    spec::{RunSpec, names},
};

/// Where journald takes what programs send.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// How long one that does not read is waited for. What it does not take the container's own log has all the same.
const WAITS: Duration = Duration::from_secs(1);
/// Of a tag that was not asked for.
const TAG: &str = "{{.ID}}";

/// What is sent to it.
pub(crate) struct Journal {
    socket: UnixDatagram,
    /// Of the container, the same in all entries.
    fields: Vec<u8>,
    entry: Vec<u8>,
    refuses: bool,
}

impl Journal {
    /// One that listens at `socket`.
    ///
    /// # Errors
    /// Nobody listens there, or the tag is no template.
    pub(super) fn open(socket: &Path, spec: &RunSpec) -> Result<Self> {
        let sender = UnixDatagram::unbound().context("cannot make a socket")?;
        sender.set_write_timeout(Some(WAITS))?;
        sender.connect(socket).with_context(|| {
            format!("--log-driver journald: journald does not listen at {} (json-file needs nobody)", socket.display())
        })?;
        let mut fields = Vec::new();
        for (name, value) in of_container(spec)? {
            field(&mut fields, &name, value.as_bytes());
        }
        Ok(Self { socket: sender, fields, entry: Vec::new(), refuses: false })
    }

    /// One entry; `full`: a line's end.
    pub(super) fn send(&mut self, stream: Stream, full: bool, text: &[u8]) {
        // As with Docker: informational, and error.
        let priority: &[u8] = if stream == Stream::Stdout { b"6" } else { b"3" };
        self.entry.clear();
        self.entry.extend_from_slice(&self.fields);
        field(&mut self.entry, "PRIORITY", priority);
        if !full {
            field(&mut self.entry, "CONTAINER_PARTIAL_MESSAGE", b"true");
        }
        field(&mut self.entry, "MESSAGE", text);
        let sent = self.socket.send(&self.entry);
        if let Err(error) = sent
            && !std::mem::replace(&mut self.refuses, true)
        {
            complain(&error);
        }
    }
}

fn complain(error: &io::Error) {
    output::note(&format!("amphora: warning: journald does not take all of a container's output: {error}"));
}

/// By Docker's names.
fn of_container(spec: &RunSpec) -> Result<Vec<(String, String)>> {
    let details = spec.log.details.of(spec);
    let short = names::short_id(&spec.id);
    let digest = spec.image.digest.rsplit(':').next().unwrap_or_default();
    let row = json!({
        "ID": short,
        "FullID": spec.id,
        "Name": spec.name,
        "ImageID": names::short_id(digest),
        "ImageFullID": spec.image.digest,
        "ImageName": spec.image.name,
        "DaemonName": "amphora",
        "ExtraAttributes": details,
    });
    let template = spec.log.details.tag.as_deref().unwrap_or(TAG);
    let tag = output::object(Some(template), &row).with_context(|| format!("--log-opt tag={template}"))?;
    let tag = tag.unwrap_or_default().trim_end().to_owned();
    let own = [
        ("CONTAINER_ID", short),
        ("CONTAINER_ID_FULL", spec.id.as_str()),
        ("CONTAINER_NAME", spec.name.as_str()),
        ("CONTAINER_TAG", tag.as_str()),
        ("IMAGE_NAME", spec.image.name.as_str()),
        ("SYSLOG_IDENTIFIER", tag.as_str()),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(own.into_iter().chain(details.into_iter().map(|(name, value)| (field_name(&name), value))).collect())
}

/// Journals take capital letters, digits and underscores, no underscore first.
fn field_name(name: &str) -> String {
    let plain: String =
        name.chars().map(|one| if one.is_ascii_alphanumeric() { one.to_ascii_uppercase() } else { '_' }).collect();
    plain.trim_start_matches('_').to_owned()
}

/// A value of several lines, as any that may be one, is told by its length.
fn field(to: &mut Vec<u8>, name: &str, value: &[u8]) {
    if name.is_empty() {
        return;
    }
    to.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        to.push(b'\n');
        to.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        to.push(b'=');
    }
    to.extend_from_slice(value);
    to.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_dockers_fields() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let text = r#"{"id":"0123456789abcdef","name":"web","image":{"name":"bb:1","digest":"sha256:fe","kind":"linux"},"argv":["sh"],
            "labels":{"_a.b":"two\nlines"},"log":{"driver":"journald","details":{"labels":["_a.b"],"tag":"{{.Name}}/{{.ID}}"}}}"#;
        let spec: RunSpec = serde_json::from_str(text).unwrap();
        assert!(Journal::open(&path, &spec).is_err());
        let listener = UnixDatagram::bind(&path).unwrap();
        let mut journal = Journal::open(&path, &spec).unwrap();
        journal.send(Stream::Stderr, false, b"a\xff\nb");
        let mut entry = [0; 1024];
        let length = listener.recv(&mut entry).unwrap();
        let entry = &entry[..length];
        for part in [
            &b"CONTAINER_ID=0123456789ab\n"[..],
            b"CONTAINER_NAME=web\n",
            b"CONTAINER_TAG=web/0123456789ab\n",
            b"IMAGE_NAME=bb:1\n",
            b"A_B\n\x09\0\0\0\0\0\0\0two\nlines\n",
            b"PRIORITY=3\n",
            b"CONTAINER_PARTIAL_MESSAGE=true\n",
            b"MESSAGE\n\x04\0\0\0\0\0\0\0a\xff\nb\n",
        ] {
            let is_there = entry.windows(part.len()).any(|window| window == part);
            assert!(is_there, "{} in {}", String::from_utf8_lossy(part), String::from_utf8_lossy(entry));
        }
        drop(listener);
        // Whoever is gone holds up nobody.
        journal.send(Stream::Stdout, true, b"x");
        assert!(journal.refuses);
    }
}
