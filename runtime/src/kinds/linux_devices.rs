//! `--device`: nodes of the host's, each bound on a mount of its own that is read-only. So a device can be read and written, but nobody
//! in the container changes its mode, its owner or its times.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use linux_exec::{
    cgroup::{DeviceKind, DeviceRule},
    plan::{Attributes, Mount, MountAttrFlags, MountSource},
};
use nix::sys::stat::{major, minor};

use crate::spec::{
    Further,
    devices::{DeviceSpec, parse_rule},
};

/// How deep a directory of devices is looked into, and how many of them a container can have so.
const MAX_DEPTH: usize = 6;
const MAX_NODES: usize = 1024;

/// The mounts; of a directory one for each device in it.
pub(super) fn mounts(devices: &[DeviceSpec]) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for device in devices {
        mounts.extend(found(device)?.into_iter().map(|(path, target)| mount(path, target)));
    }
    Ok(mounts)
}

/// What a container may open whose devices are listed: what every one may, its own, and those of its rules.
pub(super) fn rules(further: &Further) -> Result<Vec<DeviceRule>> {
    let mut rules = DeviceRule::usual();
    for device in &further.devices {
        for (path, _) in found(device)? {
            let metadata = fs::metadata(&path).with_context(|| failed(device))?;
            let block = metadata.file_type().is_block_device();
            rules.push(DeviceRule {
                allow: true,
                kind: Some(if block { DeviceKind::Block } else { DeviceKind::Character }),
                major: Some(u32::try_from(major(metadata.rdev()))?),
                minor: Some(u32::try_from(minor(metadata.rdev()))?),
                access: device.access(),
            });
        }
    }
    for text in &further.device_rules {
        rules.push(parse_rule(text)?);
    }
    Ok(rules)
}

fn failed(device: &DeviceSpec) -> String {
    format!("--device {}: cannot use it", device.path.display())
}

/// The nodes, each with its place in the container.
fn found(device: &DeviceSpec) -> Result<Vec<(PathBuf, PathBuf)>> {
    let failed = || failed(device);
    let kind = fs::metadata(&device.path).with_context(failed)?.file_type();
    let mut found = Vec::new();
    if kind.is_dir() {
        list(&device.path, &device.target, 0, &mut found).with_context(failed)?;
    } else if kind.is_char_device() || kind.is_block_device() {
        found.push((device.path.clone(), device.target.clone()));
    }
    if found.is_empty() {
        bail!("--device {}: it is no device, and no directory with any", device.path.display());
    }
    Ok(found)
}

fn mount(path: PathBuf, target: PathBuf) -> Mount {
    let attributes = Attributes { clear: MountAttrFlags::MOUNT_ATTR_NODEV, ..Attributes::default() };
    Mount { attributes, ..Mount::new(target, MountSource::Bind { source: path, recursive: false }, true) }
}

fn list(folder: &Path, target: &Path, depth: usize, found: &mut Vec<(PathBuf, PathBuf)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // It may be gone again. No link is followed: what it leads to is in no folder that was named.
        let Ok(kind) = entry.file_type() else { continue };
        let target = target.join(entry.file_name());
        if kind.is_dir() && depth < MAX_DEPTH {
            list(&entry.path(), &target, depth + 1, found)?;
        } else if kind.is_char_device() || kind.is_block_device() {
            if found.len() == MAX_NODES {
                bail!("there are more than {MAX_NODES} devices");
            }
            found.push((entry.path(), target));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_folders_of_them_are_bound() {
        let device = |path: &str| DeviceSpec::new(path, "/dev/x");
        let found = mounts(&[device("/dev/null")]).unwrap();
        assert_eq!((found.len(), found[0].readonly, found[0].target.to_str()), (1, true, Some("/dev/x")));
        for path in ["/etc/passwd", "/etc", "/nowhere"] {
            let error = format!("{:#}", mounts(&[device(path)]).unwrap_err());
            assert!(error.contains(path), "{error}");
        }
    }
}
