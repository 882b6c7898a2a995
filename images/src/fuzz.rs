//! What parses here, each parser as a function of any bytes that asserts what must hold of the outcome: for the tests
//! below, and for libFuzzer (`fuzz/`).

#![expect(clippy::unwrap_used, reason = "a panic is how a property fails")]

use crate::{
    Class, Reference, Selection, archive,
    classify::{self, Head, LayerKind},
    platform::{Platform, Search, Step, is_attestation},
    program::{self, Form},
    registry,
    store::{self, documents},
    unpack,
};
use oci_spec::image::{ImageConfiguration, ImageIndex, ImageManifest};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::{Debug, Display};

/// Panics where something does not hold of what it makes of the bytes. Whether they were taken, and not refused: a run in which
/// all are refused tries little.
pub type Property = fn(&[u8]) -> bool;

/// Names, which are also those of folders in `corpus/`, and properties.
pub const TARGETS: [(&str, Property); 14] = [
    ("archive", archive::fuzz::archive),
    ("challenge", registry::fuzz::challenge),
    ("compression", unpack::fuzz::compression),
    ("credentials", registry::fuzz::credentials),
    ("image-index", image_index),
    ("layer", unpack::fuzz::layer),
    ("manifest", manifest),
    ("manifest-answer", registry::fuzz::manifest_answer),
    ("pax", unpack::fuzz::pax),
    ("platform", platform),
    ("program", program),
    ("reference", reference),
    ("store-index", store::fuzz::index),
    ("token", registry::fuzz::token),
];

/// Asserts that a message is one line. False, for what was refused with it.
pub(crate) fn refused(message: &dyn Display) -> bool {
    let text = message.to_string();
    assert!(!text.is_empty() && !text.contains('\n'), "not one line: {text:?}");
    false
}

/// Asserts that a message names the text that was refused with it.
fn refused_by_name(text: &str, error: &dyn Display) -> bool {
    assert!(error.to_string().contains(text), "{text:?} is not named: {error}");
    false
}

/// What is printed parses to the same.
fn assert_printed<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), *value, "printed, it is {text}");
}

fn reference(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let parsed = match text.parse::<Reference>() {
        Err(error) => return refused_by_name(text, &error),
        Ok(parsed) => parsed,
    };
    assert!(parsed.tag.is_some() || parsed.digest.is_some());
    for printed in [parsed.to_string(), parsed.familiar()] {
        assert_eq!(printed.parse().as_ref(), Ok(&parsed), "printed, it is {printed}");
    }
    let repository: Reference = parsed.familiar_repository().parse().unwrap();
    assert_eq!((&repository.registry, &repository.repository), (&parsed.registry, &parsed.repository));
    true
}

fn platform(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    match text.parse::<Platform>() {
        Ok(platform) => assert_eq!(platform.to_string().parse(), Ok(platform)),
        Err(error) => return refused_by_name(text, &error),
    }
    true
}

/// A manifest, and after a NUL its config.
fn manifest(bytes: &[u8]) -> bool {
    let (manifest, config) = split(bytes, 0);
    if let Ok(config) = serde_json::from_slice::<ImageConfiguration>(config) {
        assert_printed(&config);
    }
    let manifest: ImageManifest = match documents::parse(manifest) {
        Err(reason) => return refused(&reason),
        Ok(manifest) => manifest,
    };
    assert_printed(&manifest);
    let mut asked = Vec::new();
    let mut head = |path: &str| {
        asked.push(path.to_owned());
        if path.len().is_multiple_of(3) { Head::Bytes(b"\0asm\x01\0\0\0".to_vec()) } else { Head::Missing }
    };
    let found = classify::classify(&manifest, config, &mut head);
    assert!((1..=11).contains(&found.rule) && !found.reason.is_empty(), "{found:?}");
    assert!(asked.iter().all(|path| path.starts_with('/')), "{asked:?}");
    let layers = manifest.layers();
    match found.class {
        Class::WasmArtifact { program } => assert!(layers.iter().any(|layer| layer.digest().as_ref() == program)),
        Class::WasmRootfs { program } => assert!(asked.contains(&program), "{program} was not looked at"),
        Class::Linux => {
            assert!(
                layers.iter().all(|it| matches!(classify::layer_kind(it.media_type().as_ref()), LayerKind::Tar(_)))
            );
        }
        _ => {}
    }
    match unpack::plan::plan(&manifest, config) {
        Err(error) => refused(&error),
        Ok(plan) => {
            let distinct: std::collections::HashSet<_> = plan.layers.iter().map(|it| it.descriptor.digest()).collect();
            assert_eq!(distinct.len(), plan.layers.len(), "a blob is there twice");
            true
        }
    }
}

fn image_index(bytes: &[u8]) -> bool {
    let index: ImageIndex = match documents::parse(bytes) {
        Err(reason) => return refused(&reason),
        Ok(index) => index,
    };
    assert_printed(&index);
    let platforms = [None, Some("linux/amd64"), Some("wasi/wasm"), Some("linux/arm/v6")];
    platforms.map(|platform| chosen(&index, platform)).contains(&true)
}

