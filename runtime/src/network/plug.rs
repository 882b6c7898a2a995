//! A container's device on a network of an ordinary user: frames go by its descriptor to the network's switch (see [`super::switch`]).
//!
//! ```text
//! ROOT/networks/NAME/switch    the socket that the switch listens at; it stays when the switch has ended
//! ```
//!
//! Who finds nobody there makes the socket anew and starts a switch, under the lock of all networks. The supervisor keeps its connection,
//! and a thread that waits for the end of it: where a switch ends before its containers do, each of them goes to the next one.

use std::{
    fs,
    io::{self, ErrorKind, IoSlice, PipeReader, PipeWriter},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use linux_exec::network::{Links, tap};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    net::{
        AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
        SocketType, bind, connect, listen, recv, sendmsg, socket_with,
    },
};

use super::{Definition, Networks, addresses::Held, definition::OPTION_MTU, frames::Identity, switch::READY};
use crate::records::own_process::{OwnProcess, THIS_PROGRAM};

const SOCKET: &str = "switch";
/// What a device carries at once where nobody says otherwise: there is no wire between them.
const USUAL_MTU: u32 = 65_520;
/// How many switches may end, one after the other, before a container is on one of them.
const TRIES: u32 = 20;
/// How long a switch may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between tries to find another switch.
const PAUSE: Duration = Duration::from_millis(200);
const BACKLOG: i32 = 4096;
const STACK_BYTES: usize = 256 << 10;

/// A device of a container, which is on no network before [`Plug::connect`].
pub(super) struct Device {
    tap: OwnedFd,
    identity: Identity,
    folder: PathBuf,
}

/// The same, on its network until it is dropped.
pub(super) struct Plug {
    device: Arc<Device>,
    networks: Networks,
    connection: Option<OwnedFd>,
    keeping: Option<(PipeWriter, JoinHandle<()>)>,
}

impl Device {
    /// Makes it in the namespace that the caller is in, with all that the lease says.
    pub(super) fn make(networks: &Networks, held: &Held) -> Result<Self> {
        let Held { network, lease, .. } = held;
        let name = held.inner_device();
        let tap = tap::make(&name)?;
        let links = Links::open()?;
        let link = links.find(&name)?.context("a network device is gone that was just made")?;
        links.set_hardware(&link, lease.mac.0, mtu(network)?)?;
        links.configure(link.index, &held.addresses(), &[])?;
        let identity = Identity {
            mac: lease.mac,
            ipv4: lease.addresses().find_map(|ip| if let std::net::IpAddr::V4(ip) = ip { Some(ip) } else { None }),
            ipv6: lease.addresses().find_map(|ip| if let std::net::IpAddr::V6(ip) = ip { Some(ip) } else { None }),
        };
        Ok(Self { tap, identity, folder: networks.dir(&network.name) })
    }

    /// Puts it on its network; where containers are to be kept apart, it leads nowhere.
    pub(super) fn connect(self, network: &Definition, networks: &Networks) -> Result<Plug> {
        let connection = network.connects().then(|| self.join(networks)).transpose()?;
        Ok(Plug { device: Arc::new(self), networks: networks.clone(), connection, keeping: None })
    }

    /// A connection to the switch, which has the device when this returns.
    fn join(&self, networks: &Networks) -> Result<OwnedFd> {
        for _ in 0..TRIES {
            let connection = self.reach(networks)?;
            // The switch may have ended meanwhile, with the last who was on it.
            if self.hand_over(&connection)? {
                return Ok(connection);
            }
        }
        bail!("switches of the network {} end before they answer", self.folder.display())
    }

