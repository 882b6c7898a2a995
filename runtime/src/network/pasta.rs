//! Networks without root: a namespace is connected by `pasta` (Debian's `passt`), a process beside the container's supervisor that turns
//! what the namespace sends into the user's own sockets, and what comes for published ports into packets.
//!
//! It lives as long as the supervisor: the kernel kills it when that ends, however that ends. It leads nothing to the machine's loopback
//! (`--no-map-gw`, `-T none`, `-U none`), and nothing to the namespace that was not published.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{File, read_to_string},
    io::{Read, Seek, SeekFrom},
    net::IpAddr,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::{CommandExt, parent_id},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::SigSet,
    unistd::pipe2,
};
use rustix::fs::MemfdFlags;

use super::ports::BoundPort;
use crate::{
    records::own_process::{OwnProcess, THIS_PROGRAM},
    spec::{network::Mac, ports::Protocol},
};

const PROGRAM: &str = "pasta";
const TUN: &str = "/dev/net/tun";
/// How long it may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// The device that it makes.
pub(super) struct Uplink<'a> {
    pub(super) device: String,
    /// None: any.
    pub(super) mac: Option<Mac>,
    /// One of each kind at most; what has none of a kind sends nothing of it.
    pub(super) addresses: Vec<Address>,
    /// Ports of the machine that lead to it.
    pub(super) ports: &'a [BoundPort],
}

/// An address, and whom all others are reached through.
pub(super) struct Address {
    pub(super) ip: IpAddr,
    pub(super) prefix: u8,
    pub(super) gateway: IpAddr,
}

/// What connects a namespace. Dropped, it is ended.
pub(super) struct Pasta(Child);

impl Pasta {
    /// Connects a namespace, which has the device when this returns, and the ports lead to it.
    pub(super) fn start(namespace: BorrowedFd<'_>, uplink: &Uplink<'_>) -> Result<Self> {
        let program = find().context(
            "without root a container is connected to a network by pasta, which is not installed: apt-get install passt (or \
             dnf install passt); --network none and --network host need none",
        )?;
        let mut said: File =
            rustix::fs::memfd_create("pasta", MemfdFlags::CLOEXEC).context("cannot make a file in memory")?.into();
        let (ready, tell) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
        let mut command = OwnProcess::Pasta.command(Path::new(THIS_PROGRAM));
        command.arg(std::process::id().to_string()).arg(program).args(arguments(uplink));
        command.stdin(namespace.try_clone_to_owned().context("cannot pass on a network namespace")?);
        command.stdout(tell).stderr(Stdio::from(said.try_clone().context("cannot pass on a file in memory")?));
        let mut started = Self(command.spawn().context("cannot start pasta")?);
        // What it holds of the pipe is the last that holds it.
        drop(command);
        match heard(&File::from(ready))? {
            Heard::Ready => return Ok(started),
            Heard::Nothing => bail!("pasta has not connected the container within {} s", PATIENCE.as_secs()),
            Heard::End => {}
        }
        started.end();
        let mut words = String::new();
        let _ = said.seek(SeekFrom::Start(0)).and_then(|_| said.read_to_string(&mut words));
        Err(explain(&words))
    }

    /// Ends it: its ports are free when this returns.
    pub(super) fn end(&mut self) {
        // It may have ended by itself; a child of ours can be waited for either way.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Pasta {
    fn drop(&mut self) {
        self.end();
    }
}

/// What our own process does that becomes pasta: `PARENT PROGRAM ARGUMENTS`.
pub(crate) fn become_pasta(parent: &OsStr, program: &OsStr, arguments: &[OsString]) -> Result<u8> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("cannot be ended with the supervisor")?;
    if parent != parent_id().to_string().as_str() {
        bail!("the supervisor has ended");
    }
    // The supervisor takes signals otherwise.
    SigSet::all().thread_unblock().context("cannot let signals through")?;
    Err(Command::new(program).args(arguments).exec())
        .with_context(|| format!("cannot execute {}", Path::new(program).display()))
}

fn find() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(PROGRAM)).find(|path| path.is_file())
}

