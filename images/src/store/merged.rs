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
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

/// Symbolic links followed for one path, as the kernel does (path_resolution(7)).
const LINKS: usize = 40;
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
        match diff_ids.iter().map(unpacked).collect::<Option<Vec<PathBuf>>>() {
            Some(all) if all.len() == manifest.layers().len() => {
                let mut layers = layers::visible(&all);
                layers.reverse();
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
        let found = locate(&layers, path.as_ref());
        let failed = |source| StoreError::io("looking in the image's layers for", Path::new(path), source);
        let Some(place) = found.map_err(failed)? else { return Ok(None) };
        let mut options = OpenOptions::new();
        let plain = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let opened = options.read(true).custom_flags(plain).open(&place);
        opened.map(Some).map_err(|source| StoreError::io("opening", &place, source))
    }
}

fn read_head(top_first: &[PathBuf], path: &str) -> Head {
    let file = match locate(top_first, path.as_ref()) {
        Ok(Some(file)) => file,
        Ok(None) => return Head::Missing,
        Err(_) => return Head::NotKnown,
    };
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut bytes));
    // What may not be read here, a mode-0 file without root, is not known rather than absent.
    read.map_or(Head::NotKnown, |_| Head::Bytes(bytes))
}

/// What is at one path.
pub(super) enum Found {
    /// A directory, with the layers that make it up, top first.
    Directory(Vec<PathBuf>),
    Link(PathBuf),
    File(PathBuf),
    /// Neither of these, or not there.
    Nothing,
}

/// Where the regular file lies that a path leads to, from the root and within it. None: to nothing, or to something
/// else.
pub(super) fn locate(top_first: &[PathBuf], path: &OsStr) -> io::Result<Option<PathBuf>> {
    let mut ahead: VecDeque<OsString> = parts(path).collect();
    // The directories from the root down to where we are: each with its path, and the layers that make it up.
    let root = (PathBuf::new(), top_first.to_vec());
    let mut above = Vec::new();
    let mut here = root.clone();
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        match part.as_bytes() {
            b"." => continue,
            b".." => {
                here = above.pop().unwrap_or_else(|| root.clone());
                continue;
            }
            _ => {}
        }
        let path = here.0.join(part);
        match look(&here.1, &path)? {
            Found::Directory(layers) => above.push(std::mem::replace(&mut here, (path, layers))),
            Found::File(file) => return Ok(ahead.is_empty().then_some(file)),
            Found::Nothing => return Ok(None),
            Found::Link(_) if links == LINKS => return Ok(None),
            Found::Link(target) => {
                links += 1;
                if target.is_absolute() {
                    above.clear();
                    here = root.clone();
                }
                parts(target.as_os_str()).rev().for_each(|part| ahead.push_front(part));
            }
        }
    }
    Ok(None)
}

/// The components of a path. A slash at its end becomes a `.`: what comes before must be a directory.
fn parts(path: &OsStr) -> impl DoubleEndedIterator<Item = OsString> {
    let named = path.as_bytes().split(|&byte| byte == b'/').filter(|part| !part.is_empty());
    let end: Option<&[u8]> = path.as_bytes().ends_with(b"/").then_some(b".");
    named.chain(end).map(|part| OsStr::from_bytes(part).to_owned())
}

/// What the layers that make up the parent directory, top first, show at a path.
pub(super) fn look(visible: &[PathBuf], path: &Path) -> io::Result<Found> {
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
        return Ok(Found::Link(fs::read_link(place)?));
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
        symlink("bin/app/", upper.join("slash")).unwrap();
        let no_text = OsStr::from_bytes(b"\xff");
        symlink("bin/app", upper.join(no_text)).unwrap();
        symlink(no_text, upper.join("bytes")).unwrap();
        symlink("bin/app", upper.join("link1")).unwrap();
        for number in 2..=41 {
            symlink(format!("link{}", number - 1), upper.join(format!("link{number}"))).unwrap();
        }
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
            ("/bin/app/", None),
            ("/bin/app/.", None),
            ("/slash", None),
            ("/bin/../bin/./app", Some("upper")),
            ("/bytes", Some("upper")),
            ("/link40", Some("upper")),
            ("/link41", None),
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
