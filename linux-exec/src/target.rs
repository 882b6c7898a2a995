//! Mount points and directories inside the container: found by the kernel beneath its root, made where they are
//! missing.
use crate::{error::Error, resolve};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, mkdirat, mknodat},
    io::{Errno, Result},
};
use std::{
    ffi::{CString, NulError},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

/// A path inside the container, in the form that the child needs.
///
/// The child resolves it after it has changed its root, so symbolic links of the image stay inside; magic links
/// (`/proc/self/fd/7`), which could lead to a file of the host that is still open, are refused by the kernel.
#[derive(Debug)]
pub(crate) struct Target {
    /// From `/`, without `.` and `..`.
    path: CString,
    /// All directories on the way with the name to make in each, outermost first.
    parts: Vec<(CString, CString)>,
}

impl Target {
    /// Takes a path; `..` goes up by name, as users mean it, and a relative path begins at `/`.
    pub(crate) fn new(path: &Path) -> std::result::Result<Self, NulError> {
        let mut directory = PathBuf::from("/");
        let mut parts = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => {
                    parts.push((CString::new(directory.as_os_str().as_bytes())?, CString::new(name.as_bytes())?));
                    directory.push(name);
                }
                Component::ParentDir => {
                    parts.pop();
                    directory.pop();
                }
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Ok(Self { path: CString::new(directory.into_os_string().into_encoded_bytes())?, parts })
    }

    /// The whole path.
    pub(crate) fn path(&self) -> &std::ffi::CStr {
        &self.path
    }

    /// Opens it (O_PATH), and makes it first if it is missing: directories, the last part an empty file if `file`.
    pub(crate) fn open_or_make(&self, file: bool) -> Result<OwnedFd> {
        match open_beneath_root(&self.path, OFlags::PATH) {
            Err(Errno::NOENT) => self.make(file)?,
            result => return result,
        }
        open_beneath_root(&self.path, OFlags::PATH)
    }

    /// Opens the place of one of the runtime's own mounts, a directory, and makes it first if it is missing: a symbolic link
    /// on the way is ELOOP, as where these go is not the image's choice.
    pub(crate) fn open_or_make_own(&self) -> Result<OwnedFd> {
        match open_without_links(&self.path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            result => return result,
        }
        for (directory, name) in &self.parts {
            let directory = open_without_links(directory, OFlags::PATH | OFlags::DIRECTORY)?;
            match mkdirat(&directory, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(Errno::ROFS) if exists(&directory, name) => {}
                Err(errno) => return Err(errno),
            }
        }
        open_without_links(&self.path, OFlags::PATH | OFlags::DIRECTORY)
    }

    fn make(&self, file: bool) -> Result<()> {
        for (index, (directory, name)) in self.parts.iter().enumerate() {
            let directory = open_beneath_root(directory, OFlags::PATH | OFlags::DIRECTORY)?;
            let made = if file && index + 1 == self.parts.len() {
                mknodat(&directory, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)
            } else {
                mkdirat(&directory, name, Mode::from_raw_mode(0o755))
            };
            match made {
                Ok(()) | Err(Errno::EXIST) => {}
                // On a read-only file system the kernel may say so before it says that the name is taken.
                Err(Errno::ROFS) if exists(&directory, name) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

fn exists(directory: &OwnedFd, name: &CString) -> bool {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Opens a path of this process's own root without following magic links.
pub(crate) fn open_beneath_root(path: &std::ffi::CStr, flags: OFlags) -> Result<OwnedFd> {
    resolve::open(CWD, path, flags, ResolveFlags::NO_MAGICLINKS)
}

/// The same without following any link.
pub(crate) fn open_without_links(path: &std::ffi::CStr, flags: OFlags) -> Result<OwnedFd> {
    resolve::open(CWD, path, flags, ResolveFlags::NO_SYMLINKS)
}

/// A mount point for the child.
pub(crate) fn target(path: &Path) -> std::result::Result<Target, Error> {
    Target::new(path).map_err(|_| contains_nul(path))
}

/// A path for the child.
pub(crate) fn c_path(path: &Path) -> std::result::Result<CString, Error> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| contains_nul(path))
}

fn contains_nul(path: &Path) -> Error {
    Error::new(format!("use the path {}: it contains a NUL byte", path.display()), Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_plain() {
        let table = [
            ("/", "/", 0),
            ("/a/b/c", "/a/b/c", 3),
            ("a//b/./c/", "/a/b/c", 3),
            ("/a/../../b", "/b", 1),
            ("/..", "/", 0),
            ("", "/", 0),
        ];
        for (path, expected, parts) in table {
            let target = Target::new(Path::new(path)).unwrap();
            assert_eq!(target.path.to_str(), Ok(expected), "{path}");
            assert_eq!(target.parts.len(), parts, "{path}");
        }
        let target = Target::new(Path::new("/a/b")).unwrap();
        assert_eq!(target.parts, [(c"/".into(), c"a".into()), (c"/a".into(), c"b".into())]);
        assert!(Target::new(Path::new("/a\0b")).is_err());
    }
}
