//! Published ports over IPv6, where the packet filter cannot lead to the container.
//!
//! The kernel takes no packet for `::1` from any other device than loopback, so an answer could not be translated back to it; and it
//! translates no IPv6 address to one of IPv4, which is all that a container on most networks has. So the socket that keeps a port of all
//! addresses, or of `::1`, listens, and passes on by hand what connects to it. Everybody else is led to the container by the packet filter,
//! and keeps his address; whoever comes here all the same is refused.

use std::{
    io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    ops::ControlFlow,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    libc::linger,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt},
};

/// More wait until one ends.
const CONNECTIONS_AT_ONCE: usize = 256;
const STACK_BYTES: usize = 256 << 10;
const BUFFER_BYTES: usize = 128 << 10;
/// How often one connection is read before the others have their turn.
const READS_AT_ONCE: usize = 8;

/// A socket that listens, and the container's port that it stands for.
pub(super) struct Door {
    pub(super) listener: TcpListener,
    pub(super) container_port: u16,
}

/// Passes connections on until it is dropped.
pub(super) struct Relay {
    stop: Option<PipeWriter>,
    container: Arc<Mutex<Option<IpAddr>>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Begins, on a thread of its own. `container`: its address; None: nobody is there.
    pub(super) fn begin(doors: Vec<Door>, container: Option<IpAddr>) -> Result<Self> {
        let (stopped, stop) = io::pipe().context("cannot make a pipe")?;
        let container = Arc::new(Mutex::new(container));
        let seen = Arc::clone(&container);
        let builder = thread::Builder::new().name("relay".to_owned()).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || run(&doors, &seen, &stopped)).context("cannot start a thread for IPv6")?;
        Ok(Self { stop: Some(stop), container, thread: Some(thread) })
    }

    /// The container is there from now on.
    pub(super) fn set_container(&self, container: Option<IpAddr>) {
        *self.container.lock().unwrap_or_else(PoisonError::into_inner) = container;
    }
}

impl Drop for Relay {
    /// Its ports are free afterwards.
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn run(doors: &[Door], container: &Mutex<Option<IpAddr>>, stop: &PipeReader) {
    let mut connections: Vec<Connection> = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let is_full = connections.len() >= CONNECTIONS_AT_ONCE;
        if wait(stop, if is_full { &[] } else { doors }, &connections) {
            return;
        }
        connections.retain_mut(|connection| connection.go_on(&mut buffer).is_ok_and(|goes_on| goes_on));
        for door in doors {
            let ip = *container.lock().unwrap_or_else(PoisonError::into_inner);
            while connections.len() < CONNECTIONS_AT_ONCE
                && let Some(client) = accept(&door.listener)
            {
                let server = ip.map(|ip| SocketAddr::new(ip, door.container_port));
                connections.extend(Connection::begin(client, server));
            }
        }
    }
}

/// Until something can be done; true if nothing is to be done any more.
fn wait(stop: &PipeReader, doors: &[Door], connections: &[Connection]) -> bool {
    let reads = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let own = [reads(stop.as_fd())].into_iter().chain(doors.iter().map(|door| reads(door.listener.as_fd())));
    let interests = connections.iter().flat_map(Connection::interests);
    let mut fds: Vec<PollFd<'_>> = own.chain(interests.map(|(fd, flags)| PollFd::new(fd, flags))).collect();
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(_) => thread::sleep(Duration::from_millis(10)),
    }
    fds[0].any().unwrap_or(false)
}

/// Who has come over IPv6.
fn accept(listener: &TcpListener) -> Option<TcpStream> {
    loop {
        let (client, _) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(_) => {
                // For want of descriptors, say: it is tried again, and not at once.
                thread::sleep(Duration::from_millis(10));
                return None;
            }
        };
        let address = client.local_addr();
        if address.is_ok_and(|address| matches!(address.ip(), IpAddr::V6(ip) if ip.to_ipv4_mapped().is_none())) {
            return Some(client);
        }
        refuse(&client);
    }
}

/// Closed, it is as if nobody had listened.
fn refuse(client: &TcpStream) {
    let _ = setsockopt(client, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 });
}

/// What came from one end and is still to go to the other one.
#[derive(Default)]
struct Flow {
    waiting: Vec<u8>,
    /// Nothing more comes.
    ended: bool,
    /// The other end knows that.
    told: bool,
}

