//! Listing directories for a module, in a time that grows as their size.
//!
//! wasmtime-wasi's `fd_readdir` reads the whole directory, and looks at each of its files, for every call, of which a large one
//! takes many. Here it does so once, into memory of ours, and further calls are answered from there. What is listed is the
//! directory as it was at the first call: a program that removes what it is told of misses nothing.

use super::{
    errno, host,
    places::{self, memory},
    sides,
};
use crate::state::State;
use std::collections::HashMap;
use wasmtime::Caller;
use wiggle::GuestMemory;

/// What most directories fit in.
const SMALL: usize = 64 << 10;
/// How much more is tried than was too little.
const GROWTH: usize = 16;
/// The longest listing there is room for: some ten million names.
const LARGEST: usize = 1 << 30;
/// Listings beyond this are not kept beside others.
const KEPT_BYTES: usize = 16 << 20;
/// An entry before its name: its successor, inode, the name's length, type (WASI p1, `dirent`).
const ENTRY_BYTES: usize = 24;
/// How often a directory is listed again whose files vanish meanwhile.
const TRIES: usize = 16;

/// Listings under way, by descriptor.
#[derive(Default)]
pub(crate) struct Listings(HashMap<i64, Listing>);

/// Entries as the program reads them, one after the other.
struct Listing {
    bytes: Vec<u8>,
    /// Where each begins.
    entries: Vec<usize>,
}

impl Listings {
    pub(super) fn forget(&mut self, descriptor: i64) {
        self.0.remove(&descriptor);
    }

    fn keep(&mut self, descriptor: i64, listing: Listing) {
        let kept: usize = self.0.values().map(|listing| listing.bytes.len()).sum();
        if kept.saturating_add(listing.bytes.len()) > KEPT_BYTES {
            self.0.clear();
        }
        self.0.insert(descriptor, listing);
    }
}

impl Listing {
    fn new(bytes: Vec<u8>) -> Self {
        let mut entries = Vec::new();
        let mut at = 0;
        while let Some(head) = bytes.get(at..at + ENTRY_BYTES) {
            entries.push(at);
            let name_bytes = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
            at = at.saturating_add(ENTRY_BYTES).saturating_add(name_bytes as usize);
        }
        Self { bytes, entries }
    }

    /// All that comes after the entry before `cookie`.
    fn after(&self, cookie: i64) -> &[u8] {
        let begin = usize::try_from(cookie).ok().and_then(|cookie| self.entries.get(cookie));
        begin.map_or(&[], |begin| &self.bytes[*begin..])
    }
}

/// `fd_readdir(fd, buf, buf_len, cookie, bufused)`: fills the buffer to its end with entries from `cookie` on, the last one cut off.
pub(super) async fn read(
    caller: &mut Caller<'_, State>,
    (fd, buffer, length, cookie, used): (i32, i32, i32, i64, i32),
) -> wasmtime::Result<i32> {
    let descriptor = i64::from(fd);
    if cookie == 0 || !caller.data().listings.0.contains_key(&descriptor) {
        match list(caller, fd).await? {
            Ok(bytes) => caller.data_mut().listings.keep(descriptor, Listing::new(bytes)),
            Err(errno) => return Ok(places::after(caller, "fd_readdir", errno, &[descriptor])),
        }
    }
    // Taken out, as the program's memory is reached by the same way.
    let Some(listing) = caller.data_mut().listings.0.remove(&descriptor) else { return Ok(errno::BADF) };
    let rest = listing.after(cookie);
    let Some(target) = memory(caller, buffer.into(), length.into()) else { return Ok(errno::FAULT) };
    let copied = rest.len().min(target.len());
    target[..copied].copy_from_slice(&rest[..copied]);
    let is_last = copied < target.len();
    let Some(told) = memory(caller, used.into(), 4) else { return Ok(errno::FAULT) };
    told.copy_from_slice(&u32::try_from(copied).unwrap_or(u32::MAX).to_le_bytes());
    if !is_last {
        caller.data_mut().listings.keep(descriptor, listing);
    }
    Ok(errno::SUCCESS)
}

/// The whole directory, or an errno.
async fn list(caller: &mut Caller<'_, State>, fd: i32) -> wasmtime::Result<Result<Vec<u8>, i32>> {
    let (mut size, mut tries) = (SMALL, 0);
    loop {
        // What comes back before the entries is how much they are.
        let mut scratch = Vec::new();
        if scratch.try_reserve_exact(4 + size).is_err() {
            return Ok(Err(errno::NOMEM));
        }
        scratch.resize(4 + size, 0);
        let (_, wasi) = sides(caller, "fd_readdir")?;
        let length = i32::try_from(size)?;
        let errno = host::fd_readdir(wasi, &mut GuestMemory::Unshared(&mut scratch), fd, 4, length, 0, 0).await?;
        let used = u32::from_le_bytes([scratch[0], scratch[1], scratch[2], scratch[3]]) as usize;
        tries += 1;
        match errno {
            errno::SUCCESS if used < size => {
                scratch.truncate(4 + used);
                return Ok(Ok(scratch.split_off(4)));
            }
            errno::SUCCESS if size >= LARGEST => return Ok(Err(errno::OVERFLOW)),
            errno::SUCCESS => size = size.saturating_mul(GROWTH).min(LARGEST),
            // It looks at each file that was there, of which one is no more.
            errno::NOENT if tries < TRIES => {}
            errno => return Ok(Err(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(next: u64, name: &str) -> Vec<u8> {
        let name_bytes = u32::try_from(name.len()).unwrap();
        let head = [&next.to_le_bytes()[..], &[0; 8], &name_bytes.to_le_bytes(), &[4, 0, 0, 0]].concat();
        [head, name.as_bytes().to_vec()].concat()
    }

    #[test]
    fn entries_are_found_by_their_number() {
        let entries = [entry(1, "."), entry(2, ".."), entry(3, "a-long-name")];
        let listing = Listing::new(entries.concat());
        assert_eq!(listing.after(0), entries.concat());
        assert_eq!(listing.after(2), entries[2]);
        for beyond in [3, 4, -1, i64::MAX] {
            assert_eq!(listing.after(beyond), [0; 0]);
        }
    }

    #[test]
    fn listings_that_are_too_much_together_are_not_kept() {
        let mut listings = Listings::default();
        for descriptor in 0..40 {
            listings.keep(descriptor, Listing::new(vec![0; 1 << 20]));
            let kept: usize = listings.0.values().map(|listing| listing.bytes.len()).sum();
            assert!(kept <= KEPT_BYTES && listings.0.contains_key(&descriptor));
        }
    }
}
