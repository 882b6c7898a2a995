//! A function that is a command: it is started for each request, of which its environment and standard input tell, and what it writes to
//! standard output is the answer (CGI/1.1, RFC 3875, which WAGI is for Wasm). Of either kind, by the same path as `amphora start -a -i`.
//!
//! ```text
//! answer ── room ── container ── amphora start -a -i ── stdin   the request's body
//!                                        │             ── stdout  head ── response.rs; then the body
//!                                        │             ── stderr  the gateway's own, line by line
//!                                        └─ killed and removed when its answer is over, or nobody wants it
//! ```

mod environment;
mod response;

use std::{
    collections::BTreeSet,
    io,
    pin::Pin,
    process::Child,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    Request, Response,
    body::{Body, Frame, SizeHint},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, ReadBuf},
    net::unix::pipe,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

pub(super) use environment::Server;

use super::{
    containers::Containers,
    function::Unavailable,
    metrics::{FunctionFigures, Now},
    plan::Plan,
    refusal::Refusal,
    upload::Upload,
};
use crate::output;

/// Of an answer's head.
const HEAD_BYTES: usize = 64 << 10;
/// What is read at once.
const PIECE: usize = 16 << 10;
/// Of a line on standard error, and how many of them a request has.
const LINE_BYTES: u64 = 4096;
const LINES: usize = 100;
/// For an ended command to be reaped.
const REAPED_WITHIN: Duration = Duration::from_secs(10);

/// One function.
pub(super) struct Cgi {
    plan: Arc<Plan>,
    containers: Arc<Containers>,
    figures: Arc<FunctionFigures>,
    room: Arc<Semaphore>,
    waiting: AtomicU32,
    running: Arc<Ids>,
    /// Of those, the ones that were told to end.
    ending: Ids,
    is_cut_off: AtomicBool,
}

/// Containers that there are.
#[derive(Default)]
struct Ids(Mutex<BTreeSet<String>>);