    /// False if nobody has taken it.
    fn hand_over(&self, connection: &OwnedFd) -> Result<bool> {
        let identity = serde_json::to_vec(&self.identity)?;
        let descriptors = [self.tap.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            bail!("a descriptor does not fit into a message");
        }
        let sent = sendmsg(connection, &[IoSlice::new(&identity)], &mut ancillary, SendFlags::NOSIGNAL);
        match sent {
            Ok(_) => {}
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => return Ok(false),
            Err(errno) => return Err(errno).context("cannot talk to the network's switch"),
        }
        let timeout = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
        loop {
            match poll(&mut [PollFd::new(connection.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) => bail!("the network's switch does not answer within {} s", PATIENCE.as_secs()),
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("cannot wait for the network's switch"),
            }
        }
        let mut answer = [0];
        let heard = recv(connection, &mut answer[..], RecvFlags::DONTWAIT);
        Ok(heard.is_ok_and(|(length, _)| length == 1 && answer[0] == READY))
    }

    /// A connection to the switch, which is started if there is none.
    fn reach(&self, networks: &Networks) -> Result<OwnedFd> {
        let folder = open_folder(&self.folder)?;
        let address = address_in(&folder)?;
        if let Some(connection) = try_connect(&address)? {
            return Ok(connection);
        }
        let _alone = networks.lock(FlockOperation::LockExclusive)?;
        // Others may have waited for the lock to do the same.
        if let Some(connection) = try_connect(&address)? {
            return Ok(connection);
        }
        let path = self.folder.join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
        let listener = new_socket()?;
        bind(&listener, &address)
            .and_then(|()| listen(&listener, BACKLOG))
            .with_context(|| format!("cannot listen at {}", path.display()))?;
        start(listener)?;
        try_connect(&address)?.with_context(|| format!("nobody listens at {}", path.display()))
    }
}

impl Plug {
    /// From now on another switch is found when this one ends. Needs a thread.
    pub(super) fn keep(&mut self) -> Result<()> {
        let Some(connection) = self.connection.take() else { return Ok(()) };
        let (stopped, stop) = io::pipe().context("cannot make a pipe")?;
        let (device, networks) = (Arc::clone(&self.device), self.networks.clone());
        let builder = thread::Builder::new().name("plug".to_owned()).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || keep(&device, &networks, connection, &stopped));
        self.keeping = Some((stop, thread.context("cannot start a thread for a network")?));
        Ok(())
    }
}

impl Drop for Plug {
    fn drop(&mut self) {
        let Some((stop, thread)) = self.keeping.take() else { return };
        drop(stop);
        // It has nothing to say.
        let _ = thread.join();
    }
}

fn keep(device: &Device, networks: &Networks, mut connection: OwnedFd, stopped: &PipeReader) {
    // Nobody says anything by it but that it is over.
    while !is_stopped(stopped, Some(&connection)) {
        loop {
            match device.join(networks) {
                Ok(next) => {
                    connection = next;
                    break;
                }
                Err(_) if is_stopped(stopped, None) => return,
                Err(_) => {}
            }
        }
    }
}

/// Waits for the end of this container, of a connection, or of a pause where there is none; whether it is the first.
fn is_stopped(stopped: &PipeReader, connection: Option<&OwnedFd>) -> bool {
    let mut fds = vec![PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
    fds.extend(connection.map(|connection| PollFd::new(connection.as_fd(), PollFlags::POLLIN)));
    let timeout = match connection {
        Some(_) => PollTimeout::NONE,
        None => PollTimeout::try_from(PAUSE).unwrap_or(PollTimeout::ZERO),
    };
    loop {
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => {}
            Err(_) => return true,
            Ok(_) => return fds[0].any().unwrap_or(true),
        }
    }
}

fn mtu(network: &Definition) -> Result<u32> {
    match network.options.get(OPTION_MTU) {
        Some(mtu) => Ok(mtu.parse::<u32>().context("the network's mtu")?.min(USUAL_MTU)),
        None => Ok(USUAL_MTU),
    }
}

fn open_folder(folder: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::empty()).with_context(|| format!("cannot open {}", folder.display()))
}

/// By the descriptor of its folder, as an address may have 107 bytes.
fn address_in(folder: &OwnedFd) -> Result<SocketAddrUnix> {
    let path = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
    SocketAddrUnix::new(path).context("a socket's address is too long")
}

fn new_socket() -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).context("cannot make a socket")
}

/// None if nobody listens there.
fn try_connect(address: &SocketAddrUnix) -> Result<Option<OwnedFd>> {
    let socket = new_socket()?;
    match connect(&socket, address) {
        Ok(()) => Ok(Some(socket)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED) => Ok(None),
        Err(errno) => Err(errno).context("cannot connect to the network's switch"),
    }
}

/// It outlives this process where others are on the network.
fn start(listener: OwnedFd) -> Result<()> {
    let mut command = OwnProcess::Switch.command(Path::new(THIS_PROGRAM));
    command.stdin(listener).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map(drop).context("cannot start a switch for the network")
}
