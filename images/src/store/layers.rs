//! Unpacked layers: staged, made visible, found, removed.

use super::{Image, Store, StoreError, merged::is_opaque, plain, temporary::Temporary};
use crate::{
    Budget,
    classify::{self, LayerKind},
    unpack::{self, UnpackError},
};
use nix::unistd::syncfs;
use oci_spec::image::{Descriptor, Digest};
use rustix::{
    fs::{XattrFlags, lgetxattr, lsetxattr},
    io::Errno,
};
use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Digits of a diff id that name a layer's directory: 128 bits, and short, so that a mount option page holds over a
/// hundred.
const NAME_DIGITS: usize = 32;

/// Attribute of a layer's directory: its whole diff id, so that a directory that somebody put in another's place is
/// noticed. A container does not see it, as the root directory that it sees is its own. Not every file system keeps it.
const DIFF_ID: &str = "user.amphora.diff-id";

impl Store {
    /// Unpacked layer directories, base first. Unpacks those that are missing (normally none: pull and import did it). The
    /// last one's own mode and owner are those of the root.
    ///
    /// Only images with layers of a root file system have any; for the others the list is empty.
    pub fn layers(&self, image: &Image) -> Result<Vec<PathBuf>, StoreError> {
        let diff_ids = image.config.rootfs().diff_ids();
        let tars = tar_layers(image)?;
        if tars.len() != diff_ids.len() {
            let counts = format!("the config lists {} diff ids for {} layers", diff_ids.len(), tars.len());
            return Err(StoreError::Layer { digest: image.manifest.config().digest().clone(), reason: counts });
        }
        let (paired, budget) = (tars.into_iter().zip(diff_ids), Budget::default());
        let all: Vec<PathBuf> =
            paired.map(|(layer, diff_id)| self.unpacked(layer, diff_id, &budget)).collect::<Result<_, _>>()?;
        self.completed(&all)
    }

    fn unpacked(&self, layer: &Descriptor, diff_id: &str, budget: &Budget) -> Result<PathBuf, StoreError> {
        let diff_id =
            parse_diff_id(diff_id).map_err(|reason| StoreError::Layer { digest: layer.digest().clone(), reason })?;
        let path = self.layer_dir(&diff_id);
        let found = match fs::symlink_metadata(&path) {
            Err(gone) if gone.kind() == ErrorKind::NotFound => return self.unpack_now(layer, &diff_id, budget),
            other => other.map_err(|source| StoreError::io("looking at", &path, source))?,
        };
        if !self.is_verified(layer.digest(), &diff_id) {
            self.verify_now(layer, &diff_id, budget)?;
        }
        let altered = if found.is_dir() {
            other_diff_id(&path, &diff_id)
                .map(|other| format!("has the content of diff id {other}, expected {diff_id}"))
        } else {
            Some(format!("is {}, expected a folder", plain::words(found.file_type())))
        };
        let Some(what) = altered else { return Ok(path) };
        let place = path.display();
        let reason = format!("{place}, where it was unpacked, {what}; remove that, and it is unpacked again");
        Err(StoreError::Layer { digest: layer.digest().clone(), reason })
    }

    /// Hashes the content of a blob that claims to be a layer which is unpacked already.
    fn verify_now(&self, layer: &Descriptor, diff_id: &Digest, budget: &Budget) -> Result<(), StoreError> {
        let refused = |reason: String| StoreError::Layer { digest: layer.digest().clone(), reason };
        let blob = self.blob(layer.digest())?;
        let mut tar = unpack::decompress(Box::new(blob), budget).map_err(|source| refused(source.to_string()))?;
        let found = unpack::diff_id(&mut tar, budget).map_err(|failed| refused(failed.to_string()))?;
        self.check_diff_id(layer, &found, diff_id)?;
        self.record_verified(layer.digest(), diff_id)
    }

    /// What a pull does as the bytes come in, done from the blob.
    fn unpack_now(&self, layer: &Descriptor, diff_id: &Digest, budget: &Budget) -> Result<PathBuf, StoreError> {
        let refused = |reason: String| StoreError::Layer { digest: layer.digest().clone(), reason };
        let blob = self.blob(layer.digest())?;
        let stage = self.stage_layer(diff_id)?;
        let mut tar = unpack::decompress(Box::new(blob), budget).map_err(|source| refused(source.to_string()))?;
        let unpacked = unpack::unpack(&mut tar, &stage.path, budget);
        let found = unpacked.map_err(|failed| match failed {
            UnpackError::System { source, target, .. } if source.kind() == ErrorKind::StorageFull => {
                StoreError::Full { path: target, source }
            }
            // Whoever pulls or loads it again is to look at the blob, not at what was recorded.
            other => self.forget_verified(layer.digest()).err().unwrap_or_else(|| refused(other.to_string())),
        })?;
        self.check_diff_id(layer, &found, diff_id)?;
        let path = stage.commit()?;
        self.record_verified(layer.digest(), diff_id)?;
        Ok(path)
    }

    fn check_diff_id(&self, layer: &Descriptor, found: &Digest, claimed: &Digest) -> Result<(), StoreError> {
        if found == claimed {
            return Ok(());
        }
        self.forget_verified(layer.digest())?;
        let reason =
            format!("its content has diff id {found}, the config says {claimed}; the image is forged or damaged");
        Err(StoreError::Layer { digest: layer.digest().clone(), reason })
    }

