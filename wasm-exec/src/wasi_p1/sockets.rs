//! Sockets of a module: those that it was given to accept at, and the connections that came.
//!
//! wasmtime-wasi has no sockets for modules, and numbers their descriptors itself. So each socket here has a place in its table, which
//! is an open directory of no use to anybody: whatever a program does with that number is answered here, and what is not for a socket
//! fails. The numbers are as small as any, and those that it was given are the first, before all directories: what other runtimes
//! hand over is found there, and `LISTEN_FDS` counts from there (sd_listen_fds(3)).
//!
//! What waits, waits in the system call, as all that a module does.

use super::{errno, host, places::memory, polling};
use crate::state::State;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};
use wasmtime::Caller;
use wasmtime_wasi::p1::wasi_snapshot_preview1::WasiSnapshotPreview1;
use wiggle::GuestMemory;

/// The first descriptor that is not one of the three streams.
const FIRST: u32 = 3;
/// WASI p1's `fdflags`, `filetype`, `riflags` and `sdflags`, as far as they are about sockets.
const NONBLOCK: i64 = 4;
const SOCKET_STREAM: u8 = 6;
const PEEK: i64 = 1;
const RECEIVE: i64 = 1;
const SEND: i64 = 2;
/// A `prestat` of something that is no directory, which libraries that look for directories pass over.
const NO_DIRECTORY: u8 = 1;
/// `fd_read`, `fd_fdstat_set_flags`, `fd_write`, `fd_filestat_get`, `poll_fd_readwrite`, `sock_shutdown` and `sock_accept`.
const RIGHTS: u64 = 1 << 1 | 1 << 3 | 1 << 6 | 1 << 21 | 1 << 27 | 1 << 28 | 1 << 29;
/// More parts of one call are left for the next.
const MOST_PARTS: usize = 64;

/// All that are open, by descriptor.
#[derive(Default)]
pub(crate) struct Sockets(BTreeMap<u32, Socket>);

#[derive(Clone)]
pub(super) struct Socket {
    kind: Kind,
    /// Whether the program is told to come again instead of waiting.
    nonblocking: bool,
}

#[derive(Clone)]
enum Kind {
    Listening(Arc<TcpListener>),
    Connected(Arc<TcpStream>),
}

impl Sockets {
    /// Those that a program is given; they do not block.
    pub(crate) fn new(listeners: &[Arc<TcpListener>]) -> Self {
        let socket =
            |listener: &Arc<TcpListener>| Socket { kind: Kind::Listening(listener.clone()), nonblocking: false };
        Self((FIRST..).zip(listeners.iter().map(socket)).collect())
    }

    pub(super) fn get(&self, descriptor: i64) -> Option<&Socket> {
        self.0.get(&number(descriptor))
    }
}

impl Socket {
    fn fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Listening(listener) => listener.as_fd(),
            Kind::Connected(stream) => stream.as_fd(),
        }
    }

    /// For a poll.
    pub(super) fn poll_fd(&self, flags: PollFlags) -> PollFd<'_> {
        PollFd::from_borrowed_fd(self.fd(), flags)
    }

    /// How many bytes there are to read.
    pub(super) fn readable_bytes(&self) -> u64 {
        match &self.kind {
            Kind::Listening(_) => 1,
            Kind::Connected(stream) => rustix::io::ioctl_fionread(stream).unwrap_or(0),
        }
    }

    fn connected(&self) -> Result<&TcpStream, i32> {
        match &self.kind {
            Kind::Connected(stream) => Ok(stream),
            Kind::Listening(_) => Err(errno::NOTCONN),
        }
    }

    /// Does what may have to wait; the program waits unless it does not want to.
    fn persist<T>(&self, flags: PollFlags, mut action: impl FnMut() -> io::Result<T>) -> Result<T, i32> {
        loop {
            match action() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.nonblocking => {
                    match poll(&mut [self.poll_fd(flags)], None) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(errno) => return Err(code(&errno.into())),
                    }
                }
                done => return done.map_err(|error| code(&error)),
            }
        }
    }
}

/// Answers a call on a socket that is over at once, or waits in this thread; None where it is not on one, or where wasmtime-wasi does
/// its part with the place in its table.
pub(super) fn answer(caller: &mut Caller<'_, State>, function: &str, args: &[i64]) -> Option<i32> {
    if caller.data().sockets.0.is_empty() {
        return None;
    }
    match function {
        "poll_oneoff" => return polling::poll_oneoff(caller, args),
        "fd_close" => {
            caller.data_mut().sockets.0.remove(&number(args[0]));
            return None;
        }
        "fd_renumber" => return None,
        _ => {}
    }
    let mut descriptors = descriptors_of(function).iter().map(|at| args[*at]);
    let socket = descriptors.find_map(|descriptor| caller.data().sockets.get(descriptor).cloned())?;
    Some(act(caller, function, &socket, args).err().unwrap_or(errno::SUCCESS))
}

