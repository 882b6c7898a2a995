//! Networks of containers: reached by port and by name, kept apart from each other, and whole whatever is killed.
//!
//! Each test has a network namespace of its own as the machine, so that nothing stays on the real one.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsFd,
    process::Command,
    thread,
    time::Duration,
};

use linux_exec::network::{Links, namespace};

use crate::{
    sandbox::{Sandbox, is_second_kernel},
    session::{Session, until},
};

/// Calls `test` with busybox, on a thread whose network namespace is the machine's for all that it starts. It has loopback, and a
/// device to another machine that is not there.
pub(crate) fn alone(test: impl FnOnce(&Sandbox, &str) + Send) {
    alone_with(["busybox:latest"], |sandbox, [busybox]| test(sandbox, busybox));
}

/// The same with these images.
pub(crate) fn alone_with<const N: usize>(images: [&str; N], test: impl FnOnce(&Sandbox, &[String; N]) + Send) {
    let Some((sandbox, images)) = Sandbox::with(images) else { return };
    if !sandbox.is_root() || is_second_kernel() {
        return println!("skipped: networks need root, bridges and nf_tables");
    }
    if Command::new("nft").arg("--version").output().is_err() {
        return println!("skipped: nftables is not installed");
    }
    let inside = || {
        let links = Links::open()?;
        assert!(links.add_bridge("uplink", [2, 0, 0, 0, 0, 9], 1500)?);
        let uplink = links.find("uplink")?.expect("it was just made");
        links.configure(
            uplink.index,
            &[(IpAddr::from([198, 51, 100, 1]), 24), (IpAddr::from([0x2001_u16, 0xdb8, 0, 0, 0, 0, 0, 1]), 64)],
            &[],
        )?;
        test(&sandbox, &images);
        Ok::<_, linux_exec::Error>(())
    };
    let done = thread::scope(|scope| scope.spawn(|| namespace::make(inside).map(drop)).join());
    match done {
        Ok(made) => made.expect("a network namespace"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A web server in the background that shows its own `/etc`.
pub(crate) fn serve(sandbox: &Sandbox, busybox: &str, name: &str, flags: &[&str]) {
    let run = ["run", "-d", "--name", name].into_iter().chain(flags.iter().copied());
    let run = run.chain([busybox, "httpd", "-f", "-p", "80", "-h", "/etc"]);
    sandbox.ok(run);
}

pub(crate) fn get(address: &str) -> std::io::Result<String> {
    let address: SocketAddr = address.parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.split("\r\n\r\n").nth(1).unwrap_or_default().trim().to_owned())
}

/// Once its server listens.
pub(crate) fn get_soon(address: &str) -> String {
    until(&format!("an answer of {address}"), || get(address).ok().filter(|text| !text.is_empty()))
}

pub(crate) fn exec(sandbox: &Sandbox, container: &str, script: &str) -> crate::session::Ended {
    sandbox.run(["exec", container, "sh", "-c", script])
}

/// Calls something in a container's network namespace.
pub(crate) fn within<T>(sandbox: &Sandbox, container: &str, action: impl FnOnce() -> T) -> T {
    let pid = sandbox.inspect(container, ".State.Pid").parse().expect("a pid");
    let inner = namespace::of_process(pid).expect("a network namespace");
    namespace::inside(inner.as_fd(), || Ok::<_, linux_exec::Error>(action())).expect("to be in it")
}

/// Whether a container gets an answer of a web server.
pub(crate) fn reaches(sandbox: &Sandbox, container: &str, address: &str) -> bool {
    within(sandbox, container, || get(address)).is_ok_and(|text| !text.is_empty())
}

/// Whether somebody takes a container's connection.
fn knocks(sandbox: &Sandbox, container: &str, address: &str) -> bool {
    let address = address.parse().expect("an address");
    within(sandbox, container, || TcpStream::connect_timeout(&address, Duration::from_secs(1))).is_ok()
}

pub(crate) fn address(sandbox: &Sandbox, container: &str, network: &str) -> String {
    sandbox.inspect(container, &format!("(index .NetworkSettings.Networks \"{network}\").IPAddress"))
}

pub(crate) fn devices() -> usize {
    let links = Links::open().and_then(|links| links.list()).expect("a list of devices");
    links.iter().filter(|link| link.name.starts_with("amv")).count()
}

/// Devices go with their namespaces, which takes the kernel a moment.
pub(crate) fn no_devices() {
    until("the devices of containers to go", || (devices() == 0).then_some(()));
}

/// Elements of a set of ours.
pub(crate) fn elements(set: &str) -> usize {
    use linux_exec::network::nftables::{Family, Table, count_elements};
    let listed = Command::new("nft").args(["list", "tables", "inet"]).output();
    let listed = String::from_utf8(listed.expect("nft is installed").stdout).expect("text");
    let count = |name: &str| count_elements(Table { family: Family::Inet, name }, set).expect("a set").unwrap_or(0);
    listed.lines().filter_map(|line| line.strip_prefix("table inet ")).map(|name| count(name.trim())).sum()
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    alone(|sandbox, busybox| {
        sandbox.ok(["network", "create", "--ipv6", "front"]);
        serve(sandbox, busybox, "web", &["--network", "front", "-p", "8080:80", "-p", "127.0.0.1::80"]);
        let hostname = sandbox.inspect("web", ".Config.Hostname");
        for address in ["127.0.0.1:8080", "198.51.100.1:8080", "[2001:db8::1]:8080", "[::1]:8080"] {
            assert_eq!(get_soon(address), hostname, "{address}");
        }
        let ports = sandbox.ok(["port", "web", "80"]);
        let chosen = ports.lines().find(|line| line.starts_with("127.0.0.1:")).unwrap();
        assert_eq!(get(chosen).unwrap(), hostname);
        // Itself, and a neighbour, by the machine's address.
        assert!(reaches(sandbox, "web", "198.51.100.1:8080"));
        serve(sandbox, busybox, "other", &["--network", "front"]);
        assert!(reaches(sandbox, "other", "198.51.100.1:8080"));
        // One on another network, as anybody outside; but not what is for the machine alone.
        serve(sandbox, busybox, "stranger", &["--network", "bridge"]);
        assert!(reaches(sandbox, "stranger", "198.51.100.1:8080"));
        assert!(!reaches(sandbox, "stranger", chosen));
        assert!(sandbox.ok(["ps"]).contains("0.0.0.0:8080->80/tcp"));
        // Whoever comes second is told before anything starts.
        let said = sandbox.fails(125, ["run", "-d", "--name", "late", "-p", "8080:80", busybox, "true"]);
        assert!(said.contains("0.0.0.0:8080/tcp failed: port is already allocated, by container web"), "{said}");
        sandbox.ok(["rm", "-f", "web", "other", "stranger", "late"]);
        assert!(get("127.0.0.1:8080").is_err());
        assert_eq!((elements("ports4"), elements("ports6")), (0, 0));
        no_devices();
        // It is free at once.
        serve(sandbox, busybox, "next", &["-p", "8080:80", "-p", "[::1]:8081:80"]);
        get_soon("127.0.0.1:8080");
        // Over IPv6 to a container that has none.
        for address in ["[::1]:8080", "[::1]:8081", "[2001:db8::1]:8080"] {
            assert!(!get_soon(address).is_empty(), "{address}");
        }
        assert!(get("[2001:db8::1]:8081").is_err());
        sandbox.ok(["rm", "-f", "next"]);
        sandbox.check_clean();
    });
}

#[test]
fn packets_of_udp_reach_a_published_port() {
    alone(|sandbox, busybox| {
        serve(sandbox, busybox, "echo", &["-p", "5300:53/udp"]);
        let server = within(sandbox, "echo", || UdpSocket::bind("0.0.0.0:53")).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 16];
        for address in ["127.0.0.1:5300", "198.51.100.1:5300"] {
            socket.send_to(b"hello", address).unwrap();
            let (length, client) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..length], client).unwrap();
            assert_eq!(socket.recv(&mut buffer).unwrap(), 5, "{address}");
        }
        // The same client's packets reach who comes next, by another address.
        serve(sandbox, busybox, "holder", &["--network", "bridge"]);
        sandbox.ok(["rm", "-f", "echo"]);
        serve(sandbox, busybox, "second", &["--network", "bridge"]);
        serve(sandbox, busybox, "next", &["-p", "5300:53/udp"]);
        let server = within(sandbox, "next", || UdpSocket::bind("0.0.0.0:53")).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.send_to(b"again", "127.0.0.1:5300").unwrap();
        assert_eq!(server.recv(&mut buffer).unwrap(), 5);
        sandbox.ok(["rm", "-f", "holder", "second", "next"]);
    });
}

