//! Commit: what a container changed becomes one more layer of its image, and what it was told the new image's settings.
//!
//! Config and manifest stay as they are in what nobody asked to change, whatever this version knows of them.

use std::io::{self, Write};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    Digest, Image, Reference, Selection, Store,
    import::Changes,
    ready::{NotReady, Ready, Stored, clean_up},
    store::{BlobWriter, StoreError, Writing, clock, sha256_digest},
};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKERS_MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKERS_LAYER_TYPE: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Of a config or a manifest; those of the images in use have a hundredth of it.
const DOCUMENT_BYTES: u64 = 8 << 20;

/// Why there is no new image.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The files of the new layer.
    #[error("cannot write the layer: {0}")]
    Layer(#[source] io::Error),
    /// The image that it is made from.
    #[error("the {document} of image {digest} is no JSON object with what it should have: {found}")]
    Base {
        /// `config`, `manifest`
        document: &'static str,
        /// Which image.
        digest: Digest,
        /// What is wrong.
        found: String,
    },
    /// It is stored and cannot be made ready to run.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// The new image.
pub struct Wanted<'a> {
    /// What it is made from.
    pub base: &'a Image,
    /// Fields of its `config` in place of the base's; null takes one away.
    pub settings: Map<String, Value>,
    /// Beyond those: `--change`.
    pub changes: &'a Changes,
    /// What its history says: the command line that made the files, who, and why.
    pub created_by: String,
    /// See `created_by`.
    pub author: Option<String>,
    /// See `created_by`.
    pub comment: Option<String>,
    /// None: it is found by its digest alone.
    pub name: Option<&'a Reference>,
}

/// Writes the files of a layer as an uncompressed archive.
pub type Pack<'a> = &'a mut dyn FnMut(&mut dyn Write) -> io::Result<()>;

/// Makes an image. `pack`: the files of its new layer; None if it has none. `writing` is held since before the base was looked up.
///
/// # Errors
/// See [`CommitError`]; the store is then as it was.
pub fn commit(
    store: &Store,
    writing: Writing,
    wanted: &Wanted<'_>,
    pack: Option<Pack<'_>>,
    ready: Ready<'_>,
) -> Result<Image, CommitError> {
    let made = make(store, wanted, pack, ready);
    if made.is_err() {
        clean_up(store, writing);
    }
    made
}

/// A layer that is stored.
struct Layer {
    digest: Digest,
    size: u64,
    diff_id: Digest,
}

fn make(store: &Store, wanted: &Wanted<'_>, pack: Option<Pack<'_>>, ready: Ready<'_>) -> Result<Image, CommitError> {
    let base = wanted.base;
    let mut manifest = document(store, base, "manifest", &base.digest)?;
    let mut config = document(store, base, "config", base.manifest.config().digest())?;
    let layer = pack.map(|pack| store_layer(store, pack)).transpose()?;
    let broken = |document| {
        move |found: &str| CommitError::Base { document, digest: base.digest.clone(), found: found.to_owned() }
    };
    describe(&mut config, wanted, layer.as_ref()).map_err(broken("config"))?;
    let config = Value::Object(config).to_string().into_bytes();
    let config_digest = store.put_blob(&config, None)?;
    let media_type = media_type(&manifest);
    refer(&mut manifest, (&config_digest, config.len()), media_type, layer.as_ref()).map_err(broken("manifest"))?;
    let manifest = Value::Object(manifest).to_string().into_bytes();
    let digest = store.put_blob(&manifest, None)?;
    let stored = Stored { media_type, digest: &digest, size: manifest.len() as u64 };
    stored.make_ready(store, &Selection::default(), ready)?;
    match wanted.name {
        Some(name) => drop(store.name(name, media_type, &digest, stored.size)?),
        None => store.keep_unnamed(media_type, &digest, stored.size)?,
    }
    let made = store.unnamed_image(media_type, &digest, &Selection::default())?;
    made.ok_or_else(|| CommitError::Store(StoreError::NotFound { name: digest.to_string() }))
}