/// `sock_accept(fd, flags, accepted)`, which may need a place in wasmtime-wasi's table.
pub(super) async fn accept(caller: &mut Caller<'_, State>, args: &[i64]) -> wasmtime::Result<Option<i32>> {
    let Some(socket) = caller.data().sockets.get(args[0]).cloned() else { return Ok(None) };
    let Kind::Listening(listener) = &socket.kind else { return Ok(Some(errno::INVAL)) };
    let accepted = socket
        .persist(PollFlags::IN, || listener.accept())
        .and_then(|(stream, _)| stream.set_nonblocking(true).map(|()| stream).map_err(|error| code(&error)));
    let stream = match accepted {
        Ok(stream) => stream,
        Err(errno) => return Ok(Some(errno)),
    };
    let place = match place(caller, args[0]).await? {
        Ok(place) => place,
        Err(errno) => return Ok(Some(errno)),
    };
    let kind = Kind::Connected(Arc::new(stream));
    caller.data_mut().sockets.0.insert(place, Socket { kind, nonblocking: args[1] & NONBLOCK != 0 });
    Ok(Some(store(caller, args[2], &place.to_le_bytes())))
}

/// A number that wasmtime-wasi gives to nobody else: that of the directory which stands for `beside`, once more.
async fn place(caller: &mut Caller<'_, State>, beside: i64) -> wasmtime::Result<Result<u32, i32>> {
    const HERE: i32 = 0;
    const OPENED: i32 = 4;
    const DIRECTORY: i32 = 2;
    let mut own = [b'.', 0, 0, 0, 0, 0, 0, 0];
    let state = caller.data_mut();
    state.wasi.set_hostcall_fuel(usize::MAX);
    let [a, b, c, d, ..] = beside.to_le_bytes();
    let beside = i32::from_le_bytes([a, b, c, d]);
    let opened = {
        let mut memory = GuestMemory::Unshared(&mut own);
        host::path_open(&mut state.wasi, &mut memory, beside, 0, HERE, 1, DIRECTORY, 0, 0, 0, OPENED).await?
    };
    let [.., a, b, c, d] = own;
    Ok(if opened == errno::SUCCESS { Ok(u32::from_le_bytes([a, b, c, d])) } else { Err(opened) })
}

/// Takes note of what wasmtime-wasi has done to its table.
pub(super) fn after(caller: &mut Caller<'_, State>, function: &str, result: i32, args: &[i64]) {
    let sockets = &mut caller.data_mut().sockets.0;
    if function == "fd_renumber" && result == errno::SUCCESS && !sockets.is_empty() && args[0] != args[1] {
        let moved = sockets.remove(&number(args[0]));
        sockets.remove(&number(args[1]));
        sockets.extend(moved.map(|socket| (number(args[1]), socket)));
    }
}

/// Which arguments of a function are descriptors.
fn descriptors_of(function: &str) -> &'static [usize] {
    match function {
        "path_link" => &[0, 4],
        "path_rename" => &[0, 3],
        "path_symlink" => &[2],
        _ if ["fd_", "path_", "sock_"].iter().any(|kind| function.starts_with(kind)) => &[0],
        _ => &[],
    }
}

fn act(caller: &mut Caller<'_, State>, function: &str, socket: &Socket, args: &[i64]) -> Result<(), i32> {
    match function {
        "fd_fdstat_get" => checked(store(caller, args[1], &fdstat(socket))),
        "fd_fdstat_set_flags" => {
            let of = caller.data_mut().sockets.0.get_mut(&number(args[0])).ok_or(errno::BADF)?;
            of.nonblocking = args[1] & NONBLOCK != 0;
            Ok(())
        }
        "fd_filestat_get" => {
            let mut stat = [0; 64];
            (stat[16], stat[24]) = (SOCKET_STREAM, 1);
            checked(store(caller, args[1], &stat))
        }
        "fd_prestat_get" => checked(store(caller, args[1], &[NO_DIRECTORY, 0, 0, 0, 0, 0, 0, 0])),
        "fd_read" => receive(caller, socket, [args[1], args[2]], false).and_then(|count| told(caller, args[3], count)),
        "sock_recv" => {
            let count = receive(caller, socket, [args[1], args[2]], args[3] & PEEK != 0)?;
            told(caller, args[4], count)?;
            checked(store(caller, args[5], &[0, 0]))
        }
        "fd_write" => send(caller, socket, [args[1], args[2]]).and_then(|count| told(caller, args[3], count)),
        "sock_send" => send(caller, socket, [args[1], args[2]]).and_then(|count| told(caller, args[4], count)),
        "sock_shutdown" => {
            let how = match args[1] {
                RECEIVE => Shutdown::Read,
                SEND => Shutdown::Write,
                both if both == RECEIVE | SEND => Shutdown::Both,
                _ => return Err(errno::INVAL),
            };
            socket.connected()?.shutdown(how).map_err(|error| code(&error))
        }
        "fd_seek" | "fd_tell" | "fd_pread" | "fd_pwrite" => Err(errno::SPIPE),
        _ if function.starts_with("path_") => Err(errno::NOTDIR),
        _ => Err(errno::INVAL),
    }
}

