//! Properties of what reads the store's own index; see [`crate::fuzz`].

#![expect(clippy::unwrap_used, reason = "a panic is how a property fails")]

use super::Store;
use crate::{Selection, fuzz::refused};
use std::fs;
use tempfile::TempDir;

thread_local! {
    /// A folder, and a store in it.
    static PLACE: (TempDir, Store) = {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path()).unwrap();
        (place, store)
    };
}

pub(crate) fn index(bytes: &[u8]) -> bool {
    PLACE.with(|(_, store)| read(store, bytes))
}

fn read(store: &Store, bytes: &[u8]) -> bool {
    fs::write(store.index_path(), bytes).unwrap();
    let listed = store.listed();
    match &listed {
        Err(error) => assert!(error.to_string().contains("index.json"), "{error}"),
        Ok(all) => assert!(all.iter().filter_map(|entry| entry.as_ref().err()).all(|damaged| !refused(damaged))),
    }
    for name in ["alpine", "6c3c624b58db", "sha256:6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b"] {
        match store.resolve(name, &Selection::default()) {
            Err(error) => assert!(!refused(&error)),
            // It names what is not there.
            Ok(found) => assert!(found.is_none(), "{found:?}"),
        }
    }
    listed.is_ok()
}