#[test]
fn networks_are_kept_apart() {
    alone(|sandbox, busybox| {
        for network in [&["front"][..], &["back"], &["--internal", "vault"]] {
            sandbox.ok(["network", "create"].iter().chain(network).copied());
        }
        for (name, networks) in [("ca", &["front"][..]), ("cb", &["back"]), ("cc", &["vault"]), ("cd", &["vault"])] {
            let flags: Vec<&str> = networks.iter().flat_map(|network| ["--network", network]).collect();
            serve(sandbox, busybox, name, &[&flags[..], &["--cap-add", "NET_ADMIN"]].concat());
        }
        let (a, b, c) =
            (address(sandbox, "ca", "front"), address(sandbox, "cb", "back"), address(sandbox, "cc", "vault"));
        for ip in [&a, &b, &c] {
            get_soon(&format!("{ip}:80"));
        }
        assert!(reaches(sandbox, "cd", &format!("{c}:80")));
        for (from, to) in [("ca", &b), ("cb", &a), ("ca", &c), ("cc", &a)] {
            assert!(!reaches(sandbox, from, &format!("{to}:80")), "{from} reaches {to}");
        }
        // The machine: what it serves on loopback is out of reach, whatever a container's routes are.
        let loopback = std::net::TcpListener::bind("127.0.0.1:7000").unwrap();
        let outside = std::net::TcpListener::bind("198.51.100.1:7001").unwrap();
        let gateway = |network: &str| {
            let all = sandbox.ok(["network", "inspect", "-f", "{{range .IPAM.Config}}{{.Gateway}}{{end}}", network]);
            all.trim().to_owned()
        };
        let front = gateway("front");
        let does =
            |container: &str, script: &str| assert_eq!(exec(sandbox, container, script).code, Some(0), "{script}");
        does("ca", &format!("ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via {front}"));
        assert!(!knocks(sandbox, "ca", "127.0.0.1:7000"));
        assert!(knocks(sandbox, "ca", "198.51.100.1:7001"));
        assert!(!knocks(sandbox, "cc", "198.51.100.1:7001"));
        does("cc", &format!("ip route add default via {}", gateway("vault")));
        assert!(!knocks(sandbox, "cc", "198.51.100.1:7001"));
        assert!(!knocks(sandbox, "cc", &format!("{}:7001", gateway("vault"))));
        // By somebody else's address, and by its own again.
        does("ca", &format!("ip addr add {b}/32 dev eth0; ip route replace default via {front} dev eth0 src {b}"));
        assert!(!knocks(sandbox, "ca", "198.51.100.1:7001"));
        does("ca", &format!("ip route replace default via {front} dev eth0 src {a}"));
        assert!(knocks(sandbox, "ca", "198.51.100.1:7001"));
        drop((loopback, outside));
        sandbox.ok(["rm", "-f", "ca", "cb", "cc", "cd"]);
        sandbox.ok(["network", "rm", "front", "back", "vault"]);
        sandbox.check_clean();
    });
}

