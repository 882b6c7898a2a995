//! One container of a function as requests find it: connections to where it listens, made inside of its network namespace, so that
//! neither an address nor a published port is needed, and nobody else reaches it.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdTcpStream},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use hyper::{Request, Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use linux_exec::network::namespace;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt::TcpNoDelay};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    task::AbortHandle,
    time::timeout,
};

use super::upload::Upload;

/// Connections that are kept without a request.
const KEPT: usize = 64;
/// How long: less than what servers usually wait for the next request.
const KEPT_FOR: Duration = Duration::from_secs(3);
/// For a connection on this very machine.
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of an answer's head.
const HEAD_BYTES: usize = 256 << 10;

/// A connection on which the next request may go.
pub(super) struct Sender {
    requests: http1::SendRequest<Upload>,
    connection: AbortHandle,
}

/// Ends a connection whose request was given up: it may wait for a program that takes nothing of a body, and keep the client's with it.
struct Ends(Option<AbortHandle>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// A container that listens, or is about to.
pub(super) struct Instance {
    pub(super) id: String,
    pub(super) name: String,
    namespace: OwnedFd,
    port: u16,
    is_ipv6: AtomicBool,
    has_answered: AtomicBool,
    kept: Mutex<Vec<(Instant, Sender)>>,
}

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("cannot connect to port {port}: {error}")]
    Connect { port: u16, error: io::Error },
    #[error("{0}")]
    Http(#[from] hyper::Error),
}

/// A request without an answer.
pub(super) struct Unanswered {
    pub(super) error: SendError,
    /// Nothing of it was sent: it can be sent elsewhere.
    pub(super) unsent: Option<Box<Request<Upload>>>,
}

impl SendError {
    /// Nobody listens there any more.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self, Self::Connect { error, .. } if error.kind() == ErrorKind::ConnectionRefused)
    }
}

impl Instance {
    pub(super) fn new(id: String, name: String, namespace: OwnedFd, port: u16) -> Self {
        let [is_ipv6, has_answered] = [false; 2].map(AtomicBool::new);
        Self { id, name, namespace, port, is_ipv6, has_answered, kept: Mutex::default() }
    }

    /// It has answered a request. Whether that is the first one.
    pub(super) fn note_answer(&self) -> bool {
        !self.has_answered.swap(true, Relaxed)
    }

    pub(super) fn has_answered(&self) -> bool {
        self.has_answered.load(Relaxed)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Sends a request, on a connection that is there already if its other end has not closed it.
    pub(super) async fn send(self: &Arc<Self>, mut request: Request<Upload>) -> Result<Response<Incoming>, Unanswered> {
        while let Some(sender) = self.take_kept() {
            match self.send_on(sender, request).await {
                // Its other end closed the connection just now.
                Err(Unanswered { unsent: Some(unsent), .. }) => request = *unsent,
                answered => return answered,
            }
        }
        match self.connect().await {
            Ok(sender) => self.send_on(sender, request).await,
            Err(error) => Err(Unanswered { error, unsent: Some(Box::new(request)) }),
        }
    }

    async fn send_on(
        self: &Arc<Self>,
        mut sender: Sender,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let mut ends = Ends(Some(sender.connection.clone()));
        let sent = sender.requests.try_send_request(request).await;
        ends.0 = None;
        let response = sent.map_err(|mut error| {
            let unsent = error.take_message().map(Box::new);
            Unanswered { error: error.into_error().into(), unsent }
        })?;
        self.keep_when_free(sender);
        Ok(response)
    }

    /// A new connection.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<Sender, SendError> {
        let cannot = |error| SendError::Connect { port: self.port, error };
        let connecting = timeout(CONNECTS_WITHIN, self.connect_to_any()).await;
        let stream = connecting.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())).map_err(cannot)?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_BYTES);
        let (requests, connection) = builder.handshake(TokioIo::new(stream)).await?;
        // What goes wrong with it is seen by whoever sends on it.
        let connection = tokio::spawn(async move { _ = connection.with_upgrades().await }).abort_handle();
        Ok(Sender { requests, connection })
    }

    /// At the address of loopback where it was found last, else at the other one.
    async fn connect_to_any(self: &Arc<Self>) -> io::Result<TcpStream> {
        let ipv6 = self.is_ipv6.load(Relaxed);
        match self.connect_to(ipv6).await {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                let stream = self.connect_to(!ipv6).await.map_err(|_| error)?;
                self.is_ipv6.store(!ipv6, Relaxed);
                Ok(stream)
            }
            other => other,
        }
    }

    async fn connect_to(self: &Arc<Self>, ipv6: bool) -> io::Result<TcpStream> {
        let loopback: IpAddr = if ipv6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        let socket = self.socket(ipv6).await?;
        TcpSocket::from_std_stream(socket).connect(SocketAddr::new(loopback, self.port)).await
    }

    /// A socket is of the namespace that it was made in; the thread that made it ends there.
    async fn socket(self: &Arc<Self>, ipv6: bool) -> io::Result<StdTcpStream> {
        let (sender, made) = oneshot::channel();
        let instance = Arc::clone(self);
        thread::Builder::new().name("connect".to_owned()).spawn(move || {
            let entered = namespace::enter(instance.namespace.as_fd()).map_err(anyhow::Error::new);
            let socket = entered.and_then(|()| new_socket(ipv6));
            // Whoever wanted it may be gone.
            _ = sender.send(socket.map_err(io::Error::other));
        })?;
        made.await.map_err(io::Error::other)?
    }

    fn take_kept(&self) -> Option<Sender> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((since, sender)) = kept.pop() {
            if since.elapsed() < KEPT_FOR && sender.requests.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep_when_free(self: &Arc<Self>, sender: Sender) {
        let instance = Arc::clone(self);
        tokio::spawn(async move { instance.keep(sender).await });
    }

    /// Puts a connection back as soon as its answer is over.
    pub(super) async fn keep(&self, mut sender: Sender) {
        if sender.requests.ready().await.is_err() {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(since, sender)| since.elapsed() < KEPT_FOR && !sender.requests.is_closed());
        if kept.len() < KEPT {
            kept.push((Instant::now(), sender));
        }
    }

    /// Before it stands still: what it would close meanwhile must not be used afterwards.
    pub(super) fn forget_connections(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn new_socket(ipv6: bool) -> anyhow::Result<StdTcpStream> {
    let family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let made = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    setsockopt(&made, TcpNoDelay, &true)?;
    Ok(made.into())
}
