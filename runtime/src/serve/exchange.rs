//! One request and its answer: checked, routed, given to its function, and answered in any case.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use hyper::{
    Method, Request, Response, StatusCode, Uri, Version,
    body::{Body, Incoming},
    header::{CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE},
    http::uri::{Authority, PathAndQuery},
    upgrade::{self, OnUpgrade},
};
use hyper_util::rt::TokioIo;
use tokio::{io::copy_bidirectional, time::timeout};
use wasm_exec::http::{Asked, front::Counted};

use super::{
    answer::{Answer, Source},
    cgi::{Cgi, Server},
    compress::{self, Coding, Encoding},
    dev::Detail,
    fleet::{Acquired, Fleet, Lease},
    front::Client,
    function::Backing,
    gateway::Gateway,
    headers::{self, REQUEST_ID, Told},
    instance::Unanswered,
    path,
    record::Record,
    refusal::Refusal,
    site::Site,
    upload::{Upload, UploadBounds, UploadError, Watched},
    within::Within,
};

/// How long a request took to get to a container; browsers show it.
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Containers that are asked for one request, where nobody listens in the ones before.
const TRIES: u32 = 3;

/// A function's answer.
enum Answered {
    Whole(Response<Source>, Option<Box<Encoding>>),
    /// The connection is another protocol's from here on.
    Switched(Response<Incoming>),
}

/// Answers one request, in any case.
pub(super) async fn answer(
    gateway: Arc<Gateway>,
    client: Client,
    mut request: Request<Incoming>,
    counted: Counted,
) -> Response<Answer> {
    let id = headers::request_id(request.headers()).map_or_else(|| gateway.new_request_id(), str::to_owned);
    let detail = Detail::of(gateway.dev, request.headers());
    let log = gateway.access_log();
    let mut record = Record::new(log, client.address.ip(), request.method(), request.version(), id);
    if let Some(traces) = gateway.traces() {
        let span = traces.span(request.headers_mut(), gateway.site().trust_forwarded);
        record.trace(Arc::clone(traces), span);
    }
    let answered = match attempt(&gateway.site(), &client, &mut record, request).await {
        Ok(answered) => answered,
        Err(refusal) => return refusal.response(record, counted, detail),
    };
    let id = HeaderValue::from_str(record.id());
    let mut response = match answered {
        Answered::Whole(response, encoding) => {
            record.status(response.status());
            response.map(|source| Answer::of_function(source, encoding, record, counted))
        }
        Answered::Switched(response) => {
            record.status(response.status());
            response.map(|_| Answer::fixed("", record, counted))
        }
    };
    *response.version_mut() = Version::HTTP_11;
    // The one by which it is in the log, whatever the function says.
    id.into_iter().for_each(|id| _ = response.headers_mut().insert(REQUEST_ID, id));
    response
}

async fn attempt(
    site: &Site,
    client: &Client,
    record: &mut Record,
    request: Request<Incoming>,
) -> Result<Answered, Refusal> {
    record.path(request.uri().path());
    let host = host_of(&request)?;
    let name = host.as_ref().map_or("", |(_, name)| name.as_str());
    record.host(name);
    if request.method() == Method::CONNECT {
        return Err(Refusal::Tunnel);
    }
    let full_path = request.uri().path().to_owned();
    let segments = path::segments(&full_path).map_err(Refusal::Path)?;
    let found = site.table.find(name, &segments, request.method()).map_err(Refusal::Lost)?;
    let function = found.route.targets.next();
    record.function(&function.plan.name, Arc::clone(&function.figures));
    if !headers::has_plain_coding(request.headers()) {
        return Err(Refusal::Coding);
    }
    if request.body().size_hint().lower() > site.limits.body.0 {
        return Err(UploadError::TooLarge.into());
    }
    let (prefix, rest) = path::split_after(&full_path, found.route.strip);
    let id = record.id().to_owned();
    let told = Told {
        client: client.address,
        is_encrypted: client.is_encrypted,
        host: host.as_ref().map(|(value, _)| value),
        prefix,
        parameters: &found.parameters,
        request_id: &id,
        is_trusted: site.trust_forwarded,
    };
    let wanted = function.plan.config.compress.then(|| (request.method().clone(), Coding::accepted(request.headers())));
    let mut response = match &function.backing {
        Backing::Commands(cgi) => {
            let path = segments.iter().skip(found.route.strip).map(|part| format!("/{part}")).collect();
            command(site, cgi, prepare(request, rest, &told, false)?.request, &told, path, record).await?
        }
        Backing::Within(within) => ask(site, within, prepare(request, rest, &told, false)?.request, record).await?,
        Backing::Containers(fleet) => {
            let Prepared { request, switching } = prepare(request, rest, &told, true)?;
            let (outgoing, verdict) = upload(site, request);
            let longest = function.plan.config.timeout.duration();
            let (response, lease) = send(fleet, outgoing, verdict, longest, record).await?;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return switch(response, switching.ok_or(Refusal::Switched)?, lease, client.clone());
            }
            response.map(|body| Source::Container { body, _lease: lease })
        }
    };
    if !headers::for_client(response.headers_mut()) {
        return Err(Refusal::Lengths);
    }
    let length = response.body().size_hint().exact();
    let encoding = wanted.and_then(|(method, accepted)| compress::choose(&mut response, length, &method, accepted));
    Ok(Answered::Whole(response, encoding))
}

