//! Functions that answer, do not, and must not be waited for; clients that are too slow or want too much.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use wasm_exec::{
    CacheError, CodeCache, Command, Profile, RunError,
    http::{Bounds, CoreDumpSink, Function, Served, Serving, Setting, Stop, serve},
};

const HANDLER: &str = include_str!("../../xtask/fixtures/functions/handler.wat");
const CONCURRENT: &str = include_str!("../../xtask/fixtures/functions/concurrent.wat");
const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// What came to the log of any server of this process; a test that looks at it takes it for itself.
static LOG: Mutex<String> = Mutex::new(String::new());

fn log(message: &str) {
    let mut log = LOG.lock().unwrap();
    log.push_str(message);
    log.push('\n');
}

fn function(text: &str, profile: Profile, bounds: Bounds) -> Result<Function, RunError> {
    let dir = tempfile::tempdir().unwrap();
    let wasm = wat::parse_str(text).unwrap();
    let cache = CodeCache::new(dir.path().join("compiled"), dir.path().join("checked"));
    Function::load(cache.compile(DIGEST, profile, || Ok::<_, CacheError>(wasm)).unwrap(), bounds, true)
}

fn command(memory_bytes: Option<u64>) -> Command {
    Command { memory_bytes, ..Command::new(vec!["function".into()]) }
}

/// Few places and long patience: what is short is given by each test.
fn bounds() -> Bounds {
    Bounds { requests: 20, ..Bounds::default() }
}

/// A server in a thread of its own.
struct Server {
    address: SocketAddr,
    stop: Stop,
    served: JoinHandle<Result<Served, RunError>>,
    /// What it told last of itself.
    noted: Arc<Mutex<Served>>,
}

impl Server {
    fn new(bounds: Bounds) -> Self {
        Self::of(bounds, Profile::default(), command(None))
    }

    fn of(bounds: Bounds, profile: Profile, command: Command) -> Self {
        Self::with(function(HANDLER, profile, bounds).unwrap(), command)
    }

    fn with(function: Function, command: Command) -> Self {
        Self::set(function, command, 1, None)
    }

    fn set(function: Function, command: Command, reuse: u32, core_dump: Option<CoreDumpSink>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Stop::new();
        let noted = Arc::new(Mutex::new(Served::default()));
        let note = {
            let noted = Arc::clone(&noted);
            Box::new(move |served: &Served| noted.lock().unwrap().clone_from(served))
        };
        let listeners = vec![listener];
        let setting = Setting {
            listeners,
            threads: 2,
            stop: stop.clone(),
            serving: Serving { log: Box::new(log), reuse, cpu_millis: None, core_dump },
            note,
        };
        let served = thread::spawn(move || serve(function, command, setting));
        Self { address, stop, served, noted }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends bytes, and gives all that comes until the server closes.
    fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // It may answer, and close, before it has all.
        let _ = stream.write_all(bytes);
        rest(&mut stream)
    }

    fn get(&self, path: &str) -> String {
        self.raw(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes())
    }

    fn post(&self, path: &str, body: &[u8]) -> String {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        self.raw(&[head.as_bytes(), body].concat())
    }

    fn end(self) -> Served {
        self.stop.request();
        let served = self.served.join().unwrap().unwrap();
        assert_eq!(*self.noted.lock().unwrap(), served, "it told something else while it ended");
        served
    }
}

fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("no answer: {error}"),
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

#[track_caller]
fn is(answer: &str, status: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "not {status}: {answer}");
}

fn with_log() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn each_request_is_answered_by_an_instance_of_its_own() {
    let server = Server::new(bounds());
    for _ in 0..50 {
        let answer = server.get("/hello");
        is(&answer, 200);
        assert!(answer.contains("hello from wasm\n"), "{answer}");
    }
    let body = vec![b'x'; 300_000];
    let answer = server.post("/echo", &body);
    is(&answer, 200);
    assert_eq!(answer.matches('x').count(), body.len());
    let served = server.end();
    assert!(!served.instantiation.is_zero(), "{served:?}");
    let instantiation = served.instantiation;
    let expected =
        Served { requests: 51, instances: 51, peak_memory_bytes: 4 << 16, instantiation, ..Served::default() };
    assert_eq!(served, expected);
}

