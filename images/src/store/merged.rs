//! A file in stacked layers, as overlayfs would show it, without mounting anything.
//!
//! Symbolic links are followed here, part by part and within the layers, never by the kernel: only directories that
//! were seen to be directories come before the last part of any path that is opened.

use super::{Image, Store, StoreError, layers};
use crate::classify::Head;
use oci_spec::image::{ImageConfiguration, ImageManifest};
use rustix::fs::{OFlags, lgetxattr};
use std::{
    collections::VecDeque,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Steps from one part of a path to the next: ends loops of links, and paths made to take long.
const MAX_STEPS: usize = 1_000;
/// Enough of a file to say what it is.
const HEAD_BYTES: u64 = 64;

impl Store {
    /// The beginning of a file of an image's root, for [`crate::classify::classify`].
    pub(super) fn head(&self, manifest: &ImageManifest, config: &ImageConfiguration, path: &str) -> Head {
        let diff_ids = config.rootfs().diff_ids();
        let unpacked = |diff_id: &String| {
            let directory = self.layer_dir(&layers::parse_diff_id(diff_id).ok()?);
            directory.is_dir().then_some(directory)
        };
        let top_first: Option<Vec<PathBuf>> = diff_ids.iter().rev().map(unpacked).collect();
        match top_first {
            Some(mut layers) if layers.len() == manifest.layers().len() => {
                let hidden = layers.iter().position(|layer| is_opaque(layer));
                layers.truncate(hidden.map_or(layers.len(), |at| at + 1));
                read_head(&layers, path)
            }
            _ => Head::NotKnown,
        }
    }
}

impl Store {
    /// Opens a regular file of an image's root as a container would find it: what upper layers replaced or removed is
    /// not there. None: there is none.
    pub fn open_in_root(&self, image: &Image, path: &str) -> Result<Option<File>, StoreError> {
        let mut layers = self.layers(image)?;
        layers.reverse();
        let Some(place) = locate(&layers, path) else { return Ok(None) };
        let mut options = OpenOptions::new();
        let plain = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let opened = options.read(true).custom_flags(plain).open(&place);
        opened.map(Some).map_err(|source| StoreError::io("opening", &place, source))
    }
}

fn read_head(top_first: &[PathBuf], path: &str) -> Head {
    let Some(file) = locate(top_first, path) else { return Head::Missing };
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut bytes));
    // What may not be read here, a mode-0 file without root, is not known rather than absent.
    read.map_or(Head::NotKnown, |_| Head::Bytes(bytes))
}

/// What is at one path.
enum Found {
    /// A directory, with the layers that make it up.
    Directory(Vec<PathBuf>),
    Link(String),
    File(PathBuf),
    Nothing,
}

/// Where the regular file lies that `path` leads to.
fn locate(top_first: &[PathBuf], path: &str) -> Option<PathBuf> {
    let mut rest: VecDeque<String> = parts(path).collect();
    let (mut done, mut visible) = (Vec::new(), top_first.to_vec());
    for _ in 0..MAX_STEPS {
        let part = rest.pop_front()?;
        let restart = if part == ".." {
            done.pop();
            std::mem::take(&mut done)
        } else {
            done.push(part);
            match look(&visible, &done.join("/")).ok()? {
                Found::Directory(layers) => {
                    visible = layers;
                    continue;
                }
                Found::File(file) => return rest.is_empty().then_some(file),
                Found::Nothing => return None,
                Found::Link(target) => {
                    done.pop();
                    let base = std::mem::take(&mut done);
                    let base = if target.starts_with('/') { Vec::new() } else { base };
                    base.into_iter().chain(parts(&target)).collect()
                }
            }
        };
        visible = top_first.to_vec();
        rest = restart.into_iter().chain(rest).collect();
    }
    None
}

fn parts(path: &str) -> impl Iterator<Item = String> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned)
}

