//! Archives in every form, loaded.

use super::*;
use crate::{
    Class, Selection,
    import::{self, Changes},
};
use serde_json::{Value, json};
use sha2::Digest as _;
use std::{fs, io::Write, path::PathBuf, process::Command};

/// Members of an archive, in their order.
#[derive(Clone, Default)]
struct Members(Vec<(String, Vec<u8>)>);

impl Members {
    fn add(&mut self, name: &str, bytes: &[u8]) {
        self.0.push((name.to_owned(), bytes.to_vec()));
    }

    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = hex(bytes);
        self.add(&format!("blobs/sha256/{digest}"), bytes);
        json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() })
    }

    /// An image of one file; its descriptor.
    fn image(&mut self, file: &str, architecture: &str) -> Value {
        let tar = tar_of(&[(file, b"content")]);
        let layer = self.blob("application/vnd.oci.image.layer.v1.tar+gzip", &gzip(&tar));
        let config = self.blob("application/vnd.oci.image.config.v1+json", &config_of(&[&tar], architecture));
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
        let mut descriptor = self.blob(MANIFEST, manifest.to_string().as_bytes());
        descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
        descriptor
    }

    fn index(&mut self, entries: &[Value]) {
        self.add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        self.add("index.json", json!({ "schemaVersion": 2, "manifests": entries }).to_string().as_bytes());
    }

    fn tar(&self, prefix: &str) -> Vec<u8> {
        let named: Vec<_> = self.0.iter().map(|(name, bytes)| (format!("{prefix}{name}"), bytes)).collect();
        let mut archive = tar::Builder::new(Vec::new());
        for (name, bytes) in &named {
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            archive.append(&header, &bytes[..]).unwrap();
        }
        archive.into_inner().unwrap()
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn hex(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut members = Members::default();
    files.iter().for_each(|(name, bytes)| members.add(name, bytes));
    members.tar("")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn config_of(tars: &[&[u8]], architecture: &str) -> Vec<u8> {
    let diff_ids: Vec<_> = tars.iter().map(|tar| format!("sha256:{}", hex(tar))).collect();
    let config = json!({ "architecture": architecture, "os": "linux", "config": { "Cmd": ["/x"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    config.to_string().into_bytes()
}

fn host() -> String {
    crate::platform::Platform::host().architecture
}

fn named(mut descriptor: Value, key: &str, name: &str) -> Value {
    descriptor["annotations"] = json!({ key: name });
    descriptor
}

fn load_all(store: &Store, path: &Path) -> Result<Vec<Loaded>, ArchiveError> {
    load(store, path, &|_| Ok(()))?.into_iter().collect()
}

struct Place {
    folder: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("root")).unwrap();
        Self { folder, store }
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join("archive");
        fs::write(&path, bytes).unwrap();
        path
    }

    fn load(&self, bytes: &[u8]) -> Result<Vec<Loaded>, ArchiveError> {
        load_all(&self.store, &self.file(bytes))
    }

    /// The only file of an image that `load` named.
    fn content(&self, name: &str, file: &str) -> Vec<u8> {
        let image = self.store.resolve(name, &Selection::default()).unwrap().unwrap();
        assert_eq!(image.classification.class, Class::Linux);
        let layers = self.store.layers(&image).unwrap();
        layers.iter().find_map(|layer| fs::read(layer.join(file)).ok()).unwrap()
    }

    fn is_clean(&self) -> bool {
        self.store.check(false).unwrap().leftovers.is_empty()
    }
}

#[test]
fn layouts_load_from_directories_and_archives_in_any_order() {
    let mut members = Members::default();
    let image = members.image("f", &host());
    members.index(&[named(image, CONTAINERD, "demo:1")]);
    let mut reversed = members.clone();
    reversed.0.reverse();
    let place = Place::new();
    let directory = place.folder.path().join("layout");
    for (name, bytes) in &members.0 {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let reference: Reference = "demo:1".parse().unwrap();
    assert_eq!(load_all(&place.store, &directory).unwrap(), [Loaded::Named(reference.clone())]);
    for (name, bytes) in [
        ("plain", members.tar("")),
        ("leading ./", members.tar("./")),
        ("index first", reversed.tar("./")),
        ("gzip", gzip(&members.tar("./"))),
        ("zstd", zstd::encode_all(&members.tar("")[..], 1).unwrap()),
    ] {
        let place = Place::new();
        assert_eq!(place.load(&bytes).unwrap(), [Loaded::Named(reference.clone())], "{name}");
        assert_eq!(place.content("demo:1", "f"), b"content", "{name}");
        assert!(place.is_clean(), "{name}");
    }
}

const CONTAINERD: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[test]
fn what_is_saved_loads_with_its_names_and_its_blobs() {
    let place = Place::new();
    let mut members = Members::default();
    let image = members.image("first", &host());
    members.index(&[named(image, CONTAINERD, "docker.io/library/one:1")]);
    place.load(&members.tar("")).unwrap();
    let image = place.store.resolve("one:1", &Selection::default()).unwrap().unwrap();
    let names: Vec<crate::Reference> = ["one:1", "localhost:5000/two:2"].map(|name| name.parse().unwrap()).into();
    let mut archive = Vec::new();
    save(&place.store, &[(image.clone(), names)], &mut archive).unwrap();
    let other = Place::new();
    assert_eq!(other.load(&archive).unwrap().len(), 2);
    for name in ["one:1", "localhost:5000/two:2"] {
        let loaded = other.store.resolve(name, &Selection::default()).unwrap().unwrap();
        assert_eq!(loaded.digest, image.digest, "{name}");
    }
    // A blob that is not what its digest says ends it.
    let layer = place.store.blob_path(image.manifest.config().digest());
    fs::write(&layer, b"{}").unwrap();
    let message = save(&place.store, &[(image, Vec::new())], &mut Vec::new()).unwrap_err().to_string();
    assert!(message.contains("not those of its digest"), "{message}");
}

#[test]
fn names_come_from_annotations_and_short_ones_are_read_as_if_typed() {
    let mut members = Members::default();
    let (a, b, c, d) = (
        members.image("a", &host()),
        members.image("b", &host()),
        members.image("c", &host()),
        members.image("d", &host()),
    );
    let unnamed = d["digest"].as_str().unwrap().to_owned();
    let mut both = named(b, REF_NAME, "1.0");
    both["annotations"][CONTAINERD] = json!("ghcr.io/x/b:1.0");
    members.index(&[
        named(a, REF_NAME, "short"),
        both,
        named(c, REF_NAME, "localhost:5000/c:2"),
        named(d, REF_NAME, "Not A Name"),
    ]);
    let place = Place::new();
    let loaded = place.load(&members.tar("./")).unwrap();
    let expected = ["docker.io/library/short:latest", "ghcr.io/x/b:1.0", "localhost:5000/c:2"];
    for (loaded, expected) in loaded.iter().zip(expected) {
        assert_eq!(*loaded, Loaded::Named(expected.parse().unwrap()));
    }
    assert!(matches!(&loaded[3], Loaded::Ignored { name, .. } if name == "Not A Name"));
    assert_eq!(loaded[4], Loaded::Unnamed(unnamed.clone()));
    assert!(place.store.resolve(&unnamed[7..20], &Selection::default()).unwrap().is_some());
    assert!(place.is_clean());
}

#[test]
fn nested_indexes_load_with_what_the_archive_has_of_them() {
    let mut members = Members::default();
    let (here, other) = (members.image("here", &host()), members.image("other", "s390x"));
    let missing = json!({ "mediaType": MANIFEST, "digest": format!("sha256:{}", hex(b"?")), "size": 1, "platform": { "os": "linux", "architecture": "riscv64" } });
    let inner = members.blob(
        INDEX,
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [missing, other, here] }).to_string().as_bytes(),
    );
    let outer = members
        .blob(INDEX, json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [inner] }).to_string().as_bytes());
    let mut too_deep = members.clone();
    members.index(&[named(outer.clone(), CONTAINERD, "multi")]);
    let place = Place::new();
    place.load(&members.tar("")).unwrap();
    assert_eq!(place.content("multi", "here"), b"content");
    let layers = fs::read_dir(place.store.root.join("layers")).unwrap().count();
    assert_eq!((layers, place.is_clean()), (1, true), "only what runs here is unpacked");
    let mut index = outer;
    for _ in 0..3 {
        index = too_deep.blob(
            INDEX,
            json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [index] }).to_string().as_bytes(),
        );
    }
    too_deep.index(&[index]);
    let place = Place::new();
    assert!(place.load(&too_deep.tar("")).unwrap_err().to_string().contains("deeper than 4"));
    assert!(place.is_clean());
}

