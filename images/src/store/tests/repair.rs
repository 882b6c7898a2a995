//! A damaged or lost `index.json`, and the way back.

use super::*;
use std::{fs, os::unix::fs::PermissionsExt};

/// A store with `app` (also `app:1`), `tool`, an index `multi` of two platforms, and an image without a name.
fn filled() -> (TempDir, Store, Vec<(Option<String>, Digest)>) {
    let (folder, store) = store();
    named(&store, "app", "replaced");
    named(&store, "app", "one");
    store.tag("app", &"app:1".parse().unwrap()).unwrap();
    named(&store, "tool", "two");
    two_platforms(&store, "multi", true);
    let before = all(&store);
    assert_eq!(before.len(), 6);
    (folder, store, before)
}

/// What it is called, and what does it.
type Damage<'a> = (&'a str, &'a dyn Fn(&Store));

/// Every image with its name.
fn all(store: &Store) -> Vec<(Option<String>, Digest)> {
    let images = store.list().unwrap().into_iter();
    let mut all: Vec<_> = images.map(|image| (image.reference.map(|name| name.to_string()), image.digest)).collect();
    all.sort_by_key(|(name, digest)| (name.clone(), digest.to_string()));
    all
}

fn without_names(all: &[(Option<String>, Digest)]) -> Vec<String> {
    let mut digests: Vec<String> = all.iter().map(|(_, digest)| digest.to_string()).collect();
    digests.sort();
    digests.dedup();
    digests
}

fn set_aside(store: &Store) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = entries(&store.root).unwrap();
    found.retain(|path| path.to_str().unwrap().contains("index.damaged-"));
    found.sort();
    found
}

/// Every layer of every image is still there, and nothing is a leftover.
fn is_whole(store: &Store) {
    for image in store.list().unwrap() {
        assert!(!store.layers(&image).unwrap().is_empty());
    }
    assert_eq!(store.check(true).unwrap(), Checked::default());
    assert_eq!(store.repair().unwrap(), None, "a second time there is nothing to do");
}

/// In place, so that the copy is known to be of this very file.
fn overwrite(store: &Store, bytes: &[u8]) {
    fs::write(store.index_path(), bytes).unwrap();
}

#[test]
fn a_whole_list_is_left_alone() {
    let (_folder, store, before) = filled();
    let bytes = fs::read(store.index_path()).unwrap();
    assert_eq!(store.repair().unwrap(), None);
    assert_eq!((fs::read(store.index_path()).unwrap(), all(&store)), (bytes, before));
    assert_eq!(set_aside(&store), [""; 0].map(PathBuf::from));
}

