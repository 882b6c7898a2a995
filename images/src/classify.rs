//! What an image is: the table below, as a pure function of its manifest, its config, and where those are not
//! enough the first bytes of its entrypoint. The first rule that matches wins.
//!
//! | rule | evidence | class |
//! |---|---|---|
//! | 1 | config `application/vnd.wasm.config.v0+json`, exactly one layer of a Wasm type | Wasm |
//! | 2 | a config that says nothing; exactly one layer of a Wasm type, or an `artifactType` of Wasm | Wasm |
//! | 3 | OCI or Docker config, exactly one layer of a Wasm type | Wasm |
//! | 4 | another config of Wasm or wasmCloud, exactly one layer of a Wasm type | Wasm |
//! | 5 | config or layer `application/vnd.module.wasm.*` | proxy-wasm plugin |
//! | 6 | config or layer `application/vnd.fermyon.spin.*` | Spin application |
//! | 7 | OCI or Docker config for Wasm, tar layers | Wasm in a root file system |
//! | 8 | tar layers, and annotation `module.wasm.image/variant` or `run.oci.handler` says Wasm, or the entrypoint's name ends in `.wasm` | the same if the entrypoint's bytes are Wasm, else Linux |
//! | 9 | os windows | Windows |
//! | 10 | os linux, tar layers | Linux |
//! | 11 | anything else | other |
//!
//! Layers of a Wasm type are `application/wasm`, `application/vnd.bytecodealliance.wasm.component.layer.v0+wasm`,
//! `application/vnd.wasm.content.layer.v1+wasm` and `application/vnd.w3c.wasm.{module,component}.v1+wasm`; with a config of
//! wasmCloud `application/vnd.module.wasm.content.layer.v1+wasm` too. Rules 1 to 4 do not match beside a layer of Spin's.
//!
//! A config says nothing if it is the empty one, `application/vnd.unknown.config.v1+json`, plain JSON or plain bytes.
//! `artifactType` decides only there, and `application/vnd.unknown.artifact.v1` says nothing either; where it disagrees with
//! the config there is a warning. A config is for Wasm by its architecture, or its os where tools exchange the two.
//!
//! Sources: the OCI image-spec (manifest.md, media-types.md), the CNCF TAG-Runtime Wasm OCI artifact document,
//! containerd's core/images/mediatypes.go, the documentation of crun's Wasm handler, and the media types of runwasi,
//! krustlet, solo.io's Wasm image specification, wasmCloud, ORAS, and Spin.

use crate::{
    platform::Platform,
    program::{self, Form},
};
use oci_spec::image::{Descriptor, ImageManifest};
use serde::Deserialize;
use std::collections::HashMap;

const CNCF_CONFIG: &str = "application/vnd.wasm.config.v0+json";
const CNCF_LAYER: &str = "application/wasm";
const COMPONENT_LAYER: &str = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";
const KRUSTLET_CONFIG: &str = "application/vnd.wasm.config.v1+json";
const KRUSTLET_LAYER: &str = "application/vnd.wasm.content.layer.v1+wasm";
const WASM_LAYERS: [&str; 5] = [
    CNCF_LAYER,
    COMPONENT_LAYER,
    KRUSTLET_LAYER,
    "application/vnd.w3c.wasm.module.v1+wasm",
    "application/vnd.w3c.wasm.component.v1+wasm",
];
const WASMCLOUD_PREFIX: &str = "application/vnd.wasmcloud.";
const WASMCLOUD_LAYER: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
const PROXY_PREFIX: &str = "application/vnd.module.wasm.";
const SPIN_PREFIX: &str = "application/vnd.fermyon.spin.";
/// What describes one.
pub(crate) const SPIN_APPLICATION: &str = "application/vnd.fermyon.spin.application.v1+config";
const EMPTY_CONFIG: &str = "application/vnd.oci.empty.v1+json";
/// What tools write who were told no type: ORAS, and others.
const SAYING_NOTHING: [&str; 5] =
    [EMPTY_CONFIG, "application/vnd.unknown.config.v1+json", "application/json", "application/octet-stream", ""];
const UNKNOWN_ARTIFACT: &str = "application/vnd.unknown.artifact.v1";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// A search path for entrypoints without a slash, where the config sets none: Docker's.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// Layers of a Linux root file system.
    Linux,
    /// One blob that is the program (rows 1–4).
    WasmArtifact {
        /// Digest of the layer that is the program.
        program: String,
    },
    /// The program is a file in a root file system (row 7, and row 8 when the bytes say so). Path inside the root.
    WasmRootfs {
        /// The entrypoint: an absolute path.
        program: String,
    },
    /// Stored, never run.
    ProxyWasm,
    /// Spin application.
    Spin,
    /// Windows image.
    Windows,
    /// Anything else, by its type.
    Other {
        /// Media type or artifactType.
        media_type: String,
    },
}

