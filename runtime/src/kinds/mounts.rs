//! The user's mounts as the kernel is to make them.

use std::{
    fs::File,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, anyhow};
use images::Selection;
use linux_exec::{
    plan::{Attributes, Mount, MountAttrFlags, MountSource},
    rootfs::Rootfs,
};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::propagation;
use crate::{
    records::host::Host,
    spec::mounts::{MountKind, MountSpec},
};

/// One mount. A named volume is made on first use.
pub(super) fn lower(host: &Host, mount: &MountSpec) -> Result<Mount> {
    let source = match &mount.kind {
        MountKind::Bind { source, recursive, propagation: wanted } => {
            check_source(source, &mount.target)?;
            let attributes = Attributes { propagation: propagation::lower(source, *wanted)?, ..Attributes::default() };
            let source = MountSource::Bind { source: source.clone(), recursive: *recursive };
            return Ok(Mount { attributes, ..Mount::new(&mount.target, source, mount.readonly) });
        }
        MountKind::Volume { name, subpath, .. } => {
            let data = host.volumes.make(name.as_deref().context("a volume without a name")?)?;
            match subpath {
                None => MountSource::Bind { source: data, recursive: true },
                Some(subpath) => MountSource::Detached(part(&data, subpath, mount.readonly)?),
            }
        }
        MountKind::Tmpfs { size_bytes, mode, exec, owner: None } => {
            MountSource::Tmpfs { size_bytes: *size_bytes, mode: *mode, exec: *exec }
        }
        MountKind::Tmpfs { size_bytes, mode, exec, owner: Some((uid, gid)) } => {
            let options = [format!("mode={mode:o}"), format!("uid={uid}"), format!("gid={gid}")];
            let options = options.into_iter().chain(size_bytes.map(|bytes| format!("size={bytes}"))).collect();
            let source = MountSource::FileSystem { kind: "tmpfs".to_owned(), source: None, options };
            let mut set = MountAttrFlags::MOUNT_ATTR_NOSUID;
            set.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, !exec);
            let attributes = Attributes { set, ..Attributes::default() };
            return Ok(Mount { attributes, ..Mount::new(&mount.target, source, mount.readonly) });
        }
        MountKind::Image { name, digest } => {
            MountSource::Detached(image(host, digest).with_context(|| format!("cannot mount the image {name}"))?)
        }
    };
    Ok(Mount::new(&mount.target, source, mount.readonly))
}

/// A directory of a volume. What a container has left there may be a link, which is not followed.
fn part(data: &Path, subpath: &Path, readonly: bool) -> Result<Arc<OwnedFd>> {
    let failed = || format!("volume-subpath={}: cannot use it (no part of it may be a link)", subpath.display());
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let found = openat2(File::open(data)?, subpath, flags, Mode::empty(), resolve).with_context(failed)?;
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    Ok(Arc::new(Rootfs::part(Path::new(&path), readonly).with_context(failed)?.mount))
}

/// An image's files, as a container of it would see them.
fn image(host: &Host, digest: &str) -> Result<Arc<OwnedFd>> {
    let image = host.store.resolve(digest, &Selection::default())?;
    let image = image.with_context(|| format!("it is gone ({digest}): pull or load it again"))?;
    Ok(Arc::new(Rootfs::read_only(&host.store.layers(&image)?)?.mount))
}

fn check_source(source: &Path, target: &Path) -> Result<()> {
    source.symlink_metadata().map(drop).map_err(|error| {
        anyhow!(
            "volume source {} for {} cannot be used: {error}; make it first, or use a volume name without a slash",
            source.display(),
            target.display()
        )
    })
}
