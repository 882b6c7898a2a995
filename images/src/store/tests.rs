use super::*;
use crate::{
    Class, Selection,
    holds::{Holds, IMAGE},
    platform::Prefer,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeSet, HashSet},
    io::{ErrorKind, Write},
    process::Command,
    thread,
};
use tempfile::TempDir;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const HELLO_512: &str = "sha512:9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca72323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043";

mod hostile;
mod left_out;
mod repair;
mod stacks;
mod tampered;
mod whole;

fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("root")).unwrap();
    (folder, store)
}

fn put(store: &Store, document: &Value) -> (Digest, u64) {
    let bytes = document.to_string();
    (store.put_blob(bytes.as_bytes(), None).unwrap(), bytes.len() as u64)
}

fn descriptor(media_type: &str, (digest, size): &(Digest, u64)) -> Value {
    json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size })
}

fn put_named(store: &Store, name: &str, media_type: &str, document: &Value) -> Digest {
    let (digest, size) = put(store, document);
    store.name(&name.parse().unwrap(), media_type, &digest, size).unwrap();
    digest
}

/// A Linux image whose one layer holds `content`, unpacked to a file of that name.
fn image(store: &Store, content: &str, architecture: &str) -> (Digest, u64) {
    let layer = (store.put_blob(content.as_bytes(), None).unwrap(), content.len() as u64);
    let stage = store.stage_layer(&layer.0).unwrap();
    std::fs::write(stage.path.join(content), content).unwrap();
    stage.commit().unwrap();
    store.record_verified(&layer.0, &layer.0).unwrap();
    let config = put(
        store,
        &json!({
            "os": "linux", "architecture": architecture, "created": "2026-01-02T03:04:05Z",
            "rootfs": { "type": "layers", "diff_ids": [layer.0.to_string()] },
            "config": { "Cmd": ["/bin/sh"] }
        }),
    );
    put(
        store,
        &json!({ "schemaVersion": 2, "config": descriptor(CONFIG, &config), "layers": [descriptor(TAR, &layer)] }),
    )
}

fn named(store: &Store, name: &str, content: &str) -> Digest {
    let _pull = store.writing().unwrap();
    let (digest, size) = image(store, content, "amd64");
    store.name(&name.parse().unwrap(), MANIFEST, &digest, size).unwrap();
    digest
}

fn resolved(store: &Store, name: &str) -> Option<Digest> {
    store.resolve(name, &Selection::default()).unwrap().map(|image| image.digest)
}

/// On a file system of a mebibyte, in a thread with mounts of its own.
fn on_small_disk(test: impl FnOnce(&std::path::Path) + Send) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let folder = tempfile::tempdir().unwrap();
            let place = folder.path();
            if unshare(CloneFlags::CLONE_NEWNS).is_err() {
                return println!("skipped: no mount namespace can be made without root");
            }
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
            test(place);
            nix::mount::umount2(place, nix::mount::MntFlags::MNT_DETACH).unwrap();
        });
    });
}

fn unused() -> Result<HashSet<String>, String> {
    Ok(HashSet::new())
}

/// What is in blobs/sha256, layers and temporary.
fn counts(store: &Store) -> (usize, usize, usize) {
    let count = |folder: &str| entries(&store.root.join(folder)).unwrap().len();
    (count("image-layout/blobs/sha256"), count("layers"), count("temporary"))
}

/// From another pid namespace a living writer counted as dead: what it wrote was emptied, and partly committed.
#[test]
fn what_somebody_writes_is_no_leftover_whoever_looks() {
    let (_folder, store) = store();
    let other = Store::open(&store.root).unwrap();
    let diff_id: Digest = format!("sha256:{:064x}", 7).parse().unwrap();
    let (blob, stage) = (store.blob_writer().unwrap(), store.stage_layer(&diff_id).unwrap());
    std::fs::write(stage.path.join("file"), b"x").unwrap();
    assert_eq!(other.check(true).unwrap(), Checked::default());
    drop(blob);
    let path = stage.commit().unwrap();
    assert!(path.join("file").exists());
    assert_eq!(counts(&store), (0, 1, 0));
}

