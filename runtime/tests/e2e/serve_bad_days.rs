//! `amphora serve`: functions that misbehave, and machines that lack something.

use std::{
    io::{Read, Write},
    net::TcpListener,
    time::{Duration, Instant},
};

use crate::{
    serve::{Gateway, HELLO, WEB, containers, is, sandbox, write},
    session::{PATIENCE, until},
};

const ROUTE: &str = "[[routes]]\nfunction = \"web\"\n";
/// A server that reads a head, and answers with what follows.
const NC: &str = "while :; do busybox nc -l -p $PORT -e sh -c 'while read line; do [ ${#line} -le 1 ] && break; done; ";

#[test]
fn a_function_that_takes_nothing_of_a_body_is_not_waited_for_without_end() {
    let Some((sandbox, images)) = sandbox() else { return };
    sandbox.file("www/serve", format!("{NC}sleep 1000'; done\n"));
    let gateway = Gateway::start(&sandbox, &images, &format!("{WEB}timeout = \"1s\"\nstop_timeout = \"1s\"\n{ROUTE}"));
    let (length, began) = (64 << 20, Instant::now());
    let mut stream = gateway.connect();
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
    write!(stream, "POST /deaf HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n")
        .expect("a head");
    let mut writer = stream.try_clone().expect("a socket");
    let answer = std::thread::scope(|scope| {
        // It ends when nobody takes any more.
        scope.spawn(move || while writer.write_all(&[0; 64 << 10]).is_ok() {});
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let _ = stream.shutdown(std::net::Shutdown::Both);
        String::from_utf8_lossy(&answer).into_owned()
    });
    is(&answer, 504);
    assert_eq!(gateway.log_line("/deaf")["error"], "no answer in time");
    // Nothing keeps the client's connection.
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    gateway.stop();
    sandbox.check_clean();
}

#[test]
fn an_answer_that_is_longer_than_it_said_spoils_no_other() {
    let Some((sandbox, images)) = sandbox() else { return };
    let longer = "printf \"HTTP/1.1 200 OK\\r\\ncontent-length: 5\\r\\n\\r\\nfirstHTTP/1.1 200 OK\\r\\ncontent-length: 6\\r\\n\\r\\nforged\"";
    sandbox.file("www/serve", format!("{NC}{longer}'; done\n"));
    let gateway = Gateway::start(&sandbox, &images, &format!("{WEB}{ROUTE}"));
    let two = "GET /one HTTP/1.1\r\nhost: a\r\n\r\nGET /two HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = gateway.send(two);
    assert_eq!((answer.matches("\r\n\r\nfirst").count(), answer.contains("forged")), (2, false), "{answer}");
    gateway.stop();
}

#[test]
fn what_is_there_no_more_is_named() {
    let Some((sandbox, images)) = sandbox() else { return };
    let gateway = Gateway::start(&sandbox, &images, &format!("{WEB}stop_after = \"100ms\"\n{ROUTE}"));
    is(&gateway.get("/"), 200);
    until("it is stopped", || containers(&sandbox).is_empty().then_some(()));
    let [busybox, _] = &images;
    sandbox.ok(["rmi", busybox]);
    is(&gateway.get("/gone"), 502);
    let line = gateway.log_line("/gone");
    assert!(line["error"].as_str().expect("a reason").contains("is gone; pull it again, and reload"), "{line}");
    sandbox.ok(["pull", "-q", busybox]);
    until("it is there again", || gateway.get("/").starts_with("HTTP/1.1 200 ").then_some(()));
    gateway.stop();
    sandbox.check_clean();
}

#[test]
fn a_program_that_leaves_its_work_to_another_has_ended() {
    let Some((sandbox, images)) = sandbox() else { return };
    sandbox.file("www/serve", "busybox httpd -p 127.0.0.1:$PORT -h /www\n");
    let gateway = Gateway::start(&sandbox, &images, &format!("{WEB}{ROUTE}"));
    // It may answer before it is seen to end.
    let answer = gateway.get("/forked");
    assert!(answer.starts_with("HTTP/1.1 200 ") || answer.starts_with("HTTP/1.1 502 "), "{answer}");
    until("that is said", || gateway.session.stderr().contains("it ended with 0").then_some(()));
    until("its container is gone", || (gateway.status("web")["containers"] == 0).then_some(()));
    gateway.stop();
    sandbox.check_clean();
}

#[test]
fn a_port_that_somebody_else_has_is_named() {
    let Some((sandbox, images)) = sandbox() else { return };
    let taken = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = taken.local_addr().expect("an address");
    let file = write(&sandbox, &images, &format!("{HELLO}{}", ROUTE.replace("web", "hello")));
    let text = std::fs::read_to_string(&file).expect("the file").replace("127.0.0.1:0", &address.to_string());
    std::fs::write(&file, text).expect("the file");
    let told = sandbox.refuses(["serve", &file]);
    assert!(told.contains(&format!("cannot listen at {address}: ")) && told.contains("in use"), "{told}");
    assert!(containers(&sandbox).is_empty());
    sandbox.check_clean();
}

#[test]
fn shapes_of_requests_that_others_read_differently_are_one_request_or_none() {
    let Some((sandbox, images)) = sandbox() else { return };
    let gateway = Gateway::start(&sandbox, &images, &format!("{HELLO}{}", ROUTE.replace("web", "hello")));
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let chunked = "POST /upload HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    let long = "x".repeat(64 << 10);
    for (shape, statuses) in [
        // Lines that end by LF alone are lines (RFC 9112, 2.2).
        ("GET / HTTP/1.1\nhost: a\nconnection: close\n\n".to_owned(), &[200][..]),
        (format!("{chunked}5;a=b\r\nwhole\r\n0\r\n\r\n{smuggled}"), &[200]),
        (format!("{chunked}5\nwhole\r\n0\r\n\r\n{smuggled}"), &[400]),
        (format!("{chunked}5\r\nwholer\r\n0\r\n\r\n{smuggled}"), &[400]),
        (format!("{chunked}5;{long}\r\nwhole\r\n0\r\n\r\n{smuggled}"), &[400]),
        (format!("{chunked}-5\r\nwhole\r\n0\r\n\r\n{smuggled}"), &[400]),
        (format!("{chunked}fffffffffffffffff\r\nwhole\r\n0\r\n\r\n{smuggled}"), &[400]),
        (format!("GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n{smuggled}"), &[400]),
        ("GET / HTTP/1.1\r\nhost: a\r\nx: a\rb\r\n\r\n".to_owned(), &[400]),
        ("GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n".to_owned(), &[400]),
        ("GET / HTTP/9.9\r\nhost: a\r\n\r\n".to_owned(), &[400, 505]),
    ] {
        let answer = gateway.send(&shape);
        let count = answer.matches("HTTP/1.1 ").count();
        let shown = || format!("{:?}: {answer}", &shape[..shape.len().min(200)]);
        assert!(count == 1 && !answer.contains("smuggled"), "{}", shown());
        assert!(statuses.iter().any(|status| answer.starts_with(&format!("HTTP/1.1 {status} "))), "{}", shown());
    }
    assert!(!gateway.session.stdout().contains("smuggled"));
    is(&gateway.get("/"), 200);
    gateway.stop();
}
