//! What is known of one request: a line of JSON when it is over, and its part of the figures.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{Method, StatusCode, Version};
use serde::Serialize;

use super::{
    access_log::AccessLog,
    metrics::FunctionFigures,
    traces::{Span, Told, Traces},
};
use crate::output;

/// Of a path, a host or a reason.
const LONGEST_TEXT: usize = 2048;

/// What a line says.
#[derive(Debug, Serialize)]
struct Line {
    time: String,
    request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    remote: String,
    method: String,
    host: String,
    path: String,
    protocol: &'static str,
    function: Option<String>,
    container: Option<String>,
    status: u16,
    /// Of the answer's body.
    bytes: u64,
    duration_ms: f64,
    /// Of it, waiting for a container.
    queue_ms: f64,
    /// A container was started or thawed for it.
    cold: bool,
    /// Whether the client was sent all of it.
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The request, until it is over.
pub(super) struct Record {
    began: Instant,
    began_at_nanos: i64,
    line: Line,
    log: Arc<AccessLog>,
    figures: Option<Arc<FunctionFigures>>,
    trace: Option<(Arc<Traces>, Span)>,
    waited: Duration,
}

impl Record {
    pub(super) fn new(
        log: Arc<AccessLog>,
        remote: IpAddr,
        method: &Method,
        version: Version,
        request_id: String,
    ) -> Self {
        let protocol = match version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_11 => "HTTP/1.1",
            _ => "HTTP/2",
        };
        let line = Line {
            time: String::new(),
            request_id,
            trace_id: None,
            remote: remote.to_string(),
            method: shortened(method.as_str()),
            host: String::new(),
            path: String::new(),
            protocol,
            function: None,
            container: None,
            status: 0,
            bytes: 0,
            duration_ms: 0.0,
            queue_ms: 0.0,
            cold: false,
            complete: false,
            error: None,
        };
        let (began, began_at_nanos) = (Instant::now(), output::now_nanos());
        Self { began, began_at_nanos, line, log, figures: None, trace: None, waited: Duration::ZERO }
    }

    pub(super) fn id(&self) -> &str {
        &self.line.request_id
    }

    /// It is a part of a trace.
    pub(super) fn trace(&mut self, traces: Arc<Traces>, span: Span) {
        self.line.trace_id = Some(span.trace_id());
        self.trace = Some((traces, span));
    }

    /// The function that it is for, and the container that it came to.
    pub(super) fn origin(&self) -> Option<String> {
        let function = self.line.function.as_ref()?;
        Some(match &self.line.container {
            Some(container) => format!("{function}, container {container}"),
            None => function.clone(),
        })
    }

    /// What went wrong with its function last.
    pub(super) fn last_error(&self) -> Option<String> {
        self.figures.as_ref()?.last_error()
    }

    pub(super) fn protocol(&self) -> &'static str {
        self.line.protocol
    }

    pub(super) fn path(&mut self, path: &str) {
        self.line.path = shortened(path);
    }

    pub(super) fn host(&mut self, host: &str) {
        self.line.host = shortened(host);
    }

    /// It is for this function.
    pub(super) fn function(&mut self, name: &str, figures: Arc<FunctionFigures>) {
        self.line.function = Some(name.to_owned());
        self.figures = Some(figures);
    }

    /// It is answered by this container, which it waited for.
    pub(super) fn container(&mut self, name: &str, waited: Duration, cold: bool) {
        self.line.container = Some(name.to_owned());
        self.line.queue_ms = milliseconds(waited);
        self.waited = waited;
        self.line.cold = cold;
    }

    /// It waited for room.
    pub(super) fn waited(&mut self, waited: Duration) {
        self.line.queue_ms = milliseconds(waited);
    }

    pub(super) fn status(&mut self, status: StatusCode) {
        self.line.status = status.as_u16();
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.line.bytes = self.line.bytes.saturating_add(bytes as u64);
    }

    pub(super) fn complete(&mut self) {
        self.line.complete = true;
    }

    /// What went wrong; the first thing is what led to the others.
    pub(super) fn fail(&mut self, error: impl AsRef<str>) {
        self.line.error.get_or_insert_with(|| shortened(error.as_ref()));
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let taken = self.began.elapsed();
        if self.line.status == 0 {
            self.fail("the client left before it was answered");
        }
        self.line.duration_ms = milliseconds(taken);
        if let Some(figures) = &self.figures {
            figures.note_request(self.line.status, taken, self.line.error.as_deref());
        }
        if let Some((traces, span)) = &self.trace {
            traces.end_span(span, &told(&self.line, taken, self.waited));
        }
        // What nobody reads is not made.
        if self.log.is_on() {
            self.line.time = output::rfc3339(self.began_at_nanos);
            self.log.write(&self.line);
        }
    }
}

/// By the names that OpenTelemetry has for them, and our own for the rest.
fn told(line: &Line, taken: Duration, waited: Duration) -> Told<'_> {
    let function = line.function.as_deref().unwrap_or_default();
    let mut attributes = vec![
        ("http.request.method", line.method.as_str().into()),
        ("url.path", line.path.as_str().into()),
        ("server.address", line.host.as_str().into()),
        ("client.address", line.remote.as_str().into()),
        ("network.protocol.version", line.protocol.trim_start_matches("HTTP/").into()),
        ("http.response.body.size", line.bytes.into()),
        ("amphora.cold", line.cold.into()),
        ("amphora.complete", line.complete.into()),
        ("amphora.request_id", line.request_id.as_str().into()),
    ];
    if line.status != 0 {
        attributes.push(("http.response.status_code", line.status.into()));
    }
    attributes.extend(line.function.iter().map(|function| ("amphora.function", function.as_str().into())));
    attributes.extend(line.container.iter().map(|container| ("amphora.container", container.as_str().into())));
    let is_error = line.status == 0 || line.status >= 500 || !line.complete;
    let error = is_error.then(|| line.error.as_deref().unwrap_or_default());
    Told { name: format!("{} {function}", line.method).trim_end().to_owned(), taken, waited, attributes, error }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn shortened(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}