/// The function traps at its 32nd request, as far as it remembers.
#[test]
fn an_instance_answers_as_many_requests_as_it_may() {
    let counting = CONCURRENT.replace(
        "(local $ends i64)",
        "(local $ends i64)
        (i32.store (i32.const 2048) (i32.add (i32.load (i32.const 2048)) (i32.const 1)))
        (if (i32.eq (i32.load (i32.const 2048)) (i32.const 32)) (then unreachable))",
    );
    let server =
        |reuse| Server::set(function(&counting, Profile::default(), bounds()).unwrap(), command(None), reuse, None);
    for reuse in [1, 10] {
        let server = server(reuse);
        (0..40).for_each(|_| is(&server.get("/"), 203));
        server.end();
    }
    let server = server(u32::MAX);
    // One that waits long is let go of, which forgets its count.
    let trapped = (0..1000).any(|_| server.get("/").starts_with("HTTP/1.1 500 "));
    assert!(trapped);
    // After that there is a new one.
    is(&server.get("/"), 203);
    assert_eq!(server.end().traps, 1);
}

#[test]
fn what_did_not_end_well_is_not_used_again() {
    let server = Server::set(function(HANDLER, Profile::default(), bounds()).unwrap(), command(None), 1000, None);
    for _ in 0..5 {
        is(&server.get("/trap"), 500);
        is(&server.get("/hello"), 200);
        is(&server.get("/never"), 500);
        // A client that goes away takes its instance with it.
        drop({
            let mut stream = server.connect();
            stream.write_all(b"GET /spin HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
            stream
        });
        is(&server.get("/hello"), 200);
    }
    let served = server.end();
    assert!(served.requests >= 20 && served.traps == 5, "{served:?}");
    assert!(served.last_trap.is_some_and(|trap| trap.starts_with("request ") && trap.contains("unreachable")));
}

/// Each request has the fuel of a fresh instance, and none of another's.
#[test]
fn fuel_is_each_requests_own_in_an_instance_that_answers_many() {
    let counting = Profile { fuel: true, ..Profile::default() };
    let command = Command { fuel: Some(20_000), ..command(None) };
    let server = Server::set(function(HANDLER, counting, bounds()).unwrap(), command, 1000, None);
    (0..50).for_each(|_| is(&server.get("/hello"), 200));
    is(&server.get("/spin"), 500);
    let served = server.end();
    assert!(served.fuel_used > 50 * 20, "{served:?}");
    assert_eq!(served.traps, 1);
}

/// What memory holds when a request ends is the next one's where instances are used again, so the sum counts it.
#[test]
fn memory_of_instances_that_wait_is_counted_and_given_back() {
    let server =
        Server::set(function(HANDLER, Profile::default(), bounds()).unwrap(), command(Some(1 << 20)), 1000, None);
    is(&server.get("/hello"), 200);
    is(&server.get("/grow"), 500);
    is(&server.get("/hello"), 200);
    let served = server.end();
    assert!(served.memory_refused && served.peak_memory_bytes <= 1 << 20, "{served:?}");
    assert_eq!(served.memory_bytes, 0);
}

/// A request's id, and what was dumped.
type Dumped = (String, Vec<u8>);

#[test]
fn a_trap_of_a_request_leaves_a_core_dump_under_its_id() {
    let dumped: Arc<Mutex<Vec<Dumped>>> = Arc::default();
    let sink: CoreDumpSink = {
        let dumped = Arc::clone(&dumped);
        Box::new(move |id, dump| {
            dumped.lock().unwrap().push((id.to_owned(), dump.to_vec()));
            false
        })
    };
    let server = Server::set(function(HANDLER, Profile::default(), bounds()).unwrap(), command(None), 1, Some(sink));
    is(&server.get("/hello"), 200);
    let answer = server.get("/trap");
    is(&answer, 500);
    // Nobody takes another.
    is(&server.get("/trap"), 500);
    server.end();
    let dumped = dumped.lock().unwrap();
    let [(id, dump)] = dumped.as_slice() else { panic!("{} dumps", dumped.len()) };
    assert!(answer.contains(id.as_str()));
    assert!(dump.starts_with(b"\0asm\x01\0\0\0"));
}

#[test]
fn functions_of_wasi_0_3_are_served_alike() {
    let _turn = with_log();
    LOG.lock().unwrap().clear();
    let server = Server::with(function(CONCURRENT, Profile::default(), bounds()).unwrap(), command(None));
    for _ in 0..20 {
        is(&server.get("/"), 203);
    }
    is(&server.get("/trap"), 500);
    assert!(LOG.lock().unwrap().contains("wasm `unreachable` instruction executed"));
    is(&server.get("/"), 203);
    let served = server.end();
    assert_eq!((served.requests, served.failed), (22, 1));
}

#[test]
fn requests_of_one_connection_follow_each_other() {
    let server = Server::new(bounds());
    let request =
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(3) + "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = server.raw(request.as_bytes());
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 4, "{answer}");
    assert_eq!(server.end().requests, 4);
}

