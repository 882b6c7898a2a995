//! From a name or an id to an image. The hot path of `run`: three small files are read, two hashed, and nothing is listed.

use super::{
    Image, Store, StoreError,
    index::{self, Entries, EntryView},
};
use crate::{
    Healthcheck, Reference, Selection,
    classify::{self, Class, SPIN_APPLICATION, is_image_config},
    platform::{Platform, Search, Step, is_attestation, is_index},
    spin,
};
use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageIndex, ImageManifest};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{collections::HashSet, fmt, str::FromStr};

/// Hexadecimal digits that an abbreviated id has at least.
const ID_MIN_DIGITS: usize = 4;

/// What a name or id stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The name that the entry has, if it was found by name.
    reference: Option<Reference>,
    /// The manifest or index of the entry.
    pub(super) entry: Digest,
    /// The manifest that the id is of; differs from `entry` if that is an index.
    pub(super) manifest: Option<Digest>,
    media_type: String,
    stored: Option<String>,
}

impl Store {
    /// Finds an image by name, or by (a unique prefix, ≥ 4 hex digits, of) its manifest digest.
    ///
    /// Applies the platform selection to indexes (nested, depth ≤ 4, cycles refused; attestations skipped). None: not
    /// here, the caller may pull. Hot path of `run`: index.json + manifest + config reads only.
    pub fn resolve(&self, name: &str, selection: &Selection) -> Result<Option<Image>, StoreError> {
        let bytes = index::read(self)?;
        let entries: Entries = index::parse(self, &bytes)?;
        let Some(target) = self.find(&entries, name)? else { return Ok(None) };
        let Some(manifest) = self.select(&target, selection, name)? else { return Ok(None) };
        let Some(image) = self.load(&target, manifest)? else { return Ok(None) };
        match own_platform(&image).map_or(Ok(()), |offered| selection.check(&offered)) {
            Err(source) if target.is_lone_manifest() => Err(StoreError::Platform { name: name.to_owned(), source }),
            _ => Ok(Some(image)),
        }
    }

    /// All named (and unnamed) images that can be read; [`Store::listed`] tells of the others too.
    pub fn list(&self) -> Result<Vec<Image>, StoreError> {
        Ok(self.listed()?.into_iter().filter_map(Result::ok).collect())
    }

    /// All entries, for `images`: each an image, or what is wrong with it.
    ///
    /// Of an index each manifest that is here. Those that are not whole, because a pull of another
    /// platform's is still to come, are left out. Fails only where `index.json` itself cannot be read.
    pub fn listed(&self) -> Result<Vec<Result<Image, Damaged>>, StoreError> {
        let bytes = index::read(self)?;
        let entries: Entries = index::parse(self, &bytes)?;
        Ok(entries.manifests.iter().flat_map(|entry| self.listed_entry(entry)).collect())
    }

    fn listed_entry(&self, entry: &EntryView) -> Vec<Result<Image, Damaged>> {
        let damaged = |digest: &str, error: StoreError| {
            let name = entry.name().map(str::to_owned);
            Err(Damaged { name, digest: digest.to_owned(), reason: error.to_string() })
        };
        let target = match self.target(entry) {
            Err(error) => return vec![damaged(&entry.digest, error)],
            Ok(target) => target,
        };
        let (manifests, unreadable) = self.children(&target.entry, &target.media_type);
        let loaded = manifests.into_iter().filter_map(|manifest| {
            let digest = manifest.to_string();
            self.load(&target, manifest).map_err(|error| damaged(&digest, error)).map_or_else(Some, |it| it.map(Ok))
        });
        let broken = unreadable.into_iter().map(|(digest, error)| damaged(digest.as_ref(), error));
        loaded.chain(broken).collect()
    }

    /// An image by the digest of its manifest or index, whether or not `index.json` has it: for what is to be done
    /// before it gets a name. None: not whole.
    pub fn unnamed_image(
        &self,
        media_type: &str,
        digest: &Digest,
        selection: &Selection,
    ) -> Result<Option<Image>, StoreError> {
        let (entry, media_type) = (digest.clone(), media_type.to_owned());
        let target = Target { reference: None, entry, manifest: None, media_type, stored: None };
        match self.select(&target, selection, digest.as_ref())? {
            None => Ok(None),
            Some(manifest) => self.load(&target, manifest),
        }
    }

