//! Which layers' blobs were seen to be what they are called, and which diff id they have: found out once, by hashing,
//! and recorded.
//!
//! ```text
//! ROOT/verified/<algorithm>-<hex of the blob>  ─▶  sha256:<64 hex>      a symbolic link that leads nowhere
//!                                              ─▶  blob                 where nobody looked at what is in it
//! ```
//!
//! That a file has a blob's name says nothing: a power cut leaves short ones, and other tools write here too. A blob is
//! believed to be whole ([`Store::has_whole_blob`]) if it is as long as its descriptor says and is recorded, which it is
//! once its bytes were hashed and are on the disk.
//!
//!
//! An unpacked layer is found by its diff id, and a diff id is what a config claims. Only a blob whose content was seen
//! to have it may claim it: else an image would get another one's files without having a byte of them. A link is made
//! whole or not at all, and costs one system call to read, which `run` does for each layer.

use super::{Store, StoreError, temporary};
use oci_spec::image::{Descriptor, Digest};
use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, symlink},
    path::PathBuf,
};

/// What is recorded of a blob whose content was not looked at. No digest, so it is nobody's diff id.
const HASHED: &str = "blob";

impl Store {
    /// Whether a layer is here and unpacked, its blob being seen to have this diff id.
    pub(crate) fn has_layer(&self, layer: &Descriptor, diff_id: &Digest) -> bool {
        self.is_verified(layer.digest(), diff_id) && self.layer_dir(diff_id).exists()
    }

    /// Whether a layer's blob is here, whole. One that is not is fetched or written anew.
    ///
    /// Its bytes are hashed if that was not done before.
    pub(crate) fn has_whole_blob(&self, digest: &Digest, size: u64) -> Result<bool, StoreError> {
        if self.blob_size(digest) != Some(size) {
            return Ok(false);
        }
        if fs::symlink_metadata(self.verified_path(digest)).is_ok() {
            return Ok(true);
        }
        let Some(file) = self.find_blob(digest)? else { return Ok(false) };
        let whole = self.is_blob(digest, file)?;
        if whole {
            self.record(digest, HASHED)?;
        }
        Ok(whole)
    }

    /// Forgets what a blob was seen to be, as it is that no more.
    pub(crate) fn forget_verified(&self, blob: &Digest) -> Result<(), StoreError> {
        let path = self.verified_path(blob);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(StoreError::io("removing", &path, error)),
            _ => Ok(()),
        }
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
        self.record(blob, diff_id.as_ref())
    }

    /// Records that a blob's bytes have its digest, if no more is known.
    pub(crate) fn record_hashed(&self, blob: &Digest) -> Result<(), StoreError> {
        let known = fs::symlink_metadata(self.verified_path(blob)).is_ok();
        if known { Ok(()) } else { self.record(blob, HASHED) }
    }

    fn record(&self, blob: &Digest, what: &str) -> Result<(), StoreError> {
        let (path, fresh) = (self.verified_path(blob), temporary::fresh_path(self)?);
        let failed = |source| StoreError::io("recording the diff id in", &path, source);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.verified_folder()).map_err(failed)?;
        symlink(what, &fresh).map_err(failed)?;
        fs::rename(&fresh, &path).map_err(failed)
    }

    pub(super) fn verified_folder(&self) -> PathBuf {
        self.root.join("verified")
    }

    pub(super) fn verified_path(&self, blob: &Digest) -> PathBuf {
        self.verified_folder().join(format!("{}-{}", blob.algorithm(), blob.digest()))
    }
}
