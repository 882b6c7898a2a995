//! From a name to an image, and from an archive to a tree.

use std::{hint::black_box, io::Cursor, path::Path};

use ::images::{
    Budget, Reference, Selection, Store, classify,
    import::{self, Changes},
    unpack,
};
use criterion::{BatchSize, Criterion, Throughput};

/// A layer with many files, as a distribution's is.
const ENTRIES: usize = 10_000;
const FILE: [u8; 100] = [7; 100];

pub(crate) fn steps(criterion: &mut Criterion) {
    references(criterion);
    store(criterion);
    unpacking(criterion);
}

fn references(criterion: &mut Criterion) {
    for (name, reference) in [("short", "alpine"), ("long", "registry.example.org:5000/team/project/image:v1.2.3")] {
        let parse = || black_box(reference).parse::<Reference>().unwrap();
        criterion.bench_function(&format!("parse a {name} reference"), |bench| bench.iter(parse));
    }
}

fn store(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let name: Reference = "localhost/step:latest".parse().unwrap();
    let image = import::import_files(&store, &[("program", 0o755, &FILE)], &name, &Changes::default()).unwrap();
    criterion.bench_function("open a store", |bench| bench.iter(|| Store::open(black_box(folder.path())).unwrap()));
    criterion.bench_function("resolve", |bench| {
        bench.iter(|| store.resolve(black_box("localhost/step"), &Selection::default()).unwrap().unwrap());
    });
    let (manifest, config) = (read(&store, &image.digest), read(&store, image.manifest.config().digest()));
    criterion.bench_function("read a manifest and classify", |bench| {
        bench.iter(|| {
            let manifest = serde_json::from_slice(black_box(&manifest)).unwrap();
            classify::classify(&manifest, &config, &mut |_| classify::Head::Missing)
        });
    });
}

fn read(store: &Store, digest: &::images::Digest) -> Vec<u8> {
    std::fs::read(store.blob_path(digest)).unwrap()
}

fn unpacking(criterion: &mut Criterion) {
    let archive = archive();
    // Memory, where there is any: how fast a disk is, is another question.
    let place = Path::new("/dev/shm");
    let place = if place.is_dir() { place.to_owned() } else { std::env::temp_dir() };
    let mut group = criterion.benchmark_group("unpack");
    group.sample_size(10).throughput(Throughput::Elements(ENTRIES as u64));
    group.bench_function("10,000 entries", |bench| {
        let unpack = |folder: tempfile::TempDir| {
            unpack::unpack(&mut Cursor::new(&archive), folder.path(), &Budget::default()).unwrap();
            // It is removed outside of what is measured.
            folder
        };
        bench.iter_batched(|| tempfile::tempdir_in(&place).unwrap(), unpack, BatchSize::PerIteration);
    });
}

fn archive() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for number in 0..ENTRIES {
        let mut header = tar::Header::new_gnu();
        header.set_size(FILE.len() as u64);
        header.set_mode(0o644);
        let path = format!("usr/share/{}/{number}", number % 100);
        archive.append_data(&mut header, path, &FILE[..]).unwrap();
    }
    archive.into_inner().unwrap()
}