/// Has it answered by a container of its own.
async fn command(
    site: &Site,
    cgi: &Cgi,
    request: Request<Incoming>,
    told: &Told<'_>,
    path: String,
    record: &mut Record,
) -> Result<Response<Source>, Refusal> {
    let (outgoing, verdict) = upload(site, request);
    let server = Server {
        client: told.client.ip(),
        is_encrypted: told.is_encrypted,
        prefix: told.prefix,
        protocol: record.protocol(),
        path,
    };
    let failed = async {
        match verdict {
            Some(watched) => watched.verdict.await.ok().flatten(),
            None => None,
        }
    };
    let answered = tokio::select! {
        biased;
        answered = cgi.answer(outgoing, &server) => answered?,
        Some(error) = failed => return Err(error.into()),
    };
    record.container(&answered.container, answered.waited, true);
    Ok(answered.response.map(|body| Source::Command(Box::new(body))))
}

/// Has it answered within this process.
async fn ask(
    site: &Site,
    within: &Within,
    request: Request<Incoming>,
    record: &mut Record,
) -> Result<Response<Source>, Refusal> {
    let (place, waited) = within.place().await?;
    record.waited(waited);
    let limits = &site.limits;
    let asked = Asked { id: record.id(), body_bytes: limits.body.0, body_grace: limits.body_timeout.duration() };
    let response = within.answer(place, asked, request).await.map_err(Refusal::Unanswered)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Refusal::Switched);
    }
    Ok(response.map(Source::Within))
}

/// Sends it to a container, and to another one where nobody listens any more.
async fn send(
    fleet: &Arc<Fleet>,
    mut outgoing: Request<Upload>,
    mut verdict: Verdict,
    longest: Duration,
    record: &mut Record,
) -> Result<(Response<Incoming>, Lease), Refusal> {
    let mut tries = 0;
    loop {
        tries += 1;
        let Acquired { lease, waited, cold } = fleet.acquire().await?;
        // It has one as long as it is not dropped.
        let Some(instance) = lease.instance() else { return Err(Refusal::Late) };
        record.container(&instance.name, waited, cold);
        match in_time(instance.send(outgoing), &mut verdict, longest).await? {
            Ok(mut response) => {
                if instance.note_answer() {
                    fleet.note_first_answer();
                }
                if cold {
                    note_timing(&mut response, waited);
                }
                return Ok((response, lease));
            }
            Err(Unanswered { error, unsent: Some(unsent) }) if error.is_refused() && tries < TRIES => {
                fleet.give_up(instance);
                outgoing = *unsent;
            }
            Err(Unanswered { error, .. }) => return Err(error.into()),
        }
    }
}

/// For which host a request is: as it was written, and in small letters without a port.
fn host_of(request: &Request<Incoming>) -> Result<Option<(HeaderValue, String)>, Refusal> {
    let mut values = request.headers().get_all(HOST).iter();
    let (header, more) = (values.next(), values.next());
    if more.is_some() {
        return Err(Refusal::Host("a request has one Host"));
    }
    let of_target = request.uri().authority();
    let header = header.filter(|value| !value.is_empty());
    let Some(header) = header else {
        return match of_target {
            Some(authority) => {
                let value = HeaderValue::from_str(authority.as_str());
                Ok(Some((value.map_err(|_| Refusal::Host("the host is no name"))?, name_of(authority)?)))
            }
            None if request.version() == Version::HTTP_11 => Err(Refusal::Host("a request of HTTP/1.1 has a Host")),
            None => Ok(None),
        };
    };
    let parsed = Authority::try_from(header.as_bytes()).map_err(|_| Refusal::Host("the host is no name"))?;
    if of_target.is_some_and(|authority| authority != &parsed) {
        return Err(Refusal::Host("the request is for another host than its Host says"));
    }
    let name = name_of(&parsed)?;
    Ok(Some((header.clone(), name)))
}

