//! The mark of a directory that an archive left out; [`crate::store`] says what it is for.

use rustix::fs::{XattrFlags, fsetxattr, lgetxattr};
use std::{os::fd::OwnedFd, path::Path};

/// Whether overlayfs keeps an attribute to itself: no container sees it, and no archive may set it.
pub(crate) fn is_overlay_attribute(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

const NAMES: [&str; 2] = ["trusted.overlay.left-out", "user.overlay.left-out"];
const ITSELF: u8 = b'i';
const OTHERS: u8 = b'o';

/// What a layer's archive left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The directory that has the mark.
    pub(crate) itself: bool,
    /// On the root: others in the layer.
    pub(crate) others: bool,
}

impl Mark {
    /// Reads a directory's; one without has nothing left out.
    pub(crate) fn of(directory: &Path) -> Self {
        let mut value = [0_u8; 2];
        let length = NAMES.iter().find_map(|name| lgetxattr(directory, *name, &mut value).ok()).unwrap_or(0);
        let has = |letter| value[..length].contains(&letter);
        Self { itself: has(ITSELF), others: has(OTHERS) }
    }

    /// Where it cannot be kept, the directory stays as it was made.
    pub(super) fn set(self, directory: &OwnedFd, privileged: bool) {
        let letters = [(self.itself, ITSELF), (self.others, OTHERS)];
        let value: Vec<u8> = letters.iter().filter(|(holds, _)| *holds).map(|(_, letter)| *letter).collect();
        if !value.is_empty() {
            let name = NAMES[usize::from(!privileged)];
            let _ = fsetxattr(directory, name, &value, XattrFlags::empty());
        }
    }
}
