//! `amphora serve`, at the wire: protocols, encryption, and what clients send that is no request.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use crate::{
    sandbox::Sandbox,
    serve::{Gateway, HELLO, WEB, is, sandbox, write},
    session::{PATIENCE, Session, until},
};

/// One frame of HTTP/2 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a short frame");
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

#[test]
fn both_versions_of_http_are_spoken_at_one_port() {
    let Some((sandbox, images)) = sandbox() else { return };
    let gateway = Gateway::start(&sandbox, &images, &format!("{WEB}[[routes]]\nhost = \"a\"\nfunction = \"web\"\n"));
    let mut stream = gateway.connect();
    let (data, headers, settings) = (0, 1, 4);
    // GET, http, /, and the authority `a` (RFC 7541, appendix A).
    let head = frame(headers, 0x5, 1, &[0x82, 0x86, 0x84, 0x41, 1, b'a']);
    stream
        .write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(settings, 0, 0, &[])[..], &head].concat())
        .expect("a request");
    let (mut status, mut body, mut is_over) = (0, Vec::new(), false);
    while !is_over {
        let mut start = [0; 9];
        stream.read_exact(&mut start).expect("a frame");
        let mut payload = vec![0; (usize::from(start[1]) << 8) | usize::from(start[2])];
        stream.read_exact(&mut payload).expect("a frame");
        match start[3] {
            kind if kind == headers => status = payload[0],
            kind if kind == data => body.extend(payload),
            _ => continue,
        }
        is_over = start[4] & 1 == 1;
    }
    // 200 by its number in the table.
    assert_eq!((status, String::from_utf8_lossy(&body).as_ref()), (0x88, "hello from linux\n"));
    assert_eq!(gateway.log_line("HTTP/2")["host"], "a");
    is(&gateway.get("/"), 200);
    gateway.stop();
}

#[test]
fn a_function_learns_who_came_and_where() {
    let Some((sandbox, images)) = sandbox() else { return };
    let routes = "[[routes]]\npath = \"/api/{version}\"\nfunction = \"web\"\n";
    let gateway = Gateway::start(&sandbox, &images, &format!("{WEB}{routes}"));
    let answer = gateway.send(
        "GET /api/v%31/cgi-bin/env?a=b HTTP/1.1\r\nhost: Example.com:8080\r\nx-forwarded-for: 6.6.6.6\r\n\
         x-amphora-path-version: forged\r\ntraceparent: 00-11-22-01\r\nx-request-id: mine-1\r\nconnection: close, x-private\r\n\
         x-private: 1\r\n\r\n",
    );
    is(&answer, 200);
    for line in [
        "HTTP_HOST=Example.com:8080",
        "HTTP_X_FORWARDED_FOR=127.0.0.1",
        "HTTP_X_FORWARDED_PROTO=http",
        "HTTP_X_FORWARDED_HOST=Example.com:8080",
        "HTTP_X_FORWARDED_PREFIX=/api/v%31",
        "HTTP_X_AMPHORA_PATH_VERSION=v1",
        "HTTP_TRACEPARENT=00-11-22-01",
        "HTTP_X_REQUEST_ID=mine-1",
        "QUERY_STRING=a=b",
        "REQUEST_URI=/cgi-bin/env?a=b",
    ] {
        assert!(answer.lines().any(|found| found == line), "{line}: {answer}");
    }
    assert!(!answer.contains("PRIVATE") && answer.contains("x-request-id: mine-1\r\n"), "{answer}");
    gateway.stop();
}

