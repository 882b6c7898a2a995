//! The switch of a network of an ordinary user, where there can be no bridge: a process that passes frames from one container's device to
//! another's.
//!
//! A container's supervisor comes by a socket in the network's folder, and brings the descriptor of the device, with as whom the container
//! is on the network (see [`super::plug`]). So the switch needs no rights of its own and no namespace. A container is on it as long as that
//! connection lasts, however its supervisor ends; the switch ends when nobody is on it any more. If it is killed, the supervisors start
//! another one.

use std::{
    fs::File,
    io::{ErrorKind, IoSliceMut, Read, Write, stdin},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::SigSet,
};
use rustix::{
    io::Errno as Refusal,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, accept_with, recvmsg, send},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use super::frames::{Identity, target};

/// What a supervisor is told when its container is on the switch.
pub(super) const READY: u8 = b'+';
/// More than any device sends at once.
const FRAME_BYTES: usize = 64 << 10;
/// How many frames of one device are passed on before the others have their turn.
const FRAMES_AT_ONCE: usize = 64;
/// As whom a container is on the network, in JSON.
const IDENTITY_BYTES: usize = 512;
/// How long it waits for the first.
const FIRST_WITHIN: Duration = Duration::from_secs(10);

/// Until there is room for one more.
const PAUSE: Duration = Duration::from_millis(20);

struct Switch {
    listener: OwnedFd,
    members: Vec<Member>,
}

/// Somebody who has come.
struct Member {
    connection: OwnedFd,
    /// Once he has said as whom.
    port: Option<Port>,
}

struct Port {
    identity: Identity,
    device: File,
}

/// What the process does: its standard input listens.
pub(crate) fn switch() -> Result<u8> {
    // It belongs to nobody's terminal. Fails only for a group leader, which it is not.
    let _ = nix::unistd::setsid();
    // Who started it takes signals otherwise.
    SigSet::all().thread_unblock().context("cannot let signals through")?;
    // Each container takes two descriptors.
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let listener = stdin().as_fd().try_clone_to_owned().context("cannot listen")?;
    Switch { listener, members: Vec::new() }.run()?;
    Ok(0)
}

impl Switch {
    fn run(mut self) -> Result<()> {
        let mut buffer = vec![0; FRAME_BYTES];
        let mut expects_first = true;
        loop {
            let (comes, talks, sends) = self.wait(expects_first)?;
            for at in (0..self.members.len()).filter(|at| sends.contains(at)) {
                self.pass_on(at, &mut buffer);
            }
            // From the last on, so that the others keep their places.
            for at in talks.into_iter().rev() {
                if !self.members[at].hear() {
                    self.members.remove(at);
                }
            }
            match comes {
                true => self.accept()?,
                false if self.members.is_empty() => return Ok(()),
                false => {}
            }
            expects_first = false;
        }
    }

    /// Until something happens: whether somebody comes, who says something, and who sends frames.
    fn wait(&self, expects_first: bool) -> Result<(bool, Vec<usize>, Vec<usize>)> {
        let mut fds = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.members.iter().map(|member| PollFd::new(member.connection.as_fd(), PollFlags::POLLIN)));
        let with_port: Vec<usize> = (0..self.members.len()).filter(|at| self.members[*at].port.is_some()).collect();
        let devices = self.members.iter().filter_map(|member| member.port.as_ref());
        fds.extend(devices.map(|port| PollFd::new(port.device.as_fd(), PollFlags::POLLIN)));
        let timeout = match expects_first {
            true => PollTimeout::try_from(FIRST_WITHIN).unwrap_or(PollTimeout::MAX),
            false => PollTimeout::NONE,
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for containers"),
        }
        let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        let (listener, others) = fds.split_at(1);
        let (connections, devices) = others.split_at(self.members.len());
        let talks = (0..).zip(connections).filter(|(_, fd)| is_ready(fd)).map(|(at, _)| at).collect();
        let sends = with_port.into_iter().zip(devices).filter(|(_, fd)| is_ready(fd)).map(|(at, _)| at).collect();
        Ok((is_ready(&listener[0]), talks, sends))
    }

    fn accept(&mut self) -> Result<()> {
        match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(connection) => self.members.push(Member { connection, port: None }),
            // Who came has gone.
            Err(Refusal::AGAIN | Refusal::INTR | Refusal::CONNABORTED) => {}
            // He waits until others have gone, and they must not wait for him.
            Err(Refusal::MFILE | Refusal::NFILE | Refusal::NOMEM | Refusal::NOBUFS) => thread::sleep(PAUSE),
            Err(errno) => return Err(errno).context("cannot accept"),
        }
        Ok(())
    }

    /// Frames of one container to those that they are for. What somebody has no room for is lost, as with any switch.
    fn pass_on(&mut self, from: usize, buffer: &mut [u8]) {
        for _ in 0..FRAMES_AT_ONCE {
            let Some(port) = &self.members[from].port else { return };
            let length = match (&port.device).read(buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // The device has gone with its namespace; its supervisor will, too.
                Err(_) => {
                    self.members[from].port = None;
                    return;
                }
            };
            let Some(frame) = buffer.get(..length).filter(|frame| port.identity.may_send(frame)) else { continue };
            let target = target(frame);
            for (_, member) in (0..).zip(&self.members).filter(|(at, _)| *at != from) {
                if let Some(port) = &member.port
                    && target.is_none_or(|target| target == port.identity.mac)
                {
                    let _ = (&port.device).write(frame);
                }
            }
        }
    }
}

impl Member {
    /// False if it is over.
    fn hear(&mut self) -> bool {
        match receive(self.connection.as_fd()) {
            Ok(None) => true,
            Ok(Some((identity, device))) => {
                self.port = Some(Port { identity, device });
                send(&self.connection, &[READY], SendFlags::NOSIGNAL | SendFlags::DONTWAIT).is_ok()
            }
            Err(_) => false,
        }
    }
}

/// What somebody has said; None if it was nothing yet.
fn receive(connection: BorrowedFd<'_>) -> Result<Option<(Identity, File)>> {
    let mut text = [0; IDENTITY_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = match recvmsg(
        connection,
        &mut [IoSliceMut::new(&mut text)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    ) {
        Err(Refusal::AGAIN | Refusal::INTR) => return Ok(None),
        received => received.context("cannot hear who comes")?,
    };
    let device = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let device = device.context("no device was brought")?;
    let identity = text.get(..received.bytes).context("it is too long")?;
    Ok(Some((serde_json::from_slice(identity)?, File::from(device))))
}
