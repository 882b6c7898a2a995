//! Names of files in the cache.

use super::error::CacheError;
use crate::{Profile, Proposals, engine};

const SUFFIX: &str = ".cwasm";
const FUEL: &str = "-fuel";
const BASELINE: &str = "-baseline";
pub(super) const TEMPORARY: &str = ".tmp";

/// A file name of the cache, taken apart.
pub(super) struct Name<'a> {
    pub(super) sha256: &'a str,
    key: &'a str,
    pub(super) profile: Profile,
}

impl<'a> Name<'a> {
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let stem = name.strip_suffix(SUFFIX)?;
        let (stem, baseline) = without(stem, BASELINE);
        let (stem, fuel) = without(stem, FUEL);
        let (stem, proposals) = Proposals::strip(stem);
        let (sha256, key) = stem.split_once('-')?;
        (is_digest(sha256) && !key.contains('-')).then_some(Self {
            sha256,
            key,
            profile: Profile { fuel, concurrent: false, proposals, baseline },
        })
    }

    /// Whether another version of this program, or another machine, has compiled it.
    pub(super) fn is_of_another_engine(&self) -> bool {
        self.key != engine::key(self.profile)
    }
}

/// The name of a program's code.
pub(super) fn of(sha256: &str, profile: Profile) -> Result<String, CacheError> {
    check_digest(sha256)?;
    let fuel = if profile.fuel { FUEL } else { "" };
    let baseline = if profile.baseline { BASELINE } else { "" };
    let proposals = profile.proposals.suffix();
    Ok(format!("{sha256}-{}{proposals}{fuel}{baseline}{SUFFIX}", engine::key(profile)))
}

/// A name without this end, and whether it had it.
fn without<'a>(stem: &'a str, end: &str) -> (&'a str, bool) {
    stem.strip_suffix(end).map_or((stem, false), |stem| (stem, true))
}

/// Whether a name is that of a file of the cache that is, or was, being written.
pub(super) fn is_temporary(name: &str) -> bool {
    let written = name.strip_suffix(TEMPORARY).and_then(|name| name.rsplit_once(SUFFIX));
    written.is_some_and(|(stem, _writer)| Name::parse(&format!("{stem}{SUFFIX}")).is_some())
}

pub(super) fn check_digest(text: &str) -> Result<(), CacheError> {
    if is_digest(text) { Ok(()) } else { Err(CacheError::Digest(text.into())) }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
