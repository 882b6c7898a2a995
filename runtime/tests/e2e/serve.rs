//! `amphora serve`: what a client gets, what an operator sees, and what is left when it ends.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    sandbox::Sandbox,
    session::{PATIENCE, Session, until},
};

/// A web server of a Linux image, whose pages are the test's.
pub(crate) const WEB: &str = r#"
[functions.web]
image = "BUSYBOX"
entrypoint = ["sh", "/www/serve"]
volumes = ["./www:/www"]
"#;
/// A function of a Wasm image.
pub(crate) const HELLO: &str = "[functions.hello]\nimage = \"FUNCTION\"\n";
const BOTH_ROUTES: &str = "[[routes]]\nfunction = \"hello\"\n[[routes]]\npath = \"/legacy\"\nfunction = \"web\"\n";

/// A gateway that runs.
pub(crate) struct Gateway<'a> {
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) session: Session,
    pub(crate) port: u16,
}

/// A sandbox with a function of each kind, and a folder of pages.
pub(crate) fn sandbox() -> Option<(Sandbox, [String; 2])> {
    let (sandbox, images) = Sandbox::with(["busybox:latest", "function:latest"])?;
    let cgi = sandbox.work().join("www/cgi-bin");
    std::fs::create_dir_all(&cgi).expect("a folder of the test");
    sandbox.file("www/index.html", "hello from linux\n");
    sandbox.file("www/serve", "exec busybox httpd -f -p 127.0.0.1:$PORT -h /www\n");
    sandbox.file("www/cgi-bin/env", "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'; env | sort\n");
    sandbox.file(
        "www/cgi-bin/slow",
        "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\nbegun\\n'; sleep 2; echo ended\n",
    );
    sandbox.file("www/cgi-bin/read", "#!/bin/sh\ncat > /dev/null; printf 'Content-Type: text/plain\\r\\n\\r\\n'\n");
    for script in ["env", "slow", "read"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(cgi.join(script), mode).expect("a mode");
    }
    Some((sandbox, images))
}

/// Writes the file, with the names of images put in.
pub(crate) fn write(sandbox: &Sandbox, [busybox, function]: &[String; 2], text: &str) -> String {
    let text = text.replace("BUSYBOX", busybox).replace("FUNCTION", function);
    sandbox.file("functions.toml", format!("listen = [\"127.0.0.1:0\"]\n{text}"))
}

