//! Networks of an ordinary user: by pasta, and by switches.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    sandbox::{Sandbox, fixture, is_second_kernel},
    session::until,
    wasm_networks::import_fetch,
};

/// An ordinary user's, with busybox.
fn ordinary() -> Option<(Sandbox, String)> {
    let (sandbox, [busybox]) = Sandbox::with(["busybox:latest"])?;
    let reason = if sandbox.is_root() || is_second_kernel() {
        "root has bridges, and no use for pasta"
    } else if Command::new("pasta").arg("--version").output().is_err() {
        "pasta is not installed (Debian: passt)"
    } else if File::options().read(true).write(true).open("/dev/net/tun").is_err() {
        "this user may not open /dev/net/tun"
    } else if !fs::read_to_string("/proc/net/route").is_ok_and(|routes| routes.lines().count() > 1) {
        "this machine has no route that pasta could use"
    } else {
        return Some((sandbox, busybox));
    };
    println!("skipped: {reason}");
    None
}

fn get(address: &str) -> Option<String> {
    let address: SocketAddr = address.parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.split("\r\n\r\n").nth(1).map(|body| body.trim().to_owned()).filter(|body| !body.is_empty())
}

fn serve(sandbox: &Sandbox, busybox: &str, name: &str, flags: &[&str]) {
    let run = ["run", "-d", "--name", name].into_iter().chain(flags.iter().copied());
    sandbox.ok(run.chain([busybox, "httpd", "-f", "-vv", "-p", "80", "-h", "/etc"]));
}

fn parent_of(pid: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1).map(str::to_owned)
}

/// Its supervisor, and the process that connects it.
fn supervisor_and_pasta(sandbox: &Sandbox, name: &str) -> (String, String) {
    let supervisor = parent_of(&sandbox.inspect(name, ".State.Pid")).expect("a parent");
    let is_pasta = |pid: &String| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        parent_of(pid).as_ref() == Some(&supervisor) && String::from_utf8_lossy(&command).contains("\0--netns-only\0")
    };
    let pids = fs::read_dir("/proc").expect("processes").flatten();
    let mut pids =
        pids.filter_map(|entry| entry.file_name().into_string().ok()).filter(|pid| pid.parse::<i32>().is_ok());
    let pasta = pids.find(is_pasta).expect("a process of pasta");
    (supervisor, pasta)
}

fn is_gone(pid: &str) -> bool {
    // What has ended and is not waited for yet is gone, too.
    !fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn an_ordinary_users_port_is_reached_and_free_again() {
    let Some((sandbox, busybox)) = ordinary() else { return };
    serve(&sandbox, &busybox, "web", &["-p", "127.0.0.1::80"]);
    let address = sandbox.ok(["port", "web", "80"]).trim().to_owned();
    let hostname = sandbox.inspect("web", ".Config.Hostname");
    assert_eq!(until("an answer", || get(&address)), hostname);
    assert!(sandbox.ok(["ps"]).contains(&format!("{address}->80/tcp")), "{}", sandbox.ok(["ps"]));
    // Who comes second is told before anything starts, by whom it is asked.
    let publish = format!("{address}:80");
    let said = sandbox.fails(125, ["run", "--rm", "-p", &publish, &busybox, "true"]);
    assert!(said.contains("port is already allocated"), "{said}");
    let said = sandbox.ok(["exec", "web", "ip", "-o", "-4", "address", "show", "dev", "eth0"]);
    let ip = sandbox.inspect("web", "(index .NetworkSettings.Networks \"bridge\").IPAddress");
    assert!(said.contains(&format!("inet {ip}/")), "{ip}: {said}");
    let (_, pasta) = supervisor_and_pasta(&sandbox, "web");
    sandbox.ok(["rm", "-f", "web"]);
    assert!(is_gone(&pasta));
    TcpListener::bind(&address).expect("the port is free");
    sandbox.check_clean();
}

#[test]
fn an_ordinary_users_container_reaches_nobodys_loopback() {
    let Some((sandbox, busybox)) = ordinary() else { return };
    let private = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = private.local_addr().expect("an address").port();
    private.set_nonblocking(true).expect("a socket");
    serve(&sandbox, &busybox, "web", &["-p", "127.0.0.1::80"]);
    let address = sandbox.ok(["port", "web", "80"]).trim().to_owned();
    until("an answer", || get(&address));
    let gateway = sandbox.inspect("web", "(index .NetworkSettings.Networks \"bridge\").Gateway");
    assert!(!gateway.is_empty());
    for target in ["127.0.0.1", "127.0.0.2", &gateway] {
        let ended = sandbox.run(["exec", "web", "sh", "-c", &format!("nc -w 2 {target} {port} </dev/null")]);
        assert_ne!(ended.code, Some(0), "{target}: {ended}");
    }
    assert!(private.accept().is_err(), "somebody has come");
    // Nor does the machine reach what the container did not publish.
    sandbox.ok(["exec", "web", "sh", "-c", &format!("httpd -p 127.0.0.1:{}", port ^ 1)]);
    sandbox.ok(["exec", "web", "sh", "-c", &format!("httpd -p {}", port ^ 2)]);
    for port in [port ^ 1, port ^ 2] {
        assert!(get(&format!("127.0.0.1:{port}")).is_none(), "it answers at {port}");
    }
    sandbox.ok(["rm", "-f", "web"]);
    sandbox.check_clean();
}

/// The machine's own, by which it reaches others.
fn address_of_machine() -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect("192.0.2.1:9").expect("a route");
    socket.local_addr().expect("an address").ip().to_string()
}

