//! Spans of requests, as OpenTelemetry has them, sent to a collector as JSON over HTTP (OTLP 1.x).
//!
//! ```text
//! traceparent of a client ── Span ── traceparent for the function
//!                             └─ ends with the request's record ── queue ── batches ── POST to the collector
//! ```
//!
//! No request waits for a collector: what does not fit into the queue, or cannot be sent, is counted and lost.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Request, Uri,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::config::TracesConfig;
use crate::output::{self, errors};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Spans that wait to be sent.
const WAITING: usize = 4096;
/// Spans that are sent at once, and how long the first of them waits for others.
const BATCH: usize = 512;
const BATCH_WITHIN: Duration = Duration::from_secs(1);
/// For a collector to take a batch.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);
/// For what is left at the end.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// OTLP's numbers of kinds and of a status.
const KIND_INTERNAL: u32 = 1;
const KIND_SERVER: u32 = 2;
const STATUS_ERROR: u32 = 2;

/// Where spans go.
pub(super) struct Traces {
    /// None when it has ended.
    spans: Mutex<Option<mpsc::Sender<Value>>>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
    /// How many of 2^32 requests.
    sampled: u64,
    lost: Arc<AtomicU64>,
}

/// One request's part of a trace.
pub(super) struct Span {
    trace: u128,
    id: u64,
    parent: Option<u64>,
    is_sampled: bool,
    /// Since 1970.
    began_nanos: i64,
}

/// What a span tells of its request.
pub(super) struct Told<'a> {
    pub(super) name: String,
    pub(super) taken: Duration,
    pub(super) waited: Duration,
    pub(super) attributes: Vec<(&'static str, Value)>,
    pub(super) error: Option<&'a str>,
}

/// A collector's address, and what is asked there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    address: SocketAddr,
    host: String,
    path: String,
}

impl Endpoint {
    /// # Errors
    /// It is none that can be reached without names and keys.
    pub(super) fn parse(text: &str) -> Result<Self> {
        const EXPECTED: &str = "expected http://IP:PORT/PATH, or localhost, such as http://127.0.0.1:4318/v1/traces; a collector there sends on over TLS";
        let uri: Uri = text.parse().with_context(|| format!("traces.endpoint: `{text}`: {EXPECTED}"))?;
        let host = uri.host().unwrap_or_default();
        let ip = match host.trim_start_matches('[').trim_end_matches(']') {
            "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
            ip => ip.parse::<IpAddr>().ok(),
        };
        ensure!(uri.scheme_str() == Some("http") && ip.is_some(), "traces.endpoint: `{text}`: {EXPECTED}");
        let address = SocketAddr::new(ip.unwrap_or(Ipv4Addr::LOCALHOST.into()), uri.port_u16().unwrap_or(80));
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { address, host: uri.authority().map_or(String::new(), ToString::to_string), path })
    }
}

impl Traces {
    /// Begins to send, on the runtime that this is called on.
    pub(super) fn begin(config: &TracesConfig) -> Result<Self> {
        let endpoint = Endpoint::parse(&config.endpoint)?;
        let (spans, waiting) = mpsc::channel(WAITING);
        let (over, ended) = oneshot::channel();
        let lost = Arc::<AtomicU64>::default();
        let sender =
            Sender { endpoint, service: config.service.clone(), lost: Arc::clone(&lost), is_failing: false.into() };
        tokio::spawn(async move {
            sender.send_all(waiting).await;
            // Nobody may wait for it.
            _ = over.send(());
        });
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is 0 to 1")]
        let sampled = (config.sample.clamp(0.0, 1.0) * (1u64 << 32) as f64) as u64;
        Ok(Self { spans: Mutex::new(Some(spans)), ended: Mutex::new(Some(ended)), sampled, lost })
    }

    /// A request begins: its headers name a trace, or a new one begins. Its function is told of it. `is_trusted`: the client is a proxy of
    /// one's own; of others no more is sent than of what begins here, whatever they ask for.
    pub(super) fn span(&self, headers: &mut HeaderMap, is_trusted: bool) -> Span {
        let told = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()).and_then(parse);
        let (id, began_nanos) = (fastrand::u64(1..), output::now_nanos());
        let is_in_share = u64::from(fastrand::u32(..)) < self.sampled;
        let span = match told {
            Some((trace, parent, is_sampled)) => {
                let is_sampled = is_sampled && (is_trusted || is_in_share);
                Span { trace, id, parent: Some(parent), is_sampled, began_nanos }
            }
            None => {
                headers.remove(TRACESTATE);
                Span { trace: fastrand::u128(1..), id, parent: None, is_sampled: is_in_share, began_nanos }
            }
        };
        if let Ok(value) = HeaderValue::from_str(&span.traceparent()) {
            headers.insert(TRACEPARENT, value);
        }
        span
    }

    /// A request is over.
    pub(super) fn end_span(&self, span: &Span, told: &Told<'_>) {
        if !span.is_sampled {
            return;
        }
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = &*spans else { return };
        for value in span.values(told) {
            if sender.try_send(value).is_err() {
                self.lost.fetch_add(1, Relaxed);
            }
        }
    }

    /// Spans that no collector took.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Sends what is left, though it does not wait for long.
    pub(super) async fn end(&self) {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).take();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended {
            _ = timeout(ENDS_WITHIN, ended).await;
        }
    }
}

