//! Directories that archives leave out, in images of the store. What they are like in stacks of any kind: `stacks`.

use super::*;
use std::os::unix::fs::MetadataExt;

/// Names and modes of entries.
type Entries = [(&'static str, u32)];

/// A layer's archive: names of directories end with a slash.
fn tar(entries: &Entries) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, mode) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(if name.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular });
        header.set_mode(*mode);
        header.set_uid(nix::unistd::getuid().as_raw().into());
        header.set_gid(nix::unistd::getgid().as_raw().into());
        header.set_size(0);
        builder.append_data(&mut header, name, std::io::empty()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn stacked(store: &Store, name: &str, layers: &[&Entries]) -> Image {
    let layers: Vec<_> = layers.iter().map(|entries| tar(entries)).collect();
    let blobs: Vec<_> = layers.iter().map(|tar| (store.put_blob(tar, None).unwrap(), tar.len() as u64)).collect();
    let diff_ids: Vec<_> = blobs.iter().map(|blob| blob.0.to_string()).collect();
    let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
    let config = put(store, &json!({ "os": "linux", "architecture": "amd64", "rootfs": rootfs }));
    let layers: Vec<_> = blobs.iter().map(|blob| descriptor(TAR, blob)).collect();
    let manifest = json!({ "schemaVersion": 2, "config": descriptor(CONFIG, &config), "layers": layers });
    put_named(store, name, MANIFEST, &manifest);
    store.resolve(name, &Selection::default()).unwrap().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_layer_leaves_to_each_image_what_its_base_says() {
    let (_folder, store) = store();
    let shared: &Entries = &[("data/deep/file", 0o644)];
    let one = stacked(&store, "one", &[&[("./", 0o711), ("data/", 0o750)], shared]);
    let other = stacked(&store, "other", &[&[("data/", 0o701), ("data/deep/", 0o1777)], shared]);
    let [of_one, of_other] = [&one, &other].map(|image| store.layers(image).unwrap());
    assert_eq!((of_one.len(), of_other.len(), &of_one[1]), (3, 3, &of_other[1]));
    let modes = |top: &Path| [mode(top), mode(&top.join("data"))];
    assert_eq!([modes(&of_one[2]), modes(&of_other[2])], [[0o711, 0o750], [0o755, 0o701]]);
    // What no layer below has is as it was made.
    assert_eq!(mode(&of_other[2].join("data/deep")), 0o1777);
    assert!(!of_one[2].join("data/deep").exists());
    // It is made once.
    let inode = || fs::symlink_metadata(&of_one[2]).unwrap().ino();
    let before = inode();
    assert_eq!((store.layers(&one).unwrap(), inode()), (of_one.clone(), before));
    assert_eq!(store.check(false).unwrap(), Checked::default());
    // And goes with the last image that has it.
    store.remove("one", false, &unused).unwrap();
    assert!(!of_one[2].exists() && !of_one[0].exists() && of_one[1].exists() && of_other[2].exists());
    store.remove("other", false, &unused).unwrap();
    assert_eq!(counts(&store), (0, 0, 0));
}

#[test]
fn what_leaves_nothing_out_gets_no_layer_on_top() {
    let (_folder, store) = store();
    let whole: &Entries = &[("data/", 0o700), ("data/file", 0o644)];
    let table: [(&str, &[&Entries], usize); 3] = [
        ("alone", &[&[("data/file", 0o644)]], 1),
        ("whole", &[&[("./", 0o755), ("data/", 0o750)], whole], 2),
        ("root", &[&[("./", 0o700), ("data/", 0o750)], whole], 3),
    ];
    for (name, layers, expected) in table {
        let image = stacked(&store, name, layers);
        assert_eq!(store.layers(&image).unwrap().len(), expected, "{name}");
    }
}
