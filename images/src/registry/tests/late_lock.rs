//! A pull that waits for its registry keeps nobody from the store.

use super::*;
use crate::store::Used;
use std::{
    collections::HashSet,
    sync::{Arc, Barrier, mpsc},
    thread,
};

const NOBODY: Used = &|| Ok(HashSet::new());

/// Pulls `latest`, whose last layer is held up until `meanwhile` has run on the same store.
fn while_a_layer_is_waited_for(
    made: &Made,
    place: &Place,
    meanwhile: impl FnOnce(&Server),
) -> Result<Image, PullError> {
    let last = format!("/v2/app/blobs/{}", made.layers[made.layers.len() - 1]);
    let body = made.files[&last].clone();
    let (asked, go_on) = (mpsc::channel(), Arc::new(Barrier::new(2)));
    let (began, gate) = (Mutex::new(asked.0), Arc::clone(&go_on));
    let server = Server::start(made.files.clone(), move |asked| {
        if asked.path != last || asked.before > 0 {
            return None;
        }
        let (began, gate, body) = (began.lock().unwrap().clone(), Arc::clone(&gate), body.clone());
        Some(Reply::script(move |stream| {
            let half = body.len() / 2;
            write!(stream, "HTTP/1.1 200 X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len())?;
            stream.write_all(&body[..half])?;
            began.send(()).unwrap();
            gate.wait();
            stream.write_all(&body[half..])
        }))
    });
    thread::scope(|scope| {
        let pull = scope.spawn(|| place.pull(&app(&server), &RegistryOptions::default()));
        asked.1.recv().unwrap();
        meanwhile(&server);
        go_on.wait();
        pull.join().unwrap()
    })
}

#[test]
fn a_pull_that_waits_for_its_registry_keeps_nobody_from_removing() {
    let place = Place::new();
    let mut other = Made::default();
    other.image("latest", &[&[("other", b"other")]], |_, _| ());
    let elsewhere = Server::start(other.files, |_| None);
    let removed = place.pull(&app(&elsewhere), &quick()).unwrap();
    let orphan = place.store.put_blob(b"nothing names this", None).unwrap();
    let image = while_a_layer_is_waited_for(&Made::usual(), &place, |_| {
        let checked = place.store.check(true).unwrap();
        assert_eq!(checked.not_looked_at, [""; 0]);
        assert_eq!(checked.leftovers.len(), 1, "only the orphan: {:?}", checked.leftovers);
        assert!(!place.store.has_blob(&orphan));
        let lines = place.store.remove(&app(&elsewhere), false, NOBODY).unwrap();
        assert!(lines.iter().any(|line| line.starts_with("Deleted: ")), "{lines:?}");
        assert!(!place.store.has_blob(&removed.digest), "its room is free at once");
        // Nor does it keep others from pulling.
        place.pull(&app(&elsewhere), &quick()).unwrap();
    });
    assert_eq!(place.read(&image.unwrap(), "big").unwrap(), noise(300_000));
    assert_eq!(place.store.check(false).unwrap().leftovers, Vec::<String>::new());
}

#[test]
fn a_layer_that_is_removed_while_another_is_waited_for_is_fetched_again() {
    let place = Place::new();
    let mut made = Made::default();
    let shared: &[(&str, &[u8])] = &[("shared", b"shared")];
    let big = noise(200_000);
    made.image("first", &[shared], |_, _| ());
    made.image("latest", &[shared, &[("big", &big)]], |_, _| ());
    let (shared, mut first) = (made.layers[0].clone(), String::new());
    let server = Server::start(made.files.clone(), |_| None);
    place.pull(&format!("127.0.0.1:{}/app:first", server.port), &quick()).unwrap();
    let name = format!("127.0.0.1:{}/app:first", server.port);
    let image = while_a_layer_is_waited_for(&made, &place, |asked| {
        place.store.remove(&name, false, NOBODY).unwrap();
        assert_eq!(asked.count(&shared), 0, "it was here, so it was not asked for");
        first = app(asked);
    });
    let image = image.unwrap();
    assert_eq!(place.read(&image, "shared").unwrap(), b"shared");
    assert_eq!(place.read(&image, "big").unwrap(), big);
    assert_eq!(place.store.check(false).unwrap(), crate::store::Checked::default());
}

#[test]
fn layers_that_wait_to_be_named_hold_no_descriptors() {
    let mut made = Made::default();
    let files: Vec<(String, Vec<u8>)> = (0..60_u8).map(|number| (format!("file{number}"), vec![number])).collect();
    let files: Vec<[(&str, &[u8]); 1]> = files.iter().map(|(name, bytes)| [(name.as_str(), &bytes[..])]).collect();
    let layers: Vec<&[(&str, &[u8])]> = files.iter().map(|layer| &layer[..]).collect();
    let big = noise(200_000);
    made.image("latest", &[&layers[..], &[&[("big", &big[..])]]].concat(), |_, _| ());
    let place = Place::new();
    let beneath = place.folder.path().to_owned();
    let held = move || {
        let open = fs::read_dir("/proc/self/fd").unwrap().flatten().flat_map(|entry| fs::read_link(entry.path()));
        open.filter(|path| path.starts_with(&beneath)).count()
    };
    let image = while_a_layer_is_waited_for(&made, &place, |_| {
        // All but three of the small layers have come: each held three descriptors once.
        let held = held();
        assert!(held < 40, "{held} descriptors are open beneath the store");
    });
    assert_eq!(place.store.layers(&image.unwrap()).unwrap().len(), 61);
}
