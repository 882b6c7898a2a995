//! Where operators come: a unix socket that only the gateway's own user can open and, if that is wanted, a port for those who know a token.
//! It tells, and changes nothing but which image of a function is served.

use std::{
    convert::Infallible,
    fs,
    io::{self, ErrorKind},
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixListener as StdUnixListener,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, LOCATION, REFERRER_POLICY,
        SET_COOKIE, WWW_AUTHENTICATE,
    },
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::Semaphore,
};
use wasm_exec::http::front::Io;

use super::{
    function::Function,
    gateway::Gateway,
    metrics, named, sockets,
    status::{self, Events, Report},
    token::{Shown, Token},
    watch,
};
use crate::output::{self, errors};

/// Operators at once, of each way to come.
const CONNECTIONS: usize = 32;
/// Whoever knows no token must not take a connection for long.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Where descriptors or memory are short, they may not be in a moment.
const SHORTAGE: Duration = Duration::from_millis(50);
const PLAIN: &str = "text/plain; charset=utf-8";

/// The socket's name, which goes with this.
pub(super) struct Operators(PathBuf);

impl Drop for Operators {
    fn drop(&mut self) {
        // The next gateway takes the place of what stays.
        _ = fs::remove_file(&self.0);
    }
}

/// Listens there until it is dropped.
pub(super) fn listen(gateway: Arc<Gateway>, path: PathBuf) -> Result<Operators> {
    let socket = bind(&path)?;
    socket.set_nonblocking(true).context("cannot serve the socket of operators")?;
    let listener = UnixListener::from_std(socket).context("cannot serve the socket of operators")?;
    let next = async move || listener.accept().await.map(|(socket, _)| Box::new(socket) as Box<dyn Io>);
    tokio::spawn(accept(gateway, None, next));
    Ok(Operators(path))
}

/// Listens at a port, too, for those who know the token; where a browser is to go, is told.
pub(super) fn listen_at(gateway: Arc<Gateway>, address: SocketAddr, token: Option<&Path>) -> Result<()> {
    let socket = sockets::open_at(address).context("admin")?;
    let address = socket.local_addr().context("cannot ask a socket for its address")?;
    let own = Token::open(token, address.port())?;
    // What stands in a file is known to those who are to know it.
    let query = if token.is_none() { own.query() } else { String::new() };
    let listener = TcpListener::from_std(socket).context("cannot serve the socket of operators")?;
    let next = async move || listener.accept().await.map(|(socket, _)| Box::new(socket) as Box<dyn Io>);
    tokio::spawn(accept(gateway, Some(Arc::new(own)), next));
    output::note(&format!("amphora serve: operators: http://{address}/{query}"));
    if !address.ip().is_loopback() {
        output::note("amphora serve: operators come in the clear: whoever sees their connections sees the token");
    }
    Ok(())
}

fn bind(path: &Path) -> Result<StdUnixListener> {
    let shown = path.display();
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot look at {shown}")),
        // That of a gateway that was killed. Other files refuse connections, too.
        Ok(found) if found.file_type().is_socket() && nobody_listens(path) => {
            fs::remove_file(path).with_context(|| format!("cannot remove {shown}"))?;
        }
        Ok(_) => {
            bail!("admin: {shown} is there already, and is no socket of a gateway that has ended; give another path")
        }
    }
    let socket = named::bind(path).with_context(|| format!("admin: cannot listen at {shown}"))?;
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(path, private).with_context(|| format!("cannot close {shown} to others"))?;
    Ok(socket)
}

fn nobody_listens(path: &Path) -> bool {
    named::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

async fn accept(
    gateway: Arc<Gateway>,
    token: Option<Arc<Token>>,
    mut next: impl AsyncFnMut() -> io::Result<Box<dyn Io>>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok(socket) = next().await else {
            tokio::time::sleep(SHORTAGE).await;
            continue;
        };
        let (gateway, token) = (Arc::clone(&gateway), token.clone());
        let service = service_fn(move |request| {
            let (gateway, token) = (Arc::clone(&gateway), token.clone());
            async move { Ok::<_, Infallible>(admit(&gateway, token.as_deref(), &request).await) }
        });
        tokio::spawn(async move {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
            _ = builder.serve_connection(TokioIo::new(socket), service).await;
            drop(permit);
        });
    }
}

