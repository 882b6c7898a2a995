//! A registry of a few lines that misbehaves on purpose.

use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// A request: method, path, and headers with lower-case names.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: HashMap<String, String>,
    /// How many requests for this path came before.
    pub(super) before: usize,
}

/// Writes whatever it likes to a client, head and all, until that has had enough.
pub(super) type Script = dyn Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync;

/// What is answered.
#[derive(Default, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    pub(super) cut: Option<usize>,
    /// Say nothing for so long: before the body, or where it is cut.
    pub(super) pause: Duration,
    /// Send no length, and the body so many times.
    pub(super) endless: usize,
    /// Sent instead of all this.
    pub(super) script: Option<Arc<Script>>,
}

impl Reply {
    pub(super) fn new(status: u16, body: &[u8]) -> Self {
        Self { status, body: body.to_vec(), ..Self::default() }
    }

    pub(super) fn script(script: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        Self { script: Some(Arc::new(script)), ..Self::default() }
    }

    /// The pieces one after the other, the last one without end, so long apart.
    pub(super) fn drip(pieces: &[&[u8]], apart: Duration) -> Self {
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        Self::script(move |stream| {
            pieces.iter().try_for_each(|piece| stream.write_all(piece))?;
            loop {
                thread::sleep(apart);
                stream.write_all(&pieces[pieces.len() - 1])?;
            }
        })
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

type Rule = dyn Fn(&Asked) -> Option<Reply> + Send + Sync;

/// A server on a free loopback port, until it is dropped.
pub(super) struct Server {
    pub(super) port: u16,
    /// All requests, in order.
    pub(super) asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `files` by path, except where `rule` has its own answer.
    pub(super) fn start(
        files: HashMap<String, Vec<u8>>,
        rule: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, stop) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::new(AtomicBool::new(false)));
        let (log, stopped) = (Arc::clone(&asked), Arc::clone(&stop));
        let (files, rule): (Arc<_>, Arc<Rule>) = (Arc::new(files), Arc::new(rule));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (log, files, rule) = (Arc::clone(&log), Arc::clone(&files), Arc::clone(&rule));
                thread::spawn(move || serve(stream.unwrap(), &log, &files, &*rule));
            }
        });
        Self { port, asked, stop, thread: Some(thread) }
    }

    pub(super) fn count(&self, part: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| asked.path.contains(part)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        self.thread.take().map(JoinHandle::join);
    }
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Asked>>, files: &HashMap<String, Vec<u8>>, rule: &Rule) {
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut words = line.split(' ').map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return };
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let asked = {
        let mut log = log.lock().unwrap();
        let before = log.iter().filter(|other| other.path == path).count();
        log.push(Asked { method, path, headers, before });
        log[log.len() - 1].clone()
    };
    let reply = rule(&asked).unwrap_or_else(|| file(files, &asked));
    let _ = send(stream, &asked, &reply);
}

/// What a good registry answers.
fn file(files: &HashMap<String, Vec<u8>>, asked: &Asked) -> Reply {
    let Some(body) = files.get(&asked.path) else {
        return Reply::new(404, br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#);
    };
    let offset =
        asked.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match offset {
        Some(offset) => {
            let range = format!("bytes {offset}-{}/{}", body.len() - 1, body.len());
            Reply::new(206, &body[offset..]).header("Content-Range", &range)
        }
        None => Reply::new(200, body).header("Docker-Content-Digest", &digest(body)),
    }
}

fn send(mut stream: TcpStream, asked: &Asked, reply: &Reply) -> std::io::Result<()> {
    if let Some(script) = &reply.script {
        return script(&mut stream);
    }
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    if reply.endless == 0 {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let pause_first = reply.cut.is_none();
    if pause_first {
        thread::sleep(reply.pause);
    }
    stream.write_all((head + "\r\n").as_bytes())?;
    if asked.method == "HEAD" {
        return Ok(());
    }
    for _ in 0..reply.endless.max(1) {
        stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())])?;
    }
    if !pause_first {
        stream.flush()?;
        thread::sleep(reply.pause);
    }
    Ok(())
}

/// `sha256:…` of bytes.
pub(super) fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
