//! `amphora serve`, for who operates it: without a file, other versions of a file and of an image, shares of requests, and what is told whom.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::symlink,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    sandbox::Sandbox,
    serve::{Gateway, HELLO, WEB, is, sandbox, write},
    session::{PATIENCE, Session, until},
};

const ROUTE: &str = "[[routes]]\nfunction = \"hello\"\n";

/// What comes for a request at a port of this machine.
fn ask(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("somebody who listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// The same with one header.
fn ask_with(port: u16, line: &str, header: &str) -> String {
    ask(port, &format!("{line} HTTP/1.1\r\nhost: a\r\n{header}\r\nconnection: close\r\n\r\n"))
}

/// What stands behind a text that a gateway says, up to the end of the line.
fn told(session: &Session, before: &str) -> String {
    until(before, || {
        let said = session.stderr();
        let (_, rest) = said.split_once(before)?;
        Some(rest.split_once('\n')?.0.to_owned())
    })
}

fn port_in(text: &str) -> u16 {
    text.split('/').next().expect("a number").parse().expect("a number")
}

fn says(session: &Session, text: &str) {
    until(text, || session.stderr().contains(text).then_some(()));
}

#[test]
fn functions_are_served_without_a_file() {
    let Some((sandbox, [function, concurrent])) = Sandbox::with(["function:latest", "function:concurrent"]) else {
        return;
    };
    let [root, other] = [format!("/={function}"), format!("/other={concurrent}")];
    let words = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--route", &root, "--route", &other];
    let told_by_check = sandbox.ok([&words[..], &["--check"]].concat());
    assert!(
        told_by_check.contains("function-2  wasm   ")
            && told_by_check.ends_with("the command line can be served: 2 functions\n")
    );
    let session = sandbox.start(words);
    let port = port_in(&told(&session, "listening at http://127.0.0.1:"));
    is(&ask_with(port, "GET /", "x: y"), 200);
    is(&ask_with(port, "GET /other", "x: y"), 203);
    // Operators are let in by a token, which is told here, or by the socket.
    let operators = told(&session, "operators: http://127.0.0.1:");
    let (port, token) = (port_in(&operators), operators.split_once("?token=").expect("a token").1);
    is(&ask_with(port, "GET /healthz", "x: y"), 200);
    for header in ["x: y", "authorization: Bearer 0", "cookie: amphora-serve=0"] {
        is(&ask_with(port, "GET /status", header), 401);
    }
    let answer = ask_with(port, "GET /status", &format!("authorization: Bearer {token}"));
    assert!(answer.contains("\"name\":\"function-2\""), "{answer}");
    let answer = ask_with(port, &format!("GET /?token={token}"), "x: y");
    is(&answer, 303);
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    assert!(cookie.ends_with("; HttpOnly; SameSite=Strict; Path=/"), "{cookie}");
    let cookie = format!("cookie: {}", cookie.split(';').next().expect("a cookie"));
    is(&ask_with(port, "GET /", &cookie), 200);
    is(&ask_with(port, "POST /rollback?function=function", &cookie), 401);
    is(&ask_with(port, "POST /rollback?function=function", &format!("authorization: Bearer {token}")), 409);
    is(&ask_with(port, "GET /rollback?function=function", &cookie), 405);
    let shown = sandbox.ok(["serve", "ps"]);
    assert!(
        shown.starts_with("FUNCTION ") && shown.contains("\nfunction-2   wasm ") && shown.contains(&concurrent),
        "{shown}"
    );
    assert_eq!(sandbox.ok(["serve", "ps", "--format", "{{.Function}} {{.Requests}}"]), "function 1\nfunction-2 1\n");
    let refused = sandbox.refuses(["serve", "rollback", "function"]);
    assert!(refused.contains("function `function` has had no other image"), "{refused}");
    let refused = sandbox.refuses(["serve", "rollback", "--name", "other", "function"]);
    assert!(refused.contains("no gateway listens at ") && refused.contains("other.sock"), "{refused}");
    session.signal(Signal::SIGTERM);
    assert_eq!(session.wait().code, Some(0));
    for (words, expected) in [
        (&["serve"][..], "required arguments"),
        (&["serve", "--route", "x"], "--route x: expected [HOST]/PATH=IMAGE"),
        (&["serve", "--listen", "here", "--route", "/=x"], "`here` is no address"),
        (&["serve", "--route", "/=x", "file.toml"], "cannot be used with"),
    ] {
        let ended = sandbox.run(words);
        assert!(ended.code != Some(0) && ended.stderr.contains(expected), "{words:?}: {ended}");
    }
    sandbox.check_clean();
}

#[test]
fn a_file_that_changes_is_read_again() {
    let Some((sandbox, images)) = sandbox() else { return };
    let gateway = Gateway::start(&sandbox, &images, &format!("{HELLO}{ROUTE}path = \"/new\"\n"));
    is(&gateway.get("/new"), 200);
    write(&sandbox, &images, &format!("{HELLO}{ROUTE}path = \"/old\"\n"));
    until("the new routes", || gateway.get("/new").starts_with("HTTP/1.1 404 ").then_some(()));
    is(&gateway.get("/old"), 200);
    write(&sandbox, &images, &format!("drain = 1\nadmin = \"off\"\n{HELLO}{ROUTE}path = \"/new\"\n"));
    says(&gateway.session, "admin, drain: they have changed, and a gateway takes them when it starts; put them back");
    is(&gateway.get("/new"), 404);
    // As Kubernetes replaces the files of a ConfigMap: a link leads elsewhere.
    let file = sandbox.work().join("functions.toml");
    let elsewhere = sandbox.file(
        "elsewhere.toml",
        format!("listen = [\"127.0.0.1:0\"]\n{HELLO}{ROUTE}path = \"/new\"\n").replace("FUNCTION", &images[1]),
    );
    symlink(&elsewhere, sandbox.work().join("link")).expect("a link");
    fs::rename(sandbox.work().join("link"), file).expect("a name");
    until("the routes of the other file", || gateway.get("/new").starts_with("HTTP/1.1 200 ").then_some(()));
    gateway.stop();
    sandbox.check_clean();
}

#[test]
fn functions_share_the_requests_of_a_route() {
    let Some((sandbox, images)) = sandbox() else { return };
    let route = "[[routes]]\nweights = { hello = 3, web = 1 }\n";
    let gateway = Gateway::start(&sandbox, &images, &format!("{WEB}{HELLO}{route}"));
    let count = |requests: usize| {
        let answers: Vec<String> = (0..requests).map(|_| gateway.get("/")).collect();
        answers.iter().for_each(|answer| is(answer, 200));
        let of = |text: &str| answers.iter().filter(|answer| answer.contains(text)).count();
        [of("hello from wasm"), of("hello from linux")]
    };
    assert_eq!(count(12), [9, 3]);
    // By steps from one kind to the other, without a request lost.
    write(&sandbox, &images, &format!("{WEB}{HELLO}[[routes]]\nweights = {{ hello = 0, web = 5 }}\n"));
    says(&gateway.session, "was read again");
    assert_eq!(count(4), [0, 4]);
    gateway.stop();
}

/// What a registry has under a name, or is to have.
fn registry(sandbox: &Sandbox, method: &str, tag: &str, manifest: &str) -> String {
    const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
    let image = sandbox.image("function");
    let (host, _) = image.split_once('/').expect("a registry");
    let mut stream = TcpStream::connect(host).expect("a registry");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let length = manifest.len();
    write!(
        stream,
        "{method} /v2/function/manifests/{tag} HTTP/1.1\r\nhost: {host}\r\naccept: {TYPE}\r\ncontent-type: {TYPE}\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{manifest}"
    )
    .expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 20"), "{answer}");
    body.to_owned()
}

fn names_a_version(gateway: &Gateway<'_>, status: u16) {
    let wanted = format!("HTTP/1.1 {status} ");
    until(&wanted, || gateway.get("/").starts_with(&wanted).then_some(()));
}

#[test]
fn a_newer_image_takes_over_and_is_taken_back() {
    let Some(sandbox) = Sandbox::new() else { return };
    let [old, new] = ["latest", "concurrent"].map(|tag| registry(&sandbox, "GET", tag, ""));
    let tag = format!("moving-{}", std::process::id());
    registry(&sandbox, "PUT", &tag, &old);
    let image = sandbox.image(&format!("function:{tag}"));
    let images = [String::new(), image];
    let text = format!("{HELLO}watch = \"1s\"\n{ROUTE}");
    let gateway = Gateway::start(&sandbox, &images, &text);
    let answer = gateway.get("/");
    is(&answer, 200);
    registry(&sandbox, "PUT", &tag, &new);
    names_a_version(&gateway, 203);
    says(&gateway.session, "function hello: sha256:");
    let status = gateway.status("hello");
    let (current, previous) = (status["digest"].clone(), status["previous"].clone());
    assert!(current != previous && previous.is_string(), "{status}");
    // It was started before it got a request.
    let line = gateway.log_line("\"status\":203");
    assert_eq!(line["cold"], false, "{line}");
    let done = sandbox.ok(["serve", "rollback", "hello"]);
    assert!(done.contains(previous.as_str().expect("a digest")), "{done}");
    is(&gateway.get("/"), 200);
    // Its name still leads to the other one, which is neither served nor removed.
    gateway.session.signal(Signal::SIGHUP);
    says(&gateway.session, "was read again");
    sandbox.ok(["system", "prune", "-a", "-f"]);
    is(&gateway.get("/"), 200);
    assert_eq!(gateway.status("hello")["digest"], previous);
    // Nor by a gateway that comes after this one.
    gateway.stop();
    let gateway = Gateway::start(&sandbox, &images, &text);
    is(&gateway.get("/"), 200);
    let done = sandbox.ok(["serve", "rollback", "hello"]);
    assert!(done.contains(current.as_str().expect("a digest")), "{done}");
    is(&gateway.get("/"), 203);
    gateway.stop();
    sandbox.check_clean();
}

#[test]
fn an_image_that_does_not_listen_takes_over_nothing() {
    let Some((sandbox, images)) = sandbox() else { return };
    let [busybox, _] = &images;
    sandbox.ok(["tag", busybox, "mine:1"]);
    let function = "[functions.mine]\nimage = \"mine:1\"\nentrypoint = [\"/bin/serve\"]\npull = \"never\"\n[[routes]]\nfunction = \"mine\"\n";
    let make = |script: &str| {
        sandbox.ok(["create", "--name", "maker", busybox]);
        let script = sandbox.file("serve", script);
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a mode");
        sandbox.ok(["cp", &script, "maker:/bin/serve"]);
        sandbox.ok(["commit", "maker", "mine:1"]);
        sandbox.ok(["rm", "maker"]);
    };
    let page = |text: &str| {
        format!("#!/bin/sh\nmkdir -p /tmp/www; echo {text} > /tmp/www/index.html; exec httpd -f -p $PORT -h /tmp/www\n")
    };
    make(&page("first"));
    let file = write(&sandbox, &images, function);
    let session = sandbox.start(["serve", "--dev", &file]);
    let port = port_in(&told(&session, "listening at http://127.0.0.1:"));
    let gateway = Gateway { sandbox: &sandbox, session, port };
    assert!(gateway.get("/").ends_with("first\n"));
    make("#!/bin/sh\necho no luck; exit 3\n");
    says(&gateway.session, "is not served: no container could be started");
    assert!(gateway.get("/").ends_with("first\n"));
    // Nor when the file is read again.
    gateway.session.signal(Signal::SIGHUP);
    says(&gateway.session, "was read again");
    assert!(gateway.get("/").ends_with("first\n"));
    make(&page("third"));
    until("the next image", || gateway.get("/").ends_with("third\n").then_some(()));
    let said = gateway.stop();
    assert_eq!(said.matches("is not served: ").count(), 1, "{said}");
    sandbox.check_clean();
}

#[test]
fn developers_are_told_what_went_wrong() {
    let Some((sandbox, images)) = sandbox() else { return };
    let text = "[functions.dead]\nimage = \"BUSYBOX\"\ncommand = [\"sh\", \"-c\", \"echo 'no <luck>'; exit 3\"]\n[[routes]]\nfunction = \"dead\"\n";
    let file = write(&sandbox, &images, text);
    let session = sandbox.start(["serve", "--dev", &file]);
    let port = port_in(&told(&session, "listening at http://127.0.0.1:"));
    let answer = ask_with(port, "GET /", "accept: text/html");
    is(&answer, 502);
    assert!(answer.contains("content-type: text/html") && answer.contains("no &lt;luck&gt;"), "{answer}");
    let answer = ask_with(port, "GET /", "accept: */*");
    is(&answer, 502);
    assert!(answer.contains("function dead\n") && answer.contains("no <luck>"), "{answer}");
    session.signal(Signal::SIGTERM);
    assert_eq!(session.wait().code, Some(0));
    // Others are told nothing of it.
    let gateway = Gateway::start(&sandbox, &images, text);
    let answer = gateway.get("/");
    is(&answer, 502);
    assert!(!answer.contains("luck") && !answer.contains("dead"), "{answer}");
    gateway.stop();
}

#[test]
fn the_demo_serves_both_kinds_and_leaves_nothing_behind() {
    let Some(sandbox) = Sandbox::new() else { return };
    let temporary = sandbox.work().join("temporary");
    fs::create_dir(&temporary).expect("a folder");
    let mut command = sandbox.command(["serve", "--demo"]);
    command.env("TMPDIR", &temporary);
    let session = Session::start(command);
    session.until_printed("It goes on until it is ended");
    let printed = session.stdout();
    for name in ["wasm", "linux"] {
        let line = printed.lines().find(|line| line.starts_with(name) && line.ends_with(" ms"));
        let line = line.unwrap_or_else(|| panic!("no figures of {name}: {printed}"));
        let rate: u64 = line.split_whitespace().nth(3).and_then(|rate| rate.parse().ok()).expect("a rate");
        assert!(rate > 0, "{line}");
    }
    let port = port_in(&told(&session, "listening at http://127.0.0.1:"));
    assert!(ask_with(port, "GET /legacy", "x: y").contains("Hello from a vessel of Linux code."));
    let operators = told(&session, "operators: http://127.0.0.1:");
    let token = operators.split_once("?token=").expect("a token").1;
    let answer = ask_with(port_in(&operators), "GET /status", &format!("authorization: Bearer {token}"));
    let status: Value = serde_json::from_str(answer.split_once("\r\n\r\n").expect("a body").1).expect("JSON");
    assert_eq!([&status["functions"][0]["kind"], &status["functions"][1]["kind"]], ["linux", "wasm"]);
    session.signal(Signal::SIGTERM);
    let ended = session.wait();
    assert_eq!(ended.code, Some(0), "{ended}");
    assert_eq!(fs::read_dir(&temporary).expect("a folder").count(), 0, "{ended}");
}

#[test]
fn the_same_functions_are_services_of_knative() {
    let Some((sandbox, images)) = sandbox() else { return };
    let file = write(
        &sandbox,
        &images,
        &format!("{WEB}{HELLO}memory = \"64m\"\n[[routes]]\nweights = {{ hello = 9, web = 1 }}\n"),
    );
    let text = sandbox.ok(["serve", "export", "knative", &file]);
    assert!(text.contains("any host, /: hello (weight 9), web (weight 1)"), "{text}");
    let services: Vec<&str> = text.split("---\n").skip(1).collect();
    assert_eq!(services.len(), 2, "{text}");
    assert!(
        services[0].contains("\n  name: \"hello\"\n") && services[0].contains("            memory: \"67108864\"\n"),
        "{text}"
    );
    assert!(services[1].contains("        command: [\"sh\",\"/www/serve\"]\n"), "{text}");
}
