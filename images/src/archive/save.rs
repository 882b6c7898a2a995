//! Images as an archive that `load` reads, and Docker, Podman and skopeo too (`amphora save`): an OCI layout, with the
//! `manifest.json` of `docker save` beside it, both naming the same blobs.
//!
//! Sources: the OCI image-spec (image-layout.md), and moby's image/tarexport since version 25.

use super::layout::{CONTAINERD_NAME, REF_NAME};
use crate::{Digest, Image, Reference, Store, store::StoreError};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    io::{self, Write},
};
use tar::{Builder, Header};

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// What is to be in it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The archive itself.
    #[error("writing the archive: {0}")]
    Write(io::Error),
}

/// Writes images, each with the names that it is to have there. A blob that several have is written once.
///
/// # Errors
/// See [`SaveError`]; what was written by then is no archive.
pub fn save(store: &Store, images: &[(Image, Vec<Reference>)], to: impl Write) -> Result<(), SaveError> {
    let mut tar = Builder::new(to);
    let mut written = BTreeSet::new();
    for (image, _) in images {
        for (digest, size) in blobs(store, image) {
            if written.insert(digest.to_string()) {
                append_blob(store, &mut tar, digest, size)?;
            }
        }
    }
    let index: Vec<Value> = images.iter().flat_map(|(image, names)| index_entries(store, image, names)).collect();
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": index,
    });
    let manifests: Vec<Value> = images.iter().map(|(image, names)| dockers_entry(image, names)).collect();
    append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut tar, "index.json", index.to_string().as_bytes())?;
    append(&mut tar, "manifest.json", Value::from(manifests).to_string().as_bytes())?;
    let mut to = tar.into_inner().map_err(SaveError::Write)?;
    to.flush().map_err(SaveError::Write)
}

/// With the sizes that they are to have.
fn blobs<'a>(store: &Store, image: &'a Image) -> Vec<(&'a Digest, u64)> {
    let manifest = (&image.digest, store.blob_size(&image.digest).unwrap_or(0));
    let parts = std::iter::once(image.manifest.config()).chain(image.manifest.layers());
    std::iter::once(manifest).chain(parts.map(|part| (part.digest(), part.size()))).collect()
}

fn member(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.digest())
}

/// One that is not what its digest says ends the archive before it is in there.
fn append_blob(store: &Store, tar: &mut Builder<impl Write>, digest: &Digest, size: u64) -> Result<(), SaveError> {
    let blob = store.blob(digest)?;
    if !store.has_whole_blob(digest, size)? {
        let found = "its bytes are not those of its digest".to_owned();
        return Err(StoreError::Altered { path: store.blob_path(digest), found }.into());
    }
    let mut header = header(size);
    tar.append_data(&mut header, member(digest), io::Read::take(blob, size)).map_err(SaveError::Write)
}

fn append(tar: &mut Builder<impl Write>, name: &str, bytes: &[u8]) -> Result<(), SaveError> {
    let mut header = header(bytes.len() as u64);
    tar.append_data(&mut header, name, bytes).map_err(SaveError::Write)
}

fn header(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header
}

/// One for each name, or one without.
fn index_entries(store: &Store, image: &Image, names: &[Reference]) -> Vec<Value> {
    let entry = |annotations: Value| {
        json!({
            "mediaType": image.manifest.media_type().as_ref().map(ToString::to_string)
                .unwrap_or_else(|| "application/vnd.oci.image.manifest.v1+json".to_owned()),
            "digest": image.digest.to_string(),
            "size": store.blob_size(&image.digest),
            "annotations": annotations,
        })
    };
    match names {
        [] => vec![entry(json!({}))],
        names => {
            names.iter().map(|name| entry(json!({ CONTAINERD_NAME: name.to_string(), REF_NAME: name.tag }))).collect()
        }
    }
}

fn dockers_entry(image: &Image, names: &[Reference]) -> Value {
    json!({
        "Config": member(image.manifest.config().digest()),
        "RepoTags": names.iter().filter(|name| name.tag.is_some()).map(Reference::familiar).collect::<Vec<_>>(),
        "Layers": image.manifest.layers().iter().map(|layer| member(layer.digest())).collect::<Vec<_>>(),
    })
}
