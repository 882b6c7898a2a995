//! What a command asks a gateway that runs, by the socket of its operators.

use std::{
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{launcher, named};
use crate::records::host::Host;

/// A function may have to start, and a registry may be slow.
const PATIENCE: Duration = Duration::from_secs(300);
/// What is longer is no answer of a gateway's.
const LONGEST_ANSWER: u64 = 64 << 20;

/// Where the operators of a gateway come, unless its file says otherwise.
pub(crate) fn usual_socket(host: &Host, gateway: &str) -> PathBuf {
    launcher::folder(host).join(format!("{gateway}.sock"))
}

/// Tells it to serve a function from the image before; what it did.
pub(crate) fn roll_back(socket: &Path, function: &str) -> Result<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !function.chars().all(is_plain) {
        bail!("`{function}` is no name of a function: expected letters, digits and -_.");
    }
    match ask(socket, "POST", &format!("/rollback?function={function}"))? {
        (200, text) => Ok(text),
        (_, problem) => bail!("{problem}"),
    }
}

/// How its functions are: what `/status` has of each.
pub(crate) fn functions(socket: &Path) -> Result<Vec<Value>> {
    match ask(socket, "GET", "/status")? {
        (200, text) => {
            let mut status: Value = serde_json::from_str(&text).context("the status of a gateway is JSON")?;
            match status["functions"].take() {
                Value::Array(functions) => Ok(functions),
                other => bail!("a gateway's status has no functions, but {other}"),
            }
        }
        (status, text) => bail!("a gateway says {status}: {text}"),
    }
}

fn ask(socket: &Path, method: &str, target: &str) -> Result<(u16, String)> {
    let shown = socket.display();
    let mut stream = named::connect(socket).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            anyhow::anyhow!("no gateway listens at {shown}: start it, or name it by --name or --admin")
        }
        _ => anyhow::Error::new(error).context(format!("cannot connect to {shown}")),
    })?;
    stream.set_read_timeout(Some(PATIENCE)).context("cannot wait for a gateway")?;
    write!(stream, "{method} {target} HTTP/1.1\r\nhost: amphora\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .with_context(|| format!("cannot ask {shown}"))?;
    let mut answer = String::new();
    let read = stream.take(LONGEST_ANSWER).read_to_string(&mut answer);
    read.with_context(|| format!("no answer from {shown}"))?;
    let parsed = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        Some((status, body.trim_end().to_owned()))
    });
    parsed.with_context(|| format!("{shown} is no socket of a gateway, or one that ended just now"))
}