impl<'a> Gateway<'a> {
    pub(crate) fn start(sandbox: &'a Sandbox, images: &[String; 2], text: &str) -> Self {
        let file = write(sandbox, images, text);
        let session = sandbox.start(["serve", &file]);
        let port = until("the gateway listens", || {
            let said = session.stderr();
            let (_, rest) = said.split_once("listening at http://127.0.0.1:")?;
            rest.split_once('\n')?.0.parse().ok()
        });
        Self { sandbox, session, port }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("somebody who listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream
    }

    /// Sends bytes, and gives all that comes.
    pub(crate) fn send(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect();
        // It may be refused before it is whole.
        let _ = stream.write_all(bytes.as_ref());
        let mut answer = Vec::new();
        // What came before a reset is there.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(crate) fn get(&self, path: &str) -> String {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"))
    }

    pub(crate) fn operate(&self, path: &str) -> UnixStream {
        let socket = self.sandbox.runroot().join("serve/default.sock");
        let mut stream = UnixStream::connect(socket).expect("a socket for operators");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").expect("a request");
        stream
    }

    /// What operators get.
    pub(crate) fn admin(&self, path: &str) -> String {
        let mut answer = String::new();
        self.operate(path).read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// One function of the status.
    pub(crate) fn status(&self, function: &str) -> Value {
        let answer = self.admin("/status");
        let body = answer.split_once("\r\n\r\n").expect("a body").1;
        let status: Value = serde_json::from_str(body).expect("JSON");
        let all = status["functions"].as_array().expect("functions").clone();
        all.into_iter().find(|found| found["name"] == function).unwrap_or_else(|| panic!("no {function}: {status}"))
    }

    /// The line of the access log that has this text.
    pub(crate) fn log_line(&self, text: &str) -> Value {
        let line = until(text, || self.session.stdout().lines().find(|line| line.contains(text)).map(str::to_owned));
        serde_json::from_str(&line).expect("JSON")
    }

    /// Ends it, as a service manager does.
    pub(crate) fn stop(self) -> String {
        self.session.signal(Signal::SIGTERM);
        let ended = self.session.wait();
        assert_eq!(ended.code, Some(0), "{ended}");
        ended.stderr
    }
}

#[track_caller]
pub(crate) fn is(answer: &str, status: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "not {status}: {answer}");
}

/// Names and states of all containers, the youngest first.
pub(crate) fn containers(sandbox: &Sandbox) -> Vec<String> {
    sandbox.ok(["ps", "-a", "--format", "{{.Names}} {{.State}}"]).lines().map(str::to_owned).collect()
}

/// Those of them that are processes.
fn running(sandbox: &Sandbox) -> Vec<String> {
    sandbox.ok(["ps", "--format", "{{.Names}}"]).lines().map(str::to_owned).collect()
}

#[test]
fn functions_of_both_kinds_are_behind_one_door() {
    let Some((sandbox, images)) = sandbox() else { return };
    let gateway = Gateway::start(&sandbox, &images, &format!("{WEB}{HELLO}{BOTH_ROUTES}"));
    assert!(running(&sandbox).is_empty(), "nothing is asked for yet: {:?}", containers(&sandbox));
    let answer = gateway.get("/");
    is(&answer, 200);
    assert!(answer.contains("hello from wasm\n") && answer.contains("x-request-id: "), "{answer}");
    assert!(running(&sandbox).is_empty(), "it runs in the gateway: {:?}", containers(&sandbox));
    let answer = gateway.get("/legacy/index.html");
    is(&answer, 200);
    assert!(answer.ends_with("hello from linux\n"), "{answer}");
    assert!(answer.contains("server-timing: amphora-start;dur="), "{answer}");
    // What it listens at is its own loopback, which nobody else reaches.
    let names = running(&sandbox);
    assert!(names.len() == 1 && names[0].starts_with("web-"), "{names:?}");
    let line = gateway.log_line("/legacy/index.html");
    assert_eq!((&line["function"], &line["status"], &line["cold"]), (&"web".into(), &200.into(), &true.into()));
    assert_eq!((&line["complete"], &line["bytes"], &line["host"]), (&true.into(), &17.into(), &"a".into()));
    let figures = gateway.admin("/metrics");
    assert!(
        figures.contains("amphora_requests_total{function=\"web\",kind=\"linux\",status=\"2xx\"} 1\n"),
        "{figures}"
    );
    assert!(figures.contains("amphora_instances_total{function=\"hello\",kind=\"wasm\"} 1\n"), "{figures}");
    is(&gateway.admin("/healthz"), 200);
    is(&gateway.admin("/readyz"), 200);
    is(&gateway.admin("/"), 200);
    let mut events = gateway.operate("/events");
    let mut event = Vec::new();
    while !event.ends_with(b"\n\n") {
        let mut byte = [0];
        events.read_exact(&mut byte).expect("an event");
        event.extend(byte);
    }
    assert!(String::from_utf8_lossy(&event).contains("data: {\"gateway\":\"default\""), "{event:?}");
    drop(events);
    gateway.stop();
    assert!(containers(&sandbox).is_empty(), "{:?}", containers(&sandbox));
    sandbox.check_clean();
}

#[test]
fn a_function_without_requests_is_frozen_then_stopped_and_comes_back() {
    let Some((sandbox, images)) = sandbox() else { return };
    let lives = "freeze_after = \"100ms\"\nstop_after = \"5s\"\n";
    let routes = "[[routes]]\nfunction = \"web\"\n";
    let gateway = Gateway::start(&sandbox, &images, &format!("{WEB}{lives}{routes}"));
    is(&gateway.get("/"), 200);
    let state = || containers(&sandbox).first().cloned().unwrap_or_default();
    let first = state();
    if sandbox.is_root() {
        until("it is frozen", || state().ends_with(" paused").then_some(()));
        // Nobody notices but by the time.
        let answer = gateway.get("/");
        is(&answer, 200);
        assert!(answer.contains("server-timing: "), "{answer}");
        assert_eq!(gateway.status("web")["starts"], 1);
    }
    until("it is stopped", || state().is_empty().then_some(()));
    is(&gateway.get("/"), 200);
    assert_ne!(state(), first);
    assert_eq!(gateway.status("web")["starts"], 2);
    gateway.stop();
    sandbox.check_clean();
}

#[test]
fn as_many_containers_as_requests_need_and_no_more() {
    let Some((sandbox, images)) = sandbox() else { return };
    let bounds = "concurrency = 1\nmax = 2\nqueue = 1\n";
    let routes = "[[routes]]\nfunction = \"web\"\n";
    let gateway = Gateway::start(&sandbox, &images, &format!("{WEB}{bounds}{routes}"));
    let mut slow: Vec<TcpStream> = Vec::new();
    for count in 1..=2 {
        let mut stream = gateway.connect();
        stream.write_all(b"GET /cgi-bin/slow HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").expect("a request");
        slow.push(stream);
        until("one more container", || (gateway.status("web")["in_flight"] == count).then_some(()));
    }
    // One waits, and is served when there is room.
    let mut waiting = gateway.connect();
    waiting.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").expect("a request");
    until("it waits", || (gateway.status("web")["waiting"] == 1).then_some(()));
    let refused = gateway.get("/refused");
    is(&refused, 503);
    assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
    for stream in slow.iter_mut().chain([&mut waiting]) {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        is(&answer, 200);
    }
    assert_eq!(gateway.status("web")["containers"], 2);
    let line = gateway.log_line("/refused");
    assert_eq!((&line["status"], &line["error"]), (&503.into(), &"too many requests wait already".into()));
    gateway.stop();
}

#[test]
fn a_function_that_dies_is_replaced() {
    let Some((sandbox, images)) = sandbox() else { return };
    // Its answer says how long it will be, and comes to half of that.
    sandbox.file(
        "www/serve",
        "while :; do busybox nc -l -p $PORT -e sh -c 'while read line; do [ ${#line} -le 1 ] && break; done; \
         printf \"HTTP/1.1 200 OK\\r\\ncontent-length: 12\\r\\n\\r\\nbegun\\n\"; sleep 1000'; done\n",
    );
    let gateway = Gateway::start(&sandbox, &images, &format!("{WEB}min = 1\n[[routes]]\nfunction = \"web\"\n"));
    until("one is there before anybody asks", || (gateway.status("web")["containers"] == 1).then_some(()));
    let name = |line: &String| line.split_once(' ').expect("two columns").0.to_owned();
    let mut begun = gateway.connect();
    begun.write_all(b"GET /half HTTP/1.1\r\nhost: a\r\n\r\n").expect("a request");
    let mut half = Vec::new();
    while !half.ends_with(b"begun\n") {
        let mut byte = [0];
        begun.read_exact(&mut byte).expect("the beginning of an answer");
        half.extend(byte);
    }
    // The newest: on a slow machine the first one may have given up waiting.
    let serving = name(&containers(&sandbox)[0]);
    let starts = gateway.status("web")["starts"].as_u64();
    sandbox.ok(["kill", &serving]);
    let mut rest = Vec::new();
    // A half answer is not made a whole one.
    let _ = begun.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{rest:?}");
    let line = gateway.log_line("/half");
    assert!(line["complete"] == false && line.to_string().contains("the answer broke off"), "{line}");
    until("another one", || (gateway.status("web")["starts"].as_u64() > starts).then_some(()));
    let told = gateway.status("web")["last_error"].as_str().map(str::to_owned).expect("why");
    assert!(told.contains("ended by itself") || told.contains("broke off"), "{told}");
    until("it is removed", || containers(&sandbox).iter().all(|line| name(line) != serving).then_some(()));
    let said = gateway.stop();
    assert!(said.contains(&format!("container {serving} ended by itself: it ended with 137")), "{said}");
}

#[test]
fn a_file_that_cannot_be_used_changes_nothing() {
    let Some((sandbox, images)) = sandbox() else { return };
    let gateway = Gateway::start(&sandbox, &images, &format!("{WEB}{HELLO}{BOTH_ROUTES}"));
    let kept = containers(&sandbox);
    let says = |text: &str| until(text, || gateway.session.stderr().contains(text).then_some(()));
    write(&sandbox, &images, "[functions.hello]\nimage = \"FUNCTION\"\nmemry = 1\n");
    gateway.session.signal(Signal::SIGHUP);
    says("nothing has changed, as the file cannot be used: ");
    says("line 4, column 1: there is no key `memry`; did you mean `memory`?");
    is(&gateway.get("/legacy/"), 200);
    assert!(gateway.admin("/status").contains("memry"));
    write(&sandbox, &images, &format!("drain = 1\n{HELLO}[[routes]]\nfunction = \"hello\"\n"));
    gateway.session.signal(Signal::SIGHUP);
    says("drain: it has changed, and a gateway takes it when it starts");
    is(&gateway.get("/legacy/"), 200);
    // What stays the same goes on in the same container.
    write(&sandbox, &images, &format!("{HELLO}[[routes]]\npath = \"/new\"\nfunction = \"hello\"\n"));
    gateway.session.signal(Signal::SIGHUP);
    says("was read again");
    is(&gateway.get("/legacy/"), 404);
    is(&gateway.get("/new"), 200);
    until("the other one is gone", || (containers(&sandbox) == kept).then_some(()));
    assert!(gateway.admin("/status").contains("\"reload_error\":null"));
    gateway.stop();
}

/// A registry that takes connections and never answers.
fn deaf_registry() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let image = format!("localhost:{}/never", listener.local_addr().expect("an address").port());
    (listener, format!("[functions.far]\nimage = \"{image}\"\n[[routes]]\npath = \"/far\"\nfunction = \"far\"\n"))
}

