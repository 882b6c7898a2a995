//! Small inputs that ask for much memory, each in a process of its own that may have 256 MiB and no more.

use crate::{Budget, Reference, Store, archive, import, unpack};
use nix::sys::resource::{Resource, setrlimit};
use serde_json::json;
use std::{
    env,
    error::Error,
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
    process::Command,
};
use tar::{EntryType, Header};

const LIMIT_BYTES: u64 = 256 << 20;
const CASE: &str = "AMPHORA_TEST_MEMORY_CASE";
const TEST: &str = "budget::memory::no_hostile_input_takes_more_than_256_mib";

type Outcome = Result<(), Box<dyn Error>>;

/// What happens to an input, given a folder to work in, and a part of the message that it is refused with; None: it is
/// taken.
type Case = (&'static str, fn(&Path) -> Outcome, Option<&'static str>);

const CASES: &[Case] = &[
    ("a gigabyte of PAX headers before one entry", pax_headers, Some("extension headers of")),
    ("a gigabyte of long names before one entry", long_names, Some("extension headers of")),
    ("attributes of directories", directory_attributes, Some("more than 67108864 bytes of memory")),
    ("directories", directories, Some("more than 67108864 bytes of memory")),
    ("directories of many layers", many_layers, None),
    ("a million entries", many_entries, None),
    ("a very deep path", deep_path, None),
    ("a map of holes without end", sparse_map, Some("more than 65536 pieces")),
    ("6 GB of holes", sparse_file, None),
    ("a sparse Wasm file", sparse_wasm, Some("more than 134217728 bytes")),
    ("an archive's names", archive_names, Some("the names of its members would need more than")),
    ("an archive's PAX headers", archive_headers, Some("extension headers of")),
    ("an index of nothing but braces", braces_in_index, Some("its documents would need more than")),
    ("a config of nothing but braces", braces_in_config, Some("its documents would need more than")),
    ("documents of many images", many_documents, Some("more than 4096 documents")),
    ("a manifest of many layers", layers_in_manifest, Some("at most 500 can be put on top")),
    ("a zstd window of 128 MiB", largest_window, None),
    ("a zstd window of 1 GiB", huge_window, Some("at most 134217728 are possible")),
    ("a gigabyte of zeros, compressed", zeros, Some("is not a valid tar archive")),
];

/// A stream made while it is read: pieces, one after the other.
struct Made<F> {
    make: F,
    number: u64,
    piece: Vec<u8>,
    at: usize,
}

fn made(make: impl FnMut(u64) -> Option<Vec<u8>> + Send) -> impl Read + Send {
    Made { make, number: 0, piece: Vec::new(), at: 0 }
}

impl<F: FnMut(u64) -> Option<Vec<u8>>> Read for Made<F> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            let Some(piece) = (self.make)(self.number) else { return Ok(0) };
            (self.piece, self.at, self.number) = (piece, 0, self.number + 1);
        }
        let count = (&self.piece[self.at..]).read(out)?;
        self.at += count;
        Ok(count)
    }
}