fn document(
    store: &Store,
    base: &Image,
    document: &'static str,
    digest: &Digest,
) -> Result<Map<String, Value>, CommitError> {
    let bytes = store.blob_bytes(digest, DOCUMENT_BYTES)?;
    serde_json::from_slice(&bytes).map_err(|error| CommitError::Base {
        document,
        digest: base.digest.clone(),
        found: error.to_string(),
    })
}

/// Compressed quickly: it is read again as soon as it is there.
fn store_layer(store: &Store, pack: Pack<'_>) -> Result<Layer, CommitError> {
    let mut to = Hashing { to: GzEncoder::new(store.blob_writer()?, Compression::fast()), hash: Sha256::new() };
    pack(&mut to).map_err(CommitError::Layer)?;
    let diff_id = sha256_digest(&to.hash.finalize());
    let blob = to.to.finish().map_err(CommitError::Layer)?;
    let size = blob.written();
    Ok(Layer { digest: blob.commit(None)?, size, diff_id })
}

/// On the way to where it is compressed.
struct Hashing {
    to: GzEncoder<BlobWriter>,
    hash: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn media_type(manifest: &Map<String, Value>) -> &'static str {
    match manifest.get("mediaType").and_then(Value::as_str) {
        Some(DOCKERS_MANIFEST_TYPE) => DOCKERS_MANIFEST_TYPE,
        _ => MANIFEST_TYPE,
    }
}

fn refer(
    manifest: &mut Map<String, Value>,
    (config, size): (&Digest, usize),
    media_type: &'static str,
    layer: Option<&Layer>,
) -> Result<(), &'static str> {
    manifest.insert("mediaType".to_owned(), json!(media_type));
    let descriptor = manifest.get_mut("config").and_then(Value::as_object_mut).ok_or("it has no config")?;
    descriptor.insert("digest".to_owned(), json!(config));
    descriptor.insert("size".to_owned(), json!(size));
    descriptor.remove("data");
    let layers = manifest.get_mut("layers").and_then(Value::as_array_mut).ok_or("it has no list of layers")?;
    if let Some(Layer { digest, size, .. }) = layer {
        let layer_type = if media_type == DOCKERS_MANIFEST_TYPE { DOCKERS_LAYER_TYPE } else { LAYER_TYPE };
        layers.push(json!({ "mediaType": layer_type, "digest": digest, "size": size }));
    }
    Ok(())
}

fn describe(config: &mut Map<String, Value>, wanted: &Wanted<'_>, layer: Option<&Layer>) -> Result<(), &'static str> {
    let created = clock::now();
    config.insert("created".to_owned(), json!(created));
    if let Some(author) = &wanted.author {
        config.insert("author".to_owned(), json!(author));
    }
    let settings = config.entry("config").or_insert_with(|| json!({}));
    if settings.is_null() {
        *settings = json!({});
    }
    let settings = settings.as_object_mut().ok_or("its settings are no object")?;
    for (name, value) in &wanted.settings {
        match value {
            Value::Null => drop(settings.remove(name)),
            value => drop(settings.insert(name.clone(), value.clone())),
        }
    }
    wanted.changes.apply(settings);
    if let Some(Layer { diff_id, .. }) = layer {
        let diff_ids = config.get_mut("rootfs").and_then(|rootfs| rootfs.get_mut("diff_ids"));
        diff_ids.and_then(Value::as_array_mut).ok_or("it has no list of diff ids")?.push(json!(diff_id));
    }
    let mut step = json!({ "created": created, "created_by": wanted.created_by });
    for (name, value) in [("author", &wanted.author), ("comment", &wanted.comment)] {
        if let Some(value) = value {
            step[name] = json!(value);
        }
    }
    if layer.is_none() {
        step["empty_layer"] = json!(true);
    }
    let history = config.entry("history").or_insert_with(|| json!([]));
    if history.is_null() {
        *history = json!([]);
    }
    history.as_array_mut().ok_or("its history is no list")?.push(step);
    Ok(())
}
