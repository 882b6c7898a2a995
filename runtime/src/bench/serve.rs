//! Servers in images: how long from the command until one answers a request with 200, and how long one more request takes.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStderr, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use sha2::{Digest, Sha256};

use super::{
    Benchmark,
    peers::{self, Job},
    process::{self, Run, is_interrupted, milliseconds},
    stage::Material,
};

/// The built-in server's argument for all addresses of the machine, where it stands behind a network of its own.
pub(super) const EVERYWHERE: &str = "all";
/// Between two attempts to be answered: what a row can tell apart.
const PAUSE: Duration = Duration::from_micros(200);
/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a server that was asked to end may take; longer than the time after which most kill what does not.
const END_WITHIN: Duration = Duration::from_secs(12);
/// Of an answer so much is read.
const READ_BYTES: usize = 64 << 20;
/// Of a server's complaints so much is kept.
const KEPT_BYTES: usize = 4096;

/// Where a server of a subject is reached, and how it is told to end.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) port: u16,
    /// Where it is reached if it stands behind a network of its own: whoever publishes a port wants one that nobody has used a moment ago.
    published_port: u16,
    /// By a request for /end; else by SIGTERM.
    ends_when_asked: bool,
}

impl Door {
    /// `127.0.0.1:PORT`
    pub(super) fn address(&self) -> String {
        self.socket_address().to_string()
    }

    /// The same server at a port that is published.
    pub(super) fn behind(&self) -> Self {
        Self { port: self.published_port, ..self.clone() }
    }

    /// As `-p` takes it; `inside`: where the server listens.
    pub(super) fn published(&self, inside: u16) -> String {
        format!("{}:{inside}", self.address())
    }

    fn socket_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Whether somebody answers there, whatever it is.
    fn is_taken(&self) -> bool {
        TcpStream::connect_timeout(&self.socket_address(), ANSWER_WITHIN).is_ok()
    }

    /// Whether a request is answered with 200.
    pub(super) fn answers(&self) -> bool {
        self.ask("/").is_ok_and(|answer| answer.status == 200)
    }

    fn ask(&self, path: &str) -> Result<Answer> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let mut stream = TcpStream::connect_timeout(&self.socket_address(), ANSWER_WITHIN)?;
        stream.set_nodelay(true)?;
        // In one piece: a server may answer what it has read, and go.
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address());
        stream.write_all(request.as_bytes())?;
        let mut bytes = Vec::new();
        let (head, at) = loop {
            let count = read_by(&mut stream, &mut bytes, deadline)?;
            ensure!(count > 0 && bytes.len() < 1 << 20, "the answer has no whole head");
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break (end + 4, Instant::now());
            }
        };
        // What came before a reset, or in time, is there.
        while bytes.len() < READ_BYTES && read_by(&mut stream, &mut bytes, deadline).is_ok_and(|count| count > 0) {}
        let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no HTTP answer")?;
        let is_chunked = text.lines().any(|line| line.starts_with("transfer-encoding:") && line.contains("chunked"));
        let body = if is_chunked { unchunked(&bytes[head..]) } else { bytes[head..].to_vec() };
        Ok(Answer { status, at, body })
    }

    /// Has a server end: whether it did so by itself.
    pub(super) fn close(&self, server: &mut Child) -> Result<bool> {
        if !self.ends_when_asked || self.ask("/end").is_err() {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(i32::try_from(server.id())?), Signal::SIGTERM);
        }
        let deadline = Instant::now() + END_WITHIN;
        while Instant::now() < deadline && !is_interrupted() {
            if server.try_wait()?.is_some() {
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(false)
    }
}

struct Answer {
    status: u16,
    /// When its head was here.
    at: Instant,
    body: Vec<u8>,
}

/// What is there next, or the end; a server that sends a byte now and then holds nothing up.
fn read_by(stream: &mut TcpStream, bytes: &mut Vec<u8>, deadline: Instant) -> Result<usize> {
    let left = deadline.saturating_duration_since(Instant::now());
    ensure!(!left.is_zero(), "the answer takes too long");
    stream.set_read_timeout(Some(left))?;
    let mut buffer = [0; 16 << 10];
    let count = stream.read(&mut buffer)?;
    bytes.extend_from_slice(&buffer[..count]);
    Ok(count)
}

/// A body that came in chunks; what is cut off is left out.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).ok().and_then(|size| size.split(';').next());
        let Some(size) = size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok()).filter(|size| *size > 0)
        else {
            break;
        };
        let chunk = rest.get(end + 2..).unwrap_or_default();
        body.extend_from_slice(&chunk[..size.min(chunk.len())]);
        rest = chunk.get(size.saturating_add(2)..).unwrap_or_default();
    }
    body
}

