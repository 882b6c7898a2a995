//! A store in memory.

use super::{After, Failure, KeyPage, grown, page, size};
use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    values: BTreeMap<String, Vec<u8>>,
    bytes: u64,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Nothing is left half done by what panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.lock().values.get(key).cloned()
    }

    pub(super) fn keys(&self, after: &After) -> KeyPage {
        let entries = self.lock();
        let own = |(key, _): (&String, &Vec<u8>)| Ok(key.clone());
        let page = match after {
            After::Count(count) => {
                page(entries.values.iter().skip(usize::try_from(*count).unwrap_or(usize::MAX)).map(own))
            }
            After::Key(key) => {
                let rest = (Bound::Excluded(key.as_str()), Bound::Unbounded);
                page(entries.values.range::<str, _>(rest).map(own))
            }
        };
        page.unwrap_or(KeyPage { keys: Vec::new(), more: false })
    }

    pub(super) fn change(&self, entries: &[(String, Option<Vec<u8>>)], most: u64) -> Result<(), Failure> {
        let mut store = self.lock();
        let mut bytes = store.bytes;
        // What it will come to before anything is changed; the last of several for one key counts.
        let last: BTreeMap<&str, Option<&Vec<u8>>> =
            entries.iter().map(|(key, value)| (key.as_str(), value.as_ref())).collect();
        let (mut added, mut removed) = (0, 0);
        for (key, value) in &last {
            added += value.map_or(0, |value| size(key, value));
            removed += store.values.get(*key).map_or(0, |value| size(key, value));
        }
        bytes = grown(bytes, added, removed, most)?;
        for (key, value) in last {
            match value {
                Some(value) => drop(store.values.insert(key.to_owned(), value.clone())),
                None => drop(store.values.remove(key)),
            }
        }
        store.bytes = bytes;
        Ok(())
    }

    pub(super) fn update<T>(
        &self,
        key: &str,
        most: u64,
        new: impl FnOnce(Option<&[u8]>) -> Result<(Option<Vec<u8>>, T), Failure>,
    ) -> Result<T, Failure> {
        let mut store = self.lock();
        let old = store.values.get(key);
        let removed = old.map_or(0, |value| size(key, value));
        let (value, result) = new(old.map(Vec::as_slice))?;
        if let Some(value) = value {
            store.bytes = grown(store.bytes, size(key, &value), removed, most)?;
            store.values.insert(key.to_owned(), value);
        }
        Ok(result)
    }
}
