//! Pulls from a registry that misbehaves, and from a real one.

mod hostile;
mod late_lock;
mod real;
mod server;

use super::*;
use crate::{Class, store::Checked};
use serde_json::{Value, json};
use server::{Reply, Server, digest};
use std::{collections::HashMap, fs, io::Write, sync::Mutex, time::Duration};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const GZIP_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image as a registry's files, by path.
#[derive(Clone, Default)]
struct Made {
    files: HashMap<String, Vec<u8>>,
    /// Digests of the layers' blobs.
    layers: Vec<String>,
}

impl Made {
    fn blob(&mut self, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        self.files.insert(format!("/v2/app/blobs/{digest}"), bytes.to_vec());
        json!({ "digest": digest, "size": bytes.len() })
    }

    fn manifest(&mut self, tag: &str, document: &Value) -> Value {
        let bytes = document.to_string().into_bytes();
        let digest = digest(&bytes);
        self.files.insert(format!("/v2/app/manifests/{tag}"), bytes.clone());
        self.files.insert(format!("/v2/app/manifests/{digest}"), bytes.clone());
        json!({ "mediaType": document["mediaType"], "digest": digest, "size": bytes.len() })
    }

    /// One layer a list of files; `change` may damage the config and the manifest.
    fn image(&mut self, tag: &str, layers: &[&[(&str, &[u8])]], change: impl Fn(&mut Value, &mut Value)) -> Value {
        let (mut descriptors, mut diff_ids) = (Vec::new(), Vec::new());
        for files in layers {
            let tar = tar_of(files);
            diff_ids.push(digest(&tar));
            let mut descriptor = self.blob(&gzip(&tar));
            descriptor["mediaType"] = json!(GZIP_LAYER);
            self.layers.push(descriptor["digest"].as_str().unwrap().to_owned());
            descriptors.push(descriptor);
        }
        let architecture = crate::platform::Platform::host().architecture;
        let mut config = json!({
            "architecture": architecture, "os": "linux", "config": { "Cmd": ["/bin/x"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let mut manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "layers": descriptors });
        change(&mut config, &mut manifest);
        let mut descriptor = self.blob(config.to_string().as_bytes());
        descriptor["mediaType"] = json!(CONFIG);
        manifest["config"] = descriptor;
        self.manifest(tag, &manifest)
    }

    /// Two layers, one of them large enough to be cut.
    fn usual() -> Self {
        let mut made = Self::default();
        let noise = noise(300_000);
        made.image("latest", &[&[("bin/x", b"#!"), ("big", &noise)], &[("etc/y", b"y")]], |_, _| ());
        made
    }

    fn layer_path(&self, number: usize) -> String {
        format!("/v2/app/blobs/{}", self.layers[number])
    }
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, path, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Counts what it is told.
#[derive(Default)]
struct Counter(Mutex<HashMap<String, (u64, u64, bool, bool)>>);

impl Progress for Counter {
    fn layer(&self, id: &str, total: u64, exists: bool) {
        assert_eq!(id.len(), 12);
        self.0.lock().unwrap().insert(id.to_owned(), (total, 0, exists, false));
    }
    fn advance(&self, id: &str, bytes: u64) {
        self.0.lock().unwrap().get_mut(id).unwrap().1 += bytes;
    }
    fn done(&self, id: &str) {
        self.0.lock().unwrap().get_mut(id).unwrap().3 = true;
    }
}

/// A store of its own.
struct Place {
    folder: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        Self { folder, store }
    }

    /// All files beneath the store but its fixed ones.
    fn everything(&self) -> Vec<String> {
        let list = |name: &str| {
            let folder = fs::read_dir(self.folder.path().join(name)).unwrap();
            folder.map(|entry| entry.unwrap().path().display().to_string()).collect::<Vec<_>>()
        };
        [list("image-layout/blobs/sha256"), list("layers"), list("temporary")].concat()
    }

    fn pull(&self, reference: &str, options: &RegistryOptions) -> Result<Image, PullError> {
        pull(&self.store, &reference.parse().unwrap(), &Selection::default(), options, &Counter::default(), &|_| Ok(()))
    }

    fn read(&self, image: &Image, path: &str) -> Option<Vec<u8>> {
        self.store.layers(image).unwrap().iter().find_map(|layer| fs::read(layer.join(path)).ok())
    }
}

/// Fast enough for tests.
fn quick() -> RegistryOptions {
    RegistryOptions {
        pace: Pace { window: Duration::from_millis(400), ..Pace::default() },
        retry_delay: Duration::from_millis(5),
        ..RegistryOptions::default()
    }
}

/// Pulls what must fail, and checks that nothing of it is left.
fn fails(server: &Server, name: &str, expected: &[&str]) {
    let place = Place::new();
    let error = place.pull(name, &quick()).expect_err(name).to_string();
    println!("{error}");
    for part in expected {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
    assert!(error.contains(&format!("127.0.0.1:{}", server.port)), "{error}");
    assert_eq!(place.everything(), Vec::<String>::new(), "{error}");
    assert_eq!(place.store.check(false).unwrap().leftovers, Vec::<String>::new(), "{error}");
}

fn app(server: &Server) -> String {
    format!("127.0.0.1:{}/app:latest", server.port)
}

#[test]
fn an_image_is_pulled_whole_and_not_twice() {
    let made = Made::usual();
    let server = Server::start(made.files, |_| None);
    let (place, progress) = (Place::new(), Counter::default());
    let reference = app(&server).parse().unwrap();
    let image = pull(&place.store, &reference, &Selection::default(), &quick(), &progress, &|_| Ok(())).unwrap();
    assert_eq!(image.classification.class, Class::Linux);
    assert_eq!(place.read(&image, "etc/y").unwrap(), b"y");
    assert_eq!(place.read(&image, "big").unwrap(), noise(300_000));
    assert_eq!(place.store.check(false).unwrap().leftovers, Vec::<String>::new());
    for (total, received, exists, done) in progress.0.lock().unwrap().values() {
        assert!(total == received && !exists && *done);
    }
    let (again, blobs) = (Counter::default(), server.count("/blobs/"));
    pull(&place.store, &reference, &Selection::default(), &quick(), &again, &|_| Ok(())).unwrap();
    assert!(again.0.lock().unwrap().values().all(|(_, received, exists, _)| *exists && *received == 0));
    assert_eq!(server.count("/blobs/"), blobs + 1, "only the config is fetched again");
    assert_eq!(remote_digest(&reference, &quick()).unwrap(), image.digest.to_string());
}

#[test]
fn a_layer_that_is_there_but_not_unpacked_is_unpacked_from_there() {
    let made = Made::usual();
    let server = Server::start(made.files.clone(), |_| None);
    let place = Place::new();
    let image = place.pull(&app(&server), &quick()).unwrap();
    for layer in place.store.layers(&image).unwrap() {
        fs::remove_dir_all(layer).unwrap();
    }
    place.pull(&app(&server), &quick()).unwrap();
    assert!(fs::read_dir(place.folder.path().join("layers")).unwrap().count() == 2);
    assert_eq!(server.count(&made.layers[0]), 1);
}

/// A power cut left a short one; a pull failed for ever, "removed again by another command".
#[test]
fn a_layer_whose_blob_is_damaged_is_fetched_again() {
    let made = Made::usual();
    let server = Server::start(made.files, |_| None);
    let place = Place::new();
    let image = place.pull(&app(&server), &quick()).unwrap();
    let layer = image.manifest.layers()[0].digest().clone();
    let path = place.store.blob_path(&layer);
    let whole = fs::read(&path).unwrap();
    let is_whole = |what: &str| {
        assert!(fs::read(&path).unwrap() == whole, "{what}");
        assert_eq!(place.store.check(false).unwrap(), Checked::default(), "{what}");
    };
    fs::write(&path, &whole[..100]).unwrap();
    place.pull(&app(&server), &quick()).unwrap();
    is_whole("short, and unpacked");
    fs::write(&path, &whole[..100]).unwrap();
    fs::remove_dir_all(&place.store.layers(&image).unwrap()[0]).unwrap();
    place.pull(&app(&server), &quick()).unwrap();
    is_whole("short, and not unpacked");
    fs::write(&path, vec![0; whole.len()]).unwrap();
    fs::remove_dir_all(&place.store.layers(&image).unwrap()[0]).unwrap();
    assert!(place.store.layers(&image).is_err());
    place.pull(&app(&server), &quick()).unwrap();
    is_whole("other bytes, and not unpacked");
    place.store.forget_verified(&layer).unwrap();
    fs::write(&path, vec![0; whole.len()]).unwrap();
    place.pull(&app(&server), &quick()).unwrap();
    is_whole("other bytes that were never hashed");
}

#[test]
fn answers_of_a_registry_become_sentences() {
    let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#;
    let basic = ("WWW-Authenticate", r#"Basic realm="x""#);
    let table: Vec<(Reply, &[&str], usize)> = vec![
        (Reply::new(401, b"").header(basic.0, basic.1), &["401", "it wants a user and a password"], 1),
        (Reply::new(403, b""), &["403"], 1),
        (Reply::new(404, b"gone"), &["404", "gone", "check the name"], 1),
        (Reply::new(429, body).header("Retry-After", "0"), &["429", "slow down", "4 tries"], 4),
        (Reply::new(500, b""), &["500", "4 tries"], 4),
        (Reply::new(503, b"<html>").header("Retry-After", "0"), &["503"], 4),
        (Reply::new(418, b"teapot"), &["418", "teapot"], 1),
        (Reply::new(200, b"{"), &["the manifest does not make sense"], 1),
        (Reply::new(200, br#"{"schemaVersion":1}"#), &["schema 1"], 1),
        (Reply { cut: Some(3), ..Reply::new(200, b"{\"schemaVersion\":2}") }, &["broke 4 times"], 4),
        (Reply { pause: Duration::from_secs(2), ..Reply::new(200, b"{}") }, &["had not answered after 0.4 s"], 1),
    ];
    for (reply, expected, requests) in table {
        let server =
            Server::start(HashMap::new(), move |asked| asked.path.contains("/manifests/").then(|| reply.clone()));
        fails(&server, &app(&server), expected);
        assert_eq!(server.count("/manifests/"), requests, "{expected:?}");
    }
}

#[test]
fn a_registry_that_recovers_is_asked_again() {
    let server = Server::start(Made::usual().files, |asked| {
        (asked.before < 2 && !asked.path.ends_with("/v2/"))
            .then(|| Reply::new(503, b"not yet").header("Retry-After", "0"))
    });
    Place::new().pull(&app(&server), &quick()).unwrap();
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    let made = Made::usual();
    let (path, bytes) = (made.layer_path(0), made.files[&made.layer_path(0)].clone());
    for ranges in [true, false] {
        let (path, bytes) = (path.clone(), bytes.clone());
        let server = Server::start(made.files.clone(), move |asked| {
            let whole =
                Reply { cut: (asked.before < 2).then_some(100_000 * (asked.before + 1)), ..Reply::new(200, &bytes) };
            (asked.path == path && (asked.before == 0 || !ranges)).then_some(whole)
        });
        let place = Place::new();
        let image = place.pull(&app(&server), &quick()).unwrap();
        assert_eq!(place.read(&image, "big").unwrap(), noise(300_000));
        let asked = server.asked.lock().unwrap();
        assert!(asked.iter().any(|asked| asked.headers.contains_key("range")));
    }
}

#[test]
fn layers_that_do_not_arrive_leave_nothing() {
    let made = Made::usual();
    let (path, bytes) = (made.layer_path(0), made.files[&made.layer_path(0)].clone());
    let mut altered = bytes.clone();
    altered[150_000] ^= 1;
    let cut = Reply { cut: Some(100_000), ..Reply::new(200, &bytes) };
    let table: Vec<(Reply, &[&str])> = vec![
        (cut.clone(), &["broke 4 times", "100000 bytes"]),
        (Reply { pause: Duration::from_secs(2), ..cut }, &["sent nothing"]),
        (Reply::new(200, &altered), &["digest", "was expected"]),
        (Reply::new(200, &[&bytes[..], b"more"].concat()), &["more bytes came"]),
        (Reply::new(404, b""), &["404", "layer sha256:"]),
        (Reply::new(500, b""), &["500"]),
    ];
    for (reply, expected) in table {
        let path = path.clone();
        let server = Server::start(made.files.clone(), move |asked| (asked.path == path).then(|| reply.clone()));
        fails(&server, &app(&server), expected);
    }
}

#[test]
fn images_that_contradict_themselves_leave_nothing() {
    let wrong = digest(b"something else");
    let layers: &[&[(&str, &[u8])]] = &[&[("a", b"a")], &[("b", b"b")]];
    let mut diff_id = Made::default();
    diff_id.image("latest", layers, |config, _| config["rootfs"]["diff_ids"][1] = json!(wrong));
    let mut count = Made::default();
    count.image("latest", layers, |config, _| config["rootfs"]["diff_ids"] = json!([]));
    let mut traversal = Made::default();
    traversal.image("latest", layers, |config, _| {
        config["rootfs"]["diff_ids"][0] = json!("sha256:../../../../../../../../x");
    });
    let mut size = Made::default();
    size.image("latest", layers, |_, manifest| manifest["layers"][0]["size"] = json!(1_000_000));
    let mut encrypted = Made::default();
    encrypted.image("latest", layers, |_, manifest| {
        manifest["layers"][0]["mediaType"] = json!(format!("{GZIP_LAYER}+encrypted"));
    });
    let mut no_gzip = Made::default();
    no_gzip.image("latest", &[], |config, manifest| {
        config["rootfs"]["diff_ids"] = json!([wrong]);
        manifest["layers"] = json!([{ "mediaType": GZIP_LAYER, "digest": digest(b"no tar"), "size": 6 }]);
    });
    no_gzip.blob(b"no tar");
    let mut hostile = Made::default();
    let mut tar = tar_of(&[("aa/x", b"x")]);
    tar[..4].copy_from_slice(b"../x");
    tar[148..156].copy_from_slice(b"        ");
    let sum: u32 = tar[..512].iter().map(|&byte| u32::from(byte)).sum();
    tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut blob = hostile.blob(&gzip(&tar));
    blob["mediaType"] = json!(GZIP_LAYER);
    hostile.image("latest", &[], |config, manifest| {
        config["rootfs"]["diff_ids"] = json!([digest(&tar)]);
        manifest["layers"] = json!([blob]);
    });
    let table: Vec<(Made, &[&str])> = vec![
        (diff_id, &["diff id", "config says"]),
        (count, &["0 diff ids for 2 layers"]),
        (traversal, &["diff id"]),
        (size, &["layer sha256:"]),
        (encrypted, &["encrypted"]),
        (no_gzip, &["layer sha256:", "cut short"]),
        (hostile, &["`../x`", ".."]),
    ];
    for (made, expected) in table {
        let server = Server::start(made.files, |_| None);
        fails(&server, &app(&server), expected);
    }
}

#[test]
fn manifests_of_a_hundred_megabytes_are_not_read() {
    for endless in [0, 1000] {
        let body = if endless == 0 { vec![b' '; 100 << 20] } else { vec![b' '; 100 << 10] };
        let server = Server::start(HashMap::new(), move |asked| {
            asked.path.contains("/manifests/").then(|| Reply { endless, ..Reply::new(200, &body) })
        });
        fails(&server, &app(&server), &["manifest latest is larger than 4194304 bytes"]);
    }
    let mut made = Made::default();
    made.image("latest", &[], |config, _| config["author"] = json!("x".repeat(9 << 20)));
    let server = Server::start(made.files, |_| None);
    fails(&server, &app(&server), &["the config is larger than"]);
}

#[test]
fn indexes_are_followed_to_the_right_manifest_and_end() {
    let mut made = Made::default();
    let here = made.image("here", &[&[("here", b"1")]], |_, _| ());
    let other = made.image("other", &[&[("other", b"1")]], |config, _| config["architecture"] = json!("s390x"));
    let architecture = crate::platform::Platform::host().architecture;
    let entry = |mut descriptor: Value, architecture: &str| {
        descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
        descriptor
    };
    let entries = [entry(other, "s390x"), entry(here.clone(), &architecture)];
    let mut nested = made.manifest("index1", &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }));
    for depth in 2..6 {
        let document = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [nested] });
        nested = made.manifest(&format!("index{depth}"), &document);
    }
    let server = Server::start(made.files.clone(), |_| None);
    let name = |tag: &str| format!("127.0.0.1:{}/app:{tag}", server.port);
    for tag in ["index1", "index4"] {
        let place = Place::new();
        let image = place.pull(&name(tag), &quick()).unwrap();
        assert_eq!(image.digest.to_string(), here["digest"].as_str().unwrap());
        assert_eq!(place.read(&image, "here").unwrap(), b"1");
        assert_eq!(place.store.check(false).unwrap().leftovers, Vec::<String>::new());
    }
    fails(&server, &name("index5"), &["deeper than 4"]);
    let selection = Selection { platform: Some("linux/arm64".parse().unwrap()), ..Selection::default() };
    let place = Place::new();
    let error =
        pull(&place.store, &name("index1").parse().unwrap(), &selection, &quick(), &Counter::default(), &|_| Ok(()))
            .unwrap_err();
    assert!(error.to_string().contains("linux/s390x"), "{error}");
    let error =
        pull(&place.store, &name("here").parse().unwrap(), &selection, &quick(), &Counter::default(), &|_| Ok(()))
            .unwrap_err();
    assert!(error.to_string().contains("linux/arm64"), "{error}");
    assert_eq!(place.everything(), Vec::<String>::new());
    // An index cannot hold its own digest; a registry that serves it for any digest lies.
    let index = made.files["/v2/app/manifests/index5"].clone();
    let server =
        Server::start(HashMap::new(), move |asked| asked.path.contains("/manifests/").then(|| Reply::new(200, &index)));
    fails(&server, &app(&server), &["should have digest"]);
}

#[test]
fn what_cannot_run_here_is_stored_and_not_unpacked() {
    let mut made = Made::default();
    made.image("latest", &[&[("Windows/x", b"x")]], |config, _| config["os"] = json!("windows"));
    let server = Server::start(made.files, |_| None);
    let place = Place::new();
    let image = place.pull(&app(&server), &quick()).unwrap();
    assert_eq!(image.classification.class, Class::Windows);
    assert_eq!(fs::read_dir(place.folder.path().join("layers")).unwrap().count(), 0);
    assert_eq!(place.store.check(false).unwrap().leftovers, Vec::<String>::new());
}

#[test]
fn a_registry_that_is_not_there_is_named() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let error = Place::new().pull(&format!("localhost:{port}/app"), &quick()).unwrap_err().to_string();
    assert!(error.contains("refuses connections") && error.contains("is a registry running there"), "{error}");
    assert!(remote_digest(&format!("127.0.0.1:{port}/app").parse().unwrap(), &quick()).is_err());
}

#[test]
fn a_token_server_is_asked_for_a_token() {
    let table = [
        (Some(("user", "secret")), Ok(())),
        (Some(("user", "wrong")), Err("the user or the password is wrong")),
        (None, Err("it wants a user and a password")),
    ];
    for (credentials, expected) in table {
        let server = Server::start(Made::usual().files, |asked| {
            let authorization = asked.headers.get("authorization").map(String::as_str);
            let realm = format!("http://{}/token", asked.headers["host"]);
            match (asked.path.split('?').next(), authorization) {
                // user:secret
                (Some("/token"), Some("Basic dXNlcjpzZWNyZXQ=")) if asked.path.contains("repository%3Aapp%3Apull") => {
                    Some(Reply::new(200, br#"{"token":"let-me-in"}"#))
                }
                (Some("/token"), _) => Some(Reply::new(401, b"no")),
                (_, Some("Bearer let-me-in")) => None,
                _ => Some(
                    Reply::new(401, b"").header("WWW-Authenticate", &format!(r#"Bearer realm="{realm}",service="s""#)),
                ),
            }
        });
        let credentials = credentials.map(|(user, password)| (user.to_owned(), password.to_owned()));
        let place = Place::new();
        let pulled = place.pull(&app(&server), &RegistryOptions { credentials, ..quick() });
        match (pulled, expected) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(part)) => {
                let error = error.to_string();
                assert!(error.contains(part) && error.contains("/token?… answers 401: no"), "{error}");
            }
            (pulled, expected) => panic!("{pulled:?}, expected {expected:?}"),
        }
    }
}
