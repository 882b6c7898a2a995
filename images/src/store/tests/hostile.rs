//! Images made to harm other images.

use super::*;

#[test]
fn an_artifact_that_lists_a_manifest_as_its_layer_deletes_nothing() {
    let (_folder, store) = store();
    let victim = image(&store, "one", "amd64");
    let config = put(&store, &json!({}));
    let (part, listed) = (descriptor("application/x", &config), descriptor("application/x", &victim));
    put_named(&store, "artifact", MANIFEST, &json!({ "schemaVersion": 2, "config": part, "layers": [listed] }));
    store.name(&"victim".parse().unwrap(), MANIFEST, &victim.0, victim.1).unwrap();
    named(&store, "other", "two");
    store.remove("other", false, &unused).unwrap();
    store.check(true).unwrap();
    let victim = store.resolve("victim", &Selection::default()).unwrap().unwrap();
    let layers = store.layers(&victim).unwrap();
    assert!(layers[0].join("one").exists() && store.has_blob(victim.manifest.config().digest()));
}

#[test]
fn an_index_whose_child_is_no_index_stops_nothing_else() {
    let (_folder, store) = store();
    let good = named(&store, "good", "one");
    let config = put(&store, &json!({ "os": "linux" }));
    let children = [descriptor(INDEX, &config)];
    let bad = put_named(&store, "bad", INDEX, &json!({ "schemaVersion": 2, "manifests": children }));
    assert_eq!(store.list().unwrap().len(), 1);
    let damaged: Vec<Damaged> = store.listed().unwrap().into_iter().filter_map(Result::err).collect();
    assert_eq!((damaged.len(), damaged[0].name.as_deref()), (1, Some("docker.io/library/bad:latest")));
    let checked = store.check(true).unwrap();
    assert!(checked.damaged[0].contains("amphora rmi bad"), "{checked:?}");
    assert_eq!(resolved(&store, good.digest()), Some(good.clone()), "by id");
    assert_eq!(resolved(&store, &format!("good@{good}")), Some(good));
    assert_eq!(store.remove_unnamed(&unused).unwrap(), [""; 0]);
    let lines = store.remove("bad", false, &unused).unwrap();
    assert_eq!(lines, ["Untagged: bad:latest".to_owned(), format!("Deleted: {bad}")]);
    assert_eq!(store.check(false).unwrap(), Checked::default());
}

#[test]
fn an_entry_with_a_digest_of_another_tool_can_be_removed() {
    let (_folder, store) = store();
    named(&store, "good", "one");
    let mut index: Value = serde_json::from_slice(&std::fs::read(store.index_path()).unwrap()).unwrap();
    let annotations = json!({ "org.opencontainers.image.ref.name": "docker.io/library/odd:latest" });
    let odd = json!({ "mediaType": MANIFEST, "digest": "what", "size": 1, "annotations": annotations });
    index["manifests"].as_array_mut().unwrap().push(odd);
    std::fs::write(store.index_path(), index.to_string()).unwrap();
    assert_eq!((store.list().unwrap().len(), store.check(true).unwrap().damaged.len()), (1, 1));
    assert_eq!(store.remove("odd", false, &unused).unwrap(), ["Untagged: odd:latest"]);
    assert_eq!(store.check(false).unwrap(), Checked::default());
}

#[test]
fn a_claimed_diff_id_opens_no_other_images_layer() {
    let (_folder, store) = store();
    named(&store, "secret", "secret");
    let secret = store.resolve("secret", &Selection::default()).unwrap().unwrap();
    let claimed = secret.config.rootfs().diff_ids()[0].clone();
    // Its first digits name the directory; the others are compared too.
    let alike = format!("{}{:0>32}", &claimed[..7 + 32], "");
    let own = (store.put_blob(&[0; 1024], None).unwrap(), 1024);
    for diff_id in [claimed, alike] {
        let rootfs = json!({ "type": "layers", "diff_ids": [diff_id] });
        let config = put(&store, &json!({ "os": "linux", "architecture": "amd64", "rootfs": rootfs }));
        let layers = [descriptor(TAR, &own)];
        let forged = json!({ "schemaVersion": 2, "config": descriptor(CONFIG, &config), "layers": layers });
        put_named(&store, "forged", MANIFEST, &forged);
        let forged = store.resolve("forged", &Selection::default()).unwrap().unwrap();
        let refused = store.layers(&forged).unwrap_err().to_string();
        assert!(refused.contains("the config says"), "{refused}");
    }
}