#[test]
fn docker_archives_load_with_links_between_layers() {
    let (base, top) = (tar_of(&[("base", b"content")]), tar_of(&[("top", b"content")]));
    let mut members = Members::default();
    members.add("c.json", &config_of(&[&base, &top], &host()));
    members.add("d.json", &config_of(&[&base], &host()));
    members.add("1/layer.tar", &base);
    members.add("2/layer.tar", &gzip(&top));
    members.add("manifest.json", json!([
        { "Config": "c.json", "RepoTags": ["demo:1", "localhost:5000/demo:2"], "Layers": ["1/layer.tar", "2/layer.tar"] },
        { "Config": "d.json", "RepoTags": null, "Layers": ["3/layer.tar"] },
    ]).to_string().as_bytes());
    let mut archive = tar::Builder::new(members.tar("./"));
    // The builder appends behind the end-of-archive blocks, which are cut off here.
    let inner = archive.get_mut();
    inner.truncate(inner.len() - 1024);
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    link.set_mode(0o777);
    archive.append_link(&mut link, "3/layer.tar", "../1/layer.tar").unwrap();
    let place = Place::new();
    let loaded = place.load(&archive.into_inner().unwrap()).unwrap();
    let expected = ["demo:1", "localhost:5000/demo:2"].map(|name| Loaded::Named(name.parse().unwrap()));
    assert_eq!(loaded[..2], expected);
    assert!(matches!(&loaded[2], Loaded::Unnamed(digest) if digest.starts_with("sha256:")));
    assert_eq!(
        (place.content("demo:1", "base"), place.content("demo:1", "top")),
        (b"content".to_vec(), b"content".to_vec())
    );
    assert!(place.is_clean());
}

