//! A netlink socket. The kernel answers before send(2) returns, so nothing here waits for anybody.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::{
    errno::Errno,
    sys::{
        socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt},
        time::TimeVal,
    },
};

use super::message::{Messages, Received, received};

/// As much as the kernel puts into one answer to a list.
const BUFFER: usize = 64 << 10;

/// More than one send(2) takes without asking.
const LARGE: usize = 100 << 10;

/// How often a list is read that changes meanwhile.
const TRIES: usize = 16;

/// An answer that does not come is a fault of the kernel's; nobody is to wait for it.
const SECONDS: i64 = 5;

/// It belongs to the network namespace in which it was made, wherever its thread goes.
pub(super) struct Socket {
    fd: OwnedFd,
}

/// A message that the kernel did not take.
#[derive(Debug)]
pub(super) struct Refused {
    /// Its number, from 1; 0: none in particular.
    pub(super) message: u32,
    pub(super) errno: Errno,
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Self { message: 0, errno }
    }
}

impl Socket {
    pub(super) fn open(protocol: SockProtocol) -> Result<Self, Errno> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(SECONDS, 0))?;
        Ok(Self { fd })
    }

    /// Sends messages of which each is to be acknowledged.
    pub(super) fn request(&self, messages: &Messages) -> Result<(), Refused> {
        self.send(messages)?;
        let (mut left, mut first) = (messages.count(), None);
        while left > 0 {
            for answer in received(&self.receive()?) {
                let Some(errno) = answer.errno() else { continue };
                left = left.saturating_sub(1);
                if errno != 0 && first.is_none() {
                    first = Some(Refused { message: answer.sequence, errno: Errno::from_raw(errno) });
                }
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// Sends messages that count all together or not at all; the last but one is to be acknowledged.
    pub(super) fn transaction(&self, messages: &Messages) -> Result<(), Refused> {
        self.send(messages)?;
        let (mut done, mut first) = (false, None);
        while !done {
            for answer in received(&self.receive()?) {
                let Some(errno) = answer.errno() else { continue };
                // An error of the transaction itself has the number of its first message.
                done |= answer.sequence <= 1 || answer.sequence + 1 >= messages.count();
                if errno != 0 && first.is_none() {
                    first = Some(Refused { message: answer.sequence, errno: Errno::from_raw(errno) });
                }
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// Sends one message that asks for a list, or for one object; `each` is called for all that comes. A list that changes while it is
    /// read is read again.
    pub(super) fn list(
        &self,
        messages: &Messages,
        is_list: bool,
        mut each: impl FnMut(&Received<'_>),
    ) -> Result<(), Errno> {
        for _ in 0..TRIES {
            let (answers, is_whole) = self.listed(messages, is_list)?;
            if is_whole {
                let objects = answers.iter().flat_map(|answer| received(answer)).filter(|one| one.end().is_none());
                objects.for_each(|object| each(&object));
                return Ok(());
            }
        }
        Err(Errno::EAGAIN)
    }

    /// What came, and whether nothing changed meanwhile.
    fn listed(&self, messages: &Messages, is_list: bool) -> Result<(Vec<Vec<u8>>, bool), Errno> {
        self.send(messages)?;
        let (mut answers, mut done, mut is_whole) = (Vec::new(), false, true);
        while !done {
            let answer = self.receive()?;
            for message in received(&answer) {
                is_whole &= !message.is_interrupted();
                match message.errno().or(message.end()) {
                    Some(0) => done = true,
                    Some(errno) => return Err(Errno::from_raw(errno)),
                    None => done |= !is_list,
                }
            }
            answers.push(answer);
        }
        Ok((answers, is_whole))
    }

    fn send(&self, messages: &Messages) -> Result<(), Errno> {
        let bytes = messages.bytes().ok_or(Errno::EMSGSIZE)?;
        if bytes.len() > LARGE {
            setsockopt(&self.fd, sockopt::SndBufForce, &(bytes.len() * 2))?;
        }
        send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()).map(drop)
    }

    /// Some whole messages.
    fn receive(&self) -> Result<Vec<u8>, Errno> {
        let mut buffer = vec![0; BUFFER];
        // With this flag it says how long they are, also where they were cut off.
        let length = loop {
            match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        if length > buffer.len() {
            return Err(Errno::EMSGSIZE);
        }
        buffer.truncate(length);
        Ok(buffer)
    }
}
