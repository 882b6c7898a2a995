//! `--device`: devices of the host that a container may use, in Docker's spelling.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A device that cannot be had so.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value `{found}` for --device: {expected}")]
pub(crate) struct DeviceError {
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
    /// Anything else; and fewer permissions than all, which no device cgroup would keep.
    pub(crate) fn parse(text: &str) -> Result<Self, DeviceError> {
        let refused = |expected| DeviceError { found: text.to_owned(), expected };
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
        if !(access.contains('r') && access.contains('w')) {
            return Err(refused("a device is given for reading and writing (rwm); who may do that its mode says"));
        }
        let is_plain = |path: &str| {
            let path = Path::new(path);
            path.is_absolute()
                && path.file_name().is_some()
                && !path.components().any(|part| part == Component::ParentDir)
        };
        if !is_plain(path) || !is_plain(target) {
            return Err(refused("expected absolute paths, such as /dev/fuse"));
        }
        Ok(Self::Node(DeviceSpec { path: path.into(), target: target.into() }))
    }
}

fn is_access(text: &str) -> bool {
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
        for (text, path, target) in [
            ("/dev/fuse", "/dev/fuse", "/dev/fuse"),
            ("/dev/fuse:rwm", "/dev/fuse", "/dev/fuse"),
            ("/dev/sda:/dev/xvda", "/dev/sda", "/dev/xvda"),
            ("/dev/snd:/dev/sound:rw", "/dev/snd", "/dev/sound"),
        ] {
            let node = DeviceSpec { path: path.into(), target: target.into() };
            assert_eq!(Wanted::parse(text), Ok(Wanted::Node(node)), "{text}");
        }
        let cdi = Wanted::Cdi { kind: "vendor.com/gpu".to_owned(), name: "0:1".to_owned() };
        assert_eq!(Wanted::parse("vendor.com/gpu=0:1"), Ok(cdi));
        for text in [
            "",
            "fuse",
            "/dev/fuse:r",
            "/dev/fuse:x:y",
            "/dev/a:/dev/b:rwm:x",
            "/dev/../etc:/dev/x",
            "/:/dev/x",
            "v/c=",
            "=x",
        ] {
            let message = Wanted::parse(text).unwrap_err().to_string();
            assert!(message.contains(text) && message.contains("--device"), "{message}");
        }
    }
}