fn name_of(authority: &Authority) -> Result<String, Refusal> {
    if authority.as_str().contains('@') {
        return Err(Refusal::Host("a host has no user"));
    }
    Ok(authority.host().trim_end_matches('.').to_ascii_lowercase())
}

/// What becomes of a request's body, if it has one and that is not known yet.
type Verdict = Option<Watched>;

/// The request as its function gets it.
struct Prepared {
    request: Request<Incoming>,
    /// What the client's connection becomes, if both sides want that.
    switching: Option<OnUpgrade>,
}

/// `may_switch`: its function can speak another protocol on its connection.
fn prepare(mut request: Request<Incoming>, path: &str, told: &Told<'_>, may_switch: bool) -> Result<Prepared, Refusal> {
    let protocol = headers::asks_for_upgrade(&request).filter(|_| may_switch);
    let switching = protocol.is_some().then(|| upgrade::on(&mut request));
    let (mut head, body) = request.into_parts();
    let target = match head.uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    head.uri = Uri::from(target.map_err(|_| Refusal::Path(path::PathError::Encoding))?);
    headers::for_function(&mut head.headers, head.version, told);
    head.version = Version::HTTP_11;
    if let Some(protocol) = protocol {
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, protocol);
    }
    // The client's extensions are of its connection.
    head.extensions.clear();
    Ok(Prepared { request: Request::from_parts(head, body), switching })
}

/// Its body, bounded, on its way to a container; with what becomes of it, if there is one.
fn upload(site: &Site, request: Request<Incoming>) -> (Request<Upload>, Verdict) {
    let is_empty = request.body().is_end_stream();
    let bounds = UploadBounds { bytes: site.limits.body.0, stands_still: site.limits.body_timeout.duration() };
    let (head, body) = request.into_parts();
    let (upload, verdict) = Upload::new(body, bounds);
    (Request::from_parts(head, upload), (!is_empty).then_some(verdict))
}

/// Waits for the head of an answer: for so long from when the request is whole, or since its function takes nothing more of it.
async fn in_time(
    sending: impl Future<Output = Result<Response<Incoming>, Unanswered>>,
    verdict: &mut Verdict,
    longest: Duration,
) -> Result<Result<Response<Incoming>, Unanswered>, Refusal> {
    let mut sending = pin!(sending);
    if let Some(mut watched) = verdict.take() {
        tokio::select! {
            biased;
            told = &mut watched.verdict => {
                if let Ok(Some(error)) = told {
                    return Err(error.into());
                }
            }
            sent = sending.as_mut() => {
                // A body that failed is why its connection did.
                match watched.verdict.try_recv() {
                    Ok(Some(error)) if sent.is_err() => return Err(error.into()),
                    Ok(_) => {}
                    // It may go elsewhere.
                    Err(_) => *verdict = Some(watched),
                }
                return Ok(sent);
            }
            () = watched.untaken.stands_still(longest) => return Err(Refusal::Late),
        }
    }
    timeout(longest, sending).await.map_err(|_| Refusal::Late)
}

fn note_timing(response: &mut Response<Incoming>, waited: Duration) {
    let text = format!("amphora-start;dur={:.1}", waited.as_secs_f64() * 1000.0);
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().append(SERVER_TIMING, value);
    }
}

/// Both sides speak another protocol from here on; the container is at work as long as they do.
fn switch(
    mut response: Response<Incoming>,
    of_client: OnUpgrade,
    lease: Lease,
    client: Client,
) -> Result<Answered, Refusal> {
    let of_function = upgrade::on(&mut response);
    tokio::spawn(async move {
        if let (Ok(client), Ok(function)) = tokio::join!(of_client, of_function) {
            // However it ends: neither side can be told any more.
            _ = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(function)).await;
        }
        drop((lease, client));
    });
    let protocol = response.headers().get(UPGRADE).cloned();
    headers::take_off_connection(response.headers_mut());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    protocol.into_iter().for_each(|protocol| _ = response.headers_mut().insert(UPGRADE, protocol));
    Ok(Answered::Switched(response))
}