#[test]
fn what_is_held_stays_though_nobody_tells_that_it_is_used() {
    let (_folder, store) = store();
    let digest = named(&store, "one", "x");
    let holds = Holds::open(&store.root).unwrap();
    holds.take(IMAGE, digest.as_ref()).unwrap();
    assert!(matches!(store.remove("one", false, &unused), Err(StoreError::InUse { .. })));
    assert_eq!(store.remove("one", true, &unused).unwrap(), ["Untagged: one:latest"]);
    assert_eq!(store.remove_unnamed(&unused).unwrap(), [""; 0]);
    assert_eq!(resolved(&store, digest.as_ref()), Some(digest));
    drop(holds);
    assert_eq!(store.remove_unnamed(&unused).unwrap().len(), 1);
    assert_eq!(counts(&store), (0, 0, 0));
}

#[test]
fn a_blob_appears_whole_or_not_at_all() {
    let (_folder, store) = store();
    let mut writer = store.blob_writer().unwrap();
    writer.write_all(b"hel").unwrap();
    writer.write_all(b"lo").unwrap();
    assert_eq!((writer.written(), counts(&store)), (5, (0, 0, 1)));
    let digest = writer.commit(None).unwrap();
    assert_eq!(digest.as_ref(), "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    assert_eq!((counts(&store), store.blob_size(&digest)), ((1, 0, 0), Some(5)));
    assert_eq!(std::io::read_to_string(store.blob(&digest).unwrap()).unwrap(), "hello");
    assert_eq!(store.put_blob(b"hello", Some(&digest)).unwrap(), digest, "again is fine");

    let refused = store.put_blob(b"other", Some(&digest)).unwrap_err().to_string();
    assert!(refused.starts_with(&format!("blob {digest}: its bytes have digest sha256:")), "{refused}");
    let mut short = store.blob_writer().unwrap();
    short.write_all(b"hello").unwrap();
    let refused = short.commit_sized(&digest, 6).unwrap_err().to_string();
    assert!(refused.contains("expected 6 bytes, found 5"), "{refused}");
    drop(store.blob_writer().unwrap());
    assert_eq!(counts(&store), (1, 0, 0), "nothing is left behind");
}

#[test]
fn other_digests() {
    let (_folder, store) = store();
    let digest: Digest = HELLO_512.parse().unwrap();
    assert_eq!(store.put_blob(b"hello", Some(&digest)).unwrap(), digest);
    assert!(store.has_blob(&digest) && store.blob_path(&digest).to_str().unwrap().contains("/blobs/sha512/9b71d224"));
    assert!(matches!(store.put_blob(b"hallo", Some(&digest)), Err(StoreError::DigestMismatch { .. })));
    let unknown: Digest = "md5:5d41402abc4b2a76b9719d911017c592".parse().unwrap();
    let refused = store.put_blob(b"hello", Some(&unknown)).unwrap_err().to_string();
    assert!(refused.contains("neither sha256 nor sha512"), "{refused}");
}

#[test]
fn names_move_on_and_leave_an_image_without_a_name() {
    let (_folder, store) = store();
    let first = named(&store, "app", "one");
    let second = named(&store, "app", "two");
    assert_eq!(resolved(&store, "app"), Some(second.clone()));
    assert_eq!(resolved(&store, first.as_ref()), Some(first.clone()));
    let listed: Vec<_> = store.list().unwrap().into_iter().map(|image| (image.reference, image.digest)).collect();
    assert_eq!(listed, [(None, first.clone()), (Some("app".parse().unwrap()), second)]);
    assert_eq!(named(&store, "old", "one"), first);
    assert_eq!(store.list().unwrap().len(), 2, "the entry without a name is replaced by one with");
}

#[test]
fn an_image_is_found_by_name_id_and_digest() {
    let (_folder, store) = store();
    let digest = named(&store, "localhost:5000/a/b:1", "one");
    let other = named(&store, "other", "two");
    let hex = digest.digest();
    let pinned = format!("localhost:5000/a/b@{digest}");
    let pinned_with_tag = format!("localhost:5000/a/b:9@{digest}");
    let found = ["localhost:5000/a/b:1", digest.as_ref(), hex, &hex[..12], &hex[..6], &pinned, &pinned_with_tag];
    for name in found {
        assert_eq!(resolved(&store, name), Some(digest.clone()), "{name}");
    }
    let elsewhere = format!("localhost:5000/a/c@{digest}");
    for name in ["localhost:5000/a/b", "a/b:1", &hex[..3], "ffffffffffff", &elsewhere, &format!("other@{digest}")] {
        assert_eq!(resolved(&store, name), None, "{name}");
    }
    assert_ne!(resolved(&store, "other"), Some(digest));
    assert_eq!(resolved(&store, "other"), Some(other));
    let wrong = store.resolve("Other", &Selection::default()).unwrap_err().to_string();
    assert!(wrong.contains("did you mean `other`?"), "{wrong}");
}

#[test]
fn the_beginning_of_several_ids_is_refused() {
    let (_folder, store) = store();
    let ids = ["beef00", "beef11"].map(|start| format!("sha256:{start:0<64}"));
    let entries: Vec<Value> = ids.iter().map(|id| json!({ "mediaType": MANIFEST, "digest": id, "size": 1 })).collect();
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    std::fs::write(store.index_path(), index.to_string()).unwrap();
    let error = store.resolve("beef", &Selection::default()).unwrap_err();
    assert!(matches!(&error, StoreError::Ambiguous { candidates, .. } if *candidates == ids), "{error}");
    assert_eq!(resolved(&store, "beef0"), None, "its manifest is not here");
}

#[test]
fn what_an_image_says_of_itself() {
    let (_folder, store) = store();
    named(&store, "app", "content");
    let image = store.resolve("app", &Selection::default()).unwrap().unwrap();
    assert_eq!(image.reference, Some("app".parse().unwrap()));
    assert_eq!(image.classification.class, Class::Linux);
    assert_eq!(image.created.as_deref(), Some("2026-01-02T03:04:05Z"));
    assert_eq!(image.size_bytes, image.manifest.config().size() + 7);
    let layers = store.layers(&image).unwrap();
    assert_eq!(std::fs::read_to_string(layers[0].join("content")).unwrap(), "content");
    let wish = Selection { platform: Some("linux/arm64".parse().unwrap()), prefer: Prefer::default() };
    let error = store.resolve("app", &wish).unwrap_err().to_string();
    assert_eq!(error, "app: nothing for linux/arm64; there is: linux/amd64");
}

#[test]
fn wasm_artifacts_have_the_date_of_their_config_or_of_the_pull() {
    let (_folder, store) = store();
    for (name, created) in [("dated", Some("2025-05-05T05:05:05Z")), ("undated", None)] {
        let layer = (store.put_blob(b"\0asm\x01\0\0\0", None).unwrap(), 8);
        let config = put(&store, &json!({ "created": created, "os": "wasip1", "architecture": "wasm" }));
        let config = descriptor("application/vnd.wasm.config.v0+json", &config);
        let layers = [descriptor("application/wasm", &layer)];
        let manifest = put(&store, &json!({ "schemaVersion": 2, "config": config, "layers": layers }));
        store.name(&name.parse().unwrap(), MANIFEST, &manifest.0, manifest.1).unwrap();
        let wish = Selection { platform: Some("wasip1/wasm".parse().unwrap()), prefer: Prefer::default() };
        let image = store.resolve(name, &wish).unwrap().unwrap();
        assert_eq!(image.classification.class, Class::WasmArtifact { program: layer.0.to_string() });
        assert_eq!(store.layers(&image).unwrap(), [""; 0].map(PathBuf::from));
        let date = image.created.unwrap();
        match created {
            Some(expected) => assert_eq!(date, expected),
            None => assert!(date.starts_with("20") && date.ends_with('Z'), "{date}"),
        }
    }
}

/// An index with an amd64 and an arm64 image, of which only one may be here, and an attestation.
fn two_platforms(store: &Store, name: &str, both: bool) -> (Digest, Digest, Digest) {
    let images = ["amd64", "arm64"].map(|architecture| (architecture, image(store, architecture, architecture)));
    let mut entries: Vec<Value> = images
        .iter()
        .map(|(architecture, blob)| {
            let mut entry = descriptor(MANIFEST, blob);
            entry["platform"] = json!({ "os": "linux", "architecture": architecture });
            entry
        })
        .collect();
    let mut attestation = descriptor(MANIFEST, &images[0].1);
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    entries.push(attestation);
    if !both {
        std::fs::remove_file(store.blob_path(&images[1].1.0)).unwrap();
    }
    let index = put(store, &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }));
    store.name(&name.parse().unwrap(), INDEX, &index.0, index.1).unwrap();
    let [amd64, arm64] = images.map(|(_, (digest, _))| digest);
    (index.0, amd64, arm64)
}

