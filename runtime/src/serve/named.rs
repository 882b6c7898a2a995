//! Sockets of files, by paths of any length: the kernel takes 107 bytes of one (unix(7)), and less where its folder is held.

use std::{
    io,
    os::{
        fd::AsRawFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
};

use rustix::fs::{CWD, Mode, OFlags, openat};

pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    by_folder(path, |path| UnixListener::bind(path))
}

pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    by_folder(path, |path| UnixStream::connect(path))
}

fn by_folder<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let held = openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    act(&Path::new("/proc/self/fd").join(held.as_raw_fd().to_string()).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_path_may_be_longer_than_the_kernel_takes() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(100)).join("e".repeat(100));
        fs::create_dir_all(&deep).unwrap();
        let path = deep.join("socket");
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let listener = bind(&path).unwrap();
        connect(&path).unwrap();
        assert!(bind(&path).is_err() && path.exists());
        drop(listener);
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(bind(&deep.join("f".repeat(200))).is_err() && bind(Path::new("/")).is_err());
    }
}