#[test]
fn a_name_with_a_digest_stands_for_that_digest_alone() {
    let (_folder, store) = store();
    let real = named(&store, "busybox", "real");
    let forged = named(&store, "forged", "forged");
    let pinned: Reference = format!("busybox@{real}").parse().unwrap();
    let size = store.blob_size(&forged).unwrap();
    assert!(matches!(store.name(&pinned, MANIFEST, &forged, size), Err(StoreError::OtherDigest { .. })));
    // Another tool may have written such an entry.
    let index = std::fs::read_to_string(store.index_path()).unwrap();
    let forgery = index.replace("docker.io/library/forged:latest", &pinned.to_string());
    std::fs::write(store.index_path(), forgery).unwrap();
    assert_eq!(resolved(&store, &pinned.to_string()), Some(real));
}

#[test]
fn a_layer_that_is_there_twice_is_mounted_once() {
    let (_folder, store) = store();
    let layers = ["a", "b"].map(|content| {
        image(&store, content, "amd64");
        (store.put_blob(content.as_bytes(), None).unwrap(), content.len() as u64)
    });
    let [a, b] = &layers;
    let diff_ids = [&a.0, &b.0, &a.0].map(ToString::to_string);
    let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
    let config = put(&store, &json!({ "os": "linux", "architecture": "amd64", "rootfs": rootfs }));
    let parts = [a, b, a].map(|layer| descriptor(TAR, layer));
    let twice = json!({ "schemaVersion": 2, "config": descriptor(CONFIG, &config), "layers": parts });
    put_named(&store, "twice", MANIFEST, &twice);
    let image = store.resolve("twice", &Selection::default()).unwrap().unwrap();
    assert_eq!(store.layers(&image).unwrap(), [store.layer_dir(&b.0), store.layer_dir(&a.0)]);
}

#[test]
fn a_use_that_begins_while_others_are_removed_is_seen() {
    let (_folder, store) = store();
    let first = named(&store, "first", "one");
    named(&store, "second", "two");
    let asked = std::cell::Cell::new(0);
    // What a container started meanwhile would change: the question is put again for each image, under the lock.
    let used = || {
        asked.set(asked.get() + 1);
        assert!(store.removing().unwrap().is_none(), "asked while the lock is held");
        Ok(if asked.get() == 1 { HashSet::new() } else { HashSet::from([first.to_string()]) })
    };
    store.remove("second", false, &used).unwrap();
    assert!(matches!(store.remove("first", false, &used), Err(StoreError::InUse { .. })));
    let unknown = store.remove("first", false, &|| Err("a record".to_owned())).unwrap_err().to_string();
    assert!(unknown.contains("nothing was removed"), "{unknown}");
}

#[test]
fn images_are_removed_from_a_full_disk() {
    on_small_disk(|place| {
        let store = Store::open(&place.join("root")).unwrap();
        named(&store, "app", "one");
        named(&store, "other", "two");
        let mut filler = std::fs::File::create(place.join("filler")).unwrap();
        while filler.write_all(&[1; 4096]).is_ok() {}
        assert!(store.tag("app", &"copy".parse().unwrap()).unwrap_err().is_full());
        {
            // Somebody who writes, a pull that waits for its disk, keeps no name from going.
            let _writing = store.writing().unwrap();
            assert_eq!(store.remove("other", false, &unused).unwrap(), ["Untagged: other:latest"]);
        }
        while filler.write_all(&[1; 4096]).is_ok() {}
        let lines = store.remove("app", false, &unused).unwrap();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(resolved(&store, "app").is_none() && store.list().unwrap().len() == 1);
    });
}

/// `load` copied the media type of an archive, eight megabytes of it, into the list of images.
#[test]
fn nothing_that_an_archive_made_up_is_listed() {
    let (_folder, store) = store();
    let (digest, size) = image(&store, "one", "amd64");
    let made_up = "application/".to_owned() + &"x".repeat(8 << 20);
    store.name(&"app".parse().unwrap(), &made_up, &digest, size).unwrap();
    store.keep_unnamed(&made_up, &image(&store, "two", "amd64").0, 1).unwrap_err();
    assert!(std::fs::read(store.index_path()).unwrap().len() < 1000);
    assert_eq!(resolved(&store, "app"), Some(digest));
}

