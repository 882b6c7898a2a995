//! A netlink socket. The kernel answers before send(2) returns, so nothing here waits for anybody.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::{
    errno::Errno,
    sys::{
        socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt},
        time::TimeVal,
    },
};

use super::message::{DONE, Messages, Received, received};

/// As much as the kernel puts into one answer to a list.
const BUFFER: usize = 64 << 10;

/// More than one send(2) takes without asking.
const LARGE: usize = 100 << 10;

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
            self.receive(|answer| {
                let Some(errno) = answer.errno() else { return };
                left = left.saturating_sub(1);
                if errno != 0 && first.is_none() {
                    first = Some(Refused { message: answer.sequence, errno: Errno::from_raw(errno) });
                }
            })?;
        }
        first.map_or(Ok(()), Err)
    }

    /// Sends messages that count all together or not at all; the last but one is to be acknowledged.
    pub(super) fn transaction(&self, messages: &Messages) -> Result<(), Refused> {
        self.send(messages)?;
        let (mut done, mut first) = (false, None);
        while !done {
            self.receive(|answer| {
                let Some(errno) = answer.errno() else { return };
                // An error of the transaction itself has the number of its first message.
                done |= answer.sequence <= 1 || answer.sequence + 1 >= messages.count();
                if errno != 0 && first.is_none() {
                    first = Some(Refused { message: answer.sequence, errno: Errno::from_raw(errno) });
                }
            })?;
        }
        first.map_or(Ok(()), Err)
    }

    /// Sends one message that asks for a list, or for one object; `each` is called for all that comes.
    pub(super) fn list(
        &self,
        messages: &Messages,
        is_list: bool,
        mut each: impl FnMut(&Received<'_>),
    ) -> Result<(), Errno> {
        self.send(messages)?;
        let (mut done, mut error) = (false, None);
        while !done {
            self.receive(|answer| match answer.errno() {
                Some(errno) => {
                    done = true;
                    error = (errno != 0).then(|| Errno::from_raw(errno));
                }
                None if answer.kind == DONE => done = true,
                None => {
                    each(answer);
                    done |= !is_list;
                }
            })?;
        }
        error.map_or(Ok(()), Err)
    }

    fn send(&self, messages: &Messages) -> Result<(), Errno> {
        let bytes = messages.bytes().ok_or(Errno::EMSGSIZE)?;
        if bytes.len() > LARGE {
            setsockopt(&self.fd, sockopt::SndBufForce, &(bytes.len() * 2))?;
        }
        send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()).map(drop)
    }

    fn receive(&self, mut each: impl FnMut(&Received<'_>)) -> Result<(), Errno> {
        let mut buffer = vec![0; BUFFER];
        let length = loop {
            match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        received(&buffer[..length]).for_each(|message| each(&message));
        Ok(())
    }
}