/// Its namespace is its standard input, and what it says when it is ready goes to its standard output.
fn arguments(uplink: &Uplink<'_>) -> Vec<OsString> {
    let mut arguments: Vec<String> = [
        "--foreground",
        "--quiet",
        "--netns-only",
        "--netns",
        "/proc/self/fd/0",
        "--pid",
        "/proc/self/fd/1",
        "--log-file",
        "/proc/self/fd/2",
        "--config-net",
        "--ns-ifname",
        uplink.device.as_str(),
        "--no-map-gw",
        "--no-dhcp",
        "--no-dhcpv6",
        "--no-ra",
        "--tcp-ns",
        "none",
        "--udp-ns",
        "none",
    ]
    .map(str::to_owned)
    .into();
    if let Some(mac) = uplink.mac {
        arguments.extend(["--ns-mac-addr".to_owned(), mac.to_string()]);
    }
    for Address { ip, prefix, gateway } in &uplink.addresses {
        arguments.extend(["--address".to_owned(), ip.to_string(), "--gateway".to_owned(), gateway.to_string()]);
        if ip.is_ipv4() {
            arguments.extend(["--netmask".to_owned(), prefix.to_string()]);
        }
    }
    for (flag, other) in [("--ipv4-only", IpAddr::is_ipv6 as fn(&IpAddr) -> bool), ("--ipv6-only", IpAddr::is_ipv4)] {
        if !uplink.addresses.iter().any(|address| other(&address.ip)) {
            arguments.push(flag.to_owned());
        }
    }
    for (flag, protocol) in [("--tcp-ports", Protocol::Tcp), ("--udp-ports", Protocol::Udp)] {
        let ports: Vec<&BoundPort> = uplink.ports.iter().filter(|port| port.protocol == protocol).collect();
        // Left out, it would be all that the namespace listens at.
        if ports.is_empty() {
            arguments.extend([flag.to_owned(), "none".to_owned()]);
        }
        arguments.extend(ports.into_iter().flat_map(|port| [flag.to_owned(), specification(port)]));
    }
    arguments.into_iter().map(OsString::from).collect()
}

/// `ADDRESS/PORT:PORT`
fn specification(port: &BoundPort) -> String {
    let address = port.host_ip.filter(|ip| !ip.is_unspecified()).map(|ip| format!("{ip}/")).unwrap_or_default();
    format!("{address}{}:{}", port.host_port, port.container_port)
}

/// What came of waiting for pasta.
enum Heard {
    Ready,
    /// It has ended before it was.
    End,
    Nothing,
}

fn heard(ready: &File) -> Result<Heard> {
    let until = Instant::now() + PATIENCE;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(ready.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Ok(Heard::Nothing),
            Ok(_) => break,
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for pasta"),
        }
    }
    let mut said = [0];
    let mut ready = ready;
    let count = ready.read(&mut said).context("cannot hear from pasta")?;
    Ok(if count > 0 { Heard::Ready } else { Heard::End })
}

/// What it could not do, with what would help.
fn explain(words: &str) -> anyhow::Error {
    let reasons = words.lines().map(|line| line.split_once("ERROR:").map_or(line, |(_, rest)| rest).trim());
    let mut reasons = reasons.filter(|line| !line.is_empty() && !line.contains("syslog"));
    let reason = reasons.next_back().unwrap_or("it says no reason");
    let hint = match reason {
        _ if reason.contains("tun") && !Path::new(TUN).exists() => {
            "; there is no /dev/net/tun: as root, modprobe tun".to_owned()
        }
        _ if reason.contains("tun") && File::options().read(true).write(true).open(TUN).is_err() => {
            "; this user may not open /dev/net/tun, which is everybody's on most machines: as root, chmod 0666 /dev/net/tun"
                .to_owned()
        }
        _ if reason.contains("bind") => match read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start") {
            Ok(first) => format!(
                "; ports below {} are root's (the sysctl net.ipv4.ip_unprivileged_port_start), and others may be taken (ss -lnp)",
                first.trim()
            ),
            Err(_) => String::new(),
        },
        _ => String::new(),
    };
    anyhow!("pasta does not connect the container: {reason}{hint}")
}

/// The machine's own address, as somebody elsewhere sees it.
pub(super) fn address_of_machine() -> Option<IpAddr> {
    // Nothing is sent: it is asked by which address it would be (RFC 5737 has the other one).
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_is_told_with_what_helps() {
        let message =
            explain("Failed to send 45 bytes to syslog\nFailed to open tun socket in namespace\n").to_string();
        assert!(message.contains("container: Failed to open tun socket in namespace"), "{message}");
        let message = explain("0.04: ERROR:   Failed to bind any port for '-t 80:80', exiting\n").to_string();
        assert!(message.contains("'-t 80:80'") && message.contains("ip_unprivileged_port_start"), "{message}");
        assert!(explain("").to_string().contains("no reason"));
    }

    #[test]
    fn ports_are_published_where_they_were_wanted() {
        let port = |host_ip: Option<&str>| BoundPort {
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port: 8080,
            container_port: 80,
            protocol: Protocol::Tcp,
            relayed: false,
        };
        assert_eq!(specification(&port(None)), "8080:80");
        assert_eq!(specification(&port(Some("0.0.0.0"))), "8080:80");
        assert_eq!(specification(&port(Some("127.0.0.1"))), "127.0.0.1/8080:80");
    }
}
