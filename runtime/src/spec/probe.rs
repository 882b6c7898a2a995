//! A look at a container from outside: `--health-tcp PORT` and `--health-http PORT[/PATH]`, for programs of both kinds.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is tried of a port of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// A connection.
    Tcp {
        /// In the container.
        port: u16,
    },
    /// A request, which is answered with 200 to 399.
    Http {
        /// In the container.
        port: u16,
        /// With its slash.
        path: String,
    },
}

impl Probe {
    /// Parses `--health-tcp`. None: it is no port.
    pub(crate) fn tcp(text: &str) -> Option<Self> {
        port(text).map(|port| Self::Tcp { port })
    }

    /// Parses `--health-http`. None: it is no port with a path.
    pub(crate) fn http(text: &str) -> Option<Self> {
        let (number, path) = text.find('/').map_or((text, "/"), |slash| text.split_at(slash));
        let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic());
        port(number).filter(|_| is_plain).map(|port| Self::Http { port, path: path.to_owned() })
    }

    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Tcp { port } | Self::Http { port, .. } => *port,
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { port } => write!(f, "{port}"),
            Self::Http { port, path } => write!(f, "{port}{path}"),
        }
    }
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::Probe;

    #[test]
    fn probes_name_a_port_and_maybe_a_path() {
        assert_eq!(Probe::tcp("80"), Some(Probe::Tcp { port: 80 }));
        assert_eq!(Probe::http("8080"), Some(Probe::Http { port: 8080, path: "/".to_owned() }));
        assert_eq!(Probe::http("80/a?b=c").unwrap().to_string(), "80/a?b=c");
        for text in ["", "0", "x", "80 ", "65536", "-1"] {
            assert_eq!((Probe::tcp(text), Probe::http(text)), (None, None), "{text}");
        }
        for text in ["80/a b", "80/a\r\nHost: x", "/a", "80/é"] {
            assert_eq!(Probe::http(text), None, "{text}");
        }
    }
}
