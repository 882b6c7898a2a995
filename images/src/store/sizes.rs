//! How large things are on disk.

use super::{Image, Store, layers::parse_diff_id};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Attribute of a layer's directory: how large it was when somebody first asked. It does not change.
const SIZE: &str = "user.amphora.size";

impl Store {
    /// How large an image's files are, unpacked, in bytes; of one without layers of a root file system, how large its blobs
    /// are. A layer that is not unpacked counts nothing.
    pub fn unpacked_size(&self, image: &Image) -> u64 {
        let sizes = self.layer_sizes(image);
        if sizes.is_empty() { image.size_bytes } else { sizes.iter().sum() }
    }

    /// The same for each layer, base first. A layer that is there twice has its size once.
    pub fn layer_sizes(&self, image: &Image) -> Vec<u64> {
        let mut seen = HashSet::new();
        let mut size = |diff_id: &String| match parse_diff_id(diff_id) {
            Ok(digest) if seen.insert(diff_id.clone()) => layer_size(&self.layer_dir(&digest)),
            _ => 0,
        };
        image.config.rootfs().diff_ids().iter().map(&mut size).collect()
    }
}

fn layer_size(directory: &Path) -> u64 {
    let mut recorded = [0_u8; 32];
    if let Ok(length) = lgetxattr(directory, SIZE, &mut recorded)
        && let Some(size) = std::str::from_utf8(&recorded[..length]).ok().and_then(|text| text.parse().ok())
    {
        return size;
    }
    let (size, is_all) = counted(directory);
    if is_all {
        // Where that cannot be written down, it is counted again.
        let _ = lsetxattr(directory, SIZE, size.to_string().as_bytes(), XattrFlags::empty());
    }
    size
}

/// How large the regular files below a directory are together, in bytes, each counted once. What cannot be looked at counts
/// nothing.
pub fn tree_size(directory: &Path) -> u64 {
    counted(directory).0
}

/// The same, and whether all could be looked at.
fn counted(directory: &Path) -> (u64, bool) {
    let (mut size, mut is_all, mut seen) = (0, true, HashSet::new());
    let mut folders: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else {
            is_all = false;
            continue;
        };
        for entry in entries {
            let Ok((entry, metadata)) = entry.and_then(|entry| entry.metadata().map(|metadata| (entry, metadata)))
            else {
                is_all = false;
                continue;
            };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() && (metadata.nlink() == 1 || seen.insert((metadata.dev(), metadata.ino()))) {
                size += metadata.len();
            }
        }
    }
    (size, is_all)
}

pub(super) fn is_size_attribute(name: &[u8]) -> bool {
    name == SIZE.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn each_regular_file_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/b/file"), [0; 1000]).unwrap();
        fs::hard_link(at("a/b/file"), at("again")).unwrap();
        fs::write(at("other"), [0; 24]).unwrap();
        symlink("/", at("root")).unwrap();
        assert_eq!(tree_size(folder.path()), 1024);
        assert_eq!(tree_size(&at("missing")), 0);
    }

    #[test]
    fn a_layers_size_is_counted_once_and_written_down() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), [0; 10]).unwrap();
        assert_eq!(layer_size(folder.path()), 10);
        let mut recorded = [0; 8];
        let kept = lgetxattr(folder.path(), SIZE, &mut recorded).is_ok();
        fs::write(folder.path().join("more"), [0; 10]).unwrap();
        assert_eq!(layer_size(folder.path()), if kept { 10 } else { 20 });
    }
}
