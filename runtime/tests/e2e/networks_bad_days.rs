//! Networks after a reboot, under floods, and where protocols are rare.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket},
    os::fd::AsRawFd,
    process::Command,
};

use linux_exec::network::Links;
use nix::sys::{
    signal::{Signal, kill},
    socket::{MsgFlags, SockaddrIn, recv, sendto, setsockopt, sockopt},
    time::TimeVal,
};
use nix::unistd::Pid;
use rustix::net::{AddressFamily, SocketType, ipproto};

use crate::{
    networks::{address, alone, exec, get, get_soon, no_devices, reaches, serve, within},
    session::{is_alive, until},
};

/// What a reboot leaves: ROOT, and nothing of RUNROOT, of the kernel's devices and rules, and of processes.
#[test]
fn after_a_reboot_networks_come_back_with_their_containers() {
    alone(|sandbox, busybox| {
        sandbox.ok(["network", "create", "front"]);
        for name in ["web", "client"] {
            serve(sandbox, busybox, name, &["--network", "front"]);
        }
        let ip = address(sandbox, "web", "front");
        get_soon(&format!("{ip}:80"));
        for name in ["web", "client"] {
            let pid: i32 = sandbox.inspect(name, ".State.Pid").parse().expect("a pid");
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
            let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)).expect("a parent");
            kill(Pid::from_raw(parent.parse().expect("a pid")), Signal::SIGKILL).expect("a supervisor");
            until("the container to end with it", || (!is_alive(pid)).then_some(()));
        }
        let links = Links::open().expect("devices");
        let bridge = format!("am-{}", &sandbox.ok(["network", "inspect", "-f", "{{.Id}}", "front"])[..12]);
        assert!(links.delete(&bridge).expect("a bridge"));
        assert!(Command::new("nft").args(["flush", "ruleset"]).status().expect("nft").success());
        fs::remove_dir_all(sandbox.runroot()).expect("a folder");
        // Both addresses are free, the network is there, and so are the containers.
        assert_eq!(sandbox.ok(["network", "inspect", "-f", "{{json .Containers}}", "front"]).trim(), "{}");
        sandbox.ok(["start", "client", "web"]);
        until("an answer by name", || {
            let asked = exec(sandbox, "client", "timeout 5 wget -q -O - http://web/hostname");
            (asked.code == Some(0) && asked.stdout.trim() == sandbox.inspect("web", ".Config.Hostname")).then_some(())
        });
        sandbox.ok(["rm", "-f", "web", "client"]);
        sandbox.ok(["network", "rm", "front"]);
        no_devices();
        sandbox.check_clean();
    });
}

/// Castagnoli's, as SCTP has it (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

/// The first packet of an association.
fn sctp_init(from: u16, to: u16) -> Vec<u8> {
    let chunk = [1, 0, 0, 20, 1, 2, 3, 4, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];
    let mut packet = [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0; 8], &chunk].concat();
    let checksum = crc32c(&packet);
    packet[8..12].copy_from_slice(&checksum.to_le_bytes());
    packet
}

/// No socket of SCTP is needed for it: the kernel of the tests has none.
#[test]
fn packets_of_sctp_are_led_to_a_published_port() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    alone(|sandbox, busybox| {
        serve(sandbox, busybox, "switch", &["-p", "5000:38412/sctp"]);
        assert_eq!(sandbox.ok(["port", "switch"]).trim(), "38412/sctp -> 0.0.0.0:5000");
        let raw =
            || rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::SCTP)).expect("a raw socket");
        let inner = within(sandbox, "switch", raw);
        setsockopt(&inner, sockopt::ReceiveTimeout, &TimeVal::new(5, 0)).expect("a socket");
        let outer = raw();
        let target = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 0));
        sendto(outer.as_raw_fd(), &sctp_init(4000, 5000), &target, MsgFlags::empty()).expect("a packet");
        let mut buffer = [0; 256];
        let length = recv(inner.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("the packet");
        let head = usize::from(buffer[0] & 15) * 4;
        let packet = &buffer[head..length];
        assert_eq!((&packet[..2], &packet[2..4]), (&4000_u16.to_be_bytes()[..], &38412_u16.to_be_bytes()[..]));
        let said = sandbox.fails(125, ["run", "--rm", "-p", "38412/sctp", busybox, "true"]);
        assert!(said.contains("the kernel has no SCTP to choose a port of; name one"), "{said}");
        sandbox.ok(["rm", "-f", "switch"]);
        sandbox.check_clean();
    });
}