impl Class {
    /// For lists: `linux`, `wasm`, or what else it is.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Class::Linux => "linux",
            Class::WasmArtifact { .. } | Class::WasmRootfs { .. } => "wasm",
            Class::ProxyWasm => "proxy-wasm",
            Class::Spin => "spin",
            Class::Windows => "windows",
            Class::Other { .. } => "other",
        }
    }
}

/// The class, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classification {
    /// What it is.
    pub class: Class,
    /// Row of the table in docs, 1..=11.
    pub rule: u8,
    /// One sentence with the evidence found.
    pub reason: String,
    /// E.g. artifactType disagrees with config.
    pub warnings: Vec<String>,
}

/// How a layer's tar is compressed, as its media type says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TarCompression {
    /// `…tar`: as a rule plain, but Docker's may be compressed all the same. Look at the bytes.
    LookAtBytes,
    /// `…+gzip`, `….gzip`
    Gzip,
    /// `…+zstd`, `….zstd`
    Zstd,
}

/// What the media type of a layer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerKind {
    /// Part of a root file system.
    Tar(TarCompression),
    /// A Wasm binary.
    Wasm,
    /// Known, and never accepted; the reason is a sentence.
    Refused(&'static str),
    /// Anything else: stored as it is.
    Other,
}

/// What there is at an entrypoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// The layers are not unpacked yet.
    NotKnown,
    /// No such file.
    Missing,
    /// A file that begins so: 8 bytes or more, fewer only if it is shorter.
    Bytes(Vec<u8>),
}

/// Reads a layer's media type.
pub fn layer_kind(media_type: &str) -> LayerKind {
    if media_type.ends_with("+encrypted") || media_type.contains("+encrypted;") {
        return LayerKind::Refused(
            "the layer is encrypted (ocicrypt), and nothing here decrypts; pull a plain copy of the image",
        );
    }
    match media_type {
        wasm if WASM_LAYERS.contains(&wasm) => LayerKind::Wasm,
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar" => LayerKind::Tar(TarCompression::LookAtBytes),
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => LayerKind::Tar(TarCompression::Gzip),
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd" => LayerKind::Tar(TarCompression::Zstd),
        "application/vnd.docker.container.image.rootfs.diff+x-gtar" => LayerKind::Refused(SCHEMA_1),
        _ => LayerKind::Other,
    }
}

const SCHEMA_1: &str =
    "it is in Docker's schema 1, which no registry should serve any more; push the image again with a current tool";

/// Why a manifest of this type is refused before it is read; None if it is not.
pub fn refused_manifest(media_type: &str) -> Option<&'static str> {
    match media_type {
        "application/vnd.docker.distribution.manifest.v1+json"
        | "application/vnd.docker.distribution.manifest.v1+prettyjws" => Some(SCHEMA_1),
        "application/vnd.oci.artifact.manifest.v1+json" => Some(
            "it is an OCI artifact manifest, which the specification has withdrawn; push it again as an image manifest",
        ),
        _ => None,
    }
}

/// Says what an image is.
///
/// `config` is the config blob as it came, whatever its type. `head` is called only where rules 7 and 8 apply, with
/// absolute paths where the entrypoint may be, best first. No other I/O happens.
pub fn classify(manifest: &ImageManifest, config: &[u8], head: &mut dyn FnMut(&str) -> Head) -> Classification {
    let evidence = Evidence::new(manifest, config);
    let rules = [wasm_artifact, saying_nothing, wasm_image, other_wasm, proxy_wasm, spin];
    let found = rules.iter().find_map(|rule| rule(&evidence));
    let found = found.or_else(|| wasm_rootfs(&evidence, head)).or_else(|| marked(&evidence, head));
    let found = found.or_else(|| windows(&evidence)).or_else(|| linux(&evidence));
    let mut classification = found.unwrap_or_else(|| other(&evidence));
    classification.warnings.extend(evidence.disagreement());
    classification
}

/// What the rules look at.
struct Evidence<'a> {
    manifest: &'a ImageManifest,
    config_type: &'a str,
    artifact_type: Option<&'a str>,
    layer_types: Vec<&'a str>,
    config: ConfigView,
}

