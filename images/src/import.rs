//! Import: an image is made of a root file system's tar archive, or of a `.wasm` or `.wat` file.
//!
//! What a file is comes from its bytes. A root file system becomes a Linux image of one layer, stored as it was given:
//! plain, gzip, zstd, xz or bzip2. A Wasm binary becomes a CNCF Wasm OCI artifact, which is refused here rather than at its first
//! run if it is broken.
//!
//! Sources: the OCI image-spec (config.md, manifest.md), the CNCF TAG-Runtime Wasm OCI artifact document.

use crate::{
    Budget, Digest, Image, Reference, Selection, Store,
    archive::open_seekable,
    ingest::{self, Expected, IngestError, Staged},
    platform::Platform,
    program::{self, Form, ProgramError},
    ready::{NotReady, Ready, Stored, clean_up},
    store::{StoreError, Writing, clock},
    unpack::{self, Compression, decompress, is_tar, storable},
};
use serde_json::{Map, Value, json};
use std::{
    fs::File,
    io::{self, Cursor, Read, Seek},
    path::Path,
};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const IMAGE_CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const WASM_CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";
const WASM_TYPE: &str = "application/wasm";
/// The file name that a layer had (OCI image-spec, annotations.md; used so by ORAS).
const TITLE: &str = "org.opencontainers.image.title";
/// Twice what the largest real programs have. It is read into memory.
const WASM_BYTES: u64 = 128 << 20;
/// Enough to tell what a file is.
const HEAD_BYTES: u64 = 1024;

/// What the file was, and what can be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It cannot be read.
    #[error("reading {file}: {source}")]
    Read {
        /// As it was given.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Something else.
    #[error(
        "{file} is {found}; a tar archive of a root file system (plain, gzip, zstd, xz or bzip2), a Wasm binary or WebAssembly text can be imported"
    )]
    Unknown {
        /// As it was given.
        file: String,
        /// What its bytes look like.
        found: String,
    },
    /// Wasm that is too large.
    #[error("{file} is a Wasm binary of more than {limit} bytes, the most that can be imported")]
    TooLarge {
        /// As it was given.
        file: String,
        /// The bound, bytes.
        limit: u64,
    },
    /// Wasm that is broken.
    #[error("{file}: {source}")]
    Wasm {
        /// As it was given.
        file: String,
        /// What is wrong, at which offset.
        source: ProgramError,
    },
    /// Settings for an image that has no place for them.
    #[error(
        "{file} is a Wasm program, and its image has no place for settings or a message: give those that `run` takes there"
    )]
    Settings {
        /// As it was given.
        file: String,
    },
    /// WebAssembly text that is broken.
    #[error("{file}: {source}")]
    Text {
        /// As it was given.
        file: String,
        /// What is wrong, at which line.
        source: wat::Error,
    },
    /// A tar archive that is broken, or no layer.
    #[error("{file}: {source}")]
    Layer {
        /// As it was given.
        file: String,
        /// What is wrong with it.
        source: IngestError,
    },
    /// It is stored and cannot be made ready to run.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// The name that the image is to have, once it is ready.
struct Named<'a> {
    name: &'a Reference,
    budget: Budget,
    ready: Ready<'a>,
}

/// Settings of the new image: `--change` of docker import. A Wasm artifact has no place for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// CMD
    pub cmd: Option<Vec<String>>,
    /// ENTRYPOINT
    pub entrypoint: Option<Vec<String>>,
    /// ENV
    pub env: Vec<String>,
    /// WORKDIR
    pub workdir: Option<String>,
    /// USER
    pub user: Option<String>,
    /// LABEL
    pub labels: Vec<(String, String)>,
    /// EXPOSE: `80/tcp`
    pub exposed_ports: Vec<String>,
    /// VOLUME
    pub volumes: Vec<String>,
    /// What the image's history says of the import, besides where it came from.
    pub message: Option<String>,
}