/// A container asks for names without end, and has no answer read: others have theirs, and its memory is its own.
#[test]
fn who_floods_the_name_server_holds_up_nobody() {
    alone(|sandbox, busybox| {
        sandbox.ok(["network", "create", "front"]);
        serve(sandbox, busybox, "web", &["--network", "front"]);
        serve(sandbox, busybox, "client", &["--network", "front"]);
        // A name server that says nothing.
        serve(sandbox, busybox, "flood", &["--network", "front", "--dns", "198.51.100.1"]);
        let _silent = UdpSocket::bind("198.51.100.1:53").expect("a port");
        within(sandbox, "flood", || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            for number in 0..20_000_u16 {
                let [a, b] = number.to_be_bytes();
                let mut question = vec![a, b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 5];
                question.extend(format!("{number:05}").into_bytes());
                question.extend([0, 0, 1, 0, 1]);
                // What there is no room for is lost.
                let _ = socket.send_to(&question, "127.0.0.11:53");
            }
        });
        let ip = address(sandbox, "web", "front");
        for name in ["client", "flood"] {
            let found = until("an answer", || {
                Some(exec(sandbox, name, "nslookup web 127.0.0.11")).filter(|found| found.code == Some(0))
            });
            assert!(found.stdout.contains(&ip), "{name}: {found}");
        }
        let pid: i32 = sandbox.inspect("flood", ".State.Pid").parse().expect("a pid");
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        let supervisor = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)).expect("a parent");
        let status = fs::read_to_string(format!("/proc/{supervisor}/status")).expect("a supervisor");
        let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).expect("a number");
        assert!(threads.trim().parse::<u32>().expect("a number") < 100, "{threads} threads");
        sandbox.ok(["rm", "-f", "web", "client", "flood"]);
        sandbox.ok(["network", "rm", "front"]);
        sandbox.check_clean();
    });
}

/// Docker's published ports of a bridge's address: only as from outside, and never what listens on the machine's loopback.
#[test]
fn ports_of_another_network_are_reached_as_from_outside_alone() {
    alone(|sandbox, busybox| {
        for network in ["front", "back"] {
            sandbox.ok(["network", "create", network]);
        }
        serve(sandbox, busybox, "web", &["--network", "front", "-p", "8080:80"]);
        serve(sandbox, busybox, "local", &["--network", "front", "-p", "127.0.0.1:8081:80"]);
        serve(sandbox, busybox, "other", &["--network", "back"]);
        get_soon("127.0.0.1:8080");
        get_soon("127.0.0.1:8081");
        let gateway = |network: &str| {
            let all = sandbox.ok(["network", "inspect", "-f", "{{range .IPAM.Config}}{{.Gateway}}{{end}}", network]);
            all.trim().to_owned()
        };
        // What all may reach from outside is reached; what is the machine's alone is not, at no address of it.
        assert!(reaches(sandbox, "other", "198.51.100.1:8080"));
        assert!(reaches(sandbox, "other", &format!("{}:8080", gateway("back"))));
        for at in ["198.51.100.1".to_owned(), gateway("front"), gateway("back"), "127.0.0.1".to_owned()] {
            assert!(!reaches(sandbox, "other", &format!("{at}:8081")), "{at}");
        }
        // Nor is the container's own port, whoever asks for it by the way of a bridge.
        let ip = address(sandbox, "web", "front");
        assert!(!reaches(sandbox, "other", &format!("{ip}:80")));
        let private = TcpListener::bind("127.0.0.1:7000").expect("a port");
        private.set_nonblocking(true).expect("a socket");
        for at in [gateway("front"), gateway("back")] {
            assert!(within(sandbox, "other", || get(&format!("{at}:7000"))).is_err());
        }
        assert!(private.accept().is_err(), "somebody has come");
        sandbox.ok(["rm", "-f", "web", "local", "other"]);
        sandbox.ok(["network", "rm", "front", "back"]);
        sandbox.check_clean();
    });
}