impl Ids {
    fn with<T>(&self, look: impl FnOnce(&mut BTreeSet<String>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A command that was started, with the other ends of its pipes.
pub(super) struct Launched {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) child: Child,
}

/// What a request got, and what it took.
pub(super) struct Answered {
    pub(super) response: Response<CgiBody>,
    pub(super) container: String,
    pub(super) waited: Duration,
}

/// Why an answer broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("{0}")]
    Read(#[from] io::Error),
    #[error("the command ended with {0}")]
    Ended(String),
}

impl Cgi {
    pub(super) fn new(plan: Arc<Plan>, containers: Arc<Containers>, figures: Arc<FunctionFigures>) -> Self {
        let room = Arc::new(Semaphore::new((plan.config.max as usize).min(Semaphore::MAX_PERMITS)));
        Self {
            plan,
            containers,
            figures,
            room,
            waiting: AtomicU32::new(0),
            running: Arc::default(),
            ending: Ids::default(),
            is_cut_off: AtomicBool::new(false),
        }
    }

    /// Starts it, and waits for the head of its answer.
    pub(super) async fn answer(&self, request: Request<Upload>, server: &Server<'_>) -> Result<Answered, Refusal> {
        let began = Instant::now();
        let permit = self.permit().await.inspect_err(|_| self.figures.note_refusal())?;
        let environment = environment::of(&request, server);
        let start = Start {
            plan: Arc::clone(&self.plan),
            containers: Arc::clone(&self.containers),
            running: Arc::clone(&self.running),
            permit,
        };
        // A task of its own: what was started is cleaned up, also where nobody waits for it any more.
        let started = tokio::spawn(start.start(environment)).await;
        let started = started.unwrap_or_else(|error| Err(error.to_string()));
        let Started { mut command, stdin, container } = started.map_err(|error| {
            self.figures.note_failed_start(&error);
            Unavailable::Failed(error)
        })?;
        let waited = began.elapsed();
        self.figures.note_start(waited);
        // It ends when the command does not read any more, or ends.
        tokio::spawn(feed(stdin, request.into_body()));
        let head = timeout(self.plan.config.timeout.duration(), command.head()).await;
        let (head, rest) = match head {
            Err(_) => return Err(Refusal::Late),
            Ok(Ok(head)) => head,
            Ok(Err(why)) => return Err(Refusal::Command(why)),
        };
        let body = CgiBody { rest, command: Some(command), ended: None };
        let response = response::parse(&head).map_err(Refusal::Command)?.map(|()| body);
        Ok(Answered { response, container, waited })
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, Unavailable> {
        if let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() {
            return Ok(permit);
        }
        let most = self.plan.config.queue;
        let more = |waiting: u32| (waiting < most).then(|| waiting + 1);
        self.waiting.fetch_update(Relaxed, Relaxed, more).map_err(|_| Unavailable::Full)?;
        let _waits = Waits(&self.waiting);
        let acquired = timeout(self.plan.config.queue_timeout.duration(), Arc::clone(&self.room).acquire_owned()).await;
        // It is closed when the gateway ends.
        acquired.map_err(|_| Unavailable::Late)?.map_err(|_| Unavailable::Retired)
    }

    /// Ids of its containers.
    pub(super) fn running(&self) -> Vec<String> {
        self.running.with(|ids| ids.iter().cloned().collect())
    }

    pub(super) fn now(&self) -> Now {
        let running = self.running.with(|ids| ids.len());
        let waiting = self.waiting.load(Relaxed) as usize;
        Now { running, in_flight: running as u64, waiting, ..Now::default() }
    }

    /// Ends all commands, whatever they do.
    pub(super) fn stop_all(&self) {
        self.is_cut_off.store(true, Relaxed);
        self.room.close();
        self.tick();
    }

    pub(super) fn tick(&self) {
        if self.is_cut_off.load(Relaxed) {
            for id in self.running().into_iter().filter(|id| self.ending.with(|ids| ids.insert(id.clone()))) {
                self.containers.end(id, self.plan.config.stop_timeout.0);
            }
        }
    }
}

/// What a start takes.
struct Start {
    plan: Arc<Plan>,
    containers: Arc<Containers>,
    running: Arc<Ids>,
    permit: OwnedSemaphorePermit,
}

struct Started {
    command: Command,
    stdin: pipe::Sender,
    container: String,
}

impl Start {
    async fn start(self, environment: Vec<String>) -> Result<Started, String> {
        let Self { plan, containers, running, permit } = self;
        let mut launched = containers.run_command(&plan, environment).await?;
        let container = launched.name.clone();
        let pipes = (launched.child.stdin.take(), launched.child.stdout.take(), launched.child.stderr.take());
        // From here on it is cleaned up, whatever fails.
        running.with(|ids| ids.insert(launched.id.clone()));
        let running = Running { launched, containers, ids: running, _permit: permit };
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err("its streams are no pipes".to_owned());
        };
        let open = || -> io::Result<_> {
            let stderr = pipe::Receiver::from_owned_fd(stderr.into())?;
            tokio::spawn(pass_on(stderr, plan.name.clone()));
            Ok((pipe::Sender::from_owned_fd(stdin.into())?, pipe::Receiver::from_owned_fd(stdout.into())?))
        };
        let (stdin, stdout) = open().map_err(|error| format!("its streams cannot be used: {error}"))?;
        Ok(Started { command: Command { stdout, running: Some(running) }, stdin, container })
    }
}

struct Waits<'a>(&'a AtomicU32);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Writes the body, as far as the command wants it.
async fn feed(mut stdin: pipe::Sender, mut body: Upload) {
    while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else { continue };
        if stdin.write_all(data).await.is_err() {
            return;
        }
    }
}

/// One that runs; killed and removed when this is dropped.
struct Command {
    stdout: pipe::Receiver,
    running: Option<Running>,
}

