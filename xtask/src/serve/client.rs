//! A client of HTTP/1.1 that keeps its connection.

use anyhow::{Context, Result, bail, ensure};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

/// No answer takes as long.
const LIMIT: Duration = Duration::from_secs(60);
/// No answer here has as much.
const MOST_BYTES: usize = 256 << 20;

/// One client.
pub(super) struct Client {
    port: u16,
    connection: Option<BufReader<TcpStream>>,
}

/// What it was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Client {
    pub(super) fn new(port: u16) -> Self {
        Self { port, connection: None }
    }

    /// An answer that is whole.
    ///
    /// # Errors
    /// There is none, or a part of one. The next request is sent on a new connection.
    pub(super) fn get(&mut self, path: &str) -> Result<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        write!(connection.get_mut(), "GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").context("cannot send")?;
        let (status, body, stays) = read_answer(&mut connection)?;
        if stays {
            self.connection = Some(connection);
        }
        Ok(Answer { status, body })
    }

    fn connect(&self) -> Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).context("cannot connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(BufReader::new(stream))
    }
}

/// How long a body is.
enum Length {
    Bytes(usize),
    Chunked,
}

fn read_answer(from: &mut impl BufRead) -> Result<(u16, Vec<u8>, bool)> {
    let first = line(from)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("no status in `{first}`"))?;
    let (mut length, mut stays) = (Length::Bytes(0), true);
    loop {
        let line = line(from)?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        match line.split_once(':').map(|(name, value)| (name, value.trim())) {
            Some(("content-length", value)) => length = Length::Bytes(value.parse().context("content-length")?),
            Some(("transfer-encoding", _)) => length = Length::Chunked,
            Some(("connection", "close")) => stays = false,
            Some(_) => {}
            None => bail!("no header: `{line}`"),
        }
    }
    let body = match length {
        Length::Bytes(bytes) => exactly(from, bytes)?,
        Length::Chunked => chunks(from)?,
    };
    Ok((status, body, stays))
}

fn line(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    from.take(1 << 16).read_line(&mut line).context("cannot read")?;
    let line = line.strip_suffix("\r\n").context("the connection was closed")?;
    Ok(line.to_owned())
}

fn exactly(from: &mut impl Read, bytes: usize) -> Result<Vec<u8>> {
    ensure!(bytes <= MOST_BYTES, "a body of {bytes} bytes");
    let mut body = vec![0; bytes];
    from.read_exact(&mut body).context("the answer broke off")?;
    Ok(body)
}

fn chunks(from: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = usize::from_str_radix(&line(from)?, 16).context("the size of a chunk")?;
        ensure!(body.len().saturating_add(size) <= MOST_BYTES, "more than {MOST_BYTES} bytes");
        if size == 0 {
            while !line(from)?.is_empty() {}
            return Ok(body);
        }
        body.extend(exactly(from, size)?);
        ensure!(line(from)?.is_empty(), "a chunk that is longer than it says");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_an_error() {
        let read =
            |text: &str| read_answer(&mut text.as_bytes()).map(|(status, body, stays)| (status, body.len(), stays));
        let sized = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
        assert_eq!(read(sized).unwrap(), (200, 3, true));
        assert!(read(&sized[..sized.len() - 1]).is_err());
        let chunked = "HTTP/1.1 500 No\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
        assert_eq!(read(chunked).unwrap(), (500, 2, false));
        assert!(read(&chunked[..chunked.len() - 5]).is_err());
        assert!(read("").is_err());
    }
}
