//! The images of the test registry: every kind that images come in, made of the fixtures.

use crate::{
    command::{self, bounded},
    fixtures::Fixtures,
    layout::{self, INDEX, Layout, MANIFEST, sha256_hex},
};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// The programs that are there as `NAME:linux`, `NAME:wasm` and `NAME:component`.
const PROGRAMS: [&str; 10] = ["args", "cat", "exit", "fill", "hello", "hog", "sleep", "spew", "spin", "trap"];
const SHORT: Duration = Duration::from_secs(120);

const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
const WASM_LAYER: &str = "application/wasm";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Where a recipe takes its files from and puts its blobs.
struct Kitchen {
    fixtures: PathBuf,
    layout: Layout,
}

/// Makes an image's blobs and gives the descriptor of its manifest or index.
type Recipe = Box<dyn Fn(&Kitchen) -> Result<Value>>;

/// Makes the layout of every image whose parts are there, and the archives.
pub(crate) fn build(fixtures: &mut Fixtures) -> Result<()> {
    let mut left_out = Vec::new();
    for (name, part, recipe) in recipes() {
        if fixtures.existing(part).is_none() {
            left_out.push(format!("image {name}: the fixture {part} is not there"));
            continue;
        }
        let folder = format!("layouts/{}", name.replace(':', "-"));
        let stamp = sha256_hex(format!("{}{}", include_str!("catalog.rs"), fixtures.stamp(part)).as_bytes());
        let make = |folder: &Path| {
            let kitchen = Kitchen { fixtures: fixtures.path(""), layout: Layout::create(folder)? };
            let manifest = recipe(&kitchen)?;
            kitchen.layout.finish(&name, &manifest)
        };
        fixtures.keep(&folder, &stamp, make).with_context(|| format!("cannot make the image {name}"))?;
    }
    fixtures.left_out.extend(left_out);
    archives(fixtures)
}