/// CVE-2020-13401, CVE-2020-10749, CVE-2024-32473.
#[test]
fn no_container_is_a_router_for_others() {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, recv, sendto, setsockopt, socket,
        sockopt,
    };
    use std::{net::SocketAddrV6, os::fd::AsRawFd};
    alone(|sandbox, busybox| {
        sandbox.ok(["network", "create", "--ipv6", "front"]);
        sandbox.ok(["network", "create", "plain"]);
        serve(sandbox, busybox, "attacker", &["--network", "front"]);
        serve(sandbox, busybox, "victim", &["--network", "front"]);
        serve(sandbox, busybox, "plain", &["--network", "plain"]);
        let raw = |name: &str| {
            let pid = sandbox.inspect(name, ".State.Pid").parse().unwrap();
            let namespace = namespace::of_process(pid).unwrap();
            let open = || {
                Ok::<_, linux_exec::Error>(socket(
                    AddressFamily::Inet6,
                    SockType::Raw,
                    SockFlag::empty(),
                    SockProtocol::IcmpV6,
                ))
            };
            let socket = namespace::inside(namespace.as_fd(), open).unwrap().unwrap();
            let index = namespace::inside(namespace.as_fd(), || Links::open()?.find("eth0")).unwrap().unwrap().index;
            (socket, index)
        };
        let ((attacker, index), (victim, _)) = (raw("attacker"), raw("victim"));
        setsockopt(&victim, sockopt::ReceiveTimeout, &nix::sys::time::TimeVal::new(1, 0)).unwrap();
        setsockopt(&attacker, sockopt::Ipv6MulticastHops, &255).unwrap();
        let all = SockaddrIn6::from(SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, index));
        // An advertisement of a router, a redirect, and a ping, which shows that the way is open.
        let mut advertisement = [0; 16];
        (advertisement[0], advertisement[4], advertisement[6]) = (134, 64, 7);
        let mut redirect = [0; 40];
        redirect[0] = 137;
        for message in [&advertisement[..], &redirect, &[128, 0, 0, 0, 0, 1, 0, 1]] {
            sendto(attacker.as_raw_fd(), message, &all, MsgFlags::empty()).unwrap();
        }
        let mut kinds = Vec::new();
        let mut buffer = [0; 256];
        while let Ok(length) = recv(victim.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            kinds.extend((length > 0).then_some(buffer[0]));
        }
        assert!(kinds.contains(&128) && !kinds.contains(&134) && !kinds.contains(&137), "{kinds:?}");
        let addresses = exec(sandbox, "plain", "ip -6 addr show dev eth0").stdout;
        assert_eq!(addresses, "", "IPv6 where only IPv4 was asked for");
        sandbox.ok(["rm", "-f", "attacker", "victim", "plain"]);
    });
}

