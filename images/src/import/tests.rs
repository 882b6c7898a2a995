//! Files of every kind, imported.

use super::*;
use crate::Class;
use std::{fs, io::Write};

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

    fn import(&self, name: &str, bytes: &[u8]) -> Result<Image, ImportError> {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let changes = Changes {
            cmd: Some(vec!["/bin/sh".into(), "-c".into()]),
            env: vec!["A=b".into()],
            workdir: Some("/srv".into()),
            labels: vec![("k".into(), "v".into())],
            ..Changes::default()
        };
        // An image of a Wasm program has no place for them.
        let changes = if name.ends_with(".wasm") || name.ends_with(".wat") { Changes::default() } else { changes };
        import(&self.store, &path, &"made:1".parse().unwrap(), &changes, &|_| Ok(()))
    }

    fn blobs(&self) -> usize {
        fs::read_dir(self.store.root.join("image-layout/blobs/sha256")).unwrap().count()
    }
}

fn root_tar() -> Vec<u8> {
    archive_of(&[("bin/sh", 0o755, b"#!"), ("etc/os-release", 0o644, b"ID=x\n")]).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_root_file_system_becomes_a_linux_image() {
    let tar = root_tar();
    let table = [
        ("tar", tar.clone(), "tar"),
        ("gzip", gzip(&tar), "tar+gzip"),
        ("zstd", zstd::encode_all(&tar[..], 1).unwrap(), "tar+zstd"),
    ];
    for (name, bytes, media_type) in table {
        let place = Place::new();
        let image = place.import(name, &bytes).unwrap();
        assert_eq!(image.classification.class, Class::Linux, "{name}");
        let layer = &image.manifest.layers()[0];
        assert!(layer.media_type().to_string().ends_with(media_type), "{name}");
        assert_eq!(fs::read(place.store.blob_path(layer.digest())).unwrap(), bytes, "stored as it was given");
        let config = image.config.config().as_ref().unwrap();
        assert_eq!(config.cmd().as_deref(), Some(&["/bin/sh".to_owned(), "-c".to_owned()][..]));
        assert_eq!((config.working_dir().as_deref(), config.env().as_ref().unwrap().len()), (Some("/srv"), 1));
        assert_eq!(config.labels().as_ref().unwrap()["k"], "v");
        let layers = place.store.layers(&image).unwrap();
        assert_eq!(fs::read(layers[0].join("etc/os-release")).unwrap(), b"ID=x\n");
        assert!(image.created.is_some());
        assert_eq!(place.store.check(false).unwrap().leftovers, Vec::<String>::new());
    }
}

#[test]
fn wasm_and_its_text_become_artifacts() {
    for (name, text, os, rule) in [
        ("m.wat", "(module (func (export \"_start\")))", "wasip1", 1),
        ("c.wat", ";; a component\n(component)", "wasip2", 1),
    ] {
        let place = Place::new();
        let binary = wat::parse_str(text).unwrap();
        let (from_text, from_binary) =
            (place.import(name, text.as_bytes()).unwrap(), place.import("x.wasm", &binary).unwrap());
        for image in [&from_text, &from_binary] {
            let program = image.manifest.layers()[0].digest().to_string();
            assert_eq!(image.classification.class, Class::WasmArtifact { program: program.clone() });
            assert_eq!(image.classification.rule, rule);
            let config = fs::read(place.store.blob_path(image.manifest.config().digest())).unwrap();
            let config: Value = serde_json::from_slice(&config).unwrap();
            assert_eq!((config["architecture"].as_str(), config["os"].as_str()), (Some("wasm"), Some(os)));
            assert_eq!(config["layerDigests"][0].as_str(), Some(program.as_str()));
        }
        assert_eq!(
            import_wasm(&place.store, text.as_bytes(), &"m:2".parse().unwrap()).unwrap().size_bytes,
            from_text.size_bytes
        );
        let title = from_text.manifest.layers()[0].annotations().as_ref().unwrap()[TITLE].clone();
        assert_eq!(title, name.replace(".wat", ".wasm"));
    }
}

#[test]
fn built_in_files_become_a_linux_image() {
    let place = Place::new();
    let files: &[(&str, u32, &[u8])] = &[("/app", 0o755, b"\x7fELF"), ("etc/passwd", 0o644, b"root:x:0:0::/:\n")];
    let image = import_files(&place.store, files, &"demo:linux".parse().unwrap(), &Changes::default()).unwrap();
    assert_eq!(image.classification.class, Class::Linux);
    let layer = &place.store.layers(&image).unwrap()[0];
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(layer.join("app")).unwrap());
    assert_eq!(mode & 0o7777, 0o755);
}

#[test]
fn broken_files_are_refused_and_leave_nothing() {
    let place = Place::new();
    let module = wat::parse_str("(module (func (export \"_start\") (drop (i32.const 1))))").unwrap();
    let tar = root_tar();
    for (name, bytes, expected) in [
        ("cut.wasm", &module[..module.len() - 3], "0x22"),
        ("empty", b"", "empty"),
        ("elf", b"\x7fELF\x02\x01\x01", "ELF"),
        ("bad.wat", b"(module (func (export", "bad.wat"),
        ("text", b"hello", "can be imported"),
        ("gzip of text", &gzip(b"hello"), "compressed"),
        ("cut.tar", &tar[..700], "cut short"),
        ("cut.tar.gz", &gzip(&tar)[..100], ""),
    ] {
        let error = place.import(name, bytes).expect_err(name).to_string();
        println!("{error}");
        assert!(error.contains(expected), "{name}: {error}");
        assert_eq!(place.blobs(), 0, "{name}");
        assert_eq!(place.store.check(false).unwrap().leftovers, Vec::<String>::new(), "{name}");
    }
    assert!(
        import(&place.store, Path::new("/no/such/file"), &"x".parse().unwrap(), &Changes::default(), &|_| Ok(()))
            .is_err()
    );
}
