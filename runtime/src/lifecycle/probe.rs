//! A health check from outside: a connection to a port of the container's, or a request on one.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use linux_exec::network::namespace;

use crate::{
    records::container::Running,
    spec::{ports::HostPort, probe::Probe},
};

/// The longest first line of an answer.
const LINE_BYTES: usize = 1024;

/// Exit code and output of one check, which ends in time whatever the program does. `is_opened`: the container's ports are sockets of the
/// host's, which its program was given; others are reached in its network namespace, at its loopback.
pub(super) fn check(probe: &Probe, running: &Running, is_opened: bool, longest: Duration) -> Result<(i32, String)> {
    let deadline = Instant::now() + longest;
    let looked = match is_opened {
        true => look(probe, &published(probe, running), deadline),
        false => {
            let namespace = namespace::of_process(running.pid)?;
            let places = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            let places = places.map(|ip| SocketAddr::new(ip, probe.port()));
            namespace::inside_elsewhere(namespace.as_fd(), || look(probe, &places, deadline))
        }
    };
    Ok(match looked {
        Ok(said) => (0, said),
        Err(error) => (1, format!("{error:#}")),
    })
}

/// Where a port of the container's is on the host.
fn published(probe: &Probe, running: &Running) -> Vec<SocketAddr> {
    let ports = running.ports.iter().filter(|port| port.container_port == probe.port());
    ports
        .filter_map(|port| match port.host_port {
            HostPort::Fixed(number) => {
                let ip = port.host_ip.filter(|ip| !ip.is_unspecified()).unwrap_or(Ipv4Addr::LOCALHOST.into());
                Some(SocketAddr::new(ip, number))
            }
            HostPort::Any | HostPort::OneOf(..) => None,
        })
        .collect()
}

/// At the first place where somebody listens.
fn look(probe: &Probe, places: &[SocketAddr], deadline: Instant) -> Result<String> {
    let mut refused = Err(std::io::Error::from(ErrorKind::ConnectionRefused));
    for place in places {
        let connected = TcpStream::connect_timeout(place, left(deadline));
        match connected {
            Ok(stream) => return ask(probe, stream, deadline),
            Err(error) => refused = Err(error),
        }
    }
    refused.with_context(|| format!("nobody listens at port {}", probe.port()))
}

fn ask(probe: &Probe, mut stream: TcpStream, deadline: Instant) -> Result<String> {
    let Probe::Http { path, port } = probe else { return Ok("connected".to_owned()) };
    let failed = || format!("no answer at port {port}");
    stream.set_write_timeout(Some(left(deadline)))?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: amphora\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).with_context(failed)?;
    let line = first_line(&mut stream, deadline).with_context(failed)?;
    let code = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse::<u16>().ok());
    match code {
        Some(200..=399) => Ok(line),
        Some(_) => bail!("{line}"),
        None => bail!("what answers at port {port} is not HTTP: `{line}`"),
    }
}

/// Whoever sends a byte now and then is waited for no longer than for one that sends none.
fn first_line(stream: &mut TcpStream, deadline: Instant) -> Result<String> {
    let mut line = Vec::new();
    while !line.contains(&b'\n') && line.len() < LINE_BYTES {
        stream.set_read_timeout(Some(left(deadline)))?;
        let mut part = [0; 256];
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(length) => line.extend_from_slice(part.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= deadline {
            break;
        }
    }
    let end = line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len());
    Ok(String::from_utf8_lossy(line.get(..end).unwrap_or_default()).trim_end().to_owned())
}

/// None left is a millisecond, as no time at all would be for ever.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    fn answered(answer: &'static [u8]) -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let probe = Probe::Http { port: place.port(), path: "/well".to_owned() };
        let said = look(&probe, &[place], Instant::now() + Duration::from_secs(60));
        assert!(server.join().unwrap().starts_with("GET /well HTTP/1.1\r\n"));
        said
    }

    #[test]
    fn an_answer_is_told_by_its_first_line() {
        assert_eq!(answered(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(), "HTTP/1.1 204 No Content");
        assert_eq!(answered(b"HTTP/1.0 503 Busy\r\n\r\n").unwrap_err().to_string(), "HTTP/1.0 503 Busy");
        for odd in [&b"SSH-2.0-x\r\n"[..], b"", b"HTTP/1.1 200", b"HTTP/1.1 99999 x\n"] {
            let said = answered(odd);
            assert!(said.is_err() || odd == b"HTTP/1.1 200", "{odd:?}: {said:?}");
        }
    }

    /// It would have been waited for as long as it sends.
    #[test]
    fn who_says_nothing_is_waited_for_until_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        let probe = Probe::Http { port: place.port(), path: "/".to_owned() };
        assert!(look(&probe, &[place], Instant::now() + Duration::from_millis(20)).is_err());
        drop(listener);
        assert!(look(&Probe::Tcp { port: place.port() }, &[place], Instant::now()).is_err());
    }
}