#[test]
fn containers_find_each_other_by_name() {
    alone(|sandbox, busybox| {
        sandbox.ok(["network", "create", "--ipv6", "front"]);
        sandbox.ok(["network", "create", "--internal", "vault"]);
        serve(sandbox, busybox, "web", &["--network", "front", "--network-alias", "www", "--hostname", "box"]);
        serve(sandbox, busybox, "client", &["--network", "front"]);
        let id = sandbox.inspect("web", ".Id");
        let ip = address(sandbox, "web", "front");
        for name in ["web", "www", "WEB", "web.front", &id[..12]] {
            let found = exec(sandbox, "client", &format!("nslookup {name}"));
            assert!(found.code == Some(0) && found.stdout.contains(&ip), "{name}: {found}");
        }
        let looked_up = exec(sandbox, "client", "nslookup web 127.0.0.11").stdout;
        assert!(looked_up.contains(&ip) && looked_up.contains("fd"), "{looked_up}");
        let backwards = exec(sandbox, "client", &format!("nslookup {ip} 127.0.0.11")).stdout;
        assert!(backwards.contains("web.front"), "{backwards}");
        assert_ne!(exec(sandbox, "client", "nslookup nobody 127.0.0.11").code, Some(0));
        let files = exec(sandbox, "web", "cat /etc/hosts /etc/hostname /etc/resolv.conf").stdout;
        for line in [format!("{ip}\tbox"), "box".to_owned(), "nameserver 127.0.0.11".to_owned()] {
            assert!(files.lines().any(|found| found == line), "{line}: {files}");
        }
        // A name server of the machine's, which says that every name is 192.0.2.7; nothing of an internal network gets there.
        serve(sandbox, busybox, "inner", &["--network", "vault", "--dns", "198.51.100.1"]);
        serve(sandbox, busybox, "outer", &["--network", "front", "--dns", "198.51.100.1"]);
        let server = UdpSocket::bind("198.51.100.1:53").unwrap();
        server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let asked = thread::scope(|scope| {
            let answering = scope.spawn(|| {
                let (mut asked, mut buffer) = (Vec::new(), [0; 512]);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let Ok((length, client)) = server.recv_from(&mut buffer) else { continue };
                    asked.push(String::from_utf8_lossy(&buffer[12..length]).into_owned());
                    let mut message = buffer[..length].to_vec();
                    (message[2], message[7]) = (0x81, 1);
                    message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 7]);
                    server.send_to(&message, client).unwrap();
                }
                asked
            });
            let outer = exec(sandbox, "outer", "nslookup -type=a example.com 127.0.0.11");
            let inner = exec(sandbox, "inner", "nslookup -type=a secret.example.com 127.0.0.11");
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(outer.stdout.contains("192.0.2.7"), "{outer}");
            assert!(!inner.stdout.contains("192.0.2.7"), "{inner}");
            answering.join().unwrap()
        });
        assert!(!asked.is_empty() && asked.iter().all(|question| !question.contains("secret")), "{asked:?}");
        sandbox.ok(["rm", "-f", "web", "client", "inner", "outer"]);
    });
}

