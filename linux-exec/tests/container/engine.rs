//! A function behind the filter for engines, which tries to get out.
use crate::sandbox::{call, confine, plan, run};
use linux_exec::{
    confinement::Namespace,
    rootfs::Rootfs,
    seccomp::{self, Sockets},
    spawn::Exit,
};
use nix::sys::socket::{AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, SockaddrIn, sendto, shutdown, socket};
use std::{
    fs::File,
    io,
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::{net as local, process::CommandExt},
    },
    process::Command,
};

pub(crate) fn an_engine_executes_nothing_and_has_sockets_only_if_granted() {
    for sockets in [Sockets::None, Sockets::Accepted, Sockets::All] {
        let granted = sockets == Sockets::All;
        let function = Box::new(move || {
            attempt("tcp", TcpListener::bind("127.0.0.1:0"));
            attempt("udp", UdpSocket::bind("127.0.0.1:0"));
            let name = local::SocketAddr::from_abstract_name("amphora-test").unwrap();
            attempt("abstract", local::UnixListener::bind_addr(&name));
            attempt("pair", local::UnixStream::pair());
            attempt("spawn", Command::new("/proc/self/exe").spawn());
            attempt::<()>("exec", Err(Command::new("/proc/self/exe").exec()));
            attempt("file", File::open("/dev/null"));
            attempt("thread", std::thread::Builder::new().spawn(|| ()).map(|thread| thread.join().is_ok()));
            0
        });
        let mut plan = plan(Rootfs::empty().unwrap(), call(function, vec![]));
        confine(&mut plan, |namespaces, privileges| {
            namespaces.network = if granted { Namespace::Host } else { Namespace::Filtered };
            (namespaces.ipc, namespaces.cgroup) = (Namespace::Filtered, Namespace::Filtered);
            privileges.seccomp = Some(seccomp::engine(sockets));
        });
        let (exit, output) = run(plan).unwrap();
        let socket = if granted { "done" } else { "1" };
        // Other processes of this machine it reaches in no way.
        let expected =
            format!("tcp {socket}\nudp {socket}\nabstract 1\npair 1\nspawn 1\nexec 1\nfile done\nthread done\n");
        assert_eq!((exit, output), (Exit::Code(0), expected), "{sockets:?}");
    }
}

/// A socket that listens can be shut down, and is then as one that was just made: with a flag of TCP's it would connect.
pub(crate) fn an_engine_that_serves_makes_no_connection_of_its_sockets() {
    let (served, elsewhere) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (address, target) = (served.local_addr().unwrap(), elsewhere.local_addr().unwrap());
    let descriptor = served.as_raw_fd();
    let client = std::thread::spawn(move || TcpStream::connect(address));
    let function = Box::new(move || {
        attempt("accept", served.accept());
        shutdown(served.as_raw_fd(), Shutdown::Both).unwrap();
        let std::net::SocketAddr::V4(target) = target else { return 1 };
        let fast_open = MsgFlags::from_bits_retain(0x2000_0000);
        attempt(
            "send",
            sendto(served.as_raw_fd(), b"x", &SockaddrIn::from(target), fast_open).map_err(io::Error::from),
        );
        0
    });
    client.join().unwrap().unwrap();
    let mut plan = plan(Rootfs::empty().unwrap(), call(function, vec![descriptor]));
    confine(&mut plan, |namespaces, privileges| {
        namespaces.network = Namespace::Filtered;
        (namespaces.ipc, namespaces.cgroup) = (Namespace::Filtered, Namespace::Filtered);
        privileges.seccomp = Some(seccomp::engine(Sockets::Accepted));
    });
    assert_eq!(run(plan).unwrap(), (Exit::Code(0), "accept done\nsend 1\n".to_owned()));
}

/// What executes other code than the engine's in that process can connect, which the engine alone keeps to what was granted; it can
/// reach no other process, receive no connection, and make no packet that the kernel does not make.
pub(crate) fn an_engine_that_connects_has_the_internet_and_nothing_else_of_a_network() {
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = outside.local_addr().unwrap();
    let function = Box::new(move || {
        attempt("connect", TcpStream::connect(target));
        attempt("udp", UdpSocket::bind("127.0.0.1:0"));
        attempt("listen", TcpListener::bind("127.0.0.1:0"));
        let name = local::SocketAddr::from_abstract_name("amphora-test").unwrap();
        attempt("abstract", local::UnixStream::connect_addr(&name));
        attempt("pair", local::UnixStream::pair());
        for (name, family, transport) in [
            ("raw", AddressFamily::Inet, SockType::Raw),
            ("netlink", AddressFamily::Netlink, SockType::Datagram),
            ("packet", AddressFamily::Packet, SockType::Datagram),
            ("vsock", AddressFamily::Vsock, SockType::Stream),
        ] {
            attempt(name, socket(family, transport, SockFlag::empty(), None).map_err(io::Error::from));
        }
        attempt("spawn", Command::new("/proc/self/exe").spawn());
        0
    });
    let mut plan = plan(Rootfs::empty().unwrap(), call(function, vec![]));
    confine(&mut plan, |namespaces, privileges| {
        namespaces.network = Namespace::Host;
        (namespaces.ipc, namespaces.cgroup) = (Namespace::Filtered, Namespace::Filtered);
        privileges.seccomp = Some(seccomp::engine(Sockets::Outbound));
    });
    let expected =
        "connect done\nudp done\nlisten 1\nabstract 1\npair 1\nraw 1\nnetlink 1\npacket 1\nvsock 1\nspawn 1\n";
    assert_eq!(run(plan).unwrap(), (Exit::Code(0), expected.to_owned()));
}

/// Prints the errno, or `done`.
fn attempt<T>(name: &str, result: io::Result<T>) {
    match result {
        Ok(_) => println!("{name} done"),
        Err(error) => println!("{name} {}", error.raw_os_error().unwrap_or_default()),
    }
}
