use super::*;
use serde_json::{Value, json};

const OCI_TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const SPIN: &str = "application/vnd.fermyon.spin.application.v1+config";

fn digest(seed: usize) -> String {
    format!("sha256:{seed:064x}")
}

/// A manifest; its layers have the digests 1, 2, …
fn manifest(config_type: &str, layers: &[&str], more: &Value) -> ImageManifest {
    let layers: Vec<Value> = layers
        .iter()
        .enumerate()
        .map(|(at, media_type)| json!({ "mediaType": media_type, "digest": digest(at + 1), "size": 1 }))
        .collect();
    let config = json!({ "mediaType": config_type, "digest": digest(0), "size": 1 });
    let mut manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
    for (key, value) in more.as_object().unwrap() {
        manifest[key] = value.clone();
    }
    serde_json::from_value(manifest).unwrap()
}

fn platform(os: &str, architecture: &str) -> Value {
    json!({ "os": os, "architecture": architecture, "config": { "Entrypoint": ["/app"] } })
}

fn no_bytes(_: &str) -> Head {
    panic!("the entrypoint's bytes are not needed")
}

fn by_types(config_type: &str, config: &Value, layers: &[&str], more: &Value) -> Classification {
    classify(&manifest(config_type, layers, more), config.to_string().as_bytes(), &mut no_bytes)
}

fn artifact_type(media_type: &str) -> Value {
    json!({ "artifactType": media_type })
}

/// Config type, config, layer types, what else the manifest has; rule, class.
type Row<'a> = (&'a str, Value, Vec<&'a str>, Value, u8, Class);

