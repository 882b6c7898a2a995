//! Refuses programs that are reached through a magic link, such as `/proc/self/exe` (CVE-2019-5736).
//!
//! Until its exec the child *is* the runtime, so an image whose program is a symbolic link to `/proc/self/exe`, or a
//! script that begins with `#!/proc/self/exe`, would execute the runtime's own file inside the container; from there a
//! second process could open it by `/proc/PID/exe` and, once no copy runs any more, overwrite it on the host. So the
//! kernel resolves program and interpreters once before the exec, with magic links refused. While the supervisor runs,
//! writing to its file fails with ETXTBSY besides.
use crate::{steps::show, target::open_beneath_root};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2},
    io::{Errno, Result},
};
use std::ffi::{CStr, CString};

/// The programs that may be executed, the first that exists being the one that will be.
pub(crate) struct Check {
    /// Absolute paths.
    pub(crate) programs: Vec<CString>,
    /// Where a relative interpreter begins.
    pub(crate) directory: CString,
}

/// As many interpreters deep as the kernel goes (fs/exec.c, `exec_binprm`), and one more.
const MAX_INTERPRETERS: usize = 6;
/// The kernel reads as much of a script's first line (BINPRM_BUF_SIZE).
const LINE_BYTES: usize = 256;

impl Check {
    /// ELOOP for a magic link; what is missing or cannot be executed is left to execve(2).
    pub(crate) fn run(&self) -> Result<()> {
        let directory = match open_beneath_root(&self.directory, OFlags::PATH | OFlags::DIRECTORY) {
            // The step that changes to it reports that.
            Err(_) => return Ok(()),
            Ok(directory) => directory,
        };
        self.programs.iter().try_for_each(|program| check_chain(&directory, program))
    }

    /// The first program, for a message.
    pub(crate) fn show(&self) -> String {
        self.programs.first().map(|program| show(program)).unwrap_or_default()
    }
}

/// Follows `#!` lines, with the line in a buffer on the stack.
fn check_chain(directory: &OwnedFd, program: &CStr) -> Result<()> {
    let mut line = [0_u8; LINE_BYTES + 1];
    let mut length = match first_line(directory, program, &mut line)? {
        None => return Ok(()),
        Some(length) => length,
    };
    for _ in 0..MAX_INTERPRETERS {
        let mut next = [0_u8; LINE_BYTES + 1];
        let Some(name) = interpreter(&mut line, length) else { return Ok(()) };
        let Some(next_length) = first_line(directory, name, &mut next)? else { return Ok(()) };
        line = next;
        length = next_length;
    }
    Err(Errno::LOOP)
}

/// Reads the beginning of an executable file; None if there is nothing to read.
fn first_line(directory: &OwnedFd, path: &CStr, line: &mut [u8; LINE_BYTES + 1]) -> Result<Option<usize>> {
    let open = |flags| openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_MAGICLINKS);
    let file = match open(OFlags::PATH) {
        Err(Errno::LOOP) => return Err(Errno::LOOP),
        Err(_) => return Ok(None),
        Ok(file) => file,
    };
    if FileType::from_raw_mode(fstat(file.as_fd())?.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    // As root this fails only for files of unmapped users and the like.
    let Ok(file) = open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) else { return Ok(None) };
    let Some(buffer) = line.get_mut(..LINE_BYTES) else { return Ok(None) };
    rustix::io::read(&file, buffer).map(Some)
}

/// The interpreter that a `#!` line names, as the kernel parses it (fs/binfmt_script.c); ends it with NUL in place.
fn interpreter(line: &mut [u8; LINE_BYTES + 1], length: usize) -> Option<&CStr> {
    let text = line.get(..length)?.strip_prefix(b"#!")?;
    let text = text.split(|&byte| byte == b'\n').next()?;
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = 2 + text.iter().position(|byte| !blank(byte))?;
    let name = text.get(start - 2..)?.iter().take_while(|byte| !blank(byte) && **byte != 0).count();
    *line.get_mut(start + name)? = 0;
    CStr::from_bytes_with_nul(line.get(start..=start + name)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreter_lines_parse() {
        let table: [(&[u8], Option<&CStr>); 10] = [
            (b"#!/bin/sh\n", Some(c"/bin/sh")),
            (b"#! \t/bin/sh -e\necho", Some(c"/bin/sh")),
            (b"#!/bin/sh", Some(c"/bin/sh")),
            (b"#!/proc/self/exe\tx", Some(c"/proc/self/exe")),
            (b"#!rel/sh\n", Some(c"rel/sh")),
            (b"#!\n/bin/sh", None),
            (b"#!   ", None),
            (b"#!\0/bin/sh", None),
            (b"\x7fELF", None),
            (b"", None),
        ];
        for (text, expected) in table {
            let mut line = [0; LINE_BYTES + 1];
            line[..text.len()].copy_from_slice(text);
            let found = interpreter(&mut line, text.len()).filter(|name| !name.is_empty());
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(text));
        }
        let mut full = [b'x'; LINE_BYTES + 1];
        full[..2].copy_from_slice(b"#!");
        assert_eq!(interpreter(&mut full, LINE_BYTES).unwrap().count_bytes(), LINE_BYTES - 2);
    }
}
