//! `wasi:keyvalue`: stores that a program opens by name, in memory or in a file, each bounded.
//!
//! ```text
//! functions (what a component calls) ── Store ─┬─ Memory: gone with the process
//!                                              └─ Kept: a file with transactions, which survives whatever ends the process
//! ```

mod functions;
mod kept;
mod memory;

pub(crate) use functions::{add, is_interface};

use crate::RunError;
use kept::Kept;
use memory::Memory;
use std::{
    fs::File,
    hash::{BuildHasher, RandomState},
    os::fd::{AsRawFd, RawFd},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};
use tokio::runtime::{Handle, RuntimeFlavor};

/// The store that a program gets which names none, as most do.
const DEFAULT: &str = "default";

/// What a key, a value, and all that is handed over at once may have.
const KEY_BYTES: usize = 4 << 10;
const VALUE_BYTES: usize = 16 << 20;
const BATCH_BYTES: usize = 16 << 20;
/// Keys in one answer.
const KEYS_AT_ONCE: usize = 1000;
const KEYS_BYTES_AT_ONCE: usize = 256 << 10;
/// What an entry counts beside its key and its value.
const ENTRY_BYTES: usize = 64;

/// A store that a program may open.
#[derive(Debug)]
pub struct StoreGrant {
    /// What the program calls it.
    pub name: String,
    /// Where it is kept: a file that is empty or was one before, and that nobody else uses meanwhile. None: in memory.
    pub file: Option<File>,
    /// What its entries may come to, each with 64 bytes besides.
    pub most_bytes: u64,
}

/// The stores of one program; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Stores(Arc<All>);

#[derive(Debug, Default)]
struct All {
    stores: Vec<Store>,
    /// Held while they are opened: a file that is opened twice would be two stores.
    opening: Mutex<()>,
}

/// One of them.
#[derive(Debug)]
struct Store {
    grant: StoreGrant,
    /// Opened where the program runs.
    content: OnceLock<Content>,
    hasher: RandomState,
}

#[derive(Debug)]
enum Content {
    Memory(Memory),
    Kept(Kept),
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the store is full: its entries may come to {0} bytes")]
    Full(u64),
    #[error("{0}")]
    Refused(String),
    #[error("the store's file cannot be used: {0}")]
    File(String),
}

/// Where a list of keys goes on.
enum After {
    /// So many keys.
    Count(u64),
    /// This key.
    Key(String),
}

/// A key that was asked for, with its value.
type Found = Option<(String, Vec<u8>)>;

/// A part of the keys, in order.
struct KeyPage {
    keys: Vec<String>,
    more: bool,
}

impl Stores {
    /// Those that a program is granted; they are opened when it is run.
    pub fn new(grants: Vec<StoreGrant>) -> Self {
        let store = |grant| Store { grant, content: OnceLock::new(), hasher: RandomState::new() };
        Self(Arc::new(All { stores: grants.into_iter().map(store).collect(), opening: Mutex::default() }))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.stores.is_empty()
    }

    /// Descriptors that must stay open until the program is run.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.0.stores.iter().filter_map(|store| store.grant.file.as_ref()).map(AsRawFd::as_raw_fd)
    }

    /// Opens those that are not open yet; what was being written when a process was killed is undone.
    pub(crate) fn open(&self) -> Result<(), RunError> {
        let _opening = self.0.opening.lock().unwrap_or_else(PoisonError::into_inner);
        for store in self.0.stores.iter().filter(|store| store.content.get().is_none()) {
            let content = match &store.grant.file {
                None => Content::Memory(Memory::default()),
                Some(file) => Content::Kept(Kept::open(file).map_err(|failure| RunError::Store {
                    name: store.grant.name.clone(),
                    detail: failure.to_string(),
                })?),
            };
            // Nobody else opens it.
            let _ = store.content.set(content);
        }
        Ok(())
    }

    /// The store of a name; without one the default, or the only one.
    fn find(&self, name: &str) -> Option<Bucket> {
        let called = |name: &str| self.0.stores.iter().position(|store| store.grant.name == name);
        let only = || (self.0.stores.len() == 1).then_some(0);
        let index = if name.is_empty() { called(DEFAULT).or_else(only) } else { called(name) };
        index.map(|index| Bucket { stores: self.clone(), index })
    }
}

/// A store that a program has opened.
#[derive(Debug, Clone)]
struct Bucket {
    stores: Stores,
    index: usize,
}

/// A value, as it was when somebody wanted to change it.
struct Swap {
    bucket: Bucket,
    key: String,
    /// A keyed hash of the value.
    seen: Option<u64>,
}

impl Bucket {
    fn store(&self) -> &Store {
        &self.stores.0.stores[self.index]
    }

    fn content(&self) -> Result<&Content, Failure> {
        self.store().content.get().ok_or_else(|| Failure::Refused("the store is not open".to_owned()))
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        match self.content()? {
            Content::Memory(memory) => Ok(memory.get(key)),
            Content::Kept(kept) => waiting(|| kept.get(key)),
        }
    }

    fn keys(&self, after: &After) -> Result<KeyPage, Failure> {
        match self.content()? {
            Content::Memory(memory) => Ok(memory.keys(after)),
            Content::Kept(kept) => waiting(|| kept.keys(after)),
        }
    }