/// What is to be cleaned up.
struct Running {
    launched: Launched,
    containers: Arc<Containers>,
    /// Of its function.
    ids: Arc<Ids>,
    _permit: OwnedSemaphorePermit,
}

impl Command {
    /// The head of its answer, and what came with it.
    async fn head(&mut self) -> Result<(Bytes, Bytes), String> {
        let (mut read, mut looked_at) = (BytesMut::new(), 0);
        loop {
            if let Some(end) = response::end_of_head(&read, looked_at) {
                let head = read.split_to(end).freeze();
                return Ok((head, read.freeze()));
            }
            looked_at = read.len();
            if looked_at > HEAD_BYTES {
                return Err(format!("the command's answer has no head within {HEAD_BYTES} bytes"));
            }
            match self.stdout.read_buf(&mut read).await {
                Ok(0) => {
                    let how = self.end().await.ok().flatten().unwrap_or_else(|| "0".to_owned());
                    return Err(format!("the command ended with {how} before it had answered"));
                }
                Ok(_) => {}
                Err(error) => return Err(format!("the command's answer cannot be read: {error}")),
            }
        }
    }

    /// Its standard output is over: how it ends, unless that is well.
    fn end(&mut self) -> JoinHandle<Option<String>> {
        let running = self.running.take();
        spawn_blocking(move || {
            let how = running?.reap().map_or_else(|error| error.to_string(), |code| code.to_string());
            (how != "0").then_some(how)
        })
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            spawn_blocking(move || drop(running));
        }
    }
}

impl Running {
    /// Waits for it, though not for one that only closed its standard output; its exit code.
    fn reap(mut self) -> io::Result<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.launched.child.try_wait()? {
                return Ok(status.code().unwrap_or(-1));
            }
            if begun.elapsed() > REAPED_WITHIN {
                self.launched.child.kill()?;
            }
            std::thread::sleep(Duration::from_millis(1).max(begun.elapsed() / 20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its container goes with it; of one that was reaped there is nothing to kill.
        _ = self.launched.child.kill();
        _ = self.launched.child.wait();
        self.containers.discard_now(&self.launched.id);
        self.ids.with(|ids| ids.remove(&self.launched.id));
    }
}

/// What it says on standard error is the operator's.
async fn pass_on(stderr: pipe::Receiver, function: String) {
    let mut stderr = BufReader::new(stderr);
    for _ in 0..LINES {
        let mut line = Vec::new();
        match (&mut stderr).take(LINE_BYTES).read_until(b'\n', &mut line).await {
            Ok(1..) => {
                let line = String::from_utf8_lossy(&line);
                output::note(&format!("amphora serve: function {function}: {}", output::harmless(line.trim_end())));
            }
            Ok(0) | Err(_) => return,
        }
    }
    // It must not wait for a reader.
    _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
}

/// An answer's body.
pub(super) struct CgiBody {
    /// What came with the head.
    rest: Bytes,
    command: Option<Command>,
    /// It is known how the command ends.
    ended: Option<JoinHandle<Option<String>>>,
}

impl Body for CgiBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        if this.rest.has_remaining() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.rest)))));
        }
        if let Some(command) = &mut this.command {
            let mut piece = vec![0; PIECE];
            let mut buffer = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut command.stdout).poll_read(cx, &mut buffer))?;
            let length = buffer.filled().len();
            if length > 0 {
                piece.truncate(length);
                return Poll::Ready(Some(Ok(Frame::data(piece.into()))));
            }
            this.ended = Some(command.end());
            this.command = None;
        }
        let Some(ended) = &mut this.ended else { return Poll::Ready(None) };
        let how = ready!(Pin::new(ended).poll(cx)).ok().flatten();
        this.ended = None;
        Poll::Ready(how.map(|how| Err(Broken::Ended(how))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.command.is_none() && self.ended.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