/// CVE-2024-8418.
#[test]
fn who_is_slow_on_a_connection_holds_up_nobody() {
    alone(|sandbox, busybox| {
        sandbox.ok(["network", "create", "front"]);
        serve(sandbox, busybox, "web", &["--network", "front", "--dns", "198.51.100.77"]);
        let pid = sandbox.inspect("web", ".State.Pid").parse().unwrap();
        let inner = namespace::of_process(pid).unwrap();
        let connect = || {
            let slow: Vec<_> = (0..20).map(|_| TcpStream::connect("127.0.0.11:53").unwrap()).collect();
            // Names that nobody knows, of a server that is not there.
            let flood = UdpSocket::bind("127.0.0.1:0").unwrap();
            for number in 0..2000_u16 {
                let [high, low] = number.to_be_bytes();
                let query = [high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'x', 0, 0, 1, 0, 1];
                // More than the kernel keeps are lost.
                let _ = flood.send_to(&query, "127.0.0.11:53");
            }
            Ok::<_, linux_exec::Error>(slow)
        };
        let slow = namespace::inside(inner.as_fd(), connect).unwrap();
        let found = exec(sandbox, "web", "nslookup -type=a web 127.0.0.11");
        assert!(found.stdout.contains(&address(sandbox, "web", "front")), "{found}");
        drop(slow);
        sandbox.ok(["rm", "-f", "web"]);
    });
}

#[test]
fn fifty_starts_at_once_get_fifty_addresses() {
    alone(|sandbox, busybox| {
        sandbox.ok(["network", "create", "front"]);
        let start = |number: usize| {
            let name = format!("c{number}");
            let port = format!("{}:80", 9000 + number);
            sandbox.start(["run", "-d", "--name", &name, "--network", "front", "-p", &port, busybox, "sleep", "1000"])
        };
        let sessions: Vec<Session> = (0..50).map(start).collect();
        for ended in sessions.into_iter().map(Session::wait) {
            assert_eq!(ended.code, Some(0), "{ended}");
        }
        let names: Vec<String> = (0..50).map(|number| format!("c{number}")).collect();
        let mut ips: Vec<String> = names.iter().map(|name| address(sandbox, name, "front")).collect();
        ips.sort();
        ips.dedup();
        assert_eq!((ips.len(), devices(), elements("ports4"), elements("members4")), (50, 50, 50, 50));
        sandbox.check_clean();
        sandbox.ok(["rm", "-f"].into_iter().chain(names.iter().map(String::as_str)));
        assert_eq!((elements("ports4"), elements("members4")), (0, 0));
        no_devices();
        sandbox.check_clean();
    });
}

