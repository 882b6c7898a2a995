//! Files that a user names, whoever else may write there: regular ones, up to a length, and none that is waited for.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// All of it.
///
/// # Errors
/// It cannot be read, is no regular file (a pipe would be waited for), or has more than `most` bytes.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it is larger than {most} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let [file, pipe, none] = ["file", "pipe", "none"].map(|name| folder.path().join(name));
        fs::write(&file, "text").unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&file, 4).unwrap(), b"text");
        for (path, most, problem) in [
            (&file, 3, "larger than 3 bytes"),
            (&pipe, 3, "no regular file"),
            (&folder.path().to_owned(), 3, "no regular file"),
            (&none, 3, "No such file"),
        ] {
            let error = read(path, most).unwrap_err().to_string();
            assert!(error.contains(problem), "{}: {error}", path.display());
        }
    }
}
