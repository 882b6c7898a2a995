//! Where operators come: a unix socket that only the gateway's own user can open. It tells, and changes nothing.

use std::{
    convert::Infallible,
    fs,
    io::ErrorKind,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixListener as StdUnixListener,
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixListener, sync::Semaphore};

use super::{
    function::Function,
    gateway::Gateway,
    metrics,
    status::{self, Events, Report},
};

/// Operators at once.
const CONNECTIONS: usize = 32;

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
    tokio::spawn(accept(gateway, listener));
    Ok(Operators(path))
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
    let socket = StdUnixListener::bind(path).with_context(|| format!("admin: cannot listen at {shown}"))?;
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(path, private).with_context(|| format!("cannot close {shown} to others"))?;
    Ok(socket)
}

fn nobody_listens(path: &Path) -> bool {
    StdUnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

async fn accept(gateway: Arc<Gateway>, listener: UnixListener) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let gateway = Arc::clone(&gateway);
        let service = service_fn(move |request| {
            let gateway = Arc::clone(&gateway);
            async move { Ok::<_, Infallible>(answer(&gateway, &request)) }
        });
        tokio::spawn(async move {
            _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
            drop(permit);
        });
    }
}

fn answer(gateway: &Arc<Gateway>, request: &Request<Incoming>) -> Response<Report> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response =
            respond(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "GET and HEAD\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let plain = |status, text: &str| respond(status, "text/plain; charset=utf-8", format!("{text}\n"));
    match request.uri().path() {
        "/healthz" => plain(StatusCode::OK, "ok"),
        "/readyz" if gateway.is_stopping() => plain(StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        "/readyz" => plain(StatusCode::OK, "ok"),
        "/metrics" => respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", figures(gateway)),
        "/status" => respond(StatusCode::OK, "application/json", status::text(gateway) + "\n"),
        "/events" => {
            respond_with(StatusCode::OK, "text/event-stream", Report::Events(Events::new(Arc::clone(gateway))))
        }
        "/" => page(),
        _ => plain(StatusCode::NOT_FOUND, "there are /, /healthz, /readyz, /metrics, /status and /events"),
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
    metrics::prometheus(&functions, gateway.access_log().lost())
}