/// Trace, parent and whether it is sampled, of a `traceparent` (W3C Trace Context, level 1).
fn parse(text: &str) -> Option<(u128, u64, bool)> {
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let mut parts = text.trim().split('-');
    let [version, trace, parent, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let has_lengths = version.len() == 2 && trace.len() == 32 && parent.len() == 16 && flags.len() == 2;
    // Versions to come may have more parts.
    let may_go_on = version != "00" || parts.next().is_none();
    if !has_lengths || !may_go_on || version == "ff" || ![version, trace, parent, flags].into_iter().all(is_hex) {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
    let parent = u64::from_str_radix(parent, 16).ok().filter(|parent| *parent != 0)?;
    Some((trace, parent, u8::from_str_radix(flags, 16).ok()? & 1 == 1))
}

impl Span {
    fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace, self.id, u8::from(self.is_sampled))
    }

    /// For whoever reads the log.
    pub(super) fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The request, and what it waited for.
    fn values(&self, told: &Told<'_>) -> Vec<Value> {
        let end = |taken: Duration| {
            let taken = i64::try_from(taken.as_nanos()).unwrap_or(i64::MAX);
            self.began_nanos.saturating_add(taken).to_string()
        };
        let trace = self.trace_id();
        let mut span = json!({
            "traceId": trace,
            "spanId": format!("{:016x}", self.id),
            "name": told.name,
            "kind": KIND_SERVER,
            "startTimeUnixNano": self.began_nanos.to_string(),
            "endTimeUnixNano": end(told.taken),
            "attributes": told.attributes.iter().map(|(key, value)| attribute(key, value)).collect::<Vec<_>>(),
        });
        if let Some(parent) = self.parent {
            span["parentSpanId"] = format!("{parent:016x}").into();
        }
        if let Some(error) = told.error {
            span["status"] = json!({ "code": STATUS_ERROR, "message": error });
        }
        let mut values = vec![span];
        if !told.waited.is_zero() {
            values.push(json!({
                "traceId": trace,
                "spanId": format!("{:016x}", fastrand::u64(1..)),
                "parentSpanId": format!("{:016x}", self.id),
                "name": "wait for a container",
                "kind": KIND_INTERNAL,
                "startTimeUnixNano": self.began_nanos.to_string(),
                "endTimeUnixNano": end(told.waited),
            }));
        }
        values
    }
}

fn attribute(key: &str, value: &Value) -> Value {
    let typed = match value {
        Value::Bool(value) => json!({ "boolValue": value }),
        Value::Number(number) if number.is_f64() => json!({ "doubleValue": number }),
        // Of 64 bits, which JSON's readers often have not.
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        other => json!({ "stringValue": other.as_str().unwrap_or_default() }),
    };
    json!({ "key": key, "value": typed })
}

/// The task that sends.
struct Sender {
    endpoint: Endpoint,
    service: String,
    lost: Arc<AtomicU64>,
    /// It was said once.
    is_failing: AtomicBool,
}

impl Sender {
    async fn send_all(&self, mut waiting: mpsc::Receiver<Value>) {
        let mut batch = Vec::new();
        while let Some(first) = waiting.recv().await {
            batch.push(first);
            let fill = async { while batch.len() < BATCH && waiting.recv_many(&mut batch, BATCH).await > 0 {} };
            _ = timeout(BATCH_WITHIN, fill).await;
            let spans = std::mem::take(&mut batch);
            let count = spans.len() as u64;
            let sent = timeout(TAKEN_WITHIN, self.send(spans)).await;
            match sent.unwrap_or_else(|_| Err(anyhow::anyhow!("it takes too long"))) {
                Ok(()) => self.is_failing.store(false, Relaxed),
                Err(error) => self.note_loss(count, &error),
            }
        }
    }

    fn note_loss(&self, count: u64, error: &anyhow::Error) {
        self.lost.fetch_add(count, Relaxed);
        if !self.is_failing.swap(true, Relaxed) {
            let (address, error) = (self.endpoint.address, errors::sentence(error));
            output::note(&format!("amphora serve: traces get lost, as {address} does not take them: {error}"));
        }
    }