    /// The digest of the entry that a name or id stands for.
    pub fn entry_digest(&self, name: &str) -> Result<Option<String>, StoreError> {
        let bytes = index::read(self)?;
        let entries: Entries = index::parse(self, &bytes)?;
        Ok(self.find(&entries, name)?.map(|target| target.entry.to_string()))
    }

    /// By name, by digest within a repository, or by id. What is both a name and the beginning of another image's id
    /// is neither: names come from archives too, ids from scripts.
    pub(super) fn find(&self, entries: &Entries, name: &str) -> Result<Option<Target>, StoreError> {
        let reference = Reference::from_str(name);
        if let Ok(pinned @ Reference { digest: Some(digest), .. }) = &reference {
            // A digest is only ever satisfied by content that has it, whatever an entry calls itself.
            return Ok(self.find_pinned(entries, pinned, digest));
        }
        let named = reference.as_ref().ok().map_or(Ok(None), |reference| self.find_named(entries, reference))?;
        let Some(digits) = id_digits(name) else {
            return reference.map(|_| named).map_err(StoreError::from);
        };
        let by_id = self.find_id(entries, name, digits)?;
        match (named, by_id) {
            (Some(named), Some(by_id)) if named.entry != by_id.entry => {
                let id = by_id.manifest.unwrap_or(by_id.entry).to_string();
                Err(StoreError::NameOrId { word: name.to_owned(), id })
            }
            (named, by_id) => Ok(named.or(by_id)),
        }
    }

    fn find_named(&self, entries: &Entries, reference: &Reference) -> Result<Option<Target>, StoreError> {
        let full = reference.to_string();
        let Some(entry) = entries.manifests.iter().find(|entry| entry.name() == Some(full.as_str())) else {
            return Ok(None);
        };
        Ok(Some(Target { reference: Some(reference.clone()), ..self.target(entry)? }))
    }

    /// `alpine@sha256:…`: an entry of that repository, under any tag, that is or holds the digest.
    fn find_pinned(&self, entries: &Entries, wanted: &Reference, digest: &str) -> Option<Target> {
        for entry in &entries.manifests {
            let Some(Ok(named)) = entry.name().map(Reference::from_str) else { continue };
            if (&named.registry, &named.repository) != (&wanted.registry, &wanted.repository) {
                continue;
            }
            let Ok(mut target) = self.target(entry) else { continue };
            target.reference = Some(wanted.clone());
            if entry.digest == digest {
                return Some(target);
            }
            let manifests = self.manifests_of(&target.entry, &target.media_type);
            if let Some(manifest) = manifests.into_iter().find(|manifest| manifest.as_ref() == digest) {
                target.manifest = Some(manifest);
                return Some(target);
            }
        }
        None
    }

    /// Ids are of manifests; an index's own digest is taken as well. Not the hot path: every index is read.
    fn find_id(&self, entries: &Entries, name: &str, digits: &str) -> Result<Option<Target>, StoreError> {
        let mut found: Vec<Target> = Vec::new();
        for entry in &entries.manifests {
            let Ok(target) = self.target(entry) else { continue };
            let target = Target { reference: None, ..target };
            if target.entry.digest().starts_with(digits) {
                found.push(target);
                continue;
            }
            let manifests = self.manifests_of(&target.entry, &target.media_type);
            let matching = manifests.into_iter().filter(|manifest| manifest.digest().starts_with(digits));
            found.extend(matching.map(|manifest| Target { manifest: Some(manifest), ..target.clone() }));
        }
        let id = |target: &Target| target.manifest.as_ref().unwrap_or(&target.entry).to_string();
        let mut ids: Vec<String> = found.iter().map(id).collect();
        ids.sort_unstable();
        ids.dedup();
        match ids.len() {
            0 | 1 => Ok(found.into_iter().next()),
            _ => Err(StoreError::Ambiguous { prefix: name.to_owned(), candidates: ids }),
        }
    }

    fn target(&self, entry: &EntryView) -> Result<Target, StoreError> {
        // Another tool's name, such as a bare tag, is no name here.
        let full = |name: &&str| name.parse::<Reference>().ok().filter(|reference| reference.to_string() == **name);
        Ok(Target {
            reference: entry.name().as_ref().and_then(full),
            entry: self.index_digest(&entry.digest)?,
            manifest: None,
            media_type: entry.media_type.clone().into_owned(),
            stored: entry.stored().map(str::to_owned),
        })
    }

