//! A function behind the filter for engines, which tries to get out.
use crate::sandbox::{call, confine, plan, run};
use linux_exec::{confinement::Namespace, rootfs::Rootfs, seccomp, spawn::Exit};
use std::{
    fs::File,
    io,
    net::{TcpListener, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::{net as local, process::CommandExt},
    },
    process::Command,
};

pub(crate) fn an_engine_executes_nothing_and_has_sockets_only_if_granted() {
    for granted in [false, true] {
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
            privileges.seccomp = Some(seccomp::engine(granted));
        });
        let (exit, output) = run(plan).unwrap();
        let socket = if granted { "done" } else { "1" };
        let expected = format!(
            "tcp {socket}\nudp {socket}\nabstract {socket}\npair {socket}\nspawn 1\nexec 1\nfile done\nthread done\n"
        );
        assert_eq!((exit, output), (Exit::Code(0), expected), "granted: {granted}");
    }
}

/// Prints the errno, or `done`.
fn attempt<T>(name: &str, result: io::Result<T>) {
    match result {
        Ok(_) => println!("{name} done"),
        Err(error) => println!("{name} {}", error.raw_os_error().unwrap_or_default()),
    }
}