#[test]
fn all_names_come_back_from_the_copy() {
    let whole = |store: &Store| fs::read(store.index_path()).unwrap();
    let damages: [Damage; 5] = [
        ("truncated", &|store| overwrite(store, &whole(store)[..100])),
        ("empty", &|store| overwrite(store, b"")),
        ("garbage", &|store| overwrite(store, &[0xff, 0, 0x9f, b'{', b'"'].repeat(500))),
        ("missing", &|store| fs::remove_file(store.index_path()).unwrap()),
        ("a folder", &|store| {
            fs::remove_file(store.index_path()).unwrap();
            fs::create_dir(store.index_path()).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let (_folder, store, before) = filled();
        damage(&store);
        let refused = store.resolve("app", &Selection::default()).unwrap_err();
        assert!(matches!(refused, StoreError::IndexDamaged { .. }), "{what}: {refused}");
        for refused in
            [store.check(true).err(), store.remove("app", true, &unused).err(), store.remove_unnamed(&unused).err()]
        {
            assert!(matches!(refused, Some(StoreError::IndexDamaged { .. })), "{what}: nothing is removed meanwhile");
        }
        let repaired = store.repair().unwrap().unwrap();
        assert_eq!(all(&store), before, "{what}: {repaired:?}");
        assert_eq!(
            (repaired.named.len(), repaired.unnamed.len(), repaired.lost.len()),
            (4, 1, 0),
            "{what}: {repaired:?}"
        );
        assert_eq!(repaired.aside.is_some(), what != "missing", "{what}");
        assert_eq!(set_aside(&store).len(), usize::from(what != "missing"), "{what}");
        is_whole(&store);
    }
}

#[test]
fn without_a_copy_what_parses_is_kept_and_the_rest_has_no_name() {
    let (_folder, store, before) = filled();
    let text = fs::read_to_string(store.index_path()).unwrap();
    fs::remove_file(store.root.join("index.copy")).unwrap();
    // It is said that names may be lost: of an image that has another, nothing else would tell.
    // The last entry is cut, and so has neither a name nor a digest that could be trusted.
    overwrite(&store, &text.as_bytes()[..text.len() - 20]);
    let repaired = store.repair().unwrap().unwrap();
    assert_eq!(without_names(&all(&store)), without_names(&before), "{repaired:?}");
    assert!(repaired.lost.len() == 1 && repaired.lost[0].contains("there is no copy"), "{repaired:?}");
    assert_eq!(all(&store).iter().filter(|(name, _)| name.is_some()).count(), 3, "{repaired:?}");
    assert_eq!(resolved(&store, "app:1"), resolved(&store, "app"));
    is_whole(&store);
    let damaged = fs::read(&set_aside(&store)[0]).unwrap();
    assert_eq!(damaged, text.as_bytes()[..text.len() - 20], "the old file is kept as it was");

    fs::remove_file(store.root.join("index.copy")).unwrap();
    fs::remove_file(store.index_path()).unwrap();
    let repaired = store.repair().unwrap().unwrap();
    assert_eq!((repaired.named.len(), repaired.aside), (0, None));
    assert_eq!(without_names(&all(&store)), without_names(&before));
    is_whole(&store);
}

#[test]
fn a_name_that_may_be_wrong_is_not_given() {
    let (_folder, store, before) = filled();
    fs::remove_file(store.root.join("index.copy")).unwrap();
    let text = fs::read_to_string(store.index_path()).unwrap();
    // One of the two notations of a name was hit, and then the end.
    overwrite(&store, text.replacen("library/tool", "library/fool", 1).strip_suffix('}').unwrap().as_bytes());
    let repaired = store.repair().unwrap().unwrap();
    assert_eq!((resolved(&store, "tool"), resolved(&store, "fool")), (None, None));
    assert!(repaired.lost[1].contains("its two names differ"), "{repaired:?}");
    assert_eq!(without_names(&all(&store)), without_names(&before));
    is_whole(&store);
}

#[test]
fn what_another_tool_wrote_is_not_undone_by_the_copy() {
    let (_folder, store, _) = filled();
    let text = fs::read_to_string(store.index_path()).unwrap();
    let other = store.root.join("other");
    fs::write(&other, text.replace("library/app", "library/apt").strip_suffix('}').unwrap()).unwrap();
    fs::rename(&other, store.index_path()).unwrap();
    store.repair().unwrap().unwrap();
    assert!(resolved(&store, "app").is_none() && resolved(&store, "apt").is_some());
    is_whole(&store);
}

/// skopeo writes into the same file. What it wrote was undone when the end of that was lost.
#[test]
fn what_another_tool_wrote_into_the_list_is_not_undone_by_the_copy() {
    let (_folder, store, before) = filled();
    let (app, tool) = (resolved(&store, "app").unwrap(), resolved(&store, "tool").unwrap());
    let mut index: Value = serde_json::from_slice(&fs::read(store.index_path()).unwrap()).unwrap();
    for entry in index["manifests"].as_array_mut().unwrap() {
        if entry["digest"] == json!(app.to_string()) {
            entry["digest"] = json!(tool.to_string());
        }
    }
    let written = index.to_string();
    let (cut, _) = written.split_at(written.rfind("library/tool").unwrap());
    overwrite(&store, cut.as_bytes());
    let repaired = store.repair().unwrap().unwrap();
    for name in ["app", "app:1", "tool"] {
        let stands_for = resolved(&store, name);
        assert!(stands_for.is_none() || stands_for == Some(tool.clone()), "{name}: {repaired:?}");
    }
    assert!(repaired.lost.iter().any(|line| line.contains("tool:latest stood for")), "{repaired:?}");
    assert_eq!(without_names(&all(&store)), without_names(&before));
    is_whole(&store);
}

/// It was removed first, and of a repair that was killed then the next one knew no name.
#[test]
fn the_copy_is_there_until_the_list_is_replaced() {
    let (_folder, store, before) = filled();
    overwrite(&store, b"{");
    let replacement = index::Replacement::prepare(&store, None, index::Room::Free, b"{}").unwrap();
    let aside = store.root.join("aside");
    fs::rename(store.index_path(), &aside).unwrap();
    fs::create_dir(store.index_path()).unwrap();
    assert!(replacement.finish(&store, b"{}").is_err());
    fs::remove_dir(store.index_path()).unwrap();
    fs::rename(&aside, store.index_path()).unwrap();
    store.repair().unwrap().unwrap();
    assert_eq!(all(&store), before);
    // Killed between the two, and the list is lost then: the one that was about to replace it is the newer one.
    let copy = store.root.join("index.copy");
    let older = fs::read(&copy).unwrap();
    store.remove("app:1", false, &unused).unwrap();
    fs::rename(&copy, store.root.join("index.copy-next")).unwrap();
    fs::write(&copy, older).unwrap();
    let now = all(&store);
    fs::remove_file(store.index_path()).unwrap();
    store.repair().unwrap().unwrap();
    assert_eq!(all(&store), now, "no name that was removed comes back");
    assert!(!store.root.join("index.copy-next").exists());
    // And one that is older than the list is not taken for its copy.
    let older = fs::read(store.root.join("index.copy")).unwrap();
    store.remove("tool", false, &unused).unwrap();
    fs::write(store.root.join("index.copy"), older).unwrap();
    overwrite(&store, b"{");
    let repaired = store.repair().unwrap().unwrap();
    assert!(resolved(&store, "app").is_none() && repaired.lost.len() == 4, "{repaired:?}");
}

/// Sixteen bytes of white space, and a manifest was no document.
#[test]
fn a_document_may_begin_with_white_space() {
    let (_folder, store, _) = filled();
    let manifest = fs::read_to_string(store.blob_path(&resolved(&store, "tool").unwrap())).unwrap();
    let padded = " \n".repeat(9000) + &manifest;
    let digest = store.put_blob(padded.as_bytes(), None).unwrap();
    store.name(&"padded".parse().unwrap(), MANIFEST, &digest, padded.len() as u64).unwrap();
    let before = all(&store);
    overwrite(&store, b"");
    store.repair().unwrap().unwrap();
    assert_eq!(all(&store), before);
    fs::remove_file(store.root.join("index.copy")).unwrap();
    overwrite(&store, b"");
    store.repair().unwrap().unwrap();
    assert_eq!(without_names(&all(&store)), without_names(&before));
}

#[test]
fn of_two_entries_with_one_name_the_first_has_it() {
    let (_folder, store, before) = filled();
    let (first, second) = (resolved(&store, "app").unwrap(), resolved(&store, "tool").unwrap());
    let twice = fs::read_to_string(store.index_path()).unwrap().replace("library/tool:", "library/app:");
    let other = store.root.join("other");
    fs::write(&other, twice).unwrap();
    fs::rename(&other, store.index_path()).unwrap();
    assert!(store.check(false).unwrap().damaged[0].contains("stands twice"));
    let repaired = store.repair().unwrap().unwrap();
    assert!(repaired.lost[1].contains("tool:latest stood for"), "{repaired:?}");
    assert!(repaired.lost[2].contains("another image has that name too"), "{repaired:?}");
    assert_eq!((repaired.lost.len(), resolved(&store, "app")), (3, Some(first)), "{repaired:?}");
    assert_eq!(resolved(&store, second.digest()), Some(second));
    assert_eq!(without_names(&all(&store)), without_names(&before));
    is_whole(&store);
}

#[test]
fn a_document_that_is_damaged_too_is_said_to_be_lost() {
    let (_folder, store, _) = filled();
    let tool = resolved(&store, "tool").unwrap();
    fs::write(store.blob_path(&tool), "{}").unwrap();
    overwrite(&store, b"");
    let repaired = store.repair().unwrap().unwrap();
    assert_eq!(repaired.lost.len(), 2, "{repaired:?}");
    assert!(repaired.lost.iter().all(|line| line.contains(tool.digest())), "{repaired:?}");
    assert!(resolved(&store, "app").is_some() && resolved(&store, "tool").is_none());
}

#[test]
fn images_that_containers_use_survive_a_lost_list() {
    let (_folder, store, _) = filled();
    let app = resolved(&store, "app").unwrap();
    let used = || Ok(HashSet::from([app.to_string()]));
    for path in ["index.copy", "image-layout/index.json", "image-layout/oci-layout"] {
        fs::remove_file(store.root.join(path)).unwrap();
    }
    let store = Store::open(&store.root).unwrap();
    assert!(matches!(store.check(true), Err(StoreError::IndexDamaged { .. })), "no new list over blobs of an old one");
    store.repair().unwrap().unwrap();
    store.remove_unnamed(&used).unwrap();
    store.check(true).unwrap();
    let images = store.list().unwrap();
    assert_eq!(images.iter().map(|image| &image.digest).collect::<Vec<_>>(), [&app]);
    assert!(store.layers(&images[0]).unwrap()[0].join("one").exists());
}

#[test]
fn a_repair_that_was_killed_is_done_again() {
    // Between its two steps: the damaged file has both names, or, being a folder, only the new one.
    let (_folder, store, before) = filled();
    overwrite(&store, b"");
    fs::hard_link(store.index_path(), store.root.join("index.damaged-1")).unwrap();
    let repaired = store.repair().unwrap().unwrap();
    assert_eq!((all(&store), repaired.aside), (before.clone(), Some(store.root.join("index.damaged-1"))));
    fs::remove_file(store.index_path()).unwrap();
    fs::create_dir(store.root.join("index.damaged-2")).unwrap();
    store.repair().unwrap().unwrap();
    assert_eq!(all(&store), before);
    overwrite(&store, b"");
    assert_eq!(store.repair().unwrap().unwrap().aside, Some(store.root.join("index.damaged-3")), "none is replaced");
    is_whole(&store);
}

#[test]
fn a_list_is_repaired_on_a_full_disk() {
    on_small_disk(|place| {
        let store = Store::open(&place.join("root")).unwrap();
        let app = named(&store, "app", "one");
        // What removes makes the spare room.
        named(&store, "other", "two");
        store.remove("other", false, &unused).unwrap();
        overwrite(&store, b"{");
        let mut filler = fs::File::create(place.join("filler")).unwrap();
        while filler.write_all(&[1; 4096]).is_ok() {}
        assert!(store.put_blob(&[1; 8192], None).unwrap_err().is_full());
        store.repair().unwrap().unwrap();
        assert_eq!((resolved(&store, "app"), set_aside(&store).len()), (Some(app), 1));
    });
}

/// Repaired without its copy, which could not be read at that moment, the list lost every name, and then the copy too.
#[test]
fn a_copy_that_cannot_be_read_is_not_done_without() {
    let (folder, store, before) = filled();
    overwrite(&store, b"{");
    let copy = store.root.join("index.copy");
    let mode = |mode| fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).unwrap();
    if rustix::process::geteuid().is_root() {
        let owned = std::process::Command::new("chown").args(["-R", "65534:65534"]).arg(folder.path()).status();
        assert!(owned.unwrap().success());
    }
    mode(0o000);
    let error = as_nobody(&store, |store| store.repair().unwrap_err().to_string());
    assert!(error.contains("copy of the list of images"), "{error}");
    mode(0o600);
    as_nobody(&store, |store| drop(store.repair().unwrap()));
    assert_eq!(all(&store), before);
}

/// In a thread that has no rights of root.
fn as_nobody<T: Send>(store: &Store, work: impl FnOnce(&Store) -> T + Send) -> T {
    let nobody = rustix::process::Uid::from_raw(65_534);
    let work = || {
        if rustix::process::geteuid().is_root() {
            // Of this thread alone: the call below the C library's.
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        }
        work(store)
    };
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

/// The copy of the list was lost between two: the first one was killed before it had its place, the second one put another there.
#[test]
fn two_that_are_killed_lose_no_name() {
    let (_folder, store, _) = filled();
    let copy = store.root.join("index.copy");
    let older = fs::read(&copy).unwrap();
    store.remove("app:1", false, &unused).unwrap();
    let now = all(&store);
    fs::rename(&copy, store.root.join("index.copy-next")).unwrap();
    fs::write(&copy, older).unwrap();
    overwrite(&store, b"{");
    let never = store.root.join("never");
    fs::write(&never, "{}").unwrap();
    crate::store::index_copy::prepare(&store, None, &never, b"{}").unwrap();
    store.repair().unwrap().unwrap();
    assert_eq!(all(&store), now);
}