/// Starts a server, asks it until it answers, once more, and has it end.
pub(super) fn run(words: &[String], door: &Door, timeout: Duration) -> Result<Run> {
    ensure!(!door.is_taken(), "something else answers at port {} of this machine", door.port);
    let before = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let begun = Instant::now();
    let mut server =
        process::command(words).stdout(Stdio::null()).spawn().with_context(|| format!("cannot start {}", words[0]))?;
    let complaint = Complaint::of(server.stderr.take());
    let answered = first_answer(&mut server, door, begun + timeout).and_then(|first| {
        let asked = Instant::now();
        let next = door.ask("/").context("it answered once, and not again")?;
        Ok((first, next.at - asked))
    });
    let (answer, next) = match answered {
        Ok(answered) => answered,
        Err(error) => {
            process::end_all()?;
            bail!("{error:#}{}", complaint.quoted());
        }
    };
    let ended_itself = door.close(&mut server)?;
    let left_behind = if ended_itself { process::settle()? } else { process::end_all()? };
    let after = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let (user_ms, system_ms, minor_faults) = process::cost_between(&before, &after);
    Ok(Run {
        wall_ms: milliseconds(answer.at - begun),
        first_byte_ms: None,
        request_ms: Some(milliseconds(next)),
        user_ms,
        system_ms,
        minor_faults,
        exit_code: if ended_itself { 0 } else { 128 + Signal::SIGKILL as i32 },
        output: process::hex(&Sha256::digest(&answer.body)),
        output_bytes: answer.body.len() as u64,
        complaint: complaint.text(),
        left_behind: if ended_itself { left_behind } else { 0 },
    })
}

fn first_answer(server: &mut Child, door: &Door, deadline: Instant) -> Result<Answer> {
    let mut other = None;
    while Instant::now() < deadline {
        match door.ask("/") {
            Ok(answer) if answer.status == 200 => return Ok(answer),
            Ok(answer) => other = Some(answer.status),
            // Nobody listens yet.
            Err(_) => {}
        }
        if is_interrupted() {
            bail!("interrupted");
        }
        if let Some(status) = server.try_wait()? {
            bail!("it ended ({}) before it answered at port {}", ending(status), door.port);
        }
        thread::sleep(PAUSE);
    }
    let what = other.map_or_else(String::new, |status| format!(", only with status {status}"));
    bail!("it did not answer at port {} in time{what}: killed", door.port)
}

fn ending(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

/// What a server writes to standard error, which somebody has to read so that it is not held up.
struct Complaint(Arc<Mutex<Vec<u8>>>);

impl Complaint {
    fn of(pipe: Option<ChildStderr>) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (writer, mut buffer) = (kept.clone(), vec![0; 4096]);
        // It ends with the last of those who may write.
        thread::spawn(move || {
            let mut pipe = pipe?;
            while let Some(count) = pipe.read(&mut buffer).ok().filter(|count| *count > 0) {
                let mut kept: std::sync::MutexGuard<'_, Vec<u8>> =
                    writer.lock().unwrap_or_else(PoisonError::into_inner);
                let wanted = KEPT_BYTES.saturating_sub(kept.len()).min(count);
                kept.extend_from_slice(&buffer[..wanted]);
            }
            Some(())
        });
        Self(kept)
    }

    fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).trim().to_owned()
    }

    fn quoted(&self) -> String {
        match self.text().lines().next_back() {
            None => String::new(),
            Some(line) => format!(": {line}"),
        }
    }
}

impl Benchmark<'_> {
    /// The rows of servers: of the user's images, or of the built-in ones.
    pub(super) fn servers(&mut self, materials: &[Material]) -> Result<()> {
        let door = Door {
            port: self.request.port.map_or_else(free_port, Ok)?,
            published_port: free_port()?,
            ends_when_asked: self.request.images.is_empty(),
        };
        let mut lanes = Vec::new();
        for material in self.stage.servers(materials, door.port, self.request)? {
            if is_interrupted() {
                break;
            }
            let asked = material.is_linux() && door.ends_when_asked;
            let door = Door { ends_when_asked: asked, ..door.clone() };
            let contenders = peers::all(self.stage, self.request, &material, Job::Serve(&door), &mut self.results)?;
            lanes.extend(self.qualify(&material, contenders)?);
        }
        self.rounds(&mut lanes)
    }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("there is no free port on loopback")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_in_chunks_are_put_together() {
        for (chunks, body) in [
            (&b"5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n"[..], &b"hello!"[..]),
            (b"5\r\nhel", b"hel"),
            (b"ffffffffffffffff\r\nx", b"x"),
            (b"nonsense\r\n", b""),
            (b"", b""),
        ] {
            assert_eq!(unchunked(chunks), body);
        }
    }

    #[test]
    fn answers_of_all_lengths_are_read() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let door = Door { port, published_port: port, ends_when_asked: false };
        let answers = ["HTTP/1.1 200 OK\r\n\r\nbody", "HTTP/1.0 503 No\r\nA: b\r\n\r\n", "nonsense", ""];
        let server = thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1000]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let told = answers.map(|_| door.ask("/").map(|answer| (answer.status, answer.body)).ok());
        server.join().unwrap();
        assert_eq!(told, [Some((200, b"body".to_vec())), Some((503, Vec::new())), None, None]);
        assert!(!door.is_taken());
    }
}
