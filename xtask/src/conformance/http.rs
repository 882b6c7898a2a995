//! HTTP as the tests speak it: servers that a program asks, and a client that asks a program.

use anyhow::{Context, Result, bail, ensure};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// No answer takes as long.
const LIMIT: Duration = Duration::from_secs(20);
/// No test has as much.
const MOST_BYTES: u64 = 1 << 20;

/// Names and values, in order.
pub(super) type Fields = Vec<(String, String)>;

/// A server that a test asks for.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) name: String,
    /// Otherwise nobody listens at its address.
    pub(super) listens: bool,
    pub(super) endpoints: Vec<Endpoint>,
}

/// What it answers to one method and path.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) reply: Reply,
}

#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// The body that came.
    EchoBody,
    /// The request's line, headers and trailers, as headers.
    EchoHeaders,
    Fixed {
        status: u16,
        headers: Fields,
        body: String,
    },
    Chunked {
        status: u16,
        headers: Fields,
        chunks: Vec<String>,
        trailers: Fields,
    },
}

/// A request to the program, and what has to come back.
#[derive(Debug, Clone)]
pub(super) struct Exchange {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: Fields,
    pub(super) body: String,
    pub(super) status: u16,
    pub(super) expected_headers: Fields,
    pub(super) expected_body: String,
}

/// A server that runs until this is dropped.
pub(super) struct Running {
    /// As the program finds its address in its environment.
    pub(super) variable: String,
    pub(super) address: SocketAddr,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Running {
    pub(super) fn start(server: &Server) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let accepting = server.listens.then(|| {
            let (endpoints, stop) = (server.endpoints.clone(), Arc::clone(&stop));
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if stop.load(Relaxed) {
                        return;
                    }
                    // A client that breaks off is one of the tests.
                    let _ = answer(&stream, &endpoints);
                }
            })
        });
        Ok(Self { variable: format!("HTTP_SERVER_{}", server.name.to_uppercase()), address, stop, accepting })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(accepting) = self.accepting.take() {
            // It looks whether it is to stop when somebody comes.
            drop(TcpStream::connect(self.address));
            let _ = accepting.join();
        }
    }
}

/// What comes in one message.
struct Message {
    line: String,
    headers: Fields,
    body: Vec<u8>,
    trailers: Fields,
}

impl Message {
    /// `whole` where a body without a length ends with the connection.
    fn read(stream: &TcpStream, has_body: bool, whole: bool) -> Result<Self> {
        stream.set_read_timeout(Some(LIMIT))?;
        let mut reader = BufReader::new(stream.take(MOST_BYTES));
        let line = line(&mut reader)?;
        let headers = fields(&mut reader)?;
        let (mut body, mut trailers) = (Vec::new(), Vec::new());
        if !has_body {
            // A length is told all the same.
        } else if value(&headers, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            while let size @ 1.. = chunk_size(&line_of(&mut reader)?)? {
                let begin = body.len();
                body.resize(begin + size, 0);
                reader.read_exact(&mut body[begin..])?;
                line_of(&mut reader)?;
            }
            trailers = fields(&mut reader)?;
        } else if let Some(length) = value(&headers, "content-length") {
            body.resize(length.parse()?, 0);
            reader.read_exact(&mut body)?;
        } else if whole {
            reader.read_to_end(&mut body)?;
        }
        Ok(Self { line, headers, body, trailers })
    }
}

fn line(reader: &mut impl BufRead) -> Result<String> {
    let line = line_of(reader)?;
    ensure!(!line.is_empty(), "the connection ends before a message begins");
    Ok(line)
}

