//! `--device` and `--device-cgroup-rule`: devices of the host that a container may use, in Docker's spelling.

use std::path::{Component, Path, PathBuf};

use linux_exec::cgroup::{Access, DeviceKind, DeviceRule};
use serde::{Deserialize, Serialize};

/// A device that cannot be had so.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value `{found}` for {flag}: {expected}")]
pub(crate) struct DeviceError {
    flag: &'static str,
    found: String,
    expected: &'static str,
}

/// A node of the host's, or a directory of them, and where the container finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// On the host.
    pub path: PathBuf,
    /// In the container.
    pub target: PathBuf,
    /// What may be done with it: letters of `rwm`.
    #[serde(default = "all_uses")]
    pub uses: String,
}

fn all_uses() -> String {
    "rwm".to_owned()
}

impl DeviceSpec {
    /// One that may be used in every way.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), target: target.into(), uses: all_uses() }
    }

    /// Whether only a list of devices keeps what was asked for.
    pub(crate) fn is_restricted(&self) -> bool {
        !(self.uses.contains('r') && self.uses.contains('w'))
    }

    pub(crate) fn access(&self) -> Access {
        access(&self.uses)
    }
}

/// Of letters that are `rwm`.
fn access(letters: &str) -> Access {
    Access { read: letters.contains('r'), write: letters.contains('w'), make: letters.contains('m') }
}

/// Parses `--device-cgroup-rule`: `c 188:* rwm`, where `a` is both kinds.
///
/// # Errors
/// Anything else.
pub(crate) fn parse_rule(text: &str) -> Result<DeviceRule, DeviceError> {
    let parse = || {
        let [kind, numbers, uses] = text.split(' ').collect::<Vec<_>>().try_into().ok()?;
        let (major, minor) = numbers.split_once(':')?;
        let kind = match kind {
            "a" => None,
            "b" => Some(DeviceKind::Block),
            "c" => Some(DeviceKind::Character),
            _ => return None,
        };
        let number = |text: &str| if text == "*" { Some(None) } else { text.parse().ok().map(Some) };
        let (major, minor) = (number(major)?, number(minor)?);
        is_access(uses).then(|| DeviceRule { allow: true, kind, major, minor, access: access(uses) })
    };
    parse().ok_or_else(|| DeviceError {
        flag: "--device-cgroup-rule",
        found: text.to_owned(),
        expected: "expected KIND MAJOR:MINOR USES, such as `c 188:* rwm`",
    })
}

/// What `--device` names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Node(DeviceSpec),
    /// A device of the Container Device Interface: `vendor.com/class`, `name`.
    Cdi {
        kind: String,
        name: String,
    },
}

impl Wanted {
    /// Parses `HOST[:CONTAINER][:rwm]`, or `vendor.com/class=name`.
    ///
    /// # Errors
    /// Anything else.
    pub(crate) fn parse(text: &str) -> Result<Self, DeviceError> {
        let refused = |expected| DeviceError { flag: "--device", found: text.to_owned(), expected };
        if let Some((kind, name)) = cdi_name(text) {
            return Ok(Self::Cdi { kind: kind.to_owned(), name: name.to_owned() });
        }
        let parts: Vec<&str> = text.split(':').collect();
        let (path, target, access) = match parts.as_slice() {
            [path] => (*path, *path, "rwm"),
            [path, access] if is_access(access) => (*path, *path, *access),
            [path, target] => (*path, *target, "rwm"),
            [path, target, access] if is_access(access) => (*path, *target, *access),
            _ => return Err(refused("expected HOST[:CONTAINER][:rwm], or vendor.com/class=name")),
        };
        let is_plain = |path: &str| {
            let path = Path::new(path);
            path.is_absolute()
                && path.file_name().is_some()
                && !path.components().any(|part| part == Component::ParentDir)
        };
        if !is_plain(path) || !is_plain(target) {
            return Err(refused("expected absolute paths, such as /dev/fuse"));
        }
        Ok(Self::Node(DeviceSpec { path: path.into(), target: target.into(), uses: access.to_owned() }))
    }
}

pub(super) fn is_access(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| b"rwm".contains(&byte))
}

/// `vendor.com/class=name`
fn cdi_name(text: &str) -> Option<(&str, &str)> {
    let (kind, name) = text.split_once('=')?;
    let (vendor, class) = kind.split_once('/')?;
    let is_word = |text: &str| {
        text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte))
    };
    (is_word(vendor) && is_word(class) && is_word(name)).then_some((kind, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_with_docker() {
        for (text, path, target, uses) in [
            ("/dev/fuse", "/dev/fuse", "/dev/fuse", "rwm"),
            ("/dev/fuse:rwm", "/dev/fuse", "/dev/fuse", "rwm"),
            ("/dev/fuse:r", "/dev/fuse", "/dev/fuse", "r"),
            ("/dev/sda:/dev/xvda", "/dev/sda", "/dev/xvda", "rwm"),
            ("/dev/snd:/dev/sound:rw", "/dev/snd", "/dev/sound", "rw"),
        ] {
            let node = DeviceSpec { path: path.into(), target: target.into(), uses: uses.to_owned() };
            assert_eq!(node.is_restricted(), uses == "r");
            assert_eq!(Wanted::parse(text), Ok(Wanted::Node(node)), "{text}");
        }
        let cdi = Wanted::Cdi { kind: "vendor.com/gpu".to_owned(), name: "0:1".to_owned() };
        assert_eq!(Wanted::parse("vendor.com/gpu=0:1"), Ok(cdi));
        for text in ["", "fuse", "/dev/fuse:x:y", "/dev/a:/dev/b:rwm:x", "/dev/../etc:/dev/x", "/:/dev/x", "v/c=", "=x"]
        {
            let message = Wanted::parse(text).unwrap_err().to_string();
            assert!(message.contains(text) && message.contains("--device"), "{message}");
        }
    }

    #[test]
    fn rules_are_dockers() {
        let rule = parse_rule("c 188:* rw").unwrap();
        assert_eq!((rule.kind, rule.major, rule.minor), (Some(DeviceKind::Character), Some(188), None));
        assert_eq!(rule.access, Access { read: true, write: true, make: false });
        assert_eq!(parse_rule("a *:* m").unwrap().kind, None);
        for text in ["", "c 1:3", "c 1:3 x", "c 1 rwm", "d 1:3 r", "c -1:3 r", "c 1:3  r", "c 1:3 r x"] {
            assert!(parse_rule(text).unwrap_err().to_string().contains("--device-cgroup-rule"), "{text}");
        }
    }
}