#[test]
fn a_pull_that_does_not_end_keeps_the_gateway_from_nothing() {
    let Some((sandbox, images)) = sandbox() else { return };
    let (registry, far) = deaf_registry();
    let session = sandbox.start(["serve", &write(&sandbox, &images, &far)]);
    let connection = registry.accept().expect("somebody who pulls");
    session.signal(Signal::SIGINT);
    let ended = session.wait();
    assert_eq!(ended.code, Some(0), "{ended}");
    drop(connection);
    let text = format!("{WEB}stop_after = \"1s\"\n[[routes]]\nfunction = \"web\"\n");
    let gateway = Gateway::start(&sandbox, &images, &text);
    is(&gateway.get("/"), 200);
    write(&sandbox, &images, &format!("{text}{far}"));
    gateway.session.signal(Signal::SIGHUP);
    let _connection = registry.accept().expect("somebody who pulls");
    until("a container without requests is stopped", || containers(&sandbox).is_empty().then_some(()));
    is(&gateway.get("/"), 200);
    gateway.stop();
    assert!(containers(&sandbox).is_empty(), "{:?}", containers(&sandbox));
}

/// It listens, and ends by the first who comes.
#[test]
fn a_program_that_listens_and_ends_is_not_started_without_a_pause() {
    let Some((sandbox, images)) = sandbox() else { return };
    sandbox.file("www/serve", "busybox nc -l -p $PORT -e true\n");
    let gateway = Gateway::start(&sandbox, &images, &format!("{WEB}[[routes]]\nfunction = \"web\"\n"));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        is(&gateway.get("/"), 502);
    }
    let starts = gateway.status("web")["starts"].as_u64().expect("a number");
    assert!((2..=6).contains(&starts), "{starts} starts");
    gateway.stop();
    sandbox.check_clean();
}