    /// All of it, or nothing; an entry without a value is removed.
    fn change(&self, entries: &[(String, Option<Vec<u8>>)]) -> Result<(), Failure> {
        check(entries)?;
        let most = self.store().grant.most_bytes;
        match self.content()? {
            Content::Memory(memory) => memory.change(entries, most),
            Content::Kept(kept) => waiting(|| kept.change(entries, most)),
        }
    }

    /// Replaces a value by what `new` makes of it, with nobody in between; no value is left as it is.
    fn update<T>(
        &self,
        key: &str,
        new: impl FnOnce(Option<&[u8]>) -> Result<(Option<Vec<u8>>, T), Failure>,
    ) -> Result<T, Failure> {
        let most = self.store().grant.most_bytes;
        let new = |old: Option<&[u8]>| {
            let (value, result) = new(old)?;
            check(&[(key.to_owned(), value.clone())])?;
            Ok((value, result))
        };
        match self.content()? {
            Content::Memory(memory) => memory.update(key, most, new),
            Content::Kept(kept) => waiting(|| kept.update(key, most, new)),
        }
    }

    /// Values of several keys, of bounded size together.
    fn get_many(&self, keys: Vec<String>) -> Result<Vec<Found>, Failure> {
        let mut total = 0;
        let mut found = Vec::new();
        for key in keys {
            let value = self.get(&key)?;
            total += key.len() + value.as_ref().map_or(0, Vec::len);
            if total > BATCH_BYTES {
                return Err(too_much_at_once());
            }
            found.push(value.map(|value| (key, value)));
        }
        Ok(found)
    }

    /// A number as text; it is 0 where there is none.
    fn increment(&self, key: &str, delta: i128, least: i128, most: i128) -> Result<i128, Failure> {
        self.update(key, |old| {
            let number = match old {
                None => Some(0),
                Some(text) => str::from_utf8(text).ok().and_then(|text| text.parse::<i128>().ok()),
            };
            let number = number.ok_or_else(|| Failure::Refused(format!("the value of `{key}` is no number")))?;
            let sum = number.checked_add(delta).filter(|sum| (least..=most).contains(sum));
            let sum = sum.ok_or_else(|| Failure::Refused(format!("{number} and {delta} are out of range")))?;
            Ok((Some(sum.to_string().into_bytes()), sum))
        })
    }

    fn hash(&self, value: Option<&[u8]>) -> Option<u64> {
        value.map(|value| self.store().hasher.hash_one(value))
    }

    fn begin_swap(&self, key: String) -> Result<Swap, Failure> {
        let seen = self.hash(self.get(&key)?.as_deref());
        Ok(Swap { bucket: self.clone(), key, seen })
    }
}

impl Swap {
    /// Whether nobody has changed it since; else what to begin anew with.
    fn finish(self, value: Vec<u8>) -> Result<Option<Self>, Failure> {
        let done = self.bucket.update(&self.key, |old| {
            let same = self.bucket.hash(old) == self.seen;
            Ok((same.then_some(value), same))
        })?;
        if done { Ok(None) } else { self.bucket.begin_swap(self.key).map(Some) }
    }
}

/// Work on a file, for which other functions of the same process do not have to wait.
fn waiting<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

fn check(entries: &[(String, Option<Vec<u8>>)]) -> Result<(), Failure> {
    let mut total = 0;
    for (key, value) in entries {
        let length = value.as_ref().map_or(0, Vec::len);
        if key.len() > KEY_BYTES {
            return Err(Failure::Refused(format!("a key has {} bytes, and may have {KEY_BYTES}", key.len())));
        }
        if length > VALUE_BYTES {
            return Err(Failure::Refused(format!("a value has {length} bytes, and may have {VALUE_BYTES}")));
        }
        total += key.len() + length;
    }
    if total > BATCH_BYTES + KEY_BYTES { Err(too_much_at_once()) } else { Ok(()) }
}

fn too_much_at_once() -> Failure {
    Failure::Refused(format!("more than {BATCH_BYTES} bytes at once"))
}

/// What an entry counts.
fn size(key: &str, value: &[u8]) -> u64 {
    (key.len() + value.len() + ENTRY_BYTES) as u64
}

/// What a store comes to after a change, if it may: what makes it smaller is always allowed.
fn grown(total: u64, added: u64, removed: u64, most: u64) -> Result<u64, Failure> {
    let new = total.saturating_add(added).saturating_sub(removed);
    if new > most && new > total { Err(Failure::Full(most)) } else { Ok(new) }
}

/// As many of these keys as are given at once.
fn page(keys: impl Iterator<Item = Result<String, Failure>>) -> Result<KeyPage, Failure> {
    let mut page = KeyPage { keys: Vec::new(), more: false };
    let mut bytes = 0;
    for key in keys {
        let key = key?;
        bytes += key.len();
        if page.keys.len() == KEYS_AT_ONCE || bytes > KEYS_BYTES_AT_ONCE {
            page.more = true;
            break;
        }
        page.keys.push(key);
    }
    Ok(page)
}

#[cfg(test)]
mod tests;
