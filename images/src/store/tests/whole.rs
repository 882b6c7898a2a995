//! Blobs that have their names and other bytes: a power cut leaves such, and other tools.

use super::*;
use crate::{
    Budget,
    ingest::{self, Expected},
};

fn stage(store: &Store, digest: &Digest, bytes: &[u8]) {
    let expected = Expected { digest: Some(digest.clone()), size: Some(bytes.len() as u64), diff_id: None };
    ingest::stage(store, &mut &*bytes, &expected, &Budget::default()).unwrap().commit().unwrap();
}

#[test]
fn a_blob_is_believed_to_be_here_only_if_it_is_whole() {
    let (_folder, store) = store();
    let bytes = b"the bytes of a layer";
    let digest = ingest::digest_of(bytes).unwrap();
    let path = store.blob_path(&digest);
    let is_whole = || store.has_whole_blob(&digest, bytes.len() as u64).unwrap();
    assert!(!is_whole(), "it is not here");
    let put: [(&str, &dyn Fn()); 5] = [
        ("empty", &|| std::fs::write(&path, b"").unwrap()),
        ("short", &|| std::fs::write(&path, &bytes[..5]).unwrap()),
        ("longer", &|| std::fs::write(&path, [bytes, &b"more"[..]].concat()).unwrap()),
        ("of the right length", &|| std::fs::write(&path, [0; 20]).unwrap()),
        ("a link", &|| std::os::unix::fs::symlink("elsewhere", &path).unwrap()),
    ];
    for (what, put) in put {
        let _ = std::fs::remove_file(&path);
        store.forget_verified(&digest).unwrap();
        put();
        assert!(!is_whole(), "{what}");
        stage(&store, &digest, bytes);
        assert!(is_whole() && std::fs::read(&path).unwrap() == bytes, "{what}: it is written anew");
    }
    // What another tool wrote is hashed, once.
    store.forget_verified(&digest).unwrap();
    assert!(is_whole() && store.verified_path(&digest).is_symlink());
    assert!(!store.is_verified(&digest, &digest), "no diff id of it is known");
}

#[test]
fn layers_of_another_length_are_told_by_check() {
    let (_folder, store) = store();
    named(&store, "app", "one");
    let image = store.resolve("app", &Selection::default()).unwrap().unwrap();
    let layer = store.blob_path(image.manifest.layers()[0].digest());
    assert_eq!(store.check(false).unwrap().damaged, [""; 0]);
    std::fs::write(&layer, b"o").unwrap();
    let damaged = store.check(false).unwrap().damaged;
    assert!(damaged.len() == 1 && damaged[0].contains("has 1 bytes, expected 3"), "{damaged:?}");
    assert!(damaged[0].starts_with("app:latest: its layer "), "{damaged:?}");
    std::fs::remove_file(&layer).unwrap();
    let damaged = store.check(false).unwrap().damaged;
    assert!(damaged.len() == 1 && damaged[0].contains(" is missing, expected 3 bytes"), "{damaged:?}");
}

#[test]
fn nothing_is_named_whose_document_is_cut() {
    let (_folder, store) = store();
    let (digest, size) = image(&store, "one", "amd64");
    std::fs::write(store.blob_path(&digest), b"{").unwrap();
    let refused = store.name(&"app".parse().unwrap(), MANIFEST, &digest, size).unwrap_err().to_string();
    assert!(refused.contains("not in the store whole"), "{refused}");
}
