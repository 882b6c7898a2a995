//! Names of containers: a name server inside of a container's network namespace, on 127.0.0.11, which lives as long as the
//! container's supervisor.
//!
//! Its sockets are made in the namespace, and so stay there; what it passes on goes to the machine's name servers from the machine's
//! own network, so that one on the machine's loopback can be asked too. A container that is on internal networks alone has nothing
//! passed on for it (CVE-2024-29018). All that a container can make it do is bounded: so many questions at once, so long each.

use std::{
    io::{self, PipeReader, PipeWriter, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{
    Definition, Networks,
    dns::{self, Answer, Question},
    files,
};
use crate::spec::{RunSpec, names::short_id};

/// Where Docker's is.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Questions that wait for other servers; more are not answered.
const PASSED_ON_AT_ONCE: usize = 64;
/// Connections; more are closed.
const CONNECTIONS_AT_ONCE: usize = 8;
/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long somebody may take to ask by a connection, and to be answered.
const CONNECTION: Duration = Duration::from_secs(10);
/// How long names are taken for true that were read.
const FRESH: Duration = Duration::from_secs(1);
const LONGEST: usize = 65_535;
const STACK_BYTES: usize = 256 << 10;

/// Its sockets, made in the container's network namespace.
pub(super) struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// In the namespace that the caller is in.
    pub(super) fn open() -> Result<Self> {
        let open = || -> io::Result<Self> {
            let udp = UdpSocket::bind((ADDRESS, 53))?;
            let tcp = TcpListener::bind((ADDRESS, 53))?;
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            Ok(Self { udp, tcp })
        };
        open().with_context(|| {
            format!("cannot serve names on port 53 of {ADDRESS}, where a program may be that serves on all addresses")
        })
    }

    /// Serves until what this gives is dropped.
    pub(super) fn serve(self, networks: &Networks, found: Vec<Definition>, spec: &RunSpec) -> Result<Serving> {
        let (stop, stopped) = io::pipe().context("cannot make a pipe")?;
        let on = Arc::new(Mutex::new(found));
        let names = Names {
            networks: networks.clone(),
            on: Arc::clone(&on),
            joined: Vec::new(),
            servers: spec.names.servers.clone(),
            known: Vec::new(),
            is_all: true,
            read: None,
        };
        let builder = thread::Builder::new().name("names".to_owned()).stack_size(STACK_BYTES);
        let server = Server { sockets: self, names, waiting: Vec::new(), connections: Arc::default() };
        builder.spawn(move || server.run(&stop)).context("cannot start a thread for names")?;
        Ok(Serving { _stopped: stopped, on })
    }
}

/// A name server that goes on until this is dropped.
pub(super) struct Serving {
    _stopped: PipeWriter,
    on: Arc<Mutex<Vec<Definition>>>,
}

impl Serving {
    /// The container is on these networks from now on.
    pub(super) fn set_networks(&self, found: Vec<Definition>) {
        *self.on.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

/// What a container may learn.
#[derive(Clone)]
struct Names {
    networks: Networks,
    /// The networks that the container is on.
    on: Arc<Mutex<Vec<Definition>>>,
    /// Those of which names were read.
    joined: Vec<Definition>,
    servers: Vec<IpAddr>,
    /// Names and addresses, as they were read.
    known: Vec<Member>,
    /// Whether none could be left out for an error.
    is_all: bool,
    /// When, and how old the folders were.
    read: Option<(Instant, Vec<Option<SystemTime>>)>,
}

#[derive(Clone)]
struct Member {
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    /// `NAME.NETWORK`
    full_name: String,
}

/// What to do with a question.
enum Decided {
    Here(Vec<Answer>),
    Nowhere(u8),
    Elsewhere,
}

impl Names {
    fn decide(&mut self, question: &Question) -> Decided {
        self.refresh();
        if question.kind == dns::PTR
            && let Some(ip) = dns::reversed(&question.name)
            && self.joined.iter().flat_map(Definition::pools).any(|pool| pool.subnet.contains(ip))
        {
            let member = self.known.iter().find(|member| member.addresses.contains(&ip));
            let none = if self.is_all { dns::NO_SUCH_NAME } else { dns::SERVER_FAILURE };
            return member
                .map_or(Decided::Nowhere(none), |member| Decided::Here(vec![Answer::Name(member.full_name.clone())]));
        }
        let members: Vec<&Member> = self.known.iter().filter(|member| member.names.contains(&question.name)).collect();
        if !members.is_empty() {
            let is_wanted = |ip: &&IpAddr| question.kind == if ip.is_ipv4() { dns::A } else { dns::AAAA };
            let addresses = members.iter().flat_map(|member| member.addresses.iter().filter(is_wanted));
            return Decided::Here(addresses.map(|ip| Answer::Address(*ip)).collect());
        }
        // What may be a name of ours is nobody else's to hear.
        match !self.is_all || self.joined.iter().all(|network| network.internal) {
            true => Decided::Nowhere(dns::SERVER_FAILURE),
            false => Decided::Elsewhere,
        }
    }

    fn refresh(&mut self) {
        let joined = self.on.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if joined != self.joined {
            (self.joined, self.read) = (joined, None);
        }
        let changed = |network: &Definition| self.networks.addresses(&network.name).metadata().ok()?.modified().ok();
        let ages: Vec<_> = self.joined.iter().map(changed).collect();
        if self.read.as_ref().is_some_and(|(at, read)| at.elapsed() < FRESH && *read == ages) {
            return;
        }
        self.read = Some((Instant::now(), ages));
        self.known.clear();
        self.is_all = true;
        for network in self.joined.iter().filter(|network| network.has_names()) {
            let leases = self.networks.leases(network);
            self.is_all &= leases.is_ok() && self.networks.damaged_leases(network).is_ok_and(|all| all.is_empty());
            for lease in leases.unwrap_or_default() {
                let own = [lease.name.to_lowercase(), short_id(&lease.container).to_owned()];
                let aliases = lease.aliases.iter().map(|alias| alias.to_lowercase());
                let names: Vec<String> = own.into_iter().chain(aliases).collect();
                let with_network = names.iter().map(|name| format!("{name}.{}", network.name.to_lowercase()));
                self.known.push(Member {
                    names: names.iter().cloned().chain(with_network).collect(),
                    addresses: lease.addresses().collect(),
                    full_name: format!("{}.{}", lease.name, network.name),
                });
            }
        }
    }

    /// Whom to ask for what is not known here.
    fn servers(&self) -> Vec<IpAddr> {
        if self.servers.is_empty() { files::all_machine_servers() } else { self.servers.clone() }
    }
}

/// A question that another server was asked.
struct Waiting {
    client: SocketAddr,
    query: Vec<u8>,
    question: Question,
    socket: UdpSocket,
    /// Those that were not asked yet.
    servers: Vec<IpAddr>,
    until: Instant,
}

struct Server {
    sockets: Sockets,
    names: Names,
    waiting: Vec<Waiting>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn run(mut self, stop: &PipeReader) {
        let mut buffer = vec![0; LONGEST];
        loop {
            let (stopped, ready) = self.wait(stop);
            if stopped {
                return;
            }
            self.answer_packets(&mut buffer);
            self.accept();
            for at in ready.into_iter().rev() {
                self.pass_back(at, &mut buffer);
            }
            self.give_up();
        }
    }

    /// Until something is to be done: whether to stop, and which of the others have answered.
    fn wait(&self, stop: &PipeReader) -> (bool, Vec<usize>) {
        let own = [stop.as_fd(), self.sockets.udp.as_fd(), self.sockets.tcp.as_fd()];
        let fds = own.into_iter().chain(self.waiting.iter().map(|waiting| waiting.socket.as_fd()));
        let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let next = self.waiting.iter().map(|waiting| waiting.until).min();
        let timeout = next.map_or(PollTimeout::NONE, |next| {
            let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
        let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        let answered = fds.iter().skip(own.len()).enumerate().filter(|(_, fd)| ready(fd)).map(|(at, _)| at);
        (ready(&fds[0]), answered.collect())
    }

    fn answer_packets(&mut self, buffer: &mut [u8]) {
        // So many, then the others have their turn.
        for _ in 0..PASSED_ON_AT_ONCE {
            let Ok((length, client)) = self.sockets.udp.recv_from(buffer) else { return };
            let query = &buffer[..length];
            let Some(question) = dns::parse(query) else { continue };
            let message = match self.names.decide(&question) {
                Decided::Here(answers) => dns::answer(query, &question, &answers, dns::IN_A_PACKET),
                Decided::Nowhere(code) => dns::failure(query, &question, code),
                Decided::Elsewhere => {
                    self.pass_on(client, query, question);
                    continue;
                }
            };
            // Whom it does not reach asks again.
            let _ = self.sockets.udp.send_to(&message, client);
        }
    }

    fn pass_on(&mut self, client: SocketAddr, query: &[u8], question: Question) {
        if self.waiting.len() >= PASSED_ON_AT_ONCE {
            return;
        }
        let mut servers = self.names.servers();
        match ask_next(&mut servers, query) {
            Some(socket) => {
                let (query, until) = (query.to_vec(), Instant::now() + PATIENCE);
                self.waiting.push(Waiting { client, query, question, socket, servers, until });
            }
            None => {
                _ = self.sockets.udp.send_to(&dns::failure(query, &question, dns::SERVER_FAILURE), client);
            }
        }
    }

    fn pass_back(&mut self, at: usize, buffer: &mut [u8]) {
        let waiting = &mut self.waiting[at];
        match waiting.socket.recv(buffer) {
            Ok(length) if dns::answers(&buffer[..length], &waiting.query, &waiting.question) => {
                let _ = self.sockets.udp.send_to(&buffer[..length], waiting.client);
                self.waiting.swap_remove(at);
            }
            // Somebody else's.
            Ok(_) => {}
            // Nobody serves there.
            Err(_) => waiting.until = Instant::now(),
        }
    }

    /// Asks the next server, or says that none answers.
    fn give_up(&mut self) {
        let now = Instant::now();
        let udp = &self.sockets.udp;
        self.waiting.retain_mut(|waiting| {
            if waiting.until > now {
                return true;
            }
            if let Some(socket) = ask_next(&mut waiting.servers, &waiting.query) {
                (waiting.socket, waiting.until) = (socket, now + PATIENCE);
                return true;
            }
            let _ = udp.send_to(&dns::failure(&waiting.query, &waiting.question, dns::SERVER_FAILURE), waiting.client);
            false
        });
    }

    /// Each connection has a thread: who is slow on one holds up nobody else (CVE-2024-8418).
    fn accept(&self) {
        while let Ok((connection, _)) = self.sockets.tcp.accept() {
            if self.connections.load(Ordering::Relaxed) >= CONNECTIONS_AT_ONCE {
                continue;
            }
            self.connections.fetch_add(1, Ordering::Relaxed);
            let (mut names, connections) = (self.names.clone(), Arc::clone(&self.connections));
            let builder = thread::Builder::new().name("names".to_owned()).stack_size(STACK_BYTES);
            let served = builder.spawn(move || {
                let _ = serve_connection(connection, &mut names);
                connections.fetch_sub(1, Ordering::Relaxed);
            });
            if served.is_err() {
                self.connections.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// Asks the first server that can be asked, by a socket of its own: so an answer comes from there, or is none.
fn ask_next(servers: &mut Vec<IpAddr>, query: &[u8]) -> Option<UdpSocket> {
    while !servers.is_empty() {
        let server = servers.remove(0);
        let any: IpAddr =
            if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
        let ask = || -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind((any, 0))?;
            socket.set_nonblocking(true)?;
            socket.connect((server, 53))?;
            socket.send(query)?;
            Ok(socket)
        };
        if let Ok(socket) = ask() {
            return Some(socket);
        }
    }
    None
}

fn serve_connection(mut connection: TcpStream, names: &mut Names) -> io::Result<()> {
    let until = Instant::now() + CONNECTION;
    connection.set_nonblocking(false)?;
    while Instant::now() < until {
        let query = read_message(&mut connection, until)?;
        let Some(question) = dns::parse(&query) else { return Ok(()) };
        let message = match names.decide(&question) {
            Decided::Here(answers) => dns::answer(&query, &question, &answers, LONGEST),
            Decided::Nowhere(code) => dns::failure(&query, &question, code),
            Decided::Elsewhere => {
                let answered = names.servers().into_iter().find_map(|server| ask_by_connection(server, &query).ok());
                answered.unwrap_or_else(|| dns::failure(&query, &question, dns::SERVER_FAILURE))
            }
        };
        write_message(&mut connection, &message)?;
    }
    Ok(())
}

fn ask_by_connection(server: IpAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut connection = TcpStream::connect_timeout(&SocketAddr::new(server, 53), PATIENCE)?;
    write_message(&mut connection, query)?;
    read_message(&mut connection, Instant::now() + PATIENCE)
}

/// Two bytes that tell how many follow, and those.
fn read_message(connection: &mut TcpStream, until: Instant) -> io::Result<Vec<u8>> {
    let mut fill = |bytes: &mut [u8]| -> io::Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            connection.set_read_timeout(Some(left))?;
            match connection.read(&mut bytes[at..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ if Instant::now() >= until => return Err(io::ErrorKind::TimedOut.into()),
                count => at += count,
            }
        }
        Ok(())
    };
    let mut length = [0; 2];
    fill(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    fill(&mut message)?;
    Ok(message)
}

fn write_message(connection: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    connection.write_all(&[&length.to_be_bytes()[..], message].concat())
}