/// The few fields of a config that decide. Those of artifacts have `os` and `architecture` too, and nothing else here.
#[derive(Deserialize, Default)]
#[serde(default)]
struct ConfigView {
    os: String,
    architecture: String,
    config: Option<ProcessView>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct ProcessView {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
}

/// Whether a config of this type is that of an image.
pub(crate) fn is_image_config(media_type: &str) -> bool {
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
}

impl<'a> Evidence<'a> {
    fn new(manifest: &'a ImageManifest, config: &[u8]) -> Self {
        Self {
            manifest,
            config_type: manifest.config().media_type().as_ref(),
            artifact_type: manifest.artifact_type().as_ref().map(AsRef::as_ref),
            layer_types: manifest.layers().iter().map(|layer| layer.media_type().as_ref()).collect(),
            // A config that is not such a document, `{}` or a picture, says nothing; that is no error.
            config: serde_json::from_slice(config).unwrap_or_default(),
        }
    }

    fn is_image(&self) -> bool {
        is_image_config(self.config_type)
    }

    fn is_for_wasm(&self) -> bool {
        Platform::new(&self.config.os, &self.config.architecture, None).is_wasm()
    }

    /// Whether all layers are tars, and there is one.
    fn has_root(&self) -> bool {
        let is_tar = |media_type: &&str| matches!(layer_kind(media_type), LayerKind::Tar(_));
        !self.layer_types.is_empty() && self.layer_types.iter().all(is_tar)
    }

    /// The only layer of a type of Wasm, and not beside one of Spin's.
    fn program(&self) -> Option<&'a Descriptor> {
        self.only_layer(&WASM_LAYERS).filter(|_| self.any_type(SPIN_PREFIX).is_none())
    }

    /// The only layer of one of these types.
    fn only_layer(&self, types: &[&str]) -> Option<&'a Descriptor> {
        let mut of_type = self.manifest.layers().iter().filter(|layer| types.contains(&layer.media_type().as_ref()));
        of_type.next().filter(|_| of_type.next().is_none())
    }

    /// The config's or a layer's type that begins so.
    fn any_type(&self, prefix: &str) -> Option<&'a str> {
        let types = std::iter::once(self.config_type).chain(self.layer_types.iter().copied());
        types.chain(self.artifact_type).find(|media_type| media_type.starts_with(prefix))
    }

    fn platform(&self) -> String {
        let say = |text: &str| if text.is_empty() { "?".to_owned() } else { text.to_owned() };
        format!("{}/{}", say(&self.config.os), say(&self.config.architecture))
    }

    /// The manifest's annotation by which the tools around crun mark Wasm.
    fn wasm_annotation(&self) -> Option<String> {
        let annotations: &HashMap<String, String> = self.manifest.annotations().as_ref()?;
        let table =
            [("module.wasm.image/variant", ["compat", "compat-smart"]), ("run.oci.handler", ["wasm", "wasm-smart"])];
        let given = table
            .iter()
            .find(|(key, values)| annotations.get(*key).is_some_and(|value| values.contains(&value.as_str())));
        given.map(|(key, _)| format!("{key}={}", annotations[*key]))
    }

    /// Where the entrypoint may be in the root file system, best first; empty if the config names none.
    fn program_paths(&self) -> Vec<String> {
        let Some(process) = &self.config.config else { return Vec::new() };
        let first = |list: &Option<Vec<String>>| list.as_ref().and_then(|words| words.first().cloned());
        let Some(program) = first(&process.entrypoint).or_else(|| first(&process.cmd)) else { return Vec::new() };
        if program.starts_with('/') {
            return vec![program];
        }
        let mut folders = vec![process.working_dir.as_deref().unwrap_or("/")];
        if !program.contains('/') {
            let variables = process.env.iter().flatten();
            let path = variables.filter_map(|variable| variable.strip_prefix("PATH=")).next_back();
            folders.extend(path.unwrap_or(DEFAULT_PATH).split(':'));
        }
        folders.iter().map(|folder| format!("/{}/{program}", folder.trim_matches('/')).replacen("//", "/", 1)).collect()
    }

    /// The warning if `artifactType` says another thing than a config that is not empty.
    fn disagreement(&self) -> Option<String> {
        let artifact_type = self.artifact_type?;
        let agrees =
            SAYING_NOTHING.contains(&self.config_type) || [self.config_type, UNKNOWN_ARTIFACT].contains(&artifact_type);
        let both_wasm = is_wasm_type(artifact_type) && is_wasm_type(self.config_type);
        (!agrees && !both_wasm).then(|| {
            format!("artifactType is {artifact_type}, but the config is {}; the config is trusted", self.config_type)
        })
    }
}