    async fn send(&self, spans: Vec<Value>) -> Result<()> {
        let scope = json!({ "name": "amphora serve", "version": env!("CARGO_PKG_VERSION") });
        let resource = json!({ "attributes": [attribute("service.name", &self.service.as_str().into())] });
        let body =
            json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [{ "scope": scope, "spans": spans }] }] });
        let request = Request::post(&self.endpoint.path)
            .header(HOST, &self.endpoint.host)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))?;
        let stream = TcpStream::connect(self.endpoint.address).await.context("cannot connect")?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // What goes wrong with it is seen by the request.
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request).await;
        connection.abort();
        let status = answer?.status();
        ensure!(status.is_success(), "it answers {status}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of them.
    const ALL: u64 = 1 << 32;

    fn traces(sampled: u64) -> Traces {
        Traces { spans: Mutex::new(None), ended: Mutex::new(None), sampled, lost: Arc::default() }
    }

    fn headers(traceparent: &'static str) -> HeaderMap {
        HeaderMap::from_iter([
            (TRACEPARENT, HeaderValue::from_static(traceparent)),
            (TRACESTATE, HeaderValue::from_static("a=b")),
        ])
    }

    #[test]
    fn a_trace_goes_on_and_the_function_is_told() {
        let mut headers = headers("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let span = traces(0).span(&mut headers, true);
        assert_eq!((span.parent, span.is_sampled), (Some(0xb7ad_6b71_6920_3331), true));
        let told = headers[TRACEPARENT].to_str().unwrap();
        assert_eq!(told, format!("00-0af7651916cd43dd8448eb211c80319c-{:016x}-01", span.id));
        assert_eq!(headers[TRACESTATE], "a=b");
        // A stranger's wish costs a collector no more than others.
        let span = traces(0).span(&mut headers, false);
        assert!(!span.is_sampled && headers[TRACEPARENT].to_str().unwrap().ends_with("-00"));
    }

    #[test]
    fn what_is_no_trace_begins_a_new_one() {
        for text in [
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "nonsense",
        ] {
            let mut headers = headers(text);
            let span = traces(ALL).span(&mut headers, false);
            assert!(span.parent.is_none() && span.is_sampled && !headers.contains_key(TRACESTATE), "{text}");
            assert_eq!(headers[TRACEPARENT], span.traceparent().as_str());
        }
        assert!(parse("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more").is_some_and(|(.., on)| !on));
        assert!(!traces(0).span(&mut HeaderMap::new(), true).is_sampled);
    }

    #[test]
    fn a_span_has_what_collectors_read() {
        let span = Span { trace: 0xab, id: 0xcd, parent: None, is_sampled: true, began_nanos: 1_000 };
        let told = Told {
            name: "GET web".to_owned(),
            taken: Duration::from_nanos(500),
            waited: Duration::from_nanos(20),
            attributes: vec![("n", 5.into()), ("t", "x".into()), ("b", true.into()), ("f", 0.5.into())],
            error: Some("broke"),
        };
        let [request, wait] = <[Value; 2]>::try_from(span.values(&told)).unwrap();
        let attributes = json!([
            { "key": "n", "value": { "intValue": "5" } },
            { "key": "t", "value": { "stringValue": "x" } },
            { "key": "b", "value": { "boolValue": true } },
            { "key": "f", "value": { "doubleValue": 0.5 } },
        ]);
        assert_eq!(
            request,
            json!({
                "traceId": "000000000000000000000000000000ab", "spanId": "00000000000000cd", "name": "GET web", "kind": 2,
                "startTimeUnixNano": "1000", "endTimeUnixNano": "1500", "attributes": attributes,
                "status": { "code": 2, "message": "broke" },
            })
        );
        assert_eq!((&wait["parentSpanId"], &wait["endTimeUnixNano"]), (&json!("00000000000000cd"), &json!("1020")));
    }

    #[test]
    fn a_collector_is_found_without_names_and_keys() {
        let endpoint = Endpoint::parse("http://localhost:4318/v1/traces").unwrap();
        assert_eq!((endpoint.address.to_string().as_str(), endpoint.path.as_str()), ("127.0.0.1:4318", "/v1/traces"));
        assert_eq!(Endpoint::parse("http://[::1]:4318/x").unwrap().address.to_string(), "[::1]:4318");
        for text in ["https://127.0.0.1:4318/", "http://collector:4318/", "127.0.0.1", ""] {
            assert!(Endpoint::parse(text).unwrap_err().to_string().contains("expected http://IP:PORT/PATH"), "{text}");
        }
    }
}
