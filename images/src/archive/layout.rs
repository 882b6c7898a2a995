//! OCI image layouts, as a directory or in a tar archive.

use super::{ArchiveError, Loaded, Source, give_names, source::Document};
use crate::{
    Digest, Store,
    ingest::{self, Expected, Staged},
    platform::{SelectError, is_index},
    ready::{Ready, Stored},
    store::documents,
    unpack::plan::{self, Layer},
};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use std::{collections::HashSet, rc::Rc};

pub(super) const CONTAINERD_NAME: &str = "io.containerd.image.name";
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Indexes within each other, the outermost counted.
const MAX_DEPTH: usize = 4;

/// Loads every entry of the index.
pub(super) fn load(
    store: &Store,
    source: &Source,
    ready: Ready,
) -> Result<Vec<Result<Loaded, ArchiveError>>, ArchiveError> {
    let bytes = source.document("index.json", "the layout")?;
    let index: ImageIndex =
        serde_json::from_slice(&bytes.bytes).map_err(|error| source.malformed("index.json", error.to_string()))?;
    let mut loaded = Vec::new();
    for descriptor in index.manifests() {
        match load_one(store, source, descriptor, ready) {
            Ok(names) => loaded.extend(names.into_iter().map(Ok)),
            Err(error) => loaded.push(Err(error)),
        }
    }
    Ok(loaded)
}

fn load_one(
    store: &Store,
    source: &Source,
    descriptor: &Descriptor,
    ready: Ready,
) -> Result<Vec<Loaded>, ArchiveError> {
    let mut image = Collected::default();
    image.add(store, source, descriptor, 1)?;
    image.commit(store, source, descriptor, ready)
}

/// What one entry of the index reaches.
#[derive(Default)]
struct Collected {
    layers: Vec<Staged>,
    /// What is referred to after what refers to it.
    documents: Vec<(Digest, Rc<Document>)>,
    seen: HashSet<String>,
}

impl Collected {
    /// A manifest or an index with all in it that the archive has: that of a single platform keeps the whole index, and
    /// no more.
    fn add(
        &mut self,
        store: &Store,
        source: &Source,
        descriptor: &Descriptor,
        depth: usize,
    ) -> Result<(), ArchiveError> {
        let member = blob(descriptor);
        if depth > MAX_DEPTH {
            let error = SelectError::TooDeep { digest: descriptor.digest().to_string() };
            return Err(ArchiveError::Select { archive: source.name.clone(), source: error });
        }
        if !self.seen.insert(member.clone()) {
            return Ok(());
        }
        let bytes = self.document(source, descriptor, "index.json")?;
        let malformed = |reason| source.malformed(&member, reason);
        if !is_index(descriptor.media_type().as_ref()) {
            let manifest: ImageManifest = documents::parse(&bytes.bytes).map_err(malformed)?;
            return self.add_image(store, source, &manifest, &member);
        }
        let index: ImageIndex = documents::parse(&bytes.bytes).map_err(malformed)?;
        for nested in index.manifests().iter().filter(|nested| source.has(&blob(nested))) {
            self.add(store, source, nested, depth + 1)?;
        }
        Ok(())
    }

    fn add_image(
        &mut self,
        store: &Store,
        source: &Source,
        manifest: &ImageManifest,
        member: &str,
    ) -> Result<(), ArchiveError> {
        let config = self.document(source, manifest.config(), member)?;
        let planned = plan::plan(manifest, &config.bytes).map_err(|error| ArchiveError::Plan {
            archive: source.name.clone(),
            member: member.to_owned(),
            source: error,
        })?;
        let unpack = planned.platform.as_ref().is_some_and(plan::runs_here);
        for layer in planned.layers {
            self.add_layer(store, source, layer, unpack, member)?;
        }
        Ok(())
    }

    fn add_layer(
        &mut self,
        store: &Store,
        source: &Source,
        layer: Layer,
        unpack: bool,
        needed_by: &str,
    ) -> Result<(), ArchiveError> {
        let member = blob(&layer.descriptor);
        let digest = layer.descriptor.digest();
        let diff_id = layer.diff_id.filter(|_| unpack);
        let unpacked = diff_id.as_ref().is_none_or(|diff_id| store.has_layer(&layer.descriptor, diff_id));
        if !self.seen.insert(member.clone()) || (unpacked && store.has_whole_blob(digest, layer.descriptor.size())?) {
            return Ok(());
        }
        let expected = Expected { digest: Some(digest.clone()), size: Some(layer.descriptor.size()), diff_id };
        let mut stream = source.stream(&member, needed_by)?;
        let staged = ingest::stage(store, &mut stream, &expected, &source.budget)
            .map_err(|error| blob_error(source, &member, error))?;
        self.layers.push(staged);
        Ok(())
    }

    fn document(
        &mut self,
        source: &Source,
        descriptor: &Descriptor,
        needed_by: &str,
    ) -> Result<Rc<Document>, ArchiveError> {
        let member = blob(descriptor);
        let document = Rc::new(source.document(&member, needed_by)?);
        ingest::check_bytes(&document.bytes, descriptor.digest())
            .map_err(|error| blob_error(source, &member, error))?;
        self.documents.push((descriptor.digest().clone(), Rc::clone(&document)));
        Ok(document)
    }

    fn commit(
        self,
        store: &Store,
        source: &Source,
        top: &Descriptor,
        ready: Ready,
    ) -> Result<Vec<Loaded>, ArchiveError> {
        for layer in self.layers {
            layer.commit()?;
        }
        for (digest, document) in self.documents.iter().rev() {
            store.put_blob(&document.bytes, Some(digest))?;
        }
        let annotations = top.annotations().as_ref();
        let name = annotations.and_then(|all| all.get(CONTAINERD_NAME).or_else(|| all.get(REF_NAME)));
        let size = self.documents[0].1.bytes.len() as u64;
        let stored = Stored { media_type: top.media_type().as_ref(), digest: top.digest(), size };
        give_names(store, source, &stored, name.map(String::as_str).into_iter(), ready)
    }
}

fn blob_error(source: &Source, member: &str, error: ingest::IngestError) -> ArchiveError {
    ArchiveError::Blob { archive: source.name.clone(), member: member.to_owned(), source: Box::new(error) }
}

/// Where a layout has a blob.
fn blob(descriptor: &Descriptor) -> String {
    let digest = descriptor.digest();
    format!("blobs/{}/{}", digest.algorithm(), digest.digest())
}