#[test]
fn damaged_archives_are_refused_and_leave_nothing() {
    let mut good = Members::default();
    let image = good.image("f", &host());
    good.index(std::slice::from_ref(&image));
    let without = |part: &str| {
        let mut members = good.clone();
        members.0.retain(|(name, _)| !name.contains(part));
        members.tar("")
    };
    let layer = &good.0[0].0.clone();
    let mut altered = good.clone();
    altered.0[0].1[20] ^= 1;
    let mut altered_config = good.clone();
    altered_config.0[1].1[20] ^= 1;
    let mut bad_index = good.clone();
    bad_index.add("index.json", b"{");
    let mut wrong_diff = Members::default();
    wrong_diff.add("c.json", &config_of(&[b"?"], &host()));
    wrong_diff.add("l.tar", &tar_of(&[("x", b"x")]));
    wrong_diff.add("manifest.json", br#"[{"Config":"c.json","RepoTags":[],"Layers":["l.tar"]}]"#);
    let mut outside = wrong_diff.clone();
    outside.add("manifest.json", br#"[{"Config":"../../etc/passwd","RepoTags":[],"Layers":[]}]"#);
    let whole = good.tar("");
    for (name, bytes, expected) in [
        ("no layer", without(layer), "needs"),
        ("layer altered", altered.tar(""), "blobs/sha256"),
        ("config altered", altered_config.tar(""), "digest"),
        ("index is no JSON", bad_index.tar(""), "index.json"),
        ("diff id", wrong_diff.tar(""), "diff id"),
        ("path out of the archive", outside.tar(""), "passwd"),
        ("cut in a member", whole[..560].to_vec(), "cut short"),
        ("cut between members", whole[..1024].to_vec(), "cut short"),
        ("a root file system", tar_of(&[("bin/sh", b"#!")]), "no archive of images"),
        ("no tar", b"hello".to_vec(), "no archive of images"),
        ("cut gzip", gzip(&whole)[..300].to_vec(), ""),
    ] {
        let place = Place::new();
        let error = place.load(&bytes).expect_err(name).to_string();
        println!("{name}: {error}");
        assert!(error.contains(expected), "{name}: {error}");
        let blobs = fs::read_dir(place.store.root.join("image-layout/blobs/sha256")).unwrap().count();
        assert_eq!((blobs, place.is_clean()), (0, true), "{name}");
    }
}

#[test]
fn archives_of_skopeo_load() {
    let source = Place::new();
    let name: Reference = "localhost:5000/made:1".parse().unwrap();
    import::import_files(&source.store, &[("f", 0o644, b"content")], &name, &Changes::default()).unwrap();
    let layout = source.store.root.join("image-layout");
    for (kind, to, loaded) in [
        ("oci-archive", "oci-archive:FILE:demo:2", "demo:2"),
        ("docker-archive", "docker-archive:FILE:demo:2", "demo:2"),
        ("oci directory", "oci:FILE:demo:2", "demo:2"),
    ] {
        let place = Place::new();
        let file = place.folder.path().join("archive");
        let to = to.replace("FILE", file.to_str().unwrap());
        let from = format!("oci:{}:{name}", layout.display());
        match Command::new("skopeo").args(["--insecure-policy", "copy", "--quiet", &from, &to]).output() {
            Err(error) => return println!("skipped: skopeo: {error}"),
            Ok(done) => assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr)),
        }
        assert_eq!(load_all(&place.store, &file).unwrap(), [Loaded::Named(loaded.parse().unwrap())], "{kind}");
        assert_eq!(place.content(loaded, "f"), b"content", "{kind}");
        assert!(place.is_clean(), "{kind}");
    }
}

