//! What `docker save` writes: configs, layers, and a list of images in manifest.json. An OCI manifest is made for each.

use super::{ArchiveError, Loaded, Source, give_names};
use crate::{
    Store,
    ingest::{self, Expected, Staged},
    ready::{Ready, Stored},
    unpack::{Compression, HEAD_LENGTH, plan, storable},
};
use serde::Deserialize;
use serde_json::json;
use std::{collections::HashMap, io::Read};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// An image in manifest.json.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Loads every image of the list.
pub(super) fn load(
    store: &Store,
    source: &Source,
    ready: Ready,
) -> Result<Vec<Result<Loaded, ArchiveError>>, ArchiveError> {
    let bytes = source.document("manifest.json", "the archive")?;
    let saved: Vec<Saved> =
        serde_json::from_slice(&bytes.bytes).map_err(|error| source.malformed("manifest.json", error.to_string()))?;
    let mut loaded = Vec::new();
    for image in &saved {
        match load_one(store, source, image, ready) {
            Ok(names) => loaded.extend(names.into_iter().map(Ok)),
            Err(error) => loaded.push(Err(error)),
        }
    }
    Ok(loaded)
}

fn load_one(store: &Store, source: &Source, image: &Saved, ready: Ready) -> Result<Vec<Loaded>, ArchiveError> {
    let config = source.document(&image.config, "manifest.json")?.bytes;
    let (platform, diff_ids) =
        plan::root(&config, image.layers.len()).map_err(|error| source.malformed(&image.config, error.to_string()))?;
    let unpack = platform.as_ref().is_some_and(plan::runs_here);
    let mut staged: HashMap<&str, (Staged, serde_json::Value)> = HashMap::new();
    let mut layers = Vec::new();
    for (member, diff_id) in image.layers.iter().zip(diff_ids) {
        if !staged.contains_key(member.as_str()) {
            let expected = Expected { digest: None, size: None, diff_id: Some(diff_id).filter(|_| unpack) };
            staged.insert(member, layer(store, source, member, &expected)?);
        }
        layers.push(staged[member.as_str()].1.clone());
    }
    for (layer, _) in staged.into_values() {
        layer.commit()?;
    }
    let digest = store.put_blob(&config, None)?;
    let config = json!({ "mediaType": CONFIG_TYPE, "digest": digest, "size": config.len() });
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers });
    let bytes = manifest.to_string().into_bytes();
    let digest = store.put_blob(&bytes, None)?;
    let names = image.repo_tags.iter().flatten().map(String::as_str);
    let stored = Stored { media_type: MANIFEST_TYPE, digest: &digest, size: bytes.len() as u64 };
    give_names(store, source, &stored, names, ready)
}

/// A layer, and its descriptor.
fn layer(
    store: &Store,
    source: &Source,
    member: &str,
    expected: &Expected,
) -> Result<(Staged, serde_json::Value), ArchiveError> {
    let failed =
        |error| ArchiveError::Blob { archive: source.name.clone(), member: member.to_owned(), source: Box::new(error) };
    let mut first = Vec::new();
    let read = source.stream(member, "manifest.json")?.take(HEAD_LENGTH as u64).read_to_end(&mut first);
    let unreadable = |error| failed(ingest::IngestError::Read(error));
    let compression = read.map(|_| Compression::of(&first)).map_err(unreadable)?;
    let stream = source.stream(member, "manifest.json")?;
    let mut stream = storable(stream, compression, &source.budget).map_err(unreadable)?;
    let staged = ingest::stage(store, &mut stream, expected, &source.budget).map_err(failed)?;
    let media_type = compression.layer_media_type();
    let descriptor = json!({ "mediaType": media_type, "digest": staged.digest, "size": staged.size });
    Ok((staged, descriptor))
}