    /// Where the layer with this diff id is (or will be) unpacked: layers/<first 32 hex digits>. Short, so that over a
    /// hundred fit into one mount option page.
    pub fn layer_dir(&self, diff_id: &Digest) -> PathBuf {
        self.layers_folder().join(layer_name(diff_id))
    }

    /// A staging directory for unpacking a layer, removed on drop, renamed to `layer_dir` by `commit` (syncfs first;
    /// someone else was first: fine).
    pub fn stage_layer(&self, diff_id: &Digest) -> Result<LayerStage, StoreError> {
        let temporary = Temporary::directory(self)?;
        // Whatever the umask is: this becomes the root directory that a container's users go through.
        fs::set_permissions(&temporary.path, fs::Permissions::from_mode(0o755))
            .map_err(|source| StoreError::io("setting the mode of", &temporary.path, source))?;
        // Before the layer's own attributes, which could leave no room for it. What cannot keep any has none to compare.
        match lsetxattr(&temporary.path, DIFF_ID, diff_id.as_ref().as_bytes(), XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(error) => return Err(StoreError::io("recording the diff id of", &temporary.path, error.into())),
        }
        let (path, target) = (temporary.path.clone(), self.layer_dir(diff_id));
        Ok(LayerStage { path, target, temporary })
    }
}

/// A layer being unpacked. Dropped without `commit`, it leaves nothing behind.
#[derive(Debug)]
pub struct LayerStage {
    /// Unpack here.
    pub path: PathBuf,
    target: PathBuf,
    temporary: Temporary,
}

impl LayerStage {
    /// Makes it visible, and returns where.
    ///
    /// All its files are on the disk before they have a name that others rely on. When another process unpacked
    /// the same layer meanwhile, that one stays and this one goes.
    pub fn commit(self) -> Result<PathBuf, StoreError> {
        sync(&self.path)?;
        match self.temporary.rename(&self.target) {
            Ok(()) => Ok(self.target),
            Err(StoreError::Io { source, .. }) if already_there(&source) => Ok(self.target),
            Err(other) => Err(other),
        }
    }
}

pub(super) fn is_diff_id_attribute(name: &[u8]) -> bool {
    name == DIFF_ID.as_bytes()
}

/// The diff id that a layer's directory was made for, where that is another one.
fn other_diff_id(directory: &Path, expected: &Digest) -> Option<String> {
    let mut recorded = [0_u8; 256];
    let length = lgetxattr(directory, DIFF_ID, &mut recorded).ok()?;
    let found = String::from_utf8_lossy(&recorded[..length]);
    (found != expected.as_ref()).then(|| found.into_owned())
}

/// Of a stack of layers, base first, those that show.
pub(super) fn visible(all: &[PathBuf]) -> Vec<PathBuf> {
    // overlayfs refuses a layer that is there twice. Of equal ones the topmost hides the others.
    let mut seen = HashSet::new();
    let mut stack: Vec<PathBuf> = all.iter().rev().filter(|layer| seen.insert(*layer)).cloned().collect();
    stack.reverse();
    // overlayfs does not look for the mark in the root of a layer, so what it hides is left out here.
    let base = stack.iter().rposition(|layer| is_opaque(layer)).unwrap_or(0);
    stack.split_off(base)
}

/// rename(2) onto a directory that is not empty; one that is empty is replaced, which does no harm.
fn already_there(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists)
}

/// Brings everything written so far to the disk, on the file system of `path`: once a layer instead of once a file.
pub(super) fn sync(path: &Path) -> Result<(), StoreError> {
    let folder = File::open(path).map_err(|source| StoreError::io("opening", path, source))?;
    syncfs(&folder).map_err(|source| StoreError::io("writing back the file system of", path, source.into()))
}

/// The layers of the root file system: those whose type is a tar.
fn tar_layers(image: &Image) -> Result<Vec<&Descriptor>, StoreError> {
    let part_of_root = |layer: &&Descriptor| match classify::layer_kind(layer.media_type().as_ref()) {
        LayerKind::Tar(_) => Some(Ok(())),
        LayerKind::Refused(why) => {
            Some(Err(StoreError::Layer { digest: layer.digest().clone(), reason: why.to_owned() }))
        }
        LayerKind::Wasm | LayerKind::Other => None,
    };
    let layers = image.manifest.layers().iter();
    layers.filter_map(|layer| part_of_root(&layer).map(|verdict| verdict.map(|()| layer))).collect()
}

/// A diff id of a config, checked, as it becomes part of a path.
pub(super) fn parse_diff_id(text: &str) -> Result<Digest, String> {
    let digest = Digest::from_str(text).map_err(|reason| format!("its diff id `{text}` is not a digest: {reason}"))?;
    let hex = digest.digest();
    if hex.len() < NAME_DIGITS || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(format!("its diff id `{text}` is not at least {NAME_DIGITS} hexadecimal digits"));
    }
    Ok(digest)
}

pub(super) fn layer_name(diff_id: &Digest) -> &str {
    let hex = diff_id.digest();
    hex.get(..NAME_DIGITS).unwrap_or(hex)
}