#[test]
fn a_name_moves_only_to_an_image_that_is_ready_and_others_are_loaded_all_the_same() {
    let mut members = Members::default();
    let image = members.image("good", &host());
    members.index(&[named(image, CONTAINERD, "a")]);
    let place = Place::new();
    place.load(&members.tar("")).unwrap();
    let mut members = Members::default();
    let (bad, other) = (members.image("bad", &host()), members.image("other", &host()));
    members.index(&[named(bad.clone(), CONTAINERD, "a"), named(other, CONTAINERD, "b")]);
    let file = place.file(&members.tar(""));
    let refuse = |image: &crate::Image| {
        let is_bad = image.digest.to_string() == bad["digest"].as_str().unwrap();
        if is_bad { Err("it does not compile".to_owned()) } else { Ok(()) }
    };
    let loaded = load(&place.store, &file, &refuse).unwrap();
    assert!(loaded[0].as_ref().unwrap_err().to_string().contains("it does not compile; no name was given"));
    assert_eq!(*loaded[1].as_ref().unwrap(), Loaded::Named("b".parse().unwrap()));
    assert_eq!(place.content("a", "good"), b"content");
    assert!(place.is_clean(), "nothing of the bad one is left");
}

#[test]
fn a_name_that_moves_is_told_with_the_digest_that_it_stood_for() {
    let place = Place::new();
    let mut from = String::new();
    for file in ["first", "second"] {
        let mut members = Members::default();
        let image = members.image(file, &host());
        let digest = image["digest"].as_str().unwrap().to_owned();
        members.index(&[named(image, CONTAINERD, "a")]);
        let loaded = place.load(&members.tar("")).unwrap();
        let reference: Reference = "a".parse().unwrap();
        let expected = if from.is_empty() { Loaded::Named(reference) } else { Loaded::Moved { reference, from } };
        assert_eq!(loaded, [expected]);
        from = digest;
    }
}

