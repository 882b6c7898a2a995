//! A netlink socket. The kernel answers before send(2) returns, so nothing here waits for anybody.

use std::{
    io::IoSlice,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, ControlMessage, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, sendmsg, setsockopt,
            socket, socketpair, sockopt,
        },
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
    protocol: SockProtocol,
}

impl Drop for Socket {
    /// Whoever closes a socket of the packet filter soon after anybody removed something waits for a grace period of RCU, up to
    /// 20 ms. Nobody here has to wait for that, so the kernel closes it.
    fn drop(&mut self) {
        if self.protocol == SockProtocol::NetlinkNetFilter {
            // If it cannot be handed over it is closed here.
            let _ = leave_to_kernel(&self.fd);
        }
    }
}

/// Makes a copy of a descriptor that nobody can receive: in a message which lies in the queue of a socket that is in the same message.
/// The kernel finds such circles (unix(7), SCM_RIGHTS) and closes what is in them, since Linux 6.10 by a thread of its own.
fn leave_to_kernel(fd: &OwnedFd) -> Result<(), Errno> {
    let (queue, sender) = socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)?;
    let rights = [fd.as_raw_fd(), queue.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&rights)];
    sendmsg::<()>(sender.as_raw_fd(), &[IoSlice::new(&[0])], &message, MsgFlags::MSG_DONTWAIT, None).map(drop)
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
        Ok(Self { fd, protocol })
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