#[test]
fn a_small_network_is_full_and_then_is_not() {
    alone(|sandbox, busybox| {
        sandbox.ok(["network", "create", "--subnet", "10.77.0.0/29", "tiny"]);
        let run =
            |name: &str| sandbox.run(["run", "-d", "--name", name, "--network", "tiny", busybox, "sleep", "1000"]);
        for name in ["c1", "c2", "c3", "c4", "c5"] {
            assert_eq!(run(name).code, Some(0));
        }
        let full = run("c6");
        assert_eq!(full.code, Some(125));
        assert!(full.stderr.contains("no available addresses on network tiny (10.77.0.0/29)"), "{full}");
        let taken = sandbox.fails(125, ["run", "--rm", "--network", "tiny", "--ip", "10.77.0.2", busybox, "true"]);
        assert!(taken.contains("Address already in use: 10.77.0.2"), "{taken}");
        let outside = sandbox.fails(125, ["run", "--rm", "--network", "tiny", "--ip", "10.78.0.2", busybox, "true"]);
        assert!(outside.contains("no configured subnet contains IP address 10.78.0.2"), "{outside}");
        sandbox.ok(["rm", "-f", "c3"]);
        let ip = ["run", "--rm", "--network", "tiny", busybox, "ip", "-4", "-o", "addr", "show", "eth0"];
        assert!(sandbox.ok(ip).contains("10.77.0.4/29"));
        // A supervisor that is killed takes its container with it, and the next who needs the address has it.
        let id = sandbox.inspect("c4", ".Id");
        let record = std::fs::read_to_string(sandbox.runroot().join(format!("running/{id}.json"))).unwrap();
        let record: serde_json::Value = serde_json::from_str(record.lines().next().unwrap()).unwrap();
        let supervisor = i32::try_from(record["supervisor_pid"].as_i64().unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor), nix::sys::signal::Signal::SIGKILL).unwrap();
        until("the end of c4", || (sandbox.inspect("c4", ".State.Status") == "exited").then_some(()));
        let said = sandbox.run(["system", "check"]);
        assert!(said.stdout.contains("address 10.77.0.5 on network tiny of container c4"), "{said}");
        assert_eq!(run("c7").code, Some(0));
        assert_eq!(run("c8").code, Some(0));
        assert_eq!(address(sandbox, "c8", "tiny"), "10.77.0.5");
        sandbox.ok(["rm", "-f", "c1", "c2", "c4", "c5", "c6", "c7", "c8"]);
        sandbox.check_clean();
    });
}

#[test]
fn what_somebody_else_removes_is_named_and_mended() {
    alone(|sandbox, busybox| {
        sandbox.ok(["network", "create", "front"]);
        serve(sandbox, busybox, "web", &["--network", "front", "-p", "8080:80"]);
        get_soon("127.0.0.1:8080");
        assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
        assert!(get("127.0.0.1:8080").is_err());
        let said = sandbox.run(["system", "check"]);
        assert!(said.code == Some(1) && said.stdout.contains("rules of networks"), "{said}");
        sandbox.ok(["system", "repair"]);
        get_soon("127.0.0.1:8080");
        let bridge = format!("am-{}", &sandbox.ok(["network", "inspect", "-f", "{{.Id}}", "front"])[..12]);
        assert!(Links::open().unwrap().delete(&bridge).unwrap());
        let said = sandbox.run(["system", "check"]);
        assert!(said.code == Some(1) && said.stdout.contains(&bridge), "{said}");
        sandbox.ok(["system", "repair"]);
        get_soon("127.0.0.1:8080");
        let closed = "add table ip firewall; add chain ip firewall FORWARD { type filter hook forward priority 0; policy drop; }";
        assert!(Command::new("nft").arg(closed).status().unwrap().success());
        let said = sandbox.ok(["system", "check"]);
        assert!(said.contains("nft insert rule ip firewall FORWARD iifname"), "{said}");
        // A start writes the rules anew by itself, for all.
        assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
        serve(sandbox, busybox, "other", &["--network", "front"]);
        get_soon("127.0.0.1:8080");
        sandbox.check_clean();
        sandbox.ok(["rm", "-f", "web", "other"]);
    });
}

