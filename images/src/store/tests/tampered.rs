//! Files of the store that somebody else has changed: nothing waits, and nothing else runs in their place.

use super::*;
use nix::{sys::stat::Mode, unistd::mkfifo};
use std::{fs, os::unix::fs::symlink, path::Path};

/// Puts each of the things that are no plain file in a file's place.
fn each_kind(path: &Path, check: &mut dyn FnMut(&str)) {
    let bytes = fs::read(path).unwrap();
    let elsewhere = path.with_extension("elsewhere");
    fs::write(&elsewhere, &bytes).unwrap();
    let place: [(&str, &dyn Fn()); 4] = [
        ("a FIFO", &|| mkfifo(path, Mode::S_IRWXU).unwrap()),
        ("a symbolic link", &|| symlink(&elsewhere, path).unwrap()),
        ("a symbolic link", &|| symlink("/dev/zero", path).unwrap()),
        ("a folder", &|| fs::create_dir(path).unwrap()),
    ];
    for (what, place) in place {
        fs::remove_file(path).unwrap();
        place();
        check(what);
        fs::remove_file(path).or_else(|_| fs::remove_dir(path)).unwrap();
        fs::write(path, &bytes).unwrap();
    }
    fs::remove_file(elsewhere).unwrap();
}

#[test]
fn documents_that_are_no_plain_files_are_not_waited_for() {
    let (_folder, store) = store();
    let digest = named(&store, "app", "one");
    named(&store, "other", "two");
    let image = store.resolve("app", &Selection::default()).unwrap().unwrap();
    for blob in [&digest, image.manifest.config().digest()] {
        each_kind(&store.blob_path(blob), &mut |what| {
            let error = store.resolve("app", &Selection::default()).unwrap_err().to_string();
            assert!(error.contains(blob.digest()) && error.contains(&format!("it is {what}")), "{error}");
            assert!(resolved(&store, "other").is_some());
            let checked = store.check(true).unwrap();
            assert_eq!(checked.damaged.len(), 1, "{checked:?}");
        });
    }
    let layers = store.layers(&store.resolve("app", &Selection::default()).unwrap().unwrap()).unwrap();
    assert!(layers[0].join("one").exists(), "a damaged image's layers are no leftovers");
    assert_eq!(store.check(false).unwrap(), Checked::default());
}

#[test]
fn documents_with_other_bytes_are_not_believed() {
    let (_folder, store) = store();
    let (app, other) = (named(&store, "app", "one"), named(&store, "other", "two"));
    fs::copy(store.blob_path(&other), store.blob_path(&app)).unwrap();
    let error = store.resolve("app", &Selection::default()).unwrap_err().to_string();
    assert!(error.contains(app.digest()) && error.contains(other.as_ref()), "{error}");
    let checked = store.check(true).unwrap();
    assert!(checked.damaged.len() == 1 && !checked.not_looked_at.is_empty(), "{checked:?}");
    // The way out that it names.
    let lines = store.remove("app", false, &unused).unwrap();
    assert_eq!(lines, ["Untagged: app:latest".to_owned(), format!("Deleted: {app}")]);
    assert_eq!(named(&store, "app", "one"), app);
    assert_eq!(resolved(&store, "app"), Some(app));
    assert_eq!(store.check(false).unwrap(), Checked::default());
}

#[test]
fn programs_are_hashed_when_they_are_read() {
    let (_folder, store) = store();
    let digest = store.put_blob(b"program", None).unwrap();
    let path = store.blob_path(&digest);
    each_kind(&path, &mut |what| {
        let error = store.blob_bytes(&digest, 1 << 20).unwrap_err().to_string();
        assert!(error.contains(digest.digest()) && error.contains(&format!("it is {what}")), "{error}");
        assert!(store.blob(&digest).is_err());
        assert_eq!(store.blob_size(&digest), None, "it is fetched again");
    });
    assert_eq!(store.blob_bytes(&digest, 1 << 20).unwrap(), b"program");
    fs::write(&path, b"another").unwrap();
    assert!(store.blob_bytes(&digest, 1 << 20).unwrap_err().to_string().contains("its bytes have digest"));
}

#[test]
fn a_list_of_images_that_is_no_plain_file_is_damaged() {
    let (_folder, store) = store();
    let app = named(&store, "app", "one");
    each_kind(&store.index_path(), &mut |what| {
        let error = store.resolve("app", &Selection::default()).unwrap_err().to_string();
        assert!(error.contains("index.json") && error.contains(what), "{error}");
        assert!(store.list().is_err() && store.check(true).is_err());
    });
    assert_eq!(resolved(&store, "app"), Some(app.clone()));
    fs::remove_file(store.index_path()).unwrap();
    mkfifo(&store.index_path(), Mode::S_IRWXU).unwrap();
    store.repair().unwrap().unwrap();
    assert_eq!(resolved(&store, "app"), Some(app));
}