/// The types by which rules 1, 3 and 4 know a Wasm program.
fn is_wasm_type(media_type: &str) -> bool {
    matches!(media_type, CNCF_CONFIG | KRUSTLET_CONFIG) || WASM_LAYERS.contains(&media_type)
}

fn decided(rule: u8, class: Class, reason: String) -> Classification {
    Classification { class, rule, reason, warnings: Vec::new() }
}

fn artifact(rule: u8, program: &Descriptor, reason: String) -> Classification {
    decided(rule, Class::WasmArtifact { program: program.digest().to_string() }, reason)
}

/// Rule 1.
fn wasm_artifact(evidence: &Evidence) -> Option<Classification> {
    let program = (evidence.config_type == CNCF_CONFIG).then(|| evidence.program())??;
    let layer_type = program.media_type();
    let reason = format!("the config is {CNCF_CONFIG} and the one layer of type {layer_type} is the program");
    Some(artifact(1, program, reason))
}

/// Rule 2.
fn saying_nothing(evidence: &Evidence) -> Option<Classification> {
    if !SAYING_NOTHING.contains(&evidence.config_type) {
        return None;
    }
    let artifact_type = evidence.artifact_type.filter(|said| *said != UNKNOWN_ARTIFACT);
    let config = if evidence.config_type == EMPTY_CONFIG { "empty" } else { evidence.config_type };
    if let Some(program) = evidence.program().filter(|_| artifact_type.is_none_or(is_wasm_type)) {
        let reason =
            format!("the config is {config}, and the one layer of type {} is the program", program.media_type());
        return Some(artifact(2, program, reason));
    }
    let said = artifact_type.filter(|said| is_wasm_type(said))?;
    let program = evidence.manifest.layers().first().filter(|_| evidence.layer_types.len() == 1)?;
    let mut found = artifact(2, program, format!("the config is {config} and artifactType is {said}"));
    found.warnings.push(format!("the layer taken for the program has type {}", program.media_type()));
    Some(found)
}

/// Rule 3.
fn wasm_image(evidence: &Evidence) -> Option<Classification> {
    let program = evidence.is_image().then(|| evidence.program())??;
    let layer_type = program.media_type();
    let platform = evidence.platform();
    let mut found = artifact(3, program, format!("the config's platform is {platform} and the layer is {layer_type}"));
    if !evidence.is_for_wasm() {
        found
            .warnings
            .push(format!("the config's platform is {platform}, but the layer is {layer_type}; the layer is trusted"));
    }
    Some(found)
}

/// Rule 4.
fn other_wasm(evidence: &Evidence) -> Option<Classification> {
    let program = match evidence.config_type {
        KRUSTLET_CONFIG => evidence.program(),
        wasmcloud if wasmcloud.starts_with(WASMCLOUD_PREFIX) => {
            evidence.program().or_else(|| evidence.only_layer(&[WASMCLOUD_LAYER]))
        }
        _ => None,
    }?;
    let reason = format!("the config is {} and the layer is {}", evidence.config_type, program.media_type());
    Some(artifact(4, program, reason))
}

/// Rule 5.
fn proxy_wasm(evidence: &Evidence) -> Option<Classification> {
    let found = evidence.any_type(PROXY_PREFIX)?;
    Some(decided(5, Class::ProxyWasm, format!("{found} is the type of plugins for proxies such as Envoy")))
}

/// Rule 6.
fn spin(evidence: &Evidence) -> Option<Classification> {
    let found = evidence.any_type(SPIN_PREFIX)?;
    Some(decided(6, Class::Spin, format!("{found} is the type of Spin applications")))
}

/// Rule 7.
fn wasm_rootfs(evidence: &Evidence, head: &mut dyn FnMut(&str) -> Head) -> Option<Classification> {
    if !(evidence.is_image() && evidence.is_for_wasm() && evidence.has_root()) {
        return None;
    }
    let platform = format!("the config's platform is {} and the layers are a root file system", evidence.platform());
    let Some((program, bytes)) = find_program(&evidence.program_paths(), head) else {
        let media_type = evidence.config_type.to_owned();
        return Some(decided(7, Class::Other { media_type }, format!("{platform}, but it names no entrypoint")));
    };
    let (reason, warning) = match &bytes {
        Head::NotKnown => (format!("{platform}; entrypoint {program} is not unpacked yet"), None),
        Head::Missing => (platform, Some(format!("there is no entrypoint {program} in the layers"))),
        Head::Bytes(bytes) => match Form::of(bytes) {
            Some(_) => (format!("{platform}, and entrypoint {program} is Wasm"), None),
            None => (platform, Some(format!("entrypoint {program} is not Wasm but {}", program::describe(bytes)))),
        },
    };
    let mut found = decided(7, Class::WasmRootfs { program }, reason);
    found.warnings.extend(warning);
    Some(found)
}