#[test]
fn who_comes_to_an_ordinary_users_port_keeps_his_address() {
    let Some((sandbox, busybox)) = ordinary() else { return };
    serve(&sandbox, &busybox, "web", &["-p", "80"]);
    let port = sandbox.ok(["port", "web", "80"]).trim().rsplit(':').next().expect("a port").to_owned();
    let own = address_of_machine();
    until("an answer", || get(&format!("{own}:{port}")));
    // CVE-2021-20199: all seem to come from where only the container itself is.
    let log = until("a request in the log", || {
        Some(sandbox.run(["logs", "web"])).map(|ended| ended.stdout + &ended.stderr).filter(|log| log.contains("url:"))
    });
    assert!(log.contains(&own) && !log.contains("127.0.0.1"), "{log}");
    sandbox.ok(["rm", "-f", "web"]);
    sandbox.check_clean();
}

/// Says back what it hears.
const ECHO: &str = "$s = IO::Socket::INET->new(LocalPort => shift, Proto => 'udp') or die $!; \
                    $s->send($b) while defined $s->recv($b, 99)";

#[test]
fn packets_of_udp_reach_an_ordinary_users_port() {
    let Some((sandbox, _)) = ordinary() else { return };
    if fixture("debian.tar").is_none() {
        return;
    }
    let debian = sandbox.pull("debian:bookworm");
    // The same number on both sides: for the machine's loopback Debian 12's pasta leads no answer back to another one.
    let free = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.local_addr()).expect("a port").port().to_string();
    let publish = format!("{free}:{free}/udp");
    sandbox.ok([
        "run",
        "-d",
        "--name",
        "echo",
        "-p",
        &publish,
        "-p",
        "53/udp",
        &debian,
        "perl",
        "-MIO::Socket::INET",
        "-e",
        ECHO,
        &free,
    ]);
    sandbox.ok(["exec", "-d", "echo", "perl", "-MIO::Socket::INET", "-e", ECHO, "53"]);
    let other = sandbox.ok(["port", "echo", "53/udp"]).trim().rsplit(':').next().expect("a port").to_owned();
    for address in [
        format!("127.0.0.1:{free}"),
        format!("{}:{free}", address_of_machine()),
        format!("{}:{other}", address_of_machine()),
    ] {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket");
        let mut buffer = [0; 16];
        until(&format!("an echo of {address}"), || {
            socket.send_to(b"hello", &address).expect("a packet");
            socket.recv(&mut buffer).ok().filter(|length| &buffer[..*length] == b"hello")
        });
    }
    sandbox.ok(["rm", "-f", "echo"]);
    sandbox.check_clean();
}