impl Flow {
    /// Passes on some of it; whether there may be more at once.
    fn pass_on(&mut self, mut from: &TcpStream, mut to: &TcpStream, buffer: &mut [u8]) -> io::Result<bool> {
        if !self.waiting.is_empty() {
            let count = unless_blocked(to.write(&self.waiting))?.unwrap_or_default();
            self.waiting.drain(..count);
        } else if !self.ended {
            let Some(count) = unless_blocked(from.read(buffer))? else { return Ok(false) };
            self.ended = count == 0;
            let sent = if self.ended { 0 } else { unless_blocked(to.write(&buffer[..count]))?.unwrap_or_default() };
            self.waiting.extend(&buffer[sent..count]);
        }
        if self.ended && self.waiting.is_empty() && !self.told {
            to.shutdown(Shutdown::Write)?;
            self.told = true;
        }
        Ok(!self.ended && self.waiting.is_empty())
    }
}

/// A client and the container's server.
struct Connection {
    ends: [TcpStream; 2],
    /// From the end of the same number to the other one.
    flows: [Flow; 2],
}

impl Connection {
    /// None: the client is refused.
    fn begin(client: TcpStream, server: Option<SocketAddr>) -> Option<Self> {
        let begun = || -> Option<TcpStream> {
            client.set_nonblocking(true).ok()?;
            let server = server?;
            let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let fd = socket(family, SockType::Stream, flags, None).ok()?;
            match connect(fd.as_raw_fd(), &SockaddrStorage::from(server)) {
                Ok(()) | Err(Errno::EINPROGRESS) => Some(fd.into()),
                Err(_) => None,
            }
        };
        let Some(server) = begun() else {
            refuse(&client);
            return None;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        Some(Self { ends: [client, server], flows: Default::default() })
    }

    /// What it waits for. An end of which nothing is wanted is left out, as its hang-up would be told again and again.
    fn interests(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        [0, 1].into_iter().filter_map(|end| {
            let (from, to) = (&self.flows[end], &self.flows[1 - end]);
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, !from.ended && from.waiting.is_empty());
            flags.set(PollFlags::POLLOUT, !to.waiting.is_empty());
            (!flags.is_empty()).then(|| (self.ends[end].as_fd(), flags))
        })
    }

    /// Whether there is more to do.
    fn go_on(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        for end in 0..2 {
            let (from, to, flow) = (&self.ends[end], &self.ends[1 - end], &mut self.flows[end]);
            let passed_on = (0..READS_AT_ONCE).try_for_each(|_| match flow.pass_on(from, to, buffer) {
                Ok(true) => ControlFlow::Continue(()),
                done => ControlFlow::Break(done),
            });
            if let ControlFlow::Break(Err(error)) = passed_on {
                refuse(&self.ends[0]);
                return Err(error);
            }
        }
        Ok(!self.flows.iter().all(|flow| flow.told))
    }
}

fn unless_blocked(done: io::Result<usize>) -> io::Result<Option<usize>> {
    match done {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        done => done.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door() -> Option<(Door, SocketAddr)> {
        // A machine without IPv6 has no such door.
        let listener = TcpListener::bind("[::1]:0").ok()?;
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        Some((Door { listener, container_port: 0 }, address))
    }

    #[test]
    fn what_is_said_is_passed_on_both_ways_and_so_is_its_end() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let Some((door, address)) = door() else { return };
        let door = Door { container_port: server.local_addr().unwrap().port(), ..door };
        let relay = Relay::begin(vec![door], Some(IpAddr::from([127, 0, 0, 1]))).unwrap();
        let echo = thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut said = Vec::new();
            stream.read_to_end(&mut said).unwrap();
            stream.write_all(&said).unwrap();
        });
        let mut client = TcpStream::connect(address).unwrap();
        let text: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let (mut half, sent) = (client.try_clone().unwrap(), text.clone());
        let saying = thread::spawn(move || {
            half.write_all(&sent).unwrap();
            half.shutdown(Shutdown::Write).unwrap();
        });
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).unwrap();
        assert!(heard == text);
        saying.join().unwrap();
        echo.join().unwrap();
        drop(relay);
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn where_nobody_serves_the_client_is_refused_and_others_go_on() {
        let Some((door, address)) = door() else { return };
        let relay = Relay::begin(vec![door], None).unwrap();
        let refused = || TcpStream::connect(address).and_then(|mut client| client.read(&mut [0]));
        assert!(refused().is_err());
        relay.set_container(Some(IpAddr::from([127, 0, 0, 1])));
        // Port 0 is nobody's.
        assert!(refused().is_err());
        assert!(refused().is_err());
    }
}