    /// A digest of `index.json`, which other tools may have written.
    pub(super) fn index_digest(&self, text: &str) -> Result<Digest, StoreError> {
        Digest::from_str(text).map_err(|error| StoreError::Malformed {
            document: "index",
            path: self.index_path(),
            reason: format!("the digest `{text}` of an entry: {error}"),
        })
    }

    /// The manifest that the selection chooses; None if it is not here.
    fn select(&self, target: &Target, selection: &Selection, name: &str) -> Result<Option<Digest>, StoreError> {
        if let Some(manifest) = &target.manifest {
            return Ok(Some(manifest.clone()));
        }
        if !is_index(&target.media_type) {
            return Ok(Some(target.entry.clone()));
        }
        let failed = |source| StoreError::Platform { name: name.to_owned(), source };
        let mut search = Search::new(selection, target.entry.as_ref());
        let mut wanted = target.entry.clone();
        loop {
            let Some(index) = self.document::<ImageIndex>(&wanted)? else { return Ok(None) };
            search.add(&index).map_err(failed)?;
            match search.next().map_err(failed)? {
                Step::Fetch(nested) => wanted = nested.digest().clone(),
                Step::Chosen(manifest) => return Ok(Some(manifest.digest().clone())),
            }
        }
    }

    /// The manifests of an entry that are here: itself, or those of an index and of the indexes in it.
    /// What cannot be read has none: it is told of where it is listed, and hinders nothing else.
    pub(super) fn manifests_of(&self, entry: &Digest, media_type: &str) -> Vec<Digest> {
        self.children(entry, media_type).0
    }

    /// The same, and what could not be read.
    pub(super) fn children(&self, entry: &Digest, media_type: &str) -> (Vec<Digest>, Vec<(Digest, StoreError)>) {
        if !is_index(media_type) {
            return (vec![entry.clone()], Vec::new());
        }
        let (mut pending, mut seen) = (vec![entry.clone()], HashSet::new());
        let (mut manifests, mut unreadable) = (Vec::new(), Vec::new());
        while let Some(next) = pending.pop() {
            if !seen.insert(next.clone()) {
                continue;
            }
            let index = match self.document::<ImageIndex>(&next) {
                Ok(Some(index)) => index,
                Ok(None) => continue,
                Err(error) => {
                    unreadable.push((next, error));
                    continue;
                }
            };
            for child in
                index.manifests().iter().filter(|child| !is_attestation(child) && self.has_blob(child.digest()))
            {
                let list = if is_index(child.media_type().as_ref()) { &mut pending } else { &mut manifests };
                list.push(child.digest().clone());
            }
        }
        (manifests, unreadable)
    }

    /// Reads what makes an image; None if its manifest or config is not here.
    fn load(&self, target: &Target, digest: Digest) -> Result<Option<Image>, StoreError> {
        let Some(manifest) = self.document::<ImageManifest>(&digest)? else { return Ok(None) };
        let Some(config_bytes) = self.bytes(manifest.config().digest())? else { return Ok(None) };
        let config = settings(manifest.config().media_type().as_ref(), &config_bytes).map_err(|error| {
            StoreError::Malformed {
                document: "config",
                path: self.blob_path(manifest.config().digest()),
                reason: error.to_string(),
            }
        })?;
        let mut head = |path: &str| self.head(&manifest, &config, path);
        let classification = classify::classify(&manifest, &config_bytes, &mut head);
        let spin = (classification.class == Class::Spin).then(|| self.spin_application(&manifest, &config_bytes));
        let healthcheck = Healthcheck::of_config(&config_bytes);
        let sizes = manifest.layers().iter().map(|layer| layer.size());
        let size_bytes = sizes.fold(manifest.config().size(), u64::saturating_add);
        let created = config.created().clone().or_else(|| created_of(&config_bytes)).or_else(|| target.stored.clone());
        let reference = target.reference.clone();
        let image =
            Image { reference, digest, manifest, config, healthcheck, classification, size_bytes, created, spin };
        Ok(Some(image.with_environment_of_component()))
    }