/// What the layers that make up the parent directory, top first, show at a path.
fn look(visible: &[PathBuf], path: &str) -> io::Result<Found> {
    let mut directories = Vec::new();
    for layer in visible {
        let place = layer.join(path);
        let metadata = match fs::symlink_metadata(&place) {
            Ok(metadata) => metadata,
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => continue,
            Err(other) => return Err(other),
        };
        if !metadata.is_dir() {
            if directories.is_empty() {
                return other_than_directory(&place, &metadata);
            }
            // Beneath a directory, anything else is hidden, and hides what is under it.
            break;
        }
        directories.push(layer.clone());
        if is_opaque(&place) {
            break;
        }
    }
    Ok(if directories.is_empty() { Found::Nothing } else { Found::Directory(directories) })
}

fn other_than_directory(place: &Path, metadata: &Metadata) -> io::Result<Found> {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return Ok(fs::read_link(place)?.to_str().map_or(Found::Nothing, |target| Found::Link(target.to_owned())));
    }
    let whiteout = kind.is_char_device() && metadata.rdev() == 0;
    Ok(if kind.is_file() && !whiteout { Found::File(place.to_owned()) } else { Found::Nothing })
}

/// Whether a directory hides those beneath it: overlayfs.rst, "whiteouts and opaque directories".
pub(super) fn is_opaque(directory: &Path) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
        let mut value = [0_u8; 1];
        lgetxattr(directory, *name, &mut value).is_ok_and(|length| length == 1 && value == *b"y")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn write(path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn upper_layers_hide_lower_ones() {
        let folder = tempfile::tempdir().unwrap();
        let (upper, lower) = (folder.path().join("upper"), folder.path().join("lower"));
        write(&lower.join("bin/app"), b"lower");
        write(&lower.join("bin/old"), b"old");
        write(&lower.join("dir/file"), b"hidden by a file");
        write(&lower.join("out/file"), b"hidden beneath a link");
        write(&upper.join("bin/app"), b"upper");
        write(&upper.join("dir"), b"a file now");
        symlink("/bin/app", upper.join("absolute")).unwrap();
        symlink("bin/../absolute", upper.join("relative")).unwrap();
        symlink("../../../../../../bin/old", upper.join("bin/beyond")).unwrap();
        symlink("loop", upper.join("loop")).unwrap();
        symlink("bin", upper.join("out")).unwrap();
        let layers = [upper, lower];
        let table = [
            ("/bin/app", Some("upper")),
            ("bin/app", Some("upper")),
            ("/bin/old", Some("old")),
            ("/absolute", Some("upper")),
            ("/relative", Some("upper")),
            ("/bin/beyond", Some("old")),
            ("/out/old", Some("old")),
            ("/out/file", None),
            ("/dir/file", None),
            ("/loop", None),
            ("/bin", None),
            ("/bin/app/x", None),
            ("/nothing", None),
        ];
        for (path, expected) in table {
            let expected = expected.map_or(Head::Missing, |text| Head::Bytes(text.as_bytes().to_vec()));
            assert_eq!(read_head(&layers, path), expected, "{path}");
        }
    }

    #[test]
    fn a_lower_link_under_an_upper_directory_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (upper, lower) = (folder.path().join("upper"), folder.path().join("lower"));
        write(&folder.path().join("host/secret"), b"secret");
        fs::create_dir_all(upper.join("etc")).unwrap();
        fs::create_dir_all(&lower).unwrap();
        symlink(folder.path().join("host"), lower.join("etc")).unwrap();
        assert_eq!(read_head(&[upper, lower], "/etc/secret"), Head::Missing);
    }

    #[test]
    fn opaque_directories_and_whiteouts_hide() {
        let folder = tempfile::tempdir().unwrap();
        let (upper, lower) = (folder.path().join("upper"), folder.path().join("lower"));
        write(&lower.join("opaque/file"), b"hidden");
        fs::create_dir_all(upper.join("opaque")).unwrap();
        let set =
            rustix::fs::setxattr(upper.join("opaque"), "user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty());
        if let Err(error) = set {
            println!("skipped: no user xattrs on {}: {error}", folder.path().display());
            return;
        }
        assert_eq!(read_head(&[upper, lower], "/opaque/file"), Head::Missing);
    }
}
