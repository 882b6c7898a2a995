//! Mount points and directories inside the container: found by the kernel beneath its root, made where they are
//! missing.
use crate::{error::Error, resolve};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, mkdirat, mknodat, readlinkat_raw, statat},
    io::{Errno, Result},
};
use std::{
    ffi::{CStr, CString, NulError},
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
            Err(Errno::NOENT) => {}
            result => return result,
        }
        let open = || open_beneath_root(&self.path, OFlags::PATH);
        match self.make(file, false).and_then(|()| open()) {
            // A link is in the way that leads nowhere.
            Err(Errno::NOENT) => self.make(file, true).and_then(|()| open()),
            result => result,
        }
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

    /// `links`: what symbolic links lead to is made too.
    fn make(&self, file: bool, links: bool) -> Result<()> {
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
            if links {
                make_through_link(&directory, name, file && index + 1 == self.parts.len(), MAX_LINKS)?;
            }
        }
        Ok(())
    }
}

/// How many links that lead nowhere are followed, one to the next.
const MAX_LINKS: u32 = 4;
/// The longest path, with a zero byte.
const PATH_BYTES: usize = 4096;

/// Makes what a symbolic link leads to, if that is missing, with all above it, beneath the root: `/etc/hosts -> ../run/hosts`. Allocates
/// nothing.
fn make_through_link(directory: &OwnedFd, name: &CStr, file: bool, links: u32) -> Result<()> {
    match resolve::open(directory, name, OFlags::PATH, ResolveFlags::NO_MAGICLINKS) {
        Err(Errno::NOENT) if links > 0 => {}
        Err(Errno::NOENT) => return Err(Errno::LOOP),
        // Whatever is wrong with what is there is told by who opens it.
        _ => return Ok(()),
    }
    let mut path = [0; PATH_BYTES];
    let length = match readlinkat_raw(directory, name, &mut path[..PATH_BYTES - 1]) {
        Ok(length) => length,
        // No link, and gone by now.
        Err(Errno::INVAL) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let mut begin = 0;
    while begin < length {
        let end = path[begin..length].iter().position(|byte| *byte == b'/').map_or(length, |at| begin + at);
        if end > begin {
            let last = path[end..length].iter().all(|byte| *byte == b'/');
            make_component(directory, &mut path, begin, end, file && last, links)?;
        }
        begin = end + 1;
    }
    Ok(())
}

fn c_str(bytes: &[u8]) -> Result<&CStr> {
    CStr::from_bytes_until_nul(bytes).map_err(|_| Errno::NAMETOOLONG)
}

/// Makes `path[begin..end]` in what is before it, if it is missing.
fn make_component(
    directory: &OwnedFd,
    path: &mut [u8; PATH_BYTES],
    begin: usize,
    end: usize,
    file: bool,
    links: u32,
) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let parent = match begin {
        0 => resolve::open(directory, c".", flags, ResolveFlags::NO_MAGICLINKS)?,
        // What is before it, with the slash at its end.
        _ => {
            let first = std::mem::replace(&mut path[begin], 0);
            let before = c_str(&path[..=begin]);
            let open = |before| resolve::open(directory, before, flags, ResolveFlags::NO_MAGICLINKS);
            let parent = before.and_then(open);
            path[begin] = first;
            parent?
        }
    };
    let after = std::mem::replace(&mut path[end], 0);
    let name = c_str(&path[begin..=end])?;
    let made = match name.to_bytes() {
        b"." | b".." => Ok(()),
        _ if file => mknodat(&parent, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0),
        _ => mkdirat(&parent, name, Mode::from_raw_mode(0o755)),
    };
    let made = match made {
        Err(Errno::EXIST | Errno::ROFS) if statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() => {
            make_through_link(&parent, name, file, links - 1)
        }
        made => made,
    };
    path[end] = after;
    made
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