#[test]
fn a_killed_gateways_containers_are_the_next_ones_to_remove() {
    let Some((sandbox, images)) = sandbox() else { return };
    let text = format!("{WEB}{HELLO}{BOTH_ROUTES}");
    let gateway = Gateway::start(&sandbox, &images, &text);
    is(&gateway.get("/"), 200);
    is(&gateway.get("/legacy/"), 200);
    let refused = sandbox.refuses(["serve", sandbox.work().join("functions.toml").to_str().expect("UTF-8")]);
    assert!(refused.contains("a gateway of the name `default` is running"), "{refused}");
    gateway.session.signal(Signal::SIGKILL);
    let Gateway { session, .. } = gateway;
    // Its containers go on, with its standard error.
    drop(session);
    assert_eq!(containers(&sandbox).len(), 2);
    let checked = sandbox.run(["system", "check"]);
    let named = checked.stdout.matches("of a gateway that was killed").count();
    assert!(checked.code == Some(1) && named == 2, "{checked}");
    let [busybox, _] = &images;
    sandbox.ok(["run", "-d", "--name", "other", "--label", "amphora.serve.gateway=default", busybox, "sleep", "1000"]);
    let gateway = Gateway::start(&sandbox, &images, &text);
    assert!(gateway.session.stderr().contains("removed 2 containers that an earlier gateway left behind"));
    let left = containers(&sandbox);
    assert!(left.len() == 2 && left[0].ends_with(" created") && left[1] == "other running", "{left:?}");
    is(&gateway.get("/"), 200);
    // One that is not to come again.
    sandbox.ok(["system", "prune", "-f"]);
    assert_eq!(containers(&sandbox).len(), 2, "that of a gateway that runs stays");
    gateway.session.signal(Signal::SIGKILL);
    let Gateway { session, .. } = gateway;
    drop(session);
    sandbox.ok(["system", "prune", "-f"]);
    assert_eq!(containers(&sandbox), ["other running"]);
    sandbox.ok(["rm", "-f", "other"]);
    sandbox.check_clean();
}