#[test]
fn networks_are_made_listed_and_removed() {
    alone(|sandbox, busybox| {
        let id = sandbox.ok(["network", "create", "--subnet", "10.66.0.0/24", "--label", "tier=front", "front"]);
        let shown = sandbox.ok(["network", "ls", "--filter", "label=tier=front", "--no-trunc"]);
        assert!(shown.starts_with("NETWORK ID") && shown.contains(id.trim()) && shown.contains("bridge"), "{shown}");
        let all = sandbox.ok(["network", "ls", "--format", "{{.Name}} {{.Driver}}"]);
        assert_eq!(all, "bridge bridge\nfront bridge\nhost host\nnone null\n");
        for (arguments, said) in [
            (&["create", "front"][..], "network with name front already exists"),
            (&["create", "host"], "network with name host already exists"),
            (&["create", "a/b"], "invalid network name"),
            (&["create", "--subnet", "10.66.0.128/25", "back"], "overlaps network front"),
            (&["create", "--subnet", "198.51.100.0/25", "back"], "overlaps this machine's route to 198.51.100.0/24"),
            (&["create", "--subnet", "10.67.0.1/24", "back"], "10.67.0.0/24"),
            (&["create", "--subnet", "224.0.0.0/4", "back"], "overlaps 224.0.0.0/3, which no host"),
            (&["create", "--subnet", "::/0", "back"], "overlaps ::/8, which no host"),
            (&["create", "--subnet", "10.67.0.0/24", "--gateway", "10.68.0.1", "back"], "--gateway"),
            (&["create", "--subnet", "10.67.0.0/24", "--ip-range", "10.68.0.0/25", "back"], "not part of"),
            (&["create", "-d", "overlay", "back"], "--driver overlay"),
            (&["create", "-o", "colour=red", "back"], "colour=red"),
            (&["rm", "nothing"], "network nothing not found"),
            (&["rm", "bridge"], "pre-defined"),
        ] {
            let said_here = sandbox.fails(1, ["network"].iter().chain(arguments).copied());
            assert!(said_here.contains(said), "{arguments:?}: {said_here}");
        }
        let run = ["run", "-d", "--name", "web", "--network", "front", "--ip", "10.66.0.9", "--mac-address"];
        sandbox.ok(run.into_iter().chain(["02:42:00:00:00:09", busybox, "sleep", "1000"]));
        assert!(sandbox.fails(1, ["network", "rm", "front"]).contains("active endpoints: container web"));
        let member = sandbox.ok(["network", "inspect", "-f", "{{json .Containers}}", "front"]);
        assert!(member.contains("10.66.0.9/24") && member.contains("02:42:00:00:00:09"), "{member}");
        // Another container's whole network.
        let shared = ["run", "--rm", "--network", "container:web", busybox, "ip", "-4", "-o", "addr", "show", "eth0"];
        assert!(sandbox.ok(shared).contains("10.66.0.9/24"));
        sandbox.ok(["rm", "-f", "web"]);
        let pruned = sandbox.ok(["network", "prune", "-f"]);
        assert_eq!(pruned, "Deleted Networks:\nfront\n\n");
        for flags in [&["--network", "nothing"][..], &["--network", "host", "-p", "80:80"], &["--ip", "10.0.0.1"]] {
            sandbox.fails(125, ["run", "--rm"].iter().chain(flags).copied().chain([busybox, "true"]));
        }
        sandbox.check_clean();
    });
}

/// Whatever is killed, whenever: a start is killed after a random time, and what it left is taken back.
#[test]
fn starts_that_are_killed_lose_no_address() {
    alone(|sandbox, busybox| {
        sandbox.ok(["network", "create", "--subnet", "10.77.0.0/28", "small"]);
        for round in 0..60_u64 {
            let command = ["run", "--rm", "--network", "small", "-p", "8080:80", busybox, "true"];
            let mut child = sandbox
                .command(command)
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            thread::sleep(Duration::from_micros(round * 600));
            // It may have ended by itself.
            let _ = child.kill();
            child.wait().unwrap();
        }
        sandbox.ok(["run", "--rm", "--network", "small", "-p", "8080:80", busybox, "true"]);
        sandbox.ok(["system", "prune", "-f"]);
        sandbox.check_clean();
        no_devices();
        assert_eq!((elements("ports4"), elements("members4")), (0, 0));
        // A network that nobody is on goes, too.
        assert_eq!(sandbox.ok(["network", "ls", "-q", "-f", "name=small"]), "");
    });
}