#[test]
fn every_rule_that_needs_no_bytes() {
    let wasm = platform("wasip1", "wasm");
    let linux = platform("linux", "amd64");
    let none = json!({});
    let program = |seed: usize| Class::WasmArtifact { program: digest(seed) };
    let other = |media_type: &str| Class::Other { media_type: media_type.to_owned() };
    let helm = "application/vnd.cncf.helm.config.v1+json";
    let encrypted = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
    let plugin = "application/vnd.module.wasm.content.layer.v1+wasm";
    let table: Vec<Row> = vec![
        (CNCF_CONFIG, wasm.clone(), vec![CNCF_LAYER], json!({}), 1, program(1)),
        (CNCF_CONFIG, wasm.clone(), vec!["application/json", CNCF_LAYER], json!({}), 1, program(2)),
        (CNCF_CONFIG, wasm.clone(), vec![CNCF_LAYER, CNCF_LAYER], json!({}), 11, other(CNCF_CONFIG)),
        (CNCF_CONFIG, wasm.clone(), vec![], json!({}), 11, other(CNCF_CONFIG)),
        (EMPTY_CONFIG, none.clone(), vec![CNCF_LAYER], artifact_type(CNCF_CONFIG), 2, program(1)),
        (EMPTY_CONFIG, none.clone(), vec![CNCF_LAYER], artifact_type(CNCF_LAYER), 2, program(1)),
        (EMPTY_CONFIG, none.clone(), vec![COMPONENT_LAYER], json!({}), 2, program(1)),
        (EMPTY_CONFIG, none.clone(), vec![KRUSTLET_LAYER], artifact_type(KRUSTLET_CONFIG), 2, program(1)),
        (EMPTY_CONFIG, none.clone(), vec!["application/octet-stream"], artifact_type(CNCF_LAYER), 2, program(1)),
        (EMPTY_CONFIG, none.clone(), vec![CNCF_LAYER], artifact_type("application/x"), 11, other("application/x")),
        (EMPTY_CONFIG, none.clone(), vec![CNCF_LAYER], artifact_type(UNKNOWN_ARTIFACT), 2, program(1)),
        (EMPTY_CONFIG, none.clone(), vec!["text/plain", CNCF_LAYER], artifact_type(UNKNOWN_ARTIFACT), 2, program(2)),
        (EMPTY_CONFIG, none.clone(), vec!["text/plain"], artifact_type(UNKNOWN_ARTIFACT), 11, other(UNKNOWN_ARTIFACT)),
        ("application/vnd.unknown.config.v1+json", none.clone(), vec![CNCF_LAYER], json!({}), 2, program(1)),
        ("application/json", none.clone(), vec![KRUSTLET_LAYER], json!({}), 2, program(1)),
        (EMPTY_CONFIG, none.clone(), vec![], json!({}), 11, other(EMPTY_CONFIG)),
        (OCI_CONFIG, wasm.clone(), vec![COMPONENT_LAYER], json!({}), 3, program(1)),
        (DOCKER_CONFIG, platform("linux", "Wasm32"), vec![CNCF_LAYER], json!({}), 3, program(1)),
        (KRUSTLET_CONFIG, none.clone(), vec![KRUSTLET_LAYER], json!({}), 4, program(1)),
        (OCI_CONFIG, linux.clone(), vec![CNCF_LAYER], json!({}), 3, program(1)),
        (OCI_CONFIG, none.clone(), vec!["application/vnd.w3c.wasm.component.v1+wasm"], json!({}), 3, program(1)),
        (KRUSTLET_CONFIG, none.clone(), vec![CNCF_LAYER], json!({}), 4, program(1)),
        ("application/vnd.wasmcloud.actor.archive.config", none.clone(), vec![plugin], json!({}), 4, program(1)),
        ("application/vnd.module.wasm.config.v1+json", none.clone(), vec![plugin], json!({}), 5, Class::ProxyWasm),
        (EMPTY_CONFIG, none.clone(), vec![plugin], json!({}), 5, Class::ProxyWasm),
        (SPIN, none.clone(), vec![KRUSTLET_LAYER], json!({}), 6, Class::Spin),
        (OCI_CONFIG, wasm, vec![KRUSTLET_LAYER, SPIN], json!({}), 6, Class::Spin),
        (OCI_CONFIG, platform("windows", "amd64"), vec![OCI_TAR], json!({}), 9, Class::Windows),
        (OCI_CONFIG, platform("Windows", "amd64"), vec!["x/unknown"], json!({}), 9, Class::Windows),
        (
            OCI_CONFIG,
            linux.clone(),
            vec![OCI_TAR, "application/vnd.oci.image.layer.v1.tar+zstd"],
            json!({}),
            10,
            Class::Linux,
        ),
        (DOCKER_CONFIG, linux.clone(), vec![DOCKER_TAR], json!({}), 10, Class::Linux),
        (OCI_CONFIG, linux.clone(), vec![], json!({}), 11, other(OCI_CONFIG)),
        (OCI_CONFIG, linux.clone(), vec![OCI_TAR, "x/unknown"], json!({}), 11, other("x/unknown")),
        (OCI_CONFIG, linux, vec!["x/unknown", encrypted], json!({}), 11, other(encrypted)),
        (OCI_CONFIG, none.clone(), vec![OCI_TAR], json!({}), 11, other(OCI_CONFIG)),
        (OCI_CONFIG, platform("freebsd", "amd64"), vec![OCI_TAR], json!({}), 11, other(OCI_CONFIG)),
        (helm, none, vec!["application/vnd.cncf.helm.chart.content.v1.tar+gzip"], json!({}), 11, other(helm)),
    ];
    for (config_type, config, layers, more, rule, class) in table {
        let found = by_types(config_type, &config, &layers, &more);
        assert_eq!(
            (found.rule, &found.class),
            (rule, &class),
            "{config_type} {config} {layers:?} {more}: {}",
            found.reason
        );
        assert!(!found.reason.is_empty());
    }
}

fn rootfs(architecture: &str, process: &Value, more: &Value, head: &mut dyn FnMut(&str) -> Head) -> Classification {
    let config = json!({ "os": "linux", "architecture": architecture, "config": process });
    classify(&manifest(OCI_CONFIG, &[OCI_TAR], more), config.to_string().as_bytes(), head)
}

fn compat(value: &str) -> Value {
    json!({ "annotations": { "module.wasm.image/variant": value } })
}

fn wasm_file() -> Head {
    Head::Bytes(b"\0asm\x01\0\0\0more".to_vec())
}

fn elf_file() -> Head {
    Head::Bytes(b"\x7fELF\x02\x01\x01\0".to_vec())
}