/// A power cut left a short one, which `load` named and left as it was.
#[test]
fn a_layer_whose_blob_is_damaged_is_written_again() {
    let mut members = Members::default();
    let image = members.image("f", &host());
    members.index(&[named(image, CONTAINERD, "a")]);
    let place = Place::new();
    let is_blob = |(name, _): &&(String, Vec<u8>)| name.starts_with("blobs/");
    let (name, whole) = members.0.iter().find(is_blob).unwrap();
    let path = place.store.blob_path(&name.trim_start_matches("blobs/").replace('/', ":").parse().unwrap());
    for damaged in [&whole[..0], &whole[..9], &vec![0; whole.len()]] {
        fs::write(&path, damaged).unwrap();
        place.load(&members.tar("")).unwrap();
        assert!(fs::read(&path).unwrap() == *whole, "{} bytes that nothing named", damaged.len());
        if damaged.len() < whole.len() {
            fs::write(&path, damaged).unwrap();
            place.load(&members.tar("")).unwrap();
            assert!(fs::read(&path).unwrap() == *whole, "{} bytes that are an image's", damaged.len());
        }
        place.store.remove("a", true, &|| Ok(Default::default())).unwrap();
    }
}

#[test]
fn a_digest_in_an_archives_name_is_not_believed() {
    let mut members = Members::default();
    let image = members.image("f", &host());
    let digest = image["digest"].clone();
    let claimed = format!("busybox@sha256:{}", hex(b"another"));
    members.index(&[named(image, REF_NAME, &claimed)]);
    let place = Place::new();
    let loaded = place.load(&members.tar("")).unwrap();
    assert!(matches!(&loaded[0], Loaded::Ignored { name, .. } if *name == claimed));
    assert_eq!(loaded[1..], [Loaded::Unnamed(digest.as_str().unwrap().to_owned())]);
    assert!(place.store.resolve(&claimed, &Selection::default()).unwrap().is_none());
}