fn by_platform(store: &Store, name: &str, platform: &str) -> Option<Digest> {
    let wish = Selection { platform: Some(platform.parse().unwrap()), prefer: Prefer::default() };
    store.resolve(name, &wish).unwrap().map(|image| image.digest)
}

#[test]
fn an_index_with_images_of_two_platforms() {
    let (_folder, store) = store();
    let (index, amd64, arm64) = two_platforms(&store, "multi", true);
    assert_eq!(by_platform(&store, "multi", "linux/amd64"), Some(amd64.clone()));
    assert_eq!(by_platform(&store, "multi", "linux/arm64/v8"), Some(arm64.clone()));
    assert_eq!(by_platform(&store, index.as_ref(), "linux/arm64"), Some(arm64.clone()));
    assert_eq!(by_platform(&store, arm64.digest(), "linux/amd64"), Some(arm64.clone()), "an id is what it is");
    assert_eq!(resolved(&store, &format!("multi@{arm64}")), Some(arm64.clone()));
    let mut ids: Vec<_> = store.list().unwrap().into_iter().map(|image| image.digest).collect();
    ids.sort_by_key(ToString::to_string);
    let mut both = [amd64, arm64];
    both.sort_by_key(ToString::to_string);
    assert_eq!(ids, both);
}

#[test]
fn an_index_of_which_one_platform_was_pulled() {
    let (_folder, store) = store();
    let (_, amd64, arm64) = two_platforms(&store, "multi", false);
    assert_eq!(by_platform(&store, "multi", "linux/amd64"), Some(amd64));
    assert_eq!(by_platform(&store, "multi", "linux/arm64"), None, "the caller may pull");
    assert_eq!(resolved(&store, arm64.digest()), None);
    assert_eq!(store.list().unwrap().len(), 1);
    store.check(true).unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn an_index_that_contains_itself_is_none() {
    let (_folder, store) = store();
    // Its digest cannot be its own, so the file is put in the place of another.
    let digest = store.put_blob(b"x", None).unwrap();
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor(INDEX, &(digest.clone(), 1))] });
    store.name(&"loop".parse().unwrap(), INDEX, &digest, 1).unwrap();
    std::fs::write(store.blob_path(&digest), index.to_string()).unwrap();
    let error = store.resolve("loop", &Selection::default()).unwrap_err().to_string();
    assert!(error.contains("was damaged since it was stored"), "{error}");
    assert_eq!(store.list().unwrap().len(), 0);
    store.remove("loop", false, &unused).unwrap();
    assert_eq!(counts(&store), (0, 0, 0));
}