#[test]
fn rule_7_and_what_the_bytes_say() {
    let process = json!({ "Entrypoint": ["/app.wasm"] });
    let table = [
        (wasm_file(), None, "is Wasm"),
        (Head::NotKnown, None, "is not unpacked yet"),
        (Head::Missing, Some("there is no entrypoint /app.wasm"), ""),
        (elf_file(), Some("is not Wasm but an ELF file"), ""),
    ];
    for (head, warning, reason) in table {
        let found = rootfs("wasm", &process, &json!({}), &mut |path| {
            assert_eq!(path, "/app.wasm");
            head.clone()
        });
        assert_eq!((found.rule, found.class), (7, Class::WasmRootfs { program: "/app.wasm".to_owned() }));
        assert!(found.reason.contains(reason), "{}", found.reason);
        match warning {
            Some(text) => assert!(found.warnings[0].contains(text), "{:?}", found.warnings),
            None => assert_eq!(found.warnings, [""; 0]),
        }
    }
    for (os, architecture) in [("wasm32", "wasi"), ("wasi", ""), ("", "wasm"), ("wasm", ""), ("linux", "wasm64")] {
        let config = json!({ "os": os, "architecture": architecture, "config": process });
        let manifest = manifest(OCI_CONFIG, &[OCI_TAR], &json!({}));
        let found = classify(&manifest, config.to_string().as_bytes(), &mut |_| wasm_file());
        assert_eq!(found.rule, 7, "{os}/{architecture}");
    }
    let nothing_to_run = rootfs("wasm", &json!({}), &json!({}), &mut no_bytes);
    assert_eq!((nothing_to_run.rule, nothing_to_run.class), (7, Class::Other { media_type: OCI_CONFIG.to_owned() }));
}

#[test]
fn rule_8_and_what_the_bytes_say() {
    let process = json!({ "Entrypoint": ["/app"] });
    let wasm = Class::WasmRootfs { program: "/app".to_owned() };
    let handler = json!({ "annotations": { "run.oci.handler": "wasm-smart" } });
    let another_handler = json!({ "annotations": { "run.oci.handler": "krun" } });
    let table = [
        (compat("compat"), wasm_file(), 8, wasm.clone()),
        (compat("compat-smart"), wasm_file(), 8, wasm.clone()),
        (handler, wasm_file(), 8, wasm),
        (compat("compat"), elf_file(), 8, Class::Linux),
        (compat("compat"), Head::Missing, 8, Class::Linux),
        (compat("compat"), Head::NotKnown, 8, Class::Linux),
        (compat("other"), wasm_file(), 10, Class::Linux),
        (another_handler, wasm_file(), 10, Class::Linux),
    ];
    for (more, head, rule, class) in table {
        let found = rootfs("amd64", &process, &more, &mut |_| head.clone());
        assert_eq!((found.rule, found.class), (rule, class), "{more} {head:?}");
    }
}

#[test]
fn rule_8_by_the_name_of_the_entrypoint() {
    let process = json!({ "Cmd": ["/app.wasm", "serve"] });
    let wasm = Class::WasmRootfs { program: "/app.wasm".to_owned() };
    for (head, class) in [(wasm_file(), wasm), (elf_file(), Class::Linux), (Head::NotKnown, Class::Linux)] {
        let found = rootfs("amd64", &process, &json!({}), &mut |_| head.clone());
        assert_eq!((found.rule, found.class), (8, class), "{head:?}");
    }
}

#[test]
fn where_the_entrypoint_is_looked_for() {
    let table = [
        (json!({ "Entrypoint": ["/a/b"], "Cmd": ["x"] }), vec!["/a/b"]),
        (json!({ "Cmd": ["/c", "x"] }), vec!["/c"]),
        (json!({ "Entrypoint": [], "Cmd": ["/c"] }), vec!["/c"]),
        (json!({ "Entrypoint": ["./a.wasm"], "WorkingDir": "/w/" }), vec!["/w/./a.wasm"]),
        (json!({ "Entrypoint": ["a/b"] }), vec!["/a/b"]),
        (
            json!({ "Entrypoint": ["a.wasm"], "Env": ["PATH=/x", "PATH=/bin:/usr/bin"] }),
            vec!["/a.wasm", "/bin/a.wasm", "/usr/bin/a.wasm"],
        ),
        (json!({ "Entrypoint": null, "Cmd": null, "Env": null }), vec![]),
    ];
    for (process, expected) in table {
        let mut asked = Vec::new();
        rootfs("wasm", &process, &json!({}), &mut |path| {
            asked.push(path.to_owned());
            Head::Missing
        });
        assert_eq!(asked, expected, "{process}");
    }
}

