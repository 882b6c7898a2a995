//! A container's writable root: an overlay, made without a path where the kernel can.
//!
//! Since Linux 6.8 every lower directory is an option of its own (`lowerdir+`). Before that all of them share one
//! string, which fsconfig(2) limits to 255 bytes; so there mount(2) does it, in a mount namespace that lives only for
//! that, and open_tree(2) takes the mount out of it.
use crate::{
    detached,
    error::Error,
    sys::{self, Birth, Memory, NewNamespaces, Stack},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::CWD,
    io::Errno,
    mount::{
        FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags, fsconfig_set_flag,
        fsconfig_set_string, fsopen, mount, mount_change, open_tree,
    },
};
use std::{
    ffi::{CStr, CString, OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// What to put together; see [`crate::rootfs::Rootfs::overlay`].
pub(crate) struct Overlay<'a> {
    /// Base first.
    pub(crate) lower: &'a [PathBuf],
    /// None: it cannot be written to.
    pub(crate) writable: Option<Writable<'a>>,
    pub(crate) volatile: bool,
    /// Privileged attributes (`trusted.overlay.*`) cannot be set.
    pub(crate) user_namespace: bool,
}

/// Where what is written to an overlay goes.
#[derive(Clone, Copy)]
pub(crate) struct Writable<'a> {
    pub(crate) upper: &'a Path,
    pub(crate) work: &'a Path,
}

/// mount(2) takes a page of options, NUL included (Linux's PAGE_SIZE of the smallest kind).
const MAX_OPTIONS_BYTES: usize = 4095;

/// The first kernel with `lowerdir+`. Trying it on an older one would leave a line in the kernel's log for every start.
const LOWERDIR_PLUS_SINCE: (u32, u32) = (6, 8);

impl Overlay<'_> {
    /// A detached mount.
    pub(crate) fn mount(&self) -> Result<OwnedFd, Error> {
        if self.lower.is_empty() {
            return Err(self.error(Errno::INVAL, "it has no layers"));
        }
        if kernel_release().is_some_and(|release| release < LOWERDIR_PLUS_SINCE) {
            return self.mount_by_path("");
        }
        let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| self.error(errno, ""))?;
        match self.configure(context.as_fd()) {
            // A path too long for one option; or truly wrong, which mount(2) will find again.
            Err(Errno::INVAL) => self.mount_by_path(&kernel_message(context.as_fd())),
            result => result.map_err(|errno| self.error(errno, &kernel_message(context.as_fd()))),
        }
    }

    fn configure(&self, context: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
        let set = |key: &CStr, path: &Path| fsconfig_set_string(context, key, path);
        if self.all_paths().any(|path| path.as_os_str().as_bytes().contains(&b'\\')) {
            // Whether a backslash escapes depends on the kernel's version here, but not in mount(2).
            return Err(Errno::INVAL);
        }
        for lower in self.lower.iter().rev() {
            set(c"lowerdir+", lower)?;
        }
        match self.writable {
            Some(Writable { upper, work }) => {
                set(c"upperdir", upper)?;
                set(c"workdir", work)?;
            }
            // Else a directory that is another overlay's upper one is refused.
            None => fsconfig_set_string(context, c"index", c"off")?,
        }
        for (flag, wanted) in [(c"volatile", self.volatile), (c"userxattr", self.user_namespace)] {
            if wanted {
                fsconfig_set_flag(context, flag)?;
            }
        }
        detached::finish(context, MountAttrFlags::empty())
    }

    fn all_paths(&self) -> impl Iterator<Item = &Path> {
        let writable = self.writable.into_iter().flat_map(|writable| [writable.upper, writable.work]);
        self.lower.iter().map(PathBuf::as_path).chain(writable)
    }

    /// For older kernels. `message`: what the kernel said to the first attempt.
    fn mount_by_path(&self, message: &str) -> Result<OwnedFd, Error> {
        let (directory, options) = self.options();
        if options.len() > MAX_OPTIONS_BYTES {
            let length = options.len();
            return Err(self.error(
                Errno::TOOBIG,
                &format!(
                    "the options take {length} bytes, and this kernel (before 6.8) accepts {MAX_OPTIONS_BYTES}; use a \
                     shorter path for the store, or an image with fewer layers"
                ),
            ));
        }
        let directory = c_string(directory.as_os_str())?;
        let place = self.writable.map_or(self.lower[0].as_path(), |writable| writable.upper);
        let (options, place) = (c_string(&options)?, c_string(place.as_os_str())?);
        in_private_mount_namespace(|| mount_and_take(&directory, &options, &place))
            .map_err(|errno| self.error(errno, message))
    }

    /// The option string, and the directory that its relative names begin at.
    fn options(&self) -> (PathBuf, OsString) {
        let directory = common_directory(self.lower);
        let mut options = b"lowerdir=".to_vec();
        for (index, lower) in self.lower.iter().rev().enumerate() {
            if index > 0 {
                options.push(b':');
            }
            let name = lower.strip_prefix(&directory).unwrap_or(lower);
            escape(if name.as_os_str().is_empty() { Path::new(".") } else { name }, &mut options);
        }
        match self.writable {
            Some(Writable { upper, work }) => {
                for (key, path) in [(",upperdir=", upper), (",workdir=", work)] {
                    options.extend(key.as_bytes());
                    escape(path, &mut options);
                }
            }
            None => options.extend(b",index=off"),
        }
        options.extend(if self.volatile { ",volatile" } else { "" }.as_bytes());
        options.extend(if self.user_namespace { ",userxattr" } else { "" }.as_bytes());
        (directory, OsString::from_vec(options))
    }

    fn error(&self, errno: Errno, message: &str) -> Error {
        let count = self.lower.len();
        let action = match self.writable {
            Some(Writable { upper, .. }) => {
                format!("mount an overlay of {count} layers with upper directory {}", upper.display())
            }
            None => format!("mount an overlay of {count} layers to read it"),
        };
        let hint = match errno {
            _ if !message.is_empty() => message,
            Errno::INVAL => {
                "the upper directory must be on a file system that overlayfs accepts, which another overlay is not"
            }
            Errno::PERM => "mounting needs root, or a user namespace of a kernel since 5.11",
            Errno::NODEV => "this kernel has no overlayfs: load the module `overlay`",
            Errno::NOENT => "a layer, the upper or the work directory is missing",
            _ => "",
        };
        Error::new(action, errno).hint(hint)
    }
}