#[test]
fn what_goes_wrong_has_its_status_and_its_line() {
    let Some((sandbox, images)) = sandbox() else { return };
    let text = format!(
        "[limits]\nhead = \"8k\"\nbody = \"1k\"\nhead_timeout = \"1s\"\nbody_timeout = \"1s\"\nidle_timeout = \"2s\"\n{WEB}{HELLO}timeout = \"1s\"\n\
         [functions.dead]\nimage = \"BUSYBOX\"\ncommand = [\"sh\", \"-c\", \"echo no luck; exit 3\"]\n\
         [functions.deaf]\nimage = \"BUSYBOX\"\ncommand = [\"sleep\", \"1000\"]\nstart_timeout = \"1s\"\n\
         [functions.noise]\nimage = \"BUSYBOX\"\ncommand = [\"sh\", \"-c\", \"while :; do echo not http | busybox nc -l -p $PORT; done\"]\n\
         [[routes]]\nhost = \"a\"\nfunction = \"hello\"\n[[routes]]\nhost = \"a\"\npath = \"/dead\"\nfunction = \"dead\"\n\
         [[routes]]\nhost = \"a\"\npath = \"/deaf\"\nfunction = \"deaf\"\n[[routes]]\nhost = \"a\"\npath = \"/noise\"\nfunction = \"noise\"\n\
         [[routes]]\nhost = \"b\"\npath = \"/only\"\nmethods = [\"GET\"]\nfunction = \"web\"\n[[routes]]\nhost = \"b\"\npath = \"/b\"\nfunction = \"web\"\n\
         [[routes]]\nhost = \"a\"\npath = \"/read\"\nfunction = \"web\"\n"
    );
    let gateway = Gateway::start(&sandbox, &images, &text);
    let long = "x".repeat(20_000);
    let large = "x".repeat(2000);
    let requests = [
        (404, "GET /missing HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n".to_owned(), "no route leads there"),
        (421, "GET /other HTTP/1.1\r\nhost: c\r\nconnection: close\r\n\r\n".to_owned(), "no route leads there"),
        (405, "POST /only HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n".to_owned(), "no route leads there"),
        (405, "CONNECT x:1 HTTP/1.1\r\nhost: x:1\r\nconnection: close\r\n\r\n".to_owned(), "it wants a tunnel"),
        (
            400,
            "GET /a/%2e%2E/b HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(),
            "a path has no `.` and `..`",
        ),
        (400, "GET /a%2fb HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(), "no encoded slashes"),
        (400, "GET /nohost HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(), "has a Host"),
        (400, "GET /twohosts HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n".to_owned(), "has one Host"),
        (
            400,
            "GET http://b/absolute HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(),
            "another host than its Host",
        ),
        (400, "GET /user HTTP/1.1\r\nhost: x@a\r\nconnection: close\r\n\r\n".to_owned(), "a host has no user"),
        (413, format!("POST /large HTTP/1.1\r\nhost: a\r\ncontent-length: 2000\r\n\r\n{large}"), "larger than may be"),
        (
            413,
            format!(
                "POST /upload?chunked HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n7d0\r\n{large}\r\n0\r\n\r\n"
            ),
            "larger than may be",
        ),
        (
            408,
            "POST /read/cgi-bin/read?slowbody HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nab".to_owned(),
            "comes too slowly",
        ),
        (
            502,
            "GET /dead HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(),
            "it ended with 3; the last it said: no luck",
        ),
        (
            502,
            "GET /deaf HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(),
            "did not listen at port 8080 within 1 s",
        ),
        (502, "GET /noise HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(), "\"function\":\"noise\""),
        (504, "GET /spin HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(), "no answer in time"),
    ];
    for (status, request, told) in &requests {
        let answer = gateway.send(request);
        is(&answer, *status);
        let id =
            answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap_or_else(|| panic!("{answer}"));
        let line = gateway.log_line(id);
        assert!(line["status"] == *status && line.to_string().contains(told), "{told}: {line}");
        // What failed here is for the log alone.
        assert!(!answer.contains("no luck"), "{answer}");
    }
    // By its length and by its parts: the parts count, and nothing follows on that connection (RFC 9112, 6.3).
    let answer = gateway.send(
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n\
         GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
    );
    is(&answer, 200);
    assert!(answer.contains("whole") && answer.matches("HTTP/1.1 ").count() == 1, "{answer}");
    // What is no request is refused before there is anything to name.
    for (status, bytes) in [
        (408, "GET /slow HTTP/1.1\r\nho".to_owned()),
        (431, format!("GET / HTTP/1.1\r\nhost: a\r\nx-long: {long}\r\n\r\n")),
        (400, "GET / HTTP/1.1\r\nhost: a\r\n folded: 1\r\n\r\n".to_owned()),
        (400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef".to_owned()),
        (400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\nabcde".to_owned()),
        (400, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n".to_owned()),
        (400, "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nhost : a\r\n\r\n".to_owned()),
        (400, "GET  / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
    ] {
        is(&gateway.send(bytes), status);
    }
    // The others are as well as before.
    is(&gateway.get("/"), 200);
    is(&gateway.get("/read/index.html"), 200);
    gateway.stop();
    sandbox.check_clean();
}

#[test]
fn another_protocol_goes_both_ways() {
    let Some((sandbox, images)) = sandbox() else { return };
    sandbox.file(
        "www/serve",
        "while :; do busybox nc -l -p $PORT -e sh -c 'while read line; do [ ${#line} -le 1 ] && break; done; \
         printf \"HTTP/1.1 101 Switching Protocols\\r\\nconnection: upgrade\\r\\nupgrade: websocket\\r\\n\\r\\n\"; exec cat'; done\n",
    );
    let gateway = Gateway::start(&sandbox, &images, &format!("{WEB}[[routes]]\nfunction = \"web\"\n"));
    let mut stream = gateway.connect();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        .expect("a request");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&head)));
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head);
    is(&head, 101);
    assert!(head.contains("upgrade: websocket\r\n"), "{head}");
    for word in ["one\n", "two\n"] {
        stream.write_all(word.as_bytes()).expect("somebody who reads");
        let mut back = [0; 4];
        stream.read_exact(&mut back).expect("what was said");
        assert_eq!(back, word.as_bytes());
    }
    assert_eq!(gateway.status("web")["in_flight"], 1);
    drop(stream);
    until("it is over", || (gateway.status("web")["in_flight"] == 0).then_some(()));
    // HTTP/2 would lead past routes and checks: a function that offers it was not asked for that.
    is(&gateway.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, close\r\nupgrade: h2c\r\n\r\n"), 502);
    gateway.stop();
}

/// A certificate for `localhost` that `openssl` makes.
fn certificate(sandbox: &Sandbox, name: &str) -> bool {
    let file = |extension: &str| sandbox.work().join(format!("{name}.{extension}"));
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    openssl.args(["-subj", &format!("/CN={name}"), "-addext", &format!("subjectAltName=DNS:{name}")]);
    openssl.arg("-keyout").arg(file("key")).arg("-out").arg(file("pem"));
    match openssl.output() {
        Ok(made) => made.status.success(),
        Err(error) => {
            println!("skipped: no openssl: {error}");
            false
        }
    }
}

/// The answer, and the name in the certificate that came with it.
fn get_encrypted(sandbox: &Sandbox, port: u16, name: &str) -> (String, String) {
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["s_client", "-quiet", "-servername", name, "-alpn", "http/1.1"]);
    openssl.args(["-connect", &format!("127.0.0.1:{port}")]);
    let request = sandbox.work().join("request");
    std::fs::write(&request, format!("GET /cgi-bin/env HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n"))
        .expect("a file");
    openssl.stdin(std::fs::File::open(request).expect("a file"));
    let ended = openssl.output().expect("openssl");
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    (String::from_utf8_lossy(&ended.stdout).into_owned(), told)
}

#[test]
fn connections_are_encrypted_by_the_certificate_of_the_name() {
    let Some((sandbox, images)) = sandbox() else { return };
    if !["one.test", "two.test"].iter().all(|name| certificate(&sandbox, name)) {
        return;
    }
    let tls = "[tls]\nlisten = [\"127.0.0.1:0\"]\ncertificates = [\n  { certificate = \"one.test.pem\", key = \"one.test.key\" },\n  \
               { certificate = \"two.test.pem\", key = \"two.test.key\" },\n]\n";
    let gateway = Gateway::start(&sandbox, &images, &format!("{tls}{WEB}[[routes]]\nfunction = \"web\"\n"));
    let port = until("it listens", || {
        let said = gateway.session.stderr();
        let (_, rest) = said.split_once("listening at https://127.0.0.1:")?;
        rest.split_once('\n')?.0.parse().ok()
    });
    for name in ["one.test", "two.test"] {
        let (answer, told) = get_encrypted(&sandbox, port, name);
        is(&answer, 200);
        assert!(answer.contains("HTTP_X_FORWARDED_PROTO=https\n"), "{answer}");
        assert!(told.contains(&format!("CN = {name}")), "{name}: {told}");
    }
    // A pair that does not fit is not used; one that does is, at once.
    let says = |text: &str| until(text, || gateway.session.stderr().contains(text).then_some(()));
    std::fs::copy(sandbox.work().join("one.test.key"), sandbox.work().join("two.test.key")).expect("a file");
    says("the certificates before are used on, as the new ones cannot be: ");
    is(&get_encrypted(&sandbox, port, "two.test").0, 200);
    std::fs::copy(sandbox.work().join("one.test.pem"), sandbox.work().join("two.test.pem")).expect("a file");
    says("certificates were read again");
    let (answer, told) = get_encrypted(&sandbox, port, "two.test");
    is(&answer, 200);
    assert!(told.contains("CN = one.test"), "{told}");
    // Who speaks in the clear there gets nothing.
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("somebody who listens");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("a request");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    gateway.stop();
}

#[test]
fn a_socket_of_a_service_manager_is_served() {
    let Some((sandbox, images)) = sandbox() else { return };
    let file = write(&sandbox, &images, &format!("{HELLO}[[routes]]\nfunction = \"hello\"\n"));
    let text = std::fs::read_to_string(&file).expect("a file").replace("\"127.0.0.1:0\"", "\"inherited\"");
    std::fs::write(&file, text).expect("a file");
    let refused = sandbox.refuses(["serve", &file]);
    assert!(refused.contains("standard input is no socket that listens"), "{refused}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    // It is there before anybody serves it.
    let mut early = TcpStream::connect(("127.0.0.1", port)).expect("somebody who listens");
    early.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").expect("a request");
    let mut command = sandbox.command(["serve", &file]);
    command.stdin(std::os::fd::OwnedFd::from(listener));
    let session = Session::start(command);
    early.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut answer = String::new();
    early.read_to_string(&mut answer).expect("an answer");
    is(&answer, 200);
    Gateway { sandbox: &sandbox, session, port }.stop();
}