#[test]
fn a_later_place_counts_if_the_first_is_empty() {
    let process = json!({ "Entrypoint": ["a.wasm"], "Env": ["PATH=/bin"] });
    let mut only_in_bin = |path: &str| if path == "/bin/a.wasm" { wasm_file() } else { Head::Missing };
    let found = rootfs("wasm", &process, &json!({}), &mut only_in_bin);
    assert_eq!(found.class, Class::WasmRootfs { program: "/bin/a.wasm".to_owned() });
}

#[test]
fn the_config_is_trusted_and_a_disagreement_is_a_warning() {
    let linux = platform("linux", "amd64");
    let found = by_types(OCI_CONFIG, &linux, &[OCI_TAR], &artifact_type(CNCF_LAYER));
    assert_eq!(found.class, Class::Linux);
    assert_eq!(found.warnings.len(), 1);
    assert!(found.warnings[0].contains("artifactType is application/wasm"), "{:?}", found.warnings);
    for agreeing in [CNCF_CONFIG, CNCF_LAYER] {
        let found = by_types(CNCF_CONFIG, &json!({}), &[CNCF_LAYER], &artifact_type(agreeing));
        assert_eq!((found.rule, found.warnings), (1, Vec::new()), "{agreeing}");
    }
    let generic = by_types(EMPTY_CONFIG, &json!({}), &["application/octet-stream"], &artifact_type(CNCF_LAYER));
    assert_eq!(generic.warnings, ["the layer taken for the program has type application/octet-stream"]);
}

#[test]
fn configs_that_are_no_json_say_nothing() {
    for bytes in [&b""[..], b"{", b"\xff\xfe", b"[]", br#"{"os": 5}"#] {
        let found = classify(&manifest(OCI_CONFIG, &[OCI_TAR], &json!({})), bytes, &mut no_bytes);
        assert_eq!(found.rule, 11);
    }
}

#[test]
fn layer_types() {
    let table = [
        ("application/vnd.oci.image.layer.v1.tar", LayerKind::Tar(TarCompression::LookAtBytes)),
        ("application/vnd.oci.image.layer.v1.tar+gzip", LayerKind::Tar(TarCompression::Gzip)),
        ("application/vnd.oci.image.layer.v1.tar+zstd", LayerKind::Tar(TarCompression::Zstd)),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", LayerKind::Tar(TarCompression::Zstd)),
        ("application/vnd.docker.image.rootfs.diff.tar", LayerKind::Tar(TarCompression::LookAtBytes)),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", LayerKind::Tar(TarCompression::Zstd)),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", LayerKind::Tar(TarCompression::Gzip)),
        (CNCF_LAYER, LayerKind::Wasm),
        (COMPONENT_LAYER, LayerKind::Wasm),
        ("application/vnd.cncf.helm.chart.content.v1.tar+gzip", LayerKind::Other),
        ("", LayerKind::Other),
    ];
    for (media_type, kind) in table {
        assert_eq!(layer_kind(media_type), kind, "{media_type}");
    }
    for refused in
        ["application/vnd.oci.image.layer.v1.tar+encrypted", "application/vnd.oci.image.layer.v1.tar+zstd+encrypted"]
    {
        assert!(matches!(layer_kind(refused), LayerKind::Refused(why) if why.contains("encrypted")), "{refused}");
    }
}

#[test]
fn manifests_of_another_age_are_refused_by_name() {
    for schema_1 in [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ] {
        assert!(refused_manifest(schema_1).unwrap().contains("schema 1"), "{schema_1}");
    }
    assert_eq!(refused_manifest("application/vnd.docker.distribution.manifest.v2+json"), None);
    assert_eq!(refused_manifest("application/vnd.oci.image.manifest.v1+json"), None);
}

#[test]
fn forms() {
    let table: [(&[u8], Option<Form>); 5] = [
        (b"\0asm\x01\0\0\0", Some(Form::Module)),
        (b"\0asm\x0d\0\x01\0rest", Some(Form::Component)),
        (b"\0asm\x02\0\0\0", None),
        (b"\0asm", None),
        (b"", None),
    ];
    for (bytes, form) in table {
        assert_eq!(Form::of(bytes), form);
    }
}