#[test]
fn damaged_documents_are_named() {
    let (_folder, store) = store();
    let digest = store.put_blob(b"{}", None).unwrap();
    store.name(&"empty".parse().unwrap(), MANIFEST, &digest, 2).unwrap();
    let error = store.resolve("empty", &Selection::default()).unwrap_err().to_string();
    assert!(error.starts_with("manifest ") && error.contains(digest.digest()), "{error}");
    std::fs::write(store.index_path(), "{").unwrap();
    let error = store.resolve("empty", &Selection::default()).unwrap_err().to_string();
    assert!(error.contains("index.json, is damaged"), "{error}");
}

#[test]
fn tags() {
    let (_folder, store) = store();
    let digest = named(&store, "app", "one");
    store.tag("app", &"copy:1".parse().unwrap()).unwrap();
    store.tag(&digest.digest()[..8], &"ghcr.io/x/y".parse().unwrap()).unwrap();
    store.tag("app", &"app".parse().unwrap()).unwrap();
    for name in ["app", "copy:1", "ghcr.io/x/y:latest"] {
        assert_eq!(resolved(&store, name), Some(digest.clone()), "{name}");
    }
    assert_eq!(store.list().unwrap().len(), 3);
    assert!(matches!(store.tag("nothing", &"x".parse().unwrap()), Err(StoreError::NotFound { .. })));
    let pinned = format!("x@{digest}").parse().unwrap();
    assert!(matches!(store.tag("app", &pinned), Err(StoreError::DigestInTag { .. })));
}

#[test]
fn removing_the_last_name_removes_what_nothing_else_needs() {
    let (_folder, store) = store();
    let digest = named(&store, "app", "one");
    store.tag("app", &"copy".parse().unwrap()).unwrap();
    named(&store, "other", "two");
    assert_eq!(store.remove("copy", false, &unused).unwrap(), ["Untagged: copy:latest"]);
    assert_eq!(counts(&store), (6, 2, 0));
    let lines = store.remove("app", false, &unused).unwrap();
    assert_eq!(lines, ["Untagged: app:latest".to_owned(), format!("Deleted: {digest}")]);
    assert_eq!(counts(&store), (3, 1, 0));
    assert!(matches!(store.remove("app", true, &unused), Err(StoreError::NotFound { .. })));
    assert_eq!(store.check(false).unwrap().leftovers, [""; 0]);
}