#[test]
fn what_connects_a_container_ends_with_its_supervisor() {
    let Some((sandbox, busybox)) = ordinary() else { return };
    serve(&sandbox, &busybox, "web", &["-p", "127.0.0.1::80"]);
    let address = sandbox.ok(["port", "web", "80"]).trim().to_owned();
    until("an answer", || get(&address));
    let (supervisor, pasta) = supervisor_and_pasta(&sandbox, "web");
    kill(Pid::from_raw(supervisor.parse().expect("a pid")), Signal::SIGKILL).expect("a supervisor");
    until("pasta to end", || is_gone(&pasta).then_some(()));
    // Its address and its port are free, and nothing of it is left when somebody cleans up.
    sandbox.run(["system", "prune", "-f"]);
    let port = address.rsplit(':').next().expect("a port");
    serve(&sandbox, &busybox, "next", &["-p", &format!("127.0.0.1:{port}:80")]);
    until("an answer", || get(&address));
    sandbox.ok(["rm", "-f", "next"]);
    sandbox.run(["rm", "-f", "web"]);
    sandbox.check_clean();
}

/// Asks a server within a network, from a container that is on it.
fn ask(sandbox: &Sandbox, client: &str, host: &str) -> Option<String> {
    let script = format!("timeout 5 wget -q -O - http://{host}/hostname");
    let ended = sandbox.run(["exec", client, "sh", "-c", &script]);
    Some(ended.stdout.trim().to_owned()).filter(|_| ended.code == Some(0))
}

#[test]
fn containers_of_an_ordinary_user_find_each_other_and_nobody_else() {
    let Some((sandbox, busybox)) = ordinary() else { return };
    sandbox.ok(["network", "create", "front"]);
    sandbox.ok(["network", "create", "--internal", "vault"]);
    serve(&sandbox, &busybox, "web", &["--network", "name=front,alias=shop", "-p", "127.0.0.1::80"]);
    serve(&sandbox, &busybox, "client", &["--network", "front", "--network", "vault"]);
    serve(&sandbox, &busybox, "safe", &["--network", "vault"]);
    let address = sandbox.ok(["port", "web", "80"]).trim().to_owned();
    let hostname = until("an answer by the port", || get(&address));
    assert_eq!(hostname, sandbox.inspect("web", ".Config.Hostname"));
    for host in ["web", "shop", "web.front"] {
        assert_eq!(ask(&sandbox, "client", host).as_deref(), Some(hostname.as_str()), "{host}");
    }
    until("who is on both networks is reached on each", || {
        ask(&sandbox, "web", "client").and(ask(&sandbox, "safe", "client"))
    });
    // A Wasm program in the same place.
    let fetch = import_fetch(&sandbox);
    let said = sandbox.ok([
        "run",
        "--rm",
        "--network",
        "front",
        "--add-host",
        &format!("web:{}", ip(&sandbox, "web", "front")),
        &fetch,
    ]);
    assert!(said.trim_end().ends_with(&hostname), "{said}");
    // Another network is out of reach, by name and by address; so is all else for who is on an internal one.
    for (from, to) in [
        ("safe", ip(&sandbox, "web", "front")),
        ("web", ip(&sandbox, "safe", "vault")),
        ("safe", format!("{}:{}", address_of_machine(), address.rsplit(':').next().expect("a port"))),
        ("safe", "web".to_owned()),
    ] {
        assert_eq!(ask(&sandbox, from, &to), None, "{from} reaches {to}");
    }
    let said = sandbox.fails(1, ["network", "connect", "vault", "web"]);
    assert!(said.contains("without root the networks of a container that runs stay as they are"), "{said}");
    sandbox.ok(["rm", "-f", "web", "client", "safe"]);
    sandbox.ok(["network", "rm", "front", "vault"]);
    sandbox.check_clean();
}

fn ip(sandbox: &Sandbox, name: &str, network: &str) -> String {
    sandbox.inspect(name, &format!("(index .NetworkSettings.Networks \"{network}\").IPAddress"))
}

#[test]
fn a_container_of_an_ordinary_user_takes_no_address_of_another() {
    let Some((sandbox, busybox)) = ordinary() else { return };
    sandbox.ok(["network", "create", "front"]);
    serve(&sandbox, &busybox, "web", &["--network", "front"]);
    serve(&sandbox, &busybox, "client", &["--network", "front"]);
    serve(&sandbox, &busybox, "thief", &["--network", "front", "--cap-add", "NET_ADMIN"]);
    let hostname = until("an answer", || ask(&sandbox, "client", "web"));
    assert_eq!(ask(&sandbox, "thief", "web").as_deref(), Some(hostname.as_str()));
    let (own, of_web) = (ip(&sandbox, "thief", "front"), ip(&sandbox, "web", "front"));
    // It says to all that the address is its own now, and asks in the name of somebody who is not there.
    let steal = format!(
        "ip addr add {of_web}/16 dev eth0; arping -c 3 -U -I eth0 {of_web}; arping -c 3 -A -I eth0 {of_web}; true"
    );
    sandbox.ok(["exec", "thief", "sh", "-c", &steal]);
    assert_eq!(ask(&sandbox, "client", "web").as_deref(), Some(hostname.as_str()));
    let pretend = format!("ip addr flush dev eth0; ip addr add {}/16 dev eth0", next(&own));
    sandbox.ok(["exec", "thief", "sh", "-c", &pretend]);
    assert_eq!(ask(&sandbox, "thief", &of_web), None, "by an address that it was not given");
    sandbox.ok(["rm", "-f", "web", "client", "thief"]);
    sandbox.ok(["network", "rm", "front"]);
    sandbox.check_clean();
}

