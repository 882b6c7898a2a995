//! Where clients come: sockets, how many connections there may be, and encryption. The rest of a connection is the same as that of a
//! function's own server, [`wasm_exec::http::front`].

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use wasm_exec::http::front::{self, Socket};

use super::{exchange, gateway::Gateway, tls::Tls};

/// Where descriptors or memory are short, they may not be in a moment.
const SHORTAGE: Duration = Duration::from_millis(50);

/// A client's connection, as its requests know it.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) address: SocketAddr,
    pub(super) is_encrypted: bool,
    /// It counts as a connection as long as anything of it is there.
    _seat: Arc<Seat>,
}

/// Room for one connection, of all and of its address.
struct Seat {
    _permit: OwnedSemaphorePermit,
    seats: Arc<Seats>,
    address: IpAddr,
}

/// How many connections each address has.
#[derive(Default)]
pub(super) struct Seats(Mutex<HashMap<IpAddr, u32>>);

impl Seats {
    /// Whether there was one left.
    fn take(&self, address: IpAddr, most: u32) -> bool {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(address).or_default();
        if *count >= most {
            return false;
        }
        *count += 1;
        true
    }

    fn give_back(&self, address: IpAddr) {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&address);
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.give_back(self.address);
    }
}

/// What all sockets share.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) gateway: Arc<Gateway>,
    pub(super) room: Arc<Semaphore>,
    pub(super) seats: Arc<Seats>,
    /// None: in the clear.
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) stopping: watch::Receiver<bool>,
}

/// Accepts what comes at one socket, until the gateway stops.
pub(super) async fn accept(door: Door, listener: TcpListener) {
    let mut stopping = door.stopping.clone();
    loop {
        let (socket, address, permit) = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return,
            next = next(&listener, &door.room) => next,
        };
        let most = door.gateway.site().limits.connections_per_address;
        // An IPv4 client of a socket of both.
        let ip = address.ip().to_canonical();
        if !door.seats.take(ip, most) {
            continue;
        }
        let seat = Seat { _permit: permit, seats: Arc::clone(&door.seats), address: ip };
        let address = SocketAddr::new(ip, address.port());
        let client = Client { address, is_encrypted: door.tls.is_some(), _seat: Arc::new(seat) };
        // What is sent is whole, and is to go at once.
        _ = socket.set_nodelay(true);
        tokio::spawn(serve(door.clone(), socket, client));
    }
}

/// Serves a connection to its end.
async fn serve(door: Door, socket: TcpStream, client: Client) {
    let (waits, head_bytes) = {
        let site = door.gateway.site();
        let limits = &site.limits;
        (limits.waits(), u32::try_from(limits.head.0).unwrap_or(u32::MAX))
    };
    let socket: Socket = match &door.tls {
        None => Box::new(socket),
        Some(tls) => match timeout(waits.head, tls.accept(socket)).await {
            Ok(Ok(socket)) => Box::new(socket),
            // There is nobody to tell.
            Ok(Err(_)) | Err(_) => return,
        },
    };
    let answer = |request, counted| exchange::answer(Arc::clone(&door.gateway), client.clone(), request, counted);
    front::serve(socket, head_bytes, waits, door.stopping.clone(), answer).await;
}

/// The next connection, as soon as there may be one more. More of them wait in the kernel.
async fn next(listener: &TcpListener, room: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        // It is never closed.
        let Ok(permit) = Arc::clone(room).acquire_owned().await else { continue };
        match listener.accept().await {
            Ok((socket, address)) => return (socket, address, permit),
            // A client that is gone again already: the next one is there at once.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => sleep(SHORTAGE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_seats_and_others_have_theirs() {
        let seats = Seats::default();
        let [one, other] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        assert_eq!([one, one, one, other].map(|address| seats.take(address, 2)), [true, true, false, true]);
        seats.give_back(one);
        assert!(seats.take(one, 2));
        [one, one, other].into_iter().for_each(|address| seats.give_back(address));
        assert!(seats.0.lock().unwrap().is_empty());
    }
}
