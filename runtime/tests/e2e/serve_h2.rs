//! `amphora serve`: clients that use what HTTP/2 allows against it.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::{
    serve::{Gateway, HELLO, is, sandbox},
    session::{PATIENCE, until},
};

const ROUTE: &str = "[[routes]]\nfunction = \"hello\"\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// A code of an error (RFC 9113, 7).
const ENHANCE_YOUR_CALM: u32 = 11;

/// A client of HTTP/2 that writes frames by hand (RFC 9113, 4.1).
struct Attacker(TcpStream);

impl Attacker {
    /// With these settings: names and values.
    fn new(gateway: &Gateway<'_>, settings: &[(u16, u32)]) -> Self {
        let mut stream = gateway.connect();
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("a preface");
        let mut attacker = Self(stream);
        attacker.send(&frame(SETTINGS, 0, 0, &settings)).expect("settings");
        attacker
    }

    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Frames until the connection ends: kind, flags, stream, payload.
    fn frames(&mut self) -> Vec<(u8, u8, u32, Vec<u8>)> {
        let mut frames = Vec::new();
        loop {
            let mut start = [0; 9];
            if let Err(error) = self.0.read_exact(&mut start) {
                let is_over = matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset);
                assert!(is_over, "the connection is not ended: {error}");
                return frames;
            }
            let [a, b, c, kind, flags, stream @ ..] = start;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            if self.0.read_exact(&mut payload).is_err() {
                return frames;
            }
            frames.push((kind, flags, u32::from_be_bytes(stream), payload));
        }
    }

    /// Why the connection was ended, if that was said.
    fn goodbye(&mut self) -> Option<u32> {
        let frames = self.frames();
        let payload = frames.iter().find_map(|(kind, _, _, payload)| (*kind == GOAWAY).then_some(payload))?;
        Some(u32::from_be_bytes(payload[4..8].try_into().expect("a code")))
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    [&[a, b, c, kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// GET http://a and a path (RFC 7541, appendix A).
fn get(stream: u32, path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).expect("a short path");
    let head = [&[0x82, 0x86, 0x41, 1, b'a', 0x44, length][..], path.as_bytes()].concat();
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &head)
}

/// The others are as well as before, and nothing of it goes on.
fn is_well(gateway: &Gateway<'_>) {
    is(&gateway.get("/"), 200);
    until("nothing of it goes on", || (gateway.status("hello")["in_flight"] == 0).then_some(()));
}

#[test]
fn requests_that_are_taken_back_at_once_end_the_connection() {
    let Some((sandbox, images)) = sandbox() else { return };
    let gateway = Gateway::start(&sandbox, &images, &format!("{HELLO}{ROUTE}"));
    let mut attacker = Attacker::new(&gateway, &[]);
    let cancel = 8_u32.to_be_bytes();
    for number in 0..20_000 {
        let stream = 2 * number + 1;
        if attacker.send(&[get(stream, "/"), frame(RST_STREAM, 0, stream, &cancel)].concat()).is_err() {
            break;
        }
    }
    if let Some(code) = attacker.goodbye() {
        assert_eq!(code, ENHANCE_YOUR_CALM);
    }
    is_well(&gateway);
    let begun = gateway.status("hello")["requests"].as_u64().expect("a number");
    assert!(begun < 5000, "{begun} requests were begun");
    gateway.stop();
    sandbox.check_clean();
}

#[test]
fn a_head_without_end_is_not_read_to_its_end() {
    let Some((sandbox, images)) = sandbox() else { return };
    let gateway = Gateway::start(&sandbox, &images, &format!("{HELLO}{ROUTE}"));
    // The first is of many frames, and the other of many names.
    for piece in [vec![], [&[0x00, 1, b'x', 0x7f, 0x80, 0x01][..], &[b'y'; 255]].concat()] {
        let mut attacker = Attacker::new(&gateway, &[]);
        attacker.send(&frame(HEADERS, END_STREAM, 1, &[0x82, 0x86, 0x84, 0x41, 1, b'a'])).expect("a head");
        let more = frame(CONTINUATION, 0, 1, &piece).repeat(64);
        let mut sent = 0;
        while attacker.send(&more).is_ok() {
            sent += more.len();
            assert!(sent < 256 << 20, "it is still read");
        }
        if let Some(code) = attacker.goodbye() {
            assert_eq!(code, ENHANCE_YOUR_CALM);
        }
    }
    is_well(&gateway);
    gateway.stop();
}

#[test]
fn who_never_opens_the_window_is_left() {
    let Some((sandbox, images)) = sandbox() else { return };
    let bounds = "[limits]\nsend_timeout = \"1s\"\n";
    let gateway = Gateway::start(&sandbox, &images, &format!("{bounds}{HELLO}{ROUTE}"));
    const INITIAL_WINDOW_SIZE: u16 = 4;
    for window in [0, 1000] {
        let began = Instant::now();
        let mut attacker = Attacker::new(&gateway, &[(INITIAL_WINDOW_SIZE, window)]);
        let requests: Vec<u8> = (0..10).flat_map(|number| get(2 * number + 1, "/big")).collect();
        attacker.send(&requests).expect("requests");
        let frames = attacker.frames();
        assert!(frames.iter().any(|(kind, ..)| *kind == HEADERS), "no answer has begun");
        let bytes = |(kind, _, _, payload): &(u8, u8, u32, Vec<u8>)| if *kind == DATA { payload.len() } else { 0 };
        assert!(frames.iter().map(bytes).sum::<usize>() <= 10 * window as usize);
        assert!(began.elapsed() < PATIENCE);
    }
    is_well(&gateway);
    assert_eq!(gateway.log_line("/big")["complete"], false);
    gateway.stop();
}

/// It has been asked, and has nothing to say yet: that is not its client's fault.
#[test]
fn who_waits_for_a_function_is_not_left() {
    let Some((sandbox, images)) = sandbox() else { return };
    let bounds = "[limits]\nsend_timeout = \"500ms\"\nidle_timeout = \"500ms\"\n";
    let gateway = Gateway::start(&sandbox, &images, &format!("{bounds}{HELLO}timeout = \"3s\"\n{ROUTE}"));
    let mut attacker = Attacker::new(&gateway, &[]);
    attacker.send(&get(1, "/spin")).expect("a request");
    let frames = attacker.frames();
    let answered = frames.iter().any(|(kind, _, stream, _)| *kind == HEADERS && *stream == 1);
    assert!(answered, "{:?}", frames.iter().map(|(kind, ..)| *kind).collect::<Vec<_>>());
    assert_eq!(gateway.log_line("/spin")["status"], 504);
    gateway.stop();
}

#[test]
fn who_asks_without_end_and_takes_nothing_costs_no_memory() {
    let Some((sandbox, images)) = sandbox() else { return };
    let gateway = Gateway::start(&sandbox, &images, &format!("[limits]\nsend_timeout = \"1s\"\n{HELLO}{ROUTE}"));
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.session.pid())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line").to_owned();
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number")
    };
    is(&gateway.get("/"), 200);
    let before = resident();
    let update = frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes());
    for flood in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[]), update, frame(0x42, 0, 0, &[0; 100])] {
        let mut attacker = Attacker::new(&gateway, &[]);
        attacker.0.set_write_timeout(Some(Duration::from_secs(2))).expect("a socket");
        let flood = flood.repeat(1000);
        // It reads nothing of what comes back: in the end nothing more is taken from it, or the connection is ended.
        let mut sent = 0;
        while sent < 64 << 20 && attacker.send(&flood).is_ok() {
            sent += flood.len();
        }
    }
    let after = resident();
    assert!(after < before + (64 << 10), "{before} KiB before, {after} KiB after");
    is_well(&gateway);
    gateway.stop();
}