/// The frames that a client sends who knows that it is HTTP/2, written by hand (RFC 9113): its preface, no settings, and two requests.
#[test]
fn http_2_is_spoken_with_who_begins_with_it() {
    let server = Server::new(bounds());
    let mut stream = server.connect();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    for id in [1, 3] {
        // GET http /, and the authority `a`; flags: END_STREAM and END_HEADERS.
        stream.write_all(&[0, 0, 6, 1, 5, 0, 0, 0, id, 0x82, 0x86, 0x84, 0x41, 1, b'a']).unwrap();
    }
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while String::from_utf8_lossy(&answer).matches("hello from wasm\n").count() < 2 {
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "closed after {answer:?}");
        answer.extend_from_slice(&buffer[..length]);
    }
    drop(stream);
    assert_eq!(server.end().requests, 2);
}

/// What a browser keeps open sends frames without a request: they are no head that does not end.
#[test]
fn an_idle_connection_of_http_2_lasts_and_ends_with_a_word() {
    let (head_within, idle) = (Duration::from_millis(300), Duration::from_secs(2));
    let server = Server::new(Bounds { head_within, idle, ..bounds() });
    let begun = Instant::now();
    let mut stream = server.connect();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let (settings_taken, ping) = (b"\0\0\0\x04\x01\0\0\0\0", b"\0\0\x08\x06\0\0\0\0\0ABCDEFGH");
    stream.write_all(&[&settings_taken[..], ping].concat()).unwrap();
    let mut frames = Vec::new();
    stream.read_to_end(&mut frames).unwrap();
    assert!(begun.elapsed() > idle, "{:?}", begun.elapsed());
    let mut kinds = Vec::new();
    let mut rest = frames.as_slice();
    while let [a, b, c, kind, _, _, _, _, _, payload @ ..] = rest {
        kinds.push(*kind);
        rest = &payload[usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c)..];
    }
    let goaway = 7;
    assert!(rest.is_empty() && kinds.contains(&goaway), "{kinds:?}: {frames:?}");
    server.end();
}

#[test]
fn more_requests_than_places_wait() {
    let server = Server::new(Bounds { requests: 1, ..bounds() });
    let mut streams: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for stream in &mut streams {
        stream.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    }
    streams.iter_mut().for_each(|stream| is(&rest(stream), 200));
    assert_eq!(server.end().failed, 0);
}

#[test]
fn what_goes_wrong_in_a_function_is_500_and_in_the_log_alone() {
    let _turn = with_log();
    let server = Server::new(bounds());
    for (path, logged) in [
        ("/trap", "wasm trap: wasm `unreachable` instruction executed"),
        ("/never", "ended without an answer"),
        ("/wait", "handle index"),
    ] {
        LOG.lock().unwrap().clear();
        let answer = server.get(path);
        is(&answer, 500);
        let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
        let log = LOG.lock().unwrap().clone();
        assert!(log.contains(&format!("request {id}: ")) && log.contains(logged), "{path}: {log}");
        assert!(!answer.contains("wasm"), "{answer}");
    }
    assert!(LOG.lock().unwrap().contains("request"));
    is(&server.get("/refuse"), 502);
    is(&server.get("/decline"), 504);
    is(&server.get("/hello"), 200);
    assert_eq!(server.end().failed, 5);
}

#[test]
fn an_answer_that_is_not_whole_is_seen_as_such() {
    let server = Server::new(bounds());
    let answer = server.get("/half");
    is(&answer, 200);
    assert!(answer.contains("hello") && !answer.ends_with("0\r\n\r\n"));
    assert_eq!(server.end().failed, 1);
}