#[test]
fn a_directory_is_read_beneath_itself_without_links_or_waiting() {
    let mut members = Members::default();
    let image = members.image("f", &host());
    members.index(&[image]);
    let layer = members.0[0].0.clone();
    for attack in ["link", "fifo", "device"] {
        let place = Place::new();
        let directory = place.folder.path().join("layout");
        for (name, bytes) in &members.0 {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let target = directory.join(&layer);
        fs::rename(&target, place.folder.path().join("outside")).unwrap();
        match attack {
            "link" => std::os::unix::fs::symlink(place.folder.path().join("outside"), &target).unwrap(),
            "fifo" => nix::unistd::mkfifo(&target, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            _ => std::os::unix::fs::symlink("/dev/zero", &target).unwrap(),
        }
        let error = load_all(&place.store, &directory).unwrap_err().to_string();
        assert!(error.contains("link") || error.contains("plain file"), "{attack}: {error}");
        assert!(place.is_clean());
    }
}

#[test]
fn files_and_pipes_are_read_and_nothing_else() {
    let mut members = Members::default();
    let image = members.image("f", &host());
    members.index(&[named(image, CONTAINERD, "demo:1")]);
    let place = Place::new();
    let import = |path: &Path| {
        import::import(&place.store, path, &"x".parse().unwrap(), &Changes::default(), &|_| Ok(()))
            .map(|image| image.digest)
    };
    for device in ["/dev/zero", "/dev/null"] {
        let refused = load_all(&place.store, Path::new(device)).unwrap_err().to_string();
        assert!(refused.contains(device) && refused.contains("it is a device"), "{refused}");
        assert!(import(Path::new(device)).unwrap_err().to_string().contains("it is a device"));
    }
    assert!(import(place.folder.path()).unwrap_err().to_string().contains("it is a folder"));

    let pipe = place.folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let written = |bytes: Vec<u8>, endless: bool| {
        let pipe = pipe.clone();
        std::thread::spawn(move || {
            let mut writer = fs::OpenOptions::new().write(true).open(pipe).unwrap();
            // Ends when nobody reads any more.
            while writer.write_all(&bytes).is_ok() && endless {}
        })
    };
    let writer = written(gzip(&members.tar("")), false);
    assert_eq!(load_all(&place.store, &pipe).unwrap(), [Loaded::Named("demo:1".parse().unwrap())]);
    writer.join().unwrap();
    for endless in [vec![0; 4096], b"no archive, and no end ".repeat(100)] {
        let writer = written(endless.clone(), true);
        assert!(matches!(load_all(&place.store, &pipe), Err(ArchiveError::Unknown { .. })));
        writer.join().unwrap();
        let writer = written(endless.clone(), true);
        // Zeros are an archive without entries.
        let zeros = endless[0] == 0;
        assert_eq!(import(&pipe).is_ok(), zeros);
        writer.join().unwrap();
    }
    assert!(place.is_clean());
}

#[test]
fn more_layers_than_can_be_mounted_are_refused_before_any_is_read() {
    let layer = json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": format!("sha256:{}", hex(b"x")), "size": 1 });
    let mut members = Members::default();
    let config =
        members.blob("application/vnd.oci.image.config.v1+json", &config_of(&vec![&b"x"[..]; 10_000], &host()));
    let layers = vec![layer; 10_000];
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    let image = members.blob(MANIFEST, manifest.to_string().as_bytes());
    members.index(&[image]);
    let refused = Place::new().load(&members.tar("")).unwrap_err().to_string();
    assert!(refused.contains("it has 10000 layers; at most 500"), "{refused}");

    let mut members = Members::default();
    members.add("config", &config_of(&vec![&b"x"[..]; 501], &host()));
    let saved = json!([{ "Config": "config", "RepoTags": ["x:1"], "Layers": vec!["layer"; 501] }]);
    members.add("manifest.json", saved.to_string().as_bytes());
    let refused = Place::new().load(&members.tar("")).unwrap_err().to_string();
    assert!(refused.contains("it has 501 layers; at most 500"), "{refused}");
}

/// A pipe that stalled held the lock of those who write, and nothing could be removed.
#[test]
fn a_pipe_that_is_waited_for_keeps_nobody_from_removing() {
    let place = Place::new();
    let path = place.folder.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| load_all(&place.store, &path));
        // Opened once the other side is.
        let mut writer = fs::OpenOptions::new().write(true).open(&path).unwrap();
        writer.write_all(&[b'x'; 512]).unwrap();
        assert!(place.store.while_nobody_writes(|| ()).unwrap().is_some());
        drop(writer);
        assert!(matches!(loading.join().unwrap(), Err(ArchiveError::Unknown { .. })));
    });
}

#[test]
fn a_pipe_is_not_waited_for_for_ever() {
    let (reader, _writer) = std::io::pipe().unwrap();
    let limits = crate::budget::Limits { time: std::time::Duration::from_millis(20), ..Default::default() };
    let mut pipe = input::Pipe { file: std::os::fd::OwnedFd::from(reader).into(), budget: crate::Budget::new(limits) };
    let error = io::copy(&mut pipe, &mut io::sink()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
}

#[test]
fn names_that_are_ids_are_not_given() {
    let mut members = Members::default();
    let image = members.image("f", &host());
    let digest = image["digest"].as_str().unwrap().to_owned();
    let ids = ["sha256:abcdef", "0123456789ab", &hex(b"another")[..], "docker.io/library/sha256:abcd"];
    let named: Vec<Value> = ids.iter().map(|id| named(image.clone(), CONTAINERD, id)).collect();
    members.index(&named);
    let place = Place::new();
    let loaded = place.load(&members.tar("")).unwrap();
    let ignored = loaded.iter().filter(|one| matches!(one, Loaded::Ignored { reason, .. } if reason.contains("id")));
    assert_eq!(ignored.count(), ids.len(), "{loaded:?}");
    assert!(loaded.contains(&Loaded::Unnamed(digest)));
}
