//! A request's path as routes see it: parts, decoded, none of which leads out of its place.

use std::borrow::Cow;

/// Why a path is refused. What stands behind would have to decode it in the same way to come to the same resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathError {
    /// It does not begin with a slash.
    Relative,
    /// `.` or `..`, in whatever spelling.
    Dots,
    /// A slash, a backslash or a control character that is encoded, or a backslash that is not.
    Hidden,
    /// `%` without two digits, or bytes that are no UTF-8.
    Encoding,
}

impl PathError {
    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::Relative => "a path begins with a slash",
            Self::Dots => "a path has no `.` and `..`",
            Self::Hidden => "a path has no encoded slashes and control characters, and no backslashes",
            Self::Encoding => "a path is UTF-8, and `%` is followed by two hexadecimal digits",
        }
    }
}

/// Its parts; none of `/`, and an empty one after a slash at the end.
pub(crate) fn segments(path: &str) -> Result<Vec<Cow<'_, str>>, PathError> {
    let rest = path.strip_prefix('/').ok_or(PathError::Relative)?;
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    rest.split('/').map(decode).collect()
}

fn decode(part: &str) -> Result<Cow<'_, str>, PathError> {
    let decoded = match part.contains('%') {
        false => Cow::Borrowed(part),
        true => Cow::Owned(percent_decoded(part)?),
    };
    let is_hidden = |c: char| c.is_control() || matches!(c, '/' | '\\');
    match &*decoded {
        "." | ".." => Err(PathError::Dots),
        text if text.contains(is_hidden) => Err(PathError::Hidden),
        _ => Ok(decoded),
    }
}

fn percent_decoded(part: &str) -> Result<String, PathError> {
    let digit = |byte: Option<u8>| byte.and_then(|byte| (byte as char).to_digit(16)).ok_or(PathError::Encoding);
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => u8::try_from(digit(rest.next())? * 16 + digit(rest.next())?).map_err(|_| PathError::Encoding)?,
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| PathError::Encoding)
}

/// What is left of a path when its first parts are taken off, and what these were.
pub(crate) fn split_after(path: &str, parts: usize) -> (&str, &str) {
    let mut slashes = path.char_indices().filter(|(_, character)| *character == '/').map(|(at, _)| at);
    match slashes.nth(parts) {
        Some(at) => path.split_at(at),
        None => (path, "/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_comes_apart_at_its_own_slashes() {
        let parts = |path| segments(path).unwrap().into_iter().map(Cow::into_owned).collect::<Vec<_>>();
        assert_eq!(parts("/"), Vec::<String>::new());
        assert_eq!(parts("/a/b"), ["a", "b"]);
        assert_eq!(parts("/a/"), ["a", ""]);
        assert_eq!(parts("//a"), ["", "a"]);
        assert_eq!(parts("/%61dmin/gr%C3%BC%C3%9F"), ["admin", "grüß"]);
        assert_eq!(parts("/a+b%20c/..."), ["a+b c", "..."]);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (path, error) in [
            ("", PathError::Relative),
            ("a", PathError::Relative),
            ("/a/../b", PathError::Dots),
            ("/a/%2e%2E/b", PathError::Dots),
            ("/.", PathError::Dots),
            ("/a%2fb", PathError::Hidden),
            ("/a%5Cb", PathError::Hidden),
            ("/a\\b", PathError::Hidden),
            ("/a%00", PathError::Hidden),
            ("/%0d%0aX", PathError::Hidden),
            ("/%", PathError::Encoding),
            ("/%4", PathError::Encoding),
            ("/%zz", PathError::Encoding),
            ("/%ff", PathError::Encoding),
        ] {
            assert_eq!(segments(path), Err(error), "{path}");
        }
    }

    #[test]
    fn a_beginning_is_taken_off_as_it_was_written() {
        for (path, parts, expected) in [
            ("/a/b/c", 0, ("", "/a/b/c")),
            ("/a/b/c", 1, ("/a", "/b/c")),
            ("/%61/b/", 1, ("/%61", "/b/")),
            ("/a", 1, ("/a", "/")),
            ("/a/", 1, ("/a", "/")),
            ("/a//b", 1, ("/a", "//b")),
        ] {
            assert_eq!(split_after(path, parts), expected, "{path}");
        }
    }
}