fn line_of(reader: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

fn fields(reader: &mut impl BufRead) -> Result<Fields> {
    let mut fields = Vec::new();
    loop {
        match line_of(reader)? {
            end if end.is_empty() => return Ok(fields),
            line => {
                let (name, value) = line.split_once(':').with_context(|| format!("`{line}` is no header"))?;
                fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
    }
}

fn chunk_size(line: &str) -> Result<usize> {
    let digits = line.split(';').next().unwrap_or_default();
    let size = usize::from_str_radix(digits, 16).with_context(|| format!("`{line}` is no chunk's size"))?;
    ensure!(size as u64 <= MOST_BYTES, "a chunk of {size} bytes");
    Ok(size)
}

fn value<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// One request on one connection.
fn answer(mut stream: &TcpStream, endpoints: &[Endpoint]) -> Result<()> {
    let request = Message::read(stream, true, false)?;
    let mut words = request.line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let endpoint = endpoints.iter().find(|endpoint| endpoint.method == method && endpoint.path == path);
    let bytes = match endpoint.map(|endpoint| &endpoint.reply) {
        None => sized(404, &[], b"", method),
        Some(Reply::EchoBody) => sized(200, &[], &request.body, method),
        Some(Reply::EchoHeaders) => sized(200, &echoed(&request, method, path), b"", method),
        Some(Reply::Fixed { status, headers, body }) => sized(*status, headers, body.as_bytes(), method),
        Some(Reply::Chunked { status, headers, chunks, trailers }) => chunked(*status, headers, chunks, trailers),
    };
    Ok(stream.write_all(&bytes)?)
}

fn echoed(request: &Message, method: &str, path: &str) -> Fields {
    let prefixed = |prefix: &'static str, fields: &Fields| {
        fields.iter().map(|(name, value)| (format!("{prefix}{name}"), value.clone())).collect::<Fields>()
    };
    let line = vec![("x-request-method".into(), method.into()), ("x-request-path".into(), path.into())];
    [line, prefixed("x-echo-", &request.headers), prefixed("x-trailer-", &request.trailers)].concat()
}

fn head(status: u16, headers: &[(String, String)], more: &str) -> String {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("HTTP/1.1 {status} Test\r\n{headers}{more}connection: close\r\n\r\n")
}

fn sized(status: u16, headers: &[(String, String)], body: &[u8], method: &str) -> Vec<u8> {
    let head = head(status, headers, &format!("content-length: {}\r\n", body.len())).into_bytes();
    if method == "HEAD" { head } else { [head.as_slice(), body].concat() }
}

fn chunked(status: u16, headers: &[(String, String)], chunks: &[String], trailers: &Fields) -> Vec<u8> {
    let names: Vec<&str> = trailers.iter().map(|(name, _)| name.as_str()).collect();
    let named = if names.is_empty() { String::new() } else { format!("trailer: {}\r\n", names.join(", ")) };
    let head = head(status, headers, &format!("{named}transfer-encoding: chunked\r\n"));
    let chunks: String = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
    let trailers: String = trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{head}{chunks}0\r\n{trailers}\r\n").into_bytes()
}

/// A port of which nobody has been told yet.
pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

impl Exchange {
    /// Asks who listens there, as soon as somebody does, and looks at what comes back.
    pub(super) fn make(&self, address: SocketAddr) -> Result<()> {
        let mut stream = connect(address)?;
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = match self.body.len() {
            0 if self.method == "GET" => String::new(),
            length => format!("content-length: {length}\r\n"),
        };
        let (method, path) = (&self.method, &self.path);
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n{headers}{length}connection: close\r\n\r\n");
        stream.write_all((head + &self.body).as_bytes())?;
        let answer = Message::read(&stream, self.method != "HEAD", true)?;
        let status = answer.line.split(' ').nth(1).and_then(|word| word.parse::<u16>().ok());
        let body = String::from_utf8_lossy(&answer.body);
        ensure!(status == Some(self.status), "{method} {path}: `{}`, expected {}: {body}", answer.line, self.status);
        for (name, expected) in &self.expected_headers {
            let found = value(&answer.headers, name);
            ensure!(found == Some(expected), "{method} {path}: {name} is {found:?}, expected `{expected}`");
        }
        ensure!(body == self.expected_body, "{method} {path}: the body is `{body}`, expected `{}`", self.expected_body);
        Ok(())
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let begun = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return Ok(stream),
            Err(error) if begun.elapsed() > LIMIT => bail!("nobody listens at {address}: {error}"),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(method: &str, path: &str, body: &str, expected_body: &str) -> Exchange {
        Exchange {
            method: method.into(),
            path: path.into(),
            headers: vec![("x-a".into(), "b".into())],
            body: body.into(),
            status: 200,
            expected_headers: Vec::new(),
            expected_body: expected_body.into(),
        }
    }

    #[test]
    fn client_and_server_understand_each_other() {
        let endpoint = |method: &str, path: &str, reply| Endpoint { method: method.into(), path: path.into(), reply };
        let chunks = vec!["one".to_owned(), "two".to_owned()];
        let trailers = vec![("x-sum".to_owned(), "1".to_owned())];
        let chunked = Reply::Chunked { status: 200, headers: Vec::new(), chunks, trailers };
        let server = Server {
            name: "main".into(),
            listens: true,
            endpoints: vec![
                endpoint("POST", "/body", Reply::EchoBody),
                endpoint("GET", "/head", Reply::EchoHeaders),
                endpoint("GET", "/chunks", chunked),
            ],
        };
        let running = Running::start(&server).unwrap();
        assert_eq!(running.variable, "HTTP_SERVER_MAIN");
        exchange("POST", "/body", "text", "text").make(running.address).unwrap();
        exchange("GET", "/chunks", "", "onetwo").make(running.address).unwrap();
        let echoed = vec![("x-echo-x-a".to_owned(), "b".to_owned())];
        Exchange { expected_headers: echoed, ..exchange("GET", "/head", "", "") }.make(running.address).unwrap();
        let error = exchange("GET", "/none", "", "").make(running.address).unwrap_err().to_string();
        assert!(error.contains("404"), "{error}");
    }
}