fn chosen(index: &ImageIndex, platform: Option<&str>) -> bool {
    let selection = Selection { platform: platform.map(|text| text.parse().unwrap()), ..Selection::default() };
    let mut search = Search::new(&selection, "sha256:outermost");
    loop {
        // Every nested index is this one again.
        match search.add(index).and_then(|()| search.next()) {
            Ok(Step::Fetch(_)) => {}
            Ok(Step::Chosen(chosen)) => {
                assert!(index.manifests().contains(&chosen) && !is_attestation(&chosen), "{chosen:?}");
                return true;
            }
            Err(error) => return refused(&error),
        }
    }
}

fn program(bytes: &[u8]) -> bool {
    let described = program::describe(bytes);
    match program::inspect(bytes) {
        Err(error) => refused(&error),
        Ok(found) => {
            assert_eq!((Some(found.form), described), (Form::of(bytes), "Wasm"));
            let names = found.imports.iter().chain(&found.exports);
            assert!(names.map(String::len).sum::<usize>() <= 2 * bytes.len(), "{found:?}");
            true
        }
    }
}

/// What comes before the first such byte, and what after.
pub(crate) fn split(bytes: &[u8], at: u8) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|&byte| byte == at).unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::TARGETS;
    use std::path::Path;
    use test_inputs::Target;

    fn run(name: &'static str, cases: u64, words: &'static [&'static str]) {
        let property = TARGETS.iter().find(|(known, _)| *known == name).unwrap().1;
        Target { name, property, words, cases }.run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"));
    }

    const JSON: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "null",
        "true",
        "\"\"",
        "[[[[",
        "\"sha256:\"",
        "\"mediaType\":",
        "\"config\":",
        "\"layers\":[]",
        "\"manifests\":[]",
        "\"platform\":{\"os\":\"unknown\",\"architecture\":\"unknown\"}",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.oci.empty.v1+json",
        "application/wasm",
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.wasm.config.v0+json",
        "windows",
        "wasm",
        "wasip1",
        "\"annotations\":{\"run.oci.handler\":\"wasm\"}",
        "\"artifactType\":\"application/wasm\"",
        "schemaVersion",
    ];
    const TAR: &[&str] = &[
        "ustar\0",
        "ustar  \0",
        ".wh.",
        ".wh..wh..opq",
        "../",
        "/",
        "./",
        "a/b",
        "SCHILY.xattr.user.x=",
        "path=",
        "linkpath=",
        "size=",
        "mtime=",
        "uid=",
        "GNU.sparse.major=",
        "GNU.sparse.map=",
        "GNU.sparse.realsize=",
        "GNU.sparse.name=",
        "10 path=ab\n",
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
        "L",
        "K",
        "x",
        "g",
        "S",
    ];

    #[test]
    fn references() {
        let words = &[
            "docker.io/",
            "index.docker.io/",
            "library/",
            "localhost/",
            "localhost:5000/",
            "[::1]:5000/",
            "a.b/",
            ":tag",
            "@sha256:",
            "6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b",
            ":",
            "@",
            "__",
            "--",
            ".",
        ];
        run("reference", 200_000, words);
    }

    #[test]
    fn platforms() {
        run(
            "platform",
            100_000,
            &["linux", "wasi", "arm", "arm64", "v8", "v7", "amd64", "x86_64", "wasm", "macos", "/"],
        );
    }

    #[test]
    fn manifests() {
        run("manifest", 40_000, JSON);
    }

    #[test]
    fn image_indexes() {
        run("image-index", 30_000, JSON);
    }

    #[test]
    fn programs() {
        run("program", 100_000, &["\0asm\x01\0\0\0", "\0asm\x0d\0\x01\0", "\x01", "\x7f", "wasi:cli/run@0.2.0"]);
    }

    #[test]
    fn pax_headers() {
        run("pax", 200_000, TAR);
    }

    #[test]
    fn layers() {
        run("layer", 1_500, TAR);
    }

    #[test]
    fn compressed_streams() {
        run("compression", 30_000, &["\x1f", "\x00", "BZh", "7zXZ"]);
    }

    #[test]
    fn archives() {
        run("archive", 10_000, TAR);
    }

    #[test]
    fn indexes_of_stores() {
        run("store-index", 10_000, JSON);
    }

    #[test]
    fn challenges() {
        run(
            "challenge",
            100_000,
            &["Bearer ", "Basic ", "realm=", "service=", "scope=", "https://", "\"", ",", "error="],
        );
    }

    #[test]
    fn answers_of_token_servers() {
        run("token", 100_000, &["\"token\":", "\"access_token\":", "\"expires_in\":", "{", "}", "\"", ","]);
    }

    #[test]
    fn files_of_credentials() {
        run(
            "credentials",
            50_000,
            &["\"auths\":", "\"auth\":", "https://index.docker.io/v1/", "ghcr.io", "{", "}", "\""],
        );
    }

    #[test]
    fn answers_for_manifests() {
        run("manifest-answer", 60_000, JSON);
    }
}
