//! Whose namespaces a container is in: `--pid`, `--ipc`, `--uts`, `--userns` and `--cgroupns`, in Docker's spelling.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a namespace comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum NamespaceMode {
    /// It is the container's own.
    #[default]
    Private,
    /// The same, and others may join it.
    Shareable,
    /// The same, without memory at /dev/shm.
    WithoutMemory,
    /// The host's.
    Host,
    /// That of another container: its name until the container is made, then its id.
    Container(String),
}

/// As records have it: `true` and `false` were all that there was.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    IsHosts(bool),
    Mode(String),
}

impl From<NamespaceMode> for Written {
    fn from(mode: NamespaceMode) -> Self {
        match mode {
            NamespaceMode::Private => Self::IsHosts(false),
            NamespaceMode::Host => Self::IsHosts(true),
            mode => Self::Mode(mode.to_string()),
        }
    }
}

impl TryFrom<Written> for NamespaceMode {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::IsHosts(true) => Ok(Self::Host),
            Written::IsHosts(false) => Ok(Self::Private),
            Written::Mode(text) => Self::known(&text).ok_or_else(|| format!("`{text}` is no mode of a namespace")),
        }
    }
}

impl fmt::Display for NamespaceMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private => f.write_str("private"),
            Self::Shareable => f.write_str("shareable"),
            Self::WithoutMemory => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Container(name) => write!(f, "container:{name}"),
        }
    }
}

/// A namespace that cannot be had.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value `{found}` for {flag}: {expected}")]
pub(crate) struct NamespaceError {
    flag: &'static str,
    found: String,
    expected: &'static str,
}

impl NamespaceMode {
    /// Parses `--pid`.
    pub(crate) fn of_pid(text: &str) -> Result<Self, NamespaceError> {
        Self::parse("--pid", text, "expected host, private, or container:CONTAINER", |mode| {
            !matches!(mode, Self::Shareable | Self::WithoutMemory)
        })
    }

    /// Parses `--ipc`.
    pub(crate) fn of_ipc(text: &str) -> Result<Self, NamespaceError> {
        Self::parse("--ipc", text, "expected private, shareable, none, host, or container:CONTAINER", |_| true)
    }

    /// Parses `--uts`; whether it is the host's.
    pub(crate) fn is_host_uts(text: &str) -> Result<bool, NamespaceError> {
        Self::is_host("--uts", text, "expected host or private; another container's names are not joined")
    }

    /// Parses `--cgroupns`; whether it is the host's.
    pub(crate) fn is_host_cgroup(text: &str) -> Result<bool, NamespaceError> {
        Self::is_host("--cgroupns", text, "expected private or host")
    }

    /// Parses `--userns`; whether something was said: there is one user namespace for all containers of a user.
    pub(crate) fn is_host_user(text: &str) -> Result<bool, NamespaceError> {
        const EXPECTED: &str = "expected host: root's containers are in the host's user namespace, an ordinary user's in one that maps \
                                the ids of /etc/subuid, and no container has ids of its own";
        if text == "private" {
            return Err(NamespaceError { flag: "--userns", found: text.to_owned(), expected: EXPECTED });
        }
        Self::is_host("--userns", text, EXPECTED)
    }

    fn is_host(flag: &'static str, text: &str, expected: &'static str) -> Result<bool, NamespaceError> {
        let mode = Self::parse(flag, text, expected, |mode| matches!(mode, Self::Private | Self::Host))?;
        Ok(mode == Self::Host)
    }

    fn parse(
        flag: &'static str,
        text: &str,
        expected: &'static str,
        fits: impl Fn(&Self) -> bool,
    ) -> Result<Self, NamespaceError> {
        if text.is_empty() {
            return Ok(Self::Private);
        }
        let refused = || NamespaceError { flag, found: text.to_owned(), expected };
        Self::known(text).filter(fits).ok_or_else(refused)
    }

    fn known(text: &str) -> Option<Self> {
        match text {
            "private" => Some(Self::Private),
            "shareable" => Some(Self::Shareable),
            "none" => Some(Self::WithoutMemory),
            "host" => Some(Self::Host),
            other => other
                .strip_prefix("container:")
                .filter(|name| !name.is_empty())
                .map(|name| Self::Container(name.to_owned())),
        }
    }

    /// Whether what is in it is the container's alone.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self, Self::Private | Self::Shareable | Self::WithoutMemory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_named_as_with_docker() {
        let of = |name: &str| NamespaceMode::Container(name.to_owned());
        assert_eq!(NamespaceMode::of_pid(""), Ok(NamespaceMode::Private));
        assert_eq!(NamespaceMode::of_pid("host"), Ok(NamespaceMode::Host));
        assert_eq!(NamespaceMode::of_pid("container:web"), Ok(of("web")));
        assert_eq!(NamespaceMode::of_ipc("none"), Ok(NamespaceMode::WithoutMemory));
        assert_eq!(NamespaceMode::of_ipc("shareable"), Ok(NamespaceMode::Shareable));
        assert_eq!(NamespaceMode::is_host_uts("host"), Ok(true));
        assert_eq!(NamespaceMode::is_host_cgroup("private"), Ok(false));
        assert_eq!(NamespaceMode::is_host_user("host"), Ok(true));
        for refused in [
            NamespaceMode::of_pid("shareable").map(drop),
            NamespaceMode::of_pid("container:").map(drop),
            NamespaceMode::of_ipc("Host").map(drop),
            NamespaceMode::is_host_uts("container:web").map(drop),
            NamespaceMode::is_host_cgroup("none").map(drop),
            NamespaceMode::is_host_user("keep-id").map(drop),
            NamespaceMode::is_host_user("private").map(drop),
        ] {
            let message = refused.unwrap_err().to_string();
            assert!(message.starts_with("invalid value `") && message.contains(" for --"), "{message}");
        }
    }

    #[test]
    fn records_say_whose_it_is() {
        let of = NamespaceMode::Container("ab".to_owned());
        for (mode, text) in [
            (NamespaceMode::Private, "false"),
            (NamespaceMode::Host, "true"),
            (NamespaceMode::Shareable, r#""shareable""#),
            (of, r#""container:ab""#),
        ] {
            assert_eq!(serde_json::to_string(&mode).unwrap(), text);
            assert_eq!(serde_json::from_str::<NamespaceMode>(text).unwrap(), mode);
        }
        // What a later version means by it is not ours to guess.
        assert!(serde_json::from_str::<NamespaceMode>(r#""elsewhere""#).is_err());
    }
}