/// A `fdstat`: type, flags, rights.
fn fdstat(socket: &Socket) -> [u8; 24] {
    let mut stat = [0; 24];
    stat[0] = SOCKET_STREAM;
    stat[2] = if socket.nonblocking { 4 } else { 0 };
    stat[8..16].copy_from_slice(&RIGHTS.to_le_bytes());
    stat[16..24].copy_from_slice(&RIGHTS.to_le_bytes());
    stat
}

/// Into the first part that takes anything, as far as that reaches.
fn receive(caller: &mut Caller<'_, State>, socket: &Socket, parts: [i64; 2], peek: bool) -> Result<usize, i32> {
    let mut stream = socket.connected()?;
    let Some([at, length]) = parts_of(caller, parts)?.into_iter().find(|[_, length]| *length > 0) else { return Ok(0) };
    let buffer = memory(caller, at, length).ok_or(errno::FAULT)?;
    socket.persist(PollFlags::IN, || if peek { stream.peek(buffer) } else { stream.read(buffer) })
}

/// All parts, until one of them is not taken as a whole.
fn send(caller: &mut Caller<'_, State>, socket: &Socket, parts: [i64; 2]) -> Result<usize, i32> {
    let mut stream = socket.connected()?;
    let mut sent: usize = 0;
    for [at, length] in parts_of(caller, parts)? {
        let bytes = memory(caller, at, length).ok_or(errno::FAULT)?;
        // Of what is sent already the program is told.
        let count = match socket.persist(PollFlags::OUT, || stream.write(bytes)) {
            Err(errno) if sent == 0 => return Err(errno),
            Err(_) => break,
            Ok(count) => count,
        };
        sent = sent.saturating_add(count);
        if count < bytes.len() {
            break;
        }
    }
    Ok(sent)
}

/// Addresses and lengths of a list of buffers.
fn parts_of(caller: &mut Caller<'_, State>, [at, count]: [i64; 2]) -> Result<Vec<[i64; 2]>, i32> {
    let count = usize::try_from(number(count)).unwrap_or(usize::MAX).min(MOST_PARTS);
    let bytes = i64::try_from(8 * count).unwrap_or(i64::MAX);
    let list = memory(caller, at, bytes).ok_or(errno::FAULT)?;
    let word = |bytes: &[u8]| i64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    Ok(list.chunks_exact(8).map(|part| [word(part), word(&part[4..])]).collect())
}

fn told(caller: &mut Caller<'_, State>, at: i64, count: usize) -> Result<(), i32> {
    checked(store(caller, at, &u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes()))
}

fn checked(errno: i32) -> Result<(), i32> {
    if errno == errno::SUCCESS { Ok(()) } else { Err(errno) }
}

/// Writes to the program's memory.
pub(super) fn store(caller: &mut Caller<'_, State>, at: i64, bytes: &[u8]) -> i32 {
    match memory(caller, at, i64::try_from(bytes.len()).unwrap_or(i64::MAX)) {
        Some(place) => {
            place.copy_from_slice(bytes);
            errno::SUCCESS
        }
        None => errno::FAULT,
    }
}

fn number(argument: i64) -> u32 {
    let [a, b, c, d, ..] = argument.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn code(error: &io::Error) -> i32 {
    match Errno::from_io_error(error) {
        Some(Errno::AGAIN) => errno::AGAIN,
        Some(Errno::CONNABORTED) => errno::CONNABORTED,
        Some(Errno::CONNRESET) => errno::CONNRESET,
        Some(Errno::INVAL) => errno::INVAL,
        Some(Errno::MFILE) => errno::MFILE,
        Some(Errno::NFILE) => errno::NFILE,
        Some(Errno::NOBUFS | Errno::NOMEM) => errno::NOMEM,
        Some(Errno::NOTCONN) => errno::NOTCONN,
        Some(Errno::PIPE) => errno::PIPE,
        Some(Errno::TIMEDOUT) => errno::TIMEDOUT,
        _ => errno::IO,
    }
}
