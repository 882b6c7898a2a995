//! `amphora serve`: answers that are made smaller, and traces of requests.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    sync::mpsc::{Receiver, channel},
    thread,
};

use serde_json::Value;

use crate::{
    serve::{Gateway, WEB, is, sandbox},
    session::{PATIENCE, until},
};

/// Head and body of what comes for a request.
fn get(gateway: &Gateway<'_>, line: &str, header: &str) -> (String, Vec<u8>) {
    let mut stream = gateway.connect();
    write!(stream, "{line} HTTP/1.1\r\nhost: a\r\n{header}\r\nconnection: close\r\n\r\n").expect("a request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(answer[..end + 2].to_vec()).expect("text");
    let mut body = answer.split_off(end + 4);
    if head.contains("transfer-encoding: chunked") {
        body = joined(&body);
    }
    (head, body)
}

/// A body that comes in chunks.
pub(crate) fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        chunks.read_line(&mut line).expect("a size");
        let size = usize::from_str_radix(line.trim(), 16).expect("a size");
        if size == 0 {
            return body;
        }
        body.extend(&chunks[..size]);
        chunks = &chunks[size + 2..];
    }
}

#[test]
fn texts_are_made_smaller_for_who_understands_it() {
    let Some((sandbox, images)) = sandbox() else { return };
    let page = "many words that are the same, ".repeat(500);
    sandbox.file("www/page.html", &page);
    sandbox.file(
        "www/cgi-bin/events",
        "#!/bin/sh\nprintf 'Content-Type: text/event-stream\\r\\n\\r\\n'; yes 'data: x' | head -200\n",
    );
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(sandbox.work().join("www/cgi-bin/events"), mode).expect("a mode");
    let text = format!("{WEB}compress = true\n[[routes]]\nfunction = \"web\"\n");
    let gateway = Gateway::start(&sandbox, &images, &text);
    for (accepted, coding) in [("gzip, br", "gzip"), ("gzip, zstd", "zstd")] {
        let (head, body) = get(&gateway, "GET /page.html", &format!("accept-encoding: {accepted}"));
        is(&head, 200);
        assert!(head.contains(&format!("content-encoding: {coding}\r\n")), "{head}");
        assert!(head.contains("vary: accept-encoding\r\n") && !head.contains("content-length"), "{head}");
        assert!(body.len() < page.len() / 10, "{} bytes", body.len());
        let mut plain = String::new();
        match coding {
            "gzip" => flate2::read::GzDecoder::new(&*body).read_to_string(&mut plain),
            _ => zstd::stream::read::Decoder::new(&*body).expect("zstd").read_to_string(&mut plain),
        }
        .expect("what was encoded");
        assert_eq!(plain, page);
    }
    let (head, body) = get(&gateway, "GET /page.html", "accept-encoding: br");
    assert!(head.contains("vary: accept-encoding\r\n") && !head.contains("content-encoding"), "{head}");
    assert_eq!(body, page.as_bytes());
    let (head, body) = get(&gateway, "HEAD /page.html", "accept-encoding: gzip");
    assert!(!head.contains("content-encoding") && body.is_empty(), "{head}");
    let (head, body) = get(&gateway, "GET /page.html", "accept-encoding: gzip\r\nrange: bytes=0-9");
    assert!(!head.contains("content-encoding") && body.starts_with(&page.as_bytes()[..10]), "{head}");
    let (head, body) = get(&gateway, "GET /cgi-bin/events", "accept-encoding: gzip");
    assert!(!head.contains("content-encoding") && body.starts_with(b"data: x\n"), "{head}");
    gateway.stop();
}

/// A collector of spans: it says what it was sent, one span after another.
fn collector() -> (u16, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    let (spans, received) = channel();
    thread::spawn(move || {
        // It ends with the test's process.
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            let (mut length, mut first) = (0, String::new());
            stream.read_line(&mut first).expect("a request");
            assert_eq!(first, "POST /v1/traces HTTP/1.1\r\n");
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).expect("a head");
                if let Some(number) = line.strip_prefix("content-length: ") {
                    length = number.trim().parse().expect("a number");
                }
                if line == "\r\n" {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).expect("a body");
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").expect("somebody who reads");
            let told: Value = serde_json::from_slice(&body).expect("JSON");
            let resource = &told["resourceSpans"][0];
            assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "edge");
            for span in resource["scopeSpans"][0]["spans"].as_array().expect("spans") {
                if spans.send(span.clone()).is_err() {
                    return;
                }
            }
        }
    });
    (port, received)
}

#[test]
fn requests_are_parts_of_traces() {
    let Some((sandbox, images)) = sandbox() else { return };
    let (port, spans) = collector();
    let traces = format!("[traces]\nendpoint = \"http://127.0.0.1:{port}/v1/traces\"\nservice = \"edge\"\n");
    let gateway = Gateway::start(&sandbox, &images, &format!("{traces}{WEB}[[routes]]\nfunction = \"web\"\n"));
    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let (head, body) = get(&gateway, "GET /cgi-bin/env", &format!("traceparent: 00-{trace}-{parent}-01"));
    is(&head, 200);
    let next = || spans.recv_timeout(PATIENCE).expect("a span");
    let (span, wait) = (next(), next());
    assert_eq!([&span["traceId"], &span["parentSpanId"], &span["name"]], [trace, parent, "GET web"]);
    assert_eq!([&wait["traceId"], &wait["parentSpanId"]], [&span["traceId"], &span["spanId"]]);
    let has = |span: &Value, key: &str, value: Value| {
        let attributes = span["attributes"].as_array().expect("attributes");
        assert!(attributes.iter().any(|pair| pair["key"] == key && pair["value"] == value), "{key}: {span}");
    };
    has(&span, "http.response.status_code", serde_json::json!({ "intValue": "200" }));
    has(&span, "amphora.cold", serde_json::json!({ "boolValue": true }));
    // The function goes on from the gateway's part.
    let told = format!("HTTP_TRACEPARENT=00-{trace}-{}-01", span["spanId"].as_str().expect("an id"));
    assert!(String::from_utf8_lossy(&body).lines().any(|line| line == told), "{told}");
    assert_eq!(gateway.log_line(trace)["trace_id"], trace);
    // What is not sampled is not sent, and what begins here is a trace of its own.
    get(&gateway, "GET /", &format!("traceparent: 00-{trace}-{parent}-00"));
    get(&gateway, "GET /missing", "x: y");
    let span = next();
    assert!(span["parentSpanId"].is_null() && span["traceId"] != trace, "{span}");
    has(&span, "http.response.status_code", serde_json::json!({ "intValue": "404" }));
    gateway.stop();
}

#[test]
fn a_collector_that_is_not_there_holds_up_nothing() {
    let Some((sandbox, images)) = sandbox() else { return };
    let port = TcpListener::bind("127.0.0.1:0").expect("a socket").local_addr().expect("an address").port();
    let traces = format!("[traces]\nendpoint = \"http://127.0.0.1:{port}/\"\n");
    let gateway = Gateway::start(&sandbox, &images, &format!("{traces}{WEB}[[routes]]\nfunction = \"web\"\n"));
    is(&gateway.get("/"), 200);
    until("it is said", || gateway.session.stderr().contains("traces get lost, as ").then_some(()));
    until("it is counted", || {
        let figures = gateway.admin("/metrics");
        figures.lines().any(|line| line == "amphora_traces_lost_spans_total 2").then_some(())
    });
    let said = gateway.stop();
    assert_eq!(said.matches("traces get lost").count(), 1, "{said}");
}
