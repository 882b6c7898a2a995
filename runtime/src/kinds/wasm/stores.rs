//! The key-value stores of a Wasm program: in memory, or files in volumes, opened here and handed in, so that the program's
//! process has no path to them.
//!
//! ```text
//! ROOT/volumes/VOLUME/_data/NAME.kv
//! ```
//!
//! One container at a time has a store: its file is locked as long as any of its processes lives.

use std::{fs::File, path::Path};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{CWD, FileType, FlockOperation, Mode, OFlags, ResolveFlags, flock, fstat, openat, openat2},
    io::Errno,
};
use wasm_exec::{StoreGrant, Stores};

use crate::{
    records::host::Host,
    spec::{RunSpec, wasm::StoreSpec},
};

/// For those that are kept, in memory.
const CACHES_BYTES: u64 = 8 << 20;

/// Makes those files that are not there.
pub(super) fn granted(host: &Host, spec: &RunSpec) -> Result<Stores> {
    let stores = spec.wasm.stores.iter().map(|store| {
        let file = store.volume.as_deref().map(|volume| open(host, store, volume)).transpose()?;
        Ok(StoreGrant { name: store.name.clone(), file, most_bytes: store.most_bytes })
    });
    Ok(Stores::new(stores.collect::<Result<_>>()?))
}

/// Memory that they may use.
pub(super) fn allowance_bytes(spec: &RunSpec) -> u64 {
    let bytes = |store: &StoreSpec| if store.volume.is_some() { CACHES_BYTES } else { store.most_bytes };
    spec.wasm.stores.iter().map(bytes).fold(0, u64::saturating_add)
}

/// Through no link that another container has put there, and waiting for nobody.
fn open(host: &Host, store: &StoreSpec, volume: &str) -> Result<File> {
    let folder = host.volumes.make(volume)?;
    let name = format!("{}.kv", store.name);
    let path = folder.join(&name);
    let refused = || format!("--kv {}={volume}: cannot open {}", store.name, path.display());
    let file = beneath(&folder, &name).with_context(refused)?;
    if FileType::from_raw_mode(fstat(&file).with_context(refused)?.st_mode) != FileType::RegularFile {
        bail!("{}: it is no file", refused());
    }
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => bail!(
            "--kv {}={volume}: another container that runs has this store; one at a time can: stop that one, or give \
             this one a store of another name or volume",
            store.name
        ),
        Err(errno) => Err(errno).with_context(refused),
    }
}

fn beneath(folder: &Path, name: &str) -> rustix::io::Result<File> {
    let folder = openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(openat2(&folder, name, flags, Mode::RUSR | Mode::WUSR, resolve)?.into())
}
