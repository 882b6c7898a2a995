//! Which directories the program is given, and under which names.

use crate::{RunError, wasi_p1::Outward};
use std::path::{Path, PathBuf};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

/// The first descriptor that is not one of the three streams.
const FIRST: i64 = 3;

/// A directory granted to the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preopen {
    /// Where it is, as this process sees it when [`crate::run`] is called (inside the container's own root).
    pub host: PathBuf,
    /// What the program calls it.
    pub guest: String,
    /// Whether the program may change it.
    pub writable: bool,
}

/// What was granted.
pub(crate) struct Granted {
    /// Where the directories lie, in the order of their descriptors.
    pub(crate) places: Vec<PathBuf>,
    /// How to come from the working directory, if it is one of them, to the grant around it.
    pub(crate) outward: Option<Outward>,
}

/// A directory within a grant.
#[derive(Debug, PartialEq)]
struct Within {
    /// The grant of it.
    preopen: Preopen,
    /// Which of the others it lies in, and the way from there.
    around: usize,
    way: PathBuf,
}

/// Opens all directories, the working directory first: a program that knows no names takes the first one it is given. `before`: so many
/// descriptors before them stand for something else, to which no call of the program's leads as a directory.
pub(crate) fn grant(
    wasi: &mut WasiCtxBuilder,
    preopens: &[Preopen],
    cwd: Option<&str>,
    before: usize,
) -> Result<Granted, RunError> {
    let root = Path::new("/");
    for _ in 0..before {
        wasi.preopened_dir(root, "", FsPerms::ReadOnly)
            .map_err(|error| RunError::Directory { host: root.into(), detail: format!("{error:#}") })?;
    }
    let cwd = cwd.map(|cwd| working_directory(preopens, cwd)).transpose()?.flatten();
    let working = cwd.as_ref().map(|within| &within.preopen);
    for preopen in working.into_iter().chain(preopens) {
        let perms = if preopen.writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
        wasi.preopened_dir(&preopen.host, &preopen.guest, perms)
            .map_err(|error| RunError::Directory { host: preopen.host.clone(), detail: format!("{error:#}") })?;
    }
    let granted = working.into_iter().chain(preopens).map(|preopen| preopen.host.clone());
    let places = std::iter::repeat_n(root.to_owned(), before).chain(granted).collect();
    Ok(Granted { places, outward: cwd.as_ref().and_then(|within| outward(within, before)) })
}

/// The grant named `.` that makes relative paths of a module work.
///
/// WASI p1 has no working directory. wasi-libc starts in `/`, and looks for the granted directory whose name is the
/// longest prefix of the path, where `/` and `.` both count as the empty prefix. So the directory is granted once more
/// as `.`, unless the caller grants `/` or `.` itself: that one then has to serve absolute paths, and relative ones begin
/// at it. Nothing is granted that is not already: a working directory outside of all grants is only a name.
fn working_directory(preopens: &[Preopen], cwd: &str) -> Result<Option<Within>, RunError> {
    if preopens.iter().any(|preopen| matches!(preopen.guest.as_str(), "/" | ".")) {
        return Ok(None);
    }
    let within = |preopen: &Preopen| Path::new(cwd).strip_prefix(&preopen.guest).map(Path::to_owned).ok();
    let nearest = preopens.iter().enumerate().filter_map(|(around, preopen)| Some((around, preopen, within(preopen)?)));
    let nearest = nearest.min_by_key(|(_, _, rest)| rest.components().count());
    let Some((around, preopen, rest)) = nearest else { return Ok(None) };
    let host = beneath(&preopen.host, &rest).map_err(|detail| RunError::WorkingDirectory {
        guest: cwd.into(),
        host: preopen.host.join(&rest),
        detail,
    })?;
    let preopen = Preopen { host, guest: ".".into(), writable: preopen.writable };
    Ok(Some(Within { preopen, around, way: rest }))
}

/// None where it is the grant itself: there is nothing around it.
fn outward(within: &Within, before: usize) -> Option<Outward> {
    let way = within.way.to_str().filter(|way| !way.is_empty())?.to_owned();
    let from = FIRST.checked_add(i64::try_from(before).ok()?)?;
    // The working directory comes before the others.
    let around = from.checked_add(1)?.checked_add(i64::try_from(within.around).ok()?)?;
    Some(Outward { from, around, way })
}

/// The directory `rest` in `host`, if it is there and no link leads out of `host`.
fn beneath(host: &Path, rest: &Path) -> Result<PathBuf, String> {
    if rest.as_os_str().is_empty() {
        return Ok(host.to_owned());
    }
    let root = host.canonicalize().map_err(|error| error.to_string())?;
    let found = root.join(rest).canonicalize().map_err(|error| error.to_string())?;
    if found.starts_with(&root) { Ok(found) } else { Err("it leads out of the granted directory".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(guest: &str, host: &Path) -> Preopen {
        Preopen { host: host.into(), guest: guest.into(), writable: guest != "/read-only" }
    }

    #[test]
    fn the_working_directory_is_granted_from_the_nearest_grant() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("outer/inner/deep")).unwrap();
        std::os::unix::fs::symlink("/", root.join("outer/out")).unwrap();
        let (outer, inner) = (root.join("outer"), root.join("outer/inner"));
        let preopens = [granted("/a", &outer), granted("/a/b", &inner), granted("/read-only", &outer)];

        let host = |cwd| working_directory(&preopens, cwd).unwrap().map(|within| within.preopen.host);
        assert_eq!(host("/a"), Some(outer));
        assert_eq!(host("/a/inner"), Some(inner.clone()));
        assert_eq!(host("/a/b"), Some(inner.clone()));
        assert_eq!(host("/a/b/deep/"), Some(inner.join("deep")));
        assert_eq!(host("/ab"), None);
        assert_eq!(host("/"), None);

        let read_only = working_directory(&preopens, "/read-only").unwrap().unwrap().preopen;
        assert_eq!((read_only.guest.as_str(), read_only.writable), (".", false));

        for outside in ["/a/out", "/a/../../etc", "/a/missing"] {
            assert!(working_directory(&preopens, outside).is_err(), "{outside}");
        }
    }

    #[test]
    fn a_grant_of_everything_is_not_hidden_by_the_working_directory() {
        for root in ["/", "."] {
            let preopens = [granted(root, Path::new("/tmp")), granted("/src", Path::new("/tmp"))];
            assert_eq!(working_directory(&preopens, "/src").unwrap(), None, "{root}");
        }
    }
}