#[test]
fn removing_by_id_needs_force_for_several_names() {
    let (_folder, store) = store();
    let digest = named(&store, "app", "one");
    store.tag("app", &"copy".parse().unwrap()).unwrap();
    let refused = store.remove(&digest.digest()[..12], false, &unused).unwrap_err().to_string();
    assert!(refused.contains("has 2 names (docker.io/library/app:latest, docker.io/library/copy:latest)"), "{refused}");
    let lines = store.remove(&digest.digest()[..12], true, &unused).unwrap();
    assert_eq!(
        lines,
        ["Untagged: app:latest".to_owned(), "Untagged: copy:latest".to_owned(), format!("Deleted: {digest}")]
    );
    assert_eq!(counts(&store), (0, 0, 0));
}

#[test]
fn an_image_in_use_stays_and_loses_its_name_only_by_force() {
    let (_folder, store) = store();
    let digest = named(&store, "app", "one");
    store.tag("app", &"copy".parse().unwrap()).unwrap();
    let in_use = || Ok(HashSet::from([digest.to_string()]));
    assert_eq!(store.remove("copy", false, &in_use).unwrap(), ["Untagged: copy:latest"], "it has another name");
    let refused = store.remove("app", false, &in_use).unwrap_err().to_string();
    assert!(refused.contains("is used by a container"), "{refused}");
    assert_eq!(store.remove("app", true, &in_use).unwrap(), ["Untagged: app:latest"]);
    assert_eq!((resolved(&store, "app"), resolved(&store, digest.digest())), (None, Some(digest.clone())));
    assert!(matches!(store.remove(digest.digest(), true, &in_use), Err(StoreError::InUse { .. })));
    store.check(true).unwrap();
    assert_eq!(store.remove_unnamed(&in_use).unwrap(), [""; 0]);
    assert_eq!(counts(&store), (3, 1, 0));
    assert_eq!(store.remove_unnamed(&unused).unwrap(), [format!("Deleted: {digest}")]);
    assert_eq!(counts(&store), (0, 0, 0));
}

#[test]
fn a_layer_that_two_images_share_stays_with_the_other() {
    let (_folder, store) = store();
    named(&store, "one", "shared");
    let (digest, size) = image(&store, "shared", "arm64");
    store.name(&"two".parse().unwrap(), MANIFEST, &digest, size).unwrap();
    assert_eq!(counts(&store), (5, 1, 0));
    store.remove("one", false, &unused).unwrap();
    assert_eq!(counts(&store), (3, 1, 0));
}

#[test]
fn leftovers_are_told_and_removed() {
    let (_folder, store) = store();
    named(&store, "app", "one");
    let orphan = store.put_blob(b"orphan", None).unwrap();
    store.stage_layer(&orphan).unwrap().commit().unwrap();
    let dead = store.root.join("temporary/4194305-1-0");
    std::fs::create_dir_all(dead.join("half")).unwrap();
    let told = store.check(false).unwrap().leftovers;
    for part in ["4194305-1-0 was being written", "is a blob that no image needs", "is a layer that no image needs"] {
        assert!(told.iter().any(|line| line.contains(part)), "{part}: {told:?}");
    }
    assert_eq!(told.len(), 3);
    assert_eq!(store.check(true).unwrap().leftovers, told);
    assert_eq!((store.check(false).unwrap().leftovers, counts(&store)), (Vec::new(), (3, 1, 0)));
}

#[test]
fn nothing_is_removed_while_somebody_writes() {
    let (_folder, store) = store();
    let app = named(&store, "app", "one");
    let pull = store.writing().unwrap();
    let fresh = store.put_blob(b"fresh", None).unwrap();
    assert_eq!(store.check(false).unwrap().leftovers, [""; 0]);
    assert!(store.check(true).unwrap().not_looked_at[0].contains("is running"));
    assert_eq!(store.remove("app", false, &unused).unwrap(), ["Untagged: app:latest"]);
    assert!(store.has_blob(&fresh));
    assert_eq!((resolved(&store, "app"), resolved(&store, app.digest())), (None, Some(app.clone())));
    assert!(matches!(store.remove(app.digest(), true, &unused), Err(StoreError::Busy { .. })));
    assert_eq!(store.remove_unnamed(&unused).unwrap(), [""; 0]);
    drop(pull);
    store.check(true).unwrap();
    assert_eq!(store.remove_unnamed(&unused).unwrap(), [format!("Deleted: {app}")]);
    assert_eq!(counts(&store), (0, 0, 0));
}

