//! Code that was compiled on the side, and may not be wanted any more.

use super::{CodeCache, draft::Draft, error::CacheError, kind::Kind};
use crate::Profile;
use std::path::PathBuf;

/// Code that no start finds yet; dropped, it was never there.
pub struct Pending<'a> {
    pub(super) cache: &'a CodeCache,
    pub(super) draft: Draft,
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    pub(super) image: Vec<u8>,
    pub(super) profile: Profile,
}

impl Pending<'_> {
    /// Makes it appear.
    pub fn publish(self) -> Result<(), CacheError> {
        let Self { cache, draft, path, kind, image, profile } = self;
        cache.publish(draft, &path, kind, &image, profile).map(drop)
    }
}
