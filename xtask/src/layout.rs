//! Writes OCI image layouts (image-spec, `image-layout.md`), byte by byte, so that a fixture can be whatever a test needs.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A layout under construction: a folder with blobs and, once [`Layout::finish`] was called, an index.
pub(crate) struct Layout {
    folder: PathBuf,
}

impl Layout {
    /// Begins a layout in a folder that need not exist.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder.join("blobs/sha256"))
            .with_context(|| format!("cannot create the layout {}", folder.display()))?;
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Stores bytes and gives their descriptor.
    pub(crate) fn blob(&self, media_type: &str, bytes: &[u8]) -> Result<Value> {
        let digest = sha256_hex(bytes);
        let path = self.folder.join("blobs/sha256").join(&digest);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() }))
    }

    /// Stores a JSON document and gives its descriptor.
    pub(crate) fn json(&self, media_type: &str, document: &Value) -> Result<Value> {
        self.blob(media_type, &serde_json::to_vec(document)?)
    }

    /// Stores an image manifest over descriptors of what it names.
    pub(crate) fn manifest(&self, config: &Value, layers: &[Value]) -> Result<Value> {
        self.json(MANIFEST, &manifest(config, layers))
    }

    /// Ends the layout: its one entry point is `manifest`, known as `name`.
    pub(crate) fn finish(&self, name: &str, manifest: &Value) -> Result<()> {
        let mut entry = manifest.clone();
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
        Ok(fs::write(self.folder.join("index.json"), serde_json::to_vec(&index)?)?)
    }
}

/// An image manifest as a document, for callers that add to it.
pub(crate) fn manifest(config: &Value, layers: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers })
}

/// A SHA-256 in hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
