//! The names in a layer: cleaned, bounded, and what they stand for. Pure functions over bytes.

use std::borrow::Cow;

/// `PATH_MAX` without its final NUL.
pub(super) const PATH_BYTES: usize = 4095;

/// What the last component of a name says about the layers below.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Marker<'a> {
    /// `.wh..wh..opq`: nothing of the layers below shows in this directory.
    Opaque,
    /// `.wh.NAME`: `NAME` is gone.
    Whiteout(&'a [u8]),
    /// AUFS's bookkeeping.
    Ignored,
}

/// The name relative to the root, without empty and `.` components. The root itself is the empty name.
///
/// # Errors
/// The reason why no layer may have this name.
pub(crate) fn clean(name: &[u8]) -> Result<Cow<'_, [u8]>, &'static str> {
    if name.contains(&0) {
        return Err("its name has a NUL byte");
    }
    let name = name.strip_suffix(b"/").unwrap_or(name);
    if name.len() > PATH_BYTES {
        return Err("its name is longer than a path can be (4095 bytes)");
    }
    if components(name).any(|part| part == b"..") {
        return Err("its name has a `..`, which could lead out of the image's root");
    }
    if !name.is_empty() && name.split(|&byte| byte == b'/').all(|part| !matches!(part, b"" | b".")) {
        return Ok(Cow::Borrowed(name));
    }
    Ok(Cow::Owned(components(name).collect::<Vec<_>>().join(&b'/')))
}

/// The components of a path, `.` and empty ones left out.
pub(crate) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."))
}

/// A clean name's directory and its last component.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// A directory's path and a name in it.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let separator: &[u8] = if directory.is_empty() || name.is_empty() { b"" } else { b"/" };
    [directory, separator, name].concat()
}

/// What follows `ancestor` in `path`; `None` where `path` does not lie beneath (or at) it.
pub(super) fn beneath<'a>(ancestor: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(ancestor)?;
    match rest.first() {
        _ if ancestor.is_empty() => Some(rest),
        None => Some(rest),
        Some(b'/') => Some(&rest[1..]),
        Some(_) => None,
    }
}

/// The marker that a clean name is, if it is one.
///
/// # Errors
/// A whiteout of nothing, of `.` or of `..`.
pub(super) fn marker(path: &[u8]) -> Result<Option<Marker<'_>>, &'static str> {
    let (directory, name) = split(path);
    if name == b".wh..wh..opq" {
        return Ok(Some(Marker::Opaque));
    }
    if name.starts_with(b".wh..wh.") || components(directory).any(|part| part.starts_with(b".wh..wh.")) {
        return Ok(Some(Marker::Ignored));
    }
    match name.strip_prefix(b".wh.") {
        Some(b"" | b"." | b"..") => Err("it is a whiteout of nothing, of `.` or of `..`"),
        other => Ok(other.map(Marker::Whiteout)),
    }
}

/// A name for an error message: readable, and short.
pub(crate) fn printable(name: &[u8]) -> String {
    if name.is_empty() {
        return "(none yet)".to_owned();
    }
    let shown = &name[..name.len().min(200)];
    let mut text = shown.escape_ascii().to_string();
    if shown.len() < name.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned() {
        for (given, expected) in [
            ("a", "a"),
            ("./a/b", "a/b"),
            ("/etc//passwd", "etc/passwd"),
            ("usr/", "usr"),
            ("./", ""),
            ("/", ""),
            ("a/./b/", "a/b"),
            ("..a/b..", "..a/b.."),
        ] {
            assert_eq!(clean(given.as_bytes()).as_deref(), Ok(expected.as_bytes()), "{given}");
        }
        for refused in ["..", "../x", "a/../b", "a/..", "/..", "a\0b"] {
            assert!(clean(refused.as_bytes()).is_err(), "{refused}");
        }
        assert!(clean(&[b'a'; 4096]).is_err());
    }

    #[test]
    fn markers_are_told_from_names() {
        for (given, expected) in [
            ("a/.wh.b", Ok(Some(Marker::Whiteout(b"b")))),
            (".wh.b", Ok(Some(Marker::Whiteout(b"b")))),
            ("a/.wh..wh..opq", Ok(Some(Marker::Opaque))),
            (".wh..wh.plnk", Ok(Some(Marker::Ignored))),
            (".wh..wh.plnk/12.34", Ok(Some(Marker::Ignored))),
            ("a/wh.b", Ok(None)),
            ("", Ok(None)),
        ] {
            assert_eq!(marker(given.as_bytes()), expected, "{given}");
        }
        for refused in [".wh.", "a/.wh..", ".wh..."] {
            assert!(marker(refused.as_bytes()).is_err(), "{refused}");
        }
    }

    #[test]
    fn paths_beneath_are_by_component() {
        for (ancestor, path, expected) in [
            ("", "a/b", Some("a/b")),
            ("a", "a/b/c", Some("b/c")),
            ("a", "a", Some("")),
            ("a", "ab", None),
            ("a/b", "a", None),
        ] {
            assert_eq!(beneath(ancestor.as_bytes(), path.as_bytes()), expected.map(str::as_bytes), "{ancestor} {path}");
        }
    }
}