/// Rule 8.
fn marked(evidence: &Evidence, head: &mut dyn FnMut(&str) -> Head) -> Option<Classification> {
    if !(evidence.is_image() && evidence.has_root()) {
        return None;
    }
    let paths = evidence.program_paths();
    let annotation = evidence.wasm_annotation().map(|annotation| format!("the annotation {annotation} is there"));
    let named = || {
        paths.first().filter(|path| path.ends_with(".wasm")).map(|_| "the entrypoint's name ends in .wasm".to_owned())
    };
    let mark = annotation.or_else(named)?;
    let found = find_program(&paths, head);
    let (class, but) = match found {
        Some((program, Head::Bytes(bytes))) if Form::of(&bytes).is_some() => {
            let reason = format!("{mark}, and entrypoint {program} is Wasm");
            return Some(decided(8, Class::WasmRootfs { program }, reason));
        }
        Some((program, Head::Bytes(bytes))) => {
            (Class::Linux, format!("entrypoint {program} is {}", program::describe(&bytes)))
        }
        Some((program, Head::Missing)) => (Class::Linux, format!("there is no entrypoint {program}")),
        Some((program, Head::NotKnown)) => (Class::Linux, format!("entrypoint {program} is not unpacked yet")),
        None => (Class::Linux, "it names no entrypoint".to_owned()),
    };
    let is_linux = evidence.config.os.eq_ignore_ascii_case("linux");
    is_linux.then(|| decided(8, class, format!("{mark}, but {but}")))
}

/// The first path at which there is something; else the first, missing or not known.
fn find_program(paths: &[String], head: &mut dyn FnMut(&str) -> Head) -> Option<(String, Head)> {
    let found = paths.iter().map(|path| (path, head(path))).find(|(_, found)| *found != Head::Missing);
    let (path, found) = found.or_else(|| paths.first().map(|path| (path, Head::Missing)))?;
    Some((path.clone(), found))
}

/// Rule 9.
fn windows(evidence: &Evidence) -> Option<Classification> {
    let is_windows = evidence.is_image() && evidence.config.os.eq_ignore_ascii_case("windows");
    is_windows.then(|| decided(9, Class::Windows, format!("the config's platform is {}", evidence.platform())))
}

/// Rule 10.
fn linux(evidence: &Evidence) -> Option<Classification> {
    let is_linux = evidence.is_image() && evidence.config.os.eq_ignore_ascii_case("linux") && evidence.has_root();
    let reason = || format!("the config's platform is {} and the layers are a root file system", evidence.platform());
    is_linux.then(|| decided(10, Class::Linux, reason()))
}

/// Rule 11: named by what makes it other, and if nothing does by its artifactType or config.
fn other(evidence: &Evidence) -> Classification {
    let refused = evidence.layer_types.iter().find_map(|media_type| match layer_kind(media_type) {
        LayerKind::Refused(why) => Some((*media_type, why.to_owned())),
        _ => None,
    });
    let strange = || {
        let strange = evidence.layer_types.iter().find(|media_type| layer_kind(media_type) == LayerKind::Other)?;
        evidence.is_image().then(|| (*strange, format!("its layer {strange} is not of a type that can be unpacked")))
    };
    let (media_type, reason) = refused.or_else(strange).unwrap_or_else(|| by_type(evidence));
    decided(11, Class::Other { media_type: media_type.to_owned() }, reason)
}

fn by_type<'a>(evidence: &Evidence<'a>) -> (&'a str, String) {
    if evidence.is_image() {
        let layers = evidence.layer_types.len();
        return (evidence.config_type, format!("platform {} with {layers} layers is no rule's", evidence.platform()));
    }
    if is_wasm_type(evidence.config_type) {
        let expected = "the one layer that would be the program is not there";
        return (evidence.config_type, format!("the config is {}, but {expected}", evidence.config_type));
    }
    let first_layer = || evidence.layer_types.first().copied().filter(|_| evidence.config_type == EMPTY_CONFIG);
    let media_type = evidence.artifact_type.or_else(first_layer).unwrap_or(evidence.config_type);
    (media_type, format!("{media_type} is no image's type"))
}

#[cfg(test)]
mod tests;
