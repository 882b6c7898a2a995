//! Files for core dumps, in a folder of the user's (`--coredump`).
//!
//! The program's process must reach nothing of the host, so it gets no folder: it gets files without a name (O_TMPFILE), opened on the
//! host before it begins. Its supervisor gives a name to those that the process says it has filled; the others are gone with it. The
//! name is the supervisor's own choice, whatever the process says.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, CWD, OFlags};
use serde::{Deserialize, Serialize};

use crate::{
    output,
    spec::{RunSpec, names},
};

/// How many requests of one run leave one.
const MOST: usize = 8;
/// Digits of a request's id.
const ID_DIGITS: usize = 16;

/// A file that was filled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Filled {
    index: usize,
    /// Of which request.
    request: Option<String>,
}

/// The supervisor's side.
#[derive(Debug)]
pub(crate) struct Dumps {
    dir: PathBuf,
    container: String,
    files: Vec<File>,
}

/// The process's side.
pub(super) struct Empty {
    files: Vec<File>,
    filled: Mutex<Vec<Filled>>,
}

/// Opens what the container's process and its supervisor need, if dumps are wanted.
pub(super) fn open(spec: &RunSpec, serves: bool) -> Result<(Option<Dumps>, Option<Empty>)> {
    let Some(dir) = &spec.wasm.core_dumps else { return Ok((None, None)) };
    let files = (0..if serves { MOST } else { 1 }).map(|_| unnamed(dir)).collect::<Result<Vec<_>>>()?;
    let copies = files.iter().map(File::try_clone).collect::<io::Result<_>>().context("cannot copy a descriptor")?;
    let container = format!("{}-{}", spec.name, names::short_id(&spec.id));
    Ok((Some(Dumps { dir: dir.clone(), container, files }), Some(Empty { files: copies, filled: Mutex::default() })))
}

/// What a process needs to make one: the dump, put together once more, beside the memory that it is of.
pub(super) fn bytes(spec: &RunSpec) -> u64 {
    let memory = spec.wasm.core_dumps.as_ref().and(spec.limits.memory_bytes);
    memory.map_or(0, |bytes| bytes.saturating_mul(2))
}

fn unnamed(dir: &Path) -> Result<File> {
    let mut options = File::options();
    options.read(true).write(true).mode(0o600).custom_flags(OFlags::TMPFILE.bits().cast_signed());
    options.open(dir).with_context(|| {
        format!(
            "--coredump {}: cannot make a file there: expected a folder on a file system that has O_TMPFILE",
            dir.display()
        )
    })
}

impl Empty {
    /// The descriptors, which the process keeps.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.files.iter().map(AsRawFd::as_raw_fd)
    }

    /// Fills the next one, if there is one left. What went wrong is for the log.
    pub(super) fn fill(&self, request: Option<&str>, dump: &[u8]) -> Option<io::Error> {
        let mut filled = self.filled.lock().unwrap_or_else(PoisonError::into_inner);
        let index = filled.len();
        let file = self.files.get(index)?;
        // One that is not whole has no name, and its place is used again.
        if let Err(error) = file.write_all_at(dump, 0) {
            let _ = file.set_len(0);
            return Some(error);
        }
        filled.push(Filled { index, request: request.map(str::to_owned) });
        None
    }

    /// Whether another one can be filled.
    pub(super) fn has_room(&self) -> bool {
        self.filled.lock().unwrap_or_else(PoisonError::into_inner).len() < self.files.len()
    }

    pub(super) fn filled(&self) -> Vec<Filled> {
        self.filled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Dumps {
    /// Names what was filled: where that lies now, and what went wrong.
    pub(crate) fn publish(&self, filled: &[Filled]) -> (Vec<String>, Option<String>) {
        let (mut paths, mut problem) = (Vec::new(), None);
        for (filled, file) in filled.iter().take(MOST).filter_map(|one| Some((one, self.files.get(one.index)?))) {
            match self.name(filled, file) {
                Ok(path) => paths.push(path.display().to_string()),
                Err(error) => problem = Some(format!("{error:#}")),
            }
        }
        (paths, problem)
    }

    fn name(&self, filled: &Filled, file: &File) -> Result<PathBuf> {
        // The word of a process that may have been taken over.
        let request = filled.request.as_ref().map_or(Ok(String::new()), |request| match is_id(request) {
            true => Ok(format!("-{request}")),
            false => bail!("a core dump is named after no request"),
        })?;
        let stem = format!("{}-{}{request}", self.container, output::now_nanos() / 1_000_000_000);
        let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
        for number in 0..100 {
            let number = if number == 0 { String::new() } else { format!("-{number}") };
            let path = self.dir.join(format!("{stem}{number}.coredump"));
            match rustix::fs::linkat(CWD, &unnamed, CWD, &path, AtFlags::SYMLINK_FOLLOW) {
                Err(rustix::io::Errno::EXIST) => {}
                linked => {
                    linked.with_context(|| format!("cannot name a core dump {}", path.display()))?;
                    return Ok(fs::canonicalize(&path).unwrap_or(path));
                }
            }
        }
        bail!("there are a hundred core dumps {}/{stem}*.coredump", self.dir.display())
    }
}

fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the process may say, if somebody else speaks in its name.
    #[test]
    fn a_dump_lies_in_its_folder_whatever_the_process_says() {
        let dir = tempfile::tempdir().unwrap();
        let files = vec![unnamed(dir.path()).unwrap(), unnamed(dir.path()).unwrap()];
        let dumps = Dumps { dir: dir.path().into(), container: "web-0123456789ab".to_owned(), files };
        let filled = |index, request: &str| Filled { index, request: Some(request.to_owned()) };
        let said = [
            filled(0, "../../etc/cron.d/x"),
            filled(7, "00112233445566aa"),
            filled(0, "00112233445566aa"),
            filled(0, "00112233445566aa"),
        ];
        let (paths, problem) = dumps.publish(&said);
        assert!(problem.unwrap().contains("after no request"));
        assert_eq!(paths.len(), 2);
        assert!(paths.iter().all(|path| path.contains("/web-0123456789ab-") && path.ends_with(".coredump")));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_dump_that_does_not_fit_is_none() {
        let empty =
            Empty { files: vec![File::options().write(true).open("/dev/full").unwrap()], filled: Mutex::default() };
        assert!(empty.fill(None, b"dump").is_some() && empty.filled().is_empty());
    }
}