impl Changes {
    /// Changes the `config` object of an image that there is: single values are replaced, the others come to what is there.
    pub(crate) fn apply(&self, config: &mut Map<String, Value>) {
        for (name, value) in [("Cmd", &self.cmd), ("Entrypoint", &self.entrypoint)] {
            if let Some(value) = value {
                config.insert(name.to_owned(), json!(value));
            }
        }
        for (name, value) in [("WorkingDir", &self.workdir), ("User", &self.user)] {
            if let Some(value) = value {
                config.insert(name.to_owned(), json!(value));
            }
        }
        let nothing = || json!({});
        let pairs = self.labels.iter().map(|(name, value)| ("Labels", name, json!(value)));
        let ports = self.exposed_ports.iter().map(|port| ("ExposedPorts", port, nothing()));
        let volumes = self.volumes.iter().map(|volume| ("Volumes", volume, nothing()));
        for (place, name, value) in pairs.chain(ports).chain(volumes) {
            let map = config.entry(place).or_insert_with(nothing);
            if !map.is_object() {
                *map = nothing();
            }
            map[name.as_str()] = value;
        }
        let mut env: Vec<String> =
            config.get("Env").and_then(|env| serde_json::from_value(env.clone()).ok()).unwrap_or_default();
        for variable in &self.env {
            let name = variable.split_once('=').map_or(variable.as_str(), |(name, _)| name);
            env.retain(|other| other.split_once('=').map_or(other.as_str(), |(name, _)| name) != name);
            env.push(variable.clone());
        }
        if !self.env.is_empty() {
            config.insert("Env".to_owned(), json!(env));
        }
    }

    /// The `config` object of an image config; what is not set is left out.
    fn config(&self) -> Value {
        let mut config = Map::new();
        let mut set = |key: &str, value: Option<Value>| value.map(|value| config.insert(key.to_owned(), value));
        set("Cmd", self.cmd.as_ref().map(|cmd| json!(cmd)));
        set("Entrypoint", self.entrypoint.as_ref().map(|entrypoint| json!(entrypoint)));
        set("Env", Some(json!(self.env)).filter(|_| !self.env.is_empty()));
        set("WorkingDir", self.workdir.as_ref().map(|workdir| json!(workdir)));
        set("User", self.user.as_ref().map(|user| json!(user)));
        let labels: Map<_, _> = self.labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        set("Labels", Some(Value::Object(labels)).filter(|_| !self.labels.is_empty()));
        let names = |names: &[String]| -> Map<_, _> { names.iter().map(|name| (name.clone(), json!({}))).collect() };
        let ports = names(&self.exposed_ports);
        set("ExposedPorts", Some(Value::Object(ports)).filter(|_| !self.exposed_ports.is_empty()));
        set("Volumes", Some(Value::Object(names(&self.volumes))).filter(|_| !self.volumes.is_empty()));
        Value::Object(config)
    }
}

/// Imports `file` (or standard input, `-`) under a name.
///
/// The name is given when the image is `ready`.
///
/// # Errors
/// See [`ImportError`]; the store is then as it was.
pub fn import(
    store: &Store,
    file: &Path,
    name: &Reference,
    changes: &Changes,
    ready: Ready,
) -> Result<Image, ImportError> {
    let target = &Named { name, budget: Budget::default(), ready };
    let shown = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let read = |source| ImportError::Read { file: shown.clone(), source };
    let opened = open_seekable(store, file, &target.budget).map_err(read)?;
    let found = look(&opened, &target.budget).map_err(read)?;
    if matches!(found, Found::Wasm | Found::Text) && *changes != Changes::default() {
        return Err(ImportError::Settings { file: shown });
    }
    match found {
        Found::Wasm => {
            let bytes = whole(&opened, &shown)?;
            store_wasm(store, &bytes, &shown, file.file_name().and_then(|name| name.to_str()), target)
        }
        Found::Text => {
            let text = whole(&opened, &shown)?;
            let bytes = wat::Parser::new().parse_bytes(Some(file), &text);
            let bytes = bytes.map_err(|source| ImportError::Text { file: shown.clone(), source })?.into_owned();
            store_wasm(
                store,
                &bytes,
                &shown,
                file.with_extension("wasm").file_name().and_then(|name| name.to_str()),
                target,
            )
        }
        Found::Tar(compression) => import_tar(store, opened, compression, &shown, target, changes),
        Found::Other(found) => Err(ImportError::Unknown { file: shown, found }),
    }
}