fn entry(kind: EntryType, name: &str, data: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(data.len() as u64);
    header.set_cksum();
    let mut bytes = [header.as_bytes(), data].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn pax(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (rest + 1..).find(|length| length.to_string().len() + rest == *length).unwrap();
    let record = [format!("{length} {key}=").as_bytes(), value, b"\n"].concat();
    entry(EntryType::XHeader, "x", &record)
}

/// A directory whose name is as long as a path can be.
fn long_directory(number: u64) -> Vec<u8> {
    let name = format!("{}{number:0>250}", format!("{}/", "a".repeat(250)).repeat(14));
    [pax("path", name.as_bytes()), entry(EntryType::Directory, "d", b"")].concat()
}

fn unpacked(folder: &Path, budget: &Budget, mut tar: impl Read) -> Outcome {
    let target = tempfile::tempdir_in(folder)?;
    unpack::unpack(&mut tar, target.path(), budget)?;
    Ok(())
}

fn pax_headers(folder: &Path) -> Outcome {
    let header = pax("comment", &vec![b'x'; 1_000_000]);
    unpacked(folder, &Budget::default(), made(|number| (number < 1000).then(|| header.clone())))
}

fn long_names(folder: &Path) -> Outcome {
    let header = entry(EntryType::GNULongName, "x", &vec![b'x'; 1_000_000]);
    unpacked(folder, &Budget::default(), made(|number| (number < 1000).then(|| header.clone())))
}

fn directory_attributes(folder: &Path) -> Outcome {
    let header = pax("SCHILY.xattr.user.x", &vec![b'x'; 1_000_000]);
    let make = |number: u64| {
        let directory = entry(EntryType::Directory, &format!("d{number}"), b"");
        (number < 1000).then(|| [&header[..], &directory].concat())
    };
    unpacked(folder, &Budget::default(), made(make))
}

fn directories(folder: &Path) -> Outcome {
    unpacked(folder, &Budget::default(), made(|number| (number < 1_000_000).then(|| long_directory(number))))
}

/// Each within the bounds of one layer, and given back at its end.
fn many_layers(folder: &Path) -> Outcome {
    let budget = Budget::default();
    (0..3).try_for_each(|_| unpacked(folder, &budget, made(|number| (number < 8_000).then(|| long_directory(number)))))
}

fn many_entries(folder: &Path) -> Outcome {
    let ignored = entry(EntryType::Regular, ".wh..wh.x", b"").repeat(1000);
    unpacked(folder, &Budget::default(), made(|number| (number < 1000).then(|| ignored.clone())))
}

fn deep_path(folder: &Path) -> Outcome {
    let deep = [pax("path", "d/".repeat(2000).as_bytes()), entry(EntryType::Directory, "d", b"")].concat();
    let store = Store::open(&folder.join("root"))?;
    let file = folder.join("deep.tar");
    fs::write(&file, deep)?;
    imported(&store, &file)?;
    store.remove("deep", false, &|| Ok(std::collections::HashSet::new()))?;
    store.check(true)?;
    Ok(())
}

/// What precedes a file with holes, GNU's format 1.0.
fn sparse(size: &str) -> Vec<u8> {
    [pax("GNU.sparse.major", b"1"), pax("GNU.sparse.minor", b"0"), pax("GNU.sparse.realsize", size.as_bytes())].concat()
}

fn sparse_map(folder: &Path) -> Outcome {
    let map = [&b"4000000000\n"[..], &b"0\n".repeat(1 << 20)].concat();
    let archive = [sparse("99999"), entry(EntryType::Regular, "sparse", &map)].concat();
    unpacked(folder, &Budget::default(), archive.as_slice())
}

fn sparse_file(folder: &Path) -> Outcome {
    let mut map = b"1\n0\n8\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"\0asm\x01\0\0\0");
    let archive = [sparse("6000000000"), entry(EntryType::Regular, "app.wasm", &map)].concat();
    let store = Store::open(&folder.join("root"))?;
    let file = folder.join("sparse.tar");
    fs::write(&file, archive)?;
    let image = imported(&store, &file)?;
    let found = store.open_in_root(&image, "/app.wasm")?.ok_or("the program is not there")?;
    assert_eq!(found.metadata()?.len(), 6_000_000_000);
    Ok(())
}

fn imported(store: &Store, file: &Path) -> Result<crate::Image, Box<dyn Error>> {
    let name: Reference = "deep".parse()?;
    Ok(import::import(store, file, &name, &import::Changes::default(), &|_| Ok(()))?)
}

fn sparse_wasm(folder: &Path) -> Outcome {
    let path = folder.join("sparse.wasm");
    fs::write(&path, b"\0asm\x01\0\0\0")?;
    File::options().write(true).open(&path)?.set_len(6 << 30)?;
    imported(&Store::open(&folder.join("root"))?, &path).map(drop)
}

/// Loads an archive; the first thing that is wrong with it.
fn loaded(folder: &Path, path: &Path) -> Outcome {
    let store = Store::open(&folder.join("root"))?;
    archive::load(&store, path, &|_| Ok(()))?.into_iter().try_for_each(|image| image.map(drop))?;
    Ok(())
}

fn written(folder: &Path, mut tar: impl Read) -> Outcome {
    let path = folder.join("images.tar");
    let mut file = File::create(&path)?;
    io::copy(&mut tar, &mut file)?;
    loaded(folder, &path)
}

fn archive_names(folder: &Path) -> Outcome {
    let make = |number: u64| {
        let name = pax("path", format!("{number:0>4000}").as_bytes());
        (number < 10_000).then(|| [name, entry(EntryType::Regular, "x", b"")].concat())
    };
    written(folder, made(make))
}

fn archive_headers(folder: &Path) -> Outcome {
    let header = pax("comment", &vec![b'x'; 1_000_000]);
    let make = |number| match number {
        0 => Some(entry(EntryType::Regular, "index.json", b"{}")),
        1..100 => Some(header.clone()),
        _ => None,
    };
    written(folder, made(make))
}

/// An image layout in a folder.
struct Layout<'a>(&'a Path);

impl Layout<'_> {
    fn blob(&self, bytes: &[u8], media_type: &str) -> Result<serde_json::Value, Box<dyn Error>> {
        let digest = crate::ingest::digest_of(bytes)?;
        let blobs = self.0.join("layout/blobs/sha256");
        fs::create_dir_all(&blobs)?;
        fs::write(blobs.join(digest.digest()), bytes)?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
    }

    fn load(&self, index: &[u8]) -> Outcome {
        let layout = self.0.join("layout");
        fs::create_dir_all(&layout)?;
        fs::write(layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        fs::write(layout.join("index.json"), index)?;
        loaded(self.0, &layout)
    }

    fn load_one(&self, config: &[u8], layers: &serde_json::Value) -> Outcome {
        let config = self.blob(config, "application/vnd.oci.image.config.v1+json")?;
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers }).to_string();
        let manifest = self.blob(manifest.as_bytes(), "application/vnd.oci.image.manifest.v1+json")?;
        self.load(json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string().as_bytes())
    }
}