#[test]
fn a_layer_that_somebody_else_unpacked_first_is_taken() {
    let (_folder, store) = store();
    let digest = store.put_blob(b"layer", None).unwrap();
    let stages = [store.stage_layer(&digest).unwrap(), store.stage_layer(&digest).unwrap()];
    for (at, stage) in stages.iter().enumerate() {
        std::fs::write(stage.path.join("file"), at.to_string()).unwrap();
    }
    for stage in stages {
        assert_eq!(stage.commit().unwrap(), store.layer_dir(&digest));
    }
    assert_eq!(std::fs::read_to_string(store.layer_dir(&digest).join("file")).unwrap(), "0");
    drop(store.stage_layer(&digest).unwrap());
    assert_eq!(counts(&store), (1, 1, 0));
}

#[test]
fn many_writers_lose_no_name() {
    let (_folder, store) = store();
    thread::scope(|scope| {
        for writer in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..8 {
                    // Its own handle, as another process has; the same image is written by all.
                    let own = Store::open(&store.root).unwrap();
                    named(&own, &format!("app:{writer}-{round}"), "same");
                    named(&own, &format!("gone:{writer}"), &format!("{writer}-{round}"));
                    own.remove(&format!("gone:{writer}"), false, &unused).unwrap();
                    own.check(true).unwrap();
                }
            });
        }
    });
    store.remove_unnamed(&unused).unwrap();
    store.check(true).unwrap();
    assert_eq!(store.list().unwrap().len(), 64);
    assert_eq!(counts(&store), (3, 1, 0));
}

#[test]
fn fields_of_other_tools_are_kept() {
    let (_folder, store) = store();
    let digest = named(&store, "app", "one");
    let mut index: Value = serde_json::from_slice(&std::fs::read(store.index_path()).unwrap()).unwrap();
    index["annotations"] = json!({ "their": "own" });
    index["manifests"][0]["platform"] = json!({ "os": "linux", "architecture": "amd64" });
    index["manifests"][0]["annotations"]["their"] = json!("own");
    std::fs::write(store.index_path(), index.to_string()).unwrap();
    store.tag("app", &"copy".parse().unwrap()).unwrap();
    let changed: Value = serde_json::from_slice(&std::fs::read(store.index_path()).unwrap()).unwrap();
    assert_eq!(changed["annotations"], index["annotations"]);
    assert_eq!(changed["manifests"][0], index["manifests"][0]);
    let copy = &changed["manifests"][1];
    assert_eq!(copy["digest"], json!(digest.to_string()));
    assert_eq!(copy["annotations"]["io.containerd.image.name"], json!("docker.io/library/copy:latest"));
    assert_eq!(copy["annotations"]["org.opencontainers.image.ref.name"], json!("docker.io/library/copy:latest"));
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    let tested = thread::spawn(move || {
        // A mount namespace of this thread's own: the small file system is nobody else's.
        let private = unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>))
            .and_then(|()| mount(Some("tmpfs"), &root, Some("tmpfs"), MsFlags::empty(), Some("size=128k")));
        if let Err(error) = private {
            println!("skipped: no mount namespace: {error}");
            return;
        }
        let store = Store::open(&root).unwrap();
        let mut writer = store.blob_writer().unwrap();
        let error = writer.write_all(&[0; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert!(error.to_string().contains("temporary/"), "{error}");
        drop(writer);
        let error = store.put_blob(&[0; 1 << 20], None).unwrap_err();
        assert!(error.is_full(), "{error}");
        assert!(error.to_string().contains("No space left on device"), "{error}");
        assert_eq!(counts(&store), (0, 0, 0));
        store.put_blob(&[0; 1 << 14], None).unwrap();
    });
    tested.join().unwrap();
}

#[test]
fn other_tools_can_read_it() {
    let (_folder, store) = store();
    let name = "docker.io/library/app:latest";
    named(&store, "app", "one");
    let image = format!("oci:{}:{name}", store.root.join("image-layout").display());
    match Command::new("skopeo").args(["inspect", "--config", &image]).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let config: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(config["architecture"], json!("amd64"));
        }
        Err(error) => println!("skipped: skopeo does not run: {error}"),
    }
}