/// The same from memory, for built-in images: (path, mode, bytes) make a one-layer Linux image, owned by root.
///
/// # Errors
/// See [`ImportError`].
pub fn import_files(
    store: &Store,
    files: &[(&str, u32, &[u8])],
    name: &Reference,
    changes: &Changes,
) -> Result<Image, ImportError> {
    let shown = "the files in memory";
    let tar = archive_of(files).map_err(|source| ImportError::Read { file: shown.to_owned(), source })?;
    let diff_id = ingest::digest_of(&tar).map_err(|source| layer_error(shown, source))?;
    let target = &Named { name, budget: Budget::default(), ready: &|_| Ok(()) };
    store_linux(store, &mut Cursor::new(tar), &diff_id, Compression::None, shown, target, changes)
}

/// The same from memory: a Wasm binary or WebAssembly text.
///
/// # Errors
/// See [`ImportError`].
pub fn import_wasm(store: &Store, bytes: &[u8], name: &Reference) -> Result<Image, ImportError> {
    let shown = "the program in memory";
    let binary = wat::parse_bytes(bytes).map_err(|source| ImportError::Text { file: shown.to_owned(), source })?;
    store_wasm(store, &binary, shown, None, &Named { name, budget: Budget::default(), ready: &|_| Ok(()) })
}

/// What a file's beginning says.
enum Found {
    Wasm,
    Text,
    Tar(Compression),
    Other(String),
}

fn look(mut file: &File, budget: &Budget) -> io::Result<Found> {
    let mut first = Vec::new();
    file.rewind()?;
    file.take(HEAD_BYTES).read_to_end(&mut first)?;
    file.rewind()?;
    if first.starts_with(b"\0asm") {
        return Ok(Found::Wasm);
    }
    let compression = Compression::of(&first);
    let mut head = Vec::new();
    if compression == Compression::None {
        head = first;
    } else {
        decompress(Box::new(file.try_clone()?), budget)?.take(HEAD_BYTES).read_to_end(&mut head)?;
        file.rewind()?;
    }
    Ok(match compression {
        _ if is_tar(&head) => Found::Tar(compression),
        Compression::None if is_text(&head) => Found::Text,
        Compression::None => Found::Other(program::describe(&head).to_owned()),
        _ => Found::Other(format!("{} in compressed form", program::describe(&head))),
    })
}

/// WebAssembly text begins with a parenthesis or a comment.
fn is_text(head: &[u8]) -> bool {
    let start = head.trim_ascii_start();
    start.starts_with(b"(") || start.starts_with(b";;")
}

fn whole(file: &File, shown: &str) -> Result<Vec<u8>, ImportError> {
    let length = file.metadata().map_or(0, |found| found.len().min(WASM_BYTES));
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default() + 1);
    let read = file.take(WASM_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|source| ImportError::Read { file: shown.to_owned(), source })?;
    if bytes.len() as u64 > WASM_BYTES {
        return Err(ImportError::TooLarge { file: shown.to_owned(), limit: WASM_BYTES });
    }
    Ok(bytes)
}

/// Read twice: the staging directory's name, the diff id, is known only at the end of the first time.
fn import_tar(
    store: &Store,
    mut file: File,
    compression: Compression,
    shown: &str,
    target: &Named,
    changes: &Changes,
) -> Result<Image, ImportError> {
    let read = |source| ImportError::Read { file: shown.to_owned(), source };
    let mut stream = decompress(Box::new(file.try_clone().map_err(read)?), &target.budget).map_err(read)?;
    let found = unpack::diff_id(&mut stream, &target.budget);
    let diff_id = found.map_err(|source| layer_error(shown, source.into()))?;
    // The second time needs its memory.
    drop(stream);
    file.rewind().map_err(read)?;
    let mut layer = storable(Box::new(file), compression, &target.budget).map_err(read)?;
    store_linux(store, &mut layer, &diff_id, compression, shown, target, changes)
}