#[test]
fn the_list_of_images_does_not_become_longer_than_what_is_read() {
    let (_folder, store) = store();
    named(&store, "app", "one");
    let mut index: Value = serde_json::from_slice(&std::fs::read(store.index_path()).unwrap()).unwrap();
    index["manifests"][0]["their"] = json!("x".repeat(20 << 20));
    index["their"] = json!("x".repeat(12 << 20));
    std::fs::write(store.index_path(), index.to_string()).unwrap();
    let before = std::fs::read(store.index_path()).unwrap();
    let refused = store.tag("app", &"copy".parse().unwrap()).unwrap_err();
    assert!(matches!(refused, StoreError::IndexFull { .. }), "{refused}");
    assert!(std::fs::read(store.index_path()).unwrap() == before);
    assert!(resolved(&store, "app").is_some() && store.remove("app", false, &unused).is_ok());
    named(&store, "other", "two");
    store.tag("other", &"copy".parse().unwrap()).unwrap();
}

/// Each of a hundred thousand names was a change of the list, and each removed image a look at all the others.
#[test]
fn many_names_are_given_and_removed_at_once() {
    let (_folder, store) = store();
    let (digest, size) = image(&store, "one", "amd64");
    named(&store, "kept", "two");
    named(&store, "used", "three");
    let names: Vec<Reference> = (0..5000).map(|number| format!("name:{number}").parse().unwrap()).collect();
    assert!(store.name_all(&names, MANIFEST, &digest, size).unwrap().iter().all(Option::is_none));
    let other = named(&store, "name:7", "two");
    let moved_from = store.name_all(&names[..10], MANIFEST, &digest, size).unwrap();
    assert_eq!(moved_from.iter().flatten().collect::<Vec<_>>(), [&other.to_string()]);
    assert_eq!(store.list().unwrap().len(), 5002);
    let used = resolved(&store, "used").unwrap().to_string();
    let some: BTreeSet<String> = names[1..].iter().map(Reference::to_string).collect();
    let lines = store.remove_names(&some, &unused).unwrap();
    assert!(lines.len() == 4999 && lines.iter().all(|line| line.starts_with("Untagged: name:")));
    let all = ["name:0", "used"].map(|name| name.parse::<Reference>().unwrap().to_string()).into();
    let lines = store.remove_names(&all, &|| Ok(HashSet::from([used.clone()]))).unwrap();
    assert_eq!(lines, ["Untagged: name:0".to_owned(), format!("Deleted: {digest}")]);
    let mut each = store.remove_each(&["used", "nothing", "kept"], false, &unused).unwrap();
    assert!(each.pop().unwrap().unwrap().len() == 2 && each.remove(0).unwrap().len() == 2);
    assert!(matches!(each.pop(), Some(Err(StoreError::NotFound { .. }))));
    assert_eq!((store.list().unwrap().len(), counts(&store)), (0, (0, 0, 0)));
}

/// Archives name images: one named its image like another one's id, and scripts ran it.
#[test]
fn a_name_is_nobodys_id() {
    let (_folder, store) = store();
    let good = named(&store, "good", "one");
    let hex = good.digest();
    for id in [good.to_string(), hex.to_owned(), hex[..12].to_owned(), format!("sha256:{}", &hex[..12])] {
        assert!(id.parse::<Reference>().is_err(), "{id}");
        assert_eq!(resolved(&store, &id), Some(good.clone()), "{id}");
    }
    let (short, longer) = (&hex[..8], &hex[..9]);
    let evil = named(&store, short, "two");
    let refused = store.resolve(short, &Selection::default()).unwrap_err();
    assert!(matches!(&refused, StoreError::NameOrId { id, .. } if *id == good.to_string()), "{refused}");
    for refused in [
        store.tag(short, &"prod".parse().unwrap()).unwrap_err(),
        store.remove(short, true, &unused).unwrap_err(),
        store.entry_digest(short).unwrap_err(),
    ] {
        assert!(matches!(refused, StoreError::NameOrId { .. }), "{refused}");
    }
    assert_eq!(resolved(&store, &format!("{short}:latest")), Some(evil));
    assert_eq!(resolved(&store, &format!("sha256:{short}")), Some(good.clone()));
    assert_eq!(resolved(&store, longer), Some(good.clone()));
    store.remove("good", false, &unused).unwrap();
    assert!(resolved(&store, short).is_some(), "only a name now");
}