#[test]
fn the_files_of_the_list_itself_are_not_waited_for() {
    let (_folder, store) = store();
    for (content, name) in ["index.copy", "index.spare", "index.lock", "writers.lock"].iter().enumerate() {
        named(&store, "first", "one");
        store.remove("first", false, &unused).unwrap();
        let path = store.root.join(name);
        fs::remove_file(&path).unwrap();
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        named(&store, "app", &content.to_string());
        store.remove("app", false, &unused).unwrap();
    }
    assert_eq!(store.check(true).unwrap(), Checked::default());
}

#[test]
fn layers_that_were_swapped_are_noticed() {
    let (_folder, store) = store();
    let images = ["one", "two"].map(|name| {
        named(&store, name, name);
        store.resolve(name, &Selection::default()).unwrap().unwrap()
    });
    let [one, two] = images.each_ref().map(|image| store.layers(image).unwrap()[0].clone());
    if rustix::fs::lgetxattr(&one, "user.amphora.diff-id", &mut [0_u8; 256]).is_err() {
        return println!("skipped: no user xattrs on {}", one.display());
    }
    rustix::fs::renameat_with(rustix::fs::CWD, &one, rustix::fs::CWD, &two, rustix::fs::RenameFlags::EXCHANGE).unwrap();
    for image in &images {
        let error = store.layers(image).unwrap_err().to_string();
        assert!(error.contains("where it was unpacked, has the content of diff id"), "{error}");
    }
}

#[test]
fn a_layer_that_is_no_folder_is_named() {
    let (_folder, store) = store();
    named(&store, "app", "one");
    let image = store.resolve("app", &Selection::default()).unwrap().unwrap();
    let layer = store.layers(&image).unwrap().remove(0);
    let elsewhere = store.root.join("elsewhere");
    fs::rename(&layer, &elsewhere).unwrap();
    symlink(&elsewhere, &layer).unwrap();
    let error = store.layers(&image).unwrap_err().to_string();
    assert!(error.contains("is a symbolic link, expected a folder"), "{error}");
    fs::remove_file(&layer).unwrap();
    mkfifo(&layer, Mode::S_IRWXU).unwrap();
    assert!(store.layers(&image).unwrap_err().to_string().contains("is a FIFO, expected a folder"));
}

#[test]
fn files_that_are_none_of_the_stores_hinder_nothing() {
    let (_folder, store) = store();
    named(&store, "app", "one");
    fs::write(store.root.join("image-layout/blobs/notes.txt"), "x").unwrap();
    fs::write(store.root.join("notes.txt"), "x").unwrap();
    assert_eq!(store.check(true).unwrap(), Checked::default());
    assert_eq!(store.remove("app", false, &unused).unwrap().len(), 2);
}

/// One that had grown beyond what is read counted as nothing, and its layers as leftovers.
#[test]
fn a_document_that_grew_keeps_what_it_may_need() {
    let (_folder, store) = store();
    let app = named(&store, "app", "one");
    named(&store, "other", "two");
    let path = store.blob_path(&app);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [whole.as_slice(), &vec![b' '; 9 << 20]].concat()).unwrap();
    store.remove("other", false, &unused).unwrap();
    assert!(!store.check(true).unwrap().not_looked_at.is_empty());
    std::fs::write(&path, whole).unwrap();
    let image = store.resolve("app", &Selection::default()).unwrap().unwrap();
    assert!(store.layers(&image).unwrap()[0].join("one").exists());
    assert_eq!(store.check(true).unwrap().damaged, [""; 0]);
}

#[test]
fn a_large_blob_that_is_called_a_manifest_keeps_nothing() {
    let (_folder, store) = store();
    let large = (store.put_blob(&vec![b'x'; 9 << 20], None).unwrap(), 9 << 20);
    let index = put(&store, &json!({ "schemaVersion": 2, "manifests": [descriptor(MANIFEST, &large)] }));
    store.name(&"odd".parse().unwrap(), INDEX, &index.0, index.1).unwrap();
    let left = store.put_blob(b"left", None).unwrap();
    let checked = store.check(true).unwrap();
    assert!(checked.not_looked_at.is_empty() && !store.has_blob(&left), "{checked:?}");
}

/// A layer's own attributes could leave no room for the mark of what it is, or take its name.
#[test]
fn a_layer_is_marked_before_it_is_unpacked() {
    let (_folder, store) = store();
    let diff_id: Digest = format!("sha256:{:064}", 7).parse().unwrap();
    let stage = store.stage_layer(&diff_id).unwrap();
    let mut mark = [0; 128];
    match rustix::fs::lgetxattr(&stage.path, "user.amphora.diff-id", &mut mark) {
        Err(_) => println!("skipped: this file system keeps no attributes of users"),
        Ok(length) => assert_eq!(&mark[..length], diff_id.as_ref().as_bytes()),
    }
}
