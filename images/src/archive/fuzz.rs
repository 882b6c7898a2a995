//! Properties of what reads archives of images; see [`crate::fuzz`].

#![expect(clippy::unwrap_used, reason = "a panic is how a property fails")]

use super::source::{Document, Source};
use crate::{
    Store,
    fuzz::refused,
    unpack::{Compression, HEAD_LENGTH, fuzz::summed},
};
use std::{fs, path::Path};
use tempfile::TempDir;

thread_local! {
    /// A folder, and a store in it.
    static PLACE: (TempDir, Store) = {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path()).unwrap();
        (place, store)
    };
}

/// Opens it as it is, and with all its headers' sums made right.
pub(crate) fn archive(bytes: &[u8]) -> bool {
    PLACE.with(|(place, store)| {
        let path = place.path().join("archive.tar");
        let opened = [bytes.to_vec(), summed(bytes)].map(|bytes| {
            fs::write(&path, &bytes).unwrap();
            opened(&bytes, &path, store)
        });
        opened.contains(&true)
    })
}

fn opened(bytes: &[u8], path: &Path, store: &Store) -> bool {
    let source = match Source::open(store, path) {
        Err(error) => {
            assert!(error.to_string().contains("archive.tar"), "{error}");
            return false;
        }
        Ok(source) => source,
    };
    let mut taken = false;
    let is_plain = Compression::of(&bytes[..bytes.len().min(HEAD_LENGTH)]) == Compression::None;
    for member in ["index.json", "manifest.json", "oci-layout", "./link", "a/b"] {
        match source.document(member, "the test") {
            Err(error) => taken |= refused(&error),
            Ok(Document { bytes: found, .. }) => {
                assert!(source.has(member));
                assert!(!is_plain || found.is_empty() || bytes.windows(found.len()).any(|part| part == found));
                taken = true;
            }
        }
    }
    taken
}