/// Name, the fixture that it is made of, and how.
fn recipes() -> Vec<(String, &'static str, Recipe)> {
    let mut list: Vec<(String, &'static str, Recipe)> = Vec::new();
    let mut add = |name: &str, part, recipe: Recipe| list.push((name.to_owned(), part, recipe));
    for program in PROGRAMS {
        add(&format!("{program}:linux"), "programs", Box::new(move |k| k.linux_program(program)));
        add(&format!("{program}:wasm"), "programs", Box::new(move |k| k.artifact(&k.module(program)?, "wasip1")));
        let component =
            move |k: &Kitchen| k.artifact(&k.read(&format!("programs/component/{program}.wasm"))?, "wasip2");
        add(&format!("{program}:component"), "programs", Box::new(component));
    }
    add("function:latest", "functions", Box::new(|k| k.artifact(&k.read("functions/handler.wasm")?, "wasip2")));
    add("function:concurrent", "functions", Box::new(|k| k.artifact(&k.read("functions/concurrent.wasm")?, "wasip2")));
    add("hello:latest", "programs", Box::new(Kitchen::both_kinds));
    add("hello:oci-empty", "programs", Box::new(Kitchen::empty_config));
    add("hello:bytecodealliance", "programs", Box::new(Kitchen::bytecode_alliance));
    add("hello:wasm-to-oci", "programs", Box::new(Kitchen::wasm_to_oci));
    add("hello:docker-wasm", "programs", Box::new(Kitchen::docker_wasm));
    add("hello:compat", "programs", Box::new(|k| k.compat("wasm/hello.wasm")));
    add("hello:compat-linux", "programs", Box::new(|k| k.compat("linux/hello")));
    add("spin-app:latest", "programs", Box::new(Kitchen::spin_application));
    add("proxy-wasm:latest", "programs", Box::new(Kitchen::proxy_wasm));
    add("windows:latest", "programs", Box::new(Kitchen::windows));
    add("chart:latest", "programs", Box::new(Kitchen::helm_chart));
    add("broken:missing-import", "programs", Box::new(|k| k.artifact(&k.module("missing-import")?, "wasip1")));
    add("broken:library", "programs", Box::new(|k| k.artifact(&k.module("library")?, "wasip1")));
    add("broken:cut-short", "programs", Box::new(|k| k.artifact(&k.module("hello")?[..1000], "wasip1")));
    add("broken:diff-id", "programs", Box::new(Kitchen::wrong_diff_id));
    add("broken:layer-type", "programs", Box::new(Kitchen::unknown_layer_type));
    add("busybox:latest", "busybox", Box::new(|k| k.root_filesystem("busybox", "sh")));
    add("debian:bookworm", "debian.tar", Box::new(|k| k.root_filesystem("debian.tar", "bash")));
    add("debian:docker", "debian.tar", Box::new(Kitchen::docker_debian));
    add("yosys:latest", "yosys", Box::new(|k| k.artifact(&k.read("yosys/yosys.wasm")?, "wasip1")));
    list
}

/// A layer of files: its descriptor, and the digest of the archive before compression.
struct FileLayer {
    descriptor: Value,
    diff_id: String,
}

impl Kitchen {
    fn read(&self, fixture: &str) -> Result<Vec<u8>> {
        let path = self.fixtures.join(fixture);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The bytes of a program as a core module.
    fn module(&self, program: &str) -> Result<Vec<u8>> {
        self.read(&format!("programs/wasm/{program}.wasm"))
    }

    /// A file or folder of the fixtures as a gzip layer; a single file lies at `/NAME`, a `.tar` is taken as it is.
    fn file_layer(&self, fixture: &str, name: &str) -> Result<FileLayer> {
        let path = self.fixtures.join(fixture);
        let archive = if fixture.ends_with(".tar") { self.read(fixture)? } else { pack(&path, name)? };
        let packed = self.fixtures.join(format!(".layer-{}", std::process::id()));
        fs::write(&packed, &archive)?;
        let compressed = command::run(bounded("gzip", SHORT).args(["-n", "-c"]).arg(&packed));
        fs::remove_file(&packed)?;
        let descriptor = self.layout.blob(LAYER_GZIP, &compressed?)?;
        Ok(FileLayer { descriptor, diff_id: format!("sha256:{}", sha256_hex(&archive)) })
    }

    /// An image config of the ordinary form.
    fn image_config(&self, platform: [&str; 2], settings: &Value, diff_ids: &[&str]) -> Result<Value> {
        let [os, architecture] = platform;
        let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
        let created = "2026-01-01T00:00:00Z";
        let config =
            json!({ "created": created, "os": os, "architecture": architecture, "config": settings, "rootfs": rootfs });
        self.layout.json(IMAGE_CONFIG, &config)
    }

    /// A static executable `FROM scratch`.
    fn linux_program(&self, program: &str) -> Result<Value> {
        let layer = self.file_layer(&format!("programs/linux/{program}"), program)?;
        let settings = json!({ "Entrypoint": [format!("/{program}")], "Env": [PATH] });
        let config = self.image_config(["linux", host_architecture()], &settings, &[&layer.diff_id])?;
        self.layout.manifest(&config, &[layer.descriptor])
    }

    /// A whole root file system with a shell.
    fn root_filesystem(&self, fixture: &str, shell: &str) -> Result<Value> {
        let layer = self.file_layer(fixture, "")?;
        let settings = json!({ "Cmd": [shell], "Env": [PATH] });
        let config = self.image_config(["linux", host_architecture()], &settings, &[&layer.diff_id])?;
        self.layout.manifest(&config, &[layer.descriptor])
    }

    /// The same with Docker's own media types (image manifest version 2, schema 2).
    fn docker_debian(&self) -> Result<Value> {
        let mut layer = self.file_layer("debian.tar", "")?;
        let settings = json!({ "Cmd": ["bash"], "Env": [PATH] });
        let mut config = self.image_config(["linux", host_architecture()], &settings, &[&layer.diff_id])?;
        config["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
        layer.descriptor["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip".into();
        let mut manifest = layout::manifest(&config, &[layer.descriptor]);
        let media_type = "application/vnd.docker.distribution.manifest.v2+json";
        manifest["mediaType"] = media_type.into();
        self.layout.json(media_type, &manifest)
    }

    /// Row 1: the CNCF Wasm OCI artifact.
    fn artifact(&self, wasm: &[u8], os: &str) -> Result<Value> {
        let layer = self.layout.blob(WASM_LAYER, wasm)?;
        let mut config = json!({
            "created": "2026-01-01T00:00:00Z", "architecture": "wasm", "os": os, "layerDigests": [layer["digest"]],
        });
        if os == "wasip2" {
            config["component"] = json!({ "exports": ["wasi:cli/run@0.2.3"], "imports": [], "target": null });
        }
        self.layout.manifest(&self.layout.json(WASM_CONFIG, &config)?, &[layer])
    }

    /// Row 2: an empty config, and the type only in `artifactType`.
    fn empty_config(&self) -> Result<Value> {
        let layer = self.layout.blob(WASM_LAYER, &self.module("hello")?)?;
        let mut manifest = layout::manifest(&self.layout.blob(EMPTY, b"{}")?, &[layer]);
        manifest["artifactType"] = WASM_CONFIG.into();
        self.layout.json(MANIFEST, &manifest)
    }

    /// Row 3: an ordinary config whose architecture is wasm, and a layer that is the program itself.
    fn bytecode_alliance(&self) -> Result<Value> {
        let component = self.read("programs/component/hello.wasm")?;
        let layer_type = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";
        let layer = self.layout.blob(layer_type, &component)?;
        let diff_id = format!("sha256:{}", sha256_hex(&component));
        let config = self.image_config(["wasip1", "wasm"], &json!({ "Entrypoint": ["hello.wasm"] }), &[&diff_id])?;
        self.layout.manifest(&config, &[layer])
    }

    /// Row 4: what `wasm-to-oci` pushed.
    fn wasm_to_oci(&self) -> Result<Value> {
        let layer = self.layout.blob("application/vnd.wasm.content.layer.v1+wasm", &self.module("hello")?)?;
        let config = self.layout.blob("application/vnd.wasm.config.v1+json", b"{}")?;
        self.layout.manifest(&config, &[layer])
    }

    /// Row 5: a plugin for a proxy.
    fn proxy_wasm(&self) -> Result<Value> {
        let layer = self.layout.blob("application/vnd.module.wasm.content.layer.v1+wasm", &self.module("library")?)?;
        let config = json!({ "type": "envoy_proxy" });
        let config = self.layout.json("application/vnd.module.wasm.config.v1+json", &config)?;
        self.layout.manifest(&config, &[layer])
    }

    /// Row 6: a Spin application, whose description is a layer, and one of whose triggers nothing here serves.
    fn spin_application(&self) -> Result<Value> {
        let program = self.layout.blob("application/vnd.wasm.content.layer.v1+wasm", &self.module("hello")?)?;
        let source = json!({ "content_type": "application/wasm", "digest": program["digest"] });
        let application = json!({
            "spin_lock_version": 1,
            "metadata": { "name": "spin-app", "trigger": { "type": "http", "base": "/" } },
            "triggers": [{ "id": "trigger--hello", "trigger_type": "http",
                           "trigger_config": { "component": "hello", "route": "/" } },
                         { "id": "trigger--news", "trigger_type": "redis",
                           "trigger_config": { "component": "hello", "channel": "news" } }],
            "components": [{ "id": "hello", "source": source }],
        });
        let application = self.layout.json("application/vnd.fermyon.spin.application.v1+config", &application)?;
        let config = self.image_config(["wasip1", "wasm"], &json!({}), &[])?;
        self.layout.manifest(&config, &[application, program])
    }

    /// Row 7: `FROM scratch`, `COPY app.wasm /`, `ENTRYPOINT ["/app.wasm"]`, built for wasi/wasm.
    fn docker_wasm(&self) -> Result<Value> {
        let layer = self.file_layer("programs/wasm/hello.wasm", "app.wasm")?;
        let config = self.image_config(["wasi", "wasm"], &json!({ "Entrypoint": ["/app.wasm"] }), &[&layer.diff_id])?;
        self.layout.manifest(&config, &[layer.descriptor])
    }

    /// Row 8: calls itself a Linux image, and by an annotation a Wasm one; only the program's bytes are evidence.
    fn compat(&self, program: &str) -> Result<Value> {
        let layer = self.file_layer(&format!("programs/{program}"), "app.wasm")?;
        let settings = json!({ "Entrypoint": ["/app.wasm"] });
        let config = self.image_config(["linux", host_architecture()], &settings, &[&layer.diff_id])?;
        let mut manifest = layout::manifest(&config, &[layer.descriptor]);
        manifest["annotations"] = json!({ "module.wasm.image/variant": "compat" });
        self.layout.json(MANIFEST, &manifest)
    }

    /// Row 9.
    fn windows(&self) -> Result<Value> {
        let layer = self.file_layer("programs/linux/hello", "Files/hello.exe")?;
        let settings = json!({ "Cmd": ["c:\\hello.exe"] });
        let config = self.image_config(["windows", "amd64"], &settings, &[&layer.diff_id])?;
        self.layout.manifest(&config, &[layer.descriptor])
    }

    /// Row 11: nothing that could be run.
    fn helm_chart(&self) -> Result<Value> {
        let mut layer = self.file_layer("programs/linux/hello", "chart/Chart.yaml")?;
        layer.descriptor["mediaType"] = "application/vnd.cncf.helm.chart.content.v1.tar+gzip".into();
        let config = json!({ "name": "chart", "version": "1.0.0", "apiVersion": "v2" });
        let config = self.layout.json("application/vnd.cncf.helm.config.v1+json", &config)?;
        self.layout.manifest(&config, &[layer.descriptor])
    }

    /// An index with a Linux image, a Wasm image and an attestation of the kind that BuildKit adds.
    fn both_kinds(&self) -> Result<Value> {
        let mut linux = self.linux_program("hello")?;
        linux["platform"] = json!({ "os": "linux", "architecture": host_architecture() });
        let mut wasm = self.artifact(&self.module("hello")?, "wasip1")?;
        wasm["platform"] = json!({ "os": "wasip1", "architecture": "wasm" });
        let mut attestation = self.attestation()?;
        attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
        attestation["annotations"] = json!({
            "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": linux["digest"],
        });
        let manifests = [attestation, wasm, linux];
        self.layout.json(INDEX, &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }))
    }

    fn attestation(&self) -> Result<Value> {
        let statement = json!({ "_type": "https://in-toto.io/Statement/v0.1", "subject": [] });
        let layer = self.layout.json("application/vnd.in-toto+json", &statement)?;
        let config = self.image_config(["unknown", "unknown"], &json!({}), &[])?;
        self.layout.manifest(&config, &[layer])
    }

    /// An image whose config promises other contents than its layer has.
    fn wrong_diff_id(&self) -> Result<Value> {
        let layer = self.file_layer("programs/linux/hello", "hello")?;
        let wrong = format!("sha256:{}", sha256_hex(b"something else"));
        let config = self.image_config(["linux", host_architecture()], &json!({ "Cmd": ["/hello"] }), &[&wrong])?;
        self.layout.manifest(&config, &[layer.descriptor])
    }

    /// An image with a layer that nobody knows how to unpack.
    fn unknown_layer_type(&self) -> Result<Value> {
        let mut layer = self.file_layer("programs/linux/hello", "hello")?;
        layer.descriptor["mediaType"] = "application/vnd.example.layer.v1.cpio+lzma".into();
        let settings = json!({ "Cmd": ["/hello"] });
        let config = self.image_config(["linux", host_architecture()], &settings, &[&layer.diff_id])?;
        self.layout.manifest(&config, &[layer.descriptor])
    }
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// This machine's architecture in Go's words, which OCI uses.
fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A tar of a folder, or of one file as `name`, that is the same whenever and by whomever it is made.
fn pack(path: &Path, name: &str) -> Result<Vec<u8>> {
    let mut tar = bounded("tar", SHORT);
    tar.args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"]);
    if path.is_dir() {
        tar.arg("--directory").arg(path).arg(".");
    } else {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        tar.arg(format!("--transform=s,^{file_name}$,{name},")).arg("--directory").arg(folder).arg(&*file_name);
    }
    command::run(&mut tar)
}

/// `archives/`: the same images as files, as `skopeo` and as a plain `tar` of a layout make them.
fn archives(fixtures: &mut Fixtures) -> Result<()> {
    let stamp = ["busybox", "programs"].map(|part| fixtures.stamp(part)).concat();
    let stamp = sha256_hex(format!("{}{stamp}", include_str!("catalog.rs")).as_bytes());
    if command::find("skopeo").is_none() || fixtures.existing("layouts/busybox-latest").is_none() {
        fixtures.left_out.push("fixture archives: skopeo or busybox is not installed".to_owned());
        return Ok(());
    }
    fixtures.keep("archives", &stamp, |folder| {
        fs::create_dir_all(folder)?;
        let busybox = format!("oci:{}:busybox:latest", fixtures.path("layouts/busybox-latest").display());
        let file = |name: &str| folder.join(name).display().to_string();
        skopeo(&[&busybox, &format!("docker-archive:{}:busybox:latest", file("busybox.docker.tar"))])?;
        skopeo(&[&busybox, &format!("oci-archive:{}:busybox:latest", file("busybox.oci.tar"))])?;
        let zstd = format!("oci:{}:busybox:zstd", file("busybox-zstd"));
        skopeo(&["--dest-compress", "--dest-compress-format", "zstd", &busybox, &zstd])?;
        fs::write(folder.join("hello-wasm.oci.tar"), pack(&fixtures.path("layouts/hello-wasm"), "")?)?;
        fs::write(folder.join("hello-both.oci.tar"), pack(&fixtures.path("layouts/hello-latest"), "")?)?;
        Ok(())
    })
}

fn skopeo(arguments: &[&str]) -> Result<()> {
    let mut skopeo = bounded("skopeo", SHORT);
    command::run(skopeo.args(["--insecure-policy", "copy", "--quiet"]).args(arguments)).map(drop)
}