fn braces_in_index(folder: &Path) -> Outcome {
    let braces = b"{},".repeat(2 << 20);
    Layout(folder).load(&[&br#"{"schemaVersion":2,"manifests":["#[..], &braces, b"{}]}"].concat())
}

fn braces_in_config(folder: &Path) -> Outcome {
    let braces = b"{},".repeat(2 << 20);
    let start = br#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]},"history":["#;
    Layout(folder).load_one(&[&start[..], &braces, b"{}]}"].concat(), &json!([]))
}

fn many_documents(folder: &Path) -> Outcome {
    let layout = Layout(folder);
    let mut manifests = Vec::new();
    for number in 0..5000 {
        let empty = json!({ "schemaVersion": 2, "manifests": [], "annotations": { "number": number.to_string() } });
        manifests.push(layout.blob(empty.to_string().as_bytes(), "application/vnd.oci.image.index.v1+json")?);
    }
    let index = json!({ "schemaVersion": 2, "manifests": manifests }).to_string();
    let index = layout.blob(index.as_bytes(), "application/vnd.oci.image.index.v1+json")?;
    layout.load(json!({ "schemaVersion": 2, "manifests": [index] }).to_string().as_bytes())
}

fn layers_in_manifest(folder: &Path) -> Outcome {
    let digest = |number| format!("sha256:{number:064x}");
    let tar = "application/vnd.oci.image.layer.v1.tar";
    let layers = (0..10_000).map(|number| json!({ "mediaType": tar, "digest": digest(number), "size": 1 }));
    let diff_ids = (0..10_000).map(digest).collect::<Vec<_>>();
    let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
    let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": rootfs }).to_string();
    Layout(folder).load_one(config.as_bytes(), &layers.collect())
}

/// A layer in one zstd frame with such a window, imported.
fn windowed(folder: &Path, log: u32) -> Outcome {
    let path = folder.join("layer.tar.zst");
    let mut encoder = zstd::stream::Encoder::new(File::create(&path)?, 1)?;
    encoder.window_log(log)?;
    // Longer than the window: all of it is needed.
    let zeros = vec![0; 1 << 20];
    encoder.write_all(&entry(EntryType::Regular, "a", b"x"))?;
    (0..160).try_for_each(|_| encoder.write_all(&zeros))?;
    encoder.finish()?;
    imported(&Store::open(&folder.join("root"))?, &path).map(drop)
}

fn largest_window(folder: &Path) -> Outcome {
    windowed(folder, 27)
}

/// Only the first bytes of such a frame: making one would take the memory that reading it may not.
fn huge_window(folder: &Path) -> Outcome {
    let path = folder.join("layer.tar.zst");
    fs::write(&path, [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3][..], &[0; 600]].concat())?;
    imported(&Store::open(&folder.join("root"))?, &path).map(drop)
}

fn zeros(folder: &Path) -> Outcome {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1)?;
    encoder.write_all(&entry(EntryType::Regular, "a", b"x"))?;
    encoder.write_all(&vec![b'x'; 1024])?;
    let zeros = vec![0; 1 << 20];
    (0..1024).try_for_each(|_| encoder.write_all(&zeros))?;
    let bomb = encoder.finish()?;
    let budget = Budget::default();
    unpacked(folder, &budget, unpack::decompress(Box::new(bomb.as_slice()), &budget)?)
}

/// The most memory that this process ever had, bytes.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn run_one(case: &Case) {
    let (name, run, refusal) = case;
    // Private memory: what goes beyond is refused by the kernel, and the process aborts.
    setrlimit(Resource::RLIMIT_DATA, LIMIT_BYTES, LIMIT_BYTES).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(folder.path()).map_err(|error| error.to_string());
    let peak = peak_bytes();
    println!("{name}: {} MiB, {outcome:?}", peak >> 20);
    match (&outcome, refusal) {
        (Ok(()), None) => {}
        (Err(message), Some(part)) => assert!(message.contains(part), "{name}: {message}"),
        (other, _) => panic!("{name}: {other:?}, where {refusal:?} was expected"),
    }
    assert!(peak <= LIMIT_BYTES, "{name}: {peak} bytes");
}

#[test]
fn no_hostile_input_takes_more_than_256_mib() {
    if let Ok(name) = env::var(CASE) {
        return run_one(CASES.iter().find(|case| case.0 == name).unwrap());
    }
    for (name, ..) in CASES {
        let mut child = Command::new(env::current_exe().unwrap());
        let output = child.args(["--exact", TEST, "--nocapture"]).env(CASE, name).output().unwrap();
        let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name}: {}\n{told}\n{errors}", output.status);
        println!("{}", told.lines().find(|line| line.starts_with(name)).unwrap_or(&told));
    }
}