#[test]
fn memory_is_one_sum_for_all_requests_and_comes_back() {
    let limit = 8 << 20;
    let server = Server::of(bounds(), Profile::default(), command(Some(limit)));
    for _ in 0..5 {
        is(&server.get("/grow"), 500);
        is(&server.get("/hello"), 200);
    }
    let served = server.end();
    assert!(served.memory_refused && served.peak_memory_bytes <= limit, "{served:?}");
    let server = Server::of(bounds(), Profile::default(), command(Some(1 << 16)));
    is(&server.get("/hello"), 503);
    server.end();
}

#[test]
fn resources_without_end_are_refused() {
    let server = Server::new(bounds());
    is(&server.get("/open"), 500);
    is(&server.get("/hello"), 200);
    let trap = server.end().last_trap.unwrap();
    assert!(trap.contains("resource table has no free keys"), "{trap}");
}

#[test]
fn fuel_is_for_each_request() {
    let command = Command { fuel: Some(100_000), ..command(None) };
    let server = Server::of(bounds(), Profile { fuel: true, ..Profile::default() }, command);
    is(&server.get("/spin"), 500);
    is(&server.get("/hello"), 200);
    server.end();
}

/// With as many of them as there are threads, and more.
#[test]
fn a_function_that_never_yields_holds_nobody_up_and_is_ended_in_time() {
    let _turn = with_log();
    LOG.lock().unwrap().clear();
    let server = Server::new(Bounds { answer_within: Duration::from_secs(2), ..bounds() });
    let mut spinning: Vec<_> = (0..5).map(|_| server.connect()).collect();
    for stream in &mut spinning {
        stream.write_all(b"GET /spin HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    }
    is(&server.get("/hello"), 200);
    spinning.iter_mut().for_each(|stream| is(&rest(stream), 504));
    let log = LOG.lock().unwrap().clone();
    assert!(log.contains("no answer in time") && log.contains("spin"), "{log}");
    server.end();
}

#[test]
fn a_client_that_is_gone_takes_its_function_with_it() {
    let server = Server::new(Bounds { requests: 2, ..bounds() });
    for _ in 0..6 {
        let mut stream = server.connect();
        stream.write_all(b"GET /spin HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        stream.shutdown(Shutdown::Both).unwrap();
    }
    // With both places taken for ever this would not be answered.
    is(&server.get("/hello"), 200);
    server.end();
}

#[test]
fn what_a_function_does_after_its_answer_is_bounded() {
    let server = Server::new(Bounds { afterwards: Duration::from_millis(200), ..bounds() });
    is(&server.get("/after"), 200);
    // It waits for what was begun.
    assert_eq!(server.end().requests, 1);
}

#[test]
fn a_server_that_is_told_to_stop_answers_what_it_has_begun() {
    let server = Server::new(bounds());
    let mut begun = server.connect();
    begun.write_all(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n01234").unwrap();
    let mut idle = server.connect();
    // The head of the answer says that it has begun.
    let mut head = [0; 15];
    begun.read_exact(&mut head).unwrap();
    server.stop.request();
    assert_eq!(rest(&mut idle), "");
    begun.write_all(b"56789").unwrap();
    let answer = rest(&mut begun);
    assert!(answer.contains("01234") && answer.contains("56789"), "{answer}");
    assert!(TcpStream::connect(server.address).is_err(), "it still accepts");
    assert_eq!(server.end().requests, 1);
}

/// A connection is idle from the end of the answer, not from its head.
#[test]
fn an_answer_that_takes_long_is_not_cut_off() {
    let short = Duration::from_millis(300);
    let server = Server::new(Bounds { head_within: short, idle: short, ..bounds() });
    let mut stream = server.connect();
    stream
        .write_all(b"POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 10\r\n\r\n01234")
        .unwrap();
    thread::sleep(4 * short);
    stream.write_all(b"5").unwrap();
    thread::sleep(4 * short);
    stream.write_all(b"6789").unwrap();
    let answer = rest(&mut stream);
    is(&answer, 200);
    assert!(answer.contains("01234") && answer.contains("6789") && answer.ends_with("0\r\n\r\n"), "{answer}");
    server.end();
}

#[test]
fn heads_that_are_none_or_too_long_are_refused() {
    let server = Server::new(bounds());
    is(&server.raw(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n"), 400);
    is(&server.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 what TLS begins with\r\n\r\n"), 400);
    is(&server.raw(b"GET / HTTP/1.1\r\nhost : a\r\n\r\n"), 400);
    is(&server.raw(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"), 400);
    is(&server.raw(b"CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\nconnection: close\r\n\r\n"), 405);
    is(&server.raw(b"POST /upload HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nno length\r\n"), 400);
    let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(65_535));
    is(&server.raw(long.as_bytes()), 431);
    let large = format!("GET / HTTP/1.1\r\nhost: a\r\na: {}\r\n\r\n", "a".repeat(100_000));
    is(&server.raw(large.as_bytes()), 431);
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "a: a\r\n".repeat(200));
    is(&server.raw(many.as_bytes()), 431);
    assert_eq!(server.end().failed, 0);
}

/// Headers without end: no more of them is read than is kept.
#[test]
fn a_gigabyte_of_headers_is_not_read() {
    let server = Server::new(bounds());
    let mut stream = server.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n").unwrap();
    let line = [b"a: ".as_slice(), &[b'a'; 65_000], b"\r\n"].concat();
    let sent = (0..1 << 14).take_while(|_| stream.write_all(&line).is_ok()).count();
    assert!(sent < 1 << 10, "{sent} times 65 kB");
    server.end();
}

#[test]
fn a_body_larger_than_allowed_is_refused_however_it_comes() {
    let server = Server::new(Bounds { body_bytes: 100_000, ..bounds() });
    is(&server.post("/echo", &[b'x'; 100_001]), 413);
    is(&server.post("/echo", &[b'x'; 100_000]), 200);
    let chunk = [b"2710\r\n".as_slice(), &[b'x'; 10_000], b"\r\n"].concat();
    let chunked = b"POST /upload HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".as_slice();
    is(&server.raw(&[chunked, &chunk.repeat(11)].concat()), 413);
    assert_eq!(server.end().failed, 0);
}

#[test]
fn a_body_longer_than_said_is_no_part_of_it() {
    let server = Server::new(bounds());
    let answer = server.raw(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcdef\r\n\r\n");
    is(&answer, 200);
    assert!(answer.contains("abc\r\n") && answer.contains("HTTP/1.1 400 ") && !answer.contains("abcd"), "{answer}");
    server.end();
}

#[test]
fn slow_clients_are_not_waited_for() {
    let short = Duration::from_millis(400);
    let server = Server::new(Bounds { head_within: short, idle: short, body_grace: short, ..bounds() });
    is(&server.raw(b"GET / HTTP/1.1\r\nhost: a\r\na: "), 408);
    is(&server.raw(b"P"), 408);
    is(&server.raw(b"POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n01"), 408);
    // A byte now and then is no progress.
    let begun = Instant::now();
    let mut stream = server.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n").unwrap();
    while stream.write_all(b"a").is_ok() && begun.elapsed() < Duration::from_secs(60) {
        thread::sleep(Duration::from_millis(20));
    }
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert_eq!(server.raw(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").matches("HTTP/1.1").count(), 1);
    assert_eq!(server.end().failed, 0);
}

#[test]
fn a_client_that_takes_nothing_is_not_waited_for() {
    let server = Server::new(Bounds { requests: 1, stalled: Duration::from_millis(400), ..bounds() });
    let mut stream = server.connect();
    stream.write_all(b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    // There is one place, which it does not keep.
    is(&server.get("/hello"), 200);
    server.end();
}

#[test]
fn what_is_no_function_is_refused_with_what_it_exports() {
    let refusal = |text| function(text, Profile::default(), bounds()).err().unwrap().to_string();
    let module = refusal(r#"(module (func (export "_start")))"#);
    assert!(module.contains("wasi:http/incoming-handler@0.2.x") && module.contains("_start"), "{module}");
    let command = refusal(r#"(component (instance $i) (export "wasi:cli/run@0.2.0" (instance $i)))"#);
    assert!(command.contains("wasi:http/incoming-handler@0.2.x") && command.contains("wasi:cli/run"), "{command}");
}