/// Answers who knows the token; None: who came is known already.
async fn admit(gateway: &Arc<Gateway>, token: Option<&Token>, request: &Request<Incoming>) -> Response<Report> {
    let path = request.uri().path();
    let shown = token.map_or(Shown::Right, |token| token.shown(request));
    match (shown, token) {
        // Whoever asks whether it lives learns no more than whoever connects.
        _ if matches!(path, "/healthz" | "/readyz") => answer(gateway, request).await,
        (Shown::InQuery, Some(token)) => {
            let mut response = respond(StatusCode::SEE_OTHER, PLAIN, String::new());
            response.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
            response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            token.cookie().into_iter().for_each(|cookie| _ = response.headers_mut().insert(SET_COOKIE, cookie));
            response
        }
        (Shown::Nothing, _) => {
            let text = "401: expected Authorization: Bearer TOKEN, or once /?token=TOKEN in a browser\n";
            let mut response = respond(StatusCode::UNAUTHORIZED, PLAIN, text.to_owned());
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
        (Shown::Right | Shown::InQuery, _) => answer(gateway, request).await,
    }
}

async fn answer(gateway: &Arc<Gateway>, request: &Request<Incoming>) -> Response<Report> {
    let is_change = request.uri().path() == "/rollback";
    let allowed = if is_change { "POST" } else { "GET, HEAD" };
    let is_allowed = match *request.method() {
        Method::GET | Method::HEAD => !is_change,
        Method::POST => is_change,
        _ => false,
    };
    if !is_allowed {
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, PLAIN, format!("{allowed}\n"));
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return response;
    }
    let plain = |status, text: &str| respond(status, PLAIN, format!("{text}\n"));
    match request.uri().path() {
        "/healthz" => plain(StatusCode::OK, "ok"),
        "/readyz" if gateway.is_stopping() => plain(StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        "/readyz" => plain(StatusCode::OK, "ok"),
        "/metrics" => respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", figures(gateway)),
        "/status" => respond(StatusCode::OK, "application/json", status::text(gateway) + "\n"),
        "/events" => {
            respond_with(StatusCode::OK, "text/event-stream", Report::Events(Events::new(Arc::clone(gateway))))
        }
        "/rollback" => {
            let function = request.uri().query().and_then(|query| query.strip_prefix("function="));
            let Some(function) = function else {
                return plain(StatusCode::BAD_REQUEST, "expected /rollback?function=NAME");
            };
            match watch::roll_back(gateway, function).await {
                Ok(done) => plain(StatusCode::OK, &done),
                Err(error) => plain(StatusCode::CONFLICT, &errors::sentence(&error)),
            }
        }
        "/" => page(),
        _ => plain(StatusCode::NOT_FOUND, "there are /, /healthz, /readyz, /metrics, /status, /events and /rollback"),
    }
}

/// One file, which asks nobody for anything but `/events`.
fn page() -> Response<Report> {
    const POLICY: HeaderValue = HeaderValue::from_static(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'",
    );
    let mut response = respond(StatusCode::OK, "text/html; charset=utf-8", include_str!("page.html").to_owned());
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
    response
}

fn respond(status: StatusCode, content_type: &'static str, text: String) -> Response<Report> {
    respond_with(status, content_type, Report::Fixed(Full::from(text)))
}

fn respond_with(status: StatusCode, content_type: &'static str, report: Report) -> Response<Report> {
    let mut response = Response::new(report);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn figures(gateway: &Gateway) -> String {
    let site = gateway.site();
    // A function's name needs no escaping: it is letters, digits and few other characters.
    let labels = |function: &Function| format!("function=\"{}\",kind=\"{}\"", function.plan.name, function.plan.kind);
    let functions: Vec<_> =
        site.functions.values().map(|function| (labels(function), &*function.figures, function.now())).collect();
    let spans = gateway.traces().map_or(0, |traces| traces.lost());
    metrics::prometheus(&functions, [gateway.access_log().lost(), spans])
}