#[test]
fn a_file_in_the_place_of_the_operators_socket_stays() {
    let Some((sandbox, images)) = sandbox() else { return };
    let precious = sandbox.work().join("precious");
    std::fs::write(&precious, "text").expect("a file");
    let text = format!("admin = {:?}\n{WEB}[[routes]]\nfunction = \"web\"\n", precious.to_str().expect("UTF-8"));
    let file = write(&sandbox, &images, &text);
    let refused = sandbox.refuses(["serve", &file]);
    assert!(refused.contains("precious is there already"), "{refused}");
    assert_eq!(std::fs::read_to_string(&precious).expect("the file"), "text");
}

#[test]
fn a_gateway_that_stops_answers_what_it_has_begun() {
    let Some((sandbox, images)) = sandbox() else { return };
    let gateway = Gateway::start(&sandbox, &images, &format!("{WEB}[[routes]]\nfunction = \"web\"\n"));
    let mut begun = gateway.connect();
    begun.write_all(b"GET /cgi-bin/slow HTTP/1.1\r\nhost: a\r\n\r\n").expect("a request");
    let mut head = [0; 15];
    begun.read_exact(&mut head).expect("the beginning of an answer");
    gateway.session.signal(Signal::SIGTERM);
    until("nobody else is accepted", || TcpStream::connect(("127.0.0.1", gateway.port)).is_err().then_some(()));
    let mut answer = String::new();
    begun.read_to_string(&mut answer).expect("the rest of the answer");
    assert!(answer.contains("ended\n"), "{answer}");
    let ended = gateway.session.wait();
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(containers(&sandbox).is_empty(), "{:?}", containers(&sandbox));
}

#[test]
fn a_file_is_checked_without_a_start() {
    let Some((sandbox, images)) = sandbox() else { return };
    let file = write(&sandbox, &images, &format!("{WEB}{HELLO}{BOTH_ROUTES}"));
    let told = sandbox.ok(["serve", "--check", &file]);
    assert!(told.contains("hello  wasm   ") && told.contains("web    linux  "), "{told}");
    assert!(told.ends_with("can be served: 2 functions\n"), "{told}");
    let file = write(&sandbox, &images, &format!("{HELLO}pids = 5\n{WEB}workdir = \"x\"\n{BOTH_ROUTES}"));
    let told = sandbox.refuses(["serve", "--check", &file]);
    assert!(told.contains("function `web`: the working directory x is not absolute"), "{told}");
    let told = sandbox.refuses(["serve", "--check", &write(&sandbox, &images, "nmae = \"x\"\n")]);
    assert!(told.contains("functions.toml: line 2, column 1: there is no key `nmae`; did you mean `name`?"), "{told}");
    let missing =
        format!("[functions.hello]\nimage = \"{}\"\n[[routes]]\nfunction = \"hello\"\n", sandbox.image("not:there"));
    let told = sandbox.refuses(["serve", "--check", &write(&sandbox, &images, &missing)]);
    assert!(told.contains("not:there is not in the store; amphora pull"), "{told}");
    let schema: Value = serde_json::from_str(&sandbox.ok(["serve", "--schema"])).expect("JSON");
    assert!(schema["properties"]["functions"].is_object());
    assert!(containers(&sandbox).is_empty() && !sandbox.runroot().join("serve").exists());
    sandbox.check_clean();
}

#[test]
fn a_request_goes_to_another_container_where_nobody_listens_any_more() {
    let Some((sandbox, images)) = sandbox() else { return };
    sandbox.file(
        "www/serve",
        "busybox nc -l -p $PORT -e sh -c 'while read line; do [ ${#line} -le 1 ] && break; done; \
         printf \"HTTP/1.1 200 OK\\r\\ncontent-length: 5\\r\\n\\r\\nonce\\n\"'; exec sleep 1000\n",
    );
    let gateway = Gateway::start(&sandbox, &images, &format!("{WEB}[[routes]]\nfunction = \"web\"\n"));
    for count in 1..=3 {
        let answer = gateway.get("/");
        is(&answer, 200);
        assert!(answer.ends_with("once\n"), "{answer}");
        assert_eq!(gateway.status("web")["starts"], count);
    }
    let said = gateway.stop();
    assert_eq!(said.matches(" does not listen any more").count(), 2, "{said}");
    sandbox.check_clean();
}