    /// The description of a Spin application, which is a layer, or the config itself.
    fn spin_application(&self, manifest: &ImageManifest, config: &[u8]) -> Result<spin::Application, String> {
        let is_description = |layer: &&Descriptor| layer.media_type().to_string() == SPIN_APPLICATION;
        let Some(layer) = manifest.layers().iter().find(is_description) else {
            return spin::Application::parse(config);
        };
        match self.bytes(layer.digest()) {
            Ok(Some(bytes)) => spin::Application::parse(&bytes),
            Ok(None) => Err("its description is not here yet".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// An entry, or a part of it, that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The entry's name, as it stands in `index.json`.
    pub name: Option<String>,
    /// What is damaged, as text: it may be no digest.
    pub digest: String,
    /// What was found, what was expected.
    pub reason: String,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().map_or("an image without a name".to_owned(), familiar);
        write!(f, "{name}: {} cannot be read: {}", self.digest, self.reason)
    }
}

/// A name as it would be typed; one that is no reference as it stands.
pub(super) fn familiar(full: &str) -> String {
    Reference::from_str(full).map_or_else(|_| full.to_owned(), |reference| reference.familiar())
}

impl Target {
    pub(super) fn media_type(&self) -> &str {
        &self.media_type
    }

    /// Whether the image is the entry itself, whose platform nobody has looked at: not one chosen from an index,
    /// whose entries say theirs, and not one asked for by its id.
    fn is_lone_manifest(&self) -> bool {
        self.manifest.is_none() && !is_index(&self.media_type)
    }
}

/// The platform that an image says it is for. Artifacts say it in many ways or not at all; a Wasm program is for Wasm.
fn own_platform(image: &Image) -> Option<Platform> {
    let config = &image.config;
    match image.classification.class {
        Class::Linux | Class::WasmRootfs { .. } | Class::Windows => {
            let (os, architecture) = (config.os().to_string(), config.architecture().to_string());
            Some(Platform::new(&os, &architecture, config.variant().as_deref()))
        }
        Class::WasmArtifact { .. } => Some(Platform::new("wasi", "wasm", None)),
        Class::ProxyWasm | Class::Spin | Class::Other { .. } => None,
    }
}

/// The date of an artifact's config, which the CNCF's Wasm config has too.
fn created_of(config: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Dated {
        created: Option<String>,
    }
    serde_json::from_slice::<Dated>(config).ok()?.created
}

/// The hexadecimal digits of an id, whole or abbreviated.
fn id_digits(name: &str) -> Option<&str> {
    let digits = name.strip_prefix("sha256:").or_else(|| name.strip_prefix("sha512:")).unwrap_or(name);
    let all_hex = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    (all_hex && digits.len() >= ID_MIN_DIGITS).then_some(digits)
}

/// What a config says. Artifacts have configs of any kind, or none: one that is not an image's, or has no settings of a program, says
/// nothing. Where there are some, all of them count: an image without its user would run as root.
fn settings(media_type: &str, bytes: &[u8]) -> Result<ImageConfiguration, serde_json::Error> {
    if let Ok(config) = serde_json::from_slice(bytes) {
        return Ok(config);
    }
    let fields = serde_json::from_slice::<Map<String, Value>>(bytes).ok().filter(|_| is_image_config(media_type));
    let Some(mut fields) = fields.filter(|fields| fields.contains_key("config")) else {
        return Ok(ImageConfiguration::default());
    };
    // Tools leave these out.
    let absent =
        [("architecture", json!("")), ("os", json!("")), ("rootfs", json!({ "type": "layers", "diff_ids": [] }))];
    for (name, value) in absent {
        fields.entry(name).or_insert(value);
    }
    serde_json::from_value(fields.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_an_image_are_all_there_or_an_error() {
        let image = "application/vnd.oci.image.config.v1+json";
        let user = |media_type: &str, text: &str| {
            let config = settings(media_type, text.as_bytes()).map_err(|error| error.to_string())?;
            Ok::<_, String>(config.config().as_ref().and_then(|config| config.user().clone()))
        };
        let whole =
            r#"{"architecture":"arm","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{"User":"web"}}"#;
        assert_eq!(user(image, whole).unwrap().as_deref(), Some("web"));
        assert_eq!(user(image, r#"{"config":{"User":"web"}}"#).unwrap().as_deref(), Some("web"));
        // One setting that is none must not take the others with it.
        assert!(user(image, r#"{"config":{"User":"web","Env":"A=b"}}"#).unwrap_err().contains("expected a sequence"));
        for nothing in ["", "{}", "[]", "\u{89}PNG", r#"{"os":7}"#] {
            assert_eq!(user(image, nothing).unwrap(), None, "{nothing}");
        }
        assert_eq!(user("application/vnd.other", r#"{"config":{"User":"web","Env":"A=b"}}"#).unwrap(), None);
    }
}