/// Major and minor number.
fn kernel_release() -> Option<(u32, u32)> {
    parse_release(rustix::system::uname().release().to_str().ok()?)
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The deepest directory that contains all layers.
fn common_directory(paths: &[PathBuf]) -> PathBuf {
    let mut common = paths.first().and_then(|path| path.parent()).unwrap_or(Path::new("/"));
    while !paths.iter().all(|path| path.starts_with(common)) {
        common = common.parent().unwrap_or(Path::new("/"));
    }
    common.into()
}

/// Overlay's options end at commas, and its lower directories at colons.
fn escape(path: &Path, options: &mut Vec<u8>) {
    for &byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b',' | b':') {
            options.push(b'\\');
        }
        options.push(byte);
    }
}

fn c_string(text: &OsStr) -> Result<CString, Error> {
    CString::new(text.as_bytes())
        .map_err(|_| Error::new(format!("use {}: it contains a NUL byte", text.display()), Errno::INVAL))
}

/// Mounts over one of the directories, where nobody sees it, and takes a copy of the mount.
fn mount_and_take(directory: &CStr, options: &CStr, place: &CStr) -> rustix::io::Result<OwnedFd> {
    mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    rustix::process::chdir(directory)?;
    mount(c"overlay", place, c"overlay", MountFlags::empty(), options)?;
    open_tree(CWD, place, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
}

/// Runs `make` in a process that shares memory and descriptors with this one, but has a mount namespace of its own.
pub(crate) fn in_private_mount_namespace(
    make: impl Fn() -> rustix::io::Result<OwnedFd>,
) -> rustix::io::Result<OwnedFd> {
    let mut result = Err(Errno::CHILD);
    let mut stack = Stack::new()?;
    let signals = sys::SignalsBlocked::new()?;
    let birth = Birth { namespaces: NewNamespaces::MOUNT, shares_descriptors: true, ..Birth::default() };
    let cloned = sys::clone(birth, Memory::Shared(&mut stack), &mut || {
        result = make();
        0
    })?;
    drop(signals);
    crate::reap::finish(cloned.pid, cloned.pidfd.as_fd());
    result
}

/// What the kernel wrote about a failed configuration: lines that begin with `e `, `w ` or `i ` (fsopen).
fn kernel_message(context: BorrowedFd<'_>) -> String {
    let mut line = [0_u8; 256];
    let mut messages = Vec::new();
    while let Ok(length @ 1..) = rustix::io::read(context, &mut line) {
        let text = String::from_utf8_lossy(line.get(..length).unwrap_or_default());
        messages.push(text.trim_end().trim_start_matches(['e', 'w', 'i']).trim_start().to_owned());
    }
    messages.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags, openat};

    fn overlay<'a>(lower: &'a [PathBuf], upper: &'a Path) -> Overlay<'a> {
        let writable = Some(Writable { upper, work: Path::new("/c/work") });
        Overlay { lower, writable, volatile: true, user_namespace: false }
    }

    #[test]
    fn options_name_layers_relative_to_their_directory_top_first() {
        let lower = ["/s/layers/base", "/s/layers/to:p"].map(PathBuf::from);
        let (directory, options) = overlay(&lower, Path::new("/c/up,per")).options();
        assert_eq!(directory, Path::new("/s/layers"));
        assert_eq!(options, r"lowerdir=to\:p:base,upperdir=/c/up\,per,workdir=/c/work,volatile");
    }

    #[test]
    fn releases_parse() {
        let table = [
            ("6.1.0-37-amd64", Some((6, 1))),
            ("6.18.44", Some((6, 18))),
            ("10.0-rc1", Some((10, 0))),
            ("6", None),
            ("next", None),
        ];
        for (release, expected) in table {
            assert_eq!(parse_release(release), expected, "{release}");
        }
        assert!(kernel_release().is_some());
    }

    #[test]
    fn common_directories() {
        let table =
            [(&["/a/b/c", "/a/b/d"][..], "/a/b"), (&["/a/b/c", "/a/x"], "/a"), (&["/a", "/b"], "/"), (&["/a"], "/")];
        for (paths, expected) in table {
            let paths: Vec<_> = paths.iter().map(PathBuf::from).collect();
            assert_eq!(common_directory(&paths), Path::new(expected), "{paths:?}");
        }
    }

    #[test]
    fn too_many_options_are_refused_by_size() {
        let lower: Vec<_> = (0..200).map(|number| PathBuf::from(format!("/s/layers/{number:064}"))).collect();
        let error = overlay(&lower, Path::new("/c/upper")).mount_by_path("").unwrap_err();
        assert!(error.to_string().contains("bytes"), "{error}");
    }

    #[test]
    fn both_ways_show_the_same_tree() {
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: needs root");
        }
        for by_path in [false, true] {
            let root = tempfile::tempdir().unwrap();
            let make = |name: &str| {
                let path = root.path().join(name);
                std::fs::create_dir(&path).unwrap();
                path
            };
            let lower = [make("base"), make("top")];
            let (upper, work) = (make("upper"), make("work"));
            std::fs::write(lower[0].join("a"), "base").unwrap();
            std::fs::write(lower[0].join("b"), "base").unwrap();
            std::fs::write(lower[1].join("a"), "top").unwrap();
            let writable = Some(Writable { upper: &upper, work: &work });
            let overlay = Overlay { lower: &lower, writable, volatile: true, user_namespace: false };
            let mount = if by_path { overlay.mount_by_path("") } else { overlay.mount() }.unwrap();
            let root = crate::rootfs::Rootfs { mount };
            let read = |name: &str| std::io::read_to_string(root.open(Path::new(name)).unwrap().unwrap()).unwrap();
            assert_eq!((read("a").as_str(), read("b").as_str()), ("top", "base"), "by path: {by_path}");
            assert!(root.open(Path::new("/c")).unwrap().is_none());
            // The same once more while that is there, to be read only.
            std::fs::write(upper.join("c"), "written").unwrap();
            let lower = [lower[0].clone(), lower[1].clone(), upper.clone()];
            let overlay = Overlay { lower: &lower, writable: None, volatile: false, user_namespace: false };
            let mount = if by_path { overlay.mount_by_path("") } else { overlay.mount() }.unwrap();
            let flags = OFlags::WRONLY | OFlags::CREATE;
            assert_eq!(openat(&mount, c"d", flags, Mode::RUSR).unwrap_err(), Errno::ROFS, "by path: {by_path}");
            let root = crate::rootfs::Rootfs { mount };
            let text = std::io::read_to_string(root.open(Path::new("/c")).unwrap().unwrap()).unwrap();
            assert_eq!(text, "written");
        }
    }
}
