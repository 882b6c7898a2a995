//! Which diff id a layer's blob has: found out once, by hashing, and recorded.
//!
//! ```text
//! ROOT/verified/<algorithm>-<hex of the blob>  ─▶  sha256:<64 hex>      a symbolic link that leads nowhere
//! ```
//!
//! An unpacked layer is found by its diff id, and a diff id is what a config claims. Only a blob whose content was seen
//! to have it may claim it: else an image would get another one's files without having a byte of them. A link is made
//! whole or not at all, and costs one system call to read, which `run` does for each layer.

use super::{Store, StoreError, temporary};
use oci_spec::image::{Descriptor, Digest};
use std::{
    fs,
    os::unix::fs::{DirBuilderExt, symlink},
    path::PathBuf,
};

impl Store {
    /// Whether a layer is here and unpacked, its blob being seen to have this diff id.
    pub(crate) fn has_layer(&self, layer: &Descriptor, diff_id: &Digest) -> bool {
        self.is_verified(layer.digest(), diff_id) && self.layer_dir(diff_id).exists()
    }

    /// Whether this blob was seen to have this diff id, all digits of both compared.
    pub(super) fn is_verified(&self, blob: &Digest, diff_id: &Digest) -> bool {
        fs::read_link(self.verified_path(blob)).is_ok_and(|found| found.as_os_str() == diff_id.to_string().as_str())
    }

    /// Records what hashing a blob's content showed.
    pub(crate) fn record_verified(&self, blob: &Digest, diff_id: &Digest) -> Result<(), StoreError> {
        if self.is_verified(blob, diff_id) {
            return Ok(());
        }
        let (path, fresh) = (self.verified_path(blob), temporary::fresh_path(self)?);
        let failed = |source| StoreError::io("recording the diff id in", &path, source);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.verified_folder()).map_err(failed)?;
        symlink(diff_id.to_string(), &fresh).map_err(failed)?;
        fs::rename(&fresh, &path).map_err(failed)
    }

    pub(super) fn verified_folder(&self) -> PathBuf {
        self.root.join("verified")
    }

    pub(super) fn verified_path(&self, blob: &Digest) -> PathBuf {
        self.verified_folder().join(format!("{}-{}", blob.algorithm(), blob.digest()))
    }
}
