//! `--device`: nodes of the host's, each bound on a mount of its own that is read-only. So a device can be read and written, but nobody
//! in the container changes its mode, its owner or its times.

use std::{
    fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use linux_exec::plan::{Attributes, Mount, MountAttrFlags, MountSource};

use crate::spec::devices::DeviceSpec;

/// How deep a directory of devices is looked into, and how many of them a container can have so.
const MAX_DEPTH: usize = 6;
const MAX_NODES: usize = 1024;

/// The mounts; of a directory one for each device in it.
pub(super) fn mounts(devices: &[DeviceSpec]) -> Result<Vec<Mount>> {
    let mut found = Vec::new();
    for device in devices {
        let failed = || format!("--device {}: cannot use it", device.path.display());
        let kind = fs::metadata(&device.path).with_context(failed)?.file_type();
        let before = found.len();
        if kind.is_dir() {
            list(&device.path, &device.target, 0, &mut found).with_context(failed)?;
        } else if kind.is_char_device() || kind.is_block_device() {
            found.push((device.path.clone(), device.target.clone()));
        }
        if found.len() == before {
            bail!("--device {}: it is no device, and no directory with any", device.path.display());
        }
    }
    Ok(found.into_iter().map(|(path, target)| mount(path, target)).collect())
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
        let device = |path: &str| DeviceSpec { path: path.into(), target: "/dev/x".into() };
        let found = mounts(&[device("/dev/null")]).unwrap();
        assert_eq!((found.len(), found[0].readonly, found[0].target.to_str()), (1, true, Some("/dev/x")));
        for path in ["/etc/passwd", "/etc", "/nowhere"] {
            let error = format!("{:#}", mounts(&[device(path)]).unwrap_err());
            assert!(error.contains(path), "{error}");
        }
    }
}