fn store_linux(
    store: &Store,
    layer: &mut (dyn Read + Send),
    diff_id: &Digest,
    compression: Compression,
    shown: &str,
    target: &Named,
    changes: &Changes,
) -> Result<Image, ImportError> {
    let writing = store.writing()?;
    let expected = Expected { digest: None, size: None, diff_id: Some(diff_id.clone()) };
    let staged = ingest::stage(store, layer, &expected, &target.budget).map_err(|source| layer_error(shown, source))?;
    let (host, created) = (Platform::host(), clock::now());
    let mut history = json!({ "created": created, "created_by": format!("amphora import {shown}") });
    if let Some(message) = &changes.message {
        history["comment"] = json!(message);
    }
    let mut config = json!({
        "created": created,
        "architecture": host.architecture,
        "os": host.os,
        "config": changes.config(),
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [history],
    });
    if let Some(variant) = host.variant {
        config["variant"] = json!(variant);
    }
    let layer = json!({ "mediaType": compression.layer_media_type(), "digest": staged.digest, "size": staged.size });
    finish(store, staged, (IMAGE_CONFIG_TYPE, &config), &layer, target, writing)
}

fn store_wasm(
    store: &Store,
    bytes: &[u8],
    shown: &str,
    title: Option<&str>,
    target: &Named,
) -> Result<Image, ImportError> {
    let inspected = program::inspect(bytes);
    let program = inspected.map_err(|source| ImportError::Wasm { file: shown.to_owned(), source })?;
    let writing = store.writing()?;
    let expected = Expected { digest: None, size: None, diff_id: None };
    let mut stream = bytes;
    let staged =
        ingest::stage(store, &mut stream, &expected, &target.budget).map_err(|source| layer_error(shown, source))?;
    let os = if program.form == Form::Module { "wasip1" } else { "wasip2" };
    let mut config = json!({
        "created": clock::now(), "architecture": "wasm", "os": os, "layerDigests": [staged.digest],
    });
    if program.form == Form::Component {
        config["component"] = json!({ "exports": program.exports, "imports": program.imports, "target": null });
    }
    let mut layer = json!({ "mediaType": WASM_TYPE, "digest": staged.digest, "size": staged.size });
    if let Some(title) = title {
        layer["annotations"] = json!({ TITLE: title });
    }
    finish(store, staged, (WASM_CONFIG_TYPE, &config), &layer, target, writing)
}

/// Makes the layer visible, stores config and manifest, gives the name.
fn finish(
    store: &Store,
    staged: Staged,
    config: (&str, &Value),
    layer: &Value,
    target: &Named,
    writing: Writing,
) -> Result<Image, ImportError> {
    let finished = name_when_ready(store, staged, config, layer, target);
    if finished.is_err() {
        clean_up(store, writing);
    }
    finished
}

fn name_when_ready(
    store: &Store,
    staged: Staged,
    config: (&str, &Value),
    layer: &Value,
    target: &Named,
) -> Result<Image, ImportError> {
    staged.commit()?;
    let (config_type, config) = (config.0, config.1.to_string().into_bytes());
    let digest = store.put_blob(&config, None)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": { "mediaType": config_type, "digest": digest, "size": config.len() },
        "layers": [layer],
    });
    let manifest = manifest.to_string().into_bytes();
    let digest = store.put_blob(&manifest, None)?;
    let stored = Stored { media_type: MANIFEST_TYPE, digest: &digest, size: manifest.len() as u64 };
    stored.make_ready(store, &Selection::default(), target.ready)?;
    store.name(target.name, stored.media_type, stored.digest, stored.size)?;
    let resolved = store.resolve(&target.name.to_string(), &Selection::default())?;
    resolved.ok_or_else(|| ImportError::Store(StoreError::NotFound { name: target.name.to_string() }))
}

/// A tar archive in memory.
fn archive_of(files: &[(&str, u32, &[u8])]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for &(path, mode, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        archive.append_data(&mut header, path.trim_start_matches('/'), bytes)?;
    }
    archive.into_inner()
}

fn layer_error(file: &str, source: IngestError) -> ImportError {
    ImportError::Layer { file: file.to_owned(), source }
}

#[cfg(test)]
mod tests;