/// An address that nobody has.
fn next(ip: &str) -> String {
    let (network, last) = ip.rsplit_once('.').expect("an address");
    format!("{network}.{}", last.parse::<u8>().expect("a number") + 100)
}

#[test]
fn a_switch_that_is_killed_is_followed_by_another_and_ends_with_the_last_container() {
    let Some((sandbox, busybox)) = ordinary() else { return };
    sandbox.ok(["network", "create", "front"]);
    serve(&sandbox, &busybox, "web", &["--network", "front"]);
    serve(&sandbox, &busybox, "client", &["--network", "front"]);
    let hostname = until("an answer", || ask(&sandbox, "client", "web"));
    let supervisors = ["web", "client"].map(|name| parent_of(&sandbox.inspect(name, ".State.Pid")).expect("a parent"));
    let mut switch = switch_of(&supervisors).expect("a switch");
    for _ in 0..3 {
        kill(Pid::from_raw(switch.parse().expect("a pid")), Signal::SIGKILL).expect("a switch");
        until("the switch to end", || is_gone(&switch).then_some(()));
        assert_eq!(until("an answer by another switch", || ask(&sandbox, "client", "web")), hostname);
        switch = switch_of(&supervisors).expect("another switch");
    }
    // Who started it may go, and the other one.
    sandbox.ok(["rm", "-f", "web"]);
    serve(&sandbox, &busybox, "web", &["--network", "front"]);
    until("an answer of the next one", || ask(&sandbox, "client", "web"));
    sandbox.ok(["rm", "-f", "web", "client"]);
    until("the switch to end", || is_gone(&switch).then_some(()));
    sandbox.ok(["network", "rm", "front"]);
    sandbox.check_clean();
}

/// The process that one of these has started last.
fn switch_of(supervisors: &[String]) -> Option<String> {
    let is_switch = |pid: &String| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        !is_gone(pid)
            && String::from_utf8_lossy(&command).contains("\0__switch")
            && parent_of(pid).is_some_and(|parent| supervisors.contains(&parent))
    };
    let pids = fs::read_dir("/proc").expect("processes").flatten();
    pids.filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|pid| pid.parse::<i32>().is_ok())
        .find(is_switch)
}

#[test]
fn what_an_ordinary_user_lacks_is_named() {
    let Some((sandbox, busybox)) = ordinary() else { return };
    sandbox.ok(["network", "create", "--internal", "vault"]);
    for (flags, reason) in [
        (&["-p", "80:80/sctp"][..], "knows TCP and UDP"),
        (&["-p", "80", "--network", "vault"], "internal"),
        (&["-p", "[::1]:8080:80"], "over IPv4"),
        (&["--network", "container:other"], "no such container"),
    ] {
        let run = ["run", "--rm"].into_iter().chain(flags.iter().copied()).chain([busybox.as_str(), "true"]);
        let said = sandbox.fails(125, run);
        assert!(said.contains(reason), "{flags:?}: {said}");
    }
    sandbox.ok(["network", "rm", "vault"]);
    let mut command = sandbox.command(["run", "--rm", "-p", "127.0.0.1::80", &busybox, "true"]);
    let said = command.env("PATH", "/nonexistent").output().expect("amphora");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("apt-get install passt"), "{said}");
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").expect("a setting");
    if first.trim() != "0" {
        let said = sandbox.fails(125, ["run", "--rm", "-p", "127.0.0.1:1:80", &busybox, "true"]);
        assert!(said.contains("127.0.0.1:1/tcp") && said.contains("ermission denied"), "{said}");
    }
    sandbox.check_clean();
}
