//! `poll_oneoff` of a module that waits for sockets, among others.

use super::{
    errno, host,
    places::memory,
    sockets::{Socket, store},
};
use crate::state::State;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use std::{
    io::stdin,
    os::fd::AsFd,
    time::{Duration, Instant, SystemTime},
};
use wasmtime::Caller;
use wiggle::GuestMemory;

/// Bytes of a `subscription` and of an `event`.
const SUBSCRIPTION: usize = 48;
const EVENT: usize = 32;
/// Numbers of WASI p1's `clockid`, `subclockflags`, `eventtype` and `eventrwflags`.
const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;
const ABSOLUTE: u16 = 1;
const CLOCK: u8 = 0;
const READ: u8 = 1;
const WRITE: u8 = 2;
const HANGUP: u8 = 1;

/// What is waited for, and the program's own word for it.
struct Subscription {
    word: [u8; 8],
    kind: u8,
    wanted: Wanted,
}

enum Wanted {
    Time(Instant),
    Socket(Socket),
    Input,
    /// Files are always ready.
    Nothing,
    Misunderstood,
}

/// None where no socket is waited for: then it is wasmtime-wasi's to do.
pub(super) fn poll_oneoff(caller: &mut Caller<'_, State>, args: &[i64]) -> Option<i32> {
    let length = (args[2] & i64::from(u32::MAX)).checked_mul(i64::try_from(SUBSCRIPTION).ok()?)?;
    let list = memory(caller, args[0], length)?.to_vec();
    let subscriptions: Vec<Subscription> = list.chunks_exact(SUBSCRIPTION).map(|bytes| read(caller, bytes)).collect();
    if !subscriptions.iter().any(|subscription| matches!(subscription.wanted, Wanted::Socket(_))) {
        return None;
    }
    let events = match wait(&subscriptions) {
        Ok(events) => events,
        Err(Errno::NOMEM) => return Some(errno::NOMEM),
        Err(_) => return Some(errno::INVAL),
    };
    let count = u32::try_from(events.len() / EVENT).unwrap_or(u32::MAX);
    Some(match store(caller, args[1], &events) {
        errno::SUCCESS => store(caller, args[3], &count.to_le_bytes()),
        errno => errno,
    })
}

fn read(caller: &mut Caller<'_, State>, bytes: &[u8]) -> Subscription {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[..8]);
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let kind = bytes[8];
    let wanted = match kind {
        CLOCK => {
            let nanos = u64::from(number(24)) | u64::from(number(28)) << 32;
            let absolute = u16::from_le_bytes([bytes[40], bytes[41]]) & ABSOLUTE != 0;
            until(caller, number(16), nanos, absolute).map_or(Wanted::Misunderstood, Wanted::Time)
        }
        READ | WRITE => match caller.data().sockets.get(number(16).into()) {
            Some(socket) => Wanted::Socket(socket.clone()),
            None if kind == READ && number(16) == 0 => Wanted::Input,
            None => Wanted::Nothing,
        },
        _ => Wanted::Misunderstood,
    };
    Subscription { word, kind, wanted }
}

fn until(caller: &mut Caller<'_, State>, clock: u32, nanos: u64, absolute: bool) -> Option<Instant> {
    let left = match (clock, absolute) {
        (REALTIME | MONOTONIC, false) => Duration::from_nanos(nanos),
        (REALTIME, true) => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            Duration::from_nanos(nanos).saturating_sub(now)
        }
        (MONOTONIC, true) => Duration::from_nanos(nanos.saturating_sub(monotonic_now(caller)?)),
        _ => return None,
    };
    // What is beyond all time is as good as a year.
    const LONGEST: Duration = Duration::from_secs(366 * 86_400);
    Instant::now().checked_add(left.min(LONGEST))
}

/// By the clock that the program reads.
fn monotonic_now(caller: &mut Caller<'_, State>) -> Option<u64> {
    let mut own = [0; 8];
    let read = host::clock_time_get(&mut caller.data_mut().wasi, &mut GuestMemory::Unshared(&mut own), 1, 0, 0);
    read.is_ok_and(|code| code == errno::SUCCESS).then(|| u64::from_le_bytes(own))
}

/// Until at least one is there: the events, as the program reads them.
fn wait(subscriptions: &[Subscription]) -> Result<Vec<u8>, Errno> {
    let input = stdin();
    loop {
        let flags = |kind| if kind == READ { PollFlags::IN } else { PollFlags::OUT };
        let fds = subscriptions.iter().filter_map(|subscription| match &subscription.wanted {
            Wanted::Socket(socket) => Some(socket.poll_fd(flags(subscription.kind))),
            Wanted::Input => Some(PollFd::from_borrowed_fd(input.as_fd(), PollFlags::IN)),
            Wanted::Time(_) | Wanted::Nothing | Wanted::Misunderstood => None,
        });
        let mut fds: Vec<PollFd<'_>> = fds.collect();
        let left = subscriptions.iter().filter_map(|subscription| match subscription.wanted {
            Wanted::Time(until) => Some(until.saturating_duration_since(Instant::now())),
            Wanted::Nothing | Wanted::Misunderstood => Some(Duration::ZERO),
            Wanted::Socket(_) | Wanted::Input => None,
        });
        let timeout = left.min().and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let events = happened(subscriptions, &fds);
        if !events.is_empty() {
            return Ok(events);
        }
    }
}

fn happened(subscriptions: &[Subscription], fds: &[PollFd<'_>]) -> Vec<u8> {
    let now = Instant::now();
    let mut found = fds.iter().map(PollFd::revents);
    let mut events = Vec::new();
    for subscription in subscriptions {
        let (code, bytes, hung_up) = match &subscription.wanted {
            Wanted::Time(until) if *until > now => continue,
            Wanted::Time(_) | Wanted::Nothing => (errno::SUCCESS, 0, false),
            Wanted::Misunderstood => (errno::INVAL, 0, false),
            Wanted::Socket(_) | Wanted::Input => {
                let found = found.next().unwrap_or(PollFlags::empty());
                if found.is_empty() {
                    continue;
                }
                let bytes = match &subscription.wanted {
                    Wanted::Socket(socket) if subscription.kind == READ => socket.readable_bytes(),
                    _ => 1,
                };
                (errno::SUCCESS, bytes, found.contains(PollFlags::HUP))
            }
        };
        let mut event = [0; EVENT];
        event[..8].copy_from_slice(&subscription.word);
        event[8..10].copy_from_slice(&u16::try_from(code).unwrap_or_default().to_le_bytes());
        event[10] = subscription.kind;
        event[16..24].copy_from_slice(&bytes.to_le_bytes());
        event[24] = if hung_up { HANGUP } else { 0 };
        events.extend(event);
    }
    events
}
