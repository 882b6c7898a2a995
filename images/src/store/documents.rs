//! Manifests and indexes: documents that say of themselves what they are.
//!
//! The store is one heap of blobs, and a digest says nothing of what a blob is. Whoever names a blob says as what, and
//! gets it only if the blob itself agrees: a document of two kinds is of none.

use super::{Store, StoreError};
use crate::budget::{self, Limits};
use oci_spec::image::{Digest, ImageIndex, ImageManifest};
use serde::{Deserialize, de::DeserializeOwned, de::IgnoredAny};

/// More than any registry takes: a document is read into memory.
pub(super) const DOCUMENT_BYTES: u64 = 8 << 20;

pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// What an entry of the list of images can say that it is.
const LISTED_TYPES: [&str; 4] = [
    MANIFEST_TYPE,
    INDEX_TYPE,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// The type of a document as it is listed: its own where that is known, and never what an archive made up.
pub(super) fn listed_type(media_type: &str) -> &'static str {
    let known = LISTED_TYPES.into_iter().find(|known| *known == media_type);
    known.unwrap_or(if crate::platform::is_index(media_type) { INDEX_TYPE } else { MANIFEST_TYPE })
}

/// A document that refers to others.
pub(crate) trait Document: DeserializeOwned {
    /// Its name in messages.
    const NAME: &'static str;
    /// Whether it lists manifests, and not the parts of one image.
    const IS_INDEX: bool;
}

impl Document for ImageManifest {
    const NAME: &'static str = "manifest";
    const IS_INDEX: bool = false;
}

impl Document for ImageIndex {
    const NAME: &'static str = "index";
    const IS_INDEX: bool = true;
}

/// The fields by which a document is told.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marks {
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
}

/// Parses a document as what it was named as.
///
/// # Errors
/// A sentence: it is something else, of two kinds, or does not parse.
pub(crate) fn parse<T: Document>(bytes: &[u8]) -> Result<T, String> {
    let marks: Marks = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let (lists, has_parts) = (marks.manifests.is_some(), marks.config.is_some() || marks.layers.is_some());
    if lists && has_parts {
        return Err("it is both an index and a manifest; it must be one of them".to_owned());
    }
    if has_parts == T::IS_INDEX && (lists || has_parts) {
        let found = if lists { "an index" } else { "a manifest" };
        return Err(format!("it is {found}, and was named as {}", T::NAME));
    }
    if let Some(media_type) = marks.media_type.filter(|text| !agrees(text, T::IS_INDEX)) {
        return Err(format!("it says that it is `{media_type}`, and was named as {}", T::NAME));
    }
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// Whether a media type is that of such a document.
pub(crate) fn agrees(media_type: &str, is_index: bool) -> bool {
    crate::platform::is_index(media_type) == is_index
}

impl Store {
    /// Reads a manifest or an index; None if it is not here.
    pub(super) fn document<T: Document>(&self, digest: &Digest) -> Result<Option<T>, StoreError> {
        let Some(bytes) = self.bytes(digest)? else { return Ok(None) };
        let malformed = |reason| StoreError::Malformed { document: T::NAME, path: self.blob_path(digest), reason };
        parse(&bytes).map(Some).map_err(malformed)
    }

    /// The whole of a small blob, hashed again: it decides what runs. None if it is not here.
    pub(super) fn bytes(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(file) = self.find_blob(digest)? else { return Ok(None) };
        let bytes = self.read_blob(digest, file, DOCUMENT_BYTES)?;
        let (parsed, limit) = (budget::parsed_bytes(&bytes), Limits::default().held_bytes);
        if parsed > limit {
            let reason = format!("parsed, it would need {parsed} bytes of memory, a document at most {limit}");
            return Err(StoreError::Malformed { document: "blob", path: self.blob_path(digest), reason });
        }
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_of_one_kind_and_says_which() {
        let digest = format!("sha256:{:064}", 0);
        let part = format!(r#"{{"mediaType":"application/x","digest":"{digest}","size":1}}"#);
        let manifest = format!(r#"{{"schemaVersion":2,"config":{part},"layers":[]}}"#);
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        let both = format!(r#"{{"schemaVersion":2,"config":{part},"layers":[],"manifests":[]}}"#);
        let lie = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}"#;
        assert!(parse::<ImageManifest>(manifest.as_bytes()).is_ok() && parse::<ImageIndex>(index.as_bytes()).is_ok());
        for text in [index, &both, "{}", "[]"] {
            assert!(parse::<ImageManifest>(text.as_bytes()).is_err(), "{text}");
        }
        for text in [&manifest, &both, lie, "{}", "{"] {
            assert!(parse::<ImageIndex>(text.as_bytes()).is_err(), "{text}");
        }
    }
}
