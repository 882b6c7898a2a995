//! `wasi:http`'s requests of a program's own: a connection for each, to a destination that was granted.

use super::{LookupError, Network, Refusal};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    Method, Request, Response, Uri,
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::{Builder, Connection, SendRequest},
    http::uri::{PathAndQuery, Scheme},
};
use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep, timeout},
};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks, io::TokioIo};

/// What a program may send before it is asked to wait until its client, or server, has taken some of it.
const BUFFERED_CHUNKS: usize = 8;
const CHUNK_BYTES: usize = 16 << 10;

/// Of an answer's head, and of what is read beyond it.
const BUFFER_BYTES: usize = 128 << 10;

/// Where the program does not say.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
const ANSWER_WITHIN: Duration = Duration::from_secs(600);

/// What wasmtime-wasi-http asks its host.
#[derive(Debug)]
pub(crate) struct Hooks(pub(crate) Network);

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        let network = self.0.clone();
        Box::new(async move { send(&network, request, options.unwrap_or_default()).await })
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        BUFFERED_CHUNKS
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES
    }
}

/// An answer, and what goes on beside its body.
type Sent = (Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Link = Connection<TokioIo<Box<dyn Stream>>, WasiBody>;

async fn send(network: &Network, mut request: Request<WasiBody>, options: RequestOptions) -> Result<Sent, Error> {
    let within = options.connect_timeout.unwrap_or(CONNECT_WITHIN);
    let (host, port, secure) = target(request.uri())?;
    if request.method() == Method::CONNECT {
        // What is asked for is then no resource of the host's, but another host.
        return Err(Error::HttpRequestMethodInvalid);
    }
    let opened = async {
        let (stream, permit) = network.connect(&host, port, within).await.map_err(Error::from)?;
        let stream: Box<dyn Stream> = match &network.0.setting {
            Some(setting) if secure => Box::new(setting.trust.connect(&host, stream).await?),
            _ => Box::new(stream),
        };
        let (sender, link) = Builder::new().max_buf_size(BUFFER_BYTES).handshake(TokioIo::new(stream)).await?;
        Ok::<_, Error>((sender, link, permit))
    };
    let (sender, link, permit) = timeout(within, opened).await.map_err(|_| Error::ConnectionTimeout)??;
    *request.uri_mut() = Uri::from(path(request.uri())?);
    exchange(sender, link, permit, request, &options).await
}

/// Host as it was written, port, and whether TLS is spoken.
fn target(uri: &Uri) -> Result<(String, u16, bool), Error> {
    let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return Err(Error::HttpRequestUriInvalid);
    }
    let secure = uri.scheme() == Some(&Scheme::HTTPS);
    let port = match authority.port() {
        Some(port) => port.as_u16(),
        None if authority.as_str().ends_with(':') => return Err(Error::HttpRequestUriInvalid),
        None if secure => 443,
        None => 80,
    };
    Ok((authority.host().to_owned(), port, secure))
}

/// What the server is asked for, which is at least its root.
fn path(uri: &Uri) -> Result<PathAndQuery, Error> {
    let whole = match uri.path_and_query().map_or("/", PathAndQuery::as_str) {
        query if query.starts_with('?') => format!("/{query}"),
        path => path.to_owned(),
    };
    whole.try_into().map_err(|_| Error::HttpRequestUriInvalid)
}

/// Sends the request, and waits for the head of the answer, while the connection goes on.
async fn exchange(
    mut sender: SendRequest<WasiBody>,
    link: Link,
    permit: OwnedSemaphorePermit,
    request: Request<WasiBody>,
    options: &RequestOptions,
) -> Result<Sent, Error> {
    let mut link = Some(Box::pin(link));
    let mut answer = pin!(sender.send_request(request));
    let head = poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(answer.map_err(Error::from));
        }
        let Some(running) = &mut link else { return Poll::Pending };
        match running.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(())) => {
                link = None;
                answer.as_mut().poll(cx).map_err(Error::from)
            }
        }
    });
    let within = options.first_byte_timeout.unwrap_or(ANSWER_WITHIN);
    let answer = timeout(within, head).await.map_err(|_| Error::ConnectionReadTimeout)??;
    let between = options.between_bytes_timeout.unwrap_or(ANSWER_WITHIN);
    let answer = answer.map(|body| Download { body, between, patience: Box::pin(sleep(between)) }.boxed_unsync());
    let rest = async move {
        let _permit = permit;
        match link {
            Some(link) => link.await.map_err(Error::from),
            None => Ok(()),
        }
    };
    Ok((answer, Box::new(rest)))
}

/// The body of an answer, which is waited for no longer than the program says.
struct Download {
    body: Incoming,
    between: Duration,
    patience: Pin<Box<Sleep>>,
}

impl Body for Download {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                // Further than this nobody looks.
                let until = Instant::now().checked_add(this.between).unwrap_or_else(|| Instant::now() + ANSWER_WITHIN);
                this.patience.as_mut().reset(until);
                Poll::Ready(frame.map(|frame| frame.map_err(Error::from)))
            }
            Poll::Pending => this.patience.as_mut().poll(cx).map(|()| Some(Err(Error::ConnectionReadTimeout))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let told = |rcode: &str| Self::DnsError { rcode: Some(rcode.to_owned()), info_code: None };
        match refusal {
            Refusal::Denied => Self::HttpRequestDenied,
            Refusal::Misled => Self::DestinationIpProhibited,
            Refusal::Lookup(LookupError::NoSuchName) => told("NXDOMAIN"),
            Refusal::Lookup(LookupError::Failed(detail)) => told(&detail),
            Refusal::Lookup(LookupError::TimedOut) => Self::DnsTimeout,
            Refusal::TimedOut => Self::ConnectionTimeout,
            Refusal::TooMany => Self::ConnectionLimitReached,
            Refusal::Io(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => Self::ConnectionRefused,
                io::ErrorKind::TimedOut => Self::ConnectionTimeout,
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::DestinationIpUnroutable,
                _ => Self::DestinationUnavailable,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_to_one_host_and_one_port() {
        let of = |text: &str| target(&text.parse::<Uri>().unwrap()).ok();
        assert_eq!(of("http://a.example/x"), Some(("a.example".into(), 80, false)));
        assert_eq!(of("https://a.example"), Some(("a.example".into(), 443, true)));
        assert_eq!(of("https://[::1]:8443/"), Some(("[::1]".into(), 8443, true)));
        assert_eq!(of("/x"), None);
        assert_eq!(of("http://user@a.example/"), None);
        assert_eq!(of("http://a.example@b.example/"), None);
    }

    #[test]
    fn a_server_is_asked_for_its_root_at_least() {
        let of = |text: &str| path(&text.parse::<Uri>().unwrap()).unwrap().to_string();
        assert_eq!(of("http://a.example"), "/");
        assert_eq!(of("http://a.example?x=1"), "/?x=1");
        assert_eq!(of("http://a.example/b?x=1"), "/b?x=1");
    }
}
